import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

import envs
from algorithms import (
    CalQLAgent,
    CalQLConfig,
    MOORLAgent,
    MOORLConfig,
    PenaltyConfig,
    ReBRACAgent,
    ReBRACConfig,
    SACConfig,
    TD3BCAgent,
    TD3BCConfig,
    WSRLAgent,
    WSRLConfig,
)
from envs.probe import ProbeEnv
from hybridrl.datasets import Dataset, Steps
from hybridrl.errors import ConfigError, DivergenceError
from hybridrl.logger import read_lines
from hybridrl.policies import UniformPolicy
from hybridrl.replay import ReplayBuffer
from hybridrl.training.loop import Loop
from hybridrl.training.phases import Learner, Phase
from hybridrl.training.progress import LoopSettings, Stopped

TASK = envs.make_task("probe/reach-v0")
WARMUP, BATCH = 30, 16
SAC = SACConfig(
    actor_hidden_dims=(4,), critic_hidden_dims=(4,), num_critics=2, critic_updates=4, initializer="xavier_uniform"
)
OFFLINE = CalQLConfig(
    dataclasses.replace(SAC, critic_updates=1, num_backup_actions=2),
    PenaltyConfig(num_actions=2, multiplier="lagrange"),
)
# The reference's first update is the one at step index max(warm-up, batch) + 1, with that many rows and one more.
PHASES = (
    Phase("offline", Learner(CalQLAgent, OFFLINE), num_updates=20, batch_size=8, evaluate_at=(20,)),
    Phase("warmup", Learner(CalQLAgent, OFFLINE), env_steps=WARMUP),
    Phase(
        "online",
        Learner(WSRLAgent, WSRLConfig(SAC)),
        env_steps=40,
        updates_per_step=1,
        batch_size=BATCH,
        min_buffer=max(WARMUP, BATCH) + 2,
        evaluate_at=(10, 40),
    ),
)
SETTINGS = LoopSettings(log_every=10, checkpoint_every=20, eval_episodes=3, eval_envs=2, probe_rows=16)


OPENED: list[Loop] = []


@pytest.fixture(autouse=True)
def _close_loops():
    yield
    while OPENED:
        OPENED.pop().logger.close()


class Watcher:
    """Stops at the given number of questions; remembers evaluations."""

    def __init__(self, stop_at=math.inf):
        self.asked, self.stop_at, self.records = 0, stop_at, []

    def progress(self, phase, done, rate):
        assert rate >= 0

    def evaluated(self, record):
        self.records.append(record)

    def should_stop(self):
        self.asked += 1
        return self.asked >= self.stop_at


@functools.lru_cache
def dataset():
    """Episodes of the reach with random drifts."""
    rng, columns = np.random.default_rng(0), []
    for _ in range(12):
        position = rng.uniform(-1, 0)
        for step in range(20):
            action = float(np.clip(0.5 + 0.6 * rng.standard_normal(), -1, 1))
            following = float(np.clip(position + 0.2 * action, -1, 1))
            success = following > 0.8
            columns.append((position, action, float(success), success, success or step == 19, following))
            position = following
            if success:
                break
    obs, actions, rewards, ended, ends, following = (np.array(column) for column in zip(*columns, strict=True))
    steps = Steps(
        obs[:, None].astype(np.float32),
        actions[:, None].astype(np.float32),
        rewards,
        ended,
        ends,
        following[:, None].astype(np.float32),
        ended,
    )
    return Dataset.from_steps(steps, TASK, 0.9)


def new_loop(folder, watcher=None, phases=PHASES, settings=SETTINGS, seed=0, data=None, task=TASK):
    make_env = functools.partial(envs.make_env, task)
    loop = Loop(phases, task, data or dataset(), make_env, folder, seed, settings, watcher or Watcher())
    OPENED.append(loop)
    return loop


def logs(folder):
    """The logs that may not depend on the clock."""
    return [(folder / name).read_bytes() for name in ("metrics.jsonl", "evaluations.jsonl")]


def flat(tree):
    leaves = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        leaves[jax.tree_util.keystr(path)] = np.array(leaf)
    return leaves


