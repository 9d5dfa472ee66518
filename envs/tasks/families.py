"""The tasks of the meta-learning families, `family/<name>/<index>-v0`. They have no datasets of their own."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from envs.families import FAMILIES
from hybridrl.task import Task


def member(family_name: str, index: int) -> Task:
    """Task `index` of a family, as a record."""
    family = FAMILIES[family_name]
    name = f"family/{family_name}/{index}-v0"
    return Task(
        name=name,
        family="locomotion",  # MuJoCo-sized networks and budgets
        env_id=name,
        horizon=family.horizon,
        success_key="success" if family.bounds is None else None,
        score_range=None if family.bounds is None else family.bounds(family.parameters(index)),
        score_label=family.score_label,
        make=functools.partial(_make, family_name, index),
    )


def _make(family_name: str, index: int, task: Task) -> Any:
    return FAMILIES[family_name].make(index)


TASKS: dict[str, Callable[[], Task]] = {
    f"family/{family.name}/{index}-v0": functools.partial(member, family.name, index)
    for family in FAMILIES.values()
    for index in range(family.num_tasks)
}
