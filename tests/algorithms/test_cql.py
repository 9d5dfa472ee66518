import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy_reference import Adam, Reference, assert_close, assert_same, minibatch
from tiny import TINY, assert_identical, batch, same_values, scrambled

from algorithms import CalQLAgent, CalQLConfig, CQLAgent, CQLConfig, PenaltyConfig
from hybridrl.errors import ConfigError

SAC = dataclasses.replace(TINY, critic_updates=1, num_backup_actions=3)
FIXED = PenaltyConfig(num_actions=3, weight=2.0)
LAGRANGE = dataclasses.replace(FIXED, multiplier="lagrange", target_gap=0.5, multiplier_learning_rate=0.05)
UNREACHED = dataclasses.replace(LAGRANGE, target_gap=1e3, multiplier_learning_rate=1.0)
PENALTIES = {
    "fixed": FIXED,
    "lagrange": LAGRANGE,
    "lagrange_exp, mean-exp": dataclasses.replace(
        LAGRANGE, multiplier="lagrange_exp", importance_sampled=False, softmax_temperature=0.7
    ),
}


def new_agent(penalty):
    agent = CQLAgent.create(jax.random.key(0), batch(), CQLConfig(SAC, penalty))
    return agent.replace(sac=scrambled(agent.sac))


def calibrated(cql):
    """A Cal-QL agent with the networks of a CQL agent."""
    return CalQLAgent(cql=cql, config=CalQLConfig(cql.config.sac, cql.config.penalty))


def compare_with_numpy(agent, update, rows, bounds):
    reference = Reference(agent.sac)
    multiplier = Adam(agent.multiplier, 0.05) if agent.multiplier is not None else None
    for _ in range(2):
        agent, metrics = update(agent, rows)
        losses = reference.conservative_update(rows, agent.config.penalty, multiplier, bounds)
        for name, expected in losses.items():
            np.testing.assert_allclose(metrics[name], expected, rtol=1e-3, atol=1e-4, err_msg=name)
        assert_same(agent.sac, reference)
        if multiplier is not None:
            assert_close(agent.multiplier.params, multiplier.params, 1e-4, 1e-5, "multiplier")
    return metrics


@pytest.mark.parametrize("kind", PENALTIES)
def test_update_agrees_with_numpy(kind):
    metrics = compare_with_numpy(new_agent(PENALTIES[kind]), CQLAgent.update, batch(), None)
    assert "critic/bounded_share" not in metrics


@pytest.mark.parametrize("kind", ["lagrange", pytest.param("lagrange_exp, mean-exp", marks=pytest.mark.slow)])
def test_calibrated_update_agrees_with_numpy(kind):
    """With returns among the values, so that some entries of every kind of action lie below them."""
    cql = new_agent(PENALTIES[kind])
    q = np.asarray(cql.sac.critic(batch().observations, batch().actions))
    rows = batch().replace(mc_returns=jnp.asarray(np.median(q, axis=0), jnp.float32))

    def update(agent, rows):
        after, metrics = calibrated(agent).update(rows)
        return after.cql, metrics

    metrics = compare_with_numpy(cql, update, rows, minibatch(rows, 1, 0).mc_returns)
    assert 0.1 < metrics["critic/bounded_share"] < 0.9


