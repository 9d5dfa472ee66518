"""Policies as networks: observations to actions or action distributions."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from hybridrl.distributions import Normal, TanhNormal
from hybridrl.networks.critics import MEMBERS
from hybridrl.networks.mlp import MLP, head_inits

_EDAC_BOUND = 1e-3  # of an actor's output layer under "edac"


class TanhNormalActor(nn.Module):
    """`(*batch, obs_dim)` -> TanhNormal over `(*batch, action_dim)`.

    The standard deviation is a function of the state (`std_kind="state"`), the same with its logarithm stretched and
    moved by two trained scalars ("scaled", 1 and -1 at first), or one free vector ("free", 1 at first); it is clipped
    to `std_bounds` itself, not in its logarithm.
    """

    hidden_dims: tuple[int, ...]
    action_dim: int
    layer_norm: bool = False
    std_kind: str = "state"
    std_bounds: tuple[float, float] = (1e-5, 10.0)
    initializer: str = "orthogonal"
    last_gain: float | None = None
    dropout_rate: float = 0.0
    output_gain: float | None = None  # Xavier-uniform gain of the output layers where it is not the initializer's

    @nn.compact
    def __call__(self, observations: jax.Array) -> TanhNormal:
        """The action distribution in each state."""
        return TanhNormal(*_mean_and_std(self, observations, self.output_gain))


class NormalActor(nn.Module):
    """`(*batch, obs_dim)` -> Normal over `(*batch, action_dim)`, not squashed: IQL's actor.

    `bounded_mean` puts a tanh on the mean, not on the actions. The deviation is as in `TanhNormalActor`, or with
    `std_kind="tanh"` a function of the state whose logarithm a tanh keeps between those of `std_bounds`.
    """

    hidden_dims: tuple[int, ...]
    action_dim: int
    layer_norm: bool = False
    std_kind: str = "state"
    std_bounds: tuple[float, float] = (1e-5, 10.0)
    initializer: str = "orthogonal"
    last_gain: float | None = None
    dropout_rate: float = 0.0
    bounded_mean: bool = False
    activation: str = "relu"
    output_gain: float | None = None  # Xavier-uniform gain of the output layers where it is not the initializer's

    @nn.compact
    def __call__(self, observations: jax.Array) -> Normal:
        """The action distribution in each state."""
        mean, std = _mean_and_std(self, observations, self.output_gain, self.activation)
        return Normal(jnp.tanh(mean) if self.bounded_mean else mean, std)


class NormalActorEnsemble(nn.Module):
    """Actors of one kind side by side: Normals over `(num_members, *batch, action_dim)`.

    Under "params" / "actor", every array of `actor`'s parameters has a leading axis of members.
    """

    actor: NormalActor
    num_members: int

    @nn.compact
    def __call__(self, observations: jax.Array, separate: bool = False) -> Normal:
        """Distributions for `(*batch, obs_dim)` shown to all; if `separate`, `(num_members, *batch, obs_dim)`."""
        members = nn.vmap(
            lambda actor, shown: actor(shown),
            in_axes=0 if separate else None,
            axis_size=self.num_members,
            **MEMBERS,
        )
        found: Normal = members(self.actor, observations)
        return found


def select_actor(params: Any, index: int | jax.Array) -> Any:
    """The parameters of one member of a NormalActorEnsemble, for its `actor` alone."""
    return {"params": jax.tree.map(lambda leaf: leaf[index], params["params"]["actor"])}


def _mean_and_std(
    actor: TanhNormalActor | NormalActor,
    observations: jax.Array,
    output_gain: float | None = None,
    activation: str = "relu",
) -> tuple[jax.Array, jax.Array]:
    """Mean and deviation `(*batch, action_dim)`, from within the compact method of a Gaussian actor."""
    trunk = MLP(
        actor.hidden_dims,
        actor.layer_norm,
        actor.initializer,
        actor.last_gain,
        activation=activation,
        dropout_rate=actor.dropout_rate,
    )
    features, head = trunk(observations), head_inits(actor.initializer, _EDAC_BOUND, output_gain)
    mean = nn.Dense(actor.action_dim, name="mean", **head)(features)
    if actor.std_kind in ("state", "scaled", "tanh"):
        log_std = nn.Dense(actor.action_dim, name="log_std", **head)(features)
        if actor.std_kind == "scaled":
            scale = actor.param("log_std_scale", nn.initializers.constant(1.0), ())
            log_std = scale * log_std + actor.param("log_std_offset", nn.initializers.constant(-1.0), ())
        elif actor.std_kind == "tanh":
            low, high = (math.log(bound) for bound in actor.std_bounds)
            log_std = low + 0.5 * (high - low) * (1.0 + jnp.tanh(log_std))
    elif actor.std_kind == "free":
        free = actor.param("log_std", nn.initializers.zeros, (actor.action_dim,))
        log_std = jnp.broadcast_to(free, mean.shape)
    else:
        raise ValueError(f"unknown std_kind {actor.std_kind!r}; expected 'state', 'scaled', 'tanh' or 'free'")
    return mean, jnp.clip(jnp.exp(log_std), *actor.std_bounds)


class DeterministicActor(nn.Module):
    """`(*batch, obs_dim)` -> actions `(*batch, action_dim)`, entries in (-1, 1) by a tanh."""

    hidden_dims: tuple[int, ...]
    action_dim: int
    layer_norm: bool = False
    initializer: str = "orthogonal"
    norm_last: bool = False

    @nn.compact
    def __call__(self, observations: jax.Array) -> jax.Array:
        """The action in each state."""
        features = MLP(self.hidden_dims, self.layer_norm, self.initializer, norm_last=self.norm_last)(observations)
        return jnp.tanh(nn.Dense(self.action_dim, name="action", **head_inits(self.initializer, _EDAC_BOUND))(features))


class FlowField(nn.Module):
    """A vector in action space for each state and point: a flow's velocity, or a one-step policy's action.

    `points` `(*batch, action_dim)` are actions on their way from noise to data at `times` `(*batch, 1)` in [0, 1]; the
    one-step policy is given noise and no times. GELU, as in the published code of FQL (Park et al. 2025).
    """

    hidden_dims: tuple[int, ...]
    action_dim: int
    layer_norm: bool = False
    initializer: str = "xavier_uniform"

    @nn.compact
    def __call__(self, observations: jax.Array, points: jax.Array, times: jax.Array | None = None) -> jax.Array:
        """`(*batch, action_dim)`."""
        inputs = jnp.concatenate([observations, points, *([] if times is None else [times])], axis=-1)
        trunk = MLP(self.hidden_dims, self.layer_norm, self.initializer, activation="gelu", norm_last=True)
        return nn.Dense(self.action_dim, name="vector", **head_inits(self.initializer, _EDAC_BOUND))(trunk(inputs))
