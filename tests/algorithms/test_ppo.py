"""PPO: its losses in NumPy, its schedules and statistics, and two probes with known answers."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import ACTION_DIM, OBS_DIM, PPO, batch, rollout

from algorithms import PPOAgent, PPOConfig, PPORun
from algorithms.ppo import Rows
from envs.functional import rollout as play
from envs.probe import PROBES
from hybridrl.errors import ConfigError
from hybridrl.moments import Moments, reward_unit, running_returns
from hybridrl.types import OnPolicyBatch, Rollout

CLIPPED = dataclasses.replace(PPO, config=dataclasses.replace(PPO.config, value_clip=0.1, clip_range=0.2))


def create(run=PPO, seed=0):
    return PPOAgent.create(jax.random.key(seed), batch(), run)


def assert_same_networks(first, second):
    jax.tree.map(np.testing.assert_array_equal, first.actor.params, second.actor.params)
    jax.tree.map(np.testing.assert_array_equal, first.value.params, second.value.params)


def some_rows(count=16):
    rng = np.random.default_rng(3)
    shapes = {"observations": (count, OBS_DIM), "actions": (count, ACTION_DIM)}
    shapes |= dict.fromkeys(("log_probs", "advantages", "values", "returns"), (count,))
    return {name: rng.standard_normal(shape) for name, shape in shapes.items()}


def test_losses_by_definition():
    """Ratio new over old, clipped; entropy of the Gaussian in nats; the larger of two squared errors."""
    agent, columns = create(CLIPPED), some_rows()
    distribution = agent.actor(jnp.asarray(columns["observations"], jnp.float32))
    mean, std = np.asarray(distribution.mean, np.float64), np.asarray(distribution.std, np.float64)
    densities = (-0.5 * ((columns["actions"] - mean) / std) ** 2 - np.log(std) - 0.5 * np.log(2 * np.pi)).sum(axis=1)
    columns["log_probs"] = densities + 0.3 * columns["log_probs"]
    rows = Rows(**{name: jnp.asarray(column, jnp.float32) for name, column in columns.items()})

    ratio = np.exp(densities - columns["log_probs"])
    gains = np.stack([ratio * columns["advantages"], np.clip(ratio, 0.8, 1.2) * columns["advantages"]])
    entropy = (np.log(std) + 0.5 * np.log(2 * np.pi * np.e)).sum(axis=1).mean()
    loss, metrics = agent._actor_loss(rows, agent.actor.params)
    np.testing.assert_allclose(loss, -(gains.min(axis=0).mean() + CLIPPED.config.entropy_weight * entropy), rtol=1e-3)
    np.testing.assert_allclose(metrics["actor/kl"], (ratio - 1 - np.log(ratio)).mean(), rtol=1e-2)
    np.testing.assert_allclose(metrics["actor/clipped"], (np.abs(ratio - 1) > 0.2).mean(), rtol=1e-6)

    values = np.asarray(agent.value(rows.observations), np.float64)
    clipped = columns["values"] + np.clip(values - columns["values"], -0.1, 0.1)
    errors = np.maximum((values - columns["returns"]) ** 2, (clipped - columns["returns"]) ** 2)
    np.testing.assert_allclose(agent._value_loss(rows, agent.value.params)[0], errors.mean(), rtol=1e-4)
    plain = create()._value_loss(rows, agent.value.params)[0]
    np.testing.assert_allclose(plain, ((values - columns["returns"]) ** 2).mean(), rtol=1e-4)


def test_rows_are_those_of_the_rollout_and_of_the_old_networks():
    """Returns are advantages plus values; with one trace-free step each, rewards plus discounted next values."""
    run = dataclasses.replace(PPO, config=dataclasses.replace(PPO.config, trace_decay=0.0, reward_scaling="constant"))
    agent, given = create(run), rollout()
    found, rows = agent._measure(given)
    assert found is agent
    next_values = np.asarray(agent.value(given.next_observations))
    expected = 0.1 * given.rewards + 0.9 * given.masks * next_values
    np.testing.assert_allclose(rows.returns, np.asarray(expected).reshape(-1), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(rows.actions, given.actions.reshape(-1, ACTION_DIM))
    np.testing.assert_allclose([rows.advantages.mean(), rows.advantages.std()], [0.0, 1.0], atol=1e-3)
    differences = np.asarray(rows.returns - rows.values)
    np.testing.assert_allclose(
        rows.advantages, (differences - differences.mean()) / differences.std(), rtol=1e-3, atol=1e-3
    )
    log_probs = agent.actor(given.observations).log_prob(given.actions).reshape(-1)
    np.testing.assert_allclose(rows.log_probs, log_probs, rtol=1e-6)


def test_learning_rates_fall_to_zero_and_the_first_step_is_at_ratio_one():
    """Of two updates the second has half the rate; a third would change no network."""
    run = dataclasses.replace(PPO, num_updates=2)
    first, metrics = create(run).update(OnPolicyBatch(rollout(0)))
    second, later = first.update(OnPolicyBatch(rollout(1)))
    np.testing.assert_allclose([metrics["actor/learning_rate"], later["actor/learning_rate"]], [1e-2, 5e-3], rtol=1e-6)
    third, last = second.update(OnPolicyBatch(rollout(2)))
    assert float(last["actor/learning_rate"]) == float(last["actor/clipped"]) == 0.0
    assert float(last["actor/kl"]) < 1e-6 < float(later["actor/kl"])
    assert_same_networks(third, second)
    with pytest.raises(AssertionError):
        assert_same_networks(second, first)


def test_beyond_the_target_kl_only_the_value_learns():
    """A first step is at a divergence of 0, and one is made; all later ones are beyond 1e-6."""
    target = dataclasses.replace(PPO.config, target_kl=1e-6, decay_learning_rates=False)
    agent, metrics = create(dataclasses.replace(PPO, config=target)).update(OnPolicyBatch(rollout()))
    steps = PPO.config.num_epochs * rollout().rewards.size // PPO.config.minibatch_size
    assert steps == 4
    np.testing.assert_allclose(metrics["actor/steps"], 1 / steps)
    counts = [int(model.opt_state[1][0].count) for model in (agent.actor, agent.value)]
    assert counts == [1, steps]


def test_moments_of_batches_are_those_of_all_rows():
    rng = np.random.default_rng(0)
    rows = 7.0 + rng.standard_normal((60, 3)) * [1.0, 5.0, 0.1]
    moments = Moments.create((3,))
    assert (np.asarray(moments.std) == 0).all()
    for part in np.split(rows, [1, 20]):
        moments = moments.add(jnp.asarray(part, jnp.float32))
    np.testing.assert_allclose(moments.mean, rows.mean(axis=0), rtol=1e-4)
    np.testing.assert_allclose(moments.std, rows.std(axis=0), rtol=1e-3)
    assert float(reward_unit(Moments.create().add(jnp.full(5, 3.0)))) == 1.0


def test_running_returns_begin_anew_after_an_end():
    rewards = jnp.array([[1.0, 1.0], [2.0, 2.0], [4.0, 4.0]])
    ends = jnp.array([[0.0, 0.0], [1.0, 0.0], [0.0, 0.0]])
    totals, following = running_returns(rewards, ends, jnp.array([0.0, 8.0]), 0.5)
    np.testing.assert_allclose(totals, [[1.0, 5.0], [2.5, 4.5], [4.0, 6.25]])
    np.testing.assert_allclose(following, [4.0, 6.25])


def test_scales_follow_what_was_seen_and_those_of_the_dataset_stay():
    """Dynamic rewards and running observations count each rollout once; the scale of a dataset is never touched."""
    config = dataclasses.replace(PPO.config, reward_scaling="dynamic", observation_scaling="running")
    agent = create(dataclasses.replace(PPO, config=config))
    totals, sums, seen = [], np.zeros(2), []
    for number in range(2):
        given = rollout(number)
        seen.append(np.asarray(given.observations).reshape(-1, OBS_DIM))
        for rewards, ends in zip(np.asarray(given.rewards), np.asarray(given.ends), strict=True):
            sums = 0.9 * sums + rewards
            totals.append(sums)
            sums = sums * (1 - ends)
        if number == 1:  # densities and values are those of the scale the rollout was collected with
            scaled = (seen[-1] - np.asarray(agent.standardizer.mean)) / np.asarray(agent.standardizer.std)
            np.testing.assert_allclose(agent._measure(given)[1].observations, scaled, rtol=1e-4, atol=1e-5)
        agent, _ = agent.update(OnPolicyBatch(given))
    np.testing.assert_allclose(agent.reward_moments.std, np.std(totals), rtol=1e-4)
    np.testing.assert_allclose(agent.reward_sums, sums, rtol=1e-4)
    # What values count is rewards over that deviation; the panel is told in the task's rewards.
    np.testing.assert_allclose(agent._reward_factor(), 1.0 / np.std(totals), rtol=1e-4)
    value = agent.value((batch().observations - agent.standardizer.mean[None]) / agent.standardizer.std[None])
    np.testing.assert_allclose(agent.diagnose(batch(), None)["q"], value.mean() * np.std(totals), rtol=1e-4)
    np.testing.assert_allclose(agent.standardizer.mean, np.concatenate(seen).mean(axis=0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(agent.standardizer.std, np.concatenate(seen).std(axis=0) + 1e-3, rtol=1e-4)

    config = dataclasses.replace(PPO.config, observation_scaling="dataset")
    agent = create(dataclasses.replace(PPO, config=config))
    with pytest.raises(ConfigError, match="observation_scaling='dataset' and no dataset"):
        agent.fit_observations(None)
    fitted = agent.fit_observations(jnp.asarray(seen[0]))
    np.testing.assert_allclose(fitted.standardizer.mean, seen[0].mean(axis=0), rtol=1e-5)
    after, _ = fitted.update(OnPolicyBatch(rollout()))
    jax.tree.map(np.testing.assert_array_equal, after.standardizer, fitted.standardizer)


def test_rollouts_that_cannot_be_learnt_from_are_refused():
    odd = jax.tree.map(lambda leaf: leaf[:3], rollout())
    with pytest.raises(ValueError, match=r"3 steps in 2 environments, 6 rows, .* minibatch_size=4"):
        create().update(OnPolicyBatch(odd))
    with pytest.raises(ValueError, match="reads no offline rows"):
        create().update(OnPolicyBatch(rollout(), batch()))
    dynamic = dataclasses.replace(PPO.config, reward_scaling="dynamic")
    with pytest.raises(ValueError, match="made with num_envs=1"):
        create(PPORun(dynamic, num_envs=1)).update(OnPolicyBatch(rollout()))
    with pytest.raises(ConfigError, match="target_kl=0"):
        PPOConfig(target_kl=0)
    with pytest.raises(ConfigError, match="reward_scaling='std'"):
        PPOConfig(reward_scaling="std")
    with pytest.raises(ConfigError, match="num_updates=0"):
        PPORun(num_updates=0)


def test_the_policy_stores_its_draws_and_plays_its_mean():
    agent = create()
    wide = agent.replace(actor=agent.actor.replace(params=jax.tree.map(lambda leaf: 9.0 * leaf, agent.actor.params)))
    observations = batch().observations
    draws = wide.policy(deterministic=False).act((), observations, jax.random.key(0))[0]
    distribution = wide.actor(observations)
    noise = jax.random.normal(jax.random.key(0), draws.shape)
    np.testing.assert_allclose(draws, distribution.mean + distribution.std * noise, rtol=1e-5)
    assert float(jnp.abs(draws).max()) > 1.0
    np.testing.assert_array_equal(wide.policy(deterministic=True).act((), observations, None)[0], distribution.mean)


def test_solves_the_probes():
    """The bandit's best action is 0.5; the chain's values are 0.9 and 1 at discount 0.9."""
    config = dataclasses.replace(
        PPO.config,
        actor_learning_rate=3e-3,
        value_learning_rate=1e-2,
        num_epochs=4,
        minibatch_size=32,
        clip_range=0.2,
        entropy_weight=0.0,
        std_kind="free",
        std_bounds=(0.05, 1.0),
        actor_hidden_dims=(8,),
        value_hidden_dims=(16,),
    )
    updates, run = 40, PPORun(config, num_updates=40, num_envs=16)

    @jax.jit
    def train(agent, env):
        def step(agent, key):
            policy = agent.policy(deterministic=False)
            _, rows = play(env, lambda states, obs, key: policy.act((), obs, key)[0], key, num_envs=16, num_steps=8)
            ends = (rows.terminations | rows.truncations).astype(jnp.float32)
            seen = Rollout(
                rows.observations, rows.actions, rows.rewards, 1.0 - rows.terminations, ends, rows.next_observations
            )
            return agent.update(OnPolicyBatch(seen))

        return jax.lax.scan(step, agent, jax.random.split(jax.random.key(1), updates))

    example = jax.tree.map(lambda leaf: leaf[..., :1] if leaf.ndim > 1 else leaf, batch())
    start = PPOAgent.create(jax.random.key(0), example, run)
    bandit, metrics = train(start, PROBES["probe/bandit-v0"])
    action = bandit.policy(deterministic=True).act((), jnp.zeros((1, 1)), None)[0]
    np.testing.assert_allclose(action, [[0.5]], atol=0.1)
    assert float(metrics["actor/std"][-1]) < 0.6 * float(metrics["actor/std"][0])
    chain, _ = train(start, PROBES["probe/chain-v0"])
    np.testing.assert_allclose(chain.value(jnp.array([[-1.0], [1.0]])), [0.9, 1.0], atol=0.05)
    chex.assert_tree_all_finite((bandit.actor.params, chain.actor.params))
