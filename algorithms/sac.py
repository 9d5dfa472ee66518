"""Soft actor-critic with a critic ensemble, at any ratio of critic updates to environment steps."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, Self

import jax
import jax.numpy as jnp
from flax import struct

from hybridrl.errors import ConfigError
from hybridrl.losses.policy import log_temperature_loss, soft_policy_loss, temperature_loss
from hybridrl.losses.value import ensemble_backup, squared_td_errors, td_targets
from hybridrl.model import Model, copy_params, polyak_update
from hybridrl.networks import CriticEnsemble, PositiveScalar, TanhNormalActor, select_critics
from hybridrl.policies import ActorPolicy
from hybridrl.types import Metrics, Transitions


@dataclasses.dataclass(frozen=True)
class SACConfig:
    """Settings of SAC. The defaults are those of WSRL's online phase (Zhou et al. 2025) on dense tasks."""

    actor_learning_rate: float = 1e-4
    critic_learning_rate: float = 3e-4
    temperature_learning_rate: float = 1e-4
    adam_beta1: float = 0.9  # decay of every optimiser's first moment
    discount: float = 0.99
    target_update_rate: float = 0.005  # fraction of the critic its target takes over per critic update
    actor_hidden_dims: tuple[int, ...] = (256, 256)
    critic_hidden_dims: tuple[int, ...] = (256, 256)
    actor_layer_norm: bool = True
    critic_layer_norm: bool = True
    initializer: str = "orthogonal"  # or "xavier_uniform" or "fan_in"
    last_hidden_gain: float | None = None  # orthogonal gain of the last hidden layers; None: sqrt(2)
    output_gain: float | None = None  # Xavier-uniform gain of the output layers; None: the initializer's own
    std_kind: str = "state"  # or "free": one vector for all states; "scaled": with trained log-std scale and offset
    std_bounds: tuple[float, float] = (1e-5, 10.0)
    num_critics: int = 10
    num_target_critics: int = 2  # random critics per target; the smallest counts (REDQ)
    subset_with_replacement: bool = True  # as WSRL's code; REDQ and RLPD draw without
    shared_critic_head: bool = True  # as WSRL's code: members share their output layer
    critic_updates: int = 4  # critic steps per actor step, on consecutive parts of the batch (the UTD ratio)
    actor_q: str = "min"  # the actor climbs the "min" or the "mean" of all critics
    actor_batch: str = "all"  # the actor's step uses "all" of the batch or the "last" critic's part
    num_backup_actions: int = 1  # above 1: the target takes the best of so many next actions (max-target backup)
    entropy_backup: bool = False  # subtract temperature * log pi in the target
    initial_temperature: float = 1.0
    temperature_parameterization: str = "softplus"  # or "exp"
    temperature_objective: str = "value"  # the temperature's loss is linear in its "value" or in its "log"
    temperature_states: str = "next"  # entropy for the temperature is measured at "next" or "current" states
    target_entropy_per_dim: float = -1.0  # target entropy = this times the action dimension
    zero_grad_ticks: bool = False  # reproduce WSRL's code, where untrained networks get zero-gradient Adam steps

    def __post_init__(self) -> None:
        """Reject settings that cannot work."""
        for field, allowed in {
            "actor_q": ("min", "mean"),
            "actor_batch": ("all", "last"),
            "temperature_states": ("next", "current"),
            "std_kind": ("state", "scaled", "free"),
            "temperature_parameterization": ("softplus", "exp"),
            "temperature_objective": ("value", "log"),
            "initializer": ("orthogonal", "xavier_uniform", "fan_in"),
        }.items():
            if getattr(self, field) not in allowed:
                raise ConfigError(f"{field}={getattr(self, field)!r}; expected one of {', '.join(allowed)}")
        if self.num_target_critics > self.num_critics and not self.subset_with_replacement:
            raise ConfigError(
                f"num_target_critics={self.num_target_critics} exceeds num_critics={self.num_critics}; "
                "lower it or draw with replacement"
            )


