"""GCBC: published settings."""

from __future__ import annotations

from typing import Any

from algorithms import GCBCAgent, GCBCConfig
from experiments.presets import Preset
from experiments.presets.goals import discount, goal_phases, goal_preset
from hybridrl.task import Task
from hybridrl.training.phases import Phase


def preset(task: Task, scale: str) -> Preset:
    """OGBench's reference agent (Park et al. 2024): later states of the episode as goals on all data."""
    return goal_preset(task, GCBCConfig(discount=discount(task)), scale)


def phases(config: Any, task: Task) -> tuple[Phase, ...]:
    """Cloning."""
    return goal_phases(config, GCBCAgent)
