"""Goal-conditioned behaviour cloning: do what the data did on the way to where they got."""

from __future__ import annotations

import dataclasses
from typing import Any, Self

import jax
import jax.numpy as jnp
from flax import struct

from algorithms.goals import FUTURE_GOALS, new_actor
from hybridrl.model import Model
from hybridrl.policies import GoalPolicy
from hybridrl.replay import FlatGoals, GoalMixture
from hybridrl.types import GoalTransitions, Metrics, Transitions


@dataclasses.dataclass(frozen=True)
class GCBCConfig:
    """Settings of GCBC. The defaults are those of OGBench's reference agent (Park et al. 2024)."""

    learning_rate: float = 3e-4
    discount: float = 0.99  # of geometric goals alone
    actor_goals: GoalMixture = FUTURE_GOALS
    actor_hidden_dims: tuple[int, ...] = (512, 512, 512)

    def goals(self) -> FlatGoals:
        """How batches are drawn; there is no value, so its goals are the policy's."""
        return FlatGoals(self.actor_goals, self.actor_goals, self.discount)


class GCBCAgent(struct.PyTreeNode):
    """GCBC (Ghosh et al. 2021; Lynch et al. 2020): the data's actions, cloned given a later state as the goal."""

    actor: Model
    config: GCBCConfig = struct.field(pytree_node=False)

    @classmethod
    def create(cls, key: jax.Array, example: Transitions, config: GCBCConfig = GCBCConfig()) -> Self:
        """A fresh agent for observations, which goals are too, and actions shaped like `example`'s."""
        return cls(actor=new_actor(key, example, config), config=config)

    @jax.jit
    def update(self, batch: GoalTransitions) -> tuple[Self, Metrics]:
        """One step of regression; leaves `(batch_size, ...)`."""

        def loss(params: Any) -> tuple[jax.Array, Metrics]:
            distribution = self.actor(batch.steps.observations, batch.actor_goals, params=params)
            value = -distribution.log_prob(batch.actions).mean()
            squared_error = jnp.square(distribution.mode() - batch.actions).mean()
            return value, {"actor/loss": value, "actor/squared_error": squared_error}

        actor, metrics = self.actor.minimize(loss)
        return self.replace(actor=actor), metrics

    def policy(self, *, deterministic: bool) -> GoalPolicy:
        """The actor's mean or its samples."""
        return GoalPolicy(actor=self.actor, deterministic=deterministic)

    def parts(self) -> dict[str, Any]:
        """The actor with its optimiser."""
        return {"actor": self.actor}

    def with_parts(self, parts: dict[str, Any]) -> Self:
        """This agent with the named parts in place of its own."""
        return self.replace(**parts)

    def diagnose(self, batch: GoalTransitions, key: jax.Array) -> Metrics:
        """Nothing: there are no values to diagnose."""
        del batch, key
        return {}
