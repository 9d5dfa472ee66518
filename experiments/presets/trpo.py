"""TRPO: HNPG's settings, and no offline data."""

from __future__ import annotations

from typing import Any

from algorithms import HNPGConfig
from experiments.presets import Preset, hnpg
from hybridrl.task import Task
from hybridrl.training.phases import Phase


def preset(task: Task, scale: str) -> Preset:
    """HNPG's published code with its offline part switched off, as the paper has its baseline (section 6)."""
    return hnpg.settings_for(task, scale, HNPGConfig(offline_critic=False, offline_actor=False))


def phases(config: Any, task: Task) -> tuple[Phase, ...]:
    """HNPG's: rollouts, without offline rows."""
    return hnpg.phases(config, task)
