"""OGBench's tasks: the benchmark's names, environments, goals, rewards and goal representations."""

import dataclasses
import functools
import pickle

import gymnasium
import numpy as np
import pytest

import envs
from envs.tasks import ogbench as tasks
from envs.wrappers import TaskEnv
from hybridrl.errors import ConfigError
from hybridrl.task import Task

ogbench = pytest.importorskip("ogbench")
from ogbench.relabel_utils import add_oracle_reps, relabel_dataset  # noqa: E402

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*precision lowered by casting"),
    pytest.mark.filterwarnings("ignore::glfw.GLFWError"),
]
LEFT_OUT = ("powderworld-", "cube-octuple-", "humanoidmaze-teleport-", "visual-humanoidmaze-teleport-", "online-")


def test_every_dataset_has_its_eight_tasks():
    names = list(tasks.TASKS)
    datasets = {envs.make_task(name).dataset.id for name in names}
    assert len(datasets) == 85 - 3  # Powderworld's three are left out
    assert sum("-singletask-task" in name for name in names) == 410
    assert len(names) == 8 * len(datasets)
    assert sum(name.startswith("visual-") for name in datasets) == 35
    published = sum(envs.make_task(name).dataset.generate is not None for name in datasets)
    assert published == 8 + 8 + 2 + 8  # pointmaze, cube, scene, puzzle


def test_the_environments_are_those_the_benchmark_s_own_constructor_makes(monkeypatch):
    made = []
    monkeypatch.setattr(gymnasium, "make", lambda env_id, **kwargs: made.append((env_id, kwargs)))
    for name in tasks.TASKS:
        task = envs.make_task(name)
        ogbench.make_env_and_datasets(name, env_only=True)
        assert made[-1] == (task.env_id, dict(task.env_kwargs)), name
        assert gymnasium.spec(task.env_id).max_episode_steps == task.horizon
    registered = {name for name, spec in gymnasium.registry.items() if str(spec.entry_point).startswith("ogbench.")}
    used = {env_id for env_id, _ in made}
    assert {name for name in registered if not name.startswith(LEFT_OUT)} == used


def goals_of(env, family):
    """The package's goals, in the form of our tables."""
    infos = env.task_infos
    if family == "cube":
        return [{"cubes": tuple(map(tuple, info["goal_xyzs"].tolist()))} for info in infos]
    if family == "puzzle":
        return [{"buttons": tuple(info["goal_button_states"].tolist())} for info in infos]
    if family == "scene":
        return [
            {
                "cubes": tuple(map(tuple, info["goal"]["block_xyzs"].tolist())),
                "buttons": tuple(info["goal"]["button_states"].tolist()),
                "drawer": info["goal"]["drawer_pos"],
                "window": info["goal"]["window_pos"],
            }
            for info in infos
        ]
    columns = (15, 16) if family == "antsoccer" else (0, 1)
    return [{"columns": columns, "goal": info["goal_xy"], "tolerance": env._goal_tol} for info in infos]


ENVIRONMENTS = sorted({name.partition("-singletask-v0")[0] for name in tasks.TASKS if name.endswith("-singletask-v0")})
STATE_BASED = {name.rpartition("-")[0]: name for name in ENVIRONMENTS if not name.startswith("visual-")}


@functools.cache
def made(name):
    """A task that has travelled, and its environment, which can take two seconds and serves several tests."""
    task = pickle.loads(pickle.dumps(envs.make_task(name)))
    return task, envs.make_env(task, 0)


# One of each family at every change, as making all takes long.
QUICK = (
    "pointmaze-medium",
    "antmaze-large",
    "antsoccer-arena",
    "humanoidmaze-medium",
    "cube-double",
    "scene",
    "puzzle-3x3",
)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, id=environment, marks=() if environment in QUICK else pytest.mark.slow)
        for environment, name in STATE_BASED.items()
    ],
)
def test_goals_and_default_task_are_the_benchmark_s(name):
    task, env = made(f"{name}-singletask-v0")
    env = env.env.unwrapped
    expected = goals_of(env, task.family)
    for number in range(1, 6):
        rule = envs.make_task(f"{name}-singletask-task{number}-v0").dataset.relabel
        assert rule.keywords == expected[number - 1]
    assert task.dataset.relabel.keywords == expected[env._reward_task_id - 1]


def some_rows(task, rng, rows=400):
    """States around the goal, so that every flag is sometimes true and sometimes false."""
    rule = task.dataset.relabel.keywords
    qpos = rng.uniform(-1.0, 1.0, (rows, 60))
    if "goal" in rule:
        qpos[:, list(rule["columns"])] = np.asarray(rule["goal"]) + rng.uniform(-1.5, 1.5, (rows, 2))
    cubes = np.asarray(rule.get("cubes", ())).reshape(-1, 3)
    for index, cube in enumerate(cubes):
        qpos[:, 14 + 7 * index : 17 + 7 * index] = cube + rng.uniform(-0.03, 0.03, (rows, 3))
    arrays = {}
    if "buttons" in rule:
        flips = rng.random((rows, len(rule["buttons"]))) < 0.1
        arrays["button_states"] = np.abs(np.asarray(rule["buttons"]) - flips).astype(np.int64)
    if "drawer" in rule:
        column = 14 + 7 * len(cubes) + len(rule["buttons"])
        targets = np.array([rule["drawer"], rule["window"]])
        qpos[:, column : column + 2] = targets + rng.uniform(-0.06, 0.06, (rows, 2))
    return arrays | {"qpos": qpos.astype(np.float32)}


