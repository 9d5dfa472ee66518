"""OGBench's tasks (Park et al. 2024): every state-based environment and dataset, and the pixel versions.

A dataset `<environment>-<kind>` has eight tasks: `-v0` is goal-conditioned, `-oraclerep-v0` the same with goals reduced
to what the task is about, `-singletask-v0` and `-singletask-task1-v0` to `-task5-v0` reward one fixed goal. Powderworld
is left out: its actions are discrete.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

from envs.manipulation import (
    MANIPULATION_EPISODES,
    MANIPULATION_KINDS,
    MANIPULATION_STEPS,
    generate_manipulation,
)
from envs.mazes import CELL_SIZE, OGBENCH_GOAL_RADIUS, OGBENCH_SIZES, generate_ogbench_pointmaze
from envs.relabel import arrange, configuration, positions, reach
from envs.tasks.conventions import SPARSE, make_ogbench
from envs.tasks.ogbench_goals import CUBE_GOALS, MAZE_GOALS, PUZZLE_GOALS, SCENE_GOALS, SOCCER_GOALS
from hybridrl.task import DatasetSpec, Task

OGBENCH_URL = "https://rail.eecs.berkeley.edu/datasets/ogbench"
NUM_GOALS = 5
_BODY, _BALL = (0, 1), (15, 16)  # x and y in qpos
_NAVIGATE, _STITCH, _EXPLORE = "navigate", "stitch", "explore"


@dataclasses.dataclass(frozen=True)
class _Environment:
    """One environment of the benchmark.

    Attributes:
        name: without version, such as "antmaze-large".
        horizon: its time limit.
        rows: transitions of each kind of training set made in it.
        default_task: the single task that a name without number means.
        pixels: whether the benchmark has a pixel version of it, with the same kinds of data.
        generator: makes the state-based data of a kind, given the kind; None where a learned expert acts in them.
    """

    name: str
    horizon: int
    rows: dict[str, int]
    default_task: int
    pixels: bool
    generator: Callable[..., None] | None = None

    @property
    def family(self) -> str:
        return self.name.partition("-")[0]

    @property
    def variant(self) -> str:
        return self.name.partition("-")[2]


def _mazes() -> list[_Environment]:
    million = 1_000_000
    two_kinds, explored = {_NAVIGATE: million, _STITCH: million}, {_EXPLORE: 5 * million}
    mazes = [
        _Environment(
            f"pointmaze-{maze}",
            1000,
            {kind: episodes * length for (other, kind), (episodes, length) in OGBENCH_SIZES.items() if other == maze},
            1,
            pixels=False,
            generator=functools.partial(generate_ogbench_pointmaze, maze),
        )
        for maze in ("medium", "large", "giant", "teleport")
    ]
    for maze in ("medium", "large", "giant", "teleport"):
        rows = two_kinds if maze == "giant" else two_kinds | explored
        mazes.append(_Environment(f"antmaze-{maze}", 1000, rows, 1, pixels=True))
    for maze, horizon, millions in (("medium", 2000, 2), ("large", 2000, 2), ("giant", 4000, 4)):
        rows = {_NAVIGATE: millions * million, _STITCH: millions * million}
        mazes.append(_Environment(f"humanoidmaze-{maze}", horizon, rows, 1, pixels=True))
    for maze, millions in (("arena", 1), ("medium", 4)):
        rows = {_NAVIGATE: millions * million, _STITCH: millions * million}
        mazes.append(_Environment(f"antsoccer-{maze}", 1000, rows, 4, pixels=False))
    return mazes


def _manipulation() -> list[_Environment]:
    horizons = {
        "cube-single": 200,
        "cube-double": 500,
        "cube-triple": 1000,
        "cube-quadruple": 1000,
        "scene": 750,
        "puzzle-3x3": 500,
        "puzzle-4x4": 500,
        "puzzle-4x5": 1000,
        "puzzle-4x6": 1000,
    }
    return [
        _Environment(
            name,
            horizon,
            dict.fromkeys(MANIPULATION_KINDS, MANIPULATION_EPISODES[name] * MANIPULATION_STEPS),
            4 if name in ("puzzle-3x3", "puzzle-4x4") else 2,
            pixels=True,
            generator=functools.partial(generate_manipulation, name),
        )
        for name, horizon in horizons.items()
    ]


def _rewards(environment: _Environment, number: int) -> Callable[..., Any]:
    """The rule that relabels a dataset's rows for the single task `number`."""
    family, variant, index = environment.family, environment.variant, number - 1
    if family == "cube":
        return functools.partial(arrange, cubes=CUBE_GOALS[variant][index])
    if family == "scene":
        cube, buttons, drawer, window = SCENE_GOALS[index]
        return functools.partial(arrange, cubes=(cube,), buttons=buttons, drawer=drawer, window=window)
    if family == "puzzle":
        return functools.partial(arrange, buttons=tuple(int(state) for state in PUZZLE_GOALS[variant][index]))
    row, column = (SOCCER_GOALS if family == "antsoccer" else MAZE_GOALS)[variant][index]
    return functools.partial(
        reach,
        columns=_BALL if family == "antsoccer" else _BODY,
        goal=((column - 1) * CELL_SIZE, (row - 1) * CELL_SIZE),
        tolerance=OGBENCH_GOAL_RADIUS if family == "pointmaze" else 0.5,
    )


