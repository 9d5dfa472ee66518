"""D4RL's tasks (Fu et al. 2020), with the reward and episode conventions that WSRL trains with (Zhou et al. 2025)."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from envs.d4rl_envs import SUCCESS_RADIUS, Adroit, Ant, AntMaze, Kitchen, PointMaze, mean_ant_goal
from envs.tasks.conventions import make_plain
from envs.terminations import Within, by_environment
from hybridrl.task import DatasetSpec, Task

TABLE = Path(__file__).parent / "d4rl_scores.json"
# name -> (environment, widths of observations and actions)
LOCOMOTION = {
    "hopper": ("Hopper-v5", (11, 3)),
    "halfcheetah": ("HalfCheetah-v5", (17, 6)),
    "walker2d": ("Walker2d-v5", (17, 6)),
    "ant": ("Ant-v5", (111, 8)),
}
HANDS = {"pen": (45, 24), "hammer": (46, 26), "door": (39, 28), "relocate": (39, 30)}
BINARY_HORIZONS = {"pen": 100, "door": 200, "relocate": 200}
SUBTASKS = {
    "complete": ("microwave", "kettle", "light switch", "slide cabinet"),
    "partial": ("microwave", "kettle", "light switch", "slide cabinet"),
    "mixed": ("microwave", "kettle", "bottom burner", "light switch"),
}
_BINARY_FILES = (
    "it is published as pickled Python objects, which could run code and are never loaded; convert them to one .hdf5 "
    "file with observations, actions, rewards (-1 and 0), next_observations, terminals and timeouts (1 in the last row "
    "of each trajectory), as docs/datasets.md shows under 'Binary Adroit sets'"
)


@functools.lru_cache(maxsize=1)
def _table() -> tuple[str, dict[str, dict[str, Any]]]:
    content = json.loads(TABLE.read_text())
    return content["base_url"], {row["name"]: row for row in content["datasets"]}


def _task(name: str, *, env: str, widths: tuple[int, int], relabel: Any = None, **fields: Any) -> Task:
    """A task whose dataset, horizon and score range stand in D4RL's table."""
    base, rows = _table()
    row = rows[name]
    defaults: dict[str, Any] = {"score_label": f"D4RL-style normalised return ({env})"}
    return Task(
        name=name,
        env_id=env,
        horizon=row["horizon"],
        score_range=(row["low"], row["high"]),
        dataset=DatasetSpec(id=name, format="d4rl", urls=(base + row["file"],), relabel=relabel, widths=widths),
        **defaults | fields,
    )


def _locomotion(name: str) -> Task:
    body = name.partition("-")[0]
    env, widths = LOCOMOTION[body]
    make = _make_ant if body == "ant" else make_plain
    return _task(name, family="locomotion", env=env, widths=widths, make=make, terminates=by_environment(env))


def _antmaze(name: str) -> Task:
    """Rewards 10 r - 5; the environment itself ends an episode at the goal, and so do the data's terminals."""
    _, *words, version = name.split("-")
    maze = "-".join(word for word in words if word not in ("play", "diverse"))
    return _task(
        name,
        family="antmaze",
        env="AntMaze_UMaze-v5",
        env_kwargs=(("maze", maze), ("new_goals", version == "v2")),
        widths=(29, 8),
        relabel=functools.partial(_solved, reward=1.0),
        reward_scale=10.0,
        reward_shift=-5.0,
        success_key="success",
        failure_reward=-5.0,
        make=_make_antmaze,
        terminates=Within(mean_ant_goal(maze), SUCCESS_RADIUS),
    )


def _kitchen(name: str) -> Task:
    """Rewards r - 4, r being the number of subtasks solved; all four end the episode."""
    return _task(
        name,
        family="kitchen",
        env="FrankaKitchen-v1",
        env_kwargs=(("subtasks", SUBTASKS[name.split("-")[1]]),),
        widths=(60, 9),
        relabel=functools.partial(_solved, reward=4.0),
        reward_shift=-4.0,
        return_key="solved",
        success_key="success",
        terminate_on_success=True,
        score_label="D4RL-style share of subtasks solved (%, FrankaKitchen-v1)",
        make=_make_kitchen,
    )


def _adroit(name: str) -> Task:
    hand = name.partition("-")[0]
    return _task(
        name,
        family="adroit",
        env=f"AdroitHand{hand.title()}-v1",
        env_kwargs=(("hand", hand), ("reward_type", "dense")),
        widths=HANDS[hand],
        success_key="success",
        make=_make_adroit,
        terminates=by_environment(f"AdroitHand{hand.title()}-v1"),
    )


def _adroit_binary(hand: str) -> Task:
    """Rewards 10 r + 5 of r = -1 and 0; the first success ends the episode."""
    name = f"{hand}-binary-v0"
    return Task(
        name=name,
        family="adroit",
        env_id=f"AdroitHand{hand.title()}-v1",
        horizon=BINARY_HORIZONS[hand],
        env_kwargs=(("hand", hand), ("reward_type", "sparse")),
        dataset=DatasetSpec(
            id=name,
            format="d4rl",
            relabel=functools.partial(_solved, reward=0.0),
            widths=HANDS[hand],
            prepare=_keep_successes,
            how_to_get=_BINARY_FILES,
        ),
        reward_scale=10.0,
        reward_shift=5.0,
        success_key="success",
        terminate_on_success=True,
        failure_reward=-5.0,
        make=_make_adroit,
    )


def _maze2d(name: str) -> Task:
    """Rewards as they are; reaching the goal does not end the episode."""
    words = name.split("-")[1:-1]
    dense = "dense" in words
    maze = "-".join(word for word in words if word != "dense")
    return _task(
        name,
        family="pointmaze",
        env="PointMaze_UMaze-v3",
        env_kwargs=(("maze", maze), ("reward_type", "dense" if dense else "sparse")),
        widths=(4, 2),
        relabel=None if dense else functools.partial(_solved, reward=1.0),
        success_key="success",
        make=_make_maze2d,
    )


def _solved(arrays: dict[str, np.ndarray], *, reward: float) -> tuple[np.ndarray, np.ndarray]:
    """Rewards as recorded; a row succeeds if it has this one."""
    return arrays["rewards"], arrays["rewards"] == np.float32(reward)


def _keep_successes(steps: Any) -> Any:
    from hybridrl.datasets.d4rl import keep_successes

    return keep_successes(steps)


def _make_ant(task: Task) -> Any:
    return Ant()


def _make_antmaze(task: Task) -> Any:
    return AntMaze(**dict(task.env_kwargs))


def _make_kitchen(task: Task) -> Any:
    return Kitchen(**dict(task.env_kwargs))


def _make_adroit(task: Task) -> Any:
    return Adroit(**dict(task.env_kwargs))


def _make_maze2d(task: Task) -> Any:
    return PointMaze(**dict(task.env_kwargs))


_BUILDERS: dict[str, Callable[[str], Task]] = {
    **dict.fromkeys(LOCOMOTION, _locomotion),
    **dict.fromkeys(HANDS, _adroit),
    "antmaze": _antmaze,
    "kitchen": _kitchen,
    "maze2d": _maze2d,
}
TASKS: dict[str, Callable[[], Task]] = {
    **{name: functools.partial(_BUILDERS[name.partition("-")[0]], name) for name in _table()[1]},
    **{f"{hand}-binary-v0": functools.partial(_adroit_binary, hand) for hand in BINARY_HORIZONS},
}
