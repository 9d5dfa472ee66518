"""ReBRAC: published settings per task; offline, then online with a vanishing penalty."""

from __future__ import annotations

import dataclasses
from typing import Any

from algorithms import ReBRACAgent, ReBRACConfig
from experiments.presets import Preset
from experiments.presets import families as published
from experiments.presets.scale import PROBE_EVALUATIONS, PROBE_LOOP, shrink
from experiments.schedules import offline_phases, online_phases, rows_to_wait_for
from experiments.settings import LoopConfig, ScheduleConfig
from hybridrl.task import Task
from hybridrl.training.phases import Learner, Phase

# Weights of the cloning error in the actor's loss and in the critics' targets, by the beginning of a task's name.
PENALTIES: dict[str, tuple[float, float]] = {
    "halfcheetah-random": (0.001, 0.1),
    "halfcheetah-medium": (0.001, 0.01),
    "halfcheetah-expert": (0.01, 0.01),
    "halfcheetah-medium-expert": (0.01, 0.1),
    "halfcheetah-medium-replay": (0.01, 0.001),
    "halfcheetah-full-replay": (0.001, 0.1),
    "hopper-random": (0.001, 0.01),
    "hopper-medium": (0.01, 0.01),
    "hopper-expert": (0.1, 0.1),
    "hopper-medium-expert": (0.1, 0.01),
    "hopper-medium-replay": (0.05, 0.5),
    "hopper-full-replay": (0.01, 0.01),
    "walker2d-random": (0.01, 0.0),
    "walker2d-medium": (0.05, 0.1),
    "walker2d-expert": (0.01, 0.5),
    "walker2d-medium-expert": (0.01, 0.01),
    "walker2d-medium-replay": (0.05, 0.01),
    "walker2d-full-replay": (0.01, 0.01),
    "antmaze-umaze": (0.003, 0.002),
    "antmaze-umaze-diverse": (0.003, 0.001),
    "antmaze-medium-play": (0.001, 0.0005),
    "antmaze-medium-diverse": (0.001, 0.0),
    "antmaze-large-play": (0.002, 0.001),
    "antmaze-large-diverse": (0.002, 0.002),
    "maze2d": (0.003, 0.001),  # not in the paper: CORL's configuration files (Tarasov et al. 2022)
    "pen-human": (0.1, 0.5),
    "pen-cloned": (0.05, 0.5),
    "pen-expert": (0.01, 0.01),
    "door-human": (0.1, 0.1),
    "door-cloned": (0.01, 0.1),
    "door-expert": (0.05, 0.01),
    "hammer-human": (0.01, 0.5),
    "hammer-cloned": (0.1, 0.5),
    "hammer-expert": (0.01, 0.01),
    "relocate-human": (0.1, 0.01),
    "relocate-cloned": (0.1, 0.01),
    "relocate-expert": (0.05, 0.01),
}
_AGENT: dict[str, dict[str, Any]] = {
    "antmaze": {"actor_learning_rate": 3e-4, "critic_learning_rate": 5e-5, "discount": 0.999},
    "kitchen": {"actor_learning_rate": 3e-4, "critic_learning_rate": 3e-4},  # not in the paper: Adroit's
    "adroit": {"actor_learning_rate": 3e-4, "critic_learning_rate": 3e-4},
    "locomotion": {},
    "lock": {"actor_learning_rate": 3e-4, "critic_learning_rate": 3e-4},  # not in the paper: Adroit's
    "probe": {
        "actor_hidden_dims": (32,) * 2,
        "critic_hidden_dims": (32,) * 2,
        "actor_learning_rate": 3e-3,
        "critic_learning_rate": 3e-3,
        "target_update_rate": 0.05,
        "actor_bc_weight": 0.1,
        "exploration_noise": 0.1,
    },
}
# For tasks that the paper does not have: a common choice of its table within the family.
_OTHERS = {
    "antmaze": (0.002, 0.001),
    "kitchen": (0.1, 0.1),
    "adroit": (0.1, 0.1),
    "locomotion": (0.01, 0.01),
    "lock": (0.01, 0.01),
}


def preset(task: Task, scale: str) -> Preset:
    """Tarasov et al. 2023, tables of hyperparameters in the appendix and the published configuration files.

    Batches of 1,024 rows on locomotion, 256 elsewhere; 1,000,000 updates. Online: 1,000,000 steps of one update, half
    of each batch offline data, no penalty in the critics and an actor's penalty that falls linearly to none, as in the
    authors' fine-tuning script. Departure: rewards are the task's, shared by all algorithms here (on AntMaze 10 r - 5,
    where the paper has 100 r), while the penalties' weights are the published ones.
    """
    family = published.family(task)
    if family == "probe":
        schedule = ScheduleConfig(
            offline_updates=600,
            offline_batch_size=64,
            warmup_steps=0,
            online_steps=800,
            online_batch_size=64,
            retention="mixed",
            **PROBE_EVALUATIONS,
        )
        return Preset(ReBRACConfig(**_AGENT[family]), schedule, PROBE_LOOP)
    actor, critic = published.longest_prefix(task.name, PENALTIES, _OTHERS[family])
    settings = _AGENT[family] | published.target_update_rate(task)
    if task.family in published.UNPUBLISHED or (task.dataset is not None and task.dataset.format == "ogbench"):
        settings |= {"critic_learning_rate": 3e-4, "discount": 0.99}  # ours
    agent = ReBRACConfig(actor_bc_weight=actor, critic_bc_weight=critic, **settings)
    rows = 1_024 if family == "locomotion" else 256
    schedule = ScheduleConfig(
        offline_batch_size=rows,
        warmup_steps=0,
        online_steps=1_000_000,
        online_batch_size=rows,
        retention="mixed",
    )
    found = Preset(agent, schedule, LoopConfig())
    return shrink(found, task) if scale == "cpu" else found


def phases(config: Any, task: Task) -> tuple[Phase, ...]:
    """The agent, and online the same networks without a critics' penalty and with a falling one of the actor."""
    schedule, offline = config.schedule, Learner(ReBRACAgent, config.agent)
    updates = max(schedule.online_steps - schedule.warmup_steps, 0) * schedule.updates_per_step
    free = dataclasses.replace(
        config.agent, critic_bc_weight=0.0, bc_decay_updates=config.agent.bc_decay_updates or updates
    )
    online = Learner(ReBRACAgent, free)
    first = offline_phases(offline, schedule, next_actions=config.agent.critic_bc_weight > 0.0)
    return (*first, *online_phases(offline if first else online, online, schedule, rows_to_wait_for(schedule)))
