"""GCIVL: published settings per environment and kind of data."""

from __future__ import annotations

from typing import Any

from algorithms import GCIVLAgent, GCIVLConfig
from experiments.presets import Preset
from experiments.presets.goals import actor_goals, discount, goal_phases, goal_preset
from hybridrl.task import Task
from hybridrl.training.phases import Phase


def preset(task: Task, scale: str) -> Preset:
    """OGBench's reference agent (Park et al. 2024): an inverse temperature of 10 on all state-based data."""
    agent = GCIVLConfig(discount=discount(task), actor_goals=actor_goals(task))
    return goal_preset(task, agent, scale)


def phases(config: Any, task: Task) -> tuple[Phase, ...]:
    """Offline training."""
    return goal_phases(config, GCIVLAgent)
