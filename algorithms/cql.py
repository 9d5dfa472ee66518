"""Conservative Q-learning on top of SAC's critic ensemble."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Self

import jax
import jax.numpy as jnp
from flax import struct

from algorithms.sac import SACAgent, SACConfig
from hybridrl.errors import ConfigError
from hybridrl.losses.conservative import calibrate, importance_sampled_gap, mean_exp_gap
from hybridrl.losses.value import squared_td_errors
from hybridrl.model import Model
from hybridrl.networks import PositiveScalar
from hybridrl.policies import ActorPolicy
from hybridrl.types import Metrics, Transitions


@dataclasses.dataclass(frozen=True)
class PenaltyConfig:
    """Settings of the conservative penalty. The defaults are WSRL's on locomotion (Zhou et al. 2025)."""

    num_actions: int = 10  # per kind: uniform, policy at s, policy at s'
    softmax_temperature: float = 1.0
    importance_sampled: bool = True  # False: the mean-exp form published for Kitchen
    multiplier: str = "fixed"  # weight of the penalty: "fixed", "lagrange" or "lagrange_exp"
    weight: float = 5.0  # the fixed weight; with "lagrange_exp" it multiplies the multiplier
    target_gap: float = 0.8  # what a Lagrange multiplier holds the penalty at
    multiplier_learning_rate: float = 3e-4
    num_critics: int = 2  # random critics that are penalised in one update

    def __post_init__(self) -> None:
        """Reject settings that cannot work."""
        if self.multiplier not in ("fixed", "lagrange", "lagrange_exp"):
            raise ConfigError(f"multiplier={self.multiplier!r}; expected 'fixed', 'lagrange' or 'lagrange_exp'")


@dataclasses.dataclass(frozen=True)
class CQLConfig:
    """Settings of CQL: those of the SAC agent it restrains, and of the penalty."""

    sac: SACConfig = SACConfig(critic_updates=1, num_backup_actions=10)  # max-target backup over 10 next actions
    penalty: PenaltyConfig = PenaltyConfig()

    def __post_init__(self) -> None:
        """Reject settings that cannot work."""
        if self.sac.critic_updates != 1:
            raise ConfigError(
                f"sac.critic_updates={self.sac.critic_updates}; CQL makes one joint update of critic and actor per "
                "batch: expected 1; for more updates per environment step raise the phase's updates_per_step"
            )
        if self.sac.entropy_backup:
            raise ConfigError("sac.entropy_backup=True; CQL's targets have no entropy term: expected False")


