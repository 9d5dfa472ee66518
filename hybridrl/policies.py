"""Policies that need no memory, or only that of their goal."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from hybridrl.model import Model


class ActorPolicy(struct.PyTreeNode):
    """Acts by an actor's distribution: its mode if `deterministic`, else a sample. The carry is empty.

    An on-policy agent's actor gives `Normal`s, and with `clip_samples` false its samples may leave [-1, 1]: the agent
    stores the draw, since the density it knows is the draw's, and environments clip what they play.
    """

    actor: Model
    deterministic: bool = struct.field(pytree_node=False)
    clip_samples: bool = struct.field(pytree_node=False, default=True)

    def begin(self, context: Any) -> tuple[()]:
        """Nothing to remember."""
        del context
        return ()

    def act(self, carry: tuple[()], observations: jax.Array, key: jax.Array) -> tuple[jax.Array, tuple[()]]:
        """Actions `(*batch, action_dim)` for `observations` `(*batch, obs_dim)`."""
        distribution = self.actor(observations)
        if self.deterministic:
            return distribution.mode(), carry
        return (distribution.sample(key) if self.clip_samples else distribution.draw(key)), carry


class NoisyPolicy(struct.PyTreeNode):
    """Acts by a deterministic actor; unless `deterministic`, with Gaussian noise, in [-1, 1]. The carry is empty."""

    actor: Model
    noise: float = struct.field(pytree_node=False)  # standard deviation
    deterministic: bool = struct.field(pytree_node=False)

    def begin(self, context: Any) -> tuple[()]:
        """Nothing to remember."""
        del context
        return ()

    def act(self, carry: tuple[()], observations: jax.Array, key: jax.Array) -> tuple[jax.Array, tuple[()]]:
        """Actions `(*batch, action_dim)` for `observations` `(*batch, obs_dim)`."""
        actions = self.actor(observations)
        if self.deterministic:
            return actions, carry
        return jnp.clip(actions + self.noise * jax.random.normal(key, actions.shape), -1.0, 1.0), carry


class GoalPolicy(struct.PyTreeNode):
    """Acts by an actor of state and goal: its mode if `deterministic`, else a sample. The carry is the goal."""

    actor: Model
    deterministic: bool = struct.field(pytree_node=False)

    def begin(self, context: jax.Array) -> jax.Array:
        """Remember the goal, `(*batch, obs_dim)`."""
        return context

    def act(self, carry: jax.Array, observations: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Actions `(*batch, action_dim)` for `observations` `(*batch, obs_dim)`."""
        distribution = self.actor(observations, carry)
        return (distribution.mode() if self.deterministic else distribution.sample(key)), carry


class UniformPolicy(struct.PyTreeNode):
    """Actions drawn uniformly from `[-1, 1]^action_dim`, whatever the observation."""

    action_dim: int = struct.field(pytree_node=False)

    def begin(self, context: Any) -> tuple[()]:
        """Nothing to remember."""
        del context
        return ()

    def act(self, carry: tuple[()], observations: jax.Array, key: jax.Array) -> tuple[jax.Array, tuple[()]]:
        """Actions `(*batch, action_dim)` for `observations` `(*batch, obs_dim)`."""
        shape = (*observations.shape[:-1], self.action_dim)
        return jax.random.uniform(key, shape, minval=-1.0, maxval=1.0), carry
