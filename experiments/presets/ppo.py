"""PPO from scratch: published settings; rollouts of its own policy and nothing else."""

from __future__ import annotations

import dataclasses
from typing import Any

from algorithms import PPOAgent, PPOConfig, PPORun
from experiments.presets import Preset
from experiments.presets import families as published
from experiments.presets.scale import ON_POLICY, PROBE_EVALUATIONS, PROBE_LOOP, shrink
from experiments.schedules import rollout_phases, rollout_updates
from experiments.settings import LoopConfig, ScheduleConfig
from hybridrl.errors import ConfigError
from hybridrl.task import Task
from hybridrl.training.phases import Learner, Phase

_ROLLOUT = 2_048  # steps of one environment
PLAIN = PPOConfig(
    actor_learning_rate=3e-4,
    value_learning_rate=3e-4,
    clip_range=0.2,
    entropy_weight=0.0,
    minibatch_size=64,
    reward_scaling="dynamic",
    observation_scaling="running",
    actor_hidden_dims=(64, 64),
    value_hidden_dims=(64, 64),
    actor_activation="tanh",
    value_activation="tanh",
    actor_initializer="orthogonal",
    value_initializer="orthogonal",
    actor_output_gain=0.01,
    bounded_mean=False,
    std_kind="free",
    std_bounds=(1e-5, 10.0),
)


def preset(task: Task, scale: str) -> Preset:
    """Schulman et al. 2017, table 3 and section 6.1, the same on all tasks; one million steps.

    Two layers of 64 tanh units, one free deviation, 2,048 steps a rollout, 10 epochs of minibatches of 64 at 3e-4, a
    clip range of 0.2, discount 0.99, trace decay 0.95, no entropy bonus. From Huang et al. 2022 (the details for
    continuous actions), as in OpenAI's code: rates fall to 0, Adam's epsilon is 1e-5, gradients are cut to norm 0.5,
    observations and rewards are scaled by what was seen so far, kernels begin orthogonal and the policy's last one
    small. Departure: no value is clipped.
    """
    if published.family(task) == "probe":
        rates: dict[str, Any] = {"actor_learning_rate": 3e-3, "value_learning_rate": 3e-3}
        agent = dataclasses.replace(PLAIN, actor_hidden_dims=(32,) * 2, value_hidden_dims=(32,) * 2, **rates)
        schedule = _schedule(20 * 256, num_envs=8, rollout_steps=32, **PROBE_EVALUATIONS)
        return Preset(agent, schedule, PROBE_LOOP)
    found = Preset(PLAIN, _schedule(488 * _ROLLOUT, rollout_steps=_ROLLOUT), LoopConfig())
    return shrink(found, task, ON_POLICY) if scale == "cpu" else found


def _schedule(online_steps: int, **others: Any) -> ScheduleConfig:
    return ScheduleConfig(offline_updates=0, warmup_steps=0, online_steps=online_steps, **others)


def phases(config: Any, task: Task) -> tuple[Phase, ...]:
    """Rollouts and updates by turns."""
    schedule = config.schedule
    if schedule.offline_updates:
        raise ConfigError(
            f"schedule.offline_updates={schedule.offline_updates}; algo=ppo trains online only: expected 0"
        )
    run = PPORun(config.agent, max(rollout_updates(schedule), 1), schedule.num_envs)
    return rollout_phases(Learner(PPOAgent, run), schedule)
