import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hybridrl.distributions import Normal, TanhNormal


def by_definition(u, mean, std):
    """log N(u) - log(1 - tanh(u)^2) in double precision."""
    u, mean, std = (np.asarray(x, np.float64) for x in (u, mean, std))
    normal = -0.5 * ((u - mean) / std) ** 2 - np.log(std) - 0.5 * math.log(2 * math.pi)
    return (normal + 2 * np.log(np.cosh(u))).sum(axis=-1)


def test_density_at_the_origin_is_that_of_the_gaussian():
    distribution = TanhNormal(mean=jnp.zeros((1, 2)), std=jnp.array([[1.0, 0.5]]))
    expected = -math.log(2 * math.pi) - math.log(0.5)
    np.testing.assert_allclose(distribution.log_prob(jnp.zeros((1, 2))), [expected], rtol=1e-6)


def test_samples_and_their_densities_come_from_one_gaussian_draw():
    mean, std = jnp.array([[0.3, -1.0], [2.0, 0.0]]), jnp.array([[0.1, 1.0], [0.5, 2.0]])
    key = jax.random.key(0)
    actions, log_probs = TanhNormal(mean, std).sample_with_log_prob(key, (5,))
    u = mean[None] + std[None] * jax.random.normal(key, (5, 2, 2))
    assert actions.shape == (5, 2, 2)
    assert log_probs.shape == (5, 2)
    np.testing.assert_allclose(actions, np.tanh(u), rtol=1e-5)
    np.testing.assert_allclose(log_probs, by_definition(u, mean[None], std[None]), rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(TanhNormal(mean, std).sample(key, (5,)), actions)


def test_density_of_given_actions_agrees_with_that_of_the_draw():
    distribution = TanhNormal(mean=jnp.array([[0.2, -0.4]]), std=jnp.array([[0.5, 0.3]]))
    actions, log_probs = distribution.sample_with_log_prob(jax.random.key(1))
    np.testing.assert_allclose(distribution.log_prob(actions), log_probs, rtol=1e-3)


def test_density_integrates_to_one():
    edges = np.linspace(-1, 1, 20_001)
    middles = jnp.asarray((edges[1:] + edges[:-1]) / 2, jnp.float32)[:, None]
    ones = jnp.ones_like(middles)
    density = np.exp(TanhNormal(mean=0.4 * ones, std=0.7 * ones).log_prob(middles))
    assert density.sum() * (edges[1] - edges[0]) == pytest.approx(1.0, abs=1e-3)


def test_far_out_draws_keep_a_finite_density_and_gradient():
    """At u = 20 the action is 1 in float32, where inverting tanh would give infinity."""

    def log_prob(mean):
        return TanhNormal(mean=mean, std=jnp.full((1, 1), 1e-5)).sample_with_log_prob(jax.random.key(0))[1].sum()

    value, gradient = jax.value_and_grad(log_prob)(jnp.full((1, 1), 20.0))
    assert np.isfinite(value)
    assert value > 40  # 1 - tanh(20)^2 is about 4 exp(-40)
    np.testing.assert_allclose(gradient, [[2.0]], atol=1e-3)  # d/du of 2 (u + softplus(-2u) - log 2)


def test_mode_is_the_squashed_mean_and_sampling_is_reparameterised():
    mean, std = jnp.array([[0.5]]), jnp.array([[0.2]])
    np.testing.assert_allclose(TanhNormal(mean, std).mode(), [[math.tanh(0.5)]], rtol=1e-6)
    key = jax.random.key(3)
    noise = float(jax.random.normal(key, (1, 1))[0, 0])
    slope = jax.grad(lambda s: TanhNormal(mean, s).sample(key).sum())(std)
    np.testing.assert_allclose(slope, [[noise * (1 - math.tanh(0.5 + 0.2 * noise) ** 2)]], rtol=1e-4)


def test_draws_of_a_normal_are_not_clipped_and_its_entropy_is_their_surprise():
    distribution = Normal(mean=jnp.full((1, 2), 0.9), std=jnp.array([[0.5, 2.0]]))
    draws = distribution.draw(jax.random.key(0), (20_000,))
    assert float(jnp.abs(draws).max()) > 3.0
    np.testing.assert_array_equal(jnp.clip(draws, -1.0, 1.0), distribution.sample(jax.random.key(0), (20_000,)))
    wide = Normal(*(jnp.broadcast_to(leaf, draws.shape) for leaf in (distribution.mean, distribution.std)))
    np.testing.assert_allclose(distribution.entropy()[0], -wide.log_prob(draws).mean(), atol=0.02)
