"""The discriminators on a plane where the simulator errs only for s_0 > 0, and what H2O and DARC read off them."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import DISCRIMINATOR, batch, perturbed, sourced

from algorithms import DARCAgent, DARCConfig, DiscriminatorConfig, H2OAgent, H2OConfig
from algorithms.dynamics import REAL, SIMULATED, Discriminators, split_rows
from algorithms.h2o import H2O_SAC, normalized_log_weights
from hybridrl.replay import SeparateSampler, UniformSampler
from hybridrl.types import SourcedBatch, Transitions

SHIFT, STD = 0.5, 0.3
SETTINGS = DiscriminatorConfig(hidden_dims=(32, 32), learning_rate=3e-3)
SMALL = dataclasses.replace(H2O_SAC, actor_hidden_dims=(4,), critic_hidden_dims=(4,))


def plane(seed, shift, rows=20_000):
    """`s' = s + 0.5 a + 0.3 noise`, plus `shift` in the first coordinate where s_0 > 0."""
    rng = np.random.default_rng(seed)
    states, actions = rng.normal(size=(rows, 2)), rng.uniform(-1, 1, (rows, 2))
    following = states + 0.5 * actions + STD * rng.normal(size=(rows, 2))
    following[:, 0] += shift * (states[:, 0] > 0)
    columns = (states, actions, np.zeros(rows), np.ones(rows), following, np.zeros(rows))
    return Transitions(*[jnp.asarray(column, jnp.float32) for column in columns])


REALITY = plane(0, 0.0)


@pytest.fixture(scope="module")
def fitted():
    """Discriminators by simulator: one without a gap, one with."""

    @jax.jit
    def fit(simulated):
        sampler = SeparateSampler(UniformSampler(REALITY), UniformSampler(simulated))
        start = Discriminators.create(jax.random.key(0), plane(0, 0.0, 1), SETTINGS)

        def step(discriminators, key):
            batch_key, noise_key = jax.random.split(key)
            return discriminators.update(sampler.sample(batch_key, SETTINGS.batch_size), noise_key)[0], None

        return jax.lax.scan(step, start, jax.random.split(jax.random.key(1), 1_500))[0]

    return {shift: fit(plane(1, shift)) for shift in (0.0, SHIFT)}


AGENT = H2OAgent.create(jax.random.key(0), plane(0, 0.0, 1), H2OConfig(SMALL, SETTINGS))
weigh, dynamics_gap = jax.jit(H2OAgent.weigh), jax.jit(H2OAgent.dynamics_gap)


def h2o(discriminators, **settings):
    agent = AGENT.replace(discriminators=discriminators, config=H2OConfig(SMALL, SETTINGS, **settings))
    return agent.fit_observations(REALITY.observations)


def test_without_a_gap_ratios_are_one_and_gaps_zero(fitted):
    simulated = plane(2, 0.0, 4_000)
    agent = h2o(fitted[0.0])
    ratios, _, metrics = weigh(agent, simulated, jax.random.key(0))
    assert abs(metrics["dynamics/log_ratio_mean"]) < 0.05
    assert ratios.mean() > 0.95
    assert metrics["dynamics/gap_mean"] < 0.1


def test_the_gap_is_found_where_it_is(fitted):
    simulated = plane(2, SHIFT, 4_000)
    wrong = np.asarray(simulated.observations[:, 0] > 0)
    ratios, log_weights, _ = weigh(h2o(fitted[SHIFT]), simulated, jax.random.key(0))
    assert ratios[wrong].mean() < 0.6
    assert ratios[~wrong].mean() > 0.9
    gaps = np.exp(np.asarray(log_weights, np.float64))  # u up to a factor
    assert gaps[wrong].mean() > 2 * gaps[~wrong].mean()
    sharp = np.asarray(dynamics_gap(h2o(fitted[SHIFT], gap_std_scale=0.3), simulated, jax.random.key(0)))
    assert sharp[wrong].mean() > 5 * sharp[~wrong].mean()
    # One row's u depends on the one s' that was drawn for it; means over 50 neighbouring rows show the divergence.
    order = np.argsort(np.asarray(simulated.observations[:, 0]))
    means, divergence = (values[order].reshape(-1, 50).mean(axis=1) for values in (sharp, wrong * SHIFT**2 / 0.18))
    ranks = [np.argsort(np.argsort(values, kind="stable"), kind="stable") for values in (means, divergence)]
    assert np.corrcoef(*ranks)[0, 1] > 0.6


def test_the_true_ratio_is_found(fitted):
    """`-log w` is on average the divergence, 1.39 nats, less what noise on the inputs hides."""
    simulated = plane(2, SHIFT, 4_000)
    wrong = np.asarray(simulated.observations[:, 0] > 0)
    found = -np.asarray(fitted[SHIFT].log_ratio(simulated))
    assert 0.8 < found[wrong].mean() < 1.4
    assert abs(found[~wrong].mean()) < 0.1


def test_darc_charges_for_transitions_that_reality_does_not_make(fitted):
    for shift, (low, high) in {0.0: (-0.05, 0.05), SHIFT: (-1.4, -0.8)}.items():
        simulated = plane(2, shift, 4_000)
        agent = DARCAgent(sac=AGENT.sac, discriminators=fitted[shift], config=DARCConfig(SMALL, SETTINGS))
        corrected, corrections = agent.corrected(simulated)
        np.testing.assert_array_equal(corrected.rewards - simulated.rewards, corrections)
        wrong = np.asarray(simulated.observations[:, 0] > 0)
        assert low < corrections[wrong].mean() < high
        assert abs(corrections[~wrong].mean()) < 0.1
        assert float(jnp.abs(corrections).max()) <= 4.0
        config = dataclasses.replace(agent.config, max_correction=0.1)
        assert float(jnp.abs(agent.replace(config=config).corrected(simulated)[1]).max()) == pytest.approx(0.1)


@pytest.fixture(scope="module")
def random_discriminators():
    found = Discriminators.create(jax.random.key(0), batch(), DISCRIMINATOR)
    return found.replace(
        state_action=found.state_action.replace(params=perturbed(found.state_action.params, jax.random.key(1))),
        transition=found.transition.replace(params=perturbed(found.transition.params, jax.random.key(2))),
    )


def test_ratios_are_bounded_for_any_input(random_discriminators):
    far = jax.tree.map(lambda field: 1e6 * field, batch(64))
    ratios = random_discriminators.log_ratio(far)
    assert float(jnp.abs(ratios).max()) <= 4.0
    assert float(jnp.abs(ratios).max()) > 3.0
    agent = AGENT.replace(discriminators=random_discriminators)  # both have two states and two actions
    clipped, log_weights, _ = weigh(agent, far, jax.random.key(0))
    assert float(clipped.min()) >= np.exp(-4.0) - 1e-6
    assert float(clipped.max()) == 1.0
    np.testing.assert_allclose(jnp.exp(log_weights).sum(), 1.0, rtol=1e-5)


def test_weights_are_uniform_when_every_gap_is_at_its_floor():
    floor = jnp.full(128, np.finfo(np.float32).tiny)
    np.testing.assert_allclose(jnp.exp(normalized_log_weights(floor)), np.full(128, 1 / 128), rtol=1e-5)
    one = floor.at[3].set(2.0)
    np.testing.assert_allclose(jnp.exp(normalized_log_weights(one)), np.eye(128)[3], atol=1e-30)


def test_the_state_action_network_cancels_out_of_the_ratio(random_discriminators):
    rows, found = batch(), random_discriminators
    params = (found.state_action.params, found.transition.params)
    pair, triple = found.log_probabilities(params, rows)
    by_bayes = (triple[:, REAL] - triple[:, SIMULATED]) - (pair[:, REAL] - pair[:, SIMULATED])
    np.testing.assert_allclose(found.log_ratio(rows), by_bayes, atol=1e-6)
    other = found.state_action.replace(params=perturbed(found.state_action.params, jax.random.key(9)))
    np.testing.assert_array_equal(found.replace(state_action=other).log_ratio(rows), found.log_ratio(rows))


def test_the_transition_loss_trains_both_networks_and_real_is_the_first_class(random_discriminators):
    found, rows = random_discriminators, sourced()
    params = (found.state_action.params, found.transition.params)

    def transition_loss(params):
        return found.loss(params, rows.offline, rows.online)[1]["discriminator/transition_loss"]

    slopes = jax.jit(jax.grad(transition_loss))(params)
    assert all(float(jnp.abs(leaf).max()) > 0 for leaf in jax.tree.leaves(slopes))
    pair, _ = found.log_probabilities(params, rows.offline)
    other, _ = found.log_probabilities(params, rows.online)
    expected = -pair[:, 0].mean() - other[:, 1].mean()
    _, metrics = found.loss(params, rows.offline, rows.online)
    np.testing.assert_allclose(metrics["discriminator/state_action_loss"], expected, rtol=1e-6)


def test_noise_is_added_to_inputs_alone_and_independently():
    found = Discriminators.create(jax.random.key(0), batch(), dataclasses.replace(DISCRIMINATOR, noise_std=0.1))
    rows = batch(20_000)
    noisy = found.with_noise(rows, jax.random.key(3))
    added = [
        np.asarray(getattr(noisy, name) - getattr(rows, name))
        for name in ("observations", "actions", "next_observations")
    ]
    for values in added:
        np.testing.assert_allclose(values.std(), 0.1, rtol=0.02)
    columns = np.concatenate(added, axis=1).T
    assert np.abs(np.corrcoef(columns) - np.eye(len(columns))).max() < 0.04
    np.testing.assert_array_equal(noisy.rewards, rows.rewards)


def test_the_discriminators_get_rows_of_their_own():
    learning, fitting = split_rows(sourced(), DISCRIMINATOR.batch_size)
    for part in ("offline", "online"):
        whole = getattr(sourced(), part)
        np.testing.assert_array_equal(getattr(learning, part).rewards, whole.rewards[:8])
        np.testing.assert_array_equal(getattr(fitting, part).rewards, whole.rewards[8:])
    few = SourcedBatch(offline=batch(6), online=batch(14))
    with pytest.raises(ValueError, match=r"6 rows of one source leaves none beside the discriminators' 6"):
        split_rows(few, DISCRIMINATOR.batch_size)
