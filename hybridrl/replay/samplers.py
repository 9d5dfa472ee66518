"""Samplers: pytrees with `sample(key, batch_size)`, usable inside compiled code."""

from __future__ import annotations

from typing import Self

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from hybridrl.datasets.dataset import Dataset
from hybridrl.errors import ConfigError
from hybridrl.replay.buffer import ReplayBuffer
from hybridrl.types import Sampler, SourceBlock, SourcedBatch, Trajectories, Transitions


class UniformSampler(struct.PyTreeNode):
    """Every row of fixed data with the same probability, with replacement."""

    transitions: Transitions  # leaves (rows, ...)

    def sample(self, key: jax.Array, batch_size: int) -> Transitions:
        """A batch with leaves `(batch_size, ...)`."""
        rows = jax.random.randint(key, (batch_size,), 0, len(self.transitions.rewards))
        return jax.tree.map(lambda field: field[rows], self.transitions)


def offline_rows(batch_size: int, ratio: float, order: str = "interleave") -> np.ndarray:
    """Which rows of a mixed batch hold offline data: bool `(batch_size,)`, `floor(batch_size * ratio)` of them true.

    "interleave" spreads them evenly, so that a batch cut into equal parts has the same share in each part wherever the
    numbers divide; at ratio one half, offline rows are the even ones, as in RLPD's code. "concat" puts the online rows
    first, as in WSRL's code, where the first critic updates of a batch then see only online data.
    """
    count = int(batch_size * ratio)
    if order == "concat":
        return np.arange(batch_size) >= batch_size - count
    if order == "interleave":
        ticks = np.arange(batch_size + 1) * count
        return -(-ticks[1:] // batch_size) > -(-ticks[:-1] // batch_size)
    raise ConfigError(f"unknown mix order {order!r}; expected 'interleave' or 'concat'")


class MixtureSampler(struct.PyTreeNode):
    """Batches with an exact share of offline rows.

    With a `ratio` of 0 or 1 only one of the two sources is touched.
    """

    offline: Sampler
    online: Sampler
    ratio: float = struct.field(pytree_node=False)  # share of offline rows, in [0, 1]
    order: str = struct.field(pytree_node=False, default="interleave")

    def sample(self, key: jax.Array, batch_size: int) -> Transitions:
        """A batch with leaves `(batch_size, ...)`."""
        from_offline = offline_rows(batch_size, self.ratio, self.order)
        count = int(from_offline.sum())
        offline_key, online_key = jax.random.split(key)
        if count == 0:
            return self.online.sample(online_key, batch_size)
        if count == batch_size:
            return self.offline.sample(offline_key, batch_size)
        offline = self.offline.sample(offline_key, count)
        online = self.online.sample(online_key, batch_size - count)
        # Row i of the batch is the next unused row of its source.
        position = np.where(from_offline, np.cumsum(from_offline) - 1, count + np.cumsum(~from_offline) - 1)
        return jax.tree.map(lambda a, b: jnp.concatenate([a, b])[position], offline, online)


class SeparateSampler(struct.PyTreeNode):
    """As many offline as online rows, kept apart."""

    offline: Sampler
    online: Sampler

    def sample(self, key: jax.Array, batch_size: int) -> SourcedBatch:
        """`batch_size` rows of each source."""
        offline_key, online_key = jax.random.split(key)
        return SourcedBatch(
            offline=self.offline.sample(offline_key, batch_size), online=self.online.sample(online_key, batch_size)
        )


BLOCK_SOURCES = ("coin", "alternate", "proportional", "mixed")


class BlockSampler(struct.PyTreeNode):
    """Blocks of `num_batches` batches, all from one source, which is chosen anew for each block.

    The source is offline with probability `ratio` ("coin"), in every block of even index ("alternate"), or with the
    offline rows' share of all rows ("proportional"). "mixed" is the control without single sources: `ratio` of a
    block's rows, rounded down, are offline. They are spread evenly, so that each batch has the same share wherever the
    numbers divide, as they do at one half, and else at most one row more or less. While the replay buffer holds less
    than one batch, and where there is none, every block is offline.
    """

    offline: UniformSampler
    online: ReplayBuffer | None
    index: jax.Array  # int32 (), number of the block within its phase
    num_batches: int = struct.field(pytree_node=False)
    source: str = struct.field(pytree_node=False)
    ratio: float = struct.field(pytree_node=False)

    def sample(self, key: jax.Array, batch_size: int) -> SourceBlock:
        """A block with leaves `(num_batches, batch_size, ...)`."""
        source_key, offline_key, online_key = jax.random.split(key, 3)
        offline = self._draw(self.offline, offline_key, batch_size)
        if self.online is None:
            return SourceBlock(transitions=offline, offline_share=jnp.float32(1.0))
        if self.source == "mixed":
            other = self._draw(MixtureSampler(self.offline, self.online, self.ratio), online_key, batch_size)
            share = float(offline_rows(self.num_batches * batch_size, self.ratio).mean())
            use_offline = jnp.bool_(False)
        else:
            other, share = self._draw(self.online, online_key, batch_size), 0.0
            use_offline = self._choose_offline(source_key)
        use_offline |= self.online.size < batch_size
        transitions = jax.tree.map(lambda a, b: jnp.where(use_offline, a, b), offline, other)
        return SourceBlock(transitions=transitions, offline_share=jnp.where(use_offline, 1.0, share))

    def _choose_offline(self, key: jax.Array) -> jax.Array:
        if self.source == "alternate":
            return self.index % 2 == 0
        if self.source == "coin":
            return jax.random.bernoulli(key, self.ratio)
        assert self.online is not None, "blocks without online rows choose nothing"
        rows = len(self.offline.transitions.rewards)
        return jax.random.bernoulli(key, rows / (rows + self.online.size))

    def _draw(self, source: Sampler, key: jax.Array, batch_size: int) -> Transitions:
        # Rows are drawn independently, so one large draw cut into parts is as good as one draw per batch.
        rows = source.sample(key, self.num_batches * batch_size)
        return jax.tree.map(lambda field: field.reshape(self.num_batches, batch_size, *field.shape[1:]), rows)


class StepSampler(struct.PyTreeNode):
    """Rows of each time step by themselves: step h uniformly, with replacement, among the episodes that reach it."""

    transitions: Transitions  # leaves (rows, ...)
    rows: jax.Array  # int32 (rows,): all rows' numbers, those of the first step of an episode first, then the second...
    counts: jax.Array  # int32 (horizon,): how many rows there are of each step

    @classmethod
    def create(cls, dataset: Dataset) -> Self:
        """Over all rows of `dataset`; the horizon is the length of its longest episode."""
        lengths = np.asarray(dataset.episode_lengths)
        steps = np.arange(dataset.num_rows) - np.repeat(np.asarray(dataset.episode_starts), lengths)
        return cls(
            transitions=dataset.transitions,
            rows=jnp.asarray(np.argsort(steps, kind="stable"), jnp.int32),
            counts=jnp.asarray(np.bincount(steps), jnp.int32),
        )

    def sample(self, key: jax.Array, batch_size: int) -> Transitions:
        """`batch_size` rows of each step, leaves `(horizon, batch_size, ...)`."""
        firsts = jnp.cumsum(self.counts) - self.counts
        drawn = jax.random.randint(key, (len(self.counts), batch_size), 0, self.counts[:, None])
        rows = self.rows[firsts[:, None] + drawn]
        return jax.tree.map(lambda field: field[rows], self.transitions)


class SegmentSampler(struct.PyTreeNode):
    """Stretches of consecutive steps of one episode, starting anywhere in it and padded at the episode's end."""

    transitions: Transitions  # leaves (rows, ...)
    rows_left: jax.Array  # int32 (rows,): steps from each row to the end of its episode, itself included
    length: int = struct.field(pytree_node=False)

    @classmethod
    def create(cls, dataset: Dataset, length: int) -> Self:
        """Segments of at most `length` steps from `dataset`."""
        if length < 1:
            raise ConfigError(f"segment length {length}; expected at least 1")
        return cls(transitions=dataset.transitions, rows_left=dataset.rows_left(), length=length)

    def sample(self, key: jax.Array, batch_size: int) -> Trajectories:
        """Trajectories with leaves `(batch_size, length, ...)`; rows past the episode's end are zero and not valid."""
        starts = jax.random.randint(key, (batch_size,), 0, len(self.rows_left))
        steps = jnp.arange(self.length)
        valid = steps[None] < self.rows_left[starts][:, None]
        rows = jnp.where(valid, starts[:, None] + steps[None], 0)

        def gather(field: jax.Array) -> jax.Array:
            values = field[rows]
            return jnp.where(valid.reshape(*valid.shape, *(1,) * (values.ndim - 2)), values, 0.0)

        return Trajectories(transitions=jax.tree.map(gather, self.transitions), valid=valid.astype(jnp.float32))
