"""What task modules share: reward conventions, and environments built from a task's record."""

from __future__ import annotations

from typing import Any

from envs.extras import keep_action_space, make_gymnasium
from hybridrl.task import Task

# OGBench's convention for sparse tasks: -1 a step and 0 at the goal, where the episode ends.
SPARSE: dict[str, Any] = {"failure_reward": -1.0, "terminate_on_success": True, "success_key": "success"}


def make_plain(task: Task) -> Any:
    """The environment that Gymnasium itself registers."""
    return make_gymnasium(task.env_id, **dict(task.env_kwargs))


def make_robotics(task: Task) -> Any:
    """The environment of Gymnasium-Robotics."""
    return make_gymnasium(task.env_id, "gymnasium_robotics", **dict(task.env_kwargs))


def make_ogbench(task: Task) -> Any:
    """The environment of OGBench, as the benchmark's own constructor makes it."""
    env = make_gymnasium(task.env_id, "ogbench", **dict(task.env_kwargs))
    keep_action_space(env.unwrapped)
    return env
