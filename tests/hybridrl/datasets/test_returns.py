import numpy as np
import pytest

from hybridrl.datasets.returns import monte_carlo_returns


def by_definition(rewards, masks, ends, discount, failure_reward):
    returns, start = np.zeros(len(rewards)), 0
    for end in np.flatnonzero(ends):
        following = 0.0
        for row in range(end, start - 1, -1):
            following = returns[row] = rewards[row] + discount * masks[row] * following
        if failure_reward is not None and all(rewards[start : end + 1] == failure_reward):
            returns[start : end + 1] = failure_reward / (1 - discount)
        start = end + 1
    return returns


@pytest.mark.parametrize(
    ("steps", "expected"),
    [(0, 5), (1, -0.05), (2, -5.0495), (10, -43.2871), (50, -194.4719), (100, -315.1537), (500, -496.6819)],
)
def test_closed_form_of_a_success_that_many_steps_ahead(steps, expected):
    """-500 (1 - 0.99^n) + 5 * 0.99^n (rewards -5 a step and 5 at the goal)."""
    rewards = np.array([-5.0] * steps + [5.0], np.float32)
    masks = np.array([1.0] * steps + [0.0], np.float32)
    ends = np.arange(steps + 1) == steps
    returns = monte_carlo_returns(rewards, masks, ends, 0.99, failure_reward=-5.0)
    assert returns.dtype == np.float32
    assert returns[0] == pytest.approx(expected, abs=1e-3)
    assert returns[-1] == 5


def test_a_segment_of_failures_counts_as_never_ending():
    rewards, ends = np.full(7, -5.0), np.array([0, 0, 1, 0, 0, 0, 1], bool)
    np.testing.assert_allclose(monte_carlo_returns(rewards, np.ones(7), ends, 0.99, -5.0), -500, rtol=1e-6)
    dense = monte_carlo_returns(rewards, np.ones(7), ends, 0.5, None)
    np.testing.assert_allclose(dense, [-8.75, -7.5, -5, -9.375, -8.75, -7.5, -5])


def test_terminations_inside_one_segment():
    returns = monte_carlo_returns(np.array([-5, 5, 5, -5]), np.array([1, 0, 0, 1]), np.zeros(4, bool), 0.99, -5.0)
    np.testing.assert_allclose(returns, [-0.05, 5, 5, -5], rtol=1e-6)


def test_successes_split_into_segments_leave_the_failures_behind_them_alone():
    ends = np.array([0, 1, 1, 0, 1], bool)
    masks = np.array([1, 0, 0, 1, 1])
    returns = monte_carlo_returns(np.array([-5, 5, 5, -5, -5]), masks, ends, 0.99, -5.0)
    np.testing.assert_allclose(returns, [-0.05, 5, 5, -500, -500], rtol=1e-6)


def test_nothing_to_do():
    assert monte_carlo_returns(np.zeros(0), np.zeros(0), np.zeros(0, bool), 0.9).shape == (0,)


def test_random_episodes_agree_with_the_definition():
    generator = np.random.default_rng(0)
    for _ in range(300):
        rows = int(generator.integers(1, 40))
        rewards = generator.choice([-1.0, 0.0, 2.5], rows, p=[0.8, 0.1, 0.1])
        masks = (generator.random(rows) > 0.1).astype(float)
        ends = generator.random(rows) < generator.choice([0.05, 0.3])
        ends[-1] = True
        discount, failure = float(generator.uniform(0, 0.999)), [None, -1.0][generator.integers(2)]
        returns = monte_carlo_returns(rewards, masks, ends, discount, failure)
        expected = by_definition(rewards, masks, ends, discount, failure)
        np.testing.assert_allclose(returns, expected, rtol=1e-5, atol=1e-5)