def _representation(environment: _Environment) -> Callable[..., Any]:
    """The rule that turns a dataset's rows into goals of the `-oraclerep` variant."""
    family, variant = environment.family, environment.variant
    if family == "cube":
        return functools.partial(configuration, num_cubes=len(CUBE_GOALS[variant][0]), num_buttons=0, slides=False)
    if family == "scene":
        return functools.partial(configuration, num_cubes=1, num_buttons=2, slides=True)
    if family == "puzzle":
        return functools.partial(configuration, num_cubes=0, num_buttons=len(PUZZLE_GOALS[variant][0]), slides=False)
    return functools.partial(positions, columns=_BALL if family == "antsoccer" else _BODY)


def _task(environment: _Environment, kind: str, form: str, *, pixels: bool) -> Task:
    """One task; `form` is "", "-oraclerep", "-singletask" or "-singletask-task<number>"."""
    prefix = "visual-" if pixels else ""
    dataset = f"{prefix}{environment.name}-{kind}-v0"
    single = form.startswith("-singletask")
    spec = DatasetSpec(
        id=dataset,
        format="ogbench",
        urls=(f"{OGBENCH_URL}/{dataset}.npz", f"{OGBENCH_URL}/{dataset}-val.npz"),
        generate=functools.partial(environment.generator, kind) if environment.generator and not pixels else None,
        resumable=True,
        rows=environment.rows[kind],
    )
    # The benchmark's own constructor also takes the kind of data out of the environment's name.
    task = Task(
        name=f"{prefix}{environment.name}-{kind}{form}-v0",
        family=environment.family,
        env_id=f"{prefix}{environment.name}{form if single else ''}-v0",
        horizon=environment.horizon,
        dataset=spec,
        pixels=pixels,
        make=make_ogbench,
        success_key="success",
        terminate_on_success=True,
    )
    if single:
        number = int(form.removeprefix("-singletask-task") if form != "-singletask" else environment.default_task)
        spec = dataclasses.replace(spec, relabel=_rewards(environment, number))
        several_objects = environment.family in ("scene", "puzzle") or (
            environment.family == "cube" and environment.variant != "single"
        )
        return dataclasses.replace(task, dataset=spec, **({} if several_objects else SPARSE))
    if form == "-oraclerep":
        spec = dataclasses.replace(spec, represent=_representation(environment))
        task = dataclasses.replace(task, env_kwargs=(("use_oracle_rep", True),))
    return dataclasses.replace(task, dataset=spec, num_goals=NUM_GOALS)


def _builders() -> dict[str, Callable[[], Task]]:
    forms = ("", "-oraclerep", "-singletask", *(f"-singletask-task{number}" for number in range(1, NUM_GOALS + 1)))
    builders: dict[str, Callable[[], Task]] = {}
    for pixels in (False, True):
        for environment in (*_mazes(), *_manipulation()):
            if pixels and not environment.pixels:
                continue
            for kind in environment.rows:
                for form in forms:
                    name = f"{'visual-' if pixels else ''}{environment.name}-{kind}{form}-v0"
                    builders[name] = functools.partial(_task, environment, kind, form, pixels=pixels)
    return builders


TASKS: dict[str, Callable[[], Task]] = _builders()
