import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hybridrl.datasets import Dataset, Source, Steps
from hybridrl.errors import DatasetError
from hybridrl.task import DatasetSpec, Task

TASK = Task(
    "maze",
    "antmaze",
    "none",
    horizon=100,
    dataset=DatasetSpec("maze-v0", "ogbench"),
    reward_scale=10.0,
    reward_shift=-5.0,
    success_key="success",
    terminate_on_success=True,
    failure_reward=-5.0,
)


def steps_of(rewards, ends, terminations=None, successes=None, width=2):
    rows = len(rewards)
    observations = np.arange(rows, dtype=np.float64)[:, None] + np.zeros(width)
    return Steps(
        observations=observations,
        actions=np.linspace(-1, 1, rows)[:, None],
        rewards=np.asarray(rewards, np.float32),
        terminations=np.zeros(rows, bool) if terminations is None else np.asarray(terminations, bool),
        ends=np.asarray(ends, bool),
        next_observations=observations + 1,
        successes=np.asarray(rewards) > 0 if successes is None else np.asarray(successes, bool),
    )


def test_two_episodes_by_hand():
    """One succeeds in its third step, the other is cut without success."""
    data = Dataset.from_steps(steps_of([0, 0, 1, 0, 0], [0, 0, 1, 0, 1]), TASK, 0.99)
    batch = data.transitions
    np.testing.assert_array_equal(batch.rewards, [-5, -5, 5, -5, -5])
    np.testing.assert_array_equal(batch.masks, [1, 1, 0, 1, 1])
    np.testing.assert_array_equal(data.truncations, [0, 0, 0, 0, 1])
    np.testing.assert_allclose(batch.mc_returns, [-5.0495, -0.05, 5, -500, -500], rtol=1e-4)
    np.testing.assert_array_equal(data.episode_starts, [0, 3])
    np.testing.assert_array_equal(data.episode_lengths, [3, 2])
    np.testing.assert_allclose(batch.actions[:, 0], [-0.99999, -0.5, 0, 0.5, 0.99999], rtol=1e-6)
    np.testing.assert_array_equal(batch.next_observations, batch.observations + 1)
    assert {leaf.dtype for leaf in jax.tree.leaves(data)} == {jnp.dtype(jnp.float32), jnp.dtype(jnp.int32)}
    assert data.source == Source("maze-v0", "memory")
    assert (data.num_rows, data.num_episodes) == (5, 2)


def test_consecutive_successes_become_episodes_of_one_step():
    data = Dataset.from_steps(steps_of([0, 1, 1, 0, 0], [0, 0, 0, 0, 1]), TASK, 0.99)
    np.testing.assert_array_equal(data.episode_lengths, [2, 1, 2])
    np.testing.assert_allclose(data.transitions.mc_returns, [-0.05, 5, 5, -500, -500], rtol=1e-5)
    np.testing.assert_array_equal(data.truncations, [0, 0, 0, 0, 1])


def test_a_termination_on_the_last_row_of_a_recording_is_no_truncation():
    task = dataclasses.replace(TASK, terminate_on_success=False)
    data = Dataset.from_steps(steps_of([0, 1, 0, 0], [0, 1, 0, 1], terminations=[0, 0, 0, 1]), task, 0.9)
    np.testing.assert_array_equal(data.transitions.masks, [1, 1, 1, 0])
    np.testing.assert_array_equal(data.truncations, [0, 1, 0, 0])


def test_the_last_row_ends_an_episode_in_any_case():
    data = Dataset.from_steps(steps_of([0, 0, 0], [0, 1, 0]), TASK, 0.99)
    np.testing.assert_array_equal(data.episode_lengths, [2, 1])
    np.testing.assert_array_equal(data.truncations, [0, 1, 1])


def test_episodes_cover_the_rows_in_order_whatever_the_flags():
    generator = np.random.default_rng(0)
    for _ in range(50):
        rows = int(generator.integers(1, 30))
        steps = steps_of(generator.integers(0, 2, rows), generator.random(rows) < 0.2, generator.random(rows) < 0.1)
        data = Dataset.from_steps(steps, TASK, 0.9)
        starts, lengths = np.asarray(data.episode_starts), np.asarray(data.episode_lengths)
        covered = np.concatenate([start + np.arange(length) for start, length in zip(starts, lengths, strict=True)])
        np.testing.assert_array_equal(covered, np.arange(rows))
        last = starts + lengths - 1
        ended = (1 - np.asarray(data.transitions.masks)) + np.asarray(data.truncations)
        np.testing.assert_array_equal(np.flatnonzero(ended), last)
        assert set(ended) <= {0.0, 1.0}


def test_an_episode_and_the_summary():
    data = Dataset.from_steps(steps_of([0, 0, 1, 0, 0], [0, 0, 1, 0, 1]), TASK, 0.99)
    episode = data.episode(1)
    np.testing.assert_array_equal(episode.transitions.observations, [[3, 3], [4, 4]])
    np.testing.assert_array_equal(episode.valid, [1, 1])
    assert data.example.actions.shape == (1, 1)
    assert data.summary() == {
        "rows": 5.0,
        "episodes": 2.0,
        "mean_episode_length": 2.5,
        "mean_episode_return": -7.5,
        "terminated_episodes": 1.0,
    }


@pytest.mark.parametrize("field", ["observations", "actions", "rewards", "next_observations"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused_with_its_row(field, value):
    steps = steps_of(np.zeros(9), np.zeros(9))
    getattr(steps, field)[6, ...] = value
    with pytest.raises(DatasetError, match=rf"'maze-v0': '{field}' is not finite in row 6"):
        Dataset.from_steps(steps, TASK, 0.99)


def test_other_bad_rows_are_refused():
    with pytest.raises(DatasetError, match="no transitions"):
        Dataset.from_steps(steps_of([], []), TASK, 0.99)
    steps = steps_of(np.zeros(4), np.zeros(4))
    with pytest.raises(DatasetError, match="'actions' has 3 rows and 'rewards' has 4"):
        Dataset.from_steps(dataclasses.replace(steps, actions=steps.actions[:3]), TASK, 0.99)
    with pytest.raises(DatasetError, match=r"'actions' reaches 3 in row 3"):
        Dataset.from_steps(dataclasses.replace(steps, actions=steps.actions * 3 * (steps.actions == 1)), TASK, 0.99)


def test_a_dataset_passes_through_compiled_code():
    data = Dataset.from_steps(steps_of([0, 0, 1], [0, 0, 1]), TASK, 0.99)
    assert jax.jit(lambda data: data.transitions.rewards.sum())(data) == -5
