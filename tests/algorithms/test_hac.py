"""HAC on random finite problems whose answers are exact."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from algorithms.hac import HACConfig, OfflineSteps, OnlineReturns, hac, hybrid_evaluation
from envs.tabular import (
    DiscountedMDP,
    evaluate_discounted,
    greedy,
    occupancy_discounted,
    sample_pairs,
    solve_discounted,
)
from hybridrl.errors import ConfigError

STATES, ACTIONS, DISCOUNT, ROWS = 5, 3, 0.3, 64
TABLE = jnp.eye(STATES * ACTIONS).reshape(STATES, ACTIONS, -1)


@functools.lru_cache
def problem():
    """A random problem with one action of reward 1 in each state, and data half from the best policy, half uniform.

    The small discount brings the rate into view: below a hundred rounds steps of this size hardly leave the start else.
    """
    transition_key, reward_key, best_key = jax.random.split(jax.random.key(0), 3)
    rewards = jax.random.uniform(reward_key, (STATES, ACTIONS), maxval=0.3)
    rewards = rewards.at[jnp.arange(STATES), jax.random.randint(best_key, (STATES,), 0, ACTIONS)].set(1.0)
    transitions = jax.random.dirichlet(transition_key, 0.3 * jnp.ones(STATES), (STATES, ACTIONS))
    mdp = DiscountedMDP(transitions, rewards, jnp.full(STATES, 1.0 / STATES), DISCOUNT)
    best = greedy(solve_discounted(mdp))
    return mdp, best, 0.5 * occupancy_discounted(mdp, best) + 0.5 / (STATES * ACTIONS)


@pytest.fixture(autouse=True, scope="module")
def _made_outside_of_compiled_code():
    problem()


def draw_offline(key):
    mdp, _, pairs = problem()
    rows = jax.tree.map(lambda leaf: leaf[0], sample_pairs(mdp, pairs, key, ROWS))
    return OfflineSteps(rows.states, rows.actions, rows.rewards, rows.next_states)


def draw_online(policy, key):
    """Returns are the exact values with noise, as unbiased as sums of rewards."""
    mdp, _, _ = problem()
    pair_key, noise_key = jax.random.split(key)
    pairs = jax.random.categorical(pair_key, jnp.log(occupancy_discounted(mdp, policy)).reshape(-1), shape=(ROWS,))
    states, actions = pairs // ACTIONS, pairs % ACTIONS
    noise = jax.random.uniform(noise_key, (ROWS,), minval=-0.5, maxval=0.5)
    return OnlineReturns(states, actions, evaluate_discounted(mdp, policy)[states, actions] + noise)


def suboptimality(policies):
    """Mean over policies of the value that the best policy has and they have not."""
    mdp, best, _ = problem()
    policies = jnp.concatenate([policies, best[None]])
    values = jax.vmap(lambda policy: mdp.initial @ jnp.sum(policy * evaluate_discounted(mdp, policy), axis=-1))(
        policies
    )
    return float(jnp.mean(values[-1] - values[:-1]))


def test_one_fit_is_a_weighted_mean_in_every_cell():
    """Cell (0, 0): two of four offline rows with targets 1 and 3, one of two online rows with return 8, lambda 0.5."""
    offline = OfflineSteps(
        jnp.array([0, 0, 1, 1]), jnp.array([0, 0, 1, 1]), jnp.array([1.0, 3.0, 5.0, 5.0]), jnp.array([2, 2, 2, 2])
    )
    online = OnlineReturns(jnp.array([0, 2]), jnp.array([0, 0]), jnp.array([8.0, 6.0]))
    config = HACConfig(num_rounds=1, discount=0.5, online_weight=0.5, ridge=1e-7)
    policy = jnp.full((STATES, ACTIONS), 1.0 / 3.0)
    found = jax.jit(lambda key: hybrid_evaluation(policy, TABLE, lambda _: offline, lambda *_: online, key, config))(
        jax.random.key(0)
    )
    # State 2 is worth a third of 6, so the targets are 1 more from the second fit on.
    np.testing.assert_allclose(found[0, 0], (0.5 * 3.0 + 0.25 * 8.0) / 0.75, rtol=1e-4)
    np.testing.assert_allclose([found[1, 1], found[2, 0]], [6.0, 6.0], rtol=1e-4)
    np.testing.assert_allclose(found[3:], 0.0, atol=1e-6)
    assert config.discarded_fits == 4


def test_constants_of_the_theorem():
    config = HACConfig(num_rounds=50, discount=0.3)
    np.testing.assert_allclose(config.step_size(4), 0.7 * np.sqrt(np.log(4.0) / 50.0), rtol=1e-12)
    assert (config.discarded_fits, config.online_weight, config.averaged_fits) == (8, 1.0, None)
    assert HACConfig(num_rounds=50, discount=0.9).discarded_fits == 4


def test_the_mean_suboptimality_falls_like_the_root_of_the_rounds():
    rounds = np.array([10, 100, 1000])
    found = [
        suboptimality(hac(TABLE, draw_offline, draw_online, jax.random.key(1), HACConfig(count, DISCOUNT, 5)))
        for count in rounds
    ]
    slope = np.polyfit(np.log(rounds), np.log(found), 1)[0]
    assert slope <= -0.4
    assert found[-1] < 0.2 * found[0]


def test_it_improves_with_functions_that_cannot_hold_the_values():
    """One feature less, and the larger weight of the returns that the theorem then asks for."""
    count = 100
    config = HACConfig(count, DISCOUNT, 5, online_weight=count / 2 - 1)
    policies = hac(TABLE[..., 1:], draw_offline, draw_online, jax.random.key(2), config)
    assert suboptimality(policies[-1:]) < 0.7 * suboptimality(policies[:1])


@pytest.mark.parametrize("changes", [{"num_rounds": 0}, {"discount": 1.0}, {"online_weight": -1.0}, {"ridge": 0.0}])
def test_settings_that_cannot_work_are_refused(changes):
    with pytest.raises(ConfigError, match=next(iter(changes))):
        HACConfig(**({"num_rounds": 5, "discount": 0.9} | changes))
