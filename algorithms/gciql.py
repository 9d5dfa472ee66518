"""Goal-conditioned implicit Q-learning with a policy that climbs the critic and stays near the data."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, Self

import jax
import jax.numpy as jnp
from flax import struct

from algorithms.goals import FUTURE_GOALS, VALUE_BODY, check_expectile, new_actor
from hybridrl.losses.policy import ddpg_bc_loss
from hybridrl.losses.value import expectile_value_loss, squared_td_errors, td_targets
from hybridrl.model import Model, copy_params, polyak_update
from hybridrl.networks import CriticEnsemble
from hybridrl.policies import GoalPolicy
from hybridrl.replay import FlatGoals, GoalMixture
from hybridrl.types import GoalTransitions, Metrics, Transitions


@dataclasses.dataclass(frozen=True)
class GCIQLConfig:
    """Settings of GCIQL. The defaults are those of OGBench's reference agent (Park et al. 2024)."""

    learning_rate: float = 3e-4  # of every network
    discount: float = 0.99
    expectile: float = 0.9
    bc_weight: float = 0.3  # of the data's likelihood in the policy's loss; tuned per family
    target_update_rate: float = 0.005  # fraction of the critics their targets take over per update
    value_goals: GoalMixture = GoalMixture()
    actor_goals: GoalMixture = FUTURE_GOALS
    value_hidden_dims: tuple[int, ...] = (512, 512, 512)  # of value and critics
    actor_hidden_dims: tuple[int, ...] = (512, 512, 512)

    def __post_init__(self) -> None:
        """Reject settings that cannot work."""
        check_expectile(self.expectile)

    def goals(self) -> FlatGoals:
        """How batches are drawn."""
        return FlatGoals(self.value_goals, self.actor_goals, self.discount)


class GCIQLAgent(struct.PyTreeNode):
    """GCIQL (Kostrikov et al. 2021 with goals, as in Park et al. 2024): V(s, g), two Q(s, a, g), DDPG+BC.

    All losses are taken at the same parameters.
    """

    actor: Model
    critic: Model
    value: Model
    target_critic_params: Any
    config: GCIQLConfig = struct.field(pytree_node=False)

    @classmethod
    def create(cls, key: jax.Array, example: Transitions, config: GCIQLConfig = GCIQLConfig()) -> Self:
        """A fresh agent for observations, which goals are too, and actions shaped like `example`'s."""
        actor_key, critic_key, value_key = jax.random.split(key, 3)
        obs, actions, rate = example.observations, example.actions, config.learning_rate
        heads = functools.partial(CriticEnsemble, tuple(config.value_hidden_dims), **VALUE_BODY)
        pairs = jnp.concatenate([obs, obs], axis=-1)
        critic = Model.create("critic", heads(num_critics=2), critic_key, pairs, actions, learning_rate=rate)
        return cls(
            actor=new_actor(actor_key, example, config),
            critic=critic,
            value=Model.create("value", heads(num_critics=1), value_key, obs, obs, learning_rate=rate),
            target_critic_params=copy_params(critic.params),
            config=config,
        )

    @jax.jit
    def update(self, batch: GoalTransitions) -> tuple[Self, Metrics]:
        """One step of value, critics and policy; leaves `(batch_size, ...)`."""
        steps, config = batch.steps, self.config
        target_q = self.q(steps.observations, batch.actions, steps.goals, self.target_critic_params).min(axis=0)
        targets = self.targets(batch)

        def value_loss(params: Any) -> tuple[jax.Array, Metrics]:
            values = self.value(steps.observations, steps.goals, params=params)
            signs = jax.lax.stop_gradient(target_q - values[0])
            loss = expectile_value_loss(values, target_q[None], signs, config.expectile).mean()
            return loss, {"value/loss": loss, "value/v_mean": values.mean()}

        def critic_loss(params: Any) -> tuple[jax.Array, Metrics]:
            q = self.q(steps.observations, batch.actions, steps.goals, params)
            loss = squared_td_errors(q, targets).sum(axis=0).mean()
            return loss, {"critic/loss": loss, "critic/q_mean": q.mean(), "critic/target_mean": targets.mean()}

        def actor_loss(params: Any) -> tuple[jax.Array, Metrics]:
            distribution = self.actor(steps.observations, batch.actor_goals, params=params)
            q = self.q(steps.observations, distribution.mode(), batch.actor_goals).min(axis=0)
            log_probs = distribution.log_prob(batch.actions)
            loss = ddpg_bc_loss(q, log_probs, config.bc_weight).mean()
            return loss, {"actor/loss": loss, "actor/q_mean": q.mean(), "actor/log_prob": log_probs.mean()}

        value, metrics = self.value.minimize(value_loss)
        critic, critic_metrics = self.critic.minimize(critic_loss)
        actor, actor_metrics = self.actor.minimize(actor_loss)
        # The parameters from before the step, as in the reference code.
        target = polyak_update(self.critic.params, self.target_critic_params, config.target_update_rate)
        agent = self.replace(actor=actor, critic=critic, value=value, target_critic_params=target)
        return agent, metrics | critic_metrics | actor_metrics

    def q(self, observations: jax.Array, actions: jax.Array, goals: jax.Array, params: Any = None) -> jax.Array:
        """Both critics, `(2, *batch)`."""
        found: jax.Array = self.critic(jnp.concatenate([observations, goals], axis=-1), actions, params=params)
        return found

    def targets(self, batch: GoalTransitions) -> jax.Array:
        """TD targets `(batch,)` of the critics from the present state values."""
        steps = batch.steps
        next_values = self.value(steps.next_observations, steps.goals)[0]
        return td_targets(steps.rewards, steps.masks, next_values, self.config.discount)

    def policy(self, *, deterministic: bool) -> GoalPolicy:
        """The actor's mean or its samples."""
        return GoalPolicy(actor=self.actor, deterministic=deterministic)

    def parts(self) -> dict[str, Any]:
        """Actor, critics and value with their optimisers, and the critics' targets."""
        return {
            "actor": self.actor,
            "critic": self.critic,
            "value": self.value,
            "target_critic": self.target_critic_params,
        }

    def with_parts(self, parts: dict[str, Any]) -> Self:
        """This agent with the named parts in place of its own."""
        fields = {("target_critic_params" if role == "target_critic" else role): part for role, part in parts.items()}
        return self.replace(**fields)

    def diagnose(self, batch: GoalTransitions, key: jax.Array) -> Metrics:
        """Mean value and mean squared TD error of the critics on `batch`, leaves `(batch_size, ...)`."""
        del key
        q = self.q(batch.steps.observations, batch.actions, batch.steps.goals)
        return {"q": q.mean(), "td_error": squared_td_errors(q, self.targets(batch)).mean()}
