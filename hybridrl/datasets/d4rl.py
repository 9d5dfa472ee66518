"""D4RL's files (Fu et al. 2020) to `Steps`: flat arrays of many episodes, whose ends only their flags tell."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np

from hybridrl.datasets.checks import (
    FLOATS,
    NUMBERS,
    check_actions,
    check_finite,
    check_size,
    column,
    flags,
    float32,
    matrix,
)
from hybridrl.datasets.dataset import Steps
from hybridrl.datasets.hdf5 import Array, Group, opened
from hybridrl.datasets.npz import NpzArrays
from hybridrl.errors import DatasetError
from hybridrl.task import Task

_REQUIRED = ("observations", "actions", "rewards", "terminals")
_OPTIONAL = ("timeouts", "next_observations")

_log = logging.getLogger(__name__)


def read_d4rl(path: Path | str, task: Task) -> Steps:
    """Read a file of `observations`, `actions`, `rewards`, `terminals`, perhaps `timeouts` and `next_observations`.

    Row i's next observation is row i + 1 unless an episode ends between them. `DatasetSpec.boundaries` says what then:

    * "corrected": the file's own `next_observations` are used where it has them, and every row is kept. Where it has
      none, a row at a time limit and an unfinished last row have no successor and are left out; a terminal row is kept
      with its own observation in the place of the next one, which its mask hides.
    * "d4rl": what D4RL's `qlearning_dataset` returns, bit for bit: rows at a time limit and the last row of the file
      are left out, and every next observation is that of the following row, which after a termination belongs to
      another episode. `next_observations` in the file are not looked at.

    Without `timeouts` an episode ends at a termination or after `task.horizon` rows.

    Args:
        path: an `.hdf5` or `.npz` file, or a folder with one. HDF5 files may hold their arrays in chunks,
            `virtual/<number>/<name>`, which are laid end to end.

    Raises:
        DatasetError: an array is missing, of a wrong type, shape or range, or not finite, or the file is damaged.
    """
    path = _file(Path(path))
    raw = _read_hdf5(path) if path.suffix == ".hdf5" else _read_npz(path)
    arrays = _checked(path, raw, task)
    spec = task.dataset
    corrected = spec is None or spec.boundaries == "corrected"
    if "timeouts" not in arrays:
        arrays["timeouts"] = infer_timeouts(arrays["terminals"], task.horizon, d4rl_counter=not corrected)
    rewards, successes = arrays["rewards"], np.zeros(len(arrays["rewards"]), bool)
    if spec is not None and spec.relabel is not None:
        rewards, successes = spec.relabel(arrays)
        rewards = float32(column(f"{path}: relabelled 'rewards'", rewards, len(successes), NUMBERS))
        successes = flags(f"{path}: 'successes'", successes, len(rewards))
    if corrected and "next_observations" in arrays:
        rows, ends, next_observations = _with_successors(path, arrays)
    elif corrected:
        rows, ends, next_observations = _corrected(arrays)
    else:
        rows, ends, next_observations = _as_d4rl(arrays)
    steps = Steps(
        observations=arrays["observations"][rows],
        actions=arrays["actions"][rows],
        rewards=rewards[rows],
        terminations=arrays["terminals"][rows],
        ends=ends,
        next_observations=next_observations,
        successes=successes[rows],
    )
    if spec is not None and spec.prepare is not None:
        steps = spec.prepare(steps)
    if not len(steps.rewards):
        raise DatasetError(
            f"{path}: none of its {len(rewards)} rows is a transition with a known next observation; expected episodes "
            "of two steps or more; get the dataset again"
        )
    return steps


def infer_timeouts(terminals: np.ndarray, horizon: int, *, d4rl_counter: bool = False) -> np.ndarray:
    """Where files without `timeouts` reach the time limit: at every `horizon`-th row since the last episode's end.

    Args:
        terminals: `(rows,)`, bool.
        horizon: the time limit in steps.
        d4rl_counter: count as D4RL's `qlearning_dataset` does, which starts the episode after a termination at 1
            instead of 0 and so cuts it one row early.

    Returns:
        bool `(rows,)`.
    """
    rows = len(terminals)
    starts = np.concatenate([[0], np.flatnonzero(terminals) + 1])  # of the stretches between terminations
    lengths = np.diff(np.append(starts, rows))
    offsets = _offsets(lengths[:-1], horizon) if d4rl_counter else np.zeros(len(starts), int)
    count = np.arange(rows) - np.repeat(starts - offsets, lengths)
    return count % horizon == horizon - 1


def keep_successes(steps: Steps) -> Steps:
    """The rule of the binary Adroit sets (Nakamoto et al. 2023): only what leads to a success counts.

    Trajectories without a success are left out, the others are cut after their last one, and each success terminates.

    Args:
        steps: whole trajectories; `ends` says where each one ends, `successes` which rows succeed.
    """
    trajectory = np.cumsum(steps.ends) - steps.ends
    last_success = np.full(int(trajectory[-1]) + 1 if len(trajectory) else 0, -1)
    rows = np.flatnonzero(steps.successes)
    last_success[trajectory[rows]] = rows  # of several the last one stays
    kept = np.arange(len(trajectory)) <= last_success[trajectory]
    fields = {name: array[kept] for name, array in steps.arrays().items()}
    fields["terminations"] = fields["successes"]
    fields["ends"] = (last_success[trajectory] == np.arange(len(trajectory)))[kept]
    return Steps(**fields)


# What becomes of rows at the end of an episode -----------------------------------------------------------------------

_Rows = tuple[np.ndarray | slice, np.ndarray, np.ndarray]  # rows to keep; of these, which end; their next observations


def _with_successors(path: Path, arrays: dict[str, np.ndarray]) -> _Rows:
    observations, following = arrays["observations"], arrays["next_observations"]
    ends = arrays["terminals"] | arrays["timeouts"]
    ends[-1] = True
    broken = ~ends[:-1] & (following[:-1] != observations[1:]).any(axis=1)
    if broken.any():
        _log.warning(
            "%s: %d rows, the first is row %d, have a next observation that is not the next row and no flag that ends "
            "their episode; an episode is taken to end at each of them",
            path,
            broken.sum(),
            int(np.argmax(broken)),
        )
        ends[:-1] |= broken
    return slice(None), ends, following


def _corrected(arrays: dict[str, np.ndarray]) -> _Rows:
    observations, terminals, timeouts = arrays["observations"], arrays["terminals"], arrays["timeouts"]
    followed = ~timeouts
    followed[-1] &= terminals[-1]
    rows = np.flatnonzero(followed)
    successors = np.where(terminals[rows], rows, rows + 1)
    ends = terminals | np.append(~followed[1:], True)
    return rows, ends[rows], observations[successors]


def _as_d4rl(arrays: dict[str, np.ndarray]) -> _Rows:
    rows = np.flatnonzero(~arrays["timeouts"][:-1])
    ends = arrays["terminals"][rows] | arrays["timeouts"][rows + 1]
    ends[-1:] = True
    return rows, ends, arrays["observations"][rows + 1]


def _offsets(lengths: np.ndarray, horizon: int) -> np.ndarray:
    """Where D4RL's counter stands at the start of each stretch, given the lengths of all stretches before the last.

    It is 0 if the row before was a time limit, which a terminal row is if (counter + length) is a multiple of the
    horizon, and 1 otherwise. So a stretch either keeps the counter, flips it or sets it to 1.
    """
    if horizon == 1:
        return np.zeros(len(lengths) + 1, int)
    flips = lengths % horizon == horizon - 1
    sets = ~flips & (lengths % horizon != 0)
    last_set = np.maximum.accumulate(np.where(sets, np.arange(len(lengths)), -1))
    total = np.concatenate([[0], np.cumsum(flips)])
    flips_since = total[1:] - total[last_set + 1]
    return np.concatenate([[0], (last_set >= 0) ^ (flips_since % 2 == 1)]).astype(int)


# Files ---------------------------------------------------------------------------------------------------------------


def _file(path: Path) -> Path:
    if not path.is_dir():
        return path
    files = sorted(file for file in path.iterdir() if file.suffix in (".hdf5", ".npz"))
    if len(files) != 1:
        names = [file.name for file in files]
        raise DatasetError(f"{path} holds {names or 'no data file'}; expected one .hdf5 or .npz file; move others away")
    return files[0]


def _read_hdf5(path: Path) -> dict[str, np.ndarray]:
    with opened(path) as root:
        chunks = root.group_at("virtual") if root.get("observations") is None else None
        pieces = [_members(root)] if chunks is None else _chunks(chunks)
        check_size(path, sum(array.nbytes for piece in pieces for array in piece.values()))
        if len(pieces) == 1:
            return {name: array.read() for name, array in pieces[0].items()}
        return {name: np.concatenate([_rows(piece[name]) for piece in pieces]) for name in pieces[0]}


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    arrays = NpzArrays(path, _REQUIRED)
    return {name: arrays[name] for name in (*_REQUIRED, *_OPTIONAL) if name in arrays}


def _members(group: Group) -> dict[str, Array]:
    optional = [name for name in _OPTIONAL if group.get(name) is not None]
    return {name: group.array(name) for name in (*_REQUIRED, *optional)}


def _chunks(group: Group) -> list[dict[str, Array]]:
    names = group.names()
    if not names or not all(name.isdigit() for name in names):
        raise DatasetError(f"{group.where('')} holds {sorted(names)}; expected numbered chunks; get the dataset again")
    pieces = []
    for name in sorted(names, key=int):
        chunk = group.group_at(name)
        if chunk is None:
            raise DatasetError(f"{group.where(name)} is an array; expected a chunk; get the dataset again")
        pieces.append(_members(chunk))
        if pieces[-1].keys() != pieces[0].keys():
            raise DatasetError(
                f"{chunk.where('')} holds {sorted(pieces[-1])} and the first chunk {sorted(pieces[0])}; "
                "expected the same arrays in all chunks; get the dataset again"
            )
    return pieces


def _rows(array: Array) -> np.ndarray:
    """A chunk's rows; those of (rows, 1) columns are laid flat, as chunks may differ in that."""
    content = array.read()
    if array.where.rpartition("/")[2] in ("rewards", "terminals", "timeouts"):
        return content.reshape(len(content)) if content.ndim == 2 and content.shape[1] == 1 else content
    return content


