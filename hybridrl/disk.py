"""The one door to the disk: what is written here is either complete and verifiable, or not there at all.

A folder is written under a temporary name beside its final one, hashed into a manifest, synced and renamed; so a kill
or a power cut at any moment leaves the old state or the new one. Loading checks the manifest first. POSIX only.
"""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import hashlib
import json
import logging
import os
import re
import shutil
import socket
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

from hybridrl.errors import ConfigError, CorruptError

MANIFEST = "manifest.json"

_log = logging.getLogger(__name__)
_TEMPORARY = re.compile(r"\.(?P<name>.+)\.(?P<kind>tmp|old)-(?P<host>\w+)-(?P<pid>\d{1,9})-[0-9a-f]{8}")


def sha256_file(path: Path | str) -> str:
    """The SHA-256 of a file's content, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_bytes(path: Path | str, content: bytes) -> None:
    """Write one file so that readers see the old content or the new one, also after a power cut."""
    path = Path(path)
    temporary = _temporary_name(path, "tmp")
    try:
        with open(temporary, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _fsync(path.parent)


def write_json(path: Path | str, value: Any) -> None:
    """Write a value as indented JSON, atomically."""
    write_bytes(path, (json.dumps(value, indent=2) + "\n").encode())


def read_json(path: Path | str) -> Any:
    """The value in a JSON file.

    Raises:
        FileNotFoundError: there is no such file.
        CorruptError: it does not hold JSON.
    """
    try:
        return json.loads(Path(path).read_bytes())
    except (ValueError, RecursionError) as error:
        raise CorruptError(f"{path} holds no readable JSON ({error}); restore it from a copy or delete it") from error


@contextlib.contextmanager
def atomic_folder(path: Path | str, *, replace: bool = False) -> Iterator[Path]:
    """Write a folder as one act: fill the yielded temporary folder, and on leaving it becomes `path`.

    Every file is listed with size and SHA-256 in `manifest.json`. If the block raises, nothing is left behind; if the
    process dies, `clean_temporaries` removes what it left.

    Args:
        path: the final name. Its parents are made.
        replace: put an existing folder aside and remove it once the new one is in place.

    Raises:
        ConfigError: `path` exists and `replace` is false.
    """
    path = Path(path)
    _refuse_existing(path, replace)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary_name(path, "tmp")
    aside = _temporary_name(path, "old")
    temporary.mkdir()
    handle = os.open(temporary, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # some network file systems cannot lock folders; the name still tells
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield temporary
        _seal(temporary)
        _refuse_existing(path, replace)
        if replace and path.exists():
            path.rename(aside)
        temporary.rename(path)
        _fsync(path.parent)
        shutil.rmtree(aside, ignore_errors=True)
    except BaseException:
        if aside.exists() and not path.exists():
            aside.rename(path)
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    finally:
        os.close(handle)


def write_manifest(folder: Path | str) -> dict[str, dict[str, Any]]:
    """Record size and SHA-256 of every file below `folder`, and return the record by relative path."""
    folder = Path(folder)
    files = {
        str(file.relative_to(folder)): {"size": file.stat().st_size, "sha256": sha256_file(file)}
        for file in _files_below(folder)
        if file != folder / MANIFEST
    }
    write_json(folder / MANIFEST, {"format": 1, "files": files})
    return files


def read_manifest(folder: Path | str) -> dict[str, dict[str, Any]]:
    """What a folder's manifest says of its files, unchecked.

    Raises:
        CorruptError: there is no manifest, or it is not one.
    """
    folder = Path(folder)
    try:
        files = read_json(folder / MANIFEST)["files"]
        sound = all(isinstance(entry["size"], int) and isinstance(entry["sha256"], str) for entry in files.values())
        if sound and not any(Path(name).is_absolute() or ".." in Path(name).parts for name in files):
            return files
    except FileNotFoundError:
        raise CorruptError(f"{folder} has no {MANIFEST}, so it was never finished; {_ADVICE}") from None
    except (KeyError, TypeError, AttributeError):
        pass
    raise CorruptError(f"{folder / MANIFEST} is not a manifest (expected 'files' with size and sha256); {_ADVICE}")


_ADVICE = "delete the folder and make it again, or restore it from a copy"


def verify_folder(path: Path | str) -> dict[str, dict[str, Any]]:
    """Check every file against the manifest, by size and SHA-256, and return the manifest's record.

    Raises:
        CorruptError: a file is missing or differs; the message names it.
    """
    path = Path(path)
    files = read_manifest(path)
    for name, entry in files.items():
        file = path / name
        if not file.is_file():
            raise CorruptError(f"{file} is missing, and {path / MANIFEST} lists it; {_ADVICE}")
        size = file.stat().st_size
        if size != entry["size"]:
            raise CorruptError(f"{file} has {size} bytes, the manifest says {entry['size']}; {_ADVICE}")
        found = sha256_file(file)
        if found != entry["sha256"]:
            raise CorruptError(f"{file} has SHA-256 {found}, the manifest says {entry['sha256']}; {_ADVICE}")
    return files


def clean_temporaries(parent: Path | str) -> list[Path]:
    """Remove what dead processes of this machine left in `parent`, and return it; the living keep theirs.

    A folder that was put aside when its writer died comes back under its own name, unless the new one got there.
    """
    removed = []
    parent = Path(parent)
    for entry in sorted(parent.iterdir()) if parent.is_dir() else []:
        match = _TEMPORARY.fullmatch(entry.name)
        if not match or match["host"] != _host() or _alive(int(match["pid"])) or _locked(entry):
            continue
        if match["kind"] == "old" and not (parent / match["name"]).exists():
            _log.warning("restoring %s, which a process that died had put aside", parent / match["name"])
            entry.rename(parent / match["name"])
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            entry.unlink(missing_ok=True)
        removed.append(entry)
    return removed


class FolderLock:
    """One process at a time for a folder, by a lock file beside it; the kernel frees it when its owner dies.

    Used as a context manager or by `acquire` and `release`. The folder itself need not exist. The lock file stays:
    removing it would let two processes lock two different files of one name.
    """

    def __init__(self, path: Path | str, *, wait: bool = False) -> None:
        self.path = Path(path)
        self.file = self.path.parent / f".{self.path.name}.lock"
        self.wait = wait
        self._handle: int | None = None

    def acquire(self) -> Self:
        """Take the lock.

        Raises:
            ConfigError: another live process has it and `wait` is false; the message names that process.
        """
        self.file.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(self.file, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                owner = self._owner(handle)
                if not self.wait:
                    raise ConfigError(
                        f"{self.path} is in use by {owner}; wait for it to end, or use another folder"
                    ) from None
                _log.info("waiting for %s, which is working on %s", owner, self.path)
                fcntl.flock(handle, fcntl.LOCK_EX)
            now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
            content = json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": now}).encode()
            os.ftruncate(handle, 0)
            os.pwrite(handle, content, 0)
        except BaseException:
            os.close(handle)
            raise
        self._handle = handle
        return self

    def release(self) -> None:
        """Give the lock back; without effect if it is not held."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def __enter__(self) -> Self:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()

    @staticmethod
    def _owner(handle: int) -> str:
        try:
            record = json.loads(os.pread(handle, 4096, 0))
            return f"process {record['pid']} on {record['host']} since {record['since']}"
        except (ValueError, KeyError, TypeError):  # the owner has the lock and has not written yet
            return "another process"


