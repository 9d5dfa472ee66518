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
    """Asymmetric squared error of `u = target - prediction` (Kostrikov et al. 2021, eq. 5).

    Args:
        predictions, targets: `(*batch,)`, of equal shape; so is the result, which is not averaged.
        expectile: weight of `u > 0`; `1 - expectile` weighs `u < 0`. Near 1 the minimiser follows the largest targets;
            0.5 is half the squared error.
    """
    return expectile_value_loss(predictions[None], targets[None], targets - predictions, expectile)[0]


def double_value_targets(
    rewards: jax.Array, masks: jax.Array, next_values: jax.Array, values: jax.Array, discount: float
) -> tuple[jax.Array, jax.Array]:
    """Targets and advantages of an action-free expectile regression with several heads (HIQL, Park et al. 2023).

    Each head has a target of its own. The smallest next value only enters the advantage, whose sign all heads share.

    Args:
        rewards, masks: `(*batch,)`.
        next_values, values: `(heads, *batch)`, of the target network.

    Returns:
        `r + discount * m * V_i(s')`, `(heads, *batch)`, and `r + discount * m * min_i V_i(s') - mean_i V_i(s)`,
        `(*batch,)`.
    """
    chex.assert_equal_shape([next_values, values])
    targets = jax.vmap(lambda head: td_targets(rewards, masks, head, discount))(next_values)
    return targets, td_targets(rewards, masks, next_values.min(axis=0), discount) - values.mean(axis=0)


def expectile_value_loss(values: jax.Array, targets: jax.Array, advantages: jax.Array, expectile: float) -> jax.Array:
    """`|expectile - 1[A < 0]| * (y_i - V_i)^2`, `(heads, *batch)`: the weight follows A, not the head's own error.

    Args:
        values, targets: `(heads, *batch)`.
        advantages: `(*batch,)`; where it is 0 the weight is `expectile`.
    """
    chex.assert_equal_shape([values, targets])
    chex.assert_equal_shape([values[0], advantages])
    weights = jnp.where(advantages >= 0.0, expectile, 1.0 - expectile)
    return weights[None] * jnp.square(targets - values)
