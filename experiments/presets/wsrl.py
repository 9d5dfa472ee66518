"""WSRL: published settings per task family, and its three phases."""

from __future__ import annotations

from typing import Any

from algorithms import SACConfig, WSRLAgent, WSRLConfig
from experiments.presets import Preset
from experiments.presets import families as published
from experiments.presets.scale import PROBE_EVALUATIONS, PROBE_LOOP, shrink
from experiments.schedules import offline_phases, online_phases, online_rows
from experiments.settings import LoopConfig, ScheduleConfig
from hybridrl.task import Task
from hybridrl.training.phases import Learner, Phase

_RATES = ("actor_learning_rate", "target_update_rate")


def preset(task: Task, scale: str) -> Preset:
    """Zhou et al. 2025, appendix (hyperparameters per domain) and the launch scripts of the published code.

    Offline: Cal-QL, on locomotion CQL, with 10 critics and layer norm. Online: 500,000 steps of which 5,000 warm-up,
    4 critic updates of 256 rows per step. Evaluations right after the switch are denser than the published 20,000.
    """
    settings: dict[str, Any] = dict(published.networks(task))
    # Short offline training needs fast rates; online they make the policy swing, so there the published ones hold.
    offline_rates = {f"offline_{name}": settings.pop(name) for name in _RATES if name in settings}
    sac = SACConfig(num_backup_actions=published.online_backup_actions(task), **settings)
    offline = "cql" if task.family == "locomotion" else "calql"
    agent = WSRLConfig(sac, offline=offline, penalty=published.penalty(task), **offline_rates)
    if task.family == "probe":
        schedule = ScheduleConfig(
            offline_updates=600,
            offline_batch_size=64,
            warmup_steps=200,
            online_steps=800,
            online_batch_size=256,
            **PROBE_EVALUATIONS,
        )
        return Preset(agent, schedule, PROBE_LOOP)
    found = Preset(agent, ScheduleConfig(offline_updates=published.offline_updates(task)), LoopConfig())
    return shrink(found, task) if scale == "cpu" else found


def phases(config: Any, task: Task) -> tuple[Phase, ...]:
    """Offline agent, warm-up with its frozen policy, then plain SAC on what that policy and the new one collected.

    The published code updates at the online step with index k = 0, 1, ... if k > max(warm-up, online rows per batch).
    By then k + 1 rows are stored, so the first update finds max(...) + 2 of them: `min_buffer`. The rule waits for a
    batch even with a warm-up of 0; `schedule.min_buffer=1` removes that wait too.
    """
    schedule, offline = config.schedule, config.agent.offline_learner()
    online = Learner(WSRLAgent, config.agent)
    wait = max(schedule.warmup_steps, online_rows(schedule)) + 2
    first = offline_phases(offline, schedule)
    return (*first, *online_phases(offline if first else online, online, schedule, wait))
