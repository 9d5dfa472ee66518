"""Contrastive losses on pairs of embeddings."""

from __future__ import annotations

import math

import chex
import jax
import jax.numpy as jnp


def paired_logits(left: jax.Array, right: jax.Array) -> jax.Array:
    """`x . y / sqrt(dim)` of each pair, `(*batch,)`, for embeddings `(*batch, dim)`."""
    chex.assert_equal_shape([left, right])
    return (left * right).sum(axis=-1) / math.sqrt(left.shape[-1])


def all_logits(left: jax.Array, right: jax.Array) -> jax.Array:
    """`x_i . y_j / sqrt(dim)` of all pairs, `(members, rows, rows)`, for embeddings `(members, rows, dim)`."""
    chex.assert_equal_shape([left, right])
    return jnp.einsum("eik,ejk->eij", left, right) / math.sqrt(left.shape[-1])


def binary_nce_loss(logits: jax.Array) -> jax.Array:
    """Binary noise-contrastive estimation: row i goes with column i and with no other (Eysenbach et al. 2022).

    Args:
        logits: `(members, rows, rows)`; so is the result, the cross-entropy of each pair, not averaged.
    """
    labels = jnp.eye(logits.shape[-1])[None]
    return -(labels * jax.nn.log_sigmoid(logits) + (1.0 - labels) * jax.nn.log_sigmoid(-logits))
