"""D4RL's tasks and the adapters that give maintained environments its observations, rewards, starts and goals."""

import re
from pathlib import Path

import numpy as np
import pytest

import envs
from envs.d4rl_envs import Adroit, Ant, AntMaze, Kitchen, PointMaze
from envs.d4rl_mazes import ANT_MAZES, POINT_MAZES, Layout
from envs.tasks import d4rl, ogbench
from hybridrl.datasets import load
from hybridrl.datasets.dataset import Dataset, Steps
from hybridrl.errors import ConfigError, DatasetError

DATASETS_PAGE = Path(__file__).parents[2] / "docs" / "datasets.md"

# One task per adapter and environment: (task, observations, actions), the widths of D4RL's files.
WIDTHS = [
    ("hopper-medium-v2", 11, 3),
    ("halfcheetah-full-replay-v1", 17, 6),
    ("walker2d-random-v0", 17, 6),
    ("ant-expert-v2", 111, 8),
    ("antmaze-medium-play-v2", 29, 8),
    ("kitchen-mixed-v0", 60, 9),
    ("pen-human-v1", 45, 24),
    ("hammer-cloned-v0", 46, 26),
    ("door-binary-v0", 39, 28),
    ("relocate-expert-v1", 39, 30),
    ("maze2d-eval-large-dense-v1", 4, 2),
]


@pytest.mark.parametrize(("name", "obs_dim", "action_dim"), WIDTHS)
def test_environment_and_files_have_the_same_widths(name, obs_dim, action_dim):
    task = envs.make_task(name)
    assert task.dataset.widths == (obs_dim, action_dim)
    env = envs.make_env(task, 0)
    assert env.observation_space.shape == (obs_dim,)
    assert env.action_space.shape == (action_dim,)
    runs = []
    for _ in range(2):  # the same seed, the same course
        observations = [env.reset(seed=3)[0]]
        rng = np.random.default_rng(0)
        for _ in range(3):
            observation, _, terminated, truncated, info = env.step(rng.uniform(-1, 1, action_dim))
            observations.append(observation)
            assert not terminated
            assert not truncated
            assert {"raw_reward", "success"} <= set(info)
        runs.append(np.array(observations))
    np.testing.assert_array_equal(*runs)
    assert not np.array_equal(runs[0][0], env.reset(seed=4)[0]) or name.startswith(("hammer", "pen"))
    env.close()


# The table ------------------------------------------------------------------------------------------------------------


def test_scores_by_hand():
    cheetah, pen = envs.make_task("halfcheetah-medium-v2"), envs.make_task("pen-human-v1")
    # 100 (4770.3 + 280.178953) / (12135.0 + 280.178953) and 100 (1586.5479 - 96.262799) / (3076.8331017826877 - ...)
    np.testing.assert_allclose(
        cheetah.score(np.array([-280.178953, 4770.3, 12135.0]), np.zeros(3)), [0, 40.6799, 100], atol=1e-4
    )
    np.testing.assert_allclose(pen.score(np.array([1586.5479503913438]), np.zeros(1)), [50.0], atol=1e-6)
    assert "D4RL-style" in cheetah.score_label
    assert "HalfCheetah-v5" in cheetah.score_label


def test_addresses_and_horizons_of_the_table():
    spec = envs.make_task("walker2d-medium-replay-v0").dataset
    base = "http://rail.eecs.berkeley.edu/datasets/offline_rl/"
    assert spec.urls == (base + "gym_mujoco/walker_mixed.hdf5",)
    horizons = {"antmaze-umaze-v2": 700, "antmaze-large-play-v0": 1000, "kitchen-mixed-v0": 280, "pen-human-v1": 100}
    horizons |= {
        "pen-human-longhorizon-v1": 200,
        "door-cloned-v0": 200,
        "maze2d-umaze-v1": 300,
        "maze2d-umaze-v0": 150,
        "hopper-random-v2": 1000,
    }
    assert {name: envs.make_task(name).horizon for name in horizons} == horizons


