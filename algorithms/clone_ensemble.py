"""Behaviour cloning by several policies that are kept apart."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp

from hybridrl.distributions import Normal
from hybridrl.errors import ConfigError
from hybridrl.model import Model
from hybridrl.networks import NormalActor, NormalActorEnsemble
from hybridrl.types import Metrics, Transitions

DIVERSITIES = ("none", "kl_max", "kl_gauss", "specialise", "code_heuristic")
ACTIVATIONS = ("relu", "tanh")


@dataclasses.dataclass(frozen=True)
class ClonesConfig:
    """Settings of the cloned policies. The defaults are those of Uni-O4's published code, but for `diversity`.

    Attributes:
        num_members: how many.
        diversity: what keeps them apart, see `clone_losses`.
        diversity_weight: how much it counts beside the likelihood.
        max_divergence: nats; a divergence beyond it is no longer rewarded.
        min_return: only rows whose Monte-Carlo return exceeds it are cloned; None clones all.
    """

    num_members: int = 4
    diversity: str = "kl_max"
    diversity_weight: float = 0.1
    max_divergence: float = 5.0
    min_return: float | None = None
    learning_rate: float = 1e-4
    actor_hidden_dims: tuple[int, ...] = (256,) * 3
    activation: str = "relu"  # or "tanh"
    std_bounds: tuple[float, float] = (math.exp(-5.0), 1.0)

    def __post_init__(self) -> None:
        """Reject settings that cannot work."""
        for field, allowed in {"diversity": DIVERSITIES, "activation": ACTIVATIONS}.items():
            if getattr(self, field) not in allowed:
                raise ConfigError(f"{field}={getattr(self, field)!r}; expected one of {', '.join(allowed)}")
        if self.num_members < 1 or (self.num_members == 1 and self.diversity != "none"):
            raise ConfigError(
                f"num_members={self.num_members} and diversity={self.diversity!r}; expected at least 2 members, or 1 "
                "and diversity='none'"
            )

    def actor(self, action_dim: int) -> NormalActor:
        """One member's network: a Normal whose mean and log-deviation a tanh bounds, not its actions."""
        return NormalActor(
            tuple(self.actor_hidden_dims),
            action_dim,
            std_kind="tanh",
            std_bounds=self.std_bounds,
            initializer="unit_orthogonal",
            bounded_mean=True,
            activation=self.activation,
        )

    def create(self, key: jax.Array, example: Transitions) -> Model:
        """All members, for observations and actions shaped like `example`'s, leaves `(*batch, ...)`."""
        module = NormalActorEnsemble(self.actor(example.actions.shape[-1]), self.num_members)
        return Model.create("clones", module, key, example.observations, learning_rate=self.learning_rate)


def log_prob_table(actions: jax.Array, members: Normal) -> jax.Array:
    """Log-densities `(num_members, num_members, rows)`: row i, column j is `log pi_j` of the i-th set of actions.

    Args:
        actions: `(num_members, rows, action_dim)`.
        members: over `(num_members, rows, action_dim)`.
    """
    return Normal(members.mean[None], members.std[None]).log_prob(actions[:, None])


def best_other(table: jax.Array) -> jax.Array:
    """The largest entry `(num_members, rows)` of each row of `log_prob_table`'s result off the diagonal."""
    own = jnp.eye(len(table), dtype=bool)[:, :, None]
    return jnp.where(own, -jnp.inf, table).max(axis=1)


def gaussian_divergences(members: Normal, others: Normal) -> jax.Array:
    """`KL(p || q)`, `(*batch,)`, summed over the action's dimensions."""
    ratio = members.std / others.std
    shift = (members.mean - others.mean) / others.std
    return (0.5 * (jnp.square(ratio) + jnp.square(shift) - 1.0) - jnp.log(ratio)).sum(axis=-1)


