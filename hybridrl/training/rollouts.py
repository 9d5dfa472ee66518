"""Rollouts for on-policy agents, from copies of an environment on the device or Gymnasium environments on the host."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from hybridrl.datasets.returns import monte_carlo_returns
from hybridrl.errors import ConfigError
from hybridrl.functional import Environment, Running, StepResult, advance, begin, select_copies
from hybridrl.replay import StepSampler, UniformSampler
from hybridrl.task import Task
from hybridrl.training.phases import Phase
from hybridrl.types import Agent, Metrics, OnPolicyBatch, Policy, Rollout, Transitions

AgentT = TypeVar("AgentT", bound=Agent)


class Collected(struct.PyTreeNode):
    """A rollout, and what only the loop wants to know of it. Leaves `(num_steps, num_envs, ...)`."""

    rollout: Rollout
    raw_rewards: Any  # (num_steps, num_envs), the environment's own
    successes: Any  # (num_steps, num_envs), bool


class Collector(Protocol):
    """Steps environments, each on from where it was left; an episode that ended begins again."""

    def collect(self, policy: Policy, key: jax.Array) -> Collected:
        """The next steps of all environments under `policy`."""
        ...

    def close(self) -> None:
        """Close the environments."""
        ...


class TaskProcess(struct.PyTreeNode):
    """A functional environment as its task describes it, on the functional interface: `envs.TaskEnv` in compiled code.

    Actions are clipped, if the task says so, and stretched from [-1, 1] to the environment's bounds; successes may
    terminate and the task's horizon truncates. Rewards are still the environment's own. The state is its state and the
    steps taken.
    """

    env: Any
    task: Task = struct.field(pytree_node=False)

    @classmethod
    def create(cls, task: Task) -> TaskProcess:
        """The process of a task that has one.

        Raises:
            ConfigError: its actions are no vectors.
        """
        assert task.functional is not None, "the caller has looked"
        env = task.functional(task)
        if not hasattr(env.actions, "low"):
            raise ConfigError(
                f"task {task.name!r}: the actions of {task.env_id!r} are {env.actions}; expected a bounded vector; "
                "wrap the environment in envs.functional.ArgmaxActions"
            )
        # Without what only says how things are made, equal tasks compare equal and share one compilation.
        return cls(env, dataclasses.replace(task, dataset=None, make=None, simulator=None, functional=None))

    @property
    def obs_dim(self) -> int:
        """As inside."""
        return self.env.obs_dim

    @property
    def actions(self) -> Any:
        """As inside; the agent's are stretched to these bounds."""
        return self.env.actions

    @property
    def horizon(self) -> int:
        """The task's."""
        return self.task.horizon

    def reset(self, key: jax.Array) -> tuple[Any, jax.Array]:
        """Begin an episode."""
        state, observation = self.env.reset(key)
        return (state, jnp.int32(0)), observation

    def step(self, state: Any, action: jax.Array, key: jax.Array) -> StepResult:
        """Act for one step, with an action as a policy gives it."""
        inner, steps = state
        space = self.env.actions
        scaled = space.low + (self.task.played(action, jnp) + 1.0) * 0.5 * (space.high - space.low)
        inner, observation, reward, terminated, truncated = self.env.step(inner, scaled, key)
        _, _, terminated = self.task.transform(action, reward, terminated, self.solved(reward, terminated), jnp)
        truncated = ~terminated & (truncated | (steps + 1 >= self.task.horizon))
        return (inner, steps + 1), observation, reward, terminated, truncated

    def solved(self, reward: jax.Array, terminated: jax.Array) -> jax.Array:
        """What the task calls a success, bool `()`."""
        if self.task.success_key is None:
            return jnp.bool_(False)
        return reward > 0 if self.task.success_key == "reward" else self.env.solved(reward, terminated)


class DeviceCollector:
    """Copies of a functional environment, stepped in one compiled scan per rollout.

    Args:
        process: what to step.
        num_envs: copies of it.
        num_steps: steps of each in a rollout.
        key: of the first episodes' starts.
    """

    def __init__(self, process: TaskProcess, num_envs: int, num_steps: int, key: jax.Array) -> None:
        self._process, self._num_envs, self._num_steps = process, num_envs, num_steps
        self._running = _begin(process, key, num_envs=num_envs)
        self._carries: Any = None

    def collect(self, policy: Policy, key: jax.Array) -> Collected:
        """The next steps of all copies."""
        carries = _begin_carries(policy, self._num_envs) if self._carries is None else self._carries
        (self._running, self._carries), collected = _collect(
            self._process, policy, (self._running, carries), key, num_steps=self._num_steps
        )
        return collected

    def close(self) -> None:
        """Nothing to close."""


@functools.partial(jax.jit, static_argnames="num_envs")
def _begin(process: Environment, key: jax.Array, *, num_envs: int) -> Running:
    return begin(process, key, num_envs)


