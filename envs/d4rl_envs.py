"""D4RL's environments on the maintained ones: its observations, rewards, starts and goals (Fu et al. 2020)."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box

from envs.d4rl_mazes import ANT_MAZES, POINT_MAZES, Layout
from envs.extras import make_gymnasium

SUCCESS_RADIUS = 0.5  # both mazes
CONTACT_FORCES = 84  # entries of Ant-v2's observation that MuJoCo 2.0 and 2.1 leave at zero
ANT_TIMESTEP, ANT_TORQUE = 0.02, 30.0  # of D4RL's ant in the mazes; the maintained one has 0.01 and 150
ANT_SOLIMP = (0.8, 0.8, 0.01, 0.5, 2.0)  # its contacts; the last two are MuJoCo's defaults
POINT_OFFSET = 0.2  # D4RL's point at (row, column) is that far from the middle of the cell, in both directions
KITCHEN_NOISE = 0.1  # share of the noise in the robot's description; the maintained defaults are lower
PEN_DROPPED = 0.075  # height in metres

_Step = tuple[np.ndarray, float, bool, bool, dict[str, Any]]
_Reset = tuple[np.ndarray, dict[str, Any]]


def _box(size: int) -> Box:
    return Box(-np.inf, np.inf, (size,), np.float64)


class Ant(gymnasium.ObservationWrapper):
    """Ant-v5 with Ant-v2's 111 entries: 27 of positions and velocities, and 84 contact forces.

    The forces are zero, as Ant-v2 has them on the versions of MuJoCo that D4RL runs on, and so is their cost.
    """

    def __init__(self) -> None:
        super().__init__(make_gymnasium("Ant-v5", include_cfrc_ext_in_observation=False, contact_cost_weight=0.0))
        self.observation_space = _box(27 + CONTACT_FORCES)

    def observation(self, observation: np.ndarray) -> np.ndarray:
        """`(111,)` from `(27,)`."""
        return np.concatenate([observation, np.zeros(CONTACT_FORCES)])


class _Adapter(gymnasium.Wrapper):
    """A wrapper that reads and sets the simulation's state."""

    @property
    def inner(self) -> Any:
        """The maintained environment itself."""
        return self.unwrapped


class AntMaze(_Adapter):
    """Gymnasium-Robotics' AntMaze with D4RL's ant, maps, starts and goals.

    Observations are the ant's 15 positions and 14 velocities, without the goal; the start is the origin. The reward is
    1 within 0.5 of the goal, where the episode ends, and 0 elsewhere. The goal lies in the map's goal cell, up to 1.5
    from its middle along both axes.

    Args:
        maze: a key of `ANT_MAZES`.
        new_goals: draw a goal at every reset, as D4RL's v2 does; otherwise only when a seed is given.
    """

    def __init__(self, maze: str, new_goals: bool) -> None:
        self.layout = Layout(ANT_MAZES[maze], 4.0, transposed=False)
        super().__init__(
            make_gymnasium(
                "AntMaze_UMaze-v5",
                "gymnasium_robotics",
                maze_map=self.layout.maze_map,
                continuing_task=True,
                include_cfrc_ext_in_observation=False,
            )
        )
        self.new_goals = new_goals
        self.goal: np.ndarray | None = None
        self.start = np.array(self.layout.center(self.layout.find("R")[0]))
        self.observation_space = _box(29)
        model = self.inner.model
        model.opt.timestep = ANT_TIMESTEP
        model.actuator_gear[:, 0] = ANT_TORQUE
        model.geom_solimp[:] = ANT_SOLIMP

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> _Reset:
        """Begin near the origin; see the class on goals."""
        _, info = self.env.reset(seed=seed, options=options)
        rng, ant = self.inner.np_random, self.inner.ant_env
        if self.goal is None or self.new_goals or seed is not None:
            middle = np.array(self.layout.center(self.layout.find("G")[0])) - self.start
            self.goal = np.maximum(middle + rng.uniform(0.0, 1.0, 2) + rng.uniform(0.0, 0.5, 2), 0.0)
        positions = ant.init_qpos.copy()
        positions[:2] = self.start
        ant.set_state(
            positions + rng.uniform(-0.1, 0.1, len(positions)), ant.init_qvel + 0.1 * rng.standard_normal(ant.model.nv)
        )
        return self._observe(), info | {"success": False, "goal": self.goal.copy()}

    def step(self, action: np.ndarray) -> _Step:
        """One step of 0.1 seconds."""
        _, _, _, _, info = self.env.step(action)
        observation = self._observe()
        reached = bool(np.linalg.norm(observation[:2] - self.goal) <= SUCCESS_RADIUS)
        return observation, float(reached), reached, False, info | {"success": reached}

    def _observe(self) -> np.ndarray:
        data = self.inner.data
        observation = np.concatenate([data.qpos[:15], data.qvel[:14]])
        observation[:2] -= self.start
        return observation


