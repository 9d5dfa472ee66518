"""Work in independent pieces, on several processes where that helps; the result never depends on how many."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import io
import logging
import multiprocessing
import os
import shutil
import signal
import sys
import threading
import types
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np

from hybridrl.disk import clean_temporaries, read_json, write_bytes, write_json
from hybridrl.errors import CorruptError

Result = TypeVar("Result")
Progress = Callable[[int, int], None]  # (pieces done, pieces in all)
_VERSIONS = ("hybridrl", "numpy", "scipy", "mujoco", "dm-control", "gymnasium", "gymnasium-robotics", "ogbench")

_log = logging.getLogger(__name__)


def run_shards(
    function: Callable[..., Result],
    shards: Sequence[tuple[Any, ...]],
    *,
    title: str,
    processes: int | None = None,
    progress: Progress | None = None,
    work: Path | None = None,
) -> Iterator[Result]:
    """Yields `function(*shard)` for each shard, in that order; the later ones are computed meanwhile.

    Args:
        function: a module-level function whose result depends on its arguments alone.
        shards: its arguments, one tuple a piece.
        title: what the progress bar says; there is a bar only on a terminal, and log lines elsewhere.
        processes: how many to use; None takes one per available core, 1 stays in this process.
        progress: called after each piece, instead of the bar.
        work: a folder in which finished pieces wait, so that the same call continues after a kill; pieces of another
            function, other arguments or other versions of the simulators are thrown away. `function` then returns a
            dict of arrays. The caller removes the folder, once nothing can be lost any more.
    """
    if work is not None:
        _open_work(work, function, shards)
        shards = [(function, work / f"{index:05d}.npz", *shard) for index, shard in enumerate(shards)]
        function = cast("Callable[..., Result]", _kept)
    if processes is None:
        processes = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    processes = min(processes, len(shards))
    done = 0
    with _progress(title, progress) as report:
        if processes > 1:
            context = multiprocessing.get_context("spawn")  # forking a process that runs JAX's threads may hang
            receiver, sender = context.Pipe(duplex=False)
            with (
                receiver,
                sender,
                ProcessPoolExecutor(processes, context, initializer=_end_with, initargs=(receiver,)) as pool,
            ):
                try:
                    with _main_module_hidden():  # workers are started while the work is handed in
                        futures = [pool.submit(function, *shard) for shard in shards]
                    while futures:
                        yield futures.pop(0).result()
                        done += 1
                        report(done, len(shards))
                except BrokenProcessPool:
                    warnings.warn("worker processes ended early; making the rest in this process", stacklevel=2)
                except BaseException:  # also an interruption, and a caller that takes no more
                    sender.close()
                    pool.shutdown(wait=False, cancel_futures=True)
                    raise
        for shard in shards[done:]:
            yield function(*shard)
            done += 1
            report(done, len(shards))


def _end_with(receiver: Connection) -> None:
    """Have this worker end when the other end of the pipe is closed, by the caller or by its death, even amid a piece.

    Left to themselves workers finish what they began, and those of a killed caller stay for ever.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all; the caller's is what counts

    def wait() -> None:
        with contextlib.suppress(EOFError, OSError):
            receiver.recv_bytes()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def _open_work(work: Path, function: Callable[..., Any], shards: Sequence[tuple[Any, ...]]) -> None:
    """Prepare a folder for finished pieces, and empty it first unless they are pieces of this very work."""
    versions = {}
    for package in _VERSIONS:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    name = f"{function.__module__}.{function.__qualname__}"
    record = {"function": name, "shards": hashlib.sha256(repr(list(shards)).encode()).hexdigest(), "versions": versions}
    if work.is_dir():
        clean_temporaries(work)
        try:
            same = read_json(work / "record.json") == record
        except (FileNotFoundError, CorruptError):
            same = False
        if same:
            _log.info("continuing with %d of %d pieces, found in %s", len(list(work.glob("*.npz"))), len(shards), work)
            return
        shutil.rmtree(work)
    work.mkdir(parents=True)
    write_json(work / "record.json", record)


def _kept(function: Callable[..., dict[str, np.ndarray]], path: Path, *shard: Any) -> dict[str, np.ndarray]:
    """The piece in the file, or else made now and put there."""
    if path.exists():
        try:
            with np.load(path, allow_pickle=False) as file:
                return dict(file)
        except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            _log.warning("%s is damaged (%s); making this piece again", path, error)
    arrays = function(*shard)
    content = io.BytesIO()
    np.savez_compressed(content, **arrays)  # type: ignore[arg-type]
    write_bytes(path, content.getvalue())
    return arrays


@contextlib.contextmanager
def _main_module_hidden() -> Iterator[None]:
    """Keep spawned workers from running the caller's script again, which needs nothing of it.

    Without this a script that loads a dataset outside an `if __name__ == "__main__"` block would start itself anew in
    every worker.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


@contextlib.contextmanager
def _progress(title: str, progress: Progress | None) -> Iterator[Progress]:
    """The caller's callback, or a bar on a terminal, or lines in the log."""
    if progress is not None:
        yield progress
    elif not sys.stderr.isatty():
        yield lambda done, total: _log.info("%s: %d of %d parts", title, done, total)
    else:
        from rich.console import Console
        from rich.progress import Progress as Display

        with Display(console=Console(stderr=True), transient=True) as display:
            task = display.add_task(title, total=None)
            yield lambda done, total: display.update(task, completed=done, total=total)
