"""The point-maze datasets made again by their published procedures, which need no learned policy.

Both environments are stepped through MuJoCo directly, which gives the very states that `env.step` gives (tested) at a
multiple of its speed. The work is cut into a fixed number of pieces with seeds of their own, so that the data do not
depend on the number of processes.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from envs.extras import make_gymnasium
from envs.minari_files import Episode, write_minari
from envs.ogbench_files import split_sizes, write_ogbench
from envs.shards import Progress, run_shards
from hybridrl.errors import ConfigError

UMAZE_SHARDS = 8
CELL_SIZE = 4.0  # OGBench's mazes; the centre of cell (row 1, column 1) is the origin
POINT_NOISE = 0.5  # standard deviation added to each action component, in both benchmarks
MAX_SPEED = 5.0  # PointMaze clips the velocity before each step
GOAL_RADIUS = 0.45  # PointMaze
OGBENCH_GOAL_RADIUS = 1.0
NEIGHBOURS = ((-1, 0), (0, -1), (1, 0), (0, 1))
# maze -> (episodes, steps per episode) of the published training sets; the validation sets have a tenth
OGBENCH_SIZES = {
    ("medium", "navigate"): (1000, 1000),
    ("medium", "stitch"): (5000, 200),
    ("large", "navigate"): (1000, 1000),
    ("large", "stitch"): (5000, 200),
    ("giant", "navigate"): (500, 2000),
    ("giant", "stitch"): (5000, 200),
    ("teleport", "navigate"): (1000, 1000),
    ("teleport", "stitch"): (5000, 200),
}
OGBENCH_SHARDS = 32  # a kill loses a few seconds of work


# D4RL's PointMaze in its maintained form ------------------------------------------------------------------------------


def generate_pointmaze_umaze(
    folder: Path,
    *,
    steps: int = 1_000_000,
    seed: int = 123,
    processes: int | None = None,
    progress: Progress | None = None,
) -> None:
    """Write `D4RL/pointmaze/umaze-v2` by the procedure it was published with (Fu et al. 2020; Minari's script).

    A controller with noise runs from goal to goal without resets; each success ends an episode with a truncation, and
    the next one begins where it ended. As in the published set, an episode's first observation (after the first) still
    shows the goal just reached, because the environment draws the next one after forming the observation.

    Departure: eight streams of 125,000 steps in place of one of 1,000,000, so eight unfinished episodes and not one
    end the streams; they are marked as truncated. The numbers are not those of the published file, their law is.

    Args:
        folder: an empty folder, which becomes the dataset's in Minari's layout.
        steps: transitions to record, a multiple of eight.
        seed: of the whole set.
        processes, progress: see `run_shards`.
    """
    if steps <= 0 or steps % UMAZE_SHARDS:
        raise ConfigError(f"steps={steps}; expected a positive multiple of {UMAZE_SHARDS}, the number of streams")
    shards = [(seed, index, steps // UMAZE_SHARDS) for index in range(UMAZE_SHARDS)]
    title = "making D4RL/pointmaze/umaze-v2"
    parts = run_shards(_umaze_stream, shards, title=title, processes=processes, progress=progress)
    env = _umaze_env()
    spec = env.spec
    spec.max_episode_steps = 1_000_000
    write_minari(
        Path(folder),
        "D4RL/pointmaze/umaze-v2",
        (episode for part in parts for episode in _umaze_episodes(part)),
        observation_space=env.observation_space,
        action_space=env.action_space,
        env_spec=spec,
        algorithm_name="waypoint controller",
        description=f"Made again by the published procedure (seed {seed}, {UMAZE_SHARDS} streams).",
        requirements=("mujoco", "gymnasium-robotics>=1.4"),
    )
    env.close()


def _umaze_env() -> Any:
    return make_gymnasium("PointMaze_UMaze-v3", "gymnasium_robotics", continuing_task=True, reset_target=True)


def _umaze_stream(seed: int, index: int, steps: int) -> dict[str, np.ndarray]:
    """`steps` steps of one uninterrupted stream.

    Returns:
        `states` (steps + 1, 4), `goals` (steps + 1, 2) as the observations show them, `actions` (steps, 2), `successes`
        (steps,).
    """
    import mujoco

    env = _umaze_env().unwrapped
    rng = np.random.default_rng([seed, index])
    env.reset(seed=int(rng.integers(2**31)))
    controller = WaypointController(env.maze, rng)
    model, data = env.point_env.model, env.point_env.data
    qpos, qvel, ctrl = data.qpos, data.qvel, data.ctrl
    noise = rng.normal(0.0, POINT_NOISE, (steps, 2)).tolist()
    goal = env.goal.tolist()
    states, goals, actions, successes = [[*qpos.tolist(), *qvel.tolist()]], [goal], [], []
    shown = goal  # what the observation says, one step late after a success
    for noise_x, noise_y in noise:
        x, y, vx, vy = states[-1]
        force_x, force_y = controller.act(x, y, vx, vy, shown)
        force_x, force_y = _clip(force_x + noise_x), _clip(force_y + noise_y)
        ctrl[:] = actions_32 = np.array((force_x, force_y), np.float32)
        if abs(vx) > MAX_SPEED or abs(vy) > MAX_SPEED:
            np.clip(qvel, -MAX_SPEED, MAX_SPEED, out=qvel)
        mujoco.mj_step(model, data)
        state = [*qpos.tolist(), *qvel.tolist()]
        success = math.hypot(state[0] - goal[0], state[1] - goal[1]) <= GOAL_RADIUS
        shown = goal
        if success:
            env.update_goal(qpos.copy())
            goal = env.goal.tolist()
        states.append(state)
        goals.append(shown)
        actions.append(actions_32)
        successes.append(success)
    return {
        "states": np.array(states),
        "goals": np.array(goals),
        "actions": np.array(actions),
        "successes": np.array(successes),
    }


def _umaze_episodes(stream: dict[str, np.ndarray]) -> Iterator[Episode]:
    """Cut a stream after each success."""
    states, goals, actions, successes = (stream[key] for key in ("states", "goals", "actions", "successes"))
    ends = np.flatnonzero(successes) + 1
    if len(ends) == 0 or ends[-1] != len(successes):
        ends = np.append(ends, len(successes))
    # A stream's first state may already be at its goal, which no step has reached.
    reached = np.concatenate([[np.linalg.norm(states[0, :2] - goals[0]) <= GOAL_RADIUS], successes])
    start = 0
    for end in ends.tolist():
        rows = slice(start, end + 1)
        truncations = np.zeros(end - start, bool)
        truncations[-1] = True
        positions, shown = states[rows, :2], goals[rows]
        yield Episode(
            observations={"observation": states[rows], "achieved_goal": positions, "desired_goal": shown},
            actions=actions[start:end],
            rewards=successes[start:end].astype(np.float64),
            terminations=np.zeros(end - start, bool),
            truncations=truncations,
            infos={"success": reached[rows], "qpos": positions, "qvel": states[rows, 2:], "goal": shown},
        )
        start = end


class WaypointController:
    """Follows a shortest path of cells by proportional-derivative control (Fu et al. 2020, with Minari's gains).

    The force is `10 * (waypoint - position) - velocity`, not yet clipped. Waypoints are the centres of the path's
    cells, each but the first moved by up to 0.2 towards the lower left, and in the goal's cell the goal itself. A goal
    in the point's own cell is approached by way of a neighbouring cell, as the published planner does.
    """

    def __init__(self, maze: Any, rng: np.random.Generator) -> None:
        self._maze = maze
        self._rng = rng
        self._goal: list[float] | None = None
        self._path: list[tuple[int, int]] = []
        self._target = (0.0, 0.0)
        self._free = frozenset(
            (row, column)
            for row in range(maze.map_length)
            for column in range(maze.map_width)
            if maze.maze_map[row][column] != 1
        )

    def act(self, x: float, y: float, vx: float, vy: float, goal: list[float]) -> tuple[float, float]:
        """The force at a position and velocity on the way to `goal`."""
        if goal != self._goal:
            self._plan(x, y, goal)
        target_x, target_y = self._target
        if self._path and math.hypot(target_x - x, target_y - y) <= 0.1:
            cell = self._path.pop(0)
            self._target = target_x, target_y = self._waypoint(cell) if self._path else (goal[0], goal[1])
        return 10.0 * (target_x - x) - vx, 10.0 * (target_y - y) - vy

    def _plan(self, x: float, y: float, goal: list[float]) -> None:
        self._goal = goal
        start = tuple(self._maze.cell_xy_to_rowcol(np.array((x, y))).tolist())
        end = tuple(self._maze.cell_xy_to_rowcol(np.array(goal)).tolist())
        distances = _distances(self._free, end)
        path: list[tuple[int, int]] = []
        if start == end:
            neighbours = [cell for cell in _around(start) if cell in self._free]
            path, start = neighbours[:1], neighbours[0]
        while start != end:
            start = min((cell for cell in _around(start) if cell in self._free), key=distances.__getitem__)
            path.append(start)
        self._path = path[1:]  # the cells after the one headed for
        center_x, center_y = self._maze.cell_rowcol_to_xy(np.array(path[0])).tolist()
        self._target = (center_x, center_y)

    def _waypoint(self, cell: tuple[int, int]) -> tuple[float, float]:
        x, y = self._maze.cell_rowcol_to_xy(np.array(cell)).tolist()
        shift_x, shift_y = (0.2 * self._rng.random(2)).tolist()
        return x - shift_x, y - shift_y


# OGBench's PointMaze --------------------------------------------------------------------------------------------------


def generate_ogbench_pointmaze(
    maze: str,
    kind: str,
    folder: Path,
    *,
    episodes: int | None = None,
    seed: int = 0,
    processes: int | None = None,
    progress: Progress | None = None,
    work: Path | None = None,
) -> None:
    """Write `pointmaze-<maze>-<kind>-v0.npz` and its validation set, a tenth of it (Park et al. 2024, appendix).

    "navigate" runs from goal to goal; "stitch" makes short episodes to one goal four cells away. Nothing ends early.
    The last row of each episode has an action that leads nowhere, as in the published files. In the teleport maze the
    row after a jump still observes the entrance, while its `qpos` is at the exit: so does the environment.

    Args:
        maze: "medium", "large", "giant" or "teleport".
        kind: "navigate" or "stitch".
        folder: an empty folder.
        episodes: training episodes; None makes the published number.
        seed: of the whole set; each episode has a seed of its own, derived from it.
        processes, progress, work: see `run_shards`.
    """
    if (maze, kind) not in OGBENCH_SIZES:
        raise ConfigError(
            f"no generator for pointmaze-{maze}-{kind}; expected maze medium, large, giant or teleport and kind "
            "navigate or stitch; get the other sets from their published files"
        )
    published, length = OGBENCH_SIZES[maze, kind]
    train, validation = split_sizes(episodes, published)  # the validation episodes follow the training episodes
    numbers = np.array_split(np.arange(train + validation), OGBENCH_SHARDS)
    shards = [(maze, kind, seed, part.tolist(), length + 1) for part in numbers if len(part)]
    name = f"pointmaze-{maze}-{kind}-v0"
    parts = list(
        run_shards(_ogbench_episodes, shards, title=f"making {name}", processes=processes, progress=progress, work=work)
    )
    write_ogbench(folder, name, parts, train * (length + 1))


def _ogbench_episodes(maze: str, kind: str, seed: int, numbers: list[int], rows: int) -> dict[str, np.ndarray]:
    """The episodes with these numbers, `rows` rows each, end to end, with the published files' keys and types."""
    env = make_gymnasium(f"pointmaze-{maze}-v0", "ogbench").unwrapped
    parts = [_ogbench_episode(env, kind, np.random.default_rng([seed, number]), rows) for number in numbers]
    arrays = {key: np.concatenate([part[key] for part in parts]).astype(np.float32) for key in parts[0]}
    terminals = np.zeros(len(arrays["actions"]), bool)
    terminals[rows - 1 :: rows] = True
    return arrays | {"terminals": terminals}


def _ogbench_episode(env: Any, kind: str, rng: np.random.Generator, rows: int) -> dict[str, np.ndarray]:
    """One episode: observations, actions, and positions and velocities before each action, all `(rows, 2)`."""
    import mujoco

    free, corners = _ogbench_cells(env._maze_type, env.maze_map.tobytes(), env.maze_map.shape)
    cells = sorted(free)
    start = cells[rng.integers(len(cells))]
    if kind == "stitch":
        distances = _distances(free, start)
        goal_cells = [cell for cell in cells if distances.get(cell) == 4] or [start]
    else:
        goal_cells = list(corners)

    def noisy(cell: tuple[int, int]) -> list[float]:
        x, y = env.ij_to_xy(cell)
        shift_x, shift_y = rng.uniform(-1.0, 1.0, 2).tolist()
        return [x + shift_x, y + shift_y]

    entrances, exits, reach = _teleports(env)
    model, data = env.model, env.data
    mujoco.mj_resetData(model, data)
    qpos, qvel = data.qpos, data.qvel
    qpos[:] = noisy(start)
    qvel[:] = 0.1 * rng.standard_normal(2)  # as after the environment's reset; the first step clears it
    noise = rng.normal(0.0, POINT_NOISE, (rows, 2)).tolist()
    steps = env.frame_skip
    goal = noisy(goal_cells[rng.integers(len(goal_cells))])
    towards = _subgoals(free, env.xy_to_ij(goal))
    states, velocities = np.empty((rows, 2)), np.empty((rows, 2))
    observations, actions = np.empty((rows, 2)), np.empty((rows, 2), np.float32)
    observations[0] = qpos
    for row in range(rows):
        states[row], velocities[row] = qpos, qvel
        x, y = qpos.tolist()
        cell = int((y + CELL_SIZE * 1.5) / CELL_SIZE), int((x + CELL_SIZE * 1.5) / CELL_SIZE)
        target = towards.get(cell, cell)
        dx, dy = (target[1] - 1) * CELL_SIZE - x, (target[0] - 1) * CELL_SIZE - y
        norm = math.hypot(dx, dy) + 1e-6
        noise_x, noise_y = noise[row]
        actions[row] = _clip(dx / norm + noise_x), _clip(dy / norm + noise_y)
        qpos += 0.2 * actions[row]
        qvel[:] = 0.0
        mujoco.mj_step(model, data, nstep=steps)
        x, y = qpos.tolist()
        if row + 1 < rows:
            observations[row + 1] = x, y
        if kind == "navigate" and math.hypot(x - goal[0], y - goal[1]) <= OGBENCH_GOAL_RADIUS:
            goal = noisy(goal_cells[rng.integers(len(goal_cells))])
            towards = _subgoals(free, env.xy_to_ij(goal))
        if any(math.hypot(x - at[0], y - at[1]) <= reach for at in entrances):
            qpos[:] = exits[rng.integers(len(exits))]
            mujoco.mj_forward(model, data)
    return {"observations": observations, "actions": actions, "qpos": states, "qvel": velocities}


def _teleports(env: Any) -> tuple[list[Any], list[Any], float]:
    """Positions of entrances and exits, and how near an entrance takes the point in; no entrances in most mazes."""
    info = env._teleport_info
    if info is None:
        return [], [], 0.0
    return info["teleport_in_xys"], info["teleport_out_xys"], 1.5 * info["teleport_radius"]


@functools.lru_cache(maxsize=8)
def _ogbench_cells(
    maze: str, walls: bytes, shape: tuple[int, int]
) -> tuple[frozenset[tuple[int, int]], tuple[tuple[int, int], ...]]:
    """The free cells, and those of them that are not straight stretches of corridor."""
    grid = np.frombuffer(walls, np.int64).reshape(shape)
    free = frozenset((int(row), int(column)) for row, column in np.argwhere(grid == 0))
    corners = []
    for row, column in sorted(free):
        up, left, down, right = ((row + i, column + j) in free for i, j in NEIGHBOURS)
        vertical = up and down and not left and not right
        horizontal = left and right and not up and not down
        if not vertical and not horizontal:
            corners.append((row, column))
    return free, tuple(corners)


@functools.lru_cache(maxsize=1024)
def _subgoals(free: frozenset[tuple[int, int]], goal: tuple[int, int]) -> dict[tuple[int, int], tuple[int, int]]:
    """For each cell its neighbour on a shortest way to `goal`; the goal's cell leads to itself."""
    distances = _distances(free, goal)
    return {cell: min([cell, *_around(cell)], key=lambda near: distances.get(near, math.inf)) for cell in free}


# Cells ----------------------------------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=1024)
def _distances(free: frozenset[tuple[int, int]], source: tuple[int, int]) -> dict[tuple[int, int], int]:
    """Steps from `source` to every free cell that can be reached."""
    distances, frontier = {source: 0}, [source]
    for cell in frontier:
        for near in _around(cell):
            if near in free and near not in distances:
                distances[near] = distances[cell] + 1
                frontier.append(near)
    return distances


def _around(cell: tuple[int, ...]) -> list[tuple[int, int]]:
    return [(cell[0] + i, cell[1] + j) for i, j in NEIGHBOURS]


def _clip(value: float) -> float:
    return -1.0 if value < -1.0 else 1.0 if value > 1.0 else value
