"""Runs of Uni-O4 and BPPO by the loop: trials in the environment, stops in the middle of offline PPO, the switch."""

import dataclasses
import functools

import jax
import numpy as np
import pytest
from test_loop import Watcher, assert_same, dataset
from test_rollouts import RAMP

import envs
from algorithms import (
    ClonesConfig,
    ImprovementConfig,
    OfflineValuesConfig,
    PPOAgent,
    PPORun,
    TransitionModelConfig,
    UniO4Agent,
    UniO4Config,
    UniO4Stage,
)
from hybridrl.datasets import Dataset
from hybridrl.logger import read_lines
from hybridrl.training.evaluation import evaluate
from hybridrl.training.loop import Loop
from hybridrl.training.phases import Learner, Phase
from hybridrl.training.progress import LoopSettings, Stopped

CONFIG = UniO4Config(
    discount=0.9,
    values=OfflineValuesConfig(critic_hidden_dims=(4,), value_hidden_dims=(4,)),
    model=TransitionModelConfig(num_members=2, num_elites=1, model_hidden_dims=(4,)),
    clones=ClonesConfig(num_members=3, actor_hidden_dims=(4,)),
    improvement=ImprovementConfig(learning_rate=3e-2, horizon=3, num_starts=4, gate_every=2),
)
UPDATES = 12


def policies(**changes):
    """The last offline stage alone: clones, values and model are as they are created."""
    config = dataclasses.replace(CONFIG, improvement=dataclasses.replace(CONFIG.improvement, **changes))
    trials = (0, 4, 8, UPDATES) if "gate" in changes else (UPDATES,)
    learner = Learner(UniO4Agent, UniO4Stage(config, "policies", UPDATES))
    return Phase("offline", learner, UPDATES, batch_size=8, judge_at=trials, judge_episodes=2)


ONLINE = Phase(
    "online",
    Learner(PPOAgent, PPORun(dataclasses.replace(CONFIG.ppo(), minibatch_size=8), num_updates=4, num_envs=2)),
    env_steps=64,
    batches="rollouts",
    num_envs=2,
    rollout_steps=8,
    evaluate_at=(16, 64),
)
# BPPO, whose trials come in the middle of its steps; and Uni-O4 with its one trial, and on through the switch.
PHASES = {
    "returns": (policies(gate="returns"),),
    "amq": (policies(select="amq_top3_then_real"), ONLINE),
}
SETTINGS = LoopSettings(discount=0.9, log_every=2, checkpoint_every=6, eval_episodes=3, eval_envs=2, probe_rows=16)


def new_loop(kind, folder, watcher=None, data=None):
    make_env = functools.partial(envs.make_env, RAMP)
    return Loop(PHASES[kind], RAMP, data or dataset(), make_env, folder, 0, SETTINGS, watcher or Watcher())


@functools.lru_cache
def whole(kind, root):
    folder = root / kind
    loop = new_loop(kind, folder)
    loop.run()
    return folder, loop


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return functools.partial(whole, root=tmp_path_factory.mktemp("whole"))


def logs(folder):
    """What may not depend on the clock; the shorter run is never evaluated."""
    return [path.read_bytes() for path in sorted(folder.glob("*.jsonl")) if path.stem != "timing"]


def trials(folder):
    return [line for line in read_lines(folder / "metrics.jsonl") if "judge/return_mean" in line]


def test_trials_decide_and_are_logged(finished):
    """All three members are tried four times, in two episodes each, of two or three steps."""
    folder, loop = finished("returns")
    found = trials(folder)
    assert [line["step"] for line in found] == [0, 4, 8, 12]
    assert all(3 * 2 * 2 <= line["judge/env_steps"] <= 3 * 2 * 3 for line in found)
    best = [line["judge/return_max"] for line in found]
    assert best[0] < max(best)  # something better than a clone was found, and accepted
    assert loop.progress.env_steps == 0  # trials are not among a run's steps


@pytest.mark.slow
def test_one_choice_is_made_by_three_members(finished):
    (last,) = trials(finished("amq")[0])
    assert last["step"] == UPDATES
    assert 3 * 2 * 2 <= last["judge/env_steps"] <= 3 * 2 * 3


@pytest.mark.parametrize(
    ("kind", "before", "number"),
    [("returns", True, 1), ("returns", False, 3), pytest.param("amq", False, 1, marks=pytest.mark.slow)],
)
def test_a_crash_at_a_trial_equals_going_through(finished, tmp_path, kind, before, number):
    """Power goes while members are tried, or right after the decision and before the next checkpoint."""
    folder, loop = finished(kind)
    broken, seen = new_loop(kind, tmp_path), []
    judge = broken._judge

    def failing(phase):
        seen.append(broken.progress.done)
        if not before:
            judge(phase)
        if len(seen) == number:
            raise RuntimeError("power cut")
        if before:
            judge(phase)

    broken._judge = failing
    with pytest.raises(RuntimeError, match="power cut"):
        broken.run()
    resumed = new_loop(kind, tmp_path)
    resumed.run()
    assert_same(resumed.agent, loop.agent)
    assert logs(tmp_path) == logs(folder) != []


@pytest.mark.parametrize(
    ("kind", "stop_at"),
    [("returns", 3), ("returns", 5), *(pytest.param("amq", at, marks=pytest.mark.slow) for at in (4, 9))],
)
def test_a_stop_in_offline_ppo_or_after_it_equals_going_through(finished, tmp_path, kind, stop_at):
    """Stopped between two gates, right after a trial, or online: what was decided is not decided again."""
    folder, loop = finished(kind)
    with pytest.raises(Stopped):
        new_loop(kind, tmp_path, Watcher(stop_at)).run()
    resumed = new_loop(kind, tmp_path)
    assert 0 < resumed.progress.step < loop.progress.step
    resumed.run()
    assert_same(resumed.agent, loop.agent)
    assert logs(tmp_path) == logs(folder) != []
    assert resumed.progress == loop.progress


@pytest.mark.slow
def test_the_switch_changes_no_action_and_online_ppo_reads_no_data(finished, tmp_path):
    """The same episodes before and after; and with all rows of the dataset replaced, bit for bit the same agent."""
    _, loop = finished("amq")
    watcher = Watcher()
    stopping = new_loop("amq", tmp_path, watcher)
    watcher.should_stop = lambda: stopping.progress.phase == 1
    with pytest.raises(Stopped):
        stopping.run()
    rows = dataset().transitions
    other = jax.tree.map(lambda leaf: leaf[::-1] * 3.0 + 1.0, rows)
    data = Dataset(other, *(getattr(dataset(), field.name) for field in dataclasses.fields(Dataset)[1:]))
    resumed = new_loop("amq", tmp_path, data=data)
    offline = resumed.agent
    resumed._enter_phase()
    online = resumed.agent
    assert (type(offline), type(online)) == (UniO4Agent, PPOAgent)
    played = [
        evaluate(agent.policy(deterministic=True), resumed._eval_envs, RAMP, 4, jax.random.key(0), seed=5)
        for agent in (offline, online)
    ]
    np.testing.assert_array_equal(played[0].returns, played[1].returns)
    seen = online._seen(rows.observations)
    assert_same(online.actor(seen), offline.actor(offline._seen(rows.observations)))  # a divergence of 0
    resumed.run()
    assert_same(resumed.agent, loop.agent)
    np.testing.assert_array_equal(loop.agent.standardizer.mean, rows.observations.mean(axis=0))
    np.testing.assert_array_equal(loop.agent.standardizer.std, rows.observations.std(axis=0) + 1e-3)
