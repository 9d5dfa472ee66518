"""Rollouts: both collectors, episodes put together again, and the loop's phases of rollouts."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct
from test_loop import Watcher, assert_same, dataset, logs

import envs
from envs.functional import Continuous, Discrete, FunctionalEnv
from hybridrl.errors import ConfigError
from hybridrl.logger import read_lines
from hybridrl.model import Model
from hybridrl.networks import NormalActor
from hybridrl.policies import ActorPolicy
from hybridrl.task import Task
from hybridrl.training.loop import Loop
from hybridrl.training.phases import Learner, Phase, check_phases
from hybridrl.training.progress import LoopSettings, Stopped
from hybridrl.training.rollouts import (
    Collected,
    DeviceCollector,
    EpisodeSplitter,
    HostCollector,
    Outcomes,
    TaskProcess,
    outcome_metrics,
)
from hybridrl.types import Rollout


class Ramp(struct.PyTreeNode):
    """Actions in [0, 4] add up; each is the reward, and above 3.5 the task is solved, which alone ends nothing."""

    obs_dim: int = struct.field(pytree_node=False, default=1)
    actions: Continuous = struct.field(pytree_node=False, default=Continuous(1, 0.0, 4.0))
    horizon: int = struct.field(pytree_node=False, default=100)

    def reset(self, key):
        return jnp.float32(0.0), jnp.zeros(1)

    def step(self, state, action, key):
        state = state + action[0]
        return state, state[None], action[0], jnp.bool_(False), jnp.bool_(False)

    def solved(self, reward, terminated):
        return reward > 3.5


RAMP = Task(
    name="ramp",
    family="probe",
    env_id="ramp",
    horizon=3,
    success_key="success",
    terminate_on_success=True,
    reward_scale=2.0,
    reward_shift=-1.0,
    make=lambda task: FunctionalEnv(Ramp()),
    functional=lambda task: Ramp(),
)


class Script(struct.PyTreeNode):
    """Plays the t-th of its actions at the t-th step of an episode; its carry is t."""

    actions: jax.Array  # (steps, action_dim)

    def begin(self, context):
        return 0

    def act(self, carry, observations, key):
        return jnp.broadcast_to(self.actions[carry][None], (len(observations), 1)), carry + 1


def collectors(task, num_envs, num_steps):
    return (
        DeviceCollector(TaskProcess.create(task), num_envs, num_steps, jax.random.key(0)),
        HostCollector(functools.partial(envs.make_env, task), range(num_envs), num_steps),
    )


@pytest.mark.parametrize(
    ("script", "rewards", "masks", "ends", "lengths"),
    [
        # Two episodes of three steps, cut by the horizon. 0 is the middle of the box: 2, worth 2 * 2 - 1.
        ((0.0, -1.0, 0.5), [3.0, -1.0, 5.0], [1.0, 1.0, 1.0], [0.0, 0.0, 1.0], 3),
        # 9 is clipped to the box, 4, and solves the task at the second step of each episode.
        ((0.0, 9.0, 0.0), [3.0, 7.0], [1.0, 0.0], [0.0, 1.0], 2),
    ],
)
def test_both_collectors_see_the_task_alike(script, rewards, masks, ends, lengths):
    """The whole transform of the task, by hand; stored actions are the policy's own."""
    policy = Script(jnp.array(script)[:, None])
    seen = [collector.collect(policy, jax.random.key(1)) for collector in collectors(RAMP, 2, 6)]
    for collected in seen:
        rows = jax.tree.map(np.asarray, collected.rollout)
        times = 6 // lengths
        for env in range(2):
            np.testing.assert_allclose(rows.rewards[:, env], rewards * times, atol=1e-4)
            np.testing.assert_array_equal(rows.masks[:, env], masks * times)
            np.testing.assert_array_equal(rows.ends[:, env], ends * times)
            np.testing.assert_array_equal(rows.actions[:, env, 0], list(script[:lengths]) * times)
        assert rows.observations.shape == rows.next_observations.shape == (6, 2, 1)
        np.testing.assert_array_equal(rows.observations[::lengths], 0.0)
        going_on = rows.ends[:-1] == 0.0
        np.testing.assert_array_equal(rows.observations[1:][going_on], rows.next_observations[:-1][going_on])
        # What a step led to, not where the next episode begins.
        np.testing.assert_allclose(rows.next_observations[lengths - 1], sum((np.array(rewards) + 1) / 2), atol=1e-4)
        np.testing.assert_array_equal(collected.successes, (rows.masks == 0.0))
        np.testing.assert_allclose(collected.raw_rewards, (rows.rewards + 1.0) / 2.0, atol=1e-6)
    for first, second in zip(*(jax.tree.leaves(collected) for collected in seen), strict=True):
        np.testing.assert_allclose(np.asarray(first, np.float32), np.asarray(second, np.float32), atol=1e-5)


