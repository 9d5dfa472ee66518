"""Option-aware temporally abstracted value: HIQL whose high level follows a value that counts options, not steps."""

from __future__ import annotations

import dataclasses
from typing import Any, Self

import jax
import jax.numpy as jnp
from flax import struct

from algorithms.goals import new_value
from algorithms.hiql import HIQLAgent, HIQLConfig, SubgoalPolicy
from hybridrl.errors import ConfigError
from hybridrl.model import Model, copy_params, minimize_together, polyak_update
from hybridrl.replay import OptionGoals
from hybridrl.types import Metrics, OptionTransitions, Transitions


@dataclasses.dataclass(frozen=True)
class OTAConfig:
    """Settings of OTA: those of the HIQL agent it is, and the length of an option."""

    hiql: HIQLConfig = HIQLConfig()
    option_steps: int = 5  # n, the high-level value's unit of time; 5 is the authors' default

    def __post_init__(self) -> None:
        """Reject settings that cannot work."""
        if self.option_steps < 1:
            raise ConfigError(f"option_steps={self.option_steps}; expected at least 1")

    def goals(self) -> OptionGoals:
        """How batches are drawn."""
        return OptionGoals(self.hiql.goals(), self.option_steps)


class OTAAgent(struct.PyTreeNode):
    """OTA (Ahn et al. 2025): HIQL, but the high level's advantages come from a second value, learned on options.

    Both values have the same loss. For the second one a step is a whole option of at most `option_steps` steps: its
    reward is -1 and its discount is taken once, so that values of distant goals still differ. The two values share
    HIQL's representation. With `option_steps=1` the second value is trained all the same; it is HIQL's, one step ahead.
    """

    hiql: HIQLAgent
    high_value: Model
    target_high_value_params: Any
    config: OTAConfig = struct.field(pytree_node=False)

    @classmethod
    def create(cls, key: jax.Array, example: Transitions, config: OTAConfig = OTAConfig()) -> Self:
        """A fresh agent for observations, which goals are too, and actions shaped like `example`'s."""
        hiql_key, value_key = jax.random.split(key)
        obs = example.observations
        subgoals = jnp.zeros((*obs.shape[:-1], config.hiql.representation_dim))
        high_value = new_value(value_key, obs, subgoals, config.hiql, "high_value")
        return cls(
            hiql=HIQLAgent.create(hiql_key, example, config.hiql),
            high_value=high_value,
            target_high_value_params=copy_params(high_value.params),
            config=config,
        )

    @jax.jit
    def update(self, batch: OptionTransitions) -> tuple[Self, Metrics]:
        """One joint step of all networks; leaves `(batch_size, ...)`."""
        hiql = self.hiql

        def loss(params: dict[str, Any]) -> tuple[jax.Array, Metrics]:
            total, metrics = hiql.loss(params, batch.hierarchical, self.high_value)
            added, high_metrics = hiql.value_loss(params, batch.options, self.high_value, self.target_high_value_params)
            return total + added, metrics | high_metrics

        models, metrics = minimize_together(hiql.models() | {"high_value": self.high_value}, loss)
        rate, high_value = self.config.hiql.target_update_rate, models.pop("high_value")
        target = polyak_update(hiql.value.params, hiql.target_value_params, rate)
        high_target = polyak_update(self.high_value.params, self.target_high_value_params, rate)
        hiql = hiql.replace(**models, target_value_params=target)
        return self.replace(hiql=hiql, high_value=high_value, target_high_value_params=high_target), metrics

    def policy(self, *, deterministic: bool) -> SubgoalPolicy:
        """HIQL's."""
        return self.hiql.policy(deterministic=deterministic)

    def parts(self) -> dict[str, Any]:
        """HIQL's parts, the second value with its optimiser, and its target."""
        return self.hiql.parts() | {
            "high_value": self.high_value,
            "target_high_value": self.target_high_value_params,
        }

    def with_parts(self, parts: dict[str, Any]) -> Self:
        """This agent with the named parts in place of its own."""
        parts = dict(parts)
        own = {
            "high_value": parts.pop("high_value", self.high_value),
            "target_high_value_params": parts.pop("target_high_value", self.target_high_value_params),
        }
        return self.replace(hiql=self.hiql.with_parts(parts), **own)

    def diagnose(self, batch: OptionTransitions, key: jax.Array) -> Metrics:
        """HIQL's diagnosis: that of the low-level value."""
        return self.hiql.diagnose(batch.hierarchical, key)
