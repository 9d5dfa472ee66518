import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from numpy_gap_reference import GapReference
from numpy_reference import Adam, assert_close, assert_same
from tiny import DISCRIMINATOR, batch, perturbed, scrambled, sourced

from algorithms import DARCAgent, DARCConfig, H2OAgent, H2OChoices, H2OConfig
from algorithms.darc import DARC_SAC
from algorithms.dynamics import split_rows
from algorithms.h2o import H2O_SAC, adaptive_penalty, weighted_mean_penalty
from hybridrl.errors import ConfigError
from hybridrl.losses.value import squared_td_errors
from hybridrl.types import SourcedBatch

TINY = dataclasses.replace(
    H2O_SAC,
    actor_hidden_dims=(4,),
    critic_hidden_dims=(4,),
    actor_learning_rate=1e-2,
    critic_learning_rate=3e-2,
    temperature_learning_rate=2e-2,
    target_update_rate=0.1,
    discount=0.9,
)
CONFIG = H2OConfig(TINY, DISCRIMINATOR, penalty_weight=0.3, penalty_temperature=0.7, gap_samples=3)
LAGRANGE = dataclasses.replace(
    CONFIG,
    choices=H2OChoices(penalty="weighted_mean", multiplier="lagrange"),
    multiplier_learning_rate=0.05,
    target_gap=0.2,
)
ABLATED = dataclasses.replace(CONFIG, choices=H2OChoices(adaptive_weights=False, importance_weights=False))


def in_general_position(agent):
    """No network at its start."""
    found, keys = agent.discriminators, jax.random.split(jax.random.key(9))  # with ratios on both sides of 1
    found = found.replace(
        state_action=found.state_action.replace(params=perturbed(found.state_action.params, keys[0])),
        transition=found.transition.replace(params=perturbed(found.transition.params, keys[1])),
    )
    return agent.replace(sac=scrambled(agent.sac), discriminators=found)


def new_agent(config=CONFIG):
    agent = in_general_position(H2OAgent.create(jax.random.key(0), batch(), config))
    return agent.fit_observations(batch(64, 9).observations)


@pytest.fixture(scope="module")
def agent():
    return new_agent()


def compare(agent, reference, metrics, losses):
    for name, expected in losses.items():
        np.testing.assert_allclose(metrics[name], expected, rtol=1e-3, atol=1e-4, err_msg=name)
    assert_same(agent.sac, reference)
    for role in ("state_action", "transition"):
        found, expected = getattr(agent.discriminators, role), getattr(reference, role)
        assert_close(found.opt_state[0].mu, expected.mu, 2e-3, 2e-5, f"{role}'s gradients")
        assert_close(found.params, expected.params, 2e-3, 1e-4, f"{role}'s parameters")


@pytest.mark.parametrize(
    "config",
    [CONFIG, pytest.param(LAGRANGE, marks=pytest.mark.slow), pytest.param(ABLATED, marks=pytest.mark.slow)],
    ids=["published", "lagrange, weighted mean", "ablated"],
)
def test_update_agrees_with_numpy(config):
    agent = new_agent(config)
    reference = GapReference(agent)
    multiplier = None if agent.multiplier is None else Adam(agent.multiplier, 0.05)
    std = np.asarray(batch(64, 9).observations, np.float64).std(axis=0)
    for seed in range(2):
        agent, metrics = agent.update(sourced(seed))
        compare(agent, reference, metrics, reference.h2o_update(sourced(seed), std, multiplier))
        if multiplier is not None:
            assert_close(agent.multiplier.params, multiplier.params, 1e-4, 1e-5, "multiplier")


