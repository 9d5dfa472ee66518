"""Models of the dynamics: what a state and an action lead to, as Gaussians from an ensemble of networks."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from hybridrl.networks.critics import MEMBERS
from hybridrl.networks.mlp import MLP, kernel_init

_SHARED = ("max_log_variance", "min_log_variance")
_INITIALIZER = "truncated"


class TransitionEnsemble(nn.Module):
    """Probabilistic networks side by side (Chua et al. 2018): inputs to means and log-variances.

    Log-variances are softly clamped between two trained bounds, which all members share. Swish on hidden layers.
    """

    hidden_dims: tuple[int, ...]
    num_members: int
    out_dim: int

    @nn.compact
    def __call__(self, inputs: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Both `(num_members, *batch, out_dim)`, for `inputs` `(num_members, *batch, in_dim)`, one set per member."""
        trunks = nn.vmap(MLP, in_axes=0, axis_size=self.num_members, **MEMBERS)
        features = trunks(self.hidden_dims, initializer=_INITIALIZER, activation="swish", name="members")(inputs)
        heads = nn.vmap(nn.Dense, in_axes=0, axis_size=self.num_members, **MEMBERS)
        found = heads(2 * self.out_dim, kernel_init=kernel_init(_INITIALIZER), name="member_heads")(features)
        mean, log_variance = jnp.split(found, 2, axis=-1)
        leading = (1,) * (log_variance.ndim - 1)
        high = self.param(_SHARED[0], nn.initializers.constant(0.5), (self.out_dim,)).reshape(*leading, -1)
        low = self.param(_SHARED[1], nn.initializers.constant(-10.0), (self.out_dim,)).reshape(*leading, -1)
        log_variance = high - jax.nn.softplus(high - log_variance)
        return mean, low + jax.nn.softplus(log_variance - low)


def select_members(params: Any, indices: jax.Array) -> Any:
    """The parameters of the members at `indices` `(count,)`, for a TransitionEnsemble of `count` members."""
    return {
        "params": {
            name: part if name in _SHARED else jax.tree.map(lambda leaf: leaf[indices], part)
            for name, part in params["params"].items()
        }
    }


def replace_members(chosen: jax.Array, params: Any, other: Any) -> Any:
    """`other` with the members of `params` where `chosen` `(num_members,)` is true.

    Both are parameters of one TransitionEnsemble; the bounds that its members share are those of `params`.
    """

    def pick(new: jax.Array, old: jax.Array) -> jax.Array:
        return jnp.where(chosen.reshape(-1, *(1,) * (new.ndim - 1)), new, old)

    return {
        "params": {
            name: part if name in _SHARED else jax.tree.map(pick, part, other["params"][name])
            for name, part in params["params"].items()
        }
    }
