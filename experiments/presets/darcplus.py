"""DARC+: DARC whose critic also learns from the real data; the rest is DARC's."""

from __future__ import annotations

from algorithms import DARCConfig
from experiments.presets import Preset
from experiments.presets.darc import phases
from experiments.presets.gaps import gap_preset
from hybridrl.task import Task

__all__ = ["phases", "preset"]


def preset(task: Task, scale: str) -> Preset:
    """The baseline of Niu et al. 2022: beside 256 simulated rows, the critic sees 256 real ones."""
    return gap_preset(DARCConfig(critic_on_real=True), task, scale)
