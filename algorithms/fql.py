"""Flow Q-learning: a flow clones the data, and a one-step policy near it climbs the critic."""

from __future__ import annotations

import dataclasses
from typing import Any, Self

import jax
import jax.numpy as jnp
from flax import struct

from hybridrl.errors import ConfigError
from hybridrl.losses.flow import follow_flow, straight_path
from hybridrl.losses.policy import scale_free_policy_loss
from hybridrl.losses.value import squared_td_errors, td_targets
from hybridrl.model import Model, copy_params, polyak_update
from hybridrl.networks import CriticEnsemble, FlowField
from hybridrl.types import Metrics, Transitions


@dataclasses.dataclass(frozen=True)
class FQLConfig:
    """Settings of FQL. The defaults are the paper's (Park et al. 2025, table of hyperparameters in the appendix)."""

    learning_rate: float = 3e-4  # of every network
    discount: float = 0.99
    target_update_rate: float = 0.005  # fraction of the critic its target takes over per update
    bc_weight: float = 10.0  # alpha, of the distance between the one-step policy and the flow; tuned per task
    normalize_q: bool = False  # divide the critic's term by its mean size, so that bc_weight needs less tuning
    target_q: str = "mean"  # of the two target critics: "mean" or "min"
    flow_steps: int = 10  # Euler steps from noise to action
    actor_hidden_dims: tuple[int, ...] = (512, 512, 512, 512)  # of the one-step policy and of the flow
    critic_hidden_dims: tuple[int, ...] = (512, 512, 512, 512)
    actor_layer_norm: bool = False
    critic_layer_norm: bool = True
    initializer: str = "xavier_uniform"  # or "orthogonal"

    def __post_init__(self) -> None:
        """Reject settings that cannot work."""
        for field, allowed in {"target_q": ("mean", "min"), "initializer": ("xavier_uniform", "orthogonal")}.items():
            if getattr(self, field) not in allowed:
                raise ConfigError(f"{field}={getattr(self, field)!r}; expected one of {', '.join(allowed)}")
        if self.flow_steps < 1:
            raise ConfigError(f"flow_steps={self.flow_steps}; expected at least 1")


class OneStepPolicy(struct.PyTreeNode):
    """Turns noise into an action in one step. It has no mode: evaluation samples too, as in the paper."""

    actor: Model
    action_dim: int = struct.field(pytree_node=False)

    def begin(self, context: Any) -> tuple[()]:
        """Nothing to remember."""
        del context
        return ()

    def act(self, carry: tuple[()], observations: jax.Array, key: jax.Array) -> tuple[jax.Array, tuple[()]]:
        """Actions `(*batch, action_dim)` for `observations` `(*batch, obs_dim)`."""
        noise = jax.random.normal(key, (*observations.shape[:-1], self.action_dim))
        return jnp.clip(self.actor(observations, noise), -1.0, 1.0), carry


