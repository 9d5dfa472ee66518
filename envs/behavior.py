"""Behaviour policies small enough to ship: a tanh-Gaussian network as plain arrays, evaluated with NumPy.

A policy file is an `.npz` of float32 arrays:

    layer_0/kernel (obs_dim, width_0), layer_0/bias (width_0,), layer_1/kernel ...: hidden layers, relu
    mean/kernel (width, action_dim), mean/bias (action_dim,)
    log_std/kernel (width, action_dim), log_std/bias (action_dim,)
    log_std_bounds (2,): the log-deviation is clipped to these

An action is `tanh(mean + exp(log_std) * noise)`, in (-1, 1).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np

from hybridrl.errors import DatasetError


class Actor(Protocol):
    """What acts in NumPy."""

    def act(self, observations: np.ndarray, rng: np.random.Generator | None = None) -> np.ndarray:
        """Actions `(*batch, action_dim)` in [-1, 1] for observations `(*batch, obs_dim)`."""
        ...


@dataclasses.dataclass(frozen=True)
class UniformPolicy:
    """Actions drawn uniformly from [-1, 1], whatever is seen."""

    action_dim: int

    def act(self, observations: np.ndarray, rng: np.random.Generator | None = None) -> np.ndarray:
        """Actions `(*batch, action_dim)` for observations `(*batch, obs_dim)`; it has no mode, so `rng` is needed."""
        if rng is None:
            raise ValueError("a uniform policy has no mode; expected a random generator; pass rng")
        return rng.uniform(-1.0, 1.0, (*np.shape(observations)[:-1], self.action_dim)).astype(np.float32)


@dataclasses.dataclass(frozen=True)
class BehaviorPolicy:
    """A tanh-Gaussian policy. `layers` holds (kernel, bias) pairs of the hidden layers."""

    layers: tuple[tuple[np.ndarray, np.ndarray], ...]
    mean: tuple[np.ndarray, np.ndarray]
    log_std: tuple[np.ndarray, np.ndarray]
    log_std_bounds: tuple[float, float]

    @property
    def obs_dim(self) -> int:
        """Length of the observations it takes."""
        return (self.layers[0] if self.layers else self.mean)[0].shape[0]

    @property
    def action_dim(self) -> int:
        """Length of the actions it gives."""
        return self.mean[0].shape[1]

    def act(self, observations: np.ndarray, rng: np.random.Generator | None = None) -> np.ndarray:
        """Actions `(*batch, action_dim)` for observations `(*batch, obs_dim)`: sampled with `rng`, else the mode."""
        hidden = np.asarray(observations, np.float32)
        for kernel, bias in self.layers:
            hidden = np.maximum(hidden @ kernel + bias, 0.0)
        mean = hidden @ self.mean[0] + self.mean[1]
        if rng is None:
            return np.tanh(mean)
        log_std = np.clip(hidden @ self.log_std[0] + self.log_std[1], *self.log_std_bounds)
        return np.tanh(mean + np.exp(log_std) * rng.standard_normal(mean.shape, np.float32)).astype(np.float32)

    def save(self, path: Path) -> None:
        """Write a policy file; `path` ends in `.npz`."""
        arrays = {"log_std_bounds": np.asarray(self.log_std_bounds, np.float32)}
        names = [*(f"layer_{index}" for index in range(len(self.layers))), "mean", "log_std"]
        for name, (kernel, bias) in zip(names, (*self.layers, self.mean, self.log_std), strict=True):
            arrays |= {f"{name}/kernel": kernel, f"{name}/bias": bias}
        np.savez(path, allow_pickle=False, **arrays)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a policy file; raises `DatasetError` as `behavior_policy` does, and where there is none."""
        if not Path(path).exists():
            raise DatasetError(
                f"no behaviour policy at {path}; expected an .npz file; make it with: python -m experiments.collect"
            )
        with np.load(path, allow_pickle=False) as file:
            return cls(**_fields({key: file[key] for key in file.files}, str(path)))


def behavior_policy(parameters: Mapping[str, np.ndarray], *, log_std_bounds: tuple[float, float]) -> BehaviorPolicy:
    """A policy from arrays.

    Args:
        parameters: the arrays by the names in this module's docstring, without `log_std_bounds`.
        log_std_bounds: the range the trained policy clips its log-deviation to.

    Raises:
        DatasetError: arrays that are missing, superfluous, not finite or of shapes that do not fit together.
    """
    arrays = {key: np.asarray(value, np.float32) for key, value in parameters.items()}
    return BehaviorPolicy(**_fields(arrays | {"log_std_bounds": np.asarray(log_std_bounds)}, "in memory"))


def _fields(arrays: Mapping[str, np.ndarray], source: str) -> dict[str, Any]:
    num_layers = sum(key.startswith("layer_") and key.endswith("/kernel") for key in arrays)
    names = [*(f"layer_{index}" for index in range(num_layers)), "mean", "log_std"]
    expected = {f"{name}/{part}" for name in names for part in ("kernel", "bias")} | {"log_std_bounds"}
    if expected != set(arrays):
        raise DatasetError(
            f"behaviour policy {source}: arrays {sorted(arrays)}; expected {sorted(expected)}; "
            "write it with BehaviorPolicy.save"
        )
    pairs = [(arrays[f"{name}/kernel"], arrays[f"{name}/bias"]) for name in names]
    width = pairs[0][0].shape[0] if pairs[0][0].ndim == 2 else -1
    for name, (kernel, bias) in zip(names, pairs, strict=True):
        if kernel.ndim != 2 or kernel.shape[0] != width or bias.shape != kernel.shape[1:]:
            raise DatasetError(
                f"behaviour policy {source}: {name!r} has kernel {kernel.shape} and bias {bias.shape}; "
                f"expected ({width}, n) and (n,); write it with BehaviorPolicy.save"
            )
        if not (np.isfinite(kernel).all() and np.isfinite(bias).all()):
            raise DatasetError(f"behaviour policy {source}: {name!r} is not finite; expected numbers; train it again")
        if name.startswith("layer_"):
            width = kernel.shape[1]
    if pairs[-1][0].shape != pairs[-2][0].shape:
        raise DatasetError(f"behaviour policy {source}: 'mean' and 'log_std' differ in shape; expected equal shapes")
    low, high = (float(bound) for bound in arrays["log_std_bounds"])
    return {
        "layers": tuple(pairs[:-2]),
        "mean": pairs[-2],
        "log_std": pairs[-1],
        "log_std_bounds": (low, high),
    }