def assert_same(first, second):
    first, second = flat(first), flat(second)
    assert first.keys() == second.keys()
    for name, value in first.items():
        np.testing.assert_array_equal(value, second[name], err_msg=name)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """One uninterrupted run: its folder, the loop, and snapshots of the agent at the start of every phase."""
    folder = tmp_path_factory.mktemp("whole")
    loop, snapshots = new_loop(folder), {}
    enter = loop._enter_phase

    def entering():
        enter()
        if loop.progress.done == 0:
            snapshots[PHASES[loop.progress.phase].name] = (type(loop.agent), flat(loop.agent.parts()))

    loop._enter_phase = entering
    loop.run()
    return folder, loop, snapshots


def test_warm_up_changes_nothing_and_the_switch_drops_only_the_multiplier(whole):
    _, _, snapshots = whole
    kind, before = snapshots["warmup"]
    online_kind, after = snapshots["online"]
    assert (kind, online_kind) == (CalQLAgent, WSRLAgent)
    assert {name for name in before if name not in after} == {name for name in before if "multiplier" in name}
    for name, value in after.items():
        np.testing.assert_array_equal(value, before[name], err_msg=name)


def test_updates_begin_one_step_after_the_warm_up_and_are_four_to_one(whole):
    """Steps 30 to 69 are online; the first update is at index 31, with 32 rows: 39 updates."""
    _, loop, snapshots = whole
    assert loop.progress.online_updates == 39
    assert loop.progress.updates == 20 + 39
    assert loop.progress.env_steps == 70
    sac, start = loop.agent.sac, snapshots["online"][1]
    for role, per_step in (("actor", 1), ("critic", 4), ("temperature", 1)):
        begun = int(start[f"['{role}'].opt_state[0].count"])
        assert begun == 20
        assert int(getattr(sac, role).opt_state[0].count) - begun == 39 * per_step


def test_the_buffer_holds_the_online_steps_only(whole):
    _, loop, _ = whole
    assert int(loop.buffer.size) == loop.buffer.capacity == 70
    rows = loop.buffer.storage
    moves = np.clip(np.asarray(rows.observations) + 0.2 * np.asarray(rows.actions), -1, 1)
    np.testing.assert_allclose(rows.next_observations, moves, atol=1e-5)
    successes = np.asarray(rows.next_observations)[:, 0] > 0.8
    np.testing.assert_array_equal(rows.rewards, np.where(successes, 5.0, -5.0))
    np.testing.assert_array_equal(rows.masks, np.where(successes, 0.0, 1.0))
    offline = {float(value) for value in np.asarray(dataset().transitions.actions)[:, 0]}
    assert not offline & {float(value) for value in np.asarray(rows.actions)[:, 0]}


def test_the_first_rows_are_samples_of_the_frozen_policy(whole):
    """Replaying the warm-up's keys through the policy at the switch gives its actions."""
    _, loop, snapshots = whole
    agent = WSRLAgent.create(jax.random.key(0), loop._example, WSRLConfig(SAC))
    switch = snapshots["online"][1]
    leaves, structure = jax.tree.flatten(agent.sac.actor)
    names = [name for name in switch if name.startswith("['actor']")]
    assert len(names) == len(leaves)
    actor = jax.tree.unflatten(structure, [jnp.asarray(switch[name]) for name in names])
    phase_key = jax.random.fold_in(jax.random.key(0), 1)
    stored = loop.buffer.storage
    for step in range(WARMUP):
        key = jax.random.split(jax.random.fold_in(jax.random.fold_in(phase_key, 2), step))[0]
        action = actor(stored.observations[step][None]).sample(key)[0]
        np.testing.assert_allclose(stored.actions[step], np.clip(action, -0.99999, 0.99999), atol=1e-5)


def test_evaluations_keep_every_episode(whole):
    folder, loop, _ = whole
    records = loop.evaluations()
    assert [(record["phase"], record["phase_step"]) for record in records] == [
        ("offline", 20),
        ("online", 10),
        ("online", 40),
    ]
    assert [record["env_steps"] for record in records] == [0, 40, 70]
    assert [record["online_updates"] for record in records] == [0, 9, 39]
    for record in records:
        episodes = record["episodes"]
        assert [len(values) for values in episodes.values()] == [3] * 4
        np.testing.assert_allclose(record["summary"]["return"], np.mean(episodes["returns"]))
        assert all(1 <= length <= 20 for length in episodes["lengths"])
        assert episodes["returns"] == [float(success) for success in episodes["successes"]]
        assert {"offline_q", "offline_td_error", "offline_share"} <= set(record["panel"])
    assert [record["panel"]["offline_share"] for record in records] == [1.0, 0.0, 0.0]
    assert "online_q" in records[-1]["panel"]
    assert all(np.isfinite(value) for line in read_lines(folder / "metrics.jsonl") for value in list(line.values())[2:])


