import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hybridrl.datasets import Dataset
from hybridrl.errors import ConfigError
from hybridrl.replay import (
    BlockSampler,
    MixtureSampler,
    ReplayBuffer,
    SegmentSampler,
    SeparateSampler,
    StepSampler,
    UniformSampler,
    offline_rows,
)
from hybridrl.types import Transitions


def source(values):
    values = jnp.asarray(values, jnp.float32)
    return UniformSampler(
        Transitions(
            observations=values[:, None],
            actions=values[:, None],
            rewards=values,
            masks=values,
            next_observations=values[:, None],
            mc_returns=values,
        )
    )


OFFLINE, ONLINE = source(np.arange(1000, 1300)), source(np.arange(200))


def shares(mixture, key, batch_size, parts):
    """Offline rows in each consecutive part of a batch."""
    batch = mixture.sample(key, batch_size)
    for field in (batch.observations[:, 0], batch.actions[:, 0], batch.masks, batch.mc_returns):
        np.testing.assert_array_equal(field, batch.rewards)
    return (np.asarray(batch.rewards) >= 1000).reshape(parts, -1).sum(axis=1).tolist()


@pytest.mark.parametrize("parts", [4, 20])
def test_interleaving_is_symmetric_in_every_minibatch_of_every_draw(parts):
    mixture = MixtureSampler(OFFLINE, ONLINE, 0.5)
    for seed in range(5):
        assert shares(mixture, jax.random.key(seed), 256 * parts, parts) == [128] * parts
    first = np.asarray(mixture.sample(jax.random.key(0), 8).rewards)
    np.testing.assert_array_equal(first >= 1000, [True, False] * 4)


def test_concatenation_gives_the_first_minibatches_to_the_online_rows():
    mixture = MixtureSampler(OFFLINE, ONLINE, 0.5, "concat")
    for seed in range(5):
        assert shares(mixture, jax.random.key(seed), 1024, 4) == [0, 0, 256, 256]


@pytest.mark.parametrize("order", ["interleave", "concat"])
@pytest.mark.parametrize("ratio", [0.1, 0.25, 1 / 3, 0.7, 0.999])
def test_the_share_is_floored_and_exact(order, ratio):
    for batch_size in (7, 64, 100):
        marks = offline_rows(batch_size, ratio, order)
        assert marks.shape == (batch_size,)
        assert marks.sum() == int(batch_size * ratio)
    quarters = offline_rows(400, 0.25, "interleave").reshape(4, 100).sum(axis=1)
    np.testing.assert_array_equal(quarters, [25] * 4)


@pytest.mark.parametrize("ratio", [0.0, 1.0, 0.003])
def test_an_unused_source_is_never_touched(ratio):
    """NaN in the unused source would show; 0.003 of 256 rows is none."""
    poison = source(np.full(50, np.nan))
    mixture = MixtureSampler(OFFLINE, poison, ratio) if ratio == 1.0 else MixtureSampler(poison, ONLINE, ratio)
    batch = mixture.sample(jax.random.key(0), 256)
    assert all(np.isfinite(field).all() for field in jax.tree.leaves(batch))


def test_the_two_sources_are_drawn_independently():
    same = source(np.arange(300))
    batch = MixtureSampler(same, same, 0.5).sample(jax.random.key(0), 512)
    assert not np.array_equal(batch.rewards[0::2], batch.rewards[1::2])


def test_uniform_sampling_reaches_every_row_alike():
    drawn = np.asarray(source(np.arange(10)).sample(jax.random.key(0), 20_000).rewards).astype(int)
    counts = np.bincount(drawn, minlength=10)
    assert np.abs(counts - 2000).max() < 220  # five standard deviations are 212


def test_an_unknown_order_is_refused():
    with pytest.raises(ConfigError, match="unknown mix order 'shuffle'"):
        offline_rows(8, 0.5, "shuffle")


def filled(rows, capacity=400):
    """A replay buffer with the online rows 0 to `rows`."""
    buffer = ReplayBuffer.create(ONLINE.transitions, capacity)
    return buffer.insert(source(np.arange(rows)).transitions) if rows else buffer


def test_separate_sources_have_as_many_rows_and_stay_apart():
    batch = SeparateSampler(OFFLINE, filled(200)).sample(jax.random.key(0), 512)
    offline, online = np.asarray(batch.offline.rewards), np.asarray(batch.online.rewards)
    assert offline.shape == online.shape == (512,)
    assert offline.min() >= 1000
    assert online.max() < 200
    assert not np.array_equal(offline - 1000, online)
    np.testing.assert_array_equal(batch.online.observations[:, 0], online)


def blocks(choice, count=10_000, rows=200, ratio=0.3, batch_size=4, num_batches=3):
    """Rewards `(count, num_batches, batch_size)` and offline shares `(count,)` of many blocks."""
    online = filled(rows)

    @jax.jit
    @jax.vmap
    def draw(key, index):
        block = BlockSampler(OFFLINE, online, index, num_batches, choice, ratio).sample(key, batch_size)
        return block.transitions.rewards, block.offline_share

    rewards, shares = draw(jax.random.split(jax.random.key(0), count), jnp.arange(count))
    return np.asarray(rewards), np.asarray(shares)


