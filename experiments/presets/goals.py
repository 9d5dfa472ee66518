"""What the goal-conditioned algorithms' published settings share, and their one phase.

All numbers are those of OGBench's reference agents (Park et al. 2024, appendix, and `hyperparameters.sh` of the
published code). They are given per environment and kind of data.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from algorithms.goals import FUTURE_GOALS
from experiments.presets import Preset
from experiments.presets.families import longest_prefix
from experiments.presets.scale import GOALS, shrink
from experiments.schedules import offline_phases
from experiments.settings import LoopConfig, ScheduleConfig
from hybridrl.errors import ConfigError
from hybridrl.replay import GoalMixture
from hybridrl.task import Task
from hybridrl.training.phases import Learner, Phase

_DISCOUNTS = {"pointmaze-giant": 0.995, "antmaze-giant": 0.995, "humanoidmaze": 0.995}
_RANDOM_GOALS = {"stitch": 0.5, "explore": 1.0}  # share among the policy's goals, by kind of data
_SUBGOAL_STEPS = {"humanoidmaze": 100, "cube": 10, "scene": 10, "puzzle": 10}


def goal_preset(task: Task, agent: Any, scale: str) -> Preset:
    """1,000,000 updates of 1,024 rows; every 100,000 of them 50 episodes for each of the five goals."""
    schedule = ScheduleConfig(
        offline_updates=1_000_000, offline_batch_size=1_024, offline_every=100_000, warmup_steps=0, online_steps=0
    )
    found = Preset(
        agent, schedule, LoopConfig(log_every=5_000, checkpoint_every=50_000, eval_episodes=50, eval_envs=25)
    )
    return shrink(found, task, GOALS) if scale == "cpu" else found


def goal_phases(config: Any, agent_class: Any) -> tuple[Phase, ...]:
    """Training on the dataset with goals drawn from it; there are no rewards to go on with online."""
    schedule = config.schedule
    for field, expected in {"online_steps": 0, "n_step": 1}.items():
        if getattr(schedule, field) != expected:
            raise ConfigError(
                f"schedule.{field}={getattr(schedule, field)}; algo={config.algo} learns offline from single steps: "
                f"expected {expected}"
            )
    return tuple(
        dataclasses.replace(phase, goals=config.agent.goals())
        for phase in offline_phases(Learner(agent_class, config.agent), schedule)
    )


def check_goals(task: Task) -> None:
    """Raise ConfigError unless the task's goals are states these agents can see."""
    if task.pixels:
        raise ConfigError(
            f"task {task.name!r} shows images; this algorithm's networks take vectors; choose the state-based task"
        )
    if not task.num_goals:
        raise ConfigError(
            f"task {task.name!r} has no goals, and this algorithm learns to reach goals; "
            "choose a goal-conditioned task, such as pointmaze-medium-navigate-v0"
        )
    if task.dataset is not None and task.dataset.represent is not None:
        raise ConfigError(
            f"task {task.name!r} reduces goals to a part of the state, and this algorithm's goals are whole states; "
            f"choose {task.name.replace('-oraclerep', '')!r}"
        )


def discount(task: Task) -> float:
    """0.99, on the largest mazes and humanoid mazes 0.995."""
    check_goals(task)
    return longest_prefix(task.name, _DISCOUNTS, 0.99)


def random_goals(task: Task) -> float:
    """The share of any state among the policy's goals; the others are later states of the episode."""
    return next((share for kind, share in _RANDOM_GOALS.items() if f"-{kind}-" in task.name), 0.0)


def actor_goals(task: Task) -> GoalMixture:
    """The same as a mixture for agents with one policy."""
    share = random_goals(task)
    return dataclasses.replace(FUTURE_GOALS, trajectory=1.0 - share, random=share)


def subgoal_steps(task: Task) -> int:
    """Steps between a state and its subgoal."""
    return longest_prefix(task.name, _SUBGOAL_STEPS, 25)


def by_data(task: Task, table: dict[str, float]) -> float:
    """The entry of `table` for the task's family, or for its family and kind of data, such as "antmaze-explore"."""
    kind = task.name.removesuffix("-v0").rpartition("-")[2]
    return table.get(f"{task.family}-{kind}", table[task.family])
