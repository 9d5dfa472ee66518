"""BC, TD3+BC, IQL, ReBRAC and FQL: their updates against NumPy, and what their papers promise of them."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from baselines_reference import REFERENCES
from numpy_reference import assert_close, to_numpy
from tiny import BASELINES, assert_identical, batch, perturbed

from algorithms import AGENTS, BCConfig, FQLConfig, IQLConfig, ReBRACConfig, TD3BCConfig
from hybridrl.errors import ConfigError
from hybridrl.losses.value import expectile_loss
from hybridrl.model import adam

VARIANTS = {
    "bc": BASELINES["bc"],
    "bc, stochastic": dataclasses.replace(BASELINES["bc"], actor="tanh_normal"),
    "td3bc": BASELINES["td3bc"],
    "iql": BASELINES["iql"],
    "iql, as SAC's": dataclasses.replace(
        BASELINES["iql"], actor="tanh_normal", std_kind="state", num_critics=3, awr_temperature=40.0
    ),
    "rebrac": BASELINES["rebrac"],
    "rebrac, online": dataclasses.replace(
        BASELINES["rebrac"], critic_bc_weight=0.0, bc_decay_updates=5, bc_final_share=0.3
    ),
    "fql": BASELINES["fql"],
    "fql, normalised": dataclasses.replace(BASELINES["fql"], normalize_q=True, target_q="min"),
}


def scrambled(agent):
    """An agent in general position: no bias and no target hides anything."""
    keys = iter(jax.random.split(jax.random.key(42), 8))
    changes = {}
    for field in dataclasses.fields(agent):
        value = getattr(agent, field.name)
        if hasattr(value, "module"):
            changes[field.name] = value.replace(params=perturbed(value.params, next(keys)))
        elif field.name.startswith("target_"):
            changes[field.name] = perturbed(value, next(keys))
    return agent.replace(**changes)


def new_agent(name, config=None, seed=0):
    return AGENTS[name].create(jax.random.key(seed), batch(), config or BASELINES[name])


@pytest.mark.parametrize("variant", VARIANTS)
def test_update_agrees_with_numpy(variant):
    """Losses, gradients (Adam's first moments), parameters and targets; three updates where some train no actor."""
    name = variant.partition(",")[0]
    agent = scrambled(new_agent(name, VARIANTS[variant]))
    reference = REFERENCES[name](agent)
    for seed in range(3 if name in ("td3bc", "rebrac") else 2):
        rows = batch(8, seed)
        agent, metrics = agent.update(rows)
        for metric, expected in reference.update(to_numpy(rows)).items():
            np.testing.assert_allclose(metrics[metric], expected, rtol=1e-3, atol=1e-4, err_msg=metric)
        for role, twin in reference.networks.items():
            model = getattr(agent, role)
            assert int(model.opt_state[0].count) == twin.count, role
            assert_close(model.opt_state[0].mu, twin.mu, 2e-3, 2e-5, f"{role}'s gradients")
            assert_close(model.params, twin.params, 2e-3, 2e-4, f"{role}'s parameters")
        for role, expected in reference.targets.items():
            assert_close(getattr(agent, f"target_{role}_params"), expected, 2e-3, 2e-5, f"{role}'s target")


def test_expectiles_of_iql_order_the_values():
    """On one state with actions worth 0 and 1: the mean at one half, above it at 0.9, and 0.9 exactly."""
    rows = batch().replace(
        observations=jnp.zeros((8, 2)), actions=jnp.repeat(jnp.array([[-0.5], [0.5]]), 2, axis=1)[jnp.arange(8) % 2]
    )
    worth = jnp.arange(8) % 2.0

    @functools.partial(jax.jit, static_argnums=1)
    def fitted(value, expectile):
        def step(value, _):
            return value.minimize(
                lambda p: (expectile_loss(value(rows.observations, params=p), worth, expectile).mean(), {})
            )[0], None

        return jax.lax.scan(step, value, length=600)[0](rows.observations)[0]

    value = new_agent("iql").value
    assert fitted(value, 0.5) == pytest.approx(0.5, abs=0.01)
    assert fitted(value, 0.9) == pytest.approx(0.9, abs=0.02)


def test_no_weight_of_iql_exceeds_its_bound():
    """An inverse temperature of 1,000 would overflow; the bound holds, and the loss stays finite."""
    agent = scrambled(new_agent("iql", dataclasses.replace(BASELINES["iql"], awr_temperature=1_000.0)))
    _, metrics = agent.update(batch())
    assert float(metrics["actor/weight_max"]) == 100.0
    assert np.isfinite(metrics["actor/loss"])


def scaled_critic(agent, factor):
    """The same agent with values `factor` times as large."""
    heads = jax.tree.map(lambda leaf: leaf * factor, agent.critic.params["params"]["member_heads"])
    params = {"params": agent.critic.params["params"] | {"member_heads": heads}}
    frozen = agent.replace(config=dataclasses.replace(agent.config, critic_learning_rate=0.0))
    return frozen.replace(critic=agent.critic.replace(params=params, optimizer=adam(0.0)))


@pytest.mark.parametrize("name", ["td3bc", "rebrac"])
def test_the_actors_gradient_does_not_depend_on_the_size_of_the_values(name):
    agent = scrambled(new_agent(name))
    small, large = (scaled_critic(agent, factor).update(batch()) for factor in (1.0, 1_000.0))
    assert float(large[1]["actor/q_mean"]) == pytest.approx(1_000.0 * float(small[1]["actor/q_mean"]), rel=1e-3)
    assert_close(large[0].actor.opt_state[0].mu, small[0].actor.opt_state[0].mu, 1e-3, 1e-6, "actor's gradients")


@pytest.mark.parametrize("name", ["td3bc", "rebrac"])
def test_actor_and_targets_rest_every_second_update(name):
    """A network that is not trained is not stepped, and its metrics are those of the last time."""
    first, metrics = new_agent(name).update(batch())
    second, repeated = first.update(batch(8, 1))
    for field in ("actor", "target_actor_params", "target_critic_params"):
        assert_identical(getattr(first, field), getattr(second, field))
    assert all(metrics[key] == repeated[key] for key in metrics if key.startswith("actor/"))
    third, fresh = second.update(batch(8, 2))
    assert int(third.actor.opt_state[0].count) == 2
    assert fresh["actor/loss"] != metrics["actor/loss"]


@pytest.mark.parametrize("name", ["bc", "td3bc"])
def test_standardised_agents_see_units_of_the_data(name):
    """Observations moved and scaled, with the constants fitted to them, change nothing but the floor of 0.001."""
    rows, shift, scale = batch(), jnp.array([[3.0, -7.0]]), jnp.array([[50.0, 20.0]])
    assert new_agent(name, dataclasses.replace(BASELINES[name], standardize_observations=False)).standardizer is None
    moved = rows.replace(
        observations=shift + scale * rows.observations, next_observations=shift + scale * rows.next_observations
    )
    plain = new_agent(name).fit_observations(rows.observations)
    other = new_agent(name).fit_observations(moved.observations)
    np.testing.assert_allclose(other.standardizer.mean, moved.observations.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(other.standardizer.std, moved.observations.std(axis=0) + 1e-3, rtol=1e-5)
    (plain, _), (other, _) = plain.update(rows), other.update(moved)
    actions = [
        agent.policy(deterministic=True).act((), observations, jax.random.key(0))[0]
        for agent, observations in ((plain, rows.observations), (other, moved.observations))
    ]
    np.testing.assert_allclose(*actions, atol=5e-3)
    assert_identical(plain.parts()["standardizer"], plain.standardizer)
    with pytest.raises(ConfigError, match="no dataset to take mean and deviation from"):
        new_agent(name).fit_observations(None)


def test_rebrac_needs_next_actions_only_for_its_critics_penalty():
    rows = batch().replace(next_actions=None)
    with pytest.raises(ValueError, match="needs batches with next_actions"):
        jax.eval_shape(lambda agent: agent.update(rows), new_agent("rebrac"))
    free = new_agent("rebrac", dataclasses.replace(BASELINES["rebrac"], critic_bc_weight=0.0))
    jax.eval_shape(lambda agent: agent.update(rows), free)


def test_rebracs_penalty_falls_linearly_to_its_share():
    config = dataclasses.replace(BASELINES["rebrac"], actor_bc_weight=0.4, bc_decay_updates=10, bc_final_share=0.25)
    agent = new_agent("rebrac", config)
    for count, weight in ((0, 0.4), (5, 0.2), (8, 0.1), (100, 0.1)):
        later = agent.replace(delay=agent.delay.replace(count=jnp.int32(count)))
        np.testing.assert_allclose(later.actor_bc_weight(), weight, rtol=1e-6)


def test_dropout_is_on_in_the_actors_loss_alone():
    config = dataclasses.replace(BASELINES["iql"], actor_dropout=0.5)
    agent, observations = new_agent("iql", config), batch().observations
    means = [agent.actor(observations).mean for _ in range(2)]
    np.testing.assert_array_equal(*means)
    dropped = [agent.actor(observations, dropout_key=jax.random.key(seed)).mean for seed in (0, 1)]
    assert not np.array_equal(*dropped)
    assert not np.array_equal(dropped[0], means[0])
    _, metrics = agent.update(batch())
    dropout_key = jax.random.split(agent.key, 3)[2]
    for key, same in ((dropout_key, True), (None, False)):
        log_probs = agent.actor(observations, dropout_key=key).log_prob(batch().actions).mean()
        assert (abs(float(metrics["actor/log_prob"] - log_probs)) < 1e-5) is same


@pytest.mark.parametrize(
    ("kind", "setting"),
    [
        (IQLConfig, {"actor": "beta"}),
        (IQLConfig, {"expectile": 1.0}),
        (IQLConfig, {"actor_dropout": 1.0}),
        (IQLConfig, {"num_target_critics": 3}),
        (BCConfig, {"actor": "normal"}),
        (TD3BCConfig, {"actor_every": 0}),
        (TD3BCConfig, {"initializer": "edac"}),
        (ReBRACConfig, {"bc_final_share": 1.5}),
        (ReBRACConfig, {"critic_bc_weight": -0.1}),
        (FQLConfig, {"target_q": "max"}),
        (FQLConfig, {"flow_steps": 0}),
    ],
)
def test_settings_that_cannot_work_are_named(kind, setting):
    with pytest.raises(ConfigError, match=next(iter(setting))):
        kind(**setting)
