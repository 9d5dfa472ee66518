"""Distances that need not be symmetric but keep the triangle inequality, on latent vectors."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import linen as nn

INTERVALS = 8  # of a component of IQE


class IQE(nn.Module):
    """Interval quasimetric embedding (Wang & Isola 2022): `(*batch, dim)` twice to distances `(*batch,)`.

    The latent is split into components of 8 entries. A component's distance is the length of the union of the intervals
    `[x_j, max(x_j, y_j)]`; a trained share mixes the components' mean and maximum.
    """

    @nn.compact
    def __call__(self, start: jax.Array, end: jax.Array) -> jax.Array:
        """The distance from `start` to `end`; `dim` must be a multiple of 8."""
        share = jax.nn.sigmoid(self.param("share", nn.initializers.zeros, ()))
        shape = (*start.shape[:-1], -1, INTERVALS)
        components = union_length(start.reshape(shape), end.reshape(shape))
        return share * components.mean(axis=-1) + (1.0 - share) * components.max(axis=-1)


class MRN(nn.Module):
    """Metric residual network (Liu et al. 2023): `(*batch, dim)` twice to distances `(*batch,)`.

    A Euclidean distance on the first half of the latent plus `max_j relu(x_j - y_j)` on the second.
    """

    @nn.compact
    def __call__(self, start: jax.Array, end: jax.Array) -> jax.Array:
        """The distance from `start` to `end`; `dim` must be even."""
        differences = start - end
        half = start.shape[-1] // 2
        squares = jnp.square(differences[..., :half]).sum(axis=-1)
        apart = squares > 0.0  # the root's gradient is infinite at 0
        symmetric = jnp.where(apart, jnp.sqrt(jnp.where(apart, squares, 1.0)), 0.0)
        return symmetric + jax.nn.relu(differences[..., half:]).max(axis=-1)


def union_length(starts: jax.Array, ends: jax.Array) -> jax.Array:
    """Length of the union of the intervals `[starts_j, max(starts_j, ends_j)]` along the last axis, `(*batch,)`."""
    order = jnp.argsort(starts, axis=-1)
    lower = jnp.take_along_axis(starts, order, axis=-1)
    upper = jnp.take_along_axis(jnp.maximum(starts, ends), order, axis=-1)
    covered = jax.lax.cummax(upper, axis=upper.ndim - 1)
    # What an interval adds is what lies beyond everything that the earlier ones cover.
    before = jnp.concatenate([lower[..., :1], covered[..., :-1]], axis=-1)
    return jax.nn.relu(upper - jnp.maximum(lower, before)).sum(axis=-1)


QUASIMETRICS = {"iqe": IQE, "mrn": MRN}
