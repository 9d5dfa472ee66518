"""GCIQL: published settings per environment and kind of data."""

from __future__ import annotations

from typing import Any

from algorithms import GCIQLAgent, GCIQLConfig
from experiments.presets import Preset
from experiments.presets.goals import actor_goals, by_data, discount, goal_phases, goal_preset
from hybridrl.task import Task
from hybridrl.training.phases import Phase

_BC_WEIGHTS = {
    "pointmaze": 0.003,
    "antmaze": 0.3,
    "antmaze-explore": 0.01,
    "humanoidmaze": 0.1,
    "antsoccer": 0.1,
    "cube": 1.0,
    "cube-noisy": 0.03,
    "scene": 1.0,
    "scene-noisy": 0.03,
    "puzzle": 1.0,
    "puzzle-noisy": 0.03,
}


def preset(task: Task, scale: str) -> Preset:
    """OGBench's reference agent (Park et al. 2024): the weight of cloning is tuned per environment and kind of data."""
    agent = GCIQLConfig(discount=discount(task), bc_weight=by_data(task, _BC_WEIGHTS), actor_goals=actor_goals(task))
    return goal_preset(task, agent, scale)


def phases(config: Any, task: Task) -> tuple[Phase, ...]:
    """Offline training."""
    return goal_phases(config, GCIQLAgent)