def _checked(path: Path, raw: dict[str, np.ndarray], task: Task) -> dict[str, np.ndarray]:
    """Arrays of the right types and shapes, with the first wrong row named if there is one."""
    rows = len(raw["observations"]) if raw["observations"].ndim else 0
    if rows == 0:
        raise DatasetError(f"{path}: 'observations' holds no rows; expected at least one; get the dataset again")
    arrays: dict[str, np.ndarray] = {}
    for name in ("observations", "actions", "next_observations"):
        if name in raw:
            arrays[name] = matrix(f"{path}: {name!r}", raw[name], FLOATS)
            if len(arrays[name]) != rows:
                raise DatasetError(
                    f"{path}: {name!r} has {len(arrays[name])} rows and 'observations' has {rows}; "
                    "expected equal counts; get the dataset again"
                )
    arrays["rewards"] = float32(column(f"{path}: 'rewards'", raw["rewards"], rows, NUMBERS))
    for name in ("terminals", "timeouts"):
        if name in raw:
            arrays[name] = flags(f"{path}: {name!r}", raw[name], rows)
    found = (arrays["observations"].shape[1], arrays["actions"].shape[1])
    expected = task.dataset.widths if task.dataset is not None else None
    if expected is not None and found != expected:
        raise DatasetError(
            f"{path}: observations and actions have {found[0]} and {found[1]} entries; the environment of task "
            f"{task.name!r} has {expected[0]} and {expected[1]}; choose the dataset of the task"
        )
    if arrays.get("next_observations", arrays["observations"]).shape != arrays["observations"].shape:
        raise DatasetError(
            f"{path}: 'next_observations' has shape {arrays['next_observations'].shape} and 'observations' "
            f"{arrays['observations'].shape}; expected equal shapes; get the dataset again"
        )
    for name, array in arrays.items():
        if array.dtype == np.float32:
            check_finite(f"{path}: {name!r}", array)
    check_actions(f"{path}: 'actions'", arrays["actions"])
    return arrays
