import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hybridrl.losses.conservative import calibrate, importance_sampled_gap, mean_exp_gap
from hybridrl.losses.flow import follow_flow, straight_path
from hybridrl.losses.policy import (
    awr_weights,
    clipped_surrogate,
    scale_free_policy_loss,
    smoothed_actions,
    soft_policy_loss,
    temperature_loss,
)
from hybridrl.losses.value import ensemble_backup, expectile_loss, squared_td_errors, td_targets


def test_td_targets_bootstrap_through_time_limits_only():
    rewards, next_values = jnp.array([1.0, 1.0]), jnp.array([10.0, 10.0])
    targets = td_targets(rewards, jnp.array([0.0, 1.0]), next_values, 0.9)
    np.testing.assert_allclose(targets, [1.0, 10.0])


def test_backup_is_the_best_action_under_the_most_pessimistic_critic():
    """Critics (10, 0), (1, 9) and (2, 8) on two actions: the minima are 1 and 0."""
    next_q = jnp.array([[10.0, 0.0], [1.0, 9.0], [2.0, 8.0]])[..., None]
    np.testing.assert_allclose(ensemble_backup(next_q), [1.0])


def test_backup_over_many_actions_is_never_below_that_of_any_single_one():
    next_q = jax.random.normal(jax.random.key(0), (2, 10, 50))
    best = ensemble_backup(next_q)
    for action in range(10):
        assert (best >= ensemble_backup(next_q[:, action : action + 1])).all()
    np.testing.assert_array_equal(ensemble_backup(next_q[:, :1]), np.asarray(next_q[:, 0]).min(axis=0))


def test_squared_errors_keep_the_ensemble_apart():
    errors = squared_td_errors(jnp.array([[1.0, 2.0], [3.0, 4.0]]), jnp.array([1.0, 5.0]))
    np.testing.assert_allclose(errors, [[0, 9], [4, 1]])


def test_policy_loss_by_hand():
    loss = soft_policy_loss(jnp.array([-1.0, 2.0]), jnp.array([3.0, 0.5]), jnp.array(0.5))
    np.testing.assert_allclose(loss, [-3.5, 0.5])
    assert jax.grad(lambda t: soft_policy_loss(jnp.ones(1), jnp.ones(1), t).sum())(jnp.array(1.0)) == 0


@pytest.mark.parametrize(("entropy", "direction"), [(-0.5, -1), (-2.0, 1)])
def test_temperature_falls_above_the_target_entropy_and_rises_below_it(entropy, direction):
    slope = jax.grad(temperature_loss)(jnp.array(0.7), jnp.array(entropy), -1.0)
    assert np.sign(-slope) == direction
    assert jax.grad(temperature_loss, argnums=1)(jnp.array(0.7), jnp.array(entropy), -1.0) == 0


@pytest.mark.parametrize("action_dim", [2, 28])
def test_importance_sampled_gap_of_a_constant_critic(action_dim):
    """c + log 30 + A log 2 - c: about 22.8 for 28 actions."""
    densities = jnp.full((30, 4), -action_dim * math.log(2))
    gap = importance_sampled_gap(jnp.full((2, 30, 4), 7.0), densities, jnp.full((2, 4), 7.0))
    np.testing.assert_allclose(gap, np.full((2, 4), math.log(30) + action_dim * math.log(2)), rtol=1e-5)


def test_mean_exp_gap_of_a_constant_critic_is_zero_and_so_is_its_slope_in_a_bias():
    def mean_gap(bias):
        return mean_exp_gap(jnp.full((2, 30, 4), 1.0) + bias, jnp.full((2, 4), 1.0) + bias).mean()

    value, slope = jax.value_and_grad(mean_gap)(jnp.float32(-3.0))
    assert value == pytest.approx(0.0, abs=1e-5)
    assert slope == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("softmax_temperature", [1.0, 0.5, 3.0])
def test_gaps_by_definition(softmax_temperature):
    rng = np.random.default_rng(0)
    q, logs, data = rng.normal(size=(2, 6, 3)), rng.normal(size=(6, 3)), rng.normal(size=(2, 3))
    t = softmax_temperature
    weighted = t * np.log(np.exp((q - logs) / t).sum(axis=1)) - data
    given = (jnp.asarray(q, jnp.float32), jnp.asarray(logs, jnp.float32), jnp.asarray(data, jnp.float32))
    np.testing.assert_allclose(importance_sampled_gap(*given, t), weighted, rtol=1e-4, atol=1e-5)
    everything = np.concatenate([q, data[:, None]], axis=1)
    mean = t * np.log(np.exp(everything / t).mean(axis=1)) - data
    np.testing.assert_allclose(mean_exp_gap(given[0], given[2], t), mean, rtol=1e-4, atol=1e-5)