def clone_losses(
    members: Normal, actions: jax.Array, noise: jax.Array, row_weights: jax.Array, config: ClonesConfig
) -> tuple[jax.Array, jax.Array]:
    """The loss of each member, and how far it is from the others, both `(num_members,)`.

    The loss is `-mean log pi_i(a)` of the data's actions minus `diversity_weight` times, by `diversity`,

    - "kl_max": `E[log pi_i(x) - max_j log pi_j(x)]` over the member's own actions x, one per row, j other than i: what
      bounds the divergence from the group policy in the paper (Lei et al. 2024, section 3.1);
    - "kl_gauss": the closed-form divergence from the other member that likes the row's action best;
    - "code_heuristic": `E[log pi_i(a) - max_j log pi_j(a)]` over the data's actions, the published code's default. Its
      gradient is the likelihood's own, so it changes nothing but the step's size;
    - "specialise": rows that a member likes better than all others do count `1 + diversity_weight`, all others
      `1 - diversity_weight` (an option of the published code);
    - "none": 0.

    The first two are rewarded up to `max_divergence`. No gradient flows into the other members.

    Args:
        members: over `(num_members, rows, action_dim)`.
        actions: `(rows, action_dim)`, the data's.
        noise: `(num_members, rows, action_dim)`, standard normal.
        row_weights: `(rows,)`, of mean 1.
    """
    frozen: Normal = jax.lax.stop_gradient(members)
    data = jnp.broadcast_to(actions[None], members.mean.shape)
    log_probs, weights = members.log_prob(data), row_weights[None]
    likelihood_losses = -(weights * log_probs).mean(axis=-1)
    if config.diversity == "none":
        return likelihood_losses, jnp.zeros_like(likelihood_losses)
    if config.diversity == "kl_max":
        own = members.mean + members.std * noise
        gaps = members.log_prob(own) - best_other(log_prob_table(own, frozen))
    else:
        table = log_prob_table(data, frozen)
        if config.diversity == "kl_gauss":
            others = jnp.where(jnp.eye(len(table), dtype=bool)[:, :, None], -jnp.inf, table).argmax(axis=1)
            chosen = others[..., None]
            nearest = Normal(*(jnp.take_along_axis(part, chosen, axis=0) for part in (frozen.mean, frozen.std)))
            gaps = gaussian_divergences(members, nearest)
        else:
            gaps = log_probs - best_other(table)
    divergences = (weights * gaps).mean(axis=-1)
    if config.diversity == "specialise":
        own_weights = jnp.where(jax.lax.stop_gradient(gaps) > 0.0, 1.0, -1.0) * config.diversity_weight
        return -(weights * (1.0 + own_weights) * log_probs).mean(axis=-1), divergences
    if config.diversity == "code_heuristic":
        return likelihood_losses - config.diversity_weight * divergences, divergences
    rewarded = jnp.minimum(divergences, config.max_divergence)
    return likelihood_losses - config.diversity_weight * rewarded, divergences


def clone(clones: Model, batch: Transitions, key: jax.Array, config: ClonesConfig) -> tuple[Model, Metrics]:
    """One step of all members on one batch, all at the same parameters; leaves `(batch_size, ...)`."""
    noise = jax.random.normal(key, (config.num_members, *batch.actions.shape))
    weights = jnp.ones_like(batch.rewards)
    if config.min_return is not None:
        chosen = (batch.mc_returns > config.min_return).astype(jnp.float32)
        weights = chosen / jnp.maximum(chosen.mean(), 1.0 / len(chosen))

    def loss(params: Any) -> tuple[jax.Array, Metrics]:
        members = clones(batch.observations, params=params)
        losses, divergences = clone_losses(members, batch.actions, noise, weights, config)
        likelihood = members.log_prob(jnp.broadcast_to(batch.actions[None], members.mean.shape))
        metrics = {"clones/loss": losses.mean(), "clones/log_prob": likelihood.mean(), "clones/std": members.std.mean()}
        return losses.sum(), metrics | {"clones/divergence": divergences.mean()}

    return clones.minimize(loss)
