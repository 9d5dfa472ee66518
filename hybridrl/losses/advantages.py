"""Advantages from consecutive steps of a policy."""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp

from hybridrl.losses.value import td_targets


def generalized_advantages(
    rewards: jax.Array,
    values: jax.Array,
    next_values: jax.Array,
    masks: jax.Array,
    ends: jax.Array,
    discount: float,
    trace_decay: float,
) -> jax.Array:
    """Generalised advantage estimates (Schulman et al. 2016, eq. 16): sums of decayed TD errors to the episode's end.

    `A_t = delta_t + discount * trace_decay * (1 - end_t) * A_{t+1}` with the TD errors
    `delta_t = r_t + discount * m_t * V(s'_t) - V(s_t)`. A time limit ends the sum and keeps the bootstrap, a
    termination ends both, and after the last step there is nothing to sum.

    Args:
        rewards, values, next_values, masks, ends: `(num_steps, *batch)`, as in a `Rollout`; `next_values` are of where
            the steps led.

    Returns:
        `(num_steps, *batch)`.
    """
    chex.assert_equal_shape([rewards, values, next_values, masks, ends])
    errors = td_targets(rewards, masks, next_values, discount) - values

    def back(following: jax.Array, step: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        error, end = step
        advantage = error + discount * trace_decay * (1.0 - end) * following
        return advantage, advantage

    return jax.lax.scan(back, jnp.zeros_like(errors[0]), (errors, ends), reverse=True)[1]


def standardized(advantages: jax.Array, floor: float = 1e-5) -> jax.Array:
    """`advantages` with mean 0 and deviation 1 over all of them; `floor` is added to what they are divided by."""
    return (advantages - advantages.mean()) / (advantages.std() + floor)