def _seal(folder: Path) -> None:
    """Manifest and sync everything below a folder, the deepest first."""
    write_manifest(folder)
    for file in _files_below(folder):
        _fsync(file)
    for inner, _, _ in os.walk(folder, topdown=False):
        _fsync(Path(inner))


def _files_below(folder: Path) -> list[Path]:
    walk = list(os.walk(folder))
    files = [Path(inner) / name for inner, _, names in walk for name in names]
    folders = [Path(inner) / name for inner, names, _ in walk for name in names]
    links = [entry for entry in files + folders if entry.is_symlink()]
    if links:
        raise CorruptError(f"{links[0]} is a symbolic link; expected plain files; put a copy in its place")
    return sorted(files)


def _refuse_existing(path: Path, replace: bool) -> None:
    if path.exists() and not replace:
        raise ConfigError(f"{path} exists already and would be overwritten; choose another name or remove it first")


def _temporary_name(path: Path, kind: str) -> Path:
    return path.parent / f".{path.name}.{kind}-{_host()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"


def _host() -> str:
    return re.sub(r"\W", "_", socket.gethostname())[:40] or "host"


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # not ours to signal, so it lives
        return True
    return True


def _locked(path: Path) -> bool:
    """Whether a process holds a lock on `path`: it may live where its number means nothing here (a container)."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(handle)
    return False


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
