"""RLPD: published settings per task family; online from scratch, every batch half offline."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from algorithms import RLPDAgent, RLPDConfig
from experiments.presets import Preset
from experiments.presets import families as published
from experiments.presets.scale import PROBE_EVALUATIONS, PROBE_LOOP, shrink
from experiments.schedules import online_phases
from experiments.settings import LoopConfig, ScheduleConfig
from hybridrl.errors import ConfigError
from hybridrl.task import Task
from hybridrl.training.phases import Learner, Phase

_ROWS = 256  # per critic update
_SPARSE = {"critic_hidden_dims": (256,) * 3, "actor_hidden_dims": (256,) * 3, "entropy_backup": False}
_AGENT: dict[str, dict[str, Any]] = {
    "antmaze": {"num_target_critics": 1, **_SPARSE},
    "kitchen": _SPARSE,  # not in the paper: the settings of its other sparse tasks
    "adroit": _SPARSE,
    "locomotion": {},
    "lock": {  # Zhou et al. 2024, table 2, where it names a setting
        "actor_learning_rate": 1e-3,
        "critic_learning_rate": 1e-3,
        "temperature_learning_rate": 1e-4,
        "initial_temperature": 0.1,
        "std_bounds": (math.exp(-10.0), math.exp(2.0)),
        "target_update_rate": 0.01,
        "critic_updates": 1,
    },
    "probe": {"critic_hidden_dims": (32,) * 2, "actor_hidden_dims": (32,) * 2, "num_critics": 4, "critic_updates": 4},
}
_STEPS = {"antmaze": 300_000, "kitchen": 500_000, "adroit": 1_000_000, "locomotion": 250_000, "lock": 1_000_000}
_BATCHES = {"lock": 128}


def preset(task: Task, scale: str) -> Preset:
    """Ball et al. 2023, tables 1 and 2 of the appendix and the launch flags of the published code.

    20 critic updates of 256 rows per step, 5,000 uniformly random steps at the start, 10 episodes every 5,000 steps.
    Departure: rewards are the task's, shared by all algorithms here (on AntMaze 10 r - 5, where the paper has r - 1),
    and OGBench's environments, which the paper does not have, start from the same rates for every algorithm. On the
    locks the settings are those of Zhou et al. 2024 (HNPG), without their target update at every second step only.
    """
    family = published.family(task)
    config = RLPDConfig()
    settings = _AGENT[family] | (published.POINT_MAZE if task.family in published.UNPUBLISHED else {})
    agent = dataclasses.replace(config, sac=dataclasses.replace(config.sac, **settings))
    common: dict[str, Any] = {"offline_updates": 0, "retention": "mixed", "warmup_actions": "uniform"}
    if family == "probe":
        schedule = ScheduleConfig(
            warmup_steps=200, online_steps=800, online_batch_size=64 * 4, **common, **PROBE_EVALUATIONS
        )
        return Preset(agent, schedule, PROBE_LOOP)
    schedule = ScheduleConfig(
        warmup_steps=5_000,
        online_steps=_STEPS[family],
        online_batch_size=_BATCHES.get(family, _ROWS) * agent.sac.critic_updates,
        every=5_000,
        **common,
    )
    found = Preset(agent, schedule, LoopConfig(eval_episodes=10, eval_envs=10))
    return shrink(found, task) if scale == "cpu" else found


def phases(config: Any, task: Task) -> tuple[Phase, ...]:
    """Uniformly random steps, then training on half offline, half online rows."""
    schedule, learner = config.schedule, Learner(RLPDAgent, config.agent)
    if schedule.offline_updates:
        raise ConfigError(
            f"schedule.offline_updates={schedule.offline_updates}; RLPD has no offline phase: expected 0; "
            "for one, use algo=wsrl or algo=calql"
        )
    return online_phases(learner, learner, schedule, min_buffer=1)
