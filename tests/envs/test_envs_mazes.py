"""The maze generators: the environments' own physics, the published statistics, one result for any process count."""

import functools

import numpy as np
import pytest

import envs
from envs import mazes
from envs.extras import make_gymnasium
from envs.tasks.ogbench_goals import MAZE_GOALS
from hybridrl.datasets import files, load
from hybridrl.datasets.dataset import Dataset
from hybridrl.errors import ConfigError, DatasetError


@pytest.fixture(scope="module")
def stream():
    return mazes._umaze_stream(123, 0, 6000)


@pytest.fixture(scope="module")
def navigate(tmp_path_factory):
    """20 training episodes and 2 of validation of pointmaze-medium-navigate."""
    folder = tmp_path_factory.mktemp("navigate")
    mazes.generate_ogbench_pointmaze("medium", "navigate", folder, episodes=20, processes=1)
    return folder


def arrays_of(folder, name="pointmaze-medium-navigate-v0"):
    with np.load(folder / f"{name}.npz") as file:
        return dict(file)


def test_umaze_stream_is_the_environment_s_own_course(stream):
    env = mazes._umaze_env().unwrapped
    rng = np.random.default_rng([123, 0])
    observation, _ = env.reset(seed=int(rng.integers(2**31)))
    for row in range(3000):
        np.testing.assert_array_equal(observation["observation"], stream["states"][row])
        np.testing.assert_array_equal(observation["desired_goal"], stream["goals"][row])
        observation, reward, _, _, info = env.step(stream["actions"][row])
        assert info["success"] == stream["successes"][row]
        assert reward == stream["successes"][row]
    assert stream["successes"][:3000].sum() > 10


def test_umaze_actions_are_the_controller_with_noise(stream):
    actions = stream["actions"]
    assert np.abs(actions).max() == 1.0
    assert 0.02 < (np.abs(actions) == 1.0).mean() < 0.9
    # After a success the goal shown changes one step late, and its distance to the next is above the radius.
    rows = np.flatnonzero(stream["successes"])[:-1]
    assert (np.linalg.norm(stream["goals"][rows + 1] - stream["goals"][rows], axis=1) == 0.0).all()
    assert (np.linalg.norm(stream["goals"][rows + 2] - stream["states"][rows + 1, :2], axis=1) > 0.4).all()


def test_umaze_controller_plans_round_the_wall():
    env = mazes._umaze_env().unwrapped
    env.reset(seed=0)
    controller = mazes.WaypointController(env.maze, np.random.default_rng(0))
    # From the lower left cell (3, 1) to the upper left (1, 1): the way leads right first, straight up is a wall.
    force_x, force_y = controller.act(-1.0, -1.0, 0.5, -0.25, [-1.0, 1.0])
    np.testing.assert_allclose([force_x, force_y], [10.0 * 1.0 - 0.5, 0.25], atol=1e-9)
    assert controller._path == [(3, 3), (2, 3), (1, 3), (1, 2), (1, 1)]
    assert controller.act(-0.05, -1.0, 0.0, 0.0, [-1.0, 1.0])[0] > 0.0  # within 0.1 of the first, on to the next
    assert controller._path == [(2, 3), (1, 3), (1, 2), (1, 1)]
    shifts = np.array([1.0, -1.0]) - [controller._waypoint((3, 3)) for _ in range(100)]
    assert shifts.min() >= 0.0
    assert 0.15 < shifts.max() < 0.2


def read_episodes(folder, monkeypatch):
    import minari

    root = folder.parent / "root"
    target = root / "D4RL/pointmaze/umaze-v2"
    target.parent.mkdir(parents=True)
    folder.rename(target)
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(root))
    dataset = minari.load_dataset("D4RL/pointmaze/umaze-v2")
    assert dataset.recover_environment().spec.id == "PointMaze_UMaze-v3"
    return dataset, list(dataset.iterate_episodes())


