"""The functional interface: rollouts on the device, restarts, and the adapter for Gymnasium's drivers."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs import functional
from envs.functional import ArgmaxActions, Discrete, FunctionalEnv, begin, rollout
from envs.lock import Lock
from envs.probe import PROBES
from envs.theory import deep_sea
from envs.wrappers import TaskEnv
from hybridrl.errors import ConfigError
from hybridrl.task import Task

REACH = PROBES["probe/reach-v0"]


def wander(states, observations, key):
    return jax.random.uniform(key, (len(observations), 1), minval=-0.5, maxval=1.0)


@pytest.fixture(scope="module")
def walks():
    return rollout(REACH, wander, jax.random.key(0), num_envs=6, num_steps=64)


def test_rollout_steps_and_restarts_each_copy_by_itself(walks):
    running, rows = jax.tree.map(np.asarray, walks)
    assert rows.observations.shape == rows.next_observations.shape == (64, 6, 1)
    assert rows.actions.shape == (64, 6, 1)
    assert rows.rewards.shape == rows.terminations.shape == (64, 6)
    ended = rows.terminations | rows.truncations
    assert 4 < ended.sum() < ended.size / 4
    assert (ended.sum(axis=1) < 6).all()
    following = np.concatenate([rows.observations[1:], running.observations[None]])
    np.testing.assert_array_equal(following[~ended], rows.next_observations[~ended])
    starts = following[ended]
    assert ((starts >= -1) & (starts <= 0)).all()
    assert len(np.unique(starts)) == len(starts)
    # The rows themselves: a move of 0.2 of the action between walls, and success beyond 0.8.
    moved = np.clip(rows.observations + np.float32(0.2) * np.clip(rows.actions, -1, 1), -1, 1)
    np.testing.assert_allclose(rows.next_observations, moved, atol=1e-6)
    np.testing.assert_array_equal(rows.terminations, rows.next_observations[..., 0] > 0.8)
    np.testing.assert_array_equal(rows.rewards, rows.terminations)


def test_a_copy_is_truncated_after_twenty_steps_of_its_own_episode():
    def stay(states, observations, key):
        return jnp.zeros((len(observations), 1))

    _, rows = rollout(REACH, stay, jax.random.key(1), num_envs=2, num_steps=50)
    np.testing.assert_array_equal(np.flatnonzero(rows.truncations[:, 0]), [19, 39])
    assert not rows.terminations.any()


def test_rollout_goes_on_from_where_it_was(walks):
    running, _ = walks
    after, rows = rollout(REACH, wander, jax.random.key(1), num_envs=6, num_steps=64, start=running)
    np.testing.assert_array_equal(rows.observations[0], running.observations)
    again, _ = rollout(REACH, wander, jax.random.key(1), num_envs=6, num_steps=64, start=running)
    jax.tree.map(np.testing.assert_array_equal, after, again)
    assert (np.asarray(after.states.steps) <= 20).all()


def test_instances_and_parameters_share_one_compilation():
    def shifted(shift, states, observations, key):
        return jnp.zeros(len(observations), jnp.int32) + shift

    for seed in range(3):
        policy = jax.tree_util.Partial(shifted, jnp.int32(seed % 2))
        rollout(deep_sea(4, seed=seed), policy, jax.random.key(seed), num_envs=2, num_steps=3)
        if seed == 0:
            compiled = functional._rollout._cache_size()
    assert functional._rollout._cache_size() == compiled


def test_the_adapter_steps_as_the_functions_do():
    lock = Lock.create(3)
    env = FunctionalEnv(lock)
    observation, info = env.reset(seed=7)
    assert info == {"success": False}
    key = jax.random.key(int(np.random.Generator(np.random.PCG64(7)).integers(2**31)))
    key, reset_key = jax.random.split(key)
    state, expected = jax.jit(lock.reset)(reset_key)
    functions = jax.jit(lock.step)
    np.testing.assert_allclose(observation, expected, atol=1e-5)
    for step in range(3):
        action = np.asarray(lock.optimal_action(state))
        observation, reward, terminated, truncated, info = env.step(action)
        key, step_key = jax.random.split(key)
        state, expected, expected_reward, expected_end, _ = functions(state, action, step_key)
        np.testing.assert_allclose(observation, expected, atol=1e-5)
        assert (reward, terminated, truncated) == (float(expected_reward), step == 2, False)
        assert terminated == bool(expected_end)
    assert (reward, info["success"]) == (1.0, True)


def deep_sea_task(env):
    return Task("sea", "probe", "sea", 4, success_key="success", make=lambda task: FunctionalEnv(env))


def test_discrete_actions_reach_the_drivers_as_vectors():
    sea = deep_sea(4)
    assert FunctionalEnv(sea).action_space.n == 2
    with pytest.raises(ConfigError, match="Discrete"):
        TaskEnv(deep_sea_task(sea), 0)
    env = TaskEnv(deep_sea_task(ArgmaxActions(sea)), 0)
    env.reset()
    right = np.argmin(np.asarray(sea.rewards)[np.arange(3), np.arange(3)], axis=-1).tolist()
    right.append(int(np.argmax(np.asarray(sea.rewards)[3, 3])))
    total = 0.0
    for step, action in enumerate(right):
        _, reward, terminated, _, info = env.step(np.eye(2)[action] - 0.5)
        total += reward
        assert terminated == (step == 3)
    assert info["success"]
    assert total == pytest.approx(0.99)


def test_uniform_actions_of_both_kinds():
    key = jax.random.key(0)
    choices = np.asarray(Discrete(3).sample(key, 300))
    np.testing.assert_array_equal(np.unique(choices), [0, 1, 2])
    assert jax.jit(begin, static_argnums=2)(deep_sea(4), key, 5).observations.shape == (5, 8)
    vectors = np.asarray(functional.Continuous(2, -1.0, 3.0).sample(key, 500))
    assert vectors.shape == (500, 2)
    assert vectors.min() < -0.9
    assert vectors.max() > 2.9


_LOCK_RATE = """
import time, jax, jax.numpy as jnp
from envs.functional import rollout
from envs.lock import Lock

def still(states, observations, key):
    return jnp.zeros((len(observations), 10))

lock, rates = Lock.create(5), []
for seed in range(6):
    begun = time.perf_counter()
    _, rows = rollout(lock, still, jax.random.key(seed), num_envs=2048, num_steps=100)
    jax.block_until_ready(rows)
    rates.append(2048 * 100 / (time.perf_counter() - begun))
print(max(rates))
"""


@pytest.mark.slow
def test_a_million_steps_of_the_lock_a_second():
    """In a process with all of XLA's optimisations, on an idle machine; `benchmarks/environments.py` prints more."""
    done = subprocess.run(
        [sys.executable, "-c", _LOCK_RATE],
        env=os.environ | {"JAX_DISABLE_MOST_OPTIMIZATIONS": "0"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert float(done.stdout) > 1e6
