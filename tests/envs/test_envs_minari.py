"""Minari datasets as tasks, written by the minari package itself: spaces, environments, scores, and what is refused."""

import json
import pickle
import time

import gymnasium
import minari
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec
from gymnasium.spaces import Box, Dict, Discrete
from minari.data_collector import EpisodeBuffer

import envs
from envs.tasks.minari import observation_keys
from hybridrl.datasets import Dataset, read
from hybridrl.errors import ConfigError, DatasetError

pytest.importorskip("gymnasium_robotics")
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:minari.*")  # its advice on what to record
STEPS = 4


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A data folder of this test's own, where the minari package keeps its datasets, too."""
    monkeypatch.setenv("HYBRIDRL_DATA", str(tmp_path))
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    (tmp_path / "minari").mkdir()
    return tmp_path / "minari"


def vector(width, low=-np.inf, high=np.inf):
    return Box(low, high, (width,), np.float64)


def write(dataset_id, observation_space, env_spec, action_space=None, infos=False, **settings):
    """Two random episodes of four steps; returns them as the minari package reads them."""
    action_space = action_space or Box(-1.0, 1.0, (2,), np.float32)
    observation_space.seed(0)
    action_space.seed(0)
    buffers = []
    for _ in range(2):
        buffer = EpisodeBuffer(observations=observation_space.sample(), infos={"success": False} if infos else None)
        for step in range(STEPS):
            buffer = buffer.add_step_data(
                {
                    "observation": observation_space.sample(),
                    "action": action_space.sample(),
                    "reward": float(step == 2),
                    "terminated": False,
                    "truncated": step == STEPS - 1,
                    "info": {"success": step == 3} if infos else {},
                }
            )
        buffers.append(buffer)
    minari.create_dataset_from_buffers(
        dataset_id,
        buffers,
        observation_space=observation_space,
        action_space=action_space,
        algorithm_name="random",
        author="a",
        author_email="a@b.c",
        code_permalink="https://example.org",
        description="made by a test",
    )
    dataset = minari.load_dataset(dataset_id)
    dataset.storage.update_metadata(settings)
    amend(dataset.storage.data_path / "metadata.json", env_spec=env_spec.to_json())  # whose entry point does not exist
    return list(dataset.iterate_episodes())


def amend(path, **entries):
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))


def spec(env_id, **fields):
    return EnvSpec(env_id, **{"entry_point": "nowhere:Nothing", "max_episode_steps": 50, **fields})


def steps_of(task, root):
    return read(root / task.dataset.id, task)


def goals(achieved):
    return Dict({"achieved_goal": achieved, "desired_goal": achieved, "observation": vector(3)})


def test_a_recorded_environment_comes_back_with_its_arguments(root):
    env = minari.DataCollector(gymnasium.make("PointMaze_Open-v3", reward_type="sparse"), record_infos=True)
    env.reset(seed=0)
    for _ in range(STEPS):
        env.step(env.action_space.sample())
    env.create_dataset(
        "test/maze-v0",
        eval_env="PointMaze_Open-v3",
        algorithm_name="random",
        author="a",
        author_email="a@b.c",
        code_permalink="https://example.org",
        description="made by a test",
    )
    env.close()
    task = envs.make_task("minari/test/maze-v0")
    assert (task.env_id, task.family, task.horizon) == ("PointMaze_Open-v3", "pointmaze", 300)
    assert (task.success_key, task.score_range, task.score_label) == ("success", None, "success rate (%)")
    assert task.observation_keys == ("observation", "desired_goal")
    assert pickle.loads(pickle.dumps(task)) == task
    steps = steps_of(task, root)
    (episode,) = minari.load_dataset("test/maze-v0").iterate_episodes()
    expected = np.concatenate([episode.observations["observation"], episode.observations["desired_goal"]], axis=1)
    np.testing.assert_array_equal(steps.observations, expected[:-1].astype(np.float32))
    inside = envs.make_env(task, 0)
    observation, _ = inside.reset()
    assert observation.shape == steps.observations.shape[1:]
    np.testing.assert_array_equal(observation[4:], np.float32(inside.env.unwrapped.goal))


