"""Quasimetric RL: a distance with the triangle inequality, as large as single steps of length 1 allow."""

from __future__ import annotations

import dataclasses
from typing import Any, Self

import jax
import jax.numpy as jnp
from flax import struct

from algorithms.goals import FUTURE_GOALS, new_actor
from hybridrl.errors import ConfigError
from hybridrl.losses.policy import ddpg_bc_loss
from hybridrl.model import Model, minimize_together
from hybridrl.networks import QUASIMETRICS, Embedding, PositiveScalar
from hybridrl.networks.quasimetrics import INTERVALS
from hybridrl.policies import GoalPolicy
from hybridrl.replay import FlatGoals, GoalMixture
from hybridrl.types import GoalTransitions, Metrics, Transitions


@dataclasses.dataclass(frozen=True)
class QRLConfig:
    """Settings of QRL. The defaults are those of OGBench's reference agent (Park et al. 2024)."""

    learning_rate: float = 3e-4  # of every network and of the multiplier
    discount: float = 0.99  # of geometric goals alone, of which the defaults have none
    bc_weight: float = 0.003  # of the data's likelihood in the policy's loss; tuned per family
    quasimetric: str = "iqe"  # or "mrn"
    latent_dim: int = 512
    slack: float = 0.05  # how far single steps may be longer than 1, in the mean of squares
    value_goals: GoalMixture = GoalMixture(0.0, 0.0, 1.0, geometric=False)
    actor_goals: GoalMixture = FUTURE_GOALS
    value_hidden_dims: tuple[int, ...] = (512, 512, 512)  # of encoder and dynamics
    actor_hidden_dims: tuple[int, ...] = (512, 512, 512)

    def __post_init__(self) -> None:
        """Reject settings that cannot work."""
        if self.quasimetric not in QUASIMETRICS:
            raise ConfigError(f"quasimetric={self.quasimetric!r}; expected one of {', '.join(QUASIMETRICS)}")
        if self.latent_dim < INTERVALS or self.latent_dim % INTERVALS:
            raise ConfigError(f"latent_dim={self.latent_dim}; expected a multiple of {INTERVALS}")

    def goals(self) -> FlatGoals:
        """How batches are drawn."""
        return FlatGoals(self.value_goals, self.actor_goals, self.discount)


