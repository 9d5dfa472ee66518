"""Policies as networks: observations to action distributions."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import linen as nn

from hybridrl.distributions import TanhNormal
from hybridrl.networks.mlp import MLP, kernel_init


class TanhNormalActor(nn.Module):
    """`(*batch, obs_dim)` -> TanhNormal over `(*batch, action_dim)`.

    The standard deviation is a function of the state (`std_kind="state"`) or one free vector ("free", 1 at first); it
    is clipped to `std_bounds` itself, not in its logarithm.
    """

    hidden_dims: tuple[int, ...]
    action_dim: int
    layer_norm: bool = False
    std_kind: str = "state"
    std_bounds: tuple[float, float] = (1e-5, 10.0)
    initializer: str = "orthogonal"
    last_gain: float | None = None

    @nn.compact
    def __call__(self, observations: jax.Array) -> TanhNormal:
        """The action distribution in each state."""
        features = MLP(self.hidden_dims, self.layer_norm, self.initializer, self.last_gain)(observations)
        mean = nn.Dense(self.action_dim, kernel_init=kernel_init(self.initializer), name="mean")(features)
        if self.std_kind == "state":
            log_std = nn.Dense(self.action_dim, kernel_init=kernel_init(self.initializer), name="log_std")(features)
        elif self.std_kind == "free":
            free = self.param("log_std", nn.initializers.zeros, (self.action_dim,))
            log_std = jnp.broadcast_to(free, mean.shape)
        else:
            raise ValueError(f"unknown std_kind {self.std_kind!r}; expected 'state' or 'free'")
        return TanhNormal(mean=mean, std=jnp.clip(jnp.exp(log_std), *self.std_bounds))
