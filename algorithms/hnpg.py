"""HNPG: natural policy gradient on-policy, with offline data in its critic and among its states; without them TRPO."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, Self

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from flax import struct

from hybridrl.distributions import Normal
from hybridrl.errors import ConfigError
from hybridrl.losses.advantages import generalized_advantages
from hybridrl.losses.value import td_targets
from hybridrl.model import Model, adam, member
from hybridrl.natural_gradient import NaturalStep, TrustRegionConfig, natural_step
from hybridrl.networks.mlp import MLP, kernel_init
from hybridrl.policies import ActorPolicy
from hybridrl.standardizer import StandardizedPolicy, Standardizer
from hybridrl.types import Metrics, OnPolicyBatch, Policy, Rollout, Transitions

_OUTPUT_GAIN = 0.1  # of both networks' last layer (released code)


@dataclasses.dataclass(frozen=True)
class HNPGConfig:
    """Settings of HNPG; the defaults are those of the combination lock (Zhou et al. 2024, table 1 and released code).

    Attributes:
        horizon: steps of every episode, with a policy and a critic of its own for each step. None is the version for
            ordinary tasks: one policy and one critic for all steps, a discount, episodes of any length.
        discount: of returns and of the offline targets; 1 with a `horizon`, which is then the problem.
        online_weight: lambda, of the critic's error on fresh returns; that of the error on offline targets is 1.
        offline_critic: whether the critic learns the offline data's TD targets. Without this and the next it is TRPO.
        offline_actor: whether the offline data's states count in the policy's gradient and Fisher matrix.
        critic_updates: full-batch steps of a fresh Adam in one update, after each drawing of offline targets.
        critic_rounds: how often the offline targets are drawn anew in one update. Networks per step need one: the
            sweep from the last step backwards has fresh targets everywhere.
        trace_decay: of the online advantages.
        value_samples: actions whose mean critic value is the value of a state.
        standardize_observations: by the dataset's mean and deviation; in no paper, for tasks in physical units.
        stochastic_evaluation: whether evaluation draws actions, as published, rather than playing the means.
        region: of the policy's steps.
    """

    horizon: int | None = None
    discount: float = 1.0
    actor_hidden_dims: tuple[int, ...] = (16, 16)
    critic_hidden_dims: tuple[int, ...] = (64, 64)
    critic_learning_rate: float = 3e-4
    critic_updates: int = 30
    critic_rounds: int = 1
    online_weight: float = 1.0
    offline_critic: bool = True
    offline_actor: bool = True
    trace_decay: float = 0.97
    value_samples: int = 10
    standardize_observations: bool = False
    stochastic_evaluation: bool = True
    region: TrustRegionConfig = TrustRegionConfig()

    @property
    def uses_offline_data(self) -> bool:
        """Whether updates need rows of the dataset."""
        return self.offline_critic or self.offline_actor

    def __post_init__(self) -> None:
        """Reject settings that cannot work."""
        if self.horizon is not None and self.horizon < 1:
            raise ConfigError(f"horizon={self.horizon}; expected at least 1, or null for one network for all steps")
        if self.horizon is not None and self.critic_rounds != 1:
            raise ConfigError(
                f"critic_rounds={self.critic_rounds} with networks per step, whose one backward sweep has fresh "
                "targets already; expected 1"
            )
        for field in ("critic_updates", "critic_rounds", "value_samples"):
            if getattr(self, field) < 1:
                raise ConfigError(f"{field}={getattr(self, field)}; expected at least 1")


class GaussianActor(nn.Module):
    """`(*batch, obs_dim)` -> Normal over `(*batch, action_dim)`, with one free deviation per entry, 1 at first."""

    hidden_dims: tuple[int, ...]
    action_dim: int

    @nn.compact
    def __call__(self, observations: jax.Array) -> Normal:
        """The action distribution in each state."""
        features = MLP(self.hidden_dims, initializer="fan_in", activation="tanh")(observations)
        mean = nn.Dense(self.action_dim, name="mean", kernel_init=kernel_init("fan_in", _OUTPUT_GAIN))(features)
        log_std = self.param("log_std", nn.initializers.zeros, (self.action_dim,))
        return Normal(mean, jnp.broadcast_to(jnp.exp(log_std), mean.shape))


class Critic(nn.Module):
    """Observations and actions to values `(*batch,)`."""

    hidden_dims: tuple[int, ...]

    @nn.compact
    def __call__(self, observations: jax.Array, actions: jax.Array) -> jax.Array:
        """Values of `actions` `(*batch, action_dim)` in `observations` `(*batch, obs_dim)`."""
        inputs = jnp.concatenate([observations, actions], axis=-1)
        features = MLP(self.hidden_dims, initializer="fan_in", activation="tanh")(inputs)
        return nn.Dense(1, name="head", kernel_init=kernel_init("fan_in", _OUTPUT_GAIN))(features)[..., 0]


class StepPolicy(struct.PyTreeNode):
    """Acts by the actor of the present time step, which is the carry; draws and means are not clipped."""

    actors: Model  # leaves (horizon, ...)
    deterministic: bool = struct.field(pytree_node=False)

    def begin(self, context: Any) -> jax.Array:
        """The first step, int32 `()`."""
        del context
        return jnp.int32(0)

    def act(self, carry: jax.Array, observations: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Actions `(*batch, action_dim)` for observations `(*batch, obs_dim)` that are all of this step."""
        distribution = member(self.actors, carry)(observations)
        return (distribution.mean if self.deterministic else distribution.draw(key)), carry + 1


