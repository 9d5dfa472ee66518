"""Goal-conditioned implicit V-learning: HIQL's value on plain goals, and one policy."""

from __future__ import annotations

import dataclasses
from typing import Any, Self

import jax
import jax.numpy as jnp
from flax import struct

from algorithms.goals import FUTURE_GOALS, check_expectile, new_actor, new_value, weighted_cloning
from hybridrl.losses.value import double_value_targets, expectile_value_loss
from hybridrl.model import Model, copy_params, polyak_update
from hybridrl.policies import GoalPolicy
from hybridrl.replay import FlatGoals, GoalMixture
from hybridrl.types import GoalTransitions, Metrics, Transitions


@dataclasses.dataclass(frozen=True)
class GCIVLConfig:
    """Settings of GCIVL. The defaults are those of OGBench's reference agent (Park et al. 2024)."""

    learning_rate: float = 3e-4  # of every network
    discount: float = 0.99
    expectile: float = 0.9
    awr_temperature: float = 10.0  # inverse: it multiplies the advantage
    max_weight: float = 100.0  # of one row in the policy's loss
    target_update_rate: float = 0.005  # fraction of the value its target takes over per update
    value_goals: GoalMixture = GoalMixture()
    actor_goals: GoalMixture = FUTURE_GOALS
    value_hidden_dims: tuple[int, ...] = (512, 512, 512)
    actor_hidden_dims: tuple[int, ...] = (512, 512, 512)

    def __post_init__(self) -> None:
        """Reject settings that cannot work."""
        check_expectile(self.expectile)

    def goals(self) -> FlatGoals:
        """How batches are drawn."""
        return FlatGoals(self.value_goals, self.actor_goals, self.discount)


class GCIVLAgent(struct.PyTreeNode):
    """GCIVL (Park et al. 2024): V(s, g) by action-free expectile regression; the policy clones what raises it.

    The advantage V(s', g) - V(s, g) cannot tell a good action from good luck: the dynamics should be deterministic.
    """

    actor: Model
    value: Model
    target_value_params: Any
    config: GCIVLConfig = struct.field(pytree_node=False)

    @classmethod
    def create(cls, key: jax.Array, example: Transitions, config: GCIVLConfig = GCIVLConfig()) -> Self:
        """A fresh agent for observations, which goals are too, and actions shaped like `example`'s."""
        actor_key, value_key = jax.random.split(key)
        value = new_value(value_key, example.observations, example.observations, config)
        return cls(
            actor=new_actor(actor_key, example, config),
            value=value,
            target_value_params=copy_params(value.params),
            config=config,
        )

    @jax.jit
    def update(self, batch: GoalTransitions) -> tuple[Self, Metrics]:
        """One step of value and policy, both at the same parameters; leaves `(batch_size, ...)`."""
        steps, config = batch.steps, self.config
        targets, advantages = double_value_targets(
            steps.rewards,
            steps.masks,
            self.value(steps.next_observations, steps.goals, params=self.target_value_params),
            self.value(steps.observations, steps.goals, params=self.target_value_params),
            config.discount,
        )
        now = self.value(steps.observations, batch.actor_goals).mean(axis=0)
        gains = self.value(steps.next_observations, batch.actor_goals).mean(axis=0) - now

        def value_loss(params: Any) -> tuple[jax.Array, Metrics]:
            values = self.value(steps.observations, steps.goals, params=params)
            loss = expectile_value_loss(values, targets, advantages, config.expectile).mean(axis=-1).sum()
            return loss, {"value/loss": loss, "value/v_mean": values.mean(), "value/v_min": values.min()}

        def actor_loss(params: Any) -> tuple[jax.Array, Metrics]:
            distribution = self.actor(steps.observations, batch.actor_goals, params=params)
            log_probs = distribution.log_prob(batch.actions)
            return weighted_cloning("actor", gains, log_probs, config.awr_temperature, config.max_weight)

        value, metrics = self.value.minimize(value_loss)
        actor, actor_metrics = self.actor.minimize(actor_loss)
        # The parameters from before the step, as in the reference code.
        target = polyak_update(self.value.params, self.target_value_params, config.target_update_rate)
        return self.replace(actor=actor, value=value, target_value_params=target), metrics | actor_metrics

    def policy(self, *, deterministic: bool) -> GoalPolicy:
        """The actor's mean or its samples."""
        return GoalPolicy(actor=self.actor, deterministic=deterministic)

    def parts(self) -> dict[str, Any]:
        """Actor and value with their optimisers, and the value's target."""
        return {"actor": self.actor, "value": self.value, "target_value": self.target_value_params}

    def with_parts(self, parts: dict[str, Any]) -> Self:
        """This agent with the named parts in place of its own."""
        fields = {("target_value_params" if role == "target_value" else role): part for role, part in parts.items()}
        return self.replace(**fields)

    def diagnose(self, batch: GoalTransitions, key: jax.Array) -> Metrics:
        """Mean value and mean squared error of its one-step targets on `batch`, leaves `(batch_size, ...)`."""
        del key
        steps = batch.steps
        values = self.value(steps.observations, steps.goals)
        following = self.value(steps.next_observations, steps.goals, params=self.target_value_params)
        targets, _ = double_value_targets(steps.rewards, steps.masks, following, values, self.config.discount)
        return {"q": values.mean(), "td_error": jnp.square(targets - values).mean()}
