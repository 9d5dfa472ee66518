"""An environment as its task describes it: flat observations, actions in [-1, 1], the task's transform and horizon."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box

from envs.extras import global_generator
from hybridrl.errors import ConfigError, HybridRLError
from hybridrl.task import Task


class EnvironmentFault(HybridRLError, RuntimeError):
    """An environment returned what no learner should see: NaN, infinity or another shape."""


def make_bare(task: Task) -> Any:
    """The environment the task is evaluated in, as its package gives it."""
    return task.make(task) if task.make is not None else gymnasium.make(task.env_id, **dict(task.env_kwargs))


class TaskEnv(gymnasium.Env[np.ndarray, np.ndarray]):
    """One environment, driven by a `Task` alone.

    Observations are float32 vectors, or uint8 images where the task says `pixels`; actions are float32 in [-1, 1] and
    stretched to the environment's bounds. Rewards are the task's; `info["raw_reward"]` is the environment's own, or the
    `return_key` entry of `info` if the task has one, and `info["success"]` a bool. Reaching the horizon truncates; a
    success on that very step still terminates.

    The course is a function of `seed` and the actions. Some environments draw from NumPy's global generator: this
    class keeps one of its own, puts it in the global one's place while the environment runs and takes it out again, so
    that environments disturb neither one another nor the caller.

    Args:
        task: what to build.
        seed: a non-negative integer.
        make: builds the bare environment; None means as the task says.

    Raises:
        ConfigError: a negative seed, or an environment whose actions are not a bounded vector.
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012 (gymnasium's own convention)

    def __init__(self, task: Task, seed: int, make: Callable[[Task], Any] | None = None) -> None:
        if seed < 0:
            raise ConfigError(f"task {task.name!r}: seed {seed}; expected a non-negative integer")
        self.task = task
        self._env_seed: int | None = None
        self._globals = np.random.MT19937(0)
        self._episode, self._step, self._running = -1, 0, False
        self._reseed(seed)
        with self._private_globals():
            self.env = (make or make_bare)(task)
            first, _ = self.env.reset(seed=self._env_seed)
        space = self.env.action_space
        if not isinstance(space, Box) or len(space.shape) != 1 or not np.isfinite([space.low, space.high]).all():
            raise ConfigError(
                f"task {task.name!r}: the action space of {task.env_id!r} is {space}; expected a bounded vector; "
                "choose an environment with continuous, bounded actions"
            )
        self._low, self._high = space.low.astype(np.float64), space.high.astype(np.float64)
        shape = task.flatten_observation(first).shape
        self.observation_space = (
            Box(0, 255, shape, np.uint8) if task.pixels else Box(-np.inf, np.inf, shape, np.float32)
        )
        self.action_space = Box(-1.0, 1.0, space.shape, np.float32)
        self._restart(seed)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin an episode; with a `seed`, as a new `TaskEnv` of that seed would.

        Args:
            options: passed on. Where the task has goals, `{"task_id": k}` takes the k-th of its `num_goals`, and
                `info["goal"]` is the goal, float32 `(goal_dim,)` or an image.

        Raises:
            ConfigError: a `task_id` that the task does not have.
        """
        number = (options or {}).get("task_id")
        if number is not None and number not in range(1, self.task.num_goals + 1):
            raise ConfigError(
                f"task {self.task.name!r} has {self.task.num_goals} goals; got task_id {number!r}; "
                "expected an integer from 1 to that number, or a goal-conditioned task"
            )
        super().reset(seed=seed)
        if seed is not None:
            self._restart(seed)
        with self._private_globals():
            observation, info = self.env.reset(seed=self._env_seed, options=options)
        self._env_seed = None
        self._episode, self._step, self._running = self._episode + 1, 0, True
        if self.task.num_goals:
            info = info | {"goal": self._goal(info)}
        return self._checked(observation), info | {"success": self._success(info, 0.0)}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Act for one step.

        Args:
            action: `(action_dim,)`, clipped to the task's `action_clip` unless the bounds are nominal.

        Raises:
            ValueError: an action of another shape or not finite, or a step after the episode's end.
            EnvironmentFault: the environment returned nonsense.
        """
        if not self._running:
            raise ValueError(f"task {self.task.name!r}: step() after the end of an episode; call reset() first")
        action = np.asarray(action)
        if action.shape != self.action_space.shape or not np.isfinite(action).all():
            raise ValueError(
                f"{self._where()}: action {action!r}; expected finite numbers of shape {self.action_space.shape}; "
                "a policy whose parameters are not finite gives such actions"
            )
        played = self.task.played(action)
        scaled = self._low + (played.astype(np.float64) + 1.0) * 0.5 * (self._high - self._low)
        if self.task.bounded_actions:
            scaled = np.clip(scaled, self._low, self._high)
        with self._private_globals():
            observation, raw_reward, terminated, truncated, info = self.env.step(scaled.astype(np.float32))
        self._step += 1
        raw_reward = float(raw_reward)
        success = self._success(info, raw_reward)
        if not np.isfinite(raw_reward):
            raise EnvironmentFault(f"{self._where()}: reward {raw_reward}; expected a finite number; {_ADVICE}")
        observation = self._checked(observation)
        _, reward, ended = self.task.transform(played, raw_reward, terminated, success)
        terminated = bool(ended)
        truncated = not terminated and (bool(truncated) or self._step >= self.task.horizon)
        self._running = not (terminated or truncated)
        scored = raw_reward if self.task.return_key is None else float(info[self.task.return_key])
        return observation, float(reward), terminated, truncated, info | {"success": success, "raw_reward": scored}

    def close(self) -> None:
        """Close the environment."""
        self.env.close()

    def _restart(self, seed: int) -> None:
        """Put every generator where a new environment of this seed has it."""
        self._reseed(seed)
        self.env.action_space.seed(seed)
        self.env.unwrapped.action_space.seed(seed)  # the mazes warm up with samples from it
        self.action_space.seed(seed)
        self._np_random, self._np_random_seed = gymnasium.utils.seeding.np_random(seed)

    def _reseed(self, seed: int) -> None:
        self._env_seed = seed
        self._globals = np.random.MT19937(seed)
        self._episode, self._step, self._running = -1, 0, False

    def _private_globals(self) -> contextlib.AbstractContextManager[None]:
        return global_generator(self._globals)

    def _success(self, info: dict[str, Any], raw_reward: float) -> bool:
        if self.task.success_key == "reward":
            return raw_reward > 0
        return self.task.success_key is not None and bool(info.get(self.task.success_key, False))

    def _goal(self, info: dict[str, Any]) -> np.ndarray:
        goal = np.asarray(info["goal"])
        if goal.dtype != np.uint8:
            goal = goal.astype(np.float32)
        if not np.isfinite(goal).all():
            raise EnvironmentFault(f"{self._where()}: goal {goal}; expected finite numbers; {_ADVICE}")
        return goal

    def _checked(self, observation: Any) -> np.ndarray:
        observation = self.task.flatten_observation(observation)
        if observation.shape != self.observation_space.shape:
            raise EnvironmentFault(
                f"{self._where()}: observation of shape {observation.shape}; "
                f"expected {self.observation_space.shape}; {_ADVICE}"
            )
        if not np.isfinite(observation).all():
            bad = np.flatnonzero(~np.isfinite(observation)).tolist()
            raise EnvironmentFault(
                f"{self._where()}: observation entries {bad} are not finite; expected finite numbers; {_ADVICE}"
            )
        return observation

    def _where(self) -> str:
        return f"task {self.task.name!r}, episode {self._episode}, step {self._step}"


_ADVICE = "the simulation has become unstable or the environment is broken; look at the actions before this step"
