"""Work in independent pieces, on several processes where that helps; the result never depends on how many."""

from __future__ import annotations

import multiprocessing
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

Result = TypeVar("Result")
Progress = Callable[[int, int], None]  # (pieces done, pieces in all)


def run_shards(
    function: Callable[..., Result],
    shards: Sequence[tuple[Any, ...]],
    *,
    title: str,
    processes: int | None = None,
    progress: Progress | None = None,
) -> list[Result]:
    """`[function(*shard) for shard in shards]`, in that order.

    Args:
        function: a module-level function whose result depends on its arguments alone.
        shards: its arguments, one tuple a piece.
        title: what the progress bar says; there is a bar only on a terminal.
        processes: how many to use; None takes one per available core, 1 stays in this process.
        progress: called after each piece, instead of the bar.
    """
    if processes is None:
        processes = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    processes = min(processes, len(shards))
    with _bar(title, progress) as report:
        # Spawned workers run the caller's main module again, which an interpreter reading from a pipe does not have.
        main = getattr(sys.modules.get("__main__"), "__file__", None)
        if processes > 1 and (main is None or os.path.exists(main)):
            try:
                return _in_processes(function, shards, processes, report)
            except BrokenProcessPool:
                warnings.warn("worker processes ended early; making the data in this process instead", stacklevel=2)
        results = []
        for done, shard in enumerate(shards):
            results.append(function(*shard))
            report(done + 1, len(shards))
        return results


def _in_processes(
    function: Callable[..., Result], shards: Sequence[tuple[Any, ...]], processes: int, report: Progress
) -> list[Result]:
    context = multiprocessing.get_context("spawn")  # forking a process that runs JAX's threads may hang
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        futures: list[Future[Result]] = [pool.submit(function, *shard) for shard in shards]
        for done, future in enumerate(as_completed(futures)):
            future.result()
            report(done + 1, len(shards))
        return [future.result() for future in futures]


class _bar:
    """The caller's callback, or a progress bar on a terminal, or nothing."""

    def __init__(self, title: str, progress: Progress | None) -> None:
        self._title, self._progress, self._display = title, progress, None

    def __enter__(self) -> Progress:
        if self._progress is not None:
            return self._progress
        if not sys.stderr.isatty():
            return lambda done, total: None
        from rich.console import Console
        from rich.progress import Progress as Display

        display = Display(console=Console(stderr=True), transient=True)
        task = display.add_task(self._title, total=None)
        display.start()
        self._display = display
        return lambda done, total: display.update(task, completed=done, total=total)

    def __exit__(self, *error: object) -> None:
        if self._display is not None:
            self._display.stop()
