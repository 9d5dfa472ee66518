"""Observations in units of the dataset's mean and deviation."""

from __future__ import annotations

from typing import Any, Self, TypeVar

import jax
import jax.numpy as jnp
from flax import struct

from hybridrl.errors import ConfigError
from hybridrl.types import Policy, Rollout, Transitions

BatchT = TypeVar("BatchT", Transitions, Rollout)


class Standardizer(struct.PyTreeNode):
    """`(observation - mean) / std`, constants that an agent carries: in updates, in its policy, in checkpoints."""

    mean: jax.Array  # (obs_dim,)
    std: jax.Array  # (obs_dim,)

    @classmethod
    def identity(cls, obs_dim: int) -> Self:
        """Changes nothing: what an agent has until it is fitted."""
        return cls(mean=jnp.zeros(obs_dim), std=jnp.ones(obs_dim))

    @classmethod
    def fit(cls, observations: jax.Array, floor: float = 1e-3) -> Self:
        """From observations `(rows, obs_dim)`; `floor` is added to the deviation (Fujimoto & Gu 2021, section 5)."""
        return cls(mean=observations.mean(axis=0), std=observations.std(axis=0) + floor)

    @classmethod
    def refit(cls, current: Self | None, observations: jax.Array | None) -> Self | None:
        """Fitted to `observations` where an agent has one (`current`), for `fit_observations` of agents.

        Raises:
            ConfigError: it has one, and there are no observations.
        """
        if current is None:
            return None
        if observations is None:
            raise ConfigError(
                "standardize_observations=True and no dataset to take mean and deviation from; "
                "set it to false or choose a task with data"
            )
        return cls.fit(observations)

    def __call__(self, observations: jax.Array) -> jax.Array:
        """Standardised `observations` `(*batch, obs_dim)`."""
        leading = (1,) * (observations.ndim - 1)
        return (observations - self.mean.reshape(*leading, -1)) / self.std.reshape(*leading, -1)

    def transitions(self, batch: BatchT) -> BatchT:
        """Transitions or a rollout with both observations standardised."""
        return batch.replace(observations=self(batch.observations), next_observations=self(batch.next_observations))


class StandardizedPolicy(struct.PyTreeNode):
    """A policy that is shown standardised observations."""

    policy: Policy
    standardizer: Standardizer

    def begin(self, context: Any) -> Any:
        """The inner policy's carry."""
        return self.policy.begin(context)

    def act(self, carry: Any, observations: jax.Array, key: jax.Array) -> tuple[jax.Array, Any]:
        """Actions `(*batch, action_dim)` for raw `observations` `(*batch, obs_dim)`."""
        return self.policy.act(carry, self.standardizer(observations), key)
