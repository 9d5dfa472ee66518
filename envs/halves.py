"""A point on a plane whose simulator is wrong on one half: the smallest task with a local dynamics gap.

Niu et al. 2022 train in a simulator that cannot be trusted everywhere. Here it is known where: on the right half the
simulator turns the vertical part of every action upside down, on the left half it is exact.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from envs.functional import Continuous, StepResult

GOAL = (0.7, 0.7)
MOVE = 0.2  # distance of a full action along each axis
HORIZON = 20


class HalvesState(struct.PyTreeNode):
    """Where an episode is."""

    position: jax.Array  # float32 (2,), in [-1, 1]
    steps: jax.Array  # int32 (), taken so far


class Halves(struct.PyTreeNode):
    """Move on [-1, 1]^2 by 0.2 of the action; reward is 1 minus the distance to (0.7, 0.7); cut after 20 steps.

    Episodes start anywhere. Each axis can be walked at its own full speed, so going straight to the goal on both is
    the best at every step, at any discount.
    """

    flawed: bool = struct.field(pytree_node=False, default=False)
    obs_dim: int = struct.field(pytree_node=False, default=2)
    actions: Continuous = struct.field(pytree_node=False, default=Continuous(2))
    horizon: int = struct.field(pytree_node=False, default=HORIZON)

    def reset(self, key: jax.Array) -> tuple[HalvesState, jax.Array]:
        """A uniform start in the square."""
        position = jax.random.uniform(key, (2,), minval=-1.0, maxval=1.0)
        return HalvesState(position=position, steps=jnp.int32(0)), position

    def step(self, state: HalvesState, action: jax.Array, key: jax.Array) -> StepResult:
        """A move, stopped by the walls."""
        action = jnp.clip(action, -1.0, 1.0)
        if self.flawed:
            action = jnp.where(state.position[0] > 0.0, action * jnp.array([1.0, -1.0]), action)
        position = jnp.clip(state.position + MOVE * action, -1.0, 1.0)
        state = HalvesState(position=position, steps=state.steps + 1)
        reward = 1.0 - jnp.linalg.norm(position - jnp.array(GOAL))
        return state, position, reward, jnp.bool_(False), state.steps >= self.horizon

    def solved(self, reward: jax.Array, terminated: jax.Array) -> jax.Array:
        """There is nothing to solve."""
        return jnp.bool_(False)

    def optimal_return(self, starts: np.ndarray) -> np.ndarray:
        """Undiscounted return `(rows,)` of the best episodes from `starts` `(rows, 2)`, in the true plane."""
        gaps = np.abs(np.asarray(starts, np.float64) - np.asarray(GOAL))
        left = np.maximum(gaps[:, None] - MOVE * np.arange(1, HORIZON + 1)[None, :, None], 0.0)
        return np.asarray((1.0 - np.linalg.norm(left, axis=-1)).sum(axis=1))