@pytest.mark.parametrize(
    "name",
    [
        "pointmaze-medium-stitch-singletask-v0",
        "antmaze-teleport-explore-singletask-task3-v0",
        "humanoidmaze-medium-stitch-singletask-v0",
        "antsoccer-arena-stitch-singletask-v0",
        "cube-single-play-singletask-v0",
        "cube-double-play-singletask-v0",
        "scene-play-singletask-v0",
        "puzzle-3x3-play-singletask-v0",
    ],
)
def test_rewards_and_representations_equal_the_benchmark_s(name):
    task, env = made(name)
    arrays = some_rows(task, np.random.default_rng(0))
    expected = dict(arrays)
    relabel_dataset(task.env_id, env.env, expected)
    rewards, successes = task.dataset.relabel(arrays)
    np.testing.assert_array_equal(rewards, expected["rewards"])
    np.testing.assert_array_equal(1.0 - successes, expected["masks"])
    assert rewards.dtype == np.float32
    assert 0 < successes.sum() < len(successes)
    np.testing.assert_array_equal(successes, rewards == 0)
    add_oracle_reps(task.env_id, env.env, expected)
    kind = name.partition("-singletask")[0]
    represent = envs.make_task(f"{kind}-oraclerep-v0").dataset.represent
    np.testing.assert_array_equal(represent(arrays), expected["oracle_reps"])
    # The environment's first reward is in the range that the rows' rewards have.
    env.reset(seed=0)
    _, reward, _, _, info = env.step(np.zeros(env.action_space.shape))
    assert -len(expected.get("button_states", [[0] * 4])[0]) - 4 <= info["raw_reward"] <= 0
    assert reward == info["raw_reward"]


def test_goals_of_the_evaluation():
    env = envs.make_env(envs.make_task("pointmaze-medium-navigate-v0"), 0)
    inner = env.env.unwrapped
    for number, (row, column) in enumerate(tasks.MAZE_GOALS["medium"], start=1):
        observation, info = env.reset(options={"task_id": number})
        assert info["goal"].shape == observation.shape == (2,)
        assert info["goal"].dtype == np.float32
        assert np.abs(info["goal"] - 4.0 * np.array([column - 1, row - 1])).max() <= 1.0
        inner.set_xy(info["goal"].astype(np.float64) + np.array([0.7, 0.0]))
        _, _, terminated, _, info = env.step(np.zeros(2))
        assert terminated
        assert info["success"]
        assert info["raw_reward"] == 1.0
    for number in (0, 6, 1.5, "1"):
        with pytest.raises(ConfigError, match="expected an integer from 1"):
            env.reset(options={"task_id": number})
    with pytest.raises(ConfigError, match="has 0 goals"):
        envs.make_env(envs.make_task("probe/reach-v0"), 0).reset(options={"task_id": 1})


@pytest.mark.parametrize("form", ["", pytest.param("-oraclerep", marks=pytest.mark.slow)])
def test_manipulation_starts_and_goals_follow_the_seed(form):
    """The environments make a new, unseeded action space at every warm-up; `keep_action_space` is what seeds it."""
    task = envs.make_task(f"cube-single-play{form}-v0")
    starts = []
    for _ in range(2):
        env = envs.make_env(task, 3)
        observation, info = env.reset(options={"task_id": 2})
        after = env.step(np.full(5, 0.5))[0]
        starts.append((observation, info["goal"], after))
    for one, two in zip(*starts, strict=True):
        np.testing.assert_array_equal(one, two)
    observation, info = env.reset(seed=3, options={"task_id": 2})  # as a new environment would
    np.testing.assert_array_equal(info["goal"], starts[0][1])
    goal = info["goal"]
    assert goal.dtype == np.float32
    if form:
        np.testing.assert_allclose(goal, [0.75, 0.0, 0.2], atol=0.02)  # (0.50, 0, 0.02), centred and scaled
    else:
        np.testing.assert_allclose(goal[19:22], [0.75, 0.0, 0.2], atol=0.02)
        assert goal.shape == observation.shape


class Camera(gymnasium.Env):
    """Shows images; its goal is one, too."""

    observation_space = gymnasium.spaces.Box(0, 255, (4, 4, 3), np.uint8)
    action_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.full((4, 4, 3), 7, np.uint8), {"goal": np.full((4, 4, 3), 200, np.uint8)}

    def step(self, action):
        return np.full((4, 4, 3), 8, np.uint8), 0.0, False, False, {"success": 0.0}


def test_pixels_pass_as_bytes():
    task = Task("camera", "probe", "none", 10, success_key="success", pixels=True, num_goals=2, make=lambda _: Camera())
    env = TaskEnv(task, 0)
    observation, info = env.reset(options={"task_id": 2})
    assert observation.dtype == info["goal"].dtype == np.uint8
    assert env.observation_space.dtype == np.uint8
    assert env.step(np.zeros(2))[0].dtype == np.uint8
    with pytest.raises(ConfigError, match="gives float64 observations; expected uint8"):
        dataclasses.replace(task).flatten_observation(np.zeros((4, 4, 3)))
    assert envs.make_task("visual-cube-single-play-v0").pixels


@pytest.mark.slow
@pytest.mark.parametrize("name", STATE_BASED.values(), ids=STATE_BASED.keys())
def test_every_environment_resets_and_steps(name):
    task = envs.make_task(f"{name}-v0")
    env = envs.make_env(task, 0)
    for number in (1, 5):
        observation, info = env.reset(options={"task_id": number})
        assert info["goal"].shape == observation.shape
        for _ in range(3):
            observation, _, _, _, info = env.step(env.action_space.sample())
    single = envs.make_env(envs.make_task(f"{name}-singletask-v0"), 0)
    single.reset()
    _, _, _, _, info = single.step(np.zeros(single.action_space.shape))
    flags = {"cube": len(task.dataset.id), "scene": 5, "puzzle": 24}.get(task.family, 1)
    assert -flags <= info["raw_reward"] <= 0
