import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

from hybridrl.policies import UniformPolicy
from hybridrl.replay import ReplayBuffer, UniformSampler
from hybridrl.training.online import (
    EpisodeRecorder,
    act,
    chunks,
    example_transition,
    insert,
    insert_and_update,
    transition_row,
)
from hybridrl.training.phases import Learner, Phase
from hybridrl.types import SourceBlock


class Counter(struct.PyTreeNode):
    """An agent that remembers what it was fed."""

    updates: jax.Array
    total: jax.Array

    def update(self, batch):
        total = self.total + batch.rewards.sum()
        return self.replace(updates=self.updates + 1, total=total), {"batch/mean": batch.rewards.mean()}


LEARNER = Learner(Counter, None)


def row(reward):
    return transition_row(np.zeros(2), np.zeros(1), reward, False, np.ones(2))


def test_one_row_says_why_its_episode_ended():
    ended = transition_row(np.arange(2), np.array([0.5]), 3.0, True, np.arange(2) + 1)
    assert ended.masks == 0
    assert row(1.0).masks == 1
    assert np.isnan(ended.mc_returns).all()
    for field, like in zip(jax.tree.leaves(ended), jax.tree.leaves(example_transition(2, 1)), strict=True):
        assert field.dtype == np.float32
        assert field.shape == like.shape


@pytest.mark.parametrize("updates", [1, 4])
def test_a_new_row_is_stored_before_the_updates(updates):
    phase = Phase("online", LEARNER, env_steps=1, updates_per_step=updates, batch_size=8)
    buffer = ReplayBuffer.create(example_transition(2, 1), 5)
    agent = Counter(jnp.int32(0), jnp.float32(0))
    agent, buffer, metrics = insert_and_update(
        agent, buffer, None, row(2.0), jnp.int32(1), jax.random.key(0), phase=phase
    )
    assert (int(agent.updates), float(agent.total), int(buffer.size)) == (updates, 16.0 * updates, 1)
    assert metrics["batch/mean"] == 2.0


def test_mixing_takes_its_share_from_the_offline_rows_and_none_at_ratio_zero():
    values = jnp.full(10, 100.0)
    offline = UniformSampler(jax.tree.map(lambda f: jnp.zeros((10, *f.shape[1:])), example_transition(2, 1)))
    offline = offline.replace(transitions=offline.transitions.replace(rewards=values))
    poisoned = jax.tree.map(lambda f: jnp.full_like(f, jnp.nan), offline)
    for ratio, source, expected in ((0.25, offline, 26.5), (0.0, poisoned, 2.0)):
        phase = Phase("online", LEARNER, env_steps=1, updates_per_step=1, batch_size=8, offline_ratio=ratio)
        agent, buffer = Counter(jnp.int32(0), jnp.float32(0)), ReplayBuffer.create(example_transition(2, 1), 5)
        _, _, metrics = insert_and_update(agent, buffer, source, row(2.0), jnp.int32(1), jax.random.key(0), phase=phase)
        assert metrics["batch/mean"] == expected


class BySource(struct.PyTreeNode):
    """An agent that remembers the offline and the online rewards it was fed."""

    totals: jax.Array

    def update(self, batch):
        if isinstance(batch, SourceBlock):
            parts = batch.transitions.rewards.sum() * jnp.stack([batch.offline_share, 1.0 - batch.offline_share])
        else:
            parts = jnp.stack([batch.offline.rewards.sum(), batch.online.rewards.sum()])
        return self.replace(totals=self.totals + parts), {"batch/sum": parts.sum()}


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"batches": "separate", "offline_ratio": 0.5}, [3 * 8 * 100.0, 3 * 8 * 2.0]),
        # Blocks 3, 4 and 5: the middle one is offline.
        ({"batches": "blocks", "block_length": 2, "block_source": "alternate"}, [16 * 100.0, 2 * 16 * 2.0]),
    ],
)
def test_a_phase_says_what_an_update_gets(settings, expected):
    phase = Phase("online", LEARNER, env_steps=1, updates_per_step=3, batch_size=8, **settings)
    offline = UniformSampler(jax.tree.map(lambda field: jnp.full_like(field, 100.0), example_transition(2, 1)))
    buffer = ReplayBuffer.create(example_transition(2, 1), 64)
    buffer = buffer.insert(jax.tree.map(lambda field: jnp.full((8, *field.shape[1:]), 2.0), example_transition(2, 1)))
    agent, _, _ = insert_and_update(
        BySource(jnp.zeros(2)), buffer, offline, row(2.0), jnp.int32(1), jax.random.key(0), jnp.int32(3), phase=phase
    )
    np.testing.assert_allclose(agent.totals, expected)


