"""Cal-QL: published settings per task family; offline, then online with the same agent."""

from __future__ import annotations

from typing import Any

from algorithms import CalQLAgent, CalQLConfig, SACConfig
from experiments.presets import Preset
from experiments.presets import families as published
from experiments.presets.scale import PROBE_EVALUATIONS, PROBE_LOOP, shrink
from experiments.schedules import offline_phases, online_phases, online_rows
from experiments.settings import LoopConfig, ScheduleConfig
from hybridrl.errors import ConfigError
from hybridrl.task import Task
from hybridrl.training.phases import Learner, Phase


def baseline_sac(task: Task) -> SACConfig:
    """The plain baseline of WSRL's launch scripts: 2 critics, both in every target, no layer norm, 1 update a step."""
    settings = published.networks(task) | {"num_critics": 2}
    return SACConfig(
        critic_updates=1,
        num_backup_actions=10,
        subset_with_replacement=False,
        actor_layer_norm=False,
        critic_layer_norm=False,
        **settings,
    )


def baseline_schedule(task: Task, insert: str) -> ScheduleConfig:
    """Half of each online batch is offline data (Nakamoto et al. 2023, section 7); budgets as for WSRL, no warm-up."""
    if task.family == "probe":
        return ScheduleConfig(
            offline_updates=600,
            offline_batch_size=64,
            warmup_steps=0,
            online_steps=800,
            online_batch_size=64,
            retention="mixed",
            insert=insert,
            **PROBE_EVALUATIONS,
        )
    return ScheduleConfig(
        offline_updates=published.offline_updates(task),
        warmup_steps=0,
        online_batch_size=256,
        retention="mixed",
        insert=insert,
    )


def preset(task: Task, scale: str) -> Preset:
    """Settings of the Cal-QL baseline in Zhou et al. 2025, appendix, which follow Nakamoto et al. 2023, table 3."""
    agent = CalQLConfig(baseline_sac(task), published.penalty(task))
    loop = PROBE_LOOP if task.family == "probe" else LoopConfig()
    found = Preset(agent, baseline_schedule(task, "episode"), loop)
    return shrink(found, task) if scale == "cpu" else found


def phases(config: Any, task: Task) -> tuple[Phase, ...]:
    """One agent throughout. Its bound needs Monte-Carlo returns, so only finished episodes enter the buffer.

    As in the published code, updates wait until the buffer could hold one episode of full length.
    """
    schedule, learner = config.schedule, Learner(CalQLAgent, config.agent)
    if schedule.online_steps and schedule.insert != "episode":
        raise ConfigError(
            f"schedule.insert={schedule.insert!r}; Cal-QL needs the returns of finished episodes: expected 'episode'"
        )
    wait = max(online_rows(schedule), task.horizon)
    return (*offline_phases(learner, schedule), *online_phases(learner, learner, schedule, wait))
