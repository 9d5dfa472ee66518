"""What passes between the parts: batches of experience, metrics, and what an agent and a policy must offer."""

from __future__ import annotations

from typing import Any, Protocol, Self, runtime_checkable

import jax
from flax import struct

Metrics = dict[str, jax.Array]  # "part/quantity" -> a float32 scalar


class Transitions(struct.PyTreeNode):
    """One-step transitions, or in a batch n-step ones (see `hybridrl.replay.lookahead`).

    Of an n-step transition `rewards` is the discounted sum of the steps' rewards, `next_observations` is where the last
    of them led, and `masks` carries the discount of the steps between: the target is `rewards + discount * masks * V`.
    """

    observations: jax.Array  # (*batch, obs_dim)
    actions: jax.Array  # (*batch, action_dim), entries in [-1, 1]
    rewards: jax.Array  # (*batch,), after the task's shift and scale
    masks: jax.Array  # (*batch,), 0.0 after a true termination, else 1.0; a time limit keeps 1.0
    next_observations: jax.Array  # (*batch, obs_dim)
    mc_returns: jax.Array  # (*batch,), discounted return-to-go; NaN where the episode was not finished at insertion
    next_actions: jax.Array | None = (
        None  # (*batch, action_dim) taken at next_observations, NaN where unknown; if asked
    )


class Trajectories(struct.PyTreeNode):
    """Stretches of consecutive steps, padded at the end to one length.

    `transitions` has leaves `(*batch, length, ...)`; rows where `valid` is 0.0 are padding and hold zeros.
    """

    transitions: Transitions
    valid: jax.Array  # (*batch, length), 1.0 for a real step


class GoalSteps(struct.PyTreeNode):
    """What a goal-conditioned value learns from: where a step (or a whole option) towards a goal began and ended."""

    observations: jax.Array  # (*batch, obs_dim)
    next_observations: jax.Array  # (*batch, obs_dim), where the step or option ended
    goals: jax.Array  # (*batch, obs_dim); goals are states
    rewards: jax.Array  # (*batch,), 0.0 at the goal, else -1.0
    masks: jax.Array  # (*batch,), 0.0 at the goal, else 1.0


class GoalTransitions(struct.PyTreeNode):
    """A batch of a goal-conditioned agent with one policy."""

    steps: GoalSteps
    actions: jax.Array  # (*batch, action_dim), taken at steps.observations
    actor_goals: jax.Array  # (*batch, obs_dim), what the policy is told to reach


class HierarchicalTransitions(struct.PyTreeNode):
    """A batch of a goal-conditioned agent with two levels of policy."""

    steps: GoalSteps
    actions: jax.Array  # (*batch, action_dim), taken at steps.observations
    low_goals: jax.Array  # (*batch, obs_dim), the state a few steps later: what the low level is told to reach
    high_goals: jax.Array  # (*batch, obs_dim), what the high level is told to reach
    high_targets: jax.Array  # (*batch, obs_dim), the state a few steps later on the way: what it should answer


class OptionTransitions(struct.PyTreeNode):
    """A hierarchical batch, and beside it options of several steps from the same states."""

    hierarchical: HierarchicalTransitions
    options: GoalSteps  # next_observations, rewards and masks belong to the options' ends


class SourcedBatch(struct.PyTreeNode):
    """Offline and online rows kept apart, for agents that treat them differently."""

    offline: Transitions  # leaves (offline rows, ...)
    online: Transitions  # leaves (online rows, ...)


class SourceBlock(struct.PyTreeNode):
    """Several batches in a row from one source, for agents that take several steps on each."""

    transitions: Transitions  # leaves (num_batches, batch_size, ...)
    offline_share: jax.Array  # float32 (): 1.0 if all rows are offline, 0.0 if all are online, else their share