def test_the_dataset_is_never_written_and_the_buffer_wraps_around():
    """Ten thousand insertions beside training on both."""
    rows = jax.tree.map(
        lambda field: jnp.arange(5.0 * field[0].size).reshape(5, *field.shape[1:]), example_transition(2, 1)
    )
    before = [np.asarray(field).tobytes() for field in jax.tree.leaves(rows)]
    phase = Phase("o", LEARNER, env_steps=1, updates_per_step=1, batch_size=4, batches="separate", offline_ratio=0.5)
    agent, buffer = BySource(jnp.zeros(2)), ReplayBuffer.create(example_transition(2, 1), 600)
    many = jax.tree.map(lambda field: jnp.ones((500, *field.shape[1:])), example_transition(2, 1))
    for round_number in range(20):
        new = many.replace(rewards=jnp.full(500, float(round_number)))
        agent, buffer, _ = insert_and_update(
            agent, buffer, UniformSampler(rows), new, jnp.int32(500), jax.random.key(round_number), phase=phase
        )
    assert [np.asarray(field).tobytes() for field in jax.tree.leaves(rows)] == before
    assert int(buffer.size) == 600
    assert int(buffer.cursor) == 10_000 % 600
    assert sorted(set(np.asarray(buffer.storage.rewards).tolist())) == [18.0, 19.0]


def test_a_count_of_zero_adds_nothing():
    buffer = insert(ReplayBuffer.create(example_transition(2, 1), 5), row(3.0), jnp.int32(1))
    buffer = insert(buffer, row(9.0), jnp.int32(0))
    assert int(buffer.size) == 1
    np.testing.assert_array_equal(buffer.storage.rewards, [3, 0, 0, 0, 0])


def test_recorded_episodes_get_their_returns():
    recorder = EpisodeRecorder(0.5, None)
    for reward in (1.0, 2.0, 4.0):
        recorder.add(row(reward))
    assert len(recorder) == 3
    np.testing.assert_allclose(recorder.finish().mc_returns, [3.0, 4.0, 4.0])
    assert len(recorder) == 0
    failing = EpisodeRecorder(0.99, -5.0)
    failing.add(row(-5.0))
    np.testing.assert_allclose(failing.finish().mc_returns, [-500.0], rtol=1e-6)


@pytest.mark.parametrize("length", [1, 3, 4, 9])
def test_pieces_have_one_size_and_hold_every_row_once(length):
    recorder = EpisodeRecorder(0.9, None)
    for reward in range(1, length + 1):
        recorder.add(row(float(reward)))
    episode = recorder.finish()
    pieces = chunks(episode, 4)
    assert all(len(part.rewards) == 4 for part, _ in pieces)
    np.testing.assert_array_equal(np.concatenate([part.rewards[:count] for part, count in pieces]), episode.rewards)
    assert sum(count for _, count in pieces) == length
    assert all((part.rewards[count:] == 0).all() for part, count in pieces)


def test_uniform_actions_fill_the_box():
    actions, carry = act(UniformPolicy(action_dim=3), (), jnp.zeros((500, 2)), jax.random.key(0))
    assert actions.shape == (500, 3)
    assert carry == ()
    assert float(jnp.abs(actions).max()) <= 1
    assert float(actions.min()) < -0.98
    assert float(actions.max()) > 0.98
