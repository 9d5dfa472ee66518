"""H2O: published settings, and its one phase on simulated steps and real data."""

from __future__ import annotations

from typing import Any

from algorithms import H2OAgent, H2OConfig
from experiments.presets import Preset
from experiments.presets.gaps import gap_phases, gap_preset
from hybridrl.task import Task
from hybridrl.training.phases import Learner, Phase


def preset(task: Task, scale: str) -> Preset:
    """Niu et al. 2022 as its published code runs HalfCheetah; other tasks get the same."""
    return gap_preset(H2OConfig(), task, scale)


def phases(config: Any, task: Task) -> tuple[Phase, ...]:
    """Half of each update's rows are real: 128 and 128 as published."""
    rows = config.schedule.online_batch_size // 2
    return gap_phases(Learner(H2OAgent, config.agent), config, task, rows)