class Rollout(struct.PyTreeNode):
    """Consecutive steps of several environments under one policy.

    After an end the next row of that environment begins a new episode; `next_observations` are what the step led to,
    never the observation of the reset. The last row is in general no end: the rollout is cut there.
    """

    observations: jax.Array  # (num_steps, num_envs, obs_dim)
    actions: jax.Array  # (num_steps, num_envs, action_dim), as the policy returned them
    rewards: jax.Array  # (num_steps, num_envs), after the task's shift and scale
    masks: jax.Array  # (num_steps, num_envs), 0.0 after a true termination, else 1.0
    ends: jax.Array  # (num_steps, num_envs), 1.0 where the episode ended: termination or truncation
    next_observations: jax.Array  # (num_steps, num_envs, obs_dim)


class OnPolicyBatch(struct.PyTreeNode):
    """What an on-policy agent updates from: fresh steps, and rows of the dataset drawn for this update.

    Agents take the log-probabilities of the stored actions at the start of `update`: the policy has not changed since.
    """

    rollout: Rollout
    offline: Transitions | None = None  # leaves (rows, ...), or drawn by time step (num_steps, rows, ...)


class BootstrapBatch(struct.PyTreeNode):
    """What an ensemble's members learn from, each from its own resample of the data, and rows none of them sees."""

    training: Transitions  # leaves (num_members, batch_size, ...)
    holdout: Transitions  # leaves (held-out rows, ...), the same in every batch
    num_rows: jax.Array  # int32 (), rows that are not held out; so many per member are one epoch


class Sampler(Protocol):
    """A pytree that draws batches inside compiled code."""

    def sample(self, key: jax.Array, batch_size: int) -> Any:
        """A batch, in most cases Transitions, with leaves `(batch_size, ...)`."""
        ...


class Policy(Protocol):
    """How anything acts: `begin` once an episode, `act` at every step.

    The carry is what the policy remembers within an episode: empty for a plain actor, a goal, a latent or a history
    for others. So one evaluation loop serves them all.
    """

    def begin(self, context: Any) -> Any:
        """The carry for the start of an episode.

        Args:
            context: what the task hands out at reset (a goal, a prompt), None if nothing. In an on-policy agent's
                rollouts, the number of the environment among those that act side by side, int32 `()`: they may play
                different parts.
        """
        ...

    def act(self, carry: Any, observations: jax.Array, key: jax.Array) -> tuple[jax.Array, Any]:
        """Actions `(*batch, action_dim)` for observations `(*batch, obs_dim)`, and the next carry."""
        ...


class Agent(Protocol):
    """An immutable pytree that learns: `update` returns a new agent and leaves this one as it was."""

    def update(self, batch: Any) -> tuple[Self, Metrics]:
        """One update from `batch`: Transitions with leaves `(batch_size, ...)`, or what the phase's sampler draws.

        Agents that must know where rows come from take a `SourcedBatch` or a `SourceBlock`, on-policy ones an
        `OnPolicyBatch`.
        """
        ...

    def policy(self, *, deterministic: bool) -> Policy:
        """What acts: the mode of the action distribution (evaluation) or a sample from it (data collection)."""
        ...

    def parts(self) -> dict[str, Any]:
        """The networks by role ("actor", "critic", ...), which is what can be handed to another agent."""
        ...

    def with_parts(self, parts: dict[str, Any]) -> Self:
        """This agent with the named parts in place of its own."""
        ...

    def diagnose(self, batch: Any, key: jax.Array) -> Metrics:
        """`q` and `td_error`, both averaged over a batch as `update` gets: what the switch panel follows.

        Trains nothing. Empty for an agent that learns no values.
        """
        ...


@runtime_checkable
class JudgedByReturns(Protocol):
    """An agent that, now and then in a phase on data, lets the environment decide between policies of its own."""

    def candidates(self) -> tuple[Policy, ...]:
        """The policies to be tried, always as many."""
        ...

    def judged(self, returns: jax.Array) -> Self:
        """This agent after its candidates had these mean undiscounted returns `(candidates,)`."""
        ...


@runtime_checkable
class FitsObservations(Protocol):
    """An agent that takes constants, such as means and deviations, from the dataset before it is trained."""

    def fit_observations(self, observations: jax.Array | None) -> Self:
        """This agent with constants from `observations` `(rows, obs_dim)`, the dataset's; None if there is none.

        Raises:
            ConfigError: its settings need a dataset, and there is none.
        """
        ...
