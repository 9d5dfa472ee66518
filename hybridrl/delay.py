"""What is trained less often than the rest of an agent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Self, TypeVar

import jax
import jax.numpy as jnp
from flax import struct

from hybridrl.types import Metrics

T = TypeVar("T")


class Delay(struct.PyTreeNode):
    """Counts an agent's updates and makes every so many of them, from the first on, a step of its slower networks.

    Between them it repeats the metrics of the last step, so that averages over any stretch are those of real steps.
    """

    count: jax.Array  # int32 (), updates so far
    metrics: Metrics

    @classmethod
    def create(cls, *metrics: str) -> Self:
        """Nothing done yet; `metrics` are the names that the step reports."""
        return cls(count=jnp.zeros((), jnp.int32), metrics={name: jnp.zeros(()) for name in metrics})

    def run(self, every: int, step: Callable[[], tuple[T, Metrics]], otherwise: T) -> tuple[T, Metrics, Self]:
        """`step()` if it is due in this update, else `otherwise`; with metrics, and the delay after this update."""
        due = self.count % every == 0
        result, metrics = jax.lax.cond(due, step, lambda: (otherwise, self.metrics))
        return result, metrics, self.replace(count=self.count + 1, metrics=metrics)
