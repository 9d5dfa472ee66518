"""Goals for goal-conditioned agents, drawn from a dataset inside compiled code, by the rules of OGBench and OTA.

Rows are the dataset's transitions; the state of a row is the one before its action. An episode of T steps offers T
states as goals. Its very last observation, after the last action, is none: in the benchmark's files the rows that count
as valid end one before it, and its samplers go no further. So the goal "in the future" of the last row is that row.

The `..._rows` functions map keys and row numbers to row numbers; the samplers gather the states.
"""

from __future__ import annotations

import dataclasses
from typing import Self

import jax
import jax.numpy as jnp
from flax import struct

from hybridrl.datasets.dataset import Dataset
from hybridrl.errors import ConfigError
from hybridrl.types import GoalSteps, GoalTransitions, HierarchicalTransitions, OptionTransitions, Transitions

_OPTIONS = 1_000  # folded into a batch's key for the options; `split` of that key gives no such key


@dataclasses.dataclass(frozen=True)
class GoalMixture:
    """Where goals come from: shares, which sum to 1.

    Attributes:
        current: the row's own state.
        trajectory: a later state of the same episode.
        random: any state of the dataset, the same episode's past included.
        geometric: whether the number of steps to a later state is geometric with mean `1 / (1 - discount)`, cut at the
            episode's end; else that state is uniform over the rest of the episode.
    """

    current: float = 0.2
    trajectory: float = 0.5
    random: float = 0.3
    geometric: bool = True

    def __post_init__(self) -> None:
        """Reject shares that are none."""
        shares = (self.current, self.trajectory, self.random)
        if min(shares) < 0.0 or abs(sum(shares) - 1.0) > 1e-6:
            raise ConfigError(
                f"goals: current={self.current}, trajectory={self.trajectory}, random={self.random}; "
                "expected shares of at least 0 that sum to 1"
            )

    @property
    def trajectory_share(self) -> float:
        """The share of later states among goals that are not the current state."""
        return self.trajectory / max(1.0 - self.current, 1e-6)


def future_rows(key: jax.Array, rows: jax.Array, last_rows: jax.Array, discount: float, geometric: bool) -> jax.Array:
    """A later row of the same episode for each row, int32 `(batch,)`; the last row's is the row itself.

    Args:
        rows: int32 `(batch,)`.
        last_rows: int32 `(batch,)`, the last rows of their episodes.
        discount, geometric: see `GoalMixture`.
    """
    left = last_rows - rows
    if geometric:
        return rows + jnp.minimum(jax.random.geometric(key, 1.0 - discount, rows.shape).astype(jnp.int32), left)
    shares = jax.random.uniform(key, rows.shape)
    return rows + jnp.round(shares * jnp.minimum(1, left) + (1.0 - shares) * left).astype(jnp.int32)


def random_rows(key: jax.Array, shape: tuple[int, ...], num_rows: int) -> jax.Array:
    """Rows drawn uniformly from all `num_rows` of them, int32."""
    return jax.random.randint(key, shape, 0, num_rows)


def goal_rows(
    key: jax.Array, rows: jax.Array, last_rows: jax.Array, num_rows: int, mixture: GoalMixture, discount: float
) -> jax.Array:
    """A goal for each row, int32 `(batch,)`, from a dataset of `num_rows` rows."""
    future_key, random_key, trajectory_key, current_key = jax.random.split(key, 4)
    future = future_rows(future_key, rows, last_rows, discount, mixture.geometric)
    later = jax.random.bernoulli(trajectory_key, mixture.trajectory_share, rows.shape)
    goals = jnp.where(later, future, random_rows(random_key, rows.shape, num_rows))
    return jnp.where(jax.random.bernoulli(current_key, mixture.current, rows.shape), rows, goals)


