"""Offline PPO: clipped steps on accepted policies' own actions in the data's states, judged by values that stay."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax

from algorithms.amq import REDUCTIONS
from algorithms.offline_values import OfflineValues
from hybridrl.errors import ConfigError
from hybridrl.losses.policy import clipped_surrogate
from hybridrl.model import Model, per_member
from hybridrl.types import Metrics

SCHEDULES = ("linear", "exponential")
_CLIP_DECAY, _RATE_DECAY = 0.96, 0.98  # of the exponential schedule: per update, and per two updates


@dataclasses.dataclass(frozen=True)
class ImprovementConfig:
    """Settings of offline PPO and its gate.

    The defaults are those of Uni-O4's published code on locomotion but for `reduction`, `common_draws` and `hand_over`.

    Attributes:
        learning_rate, clip_range: before any decay.
        schedule: "linear": the rate falls to 0 over the stage, the clip range with it for its first
            `decay_clip_until` updates; "exponential" (BPPO): both fall geometrically for so many updates, the clip
            range already before the first. Then the clip range, and with "exponential" the rate, stay.
        positive_weight: advantages above 0 are multiplied by it, all others by 1 minus it; None leaves them alone.
        entropy_weight: of the entropy in the objective.
        max_grad_norm: of each member's gradient.
        gate: "amq", a member's snapshot is replaced if its AM-Q rises, or "returns" (BPPO), if its return rises in
            trials in the environment.
        gate_every: updates from one gate to the next.
        horizon, num_starts, reduction: of AM-Q, see `algorithms.amq`.
        common_draws: all gates of a run start from the same states with the same random draws. The published code
            draws anew for each score, so that its best score is the luckiest.
        select: which member acts in the end: "amq_only", the accepted snapshot with the best score, or
            "amq_top3_then_real" (the published code), of the best three the one with the best return in a last trial.
        margin: a score must exceed the best by this share of it.
        reset_after: refused gates in a row after which a member goes back to what was last accepted; 0: never.
        hand_over: "accepted" snapshots act, or "live" members (the published code), approved or not.
    """

    learning_rate: float = 1e-4
    clip_range: float = 0.25
    schedule: str = "linear"
    decay_clip_until: int = 200
    positive_weight: float | None = None
    entropy_weight: float = 0.0
    max_grad_norm: float = 0.5
    gate: str = "amq"
    gate_every: int = 100
    horizon: int = 1_000
    num_starts: int = 512
    reduction: str = "sum"
    common_draws: bool = True
    select: str = "amq_only"
    margin: float = 0.0
    reset_after: int = 0
    hand_over: str = "accepted"

    def __post_init__(self) -> None:
        """Reject settings that cannot work."""
        for field, allowed in {
            "schedule": SCHEDULES,
            "reduction": REDUCTIONS,
            "hand_over": ("accepted", "live"),
            "gate": ("amq", "returns"),
            "select": ("amq_only", "amq_top3_then_real"),
        }.items():
            if getattr(self, field) not in allowed:
                raise ConfigError(f"{field}={getattr(self, field)!r}; expected one of {', '.join(allowed)}")
        for field in ("gate_every", "horizon", "num_starts"):
            if getattr(self, field) < 1:
                raise ConfigError(f"{field}={getattr(self, field)}; expected at least 1")
        if self.margin < 0.0 or self.reset_after < 0:
            raise ConfigError(f"margin={self.margin}, reset_after={self.reset_after}; expected 0 or more")
        if self.positive_weight is not None and not 0.0 < self.positive_weight < 1.0:
            raise ConfigError(f"positive_weight={self.positive_weight}; expected a number between 0 and 1, or null")


@dataclasses.dataclass(frozen=True)
class LearningRate:
    """The policies' learning rate after `count` updates."""

    initial: float
    num_updates: int
    schedule: str
    decay_until: int

    def __call__(self, count: jax.Array) -> jax.Array:
        """The rate, `()`."""
        if self.schedule == "linear":
            return self.initial * jnp.maximum(1.0 - count / self.num_updates, 0.0)
        return self.initial * _RATE_DECAY ** (jnp.minimum(count, self.decay_until) // 2)


@functools.lru_cache
def policy_optimizer(learning_rate: LearningRate, max_grad_norm: float) -> optax.GradientTransformation:
    """Adam whose gradients are clipped member by member. Cached, so that seeds share one compilation."""
    clip = optax.clip_by_global_norm(max_grad_norm)
    return per_member(optax.chain(clip, optax.adam(learning_rate)))


def clip_range(config: ImprovementConfig, num_updates: int, count: jax.Array) -> jax.Array:
    """The half-width of the ratio's clip in the update after `count` others, `()`."""
    count = jnp.minimum(count, config.decay_clip_until)
    if config.schedule == "linear":
        return config.clip_range * (1.0 - count / num_updates)
    return config.clip_range * _CLIP_DECAY ** (count + 1)


def standardized_advantages(advantages: jax.Array, values: jax.Array) -> jax.Array:
    """Each member's advantages `(num_members, rows)` with mean 0 and deviation 1 over its rows.

    Where they are equal up to the rounding of `values` `(rows,)`, which they are differences of, they come out near 0,
    not as amplified noise.
    """
    centred = advantages - advantages.mean(axis=1, keepdims=True)
    floor = 1e-5 * (1.0 + jnp.abs(values).mean())
    return centred / (advantages.std(axis=1, ddof=1, keepdims=True) + floor)


def ppo_step(
    policies: Model,
    accepted: Any,
    values: OfflineValues,
    observations: jax.Array,
    key: jax.Array,
    config: ImprovementConfig,
    half_width: jax.Array,
) -> tuple[Model, Metrics]:
    """One step of all members (Lei et al. 2024, section 3.2): the clipped objective on the accepted policies' actions.

    Densities are those of the draws, which may lie outside the action box; Q is asked about what would be played.

    Args:
        policies: the members on their way.
        accepted: parameters of the same ensemble, which actions are drawn from.
        observations: `(rows, obs_dim)`, states of the data as the networks see them.
        half_width: `()`, of the ratio's clip.
    """
    old: Any = policies.module.apply(accepted, observations)
    actions = old.mean + old.std * jax.random.normal(key, old.mean.shape)
    state_values = values.value(observations)
    advantages = values.q(observations, jnp.clip(actions, -1.0, 1.0)) - state_values[None]
    advantages = standardized_advantages(advantages, state_values)
    if config.positive_weight is not None:
        weight = config.positive_weight
        advantages *= jnp.where(advantages > 0.0, weight, 1.0 - weight)
    old_log_probs = old.log_prob(actions)

    def loss(params: Any) -> tuple[jax.Array, Metrics]:
        new: Any = policies(observations, params=params)
        log_ratio = new.log_prob(actions) - old_log_probs
        objective = clipped_surrogate(log_ratio, advantages, half_width).mean(axis=1)
        entropy = new.entropy().mean(axis=1)
        value = -(objective + config.entropy_weight * entropy)
        clipped = (jnp.abs(jnp.exp(log_ratio) - 1.0) > half_width).mean()
        metrics = {
            "policies/loss": value.mean(),
            "policies/entropy": entropy.mean(),
            "policies/std": new.std.mean(),
        }
        return value.sum(), metrics | {"policies/clipped": clipped, "policies/log_ratio": log_ratio.mean()}

    return policies.minimize(loss)