def test_a_rollout_goes_on_where_the_last_one_was_left():
    policy = Script(jnp.array([0.1, 0.2, 0.3])[:, None])
    for collector in collectors(RAMP, 1, 2):
        parts = [collector.collect(policy, jax.random.key(number)) for number in range(3)]
        actions = np.concatenate([np.asarray(part.rollout.actions)[:, 0, 0] for part in parts])
        np.testing.assert_allclose(actions, [0.1, 0.2, 0.3] * 2, rtol=1e-6)


class Numbered(struct.PyTreeNode):
    """Acts by a tenth of the number it was given at the start of the episode."""

    def begin(self, context):
        return context

    def act(self, carry, observations, key):
        return jnp.full((len(observations), 1), 0.1 * carry), carry


def test_environments_know_their_number_in_every_episode():
    for collector in collectors(RAMP, 3, 4):  # an episode and a step
        actions = np.asarray(collector.collect(Numbered(), jax.random.key(0)).rollout.actions)
        np.testing.assert_allclose(actions[..., 0], np.broadcast_to([0.0, 0.1, 0.2], (4, 3)), rtol=1e-6)


def test_an_episode_is_put_together_from_several_rollouts():
    """Two environments; the second one's first episode takes three rollouts. Discount 1/2."""

    def part(rewards, ends, first):
        rewards, ends = np.array(rewards, np.float32), np.array(ends, np.float32)
        obs = first + np.arange(rewards.size, dtype=np.float32).reshape(*rewards.shape, 1)
        rows = Rollout(obs, np.full_like(obs, 1.5), rewards, 1.0 - ends, ends, obs + 0.5)
        return Collected(rows, 10.0 * rewards, rewards == 4.0)

    splitter = EpisodeSplitter(RAMP, 0.5, 2)
    none, outcomes = splitter.add(part([[1, 2], [2, 2]], [[0, 0], [0, 0]], 0))
    assert none is None
    assert len(outcomes.lengths) == 0
    rows, first = splitter.add(part([[4, 0], [1, 0]], [[1, 0], [1, 0]], 10))
    np.testing.assert_array_equal(rows.observations[:, 0], [0, 2, 10, 12])
    np.testing.assert_array_equal(rows.mc_returns, [3.0, 4.0, 4.0, 1.0])
    np.testing.assert_allclose(rows.actions, 0.99999)
    assert (first.lengths.tolist(), first.returns.tolist()) == ([3, 1], [70.0, 10.0])
    assert first.successes.tolist() == [True, False]
    rows, second = splitter.add(part([[1, 8], [1, 1]], [[0, 1], [0, 0]], 20))
    np.testing.assert_array_equal(rows.observations[:, 0], [1, 3, 11, 13, 21])
    np.testing.assert_array_equal(rows.mc_returns, [3.5, 3.0, 2.0, 4.0, 8.0])
    metrics = outcome_metrics([outcomes, first, second], success=True)
    assert metrics == {
        "rollout/episodes": 3.0,
        "rollout/return": pytest.approx(200 / 3),
        "rollout/length": 3.0,
        "rollout/success_rate": pytest.approx(1 / 3),
    }
    assert outcome_metrics([outcomes], success=True) == {}
    assert "rollout/success_rate" not in outcome_metrics([Outcomes(np.ones(1), np.ones(1), np.ones(1))], success=False)