def mean_ant_goal(maze: str) -> tuple[float, float]:
    """The middle of what AntMaze draws its goals from, x and y as the ant observes them."""
    layout = Layout(ANT_MAZES[maze], 4.0, transposed=False)
    start, goal = (layout.center(layout.find(mark)[0]) for mark in "RG")
    return max(goal[0] - start[0] + 0.75, 0.0), max(goal[1] - start[1] + 0.75, 0.0)


class PointMaze(_Adapter):
    """Gymnasium-Robotics' PointMaze with D4RL's maps, coordinates and rewards (maze2d).

    Observations are position and velocity in D4RL's axes: x goes with the map's row and y with its column. The goal is
    fixed and never ends the episode. The reward is 1 within 0.5 of it, or `exp(-distance)`.

    Args:
        maze: a key of `POINT_MAZES`.
        reward_type: "sparse" or "dense".
    """

    def __init__(self, maze: str, reward_type: str) -> None:
        self.layout = Layout(POINT_MAZES[maze], 1.0, transposed=True)
        super().__init__(
            make_gymnasium(
                "PointMaze_UMaze-v3", "gymnasium_robotics", maze_map=self.layout.maze_map, continuing_task=True
            )
        )
        self.reward_type = reward_type
        self.goal = np.array(self.layout.find("G")[0], np.float64)
        self.cells = np.array(sorted(self.layout.find(".")) + self.layout.find("G"), np.float64)
        self.origin = np.array(self.layout.center((0, 0))) + POINT_OFFSET
        self.observation_space = _box(4)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> _Reset:
        """Begin within 0.1 of a free cell's coordinates, almost at rest."""
        _, info = self.env.reset(seed=seed, options=options)
        rng = self.inner.np_random
        position = self.cells[rng.integers(len(self.cells))] + rng.uniform(-0.1, 0.1, 2)
        self.inner.point_env.set_state(position + self.origin, 0.1 * rng.standard_normal(2))
        observation = self._observe()
        return observation, info | {"success": self._reached(observation)}

    def step(self, action: np.ndarray) -> _Step:
        """One step of 0.01 seconds."""
        _, _, _, _, info = self.env.step(action)
        observation = self._observe()
        reached = self._reached(observation)
        distance = np.linalg.norm(observation[:2] - self.goal)
        reward = float(reached) if self.reward_type == "sparse" else float(np.exp(-distance))
        return observation, reward, False, False, info | {"success": reached}

    def _reached(self, observation: np.ndarray) -> bool:
        return bool(np.linalg.norm(observation[:2] - self.goal) <= SUCCESS_RADIUS)

    def _observe(self) -> np.ndarray:
        data = self.inner.data
        return np.concatenate([data.qpos - self.origin, data.qvel])


class Kitchen(_Adapter):
    """FrankaKitchen with D4RL's 60 entries: 9 robot and 21 object positions, and 30 of the goal (zeros and targets).

    The reward is the number of subtasks solved so far in the episode, as in the data and in the environment of the
    papers that fine-tune on them (D4RL's own pays 1 at the step that solves one); `info["solved"]` is the number that
    this step solved. All four end the episode through the task, not here.

    Args:
        subtasks: what counts, by Gymnasium-Robotics' names.
    """

    def __init__(self, subtasks: tuple[str, ...]) -> None:
        super().__init__(
            make_gymnasium(
                "FrankaKitchen-v1",
                "gymnasium_robotics",
                tasks_to_complete=list(subtasks),
                terminate_on_tasks_completed=False,
                robot_noise_ratio=KITCHEN_NOISE,
                object_noise_ratio=KITCHEN_NOISE,
            )
        )
        from gymnasium_robotics.envs.franka_kitchen.kitchen_env import OBS_ELEMENT_INDICES

        self.goal = np.zeros(30)
        for name, target in self.inner.goal.items():
            self.goal[OBS_ELEMENT_INDICES[name]] = target
        self.observation_space = _box(60)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> _Reset:
        """Begin with nothing solved."""
        observation, info = self.env.reset(seed=seed, options=options)
        return self._layout(observation), info | {"success": False, "solved": 0.0}

    def step(self, action: np.ndarray) -> _Step:
        """One step of 1/12.5 seconds."""
        observation, solved, _, _, info = self.env.step(action)
        count = len(info["episode_task_completions"])
        info = info | {"solved": float(solved), "success": count == len(self.inner.goal)}
        return self._layout(observation), float(count), False, False, info

    def _layout(self, observation: dict[str, np.ndarray]) -> np.ndarray:
        parts = observation["observation"]  # 9 positions and 9 velocities of the robot, 21 and 20 of the objects
        return np.concatenate([parts[:9], parts[18:39], self.goal])