@functools.partial(jax.jit, static_argnames="num_steps")
def _collect(
    process: TaskProcess, policy: Policy, start: tuple[Running, Any], key: jax.Array, *, num_steps: int
) -> tuple[tuple[Running, Any], Collected]:
    num_envs = len(start[0].observations)

    def step(state: tuple[Running, Any], step_key: jax.Array) -> tuple[tuple[Running, Any], Collected]:
        running, carries = state
        act_key, env_key, reset_key = jax.random.split(step_key, 3)
        actions, carries = _act(policy, carries, running.observations, act_key)
        following, (reached, raw, terminations, truncations) = advance(process, running, actions, env_key, reset_key)
        ends = terminations | truncations
        carries = select_copies(ends, _begin_carries(policy, num_envs), carries)
        successes = jax.vmap(process.solved)(raw, terminations)
        _, rewards, _ = process.task.transform(actions, raw, terminations, successes, jnp)
        rollout = Rollout(
            observations=running.observations,
            actions=actions,
            rewards=rewards,
            masks=1.0 - terminations,
            ends=ends.astype(jnp.float32),
            next_observations=reached,
        )
        return (following, carries), Collected(rollout, raw, successes)

    return jax.lax.scan(step, start, jax.random.split(key, num_steps))


def _begin_carries(policy: Policy, num_envs: int) -> Any:
    """What the policy remembers at the start of an episode in each environment: leaves `(num_envs, ...)`."""

    def begin_in_one(number: jax.Array) -> Any:
        return jax.tree.map(jnp.asarray, policy.begin(number))

    return jax.vmap(begin_in_one)(jnp.arange(num_envs))


def _act(policy: Policy, carries: Any, observations: jax.Array, key: jax.Array) -> tuple[jax.Array, Any]:
    """Actions in all environments, whose episodes may be at different steps, and the policy's next carries."""
    if not jax.tree.leaves(carries):
        return policy.act(carries, observations, key)

    def act_in_one(carry: Any, observation: jax.Array, key: jax.Array) -> tuple[jax.Array, Any]:
        actions, carry = policy.act(carry, observation[None], key)
        return actions[0], carry

    return jax.vmap(act_in_one)(carries, observations, jax.random.split(key, len(observations)))


@jax.jit
def _act_on_host(
    policy: Policy, carries: Any, begun: jax.Array, observations: jax.Array, key: jax.Array
) -> tuple[jax.Array, Any]:
    """As `_act`; where an episode has just `begun`, bool `(num_envs,)`, the policy begins too."""
    carries = select_copies(begun, _begin_carries(policy, len(begun)), carries)
    return _act(policy, carries, observations, key)


class HostCollector:
    """Environments of a task as `envs.make_env` builds them, stepped one after the other.

    Args:
        make_env: builds one from a seed.
        seeds: one per environment.
        num_steps: steps of each in a rollout.
    """

    def __init__(self, make_env: Callable[[int], Any], seeds: Sequence[int], num_steps: int) -> None:
        self._envs = [make_env(seed) for seed in seeds]
        self._num_steps = num_steps
        self._observations = np.stack([env.reset()[0] for env in self._envs])
        self._begun = np.ones(len(self._envs), bool)
        self._carries: Any = None

    def collect(self, policy: Policy, key: jax.Array) -> Collected:
        """The next steps of all environments."""
        if self._carries is None:
            self._carries = _begin_carries(policy, len(self._envs))
        steps = [self._step(policy, step_key) for step_key in jax.random.split(key, self._num_steps)]
        return jax.tree.map(lambda *rows: np.stack(rows), *steps)

    def _step(self, policy: Policy, key: jax.Array) -> Collected:
        """One step of each, leaves `(num_envs, ...)`."""
        before = self._observations
        chosen, self._carries = _act_on_host(policy, self._carries, self._begun, before, key)
        actions = np.asarray(chosen)
        following, reached, rewards, masks, ends, raw, successes = ([] for _ in range(7))
        for env, action in zip(self._envs, actions, strict=True):
            observation, reward, terminated, truncated, info = env.step(action)
            reached.append(observation)
            rewards.append(reward)
            masks.append(1.0 - terminated)
            ends.append(terminated or truncated)
            raw.append(info["raw_reward"])
            successes.append(info["success"])
            following.append(env.reset()[0] if terminated or truncated else observation)
        self._observations, self._begun = np.stack(following), np.array(ends, bool)
        fields: dict[str, Any] = {
            "observations": before,
            "actions": actions,
            "rewards": np.array(rewards, np.float32),
            "masks": np.array(masks, np.float32),
            "ends": np.array(ends, np.float32),
            "next_observations": np.stack(reached),
        }
        return Collected(Rollout(**fields), np.array(raw, np.float32), np.array(successes, bool))

    def close(self) -> None:
        """Close the environments."""
        for env in self._envs:
            env.close()


