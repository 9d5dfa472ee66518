"""The tasks by name. Nothing heavy is imported until a task's environment is made or its dataset generated."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable

from envs.tasks import d4rl, dm_control, local, locks, minari, ogbench, pointmaze, probes
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
    **probes.TASKS,
}

# Names that begin so are no rows of the table: what follows is looked up when it is asked for.
RESOLVERS: dict[str, Callable[[str], Task]] = {minari.PREFIX: minari.minari_task}


def task_names() -> tuple[str, ...]:
    """Every task's name, in the order of the table."""
    return tuple(TASKS)


def make_task(name: str) -> Task:
    """The task called `name`; `minari/<dataset id>` is that of any Minari dataset, which is fetched if need be.

    With D4RL's tasks, `name+d4rl` keeps D4RL's own episode ends (see `hybridrl.datasets.d4rl.read_d4rl`).

    Raises:
        ConfigError: there is none; the message proposes the nearest name.
        DatasetError: a Minari dataset cannot be had.
    """
    for prefix, resolve in RESOLVERS.items():
        if name.startswith(prefix):
            return resolve(name)
    plain, plus, boundaries = name.partition("+")
    if plain not in TASKS:
        near = difflib.get_close_matches(plain, TASKS, n=1, cutoff=0.4)
        hint = f"did you mean {near[0] + plus + boundaries!r}? " if near else ""
        raise ConfigError(
            f"no task {name!r}; {hint}expected one of {len(TASKS)} names, or minari/<dataset id>; "
            'list them with: python -c "import envs; print(*envs.task_names())"'
        )
    task = TASKS[plain]()
    if not plus:
        return task
    if boundaries != "d4rl" or task.dataset is None or task.dataset.format != "d4rl":
        raise ConfigError(
            f"no task {name!r}; expected {plain!r}, or a task of D4RL's with '+d4rl', which has D4RL's episode ends"
        )
    return dataclasses.replace(task, name=name, dataset=dataclasses.replace(task.dataset, boundaries=boundaries))


def make_env(task: Task, seed: int) -> TaskEnv:
    """The task's environment, whose whole course follows from `seed` and the actions."""
    return TaskEnv(task, seed)
