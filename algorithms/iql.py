"""Implicit Q-learning: values from the data's actions alone, and a policy by weighted cloning."""

from __future__ import annotations

import dataclasses
from typing import Any, Self

import jax
from flax import struct

from hybridrl.errors import ConfigError
from hybridrl.losses.policy import awr_weights
from hybridrl.losses.value import expectile_loss, squared_td_errors, td_targets
from hybridrl.model import Model, copy_params, polyak_update
from hybridrl.networks import CriticEnsemble, NormalActor, TanhNormalActor, Value, select_critics
from hybridrl.policies import ActorPolicy
from hybridrl.types import Metrics, Transitions

ACTORS = ("normal", "bounded_mean", "tanh_normal")


@dataclasses.dataclass(frozen=True)
class IQLConfig:
    """Settings of IQL. The defaults are those of Kostrikov et al. 2021 and of WSRL's baseline on locomotion."""

    learning_rate: float = 3e-4  # of every network
    discount: float = 0.99
    expectile: float = 0.7
    awr_temperature: float = 3.0  # inverse: it multiplies the advantage; larger trusts the critic more
    max_weight: float = 100.0  # of one row in the actor's loss
    target_update_rate: float = 0.005  # fraction of the critic its target takes over per update
    actor: str = "normal"  # "normal", "bounded_mean" (tanh on the mean) or "tanh_normal" (squashed: fits SAC's)
    actor_hidden_dims: tuple[int, ...] = (256, 256)
    critic_hidden_dims: tuple[int, ...] = (256, 256)
    value_hidden_dims: tuple[int, ...] = (256, 256)
    actor_layer_norm: bool = False
    critic_layer_norm: bool = False  # of critics and value
    actor_dropout: float = 0.0  # in the actor's loss only
    initializer: str = "xavier_orthogonal"  # or "orthogonal" (the authors' code), "xavier_uniform"
    last_hidden_gain: float | None = 0.1  # of the actor's last hidden layer; None: that of the others
    std_kind: str = "free"  # one deviation for all states, or "state"
    std_bounds: tuple[float, float] = (1e-5, 10.0)
    num_critics: int = 2
    num_target_critics: int = 2  # critics whose smallest value counts, drawn anew per update if fewer than all
    shared_critic_head: bool = False

    def __post_init__(self) -> None:
        """Reject settings that cannot work."""
        for field, allowed in {
            "actor": ACTORS,
            "std_kind": ("state", "free"),
            "initializer": ("xavier_orthogonal", "orthogonal", "xavier_uniform"),
        }.items():
            if getattr(self, field) not in allowed:
                raise ConfigError(f"{field}={getattr(self, field)!r}; expected one of {', '.join(allowed)}")
        if not 0.0 < self.expectile < 1.0:
            raise ConfigError(f"expectile={self.expectile}; expected a number between 0 and 1")
        if not 0.0 <= self.actor_dropout < 1.0:
            raise ConfigError(f"actor_dropout={self.actor_dropout}; expected a share in [0, 1)")
        if not 1 <= self.num_target_critics <= self.num_critics:
            raise ConfigError(
                f"num_target_critics={self.num_target_critics}; expected 1 to num_critics={self.num_critics}"
            )


