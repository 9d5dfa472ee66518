"""Environments as pure functions: one interface that compiles, scans and vmaps, and two ways to run what follows it.

    state, observation = env.reset(key)
    state, observation, reward, terminated, truncated = env.step(state, action, key)

An environment is a pytree: its arrays (secret sequences, transition tables) are leaves, its sizes are static. So it is
an ordinary argument of compiled code, and instances of equal sizes share one compilation. The interface itself is in
`hybridrl.functional`, since training uses it too. `rollout` runs many copies wholly on the device; `FunctionalEnv`
hands one to Gymnasium's drivers.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from gymnasium import spaces

from hybridrl.functional import Environment, Running, StepResult, advance, begin

# (states, observations (num_envs, obs_dim), key) -> actions; a learner's policy leaves the states alone.
BatchPolicy = Callable[[Any, jax.Array, jax.Array], jax.Array]


@dataclasses.dataclass(frozen=True)
class Continuous:
    """Actions `(dim,)`, float32. The bounds are nominal: for bounded policies; steps do not clip."""

    dim: int
    low: float = -1.0
    high: float = 1.0

    def sample(self, key: jax.Array, num_envs: int) -> jax.Array:
        """Uniform actions `(num_envs, dim)`."""
        return jax.random.uniform(key, (num_envs, self.dim), minval=self.low, maxval=self.high)

    def gymnasium(self) -> spaces.Space:
        """The same for Gymnasium."""
        return spaces.Box(self.low, self.high, (self.dim,), np.float32)


@dataclasses.dataclass(frozen=True)
class Discrete:
    """Actions are int32 scalars in `0 .. num - 1`."""

    num: int

    def sample(self, key: jax.Array, num_envs: int) -> jax.Array:
        """Uniform actions `(num_envs,)`."""
        return jax.random.randint(key, (num_envs,), 0, self.num)

    def gymnasium(self) -> spaces.Space:
        """The same for Gymnasium."""
        return spaces.Discrete(self.num)


class ArgmaxActions(struct.PyTreeNode):
    """An environment with discrete actions for agents that act by vectors: the largest entry of `(num,)` is played."""

    env: Any  # with `Discrete` actions

    @property
    def obs_dim(self) -> int:
        """As inside."""
        return self.env.obs_dim

    @property
    def actions(self) -> Continuous:
        """One entry in [-1, 1] per action."""
        return Continuous(self.env.actions.num)

    @property
    def horizon(self) -> int:
        """As inside."""
        return self.env.horizon

    def reset(self, key: jax.Array) -> tuple[Any, jax.Array]:
        """As inside."""
        return self.env.reset(key)

    def step(self, state: Any, action: jax.Array, key: jax.Array) -> StepResult:
        """As inside, with the first of the largest entries."""
        return self.env.step(state, jnp.argmax(action).astype(jnp.int32), key)

    def solved(self, reward: jax.Array, terminated: jax.Array) -> jax.Array:
        """As inside."""
        return self.env.solved(reward, terminated)


class Rollout(struct.PyTreeNode):
    """Consecutive steps of `num_envs` copies, leaves `(num_steps, num_envs, ...)`.

    After an end the next row begins a new episode; `next_observations` are those before the restart, so they are exact.
    """

    observations: jax.Array  # (num_steps, num_envs, obs_dim)
    actions: jax.Array  # (num_steps, num_envs, dim), or (num_steps, num_envs) if discrete
    rewards: jax.Array  # (num_steps, num_envs)
    terminations: jax.Array  # (num_steps, num_envs), bool
    truncations: jax.Array  # (num_steps, num_envs), bool
    next_observations: jax.Array  # (num_steps, num_envs, obs_dim)


def rollout(
    env: Environment,
    policy: BatchPolicy,
    key: jax.Array,
    *,
    num_envs: int,
    num_steps: int,
    start: Running | None = None,
) -> tuple[Running, Rollout]:
    """Run `num_envs` copies of `env` for `num_steps` steps each, in one compiled call; ended episodes begin again.

    Args:
        policy: a function, or a `jax.tree_util.Partial` whose bound arguments (parameters) may change without compiling
            again. It also sees the states, for behaviours that know what is hidden.
        key: of starts, actions and steps.
        start: goes on from here, from an earlier call with as many copies; None begins new episodes.

    Returns:
        Where the copies are after the last step, and all steps.
    """
    if not isinstance(policy, jax.tree_util.Partial):
        policy = jax.tree_util.Partial(policy)
    return _rollout(env, policy, key, start, num_envs=num_envs, num_steps=num_steps)


@functools.partial(jax.jit, static_argnames=("num_envs", "num_steps"))
def _rollout(
    env: Any, policy: BatchPolicy, key: jax.Array, start: Running | None, *, num_envs: int, num_steps: int
) -> tuple[Running, Rollout]:
    start_key, steps_key = jax.random.split(key)

    def step(running: Running, step_key: jax.Array) -> tuple[Running, Rollout]:
        act_key, env_key, reset_key = jax.random.split(step_key, 3)
        actions = policy(running.states, running.observations, act_key)
        following, (observations, rewards, terminations, truncations) = advance(
            env, running, actions, env_key, reset_key
        )
        return following, Rollout(running.observations, actions, rewards, terminations, truncations, observations)

    start = begin(env, start_key, num_envs) if start is None else start
    return jax.lax.scan(step, start, jax.random.split(steps_key, num_steps))


class FunctionalEnv(gymnasium.Env[np.ndarray, Any]):
    """A functional environment behind Gymnasium's interface, one step a call; `info["success"]` is its `solved`."""

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012 (gymnasium's own convention)

    def __init__(self, functional: Environment) -> None:
        self.functional = functional
        self.observation_space = spaces.Box(-np.inf, np.inf, (functional.obs_dim,), np.float32)
        self.action_space = functional.actions.gymnasium()

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin an episode."""
        super().reset(seed=seed)
        key = jax.random.key(int(self.np_random.integers(2**31)))
        self._key, self._state, observation = _reset(self.functional, key)
        return np.asarray(observation), {"success": False}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Act for one step."""
        action = np.asarray(action, np.int32 if isinstance(self.functional.actions, Discrete) else np.float32)
        self._key, self._state, *seen = _step(self.functional, self._key, self._state, action)
        observation, reward, terminated, truncated, success = jax.device_get(seen)
        return observation, float(reward), bool(terminated), bool(truncated), {"success": bool(success)}


@jax.jit  # compiled once per kind and size of environment, not once per instance
def _reset(env: Any, key: jax.Array) -> tuple[Any, ...]:
    key, reset_key = jax.random.split(key)
    return key, *env.reset(reset_key)


@jax.jit
def _step(env: Any, key: jax.Array, state: Any, action: jax.Array) -> tuple[Any, ...]:
    key, step_key = jax.random.split(key)
    state, observation, reward, terminated, truncated = env.step(state, action, step_key)
    return key, state, observation, reward, terminated, truncated, env.solved(reward, terminated)
