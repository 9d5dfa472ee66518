"""Steps kept as plain arrays beside the datasets they were read from, because some formats take long to read.

Ten thousand episodes in an HDF5 file are a hundred thousand small arrays and half a minute, and rewards that are
computed from a simulator's states take longer; these copies load at once.
They are derived data: verified before use, made again where they fail, and safe to delete.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from pathlib import Path

import numpy as np

from hybridrl.datasets.dataset import Source, Steps
from hybridrl.datasets.files import read
from hybridrl.disk import MANIFEST, atomic_folder, clean_temporaries, verify_folder
from hybridrl.errors import ConfigError, CorruptError
from hybridrl.task import Task

SLOW_FORMATS = ("exorl", "minari")
_VERSION = 1  # raise it when what a reader returns changes

_log = logging.getLogger(__name__)


def read_quickly(folder: Path, task: Task, source: Source, root: Path) -> Steps:
    """As `read`, through a copy of its result below `root` where the format is a slow one.

    The copy belongs to the files' content (`source.sha256`) and to all that the reader takes from the task.
    """
    if task.dataset is None or task.dataset.format not in SLOW_FORMATS:
        return read(folder, task)
    parts = [_VERSION, task.dataset.format, source.sha256, task.observation_keys, task.success_key]
    if task.dataset.action_bounds is not None:
        parts.append(task.dataset.action_bounds)
    if task.dataset.relabel is not None:
        parts.append(task.env_id)  # whose rewards they are
    copy = root / hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:24]
    if (copy / MANIFEST).is_file():
        try:
            verify_folder(copy)
            return Steps(**{file.stem: np.load(file, allow_pickle=False) for file in copy.glob("*.npy")})
        except (CorruptError, OSError, TypeError, ValueError) as error:
            _log.warning("reading %s again, as the decoded copy is damaged (%s)", folder, error)
            shutil.rmtree(copy, ignore_errors=True)
    steps = read(folder, task)
    try:
        clean_temporaries(root)
        with atomic_folder(copy) as temporary:
            for name, array in steps.arrays().items():
                np.save(temporary / f"{name}.npy", array)
    except (ConfigError, OSError) as error:  # another process was first, or the folder cannot be written to
        _log.debug("no decoded copy of %s was kept: %s", folder, error)
    return steps