@pytest.mark.parametrize("on_real", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_darcs_update_agrees_with_numpy(on_real):
    sac = dataclasses.replace(TINY, entropy_backup=True)
    config = DARCConfig(sac, DISCRIMINATOR, critic_on_real=on_real)
    agent = in_general_position(DARCAgent.create(jax.random.key(0), batch(), config))
    reference = GapReference(agent)
    for seed in range(2):
        agent, metrics = agent.update(sourced(seed))
        compare(agent, reference, metrics, reference.darc_update(sourced(seed)))


def test_settings_are_the_published_ones():
    config = H2OConfig()
    assert (config.penalty_weight, config.penalty_temperature, config.penalty_clip) == (0.01, 1.0, 1000.0)
    assert (config.ratio_clip, config.gap_samples, config.gap_std_scale, config.max_gap) == ((1e-5, 1.0), 10, 1.0, 10.0)
    assert (config.target_gap, config.multiplier_learning_rate) == (1.0, 3e-4)
    found = config.discriminator
    assert (found.hidden_dims, found.learning_rate, found.noise_std, found.batch_size) == ((256, 256), 3e-4, 0.1, 256)
    sac = config.sac
    assert (sac.actor_hidden_dims, sac.critic_hidden_dims, sac.num_critics) == ((256, 256), (256, 256), 2)
    assert {sac.actor_learning_rate, sac.critic_learning_rate, sac.temperature_learning_rate} == {3e-4}
    assert (sac.discount, sac.target_update_rate, sac.output_gain, sac.std_kind) == (0.99, 0.005, 0.01, "scaled")
    assert (sac.entropy_backup, DARC_SAC.entropy_backup) == (False, True)
    assert (sac.target_entropy_per_dim, sac.initial_temperature, sac.temperature_objective) == (-1.0, 1.0, "log")
    assert (sac.actor_layer_norm, sac.critic_layer_norm) == (False, False)
    np.testing.assert_allclose(np.log(sac.std_bounds), [-20, 2])


def test_the_first_policy_has_deviation_exp_minus_one():
    agent = H2OAgent.create(jax.random.key(3), batch(), H2OConfig(discriminator=DISCRIMINATOR))
    np.testing.assert_allclose(agent.sac.actor(batch().observations).std, np.exp(-1.0), rtol=0.05)


critic_loss = jax.jit(H2OAgent.critic_loss)


def with_settings(agent, **settings):
    return agent.replace(config=dataclasses.replace(agent.config, **settings))


def test_with_equal_sources_and_no_penalty_it_is_twice_sacs_loss(agent):
    rows, count = SourcedBatch(offline=batch(), online=batch()), len(batch().rewards)
    ones, uniform = jnp.ones(count), jnp.full(count, -jnp.log(count))
    free, params = with_settings(agent, penalty_weight=0.0), agent.sac.critic.params
    targets = jnp.asarray(np.random.default_rng(2).normal(size=count), jnp.float32)
    loss, _ = critic_loss(free, params, rows, jnp.tile(targets, 2), ones, uniform)
    q = agent.sac.critic(batch().observations, batch().actions)
    np.testing.assert_allclose(loss, 2 * squared_td_errors(q, targets).mean(axis=1).sum(), rtol=1e-5)
    halved, _ = critic_loss(free, params, rows, jnp.tile(targets, 2), 0.5 * ones, uniform)
    np.testing.assert_allclose(halved, 0.75 * loss, rtol=1e-5)
    off, metrics = critic_loss(
        with_settings(agent, choices=H2OChoices(penalty="none")), params, rows, jnp.tile(targets, 2), ones, uniform
    )
    np.testing.assert_allclose(off, loss, rtol=1e-6)
    assert metrics["critic/penalty"] == 0.0


def test_the_penalty_is_a_log_mean_exp_where_the_gap_is_the_same_everywhere():
    rng = np.random.default_rng(0)
    simulated, real = (jnp.asarray(rng.normal(size=(2, 128)), jnp.float32) for _ in range(2))
    uniform = jnp.full(128, -np.log(128.0))
    expected = np.log(np.exp(np.asarray(simulated)).sum(axis=1)) - np.log(128) - np.asarray(real).mean(axis=1)
    np.testing.assert_allclose(adaptive_penalty(simulated, uniform, real, 1.0), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(
        weighted_mean_penalty(simulated, uniform, real), simulated.mean(axis=1) - real.mean(axis=1), atol=1e-5
    )


def test_the_penaltys_slope_is_a_softmax_of_weight_and_value():
    rng = np.random.default_rng(1)
    simulated, real = jnp.asarray(rng.normal(size=(1, 6)), jnp.float32), jnp.zeros((1, 4))
    weights = rng.uniform(size=6)
    log_weights = jnp.asarray(np.log(weights / weights.sum()), jnp.float32)
    slopes = jax.grad(lambda q, r: adaptive_penalty(q, log_weights, r, 1.0).sum(), argnums=(0, 1))(simulated, real)
    scores = weights * np.exp(np.asarray(simulated[0], np.float64))
    np.testing.assert_allclose(slopes[0][0], scores / scores.sum(), rtol=1e-4)
    np.testing.assert_allclose(slopes[1][0], np.full(4, -0.25), rtol=1e-6)


def test_a_clipped_penalty_has_no_slope(agent):
    rows = split_rows(sourced(), DISCRIMINATOR.batch_size)[0]

    @jax.jit
    def slope(params, clip):
        clipped = with_settings(agent, penalty_weight=1.0, penalty_clip=clip)
        errors_only = with_settings(agent, penalty_weight=0.0)

        def loss(trial, params):
            return trial.critic_loss(params, rows, jnp.zeros(16), jnp.ones(8), jnp.full(8, -np.log(8.0)))

        (_, metrics), slopes = jax.value_and_grad(loss, argnums=1, has_aux=True)(clipped, params)
        return metrics["critic/penalty"], slopes, jax.grad(lambda p: loss(errors_only, p)[0])(params)

    penalty, slopes, expected = slope(agent.sac.critic.params, 1e-3)
    np.testing.assert_allclose(abs(penalty), 1e-3, rtol=1e-4)
    for a, b in zip(jax.tree.leaves(slopes), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_one_step_from_scratch_moves_values_down_where_the_gap_is_and_up_on_real_data():
    """Beside a copy without the penalty; all weight is on one of the simulated pairs, which lie apart from the real."""
    wide = dataclasses.replace(TINY, critic_hidden_dims=(32, 32))
    agent = H2OAgent.create(jax.random.key(0), batch(), dataclasses.replace(CONFIG, sac=wide))
    rows, worst = SourcedBatch(offline=batch(8, 0), online=batch(8, 1)), 5
    rows = SourcedBatch(
        offline=rows.offline.replace(observations=rows.offline.observations - 3.0),
        online=rows.online.replace(observations=rows.online.observations + 3.0),
    )
    sgd, critic = optax.sgd(1e-2), agent.sac.critic  # Adam's first step would blow up the smallest slopes
    critic = critic.replace(optimizer=sgd, opt_state=sgd.init(critic.params))
    log_weights = jnp.full(8, -20.0).at[worst].set(0.0)

    @jax.jit
    def step(critic, weight):
        def loss(params):
            trial = with_settings(agent, penalty_weight=weight)
            return trial.critic_loss(params, rows, jnp.zeros(16), jnp.ones(8), log_weights)

        critic, _ = critic.minimize(loss)
        simulated = critic(rows.online.observations, rows.online.actions).mean(axis=0)
        return simulated[worst], critic(rows.offline.observations, rows.offline.actions).mean()

    with_penalty, without = step(critic, 1.0), step(critic, 0.0)
    assert with_penalty[0] < without[0]
    assert with_penalty[1] > without[1]


def test_agent_and_discriminators_do_not_train_each_other(agent):
    rows = split_rows(sourced(), DISCRIMINATOR.batch_size)[0]
    both = jax.tree.map(lambda *parts: jnp.concatenate(parts), rows.offline, rows.online)

    @jax.jit
    def slopes(discriminator_params):
        def losses(params):
            found = agent.discriminators
            found = found.replace(
                state_action=found.state_action.replace(params=params[0]),
                transition=found.transition.replace(params=params[1]),
            )
            trial = agent.replace(discriminators=found)
            ratios, log_weights, _ = trial.weigh(rows.online, jax.random.key(0))
            targets = trial.sac.targets(both, jax.random.key(1))
            loss, _ = trial.critic_loss(trial.sac.critic.params, rows, targets, ratios, log_weights)
            return loss, loss

        return jax.grad(losses, has_aux=True)(discriminator_params)

    params = (agent.discriminators.state_action.params, agent.discriminators.transition.params)
    found, loss = slopes(params)
    assert all((np.asarray(leaf) == 0).all() for leaf in jax.tree.leaves(found))
    # They do enter the loss, as numbers.
    assert slopes(perturbed(params, jax.random.key(7)))[1] != loss


def test_the_deviation_of_next_states_is_that_of_the_data_or_of_the_padded_buffer():
    """Ten empty rows beside each real one, as the published buffer has them."""
    states = np.random.default_rng(0).normal(2.0, 3.0, (50, 2)).astype(np.float32)
    for choice, expected in {
        "dataset": states.std(axis=0),
        "padded": np.concatenate([states, np.zeros((500, 2))]).std(axis=0) + 1e-3,
    }.items():
        config = dataclasses.replace(CONFIG, choices=H2OChoices(next_state_std=choice))
        agent = H2OAgent.create(jax.random.key(0), batch(), config).fit_observations(jnp.asarray(states))
        np.testing.assert_allclose(agent.next_state_std, expected, rtol=1e-4)
    with pytest.raises(ConfigError, match="the task has no dataset"):
        agent.fit_observations(None)


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: H2OChoices(next_state_std="buffer"), "next_state_std"),
        (lambda: H2OChoices(penalty="sum"), "penalty"),
        (lambda: H2OChoices(multiplier="square"), "multiplier"),
        (lambda: H2OConfig(dataclasses.replace(H2O_SAC, critic_updates=2)), "critic_updates"),
        (lambda: DARCConfig(dataclasses.replace(DARC_SAC, critic_updates=2)), "critic_updates"),
        (lambda: H2OConfig(gap_samples=0), "gap_samples"),
        (lambda: dataclasses.replace(DISCRIMINATOR, noise_std=-1.0), "noise_std"),
    ],
)
def test_settings_that_cannot_work_are_named(make, named):
    with pytest.raises(ConfigError, match=named):
        make()
