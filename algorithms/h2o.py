"""H2O: SAC on a simulator with a dynamics gap, held to real data where the simulator cannot be trusted."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from algorithms.dynamics import DiscriminatorConfig, Discriminators, split_rows
from algorithms.sac import SACAgent, SACConfig
from hybridrl.errors import ConfigError
from hybridrl.losses.value import squared_td_errors
from hybridrl.model import Model
from hybridrl.networks import PositiveScalar
from hybridrl.policies import ActorPolicy
from hybridrl.types import Metrics, SourcedBatch, Transitions

H2O_SAC = SACConfig(
    actor_learning_rate=3e-4,
    critic_learning_rate=3e-4,
    temperature_learning_rate=3e-4,
    actor_layer_norm=False,
    critic_layer_norm=False,
    initializer="fan_in",
    output_gain=0.01,
    std_kind="scaled",
    std_bounds=(math.exp(-20.0), math.exp(2.0)),
    num_critics=2,
    num_target_critics=2,
    subset_with_replacement=False,
    shared_critic_head=False,
    critic_updates=1,
    temperature_parameterization="exp",
    temperature_objective="log",
    temperature_states="current",
)
# The published code measures the deviation of s' over the data and ten times as many empty rows.
PADDED_ROWS_PER_ROW = 11
_MIN_GAP = float(np.finfo(np.float32).tiny)  # the smallest normal number; the published 1e-45 is denormal


@dataclasses.dataclass(frozen=True)
class H2OChoices:
    """Where H2O's paper, its published code and later code of its authors differ, or offer a choice. One name each.

    Attributes:
        next_state_std: deviation of the noise on s' in the gap estimate: "dataset", that of the states, as the paper
            means it and the authors' later code has it, or "padded", what the published code computes: over a buffer
            of which ten elevenths are still empty, about 0.30 of the former for centred features.
        penalty: "logsumexp", the paper's inner maximum in closed form; "weighted_mean", the code's variant
            `sum omega Q`; "none" leaves the Bellman errors alone (the published flag for that trains nothing at all).
        adaptive_weights: False makes omega uniform (ablation).
        importance_weights: False makes w = 1 in the Bellman errors (ablation).
        multiplier: "fixed", or "lagrange": a trained factor that holds the penalty at `H2OConfig.target_gap`.
    """

    next_state_std: str = "dataset"
    penalty: str = "logsumexp"
    adaptive_weights: bool = True
    importance_weights: bool = True
    multiplier: str = "fixed"

    def __post_init__(self) -> None:
        """Reject settings that cannot work."""
        for field, allowed in {
            "next_state_std": ("dataset", "padded"),
            "penalty": ("logsumexp", "weighted_mean", "none"),
            "multiplier": ("fixed", "lagrange"),
        }.items():
            if getattr(self, field) not in allowed:
                raise ConfigError(f"{field}={getattr(self, field)!r}; expected one of {', '.join(allowed)}")


@dataclasses.dataclass(frozen=True)
class H2OConfig:
    """Settings of H2O (Niu et al. 2022), as in its published code for HalfCheetah."""

    sac: SACConfig = H2O_SAC
    discriminator: DiscriminatorConfig = DiscriminatorConfig()
    choices: H2OChoices = H2OChoices()
    penalty_weight: float = 0.01  # beta
    penalty_temperature: float = 1.0  # T of the log-sum-exp
    penalty_clip: float = 1000.0  # beyond +-this, the penalty has no gradient
    ratio_clip: tuple[float, float] = (1e-5, 1.0)  # of w in simulated Bellman errors
    gap_samples: int = 10  # perturbed next states per simulated transition
    gap_std_scale: float = 1.0  # of their deviation
    max_gap: float = 10.0  # upper clip of u; inert while |log w| <= 4
    target_gap: float = 1.0  # what a Lagrange multiplier holds the penalty at
    multiplier_learning_rate: float = 3e-4

    def __post_init__(self) -> None:
        """Reject settings that cannot work."""
        if self.sac.critic_updates != 1:
            raise ConfigError(
                f"sac.critic_updates={self.sac.critic_updates}; H2O makes one joint update of critic and actor per "
                "batch: expected 1; for more updates raise schedule.updates_per_step"
            )
        if self.penalty_temperature <= 0.0 or self.gap_samples < 1:
            raise ConfigError(
                f"penalty_temperature={self.penalty_temperature}, gap_samples={self.gap_samples}; "
                "expected above 0 and at least 1"
            )


def normalized_log_weights(gaps: jax.Array) -> jax.Array:
    """`log omega = log u - log sum u` over the batch, `(batch,)`; in logarithms, so that tiny gaps give no 0/0."""
    logs = jnp.log(gaps)
    return logs - jax.nn.logsumexp(logs)


def adaptive_penalty(
    q_simulated: jax.Array, log_weights: jax.Array, q_real: jax.Array, temperature: float
) -> jax.Array:
    """`T log sum_i exp((Q(s_i, a_i) + log omega_i) / T) - mean Q_real`, `(critics,)` (Niu et al. 2022, section 4).

    The closed form of the maximum over sampling distributions d of `E_d Q - KL(d | omega) - E_real Q`: values are
    pushed down where they and the dynamics gap are large, and up on real data.

    Args:
        q_simulated: `(critics, batch)`.
        log_weights: `(batch,)`, of weights that sum to one.
        q_real: `(critics, batch)`, of any other batch size.
    """
    pushed = temperature * jax.nn.logsumexp((q_simulated + log_weights[None]) / temperature, axis=1)
    return pushed - q_real.mean(axis=1)


def weighted_mean_penalty(q_simulated: jax.Array, log_weights: jax.Array, q_real: jax.Array) -> jax.Array:
    """`sum_i omega_i Q(s_i, a_i) - mean Q_real`, `(critics,)`: the published code's variant. Shapes as above."""
    return (jnp.exp(log_weights)[None] * q_simulated).sum(axis=1) - q_real.mean(axis=1)


