"""Lookahead SAC, MOORL's control with slow weights and no single sources: its K and meta rate, mixed batches."""

from __future__ import annotations

from algorithms import MOORLConfig
from experiments.presets import Preset
from experiments.presets.moorl import moorl_preset, phases
from hybridrl.task import Task

__all__ = ["phases", "preset"]


def preset(task: Task, scale: str) -> Preset:
    """MOORL with mixed batches."""
    return moorl_preset(MOORLConfig(source_choice="mixed"), task, scale)
