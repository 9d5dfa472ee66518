"""What `python -m experiments.data` does with datasets: get, make, verify, record."""

from __future__ import annotations

import dataclasses
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import PurePosixPath
from typing import Any

from envs.catalog import Entry, Measurement, record
from experiments.units import duration, size_text
from hybridrl import datasets
from hybridrl.data_folder import Stored, data_root, dataset_folder, stored
from hybridrl.datasets.decoded import read_quickly
from hybridrl.datasets.validation import Statistics, statistics, validate
from hybridrl.disk import read_manifest, verify_folder
from hybridrl.errors import ConfigError, DatasetError
from hybridrl.task import Task

# Two copies of equal law differ by sqrt(2) standard errors; six allow four of these deviations.
_STANDARD_ERRORS = 6.0
_ROUNDING = 1e-6  # relative: means of equal data, summed elsewhere
_PLAIN_SECONDS = 5.0  # between lines of progress where there is no terminal
_CHECKS = "arrays present, shapes, dtypes, finite entries, actions in [-1, 1], episode bounds"


@dataclasses.dataclass(frozen=True)
class Examined:
    """A dataset that was read and found sound in itself; `problems` and `notes` compare it with the catalogue."""

    stored: Stored
    statistics: Statistics
    problems: list[str]
    notes: list[str]


def get(entry: Entry, task: Task, *, allow_download: bool = True, allow_generate: bool = True) -> Examined:
    """Have a dataset here, by the first way that works, and examine it.

    Raises:
        DatasetError: it cannot be had, or is not what it should be.
    """
    with download_progress(entry.spec.id) as progress:
        folder, source = datasets.fetch(
            entry.spec, allow_download=allow_download, allow_generate=allow_generate, progress=progress
        )
    steps = read_quickly(folder, task, source, data_root() / "decoded")
    return _examine(entry, task, steps)


def make(entry: Entry, task: Task, *, force: bool) -> Examined:
    """Generate a dataset by its published procedure, and examine it. With `force`, also where it is here already.

    Raises:
        ConfigError: it is here as something else than generated data, and `force` is false.
        DatasetError: there is no generator, or it failed.
    """
    found = stored(entry.spec)
    if found is not None and found.origin != "generated" and not force:
        raise ConfigError(
            f"{entry.spec.id} is in {found.folder} already, with origin {found.origin!r}; "
            "expected none or a generated one; add --force to replace it"
        )
    if found is not None and not force:
        print(f"{entry.spec.id} is here already; add --force to make it anew")
    folder, source = datasets.fetch(entry.spec, allow_download=False, replace=force)
    steps = read_quickly(folder, task, source, data_root() / "decoded")
    return _examine(entry, task, steps)


def verify(entry: Entry) -> Examined:
    """Recompute all hashes, read the data from its own files again, and compare it with the catalogue.

    Raises:
        DatasetError: it is not here, damaged, or not what it should be.
    """
    folder = dataset_folder(entry.spec)
    if not folder.is_dir():
        raise DatasetError(f"not in {folder}; get it with: python -m experiments.data get {entry.spec.id}")
    task = entry.task()
    folder, _ = datasets.fetch(entry.spec, allow_download=False, allow_generate=False, verify=True)
    examined = _examine(entry, task, datasets.read(folder, task))
    files = read_manifest(folder)
    for url, sha256 in zip(entry.spec.urls, entry.spec.sha256, strict=False):
        name = PurePosixPath(url).name
        if (
            sha256
            and name in files
            and files[name]["sha256"] != sha256.lower()
            and examined.stored.origin == "download"
        ):
            examined.problems.append(f"{name} has SHA-256 {files[name]['sha256']}, published is {sha256}")
    return examined


def verify_unknown(found: Stored) -> None:
    """Recompute the hashes of a dataset that no task uses.

    Raises:
        CorruptError: a file is missing or differs.
    """
    verify_folder(found.folder)


def write_record(entry: Entry, task: Task) -> Measurement:
    """Measure a dataset, read for `task`, and write its entry in the catalogue; it is made or downloaded if need be."""
    examined = get(entry, task)
    figures, kept = examined.statistics, examined.stored.record
    measured = Measurement(
        task=task.name,
        origin=examined.stored.origin,
        sha256=kept["sha256"],
        size=examined.stored.size,
        seconds=kept.get("seconds"),
        cores=kept.get("cores") or os.cpu_count() or 1,
        rows=figures.rows,
        episodes=figures.episodes,
        mean_episode_return=figures.mean_episode_return,
        return_tolerance=_tolerance(figures.mean_episode_return, figures.return_error),
        mean_episode_length=figures.mean_episode_length,
        length_tolerance=_tolerance(figures.mean_episode_length, figures.length_error),
        versions=kept.get("versions", {}),
        cpu=kept.get("cpu", {}),
    )
    record(entry.spec.id, measured)
    return measured


