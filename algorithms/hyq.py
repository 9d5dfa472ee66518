"""Hy-Q: fitted Q-iteration, one Q-function per time step, on offline data and the agent's own steps together."""

from __future__ import annotations

import dataclasses
from typing import Any, Self

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import struct

from hybridrl.errors import ConfigError
from hybridrl.losses.value import td_targets
from hybridrl.model import Model, adam, member
from hybridrl.replay import ReplayBuffer
from hybridrl.types import Metrics, OnPolicyBatch, Policy, Rollout, Transitions


@dataclasses.dataclass(frozen=True)
class HyQConfig:
    """Settings of Hy-Q; the defaults are those of the combination lock (Song et al. 2023, released code).

    Attributes:
        horizon: steps of every episode, each with a Q-function of its own.
        discount: of the targets; 1 as published: a horizon needs none.
        latent_states: width of the encoding of an observation; the lock has three hidden states.
        encoder_temperature: of the softmax that makes the encoding.
        critic_updates: minibatch steps of each Q-function in one sweep.
        batch_size: rows of a minibatch.
        learning_rate: of Adam, whose state lives on from sweep to sweep.
        fit_offline: whether the offline phase also sweeps over the rows it stores, as published it does not. With it,
            and without online steps, this is fitted Q-iteration on the data alone.
    """

    horizon: int = 100
    discount: float = 1.0
    latent_states: int = 3
    encoder_temperature: float = 1.0
    critic_updates: int = 499
    batch_size: int = 512
    learning_rate: float = 2.5e-3
    fit_offline: bool = False

    def __post_init__(self) -> None:
        """Reject settings that cannot work."""
        for field in ("horizon", "latent_states", "critic_updates", "batch_size"):
            if getattr(self, field) < 1:
                raise ConfigError(f"{field}={getattr(self, field)}; expected at least 1")
        if self.encoder_temperature <= 0.0:
            raise ConfigError(f"encoder_temperature={self.encoder_temperature}; expected a number above 0")


@dataclasses.dataclass(frozen=True)
class HyQRun:
    """A Hy-Q agent's settings and what they must know of the phases.

    Attributes:
        config: the settings.
        copies: environments that explore at the same time step; a rollout has `horizon` times as many.
        capacity: rows kept of each time step, offline and online ones together; the oldest give way.
    """

    config: HyQConfig = HyQConfig()
    copies: int = 50
    capacity: int = 30_000

    def __post_init__(self) -> None:
        """Reject phases that are none."""
        if self.copies < 1 or self.capacity < 1:
            raise ConfigError(f"copies={self.copies}, capacity={self.capacity}; expected at least 1")


class EncodedQ(nn.Module):
    """`(*batch, obs_dim)` -> `(*batch, num_choices)`: `w' (onehot(a) x softmax(W s / temperature)) + b` for all `a`."""

    num_choices: int
    latent_states: int
    temperature: float

    @nn.compact
    def __call__(self, observations: jax.Array) -> jax.Array:
        """Values of all choices."""
        orthogonal = nn.initializers.orthogonal()
        encoder = nn.Dense(self.latent_states, use_bias=False, name="encoder", kernel_init=orthogonal)
        encodings = jax.nn.softmax(encoder(observations) / self.temperature, axis=-1)
        weights = self.param("weights", orthogonal, (self.num_choices * self.latent_states, 1))  # of one linear head
        bias = self.param("bias", nn.initializers.zeros, ())
        return encodings @ weights.reshape(self.num_choices, self.latent_states).T + bias


