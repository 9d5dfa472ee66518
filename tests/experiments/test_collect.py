"""`python -m experiments.collect` at a tiny size: policies, datasheet, replay and explored data."""

import dataclasses
import functools
import json

import jax
import numpy as np
import pytest
from command_line import REPOSITORY

import envs
from algorithms import SACAgent
from envs import local
from envs.behavior import UniformPolicy
from envs.dm_control import ControlEnv
from experiments import collect
from experiments.collecting import Collecting, Rows, Snapshot, policy_of, train
from hybridrl import datasets
from hybridrl.datasets.exorl import read_exorl_rows
from hybridrl.errors import ConfigError
from hybridrl.training.evaluation import Episodes
from hybridrl.training.online import example_transition

TINY_SAC = dataclasses.replace(
    collect.BEHAVIOR_SAC, actor_hidden_dims=(4,), critic_hidden_dims=(4,), initializer="xavier_uniform"
)
SMALL = {
    "uniform_steps": 100,
    "batch_size": 8,
    "evaluate_every": 100,
    "checkpoint_every": 200,
    "eval_episodes": 1,
}


@pytest.fixture
def small(monkeypatch, tmp_path):
    """The command with tiny networks and few steps, in a data folder of its own and with nothing shipped."""
    monkeypatch.setenv("HYBRIDRL_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(local, "SHIPPED", tmp_path / "package")
    monkeypatch.setattr(collect, "SHIPPED", tmp_path / "package")
    monkeypatch.setitem(collect.TRAINING, "hopper", (TINY_SAC, 8))
    explorer = dataclasses.replace(collect.EXPLORER, sac=TINY_SAC, hidden_dims=(4,), output_dim=2)
    monkeypatch.setattr(collect, "EXPLORER", explorer)
    monkeypatch.setattr(collect, "Collecting", lambda steps, **fields: Collecting(steps, **(SMALL | fields)))
    return tmp_path


def run(tmp_path, *arguments):
    return collect.main([*arguments, "--root", str(tmp_path / "runs")])


def hopper(folder, report=lambda line: None, steps=400):
    task = collect.training_task("hopper")
    return train(
        functools.partial(SACAgent.create, config=TINY_SAC),
        functools.partial(envs.make_env, task),
        folder,
        Collecting(steps, **SMALL),
        0,
        report=report,
    )


class Killed(Exception):
    """Stands for a kill in the middle of training."""


def test_resumed_and_prolonged_equal_uninterrupted(tmp_path):
    snapshots, rows = hopper(tmp_path / "whole")

    def kill(line):
        if "after 300" in line:
            raise Killed

    assert hopper(tmp_path / "cut", steps=200)[1].size == 200  # a shorter training, which goes on
    with pytest.raises(Killed):
        hopper(tmp_path / "cut", kill)
    resumed, again = hopper(tmp_path / "cut")
    with pytest.raises(ConfigError, match="holds 400 steps of training; expected at most steps=200"):
        hopper(tmp_path / "cut", steps=200)
    for name, array in rows.used().items():
        np.testing.assert_array_equal(again.used()[name], array, err_msg=name)
    assert [snap.env_steps for snap in snapshots] == [200, 300, 400]
    for one, two in zip(snapshots, resumed, strict=True):
        assert one.mean_return == two.mean_return
        np.testing.assert_array_equal(one.policy.mean[0], two.policy.mean[0])
    assert not np.array_equal(snapshots[0].policy.mean[0], snapshots[-1].policy.mean[0])  # it was trained
    # Rows follow one another within an episode, and a new environment begins at each checkpoint.
    used = rows.used()
    inner = np.flatnonzero(~used["ends"])
    np.testing.assert_array_equal(used["observations"][inner + 1], used["next_observations"][inner])
    assert used["ends"][199]
    assert used["ends"][399]
    assert not (used["terminations"] & ~used["ends"]).any()
    assert np.abs(used["actions"]).max() <= np.float32(0.99999)


def test_the_exported_policy_is_the_agent_s():
    agent = SACAgent.create(jax.random.key(3), example_transition(11, 3), TINY_SAC)
    observations = np.random.default_rng(0).normal(size=(5, 11)).astype(np.float32)
    distribution = agent.actor(observations)
    policy = policy_of(agent)
    np.testing.assert_allclose(policy.act(observations), distribution.mode(), rtol=1e-4, atol=1e-5)
    assert policy.log_std_bounds == pytest.approx((-5.0, 2.0))


def returning(**returns):
    """A stand-in for `measure`: after so few steps nothing is better than chance."""

    def measure(env, actor, episodes, seed, *, sample):
        kind = "random" if isinstance(actor, UniformPolicy) else "sampled" if sample else "mode"
        values = np.full(episodes, returns[kind])
        return Episodes(values, np.full(episodes, 7), np.zeros(episodes, bool), values)

    return measure


def test_hopper_from_command_to_datasets(small, capsys, monkeypatch):
    monkeypatch.setattr(collect, "measure", returning(random=9.0, sampled=1.0, mode=3.0))
    assert run(small, "hopper", "--steps", "400", "--episodes", "2") == 2
    assert "returns 3.0 and random actions 9.0; nothing was written" in capsys.readouterr().err
    assert not (small / "data").exists()
    monkeypatch.setattr(collect, "measure", returning(random=2.0, sampled=5.0, mode=9.0))
    assert run(small, "hopper", "--steps", "400", "--episodes", "2") == 0
    out = capsys.readouterr().out
    assert "written" in out
    assert "expert_mode" in out
    sheet = json.loads((small / "data/policies/hopper.json").read_text())
    assert sheet["command"] == "python -m experiments.collect hopper --steps 400 --seed 0 --episodes 2"
    assert sheet["training"]["steps"] == 400
    assert sheet["episodes"] == 2
    medium, expert = sheet["policies"]["medium"], sheet["policies"]["expert"]
    assert [steps for steps, _ in sheet["snapshots"]] == [200, 300, 400]
    assert medium["env_steps"] <= expert["env_steps"]
    # Tasks take their score's range from it, and datasets are made from its policies.
    task = envs.make_task("local/hopper-medium-replay-v0")
    assert task.score_range == (2.0, 9.0)
    assert sheet["measured"]["medium_sampled"] == {"return_mean": 5.0, "return_std": 0.0, "length_mean": 7.0}
    replay = datasets.load(task)
    assert replay.num_rows == medium["env_steps"] == task.dataset.rows
    assert replay.source.origin == "generated"
    folder = small / "made"
    folder.mkdir()
    local.generate_local("hopper", "medium-expert", folder, rows=16, processes=1)
    # The same command finds everything done, and replaces nothing.
    assert run(small, "hopper", "--steps", "400", "--episodes", "2") == 0
    assert "kept as it is" in capsys.readouterr().out


def test_exploration_from_command_to_dataset(small):
    assert run(small, "walker-rnd", "--steps", "200") == 0
    task = envs.make_task("local/walker-rnd-flip-v0")
    folder, source = datasets.fetch(task.dataset)
    rows = read_exorl_rows(folder)
    assert source.origin == "generated"
    assert rows["states"].shape == (200, 18)
    inner = np.flatnonzero(~rows["ends"])
    np.testing.assert_array_equal(rows["states"][inner + 1], rows["next_states"][inner])
    stand = datasets.load(envs.make_task("local/walker-rnd-stand-v0"))
    flip = datasets.load(task)
    assert (stand.transitions.rewards > flip.transitions.rewards).mean() > 0.5  # one file, two tasks' rewards
    # The stored states are those of the stored observations.
    env = ControlEnv("walker", "flip")
    env.reset(seed=0)
    with env.physics.reset_context():
        env.physics.set_state(rows["next_states"][17])
    parts = env.control.task.get_observation(env.physics).values()
    seen = np.concatenate([np.ravel(part) for part in parts])
    np.testing.assert_allclose(seen, rows["next_observations"][17], atol=1e-5)


def test_choice_of_snapshots():
    snapshots = [Snapshot(i, value, None) for i, value in enumerate((-9.0, 20.0, 40.0, 90.0, 60.0))]
    medium, expert = collect.choose(snapshots)
    assert (medium.mean_return, expert.mean_return) == (40.0, 90.0)


def test_replay_is_cut_at_the_snapshot():
    rows = Rows(6, 1, 1, 0)
    for number, (terminated, end) in enumerate([(False, False), (True, True), (False, True), (False, False)]):
        rows.add(
            observations=[number],
            actions=[0.5],
            rewards=number,
            terminations=terminated,
            ends=end,
            next_observations=[number + 0.5],
        )
    first, second, third = collect.replay_episodes(rows, 4)
    np.testing.assert_array_equal(first.observations[:, 0], [0.0, 1.0, 1.5])
    np.testing.assert_array_equal(first.terminations, [False, True])
    np.testing.assert_array_equal(first.truncations, [False, False])
    assert second.truncations.tolist() == third.truncations.tolist() == [True]
    (only,) = collect.replay_episodes(rows, 1)
    assert only.truncations.tolist() == [True]
    assert len(only.observations) == 2


def test_command_line_errors(small, capsys):
    with pytest.raises(SystemExit):
        collect.main(["cat"])
    assert "invalid choice: 'cat'" in capsys.readouterr().err
    assert run(small, "hopper", "--steps", "175") == 2
    assert "expected a positive multiple of 50" in capsys.readouterr().err
    assert run(small, "hopper", "--steps", "100") == 2
    assert "expected at least 200" in capsys.readouterr().err
    assert run(small, "hopper", "--steps", "300") == 2
    assert "multiple of checkpoint_every=200" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="checkpoint_every=0"):
        Collecting(10_000, checkpoint_every=0)


def test_commands_in_the_documentation_exist():
    text = (REPOSITORY / "docs/datasets.md").read_text()
    named = {line.split()[3] for line in text.splitlines() if line.startswith("python -m experiments.collect ")}
    assert named
    assert named <= {*local.ENVIRONMENTS, *collect.EXPLORED}