def test_the_same_seed_gives_the_same_bytes_and_another_one_does_not(whole, tmp_path):
    folder, loop, _ = whole
    again = new_loop(tmp_path / "again")
    again.run()
    assert logs(tmp_path / "again") == logs(folder)
    assert_same(again.agent, loop.agent)
    short = (dataclasses.replace(PHASES[0]),)
    new_loop(tmp_path / "other", phases=short, seed=1).run()
    assert logs(tmp_path / "other")[1] != logs(folder)[1][: len(logs(tmp_path / "other")[1])]


@pytest.mark.parametrize("stop_at", [2, 4, 6, 9])
def test_stopping_and_going_on_equals_going_through(whole, tmp_path, stop_at):
    folder, loop, _ = whole
    with pytest.raises(Stopped):
        new_loop(tmp_path, Watcher(stop_at)).run()
    resumed = new_loop(tmp_path)
    assert resumed.progress.step < loop.progress.step
    resumed.run()
    assert logs(tmp_path) == logs(folder)
    for part in ("agent", "buffer", "online_probe"):
        assert_same(getattr(resumed, part), getattr(loop, part))
    assert resumed.progress == loop.progress


@pytest.mark.parametrize("at", [13, 35, 55])
def test_a_crash_in_any_phase_equals_going_through(whole, tmp_path, monkeypatch, at):
    """An exception out of the bookkeeping, at an arbitrary step."""
    folder, loop, _ = whole
    broken = new_loop(tmp_path)
    advance = broken._advance

    def failing(count, **kinds):
        advance(count, **kinds)
        if broken.progress.step >= at:
            raise RuntimeError("power cut")

    broken._advance = failing
    with pytest.raises(RuntimeError, match="power cut"):
        broken.run()
    resumed = new_loop(tmp_path)
    resumed.run()
    assert logs(tmp_path) == logs(folder)
    assert_same(resumed.agent, loop.agent)


def test_a_finished_run_does_nothing_more(whole):
    folder, loop, _ = whole
    before = logs(folder)
    again = new_loop(folder)
    again.run()
    assert logs(folder) == before
    assert_same(again.agent, loop.agent)


def test_a_stop_at_a_checkpoints_boundary_keeps_it(tmp_path):
    """The second question is the one at step 20 of a phase without logs in between."""
    settings = dataclasses.replace(SETTINGS, log_every=20)
    with pytest.raises(Stopped):
        new_loop(tmp_path, Watcher(2), phases=PHASES[1:2], settings=settings).run()
    assert new_loop(tmp_path, phases=PHASES[1:2], settings=settings).progress.done == 20


def test_other_settings_do_not_take_up_a_checkpoint(whole):
    folder, _, _ = whole
    wider = WSRLConfig(dataclasses.replace(SAC, actor_hidden_dims=(5,)))
    offline = Learner(
        CalQLAgent, dataclasses.replace(OFFLINE, sac=dataclasses.replace(OFFLINE.sac, actor_hidden_dims=(5,)))
    )
    phases = tuple(dataclasses.replace(p, learner=offline) for p in PHASES[:2])
    phases += (dataclasses.replace(PHASES[2], learner=Learner(WSRLAgent, wider)),)
    with pytest.raises(ConfigError, match="does not fit this run"):
        new_loop(folder, phases=phases)


def test_nan_stops_the_run_and_keeps_the_last_checkpoint(tmp_path):
    """The first 20 updates are healthy; then a row of the data turns to NaN."""
    phases = (dataclasses.replace(PHASES[0], num_updates=60, evaluate_at=()),)
    loop = new_loop(tmp_path, phases=phases)
    save = loop._save

    def poisoning():
        save()
        rows = loop._offline.transitions
        poisoned = rows.replace(rewards=jnp.full_like(rows.rewards, jnp.nan))
        loop._samplers[0] = loop._offline.replace(transitions=poisoned)

    loop._save = poisoning
    with pytest.raises(DivergenceError, match=r"in phase 'offline' at step 30 .*the last checkpoint is kept"):
        loop.run()
    assert loop.checkpoints.steps() == [20]
    resumed = new_loop(tmp_path, phases=phases)
    assert resumed.progress.done == 20
    assert all(np.isfinite(leaf).all() for leaf in flat(resumed.agent).values())
    assert all(np.isfinite(line["critic/loss"]) for line in read_lines(tmp_path / "metrics.jsonl"))


