"""The multilayer perceptron under every actor and critic."""

from __future__ import annotations

import math

import jax
from flax import linen as nn


def kernel_init(kind: str, gain: float = math.sqrt(2.0)) -> nn.initializers.Initializer:
    """An initialiser by name: "orthogonal" with this gain, or "xavier_uniform"."""
    if kind == "orthogonal":
        return nn.initializers.orthogonal(gain)
    if kind == "xavier_uniform":
        return nn.initializers.xavier_uniform()
    raise ValueError(f"unknown initialiser {kind!r}; expected 'orthogonal' or 'xavier_uniform'")


class MLP(nn.Module):
    """Dense -> [LayerNorm] -> ReLU, once per entry of `hidden_dims`, the last one included.

    Maps `(*batch, features)` to `(*batch, hidden_dims[-1])`.
    """

    hidden_dims: tuple[int, ...]
    layer_norm: bool = False
    initializer: str = "orthogonal"
    last_gain: float | None = None  # orthogonal gain of the last hidden layer where it differs from sqrt(2)

    @nn.compact
    def __call__(self, inputs: jax.Array) -> jax.Array:
        """Features of `inputs`."""
        features = inputs
        for index, width in enumerate(self.hidden_dims):
            last = index == len(self.hidden_dims) - 1
            gain = self.last_gain if last and self.last_gain is not None else math.sqrt(2.0)
            features = nn.Dense(width, kernel_init=kernel_init(self.initializer, gain))(features)
            if self.layer_norm:
                features = nn.LayerNorm()(features)
            features = nn.relu(features)
        return features
