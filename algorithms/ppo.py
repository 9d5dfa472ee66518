"""PPO: several epochs of clipped steps on fresh rollouts, from scratch or from a policy and a value that are given."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Self

import jax
import jax.numpy as jnp
from flax import struct

from hybridrl.errors import ConfigError
from hybridrl.losses.advantages import generalized_advantages, standardized
from hybridrl.losses.policy import clipped_surrogate
from hybridrl.losses.value import td_targets
from hybridrl.model import Model, clipped_adam
from hybridrl.moments import Moments, reward_unit, running_returns
from hybridrl.networks import NormalActor, Value
from hybridrl.policies import ActorPolicy
from hybridrl.standardizer import StandardizedPolicy, Standardizer
from hybridrl.types import Metrics, OnPolicyBatch, Policy, Rollout, Transitions


@dataclasses.dataclass(frozen=True)
class PPOConfig:
    """Settings of PPO. The defaults are those of Uni-O4's online phase (Lei et al. 2024), without its value clip."""

    actor_learning_rate: float = 2e-5
    value_learning_rate: float = 2e-4
    decay_learning_rates: bool = True  # both fall linearly, update by update, and are 0 after the last
    discount: float = 0.99
    trace_decay: float = 0.95  # lambda of generalised advantage estimation
    clip_range: float = 0.05  # of the ratio of new to old densities, to both sides of 1
    value_clip: float | None = None  # how far a value may move from the old one before its error counts fully
    entropy_weight: float = 0.01
    num_epochs: int = 10  # passes over a rollout
    minibatch_size: int = 128
    target_kl: float | None = None  # once a minibatch exceeds it, the actor rests until the next rollout
    max_grad_norm: float = 0.5  # of each network's gradient
    adam_epsilon: float = 1e-5
    reward_scaling: str = "none"  # "constant": times reward_factor; "dynamic": in units of the returns' deviation
    reward_factor: float = 0.1
    observation_scaling: str = "none"  # or by mean and deviation of the "dataset", or of all that was seen: "running"
    actor_hidden_dims: tuple[int, ...] = (256, 256, 256)
    value_hidden_dims: tuple[int, ...] = (512, 512, 512)
    actor_activation: str = "relu"
    value_activation: str = "relu"
    actor_initializer: str = "unit_orthogonal"
    value_initializer: str = "fan_in"
    actor_output_gain: float | None = None  # Xavier-uniform gain of the actor's output; None: as its other layers
    bounded_mean: bool = True  # a tanh on the mean; actions themselves are not squashed
    std_kind: str = "tanh"  # a function of the state, see `hybridrl.networks.NormalActor`
    std_bounds: tuple[float, float] = (math.exp(-5.0), 1.0)

    def __post_init__(self) -> None:
        """Reject settings that cannot work."""
        for field, allowed in {
            "reward_scaling": ("none", "constant", "dynamic"),
            "observation_scaling": ("none", "dataset", "running"),
            "std_kind": ("tanh", "state", "free"),
        }.items():
            if getattr(self, field) not in allowed:
                raise ConfigError(f"{field}={getattr(self, field)!r}; expected one of {', '.join(allowed)}")
        for field in ("num_epochs", "minibatch_size"):
            if getattr(self, field) < 1:
                raise ConfigError(f"{field}={getattr(self, field)}; expected at least 1")
        for field in ("clip_range", "value_clip", "target_kl", "max_grad_norm"):
            value = getattr(self, field)
            if value is not None and value <= 0.0:
                raise ConfigError(f"{field}={value}; expected a number above 0")


@dataclasses.dataclass(frozen=True)
class PPORun:
    """A PPO agent's settings and what they must know of the phase.

    Attributes:
        config: the settings.
        num_updates: updates of the phase, over which decaying learning rates fall.
        num_envs: environments of its rollouts.
    """

    config: PPOConfig = PPOConfig()
    num_updates: int = 488
    num_envs: int = 1

    def __post_init__(self) -> None:
        """Reject phases that are none."""
        if self.num_updates < 1 or self.num_envs < 1:
            raise ConfigError(f"num_updates={self.num_updates}, num_envs={self.num_envs}; expected at least 1")


