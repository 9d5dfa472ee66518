"""Probe MDPs against their closed forms."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import envs
from envs.probe import PROBES, ProbeEnv
from hybridrl.errors import ConfigError

DISCOUNT = 0.9


def rollout(probe, actions, key):
    """Rewards, terminations and truncations of a scanned episode."""
    state, observation = probe.reset(key)

    def step(state, action):
        state, observation, reward, terminated, truncated = probe.step(state, action, key)
        return state, (observation, reward, terminated, truncated)

    _, outputs = jax.lax.scan(step, state, actions)
    return observation, outputs


def test_bandit_pays_by_the_action():
    probe = PROBES["probe/bandit-v0"]
    actions = jnp.array([[-1.0], [0.0], [0.5], [1.0]])
    step = jax.vmap(functools.partial(probe.step, key=jax.random.key(0)), in_axes=(None, 0))
    _, _, rewards, terminated, truncated = step(probe.reset(jax.random.key(0))[0], actions)
    np.testing.assert_allclose(rewards, [-1.25, 0.75, 1.0, 0.75])
    assert terminated.all()
    assert not truncated.any()
    np.testing.assert_allclose(probe.optimal_value(np.zeros((1, 1)), DISCOUNT), [rewards.max()])


def test_chain_takes_two_steps():
    probe = PROBES["probe/chain-v0"]
    first, (observations, rewards, terminated, _) = rollout(probe, jnp.zeros((2, 1)), jax.random.key(0))
    np.testing.assert_allclose(first, [-1.0])
    np.testing.assert_allclose(observations[0], [1.0])
    np.testing.assert_allclose(rewards, [0.0, 1.0])
    np.testing.assert_array_equal(terminated, [False, True])
    np.testing.assert_allclose(probe.optimal_value(np.array([[-1.0], [1.0]]), DISCOUNT), [0.9, 1.0])


def test_reach_value_is_what_the_best_actions_earn():
    probe = PROBES["probe/reach-v0"]
    keys = jax.random.split(jax.random.key(0), 50)
    episodes = jax.jit(jax.vmap(functools.partial(rollout, probe, jnp.ones((20, 1)))))
    firsts, (_, rewards, terminated, _) = episodes(keys)
    steps = np.argmax(np.asarray(terminated), axis=1) + 1
    counted = np.arange(20)[None] < steps[:, None]
    for scale, shift in ((1.0, 0.0), (10.0, -5.0)):
        earned = np.sum(counted * DISCOUNT ** np.arange(20)[None] * (scale * np.asarray(rewards) + shift), axis=1)
        np.testing.assert_allclose(probe.optimal_value(firsts, DISCOUNT, scale, shift), earned, rtol=1e-5)
    assert len(set(steps.tolist())) > 3


def test_reach_values_by_hand():
    value = PROBES["probe/reach-v0"].optimal_value
    # 0.7 needs one step, 0.5 two, -0.9 nine.
    np.testing.assert_allclose(value(np.array([[0.7], [0.5], [-0.9]]), 0.9), [1.0, 0.9, 0.9**8])
    np.testing.assert_allclose(value(np.array([[0.7], [0.5]]), 0.9, 10.0, -5.0), [5.0, -5.0 + 0.9 * 5.0])
    np.testing.assert_allclose(value(np.array([[0.5]]), 1.0, 10.0, -5.0), [0.0])


def test_reach_is_cut_after_twenty_steps_and_has_walls():
    _, (observations, _, terminated, truncated) = rollout(
        PROBES["probe/reach-v0"], -jnp.ones((20, 1)), jax.random.key(0)
    )
    assert not terminated.any()
    np.testing.assert_array_equal(np.flatnonzero(truncated), [19])
    np.testing.assert_allclose(observations[-1], [-1.0])


def test_the_adapter_gives_the_same_numbers():
    env = envs.make_env(envs.make_task("probe/reach-v0"), 0)
    start, _ = env.reset()
    steps, position = 0, float(start[0])
    for _ in range(20):
        observation, reward, terminated, truncated, info = env.step(np.ones(1))
        steps, position = steps + 1, position + 0.2 * 0.99999
        np.testing.assert_allclose(observation, [position], atol=1e-5)
        if terminated:
            break
        assert (reward, truncated, info["success"]) == (-5.0, False, False)
    assert (reward, info["success"], info["raw_reward"]) == (5.0, True, 1.0)
    assert DISCOUNT ** (steps - 1) == pytest.approx(env.env.probe.optimal_value(start[None], DISCOUNT)[0])


def test_unknown_probe():
    with pytest.raises(ConfigError, match="probe/chain-v0"):
        ProbeEnv("probe/none-v0")