class QRLAgent(struct.PyTreeNode):
    """QRL (Wang et al. 2023) with DDPG+BC through learned latent dynamics, as in OGBench.

    The distance d(s, g) pushes random pairs apart under the constraint that a step of the data is no longer than 1; a
    multiplier holds the constraint. There are no target networks. All losses are taken at the same parameters.
    """

    actor: Model
    encoder: Model
    metric: Model  # of two latents
    dynamics: Model  # latent and action to the change of the latent
    multiplier: Model
    config: QRLConfig = struct.field(pytree_node=False)

    @classmethod
    def create(cls, key: jax.Array, example: Transitions, config: QRLConfig = QRLConfig()) -> Self:
        """A fresh agent for observations, which goals are too, and actions shaped like `example`'s."""
        actor_key, encoder_key, metric_key, dynamics_key, multiplier_key = jax.random.split(key, 5)
        obs, rate = example.observations, config.learning_rate
        module = Embedding(tuple(config.value_hidden_dims), config.latent_dim)
        latents = jnp.zeros((*obs.shape[:-1], config.latent_dim))
        metric = QUASIMETRICS[config.quasimetric]()
        multiplier = PositiveScalar(1.0, "exp")
        return cls(
            actor=new_actor(actor_key, example, config),
            encoder=Model.create("encoder", module, encoder_key, obs, learning_rate=rate),
            metric=Model.create("metric", metric, metric_key, latents, latents, learning_rate=rate),
            dynamics=Model.create("dynamics", module, dynamics_key, latents, example.actions, learning_rate=rate),
            multiplier=Model.create("multiplier", multiplier, multiplier_key, learning_rate=rate),
            config=config,
        )

    @jax.jit
    def update(self, batch: GoalTransitions) -> tuple[Self, Metrics]:
        """One step of distance, multiplier, dynamics and policy; leaves `(batch_size, ...)`."""
        models, metrics = minimize_together(self.models(), lambda params: self.distance_loss(params, batch))
        actor, actor_metrics = self.actor.minimize(lambda params: self.actor_loss(params, batch))
        return self.replace(actor=actor, **models), metrics | actor_metrics

    def models(self) -> dict[str, Model]:
        """What the distance's loss trains."""
        return {
            "encoder": self.encoder,
            "metric": self.metric,
            "dynamics": self.dynamics,
            "multiplier": self.multiplier,
        }

    def distance_loss(self, params: dict[str, Any], batch: GoalTransitions) -> tuple[jax.Array, Metrics]:
        """Distance, multiplier and latent dynamics together, at `params` by role, and what to log."""
        steps = batch.steps
        here, there, goals = (
            self.encoder(observations, params=params["encoder"])
            for observations in (steps.observations, steps.next_observations, steps.goals)
        )

        def distance(start: jax.Array, end: jax.Array) -> jax.Array:
            found: jax.Array = self.metric(start, end, params=params["metric"])
            return found

        far = distance(here, goals)
        # Random pairs are pushed apart, less and less beyond a distance of 500.
        spread = (100.0 * jax.nn.softplus(5.0 - far / 100.0)).mean()
        step_lengths = distance(here, there)
        excess = jnp.square(jax.nn.relu(step_lengths - 1.0)).mean()
        weight = self.multiplier(params=params["multiplier"])
        dual = weight * (self.config.slack - jax.lax.stop_gradient(excess))
        predicted = here + self.dynamics(here, batch.actions, params=params["dynamics"])
        dynamics = (distance(there, predicted) + distance(predicted, there)).mean() / 2.0
        loss = spread + jax.lax.stop_gradient(weight) * excess + dual + dynamics
        return loss, {
            "metric/spread_loss": spread,
            "metric/step_excess": excess,
            "metric/distance_mean": far.mean(),
            "metric/step_length": step_lengths.mean(),
            "multiplier/value": weight,
            "dynamics/loss": dynamics,
        }

    def actor_loss(self, params: Any, batch: GoalTransitions) -> tuple[jax.Array, Metrics]:
        """DDPG+BC with minus the distance left after the policy's action as its critic."""
        obs = batch.steps.observations
        distribution = self.actor(obs, batch.actor_goals, params=params)
        q = self.q(obs, distribution.mode(), batch.actor_goals)
        log_probs = distribution.log_prob(batch.actions)
        loss = ddpg_bc_loss(q, log_probs, self.config.bc_weight).mean()
        return loss, {"actor/loss": loss, "actor/q_mean": q.mean(), "actor/log_prob": log_probs.mean()}

    def q(self, observations: jax.Array, actions: jax.Array, goals: jax.Array) -> jax.Array:
        """Minus the distance from where the action leads to the goal, `(*batch,)`, at the present parameters."""
        latents = self.encoder(observations)
        distances: jax.Array = self.metric(latents + self.dynamics(latents, actions), self.encoder(goals))
        return -distances

    def policy(self, *, deterministic: bool) -> GoalPolicy:
        """The actor's mean or its samples."""
        return GoalPolicy(actor=self.actor, deterministic=deterministic)

    def parts(self) -> dict[str, Any]:
        """All networks with their optimisers."""
        return {"actor": self.actor} | self.models()

    def with_parts(self, parts: dict[str, Any]) -> Self:
        """This agent with the named parts in place of its own."""
        return self.replace(**parts)

    def diagnose(self, batch: GoalTransitions, key: jax.Array) -> Metrics:
        """Nothing: its distances are not discounted and obey no TD equation."""
        del batch, key
        return {}
