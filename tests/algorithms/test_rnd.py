"""RND: its loss and rewards by hand, and that curiosity fades where it has looked."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import TINY, assert_identical, batch, perturbed, same_values

from algorithms.rnd import Moments, RNDAgent, RNDConfig
from hybridrl.checkpoint import Checkpoints

CONFIG = RNDConfig(
    sac=dataclasses.replace(TINY, critic_updates=1, actor_layer_norm=False),
    learning_rate=1e-2,
    hidden_dims=(4,),
    output_dim=3,
    clip=1.5,
)


@pytest.fixture(scope="module")
def agent():
    agent = RNDAgent.create(jax.random.key(0), batch(), CONFIG)
    predictor = agent.predictor.replace(params=perturbed(agent.predictor.params, jax.random.key(5)))
    return agent.replace(predictor=predictor)


@pytest.fixture(scope="module")
def updated(agent):
    return agent.update(batch())


@jax.jit
def curiosity(agent, observations):
    """Errors and rewards of an agent as it is."""
    return agent.errors(observations, agent.predictor.params), agent.intrinsic_rewards(observations)


@jax.jit
def scalar_moments(values):
    moments = Moments.create().updated(jnp.asarray(values))
    return moments.mean, moments.variance


def test_moments_equal_those_of_all_rows():
    rows = np.random.default_rng(0).normal(3.0, 2.0, (60, 4)).astype(np.float32)
    moments = Moments.create(4)
    update = jax.jit(lambda moments, part: moments.updated(part))
    for part in np.split(rows, 3):
        moments = update(moments, part)
    np.testing.assert_allclose(moments.mean, rows.mean(axis=0), rtol=1e-4)
    np.testing.assert_allclose(moments.variance, rows.var(axis=0), rtol=1e-4)
    assert float(moments.count) == pytest.approx(60.0, abs=1e-3)
    np.testing.assert_allclose([*scalar_moments([1.0, 5.0])], [3.0, 4.0], rtol=1e-3)


def features(params, inputs):
    tree = params["params"]
    hidden = np.maximum(inputs @ tree["MLP_0"]["Dense_0"]["kernel"] + tree["MLP_0"]["Dense_0"]["bias"], 0.0)
    return hidden @ tree["Dense_0"]["kernel"] + tree["Dense_0"]["bias"]


def errors_by_hand(agent, moments, observations):
    whitened = (observations - np.asarray(moments.mean)) / np.sqrt(np.asarray(moments.variance) + 1e-5)
    whitened = np.clip(whitened, -1.5, 1.5)
    target = features(jax.device_get(agent.target_params), whitened)
    return ((features(jax.device_get(agent.predictor.params), whitened) - target) ** 2).mean(axis=1)


def test_errors_and_rewards_by_hand(agent, updated):
    new, metrics = updated
    seen = np.asarray(batch().next_observations)
    assert np.abs((seen - seen.mean(axis=0)) / seen.std(axis=0)).max() > 1.5  # some are clipped
    moments = new.observation_moments
    np.testing.assert_allclose(moments.mean, seen.mean(axis=0), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(moments.variance, seen.var(axis=0), rtol=1e-3)
    # The loss is that of the old predictor, under the new moments.
    before = errors_by_hand(agent, moments, seen)
    assert float(metrics["predictor/loss"]) == pytest.approx(before.mean(), rel=1e-4)
    # The rewards are the new predictor's errors, over the deviation of all errors so far.
    after = errors_by_hand(new, moments, seen)
    assert after.mean() < before.mean()
    scale = np.sqrt(scalar_moments(after.astype(np.float32))[1])
    assert scale == pytest.approx(after.std(), rel=0.01)
    np.testing.assert_allclose(curiosity(new, batch().next_observations)[1], after / scale, rtol=1e-3)
    assert float(metrics["predictor/reward_mean"]) == pytest.approx((after / scale).mean(), rel=1e-3)


def test_sac_learns_from_curiosity_alone(agent, updated):
    new, metrics = updated
    assert_identical(agent.update(batch().replace(rewards=batch().rewards + 5.0))[0], new)
    assert same_values(new.target_params, agent.target_params)
    assert not same_values(new.sac.actor.params, agent.sac.actor.params)
    curious = batch().replace(rewards=curiosity(new, batch().next_observations)[1])
    _, critic_key, _ = jax.random.split(agent.sac.key, 3)
    (part_key,) = jax.random.split(critic_key, 1)
    loss = jax.jit(lambda sac: sac.critic_loss(curious, part_key, sac.critic.params)[0])
    assert float(metrics["critic/loss"]) == pytest.approx(float(loss(agent.sac)), rel=1e-5)
    found = jax.jit(RNDAgent.diagnose)(new, batch(), part_key)
    assert float(found["td_error"]) == pytest.approx(float(loss(new.sac)), rel=1e-4)


def test_curiosity_fades_where_it_has_looked(updated):
    seen, (first, _) = batch(), updated
    reached = first
    for _ in range(150):
        reached, _ = reached.update(seen)
    before, after = (curiosity(agent, seen.next_observations)[0].mean() for agent in (first, reached))
    assert after < 0.3 * before
    elsewhere = -seen.next_observations
    assert curiosity(reached, elsewhere)[0].mean() > 3.0 * after


def test_it_is_an_agent(agent, updated, tmp_path):
    once, _ = updated
    assert_identical(agent.update(batch())[0], once)
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, once, {})
    restored = checkpoints.restore(1, agent)
    assert_identical(restored.update(batch())[0], once.update(batch())[0])
    step = jax.jit(chex.assert_max_traces(RNDAgent.update.__wrapped__, n=1))
    for seed in range(2):
        step.trace(RNDAgent.create(jax.random.key(seed), batch(), CONFIG), batch())
    parts = once.parts()
    assert_identical(agent.with_parts(parts).parts(), parts)
    assert same_values(agent.with_parts({}).predictor, agent.predictor)
