"""TD3+BC: an off-policy agent and one term of cloning."""

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
from hybridrl.standardizer import StandardizedPolicy, Standardizer
from hybridrl.types import Metrics, Policy, Transitions


@dataclasses.dataclass(frozen=True)
class TD3BCConfig:
    """Settings of TD3+BC. The defaults are the paper's (Fujimoto & Gu 2021, hyperparameters in the appendix)."""

    actor_learning_rate: float = 3e-4
    critic_learning_rate: float = 3e-4
    discount: float = 0.99
    target_update_rate: float = 0.005  # fraction the targets take over, whenever the actor is trained
    q_weight: float = 2.5  # alpha: how much the critic counts beside the cloning error
    actor_every: int = 2  # updates per step of actor and targets
    target_noise: float = 0.2  # deviation of the target's actions
    target_noise_clip: float = 0.5
    exploration_noise: float = 0.1  # deviation of the actions collected online
    actor_hidden_dims: tuple[int, ...] = (256, 256)
    critic_hidden_dims: tuple[int, ...] = (256, 256)
    critic_layer_norm: bool = False
    initializer: str = "fan_in"  # or "orthogonal", "xavier_uniform"
    standardize_observations: bool = True  # by the dataset's mean and deviation

    def __post_init__(self) -> None:
        """Reject settings that cannot work."""
        if self.initializer not in ("fan_in", "orthogonal", "xavier_uniform"):
            raise ConfigError(f"initializer={self.initializer!r}; expected fan_in, orthogonal or xavier_uniform")
        if self.actor_every < 1:
            raise ConfigError(f"actor_every={self.actor_every}; expected at least 1")


class TD3BCAgent(struct.PyTreeNode):
    """TD3+BC (Fujimoto & Gu 2021): TD3 whose actor also regresses the data's actions, on standardised observations.

    The actor is trained in every second update, beginning with the first; the authors' code begins with the second.
    """

    actor: Model
    critic: Model
    target_actor_params: Any
    target_critic_params: Any
    standardizer: Standardizer | None  # None if observations are used as they are
    key: jax.Array
    delay: Delay
    config: TD3BCConfig = struct.field(pytree_node=False)

    @classmethod
    def create(cls, key: jax.Array, example: Transitions, config: TD3BCConfig = TD3BCConfig()) -> Self:
        """A fresh agent for observations and actions shaped like `example`'s, leaves `(*batch, ...)`."""
        key, actor_key, critic_key = jax.random.split(key, 3)
        obs, actions, kind = example.observations, example.actions, config.initializer
        actor = DeterministicActor(tuple(config.actor_hidden_dims), actions.shape[-1], initializer=kind)
        critic = CriticEnsemble(
            tuple(config.critic_hidden_dims), num_critics=2, layer_norm=config.critic_layer_norm, initializer=kind
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
            standardizer=Standardizer.identity(obs.shape[-1]) if config.standardize_observations else None,
            key=key,
            delay=Delay.create("actor/loss", "actor/q_mean", "actor/squared_error", "actor/grad_norm"),
            config=config,
        )

    def fit_observations(self, observations: jax.Array | None) -> Self:
        """This agent with the standardisation of these observations `(rows, obs_dim)`, if its settings want one."""
        return self.replace(standardizer=Standardizer.refit(self.standardizer, observations))

    @jax.jit
    def update(self, batch: Transitions) -> tuple[Self, Metrics]:
        """One critic step, and where it is due one actor step and one step of the targets."""
        batch = self._seen(batch)
        config = self.config
        key, noise_key = jax.random.split(self.key)
        targets = self.targets(batch, noise_key)

        def critic_loss(params: Any) -> tuple[jax.Array, Metrics]:
            q = self.critic(batch.observations, batch.actions, params=params)
            loss = squared_td_errors(q, targets).mean(axis=-1).sum()
            return loss, {"critic/loss": loss, "critic/q_mean": q.mean(), "critic/target_mean": targets.mean()}

        critic, metrics = self.critic.minimize(critic_loss)

        def actor_loss(params: Any) -> tuple[jax.Array, Metrics]:
            actions = self.actor(batch.observations, params=params)
            q = critic(batch.observations, actions)[0]  # of the first critic alone
            error = jnp.square(actions - batch.actions).mean()
            loss = config.q_weight * scale_free_policy_loss(q).mean() + error  # eq. 3 with eq. 5
            return loss, {"actor/loss": loss, "actor/q_mean": q.mean(), "actor/squared_error": error}

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
        """TD targets `(batch,)` at smoothed actions of the target actor; observations are standardised already."""
        config = self.config
        proposed = self.actor(batch.next_observations, params=self.target_actor_params)
        actions = smoothed_actions(key, proposed, config.target_noise, config.target_noise_clip)
        next_q = self.critic(batch.next_observations, actions, params=self.target_critic_params).min(axis=0)
        return jax.lax.stop_gradient(td_targets(batch.rewards, batch.masks, next_q, config.discount))

    def _seen(self, batch: Transitions) -> Transitions:
        return batch if self.standardizer is None else self.standardizer.transitions(batch)

    def policy(self, *, deterministic: bool) -> Policy:
        """The actor's action, with exploration noise unless `deterministic`."""
        policy: Policy = NoisyPolicy(self.actor, self.config.exploration_noise, deterministic)
        return policy if self.standardizer is None else StandardizedPolicy(policy, self.standardizer)

    def parts(self) -> dict[str, Any]:
        """Actor and critic with their optimisers, both targets, the random key, and the standardisation if any."""
        parts = {
            "actor": self.actor,
            "critic": self.critic,
            "target_actor": self.target_actor_params,
            "target_critic": self.target_critic_params,
            "key": self.key,
        }
        return parts | ({} if self.standardizer is None else {"standardizer": self.standardizer})

    def with_parts(self, parts: dict[str, Any]) -> Self:
        """This agent with the named parts in place of its own."""
        fields = {(f"{role}_params" if role.startswith("target_") else role): part for role, part in parts.items()}
        return self.replace(**fields)

    def diagnose(self, batch: Transitions, key: jax.Array) -> Metrics:
        """Mean value and mean squared TD error of the critics on `batch`, leaves `(batch_size, ...)`."""
        batch = self._seen(batch)
        q = self.critic(batch.observations, batch.actions)
        return {"q": q.mean(), "td_error": squared_td_errors(q, self.targets(batch, key)).mean()}
