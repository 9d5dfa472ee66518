"""Values of offline data that a policy is improved against afterwards: IQL's, or those of the behaviour itself."""

from __future__ import annotations

import dataclasses
from typing import Any, Self

import jax
import jax.numpy as jnp
from flax import struct

from hybridrl.errors import ConfigError
from hybridrl.losses.value import expectile_loss, squared_td_errors, td_targets
from hybridrl.model import Model, copy_params, polyak_update
from hybridrl.networks import CriticEnsemble, Value
from hybridrl.types import Metrics, Transitions

_INITIALIZER = "fan_in"


@dataclasses.dataclass(frozen=True)
class OfflineValuesConfig:
    """Settings of the values. The defaults are those of Uni-O4's published code."""

    kind: str = "iql"  # "iql", or "sarsa": Q of the behaviour policy, and V by regression on Monte-Carlo returns
    learning_rate: float = 1e-4  # of both networks
    expectile: float = 0.7  # of "iql"
    target_update_rate: float = 0.005
    target_every: int = 2  # updates per step of the target
    timeouts_as_terminal: bool = False  # the published code bootstraps through no end of an episode
    num_critics: int = 2  # the least of them counts
    critic_hidden_dims: tuple[int, ...] = (1024, 1024)
    value_hidden_dims: tuple[int, ...] = (512,) * 3

    def __post_init__(self) -> None:
        """Reject settings that cannot work."""
        if self.kind not in ("iql", "sarsa"):
            raise ConfigError(f"kind={self.kind!r}; expected 'iql' or 'sarsa'")
        if not 0.0 < self.expectile < 1.0:
            raise ConfigError(f"expectile={self.expectile}; expected a number between 0 and 1")
        if self.target_every < 1 or self.num_critics < 1:
            raise ConfigError(f"target_every={self.target_every}, num_critics={self.num_critics}; expected at least 1")

    @property
    def needs_next_actions(self) -> bool:
        """Whether its batches must say which action came next: as a target, or to tell where an episode was cut."""
        return self.kind == "sarsa" or self.timeouts_as_terminal


class OfflineValues(struct.PyTreeNode):
    """Q(s, a) and V(s) from a dataset. Observations come as the networks are to see them."""

    critic: Model
    value: Model
    target_critic_params: Any
    count: jax.Array  # int32 (), updates made
    config: OfflineValuesConfig = struct.field(pytree_node=False)

    @classmethod
    def create(cls, key: jax.Array, example: Transitions, config: OfflineValuesConfig) -> Self:
        """Fresh networks for observations and actions shaped like `example`'s, leaves `(*batch, ...)`."""
        critic_key, value_key = jax.random.split(key)
        obs, actions, rate = example.observations, example.actions, config.learning_rate
        critic = CriticEnsemble(tuple(config.critic_hidden_dims), config.num_critics, initializer=_INITIALIZER)
        value = Value(tuple(config.value_hidden_dims), initializer=_INITIALIZER)
        critic_model = Model.create("critic", critic, critic_key, obs, actions, learning_rate=rate)
        return cls(
            critic=critic_model,
            value=Model.create("value", value, value_key, obs, learning_rate=rate),
            target_critic_params=copy_params(critic_model.params),
            count=jnp.zeros((), jnp.int32),
            config=config,
        )

    def update(self, batch: Transitions, discount: float) -> tuple[Self, Metrics]:
        """One step of V, one of Q towards it (or towards the next action's Q), and every so often one of the target."""
        config, known = self.config, jnp.ones_like(batch.rewards)
        if config.needs_next_actions:
            assert batch.next_actions is not None, "the phase's batches say which action came next"
            known = jnp.isfinite(batch.next_actions).all(axis=-1).astype(jnp.float32)
        masks = batch.masks * known if config.timeouts_as_terminal else batch.masks
        value, metrics = self.value.minimize(lambda params: self.value_loss(params, batch))
        if config.kind == "iql":
            next_values, weights = value(batch.next_observations), jnp.ones_like(masks)
        else:
            assert batch.next_actions is not None
            next_actions = jnp.where(known[:, None] > 0.0, batch.next_actions, 0.0)
            next_values = self.target_q(batch.next_observations, next_actions)
            weights = jnp.maximum(known, 1.0 - masks)  # where an episode was cut, nobody knows the next action
        targets = jax.lax.stop_gradient(td_targets(batch.rewards, masks, next_values, discount))

        def critic_loss(params: Any) -> tuple[jax.Array, Metrics]:
            q = self.critic(batch.observations, batch.actions, params=params)
            loss = (weights[None] * squared_td_errors(q, targets)).mean(axis=-1).sum()
            return loss, {"critic/loss": loss, "critic/q_mean": q.mean(), "critic/target_mean": targets.mean()}

        critic, critic_metrics = self.critic.minimize(critic_loss)
        count = self.count + 1
        rate = jnp.where(count % config.target_every == 0, config.target_update_rate, 0.0)
        target = polyak_update(critic.params, self.target_critic_params, rate)
        values = self.replace(critic=critic, value=value, target_critic_params=target, count=count)
        return values, metrics | critic_metrics

    def value_loss(self, params: Any, batch: Transitions) -> tuple[jax.Array, Metrics]:
        """V towards an expectile of the target's Q over the data's actions, or towards the Monte-Carlo return."""
        values = self.value(batch.observations, params=params)
        if self.config.kind == "iql":
            target_q = self.target_q(batch.observations, batch.actions)
            loss = expectile_loss(values, target_q, self.config.expectile).mean()
        else:
            loss = jnp.square(values - batch.mc_returns).mean()
        return loss, {"value/loss": loss, "value/v_mean": values.mean()}

    def target_q(self, observations: jax.Array, actions: jax.Array) -> jax.Array:
        """The least target critic, `(*batch,)`."""
        return self.critic(observations, actions, params=self.target_critic_params).min(axis=0)

    def q(self, observations: jax.Array, actions: jax.Array) -> jax.Array:
        """The least critic, `(*batch,)`; `observations` may miss leading axes that `actions` have."""
        return self.critic(observations, actions).min(axis=0)

    def diagnose(self, batch: Transitions, discount: float) -> Metrics:
        """Mean value and mean squared error of the critics against `r + discount m V(s')`."""
        q = self.critic(batch.observations, batch.actions)
        targets = td_targets(batch.rewards, batch.masks, self.value(batch.next_observations), discount)
        return {"q": q.mean(), "td_error": squared_td_errors(q, targets).mean()}
