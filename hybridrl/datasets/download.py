"""Downloads that end with the right file or with a reason, and continue where they were cut."""

from __future__ import annotations

import contextlib
import http.client
import importlib.util
import io
import logging
import os
import socket
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

from hybridrl.disk import read_json, sha256_file, write_json
from hybridrl.errors import CorruptError, DatasetError, MissingExtraError

Progress = Callable[[int, int | None], None]  # bytes so far, bytes in all if known

_log = logging.getLogger(__name__)
_CHUNK = 1 << 18
_RETRIED_STATUS = (408, 425, 429)  # and every 5xx
_BEGINNINGS = {".npz": b"PK\x03\x04", ".hdf5": b"\x89HDF\r\n\x1a\n", ".h5": b"\x89HDF\r\n\x1a\n"}


class _Interrupted(Exception):
    """The transfer stopped early for a reason that may pass."""


def download(
    url: str,
    path: Path | str,
    *,
    sha256: str = "",
    size: int | None = None,
    progress: Progress | None = None,
    timeout: float = 10.0,
    attempts: int = 5,
    backoff: float = 0.5,
) -> Path:
    """Fetch one file over HTTP(S) to `path`, which appears only when complete and checked.

    The bytes so far wait in `<path>.part`, also across processes; they are continued only if the server still has the
    same file (its ETag or modification time is unchanged) and started over otherwise. One process at a time per path.

    Args:
        sha256: the expected hash, if it is known.
        size: the expected size in bytes, if it is known.
        progress: called with (bytes so far, bytes in all).
        timeout: seconds without any data after which an attempt counts as failed.
        attempts: how often to try in all; the pause before the next one starts at `backoff` seconds and doubles.

    Raises:
        DatasetError: the server cannot be reached, refuses, or sends something else than the file expected.
    """
    path = Path(path)
    if path.exists() and _matches(path, sha256, size):
        return path
    check_reachable(url)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    for attempt in range(attempts):
        if attempt:
            time.sleep(backoff * 2 ** (attempt - 1))
        try:
            total = _transfer(url, part, size, progress, timeout)
            break
        except _Interrupted as error:
            reason = error
            _log.info("download of %s interrupted (%s)", url, error)
    else:
        raise DatasetError(
            f"cannot download {url}: {reason}, after {attempts} attempts; what arrived is kept, so try again later"
        )
    _check_content(url, part, path.suffix, sha256, total if size is None else size)
    with open(part, "rb+") as file:
        os.fsync(file.fileno())
    part.replace(path)
    _record_path(part).unlink(missing_ok=True)
    return path


def check_reachable(url: str, timeout: float = 1.5) -> None:
    """Find out quickly whether a connection to a URL's host, or to the proxy in between, can be made at all.

    Raises:
        DatasetError: it cannot; the message names the host and the reason.
    """
    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise DatasetError(f"cannot download {url!r}; expected an http or https address")
    proxy = urllib.request.getproxies().get(parts.scheme)
    if proxy and not urllib.request.proxy_bypass(parts.hostname):
        parts = urllib.parse.urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    outcome: list[str] = []

    def connect() -> None:
        try:
            socket.create_connection((host, port), timeout=timeout).close()
            outcome.append("")
        except (OSError, UnicodeError) as error:  # the latter for names that no host can have
            outcome.append(str(error) or type(error).__name__)

    thread = threading.Thread(target=connect, daemon=True)  # the name look-up has no timeout of its own
    thread.start()
    thread.join(timeout)
    reason = outcome[0] if outcome else f"no answer within {timeout:g} s"
    if reason:
        raise DatasetError(f"cannot reach {host}:{port} ({reason}); check the network, or work from local data")


@contextlib.contextmanager
def minari_root(folder: Path | str) -> Iterator[Path]:
    """Let the minari package keep its datasets below `folder` for the length of the block (MINARI_DATASETS_PATH)."""
    before = os.environ.get("MINARI_DATASETS_PATH")
    os.environ["MINARI_DATASETS_PATH"] = str(folder)
    try:
        yield Path(folder)
    finally:
        if before is None:
            del os.environ["MINARI_DATASETS_PATH"]
        else:
            os.environ["MINARI_DATASETS_PATH"] = before


def download_minari(dataset_id: str, folder: Path | str) -> str:
    """Fetch a dataset through the minari package into `folder`/`dataset_id`, and return where it came from.

    Raises:
        MissingExtraError: the package that talks to Minari's server is missing.
        DatasetError: the server cannot be reached, does not have the dataset, or delivered nothing.
    """
    remote = os.environ.get("MINARI_REMOTE") or "hf://farama-minari"
    if remote.startswith("hf://"):
        if importlib.util.find_spec("huggingface_hub") is None:
            raise MissingExtraError(
                "downloading Minari datasets needs the package huggingface_hub; pip install 'hybridrl[hub]'"
            )
        import huggingface_hub.constants

        check_reachable(huggingface_hub.constants.ENDPOINT)
    import minari

    said = io.StringIO()
    try:
        with minari_root(folder), contextlib.redirect_stdout(said), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # advice about newer versions; a task means the one it names
            minari.download_dataset(dataset_id)
    except Exception as error:  # the client raises errors of several packages, whichever its server calls for
        raise DatasetError(f"minari could not download {dataset_id!r}: {type(error).__name__}: {error}") from error
    finally:
        _log.debug("minari: %s", said.getvalue().strip())
    if not (Path(folder) / dataset_id / "data").is_dir():
        raise DatasetError(f"minari reported success for {dataset_id!r} and delivered no data; try again later")
    return f"{remote}/{dataset_id}"


