"""Where datasets live on this machine, and what is recorded of those that are here. Reads small files only, no JAX."""

from __future__ import annotations

import dataclasses
import os
import re
from pathlib import Path
from typing import Any

from hybridrl.disk import MANIFEST, read_json, read_manifest
from hybridrl.errors import CorruptError, DatasetError
from hybridrl.task import DatasetSpec

SOURCE = "source.json"
PLAIN_NAME = re.compile(r"[A-Za-z0-9_][\w.+-]*(/[A-Za-z0-9_][\w.+-]*)*", re.ASCII)


@dataclasses.dataclass(frozen=True)
class Stored:
    """A finished dataset on this machine, as its records describe it; nothing is checked here."""

    id: str
    folder: Path
    size: int  # bytes of its files, by the manifest
    record: dict[str, Any]  # source.json: origin, hash, time, versions; empty if it cannot be read

    @property
    def origin(self) -> str:
        """How the files got here, or "unknown"."""
        return str(self.record.get("origin", "unknown"))


def data_root() -> Path:
    """The folder of all datasets: $HYBRIDRL_DATA, else `hybridrl` in the user's cache folder. It need not exist."""
    chosen = os.environ.get("HYBRIDRL_DATA")
    if chosen:
        return Path(os.path.abspath(os.path.expanduser(chosen)))
    cache = os.environ.get("XDG_CACHE_HOME", "")
    return Path(cache if os.path.isabs(cache) else os.path.expanduser("~/.cache")) / "hybridrl"


def dataset_folder(spec: DatasetSpec) -> Path:
    """Where a dataset is kept: `<data root>/<format>/<id>`. So `<data root>/minari` serves as MINARI_DATASETS_PATH.

    Raises:
        DatasetError: the id could point elsewhere.
    """
    if not PLAIN_NAME.fullmatch(spec.id):
        raise DatasetError(
            f"dataset id {spec.id!r} is not a plain name; expected letters, digits and ._+- in parts divided by '/', "
            "none of which begins with a dot"
        )
    return data_root() / spec.format / spec.id


def stored(spec: DatasetSpec) -> Stored | None:
    """What is recorded of a dataset that is finished and here; None if it is not."""
    return _stored(spec.id, dataset_folder(spec))


def all_stored() -> list[Stored]:
    """Every finished dataset below the data root, also those that no task uses: what has a manifest and an origin."""
    found = []
    for inner, folders, names in os.walk(data_root()):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        if MANIFEST in names:
            folders.clear()  # a dataset holds no other datasets
            if SOURCE in names:
                id = Path(inner).relative_to(data_root()).parts[1:]  # after the format
                found.append(_stored("/".join(id), Path(inner)))
    return [entry for entry in found if entry is not None]


def _stored(dataset_id: str, folder: Path) -> Stored | None:
    try:
        size = sum(entry["size"] for entry in read_manifest(folder).values())
    except CorruptError:  # also where there is no manifest
        return None
    try:
        record = read_json(folder / SOURCE)
    except (FileNotFoundError, CorruptError):
        record = {}
    return Stored(dataset_id, folder, size, record if isinstance(record, dict) else {})