def test_calibration_by_hand():
    bounded = calibrate(jnp.array([[[-1.0, 5.0], [3.0, 0.0]]]), jnp.array([2.0, 1.0]))
    np.testing.assert_allclose(bounded, [[[2.0, 5.0], [3.0, 1.0]]])


def test_entries_at_their_bound_are_not_pushed_and_the_others_are():
    """Three uniform actions, which are not bounded, then four of the policy's."""
    q = jax.random.normal(jax.random.key(1), (1, 7, 5))

    def penalty(q, bound):
        q = jnp.concatenate([q[:, :3], calibrate(q[:, 3:], bound)], axis=1)
        return importance_sampled_gap(q, jnp.zeros((7, 5)), jnp.zeros((1, 5))).sum()

    slope = jax.grad(penalty)(q, jnp.full(5, 10.0))
    assert (slope[:, 3:] == 0).all()
    assert (slope[:, :3] > 0).all()
    free = jax.grad(penalty)(q, jnp.full(5, -jnp.inf))
    assert (free > 0).all()
    np.testing.assert_allclose(free.sum(axis=1), np.ones((1, 5)), rtol=1e-5)


def test_shapes_that_would_broadcast_are_refused():
    with pytest.raises(AssertionError):
        td_targets(jnp.zeros(3), jnp.zeros((3, 1)), jnp.zeros(3), 0.9)
    with pytest.raises(AssertionError):
        squared_td_errors(jnp.zeros((2, 3, 1)), jnp.zeros(3))
    with pytest.raises(AssertionError):
        calibrate(jnp.zeros((2, 3, 4)), jnp.zeros(3))


def test_expectile_loss_by_hand():
    """Errors -2, 1 and 0: weights 0.3, 0.7, and the tie, whose loss is zero with either."""
    found = expectile_loss(jnp.zeros(3), jnp.array([-2.0, 1.0, 0.0]), 0.7)
    np.testing.assert_allclose(found, [1.2, 0.7, 0.0], rtol=1e-6)


def test_regression_weights_by_hand():
    found = awr_weights(jnp.array([0.0, math.log(2.0), -math.log(2.0), 50.0]), 3.0)
    np.testing.assert_allclose(found, [1.0, 8.0, 0.125, 100.0], rtol=1e-5)


def test_smoothing_is_clipped_twice():
    actions = jnp.full((4_000, 1), 0.8)
    found = np.asarray(smoothed_actions(jax.random.key(0), actions, 0.2, 0.1))
    assert found.min() == pytest.approx(0.7)
    assert found.max() == pytest.approx(0.9)
    assert smoothed_actions(jax.random.key(0), actions, 0.2, 0.5).max() == 1.0
    inside = found[(found > 0.701) & (found < 0.899)]
    assert 0.3 < len(inside) / 4_000 < 0.46  # P(|N(0, 0.2)| < 0.1) = 0.383


def test_scale_free_loss_ignores_the_size_of_the_values():
    q = jnp.array([1.0, -3.0])
    np.testing.assert_allclose(scale_free_policy_loss(q), [-0.5, 1.5])
    slope = jax.grad(lambda values: scale_free_policy_loss(values).mean())
    np.testing.assert_allclose(slope(q), [-0.25, -0.25])
    np.testing.assert_allclose(scale_free_policy_loss(1e4 * q), [-0.5, 1.5], rtol=1e-6)


def test_a_straight_path_is_followed_to_its_end():
    noise, data = jnp.array([[0.0, 2.0]]), jnp.array([[1.0, -2.0]])
    points, velocity = straight_path(noise, data, jnp.array([[0.25]]))
    np.testing.assert_allclose(points, [[0.25, 1.0]])
    np.testing.assert_allclose(velocity, [[1.0, -4.0]])
    np.testing.assert_allclose(follow_flow(lambda points, times: velocity, noise, 7), data, atol=1e-6)
    # A field of t alone: Euler's left sums of 2 t over two steps are (0 + 1) / 2.
    np.testing.assert_allclose(follow_flow(lambda points, times: 2 * times, jnp.zeros((1, 1)), 2), [[0.5]])


def test_the_clipped_surrogate_takes_away_what_is_gained_beyond_the_clip():
    """Ratios 1.5 and 0.5 at a range of 0.2: gains are clipped, losses are not (Schulman et al. 2017, figure 1)."""
    log_ratio = jnp.log(jnp.array([1.5, 0.5, 1.5, 0.5, 1.1]))
    advantages = jnp.array([2.0, 2.0, -2.0, -2.0, 3.0])
    found = clipped_surrogate(log_ratio, advantages, 0.2)
    np.testing.assert_allclose(found, [2.4, 1.0, -3.0, -1.6, 3.3], rtol=1e-6)
    slopes = jax.grad(lambda log_ratio: clipped_surrogate(log_ratio, advantages, 0.2).sum())(log_ratio)
    np.testing.assert_allclose(slopes, [0.0, 1.0, -3.0, 0.0, 3.3], rtol=1e-6)
