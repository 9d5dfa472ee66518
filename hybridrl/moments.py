"""Mean and deviation of all numbers seen so far, and rewards in units of the deviation of their returns."""

from __future__ import annotations

from typing import Self

import jax
import jax.numpy as jnp
from flax import struct

_CONSTANT = 1e-6  # a smaller deviation is no variation


class Moments(struct.PyTreeNode):
    """Mean and deviation of rows that come in batches, entry by entry, without keeping the rows (Chan et al. 1979)."""

    count: jax.Array  # float32 (), rows so far
    mean: jax.Array  # (*shape,)
    squares: jax.Array  # (*shape,), sum of squared differences from the mean

    @classmethod
    def create(cls, shape: tuple[int, ...] = ()) -> Self:
        """Of no rows yet."""
        return cls(count=jnp.zeros(()), mean=jnp.zeros(shape), squares=jnp.zeros(shape))

    def add(self, rows: jax.Array) -> Self:
        """Those of the rows so far and of `rows` `(num_rows, *shape)`."""
        count = self.count + len(rows)
        mean, squares = rows.mean(axis=0), len(rows) * rows.var(axis=0)
        difference = mean - self.mean
        return self.replace(
            count=count,
            mean=self.mean + difference * (len(rows) / count),
            squares=self.squares + squares + jnp.square(difference) * (self.count * len(rows) / count),
        )

    @property
    def std(self) -> jax.Array:
        """The deviation, `(*shape,)`; 0 before any row."""
        return jnp.sqrt(self.squares / jnp.maximum(self.count, 1.0))


def running_returns(
    rewards: jax.Array, ends: jax.Array, start: jax.Array, discount: float
) -> tuple[jax.Array, jax.Array]:
    """Discounted sums of the rewards so far of each episode, looking back: `R <- discount * R + r`.

    Args:
        rewards, ends: `(num_steps, num_envs)`, as in a `Rollout`.
        start: `(num_envs,)`, the sums before the first step.

    Returns:
        The sums after each step `(num_steps, num_envs)`, and those to go on from, which are 0 after an end.
    """

    def step(total: jax.Array, inputs: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        reward, end = inputs
        total = discount * total + reward
        return total * (1.0 - end), total

    following, totals = jax.lax.scan(step, start, (rewards, ends))
    return totals, following


def reward_unit(moments: Moments) -> jax.Array:
    """What to divide rewards by, `()`: the deviation of their running returns, or 1 where these do not vary."""
    return jnp.where(moments.std > _CONSTANT, moments.std, 1.0)