# In the loop

REACH = envs.make_task("probe/reach-v0")
HOSTED = dataclasses.replace(REACH, functional=None)


class Climber(struct.PyTreeNode):
    """REINFORCE, and figures of its batches."""

    actor: Model

    @classmethod
    def create(cls, key, example, config):
        module = NormalActor((4,), example.actions.shape[-1], initializer="xavier_uniform")
        return cls(Model.create("actor", module, key, example.observations, learning_rate=1e-2))

    @jax.jit
    def update(self, batch):
        rows, offline = batch.rollout, batch.offline

        def loss(params):
            value = -(self.actor(rows.observations, params=params).log_prob(rows.actions) * rows.rewards).mean()
            return value, {"actor/loss": value}

        actor, metrics = self.actor.minimize(loss)
        figures = {"batch/last_ends": rows.ends[-1].mean(), "batch/first_ends": rows.ends[0].mean()}
        if offline is not None:
            if offline.rewards.ndim == 2:  # by time step: where the first step of each episode began
                figures["batch/first_step"] = offline.observations[0].mean()
            figures |= {"batch/offline": offline.observations.mean(), "batch/rows": jnp.float32(offline.rewards.size)}
        return self.replace(actor=actor), metrics | figures

    def policy(self, *, deterministic):
        return ActorPolicy(self.actor, deterministic)

    def parts(self):
        return {"actor": self.actor}

    def with_parts(self, parts):
        return self.replace(**parts)

    def diagnose(self, batch, key):
        return {}


LEARNER = Learner(Climber, None)
BY_STEP = Phase(
    "online",
    LEARNER,
    batches="rollouts",
    env_steps=120,
    num_envs=4,
    rollout_steps=5,
    offline_rows=3,
    offline_by_step=True,
    evaluate_at=(40, 120),
)
PLAIN = dataclasses.replace(
    BY_STEP, env_steps=80, num_envs=2, rollout_steps=10, offline_by_step=False, evaluate_at=(80,)
)
BARE = dataclasses.replace(PLAIN, name="more", env_steps=40, offline_rows=0, evaluate_at=())
# On the device: rollouts of 20 steps, checkpoints at 80 and 120. On the host: the same, at 40, 80 and 120.
RUNS = {"device": (REACH, (BY_STEP,), 80), "host": (HOSTED, (PLAIN, BARE), 40)}


def new_loop(kind, folder, watcher=None):
    task, phases, checkpoint_every = RUNS[kind]
    settings = LoopSettings(
        discount=0.9, log_every=20, checkpoint_every=checkpoint_every, eval_episodes=2, eval_envs=2, probe_rows=24
    )
    make_env = functools.partial(envs.make_env, task)
    return Loop(phases, task, dataset(), make_env, folder, 0, settings, watcher or Watcher())