class FQLAgent(struct.PyTreeNode):
    """FQL (Park et al. 2025): flow matching clones the data; the one-step policy is distilled from the flow.

    No gradient flows through the flow's steps. All losses are taken at the same parameters.
    """

    actor: Model  # the one-step policy
    flow: Model
    critic: Model
    target_critic_params: Any
    key: jax.Array
    config: FQLConfig = struct.field(pytree_node=False)

    @classmethod
    def create(cls, key: jax.Array, example: Transitions, config: FQLConfig = FQLConfig()) -> Self:
        """A fresh agent for observations and actions shaped like `example`'s, leaves `(*batch, ...)`."""
        key, actor_key, flow_key, critic_key = jax.random.split(key, 4)
        obs, actions, rate = example.observations, example.actions, config.learning_rate
        field = FlowField(
            tuple(config.actor_hidden_dims), actions.shape[-1], config.actor_layer_norm, config.initializer
        )
        critic = CriticEnsemble(
            tuple(config.critic_hidden_dims),
            num_critics=2,
            layer_norm=config.critic_layer_norm,
            initializer=config.initializer,
            activation="gelu",
            norm_last=True,
        )
        critic_model = Model.create("critic", critic, critic_key, obs, actions, learning_rate=rate)
        return cls(
            actor=Model.create("actor", field, actor_key, obs, actions, learning_rate=rate),
            flow=Model.create("flow", field, flow_key, obs, actions, actions[..., :1], learning_rate=rate),
            critic=critic_model,
            target_critic_params=copy_params(critic_model.params),
            key=key,
            config=config,
        )

    @jax.jit
    def update(self, batch: Transitions) -> tuple[Self, Metrics]:
        """One joint step of critic, flow and one-step policy; leaves `(batch_size, ...)`."""
        config, obs = self.config, batch.observations
        key, target_key, time_key, path_key, noise_key = jax.random.split(self.key, 5)
        targets = self.targets(batch, target_key)
        times = jax.random.uniform(time_key, (len(batch.rewards), 1))
        points, velocity = straight_path(jax.random.normal(path_key, batch.actions.shape), batch.actions, times)
        noise = jax.random.normal(noise_key, batch.actions.shape)
        cloned = self.flow_actions(obs, noise)

        def critic_loss(params: Any) -> tuple[jax.Array, Metrics]:
            q = self.critic(obs, batch.actions, params=params)
            loss = squared_td_errors(q, targets).mean()
            return loss, {"critic/loss": loss, "critic/q_mean": q.mean(), "critic/target_mean": targets.mean()}

        def flow_loss(params: Any) -> tuple[jax.Array, Metrics]:
            loss = jnp.square(self.flow(obs, points, times, params=params) - velocity).mean()
            return loss, {"flow/loss": loss}

        def actor_loss(params: Any) -> tuple[jax.Array, Metrics]:
            proposed = self.actor(obs, noise, params=params)
            distance = jnp.square(proposed - cloned).mean()
            q = self.critic(obs, jnp.clip(proposed, -1.0, 1.0)).mean(axis=0)
            climb = scale_free_policy_loss(q).mean() if config.normalize_q else -q.mean()
            loss = climb + config.bc_weight * distance
            return loss, {"actor/loss": loss, "actor/q_mean": q.mean(), "actor/flow_distance": distance}

        critic, metrics = self.critic.minimize(critic_loss)
        flow, flow_metrics = self.flow.minimize(flow_loss)
        actor, actor_metrics = self.actor.minimize(actor_loss)
        target = polyak_update(critic.params, self.target_critic_params, config.target_update_rate)
        agent = self.replace(actor=actor, flow=flow, critic=critic, target_critic_params=target, key=key)
        return agent, metrics | flow_metrics | actor_metrics

    def targets(self, batch: Transitions, key: jax.Array) -> jax.Array:
        """TD targets `(batch,)` at a sample of the one-step policy; no gradient flows into them."""
        actions, _ = self.policy(deterministic=False).act((), batch.next_observations, key)
        next_q = self.critic(batch.next_observations, actions, params=self.target_critic_params)
        next_q = next_q.min(axis=0) if self.config.target_q == "min" else next_q.mean(axis=0)
        return jax.lax.stop_gradient(td_targets(batch.rewards, batch.masks, next_q, self.config.discount))

    def flow_actions(self, observations: jax.Array, noise: jax.Array) -> jax.Array:
        """Actions `(*batch, action_dim)` of the cloned behaviour that the flow makes of `noise`; no gradient."""

        def velocity(points: jax.Array, times: jax.Array) -> jax.Array:
            found: jax.Array = self.flow(observations, points, times)
            return found

        actions = follow_flow(velocity, noise, self.config.flow_steps)
        return jax.lax.stop_gradient(jnp.clip(actions, -1.0, 1.0))

    def policy(self, *, deterministic: bool) -> OneStepPolicy:
        """Samples of the one-step policy, in evaluation too."""
        del deterministic
        return OneStepPolicy(actor=self.actor, action_dim=self.actor.module.action_dim)

    def parts(self) -> dict[str, Any]:
        """One-step policy, flow and critic with their optimisers, the target critic and the random key."""
        return {
            "actor": self.actor,
            "flow": self.flow,
            "critic": self.critic,
            "target_critic": self.target_critic_params,
            "key": self.key,
        }

    def with_parts(self, parts: dict[str, Any]) -> Self:
        """This agent with the named parts in place of its own."""
        fields = {("target_critic_params" if role == "target_critic" else role): part for role, part in parts.items()}
        return self.replace(**fields)

    def diagnose(self, batch: Transitions, key: jax.Array) -> Metrics:
        """Mean value and mean squared TD error of the critics on `batch`, leaves `(batch_size, ...)`."""
        q = self.critic(batch.observations, batch.actions)
        return {"q": q.mean(), "td_error": squared_td_errors(q, self.targets(batch, key)).mean()}
