"""Every dataset the tasks use: who published it and how, its licence, what it needs, and what was measured of it.

The facts stand in `catalog.json` beside this file. Its `publishers` are matched in order by format and by how the
dataset's id begins; `datasets` holds, by id, what was measured here and what differs from the publisher's entry.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import json
from pathlib import Path
from typing import Any

from envs.registry import TASKS, make_task
from hybridrl.errors import ConfigError
from hybridrl.task import DatasetSpec, Task

CATALOG = Path(__file__).parent / "catalog.json"


@dataclasses.dataclass(frozen=True)
class Measurement:
    """What a dataset looked like when it was recorded by `python -m experiments.data record`.

    Attributes:
        task: whose rewards and successes were read; returns are as recorded, before the task's transform.
        origin: "generated", "download" or "local file".
        sha256: of the content, as in the dataset's `source.json`.
        size: bytes of all its files.
        seconds: how long it took to make or to download on `cores` CPU cores; None if that was not recorded.
        rows, episodes: counts; other copies must have as many rows.
        mean_episode_return, mean_episode_length: over the recorded episodes.
        return_tolerance, length_tolerance: how far another copy's means may be off.
        versions, cpu: where equal, a generated copy has the same hash; elsewhere it may differ in the last bits.
    """

    task: str
    origin: str
    sha256: str
    size: int
    seconds: float | None
    cores: int
    rows: int
    episodes: int
    mean_episode_return: float
    return_tolerance: float
    mean_episode_length: float
    length_tolerance: float
    versions: dict[str, str]
    cpu: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Publisher:
    """Who published a family of datasets.

    Attributes:
        name: short, for tables.
        source: who published the data, and by what procedure they were made.
        licence: what the publisher says of it.
        extra_download, extra_generate: the extra of this package that each way needs; empty for none.
    """

    name: str
    source: str
    licence: str
    extra_download: str = ""
    extra_generate: str = ""


@dataclasses.dataclass(frozen=True)
class Entry:
    """One dataset: its record, the tasks that use it, and the facts about it."""

    spec: DatasetSpec
    tasks: tuple[str, ...]
    publisher: Publisher
    measured: Measurement | None

    @property
    def ways(self) -> tuple[str, ...]:
        """How it can be had: "download", "generate"; empty if its files must be put there by hand."""
        published = ("download",) if self.spec.published else ()
        return (*published, "generate") if self.spec.generate is not None else published

    @property
    def rows(self) -> int:
        """Transitions, as measured or as published; 0 if unknown."""
        return self.measured.rows if self.measured is not None else self.spec.rows

    def task(self) -> Task:
        """The task to read the dataset for: the one it was measured with, else the first that uses it."""
        return make_task(self.measured.task if self.measured is not None else self.tasks[0])


def catalog() -> dict[str, Entry]:
    """Every dataset of the tasks, by id, in the order of the tasks."""
    specs: dict[str, DatasetSpec] = {}
    tasks: dict[str, list[str]] = {}
    for name, make in TASKS.items():
        spec = make().dataset
        if spec is not None:
            specs.setdefault(spec.id, spec)
            tasks.setdefault(spec.id, []).append(name)
    return {id: _entry(spec, tuple(tasks[id])) for id, spec in specs.items()}


def find(name: str, entries: dict[str, Entry]) -> Entry:
    """The dataset called `name`, or that of the task called so.

    Raises:
        ConfigError: there is none; the message proposes the nearest name.
    """
    if name in entries:
        return entries[name]
    if name not in TASKS:
        known = [*TASKS, *entries]
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
        try:
            task = make_task(name)  # a name of an open-ended family
        except ConfigError as error:
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise ConfigError(
                f"no dataset or task {name!r}; {hint}list them with: python -m experiments.data list"
            ) from error
    else:
        task = make_task(name)
    if task.dataset is None:
        raise ConfigError(f"task {name!r} has no dataset; train it online, or choose a task with data")
    return entries.get(task.dataset.id) or _entry(task.dataset, (name,))


def publishers() -> tuple[Publisher, ...]:
    """All publishers, in the order in which they are matched."""
    return tuple(_publisher(facts) for facts in _facts()["publishers"])


def record(dataset_id: str, measured: Measurement) -> None:
    """Write what was measured of a dataset into the catalogue's file, in place of what it said before."""
    from hybridrl import disk

    facts = json.loads(CATALOG.read_text(encoding="utf-8"))
    entry = facts["datasets"].setdefault(dataset_id, {})
    entry["measured"] = dataclasses.asdict(measured)
    facts["datasets"] = dict(sorted(facts["datasets"].items()))
    disk.write_json(CATALOG, facts)
    _facts.cache_clear()


@functools.lru_cache(maxsize=1)
def _facts() -> dict[str, Any]:
    return json.loads(CATALOG.read_text(encoding="utf-8"))


def _publisher(facts: dict[str, Any]) -> Publisher:
    return Publisher(
        **{field.name: facts[field.name] for field in dataclasses.fields(Publisher) if field.name in facts}
    )


def _entry(spec: DatasetSpec, tasks: tuple[str, ...]) -> Entry:
    own = _facts()["datasets"].get(spec.id, {})
    for facts in _facts()["publishers"]:
        if facts["format"] == spec.format and spec.id.startswith(facts["prefix"]):
            break
    else:
        raise ConfigError(
            f"dataset {spec.id!r} of format {spec.format!r} has no publisher; add one to {CATALOG} that matches it"
        )
    measured = own.get("measured")
    return Entry(spec, tasks, _publisher(facts | own), Measurement(**measured) if measured is not None else None)