def test_data_of_another_shape_are_refused(tmp_path):
    good = dataset().transitions
    wide = jnp.concatenate([good.observations] * 3, axis=1)
    other = dataset().replace(transitions=good.replace(observations=wide, next_observations=wide))
    with pytest.raises(ConfigError, match=r"observations have shape \(3,\) and the environment's \(1,\)"):
        new_loop(tmp_path, data=other)


def test_misfits_are_found_before_training(tmp_path):
    wide = Learner(WSRLAgent, WSRLConfig(dataclasses.replace(SAC, critic_hidden_dims=(5,))))
    with pytest.raises(ConfigError, match="cannot take over"):
        new_loop(tmp_path, phases=(*PHASES[:2], dataclasses.replace(PHASES[2], learner=wide)))
    with pytest.raises(ConfigError, match=r"phase 'offline' trains on offline data .* has none"):
        Loop(PHASES, TASK, None, functools.partial(envs.make_env, TASK), tmp_path, 0, SETTINGS, Watcher())
    assert not (tmp_path / "metrics.jsonl").exists()


def test_a_buffer_that_begins_with_the_dataset_survives_a_stop(tmp_path):
    """Retention by appending: dataset first, new rows behind it."""
    rows = dataset().num_rows
    phases = (dataclasses.replace(PHASES[1], env_steps=40, start_buffer="offline"),)
    with pytest.raises(Stopped):
        new_loop(tmp_path, Watcher(4), phases=phases).run()
    loop = new_loop(tmp_path, phases=phases)
    assert loop.progress.done == 20
    loop.run()
    assert int(loop.buffer.size) == loop.progress.buffer_rows == rows + 40
    for held, given in zip(jax.tree.leaves(loop.buffer.storage), jax.tree.leaves(dataset().transitions), strict=True):
        np.testing.assert_array_equal(held[:rows], given)
    loop.progress = dataclasses.replace(loop.progress, phase=0, done=40)  # as at the end of the phase
    assert loop._offline_share(phases[0]) == pytest.approx(rows / (rows + 40))
    loop.buffer = ReplayBuffer.create(dataset().example, rows + 10)  # a ring in which 30 of them are overwritten
    loop.progress = dataclasses.replace(loop.progress, buffer_rows=rows + 10)
    assert loop._offline_share(phases[0]) == pytest.approx((rows - 30) / (rows + 10))


def test_constants_of_the_data_and_delayed_steps_survive_a_stop(tmp_path):
    """TD3+BC on standardised observations, with three-step targets offline and on half old, half new rows online.

    Stopped in each phase at an odd number of updates, where the actor rests; it equals a run that goes through.
    """
    config = TD3BCConfig(actor_hidden_dims=(4,), critic_hidden_dims=(4,), initializer="xavier_uniform")
    learner = Learner(TD3BCAgent, config)
    phases = (
        Phase("offline", learner, num_updates=9, batch_size=8, n_step=3),
        Phase("online", learner, env_steps=21, updates_per_step=1, batch_size=8, offline_ratio=0.5, n_step=3),
    )
    settings = dataclasses.replace(SETTINGS, log_every=3, checkpoint_every=3)
    whole, folder = new_loop(tmp_path / "whole", phases=phases, settings=settings), tmp_path / "cut"
    whole.run()
    observations = dataset().transitions.observations
    np.testing.assert_array_equal(whole.agent.standardizer.mean, observations.mean(axis=0))
    np.testing.assert_array_equal(whole.agent.standardizer.std, observations.std(axis=0) + 1e-3)
    assert int(whole.agent.actor.opt_state[0].count) == 15  # of 30 updates
    for stop_at in (3, 7):
        with pytest.raises(Stopped):
            new_loop(folder, Watcher(stop_at), phases=phases, settings=settings).run()
    resumed = new_loop(folder, phases=phases, settings=settings)
    assert 9 < resumed.progress.step < 30
    resumed.run()
    assert_same(resumed.agent, whole.agent)
    assert logs(folder) == logs(tmp_path / "whole")


