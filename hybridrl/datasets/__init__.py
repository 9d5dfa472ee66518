"""Offline data: from a dataset's published home, or its published procedure, to arrays on the device."""

from __future__ import annotations

from hybridrl.data_folder import data_root, dataset_folder
from hybridrl.datasets.cache import fetch
from hybridrl.datasets.dataset import Dataset, Source, Steps
from hybridrl.datasets.decoded import read_quickly
from hybridrl.datasets.download import Progress, minari_root
from hybridrl.datasets.files import read
from hybridrl.errors import DatasetError
from hybridrl.task import Task

__all__ = [
    "Dataset",
    "Source",
    "Steps",
    "data_root",
    "dataset_folder",
    "fetch",
    "load",
    "minari_root",
    "read",
]


def load(
    task: Task,
    discount: float = 0.99,
    *,
    allow_download: bool = True,
    allow_generate: bool = True,
    verify: bool = False,
    progress: Progress | None = None,
) -> Dataset:
    """The task's dataset on the device, after the task's transform; fetched first if it is not on this machine.

    Args:
        discount: for the Monte-Carlo returns, in [0, 1).
        allow_download, allow_generate, verify, progress: see `fetch`.

    Raises:
        DatasetError: the task has no dataset, it cannot be had, or it is not what it should be.
    """
    if task.dataset is None:
        raise DatasetError(f"task {task.name!r} has no dataset; train it online, or choose a task with data")
    folder, source = fetch(
        task.dataset, allow_download=allow_download, allow_generate=allow_generate, verify=verify, progress=progress
    )
    steps = read_quickly(folder, task, source, data_root() / "decoded")
    return Dataset.from_steps(steps, task, discount, source, folder)
