"""Losses for stochastic policies with an entropy bonus."""

from __future__ import annotations

import chex
import jax


def soft_policy_loss(log_probs: jax.Array, q: jax.Array, entropy_temperature: jax.Array) -> jax.Array:
    """SAC's actor loss `temperature * log pi(a|s) - Q(s, a)` (Haarnoja et al. 2018, eq. 7), not averaged.

    Args:
        log_probs, q: `(*batch,)` of reparameterised actions; so is the result.
        entropy_temperature: `()`; no gradient flows into it.
    """
    chex.assert_equal_shape([log_probs, q])
    return jax.lax.stop_gradient(entropy_temperature) * log_probs - q


def temperature_loss(entropy_temperature: jax.Array, entropy: jax.Array, target_entropy: float) -> jax.Array:
    """`temperature * (H - target)`, `()`: above the target the temperature falls (Haarnoja et al. 2018, eq. 18)."""
    return entropy_temperature * (jax.lax.stop_gradient(entropy) - target_entropy)
