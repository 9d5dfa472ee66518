"""DeepMind's control suite as Gymnasium environments, with rewards that are functions of the simulator's state alone.

So the reward of any task can be computed afterwards for data that were collected without one, as ExORL does. Walker's
`flip` and quadruped's `stand` and `jump` are not in the suite; they are those of the unsupervised RL benchmark (Laskin
et al. 2021) and of ExORL (Yarats et al. 2022).
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box

from envs.extras import import_extra
from envs.shards import run_shards
from hybridrl.errors import ConfigError

DOMAINS: dict[str, tuple[str, ...]] = {
    "walker": ("stand", "walk", "run", "flip"),
    "quadruped": ("stand", "walk", "run", "jump"),
}
HORIZON = 1000  # control steps: 25 s at 0.025 s for walker, 20 s at 0.02 s for quadruped
_SPEEDS = {"walker": {"walk": 1.0, "run": 8.0}, "quadruped": {"walk": 0.5, "run": 5.0}}  # m/s, of full reward
_STAND_HEIGHT = 1.2  # m, of walker's torso
_SPIN = 5.0  # angular momentum about the lateral axis at which a flip has full reward
_JUMP_HEIGHT = 1.0  # m, of quadruped's centre of mass
_ROWS_PER_SHARD = 20_000


class ControlEnv(gymnasium.Env[np.ndarray, np.ndarray]):
    """One task of the control suite: float32 observations in the suite's order, rewards in [0, 1].

    It never terminates; the suite's time limit of 1000 control steps truncates. Actions have the suite's own bounds,
    which on quadruped are not [-1, 1]: a `TaskEnv` stretches to them, as ExORL's wrapper did for its data.

    Args:
        domain, task: see `DOMAINS`.
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012 (gymnasium's own convention)

    def __init__(self, domain: str, task: str) -> None:
        _check(domain, task)
        self.domain, self.task_name = domain, task
        self.control = _load(domain)
        spec = self.control.action_spec()
        self.action_space = Box(spec.minimum.astype(np.float32), spec.maximum.astype(np.float32))
        shape = _flat(self.control.reset().observation).shape
        self.observation_space = Box(-np.inf, np.inf, shape, np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin an episode at one of the domain's random poses; with a `seed`, as a new environment of it would."""
        super().reset(seed=seed)
        if seed is not None:
            self.control.task.random.seed(seed)
        return _flat(self.control.reset().observation), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Hold `action` `(action_dim,)` for one control step."""
        timestep = self.control.step(action)
        return (
            _flat(timestep.observation),
            reward(self.domain, self.task_name, self.physics),
            False,
            timestep.last(),
            {},
        )

    @property
    def physics(self) -> Any:
        """The simulator."""
        return self.control.physics

    def close(self) -> None:
        """Free the simulator."""
        self.control.close()


def simulator_state(env: Any) -> np.ndarray:
    """The simulator's state `(state_dim,)` in a `TaskEnv` of the suite: positions, velocities and activations."""
    state: np.ndarray = env.env.unwrapped.physics.get_state()
    return state


def reward(domain: str, task: str, physics: Any) -> float:
    """The task's reward in the simulator's present state, in [0, 1].

    Both domains multiply a posture term with one for the motion, which is linear below its full mark.
    """
    tolerance = _tolerance()

    def linear(value: float, full: float, margin: float, at_margin: float) -> float:
        """1 from `full` upwards, falling in a line to `at_margin` at `full - margin`, and 0 below the line."""
        return float(
            tolerance(value, bounds=(full, np.inf), margin=margin, value_at_margin=at_margin, sigmoid="linear")
        )

    if domain == "walker":
        height = tolerance(physics.torso_height(), bounds=(_STAND_HEIGHT, np.inf), margin=_STAND_HEIGHT / 2)
        posture = (3.0 * height + (1.0 + physics.torso_upright()) / 2.0) / 4.0
        if task == "stand":
            return float(posture)
        if task == "flip":
            spin = physics.named.data.subtree_angmom["torso"][1]
            motion = linear(spin, _SPIN, _SPIN, 0.0)
        else:
            speed = _SPEEDS[domain][task]
            motion = linear(physics.horizontal_velocity(), speed, speed / 2.0, 0.5)
        return float(posture * (5.0 * motion + 1.0) / 6.0)
    posture = linear(physics.torso_upright(), 1.0, 2.0, 0.0)
    if task == "stand":
        return posture
    if task == "jump":
        return posture * linear(physics.named.data.subtree_com["torso"][2], _JUMP_HEIGHT, _JUMP_HEIGHT, 0.5)
    speed = _SPEEDS[domain][task]
    return posture * linear(physics.torso_velocity()[0], speed, speed, 0.5)


def rewards_of_states(
    domain: str, tasks: tuple[str, ...], states: np.ndarray, processes: int | None = None
) -> np.ndarray:
    """Rewards `(rows, len(tasks))`, float32, of simulator states `(rows, state_dim)`; many rows are shared out.

    Raises:
        ConfigError: an unknown domain or task.
    """
    for task in tasks:
        _check(domain, task)
    count = max(1, -(-len(states) // _ROWS_PER_SHARD))
    shards = [(domain, tasks, part) for part in np.array_split(np.asarray(states), count)]
    title = f"computing rewards of {domain}"
    return np.concatenate(list(run_shards(_rewards, shards, title=title, processes=processes)))


def relabel(domain: str, task: str, rows: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Rewards and successes (there are none) of the rows that `read_exorl_rows` gives, for `DatasetSpec.relabel`."""
    rewards = rewards_of_states(domain, (task,), rows["next_states"])[:, 0]
    return rewards, np.zeros(len(rewards), bool)


@functools.cache
def _tolerance() -> Any:
    return import_extra("dm_control.utils.rewards").tolerance


def _rewards(domain: str, tasks: tuple[str, ...], states: np.ndarray) -> np.ndarray:
    import mujoco

    control = _load(domain)
    physics = control.physics
    rewards = np.zeros((len(states), len(tasks)), np.float32)
    for row, state in enumerate(states):
        physics.set_state(state)
        mujoco.mj_step1(physics.model.ptr, physics.data.ptr)  # positions, velocities and their sensors; no dynamics
        rewards[row] = [reward(domain, task, physics) for task in tasks]
    control.close()
    return rewards


def _load(domain: str) -> Any:
    """The domain's environment; its own task, "walk", gives the model and the random poses that all tasks share."""
    return import_extra("dm_control.suite").load(domain, "walk", task_kwargs={"random": 0})


def _flat(observation: Any) -> np.ndarray:
    return np.concatenate([np.ravel(part) for part in observation.values()]).astype(np.float32)


def _check(domain: str, task: str) -> None:
    if task not in DOMAINS.get(domain, ()):
        known = "; ".join(f"{name}: {', '.join(tasks)}" for name, tasks in DOMAINS.items())
        raise ConfigError(f"no task {task!r} of the control suite's {domain!r} here; expected one of {known}")