def test_bounds_at_minus_infinity_leave_cql():
    cql = new_agent(LAGRANGE)
    rows = batch().replace(mc_returns=jnp.full(8, -jnp.inf))
    plain, plain_metrics = cql.update(rows)
    bounded, bounded_metrics = calibrated(cql).update(rows)
    assert bounded_metrics["critic/bounded_share"] == 0
    np.testing.assert_allclose(bounded_metrics["critic/loss"], plain_metrics["critic/loss"], rtol=1e-6)
    for a, b in zip(
        jax.tree.leaves(plain.sac.critic.params), jax.tree.leaves(bounded.cql.sac.critic.params), strict=True
    ):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_with_every_policy_action_at_its_bound_only_uniform_actions_are_pushed_down():
    """A slope of the penalty without data term, in the value of each kind of action."""
    agent = new_agent(FIXED)
    rows, key, indices = batch(), jax.random.key(3), jnp.array([0, 1])
    params = agent.sac.critic.params

    @jax.jit
    def slope(bounds):
        def pushed(params):
            return agent.penalty(rows, jnp.zeros((2, 8)), indices, params, key, bounds)[0].sum()

        return jax.grad(pushed)(params)["params"]["head"]["bias"]

    # A bias of the shared head moves every value alike: the slope is the weight of the entries that count.
    everything = slope(None)
    np.testing.assert_allclose(everything, [16.0], rtol=1e-4)  # 2 critics x 8 rows
    uniform_key = jax.random.split(key, 3)[0]
    uniform = jax.random.uniform(uniform_key, (3, 8, 2), minval=-1.0, maxval=1.0)
    q = agent.sac.critic(rows.observations, uniform)[indices]
    bound = 10.0 + float(jnp.abs(q).max())
    actor, next_actor = agent.sac.actor(rows.observations), agent.sac.actor(rows.next_observations)
    _, current_key, next_key = jax.random.split(key, 3)
    logs = [d.sample_with_log_prob(k, (3,))[1] for d, k in ((actor, current_key), (next_actor, next_key))]
    random = np.exp(np.asarray(q, np.float64) + 2 * np.log(2)).sum(axis=1)
    policy = np.exp(bound - np.concatenate(logs).astype(np.float64)).sum(axis=0)
    np.testing.assert_allclose(slope(jnp.full(8, bound)), [(random / (random + policy)).sum()], rtol=1e-3)


def test_penalty_never_reaches_the_actor():
    """Two agents that differ in the penalty's weight alone."""
    first, second = (new_agent(penalty).update(batch())[0].sac for penalty in (FIXED, LAGRANGE))
    assert_identical(first.actor.params, second.actor.params)
    assert not same_values(first.critic.params, second.critic.params)


@pytest.mark.parametrize(("penalty", "direction"), [(LAGRANGE, 1), (UNREACHED, -1)])
def test_multiplier_rises_above_the_target_gap_and_stays_positive_below_it(penalty, direction):
    agent = new_agent(penalty)
    assert agent.penalty_multiplier(agent.multiplier.params) == pytest.approx(1.0)
    values = [1.0]
    for _ in range(10):
        agent, metrics = agent.update(batch())
        assert np.sign(metrics["critic/conservative_gap"] - penalty.target_gap) == direction
        values.append(float(agent.penalty_multiplier(agent.multiplier.params)))
    assert (np.sign(np.diff(values)) == direction).all()
    assert values[-1] > 0


def test_exponential_multiplier_starts_at_e_times_the_weight_and_is_capped():
    agent = new_agent(PENALTIES["lagrange_exp, mean-exp"])
    np.testing.assert_allclose(agent.penalty_multiplier(agent.multiplier.params), 2 * np.e, rtol=1e-6)
    np.testing.assert_allclose(agent.penalty_multiplier({"params": {"raw": jnp.float32(50.0)}}), 2e6)


def test_parts_hold_the_multiplier_if_there_is_one():
    assert set(new_agent(LAGRANGE).parts()) - set(new_agent(FIXED).parts()) == {"multiplier"}
    agent = new_agent(LAGRANGE)
    assert_identical(agent.with_parts(agent.parts()), agent)


def test_settings_that_cannot_work_are_named():
    with pytest.raises(ConfigError, match="multiplier='dual'"):
        PenaltyConfig(multiplier="dual")
    with pytest.raises(ConfigError, match="critic_updates=4"):
        CQLConfig(sac=dataclasses.replace(SAC, critic_updates=4))
    with pytest.raises(ConfigError, match="entropy_backup=True"):
        CQLConfig(sac=dataclasses.replace(SAC, entropy_backup=True))
