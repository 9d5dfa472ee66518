"""Hy-Q: published settings of the combination lock; a warm start with offline rows, then roll-ins and sweeps."""

from __future__ import annotations

from typing import Any

from algorithms import HyQAgent, HyQConfig
from algorithms.hyq import HyQRun
from experiments.presets import Preset
from experiments.presets import families as published
from experiments.schedules import rollout_phases, rollout_updates
from experiments.settings import LoopConfig, ScheduleConfig
from hybridrl.errors import ConfigError
from hybridrl.task import Task
from hybridrl.training.phases import Learner, Phase

_COPIES = 50  # environments per exploring step
_WARM_START = 10_000  # offline rows of each step
_ROUNDS = {"paper": 200, "cpu": 30}


def preset(task: Task, scale: str) -> Preset:
    """Song et al. 2023, released code for the combination lock at horizon 100; no other task is in that code.

    Its roll-ins stop at the step that explores. Here episodes are played to their end, and the steps after that are
    counted and not used.
    """
    published.family(task)  # which refuses goals and images
    size = _COPIES * task.horizon * task.horizon
    schedule = ScheduleConfig(
        offline_updates=1,
        offline_batch_size=_WARM_START,
        warmup_steps=0,
        online_steps=_ROUNDS[scale] * size,
        num_envs=_COPIES * task.horizon,
        rollout_steps=task.horizon,
        dense_every=size,
        dense_until=0,
        every=size,
    )
    checkpoint_every = (50 if scale == "paper" else 10) * size
    loop = LoopConfig(log_every=size, checkpoint_every=checkpoint_every, eval_episodes=20, eval_envs=20)
    return Preset(HyQConfig(horizon=task.horizon), schedule, loop)


def phases(config: Any, task: Task) -> tuple[Phase, ...]:
    """Offline rows into the buffers, then rollouts, each with as many offline rows of a step as copies explore at it.

    Raises:
        ConfigError: a task whose actions are no choices, or numbers of steps or environments that do not fit together.
    """
    agent, schedule = config.agent, config.schedule
    if task.choices is None:
        raise ConfigError(
            f"task {task.name!r} has vectors as actions; Hy-Q chooses one of several: "
            "take task=lock/discrete-h5-v0, or 10, 15, 25, 30, 50 or 100 in place of the 5"
        )
    for name, value in {"agent.horizon": agent.horizon, "schedule.rollout_steps": schedule.rollout_steps}.items():
        if value != task.horizon:
            raise ConfigError(
                f"{name}={value} on task {task.name!r}, whose episodes have {task.horizon} steps; expected that number"
            )
    copies, rest = divmod(schedule.num_envs, task.horizon)
    if rest:
        raise ConfigError(
            f"schedule.num_envs={schedule.num_envs} on task {task.name!r}; equally many environments explore at each "
            f"of its steps: expected a multiple of {task.horizon}"
        )
    if schedule.online_steps == 0 and not agent.fit_offline:
        raise ConfigError(
            "schedule.online_steps=0 and agent.fit_offline=false: nothing would be learned; raise the first or, for "
            "fitted Q-iteration on the data alone, set the second"
        )
    warm_rows = schedule.offline_updates * schedule.offline_batch_size
    capacity = warm_rows + 2 * copies * rollout_updates(schedule)
    learner = Learner(HyQAgent, HyQRun(agent, copies, capacity))
    return (*_warm_start(learner, agent, schedule), *rollout_phases(learner, schedule, copies, offline_by_step=True))


def _warm_start(learner: Learner, agent: HyQConfig, schedule: ScheduleConfig) -> tuple[Phase, ...]:
    if schedule.offline_updates == 0:
        return ()
    phase = Phase(
        "offline",
        learner,
        num_updates=schedule.offline_updates,
        batch_size=schedule.offline_batch_size,
        offline_by_step=True,
        evaluate_at=(schedule.offline_updates,) if agent.fit_offline else (),
    )
    return (phase,)
