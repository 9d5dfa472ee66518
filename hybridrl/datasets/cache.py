"""Where datasets live on this machine, and how they get there: local cache, then download, then generation."""

from __future__ import annotations

import datetime
import hashlib
import importlib.metadata
import json
import logging
import os
import platform
import shutil
import time
import urllib.parse
from pathlib import Path
from typing import Any

from hybridrl.data_folder import PLAIN_NAME, SOURCE, data_root, dataset_folder
from hybridrl.datasets.dataset import Source
from hybridrl.datasets.download import Progress, download, download_minari
from hybridrl.datasets.files import has_data
from hybridrl.disk import (
    MANIFEST,
    FolderLock,
    atomic_folder,
    clean_temporaries,
    read_json,
    read_manifest,
    sha256_file,
    verify_folder,
    write_json,
    write_manifest,
)
from hybridrl.errors import CorruptError, DatasetError, HybridRLError
from hybridrl.task import DatasetSpec

_STAMP = ".verified.json"
_PACKAGES = ("hybridrl", "numpy", "mujoco", "gymnasium", "gymnasium-robotics", "ogbench", "minari", "h5py", "jax")

_VECTOR_FLAGS = ("sse4_2", "avx", "fma", "avx2", "avx512f", "avx512dq", "avx512bw", "avx512vl", "asimd", "sve", "sve2")

_log = logging.getLogger(__name__)


def fetch(
    spec: DatasetSpec,
    *,
    allow_download: bool = True,
    allow_generate: bool = True,
    verify: bool = False,
    replace: bool = False,
    progress: Progress | None = None,
) -> tuple[Path, Source]:
    """The folder of a dataset's files and their origin; made by download or generation if it is not there yet.

    The files' hashes are checked on first use and afterwards, cheaply, by size and time. HYBRIDRL_OFFLINE=1 keeps from
    downloading. Files put into the folder by hand are taken as they are, with origin "local file". Several processes
    may ask at once: one does the work, the others wait.

    Args:
        verify: compare all hashes again.
        replace: make it anew even if it is here; what is here stays until the new one is complete, and is kept if that
            fails.
        progress: called with (bytes so far, bytes in all) during downloads.

    Raises:
        CorruptError: the files here are not those that were stored.
        DatasetError: there is no way to get the dataset; the message says why each one failed.
    """
    folder = dataset_folder(spec)
    try:
        if replace or not (folder / MANIFEST).is_file():
            with FolderLock(folder, wait=True):
                clean_temporaries(folder.parent)  # this may bring back what a killed replacement had put aside
                if replace or not (folder / MANIFEST).is_file():
                    _make(spec, folder, allow_download, allow_generate, replace, progress)
        return folder, _verified(spec, folder, verify)
    except OSError as error:
        raise DatasetError(
            f"cannot use the data folder {data_root()} for {spec.id!r} ({error}); "
            "free or allow what is missing, or set HYBRIDRL_DATA to another folder"
        ) from error


