"""The tasks by name. Nothing heavy is imported until a task's environment is made or its dataset generated."""

from __future__ import annotations

import difflib
import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from envs import probe_tasks
from envs.extras import make_gymnasium
from envs.local import generate_local
from envs.mazes import CELL_SIZE, generate_ogbench_pointmaze, generate_pointmaze_umaze
from envs.wrappers import TaskEnv
from hybridrl.errors import ConfigError
from hybridrl.task import DatasetSpec, Task

POLICIES = Path(__file__).parent / "policies"
OGBENCH_URL = "https://rail.eecs.berkeley.edu/datasets/ogbench"
# OGBench's convention, for all point mazes: -1 a step and 0 at the goal, where the episode ends.
SPARSE = {"failure_reward": -1.0, "terminate_on_success": True, "success_key": "success"}
# Goal cells (row, column) of tasks 1 to 5 (Park et al. 2024); task 1 is the default.
OGBENCH_GOALS = {
    "medium": ((6, 6), (1, 6), (4, 2), (6, 1), (1, 1)),
    "large": ((7, 10), (7, 1), (1, 10), (5, 4), (5, 4)),
    "giant": ((10, 14), (10, 1), (1, 1), (5, 12), (3, 8)),
}


def _make_robotics(task: Task) -> Any:
    return make_gymnasium(task.env_id, "gymnasium_robotics", **dict(task.env_kwargs))


def _make_ogbench(task: Task) -> Any:
    return make_gymnasium(task.env_id, "ogbench", **dict(task.env_kwargs))


def _make_plain(task: Task) -> Any:
    return make_gymnasium(task.env_id, **dict(task.env_kwargs))


def _relabel_pointmaze(
    arrays: dict[str, np.ndarray], *, goal: tuple[float, float], tolerance: float
) -> tuple[np.ndarray, np.ndarray]:
    """Rewards -1 and 0 and successes of the states the rows begin in (the benchmark's single-task rule).

    Args:
        arrays: the file's arrays; `qpos` is `(rows, 2)`.
        goal: where the point should be.
        tolerance: the largest distance that counts as being there.
    """
    distances = np.linalg.norm(np.asarray(arrays["qpos"])[:, :2] - np.asarray(goal, np.float64), axis=-1)
    successes = distances <= tolerance
    return successes.astype(np.float32) - np.float32(1.0), successes


def _pointmaze_umaze() -> Task:
    # One goal cell "g"; the free cells "0" are then all possible starts.
    maze = ((1, 1, 1, 1, 1), (1, "g", 0, 0, 1), (1, 1, 1, 0, 1), (1, 0, 0, 0, 1), (1, 1, 1, 1, 1))
    return Task(
        name="pointmaze-umaze-v2",
        family="pointmaze",
        env_id="PointMaze_UMaze-v3",
        env_kwargs=(("continuing_task", False), ("maze_map", maze)),
        horizon=300,
        observation_keys=("observation", "desired_goal"),
        reward_shift=-1.0,  # the environment gives 0, and 1 at the goal
        dataset=DatasetSpec(
            id="D4RL/pointmaze/umaze-v2", format="minari", generate=generate_pointmaze_umaze, rows=1_000_000
        ),
        make=_make_robotics,
        **SPARSE,  # type: ignore[arg-type]
    )


def _ogbench_pointmaze(maze: str, kind: str, number: int | None) -> Task:
    suffix = "" if number is None else f"-task{number}"
    dataset = f"pointmaze-{maze}-{kind}-v0"
    row, column = OGBENCH_GOALS[maze][(number or 1) - 1]
    goal = (column * CELL_SIZE - CELL_SIZE, row * CELL_SIZE - CELL_SIZE)
    return Task(
        name=f"pointmaze-{maze}-{kind}-singletask{suffix}-v0",
        family="pointmaze",
        env_id=f"pointmaze-{maze}-singletask{suffix}-v0",
        horizon=1000,
        dataset=DatasetSpec(
            id=dataset,
            format="ogbench",
            urls=(f"{OGBENCH_URL}/{dataset}.npz", f"{OGBENCH_URL}/{dataset}-val.npz"),
            generate=functools.partial(generate_ogbench_pointmaze, maze, kind),
            relabel=functools.partial(_relabel_pointmaze, goal=goal, tolerance=1.0),
            rows=1_000_000,
        ),
        make=_make_ogbench,
        **SPARSE,  # type: ignore[arg-type]
    )


def _hopper_medium() -> Task:
    score_range = json.loads((POLICIES / "hopper_medium.json").read_text())["score_range"]
    return Task(
        name="local/hopper-medium-v0",
        family="locomotion",
        env_id="Hopper-v5",
        horizon=1000,
        score_range=(score_range["random"], score_range["expert"]),
        score_label="normalised return (0 random, 100 expert, both measured with this library)",
        dataset=DatasetSpec(
            id="local/hopper-medium-v0",
            format="minari",
            generate=functools.partial(generate_local, "local/hopper-medium-v0"),
            rows=100_000,
        ),
        make=_make_plain,
    )


def _builders(maze: str, kind: str) -> dict[str, Callable[[], Task]]:
    name = f"pointmaze-{maze}-{kind}-singletask"
    builders: dict[str, Callable[[], Task]] = {f"{name}-v0": functools.partial(_ogbench_pointmaze, maze, kind, None)}
    for number in range(1, 6):
        builders[f"{name}-task{number}-v0"] = functools.partial(_ogbench_pointmaze, maze, kind, number)
    return builders


TASKS: dict[str, Callable[[], Task]] = {
    "pointmaze-umaze-v2": _pointmaze_umaze,
    **_builders("medium", "navigate"),
    **_builders("medium", "stitch"),
    **_builders("large", "navigate"),
    **_builders("large", "stitch"),
    **_builders("giant", "navigate"),
    **_builders("giant", "stitch"),
    "local/hopper-medium-v0": _hopper_medium,
    "probe/bandit-v0": probe_tasks.bandit,
    "probe/chain-v0": probe_tasks.chain,
    "probe/reach-v0": probe_tasks.reach,
}


def task_names() -> tuple[str, ...]:
    """Every task's name, in the order of the table."""
    return tuple(TASKS)


def make_task(name: str) -> Task:
    """The task called `name`.

    Raises:
        ConfigError: there is none; the message proposes the nearest name.
    """
    if name not in TASKS:
        near = difflib.get_close_matches(name, TASKS, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ConfigError(
            f"no task {name!r}; {hint}expected one of {len(TASKS)} names; "
            'list them with: python -c "import envs; print(*envs.task_names())"'
        )
    return TASKS[name]()


def make_env(task: Task, seed: int) -> TaskEnv:
    """The task's environment, whose whole course follows from `seed` and the actions."""
    return TaskEnv(task, seed)