def test_actions_are_rescaled_to_the_environment_s_bounds(root):
    bounds = Box(np.array([-3.0, 0.0], np.float32), np.array([3.0, 10.0], np.float32))
    episodes = write("mujoco/odd-v0", vector(4), spec("Hopper-v5"), bounds)
    task = envs.make_task("minari/mujoco/odd-v0")
    actions = np.concatenate([episode.actions for episode in episodes])
    steps = steps_of(task, root)
    np.testing.assert_allclose(steps.actions * [3.0, 5.0] + [0.0, 5.0], actions, rtol=1e-5, atol=1e-5)
    assert np.abs(actions).max() > 1.0 >= np.abs(steps.actions).max()
    Dataset.from_steps(steps, task, 0.99)
    one = write("mujoco/plain-v0", vector(4), spec("Hopper-v5"))
    task = envs.make_task("minari/mujoco/plain-v0")
    assert task.dataset.action_bounds is None
    np.testing.assert_array_equal(steps_of(task, root).actions, np.concatenate([episode.actions for episode in one]))


def test_an_environment_with_other_bounds_acts_as_the_data_say(root):
    write("mujoco/pendulum-v0", vector(4), spec("InvertedPendulum-v5"), Box(-3.0, 3.0, (1,), np.float32))
    task = envs.make_task("minari/mujoco/pendulum-v0")
    env = envs.make_env(task, 0)
    env.reset()
    env.step(np.array([0.5]))
    assert env.env.unwrapped.data.ctrl[0] == pytest.approx(1.5)
    assert env.step(np.zeros(1))[-1]["success"]  # a reward of 1 a step, and success is a reward above 0


def test_ant_mazes_say_where_the_ant_is_first(root):
    episodes = write("D4RL/ant-v1", goals(vector(2)), spec("AntMaze_UMaze-v5"), infos=True)
    task = envs.make_task("minari/D4RL/ant-v1")
    assert task.observation_keys == ("achieved_goal", "observation", "desired_goal")
    first = episodes[0].observations
    np.testing.assert_array_equal(
        steps_of(task, root).observations[0, :2], first["achieved_goal"][0].astype(np.float32)
    )
    np.testing.assert_array_equal(steps_of(task, root).successes, [0, 0, 0, 1] * 2)


def test_the_kitchen_is_its_observation_and_the_share_of_tasks(root):
    parts = Dict({"kettle": vector(7), "microwave": vector(1)})
    kwargs = {"tasks_to_complete": ["kettle", "microwave"], "render_mode": "rgb_array"}
    episodes = write("D4RL/kitchen-v2", goals(parts), spec("FrankaKitchen-v1", kwargs=kwargs))
    task = envs.make_task("minari/D4RL/kitchen-v2")
    assert task.family == "kitchen"
    assert task.env_kwargs == (("tasks_to_complete", ("kettle", "microwave")),)
    assert (task.score_range, task.score_label) == ((0.0, 2.0), "tasks completed (%)")
    steps = steps_of(task, root)
    np.testing.assert_array_equal(steps.observations[0], episodes[0].observations["observation"][0].astype(np.float32))
    np.testing.assert_array_equal(steps.successes, [0, 0, 1, 0] * 2)  # rewards above 0
    assert task.score(np.array([1.0]), np.array([True])) == [50.0]


def test_nested_parts_keep_the_order_of_the_space(root):
    space = Dict({"b": Dict({"y": vector(1), "x": vector(2)}), "a": Box(-1.0, 1.0, (), np.float64)})
    episodes = write("test/nested-v0", space, spec("Hopper-v5"))
    task = envs.make_task("minari/test/nested-v0")
    recorded = minari.load_dataset("test/nested-v0").observation_space
    assert task.observation_keys == tuple(
        f"{key}/{inner}" if key == "b" else key for key in recorded for inner in (recorded[key] if key == "b" else [""])
    )
    assert set(task.observation_keys) == {"a", "b/x", "b/y"}
    observations = episodes[0].observations
    row = {"a": observations["a"][1], "b": {key: observations["b"][key][1] for key in ("x", "y")}}
    np.testing.assert_array_equal(steps_of(task, root).observations[1], task.flatten_observation(row))
    assert len(task.flatten_observation(row)) == 4


