"""n-step transitions and next actions, against a loop in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hybridrl.datasets import Dataset
from hybridrl.errors import ConfigError
from hybridrl.losses.value import td_targets
from hybridrl.replay import BufferLookahead, Lookahead, LookaheadSampler, ReplayBuffer
from hybridrl.types import Transitions

LENGTHS, TERMINATED = (1, 4, 2, 6, 3), (True, True, False, False, True)
DISCOUNT = 0.9


def episodes():
    """Rows of five episodes, three of them terminated; row i begins in state i, and no two episodes touch."""
    rng, count = np.random.default_rng(0), sum(LENGTHS)
    ends = np.cumsum(LENGTHS) - 1
    states = np.arange(count, dtype=np.float64) + 10 * np.repeat(np.arange(5), LENGTHS)
    masks = np.ones(count)
    masks[ends[np.array(TERMINATED)]] = 0.0
    columns = {
        "observations": states[:, None],
        "actions": rng.uniform(-1, 1, (count, 2)),
        "rewards": rng.normal(size=count),
        "masks": masks,
        "next_observations": states[:, None] + 1,
        "mc_returns": rng.normal(size=count),
    }
    return Transitions(**{name: jnp.asarray(column, jnp.float32) for name, column in columns.items()}), ends


def dataset():
    rows, ends = episodes()
    starts = np.concatenate([[0], ends[:-1] + 1])
    return Dataset(
        transitions=rows,
        truncations=jnp.zeros(len(rows.rewards)),
        episode_starts=jnp.asarray(starts, jnp.int32),
        episode_lengths=jnp.asarray(LENGTHS, jnp.int32),
    )


def loop_over(rows, last_row, row, n_step):
    """The n-step transition from `row` by walking: return, mask with its discount, last row, next action."""
    total, factor, at = 0.0, 1.0, row
    for step in range(n_step):
        at = row + step
        total += factor * float(rows.rewards[at])
        if at == last_row or step == n_step - 1:
            break
        factor *= DISCOUNT
    following = np.full(2, np.nan) if at == last_row else np.asarray(rows.actions[at + 1])
    return total, factor * float(rows.masks[at]), float(rows.next_observations[at, 0]), following


def check(batch, rows, ends, n_step):
    states = np.asarray(rows.observations)[:, 0]
    for number in range(len(batch.rewards)):
        row = int(np.flatnonzero(states == float(batch.observations[number, 0]))[0])
        last_row = ends[np.searchsorted(ends, row)]
        total, mask, state, following = loop_over(rows, last_row, row, n_step)
        np.testing.assert_allclose(batch.rewards[number], total, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(batch.masks[number], mask, rtol=1e-5)
        assert float(batch.next_observations[number, 0]) == state
        np.testing.assert_allclose(batch.next_actions[number], following, rtol=1e-6)
        np.testing.assert_array_equal(batch.actions[number], rows.actions[row])
        np.testing.assert_array_equal(batch.mc_returns[number], rows.mc_returns[row])
    assert len(set(np.asarray(batch.observations)[:, 0].tolist())) > 0.8 * len(states)  # all rows are drawn


@pytest.mark.parametrize("n_step", [1, 3, 10])
def test_a_datasets_rows_stop_at_the_ends_of_their_episodes(n_step):
    data = dataset()
    sampler = LookaheadSampler.create(data, Lookahead(n_step, True, DISCOUNT))
    batch = sampler.sample(jax.random.key(0), 64)
    check(batch, data.transitions, np.cumsum(LENGTHS) - 1, n_step)


@pytest.mark.parametrize("n_step", [1, 3, 10])
def test_a_buffers_rows_stop_where_the_next_one_is_not_their_continuation(n_step):
    """At a termination, at a cut, at the newest row, and where the ring is empty."""
    rows, ends = episodes()
    buffer = ReplayBuffer.create(rows, 24).insert(rows)
    batch = BufferLookahead(buffer, Lookahead(n_step, True, DISCOUNT)).sample(jax.random.key(0), 64)
    check(batch, rows, ends, n_step)


def test_the_newest_row_of_a_full_ring_is_followed_by_nothing():
    """Capacity 5, rows 0 to 6 of one episode: the ring holds 5 6 2 3 4, and 6 must not go on with 2."""
    count = 7
    steps = jnp.arange(count, dtype=jnp.float32)
    # Every state is the same, so that states alone would join any two rows.
    same = jnp.zeros((count, 1))
    rows = Transitions(same, steps[:, None], steps, jnp.ones(count), same, steps)
    buffer = ReplayBuffer.create(rows, 5)
    for start in range(count):
        buffer = buffer.insert(jax.tree.map(lambda field, start=start: field[start : start + 1], rows))
    batch = BufferLookahead(buffer, Lookahead(3, True, 1.0)).sample(jax.random.key(0), 64)
    columns = (batch.actions[:, 0], batch.rewards, batch.next_actions[:, 0])
    found = {int(a): (float(r), float(n)) for a, r, n in zip(*columns, strict=True)}
    assert {row: total for row, (total, _) in found.items()} == {2: 9, 3: 12, 4: 15, 5: 11, 6: 6}
    assert [found[row][1] for row in (2, 3)] == [5, 6]
    assert all(np.isnan(found[row][1]) for row in (4, 5, 6))


def test_a_one_step_target_of_an_n_step_row_is_the_n_step_target():
    """Rewards 1, 2, 4 and a value of 10 after them: 1 + 2 g + 4 g^2 + 10 g^3, and without it after a termination."""
    steps, g = jnp.arange(3.0), 0.5
    for mask, expected in ((1.0, 1 + 2 * g + 4 * g**2 + 10 * g**3), (0.0, 1 + 2 * g + 4 * g**2)):
        rows = Transitions(
            steps[:, None], steps[:, None], 2.0**steps, jnp.array([1.0, 1.0, mask]), steps[:, None] + 1, steps
        )
        data = Dataset(rows, jnp.zeros(3), jnp.array([0]), jnp.array([3]))
        batch = LookaheadSampler.create(data, Lookahead(3, False, g)).sample(jax.random.key(0), 16)
        first = int(np.flatnonzero(np.asarray(batch.observations)[:, 0] == 0.0)[0])
        targets = td_targets(batch.rewards, batch.masks, jnp.full(16, 10.0), g)
        np.testing.assert_allclose(targets[first], expected, rtol=1e-6)
        assert batch.next_actions is None


def test_a_lookahead_of_no_step_is_refused():
    with pytest.raises(ConfigError, match="n_step=0"):
        LookaheadSampler.create(dataset(), Lookahead(0, False, DISCOUNT))
