"""CQL: published settings per task family; offline, then online with the same agent."""

from __future__ import annotations

from typing import Any

from algorithms import CQLAgent, CQLConfig
from experiments.presets import Preset
from experiments.presets import families as published
from experiments.presets.calql import baseline_sac, baseline_schedule
from experiments.presets.scale import PROBE_LOOP, shrink
from experiments.schedules import offline_phases, online_phases, online_rows
from experiments.settings import LoopConfig
from hybridrl.task import Task
from hybridrl.training.phases import Learner, Phase


def preset(task: Task, scale: str) -> Preset:
    """Settings of the CQL baseline in Zhou et al. 2025, appendix; the penalty is that of Kumar et al. 2020, eq. 4."""
    agent = CQLConfig(baseline_sac(task), published.penalty(task))
    loop = PROBE_LOOP if task.family == "probe" else LoopConfig()
    found = Preset(agent, baseline_schedule(task, "step"), loop)
    return shrink(found, task) if scale == "cpu" else found


def phases(config: Any, task: Task) -> tuple[Phase, ...]:
    """One agent throughout; updates wait for one batch, by the same rule as WSRL's."""
    schedule, learner = config.schedule, Learner(CQLAgent, config.agent)
    wait = max(schedule.warmup_steps, online_rows(schedule)) + 2
    return (*offline_phases(learner, schedule), *online_phases(learner, learner, schedule, wait))
