"""Batches that look beyond one step: n-step returns, and the action that followed."""

from __future__ import annotations

import dataclasses
from typing import Self

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from hybridrl.datasets.dataset import Dataset
from hybridrl.errors import ConfigError
from hybridrl.replay.buffer import ReplayBuffer
from hybridrl.types import Transitions


@dataclasses.dataclass(frozen=True)
class Lookahead:
    """What a row of a batch tells of the steps after it.

    Attributes:
        n_step: steps whose rewards are summed; fewer where the episode ends before.
        next_actions: whether the action taken at `next_observations` is wanted.
        discount: of the sum, the agent's own.
    """

    n_step: int
    next_actions: bool
    discount: float

    @property
    def window(self) -> int:
        """Consecutive rows it needs to see."""
        return self.n_step + int(self.next_actions)


def look_ahead(rows: Transitions, index: jax.Array, inside: jax.Array, settings: Lookahead) -> Transitions:
    """n-step transitions beginning at `index[:, 0]`.

    With k steps up to the n-th or the last one of the episode, `rewards` is `sum_{i<k} discount^i r_i` and `masks` is
    `discount^(k-1) m_{k-1}`. A one-step target computed from them, `rewards + discount * masks * V(next_observations)`,
    is the k-step one: it bootstraps after a time limit, from the state in which the episode was cut, and not after a
    termination. `mc_returns` stay those of the first row.

    Args:
        rows: leaves `(rows, ...)`.
        index: int32 `(batch, window)`, rows in time order; those not `inside` may be any.
        inside: bool `(batch, window)`, true up to the end of the first row's episode; the first column is true.
    """
    steps = inside[:, : settings.n_step]
    count = steps.sum(axis=1)
    last = jnp.take_along_axis(index, count[:, None] - 1, axis=1)[:, 0]
    powers = settings.discount ** np.arange(settings.n_step, dtype=np.float32)
    rewards = jnp.where(steps, rows.rewards[index[:, : settings.n_step]] * powers[None], 0.0).sum(axis=1)
    first = index[:, 0]
    next_actions = None
    if settings.next_actions:
        # Column `count` is the step after the last one summed; it exists as there is one column more than steps.
        following = jnp.take_along_axis(index, count[:, None], axis=1)[:, 0]
        known = jnp.take_along_axis(inside, count[:, None], axis=1)
        next_actions = jnp.where(known, rows.actions[following], jnp.nan)
    return Transitions(
        observations=rows.observations[first],
        actions=rows.actions[first],
        rewards=rewards,
        masks=rows.masks[last] * jnp.asarray(powers)[count - 1],
        next_observations=rows.next_observations[last],
        mc_returns=rows.mc_returns[first],
        next_actions=next_actions,
    )


class LookaheadSampler(struct.PyTreeNode):
    """Uniform over the rows of a dataset, with replacement, each with what followed it in its episode."""

    transitions: Transitions  # leaves (rows, ...)
    rows_left: jax.Array  # int32 (rows,): steps from each row to the end of its episode, itself included
    settings: Lookahead = struct.field(pytree_node=False)

    @classmethod
    def create(cls, dataset: Dataset, settings: Lookahead) -> Self:
        """Over all rows of `dataset`.

        Raises:
            ConfigError: `n_step` is less than 1.
        """
        if settings.n_step < 1:
            raise ConfigError(f"n_step={settings.n_step}; expected at least 1")
        return cls(transitions=dataset.transitions, rows_left=dataset.rows_left(), settings=settings)

    def sample(self, key: jax.Array, batch_size: int) -> Transitions:
        """A batch with leaves `(batch_size, ...)`."""
        rows = jax.random.randint(key, (batch_size,), 0, len(self.rows_left))
        steps = jnp.arange(self.settings.window)
        inside = steps[None] < self.rows_left[rows][:, None]
        index = jnp.where(inside, rows[:, None] + steps[None], rows[:, None])
        return look_ahead(self.transitions, index, inside, self.settings)


class BufferLookahead(struct.PyTreeNode):
    """Uniform over a replay buffer, each row with what followed it.

    The buffer keeps no episodes. A row continues the one before it if that one did not terminate and led exactly to
    where this one begins. After a cut this is true only if the next episode happens to begin in the very state in which
    the last one was cut, and then going on is right: from there on it is the same process.
    """

    buffer: ReplayBuffer
    settings: Lookahead = struct.field(pytree_node=False)

    def sample(self, key: jax.Array, batch_size: int) -> Transitions:
        """A batch with leaves `(batch_size, ...)`; the loop ensures that the buffer holds rows."""
        buffer, storage = self.buffer, self.buffer.storage
        rows = jax.random.randint(key, (batch_size,), 0, buffer.size)
        index = (rows[:, None] + jnp.arange(self.settings.window)[None]) % buffer.capacity
        before, after = index[:, :-1], index[:, 1:]
        equal = storage.next_observations[before] == storage.observations[after]
        joined = equal.all(axis=tuple(range(2, equal.ndim)))
        joined &= (storage.masks[before] > 0.0) & (after != buffer.cursor)  # nothing is newer than the newest row
        alive = jnp.cumprod(joined.astype(jnp.int32), axis=1).astype(bool)
        inside = jnp.concatenate([jnp.ones((batch_size, 1), bool), alive], axis=1)
        return look_ahead(storage, index, inside, self.settings)