class H2OAgent(struct.PyTreeNode):
    """H2O (Niu et al. 2022): simulated Bellman errors weighted by the dynamics ratio, simulated values penalised.

    Batches come as `SourcedBatch`: offline rows are real, online rows simulated. One update trains the discriminators
    first and then, all at the same parameters, critic, actor and temperature.
    """

    sac: SACAgent
    discriminators: Discriminators
    multiplier: Model | None  # None for a fixed weight
    next_state_std: jax.Array  # (obs_dim,), of the real states
    config: H2OConfig = struct.field(pytree_node=False)

    @classmethod
    def create(cls, key: jax.Array, example: Transitions, config: H2OConfig = H2OConfig()) -> Self:
        """A fresh agent for rows shaped like `example`'s, leaves `(*batch, ...)`; see `fit_observations` also."""
        sac_key, discriminator_key, multiplier_key = jax.random.split(key, 3)
        multiplier = None
        if config.choices.multiplier == "lagrange":  # the code's log multiplier starts at 1
            rate = config.multiplier_learning_rate
            module = PositiveScalar(math.e, "exp")
            multiplier = Model.create("multiplier", module, multiplier_key, learning_rate=rate)
        return cls(
            sac=SACAgent.create(sac_key, example, config.sac),
            discriminators=Discriminators.create(discriminator_key, example, config.discriminator),
            multiplier=multiplier,
            next_state_std=jnp.ones(example.observations.shape[-1]),
            config=config,
        )

    def fit_observations(self, observations: jax.Array | None) -> Self:
        """This agent with the deviation of s' that `choices.next_state_std` asks for.

        Raises:
            ConfigError: there are no data.
        """
        if observations is None:
            raise ConfigError("algo=h2o needs real data, and the task has no dataset; choose another task")
        mean, variance = observations.mean(axis=0), observations.var(axis=0)
        if self.config.choices.next_state_std == "padded":
            rows = PADDED_ROWS_PER_ROW
            std = jnp.sqrt((variance + mean**2) / rows - mean**2 / rows**2) + 1e-3
        else:
            std = jnp.sqrt(variance)
        return self.replace(next_state_std=std)

    @jax.jit
    def update(self, batch: SourcedBatch) -> tuple[Self, Metrics]:
        """One step of the discriminators, then one joint step of critic, actor, temperature and multiplier.

        Args:
            batch: of each source, the last `discriminator.batch_size` rows are for the discriminators.
        """
        batch, fitting = split_rows(batch, self.config.discriminator.batch_size)
        key, discriminator_key, target_key, gap_key, actor_key = jax.random.split(self.sac.key, 5)
        discriminators, metrics = self.discriminators.update(fitting, discriminator_key)
        agent = self.replace(discriminators=discriminators)
        sac, both = agent.sac, jax.tree.map(lambda *parts: jnp.concatenate(parts), batch.offline, batch.online)
        targets = sac.targets(both, target_key)
        ratios, log_weights, dynamics_metrics = agent.weigh(batch.online, gap_key)

        def critic_loss(params: Any) -> tuple[jax.Array, Metrics]:
            return agent.critic_loss(params, batch, targets, ratios, log_weights)

        critic, critic_metrics = sac.critic.minimize(critic_loss)
        improved, actor_metrics = sac.improve_policy(both, actor_key, sac.critic)
        multiplier, multiplier_metrics = agent.train_multiplier(critic_metrics["critic/penalty"])
        agent = agent.replace(sac=improved.with_critic(critic).replace(key=key), multiplier=multiplier)
        return agent, metrics | dynamics_metrics | critic_metrics | actor_metrics | multiplier_metrics

    def weigh(self, simulated: Transitions, key: jax.Array) -> tuple[jax.Array, jax.Array, Metrics]:
        """The clipped ratio w of each simulated row and log omega of each, both `(batch,)`, without gradients."""
        config, ones = self.config, jnp.ones_like(simulated.rewards)
        log_ratios = self.discriminators.log_ratio(simulated)
        gaps = self.dynamics_gap(simulated, key)
        ratios = jnp.clip(jnp.exp(log_ratios), *config.ratio_clip)
        metrics = {
            "dynamics/log_ratio_mean": log_ratios.mean(),
            "dynamics/ratio_mean": ratios.mean(),
            "dynamics/gap_mean": gaps.mean(),
        }
        log_weights = normalized_log_weights(gaps if config.choices.adaptive_weights else ones)
        return (ratios if config.choices.importance_weights else ones), log_weights, metrics

    def dynamics_gap(self, simulated: Transitions, key: jax.Array) -> jax.Array:
        """u(s, a), `(batch,)`: the mean of -log w over next states perturbed around the simulated one, clipped.

        It estimates the divergence of the real dynamics from the simulated ones; below zero it counts as none.
        """
        config = self.config
        shape = (config.gap_samples, *simulated.next_observations.shape)
        std = config.gap_std_scale * self.next_state_std
        perturbed = simulated.next_observations[None] + std[None, None] * jax.random.normal(key, shape)
        repeated = jax.tree.map(lambda field: jnp.broadcast_to(field, (config.gap_samples, *field.shape)), simulated)
        log_ratios = self.discriminators.log_ratio(repeated.replace(next_observations=perturbed))
        return jnp.clip(-log_ratios.mean(axis=0), _MIN_GAP, config.max_gap)

    def critic_loss(
        self, params: Any, batch: SourcedBatch, targets: jax.Array, ratios: jax.Array, log_weights: jax.Array
    ) -> tuple[jax.Array, Metrics]:
        """`sum_j [mean_real (Q_j - y)^2 + mean_sim w (Q_j - y)^2 + beta G_j]` (Niu et al. 2022, section 4).

        Args:
            params: the critic's.
            targets: `(real rows + simulated rows,)`, in this order.
            ratios, log_weights: `(simulated rows,)`.
        """
        config, count = self.config, len(batch.offline.rewards)
        q_real = self.sac.critic(batch.offline.observations, batch.offline.actions, params=params)
        q_simulated = self.sac.critic(batch.online.observations, batch.online.actions, params=params)
        real_errors = squared_td_errors(q_real, targets[:count]).mean(axis=1)
        simulated_errors = (ratios[None] * squared_td_errors(q_simulated, targets[count:])).mean(axis=1)
        if config.choices.penalty == "logsumexp":
            penalty = adaptive_penalty(q_simulated, log_weights, q_real, config.penalty_temperature)
        elif config.choices.penalty == "weighted_mean":
            penalty = weighted_mean_penalty(q_simulated, log_weights, q_real)
        else:
            penalty = jnp.zeros_like(real_errors)
        penalty = jnp.clip(penalty, -config.penalty_clip, config.penalty_clip)
        if self.multiplier is None:
            weighted = config.penalty_weight * penalty
        else:
            weighted = self.multiplier() * config.penalty_weight * (penalty - config.target_gap)
        loss = (real_errors + simulated_errors + weighted).sum()
        return loss, {
            "critic/loss": loss,
            "critic/real_td_loss": real_errors.mean(),
            "critic/simulated_td_loss": simulated_errors.mean(),
            "critic/penalty": penalty.mean(),
            "critic/q_mean": q_real.mean(),
            "critic/simulated_q_mean": q_simulated.mean(),
            "critic/target_mean": targets.mean(),
        }

    def train_multiplier(self, penalty: jax.Array) -> tuple[Model | None, Metrics]:
        """One ascent step of the multiplier, if there is one: it grows while the penalty exceeds its target."""
        if self.multiplier is None:
            return None, {}
        model, config = self.multiplier, self.config

        def loss(params: Any) -> tuple[jax.Array, Metrics]:
            value = model(params=params)
            return -value * config.penalty_weight * (penalty - config.target_gap), {"multiplier/value": value}

        return model.minimize(loss)

    def policy(self, *, deterministic: bool) -> ActorPolicy:
        """The actor's mode or its samples."""
        return self.sac.policy(deterministic=deterministic)

    def parts(self) -> dict[str, Any]:
        """SAC's parts, the discriminators and the multiplier, if there is one."""
        multiplier = {} if self.multiplier is None else {"multiplier": self.multiplier}
        return self.sac.parts() | self.discriminators.parts() | multiplier

    def with_parts(self, parts: dict[str, Any]) -> Self:
        """This agent with the named parts in place of its own."""
        discriminators, rest = self.discriminators.with_parts(parts)
        multiplier = rest.pop("multiplier", self.multiplier)
        return self.replace(sac=self.sac.with_parts(rest), discriminators=discriminators, multiplier=multiplier)

    def diagnose(self, batch: Transitions, key: jax.Array) -> Metrics:
        """SAC's diagnosis: neither weights nor penalty are part of it."""
        return self.sac.diagnose(batch, key)
