"""The one evaluation loop: several environments in step, every episode's outcome kept."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hybridrl.task import Task
from hybridrl.training.online import act
from hybridrl.types import Policy


@dataclasses.dataclass(frozen=True)
class Episodes:
    """What happened in evaluation episodes, one entry each: `(episodes,)` arrays."""

    returns: np.ndarray  # undiscounted sums of the environment's own rewards
    lengths: np.ndarray  # environment steps
    successes: np.ndarray  # bool: solved at any step
    scores: np.ndarray  # on the task's 0-100 scale
    goals: np.ndarray | None = None  # numbers of the goals, from 1; None where the task has none

    def summary(self) -> dict[str, float]:
        """Means over the episodes, and the score of each goal. All goals have as many episodes."""
        means = {
            "score": float(self.scores.mean()),
            "return": float(self.returns.mean()),
            "length": float(self.lengths.mean()),
            "success_rate": float(self.successes.mean()),
        }
        numbers: list[int] = [] if self.goals is None else np.unique(self.goals).tolist()
        return means | {f"score_goal_{number}": float(self.scores[self.goals == number].mean()) for number in numbers}

    def records(self) -> dict[str, list[Any]]:
        """The outcomes as plain lists, for JSON."""
        return {
            "returns": [float(value) for value in self.returns],
            "lengths": [int(value) for value in self.lengths],
            "successes": [bool(value) for value in self.successes],
            "scores": [float(value) for value in self.scores],
            **({} if self.goals is None else {"goals": [int(value) for value in self.goals]}),
        }


def evaluate(
    policy: Policy,
    envs: Sequence[Any],
    task: Task,
    num_episodes: int,
    key: jax.Array,
    seed: int,
    context_of: Callable[[dict[str, Any]], Any] | None = None,
) -> Episodes:
    """Run `num_episodes` episodes, or so many for each of the task's goals, `len(envs)` at a time, each to its end.

    Every environment plays the same number of episodes (the last round may leave some idle), so that short episodes
    are not counted more often than long ones. Goals take turns, so that each round has easy and hard ones.

    Args:
        policy: what acts; its `begin` gets the context of each episode, stacked over environments.
        envs: environments of `task`, as `envs.make_env` builds them.
        seed: episode i is reset with seed `seed + i`.
        context_of: picks the context for `policy.begin` out of `reset`'s info. By default it is the goal where the task
            has goals, and None elsewhere.
    """
    if context_of is None:
        context_of = (lambda info: info["goal"]) if task.num_goals else (lambda info: None)
    goals = None if task.num_goals == 0 else 1 + np.arange(num_episodes * task.num_goals) % task.num_goals
    num_episodes = num_episodes if goals is None else len(goals)
    returns, lengths = np.zeros(num_episodes), np.zeros(num_episodes, np.int64)
    successes = np.zeros(num_episodes, bool)
    for first in range(0, num_episodes, len(envs)):
        count = min(len(envs), num_episodes - first)
        key, round_key = jax.random.split(key)
        starts = [
            env.reset(seed=seed + episode, **({} if goals is None else {"options": {"task_id": int(goals[episode])}}))
            for episode, env in zip(range(first, first + count), envs, strict=False)
        ]
        # All rounds act on the same number of rows, so that one compiled call serves them.
        observations = np.zeros((len(envs), *starts[0][0].shape), starts[0][0].dtype)
        observations[:count] = [observation for observation, _ in starts]
        contexts = [context_of(info) for _, info in starts] + [context_of(starts[0][1])] * (len(envs) - count)
        carry = policy.begin(jax.tree.map(lambda *rows: jnp.stack([jnp.asarray(row) for row in rows]), *contexts))
        running = np.arange(len(envs)) < count
        step = 0
        while running.any():
            actions, carry = act(policy, carry, observations, jax.random.fold_in(round_key, step))
            actions = np.asarray(actions)
            step += 1
            for index in np.flatnonzero(running):
                observation, _, terminated, truncated, info = envs[int(index)].step(actions[index])
                observations[index] = observation
                episode = first + index
                returns[episode] += info["raw_reward"]
                lengths[episode] += 1
                successes[episode] |= info["success"]
                running[index] = not (terminated or truncated)
    return Episodes(returns, lengths, successes, task.score(returns, successes), goals)