def test_every_benchmark_is_there():
    names = set(d4rl.TASKS)
    assert len(names) == 151
    assert not names & set(ogbench.TASKS)
    for version in ("v1", "v2"):
        for body in ("hopper", "halfcheetah", "walker2d", "ant"):
            for kind in ("random", "medium", "expert", "medium-replay", "full-replay", "medium-expert"):
                assert f"{body}-{kind}-{version}" in names
    for version in ("v0", "v1", "v2"):
        for maze in ("umaze", "umaze-diverse", "medium-play", "medium-diverse", "large-play", "large-diverse"):
            assert f"antmaze-{maze}-{version}" in names
    for hand in ("pen", "hammer", "door", "relocate"):
        for kind in ("human", "human-longhorizon", "cloned", "expert"):
            assert {f"{hand}-{kind}-v0", f"{hand}-{kind}-v1"} <= names
    assert {
        "pen-binary-v0",
        "door-binary-v0",
        "relocate-binary-v0",
        "kitchen-complete-v0",
        "kitchen-partial-v0",
    } <= names
    assert {"maze2d-open-v0", "maze2d-medium-v1", "maze2d-large-dense-v1"} <= names
    mazes = {dict(envs.make_task(name).env_kwargs)["maze"] for name in names if name.startswith("antmaze-")}
    assert mazes == set(ANT_MAZES)
    mazes = {dict(envs.make_task(name).env_kwargs)["maze"] for name in names if name.startswith("maze2d-")}
    assert mazes == set(POINT_MAZES)


def test_boundaries_are_chosen_by_the_name():
    plain, original = envs.make_task("hopper-medium-v2"), envs.make_task("hopper-medium-v2+d4rl")
    assert (plain.dataset.boundaries, original.dataset.boundaries) == ("corrected", "d4rl")
    assert original.name == "hopper-medium-v2+d4rl"
    assert original.dataset.id == plain.dataset.id  # one file serves both
    for name in ("hopper-medium-v2+corrected", "pointmaze-umaze-v2+d4rl", "hopper-medium-v2+"):
        with pytest.raises(ConfigError, match=r"no task .*'\+d4rl'"):
            envs.make_task(name)
    with pytest.raises(ConfigError, match=r"did you mean 'hopper-medium-v2\+d4rl'"):
        envs.make_task("hoper-medium-v2+d4rl")


def as_steps(task, rewards, terminals, ends):
    rows = len(rewards)
    arrays = {"rewards": np.array(rewards, np.float32)}
    found = task.dataset.relabel(arrays) if task.dataset.relabel else (arrays["rewards"], np.zeros(rows, bool))
    obs_dim, action_dim = task.dataset.widths
    return Steps(
        observations=np.zeros((rows, obs_dim), np.float32),
        actions=np.zeros((rows, action_dim), np.float32),
        rewards=found[0],
        terminations=np.array(terminals, bool),
        ends=np.array(ends, bool),
        next_observations=np.zeros((rows, obs_dim), np.float32),
        successes=found[1],
    )


# name, recorded rewards, terminals, ends, what the agent sees as rewards, masks and returns
CONVENTIONS = [
    (
        "antmaze-umaze-v2",
        [0, 0, 1, 0],
        [0, 0, 1, 0],
        [0, 0, 1, 1],
        [-5, -5, 5, -5],
        [1, 1, 0, 1],
        [-5.0495, -0.05, 5, -500],
    ),
    ("kitchen-mixed-v0", [0, 1, 4, 4], [0, 0, 0, 1], [0, 0, 0, 1], [-4, -3, 0, 0], [1, 1, 0, 0], [-6.97, -3, 0, 0]),
    ("pen-binary-v0", [-1, -1, 0], [0, 0, 0], [0, 0, 1], [-5, -5, 5], [1, 1, 0], [-5.0495, -0.05, 5]),
    ("maze2d-umaze-v1", [0, 1, 1], [0, 0, 0], [0, 0, 1], [0, 1, 1], [1, 1, 1], [1.9701, 1.99, 1]),
    ("hopper-medium-v2", [2, 3], [0, 1], [0, 1], [2, 3], [1, 0], [4.97, 3]),
]


@pytest.mark.parametrize(("name", "raw", "terminals", "ends", "rewards", "masks", "returns"), CONVENTIONS)
def test_reward_conventions_by_hand(name, raw, terminals, ends, rewards, masks, returns):
    task = envs.make_task(name)
    data = Dataset.from_steps(as_steps(task, raw, terminals, ends), task, 0.99)
    np.testing.assert_array_equal(data.transitions.rewards, rewards)
    np.testing.assert_array_equal(data.transitions.masks, masks)
    np.testing.assert_allclose(data.transitions.mc_returns, returns, rtol=1e-5)


def test_binary_files_are_asked_for_by_hand(tmp_path, monkeypatch):
    monkeypatch.setenv("HYBRIDRL_DATA", str(tmp_path))
    with pytest.raises(DatasetError, match=r"(?s)pickled Python objects.*timeouts.*docs/datasets.md.*pen-binary-v0"):
        load(envs.make_task("pen-binary-v0"))