class CQLAgent(struct.PyTreeNode):
    """CQL(H) (Kumar et al. 2020) in the form WSRL pre-trains with: a random pair of critics carries the penalty.

    The multiplier's loss reuses the penalty computed for the critic instead of drawing it a second time.
    """

    sac: SACAgent
    multiplier: Model | None  # None for a fixed weight
    config: CQLConfig = struct.field(pytree_node=False)

    @classmethod
    def create(cls, key: jax.Array, example: Transitions, config: CQLConfig = CQLConfig()) -> Self:
        """A fresh agent for observations and actions shaped like `example`'s, leaves `(*batch, ...)`."""
        sac_key, multiplier_key = jax.random.split(key)
        multiplier = None
        if config.penalty.multiplier != "fixed":
            # Cal-QL's original code starts the exponential form at exp(1); the softplus form starts at 1.
            kind, initial = ("softplus", 1.0) if config.penalty.multiplier == "lagrange" else ("exp", math.e)
            rate = config.penalty.multiplier_learning_rate
            multiplier = Model.create("multiplier", PositiveScalar(initial, kind), multiplier_key, learning_rate=rate)
        return cls(sac=SACAgent.create(sac_key, example, config.sac), multiplier=multiplier, config=config)

    @jax.jit
    def update(self, batch: Transitions, lower_bounds: jax.Array | None = None) -> tuple[Self, Metrics]:
        """One joint update of critic, actor, temperature and multiplier, all at the same parameters.

        Args:
            batch: leaves `(batch_size, ...)`.
            lower_bounds: `(batch_size,)`, values below which the policy's actions are not pushed down (Cal-QL).
        """
        sac, config = self.sac, self.config.penalty
        key, target_key, subset_key, penalty_key, actor_key = jax.random.split(sac.key, 5)
        targets = sac.targets(batch, target_key)
        indices = sac.draw_critics(subset_key, config.num_critics)
        weight = config.weight if self.multiplier is None else self.penalty_multiplier(self.multiplier.params)
        threshold = 0.0 if self.multiplier is None else config.target_gap

        def critic_loss(params: Any) -> tuple[jax.Array, Metrics]:
            q = sac.critic(batch.observations, batch.actions, params=params)
            td_loss = squared_td_errors(q, targets).mean()
            gaps, bounded = self.penalty(batch, q[indices], indices, params, penalty_key, lower_bounds)
            gap = gaps.mean()
            loss = td_loss + jax.lax.stop_gradient(weight) * (gap - threshold)
            metrics = {
                "critic/loss": loss,
                "critic/td_loss": td_loss,
                "critic/conservative_gap": gap,
                "critic/q_mean": q.mean(),
                "critic/target_mean": targets.mean(),
            }
            return loss, metrics | ({} if lower_bounds is None else {"critic/bounded_share": bounded})

        critic, metrics = sac.critic.minimize(critic_loss)
        improved, actor_metrics = sac.improve_policy(batch, actor_key, sac.critic)
        metrics |= actor_metrics
        multiplier = self.multiplier
        if multiplier is not None:
            gap = metrics["critic/conservative_gap"]

            def multiplier_loss(params: Any) -> tuple[jax.Array, Metrics]:
                value = self.penalty_multiplier(params)
                loss = -value * (gap - threshold)
                return loss, {"multiplier/loss": loss, "multiplier/value": value}

            multiplier, multiplier_metrics = multiplier.minimize(multiplier_loss)
            metrics |= multiplier_metrics
        return self.replace(sac=improved.with_critic(critic).replace(key=key), multiplier=multiplier), metrics

    def penalty_multiplier(self, params: Any) -> jax.Array:
        """The penalty's weight `()` from the multiplier's parameters."""
        assert self.multiplier is not None
        value = self.multiplier(params=params)
        if self.config.penalty.multiplier == "lagrange_exp":
            return jnp.minimum(value, 1e6) * self.config.penalty.weight
        return value

    def penalty(
        self,
        batch: Transitions,
        q_data: jax.Array,
        indices: jax.Array,
        params: Any,
        key: jax.Array,
        lower_bounds: jax.Array | None,
    ) -> tuple[jax.Array, jax.Array]:
        """Conservative gaps `(critics, batch)` of the members at `indices`, and the share of entries at their bound.

        Three kinds of actions compete with the data's: uniform ones, and the policy's at s and at s', all of them
        evaluated at s. No gradient flows into the policy.
        """
        sac, config, count = self.sac, self.config.penalty, self.config.penalty.num_actions
        uniform_key, current_key, next_key = jax.random.split(key, 3)
        action_dim = batch.actions.shape[-1]
        uniform = jax.random.uniform(uniform_key, (count, *batch.actions.shape), minval=-1.0, maxval=1.0)
        current, current_log = sac.actor(batch.observations).sample_with_log_prob(current_key, (count,))
        following, following_log = sac.actor(batch.next_observations).sample_with_log_prob(next_key, (count,))
        actions = jax.lax.stop_gradient(jnp.concatenate([uniform, current, following]))
        q = sac.evaluate_critics(params, indices, batch.observations, actions)  # (critics, 3 * count, batch)
        bounded = jnp.zeros(())
        if lower_bounds is not None:
            bounded = (q[:, count:] < lower_bounds[None, None]).mean()
            q = jnp.concatenate([q[:, :count], calibrate(q[:, count:], lower_bounds)], axis=1)
        if not config.importance_sampled:
            return mean_exp_gap(q, q_data, config.softmax_temperature), bounded
        uniform_log = jnp.full_like(current_log, -action_dim * math.log(2.0))
        log_densities = jax.lax.stop_gradient(jnp.concatenate([uniform_log, current_log, following_log]))
        return importance_sampled_gap(q, log_densities, q_data, config.softmax_temperature), bounded

    def policy(self, *, deterministic: bool) -> ActorPolicy:
        """The actor's mode or its samples."""
        return self.sac.policy(deterministic=deterministic)

    def parts(self) -> dict[str, Any]:
        """SAC's parts and the multiplier, if there is one."""
        return self.sac.parts() | ({} if self.multiplier is None else {"multiplier": self.multiplier})

    def with_parts(self, parts: dict[str, Any]) -> Self:
        """This agent with the named parts in place of its own."""
        parts = dict(parts)
        multiplier = parts.pop("multiplier", self.multiplier)
        return self.replace(sac=self.sac.with_parts(parts), multiplier=multiplier)

    def diagnose(self, batch: Transitions, key: jax.Array) -> Metrics:
        """SAC's diagnosis: the conservative term is not part of it."""
        return self.sac.diagnose(batch, key)
