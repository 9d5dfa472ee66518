"""Bootstrap resamples of a dataset, one per member of an ensemble, and rows held out from all of them."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from hybridrl.datasets.dataset import Dataset
from hybridrl.errors import ConfigError
from hybridrl.types import BootstrapBatch, Transitions


@dataclasses.dataclass(frozen=True)
class Bootstrap:
    """How a dataset is resampled.

    Attributes:
        num_members: resamples, each as large as what is not held out, drawn with replacement.
        holdout_share: of the rows, held out from all members.
        max_holdout: but at most so many rows; at least one.
        seed: of the split and the resamples, which belong to the data: runs of different seeds share them.
    """

    num_members: int
    holdout_share: float = 0.2
    max_holdout: int = 1_000
    seed: int = 0

    def sampler(self, dataset: Dataset) -> BootstrapSampler:
        """Draws batches from the resamples.

        Raises:
            ConfigError: the dataset has a single row.
        """
        count = dataset.num_rows
        if count < 2:
            raise ConfigError(f"a dataset of {count} row cannot be split into rows to learn from and rows held out")
        rng = np.random.default_rng(self.seed)
        order = rng.permutation(count)
        held_out = min(max(int(self.holdout_share * count), 1), self.max_holdout)
        learnt = order[held_out:]
        resamples = learnt[rng.integers(0, len(learnt), (self.num_members, len(learnt)))]
        return BootstrapSampler(
            transitions=dataset.transitions,
            holdout=jax.tree.map(lambda field: field[order[:held_out]], dataset.transitions),
            resamples=jnp.asarray(resamples, jnp.int32),
        )


class BootstrapSampler(struct.PyTreeNode):
    """Batches of each member's own resample, drawn uniformly from it with replacement."""

    transitions: Transitions  # leaves (rows, ...)
    holdout: Transitions  # leaves (held-out rows, ...)
    resamples: jax.Array  # int32 (num_members, rows not held out): row numbers

    def sample(self, key: jax.Array, batch_size: int) -> BootstrapBatch:
        """`batch_size` rows for each member, and the rows held out."""
        num_members, count = self.resamples.shape
        places = jax.random.randint(key, (num_members, batch_size), 0, count)
        rows = jnp.take_along_axis(self.resamples, places, axis=1)
        return BootstrapBatch(
            training=jax.tree.map(lambda field: field[rows], self.transitions),
            holdout=self.holdout,
            num_rows=jnp.int32(count),
        )
