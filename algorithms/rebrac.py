"""ReBRAC: TD3+BC with the cloning term in the critic too, each with a weight of its own."""

from __future__ import annotations

import dataclasses
from typing import Any, Self

import jax
import jax.numpy as jnp
from flax import struct

from hybridrl.delay import Delay
from hybridrl.errors import ConfigError
from hybridrl.losses.policy import scale_free_policy_loss, smoothed_actions
from hybridrl.losses.value import squared_td_errors, td_targets
from hybridrl.model import Model, copy_params, polyak_update
from hybridrl.networks import CriticEnsemble, DeterministicActor
from hybridrl.policies import NoisyPolicy
from hybridrl.types import Metrics, Transitions


@dataclasses.dataclass(frozen=True)
class ReBRACConfig:
    """Settings of ReBRAC. The defaults are the paper's on locomotion (Tarasov et al. 2023, tables in the appendix)."""

    actor_learning_rate: float = 1e-3
    critic_learning_rate: float = 1e-3
    discount: float = 0.99
    target_update_rate: float = 0.005  # fraction the targets take over, whenever the actor is trained
    actor_bc_weight: float = 0.01  # beta_1, of the cloning error in the actor's loss
    critic_bc_weight: float = 0.01  # beta_2, of the cloning error in the critics' targets
    bc_decay_updates: int = 0  # above 0: actor_bc_weight falls linearly over so many updates
    bc_final_share: float = 0.0  # of actor_bc_weight, where the fall ends
    actor_every: int = 2  # updates per step of actor and targets
    target_noise: float = 0.2  # deviation of the target's actions
    target_noise_clip: float = 0.5
    exploration_noise: float = 0.03  # deviation of the actions collected online
    actor_hidden_dims: tuple[int, ...] = (256, 256, 256)
    critic_hidden_dims: tuple[int, ...] = (256, 256, 256)
    actor_layer_norm: bool = False
    critic_layer_norm: bool = True
    initializer: str = "edac"  # or "fan_in", "orthogonal", "xavier_uniform"

    def __post_init__(self) -> None:
        """Reject settings that cannot work."""
        if self.initializer not in ("edac", "fan_in", "orthogonal", "xavier_uniform"):
            raise ConfigError(f"initializer={self.initializer!r}; expected edac, fan_in, orthogonal or xavier_uniform")
        for field, low in {
            "actor_every": 1,
            "bc_decay_updates": 0,
            "actor_bc_weight": 0,
            "critic_bc_weight": 0,
        }.items():
            if getattr(self, field) < low:
                raise ConfigError(f"{field}={getattr(self, field)}; expected at least {low}")
        if not 0.0 <= self.bc_final_share <= 1.0:
            raise ConfigError(f"bc_final_share={self.bc_final_share}; expected a share in [0, 1]")