def _transfer(url: str, part: Path, size: int | None, progress: Progress | None, timeout: float) -> int:
    """One request that starts or continues the part file; the size of the whole once it is there."""
    have, validator, known_total = _resumable(url, part)
    if have and have == known_total:
        return have
    headers = {"Accept-Encoding": "identity", "User-Agent": "hybridrl"}
    if have:
        headers |= {"Range": f"bytes={have}-", "If-Range": validator}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=timeout) as response:
            have, total = _begin(url, part, response, have, known_total, size)
            with open(part, "ab" if have else "wb") as file:
                while chunk := response.read(_CHUNK):
                    file.write(chunk)
                    have += len(chunk)
                    if progress is not None:
                        progress(have, total)
                    if total is not None and have > total:
                        break
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416:  # the part file is longer than what the server has
            _forget(part)
        elif error.code < 500 and error.code not in _RETRIED_STATUS:
            raise DatasetError(f"{url} answered {error.code} {error.reason}; check the address") from error
        raise _Interrupted(f"the server answered {error.code} {error.reason}") from error
    except (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError) as error:
        raise _Interrupted(f"{type(error).__name__}: {error}") from error
    if total is not None and have > total:
        _forget(part)
        raise DatasetError(f"{url} sent more than the {total} bytes expected; the file has changed, or a proxy has it")
    if total is not None and have < total:
        raise _Interrupted(f"the connection ended after {have} of {total} bytes")
    return have


def _begin(
    url: str, part: Path, response: http.client.HTTPResponse, have: int, known_total: int | None, size: int | None
) -> tuple[int, int | None]:
    """Check a response's headers; how many bytes of the part file it continues, and the size of the whole."""
    if response.headers.get_content_type() == "text/html":
        raise DatasetError(
            f"{url} answered with a web page, not with data; check the address, or log in to the network"
        )
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise DatasetError(f"{url} is sent compressed in transit, which was not asked for; a proxy may be changing it")
    length = response.headers.get("Content-Length")
    if response.status == 206:
        bounds = response.headers.get("Content-Range", "")
        if bounds != f"bytes {have}-{(known_total or 0) - 1}/{known_total}":
            _forget(part)
            raise _Interrupted(f"the server continued with {bounds!r}, from byte {have} of {known_total} was asked for")
        return have, known_total
    total = int(length) if length is not None and length.isdigit() else None
    if size is not None and total is not None and total != size:
        raise DatasetError(f"{url} has {total} bytes, expected {size}; the published file has changed")
    total = size if total is None else total
    validator = response.headers.get("ETag", "")
    if not validator or validator.startswith("W/"):  # a weak tag does not promise equal bytes
        validator = response.headers.get("Last-Modified", "")
    if total is None and not response.chunked:
        raise DatasetError(f"{url} does not say how long it is, so a cut would go unnoticed; give its size")
    part.unlink(missing_ok=True)  # first, or its bytes would pass for this validator's after a kill in between
    write_json(_record_path(part), {"url": url, "validator": validator, "total": total})
    return 0, total


def _resumable(url: str, part: Path) -> tuple[int, str, int | None]:
    """Bytes that can be kept, the validator they belong to, and the size of the whole; zero to start over."""
    try:
        record = read_json(_record_path(part))
        if record["url"] == url and record["validator"] and isinstance(record["total"], int):
            return part.stat().st_size, record["validator"], record["total"]
    except (OSError, CorruptError, KeyError, TypeError):
        pass
    return 0, "", None


def _check_content(url: str, part: Path, suffix: str, sha256: str, size: int) -> None:
    """Compare the finished part file with all that is known of it, and discard it where it differs."""
    with open(part, "rb") as file:
        first = file.read(512)
    problem = ""
    if first.lstrip().lower().startswith((b"<!doctype html", b"<html")):
        problem = "is a web page, not data; check the address, or log in to the network"
    elif not first.startswith(_BEGINNINGS.get(suffix, b"")):
        problem = f"does not begin like a {suffix} file; the published file has changed, or the address is wrong"
    elif part.stat().st_size != size:
        problem = f"has {part.stat().st_size} bytes, expected {size}; the published file has changed"
    elif sha256 and (found := sha256_file(part)) != sha256.lower():
        problem = f"has SHA-256 {found}, expected {sha256}; the published file has changed or was damaged on its way"
    if problem:
        _forget(part)
        raise DatasetError(f"{url} {problem}")


def _matches(path: Path, sha256: str, size: int | None) -> bool:
    return (size is None or path.stat().st_size == size) and (not sha256 or sha256_file(path) == sha256.lower())


def _record_path(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def _forget(part: Path) -> None:
    part.unlink(missing_ok=True)
    _record_path(part).unlink(missing_ok=True)
