"""MOORL: inferred settings per task family; uniform steps, then one meta iteration per environment step."""

from __future__ import annotations

import dataclasses
from typing import Any

from algorithms import MOORLAgent, MOORLConfig
from experiments.presets import Preset
from experiments.presets import families as published
from experiments.presets.scale import PROBE_EVALUATIONS, PROBE_LOOP, shrink
from experiments.schedules import offline_phases, online_phases
from experiments.settings import LoopConfig, ScheduleConfig
from hybridrl.errors import ConfigError
from hybridrl.task import Task
from hybridrl.training.phases import Learner, Phase

_SPARSE = {"critic_hidden_dims": (256,) * 3, "actor_hidden_dims": (256,) * 3, "entropy_backup": False}
_SAC: dict[str, dict[str, Any]] = {
    "antmaze": _SPARSE,
    "kitchen": _SPARSE,
    "adroit": _SPARSE,
    "probe": {"critic_hidden_dims": (32,) * 2, "actor_hidden_dims": (32,) * 2},
}
_STEPS = {"antmaze": 300_000, "kitchen": 500_000, "adroit": 1_000_000}
_OTHER_STEPS = 250_000


def preset(task: Task, scale: str) -> Preset:
    """Nothing here is the authors': networks, budgets and the 5,000 uniform steps are RLPD's, for like comparisons."""
    return moorl_preset(MOORLConfig(), task, scale)


def moorl_preset(config: MOORLConfig, task: Task, scale: str) -> Preset:
    """The preset of MOORL and of its controls, which differ in `config` alone."""
    family = published.family(task)
    settings = _SAC.get(family, {}) | (published.POINT_MAZE if task.family == "pointmaze" else {})
    agent = dataclasses.replace(config, sac=dataclasses.replace(config.sac, **settings))
    common: dict[str, Any] = {"offline_updates": 0, "retention": "mixed", "warmup_actions": "uniform"}
    if family == "probe":
        schedule = ScheduleConfig(
            warmup_steps=200, online_steps=800, online_batch_size=64, **common, **PROBE_EVALUATIONS
        )
        return Preset(agent, schedule, PROBE_LOOP)
    schedule = ScheduleConfig(
        warmup_steps=5_000,
        online_steps=_STEPS.get(family, _OTHER_STEPS),
        online_batch_size=256,
        every=5_000,
        **common,
    )
    found = Preset(agent, schedule, LoopConfig(eval_episodes=10, eval_envs=10))
    return shrink(found, task) if scale == "cpu" else found


def phases(config: Any, task: Task) -> tuple[Phase, ...]:
    """Iterations on the data alone, if the schedule has any; uniform steps; then data and steps, block by block."""
    schedule, agent = config.schedule, config.agent
    if schedule.retention != "mixed":
        raise ConfigError(
            f"schedule.retention={schedule.retention!r}; algo={config.algo} learns from the data to the end: "
            "expected 'mixed'"
        )
    learner = Learner(MOORLAgent, agent)
    found = (*offline_phases(learner, schedule), *online_phases(learner, learner, schedule, min_buffer=1))
    return tuple(
        dataclasses.replace(
            phase,
            batches="blocks",
            block_length=agent.block_length,
            block_source=agent.source_choice,
            offline_ratio=schedule.offline_ratio,
        )
        for phase in found
    )