def test_the_recipe_for_binary_files_makes_what_the_task_reads(tmp_path, monkeypatch):
    (code,) = [
        block for block in re.findall(r"```python\n(.*?)```", DATASETS_PAGE.read_text(), re.DOTALL) if "pen2" in block
    ]
    rng = np.random.default_rng(0)

    def trajectory(rewards, obs_dict):
        rows = rng.normal(size=(len(rewards) + 1, 45))
        states = [{"state_observation": row} for row in rows] if obs_dict else rows
        column = np.array(rewards, np.float64) if obs_dict else np.array(rewards, np.float64)[:, None]
        return {
            "observations": states[:-1],
            "next_observations": states[1:],
            "actions": rng.normal(size=(len(rewards), 24)),
            "rewards": column,
            "terminals": np.zeros_like(column),
        }

    monkeypatch.setenv("HYBRIDRL_DATA", str(tmp_path))
    folder = tmp_path / "d4rl" / "pen-binary-v0"
    work = tmp_path / "work"
    work.mkdir()
    folder.mkdir(parents=True)
    monkeypatch.chdir(work)
    for name, rewards, obs_dict in (
        ("pen2_sparse.npy", [[-1, 0, -1, 0, -1], [-1, -1]], True),
        ("pen_bc_sparse4.npy", [[-1, -1, 0]], False),
    ):
        trajectories = np.empty(len(rewards), object)
        trajectories[:] = [trajectory(one, obs_dict) for one in rewards]
        np.save(work / name, trajectories)
    exec(compile(code, "docs/datasets.md", "exec"), {})
    (work / "pen-binary-v0.hdf5").rename(folder / "pen-binary-v0.hdf5")
    data = load(envs.make_task("pen-binary-v0"))
    np.testing.assert_array_equal(data.transitions.rewards, [-5, 5, -5, 5, -5, -5, 5])
    np.testing.assert_array_equal(data.transitions.masks, [1, 0, 1, 0, 1, 1, 0])
    np.testing.assert_allclose(data.transitions.mc_returns, [-0.05, 5, -0.05, 5, -5.0495, -0.05, 5], rtol=1e-5)
    np.testing.assert_array_equal(data.episode_lengths, [2, 2, 3])


# Mazes ----------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ant_maze():
    return AntMaze("eval-large", new_goals=True)  # neither its map nor its start is symmetric


@pytest.fixture(scope="module")
def point_maze():
    return PointMaze("large", "sparse")


def walls(env):
    model = env.unwrapped.model
    names = [model.geom(index).name for index in range(model.ngeom)]
    return np.array([model.geom_pos[i][:2] for i, name in enumerate(names) if name.startswith("block_")])


def same_places(found, expected):
    assert len(found) == len(expected)
    np.testing.assert_allclose(sorted(map(tuple, np.round(found, 6))), sorted(map(tuple, expected)), atol=1e-6)


def test_the_ants_walls_stand_where_d4rl_puts_them(ant_maze):
    """There, a wall in row i, column j is at x = 4 j - tx, y = 4 i - ty; the ant starts in row 1, column 1."""
    cells = [(i, j) for i, row in enumerate(ANT_MAZES["eval-large"]) for j, mark in enumerate(row) if mark == "#"]
    same_places(walls(ant_maze) - ant_maze.start, [(4.0 * j - 4.0, 4.0 * i - 4.0) for i, j in cells])


def test_the_points_walls_stand_where_d4rl_puts_them(point_maze):
    """There, a wall in row i, column j is at (i + 1, j + 1), and the point with coordinates q at q + 1.2."""
    cells = [(i, j) for i, row in enumerate(POINT_MAZES["large"]) for j, mark in enumerate(row) if mark == "#"]
    same_places(walls(point_maze) - point_maze.origin, [(i + 1 - 1.2, j + 1 - 1.2) for i, j in cells])


def test_ant_maze_observations_are_positions_and_velocities_about_the_start(ant_maze):
    observation, info = ant_maze.reset(seed=0)
    data = ant_maze.unwrapped.data
    np.testing.assert_allclose(observation[2:15], data.qpos[2:15])
    np.testing.assert_allclose(observation[15:], data.qvel)
    assert np.abs(observation[:2]).max() <= 0.1
    assert abs(observation[2] - 0.75) <= 0.1
    # The goal's cell is in row 1, column 9: 32 to the right of the start's.
    assert (info["goal"] >= [32.0, 0.0]).all()
    assert (info["goal"] <= [33.5, 1.5]).all()