class SACAgent(struct.PyTreeNode):
    """SAC (Haarnoja et al. 2018) with REDQ-style targets (Chen et al. 2021), as WSRL and RLPD use it.

    Departures of the defaults from the original paper, all of them WSRL's: no entropy in the target, the actor climbs
    the smallest of all critics, the temperature's entropy is measured at next states. From WSRL's published code: a
    network that is not trained is not stepped (`zero_grad_ticks` restores it).
    """

    actor: Model
    critic: Model
    temperature: Model
    target_critic_params: Any
    key: jax.Array
    config: SACConfig = struct.field(pytree_node=False)

    @classmethod
    def create(cls, key: jax.Array, example: Transitions, config: SACConfig = SACConfig()) -> Self:
        """A fresh agent for observations and actions shaped like `example`'s, leaves `(*batch, ...)`."""
        key, actor_key, critic_key, temperature_key = jax.random.split(key, 4)
        obs, actions = example.observations, example.actions
        actor = TanhNormalActor(
            hidden_dims=tuple(config.actor_hidden_dims),
            action_dim=actions.shape[-1],
            layer_norm=config.actor_layer_norm,
            std_kind=config.std_kind,
            std_bounds=config.std_bounds,
            initializer=config.initializer,
            last_gain=config.last_hidden_gain,
            output_gain=config.output_gain,
        )
        critic = CriticEnsemble(
            hidden_dims=tuple(config.critic_hidden_dims),
            num_critics=config.num_critics,
            layer_norm=config.critic_layer_norm,
            shared_head=config.shared_critic_head,
            initializer=config.initializer,
            last_gain=config.last_hidden_gain,
            output_gain=config.output_gain,
        )
        temperature = PositiveScalar(config.initial_temperature, config.temperature_parameterization)
        new = functools.partial(Model.create, beta1=config.adam_beta1)
        critic_model = new("critic", critic, critic_key, obs, actions, learning_rate=config.critic_learning_rate)
        return cls(
            actor=new("actor", actor, actor_key, obs, learning_rate=config.actor_learning_rate),
            critic=critic_model,
            temperature=new(
                "temperature", temperature, temperature_key, learning_rate=config.temperature_learning_rate
            ),
            target_critic_params=copy_params(critic_model.params),
            key=key,
            config=config,
        )

    @jax.jit
    def update(self, batch: Transitions) -> tuple[Self, Metrics]:
        """`critic_updates` critic steps on consecutive parts of `batch`, then one actor and one temperature step.

        Args:
            batch: leaves `(batch_size, ...)`; the batch size must be a multiple of `critic_updates`.
        """
        count = self.config.critic_updates
        if len(batch.rewards) % count:
            raise ValueError(
                f"batch of {len(batch.rewards)} rows does not divide into critic_updates={count} parts; "
                "make batch_size a multiple of it"
            )
        parts = jax.tree.map(lambda field: field.reshape(count, -1, *field.shape[1:]), batch)
        key, critic_key, actor_key = jax.random.split(self.key, 3)
        ticking = self.config.zero_grad_ticks and count > 1  # with one critic step, the update is joint there too

        def critic_step(agent: Self, inputs: tuple[Transitions, jax.Array]) -> tuple[Self, Metrics]:
            part, part_key = inputs
            critic, metrics = agent.critic.minimize(functools.partial(agent.critic_loss, part, part_key))
            agent = agent.with_critic(critic)
            if ticking:
                agent = agent.replace(actor=agent.actor.tick(), temperature=agent.temperature.tick())
            return agent, metrics

        agent, critic_metrics = jax.lax.scan(critic_step, self, (parts, jax.random.split(critic_key, count)))
        critic_metrics = jax.tree.map(jnp.mean, critic_metrics)
        actor_batch = batch if self.config.actor_batch == "all" else jax.tree.map(lambda field: field[-1], parts)
        # With one critic step per actor step, all losses are taken at the same parameters, as in one joint update.
        critic = self.critic if count == 1 else agent.critic
        agent, actor_metrics = agent.improve_policy(actor_batch, actor_key, critic)
        if ticking:
            agent = agent.replace(critic=agent.critic.tick())
        return agent.replace(key=key), critic_metrics | actor_metrics

    def critic_loss(self, batch: Transitions, key: jax.Array, params: Any) -> tuple[jax.Array, Metrics]:
        """Mean squared error to the TD targets over the ensemble and the batch."""
        targets = self.targets(batch, key)
        q = self.critic(batch.observations, batch.actions, params=params)
        loss = squared_td_errors(q, targets).mean()
        return loss, {"critic/loss": loss, "critic/q_mean": q.mean(), "critic/target_mean": targets.mean()}

    def targets(self, batch: Transitions, key: jax.Array) -> jax.Array:
        """TD targets `(batch,)` from a random subset of the target critics; no gradient flows into them."""
        config = self.config
        action_key, subset_key = jax.random.split(key)
        next_actions, log_probs = self.actor(batch.next_observations).sample_with_log_prob(
            action_key, (config.num_backup_actions,)
        )
        indices = self.draw_critics(subset_key, config.num_target_critics)
        next_q = self.evaluate_critics(self.target_critic_params, indices, batch.next_observations, next_actions)
        if config.entropy_backup:
            next_q = next_q - self.temperature() * log_probs[None]
        targets = td_targets(batch.rewards, batch.masks, ensemble_backup(next_q), config.discount)
        return jax.lax.stop_gradient(targets)

    def draw_critics(self, key: jax.Array, count: int) -> jax.Array:
        """Indices `(count,)` of randomly chosen ensemble members."""
        config = self.config
        return jax.random.choice(key, config.num_critics, (count,), replace=config.subset_with_replacement)

    def evaluate_critics(
        self, params: Any, indices: jax.Array, observations: jax.Array, actions: jax.Array
    ) -> jax.Array:
        """Values `(len(indices), *batch)` by the members at `indices` only."""
        module = self.critic.module.clone(num_critics=len(indices))
        values: Any = module.apply(select_critics(params, indices), observations, actions)
        return values

    def improve_policy(self, batch: Transitions, key: jax.Array, critic: Model) -> tuple[Self, Metrics]:
        """One actor step up the values of `critic` and one temperature step towards the target entropy."""
        config = self.config
        action_key, entropy_key = jax.random.split(key)
        actor, actor_metrics = self.actor.minimize(functools.partial(self.actor_loss, batch, action_key, critic))
        if config.temperature_states == "next":
            distribution = self.actor(batch.next_observations)
            entropy = -distribution.sample_with_log_prob(entropy_key, (config.num_backup_actions,))[1].mean()
        else:
            entropy = actor_metrics["actor/entropy"]
        target_entropy = config.target_entropy_per_dim * batch.actions.shape[-1]

        def entropy_loss(params: Any) -> tuple[jax.Array, Metrics]:
            value = self.temperature(params=params)
            objective = temperature_loss if config.temperature_objective == "value" else log_temperature_loss
            loss = objective(value, entropy, target_entropy)
            return loss, {"temperature/loss": loss, "temperature/value": value}

        temperature, temperature_metrics = self.temperature.minimize(entropy_loss)
        return self.replace(actor=actor, temperature=temperature), actor_metrics | temperature_metrics

    def actor_loss(self, batch: Transitions, key: jax.Array, critic: Model, params: Any) -> tuple[jax.Array, Metrics]:
        """Mean of `temperature * log pi - Q` over the batch, at `params` of the actor."""
        actions, log_probs = self.actor(batch.observations, params=params).sample_with_log_prob(key)
        q = critic(batch.observations, actions)
        q = q.min(axis=0) if self.config.actor_q == "min" else q.mean(axis=0)
        loss = soft_policy_loss(log_probs, q, self.temperature()).mean()
        return loss, {"actor/loss": loss, "actor/entropy": -log_probs.mean(), "actor/q_mean": q.mean()}

    def with_critic(self, critic: Model) -> Self:
        """This agent with a newly trained critic, its target moved towards it."""
        target = polyak_update(critic.params, self.target_critic_params, self.config.target_update_rate)
        return self.replace(critic=critic, target_critic_params=target)

    def policy(self, *, deterministic: bool) -> ActorPolicy:
        """The actor's mode or its samples."""
        return ActorPolicy(actor=self.actor, deterministic=deterministic)

    def parts(self) -> dict[str, Any]:
        """Actor, critic and temperature with their optimisers, the target critic and the random key."""
        return {
            "actor": self.actor,
            "critic": self.critic,
            "temperature": self.temperature,
            "target_critic": self.target_critic_params,
            "key": self.key,
        }

    def with_parts(self, parts: dict[str, Any]) -> Self:
        """This agent with the named parts in place of its own."""
        fields = {("target_critic_params" if role == "target_critic" else role): part for role, part in parts.items()}
        return self.replace(**fields)

    def diagnose(self, batch: Transitions, key: jax.Array) -> Metrics:
        """Mean value and mean squared TD error of the ensemble on `batch`, leaves `(batch_size, ...)`."""
        q = self.critic(batch.observations, batch.actions)
        return {"q": q.mean(), "td_error": squared_td_errors(q, self.targets(batch, key)).mean()}
