"""Task families for meta-learning: tasks that share states and actions and differ in reward or in dynamics.

The families are those of Meta-DT (Wang et al. 2024), with its rewards, parameter ranges, splits and horizons. The
parameters of each task are drawn once from a fixed seed, so that task 7 of a family is the same everywhere. Meta-DT
hands its own out by file-sharing link only; where its code fixes the draw (hopper-param, cheetah-dir, reach), ours is
the same draw, and elsewhere another one of the same law. No episode ever terminates; the horizon truncates.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import pickle
from collections.abc import Callable, Mapping
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box

from envs.extras import import_extra, make_gymnasium
from envs.shifted import refresh_constants
from hybridrl.errors import ConfigError

ALIVE_REWARD = 1.0  # of Ant-Dir, Hopper-Param and Walker-Param, at every step, fallen or not
POINT_STEP = 0.1  # the largest move of the point robot in one step, per axis
POINT_HORIZON = 20


@dataclasses.dataclass(frozen=True)
class TaskFamily:
    """A distribution over tasks, with its published split.

    Attributes:
        name: as in `family/<name>/<index>-v0`.
        num_tasks: how many tasks there are.
        train, test: their indices; together all of them, none in both.
        horizon: the time limit in steps.
        obs_dim, action_dim: of every task.
        draw: the parameters of all tasks, one mapping each; cached.
        build: an environment from one task's parameters.
        bounds: raw returns that count as 0 and 100, from one task's parameters; None where success is the score.
        score_label: what the score means.
    """

    name: str
    num_tasks: int
    train: tuple[int, ...]
    test: tuple[int, ...]
    horizon: int
    obs_dim: int
    action_dim: int
    draw: Callable[[], tuple[Mapping[str, Any], ...]]
    build: Callable[[Mapping[str, Any]], gymnasium.Env[Any, Any]]
    bounds: Callable[[Mapping[str, Any]], tuple[float, float]] | None
    score_label: str

    def __post_init__(self) -> None:
        """Reject a split that is none."""
        if sorted((*self.train, *self.test)) != list(range(self.num_tasks)):
            raise ConfigError(f"family {self.name!r}: train and test do not divide the tasks 0 to {self.num_tasks - 1}")

    def parameters(self, index: int) -> Mapping[str, Any]:
        """What distinguishes task `index`: a goal, a velocity, a direction or multipliers of the robot's model.

        Raises:
            ConfigError: there is no such task.
        """
        if not 0 <= index < self.num_tasks:
            raise ConfigError(f"family {self.name!r}: no task {index}; expected 0 to {self.num_tasks - 1}")
        return self.draw()[index]

    def make(self, index: int) -> gymnasium.Env[Any, Any]:
        """The environment of task `index`, without a time limit."""
        return self.build(self.parameters(index))


class PointRobot(gymnasium.Env[np.ndarray, np.ndarray]):
    """A point that starts at the origin of the plane, moves by its action, and pays its distance to an unseen goal."""

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012 (gymnasium's own convention)

    def __init__(self, goal: np.ndarray) -> None:
        self.goal = goal
        self.observation_space = Box(-np.inf, np.inf, (2,), np.float64)
        self.action_space = Box(-POINT_STEP, POINT_STEP, (2,), np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Back to the origin."""
        super().reset(seed=seed)
        self._position = np.zeros(2)
        return self._position.copy(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Move, then pay the distance from where that led."""
        self._position = self._position + np.clip(np.asarray(action, np.float64), -POINT_STEP, POINT_STEP)
        return self._position.copy(), -float(np.linalg.norm(self._position - self.goal)), False, False, {}


class CheetahTask(gymnasium.Wrapper[Any, Any, Any, Any]):
    """HalfCheetah with the reward `objective(velocity) - 0.05 * |action|**2`.

    Observations `(20,)` are the positions without x, the velocities, and the torso's position in the world.
    """

    CONTROL_COST = 0.05

    def __init__(self, objective: Callable[[float], float]) -> None:
        super().__init__(make_gymnasium("HalfCheetah-v5", ctrl_cost_weight=self.CONTROL_COST))
        self.objective = objective
        self.observation_space = Box(-np.inf, np.inf, (20,), np.float64)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode."""
        observation, info = self.env.reset(seed=seed, options=options)
        return self._observe(observation), info

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """As HalfCheetah, with this task's reward."""
        observation, _, _, _, info = self.env.step(action)
        return self._observe(observation), self.objective(info["x_velocity"]) + info["reward_ctrl"], False, False, info

    def _observe(self, observation: np.ndarray) -> np.ndarray:
        inner: Any = self.env.unwrapped
        return np.concatenate([observation, inner.data.body("torso").xpos])


class AntDirection(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Ant that is paid for its velocity along an angle; never ends, also when it has fallen. Observations `(27,)`."""

    def __init__(self, angle: float) -> None:
        super().__init__(
            make_gymnasium("Ant-v5", terminate_when_unhealthy=False, include_cfrc_ext_in_observation=False)
        )
        self.direction = np.array([math.cos(angle), math.sin(angle)])

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """As Ant, with this task's reward; control weighs 0.5 and contact 0.0005 as in Ant itself."""
        observation, _, _, _, info = self.env.step(action)
        progress = float(self.direction @ [info["x_velocity"], info["y_velocity"]])
        reward = progress + info["reward_ctrl"] + info["reward_contact"] + ALIVE_REWARD
        return observation, float(reward), False, False, info


class RandomRobot(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Hopper or Walker2d with its masses, inertias, dampings and frictions multiplied entry by entry.

    The reward is the forward velocity plus 1 minus `0.001 * |action|**2`; never ends, also when it has fallen. The time
    step is twice that of Gymnasium's robots (0.016 s per action), as in the rand_param_envs package. Constants that
    MuJoCo derives from masses are computed anew; that package left them as they were.
    """

    TIMESTEP = 0.004

    def __init__(self, env_id: str, multipliers: Mapping[str, np.ndarray], **kwargs: Any) -> None:
        super().__init__(make_gymnasium(env_id, terminate_when_unhealthy=False, **kwargs))
        model: Any = self.env.unwrapped.model  # type: ignore[attr-defined]
        for field, factors in multipliers.items():
            getattr(model, field)[:] *= factors
        model.opt.timestep = self.TIMESTEP
        refresh_constants(model)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """As the robot itself, paid for being there also when it has fallen."""
        observation, _, _, _, info = self.env.step(action)
        return observation, float(info["x_velocity"] + ALIVE_REWARD + info["reward_ctrl"]), False, False, info


class Reach(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Meta-World's reach with one goal, which the observation `(39,)` does not show."""

    def __init__(self, placement: np.ndarray) -> None:
        metaworld = import_extra("metaworld")
        cls = metaworld.ALL_V3_ENVIRONMENTS["reach-v3"]
        env = cls()
        settings = {"rand_vec": placement, "env_cls": cls, "partially_observable": True}
        env.set_task(
            metaworld.Task(env_name="reach-v3", data=pickle.dumps(settings))
        )  # how its benchmarks hand out goals
        super().__init__(env)


def _goal_bounds(parameters: Mapping[str, Any]) -> tuple[float, float]:
    """Returns of standing still and of the shortest way: each axis closes in by a full step until it is there."""
    goal = np.abs(parameters["goal"])
    steps = np.arange(1, POINT_HORIZON + 1)[:, None]
    distances = np.linalg.norm(np.maximum(goal - POINT_STEP * steps, 0.0), axis=-1)
    return -POINT_HORIZON * float(np.linalg.norm(goal)), -float(distances.sum())


def _velocity_error(velocity: float, *, target: float) -> float:
    return -abs(velocity - target)


def _signed(velocity: float, *, direction: float) -> float:
    return direction * velocity


def _cheetah_velocity(parameters: Mapping[str, Any]) -> CheetahTask:
    return CheetahTask(functools.partial(_velocity_error, target=parameters["velocity"]))


def _cheetah_direction(parameters: Mapping[str, Any]) -> CheetahTask:
    return CheetahTask(functools.partial(_signed, direction=parameters["direction"]))


def _ant_direction(parameters: Mapping[str, Any]) -> AntDirection:
    return AntDirection(parameters["angle"])


def _point_robot(parameters: Mapping[str, Any]) -> PointRobot:
    return PointRobot(parameters["goal"])


def _hopper(parameters: Mapping[str, Any]) -> RandomRobot:
    return RandomRobot("Hopper-v5", parameters)


def _walker(parameters: Mapping[str, Any]) -> RandomRobot:
    # The older model, one of whose feet has half the friction of the other, as in rand_param_envs.
    return RandomRobot("Walker2d-v5", parameters, xml_file="walker2d.xml")


def _reach(parameters: Mapping[str, Any]) -> Reach:
    return Reach(np.concatenate([parameters["object"], parameters["goal"]]))


@functools.lru_cache
def _draw_goals() -> tuple[Mapping[str, Any], ...]:
    return tuple({"goal": goal} for goal in np.random.RandomState(3407).uniform(-1.0, 1.0, (50, 2)))


@functools.lru_cache
def _draw_velocities() -> tuple[Mapping[str, Any], ...]:
    """Uniform as the later paper of Meta-DT's group states; its code has a grid of 40, see `_grid_of_velocities`."""
    return tuple({"velocity": float(value)} for value in np.random.RandomState(1337).uniform(0.075, 3.0, 50))


@functools.lru_cache
def _grid_of_velocities() -> tuple[Mapping[str, Any], ...]:
    return tuple({"velocity": float(value)} for value in np.linspace(0.075, 3.0, 40))


@functools.lru_cache
def _directions() -> tuple[Mapping[str, Any], ...]:
    return tuple({"direction": direction} for direction in (1.0, -1.0, 1.0, -1.0))


@functools.lru_cache
def _draw_angles() -> tuple[Mapping[str, Any], ...]:
    return tuple({"angle": float(angle)} for angle in np.random.RandomState(412).uniform(0.0, 2.0 * math.pi, 50))


@functools.lru_cache
def _draw_multipliers(bodies: int, joints: int, geoms: int) -> tuple[Mapping[str, Any], ...]:
    """Factors `base ** u`, u uniform in [-3, 3], for every entry, task by task in the order of Meta-DT's code."""
    rng = np.random.RandomState(1234)
    shapes = {
        "body_mass": (1.5, (bodies,)),
        "body_inertia": (1.5, (bodies, 3)),
        "dof_damping": (1.3, (joints,)),
        "geom_friction": (1.5, (geoms, 3)),
    }
    return tuple(
        {field: base ** rng.uniform(-3.0, 3.0, shape) for field, (base, shape) in shapes.items()} for _ in range(50)
    )


@functools.lru_cache
def _draw_placements() -> tuple[Mapping[str, Any], ...]:
    """The first 20 goals of Meta-World's ML1 reach with seed 3407, drawn as it does: every second placement is kept."""
    rng = np.random.RandomState(3407)
    low, high = (-0.1, 0.6, 0.02, -0.1, 0.8, 0.05), (0.1, 0.7, 0.02, 0.1, 0.9, 0.3)
    placements: list[np.ndarray] = []
    while len(placements) < 40:
        placement = rng.uniform(low, high)
        if np.linalg.norm(placement[:2] - placement[3:5]) >= 0.15:  # the object does not lie under the goal
            placements.append(placement)
    return tuple({"object": placement[:3], "goal": placement[3:]} for placement in placements[1::2])


def _first(train: int, num_tasks: int) -> dict[str, Any]:
    return {"num_tasks": num_tasks, "train": tuple(range(train)), "test": tuple(range(train, num_tasks))}


_SPEED = "mean speed the right way in m/s, times 100, costs taken off (0 standing still)"
_GRID_TEST = (2, 7, 15, 23, 26)  # Prompt-DT's split of the 40 velocities (Xu et al. 2022)
_STEPS = 200  # horizon of the MuJoCo families


def _per_step(base: float) -> Callable[[Mapping[str, Any]], tuple[float, float]]:
    """Bounds for rewards that are a speed plus `base`: standing still, and 1 m/s."""
    return lambda parameters: (_STEPS * base, _STEPS * (base + 1.0))


def _velocity_bounds(parameters: Mapping[str, Any]) -> tuple[float, float]:
    return -_STEPS * parameters["velocity"], 0.0


_VELOCITY: dict[str, Any] = {
    "horizon": _STEPS,
    "obs_dim": 20,
    "action_dim": 6,
    "build": _cheetah_velocity,
    "bounds": _velocity_bounds,
    "score_label": "normalised return (0 standing still, 100 the target velocity from the first step on)",
}

FAMILIES: dict[str, TaskFamily] = {
    family.name: family
    for family in (
        TaskFamily(
            name="point-robot",
            **_first(45, 50),
            horizon=POINT_HORIZON,
            obs_dim=2,
            action_dim=2,
            draw=_draw_goals,
            build=_point_robot,
            bounds=_goal_bounds,
            score_label="normalised return (0 standing still, 100 the shortest way)",
        ),
        TaskFamily(name="cheetah-vel", **_first(45, 50), draw=_draw_velocities, **_VELOCITY),
        TaskFamily(
            name="cheetah-vel-grid",
            num_tasks=40,
            train=tuple(index for index in range(40) if index not in _GRID_TEST),
            test=_GRID_TEST,
            draw=_grid_of_velocities,
            **_VELOCITY,
        ),
        TaskFamily(
            name="cheetah-dir",
            **_first(2, 4),
            horizon=_STEPS,
            obs_dim=20,
            action_dim=6,
            draw=_directions,
            build=_cheetah_direction,
            bounds=_per_step(0.0),
            score_label=_SPEED,
        ),
        TaskFamily(
            name="ant-dir",
            **_first(45, 50),
            horizon=_STEPS,
            obs_dim=27,
            action_dim=8,
            draw=_draw_angles,
            build=_ant_direction,
            bounds=_per_step(ALIVE_REWARD),
            score_label=_SPEED,
        ),
        TaskFamily(
            name="hopper-param",
            **_first(45, 50),
            horizon=_STEPS,
            obs_dim=11,
            action_dim=3,
            draw=functools.partial(_draw_multipliers, bodies=5, joints=6, geoms=5),
            build=_hopper,
            bounds=_per_step(ALIVE_REWARD),
            score_label=_SPEED,
        ),
        TaskFamily(
            name="walker-param",
            **_first(45, 50),
            horizon=_STEPS,
            obs_dim=17,
            action_dim=6,
            draw=functools.partial(_draw_multipliers, bodies=8, joints=9, geoms=8),
            build=_walker,
            bounds=_per_step(ALIVE_REWARD),
            score_label=_SPEED,
        ),
        TaskFamily(
            name="reach",
            **_first(15, 20),
            horizon=500,
            obs_dim=39,
            action_dim=4,
            draw=_draw_placements,
            build=_reach,
            bounds=None,
            score_label="success rate (%)",
        ),
    )
}