class SweepPolicy(struct.PyTreeNode):
    """Acts greedily by the Q-function of the present step; exploring copies do so but for one step, drawn uniformly.

    The carry is the step, and the step at which to explore, -1 for never. Of the environments side by side the first
    `copies` explore at step 0, the next ones at step 1, and so on.
    """

    critics: Model  # leaves (horizon, ...)
    copies: int | None = struct.field(pytree_node=False)  # None: no environment explores

    def begin(self, context: Any) -> tuple[jax.Array, jax.Array]:
        """The first step, and when to explore, both int32 `()`; `context` is the environment's number.

        Raises:
            ValueError: it is to explore and does not know which environment this is.
        """
        if self.copies is None:
            return jnp.int32(0), jnp.int32(-1)
        if context is None:
            raise ValueError(
                "exploring copies need their number as context; use rollouts, or policy(deterministic=True)"
            )
        return jnp.int32(0), (context // self.copies).astype(jnp.int32)

    def act(
        self, carry: tuple[jax.Array, jax.Array], observations: jax.Array, key: jax.Array
    ) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        """One-hot actions `(*batch, num_choices)` for observations `(*batch, obs_dim)` that are all of this step."""
        step, exploring_step = carry
        q = member(self.critics, step)(observations)
        drawn = jax.random.randint(key, q.shape[:-1], 0, q.shape[-1])
        choices = jnp.where(step == exploring_step, drawn, jnp.argmax(q, axis=-1))
        return jax.nn.one_hot(choices, q.shape[-1]), (step + 1, exploring_step)


class HyQAgent(struct.PyTreeNode):
    """Hybrid Q-learning (Song et al. 2023, algorithm 1, in the form of the released code for the combination lock).

    Actions are one of several: vectors whose largest entry counts. All episodes have `horizon` steps. The agent keeps
    its data by time step itself: every sweep fits each Q-function to all that was ever stored of its step.
    """

    critic: Model  # leaves (horizon, ...)
    buffer: ReplayBuffer  # leaves (horizon, ...); offline rows know their return, online ones have NaN
    key: jax.Array
    run: HyQRun = struct.field(pytree_node=False)

    @classmethod
    def create(cls, key: jax.Array, example: Transitions, run: HyQRun = HyQRun()) -> Self:
        """A fresh agent for observations and actions shaped like `example`'s, leaves `(*batch, ...)`."""
        config = run.config
        key, critic_key = jax.random.split(key)
        module = EncodedQ(example.actions.shape[-1], config.latent_states, config.encoder_temperature)

        def new(key: jax.Array) -> tuple[Model, ReplayBuffer]:
            model = Model.create_with("critic", module, key, example.observations, optimizer=adam(config.learning_rate))
            return model, ReplayBuffer.create(example.replace(next_actions=None), run.capacity)

        critic, buffer = jax.vmap(new)(jax.random.split(critic_key, config.horizon))
        return cls(critic=critic, buffer=buffer, key=key, run=run)

    @jax.jit
    def update(self, batch: OnPolicyBatch | Transitions) -> tuple[Self, Metrics]:
        """Store what is new, then sweep once from the last step backwards; the warm start only stores.

        Args:
            batch: a rollout of whole episodes, whose environments explored as `SweepPolicy` says, with offline rows by
                step, leaves `(horizon, rows, ...)`: usually as many as there are copies. Or such offline rows alone.
        """
        offline = batch.offline if isinstance(batch, OnPolicyBatch) else batch
        if offline is None or offline.rewards.ndim != 2 or len(offline.rewards) != self.run.config.horizon:
            raise ValueError(
                f"Hy-Q takes offline rows by step, leaves (horizon, rows, ...) with horizon={self.run.config.horizon}; "
                f"got {'none' if offline is None else f'leaves {offline.rewards.shape}'}; set offline_by_step and "
                "offline_rows of its phases"
            )
        buffer = self.buffer
        if isinstance(batch, OnPolicyBatch):
            buffer = _store(buffer, self.exploring_steps(batch.rollout))
        buffer = _store(buffer, offline)
        agent, metrics = self.replace(buffer=buffer), _contents(buffer)
        if isinstance(batch, OnPolicyBatch) or self.run.config.fit_offline:
            key, sweep_key = jax.random.split(self.key)
            critic, found = agent.sweep(sweep_key)
            agent, metrics = agent.replace(critic=critic, key=key), metrics | found
        return agent, metrics

    def exploring_steps(self, rollout: Rollout) -> Transitions:
        """Of each environment the one step at which it explored: leaves `(horizon, copies, ...)`, by step."""
        horizon, copies = self.run.config.horizon, self.run.copies
        if rollout.rewards.shape != (horizon, horizon * copies):
            raise ValueError(
                f"a rollout of (steps, environments) {rollout.rewards.shape} for horizon={horizon} and "
                f"copies={copies}; expected {(horizon, horizon * copies)}"
            )
        steps = jnp.arange(horizon)

        def of(field: jax.Array) -> jax.Array:
            return field.reshape(horizon, horizon, copies, *field.shape[2:])[steps, steps]

        return Transitions(
            observations=of(rollout.observations),
            actions=of(rollout.actions),
            rewards=of(rollout.rewards),
            masks=of(rollout.masks),
            next_observations=of(rollout.next_observations),
            mc_returns=jnp.full((horizon, copies), jnp.nan),
        )

    def sweep(self, key: jax.Array) -> tuple[Model, Metrics]:
        """All Q-functions fitted to the stored rows of their steps, from the last step backwards."""
        config = self.run.config

        def fit(following: Model, step: tuple[Any, ...]) -> tuple[Model, tuple[Model, Metrics]]:
            critic, buffer, last, key = step
            critic = _with_encoder_of(critic, following, last)

            def improve(critic: Model, key: jax.Array) -> tuple[Model, Metrics]:
                rows = buffer.sample(key, config.batch_size)
                targets = self.targets(rows, following, last)
                return critic.minimize(lambda params: self._loss(critic, params, rows, targets))

            critic, metrics = jax.lax.scan(improve, critic, jax.random.split(key, config.critic_updates))
            return critic, (critic, jax.tree.map(lambda values: values[-1], metrics))

        last = jnp.arange(config.horizon) == config.horizon - 1
        keys = jax.random.split(key, config.horizon)
        anything = member(self.critic, -1)  # nothing follows the last step
        critic, metrics = jax.lax.scan(fit, anything, (self.critic, self.buffer, last, keys), reverse=True)[1]
        return critic, jax.tree.map(jnp.mean, metrics)

    def targets(self, rows: Transitions, following: Model, last: jax.Array) -> jax.Array:
        """`r + max Q_{h+1}(s', .)`, and `r` at the last step, where `last`, bool `()`: `(rows,)`."""
        best = following(rows.next_observations).max(axis=-1)
        return td_targets(rows.rewards, jnp.where(last, 0.0, rows.masks), best, self.run.config.discount)

    def _loss(self, critic: Model, params: Any, rows: Transitions, targets: jax.Array) -> tuple[jax.Array, Metrics]:
        chosen = jnp.argmax(rows.actions, axis=-1)[:, None]
        q = jnp.take_along_axis(critic(rows.observations, params=params), chosen, axis=-1)[:, 0]
        loss = jnp.mean(jnp.square(q - targets))
        return loss, {"critic/loss": loss, "critic/q_mean": q.mean()}

    def policy(self, *, deterministic: bool) -> Policy:
        """The greedy policy; unless `deterministic`, with the exploring steps of a rollout's environments."""
        return SweepPolicy(self.critic, None if deterministic else self.run.copies)

    def parts(self) -> dict[str, Any]:
        """Q-functions, stacked over time steps, the data stored, and the random key."""
        return {"critic": self.critic, "buffer": self.buffer, "key": self.key}

    def with_parts(self, parts: dict[str, Any]) -> Self:
        """This agent with the named parts in place of its own."""
        return self.replace(**parts)

    def diagnose(self, batch: Transitions, key: jax.Array) -> Metrics:
        """Nothing: rows do not say of which time step they are."""
        del batch, key
        return {}


def _store(buffer: ReplayBuffer, rows: Transitions) -> ReplayBuffer:
    """The buffers with new rows by step, leaves `(horizon, rows, ...)`."""
    return jax.vmap(ReplayBuffer.insert)(buffer, rows.replace(next_actions=None))


def _contents(buffer: ReplayBuffer) -> Metrics:
    """Rows of each step, and the share of offline ones among them."""
    filled = jnp.arange(buffer.storage.rewards.shape[1])[None] < buffer.size[:, None]
    offline = filled & ~jnp.isnan(buffer.storage.mc_returns)
    return {
        "buffer/rows": buffer.size.mean().astype(jnp.float32),
        "batch/offline_share": offline.sum() / buffer.size.sum(),
    }


def _with_encoder_of(critic: Model, following: Model, last: jax.Array) -> Model:
    """The Q-function with the next step's encoder in place of its own, but for the last one."""
    own, other = critic.params["params"], following.params["params"]
    encoder = jax.tree.map(lambda mine, theirs: jnp.where(last, mine, theirs), own["encoder"], other["encoder"])
    return critic.replace(params={"params": own | {"encoder": encoder}})
