"""Flow matching: learning a velocity field that carries noise to data, and following it."""

from __future__ import annotations

from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp


def straight_path(noise: jax.Array, data: jax.Array, times: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Points `(1 - t) * noise + t * data` and the velocity `data - noise` there (Park et al. 2025, algorithm 1).

    Args:
        noise, data: `(*batch, dim)`.
        times: `(*batch, 1)`, in [0, 1].
    """
    chex.assert_equal_shape([noise, data])
    return (1.0 - times) * noise + times * data, data - noise


def follow_flow(velocity: Callable[[jax.Array, jax.Array], jax.Array], noise: jax.Array, num_steps: int) -> jax.Array:
    """Where `num_steps` Euler steps of the field lead from `noise` `(*batch, dim)` (Park et al. 2025, algorithm 1).

    Args:
        velocity: of points `(*batch, dim)` at times `(*batch, 1)`.
    """

    def step(points: jax.Array, index: jax.Array) -> tuple[jax.Array, None]:
        times = jnp.full((*points.shape[:-1], 1), index / num_steps, points.dtype)
        return points + velocity(points, times) / num_steps, None

    return jax.lax.scan(step, noise, jnp.arange(num_steps))[0]