def high_level_rows(
    key: jax.Array, rows: jax.Array, last_rows: jax.Array, num_rows: int, settings: HierarchicalGoals
) -> tuple[jax.Array, jax.Array]:
    """Goals of the high level and the states it should name on the way, both int32 `(batch,)` (HIQL).

    The state on the way is `subgoal_steps` later, or the goal if that comes first; towards a random goal, or the
    episode's end if that comes first.
    """
    future_key, random_key, choice_key = jax.random.split(key, 3)
    future = future_rows(future_key, rows, last_rows, settings.discount, settings.geometric_goals)
    ahead = rows + settings.subgoal_steps
    is_random = jax.random.bernoulli(choice_key, settings.random_goals, rows.shape)
    goals = jnp.where(is_random, random_rows(random_key, rows.shape, num_rows), future)
    return goals, jnp.minimum(ahead, jnp.where(is_random, last_rows, future))


def option_rows(
    key: jax.Array,
    rows: jax.Array,
    last_rows: jax.Array,
    num_rows: int,
    mixture: GoalMixture,
    discount: float,
    option_steps: int,
) -> tuple[jax.Array, jax.Array]:
    """Ends of options and their goals, both int32 `(batch,)` (OTA, Ahn et al. 2025).

    An option from each row stops after `option_steps` steps, at a goal later in the episode, or at the episode's end.
    The share `current` of goals is the option's own end. Geometric goals are so in environment steps, whatever
    `option_steps` is.
    """
    future_key, random_key, trajectory_key, current_key = jax.random.split(key, 4)
    future = future_rows(future_key, rows, last_rows, discount, mixture.geometric)
    later = jax.random.bernoulli(trajectory_key, mixture.trajectory_share, rows.shape)
    ends = jnp.minimum(rows + option_steps, jnp.where(later, future, last_rows))
    goals = jnp.where(later, future, random_rows(random_key, rows.shape, num_rows))
    return ends, jnp.where(jax.random.bernoulli(current_key, mixture.current, rows.shape), ends, goals)


@dataclasses.dataclass(frozen=True)
class FlatGoals:
    """Goals of agents with one policy.

    Attributes:
        value, actor: where the goals of values and policy come from.
        discount: of geometric steps.
    """

    value: GoalMixture
    actor: GoalMixture
    discount: float

    def sampler(self, dataset: Dataset) -> FlatGoalSampler:
        """Draws GoalTransitions from `dataset`."""
        return FlatGoalSampler(rows=GoalRows.of(dataset), settings=self)


@dataclasses.dataclass(frozen=True)
class HierarchicalGoals:
    """Goals of agents with two levels.

    Attributes:
        value: where the value's goals come from.
        random_goals: share of the high level's goals that are any state; the others are later ones of the episode.
        geometric_goals: whether these are a geometric number of steps away, else uniform.
        subgoal_steps: steps to the state that the low level is told to reach.
        discount: of geometric steps.
    """

    value: GoalMixture
    random_goals: float
    geometric_goals: bool
    subgoal_steps: int
    discount: float

    def sampler(self, dataset: Dataset) -> HierarchicalGoalSampler:
        """Draws HierarchicalTransitions from `dataset`."""
        return HierarchicalGoalSampler(rows=GoalRows.of(dataset), settings=self)


@dataclasses.dataclass(frozen=True)
class OptionGoals:
    """`HierarchicalGoals` and, beside them, options of at most `option_steps` steps."""

    hierarchical: HierarchicalGoals
    option_steps: int

    def sampler(self, dataset: Dataset) -> OptionGoalSampler:
        """Draws OptionTransitions from `dataset`."""
        return OptionGoalSampler(hierarchical=self.hierarchical.sampler(dataset), option_steps=self.option_steps)


