"""OGBench's tasks (Park et al. 2024)."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np

from envs.mazes import CELL_SIZE, generate_ogbench_pointmaze
from envs.tasks.conventions import SPARSE, make_ogbench
from hybridrl.task import DatasetSpec, Task

OGBENCH_URL = "https://rail.eecs.berkeley.edu/datasets/ogbench"
# Goal cells (row, column) of tasks 1 to 5 (Park et al. 2024); task 1 is the default.
OGBENCH_GOALS = {
    "medium": ((6, 6), (1, 6), (4, 2), (6, 1), (1, 1)),
    "large": ((7, 10), (7, 1), (1, 10), (5, 4), (5, 4)),
    "giant": ((10, 14), (10, 1), (1, 1), (5, 12), (3, 8)),
}


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
        make=make_ogbench,
        **SPARSE,
    )


def _builders(maze: str, kind: str) -> dict[str, Callable[[], Task]]:
    name = f"pointmaze-{maze}-{kind}-singletask"
    builders: dict[str, Callable[[], Task]] = {f"{name}-v0": functools.partial(_ogbench_pointmaze, maze, kind, None)}
    for number in range(1, 6):
        builders[f"{name}-task{number}-v0"] = functools.partial(_ogbench_pointmaze, maze, kind, number)
    return builders


TASKS: dict[str, Callable[[], Task]] = {
    **_builders("medium", "navigate"),
    **_builders("medium", "stitch"),
    **_builders("large", "navigate"),
    **_builders("large", "stitch"),
    **_builders("giant", "navigate"),
    **_builders("giant", "stitch"),
}
