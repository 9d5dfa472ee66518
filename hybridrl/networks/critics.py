"""State-action value functions in ensembles."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from hybridrl.networks.mlp import MLP, kernel_init

_MEMBERS: dict[str, Any] = {"variable_axes": {"params": 0}, "split_rngs": {"params": True}, "out_axes": 0}


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

    @nn.compact
    def __call__(self, observations: jax.Array, actions: jax.Array) -> jax.Array:
        """Values of `actions` `(*batch, action_dim)`; `observations` `(*batch, obs_dim)` may miss leading axes."""
        batch = jnp.broadcast_shapes(observations.shape[:-1], actions.shape[:-1])
        observations = jnp.broadcast_to(observations, (*batch, observations.shape[-1]))
        inputs = jnp.concatenate([observations, jnp.broadcast_to(actions, (*batch, actions.shape[-1]))], axis=-1)
        ensemble = nn.vmap(MLP, in_axes=None, axis_size=self.num_critics, **_MEMBERS)
        features = ensemble(self.hidden_dims, self.layer_norm, self.initializer, self.last_gain, name="members")(inputs)
        if self.shared_head:
            values = nn.Dense(1, kernel_init=kernel_init(self.initializer), name="head")(features)
        else:
            heads = nn.vmap(nn.Dense, in_axes=0, axis_size=self.num_critics, **_MEMBERS)
            values = heads(1, kernel_init=kernel_init(self.initializer), name="member_heads")(features)
        return values[..., 0]


def select_critics(params: Any, indices: jax.Array) -> Any:
    """The parameters of the members at `indices` `(count,)`, for a CriticEnsemble of `count` critics.

    Selecting before evaluating is what makes a subset target cost `count` critics rather than the whole ensemble.
    """
    chosen = {
        name: part if name == "head" else jax.tree.map(lambda leaf: leaf[indices], part)
        for name, part in params["params"].items()
    }
    return {"params": chosen}
