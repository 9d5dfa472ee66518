import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hybridrl.replay import ReplayBuffer
from hybridrl.types import Transitions


def rows(numbers):
    """Row `i` holds `i` everywhere, in a different form in every field."""
    n = np.asarray(numbers, np.float32)
    return Transitions(
        observations=jnp.asarray(np.stack([n, n + 0.5], axis=-1)),
        actions=jnp.asarray(-n[:, None]),
        rewards=jnp.asarray(10 * n),
        masks=jnp.asarray(n % 2),
        next_observations=jnp.asarray(np.stack([n + 1, n + 1.5], axis=-1)),
        mc_returns=jnp.asarray(n - 7),
    )


insert = jax.jit(ReplayBuffer.insert)


def held(buffer):
    """The numbers of the rows held, after checking that every row's fields belong together."""
    size = int(buffer.size)
    numbers = np.asarray(buffer.storage.rewards)[:size] / 10
    for field, expected in zip(jax.tree.leaves(buffer.storage), jax.tree.leaves(rows(numbers)), strict=True):
        np.testing.assert_array_equal(np.asarray(field)[:size], expected)
    return sorted(int(number) for number in numbers)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 4), max_size=12), st.booleans())
def test_the_newest_rows_survive_any_pattern_of_inserts(pattern, counted):
    buffer, written = ReplayBuffer.create(rows([0]), 7), 0
    for count in pattern:
        if counted:  # always four rows, of which only the first `count` are real
            numbers = [written + index if index < count else -99 for index in range(4)]
            buffer = insert(buffer, rows(numbers), jnp.int32(count))
        elif count:
            buffer = insert(buffer, rows(range(written, written + count)))
        written += count
    assert held(buffer) == list(range(max(0, written - 7), written))
    assert int(buffer.size) == min(written, 7)
    assert int(buffer.cursor) == written % 7
    assert buffer.capacity == 7


def test_samples_are_whole_rows_that_were_written():
    buffer = insert(ReplayBuffer.create(rows([0]), 100), rows(range(1, 5)))
    batch = jax.jit(ReplayBuffer.sample, static_argnames="batch_size")(buffer, jax.random.key(0), batch_size=4000)
    numbers = np.asarray(batch.rewards) / 10
    for field, expected in zip(jax.tree.leaves(batch), jax.tree.leaves(rows(numbers)), strict=True):
        np.testing.assert_array_equal(field, expected)
    values, counts = np.unique(numbers, return_counts=True)
    np.testing.assert_array_equal(values, [1, 2, 3, 4])
    assert np.abs(counts - 1000).max() < 150  # five standard deviations are 137


def test_sampling_follows_the_key():
    buffer = insert(ReplayBuffer.create(rows([0]), 64), rows(range(64)))
    first, again = (buffer.sample(jax.random.key(1), 32).rewards for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, buffer.sample(jax.random.key(2), 32).rewards)


def test_impossible_sizes_are_refused():
    with pytest.raises(ValueError, match="replay capacity 0"):
        ReplayBuffer.create(rows([0]), 0)
    with pytest.raises(ValueError, match="cannot insert 5 transitions into a buffer of capacity 4"):
        ReplayBuffer.create(rows([0]), 4).insert(rows(range(5)))