def test_minari_reads_the_umaze_dataset(tmp_path, monkeypatch):
    folder = tmp_path / "made"
    folder.mkdir()
    mazes.generate_pointmaze_umaze(folder, steps=4000, processes=1)
    task = envs.make_task("pointmaze-umaze-v2")
    own = Dataset.from_steps(files.read(folder, task), task, discount=0.99)
    dataset, episodes = read_episodes(folder, monkeypatch)
    assert dataset.total_steps == sum(len(episode.rewards) for episode in episodes) == 4000
    assert dataset.total_episodes == len(episodes) == own.num_episodes
    wins = 0
    for episode in episodes:
        assert episode.observations["observation"].shape == (len(episode) + 1, 4)
        np.testing.assert_array_equal(episode.observations["achieved_goal"], episode.infos["qpos"])
        np.testing.assert_array_equal(episode.observations["observation"][:, 2:], episode.infos["qvel"])
        distance = np.linalg.norm(episode.observations["achieved_goal"] - episode.observations["desired_goal"], axis=1)
        np.testing.assert_array_equal(episode.rewards, distance[1:] <= 0.45)
        np.testing.assert_array_equal(episode.infos["success"][1:], episode.rewards)
        assert not episode.rewards[:-1].any()
        assert episode.truncations[-1]
        assert not episode.truncations[:-1].any()
        assert not episode.terminations.any()
        wins += episode.rewards[-1]
    assert wins >= len(episodes) - mazes.UMAZE_SHARDS
    summary = own.summary()
    assert summary["rows"] == 4000
    assert summary["terminated_episodes"] == wins  # a success terminates for the agent
    np.testing.assert_array_equal(np.unique(own.transitions.rewards), [-1.0, 0.0])


@pytest.mark.slow  # of the other maze's data in the fast suite
def test_umaze_data_do_not_depend_on_the_processes(tmp_path):
    contents = []
    for processes in (1, 2):
        folder = tmp_path / str(processes)
        folder.mkdir()
        mazes.generate_pointmaze_umaze(folder, steps=1600, processes=processes)
        contents.append((folder / "data/main_data.hdf5").read_bytes())
    assert contents[0] == contents[1]


def test_ogbench_data_do_not_depend_on_the_processes(tmp_path, navigate):
    reports = []
    mazes.generate_ogbench_pointmaze(
        "medium", "navigate", tmp_path, episodes=20, processes=2, progress=lambda *done: reports.append(done)
    )
    for name in ("pointmaze-medium-navigate-v0", "pointmaze-medium-navigate-v0-val"):
        one, two = arrays_of(navigate, name), arrays_of(tmp_path, name)
        assert one.keys() == two.keys()
        for key in one:
            np.testing.assert_array_equal(one[key], two[key])
    assert reports[-1] == (22, 22)  # no empty pieces


def test_ogbench_files_have_the_published_form(navigate):
    train, validation = arrays_of(navigate), arrays_of(navigate, "pointmaze-medium-navigate-v0-val")
    for arrays, episodes in ((train, 20), (validation, 2)):
        assert {key: (value.shape[1:], value.dtype.name) for key, value in arrays.items()} == {
            "observations": ((2,), "float32"),
            "actions": ((2,), "float32"),
            "terminals": ((), "bool"),
            "qpos": ((2,), "float32"),
            "qvel": ((2,), "float32"),
        }
        np.testing.assert_array_equal(np.flatnonzero(arrays["terminals"]), 1001 * np.arange(1, episodes + 1) - 1)
        assert len(arrays["terminals"]) == 1001 * episodes
    assert not np.array_equal(train["actions"][:2002], validation["actions"])


def test_ogbench_statistics(navigate):
    train = arrays_of(navigate)
    assert np.abs(train["actions"]).mean() == pytest.approx(0.617, rel=0.03)
    assert (np.abs(train["actions"]) == 1.0).mean() == pytest.approx(0.275, rel=0.03)
    cells = np.floor((train["qpos"][:, ::-1].astype(np.float64) + 6.0) / 4.0).astype(int)
    env = envs.make_env(envs.make_task("pointmaze-medium-navigate-singletask-v0"), 0).env.unwrapped
    assert env._goal_tol == mazes.OGBENCH_GOAL_RADIUS
    assert (env.maze_map[cells[:, 0], cells[:, 1]] == 0).all()
    free, corners = mazes._ogbench_cells("medium", env.maze_map.tobytes(), env.maze_map.shape)
    assert (len(free), len(corners)) == (26, 21)
    assert {tuple(cell) for cell in cells.tolist()} == set(free)


