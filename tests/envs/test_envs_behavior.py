"""Behaviour policies, and the dataset of the reach probe."""

import numpy as np
import pytest

import envs
from envs import behavior
from envs.tasks import probes
from hybridrl.datasets import files
from hybridrl.datasets.dataset import Dataset
from hybridrl.errors import DatasetError


def parameters(obs_dim=11, width=8, action_dim=3, seed=0):
    rng = np.random.default_rng(seed)
    shapes = {"layer_0": (obs_dim, width), "layer_1": (width, width), "mean": (width, action_dim)}
    shapes["log_std"] = shapes["mean"]
    arrays = {}
    for name, shape in shapes.items():
        arrays[f"{name}/kernel"] = rng.normal(0.0, 0.3, shape)
        arrays[f"{name}/bias"] = rng.normal(0.0, 0.3, shape[1:])
    return arrays


def test_actions_by_hand():
    arrays = {
        "layer_0/kernel": [[1.0, -1.0]],
        "layer_0/bias": [0.0, 0.0],
        "mean/kernel": [[0.5], [7.0]],
        "mean/bias": [0.1],
        "log_std/kernel": [[0.0], [0.0]],
        "log_std/bias": [-9.0],
    }
    policy = behavior.behavior_policy(arrays, log_std_bounds=(-1.0, 2.0))
    np.testing.assert_allclose(policy.act(np.array([[2.0]])), [[np.tanh(1.1)]], rtol=1e-6)  # the second unit is off
    samples = np.arctanh(policy.act(np.full((20_000, 1), 2.0), np.random.default_rng(0)).astype(np.float64))
    assert samples.mean() == pytest.approx(1.1, abs=0.02)
    assert samples.std() == pytest.approx(np.exp(-1.0), rel=0.02)  # the bound, not exp(-9)


def test_saved_is_loaded(tmp_path):
    policy = behavior.behavior_policy(parameters(), log_std_bounds=(-5.0, 2.0))
    policy.save(tmp_path / "p.npz")
    again = behavior.BehaviorPolicy.load(tmp_path / "p.npz")
    observations = np.random.default_rng(0).normal(size=(4, 11))
    for rng in (None, 1):
        np.testing.assert_array_equal(
            policy.act(observations, rng and np.random.default_rng(rng)),
            again.act(observations, rng and np.random.default_rng(rng)),
        )
    assert (again.obs_dim, again.action_dim, again.log_std_bounds) == (11, 3, (-5.0, 2.0))


def test_bad_policies_are_refused(tmp_path):
    with pytest.raises(DatasetError, match="no behaviour policy"):
        behavior.BehaviorPolicy.load(tmp_path / "none.npz")
    arrays = parameters()
    for changes, message in (
        ({"mean/kernel": np.zeros((5, 3))}, r"'mean' has kernel \(5, 3\)"),
        ({"mean/bias": np.full(3, np.nan)}, "'mean' is not finite"),
        ({"extra": np.zeros(1)}, "extra"),
        ({"log_std/kernel": np.zeros((8, 2)), "log_std/bias": np.zeros(2)}, "differ in shape"),
    ):
        with pytest.raises(DatasetError, match=message):
            behavior.behavior_policy(arrays | changes, log_std_bounds=(-5.0, 2.0))
        np.savez(tmp_path / "bad.npz", log_std_bounds=np.zeros(2), **(arrays | changes))
        with pytest.raises(DatasetError, match=message):
            behavior.BehaviorPolicy.load(tmp_path / "bad.npz")


def test_uniform_actions():
    policy = behavior.UniformPolicy(2)
    actions = policy.act(np.zeros((20_000, 5)), np.random.default_rng(0))
    assert actions.shape == (20_000, 2)
    assert np.abs(actions).max() <= 1.0
    np.testing.assert_allclose(actions.mean(axis=0), 0.0, atol=0.02)
    np.testing.assert_allclose(actions.var(axis=0), 1.0 / 3.0, rtol=0.03)
    with pytest.raises(ValueError, match="no mode"):
        policy.act(np.zeros(5))


def test_reach_dataset(tmp_path):
    probes.generate_reach(tmp_path)
    task = envs.make_task("probe/reach-v0")
    steps = files.read(tmp_path, task)
    dataset = Dataset.from_steps(steps, task, discount=0.99)
    assert dataset.num_rows == task.dataset.rows
    share = steps.successes.sum() / dataset.num_episodes
    assert 0.3 < share < 0.7
    moves = np.clip(steps.observations + np.float32(0.2) * steps.actions, -1.0, 1.0)
    np.testing.assert_allclose(steps.next_observations, moves, atol=1e-6)
    np.testing.assert_array_equal(steps.successes, steps.next_observations[:, 0] > 0.8)
    np.testing.assert_array_equal(steps.terminations, steps.successes)
    assert np.diff(np.flatnonzero(steps.ends), prepend=-1).max() == 20
