"""BC: published settings; offline only."""

from __future__ import annotations

from typing import Any

from algorithms import BCAgent, BCConfig
from experiments.presets import Preset
from experiments.presets import families as published
from experiments.presets.scale import PROBE_EVALUATIONS, PROBE_LOOP, shrink
from experiments.schedules import offline_phases
from experiments.settings import LoopConfig, ScheduleConfig
from hybridrl.errors import ConfigError
from hybridrl.task import Task
from hybridrl.training.phases import Learner, Phase


def preset(task: Task, scale: str) -> Preset:
    """CORL's behaviour cloning (Tarasov et al. 2022, appendix): 1,000,000 updates of 256 rows, squared error."""
    if published.family(task) == "probe":
        schedule = ScheduleConfig(
            offline_updates=600, offline_batch_size=64, warmup_steps=0, online_steps=0, **PROBE_EVALUATIONS
        )
        return Preset(BCConfig(actor_hidden_dims=(32,) * 2), schedule, PROBE_LOOP)
    found = Preset(BCConfig(), ScheduleConfig(warmup_steps=0, online_steps=0), LoopConfig())
    return shrink(found, task) if scale == "cpu" else found


def phases(config: Any, task: Task) -> tuple[Phase, ...]:
    """Cloning. There is nothing that experience of its own could teach this agent."""
    schedule, learner = config.schedule, Learner(BCAgent, config.agent)
    if schedule.online_steps:
        raise ConfigError(
            f"schedule.online_steps={schedule.online_steps}; BC only clones a dataset: expected 0; "
            "to go on online from its policy, give offline=bc online=sac"
        )
    return offline_phases(learner, schedule)