class Rows(struct.PyTreeNode):
    """A rollout's steps as the losses take them; densities, advantages, values and returns are the old networks'."""

    observations: jax.Array  # (rows, obs_dim), scaled
    actions: jax.Array  # (rows, action_dim)
    log_probs: jax.Array  # (rows,)
    advantages: jax.Array  # (rows,), with mean 0 and deviation 1 over the rollout
    values: jax.Array  # (rows,)
    returns: jax.Array  # (rows,), what values should be: advantages, before they were standardised, plus old values


class PPOAgent(struct.PyTreeNode):
    """PPO (Schulman et al. 2017) as in the online phase of Uni-O4 (Lei et al. 2024).

    Departures from that paper's code: actions are stored as drawn, and clipped only where they are played, so that
    densities are exact; values are not clipped unless asked; the log-deviation has one mapping, not a second tanh
    online; rewards of a rollout in units of their deviation share one unit, which counts them too.
    """

    actor: Model
    value: Model
    standardizer: Standardizer | None  # None if observations are used as they are
    observation_moments: Moments | None  # None unless observation_scaling is "running"
    reward_moments: Moments | None  # of running returns; None unless reward_scaling is "dynamic"
    reward_sums: jax.Array | None  # (num_envs,), running returns of the unfinished episodes
    count: jax.Array  # int32 (), updates so far
    key: jax.Array
    run: PPORun = struct.field(pytree_node=False)

    @classmethod
    def create(cls, key: jax.Array, example: Transitions, run: PPORun = PPORun()) -> Self:
        """A fresh agent for observations and actions shaped like `example`'s, leaves `(*batch, ...)`."""
        config, obs_dim = run.config, example.observations.shape[-1]
        key, actor_key, value_key = jax.random.split(key, 3)
        actor = NormalActor(
            tuple(config.actor_hidden_dims),
            example.actions.shape[-1],
            std_kind=config.std_kind,
            std_bounds=config.std_bounds,
            initializer=config.actor_initializer,
            bounded_mean=config.bounded_mean,
            activation=config.actor_activation,
            output_gain=config.actor_output_gain,
        )
        value = Value(
            tuple(config.value_hidden_dims), initializer=config.value_initializer, activation=config.value_activation
        )

        def new(name: str, module: Any, key: jax.Array, learning_rate: float) -> Model:
            optimizer = clipped_adam(learning_rate, config.max_grad_norm, config.adam_epsilon)
            return Model.create_with(name, module, key, example.observations, optimizer=optimizer)

        dynamic, running = config.reward_scaling == "dynamic", config.observation_scaling == "running"
        return cls(
            actor=new("actor", actor, actor_key, config.actor_learning_rate),
            value=new("value", value, value_key, config.value_learning_rate),
            standardizer=None if config.observation_scaling == "none" else Standardizer.identity(obs_dim),
            observation_moments=Moments.create((obs_dim,)) if running else None,
            reward_moments=Moments.create() if dynamic else None,
            reward_sums=jnp.zeros(run.num_envs) if dynamic else None,
            count=jnp.zeros((), jnp.int32),
            key=key,
            run=run,
        )

    def fit_observations(self, observations: jax.Array | None) -> Self:
        """This agent with the dataset's mean and deviation, if it scales observations by these.

        Raises:
            ConfigError: it does, and there is no dataset.
        """
        if self.run.config.observation_scaling != "dataset":
            return self
        if observations is None:
            raise ConfigError(
                "observation_scaling='dataset' and no dataset to take mean and deviation from; "
                "choose 'running' or 'none', or a task with data"
            )
        return self.replace(standardizer=Standardizer.fit(observations))

    @jax.jit
    def update(self, batch: OnPolicyBatch) -> tuple[Self, Metrics]:
        """`num_epochs` passes over a rollout of this agent's policy, each in shuffled minibatches.

        Raises:
            ValueError: its rows do not divide into minibatches, it has another number of environments than the agent
                was made for, or there are offline rows, which PPO does not read.
        """
        config, rollout = self.run.config, batch.rollout
        if batch.offline is not None:
            raise ValueError("PPO reads no offline rows; leave offline_rows of its phase at 0")
        steps, envs = rollout.rewards.shape
        if (steps * envs) % config.minibatch_size:
            raise ValueError(
                f"a rollout of {steps} steps in {envs} environments, {steps * envs} rows, does not divide into "
                f"minibatches of minibatch_size={config.minibatch_size}; change one of them"
            )
        key, shuffle_key = jax.random.split(self.key)
        agent, rows = self._measure(rollout)
        agent, metrics = agent._learn(rows, shuffle_key)
        if agent.observation_moments is not None:  # not before: the rollout's densities are those of the old scale
            moments = agent.observation_moments.add(rollout.observations.reshape(-1, rollout.observations.shape[-1]))
            standardizer = Standardizer(mean=moments.mean, std=moments.std + 1e-3)
            agent = agent.replace(observation_moments=moments, standardizer=standardizer)
        return agent.replace(key=key, count=self.count + 1), metrics

    def _measure(self, rollout: Rollout) -> tuple[Self, Rows]:
        """What the old networks say of a rollout, and this agent with the statistics of its rewards."""
        config = self.run.config
        agent = self._with_rewards_of(rollout)
        observations, next_observations = self._seen(rollout.observations), self._seen(rollout.next_observations)
        values = self.value(observations)
        advantages = generalized_advantages(
            rollout.rewards * agent._reward_factor(),
            values,
            self.value(next_observations),
            rollout.masks,
            rollout.ends,
            config.discount,
            config.trace_decay,
        )
        rows = Rows(
            observations=observations,
            actions=rollout.actions,
            log_probs=self.actor(observations).log_prob(rollout.actions),
            advantages=standardized(advantages),
            values=values,
            returns=advantages + values,
        )
        return agent, jax.tree.map(lambda field: field.reshape(-1, *field.shape[2:]), rows)

    def _learn(self, rows: Rows, key: jax.Array) -> tuple[Self, Metrics]:
        """All epochs on one rollout's rows, and metrics averaged over their minibatches."""
        config = self.run.config
        factor = None
        if config.decay_learning_rates:
            factor = jnp.maximum(1.0 - self.count / self.run.num_updates, 0.0)

        def step(carry: tuple[Model, Model, jax.Array], index: jax.Array) -> tuple[Any, Metrics]:
            actor, value, near = carry
            part = jax.tree.map(lambda field: field[index], rows)
            stepped, actor_metrics = actor.minimize(lambda params: self._actor_loss(part, params), factor)
            if config.target_kl is not None:
                near &= actor_metrics["actor/kl"] <= config.target_kl
                stepped = jax.tree.map(lambda new, old: jnp.where(near, new, old), stepped, actor)
                actor_metrics |= {"actor/steps": near.astype(jnp.float32)}
            value, value_metrics = value.minimize(lambda params: self._value_loss(part, params), factor)
            return (stepped, value, near), actor_metrics | value_metrics

        count = len(rows.advantages)
        epochs = jax.vmap(lambda epoch_key: jax.random.permutation(epoch_key, count))(
            jax.random.split(key, config.num_epochs)
        )
        indices = epochs.reshape(-1, config.minibatch_size)
        (actor, value, _), metrics = jax.lax.scan(step, (self.actor, self.value, jnp.bool_(True)), indices)
        unexplained = (rows.returns - rows.values).var() / jnp.maximum(rows.returns.var(), 1e-8)
        rates = {
            "actor/learning_rate": jnp.float32(config.actor_learning_rate) * (1.0 if factor is None else factor),
            "value/explained_variance": 1.0 - unexplained,
        }
        return self.replace(actor=actor, value=value), jax.tree.map(jnp.mean, metrics) | rates

    def _actor_loss(self, rows: Rows, params: Any) -> tuple[jax.Array, Metrics]:
        """Minus the clipped surrogate and the weighted entropy (Schulman et al. 2017, eq. 7 and 9)."""
        config = self.run.config
        distribution = self.actor(rows.observations, params=params)
        log_ratio = distribution.log_prob(rows.actions) - rows.log_probs
        objective = clipped_surrogate(log_ratio, rows.advantages, config.clip_range).mean()
        entropy = distribution.entropy().mean()
        loss = -(objective + config.entropy_weight * entropy)
        moved = jnp.expm1(log_ratio)
        return loss, {
            "actor/loss": loss,
            "actor/entropy": entropy,
            "actor/std": distribution.std.mean(),
            "actor/kl": (moved - log_ratio).mean(),  # an estimate of KL(old || new)
            "actor/clipped": (jnp.abs(moved) > config.clip_range).astype(jnp.float32).mean(),
        }

    def _value_loss(self, rows: Rows, params: Any) -> tuple[jax.Array, Metrics]:
        """Mean squared error to the returns; with `value_clip`, the larger of it and that of the clipped values."""
        values, limit = self.value(rows.observations, params=params), self.run.config.value_clip
        errors = jnp.square(values - rows.returns)
        if limit is not None:
            clipped = rows.values + jnp.clip(values - rows.values, -limit, limit)
            errors = jnp.maximum(errors, jnp.square(clipped - rows.returns))
        loss = errors.mean()
        return loss, {"value/loss": loss, "value/mean": values.mean()}

    def _with_rewards_of(self, rollout: Rollout) -> Self:
        """This agent with the running returns of `rollout` among its statistics, if it keeps them."""
        if self.reward_moments is None or self.reward_sums is None:
            return self
        if rollout.rewards.shape[1:] != self.reward_sums.shape:
            raise ValueError(
                f"a rollout of {rollout.rewards.shape[1]} environments for an agent made with "
                f"num_envs={self.run.num_envs}; make them equal"
            )
        totals, sums = running_returns(rollout.rewards, rollout.ends, self.reward_sums, self.run.config.discount)
        return self.replace(reward_moments=self.reward_moments.add(totals.reshape(-1)), reward_sums=sums)

    def _reward_factor(self) -> jax.Array | float:
        """What rewards are multiplied by before values count them."""
        if self.reward_moments is not None:
            return 1.0 / reward_unit(self.reward_moments)
        return self.run.config.reward_factor if self.run.config.reward_scaling == "constant" else 1.0

    def _seen(self, observations: jax.Array) -> jax.Array:
        return observations if self.standardizer is None else self.standardizer(observations)

    def policy(self, *, deterministic: bool) -> Policy:
        """The actor's mean, clipped to [-1, 1], or its draws, which are not."""
        policy: Policy = ActorPolicy(actor=self.actor, deterministic=deterministic, clip_samples=False)
        return policy if self.standardizer is None else StandardizedPolicy(policy, self.standardizer)

    def parts(self) -> dict[str, Any]:
        """Actor and value with their optimisers, the random key and, where there are any, the scales' statistics."""
        parts = {
            "actor": self.actor,
            "value": self.value,
            "standardizer": self.standardizer,
            "observation_moments": self.observation_moments,
            "reward_moments": self.reward_moments,
            "key": self.key,
        }
        return {role: part for role, part in parts.items() if part is not None}

    def with_parts(self, parts: dict[str, Any]) -> Self:
        """This agent with the named parts in place of its own."""
        return self.replace(**parts)

    def diagnose(self, batch: Transitions, key: jax.Array) -> Metrics:
        """Mean value and mean squared TD error on `batch`, leaves `(batch_size, ...)`, in the task's rewards."""
        del key
        factor = self._reward_factor()
        values = self.value(self._seen(batch.observations)) / factor
        next_values = self.value(self._seen(batch.next_observations)) / factor
        targets = td_targets(batch.rewards, batch.masks, next_values, self.run.config.discount)
        return {"q": values.mean(), "td_error": jnp.square(targets - values).mean()}