class Adroit(_Adapter):
    """The AdroitHand environments with D4RL's rewards and ends.

    Rewards are computed here, as some of the maintained v1's have another sign. The dense ones are those of Rajeswaran
    et al. (2018); the sparse ones are 0 where the goal is achieved and -1 elsewhere. With dense rewards, dropping the
    pen ends the episode.

    Args:
        hand: "pen", "hammer", "door" or "relocate".
        reward_type: "dense" or "sparse".
    """

    def __init__(self, hand: str, reward_type: str) -> None:
        super().__init__(make_gymnasium(f"AdroitHand{hand.title()}-v1", "gymnasium_robotics"))
        self.hand, self.reward_type = hand, reward_type

    def step(self, action: np.ndarray) -> _Step:
        """One step; `info["success"]` says whether the goal is achieved in this very step."""
        observation, _, _, _, info = self.env.step(action)
        success = bool(info["success"])
        if self.reward_type == "sparse":
            return observation, float(success) - 1.0, False, False, info | {"success": success}
        reward, terminated = getattr(self, f"_{self.hand}")()
        return observation, float(reward), terminated, False, info | {"success": success}

    def _body(self, name: str) -> np.ndarray:
        return self.inner.data.body(name).xpos

    def _site(self, name: str) -> np.ndarray:
        return self.inner.data.site(name).xpos

    def _pen(self) -> tuple[float, bool]:
        env = self.inner
        pen = self._body("Object")
        distance = _norm(pen - self._site("eps_ball"))
        axis = (self._site("object_top") - self._site("object_bottom")) / env.pen_length
        aim = (self._site("target_top") - self._site("target_bottom")) / env.tar_length
        alike = float(axis @ aim)
        reward = alike - distance
        reward += 10.0 * (distance < 0.075 and alike > 0.9) + 50.0 * (distance < 0.075 and alike > 0.95)
        dropped = bool(pen[2] < PEN_DROPPED)
        return reward - 5.0 * dropped, dropped

    def _hammer(self) -> tuple[float, bool]:
        handle, head, nail = self._body("Object"), self._site("tool"), self._site("S_target")
        depth = _norm(nail - self._site("nail_goal"))
        reward = -0.1 * _norm(self._site("S_grasp") - handle) - _norm(head - nail) - 10.0 * depth
        reward -= 0.01 * _norm(self.inner.data.qvel)
        reward += 2.0 * (handle[2] > 0.04 and head[2] > 0.04) + 25.0 * (depth < 0.02) + 75.0 * (depth < 0.01)
        return reward, False

    def _door(self) -> tuple[float, bool]:
        data = self.inner.data
        angle = float(data.joint("door_hinge").qpos[0])
        reward = -0.1 * _norm(self._site("S_grasp") - self._site("S_handle")) - 0.1 * (angle - 1.57) ** 2
        reward -= 1e-5 * float(np.sum(data.qvel**2))
        return reward + 2.0 * (angle > 0.2) + 8.0 * (angle > 1.0) + 10.0 * (angle > 1.35), False

    def _relocate(self) -> tuple[float, bool]:
        ball, palm, target = self._body("Object"), self._site("S_grasp"), self._site("target")
        distance = _norm(ball - target)
        reward = -0.1 * _norm(palm - ball)
        if ball[2] > 0.04:
            reward += 1.0 - 0.5 * _norm(palm - target) - 0.5 * distance
        return reward + 10.0 * (distance < 0.1) + 20.0 * (distance < 0.05), False


def _norm(vector: np.ndarray) -> float:
    return float(np.linalg.norm(vector))
