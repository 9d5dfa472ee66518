"""Tasks by name, and that a task's dataset and its environment mean the same thing."""

import pickle
import subprocess
import sys

import numpy as np
import pytest

import envs
from hybridrl.errors import ConfigError, MissingExtraError


def test_every_name_makes_a_task_of_that_name():
    for name in envs.task_names():
        assert envs.make_task(name).name == name


def test_unknown_name_proposes_the_nearest():
    with pytest.raises(ConfigError, match=r"no task 'pointmaze-umaze-v3'; did you mean 'pointmaze-umaze-v2'\?"):
        envs.make_task("pointmaze-umaze-v3")
    with pytest.raises(ConfigError, match="task_names"):
        envs.make_task("zzz")


def test_importing_envs_imports_nothing_heavy():
    code = (
        "import sys, envs; [envs.make_task(name) for name in envs.task_names()]; "
        "heavy = {'mujoco', 'gymnasium_robotics', 'ogbench', 'minari', 'h5py', 'jax', 'dm_control'}; "
        "heavy &= set(sys.modules); "
        "sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_missing_package_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "ogbench", None)
    with pytest.raises(MissingExtraError, match=r'pip install "hybridrl\[envs\]"'):
        envs.make_env(envs.make_task("pointmaze-medium-navigate-singletask-v0"), 0)


def test_tasks_travel_to_worker_processes():
    for name in envs.task_names():
        assert pickle.loads(pickle.dumps(envs.make_task(name))).name == name


def test_ogbench_rewards_by_hand_and_transform():
    task = envs.make_task("pointmaze-medium-navigate-singletask-v0")  # the goal's cell (6, 6) is centred on (20, 20)
    rewards, successes = task.dataset.relabel({"qpos": np.array([[20.0, 20.9], [20.0, 21.1], [0.0, 0.0]])})
    np.testing.assert_array_equal(rewards, [0.0, -1.0, -1.0])
    actions, rewards, terminations = task.transform(np.full((3, 2), 2.0), rewards, np.zeros(3), successes)
    np.testing.assert_array_equal(rewards, [0.0, -1.0, -1.0])
    np.testing.assert_array_equal(terminations, [True, False, False])
    np.testing.assert_array_equal(actions, np.full((3, 2), np.float32(0.99999)))


@pytest.mark.parametrize(
    "name",
    ["pointmaze-umaze-v2", "pointmaze-medium-navigate-singletask-v0", "local/hopper-medium-v0", "probe/reach-v0"],
)
def test_environment_and_dataset_share_one_transform(name):
    task = envs.make_task(name)
    env = envs.make_env(task, 0)
    env.reset()
    rng = np.random.default_rng(0)
    raw, seen, ended, successes = [], [], [], []
    for _ in range(30):
        _, reward, terminated, truncated, info = env.step(rng.uniform(-1, 1, env.action_space.shape))
        raw.append(info["raw_reward"])
        seen.append(reward)
        ended.append(terminated)
        successes.append(info["success"])
        if terminated or truncated:
            env.reset()
    if name == "local/hopper-medium-v0":  # a fall is the environment's own termination
        successes = ended
    _, rewards, terminations = task.transform(np.zeros((30, 1)), raw, successes, successes)
    np.testing.assert_array_equal(np.float32(seen), rewards)
    np.testing.assert_array_equal(ended, terminations)
