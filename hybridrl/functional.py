"""Environments as pure functions: what one offers, and stepping many copies of it on the device.

    state, observation = env.reset(key)
    state, observation, reward, terminated, truncated = env.step(state, action, key)

An environment is a pytree: its arrays are leaves, its sizes are static.
"""

from __future__ import annotations

from typing import Any, Protocol, TypeVar

import jax
import jax.numpy as jnp
from flax import struct

CopiesT = TypeVar("CopiesT")
StepResult = tuple[Any, jax.Array, jax.Array, jax.Array, jax.Array]


class Environment(Protocol):
    """An episodic decision process with observations `(obs_dim,)`; a pytree."""

    @property
    def obs_dim(self) -> int:
        """Width of an observation."""
        ...

    @property
    def actions(self) -> Any:
        """What can be done: an `envs.functional.Continuous` or `Discrete`."""
        ...

    @property
    def horizon(self) -> int:
        """The most steps an episode can take."""
        ...

    def reset(self, key: jax.Array) -> tuple[Any, jax.Array]:
        """A first state (a pytree) and its observation `(obs_dim,)`, float32."""
        ...

    def step(self, state: Any, action: jax.Array, key: jax.Array) -> StepResult:
        """The next state and its observation, the reward `()`, and whether the episode terminated or was truncated.

        The observation is that of the state reached, also at an episode's end; starting again is the caller's part.
        """
        ...

    def solved(self, reward: jax.Array, terminated: jax.Array) -> jax.Array:
        """Whether the step that gave these solved the task, bool `()`; always false without a notion of success."""
        ...


class Running(struct.PyTreeNode):
    """Where `num_envs` copies of an environment are, each in an unfinished episode."""

    states: Any  # leaves (num_envs, ...)
    observations: jax.Array  # (num_envs, obs_dim)


def begin(env: Environment, key: jax.Array, num_envs: int) -> Running:
    """`num_envs` copies of `env` at the start of an episode."""
    return Running(*jax.vmap(env.reset)(jax.random.split(key, num_envs)))


def advance(
    env: Environment, running: Running, actions: jax.Array, step_key: jax.Array, reset_key: jax.Array
) -> tuple[Running, tuple[jax.Array, jax.Array, jax.Array, jax.Array]]:
    """One step of all copies; those whose episode ended begin again.

    Args:
        actions: one per copy, `(num_envs, ...)`.

    Returns:
        Where the copies are now, and what the step gave: the observations it led to `(num_envs, obs_dim)`, before any
        restart, rewards, terminations and truncations, each `(num_envs,)`.
    """
    num_envs = len(actions)
    states, observations, rewards, terminations, truncations = jax.vmap(env.step)(
        running.states, actions, jax.random.split(step_key, num_envs)
    )
    ended = terminations | truncations
    reached = Running(states, observations)
    # Copies that end together, as in a fixed horizon, pay for a restart once an episode and not at every step.
    following = jax.lax.cond(
        ended.any(), lambda: select_copies(ended, begin(env, reset_key, num_envs), reached), lambda: reached
    )
    return following, (observations, rewards, terminations, truncations)


def select_copies(which: jax.Array, new: CopiesT, old: CopiesT) -> CopiesT:
    """`new` where `which` `(num_envs,)` is true, else `old`: pytrees with leaves `(num_envs, ...)`."""

    def pick(new_leaf: jax.Array, old_leaf: jax.Array) -> jax.Array:
        return jnp.where(jnp.expand_dims(which, tuple(range(1, new_leaf.ndim))), new_leaf, old_leaf)

    return jax.tree.map(pick, new, old)
