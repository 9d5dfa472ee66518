"""Writing OGBench's file pairs: a training set and, from the same process, a validation set a tenth of its size."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

from hybridrl.errors import ConfigError


def split_sizes(episodes: int | None, published: int) -> tuple[int, int]:
    """Training and validation episodes; `None` takes the published number.

    Raises:
        ConfigError: fewer than one episode.
    """
    episodes = published if episodes is None else episodes
    if episodes < 1:
        raise ConfigError(f"episodes={episodes}; expected at least 1")
    return episodes, max(1, episodes // 10)


def write_ogbench(folder: Path, name: str, parts: list[dict[str, np.ndarray]], train_rows: int) -> None:
    """Write `<name>.npz` and `<name>-val.npz`; equal arrays give equal files.

    Args:
        folder: exists.
        parts: stretches of the data in order, each with the same keys. They are emptied, so that no more than one array
            of the whole exists beside them.
        train_rows: how many rows the training set takes; the validation set takes the rest.
    """
    paths = Path(folder) / f"{name}.npz", Path(folder) / f"{name}-val.npz"
    with (
        zipfile.ZipFile(paths[0], "w", zipfile.ZIP_DEFLATED) as train,
        zipfile.ZipFile(paths[1], "w", zipfile.ZIP_DEFLATED) as validation,
    ):
        for key in list(parts[0]):
            array = np.concatenate([part.pop(key) for part in parts])
            for archive, rows in ((train, array[:train_rows]), (validation, array[train_rows:])):
                with archive.open(f"{key}.npy", "w", force_zip64=True) as file:
                    np.lib.format.write_array(file, rows, allow_pickle=False)
