"""TD3+BC: published settings; offline, and on request online with the same losses."""

from __future__ import annotations

from typing import Any

from algorithms import TD3BCAgent, TD3BCConfig
from experiments.presets import Preset
from experiments.presets import families as published
from experiments.presets.scale import PROBE_EVALUATIONS, PROBE_LOOP, shrink
from experiments.schedules import offline_phases, online_phases, rows_to_wait_for
from experiments.settings import LoopConfig, ScheduleConfig
from hybridrl.task import Task
from hybridrl.training.phases import Learner, Phase


def preset(task: Task, scale: str) -> Preset:
    """Fujimoto & Gu 2021, hyperparameters in the appendix: the same for all locomotion tasks, 1,000,000 updates of 256.

    On AntMaze the observations are not standardised, as the author says of the paper's runs (issue 2 of its code);
    OGBench's environments follow. `schedule.online_steps=...` goes on online; the paper has no such phase. Half of each
    batch is offline data then.
    """
    common: dict[str, Any] = {"warmup_steps": 0, "online_steps": 0, "retention": "mixed"}
    if published.family(task) == "probe":
        nets = (32,) * 2
        schedule = ScheduleConfig(
            offline_updates=600, offline_batch_size=64, online_batch_size=64, **common, **PROBE_EVALUATIONS
        )
        small = TD3BCConfig(
            actor_learning_rate=3e-3,
            critic_learning_rate=3e-3,
            target_update_rate=0.05,
            actor_hidden_dims=nets,
            critic_hidden_dims=nets,
        )
        return Preset(small, schedule, PROBE_LOOP)
    agent = TD3BCConfig(
        standardize_observations=published.family(task) != "antmaze", **published.target_update_rate(task)
    )
    found = Preset(agent, ScheduleConfig(online_batch_size=256, **common), LoopConfig())
    return shrink(found, task) if scale == "cpu" else found


def phases(config: Any, task: Task) -> tuple[Phase, ...]:
    """One agent throughout."""
    schedule, learner = config.schedule, Learner(TD3BCAgent, config.agent)
    online = online_phases(learner, learner, schedule, rows_to_wait_for(schedule))
    return (*offline_phases(learner, schedule), *online)
