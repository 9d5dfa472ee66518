"""Tasks with this library's own MuJoCo datasets, made from the behaviour policies it ships."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable

from envs.local import POLICIES, generate_local
from envs.tasks.conventions import make_plain
from hybridrl.task import DatasetSpec, Task


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
        make=make_plain,
    )


TASKS: dict[str, Callable[[], Task]] = {"local/hopper-medium-v0": _hopper_medium}
