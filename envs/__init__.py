"""What an agent acts in: tasks by name, their environments, and generators of their datasets."""

from envs.registry import TASKS, make_env, make_task, task_names
from envs.wrappers import EnvironmentFault, TaskEnv

__all__ = ["TASKS", "EnvironmentFault", "TaskEnv", "make_env", "make_task", "task_names"]