def test_the_ant_is_d4rls(ant_maze):
    ant_maze.reset(seed=0)
    model, data = ant_maze.unwrapped.model, ant_maze.unwrapped.data
    before = data.time
    ant_maze.step(np.ones(8))
    np.testing.assert_allclose(data.time - before, 0.1)
    np.testing.assert_allclose(data.qfrc_actuator[6:], 30.0)
    np.testing.assert_allclose(model.geom_solimp[:, :3], np.tile([0.8, 0.8, 0.01], (model.ngeom, 1)))


@pytest.mark.parametrize(("offset", "reached"), [(0.3, True), (0.8, False)])
def test_ant_maze_ends_within_half_a_unit_of_the_goal(ant_maze, offset, reached):
    ant_maze.reset(seed=1)
    ant = ant_maze.unwrapped.ant_env
    positions = ant.data.qpos.copy()
    positions[:2] = ant_maze.start + ant_maze.goal + [offset, 0.0]
    ant.set_state(positions, np.zeros(14))
    observation, reward, terminated, truncated, info = ant_maze.step(np.zeros(8))
    assert (reward, terminated, truncated, info["success"]) == (float(reached), reached, False, reached)
    np.testing.assert_allclose(observation[:2] - ant_maze.goal, [offset, 0.0], atol=0.1)


def test_goals_change_with_resets_in_v2_only(ant_maze):
    def goals():
        return [ant_maze.reset(seed=seed)[1]["goal"].tolist() for seed in (5, None, None, 5)]

    first, second, third, again = goals()
    assert first == again != second != third
    ant_maze.new_goals = False
    try:
        first, second, third, again = goals()
        assert first == second == third == again
    finally:
        ant_maze.new_goals = True
    assert dict(envs.make_task("antmaze-umaze-v2").env_kwargs)["new_goals"]
    assert not dict(envs.make_task("antmaze-umaze-v1").env_kwargs)["new_goals"]


def test_point_maze_moves_along_d4rls_axes(point_maze):
    point_maze.reset(seed=0)
    state = np.array([1.0, 1.0]) + point_maze.origin
    for axis in range(2):
        point_maze.unwrapped.point_env.set_state(state, np.zeros(2))
        action = np.eye(2)[axis]
        observation = point_maze.step(action)[0]
        # One Euler step of 0.01: a sphere of radius 0.1 and density 1000 weighs 4.18879, damping 1, force 100.
        velocity = 0.01 * 100.0 / (4.18879 + 0.01)
        np.testing.assert_allclose(observation[2:], action * velocity, rtol=1e-3)
        np.testing.assert_allclose(observation[:2], [1.0, 1.0] + 0.01 * action * velocity, rtol=1e-4)


def test_point_maze_rewards_and_starts(point_maze):
    starts = np.array([point_maze.reset(seed=seed)[0] for seed in range(30)])
    cells = np.round(starts[:, :2]).astype(int)
    assert np.abs(starts[:, :2] - cells).max() <= 0.1
    assert all(POINT_MAZES["large"][i][j] != "#" for i, j in cells)
    assert len({tuple(cell) for cell in cells}) > 10
    point_maze.reset(seed=0)
    for offset, reached in ((0.45, True), (0.55, False)):
        point_maze.unwrapped.point_env.set_state(point_maze.origin + np.array([7.0 - offset, 9.0]), np.zeros(2))
        _, reward, terminated, _, info = point_maze.step(np.zeros(2))
        assert (reward, terminated, info["success"]) == (float(reached), False, reached)
    point_maze.reward_type = "dense"
    np.testing.assert_allclose(point_maze.step(np.zeros(2))[1], np.exp(-0.55), rtol=1e-5)
    point_maze.reward_type = "sparse"


def test_layouts_find_their_cells():
    layout = Layout(("###", "#R#", "#.#", "###"), 2.0, transposed=False)
    assert layout.find("R") == [(1, 1)]
    assert layout.maze_map == [[1, 1, 1], [1, 0, 1], [1, 0, 1], [1, 1, 1]]
    assert layout.center((1, 1)) == (0.0, -1.0)
    assert Layout(layout.cells, 2.0, transposed=True).center((1, 1)) == (-1.0, 0.0)


# Ant, kitchen, hands --------------------------------------------------------------------------------------------------


def test_ant_has_zero_contact_forces_and_ant_v2s_reward():
    env = Ant()
    env.reset(seed=0)
    data = env.unwrapped.data
    before = data.body("torso").xpos[0]
    action = np.full(8, 0.5)
    observation, reward, *_ = env.step(action)
    np.testing.assert_array_equal(observation, np.concatenate([data.qpos[2:], data.qvel, np.zeros(84)]))
    np.testing.assert_allclose(reward, (data.body("torso").xpos[0] - before) / 0.05 + 1.0 - 0.5 * np.sum(action**2))


