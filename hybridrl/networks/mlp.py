"""The multilayer perceptron under every actor and critic."""

from __future__ import annotations

import math
from typing import Any

import jax
from flax import linen as nn

_ACTIVATIONS = {"relu": nn.relu, "gelu": nn.gelu, "tanh": nn.tanh, "swish": nn.swish}
_TRUNCATED_STD = 0.87962566103423978  # deviation of a standard normal cut at +-2


def kernel_init(kind: str, gain: float | None = None) -> nn.initializers.Initializer:
    """An initialiser of hidden layers by name.

    `gain` multiplies the kernel; None is sqrt(2) for "orthogonal" and 1 for all others. "xavier_orthogonal" is
    "xavier_uniform" with orthogonal heads (IQL in WSRL's code). "fan_in" is uniform within `1 / sqrt(fan_in)`,
    PyTorch's default; "edac" the same, with biases of 0.1 and nearly zero heads (An et al. 2021, as in ReBRAC).
    "unit_orthogonal" is "orthogonal" with gain 1 (PPO's codes). "truncated" cuts a normal of deviation
    `1 / (2 sqrt(fan_in))` at twice that (dynamics models since Chua et al. 2018).
    """
    if kind == "orthogonal":
        return nn.initializers.orthogonal(math.sqrt(2.0) if gain is None else gain)
    if kind == "unit_orthogonal":
        return nn.initializers.orthogonal(1.0 if gain is None else gain)
    scale = 1.0 if gain is None else gain**2
    if kind in ("xavier_uniform", "xavier_orthogonal"):
        return nn.initializers.variance_scaling(scale, "fan_avg", "uniform")
    if kind in ("fan_in", "edac"):
        return nn.initializers.variance_scaling(scale / 3.0, "fan_in", "uniform")
    if kind == "truncated":  # the initialiser's own deviation is that of the cut normal
        return nn.initializers.variance_scaling(scale * (0.5 * _TRUNCATED_STD) ** 2, "fan_in", "truncated_normal")
    raise ValueError(
        f"unknown initialiser {kind!r}; expected 'orthogonal', 'unit_orthogonal', 'xavier_uniform', "
        "'xavier_orthogonal', 'fan_in', 'edac' or 'truncated'"
    )


def bias_init(kind: str) -> nn.initializers.Initializer:
    """The biases of hidden layers that go with `kernel_init(kind)`."""
    return nn.initializers.constant(0.1) if kind == "edac" else nn.initializers.zeros


def head_inits(kind: str, edac_bound: float, gain: float | None = None) -> dict[str, Any]:
    """Keyword arguments of the output layer's `nn.Dense`.

    "edac" draws kernel and bias within `edac_bound`. With a `gain` the kernel is Xavier-uniform times it, of any kind.
    """
    if gain is not None:
        return {"kernel_init": nn.initializers.variance_scaling(gain**2, "fan_avg", "uniform")}
    if kind != "edac":
        return {"kernel_init": kernel_init("orthogonal" if kind == "xavier_orthogonal" else kind)}

    def within(key: jax.Array, shape: Any, dtype: Any = None, out_sharding: Any = None) -> jax.Array:
        return jax.random.uniform(key, shape, dtype or "float32", minval=-edac_bound, maxval=edac_bound)

    return {"kernel_init": within, "bias_init": within}


class MLP(nn.Module):
    """Dense -> [dropout] -> [LayerNorm] -> activation, once per entry of `hidden_dims`, the last one included.

    Maps `(*batch, features)` to `(*batch, hidden_dims[-1])`. Dropout is on where the caller passes a "dropout" key.
    """

    hidden_dims: tuple[int, ...]
    layer_norm: bool = False
    initializer: str = "orthogonal"
    last_gain: float | None = None  # gain of the last hidden layer where it differs from the others'
    activation: str = "relu"  # or "gelu", "tanh", "swish"
    norm_last: bool = False  # LayerNorm after the activation, as ReBRAC and FQL have it
    dropout_rate: float = 0.0

    @nn.compact
    def __call__(self, inputs: jax.Array) -> jax.Array:
        """Features of `inputs`."""
        features = inputs
        activate = _ACTIVATIONS[self.activation]
        for index, width in enumerate(self.hidden_dims):
            gain = self.last_gain if index == len(self.hidden_dims) - 1 else None
            kernel, bias = kernel_init(self.initializer, gain), bias_init(self.initializer)
            features = nn.Dense(width, kernel_init=kernel, bias_init=bias)(features)
            if self.dropout_rate > 0.0:
                features = nn.Dropout(self.dropout_rate, deterministic=not self.has_rng("dropout"))(features)
            if self.norm_last:
                features = activate(features)
            if self.layer_norm:
                features = nn.LayerNorm()(features)
            if not self.norm_last:
                features = activate(features)
        return features
