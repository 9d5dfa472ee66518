"""ExORL's layout: one `.npz` per episode with the simulator's states, from which the reward of any task follows.

An episode of T steps holds arrays of T + 1 rows: `observation`, `action`, `reward`, `discount` and `physics`. Row 0 is
the reset, whose action and reward mean nothing; action t leads from observation t - 1 to observation t (Yarats et al.
2022, "Don't Change the Algorithm, Change the Data").
"""

from __future__ import annotations

import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

import numpy as np

from hybridrl.datasets.checks import NUMBERS, check_size, column, matrix
from hybridrl.datasets.dataset import Steps
from hybridrl.datasets.npz import NpzArrays
from hybridrl.errors import DatasetError
from hybridrl.task import Task

_FIELDS = ("observation", "action", "reward", "discount", "physics")


def read_exorl(folder: Path | str, task: Task) -> Steps:
    """Read the episodes in `folder` with the task's rewards, taken in the state that each step reached.

    Args:
        folder: with episodes in it, or with the one archive as it is published.

    Raises:
        DatasetError: there are no episodes, one of them is damaged, or the task does not say how to compute rewards.
    """
    relabel = task.dataset.relabel if task.dataset is not None else None
    if relabel is None:
        raise DatasetError(
            f"task {task.name!r} does not say how to compute rewards from states; set DatasetSpec.relabel"
        )
    rows = read_exorl_rows(folder)
    rewards, successes = relabel(rows)
    return Steps(
        observations=rows["observations"],
        actions=rows["actions"],
        rewards=np.asarray(rewards, np.float32),
        terminations=rows["discounts"] == 0.0,
        ends=rows["ends"],
        next_observations=rows["next_observations"],
        successes=np.asarray(successes, bool),
    )


def read_exorl_rows(folder: Path | str) -> dict[str, np.ndarray]:
    """All steps of the episodes in `folder`, in the order of their files' names.

    Returns:
        `observations`, `actions`, `next_observations`: float32 `(rows, width)`; `discounts`: `(rows,)`; `ends`: bool
        `(rows,)`, true on each episode's last row; `states` and `next_states`: `(rows, state_dim)`, the simulator
        before and after the step, in double precision where the files have it.
    """
    parts: dict[str, list[np.ndarray]] = {}
    total = 0
    for path in _episodes(Path(folder)):
        episode = _rows(path)
        total += sum(array.nbytes for array in episode.values())
        check_size(Path(folder), 2 * total)  # joining the parts takes as much again
        for name, array in episode.items():
            parts.setdefault(name, []).append(array)
    if not parts:
        raise DatasetError(f"{folder} holds no episodes; expected .npz files, or an archive of them; get it again")
    widths = {
        (part.shape[1], state.shape[1]) for part, state in zip(parts["observations"], parts["states"], strict=True)
    }
    if len(widths) > 1:
        raise DatasetError(f"{folder}: episodes differ in their (observation, physics) widths: {sorted(widths)}")
    return {name: np.concatenate(arrays) for name, arrays in parts.items()}


def write_exorl(folder: Path | str, rows: Mapping[str, np.ndarray]) -> int:
    """Write steps as episodes in an existing folder; returns how many.

    Args:
        rows: `observations`, `actions`, `rewards`, `terminations`, `ends`, `next_observations`, `states` and
            `next_states`, each with a leading axis of rows in time order. `rewards` are those of the run that made
            the data; readers compute a task's own.
    """
    ends = rows["ends"].copy()
    ends[-1:] = True
    episodes = np.split(np.arange(len(ends)), np.flatnonzero(ends)[:-1] + 1)
    for index, part in enumerate(episodes):
        first, last = part[:1], part[-1:]
        arrays = {
            "observation": np.concatenate([rows["observations"][part], rows["next_observations"][last]]),
            "action": np.concatenate([np.zeros_like(rows["actions"][first]), rows["actions"][part]]),
            "reward": np.concatenate([[0.0], rows["rewards"][part]]).astype(np.float32)[:, None],
            "discount": np.concatenate([[1.0], 1.0 - rows["terminations"][part]]).astype(np.float32)[:, None],
            "physics": np.concatenate([rows["states"][part], rows["next_states"][last]]),
        }
        np.savez_compressed(Path(folder) / f"episode_{index:06d}_{len(part)}.npz", allow_pickle=False, **arrays)
    return len(episodes)


def _episodes(folder: Path) -> Iterator[Path]:
    """The episodes' files; those of an archive one after the other, in a temporary folder."""
    archives = sorted(folder.glob("*.zip"))
    if not archives:
        yield from sorted(folder.glob("*.npz"))
        return
    if len(archives) > 1:
        raise DatasetError(f"{folder} holds {len(archives)} archives; expected one; remove the others")
    try:
        with zipfile.ZipFile(archives[0]) as archive, tempfile.TemporaryDirectory() as temporary:
            members = {PurePosixPath(info.filename).name: info for info in archive.infolist()}
            for name in sorted(name for name in members if name.endswith(".npz")):
                check_size(archives[0], members[name].file_size)
                unpacked = Path(temporary) / name
                unpacked.write_bytes(archive.read(members[name]))
                yield unpacked
                unpacked.unlink()
    except zipfile.BadZipFile as error:
        raise DatasetError(
            f"{archives[0]} is not a readable archive ({error}); delete its folder and get it again"
        ) from error


def _rows(path: Path) -> dict[str, np.ndarray]:
    arrays = NpzArrays(path, _FIELDS)
    observations = matrix(f"{path}: 'observation'", arrays["observation"])
    actions = matrix(f"{path}: 'action'", arrays["action"])
    states = np.asarray(arrays["physics"])
    steps = len(observations) - 1
    if steps < 1 or len(actions) != steps + 1 or states.ndim != 2 or len(states) != steps + 1:
        raise DatasetError(
            f"{path}: observation {observations.shape}, action {actions.shape}, physics {states.shape}; "
            "expected matrices of equally many rows, at least 2; get the dataset again"
        )
    return {
        "observations": observations[:-1],
        "actions": actions[1:],
        "next_observations": observations[1:],
        "discounts": column(f"{path}: 'discount'", arrays["discount"], steps + 1, NUMBERS)[1:],
        "ends": np.arange(steps) == steps - 1,
        "states": states[:-1],
        "next_states": states[1:],
    }
