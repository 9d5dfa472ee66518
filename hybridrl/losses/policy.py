"""Losses for policies: entropy-regularised, weighted regression, and climbing a critic."""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp


def soft_policy_loss(log_probs: jax.Array, q: jax.Array, entropy_temperature: jax.Array) -> jax.Array:
    """SAC's actor loss `temperature * log pi(a|s) - Q(s, a)` (Haarnoja et al. 2018, eq. 7), not averaged.

    Args:
        log_probs, q: `(*batch,)` of reparameterised actions; so is the result.
        entropy_temperature: `()`; no gradient flows into it.
    """
    chex.assert_equal_shape([log_probs, q])
    return jax.lax.stop_gradient(entropy_temperature) * log_probs - q


def log_temperature_loss(entropy_temperature: jax.Array, entropy: jax.Array, target_entropy: float) -> jax.Array:
    """`log(temperature) * (H - target)`, `()`: many PyTorch codes' form, whose slope in the log has no temperature."""
    return jnp.log(entropy_temperature) * (jax.lax.stop_gradient(entropy) - target_entropy)


def temperature_loss(entropy_temperature: jax.Array, entropy: jax.Array, target_entropy: float) -> jax.Array:
    """`temperature * (H - target)`, `()`: above the target the temperature falls (Haarnoja et al. 2018, eq. 18)."""
    return entropy_temperature * (jax.lax.stop_gradient(entropy) - target_entropy)


def awr_weights(advantages: jax.Array, inverse_temperature: float, max_weight: float = 100.0) -> jax.Array:
    """`min(exp(inverse_temperature * A), max_weight)`, `(*batch,)`: the weights of advantage-weighted regression.

    Peng et al. 2019 and, with the critic's expectile as baseline, Kostrikov et al. 2021, eq. 7. Larger trusts the
    critic more, smaller stays nearer to cloning.
    """
    return jnp.minimum(jnp.exp(inverse_temperature * advantages), max_weight)


def smoothed_actions(key: jax.Array, actions: jax.Array, noise: float, noise_clip: float) -> jax.Array:
    """TD3's target smoothing: clipped Gaussian noise on `actions`, kept in [-1, 1] (Fujimoto et al. 2018, sec. 5.3)."""
    draws = jnp.clip(noise * jax.random.normal(key, actions.shape), -noise_clip, noise_clip)
    return jnp.clip(actions + draws, -1.0, 1.0)


def scale_free_policy_loss(q: jax.Array, epsilon: float = 0.0) -> jax.Array:
    """`-Q / (mean |Q| + epsilon)`, `(*batch,)`: the values' scale does not matter (Fujimoto & Gu 2021, eq. 5).

    No gradient flows through the mean.
    """
    return -q / jax.lax.stop_gradient(jnp.abs(q).mean() + epsilon)


def ddpg_bc_loss(q: jax.Array, log_probs: jax.Array, bc_weight: float) -> jax.Array:
    """`-Q / (mean |Q| + 1e-6) - bc_weight * log pi(a_data)`, `(*batch,)`: OGBench's DDPG+BC (Park et al. 2024).

    Args:
        q: `(*batch,)`, of the policy's own actions, which the gradient flows through.
        log_probs: `(*batch,)`, of the data's actions.
    """
    chex.assert_equal_shape([q, log_probs])
    return scale_free_policy_loss(q, 1e-6) - bc_weight * log_probs


def clipped_surrogate(log_ratio: jax.Array, advantages: jax.Array, clip_range: float | jax.Array) -> jax.Array:
    """`min(ratio * A, clip(ratio, 1 - clip_range, 1 + clip_range) * A)`, to be raised (Schulman et al. 2017, eq. 7).

    Args:
        log_ratio: `(*batch,)`, the logarithm of the new policy's density over the old one's.
        advantages: `(*batch,)`; so is the result.
    """
    chex.assert_equal_shape([log_ratio, advantages])
    ratio = jnp.exp(log_ratio)
    return jnp.minimum(ratio * advantages, jnp.clip(ratio, 1.0 - clip_range, 1.0 + clip_range) * advantages)