class ReBRACAgent(struct.PyTreeNode):
    """ReBRAC (Tarasov et al. 2023): decoupled cloning penalties, deeper networks and layer-normalised critics.

    The critics' penalty compares the target's action with the one the data took next. Where that is not known (an
    episode was cut there, or the row is online), there is none; after a termination it would not count in any case.
    """

    actor: Model
    critic: Model
    target_actor_params: Any
    target_critic_params: Any
    key: jax.Array
    delay: Delay
    config: ReBRACConfig = struct.field(pytree_node=False)

    @classmethod
    def create(cls, key: jax.Array, example: Transitions, config: ReBRACConfig = ReBRACConfig()) -> Self:
        """A fresh agent for observations and actions shaped like `example`'s, leaves `(*batch, ...)`."""
        key, actor_key, critic_key = jax.random.split(key, 3)
        obs, actions, kind = example.observations, example.actions, config.initializer
        actor = DeterministicActor(
            tuple(config.actor_hidden_dims),
            actions.shape[-1],
            config.actor_layer_norm,
            kind,
            norm_last=config.actor_layer_norm,  # without a norm its place is no difference: clones of BC fit
        )
        critic = CriticEnsemble(
            tuple(config.critic_hidden_dims),
            num_critics=2,
            layer_norm=config.critic_layer_norm,
            initializer=kind,
            norm_last=config.critic_layer_norm,
        )
        actor_model = Model.create("actor", actor, actor_key, obs, learning_rate=config.actor_learning_rate)
        critic_model = Model.create(
            "critic", critic, critic_key, obs, actions, learning_rate=config.critic_learning_rate
        )
        return cls(
            actor=actor_model,
            critic=critic_model,
            target_actor_params=copy_params(actor_model.params),
            target_critic_params=copy_params(critic_model.params),
            key=key,
            delay=Delay.create(
                "actor/loss", "actor/q_mean", "actor/squared_error", "actor/bc_weight", "actor/grad_norm"
            ),
            config=config,
        )

    @jax.jit
    def update(self, batch: Transitions) -> tuple[Self, Metrics]:
        """One critic step, and where it is due one actor step and one step of the targets.

        Raises:
            ValueError: the critics are penalised and `batch` says nothing of next actions.
        """
        config = self.config
        key, noise_key = jax.random.split(self.key)
        targets = self.targets(batch, noise_key)

        def critic_loss(params: Any) -> tuple[jax.Array, Metrics]:
            q = self.critic(batch.observations, batch.actions, params=params)
            loss = squared_td_errors(q, targets).mean(axis=-1).sum()
            return loss, {"critic/loss": loss, "critic/q_mean": q.mean(), "critic/target_mean": targets.mean()}

        critic, metrics = self.critic.minimize(critic_loss)
        weight = self.actor_bc_weight()

        def actor_loss(params: Any) -> tuple[jax.Array, Metrics]:
            actions = self.actor(batch.observations, params=params)
            q = critic(batch.observations, actions).min(axis=0)
            error = jnp.square(actions - batch.actions).sum(axis=-1)
            loss = (scale_free_policy_loss(q) + weight * error).mean()
            found = {"actor/loss": loss, "actor/q_mean": q.mean(), "actor/squared_error": error.mean()}
            return loss, found | {"actor/bc_weight": weight}

        def improve() -> tuple[tuple[Model, Any, Any], Metrics]:
            actor, actor_metrics = self.actor.minimize(actor_loss)
            rate = config.target_update_rate
            target_actor = polyak_update(actor.params, self.target_actor_params, rate)
            return (actor, target_actor, polyak_update(critic.params, self.target_critic_params, rate)), actor_metrics

        slow = (self.actor, self.target_actor_params, self.target_critic_params)
        (actor, target_actor, target_critic), actor_metrics, delay = self.delay.run(config.actor_every, improve, slow)
        agent = self.replace(
            actor=actor,
            critic=critic,
            target_actor_params=target_actor,
            target_critic_params=target_critic,
            key=key,
            delay=delay,
        )
        return agent, metrics | actor_metrics

    def targets(self, batch: Transitions, key: jax.Array) -> jax.Array:
        """TD targets `(batch,)`, their values lowered by the distance of the target's action from the data's next."""
        config = self.config
        proposed = self.actor(batch.next_observations, params=self.target_actor_params)
        actions = smoothed_actions(key, proposed, config.target_noise, config.target_noise_clip)
        next_q = self.critic(batch.next_observations, actions, params=self.target_critic_params).min(axis=0)
        if config.critic_bc_weight > 0.0:
            if batch.next_actions is None:
                raise ValueError(
                    f"critic_bc_weight={config.critic_bc_weight} needs batches with next_actions, which these lack; "
                    "set next_actions of the phase, or critic_bc_weight=0"
                )
            error = jnp.square(actions - batch.next_actions).sum(axis=-1)
            next_q = next_q - config.critic_bc_weight * jnp.where(jnp.isnan(error), 0.0, error)
        return jax.lax.stop_gradient(td_targets(batch.rewards, batch.masks, next_q, config.discount))

    def actor_bc_weight(self) -> jax.Array:
        """The cloning error's weight in the actor's loss now, `()`."""
        config = self.config
        if config.bc_decay_updates == 0:
            return jnp.float32(config.actor_bc_weight)
        left = 1.0 - self.delay.count / config.bc_decay_updates
        return config.actor_bc_weight * jnp.maximum(left, config.bc_final_share)

    def policy(self, *, deterministic: bool) -> NoisyPolicy:
        """The actor's action, with exploration noise unless `deterministic`."""
        return NoisyPolicy(self.actor, self.config.exploration_noise, deterministic)

    def parts(self) -> dict[str, Any]:
        """Actor and critic with their optimisers, both targets and the random key."""
        return {
            "actor": self.actor,
            "critic": self.critic,
            "target_actor": self.target_actor_params,
            "target_critic": self.target_critic_params,
            "key": self.key,
        }

    def with_parts(self, parts: dict[str, Any]) -> Self:
        """This agent with the named parts in place of its own."""
        fields = {(f"{role}_params" if role.startswith("target_") else role): part for role, part in parts.items()}
        return self.replace(**fields)

    def diagnose(self, batch: Transitions, key: jax.Array) -> Metrics:
        """Mean value and mean squared TD error, without the penalty, on `batch`, leaves `(batch_size, ...)`."""
        plain = self.replace(config=dataclasses.replace(self.config, critic_bc_weight=0.0))
        q = self.critic(batch.observations, batch.actions)
        return {"q": q.mean(), "td_error": squared_td_errors(q, plain.targets(batch, key)).mean()}
