"""Value functions: of states and actions in ensembles, and of states."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from hybridrl.networks.mlp import MLP, head_inits

_EDAC_BOUND = 3e-3  # of a critic's output layer under "edac"
MEMBERS: dict[str, Any] = {"variable_axes": {"params": 0}, "split_rngs": {"params": True}, "out_axes": 0}


class CriticEnsemble(nn.Module):
    """Q-functions trained side by side: observations and actions to values `(num_critics, *batch)`.

    Every member has hidden layers of its own. With `shared_head` one output layer serves them all, as in WSRL's
    published code; otherwise each member has its own, as in REDQ and RLPD.
    """

    hidden_dims: tuple[int, ...]
    num_critics: int
    layer_norm: bool = False
    shared_head: bool = False
    initializer: str = "orthogonal"
    last_gain: float | None = None
    activation: str = "relu"
    norm_last: bool = False  # LayerNorm after the activation
    output_gain: float | None = None  # Xavier-uniform gain of the output layer where it is not the initializer's

    @nn.compact
    def __call__(self, observations: jax.Array, actions: jax.Array) -> jax.Array:
        """Values of `actions` `(*batch, action_dim)`; `observations` `(*batch, obs_dim)` may miss leading axes."""
        batch = jnp.broadcast_shapes(observations.shape[:-1], actions.shape[:-1])
        observations = jnp.broadcast_to(observations, (*batch, observations.shape[-1]))
        inputs = jnp.concatenate([observations, jnp.broadcast_to(actions, (*batch, actions.shape[-1]))], axis=-1)
        ensemble = nn.vmap(MLP, in_axes=None, axis_size=self.num_critics, **MEMBERS)
        trunk = (self.hidden_dims, self.layer_norm, self.initializer, self.last_gain, self.activation, self.norm_last)
        features = ensemble(*trunk, name="members")(inputs)
        head = head_inits(self.initializer, _EDAC_BOUND, self.output_gain)
        if self.shared_head:
            values = nn.Dense(1, name="head", **head)(features)
        else:
            heads = nn.vmap(nn.Dense, in_axes=0, axis_size=self.num_critics, **MEMBERS)
            values = heads(1, name="member_heads", **head)(features)
        return values[..., 0]


class Value(nn.Module):
    """A state-value function: `(*batch, obs_dim)` to `(*batch,)`."""

    hidden_dims: tuple[int, ...]
    layer_norm: bool = False
    initializer: str = "orthogonal"
    activation: str = "relu"

    @nn.compact
    def __call__(self, observations: jax.Array) -> jax.Array:
        """Values of the states."""
        features = MLP(self.hidden_dims, self.layer_norm, self.initializer, activation=self.activation)(observations)
        return nn.Dense(1, name="head", **head_inits(self.initializer, _EDAC_BOUND))(features)[..., 0]


def select_critics(params: Any, indices: jax.Array) -> Any:
    """The parameters of the members at `indices` `(count,)`, for a CriticEnsemble of `count` critics.

    Selecting before evaluating is what makes a subset target cost `count` critics rather than the whole ensemble.
    """
    chosen = {
        name: part if name == "head" else jax.tree.map(lambda leaf: leaf[indices], part)
        for name, part in params["params"].items()
    }
    return {"params": chosen}