def test_ogbench_policy_reaches_as_many_goals_as_the_published_one(monkeypatch):
    """181 goals in 22 episodes were measured with a loop around the benchmark's own environment."""
    plans = []
    original = mazes._subgoals
    monkeypatch.setattr(mazes, "_subgoals", lambda *arguments: plans.append(1) or original(*arguments))
    arrays = mazes._ogbench_episodes("medium", "navigate", 1, list(range(11)), 1001)
    assert len(plans) - 11 == pytest.approx(181 / 2, rel=0.15)  # one plan an episode is for its first goal
    episodes = {key: arrays[key].reshape(11, 1001, 2)[:, :1000] for key in ("qpos", "actions")}
    steps = np.linalg.norm(np.diff(episodes["qpos"], axis=1), axis=-1)
    free = 0.2 * np.linalg.norm(episodes["actions"][:, :-1], axis=-1)  # where no wall is in the way
    assert np.median(np.abs(steps - free)) < 1e-5
    assert (np.abs(steps - free) < 1e-5).mean() > 0.8


def test_a_generation_that_was_cut_continues_and_gives_the_same_data(tmp_path, monkeypatch):
    monkeypatch.setitem(mazes.OGBENCH_SIZES, ("medium", "navigate"), (6, 40))
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0})
    task = envs.make_task("pointmaze-medium-navigate-singletask-task3-v0")
    monkeypatch.setenv("HYBRIDRL_DATA", str(tmp_path / "whole"))
    whole = load(task)
    assert whole.source.origin == "generated"
    assert whole.num_rows == 240
    original, calls = mazes._ogbench_episodes, []

    @functools.wraps(original)
    def stopping(*arguments):
        calls.append(arguments[3])
        if len(calls) == 4:
            raise RuntimeError("out of power")
        return original(*arguments)

    monkeypatch.setattr(mazes, "_ogbench_episodes", stopping)
    monkeypatch.setenv("HYBRIDRL_DATA", str(tmp_path / "cut"))
    with pytest.raises(DatasetError, match="out of power"):
        load(task)
    again = load(task)
    assert calls == [[0], [1], [2], [3], [3], [4], [5], [6]]
    assert again.source.sha256 == whole.source.sha256
    assert not (tmp_path / "cut" / "unfinished" / task.dataset.format / task.dataset.id).exists()


def test_ogbench_course_is_the_environment_s_own(navigate):
    train = arrays_of(navigate)
    env = envs.make_env(envs.make_task("pointmaze-medium-navigate-singletask-v0"), 0).env.unwrapped
    env.reset()
    # Restarting from float32 positions, the environment makes each step as recorded.
    for row in range(200):
        env.set_state(train["qpos"][row].astype(np.float64), np.zeros(2))
        observation = env.step(train["actions"][row])[0]
        np.testing.assert_allclose(observation, train["observations"][row + 1], atol=2e-6)


def test_ogbench_subgoals_are_the_environment_s(navigate):
    env = envs.make_env(envs.make_task("pointmaze-giant-navigate-singletask-v0"), 0).env.unwrapped
    free, _ = mazes._ogbench_cells("giant", env.maze_map.tobytes(), env.maze_map.shape)
    for goal in MAZE_GOALS["giant"]:
        towards = mazes._subgoals(free, goal)
        for cell in free:
            expected, _ = env.get_oracle_subgoal(env.ij_to_xy(cell), env.ij_to_xy(goal))
            np.testing.assert_array_equal(env.ij_to_xy(towards[cell]), expected)


