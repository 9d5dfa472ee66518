"""Tiny MDPs in pure JAX with answers known on paper, on the interface of `envs.functional`.

Each comes with its optimal value function: of the environment's own reward by default, and of
`reward_scale * reward + reward_shift` where given, which is what an agent learns in a task.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from gymnasium.spaces import Box

from envs.functional import Continuous, FunctionalEnv, StepResult
from hybridrl.errors import ConfigError

BANDIT_BEST_ACTION = 0.5
REACH_GOAL = 0.8  # success beyond it
REACH_MOVE = 0.2  # distance of a full action
REACH_HORIZON = 20


class ProbeState(struct.PyTreeNode):
    """Where an episode is."""

    position: jax.Array  # float32 ()
    steps: jax.Array  # int32 (), taken so far


class Bandit(struct.PyTreeNode):
    """One step with reward `1 - (a - 0.5)**2`, and the end. The best action is 0.5, of value 1 at any discount."""

    obs_dim: int = struct.field(pytree_node=False, default=1)
    actions: Continuous = struct.field(pytree_node=False, default=Continuous(1))
    horizon: int = struct.field(pytree_node=False, default=1)

    def reset(self, key: jax.Array) -> tuple[ProbeState, jax.Array]:
        """The only state, observed as 0."""
        state = ProbeState(position=jnp.float32(0.0), steps=jnp.int32(0))
        return state, _observe(state)

    def step(self, state: ProbeState, action: jax.Array, key: jax.Array) -> StepResult:
        """Reward for the action, and a termination."""
        state = state.replace(steps=state.steps + 1)
        reward = 1.0 - jnp.square(action[0] - BANDIT_BEST_ACTION)
        return state, _observe(state), reward.astype(jnp.float32), jnp.bool_(True), jnp.bool_(False)

    def solved(self, reward: jax.Array, terminated: jax.Array) -> jax.Array:
        """Every termination is a success."""
        return terminated

    def optimal_value(
        self, observations: np.ndarray, discount: float, reward_scale: float = 1.0, reward_shift: float = 0.0
    ) -> np.ndarray:
        """`V*`, `(rows,)` for observations `(rows, 1)`."""
        return np.full(len(observations), reward_scale * 1.0 + reward_shift)


class Chain(struct.PyTreeNode):
    """Two steps, -1 then +1 then the end, with reward 1 on the last: `V*(-1) = discount`, `V*(+1) = 1`."""

    obs_dim: int = struct.field(pytree_node=False, default=1)
    actions: Continuous = struct.field(pytree_node=False, default=Continuous(1))
    horizon: int = struct.field(pytree_node=False, default=2)

    def reset(self, key: jax.Array) -> tuple[ProbeState, jax.Array]:
        """The state -1."""
        state = ProbeState(position=jnp.float32(-1.0), steps=jnp.int32(0))
        return state, _observe(state)

    def step(self, state: ProbeState, action: jax.Array, key: jax.Array) -> StepResult:
        """On to +1, or to the end; the action does not matter."""
        last = state.position > 0
        state = ProbeState(position=jnp.float32(1.0), steps=state.steps + 1)
        return state, _observe(state), last.astype(jnp.float32), last, jnp.bool_(False)

    def solved(self, reward: jax.Array, terminated: jax.Array) -> jax.Array:
        """Every termination is a success."""
        return terminated

    def optimal_value(
        self, observations: np.ndarray, discount: float, reward_scale: float = 1.0, reward_shift: float = 0.0
    ) -> np.ndarray:
        """`V*`, `(rows,)` for observations `(rows, 1)`."""
        last = reward_scale + reward_shift
        return np.where(np.asarray(observations)[:, 0] > 0, last, reward_shift + discount * last)


class Reach(struct.PyTreeNode):
    """Move right on [-1, 1] by 0.2 of the action; reward 1 and the end beyond 0.8, else 0; cut after 20 steps.

    An episode starts uniformly in [-1, 0]. The best action is 1 everywhere. From x it needs
    `n = floor((0.8 - x) / 0.2) + 1` steps, at most 10, so that `V*(x) = discount**(n - 1)`.
    """

    obs_dim: int = struct.field(pytree_node=False, default=1)
    actions: Continuous = struct.field(pytree_node=False, default=Continuous(1))
    horizon: int = struct.field(pytree_node=False, default=REACH_HORIZON)

    def reset(self, key: jax.Array) -> tuple[ProbeState, jax.Array]:
        """A uniform start in [-1, 0]."""
        state = ProbeState(position=jax.random.uniform(key, (), minval=-1.0, maxval=0.0), steps=jnp.int32(0))
        return state, _observe(state)

    def step(self, state: ProbeState, action: jax.Array, key: jax.Array) -> StepResult:
        """A move, stopped by the walls at -1 and 1."""
        position = jnp.clip(state.position + REACH_MOVE * jnp.clip(action[0], -1.0, 1.0), -1.0, 1.0)
        state = ProbeState(position=position, steps=state.steps + 1)
        success = position > REACH_GOAL
        truncated = ~success & (state.steps >= self.horizon)
        return state, _observe(state), success.astype(jnp.float32), success, truncated

    def solved(self, reward: jax.Array, terminated: jax.Array) -> jax.Array:
        """Every termination is a success."""
        return terminated

    def optimal_value(
        self, observations: np.ndarray, discount: float, reward_scale: float = 1.0, reward_shift: float = 0.0
    ) -> np.ndarray:
        """`V*`, `(rows,)` for observations `(rows, 1)`, of states from which 20 steps are left to go."""
        steps = np.floor((REACH_GOAL - np.asarray(observations, np.float64)[:, 0]) / REACH_MOVE) + 1
        before = discount ** (steps - 1)  # the discount of the step that succeeds
        waiting = reward_shift * (steps - 1 if discount == 1.0 else (1.0 - before) / (1.0 - discount))
        return waiting + before * (reward_scale + reward_shift)


PROBES: dict[str, Bandit | Chain | Reach] = {
    "probe/bandit-v0": Bandit(),
    "probe/chain-v0": Chain(),
    "probe/reach-v0": Reach(),
}


class ProbeEnv(FunctionalEnv):
    """The probe of a name behind Gymnasium's interface."""

    def __init__(self, name: str) -> None:
        if name not in PROBES:
            raise ConfigError(f"no probe {name!r}; expected one of {sorted(PROBES)}")
        self.probe = PROBES[name]
        super().__init__(self.probe)
        self.observation_space = Box(-1.0, 1.0, (self.probe.obs_dim,), np.float32)


def _observe(state: ProbeState) -> jax.Array:
    return state.position[None]
