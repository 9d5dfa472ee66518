"""The replay buffer of online training."""

from __future__ import annotations

from typing import Self

import jax
import jax.numpy as jnp
from flax import struct

from hybridrl.types import Transitions


class ReplayBuffer(struct.PyTreeNode):
    """A ring of transitions on the device; once full, the oldest rows are overwritten."""

    storage: Transitions  # leaves (capacity, ...)
    cursor: jax.Array  # int32 (), next row to write
    size: jax.Array  # int32 (), rows that hold data, at most the capacity

    @classmethod
    def create(cls, example: Transitions, capacity: int) -> Self:
        """An empty buffer for rows shaped like `example`'s, leaves `(*batch, ...)` of any one batch axis."""
        if capacity < 1:
            raise ValueError(f"replay capacity {capacity}; expected at least 1; raise replay_capacity")
        storage = jax.tree.map(lambda field: jnp.zeros((capacity, *field.shape[1:]), field.dtype), example)
        return cls(storage=storage, cursor=jnp.zeros((), jnp.int32), size=jnp.zeros((), jnp.int32))

    @property
    def capacity(self) -> int:
        """Rows it can hold."""
        return len(self.storage.rewards)

    def insert(self, batch: Transitions, count: jax.Array | None = None) -> Self:
        """Append the rows of `batch`, leaves `(rows, ...)`; with a `count` `()`, only the first so many.

        A `count` keeps shapes static where the number of new rows varies, as with whole episodes.
        """
        capacity, rows = self.capacity, len(batch.rewards)
        if rows > capacity:
            raise ValueError(
                f"cannot insert {rows} transitions into a buffer of capacity {capacity}; "
                "insert fewer at a time or raise replay_capacity"
            )
        offsets = jnp.arange(rows)
        added = jnp.asarray(rows if count is None else count, jnp.int32)
        # Rows beyond the count aim outside the ring, where `drop` discards them.
        targets = jnp.where(offsets < added, (self.cursor + offsets) % capacity, capacity)
        storage = jax.tree.map(lambda old, new: old.at[targets].set(new, mode="drop"), self.storage, batch)
        size = jnp.minimum(self.size + added, capacity)
        return self.replace(storage=storage, cursor=(self.cursor + added) % capacity, size=size)

    def sample(self, key: jax.Array, batch_size: int) -> Transitions:
        """Uniform, with replacement, over the rows written so far; the loop ensures there are some."""
        rows = jax.random.randint(key, (batch_size,), 0, self.size)
        return jax.tree.map(lambda field: field[rows], self.storage)

    def cut_to(self, rows: int) -> Self:
        """Without the part of the storage beyond its first `rows`, for keeping; at least one row is kept."""
        return self.replace(storage=jax.tree.map(lambda field: field[: max(rows, 1)], self.storage))

    def grown_to(self, capacity: int) -> Self:
        """With zeros after the rows up to a capacity no smaller than this one: undoes `cut_to`."""

        def grow(field: jax.Array) -> jax.Array:
            missing = capacity - len(field)
            return jnp.concatenate([field, jnp.zeros((missing, *field.shape[1:]), field.dtype)])

        return self.replace(storage=jax.tree.map(grow, self.storage))
