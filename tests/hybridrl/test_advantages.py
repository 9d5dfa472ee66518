import jax.numpy as jnp
import numpy as np
import pytest

from hybridrl.losses.advantages import generalized_advantages, standardized


def by_the_sum(rewards, values, next_values, masks, ends, discount, decay):
    """Each advantage as the sum over the steps that are left of its episode, in double precision."""
    errors = rewards + discount * masks * next_values - values
    advantages = np.zeros_like(errors)
    for env in range(errors.shape[1]):
        for start in range(len(errors)):
            for step in range(start, len(errors)):
                advantages[start, env] += (discount * decay) ** (step - start) * errors[step, env]
                if ends[step, env]:
                    break
    return advantages


@pytest.mark.parametrize("decay", [0.0, 0.8, 1.0])
def test_advantages_equal_the_sum_with_a_termination_a_time_limit_and_a_cut(decay):
    """Environment 0 terminates at step 1, is cut by a time limit at step 4 and by the batch after step 6."""
    rng = np.random.default_rng(0)
    rewards, values, next_values = rng.standard_normal((3, 7, 2))
    masks, ends = np.ones((7, 2)), np.zeros((7, 2))
    masks[1, 0] = 0.0
    ends[1, 0] = ends[4, 0] = 1.0
    columns = (rewards, values, next_values, masks, ends)
    found = generalized_advantages(*(jnp.asarray(column, jnp.float32) for column in columns), 0.9, decay)
    expected = by_the_sum(*columns, 0.9, decay)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_advantages_by_hand():
    """At the last step, a termination, 2 - 0.5; before it 1 + 0.5 * 0.5 - 1, and 0.1 of what follows."""
    found = generalized_advantages(
        rewards=jnp.array([[1.0], [2.0]]),
        values=jnp.array([[1.0], [0.5]]),
        next_values=jnp.array([[0.5], [100.0]]),
        masks=jnp.array([[1.0], [0.0]]),
        ends=jnp.array([[0.0], [1.0]]),
        discount=0.5,
        trace_decay=0.2,
    )
    np.testing.assert_allclose(found, [[0.25 + 0.1 * 1.5], [1.5]], rtol=1e-6)


def test_standardised_advantages_have_mean_zero_and_deviation_one():
    found = np.asarray(standardized(5.0 + 30.0 * jnp.asarray(np.random.default_rng(0).standard_normal((64, 3)))))
    np.testing.assert_allclose([found.mean(), found.std()], [0.0, 1.0], atol=1e-5)
    np.testing.assert_array_equal(standardized(jnp.full((4, 2), 3.0)), np.zeros((4, 2)))