def test_batches_without_the_next_action_are_refused_before_training(tmp_path):
    config = ReBRACConfig(actor_hidden_dims=(4,), critic_hidden_dims=(4,))
    phase = Phase("offline", Learner(ReBRACAgent, config), num_updates=1, batch_size=8)
    with pytest.raises(ConfigError, match=r"'offline' cannot update its agent: critic_bc_weight=0\.01 needs"):
        new_loop(tmp_path, phases=(phase,))
    new_loop(tmp_path, phases=(dataclasses.replace(phase, next_actions=True),)).run()


def test_whole_episodes_are_inserted_with_their_returns(tmp_path):
    phases = (dataclasses.replace(PHASES[1], env_steps=40, insert="episode"),)
    loop = new_loop(tmp_path, phases=phases)
    loop.run()
    assert int(loop.buffer.size) == 40
    assert np.isfinite(np.asarray(loop.buffer.storage.mc_returns)).all()
    by_step = new_loop(tmp_path / "steps", phases=(dataclasses.replace(phases[0], insert="step"),))
    by_step.run()
    np.testing.assert_array_equal(loop.buffer.storage.actions, by_step.buffer.storage.actions)
    assert np.isnan(np.asarray(by_step.buffer.storage.mc_returns)).all()


ASKED: list[bool] = []  # by Tally: whether each policy asked for was to be deterministic


class Tally(struct.PyTreeNode):
    """An agent that counts updates and rows by source, and acts at random."""

    updates: jax.Array
    seen: jax.Array
    spread: jax.Array

    @classmethod
    def create(cls, key, example, config):
        return cls(jnp.int32(0), jnp.zeros(2), jnp.float32(0))

    def fit_observations(self, observations):
        return self.replace(spread=observations.std())

    def update(self, batch):
        seen = jnp.stack([batch.offline.observations.sum(), batch.online.observations.sum()])
        return self.replace(updates=self.updates + 1, seen=self.seen + seen), {"batch/sum": seen.sum()}

    def policy(self, *, deterministic):
        ASKED.append(deterministic)
        return UniformPolicy(action_dim=1)

    def diagnose(self, batch, key):
        return {"q": batch.rewards.mean(), "td_error": batch.rewards.mean()}


ROUNDS = Phase(
    "online",
    Learner(Tally, None),
    env_steps=70,
    updates_per_step=3,
    update_every=20,
    batches="separate",
    offline_ratio=0.5,
    batch_size=8,
    evaluate_at=(50,),
)


def test_updates_in_rounds_survive_a_stop_and_constants_come_from_the_data(tmp_path):
    """After steps 20, 40 and 60, three updates each; a checkpoint falls between two rounds."""
    settings = dataclasses.replace(SETTINGS, log_every=10, checkpoint_every=30)
    whole = new_loop(tmp_path / "whole", phases=(ROUNDS,), settings=settings)
    ASKED.clear()
    whole.run()
    assert ASKED.count(True) == 1  # the evaluation
    assert False in ASKED  # the episodes to learn from
    assert int(whole.agent.updates) == whole.progress.updates == whole.progress.online_updates == 9
    assert [line["step"] for line in read_lines(tmp_path / "whole" / "metrics.jsonl")] == [20, 40, 60]
    np.testing.assert_allclose(whole.agent.spread, np.asarray(dataset().transitions.observations).std(), rtol=1e-5)
    with pytest.raises(Stopped):
        new_loop(tmp_path / "cut", Watcher(6), phases=(ROUNDS,), settings=settings).run()
    resumed = new_loop(tmp_path / "cut", phases=(ROUNDS,), settings=settings)
    assert resumed.progress.step == 30
    resumed.run()
    assert_same(resumed.agent, whole.agent)
    assert logs(tmp_path / "cut") == logs(tmp_path / "whole")
    assert whole._offline_share(ROUNDS) == 0.5


