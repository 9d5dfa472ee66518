"""The library's own MuJoCo datasets and the policies shipped for them."""

import json

import numpy as np
import pytest

import envs
from envs import behavior, local
from experiments.collecting import measure
from hybridrl import datasets, disk
from hybridrl.datasets import files
from hybridrl.errors import ConfigError, DatasetError

SHIPPED = sorted(path.stem for path in local.SHIPPED.glob("*.json"))


def constant(action):
    """A policy that takes one action, nearly without noise, whatever it sees: so datasets say who acted."""
    zeros = np.zeros((11, 3))
    arrays = {
        "mean/kernel": zeros,
        "mean/bias": np.full(3, np.arctanh(action)),
        "log_std/kernel": zeros,
        "log_std/bias": np.full(3, -9.0),
    }
    return behavior.behavior_policy(arrays, log_std_bounds=(-9.0, 2.0))


ACTORS = {"medium": constant(0.25), "expert": constant(-0.5)}


def generated(folder, kind, rows, processes=1, seed=0):
    folder.mkdir()
    local.generate_local("hopper", kind, folder, rows=rows, seed=seed, actors=ACTORS, processes=processes)
    return files.read(folder, envs.make_task(f"local/hopper-{kind}-v0"))


def test_parts_of_a_dataset(tmp_path):
    steps = generated(tmp_path / "data", "medium", rows=804)
    assert steps.observations.shape == (804, 11)
    assert steps.terminations.sum() >= 2  # a hopper that does not react falls
    cut = np.flatnonzero(steps.ends & ~steps.terminations)  # only where one of the eight parts ends
    assert set(cut.tolist()) <= {100, 201, 302, 403, 503, 603, 703, 803}
    starts = np.concatenate([[0], np.flatnonzero(steps.ends)[:-1] + 1])
    np.testing.assert_array_equal(
        np.delete(steps.observations, starts, axis=0), np.delete(steps.next_observations, np.flatnonzero(steps.ends), 0)
    )


def test_who_acts_in_each_kind(tmp_path):
    mean = {kind: generated(tmp_path / kind, kind, rows=240).actions.mean(axis=1) for kind in local.KINDS}
    np.testing.assert_allclose(mean["medium"], 0.25, atol=0.01)
    np.testing.assert_allclose(mean["expert"], -0.5, atol=0.01)
    np.testing.assert_allclose(mean["medium-expert"][:120], 0.25, atol=0.01)  # half and half
    np.testing.assert_allclose(mean["medium-expert"][120:], -0.5, atol=0.01)
    assert mean["random"].std() == pytest.approx(1.0 / 3.0, rel=0.2)  # of a mean of three uniform numbers


def test_data_depend_on_the_seed_and_not_on_processes(tmp_path):
    first = generated(tmp_path / "one", "random", rows=80)
    second = generated(tmp_path / "two", "random", rows=80, processes=2)
    other = generated(tmp_path / "other", "random", rows=80, seed=1)
    np.testing.assert_array_equal(first.observations, second.observations)
    np.testing.assert_array_equal(first.actions, second.actions)
    assert not np.array_equal(first.actions, other.actions)
    names = [tmp_path / name / "data/main_data.hdf5" for name in ("one", "two")]
    assert names[0].read_bytes() == names[1].read_bytes()


def test_bad_requests_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="no local dataset of 'cat'"):
        local.generate_local("cat", "medium", tmp_path)
    with pytest.raises(ConfigError, match="medium-expert"):
        local.generate_local("hopper", "best", tmp_path)
    with pytest.raises(ConfigError, match="rows=7"):
        local.generate_local("hopper", "random", tmp_path, rows=7)
    assert not list(tmp_path.iterdir())


def test_what_is_missing_names_the_command(tmp_path, monkeypatch):
    monkeypatch.setenv("HYBRIDRL_DATA", str(tmp_path))
    monkeypatch.setattr(local, "SHIPPED", tmp_path / "package")
    task = envs.make_task("local/ant-medium-v0")
    assert task.score(np.array([12.0]), np.zeros(1)) == 12.0  # no range has been measured
    assert "experiments.collect ant" in task.score_label
    for kind in ("medium", "expert", "medium-expert", "medium-replay"):
        with pytest.raises(DatasetError, match=r"make it with: python -m experiments\.collect ant"):
            datasets.fetch(envs.make_task(f"local/ant-{kind}-v0").dataset)


def test_all_that_is_shipped_has_a_datasheet():
    assert set(SHIPPED) == {"halfcheetah", "hopper", "walker2d"}
    named = {entry["file"] for robot in SHIPPED for entry in local.datasheet(robot)["policies"].values()}
    assert {path.name for path in local.SHIPPED.iterdir()} == named | {f"{robot}.json" for robot in SHIPPED}


@pytest.mark.parametrize("robot", SHIPPED)
def test_datasheets_match_what_is_shipped(robot):
    sheet = json.loads((local.SHIPPED / f"{robot}.json").read_text())
    task = envs.make_task(f"local/{robot}-medium-v0")
    env = envs.make_env(task, 0)
    assert sheet["environment"] == task.env_id == local.ENVIRONMENTS[robot]
    assert set(sheet["policies"]) == {"medium", "expert"}
    for name, entry in sheet["policies"].items():
        path = local.SHIPPED / entry["file"]
        assert entry["sha256"] == disk.sha256_file(path)
        assert path.stat().st_size < 1_000_000
        policy = local.load_actor(robot, name, env.action_space.shape[0])
        assert (policy.obs_dim, policy.action_dim) == (*env.observation_space.shape, *env.action_space.shape)
    measured = {name: figures["return_mean"] for name, figures in sheet["measured"].items()}
    assert sheet["score_range"] == {"random": measured["random"], "expert": measured["expert_mode"]}
    assert task.score_range == (measured["random"], measured["expert_mode"])
    assert measured["random"] < measured["medium_sampled"] < measured["expert_mode"]
    assert sheet["command"].startswith(f"python -m experiments.collect {robot} --steps ")
    assert {"jax", "mujoco", "gymnasium"} <= set(sheet["versions"])
    replay = envs.make_task(f"local/{robot}-medium-replay-v0")
    assert replay.dataset.rows == sheet["policies"]["medium"]["env_steps"]


@pytest.mark.parametrize("robot", SHIPPED)
def test_shipped_policies_earn_what_the_datasheet_says(robot):
    sheet = local.datasheet(robot)
    env = envs.make_env(envs.make_task(f"local/{robot}-medium-v0"), 0)
    earned = []
    for name, sample, figures in (("medium", True, "medium_sampled"), ("expert", False, "expert_mode")):
        returns = measure(env, local.load_actor(robot, name, 0), 3, seed=5, sample=sample).returns
        typical, expected = np.median(returns), sheet["measured"][figures]  # a mean would hang on one rare fall
        assert typical == pytest.approx(expected["return_mean"], abs=3.0 * expected["return_std"] + 1.0)
        earned.append(typical)
    assert earned[1] > earned[0]
