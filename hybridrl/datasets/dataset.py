"""A dataset in memory: transitions of whole episodes laid end to end, with an index of where each begins."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Self

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from hybridrl.datasets.returns import monte_carlo_returns
from hybridrl.datasets.validation import check_memory, free_host_memory, validate
from hybridrl.task import Task
from hybridrl.types import Trajectories, Transitions


@dataclasses.dataclass(frozen=True)
class Source:
    """Where the rows came from; part of a run's provenance."""

    dataset_id: str
    origin: str  # "download", "generated", "local file" or "memory"
    sha256: str = ""  # of the file's content, or of the manifest where there are several files


@dataclasses.dataclass
class Steps:
    """Rows as a loader read them, in time order and before the task's transform. NumPy arrays of `rows` entries.

    `ends` marks the last row of each recorded stretch. A row's next observation is exact: it belongs to the same
    episode, also at a time limit.
    """

    observations: np.ndarray  # (rows, obs_dim), or uint8 (rows, height, width, channels)
    actions: np.ndarray  # (rows, action_dim), in units of [-1, 1]
    rewards: np.ndarray  # (rows,), as recorded
    terminations: np.ndarray  # (rows,), bool
    ends: np.ndarray  # (rows,), bool
    next_observations: np.ndarray  # as observations
    successes: np.ndarray  # (rows,), bool; all false where the data do not say
    goal_representations: np.ndarray | None = None  # (rows, goal_dim); None where goals are observations

    def arrays(self) -> dict[str, np.ndarray]:
        """The fields that are there, by name."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {name: array for name, array in fields.items() if array is not None}


class Dataset(struct.PyTreeNode):
    """Offline data on the device.

    Attributes:
        transitions: leaves `(rows, ...)`, float32; images stay uint8.
        truncations: `(rows,)`, 1.0 where an episode was cut rather than terminated.
        episode_starts: int32 `(episodes,)`, the first row of each episode.
        episode_lengths: int32 `(episodes,)`.
        goal_representations: float32 `(rows, goal_dim)`, each row's state as a goal of the task; None where goals are
            observations.
        source: where the data came from.
    """

    transitions: Transitions
    truncations: jax.Array
    episode_starts: jax.Array
    episode_lengths: jax.Array
    goal_representations: jax.Array | None = None
    source: Source = struct.field(pytree_node=False, default=Source("", "memory"))

    @classmethod
    def from_steps(
        cls, steps: Steps, task: Task, discount: float, source: Source | None = None, folder: Path | None = None
    ) -> Self:
        """Apply the task's transform, find the episodes and compute Monte-Carlo returns.

        An episode ends at a termination (also one the task declares, such as its first success) and where the
        recording ends. Each row after a termination begins a new episode.

        Args:
            folder: where the rows were read from, for messages.

        Raises:
            DatasetError: rows that would poison training (see `validate`), or more of them than the device holds.
        """
        name = task.dataset.id if task.dataset else task.name
        where = f"dataset {name!r}" + (f" in {folder}" if folder else "")
        validate(steps, where)
        _check_device(steps, where)
        actions, rewards, terminations = task.transform(
            steps.actions, steps.rewards, steps.terminations, steps.successes
        )
        ends = np.array(steps.ends, bool) | terminations
        ends[-1] = True
        masks = 1.0 - terminations.astype(np.float32)
        returns = monte_carlo_returns(rewards, masks, ends, discount, task.failure_reward)
        last_rows = np.flatnonzero(ends)
        starts = np.concatenate([[0], last_rows[:-1] + 1])
        transitions = Transitions(
            observations=_on_device(steps.observations),
            actions=jnp.asarray(actions),
            rewards=jnp.asarray(rewards),
            masks=jnp.asarray(masks),
            next_observations=_on_device(steps.next_observations),
            mc_returns=jnp.asarray(returns),
        )
        goals = steps.goal_representations
        return cls(
            transitions=transitions,
            truncations=jnp.asarray((ends & ~terminations).astype(np.float32)),
            episode_starts=jnp.asarray(starts, jnp.int32),
            episode_lengths=jnp.asarray(last_rows - starts + 1, jnp.int32),
            goal_representations=None if goals is None else _on_device(goals),
            source=source or Source(name, "memory"),
        )

    @property
    def example(self) -> Transitions:
        """One row, leaves `(1, ...)`: what an agent is created from."""
        return jax.tree.map(lambda field: field[:1], self.transitions)

    @property
    def num_rows(self) -> int:
        """Transitions held."""
        return len(self.transitions.rewards)

    @property
    def num_episodes(self) -> int:
        """Episodes held."""
        return len(self.episode_starts)

    def rows_left(self) -> jax.Array:
        """Steps from each row to the end of its episode, itself included: int32 `(rows,)`."""
        lengths = np.asarray(self.episode_lengths)
        ends = np.repeat(np.asarray(self.episode_starts) + lengths, lengths)
        return jnp.asarray(ends - np.arange(self.num_rows), jnp.int32)

    def episode(self, index: int) -> Trajectories:
        """Episode `index`, leaves `(length, ...)` and no padding."""
        start, length = int(self.episode_starts[index]), int(self.episode_lengths[index])
        rows = jax.tree.map(lambda field: field[start : start + length], self.transitions)
        return Trajectories(transitions=rows, valid=jnp.ones(length))

    def summary(self) -> dict[str, float]:
        """Figures to recognise the data by: rows, episodes, mean length, mean return, share of terminations."""
        rewards = np.asarray(self.transitions.rewards, np.float64)
        returns = np.add.reduceat(rewards, np.asarray(self.episode_starts))
        return {
            "rows": float(self.num_rows),
            "episodes": float(self.num_episodes),
            "mean_episode_length": float(np.mean(np.asarray(self.episode_lengths))),
            "mean_episode_return": float(np.mean(returns)),
            "terminated_episodes": float(np.sum(1.0 - np.asarray(self.transitions.masks))),
        }


def _on_device(observations: np.ndarray) -> jax.Array:
    """Float32, or uint8 for images, which would be four times larger as floats."""
    return jnp.asarray(observations, jnp.uint8 if observations.dtype == np.uint8 else jnp.float32)


def _check_device(steps: Steps, where: str) -> None:
    """Refuse what the default device cannot hold, before the copy fails half-way with an error that names no cause."""
    arrays = (steps.observations, steps.actions, steps.next_observations)
    vectors = sum(array.size * (1 if array.dtype == np.uint8 else 4) for array in arrays)
    needed = vectors + 4 * 4 * len(steps.rewards)  # and rewards, masks, returns, truncations
    device = _default_device()
    figures = device.memory_stats()  # None on CPUs
    if figures is not None and "bytes_limit" in figures:
        free = figures["bytes_limit"] - figures.get("bytes_in_use", 0)
        check_memory(needed, free, where, f"memory on {device}")
    else:
        check_memory(needed, free_host_memory(), where, "memory")


def _default_device() -> jax.Device:
    """Where new arrays go."""
    (device,) = jnp.zeros(()).devices()
    return device