def check_segments(phases: Sequence[Phase], horizon: int, checkpoint_every: int) -> None:
    """Raise ConfigError if checkpoints, at which environments are rebuilt, came before any episode could end."""
    for phase in phases:
        needed = phase.num_envs * horizon
        longest = max(checkpoint_every, phase.steps_per_rollout)
        if phase.batches == "rollouts" and longest < min(needed, phase.env_steps):
            raise ConfigError(
                f"phase {phase.name!r}: with checkpoint_every={checkpoint_every} each of num_envs={phase.num_envs} "
                f"environments is rebuilt before an episode of {horizon} steps can end; make checkpoint_every at least "
                f"{needed}, or lower num_envs"
            )


def cut_short(rollout: Rollout) -> Rollout:
    """The rollout with every episode cut after its last step, as by a time limit."""
    ends = jnp.asarray(rollout.ends)
    return rollout.replace(ends=ends.at[-1].set(1.0))


@functools.partial(jax.jit, static_argnames="num_offline", donate_argnames="agent")
def update_on_rollout(
    agent: AgentT,
    rollout: Rollout,
    offline: UniformSampler | StepSampler | None,
    key: jax.Array,
    *,
    num_offline: int,
) -> tuple[AgentT, Metrics]:
    """One update of `agent`, which is donated, on a rollout and `num_offline` rows of the dataset.

    Args:
        offline: draws those rows; of each time step so many, if it is a StepSampler. Not touched if there are 0.
        key: of the draw.
    """
    drawn = None
    if num_offline:
        assert offline is not None, "checked before training starts"
        drawn = offline.sample(key, num_offline)
    return agent.update(OnPolicyBatch(rollout=rollout, offline=drawn))


@dataclasses.dataclass(frozen=True)
class Outcomes:
    """Of finished episodes, `(episodes,)` each."""

    returns: np.ndarray  # sums of the environment's own rewards
    lengths: np.ndarray
    successes: np.ndarray  # bool


class EpisodeSplitter:
    """Puts the episodes of consecutive rollouts together on the host."""

    def __init__(self, task: Task, discount: float, num_envs: int) -> None:
        self._task, self._discount = task, discount
        self._open: list[list[Collected]] = [[] for _ in range(num_envs)]  # of each environment's unfinished episode

    def add(self, part: Collected) -> tuple[Transitions | None, Outcomes]:
        """The episodes that a rollout finished: their steps, with their Monte-Carlo returns, and their outcomes.

        Args:
            part: NumPy arrays.

        Returns:
            Leaves `(steps, ...)`, each episode's in a row, None if none was finished; and the outcomes.
        """
        finished: list[Collected] = []
        for env, pieces in enumerate(self._open):
            column = jax.tree.map(lambda leaf, env=env: leaf[:, env], part)
            ends = np.flatnonzero(column.rollout.ends)
            if len(ends):
                cut = int(ends[-1]) + 1
                finished += [*pieces, jax.tree.map(lambda leaf, cut=cut: leaf[:cut], column)]
                column = jax.tree.map(lambda leaf, cut=cut: leaf[cut:], column)
                pieces.clear()
            pieces.append(column)
        if not finished:
            return None, Outcomes(np.zeros(0), np.zeros(0), np.zeros(0, bool))
        return self._finish(jax.tree.map(lambda *leaves: np.concatenate(leaves), *finished))

    def _finish(self, steps: Collected) -> tuple[Transitions, Outcomes]:
        rows: Any = steps.rollout  # of NumPy arrays
        task = self._task
        returns: Any = monte_carlo_returns(rows.rewards, rows.masks, rows.ends, self._discount, task.failure_reward)
        transitions = Transitions(
            observations=rows.observations,
            actions=task.transform(rows.actions, 0.0, False, False)[0],
            rewards=rows.rewards,
            masks=rows.masks,
            next_observations=rows.next_observations,
            mc_returns=returns,
        )
        last_rows = np.flatnonzero(rows.ends)
        starts = np.concatenate([[0], last_rows[:-1] + 1])
        return transitions, Outcomes(
            returns=np.add.reduceat(np.asarray(steps.raw_rewards, np.float64), starts),
            lengths=last_rows - starts + 1,
            successes=np.logical_or.reduceat(steps.successes, starts),
        )


def outcome_metrics(outcomes: Sequence[Outcomes], success: bool) -> dict[str, float]:
    """Means over all episodes; nothing if there are none. `success`: whether the task has a notion of it."""
    lengths = np.concatenate([found.lengths for found in outcomes]) if outcomes else np.zeros(0)
    if not len(lengths):
        return {}
    metrics = {
        "rollout/episodes": float(len(lengths)),
        "rollout/return": float(np.concatenate([found.returns for found in outcomes]).mean()),
        "rollout/length": float(lengths.mean()),
    }
    if success:
        metrics["rollout/success_rate"] = float(np.concatenate([found.successes for found in outcomes]).mean())
    return metrics
