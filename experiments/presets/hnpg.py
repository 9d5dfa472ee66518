"""HNPG and, without offline data, TRPO: published settings of the combination lock; ours for other tasks."""

from __future__ import annotations

import dataclasses
from typing import Any

from algorithms import HNPGAgent, HNPGConfig
from experiments.presets import Preset
from experiments.presets import families as published
from experiments.presets.scale import PROBE_LOOP
from experiments.schedules import rollout_phases
from experiments.settings import LoopConfig, ScheduleConfig
from hybridrl.errors import ConfigError
from hybridrl.task import Task
from hybridrl.training.phases import Learner, Phase

# horizon -> episodes per update and updates at scale=cpu: 1,000 steps per update where that is enough, as published;
# from 15 steps on too few episodes would reach the last ones.
_CPU_LOCK = {5: (200, 150), 10: (100, 300)}
_CPU_LONG_LOCK = (300, 266)
# 1,000 rows for the networks of each step. The released code counts 1,000 steps in all, with which the 30 million steps
# of the paper's longest lock could not be reached in its 1,500 updates.
_PAPER_LOCK = (1_000, 1_500)
# In no paper. One network over all steps, standardised observations and discounted returns of hundreds: the critic is
# wider and faster, and offline values spread over several rounds of targets per update.
_CONTROL: dict[str, Any] = {
    "discount": 0.99,
    "actor_hidden_dims": (64, 64),
    "critic_updates": 20,
    "critic_rounds": 10,
    "critic_learning_rate": 1e-3,
    "standardize_observations": True,
    "stochastic_evaluation": False,
}


def preset(task: Task, scale: str) -> Preset:
    """Zhou et al. 2024, table 1 and the released code (appendix E.3), for the lock. No other task is in the paper."""
    return settings_for(task, scale, HNPGConfig())


def settings_for(task: Task, scale: str, config: HNPGConfig) -> Preset:
    """The preset of `config`, which says what of the offline data is used."""
    family = published.family(task)
    if family == "lock":
        episodes, updates = _CPU_LOCK.get(task.horizon, _CPU_LONG_LOCK) if scale == "cpu" else _PAPER_LOCK
        size = episodes * task.horizon
        agent = dataclasses.replace(config, horizon=task.horizon)
        schedule = _schedule(updates * size, episodes, task.horizon, every=10 * size)
        loop = LoopConfig(log_every=5 * size, checkpoint_every=50 * size, eval_episodes=30, eval_envs=30)
        return Preset(agent, schedule, loop)
    agent = dataclasses.replace(config, **_CONTROL)
    if family == "probe":
        agent = dataclasses.replace(agent, actor_hidden_dims=(16, 16), critic_hidden_dims=(16, 16), critic_rounds=2)
        return Preset(agent, _schedule(1_000, 4, 25, every=200), PROBE_LOOP)
    steps, every = (100_000, 10_000) if scale == "cpu" else (1_000_000, 20_000)
    loop = LoopConfig(log_every=2_000, checkpoint_every=20_000, eval_episodes=10, eval_envs=10)
    return Preset(agent, _schedule(steps, 2, 1_000, every), loop)


def _schedule(steps: int, num_envs: int, rollout_steps: int, every: int) -> ScheduleConfig:
    return ScheduleConfig(
        offline_updates=0,
        warmup_steps=0,
        online_steps=steps,
        num_envs=num_envs,
        rollout_steps=rollout_steps,
        dense_every=every,
        dense_until=0,
        every=every,
    )


def phases(config: Any, task: Task) -> tuple[Phase, ...]:
    """Rollouts, each with as many offline rows as it has steps, unless the settings use none.

    Raises:
        ConfigError: networks per step whose number is not the task's horizon, or an offline phase.
    """
    agent, schedule = config.agent, config.schedule
    if schedule.offline_updates:
        raise ConfigError(
            f"schedule.offline_updates={schedule.offline_updates}; HNPG and TRPO have no offline phase: expected 0"
        )
    if agent.horizon is not None and agent.horizon != task.horizon:
        raise ConfigError(
            f"agent.horizon={agent.horizon} on task {task.name!r}, whose episodes have {task.horizon} steps; "
            "expected that number, or null for one network for all steps"
        )
    by_step = agent.horizon is not None
    rows = schedule.num_envs * (1 if by_step else schedule.rollout_steps) if agent.uses_offline_data else 0
    return rollout_phases(Learner(HNPGAgent, agent), schedule, rows, by_step and rows > 0)
