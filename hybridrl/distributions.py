"""Action distributions: sample, log_prob, mode."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import struct


class TanhNormal(struct.PyTreeNode):
    """A diagonal Gaussian squashed by tanh: `u ~ N(mean, std^2)`, `a = tanh(u)`, entries of `a` in (-1, 1)."""

    mean: jax.Array  # (*batch, action_dim), before the squashing
    std: jax.Array  # (*batch, action_dim)

    def mode(self) -> jax.Array:
        """`tanh(mean)`, `(*batch, action_dim)`: the deterministic action (not the density's peak)."""
        return jnp.tanh(self.mean)

    def sample(self, key: jax.Array, shape: tuple[int, ...] = ()) -> jax.Array:
        """Actions `(*shape, *batch, action_dim)`, reparameterised."""
        return self.sample_with_log_prob(key, shape)[0]

    def sample_with_log_prob(self, key: jax.Array, shape: tuple[int, ...] = ()) -> tuple[jax.Array, jax.Array]:
        """Actions `(*shape, *batch, action_dim)` and their log-densities `(*shape, *batch)`.

        The density comes from the Gaussian draw itself; inverting tanh would lose it near the bounds.
        """
        noise = jax.random.normal(key, (*shape, *self.mean.shape))
        mean, std = jnp.broadcast_to(self.mean, noise.shape), jnp.broadcast_to(self.std, noise.shape)
        unsquashed = mean + std * noise
        return jnp.tanh(unsquashed), _log_density(unsquashed, mean, std)

    def log_prob(self, actions: jax.Array) -> jax.Array:
        """Log-densities `(*batch,)` of given actions `(*batch, action_dim)`, entries strictly inside (-1, 1)."""
        return _log_density(jnp.arctanh(actions), self.mean, self.std)


class Normal(struct.PyTreeNode):
    """A diagonal Gaussian over actions. They are clipped to [-1, 1] when played; densities are the unclipped ones."""

    mean: jax.Array  # (*batch, action_dim)
    std: jax.Array  # (*batch, action_dim)

    def mode(self) -> jax.Array:
        """The mean, clipped, `(*batch, action_dim)`."""
        return jnp.clip(self.mean, -1.0, 1.0)

    def draw(self, key: jax.Array, shape: tuple[int, ...] = ()) -> jax.Array:
        """Draws `(*shape, *batch, action_dim)` before clipping, which the density is that of; reparameterised."""
        noise = jax.random.normal(key, (*shape, *self.mean.shape))
        mean, std = jnp.broadcast_to(self.mean, noise.shape), jnp.broadcast_to(self.std, noise.shape)
        return mean + std * noise

    def sample(self, key: jax.Array, shape: tuple[int, ...] = ()) -> jax.Array:
        """Clipped actions `(*shape, *batch, action_dim)`."""
        return jnp.clip(self.draw(key, shape), -1.0, 1.0)

    def log_prob(self, actions: jax.Array) -> jax.Array:
        """Log-densities `(*batch,)` of actions `(*batch, action_dim)`."""
        return _gaussian_terms(actions, self.mean, self.std).sum(axis=-1)

    def kl(self, other: Normal) -> jax.Array:
        """KL(this || other) of the unclipped densities, in nats, `(*batch,)`; exact also for nearly equal ones."""
        widening = jnp.log(other.std) - jnp.log(self.std)
        moved = jnp.square((other.mean - self.mean) / other.std)
        return (widening + 0.5 * jnp.expm1(-2.0 * widening) + 0.5 * moved).sum(axis=-1)

    def entropy(self) -> jax.Array:
        """Of the unclipped density, in nats, `(*batch,)`."""
        return (jnp.log(self.std) + 0.5 * jnp.log(2.0 * jnp.pi * jnp.e)).sum(axis=-1)


def _gaussian_terms(values: jax.Array, mean: jax.Array, std: jax.Array) -> jax.Array:
    return -0.5 * jnp.square((values - mean) / std) - jnp.log(std) - 0.5 * jnp.log(2.0 * jnp.pi)


def _log_density(unsquashed: jax.Array, mean: jax.Array, std: jax.Array) -> jax.Array:
    # log(1 - tanh(u)^2) in a form that is exact for large |u|
    squash = 2.0 * (jnp.log(2.0) - unsquashed - jax.nn.softplus(-2.0 * unsquashed))
    return (_gaussian_terms(unsquashed, mean, std) - squash).sum(axis=-1)