def _make(
    spec: DatasetSpec,
    folder: Path,
    allow_download: bool,
    allow_generate: bool,
    replace: bool,
    progress: Progress | None,
) -> None:
    """Bring the finished dataset to `folder`, by the first way that works."""
    if not replace and folder.exists() and any(folder.iterdir()):
        _adopt(spec, folder)
        return
    failures = {"local cache": "to be replaced" if replace else f"not in {folder}"}
    cause: Exception | None = None
    ways = {"download": (_download, allow_download), "generated": (_generate, allow_generate)}
    for origin, (way, allowed) in ways.items():
        label = "download" if origin == "download" else "generation"
        if not allowed:
            failures[label] = "switched off by the caller"
            continue
        if origin == "generated" and spec.generate is None:
            failures[label] = "there is no generator for it, as its procedure needs a learned expert or a renderer"
            continue
        try:
            begun = time.monotonic()
            with atomic_folder(folder, replace=replace) as temporary:
                if allow_download and "download" in failures and spec.published:
                    _log.warning("%s: not downloaded (%s); generating the data instead", spec.id, failures["download"])
                details = way(spec, temporary, progress)
                if not has_data(temporary, spec.format):
                    raise DatasetError(f"it left no {spec.format} data in the folder it was given")
                if "download" in failures:
                    details["not_downloaded"] = failures["download"]
                details["seconds"] = round(time.monotonic() - begun, 1)
                _remember(spec, folder, temporary, origin)
                _write_source(spec, temporary, origin, details)
            _stamp(folder, read_manifest(folder))
            shutil.rmtree(_work_folder(spec), ignore_errors=True)
            return
        except _Impossible as error:
            failures[label] = str(error)
        except Exception as error:  # whatever a generator raises; the chain keeps it
            _log.debug("%s: %s failed", spec.id, label, exc_info=True)
            failures[label] = str(error) if isinstance(error, HybridRLError) else f"{type(error).__name__}: {error}"
            cause = error
    reasons = "".join(f"\n  {label}: {reason}" for label, reason in failures.items())
    raise DatasetError(
        f"cannot get dataset {spec.id!r}:{reasons}\n"
        f"Connect to the network and try again, or put the dataset's files into {folder}, "
        "or choose a task whose data can be generated."
    ) from cause


class _Impossible(DatasetError):
    """A way that does not exist for this dataset, or is switched off: nothing was tried."""


def _download(spec: DatasetSpec, folder: Path, progress: Progress | None) -> dict[str, Any]:
    if not spec.published:
        raise _Impossible(spec.how_to_get or "published nowhere")
    if os.environ.get("HYBRIDRL_OFFLINE", "") not in ("", "0"):
        raise _Impossible("switched off by HYBRIDRL_OFFLINE")
    if not spec.urls:
        root = folder / ".minari"
        url = download_minari(spec.id, root)
        _hoist(spec, folder, root)
        return {"urls": [url]}
    waiting = data_root() / "downloads" / spec.format / spec.id  # outlives a kill, so that the next try continues
    hashes = spec.sha256 or ("",) * len(spec.urls)
    if len(hashes) != len(spec.urls):
        raise DatasetError(f"{spec.id!r} names {len(spec.urls)} urls and {len(hashes)} hashes; expected equal counts")
    for url, sha256 in zip(spec.urls, hashes, strict=True):
        name = Path(urllib.parse.unquote(urllib.parse.urlsplit(url).path)).name
        if not PLAIN_NAME.fullmatch(name):
            raise DatasetError(f"{url} does not end in a plain file name")
        download(url, waiting / name, sha256=sha256, progress=progress)
        (waiting / name).rename(folder / name)
    shutil.rmtree(waiting, ignore_errors=True)
    return {"urls": list(spec.urls)}


def _generate(spec: DatasetSpec, folder: Path, progress: Progress | None) -> dict[str, Any]:
    assert spec.generate is not None
    if spec.resumable:
        spec.generate(folder, work=_work_folder(spec))
    else:
        spec.generate(folder)
    if spec.format == "minari" and not has_data(folder, "minari"):
        _hoist(spec, folder, folder)  # written by the minari package, with the folder as its root
    return {}


def _work_folder(spec: DatasetSpec) -> Path:
    """Where a resumable generation keeps its finished pieces; it need not exist, and goes when the dataset is there."""
    return data_root() / "unfinished" / spec.format / spec.id


def _hoist(spec: DatasetSpec, folder: Path, root: Path) -> None:
    """Move what the minari package stored below `root` to where it belongs in `folder`."""
    data = root / spec.id / "data"
    if data.is_dir():
        data.rename(folder / "data")
        shutil.rmtree(root if root != folder else root / Path(spec.id).parts[0])


def _adopt(spec: DatasetSpec, folder: Path) -> None:
    """Take files that someone put into the folder, and record that this is what happened."""
    if not has_data(folder, spec.format):
        raise DatasetError(
            f"{folder} exists and holds no {spec.format} data; expected the files of {spec.id!r} or no such folder; "
            "move it away or complete it"
        )
    names = [Path(urllib.parse.urlsplit(url).path).name for url in spec.urls]
    for name, sha256 in zip(names, spec.sha256, strict=False):
        if (folder / name).is_file() and sha256 and (found := sha256_file(folder / name)) != sha256.lower():
            raise DatasetError(f"{folder / name} has SHA-256 {found}, expected {sha256}; get the file again")
    (folder / _STAMP).unlink(missing_ok=True)
    _log.warning("%s: using the files found in %s, whose origin is not known", spec.id, folder)
    _write_source(spec, folder, "local file", {})
    write_manifest(folder)