def test_blocks_of_one_source_survive_a_stop(tmp_path):
    """MOORL with alternating blocks, three iterations at every second step; a checkpoint falls between two rounds.

    Blocks are counted over the whole phase, and are offline while the buffer holds less than a batch.
    """
    sac = dataclasses.replace(SAC, critic_updates=1)
    config = MOORLConfig(sac, inner_steps=2, meta_rate_schedule="linear", meta_iterations=60, act_with="adapted")
    phase = Phase(
        "online",
        Learner(MOORLAgent, config),
        env_steps=24,
        updates_per_step=3,
        update_every=2,
        batches="blocks",
        block_length=2,
        block_source="alternate",
        batch_size=8,
    )
    settings = dataclasses.replace(SETTINGS, log_every=1, checkpoint_every=13)
    whole = new_loop(tmp_path / "whole", phases=(phase,), settings=settings)
    whole.run()
    assert int(whole.agent.iterations) == whole.progress.updates == 3 * 12
    assert int(whole.buffer.size) == 24
    firsts = 3 * np.arange(12)  # of each round's blocks; the first three rounds have too few online rows
    expected = np.where(np.arange(12) < 3, 1.0, np.where(firsts % 2 == 0, 2 / 3, 1 / 3))
    shares = [line["meta/offline_share"] for line in read_lines(tmp_path / "whole" / "metrics.jsonl")]
    np.testing.assert_allclose(shares, expected, rtol=1e-6)
    with pytest.raises(Stopped):
        new_loop(tmp_path / "cut", Watcher(20), phases=(phase,), settings=settings).run()
    resumed = new_loop(tmp_path / "cut", phases=(phase,), settings=settings)
    assert resumed.progress.step == 13
    resumed.run()
    assert logs(tmp_path / "cut") == logs(tmp_path / "whole")
    for part in ("agent", "buffer", "online_probe"):
        assert_same(getattr(resumed, part), getattr(whole, part))


@pytest.mark.parametrize(("source", "expected"), [("coin", 0.2), ("alternate", 0.5), ("proportional", None)])
def test_the_panel_knows_the_share_of_offline_blocks(tmp_path, source, expected):
    phase = dataclasses.replace(ROUNDS, batches="blocks", block_source=source, offline_ratio=0.2, updates_per_step=0)
    loop = new_loop(tmp_path, phases=(phase,))
    assert loop._offline_share(phase) == 1.0  # the buffer holds less than a batch
    loop.progress.buffer_rows = 70
    rows = dataset().num_rows
    assert loop._offline_share(phase) == pytest.approx(expected or rows / (rows + 70))


def test_settings_that_cannot_work_are_named():
    with pytest.raises(ConfigError, match="checkpoint_every=15 is no multiple of log_every=10"):
        LoopSettings(log_every=10, checkpoint_every=15)
    with pytest.raises(ConfigError, match="eval_envs=0"):
        LoopSettings(eval_envs=0)


class Recorded:
    """An environment that notes what it is asked to do."""

    def __init__(self, env, log):
        self.env, self.log = env, log

    def __getattr__(self, name):
        return getattr(self.env, name)

    def step(self, action):
        found = self.env.step(action)
        self.log.append((np.array(action), found[0], found[1]))
        return found


class Slippery(ProbeEnv):
    """The reach in reverse: a simulator so wrong that what happens there can be told from what happens here."""

    def step(self, action):
        return super().step(-np.asarray(action))


def test_interaction_is_in_the_simulator_and_evaluation_in_the_real_environment(tmp_path):
    task = dataclasses.replace(TASK, simulator=lambda task: Slippery(task.env_id))
    real, simulated = [], []
    phases = (Phase("warmup", Learner(CalQLAgent, OFFLINE), env_steps=WARMUP, evaluate_at=(WARMUP,)),)
    loop = Loop(
        phases,
        task,
        dataset(),
        lambda seed: Recorded(envs.make_env(task, seed), real),
        tmp_path,
        0,
        SETTINGS,
        Watcher(),
        lambda seed: Recorded(envs.make_env(task, seed, simulator=True), simulated),
    )
    OPENED.append(loop)
    loop.run()
    assert len(simulated) == WARMUP
    assert len(real) == sum(sum(record["episodes"]["lengths"]) for record in loop.evaluations())
    stored = loop.buffer.storage
    actions, observations, rewards = (np.array(column) for column in zip(*simulated, strict=True))
    np.testing.assert_array_equal(stored.actions[: len(simulated)], np.clip(actions, -0.99999, 0.99999))
    np.testing.assert_array_equal(stored.next_observations[: len(simulated)], observations)
    np.testing.assert_array_equal(stored.rewards[: len(simulated)], rewards.astype(np.float32))
    moves = stored.next_observations - stored.observations
    inside = np.abs(observations[:, 0]) < 1.0
    np.testing.assert_allclose(moves[: len(simulated)][inside], -0.2 * actions[inside], atol=1e-6)