@pytest.mark.parametrize(
    ("choice", "expected"), [("coin", 0.3), ("alternate", 0.5), ("proportional", 300 / (300 + 200))]
)
def test_blocks_have_one_source_each_and_the_right_share_of_them(choice, expected):
    rewards, shares = blocks(choice)
    offline = rewards >= 1000
    np.testing.assert_array_equal(offline, np.broadcast_to(shares[:, None, None] == 1.0, offline.shape))
    assert shares.mean() == pytest.approx(expected, abs=0.02)
    if choice == "alternate":
        np.testing.assert_array_equal(shares[:4], [1, 0, 1, 0])
    assert not np.array_equal(rewards[:, 0], rewards[:, 1])  # fresh batches


def test_mixed_blocks_have_an_exact_share_and_spread_it_evenly():
    rewards, shares = blocks("mixed", count=50, ratio=0.5)
    np.testing.assert_array_equal((rewards >= 1000).sum(axis=2), np.full((50, 3), 2))
    np.testing.assert_array_equal(shares, np.full(50, 0.5))
    # 0.4 of twelve rows are four, which three batches cannot share equally.
    rewards, shares = blocks("mixed", count=50, ratio=0.4)
    np.testing.assert_array_equal((rewards >= 1000).sum(axis=2), np.tile([2, 1, 1], (50, 1)))
    np.testing.assert_allclose(shares, np.full(50, 1 / 3), rtol=1e-6)


@pytest.mark.parametrize("choice", ["coin", "alternate", "proportional", "mixed"])
def test_blocks_are_offline_until_the_buffer_holds_a_batch(choice):
    for rows in (0, 3):
        rewards, shares = blocks(choice, count=40, rows=rows, ratio=0.0)
        assert (rewards >= 1000).all()
        assert (shares == 1.0).all()
    rewards, _ = blocks(choice, count=1_000, rows=4, ratio=0.0)
    assert (rewards < 1000).any()


def test_blocks_without_a_buffer_are_offline():
    block = BlockSampler(OFFLINE, None, jnp.int32(0), 2, "coin", 0.0).sample(jax.random.key(0), 8)
    assert block.transitions.rewards.shape == (2, 8)
    assert float(block.transitions.rewards.min()) >= 1000
    assert block.offline_share == 1.0


@pytest.fixture(scope="module")
def episodes():
    """Episodes of 1, 3, 7 and 2 steps; the reward is `100 * episode + step + 1`."""
    lengths = np.array([1, 3, 7, 2])
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    rewards = np.concatenate([100 * i + np.arange(n) + 1 for i, n in enumerate(lengths)])
    return Dataset(
        transitions=source(rewards).transitions,
        truncations=jnp.zeros(13),
        episode_starts=jnp.asarray(starts, jnp.int32),
        episode_lengths=jnp.asarray(lengths, jnp.int32),
    )


@pytest.mark.parametrize("length", [1, 4, 20])
def test_segments_stay_inside_their_episode(episodes, length):
    lengths = np.asarray(episodes.episode_lengths)
    segments = SegmentSampler.create(episodes, length).sample(jax.random.key(0), 500)
    rewards, valid = np.asarray(segments.transitions.rewards), np.asarray(segments.valid)
    assert rewards.shape == valid.shape == (500, length)
    starts = set()
    for values, real in zip(rewards, valid, strict=True):
        episode, step = divmod(int(values[0]) - 1, 100)
        expected = min(length, lengths[episode] - step)
        np.testing.assert_array_equal(real, np.arange(length) < expected)
        np.testing.assert_array_equal(values[:expected], values[0] + np.arange(expected))
        np.testing.assert_array_equal(values[expected:], 0)
        starts.add((episode, step))
    assert len(starts) == 13  # every row is the start of some segment
    assert segments.transitions.observations.shape == (500, length, 1)


def test_segments_have_at_least_one_step(episodes):
    with pytest.raises(ConfigError, match="segment length 0"):
        SegmentSampler.create(episodes, 0)


def test_step_sampler_draws_each_step_from_the_episodes_that_reach_it():
    """Episodes of lengths 3, 1 and 2: rows 0 3 4 are first steps, 1 and 5 second ones, 2 is the only third one."""
    rows = jnp.arange(6.0)
    transitions = Transitions(rows[:, None], rows[:, None], rows, rows, rows[:, None], rows)
    lengths = jnp.array([3, 1, 2], jnp.int32)
    sampler = StepSampler.create(Dataset(transitions, jnp.zeros(6), jnp.array([0, 3, 4], jnp.int32), lengths))
    batch = sampler.sample(jax.random.key(0), 600)
    assert batch.observations.shape == (3, 600, 1)
    np.testing.assert_array_equal(batch.rewards, batch.observations[..., 0])
    for step, expected in enumerate(([0, 3, 4], [1, 5], [2])):
        found, counts = np.unique(np.asarray(batch.rewards[step]), return_counts=True)
        assert found.tolist() == expected
        assert counts.min() > 600 / len(expected) * 0.8
