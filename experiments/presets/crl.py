"""CRL: published settings per environment and kind of data."""

from __future__ import annotations

from typing import Any

from algorithms import CRLAgent, CRLConfig
from experiments.presets import Preset
from experiments.presets.goals import actor_goals, by_data, discount, goal_phases, goal_preset
from hybridrl.task import Task
from hybridrl.training.phases import Phase

_BC_WEIGHTS = {
    "pointmaze": 0.03,
    "antmaze": 0.1,
    "antmaze-explore": 0.003,
    "humanoidmaze": 0.1,
    "antsoccer": 0.3,
    "cube": 3.0,
    "cube-noisy": 0.1,
    "scene": 3.0,
    "scene-noisy": 0.1,
    "puzzle": 3.0,
    "puzzle-noisy": 0.1,
}


def preset(task: Task, scale: str) -> Preset:
    """OGBench's reference agent (Park et al. 2024): the weight of cloning is tuned per environment and kind of data."""
    agent = CRLConfig(discount=discount(task), bc_weight=by_data(task, _BC_WEIGHTS), actor_goals=actor_goals(task))
    return goal_preset(task, agent, scale)


def phases(config: Any, task: Task) -> tuple[Phase, ...]:
    """Offline training."""
    return goal_phases(config, CRLAgent)
