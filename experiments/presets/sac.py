"""SAC from scratch, WSRL's baseline "SAC (fast)": its online agent with nothing before it and no offline data."""

from __future__ import annotations

from typing import Any

from algorithms import SACAgent, SACConfig
from experiments.presets import Preset
from experiments.presets import families as published
from experiments.presets.scale import PROBE_EVALUATIONS, PROBE_LOOP, shrink
from experiments.schedules import online_phases, online_rows
from experiments.settings import LoopConfig, ScheduleConfig
from hybridrl.errors import ConfigError
from hybridrl.task import Task
from hybridrl.training.phases import Learner, Phase


def preset(task: Task, scale: str) -> Preset:
    """Zhou et al. 2025, appendix: WSRL's online settings, no pre-training, no warm-up."""
    agent = SACConfig(num_backup_actions=published.online_backup_actions(task), **published.networks(task))
    if task.family == "probe":
        schedule = ScheduleConfig(
            offline_updates=0, warmup_steps=0, online_steps=800, online_batch_size=256, **PROBE_EVALUATIONS
        )
        return Preset(agent, schedule, PROBE_LOOP)
    found = Preset(agent, ScheduleConfig(offline_updates=0, warmup_steps=0), LoopConfig())
    return shrink(found, task) if scale == "cpu" else found


def phases(config: Any, task: Task) -> tuple[Phase, ...]:
    """One online phase; updates wait for one batch, by the same rule as WSRL's."""
    schedule, learner = config.schedule, Learner(SACAgent, config.agent)
    if schedule.offline_updates:
        raise ConfigError(
            f"schedule.offline_updates={schedule.offline_updates}; algo=sac trains online only: expected 0"
        )
    wait = max(schedule.warmup_steps, online_rows(schedule)) + 2
    return online_phases(learner, learner, schedule, wait)