def test_kitchen_layout_and_rewards():
    env = Kitchen(("microwave", "kettle", "light switch", "slide cabinet"))
    observation, _ = env.reset(seed=0)
    data = env.unwrapped.data
    np.testing.assert_allclose(observation[:30], data.qpos, atol=0.02)  # noise
    goal = np.zeros(30)
    goal[[17, 18]], goal[19], goal[22] = [-0.69, -0.05], 0.37, -0.75
    goal[23:] = [-0.23, 0.75, 1.62, 0.99, 0.0, 0.0, -0.06]
    np.testing.assert_array_equal(observation[30:], goal)
    solved = []
    for entries in ([], [22], [], [17, 18, 19]):
        data.qpos[entries] = goal[entries]
        _, reward, terminated, _, info = env.step(np.zeros(9))
        solved.append((reward, info["solved"], info["success"], terminated))
    assert solved == [(0, 0, False, False), (1, 1, False, False), (1, 0, False, False), (3, 2, False, False)]
    data.qpos[23:30] = goal[23:]
    _, reward, _, _, info = env.step(np.zeros(9))
    assert (reward, info["solved"], info["success"]) == (4, 1, True)
    _, reward, _, _, info = env.step(np.zeros(9))
    assert (reward, info["solved"], info["success"]) == (4, 0, True)
    assert env.reset()[1]["success"] is False
    assert env.step(np.zeros(9))[1] == 0


def test_the_kitchens_score_is_the_share_of_subtasks_solved():
    task = envs.make_task("kitchen-partial-v0")
    assert task.return_key == "solved"
    np.testing.assert_array_equal(task.score(np.array([0.0, 3.0, 4.0]), np.zeros(3)), [0.0, 75.0, 100.0])


def move(env, name, values):
    """Put joints somewhere, by the name of the first of them."""
    start = int(env.unwrapped.model.joint(name).qposadr[0])
    env.unwrapped.data.qpos[start : start + len(values)] = values


def near_the_goal(hand, env):
    """A state in which each bonus of the reward is paid."""
    inner = env.unwrapped
    if hand == "pen":
        inner.model.body("target").quat = inner.data.body("Object").xquat
        move(env, "OBJTx", inner.data.site("eps_ball").xpos - [0.0, -0.2, 0.25])
    elif hand == "hammer":
        move(env, "nail_dir", [0.09])
        move(env, "OBJTx", [0.0, 0.0, 0.3])
    elif hand == "door":
        move(env, "door_hinge", [1.5])
    else:
        move(env, "OBJTx", inner.data.site("target").xpos - inner.data.body("Object").xpos)


@pytest.mark.parametrize(("hand", "bonus"), [("pen", 55), ("hammer", 90), ("door", 19), ("relocate", 30)])
def test_hands_rewards_are_d4rls(hand, bonus):
    """The maintained v1 differs in the sign of the distance to the object alone (not for the pen)."""
    env = Adroit(hand, "dense")
    env.reset(seed=0)
    inner_step, inner = env.env.step, []
    env.env.step = lambda action: inner.append(inner_step(action)) or inner[-1]
    data = env.unwrapped.data
    held = data.site("S_handle") if hand == "door" else data.body("Object")
    rng = np.random.default_rng(0)
    for step in range(6):
        if step == 5:
            near_the_goal(hand, env)
        _, reward, terminated, _, info = env.step(rng.uniform(-1, 1, env.action_space.shape))
        expected = float(inner[-1][1])
        if hand != "pen":
            expected -= 0.2 * np.linalg.norm(data.site("S_grasp").xpos - held.xpos)
        np.testing.assert_allclose(reward, expected, rtol=1e-6)
        assert info["success"] is (step == 5)
        assert (reward > bonus) is (step == 5)
        assert not terminated


def test_dropping_the_pen_ends_the_episode_with_dense_rewards_alone():
    for reward_type, dropped in (("dense", True), ("sparse", False)):
        env = Adroit("pen", reward_type)
        env.reset(seed=0)
        move(env, "OBJTx", [0.5, 0.0, -0.2])
        _, reward, terminated, _, _ = env.step(np.zeros(24))
        assert terminated is dropped
        assert reward == -1.0 if reward_type == "sparse" else reward < -4.0


def test_binary_rewards():
    env = Adroit("door", "sparse")
    env.reset(seed=0)
    assert env.step(np.zeros(28))[1] == -1.0
    env.unwrapped.data.joint("door_hinge").qpos[0] = 1.5
    _, reward, terminated, _, info = env.step(np.zeros(28))
    assert (reward, terminated, info["success"]) == (0.0, False, True)
