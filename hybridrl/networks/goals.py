"""Networks of goal-conditioned agents, as OGBench's reference agents have them (Park et al. 2024)."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from flax import linen as nn

from hybridrl.distributions import Normal
from hybridrl.networks.critics import MEMBERS
from hybridrl.networks.mlp import MLP, kernel_init

_INITIALIZER = "xavier_uniform"  # variance scaling 1 over the mean of fan-in and fan-out, uniform


class UnitNormalActor(nn.Module):
    """State and goal to a Normal over `(*batch, action_dim)` with deviation 1. GELU, no LayerNorm.

    The means begin near 0. The goal may be a state or a representation of one.
    """

    hidden_dims: tuple[int, ...]
    action_dim: int

    @nn.compact
    def __call__(self, observations: jax.Array, goals: jax.Array) -> Normal:
        """The action distribution, for `observations` `(*batch, obs_dim)` and `goals` `(*batch, goal_dim)`."""
        inputs = jnp.concatenate([observations, goals], axis=-1)
        features = MLP(self.hidden_dims, initializer=_INITIALIZER, activation="gelu")(inputs)
        small = nn.initializers.variance_scaling(0.01, "fan_avg", "uniform")
        mean = nn.Dense(self.action_dim, kernel_init=small, name="mean")(features)
        return Normal(mean, jnp.ones_like(mean))


class Embedding(nn.Module):
    """Inputs `(*batch, any)`, concatenated, to vectors `(*batch, dim)`: GELU, then LayerNorm, on hidden layers."""

    hidden_dims: tuple[int, ...]
    dim: int
    length_normalized: bool = False  # the result then has the length sqrt(dim)

    @nn.compact
    def __call__(self, *inputs: jax.Array) -> jax.Array:
        """The embedding."""
        trunk = MLP(self.hidden_dims, layer_norm=True, initializer=_INITIALIZER, activation="gelu", norm_last=True)
        features = trunk(jnp.concatenate(inputs, axis=-1))
        vectors = nn.Dense(self.dim, kernel_init=kernel_init(_INITIALIZER), name="vector")(features)
        return length_normalized(vectors) if self.length_normalized else vectors


class BilinearCritic(nn.Module):
    """Embeddings of state and action, and of goals, whose inner product is the critic (Eysenbach et al. 2022)."""

    hidden_dims: tuple[int, ...]
    dim: int
    num_critics: int

    @nn.compact
    def __call__(self, observations: jax.Array, actions: jax.Array, goals: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Both embeddings, each `(num_critics, *batch, dim)`."""
        ensemble = nn.vmap(Embedding, in_axes=None, axis_size=self.num_critics, **MEMBERS)
        left = ensemble(self.hidden_dims, self.dim, name="steps")(observations, actions)
        return left, ensemble(self.hidden_dims, self.dim, name="goals")(goals)


def length_normalized(vectors: jax.Array) -> jax.Array:
    """The same directions with length `sqrt(dim)`, `(*batch, dim)`."""
    return vectors * (math.sqrt(vectors.shape[-1]) / jnp.linalg.norm(vectors, axis=-1, keepdims=True))
