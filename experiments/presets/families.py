"""What the algorithms' published settings share on each family of tasks.

All numbers are those of WSRL's experiments (Zhou et al. 2025, table of hyperparameters in the appendix, and the launch
scripts of the published code, which the appendix summarises). The point mazes use AntMaze's: the same sparse rewards.
"""

from __future__ import annotations

from typing import Any

from algorithms import PenaltyConfig
from hybridrl.task import Task

FAMILIES = ("antmaze", "pointmaze", "kitchen", "adroit", "locomotion", "probe")

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
    "probe": {"critic_hidden_dims": (32,) * 2, "actor_hidden_dims": (32,) * 2, "num_critics": 4},
}
_PENALTY: dict[str, dict[str, Any]] = {
    "antmaze": {"multiplier": "lagrange", "target_gap": 0.8},
    "kitchen": {"multiplier": "fixed", "weight": 5.0, "importance_sampled": False},
    "adroit": {"multiplier": "fixed", "weight": 1.0},
    "locomotion": {"multiplier": "fixed", "weight": 5.0},
    "probe": {"multiplier": "lagrange", "target_gap": 0.8},
}
_OFFLINE_UPDATES = {"antmaze": 1_000_000, "kitchen": 250_000, "adroit": 20_000, "locomotion": 250_000, "probe": 600}


def family(task: Task) -> str:
    """The family whose published settings apply."""
    return "antmaze" if task.family == "pointmaze" else task.family


def networks(task: Task) -> dict[str, Any]:
    """Arguments of `SACConfig` that shape the networks."""
    return _NETWORKS[family(task)]


def penalty(task: Task) -> PenaltyConfig:
    """The conservative penalty."""
    return PenaltyConfig(**_PENALTY[family(task)])


def offline_updates(task: Task) -> int:
    """Updates before the switch."""
    return _OFFLINE_UPDATES[family(task)]


def online_backup_actions(task: Task) -> int:
    """Next actions of the max-target backup online: on AntMaze it stays on, elsewhere it belongs to CQL alone."""
    return 10 if family(task) == "antmaze" else 1