def compare(
    measured: Measurement, found: dict[str, Any], figures: Statistics, *, same_rewards: bool = True
) -> tuple[list[str], list[str]]:
    """How a copy differs from what is recorded: what must not be, and what may be.

    Rows and means must be those recorded where the copy is of the same origin. The content's hash must be, too, except
    that floating-point results, and with them all that is simulated, may differ between versions and types of CPU.

    Args:
        found: the copy's `source.json`.
        same_rewards: it was read for the task it was measured with; else returns are not compared.
    """
    same_origin = found.get("origin") == measured.origin
    differences = []
    if figures.rows != measured.rows:
        differences.append(f"{figures.rows:,} rows, expected {measured.rows:,}")
    means = [
        ("mean episode length", figures.mean_episode_length, measured.mean_episode_length, measured.length_tolerance)
    ]
    if same_rewards:
        means.append(
            ("mean return", figures.mean_episode_return, measured.mean_episode_return, measured.return_tolerance)
        )
    for name, value, expected, tolerance in means:
        if not abs(value - expected) <= tolerance:
            differences.append(f"{name} {value:.6g}, expected {expected:.6g} +- {tolerance:.2g}")
    if found.get("sha256") == measured.sha256:
        return differences, []
    if not same_origin:
        origins = f"this copy is of origin {found.get('origin')!r}, the recorded one {measured.origin!r}"
        return [], [f"{text} ({origins})" for text in differences or ["other content, with the recorded statistics"]]
    content = f"content has SHA-256 {found.get('sha256')}, recorded is {measured.sha256}"
    if measured.origin != "generated":
        return [*differences, content], []
    if _same_machine(measured, found):
        return [*differences, f"{content}, and versions and CPU are the recorded ones"], []
    return differences, [f"{content}; versions or CPU differ from the recorded ones, so this can be rounding"]


def report(entry: Entry, examined: Examined) -> str:
    """What `get` and `make` print of a dataset."""
    found, figures = examined.stored, examined.statistics
    lines = [
        entry.spec.id,
        f"  folder    {found.folder}",
        f"  origin    {found.origin}, {found.record.get('time')}",
        f"  sha256    {found.record.get('sha256')}",
        f"  size      {size_text(found.size)}",
        f"  rows      {figures.rows:,} in {figures.episodes:,} episodes",
        f"  length    {figures.mean_episode_length:.1f} steps per episode on average",
        f"  return    {figures.mean_episode_return:.4g} per episode on average, as recorded",
        f"  checks    passed: {_CHECKS}",
    ]
    if entry.measured is None:
        lines.append("  catalogue nothing recorded to compare with")
    elif not examined.problems and not examined.notes:
        lines.append("  catalogue content equal to the recorded one")
    lines += [f"  note      {text}" for text in examined.notes]
    return "\n".join(lines)


@contextmanager
def download_progress(title: str) -> Iterator[datasets.Progress]:
    """A bar with speed and time left on a terminal, elsewhere a line now and then. Nothing until a first byte comes."""
    shown = _Bar(title) if sys.stderr.isatty() else _Lines(title)
    try:
        yield shown.update
    finally:
        shown.stop()


class _Bar:
    """A bar per file, shown only while it grows: a generator that takes over has one of its own."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.display: Any = None
        self.task: Any = None

    def update(self, done: int, total: int | None) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
            TransferSpeedColumn,
        )

        if self.display is None:
            columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
            self.display = Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True)
            self.task = self.display.add_task(self.title, total=total)
            self.display.start()
        self.display.update(self.task, completed=done, total=total)
        if done == total:
            self.stop()

    def stop(self) -> None:
        if self.display is not None:
            self.display.stop()
            self.display = None


class _Lines:
    """A line every few seconds and one at the end of each file."""

    def __init__(self, title: str) -> None:
        self.title, self.begun, self.first, self.last = title, 0.0, 0, -1e9

    def update(self, done: int, total: int | None) -> None:
        now = time.monotonic()
        if not self.begun or done < self.first:  # another file
            self.begun, self.first, self.last = now, done, now
        if done != total and now - self.last < _PLAIN_SECONDS:
            return
        self.last = now
        speed = (done - self.first) / max(now - self.begun, 1e-9)
        parts = [f"{self.title}: {size_text(done)} of {size_text(total)}"]
        if speed > 0:
            parts.append(f"{size_text(round(speed))}/s")
            if total is not None and done < total:
                parts.append(f"{duration((total - done) / speed)} left")
        print(", ".join(parts), file=sys.stderr, flush=True)
        if done == total:
            self.begun = 0.0

    def stop(self) -> None:
        """Lines need no ending."""


def _examine(entry: Entry, task: Task, steps: datasets.Steps) -> Examined:
    found = stored(entry.spec)
    if found is None:
        raise DatasetError(f"{entry.spec.id} vanished from {dataset_folder(entry.spec)} while it was read; try again")
    validate(steps, f"dataset {entry.spec.id!r} in {found.folder}")
    figures = statistics(steps)
    problems: list[str] = []
    notes: list[str] = []
    if entry.measured is not None:
        same_rewards = entry.measured.task == task.name
        problems, notes = compare(entry.measured, found.record, figures, same_rewards=same_rewards)
    return Examined(found, figures, problems, notes)


def _same_machine(measured: Measurement, found: dict[str, Any]) -> bool:
    return bool(measured.cpu.get("flags")) and (measured.versions, measured.cpu) == (
        found.get("versions"),
        found.get("cpu"),
    )


def _tolerance(mean: float, error: float) -> float:
    return max(_STANDARD_ERRORS * error, _ROUNDING * abs(mean))
