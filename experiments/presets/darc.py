"""DARC: the settings H2O's authors run it with, and its one phase."""

from __future__ import annotations

from typing import Any

from algorithms import DARCAgent, DARCConfig
from experiments.presets import Preset
from experiments.presets.gaps import gap_phases, gap_preset
from hybridrl.task import Task
from hybridrl.training.phases import Learner, Phase


def preset(task: Task, scale: str) -> Preset:
    """The baseline of Niu et al. 2022: H2O's networks, discriminators and protocol, 256 simulated rows per update."""
    return gap_preset(DARCConfig(), task, scale)


def phases(config: Any, task: Task) -> tuple[Phase, ...]:
    """All of an update's rows are simulated; as many real ones serve the critic of DARC+."""
    rows = config.schedule.online_batch_size
    return gap_phases(Learner(DARCAgent, config.agent), config, task, rows)