@pytest.fixture(scope="module", params=sorted(RUNS))
def whole(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    loop = new_loop(request.param, folder)
    loop.run()
    return request.param, folder, loop


def test_one_update_per_rollout(whole):
    kind, folder, loop = whole
    progress = loop.progress
    assert (progress.env_steps, progress.updates, progress.online_updates) == (120, 6, 6)
    assert [record["env_steps"] for record in loop.evaluations()] == ([40, 120] if kind == "device" else [80])
    values = [line for line in read_lines(folder / "metrics.jsonl") if "actor/loss" in line]
    assert [line["step"] for line in values] == [20, 40, 60, 80, 100, 120]
    # Environments are rebuilt at checkpoints, and the agent is told that this cuts their episodes.
    cuts = [80, 120] if kind == "device" else [40, 80, 120]
    assert [line["step"] for line in values if line["batch/last_ends"] == 1.0] == cuts
    # The rows of the dataset: 3 of each step, whose first is a start in [-1, 0]; or 3; or none.
    longest = int(dataset().episode_lengths.max())
    rows = [3.0 * longest] * 6 if kind == "device" else [3.0] * 4 + [None] * 2
    assert [line.get("batch/rows") for line in values] == rows
    if kind == "device":
        assert all(0.0 < -line["batch/first_step"] <= 1.0 for line in values)
    share = loop._offline_share(loop.phases[0])
    assert share == pytest.approx(3 * longest / (3 * longest + 20) if kind == "device" else 3 / 23)
    assert loop.evaluations()[0]["panel"]["offline_share"] == pytest.approx(share)


def test_finished_episodes_are_counted_and_shown_to_the_panel(whole):
    """The probe's rows are whole moves with their returns, at discount 0.9 and -5 for ever where nothing succeeds."""
    _, folder, loop = whole
    lines = [line for line in read_lines(folder / "metrics.jsonl") if "rollout/episodes" in line]
    assert sum(line["rollout/episodes"] for line in lines) == loop.progress.episodes > 0
    assert all(0.0 <= line["rollout/success_rate"] <= 1.0 for line in lines)
    assert all(line["rollout/return"] == line["rollout/success_rate"] for line in lines)  # 1 for a success
    assert loop.progress.probe_rows == loop.online_probe.capacity == 24
    assert all("online_return" in record["panel"] for record in loop.evaluations()[-1:])
    rows = jax.tree.map(np.asarray, loop.online_probe.storage)
    moves = np.clip(rows.observations + 0.2 * rows.actions, -1, 1)
    np.testing.assert_allclose(rows.next_observations, moves, atol=1e-5)
    won = rows.masks == 0.0
    np.testing.assert_array_equal(rows.mc_returns[won], 5.0)
    assert np.isfinite(rows.mc_returns).all()
    assert (rows.mc_returns[~won] < 5.0).all()


@pytest.mark.parametrize("stop_at", [2, 6])
def test_stopping_and_going_on_equals_going_through(whole, tmp_path, stop_at):
    kind, folder, loop = whole
    with pytest.raises(Stopped):
        new_loop(kind, tmp_path, Watcher(stop_at)).run()
    resumed = new_loop(kind, tmp_path)
    assert resumed.progress.env_steps < 120
    resumed.run()
    assert logs(tmp_path) == logs(folder)
    assert_same(resumed.agent, loop.agent)
    assert_same(resumed.online_probe, loop.online_probe)
    assert resumed.progress == loop.progress


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"env_steps": 130}, "choose 120 or 140"),
        ({"evaluate_at": (30,)}, "evaluate_at=30 is no multiple of num_envs"),
        ({"batch_size": 8}, "makes no use of batch_size=8"),
        ({"updates_per_step": 1}, "makes no use of updates_per_step=1"),
        ({"batches": "mixed"}, "makes no use of num_envs=4"),
        ({"num_envs": 0}, "num_envs=0"),
        ({"offline_rows": 0}, "offline_by_step=True and offline_rows=0"),
    ],
)
def test_phases_that_contradict_themselves_are_named(changes, words):
    with pytest.raises(ConfigError, match=words):
        dataclasses.replace(BY_STEP, **changes)


def test_misfits_are_found_before_training(tmp_path, monkeypatch):
    monkeypatch.setitem(RUNS, "device", (REACH, (BY_STEP,), 40))
    with pytest.raises(
        ConfigError, match="rebuilt before an episode of 20 steps can end; make checkpoint_every at lea"
    ):
        new_loop("device", tmp_path)
    with pytest.raises(ConfigError, match="expected a bounded vector; wrap"):
        TaskProcess.create(dataclasses.replace(RAMP, functional=lambda task: Ramp(actions=Discrete(3))))
    with pytest.raises(ConfigError, match="functional environments have none of these"):
        dataclasses.replace(RAMP, return_key="distance")

    class Picky(Climber):
        def update(self, batch):
            raise ValueError(f"{batch.rollout.rewards.shape} and {batch.offline.rewards.shape}")

    phase = dataclasses.replace(BY_STEP, learner=Learner(Picky, None))
    with pytest.raises(ConfigError, match=r"cannot update its agent: \(5, 4\) and \(20, 3\)"):
        check_phases((phase,), dataset().example, 20)
