"""What must hold of a dataset's rows before anything is trained on them, and figures to recognise the rows by.

The rules on episodes: an episode without a step holds nothing and is left out by the readers; an episode of one step is
a transition like any other; a termination inside a recorded stretch ends the episode there and the next row begins a
new one; rows after the last recorded end form an episode that was cut.
"""

from __future__ import annotations

import dataclasses
import os
from typing import TYPE_CHECKING

import numpy as np

from hybridrl.datasets.checks import ACTION_LIMIT
from hybridrl.errors import DatasetError

if TYPE_CHECKING:
    from hybridrl.datasets.dataset import Steps

_FLAGS = ("terminations", "ends", "successes")


@dataclasses.dataclass(frozen=True)
class Statistics:
    """Figures of the rows as recorded, before any task's transform.

    `return_error` and `length_error` are standard errors of the two means, over episodes.
    """

    rows: int
    episodes: int
    mean_episode_return: float
    mean_episode_length: float
    return_error: float
    length_error: float


def validate(steps: Steps, where: str) -> None:
    """Refuse rows that would poison training.

    Args:
        where: the dataset, and the file or folder the rows came from if they came from one; every message starts so.

    Raises:
        DatasetError: no rows, arrays that do not fit together, entries that are not finite, or actions out of range.
            The message names the array, the first bad row with its episode and step, and the remedy.
    """
    rows = len(steps.rewards)
    if rows == 0:
        raise DatasetError(f"{where} holds no transitions; expected at least one row; get it again")
    for field in dataclasses.fields(steps):
        array, name = getattr(steps, field.name), field.name
        if array is None:  # a field that only some datasets have
            continue
        if len(array) != rows:
            raise DatasetError(
                f"{where}: {name!r} has {len(array)} rows and 'rewards' has {rows}; "
                "expected equal counts; the file is damaged or of another format"
            )
        expected = _expected(name)
        if array.dtype.kind + str(array.ndim) not in expected:
            raise DatasetError(
                f"{where}: {name!r} has shape {array.shape} and dtype {array.dtype}; expected "
                f"{' or '.join(expected.values())}; the file is of another format"
            )
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            bad = int(np.argmin(np.isfinite(array.reshape(rows, -1)).all(axis=1)))
            raise DatasetError(
                f"{where}: {name!r} is not finite in {locate(steps, bad)}; expected finite numbers; "
                "remove the episode or get the dataset again"
            )
    if np.shape(steps.observations) != np.shape(steps.next_observations):
        raise DatasetError(
            f"{where}: 'observations' has shape {np.shape(steps.observations)} and 'next_observations' "
            f"{np.shape(steps.next_observations)}; expected equal shapes; the file is damaged or of another format"
        )
    largest = np.abs(steps.actions).max(axis=1, initial=0.0)
    if largest.max() > ACTION_LIMIT:
        bad = int(np.argmax(largest > ACTION_LIMIT))
        raise DatasetError(
            f"{where}: 'actions' reaches {largest[bad]:.4g} in {locate(steps, bad)}; expected entries in [-1, 1]; "
            "rescale the actions to the environment's bounds before storing them"
        )


def locate(steps: Steps, row: int) -> str:
    """`row 7 (step 2 of episode 1)`, all counted from zero, episodes as recorded."""
    ends = _ends(steps)
    before = np.flatnonzero(ends[:row])
    start = int(before[-1]) + 1 if len(before) else 0
    return f"row {row} (step {row - start} of episode {len(before)})"


def statistics(steps: Steps) -> Statistics:
    """Rows, episodes, and means over episodes of the recorded, undiscounted return and of the length."""
    ends = np.flatnonzero(_ends(steps))
    starts = np.concatenate([[0], ends[:-1] + 1])
    returns = np.add.reduceat(np.asarray(steps.rewards, np.float64), starts)
    lengths = ends - starts + 1.0
    return Statistics(
        rows=len(steps.rewards),
        episodes=len(ends),
        mean_episode_return=float(returns.mean()),
        mean_episode_length=float(lengths.mean()),
        return_error=float(returns.std() / np.sqrt(len(ends))),
        length_error=float(lengths.std() / np.sqrt(len(ends))),
    )


def check_memory(needed: int, free: int | None, where: str, kind: str) -> None:
    """Refuse data that do not fit in what is free of a memory.

    Args:
        needed, free: bytes; None where it is not known, and then nothing is refused.
        kind: what memory it is, for the message.

    Raises:
        DatasetError: they do not fit.
    """
    if free is not None and needed > free:
        raise DatasetError(
            f"{where} needs {needed / 2**30:.2f} GiB of {kind}, of which {max(free, 0) / 2**30:.2f} GiB are free; "
            "expected the whole dataset to fit; choose a smaller dataset or a machine with more memory, "
            "or train on the CPU with JAX_PLATFORMS=cpu"
        )


def free_host_memory() -> int | None:
    """Bytes that new allocations can have without swapping; None where the system does not say."""
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            for line in file:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
    except (OSError, ValueError):
        return None


def _expected(name: str) -> dict[str, str]:
    """The kinds of dtype and numbers of dimensions that a field of `Steps` may have, in words."""
    if name in _FLAGS:
        return {"b1": "one flag a row"}
    if name == "rewards":
        return {"f1": "one floating-point number a row"}
    vectors = {"f2": "a vector of floating-point numbers a row"}
    return vectors if name == "actions" else vectors | {"u4": "an image of whole numbers a row"}


def _ends(steps: Steps) -> np.ndarray:
    ends = np.array(steps.ends, bool) | np.asarray(steps.terminations, bool)
    ends[-1] = True
    return ends
