"""HIQL: published settings per environment and kind of data."""

from __future__ import annotations

from typing import Any

from algorithms import HIQLAgent, HIQLConfig
from experiments.presets import Preset
from experiments.presets.goals import discount, goal_phases, goal_preset, random_goals, subgoal_steps
from hybridrl.task import Task
from hybridrl.training.phases import Phase


def preset(task: Task, scale: str) -> Preset:
    """OGBench's reference agent (Park et al. 2024)."""
    return goal_preset(task, published(task), scale)


def published(task: Task) -> HIQLConfig:
    """Discount, steps to a subgoal, inverse temperatures (3, on explore data 10) and share of random goals."""
    temperature = 10.0 if "-explore-" in task.name else 3.0
    return HIQLConfig(
        discount=discount(task),
        subgoal_steps=subgoal_steps(task),
        low_awr_temperature=temperature,
        high_awr_temperature=temperature,
        random_goals=random_goals(task),
    )


def phases(config: Any, task: Task) -> tuple[Phase, ...]:
    """Offline training."""
    return goal_phases(config, HIQLAgent)
