"""What the algorithms' published settings share on each family of tasks.

All numbers are those of WSRL's experiments (Zhou et al. 2025, table of hyperparameters in the appendix, and the launch
scripts of the published code, which the appendix summarises). The point mazes and OGBench's other environments are not
in that paper. They take AntMaze's settings but for what `POINT_MAZE` says.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from algorithms import PenaltyConfig
from experiments.settings import GOAL_ALGORITHMS
from hybridrl.errors import ConfigError
from hybridrl.task import Task

T = TypeVar("T")
UNPUBLISHED = ("pointmaze", "humanoidmaze", "antsoccer", "cube", "scene", "puzzle")
FAMILIES = ("antmaze", *UNPUBLISHED, "kitchen", "adroit", "locomotion", "lock", "probe")

_NETWORKS: dict[str, dict[str, Any]] = {
    "antmaze": {
        "critic_hidden_dims": (256,) * 4,
        "actor_hidden_dims": (256,) * 2,
        "std_kind": "free",
        "last_hidden_gain": 0.01,
    },
    "kitchen": {"critic_hidden_dims": (512,) * 3, "actor_hidden_dims": (512,) * 3},
    "adroit": {"critic_hidden_dims": (512,) * 3, "actor_hidden_dims": (512,) * 2, "last_hidden_gain": 0.01},
    "locomotion": {"critic_hidden_dims": (256,) * 2, "actor_hidden_dims": (256,) * 2, "last_hidden_gain": 0.01},
    "lock": {"critic_hidden_dims": (256,) * 2, "actor_hidden_dims": (256,) * 2},  # in none of these papers
    "probe": {"critic_hidden_dims": (32,) * 2, "actor_hidden_dims": (32,) * 2, "num_critics": 4},
}
# Ours, for rewards of -1 and 0 instead of AntMaze's -5 and +5: values are five times smaller, so the temperature starts
# lower; the actor has the critic's rate (3e-4 is OGBench's rate for every network). Targets follow four times faster,
# so that values cross the maze within thousands of updates rather than hundreds of thousands. The temperature must
# settle within that time too: a slower one still rises when the offline phase ends, stays high while online values
# flatten, and the policy then turns random for a thousand steps.
POINT_MAZE: dict[str, Any] = {
    "actor_learning_rate": 3e-4,
    "temperature_learning_rate": 3e-3,
    "initial_temperature": 0.02,
    "target_update_rate": 0.02,
}
_NETWORKS |= dict.fromkeys(UNPUBLISHED, _NETWORKS["antmaze"] | POINT_MAZE)
_PENALTY: dict[str, dict[str, Any]] = {
    "antmaze": {"multiplier": "lagrange", "target_gap": 0.8},
    "kitchen": {"multiplier": "fixed", "weight": 5.0, "importance_sampled": False},
    "adroit": {"multiplier": "fixed", "weight": 1.0},
    "locomotion": {"multiplier": "fixed", "weight": 5.0},
    "lock": {"multiplier": "fixed", "weight": 5.0},
    "probe": {"multiplier": "lagrange", "target_gap": 0.8},
}
_OFFLINE_UPDATES = {
    "antmaze": 1_000_000,
    "kitchen": 250_000,
    "adroit": 20_000,
    "locomotion": 250_000,
    "lock": 250_000,
    "probe": 600,
}


def family(task: Task) -> str:
    """The family whose published settings apply.

    Raises:
        ConfigError: the task has goals or images, which these algorithms cannot see.
    """
    if task.num_goals:
        single = task.name.replace("-oraclerep", "").replace("-v0", "-singletask-v0")
        raise ConfigError(
            f"task {task.name!r} is goal-conditioned and has no rewards; this algorithm learns from rewards; "
            f"choose one goal of it, such as {single!r}, or one of algo={', '.join(GOAL_ALGORITHMS)}"
        )
    if task.pixels:
        raise ConfigError(
            f"task {task.name!r} shows images; this algorithm's networks take vectors; choose the state-based task"
        )
    return "antmaze" if task.family in UNPUBLISHED else task.family


def networks(task: Task) -> dict[str, Any]:
    """Arguments of `SACConfig`: the networks, and on the point mazes and the like their rates."""
    return _NETWORKS[task.family]


def penalty(task: Task) -> PenaltyConfig:
    """The conservative penalty."""
    return PenaltyConfig(**_PENALTY[family(task)])


def offline_updates(task: Task) -> int:
    """Updates before the switch."""
    return _OFFLINE_UPDATES[family(task)]


def online_backup_actions(task: Task) -> int:
    """Next actions of the max-target backup online: on AntMaze it stays on, elsewhere it belongs to CQL alone."""
    return 10 if family(task) == "antmaze" else 1


def target_update_rate(task: Task) -> dict[str, Any]:
    """On the point mazes the faster targets that all algorithms have there; elsewhere nothing, the agent's default."""
    return {"target_update_rate": POINT_MAZE["target_update_rate"]} if task.family == "pointmaze" else {}


def longest_prefix(name: str, table: Mapping[str, T], default: T) -> T:
    """The entry of `table` whose key is the longest that `name` begins with, for settings published per task."""
    keys = [key for key in table if name.startswith(key)]
    return table[max(keys, key=len)] if keys else default