def test_reference_scores_make_the_range(root):
    write("test/scored-v0", vector(4), spec("Hopper-v5"), ref_min_score=-5.0, ref_max_score=15.0)
    task = envs.make_task("minari/test/scored-v0")
    assert (task.score_range, task.score_label) == ((-5.0, 15.0), "Minari's normalised return")
    assert task.score(np.array([5.0]), np.array([False])) == [50.0]


def test_without_scores_or_successes_the_label_says_what_counts(root):
    write("test/plain-v0", vector(4), spec("Hopper-v5"))
    assert envs.make_task("minari/test/plain-v0").score_label == "episodes with a reward above 0 (%)"


REFUSED = {
    "module": ({"id": "antigravity:fly-v0"}, "expected an id such as"),
    "namespace": ({"id": "ns/Hopper-v5"}, "expected an id such as"),
    "no limit": ({"max_episode_steps": None}, "time limit of None"),
    "file": ({"kwargs": {"xml_file": "/etc/passwd"}}, "names a file"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_records_that_could_mislead_are_refused(root, case):
    change, message = REFUSED[case]
    write("test/odd-v0", vector(4), spec("Hopper-v5"))
    path = root / "test/odd-v0/data/metadata.json"
    recorded = json.loads(json.loads(path.read_text())["env_spec"])
    amend(path, env_spec=json.dumps(recorded | change))
    with pytest.raises(ConfigError, match=message):
        envs.make_task("minari/test/odd-v0")


def test_only_known_packages_environments_are_made(root):
    """The entry point that the file records is never imported: the id decides."""
    write("test/unknown-v0", vector(4), spec("Nowhere-v0"))
    with pytest.raises(ConfigError, match=r"'Nowhere-v0'; expected one that Gymnasium or Gymnasium-Robotics registers"):
        envs.make_env(envs.make_task("minari/test/unknown-v0"), 0)
    gymnasium.register("Foreign-v0", entry_point="antigravity:fly")
    try:
        write("test/foreign-v0", vector(4), spec("Foreign-v0"))
        with pytest.raises(ConfigError, match="'Foreign-v0'; expected one"):
            envs.make_env(envs.make_task("minari/test/foreign-v0"), 0)
    finally:
        del gymnasium.registry["Foreign-v0"]
    write("test/argument-v0", vector(4), spec("Hopper-v5", kwargs={"no_such_argument": 1}))
    with pytest.raises(ConfigError, match="refuses its recorded arguments"):
        envs.make_env(envs.make_task("minari/test/argument-v0"), 0)


def test_spaces_that_are_no_vectors_are_refused(root):
    with pytest.raises(ConfigError, match=r"part 'observation', a Box of shape \[4, 4, 3\]"):
        observation_keys({"type": "Box", "shape": [4, 4, 3]}, "X-v0")
    with pytest.raises(DatasetError, match="get the dataset again"):
        observation_keys({"type": "Dict", "subspaces": {"a": 3}}, "X-v0")
    write("test/discrete-v0", vector(4), spec("CartPole-v1"), Discrete(2))
    with pytest.raises(ConfigError, match="actions are of type 'Discrete'"):
        envs.make_task("minari/test/discrete-v0")


def test_names_and_a_missing_network_give_one_quick_error(root, monkeypatch):
    with pytest.raises(ConfigError, match=r"expected minari/<dataset id>"):
        envs.make_task("minari/D4RL/door/human")
    with pytest.raises(ConfigError, match="or minari/<dataset id>"):
        envs.make_task("zzz")
    begun = time.monotonic()
    with pytest.raises(
        DatasetError, match=r"cannot get dataset 'D4RL/door/human-v2'.*\n.*\n.*switched off by HYBRIDRL_OFF"
    ):
        envs.make_task("minari/D4RL/door/human-v2")
    monkeypatch.delenv("HYBRIDRL_OFFLINE")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(DatasetError, match=r"pip install 'hybridrl\[hub\]'"):
        envs.make_task("minari/D4RL/door/human-v2")
    assert time.monotonic() - begun < 5
    assert not [file for file in root.rglob("*") if file.is_file() and not file.name.endswith(".lock")]
