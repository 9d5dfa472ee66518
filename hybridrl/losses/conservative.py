"""Conservative value penalties: CQL's log-sum-exp over sampled actions and Cal-QL's lower bound on it."""

from __future__ import annotations

import math

import chex
import jax
import jax.numpy as jnp


def importance_sampled_gap(
    q_samples: jax.Array, log_densities: jax.Array, q_data: jax.Array, softmax_temperature: float = 1.0
) -> jax.Array:
    """CQL(H)'s `T log sum_j exp((Q(s,a_j) - log mu(a_j)) / T) - Q(s, a_data)` (Kumar et al. 2020, eq. 4, appendix F).

    It is a sum, not a mean: with constant Q and a uniform proposal over `[-1, 1]^A` the gap is
    `log num_actions + A log 2`, an offset that a Lagrange threshold must include.

    Args:
        q_samples: `(critics, num_actions, *batch)`.
        log_densities: `(num_actions, *batch)`, of the proposal each action was drawn from.
        q_data: `(critics, *batch)`.

    Returns:
        `(critics, *batch)`.
    """
    chex.assert_equal_shape([q_samples[0], log_densities])
    scaled = (q_samples - log_densities[None]) / softmax_temperature
    return softmax_temperature * jax.nn.logsumexp(scaled, axis=1) - q_data


def mean_exp_gap(q_samples: jax.Array, q_data: jax.Array, softmax_temperature: float = 1.0) -> jax.Array:
    """The penalty without importance weights: a mean-exp over the samples and the data action itself.

    Shapes as in `importance_sampled_gap`. A constant Q gives exactly zero.
    """
    values = jnp.concatenate([q_samples, q_data[:, None]], axis=1)
    offset = softmax_temperature * math.log(values.shape[1])
    return softmax_temperature * jax.nn.logsumexp(values / softmax_temperature, axis=1) - offset - q_data


def calibrate(q_samples: jax.Array, lower_bounds: jax.Array) -> jax.Array:
    """Cal-QL's `max(Q(s, a_j), G(s))` (Nakamoto et al. 2023, eq. 5.1): what lies below the bound is not pushed down.

    Args:
        q_samples: `(critics, num_actions, *batch)`, of the policy's actions; uniform ones are not bounded.
        lower_bounds: `(*batch,)`, Monte-Carlo returns of the behaviour policy.
    """
    chex.assert_equal_shape([q_samples[0, 0], lower_bounds])
    return jnp.maximum(q_samples, lower_bounds[None, None])