class IQLAgent(struct.PyTreeNode):
    """IQL (Kostrikov et al. 2021): an expectile of Q over the data's actions stands in for the best action's value.

    No action outside the data is ever evaluated. The advantage comes from the target critics, as in the authors' code.
    All three losses are taken at the same parameters, as in WSRL's; the authors' code steps the value first.
    """

    actor: Model
    critic: Model
    value: Model
    target_critic_params: Any
    key: jax.Array
    config: IQLConfig = struct.field(pytree_node=False)

    @classmethod
    def create(cls, key: jax.Array, example: Transitions, config: IQLConfig = IQLConfig()) -> Self:
        """A fresh agent for observations and actions shaped like `example`'s, leaves `(*batch, ...)`."""
        key, actor_key, critic_key, value_key = jax.random.split(key, 4)
        obs, actions, rate = example.observations, example.actions, config.learning_rate
        gaussian: dict[str, Any] = {
            "hidden_dims": tuple(config.actor_hidden_dims),
            "action_dim": actions.shape[-1],
            "layer_norm": config.actor_layer_norm,
            "std_kind": config.std_kind,
            "std_bounds": config.std_bounds,
            "initializer": config.initializer,
            "last_gain": config.last_hidden_gain,
            "dropout_rate": config.actor_dropout,
        }
        if config.actor == "tanh_normal":
            actor: TanhNormalActor | NormalActor = TanhNormalActor(**gaussian)
        else:
            actor = NormalActor(**gaussian, bounded_mean=config.actor == "bounded_mean")
        critic = CriticEnsemble(
            hidden_dims=tuple(config.critic_hidden_dims),
            num_critics=config.num_critics,
            layer_norm=config.critic_layer_norm,
            shared_head=config.shared_critic_head,
            initializer=config.initializer,
        )
        value = Value(tuple(config.value_hidden_dims), config.critic_layer_norm, config.initializer)
        critic_model = Model.create("critic", critic, critic_key, obs, actions, learning_rate=rate)
        return cls(
            actor=Model.create("actor", actor, actor_key, obs, learning_rate=rate),
            critic=critic_model,
            value=Model.create("value", value, value_key, obs, learning_rate=rate),
            target_critic_params=copy_params(critic_model.params),
            key=key,
            config=config,
        )

    @jax.jit
    def update(self, batch: Transitions) -> tuple[Self, Metrics]:
        """One joint step of value, critic and actor, all at the same parameters; leaves `(batch_size, ...)`."""
        config = self.config
        key, subset_key, dropout_key = jax.random.split(self.key, 3)
        target_q = self.target_q(batch, subset_key)
        targets = self.targets(batch)
        weights = awr_weights(target_q - self.value(batch.observations), config.awr_temperature, config.max_weight)

        def value_loss(params: Any) -> tuple[jax.Array, Metrics]:
            values = self.value(batch.observations, params=params)
            loss = expectile_loss(values, target_q, config.expectile).mean()  # eq. 5
            return loss, {"value/loss": loss, "value/v_mean": values.mean()}

        def critic_loss(params: Any) -> tuple[jax.Array, Metrics]:
            q = self.critic(batch.observations, batch.actions, params=params)
            loss = squared_td_errors(q, targets).mean()  # eq. 6
            return loss, {"critic/loss": loss, "critic/q_mean": q.mean(), "critic/target_mean": targets.mean()}

        def actor_loss(params: Any) -> tuple[jax.Array, Metrics]:
            dropout = dropout_key if config.actor_dropout > 0.0 else None
            distribution = self.actor(batch.observations, params=params, dropout_key=dropout)
            log_probs = distribution.log_prob(batch.actions)
            loss = -(weights * log_probs).mean()  # eq. 7
            metrics = {"actor/loss": loss, "actor/log_prob": log_probs.mean(), "actor/std": distribution.std.mean()}
            return loss, metrics | {"actor/weight_mean": weights.mean(), "actor/weight_max": weights.max()}

        value, metrics = self.value.minimize(value_loss)
        critic, critic_metrics = self.critic.minimize(critic_loss)
        actor, actor_metrics = self.actor.minimize(actor_loss)
        target = polyak_update(critic.params, self.target_critic_params, config.target_update_rate)
        agent = self.replace(actor=actor, critic=critic, value=value, target_critic_params=target, key=key)
        return agent, metrics | critic_metrics | actor_metrics

    def target_q(self, batch: Transitions, key: jax.Array) -> jax.Array:
        """The data's actions as the target critics see them, `(batch,)`: the smallest of all or of a random subset."""
        config, module, params = self.config, self.critic.module, self.target_critic_params
        if config.num_target_critics < config.num_critics:
            indices = jax.random.choice(key, config.num_critics, (config.num_target_critics,), replace=False)
            module, params = module.clone(num_critics=config.num_target_critics), select_critics(params, indices)
        q: Any = module.apply(params, batch.observations, batch.actions)
        return q.min(axis=0)

    def targets(self, batch: Transitions) -> jax.Array:
        """TD targets `(batch,)` from the current state values; no gradient flows into them."""
        next_values = self.value(batch.next_observations)
        return jax.lax.stop_gradient(td_targets(batch.rewards, batch.masks, next_values, self.config.discount))

    def policy(self, *, deterministic: bool) -> ActorPolicy:
        """The actor's mode or its samples."""
        return ActorPolicy(actor=self.actor, deterministic=deterministic)

    def parts(self) -> dict[str, Any]:
        """Actor, critic and value with their optimisers, the target critic and the random key."""
        return {
            "actor": self.actor,
            "critic": self.critic,
            "value": self.value,
            "target_critic": self.target_critic_params,
            "key": self.key,
        }

    def with_parts(self, parts: dict[str, Any]) -> Self:
        """This agent with the named parts in place of its own."""
        fields = {("target_critic_params" if role == "target_critic" else role): part for role, part in parts.items()}
        return self.replace(**fields)

    def diagnose(self, batch: Transitions, key: jax.Array) -> Metrics:
        """Mean value and mean squared TD error of the critics on `batch`, leaves `(batch_size, ...)`."""
        del key
        q = self.critic(batch.observations, batch.actions)
        return {"q": q.mean(), "td_error": squared_td_errors(q, self.targets(batch)).mean()}