class HNPGAgent(struct.PyTreeNode):
    """Hybrid natural policy gradient (Zhou et al. 2024, algorithm 3 and appendix E.3), and TRPO without offline data.

    The online part of the critic's loss never bootstraps within an episode: it regresses on returns. Only the offline
    part does. Networks have a leading axis, one entry per time step, or a single one where all steps share them.

    Departures from the released code: `region.enforce_kl`, which the paper states and the code lacks; biases begin at
    zero; float32, in which conjugate gradients of 10 steps at damping 0.1 leave residuals like those of float64.
    """

    actor: Model  # leaves (networks, ...)
    critic: Model  # leaves (networks, ...)
    standardizer: Standardizer | None  # None if observations are used as they are
    key: jax.Array
    config: HNPGConfig = struct.field(pytree_node=False)

    @classmethod
    def create(cls, key: jax.Array, example: Transitions, config: HNPGConfig = HNPGConfig()) -> Self:
        """A fresh agent for observations and actions shaped like `example`'s, leaves `(*batch, ...)`."""
        key, actor_key, critic_key = jax.random.split(key, 3)
        obs, actions, count = example.observations, example.actions, config.horizon or 1
        actor = GaussianActor(tuple(config.actor_hidden_dims), actions.shape[-1])
        critic = Critic(tuple(config.critic_hidden_dims))

        def stacked(*model: Any, key: jax.Array, optimizer: optax.GradientTransformation) -> Model:
            def new(key: jax.Array) -> Model:
                return Model.create_with(*model[:2], key, *model[2:], optimizer=optimizer)

            return jax.vmap(new)(jax.random.split(key, count))

        return cls(
            actor=stacked("actor", actor, obs, key=actor_key, optimizer=_no_optimizer()),
            critic=stacked("critic", critic, obs, actions, key=critic_key, optimizer=adam(config.critic_learning_rate)),
            standardizer=Standardizer.identity(obs.shape[-1]) if config.standardize_observations else None,
            key=key,
            config=config,
        )

    def fit_observations(self, observations: jax.Array | None) -> Self:
        """This agent with the standardisation of these observations `(rows, obs_dim)`, if its settings want one."""
        return self.replace(standardizer=Standardizer.refit(self.standardizer, observations))

    @jax.jit
    def update(self, batch: OnPolicyBatch) -> tuple[Self, Metrics]:
        """The critic by regression on returns and offline targets, then one natural-gradient step of the policy.

        Args:
            batch: a rollout; with networks per step it is `horizon` steps long and begins with an episode. Offline rows
                have leaves `(rows, ...)`, or with networks per step `(horizon, rows, ...)`: row h is of step h.
        """
        self._check(batch)
        key, return_key, critic_key, value_key, offline_key = jax.random.split(self.key, 5)
        rollout, offline = self._seen(batch.rollout), self._seen(batch.offline)
        if offline is not None and self.config.horizon is None:
            offline = jax.tree.map(lambda field: field[None], offline)
        observations, actions = self._by_network(rollout.observations), self._by_network(rollout.actions)
        returns = self._by_network(self.returns(rollout, return_key))
        critic, critic_metrics = self.evaluate_policy((observations, actions, returns), offline, critic_key)
        agent = self.replace(critic=critic)
        advantages = self._by_network(agent.online_advantages(rollout, value_key))
        if self.config.offline_actor:
            assert offline is not None, "checked at the start"
            states = offline.observations
            drawn, offline_advantages = agent.offline_advantages(states, offline_key)
            observations = jnp.concatenate([observations, states], axis=1)
            actions = jnp.concatenate([actions, drawn], axis=1)
            advantages = jnp.concatenate([advantages, offline_advantages], axis=1)
        step = jax.vmap(self.improve_policy)(self.actor, observations, actions, advantages)
        actor = self.actor.replace(params=step.params)
        actor_metrics = {
            "actor/kl_mean": step.kl.mean(),
            "actor/kl_max": step.kl.max(),
            "actor/accepted": step.accepted.mean(),
            "actor/fraction": step.fraction.mean(),
            "actor/improvement": step.improvement.mean(),
            "actor/cg_residual": step.residual.max(),
            "actor/std": jnp.exp(actor.params["params"]["log_std"]).mean(),
        }
        return agent.replace(actor=actor, key=key), critic_metrics | actor_metrics

    def returns(self, rollout: Rollout, key: jax.Array) -> jax.Array:
        """Discounted sums of rewards to the end of the episode, `(num_steps, num_envs)`.

        Where a time limit or the end of the rollout cuts an episode short, the present critic stands in for the rest.
        """
        cut = jnp.maximum(rollout.ends, jnp.arange(len(rollout.ends))[:, None] == len(rollout.ends) - 1)
        rest = jnp.zeros_like(rollout.rewards)
        if self.config.horizon is None:  # with networks per step nothing is cut short
            rest = cut * self._values(rollout.next_observations, key)
        nothing = jnp.zeros_like(rest)
        return generalized_advantages(
            rollout.rewards, nothing, rest, rollout.masks, rollout.ends, self.config.discount, trace_decay=1.0
        )

    def evaluate_policy(
        self, online: tuple[jax.Array, jax.Array, jax.Array], offline: Transitions | None, key: jax.Array
    ) -> tuple[Model, Metrics]:
        """The critics fitted to this policy, from the last step backwards.

        Args:
            online: observations, actions and returns, `(networks, rows, ...)`.
            offline: leaves `(networks, rows, ...)`.
        """
        offline = offline if self.config.offline_critic else None
        if self.config.horizon is None:
            return self._fit_shared(online, offline, key)

        def fit(following: Model, step: tuple[Any, ...]) -> tuple[Model, tuple[Model, Metrics]]:
            critic, next_actor, last, online, offline, key = step
            labelled = None
            if offline is not None:
                targets = self._targets(offline, next_actor, following, key, jnp.where(last, 0.0, 1.0))
                labelled = offline.observations, offline.actions, targets
            critic, metrics = self._regress(critic, online, labelled)
            return critic, (critic, metrics)

        next_actors = jax.tree.map(lambda leaf: jnp.roll(leaf, -1, axis=0), self.actor)  # the last one is not asked
        last = jnp.arange(self.config.horizon) == self.config.horizon - 1
        keys = jax.random.split(key, self.config.horizon)
        anything = member(self.critic, -1).restarted()  # nothing follows the last step
        steps = (self.critic, next_actors, last, online, offline, keys)
        critic, metrics = jax.lax.scan(fit, anything, steps, reverse=True)[1]
        return critic, jax.tree.map(jnp.mean, metrics)

    def online_advantages(self, rollout: Rollout, key: jax.Array) -> jax.Array:
        """Generalised advantages of the rollout's steps, `(num_steps, num_envs)`, by the critic's state values."""
        value_key, next_key = jax.random.split(key)
        values = self._values(rollout.observations, value_key)
        if self.config.horizon is None:
            next_values = self._values(rollout.next_observations, next_key)
        else:
            next_values = jnp.concatenate([values[1:], jnp.zeros_like(values[:1])])
        config = self.config
        return generalized_advantages(
            rollout.rewards, values, next_values, rollout.masks, rollout.ends, config.discount, config.trace_decay
        )

    def offline_advantages(self, observations: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The policy's own actions `(networks, rows, action_dim)` in offline states, and `Q - V` `(networks, rows)`.

        The data's actions are not used: the surrogate needs actions of the policy.
        """
        action_key, value_key = jax.random.split(key)
        actions = jax.vmap(lambda actor, obs, key: actor(obs).draw(key))(
            self.actor, observations, jax.random.split(action_key, len(observations))
        )
        q = jax.vmap(lambda critic, *inputs: critic(*inputs))(self.critic, observations, actions)
        return actions, q - self._network_values(observations, value_key)

    def improve_policy(
        self, actor: Model, observations: jax.Array, actions: jax.Array, advantages: jax.Array
    ) -> NaturalStep:
        """The natural-gradient step of one network on its rows: leaves `(rows, ...)`, all of the same weight."""
        old = actor(observations)
        old_log_probs = old.log_prob(actions)

        def surrogate(params: Any) -> jax.Array:
            # Less the mean advantage, which is the surrogate of the old policy: nothing cancels near it.
            ratio = actor(observations, params=params).log_prob(actions) - old_log_probs
            return jnp.mean(advantages * jnp.expm1(ratio))

        def divergence(params: Any) -> jax.Array:
            return jnp.mean(old.kl(actor(observations, params=params)))

        return natural_step(surrogate, divergence, actor.params, self.config.region)

    def policy(self, *, deterministic: bool) -> Policy:
        """The actor's draws; `deterministic`, its means, unless evaluation is stochastic by the settings."""
        deterministic = deterministic and not self.config.stochastic_evaluation
        if self.config.horizon is not None:
            policy: Any = StepPolicy(self.actor, deterministic)
        else:
            policy = ActorPolicy(member(self.actor, 0), deterministic, clip_samples=False)
        return policy if self.standardizer is None else StandardizedPolicy(policy, self.standardizer)

    def parts(self) -> dict[str, Any]:
        """Actors and critics, stacked over time steps, the standardisation, and the random key."""
        return {"actor": self.actor, "critic": self.critic, "standardizer": self.standardizer, "key": self.key}

    def with_parts(self, parts: dict[str, Any]) -> Self:
        """This agent with the named parts in place of its own."""
        return self.replace(**parts)

    def diagnose(self, batch: Transitions, key: jax.Array) -> Metrics:
        """Mean value and squared TD error on `batch`; nothing with networks per step: rows do not say theirs."""
        if self.config.horizon is not None:
            return {}
        batch, actor, critic = self._seen(batch), member(self.actor, 0), member(self.critic, 0)
        q = critic(batch.observations, batch.actions)
        targets = self._targets(batch, actor, critic, key, jnp.ones(()))
        return {"q": q.mean(), "td_error": jnp.mean(jnp.square(q - targets))}

    def _fit_shared(
        self, online: tuple[jax.Array, ...], offline: Transitions | None, key: jax.Array
    ) -> tuple[Model, Metrics]:
        """Fitted evaluation by one critic: every round draws targets from the critic that the round before left."""
        actor, online, offline = member((self.actor, online, offline), 0)

        def fit(critic: Model, key: jax.Array) -> tuple[Model, Metrics]:
            labelled = None
            if offline is not None:
                targets = self._targets(offline, actor, critic, key, jnp.ones(()))
                labelled = offline.observations, offline.actions, targets
            return self._regress(critic, online, labelled)

        start = member(self.critic, 0).restarted()
        critic, metrics = jax.lax.scan(fit, start, jax.random.split(key, self.config.critic_rounds))
        return jax.tree.map(lambda leaf: leaf[None], critic), jax.tree.map(lambda values: values[-1], metrics)

    def _targets(
        self, offline: Transitions, next_actor: Model, following: Model, key: jax.Array, bootstrap: jax.Array
    ) -> jax.Array:
        """Offline targets `(rows,)` with one drawn next action; `bootstrap` is 0 where the horizon ends, else 1."""
        next_actions = next_actor(offline.next_observations).draw(key)
        next_values = following(offline.next_observations, next_actions)
        return td_targets(offline.rewards, bootstrap * offline.masks, next_values, self.config.discount)

    def _regress(
        self,
        critic: Model,
        online: tuple[jax.Array, ...],
        offline: tuple[jax.Array, ...] | None,
    ) -> tuple[Model, Metrics]:
        """`critic_updates` steps of a fresh Adam on rows `(observations, actions, what to answer)` of both sources."""
        observations, actions, returns = online

        def loss(params: Any) -> tuple[jax.Array, Metrics]:
            q = critic(observations, actions, params=params)
            online_error = jnp.mean(jnp.square(q - returns))
            total = self.config.online_weight * online_error
            metrics = {"critic/online_error": online_error, "critic/q_mean": q.mean()}
            if offline is not None:
                states, taken, targets = offline
                offline_error = jnp.mean(jnp.square(critic(states, taken, params=params) - targets))
                total += offline_error
                metrics |= {"critic/offline_error": offline_error}
            return total, metrics | {"critic/loss": total}

        def step(model: Model, _: None) -> tuple[Model, Metrics]:
            return model.minimize(loss)

        fitted, metrics = jax.lax.scan(step, critic.restarted(), None, length=self.config.critic_updates)
        return fitted, jax.tree.map(lambda values: values[-1], metrics)

    def _values(self, observations: jax.Array, key: jax.Array) -> jax.Array:
        """State values `(num_steps, num_envs)` of observations laid out as in a rollout."""
        return self._network_values(self._by_network(observations), key).reshape(observations.shape[:2])

    def _network_values(self, observations: jax.Array, key: jax.Array) -> jax.Array:
        """State values `(networks, rows)`, each the mean critic value of `value_samples` drawn actions."""

        def of(actor: Model, critic: Model, observations: jax.Array, key: jax.Array) -> jax.Array:
            actions = actor(observations).draw(key, (self.config.value_samples,))
            repeated = jnp.broadcast_to(observations, (self.config.value_samples, *observations.shape))
            return critic(repeated, actions).mean(axis=0)

        return jax.vmap(of)(self.actor, self.critic, observations, jax.random.split(key, len(observations)))

    def _by_network(self, field: jax.Array) -> jax.Array:
        """`(num_steps, num_envs, ...)` as `(networks, rows, ...)`."""
        return field if self.config.horizon is not None else field.reshape(1, -1, *field.shape[2:])

    def _seen(self, rows: Any) -> Any:
        """A rollout or transitions with observations as the networks see them."""
        return rows if self.standardizer is None or rows is None else self.standardizer.transitions(rows)

    def _check(self, batch: OnPolicyBatch) -> None:
        horizon, steps = self.config.horizon, len(batch.rollout.rewards)
        if horizon is not None and steps != horizon:
            raise ValueError(
                f"a rollout of {steps} steps for networks of {horizon} time steps; make rollout_steps the horizon"
            )
        if self.config.uses_offline_data != (batch.offline is not None):
            raise ValueError(
                f"offline_critic={self.config.offline_critic}, offline_actor={self.config.offline_actor} and "
                f"{'no' if batch.offline is None else 'some'} offline rows; draw rows exactly where one of them is true"
            )
        if horizon is not None and batch.offline is not None and len(batch.offline.rewards) != horizon:
            raise ValueError("networks per step need offline rows by step, leaves (horizon, rows, ...)")


@functools.lru_cache
def _no_optimizer() -> optax.GradientTransformation:
    """For actors: their steps come whole from `natural_step`. Cached, so that seeds share one compilation."""
    return optax.identity()