def _write_source(spec: DatasetSpec, folder: Path, origin: str, details: dict[str, Any]) -> None:
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    record = {
        "dataset_id": spec.id,
        "origin": origin,
        "sha256": _content_hash(write_manifest(folder)),
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "versions": versions,
        "cpu": cpu_features(),
        "cores": os.cpu_count(),
        **details,
    }
    write_json(folder / SOURCE, record)


def cpu_features() -> dict[str, Any]:
    """What decides whether two CPUs give the same floating-point numbers; without `flags` where that is not known."""
    features: dict[str, Any] = {"machine": platform.machine()}
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            lines = [line for line in file if line.startswith(("flags", "Features"))]
    except OSError:
        return features
    if lines:
        present = set(lines[0].partition(":")[2].split())
        features["flags"] = [name for name in _VECTOR_FLAGS if name in present]
    return features


def _content_hash(files: dict[str, dict[str, Any]]) -> str:
    """One hash for the data: that of the only file, or of the list of files; the record of origin is left out."""
    hashes = {name: entry["sha256"] for name, entry in files.items() if name != SOURCE}
    if len(hashes) == 1:
        return next(iter(hashes.values()))
    return hashlib.sha256(json.dumps(hashes, sort_keys=True).encode()).hexdigest()


def _remember(spec: DatasetSpec, folder: Path, temporary: Path, origin: str) -> None:
    """Keep the first download's hashes beside the folder and refuse another content under the same name later."""
    if origin != "download":
        return
    record = folder.parent / f".{folder.name}.sha256.json"
    files = write_manifest(temporary)
    found = {name: entry["sha256"] for name, entry in files.items()}
    if not record.exists():
        write_json(record, found)
        return
    known = read_json(record)
    for name in sorted(found.keys() | known.keys()):
        if known.get(name) != found.get(name):
            raise DatasetError(
                f"{name} has SHA-256 {found.get(name)}, and the first download had {known.get(name)}; the published "
                f"file changed, or one of the downloads was damaged; to accept the new one, delete {record}"
            )


def _verified(spec: DatasetSpec, folder: Path, full: bool) -> Source:
    """Check the files, thoroughly if asked or on first use, and say where they came from."""
    files = read_manifest(folder)
    if full or not _stamped(folder, files):
        _stamp(folder, verify_folder(folder))
    try:
        record = read_json(folder / SOURCE)
        source = Source(dataset_id=record["dataset_id"], origin=record["origin"], sha256=record["sha256"])
    except (FileNotFoundError, KeyError, TypeError):
        source = None
    if source is None or source.dataset_id != spec.id or source.sha256 != _content_hash(files):
        raise CorruptError(
            f"{folder / SOURCE} does not describe this folder's files; delete the folder and get it again"
        )
    return source


def _marks(folder: Path, files: dict[str, dict[str, Any]]) -> dict[str, list[int]]:
    """What changes when a file is written or replaced: its size, time of change and inode."""
    marks = {}
    for name in (*files, MANIFEST):
        status = (folder / name).stat()
        marks[name] = [status.st_size, status.st_mtime_ns, status.st_ino]
    return marks


def _stamped(folder: Path, files: dict[str, dict[str, Any]]) -> bool:
    try:
        return read_json(folder / _STAMP) == _marks(folder, files)
    except (FileNotFoundError, CorruptError):
        return False


def _stamp(folder: Path, files: dict[str, dict[str, Any]]) -> None:
    try:
        write_json(folder / _STAMP, _marks(folder, files))
    except OSError as error:  # a data folder that is only read from is fine
        _log.debug("%s cannot be marked as verified (%s); it will be hashed at every use", folder, error)
