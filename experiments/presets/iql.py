"""IQL: published settings per task family; offline, then online with the same losses on old and new data."""

from __future__ import annotations

from typing import Any

from algorithms import IQLAgent, IQLConfig
from experiments.presets import Preset
from experiments.presets import families as published
from experiments.presets.scale import PROBE_EVALUATIONS, PROBE_LOOP, shrink
from experiments.schedules import offline_phases, online_phases, rows_to_wait_for
from experiments.settings import LoopConfig, ScheduleConfig
from hybridrl.task import Task
from hybridrl.training.phases import Learner, Phase

_AGENT: dict[str, dict[str, Any]] = {
    "antmaze": {"expectile": 0.9, "awr_temperature": 10.0},
    "kitchen": {"expectile": 0.7, "awr_temperature": 0.5, "actor_dropout": 0.1},
    "adroit": {"expectile": 0.7, "awr_temperature": 0.5, "actor_dropout": 0.1},
    "locomotion": {"expectile": 0.7, "awr_temperature": 3.0},
    "lock": {"expectile": 0.7, "awr_temperature": 3.0},  # not in the paper: locomotion's
    "probe": {
        "expectile": 0.9,
        "learning_rate": 3e-3,
        "target_update_rate": 0.05,
        "actor_hidden_dims": (32,) * 2,
        "critic_hidden_dims": (32,) * 2,
        "value_hidden_dims": (32,) * 2,
    },
}


def preset(task: Task, scale: str) -> Preset:
    """Kostrikov et al. 2021, appendix B: expectile, inverse temperature and dropout per family of tasks.

    Budgets and networks are those of the IQL baseline in Zhou et al. 2025. Online, the dataset goes into the replay
    buffer and stays there (Kostrikov et al. 2021, section 5.3), with one update per step.
    """
    agent = IQLConfig(**_AGENT[published.family(task)], **published.target_update_rate(task))
    if task.family == "probe":
        schedule = ScheduleConfig(
            offline_updates=600,
            offline_batch_size=64,
            warmup_steps=0,
            online_steps=800,
            online_batch_size=64,
            retention="append",
            **PROBE_EVALUATIONS,
        )
        return Preset(agent, schedule, PROBE_LOOP)
    schedule = ScheduleConfig(
        offline_updates=published.offline_updates(task), warmup_steps=0, online_batch_size=256, retention="append"
    )
    found = Preset(agent, schedule, LoopConfig())
    return shrink(found, task) if scale == "cpu" else found


def phases(config: Any, task: Task) -> tuple[Phase, ...]:
    """One agent throughout."""
    schedule, learner = config.schedule, Learner(IQLAgent, config.agent)
    online = online_phases(learner, learner, schedule, rows_to_wait_for(schedule))
    return (*offline_phases(learner, schedule), *online)
