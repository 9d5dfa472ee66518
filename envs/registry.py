"""The tasks by name. Nothing heavy is imported until a task's environment is made or its dataset generated."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable

from envs.shifted import with_gap
from envs.tasks import d4rl, dm_control, families, halves, local, locks, minari, ogbench, pointmaze, probes
from envs.wrappers import TaskEnv
from hybridrl.errors import ConfigError
from hybridrl.task import Task

TASKS: dict[str, Callable[[], Task]] = {
    **pointmaze.TASKS,
    **ogbench.TASKS,
    **d4rl.TASKS,
    **local.TASKS,
    **locks.TASKS,
    **dm_control.TASKS,
    **families.TASKS,
    **probes.TASKS,
    **halves.TASKS,
}

# Names that begin so are no rows of the table: what follows is looked up when it is asked for.
RESOLVERS: dict[str, Callable[[str], Task]] = {minari.PREFIX: minari.minari_task}


def task_names() -> tuple[str, ...]:
    """Every task's name, in the order of the table."""
    return tuple(TASKS)


def make_task(name: str) -> Task:
    """The task called `name`; `minari/<dataset id>` is that of any Minari dataset, which is fetched if need be.

    With D4RL's tasks, `name+d4rl` keeps D4RL's own episode ends (see `hybridrl.datasets.d4rl.read_d4rl`). `name+<gap>`,
    such as `local/hopper-medium-v0+gravity2`, adds a simulator to interact with whose dynamics differ (see
    `envs.shifted`). A gap comes last.

    Raises:
        ConfigError: there is none; the message proposes the nearest name.
        DatasetError: a Minari dataset cannot be had.
    """
    plain, plus, suffix = name.partition("+")
    task = _plain_task(plain, plus + suffix)
    if not plus:
        return task
    boundaries, more, gap = suffix.partition("+")
    if boundaries == "d4rl" and task.dataset is not None and task.dataset.format == "d4rl":
        dataset = dataclasses.replace(task.dataset, boundaries=boundaries)
        task = dataclasses.replace(task, name=f"{plain}+{boundaries}", dataset=dataset)
        if not more:
            return task
        suffix = gap
    return with_gap(task, suffix)


def _plain_task(name: str, suffix: str) -> Task:
    for prefix, resolve in RESOLVERS.items():
        if name.startswith(prefix):
            return resolve(name)
    if name not in TASKS:
        near = difflib.get_close_matches(name, TASKS, n=1, cutoff=0.4)
        hint = f"did you mean {near[0] + suffix!r}? " if near else ""
        raise ConfigError(
            f"no task {name + suffix!r}; {hint}expected one of {len(TASKS)} names, or minari/<dataset id>; "
            'list them with: python -c "import envs; print(*envs.task_names())"'
        )
    return TASKS[name]()


def make_env(task: Task, seed: int, *, simulator: bool = False) -> TaskEnv:
    """The task's environment, whose whole course follows from `seed` and the actions.

    Args:
        simulator: build the task's simulator, which training interacts with, and not the evaluated environment.

    Raises:
        ConfigError: a simulator is asked for and the task has none.
    """
    if simulator and task.simulator is None:
        raise ConfigError(
            f"task {task.name!r} has no simulator apart from its environment; choose a task with one, such as "
            "'local/hopper-medium-v0+gravity2', or leave out simulator=True"
        )
    return TaskEnv(task, seed, task.simulator if simulator else None)
