"""RND: exploration without a reward, by a curiosity that fades where a network has learned to predict another."""

from __future__ import annotations

import dataclasses
from typing import Any, Self

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import struct

from algorithms.sac import SACAgent, SACConfig
from hybridrl.model import Model
from hybridrl.networks import MLP
from hybridrl.policies import ActorPolicy
from hybridrl.types import Metrics, Transitions


@dataclasses.dataclass(frozen=True)
class RNDConfig:
    """Settings of RND; the defaults are those of the unsupervised RL benchmark (Laskin et al. 2021)."""

    sac: SACConfig = SACConfig(actor_layer_norm=False)  # what acts; the benchmark has DDPG there
    learning_rate: float = 1e-4  # of the predictor
    hidden_dims: tuple[int, ...] = (1024, 1024)
    output_dim: int = 512  # features to be predicted
    clip: float = 5.0  # whitened observations are clipped to [-clip, clip]


class Moments(struct.PyTreeNode):
    """Running mean and variance over all rows seen; `(*features,)` each."""

    mean: jax.Array
    variance: jax.Array
    count: jax.Array  # float32 ()

    @classmethod
    def create(cls, *features: int) -> Self:
        """Mean 0 and variance 1, which the first rows replace."""
        return cls(mean=jnp.zeros(features), variance=jnp.ones(features), count=jnp.float32(1e-4))

    def updated(self, rows: jax.Array) -> Self:
        """With `rows` `(count, *features)` taken in (Chan et al.'s parallel formula)."""
        count = self.count + len(rows)
        delta = rows.mean(axis=0) - self.mean
        mean = self.mean + delta * (len(rows) / count)
        spread = self.variance * self.count + rows.var(axis=0) * len(rows)
        variance = (spread + jnp.square(delta) * (self.count * len(rows) / count)) / count
        return self.replace(mean=mean, variance=variance, count=count)


class RandomFeatures(nn.Module):
    """The network that is predicted, and the one that predicts: `(*batch, obs_dim)` to `(*batch, output_dim)`."""

    hidden_dims: tuple[int, ...]
    output_dim: int

    @nn.compact
    def __call__(self, inputs: jax.Array) -> jax.Array:
        """Features of whitened observations."""
        return nn.Dense(self.output_dim, kernel_init=nn.initializers.orthogonal())(MLP(self.hidden_dims)(inputs))


class RNDAgent(struct.PyTreeNode):
    """Random network distillation (Burda et al. 2018) over SAC, trained off-policy as in the RL benchmark named above.

    The reward of a step is the predictor's error at the state it reached, divided by the errors' running deviation.
    The data's own rewards are not looked at, and an episode's end is one for the values too. Departures from the
    benchmark: SAC in place of DDPG, observations are whitened by running moments rather than each batch's, and the
    error is taken where a step leads, as in the paper, not where it starts.
    """

    sac: SACAgent
    predictor: Model
    target_params: Any  # never trained
    observation_moments: Moments
    error_moments: Moments
    config: RNDConfig = struct.field(pytree_node=False)

    @classmethod
    def create(cls, key: jax.Array, example: Transitions, config: RNDConfig = RNDConfig()) -> Self:
        """A fresh agent for observations and actions shaped like `example`'s, leaves `(*batch, ...)`."""
        sac_key, predictor_key, target_key = jax.random.split(key, 3)
        module = RandomFeatures(tuple(config.hidden_dims), config.output_dim)
        obs = example.observations
        target = Model.create("target", module, target_key, obs, learning_rate=config.learning_rate)
        return cls(
            sac=SACAgent.create(sac_key, example, config.sac),
            predictor=Model.create("predictor", module, predictor_key, obs, learning_rate=config.learning_rate),
            target_params=target.params,
            observation_moments=Moments.create(obs.shape[-1]),
            error_moments=Moments.create(),
            config=config,
        )

    @jax.jit
    def update(self, batch: Transitions) -> tuple[Self, Metrics]:
        """One predictor step, then SAC's update on `batch` with the new predictor's errors for rewards."""
        moments = self.observation_moments.updated(batch.next_observations)
        agent = self.replace(observation_moments=moments)

        def loss(params: Any) -> tuple[jax.Array, Metrics]:
            value = agent.errors(batch.next_observations, params).mean()
            return value, {"predictor/loss": value}

        predictor, predictor_metrics = self.predictor.minimize(loss)
        agent = agent.replace(predictor=predictor)
        errors = agent.errors(batch.next_observations, predictor.params)
        agent = agent.replace(error_moments=self.error_moments.updated(errors))
        rewards = agent.intrinsic_rewards(batch.next_observations)
        sac, metrics = self.sac.update(batch.replace(rewards=rewards))
        return agent.replace(sac=sac), metrics | predictor_metrics | {"predictor/reward_mean": rewards.mean()}

    def errors(self, observations: jax.Array, params: Any) -> jax.Array:
        """Mean squared errors `(*batch,)` over the features, of a predictor with `params`."""
        moments = jax.tree.map(lambda field: jnp.broadcast_to(field, observations.shape), self.observation_moments)
        whitened = (observations - moments.mean) / jnp.sqrt(moments.variance + 1e-5)  # as batch norm has it
        whitened = jnp.clip(whitened, -self.config.clip, self.config.clip)
        features = self.predictor(whitened, params=self.target_params)
        return jnp.square(self.predictor(whitened, params=params) - features).mean(axis=-1)

    def intrinsic_rewards(self, observations: jax.Array) -> jax.Array:
        """Rewards `(*batch,)` for reaching `observations` `(*batch, obs_dim)`."""
        errors = self.errors(observations, self.predictor.params)
        return errors / (jnp.sqrt(self.error_moments.variance) + 1e-8)

    def policy(self, *, deterministic: bool) -> ActorPolicy:
        """The actor's mode or its samples."""
        return self.sac.policy(deterministic=deterministic)

    def parts(self) -> dict[str, Any]:
        """SAC's parts and the predictor; what it is to predict and the moments stay with the agent."""
        return self.sac.parts() | {"predictor": self.predictor}

    def with_parts(self, parts: dict[str, Any]) -> Self:
        """This agent with the named parts in place of its own."""
        rest = {role: part for role, part in parts.items() if role != "predictor"}
        return self.replace(sac=self.sac.with_parts(rest), predictor=parts.get("predictor", self.predictor))

    def diagnose(self, batch: Transitions, key: jax.Array) -> Metrics:
        """SAC's diagnosis, with the rewards of curiosity."""
        return self.sac.diagnose(batch.replace(rewards=self.intrinsic_rewards(batch.next_observations)), key)