def test_ogbench_agrees_with_the_benchmark_s_loader(navigate):
    import ogbench

    path = navigate / "pointmaze-medium-navigate-v0.npz"
    _, theirs, _ = ogbench.make_env_and_datasets("pointmaze-medium-navigate-singletask-v0", dataset_path=str(path))
    task = envs.make_task("pointmaze-medium-navigate-singletask-v0")
    steps = files.read(navigate, task)
    np.testing.assert_array_equal(steps.observations, theirs["observations"])
    np.testing.assert_array_equal(steps.next_observations, theirs["next_observations"])
    np.testing.assert_array_equal(steps.rewards, theirs["rewards"])
    np.testing.assert_array_equal(~steps.successes, theirs["masks"])
    assert theirs["rewards"].max() == 0.0


def test_stitch_episodes_reach_four_cells(tmp_path):
    mazes.generate_ogbench_pointmaze("medium", "stitch", tmp_path, episodes=20, processes=1)
    train = arrays_of(tmp_path, "pointmaze-medium-stitch-v0")
    assert len(train["terminals"]) == 20 * 201
    env = envs.make_env(envs.make_task("pointmaze-medium-stitch-singletask-v0"), 0).env.unwrapped
    free, _ = mazes._ogbench_cells("medium", env.maze_map.tobytes(), env.maze_map.shape)
    for episode in train["qpos"].reshape(20, 201, 2):
        cells = [env.xy_to_ij(xy) for xy in episode]
        assert max(mazes._distances(free, cells[0])[cell] for cell in cells) == 4


def test_teleports_take_the_point_elsewhere_and_show_it_one_row_late():
    env = make_gymnasium("pointmaze-teleport-v0", "ogbench").unwrapped
    arrays = mazes._ogbench_episodes("teleport", "navigate", 0, list(range(8)), 1001)
    jumped = np.flatnonzero((arrays["observations"] != arrays["qpos"]).any(axis=1))
    assert len(jumped) > 10
    entrances, exits = (np.array(env._teleport_info[f"teleport_{way}_xys"]) for way in ("in", "out"))
    to_entrance = np.linalg.norm(arrays["observations"][jumped, None] - entrances, axis=-1).min(axis=1)
    to_exit = np.linalg.norm(arrays["qpos"][jumped, None] - exits, axis=-1)
    assert to_entrance.max() <= 1.5
    assert to_exit.min(axis=1).max() < 1e-6
    assert len(np.unique(to_exit.argmin(axis=1))) == len(exits)
    # The environment, restarted from the state of each such row and the one before, makes the same step.
    env.reset()
    for row in [*jumped[:20], *range(50)]:
        if row in jumped - 1 or row % 1001 == 1000:
            continue
        env.set_state(arrays["qpos"][row].astype(np.float64), np.zeros(2))
        np.testing.assert_allclose(env.step(arrays["actions"][row])[0], arrays["observations"][row + 1], atol=2e-6)


def test_bad_requests_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="pointmaze-arena-navigate"):
        mazes.generate_ogbench_pointmaze("arena", "navigate", tmp_path)
    with pytest.raises(ConfigError, match="multiple of 8"):
        mazes.generate_pointmaze_umaze(tmp_path, steps=1001)
    with pytest.raises(ConfigError, match="at least 1"):
        mazes.generate_ogbench_pointmaze("medium", "navigate", tmp_path, episodes=0)


def test_the_controller_solves_the_evaluation_maze():
    env = envs.make_env(envs.make_task("pointmaze-umaze-v2"), 0)
    controller = mazes.WaypointController(env.env.unwrapped.maze, np.random.default_rng(0))
    for _ in range(10):
        observation, _ = env.reset()
        steps, ended = 0, False
        while not ended:
            action = np.clip(controller.act(*observation[:4].tolist(), observation[4:].tolist()), -1.0, 1.0)
            observation, reward, terminated, truncated, info = env.step(action)
            steps, ended = steps + 1, terminated or truncated
        assert terminated
        assert info["success"]
        assert reward == 0.0
        assert steps < 300
