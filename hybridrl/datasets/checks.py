"""Checks on arrays as files give them; each error names the file, the entry and, where there is one, the row."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from hybridrl.errors import DatasetError

FLOATS, NUMBERS, FLAGS = "f", "fiub", "bfiu"  # NumPy's kinds of dtype
ACTION_LIMIT = 1.0 + 1e-3  # what rounding may make of an action in [-1, 1]


def check_size(path: Path, declared: int) -> None:
    """Refuse a file whose headers announce more bytes than this machine has memory."""
    limit = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if declared > limit:
        raise DatasetError(
            f"{path} would need {declared / 2**30:.1f} GiB of memory, and this machine has {limit / 2**30:.1f} GiB; "
            "use a larger machine or a smaller dataset"
        )


def matrix(where: str, array: Any, kinds: str = FLOATS) -> np.ndarray:
    """A float32 `(rows, width)` array; where integers are taken, so is a plain row, as one of width 1."""
    array = np.asarray(array)
    if array.dtype.kind not in kinds:
        raise DatasetError(f"{where} has dtype {array.dtype}; expected floating-point numbers; get the dataset again")
    if array.ndim == 1 and kinds != FLOATS:
        array = array[:, None]
    if array.ndim != 2:
        raise DatasetError(f"{where} has shape {array.shape}; expected (rows, width); get the dataset again")
    return float32(array)


def images(where: str, array: Any) -> np.ndarray:
    """A uint8 `(rows, height, width, channels)` array."""
    array = np.asarray(array)
    if array.dtype != np.uint8 or array.ndim != 4:
        raise DatasetError(
            f"{where} has shape {array.shape} and dtype {array.dtype}; expected uint8 (rows, height, width, channels); "
            "get the dataset again"
        )
    return array


def column(where: str, array: Any, rows: int, kinds: str) -> np.ndarray:
    """An array of `rows` numbers; one of shape `(rows, 1)` is taken too."""
    array = np.asarray(array)
    if array.shape == (rows, 1):
        array = array[:, 0]
    if array.dtype.kind not in kinds or array.shape != (rows,):
        raise DatasetError(f"{where} has shape {array.shape} and dtype {array.dtype}; expected {rows} numbers")
    return array


def flags(where: str, array: Any, rows: int) -> np.ndarray:
    """A boolean `(rows,)` array from numbers that are 0 or 1."""
    array = column(where, array, rows, FLAGS)
    if array.dtype != bool and not (valid := (array == 0) | (array == 1)).all():
        bad = int(np.argmin(valid))
        raise DatasetError(f"{where} is {array[bad]} in row {bad}; expected flags, 0 or 1; get the dataset again")
    return array.astype(bool)


def check_finite(where: str, array: np.ndarray) -> None:
    """Refuse NaN and infinity, naming the first row that has one."""
    finite = np.isfinite(array)
    if not finite.all():
        bad = int(np.argmin(finite.reshape(len(array), -1).all(axis=1)))
        raise DatasetError(
            f"{where} is not finite in row {bad}; expected finite numbers; remove the episode or get the dataset again"
        )


def check_actions(where: str, actions: np.ndarray) -> None:
    """Refuse actions outside [-1, 1], naming the first row that has one."""
    if actions.size and max(actions.max(), -actions.min()) > ACTION_LIMIT:
        sizes = np.abs(actions).max(axis=1)
        bad = int(np.argmax(sizes > ACTION_LIMIT))
        raise DatasetError(
            f"{where} reaches {sizes[bad]:.4g} in row {bad}; expected entries in [-1, 1]; "
            "rescale the actions to the environment's bounds before storing them"
        )


def float32(array: np.ndarray) -> np.ndarray:
    """The array in single precision."""
    with np.errstate(over="ignore"):  # what does not fit becomes infinite, and infinities are refused with their row
        return np.asarray(array, np.float32)
