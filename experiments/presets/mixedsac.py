"""Mixed SAC, MOORL's control without meta-learning: as many SAC updates, each on half offline, half online rows."""

from __future__ import annotations

from algorithms import MOORLConfig
from experiments.presets import Preset
from experiments.presets.moorl import moorl_preset, phases
from hybridrl.task import Task

__all__ = ["phases", "preset"]


def preset(task: Task, scale: str) -> Preset:
    """MOORL with a meta rate of 1 and mixed batches."""
    return moorl_preset(MOORLConfig(meta_rate=1.0, source_choice="mixed"), task, scale)
