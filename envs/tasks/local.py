"""Tasks with this library's own MuJoCo datasets, made from behaviour policies that it ships or that you train."""

from __future__ import annotations

import functools
from collections.abc import Callable

from envs.local import ENVIRONMENTS, HORIZON, KINDS, collect_command, datasheet, generate_local
from envs.tasks.conventions import make_plain
from envs.terminations import by_environment
from hybridrl.task import DatasetSpec, Task

ROWS = 100_000


def training_task(robot: str) -> Task:
    """The robot without data; its score is the raw return. Behaviour policies are trained on it."""
    return Task(
        name=f"local/{robot}",
        family="locomotion",
        env_id=ENVIRONMENTS[robot],
        horizon=HORIZON,
        score_range=(0.0, 100.0),
        score_label=f"raw return, as no score range has been measured; make it with: {collect_command(robot)}",
        make=make_plain,
    )


def _task(robot: str, kind: str) -> Task:
    name, sheet = f"local/{robot}-{kind}-v0", datasheet(robot)
    score_range, label, replay_rows = (0.0, 100.0), training_task(robot).score_label, 0
    if sheet is not None:
        score_range = (sheet["score_range"]["random"], sheet["score_range"]["expert"])
        label = "normalised return (0 random, 100 expert, both measured with this library)"
        replay_rows = sheet["policies"]["medium"]["env_steps"]
    if kind == "medium-replay":
        command = collect_command(robot)
        dataset = DatasetSpec(
            id=name,
            format="minari",
            rows=replay_rows,
            how_to_get=f"it is the replay buffer of a training run, too large to ship; make it with: {command}",
        )
    else:
        dataset = DatasetSpec(
            id=name, format="minari", generate=functools.partial(generate_local, robot, kind), rows=ROWS
        )
    return Task(
        name=name,
        family="locomotion",
        env_id=ENVIRONMENTS[robot],
        horizon=HORIZON,
        score_range=score_range,
        score_label=label,
        dataset=dataset,
        make=make_plain,
        terminates=by_environment(ENVIRONMENTS[robot]),
    )


TASKS: dict[str, Callable[[], Task]] = {
    f"local/{robot}-{kind}-v0": functools.partial(_task, robot, kind)
    for robot in ENVIRONMENTS
    for kind in (*KINDS, "medium-replay")
}
