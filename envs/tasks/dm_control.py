"""Tasks of DeepMind's control suite: without data, with ExORL's published data, and with data explored here."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from envs.dm_control import DOMAINS, HORIZON, ControlEnv, relabel
from hybridrl.task import DatasetSpec, Task

EXPLORERS = ("rnd", "aps", "proto", "diayn")  # of ExORL's nine collectors, those that zero-shot papers compare on
_HOME = "https://dl.fbaipublicfiles.com/exorl"


def make_control(task: Task) -> Any:
    """The environment of a task of the control suite."""
    return ControlEnv(**dict(task.env_kwargs))


def _task(name: str, domain: str, task: str, dataset: DatasetSpec | None = None) -> Task:
    return Task(
        name=name,
        family="locomotion",
        env_id=f"{domain}-{task}",
        env_kwargs=(("domain", domain), ("task", task)),
        horizon=HORIZON,
        score_range=(0.0, float(HORIZON)),
        score_label="return in per cent of the largest possible, 1000",
        dataset=dataset,
        make=make_control,
    )


def _published(name: str, domain: str, explorer: str, task: str) -> Task:
    spec = DatasetSpec(
        id=f"{domain}/{explorer}",
        format="exorl",
        urls=(f"{_HOME}/{domain}/{explorer}.zip",),
        relabel=functools.partial(relabel, domain, task),
        rows=10_000_000,
    )
    return _task(name, domain, task, spec)


def _explored(name: str, domain: str, task: str) -> Task:
    spec = DatasetSpec(
        id=f"local/{domain}-rnd-v0",
        format="exorl",
        relabel=functools.partial(relabel, domain, task),
        rows=100_000,
        how_to_get=f"an agent explores it in training; make it with: python -m experiments.collect {domain}-rnd",
    )
    return _task(name, domain, task, spec)


TASKS: dict[str, Callable[[], Task]] = {}
for _domain, _tasks in DOMAINS.items():
    for _name in _tasks:
        TASKS[f"dmc/{_domain}-{_name}-v0"] = functools.partial(_task, f"dmc/{_domain}-{_name}-v0", _domain, _name)
        _local = f"local/{_domain}-rnd-{_name}-v0"
        TASKS[_local] = functools.partial(_explored, _local, _domain, _name)
        for _explorer in EXPLORERS:
            _full = f"exorl/{_domain}-{_explorer}-{_name}-v0"
            TASKS[_full] = functools.partial(_published, _full, _domain, _explorer, _name)
