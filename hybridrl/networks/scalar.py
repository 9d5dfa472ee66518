"""One trainable positive number: an entropy temperature or a Lagrange multiplier."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from flax import linen as nn


class PositiveScalar(nn.Module):
    """A positive scalar `()`, kept so by "softplus" or "exp" of the trained parameter."""

    initial: float = 1.0
    parameterization: str = "softplus"

    @nn.compact
    def __call__(self) -> jax.Array:
        """Its value."""
        if self.parameterization == "softplus":
            raw = self.param("raw", nn.initializers.constant(math.log(math.expm1(self.initial))), ())
            return jax.nn.softplus(raw)
        if self.parameterization == "exp":
            raw = self.param("raw", nn.initializers.constant(math.log(self.initial)), ())
            return jnp.exp(raw)
        raise ValueError(f"unknown parameterization {self.parameterization!r}; expected 'softplus' or 'exp'")
