"""Losses and targets for value functions."""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp


def td_targets(rewards: jax.Array, masks: jax.Array, next_values: jax.Array, discount: float) -> jax.Array:
    """One-step targets `r + discount * m * V(s')`; all arguments and the result are `(*batch,)`."""
    chex.assert_equal_shape([rewards, masks, next_values])
    return rewards + discount * masks * next_values


def ensemble_backup(next_q: jax.Array) -> jax.Array:
    """Value of the next state: the smallest critic per action, then the best of the sampled actions.

    With one action this is the clipped double-Q target (REDQ, Chen et al. 2021, with the random subset already
    drawn); with several it is CQL's max-target backup (Kumar et al. 2020, appendix F).

    Args:
        next_q: `(critics, num_actions, *batch)`.

    Returns:
        `(*batch,)`.
    """
    return next_q.min(axis=0).max(axis=0)


def squared_td_errors(q: jax.Array, targets: jax.Array) -> jax.Array:
    """`(Q_i - y)^2`, `(critics, *batch)`, for `q` of that shape and shared `targets` `(*batch,)`."""
    chex.assert_equal_shape([q[0], targets])
    return jnp.square(q - targets[None])


def expectile_loss(predictions: jax.Array, targets: jax.Array, expectile: float) -> jax.Array:
    """Asymmetric squared error of `u = target - prediction` (Kostrikov et al. 2021, section 4.1, eq. 5).

    Args:
        predictions, targets: `(*batch,)`, of equal shape; so is the result, which is not averaged.
        expectile: weight of `u > 0`; `1 - expectile` weighs the others, a tie included. Near 1 the minimiser follows
            the largest targets; 0.5 is half the squared error.
    """
    chex.assert_equal_shape([predictions, targets])
    errors = targets - predictions
    return jnp.where(errors > 0, expectile, 1.0 - expectile) * jnp.square(errors)