class GoalRows(struct.PyTreeNode):
    """A dataset as the samplers see it."""

    transitions: Transitions  # leaves (rows, ...)
    last_rows: jax.Array  # int32 (rows,), the last row of each row's episode

    @classmethod
    def of(cls, dataset: Dataset) -> Self:
        """All rows of `dataset`."""
        last_rows = jnp.arange(dataset.num_rows, dtype=jnp.int32) + dataset.rows_left() - 1
        return cls(transitions=dataset.transitions, last_rows=last_rows)

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self.last_rows)

    def states(self, rows: jax.Array) -> jax.Array:
        """Observations `(batch, obs_dim)` before the action of each row."""
        return self.transitions.observations[rows]

    def steps(self, rows: jax.Array, goals: jax.Array) -> GoalSteps:
        """One step from each row towards a goal; it is at the goal if that is its own row, whatever the states are."""
        reached = (goals == rows).astype(jnp.float32)
        return GoalSteps(
            observations=self.states(rows),
            next_observations=self.transitions.next_observations[rows],
            goals=self.states(goals),
            rewards=reached - 1.0,
            masks=1.0 - reached,
        )


class FlatGoalSampler(struct.PyTreeNode):
    """Rows drawn uniformly, with replacement, and their goals."""

    rows: GoalRows
    settings: FlatGoals = struct.field(pytree_node=False)

    def sample(self, key: jax.Array, batch_size: int) -> GoalTransitions:
        """A batch with leaves `(batch_size, ...)`."""
        data, settings = self.rows, self.settings
        row_key, value_key, actor_key = jax.random.split(key, 3)
        rows = random_rows(row_key, (batch_size,), data.count)
        last = data.last_rows[rows]
        value_goals = goal_rows(value_key, rows, last, data.count, settings.value, settings.discount)
        actor_goals = goal_rows(actor_key, rows, last, data.count, settings.actor, settings.discount)
        return GoalTransitions(
            steps=data.steps(rows, value_goals),
            actions=data.transitions.actions[rows],
            actor_goals=data.states(actor_goals),
        )


class HierarchicalGoalSampler(struct.PyTreeNode):
    """Rows drawn uniformly, with replacement, and goals for both levels."""

    rows: GoalRows
    settings: HierarchicalGoals = struct.field(pytree_node=False)

    def draw_rows(self, key: jax.Array, batch_size: int) -> jax.Array:
        """The rows that `sample` draws with this key, int32 `(batch_size,)`."""
        return random_rows(jax.random.split(key, 3)[0], (batch_size,), self.rows.count)

    def sample(self, key: jax.Array, batch_size: int) -> HierarchicalTransitions:
        """A batch with leaves `(batch_size, ...)`."""
        data, settings = self.rows, self.settings
        _, value_key, high_key = jax.random.split(key, 3)
        rows = self.draw_rows(key, batch_size)
        last = data.last_rows[rows]
        value_goals = goal_rows(value_key, rows, last, data.count, settings.value, settings.discount)
        high_goals, high_targets = high_level_rows(high_key, rows, last, data.count, settings)
        return HierarchicalTransitions(
            steps=data.steps(rows, value_goals),
            actions=data.transitions.actions[rows],
            low_goals=data.states(jnp.minimum(rows + settings.subgoal_steps, last)),
            high_goals=data.states(high_goals),
            high_targets=data.states(high_targets),
        )


class OptionGoalSampler(struct.PyTreeNode):
    """The batches of a `HierarchicalGoalSampler` with the same key, and options that begin in the same states."""

    hierarchical: HierarchicalGoalSampler
    option_steps: int = struct.field(pytree_node=False)

    def sample(self, key: jax.Array, batch_size: int) -> OptionTransitions:
        """A batch with leaves `(batch_size, ...)`. An option is at its goal if it ends in the goal's row."""
        data, settings = self.hierarchical.rows, self.hierarchical.settings
        rows = self.hierarchical.draw_rows(key, batch_size)
        ends, goals = option_rows(
            jax.random.fold_in(key, _OPTIONS),
            rows,
            data.last_rows[rows],
            data.count,
            settings.value,
            settings.discount,
            self.option_steps,
        )
        reached = (ends == goals).astype(jnp.float32)
        options = GoalSteps(
            observations=data.states(rows),
            next_observations=data.states(ends),
            goals=data.states(goals),
            rewards=reached - 1.0,
            masks=1.0 - reached,
        )
        return OptionTransitions(hierarchical=self.hierarchical.sample(key, batch_size), options=options)
