"""Exact answers of tabular MDPs against brute force in NumPy, and the instances of hybrid RL's theory."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs import tabular, theory
from envs.functional import rollout
from envs.tabular import TabularMDP
from hybridrl.errors import ConfigError

HORIZON, STATES, ACTIONS = 3, 3, 2


@pytest.fixture(scope="module")
def mdp():
    rng = np.random.default_rng(0)
    transitions = rng.dirichlet(np.ones(STATES), (HORIZON, STATES, ACTIONS))
    arrays = transitions, rng.uniform(size=(HORIZON, STATES, ACTIONS)), np.array([0.2, 0.5, 0.3])
    return TabularMDP(*(jnp.asarray(array, jnp.float32) for array in arrays))


def forward(mdp, policy):
    """Occupancy of a policy in NumPy, `(horizon, states, actions)`."""
    transitions, states = np.asarray(mdp.transitions, np.float64), np.asarray(mdp.initial, np.float64)
    layers = []
    for layer in range(mdp.horizon):
        layers.append(states[:, None] * policy[layer])
        states = np.tensordot(layers[-1], transitions[layer], axes=2)
    return np.array(layers)


@pytest.fixture(scope="module")
def every(mdp):
    """The occupancies of all 512 deterministic policies."""
    choices = itertools.product(range(ACTIONS), repeat=HORIZON * STATES)
    return np.array([forward(mdp, np.eye(ACTIONS)[np.reshape(choice, (HORIZON, STATES))]) for choice in choices])


@pytest.fixture(scope="module")
def mixed(mdp):
    return np.random.default_rng(1).dirichlet(np.ones(ACTIONS), (HORIZON, STATES))


def test_the_optimum_is_the_best_of_all_policies(mdp, every):
    best = (every * np.asarray(mdp.rewards)).sum(axis=(1, 2, 3)).max()
    solution = tabular.solve(mdp)
    assert float(solution.value) == pytest.approx(best, abs=1e-6)
    assert float(tabular.evaluate(mdp, solution.policy).value) == pytest.approx(best, abs=1e-6)
    np.testing.assert_allclose(solution.v[:-1], solution.q.max(axis=-1))
    assert solution.v.shape == (HORIZON + 1, STATES)


def test_occupancy_and_value_of_a_policy(mdp, mixed):
    policy = jnp.asarray(mixed, jnp.float32)
    found = tabular.occupancy(mdp, policy)
    np.testing.assert_allclose(found, forward(mdp, mixed), atol=1e-6)
    value = np.sum(forward(mdp, mixed) * np.asarray(mdp.rewards))
    assert float(tabular.evaluate(mdp, policy).value) == pytest.approx(value, abs=1e-6)


def test_coverage_is_what_all_policies_reach(mdp, every):
    np.testing.assert_allclose(tabular.reachability(mdp), every.sum(axis=-1).max(axis=0), atol=1e-6)
    reach = every.max(axis=0)  # per layer, state and action; the best mu is in proportion to it
    assert float(tabular.coverability(mdp)) == pytest.approx(reach.sum(axis=(1, 2)).max(), abs=1e-5)
    covering = reach / reach.sum(axis=(1, 2), keepdims=True)
    assert (every / covering).max() == pytest.approx(float(tabular.coverability(mdp)), abs=1e-5)


def test_concentrability_by_hand():
    policy, data = jnp.array([[[0.8, 0.2]]]), jnp.array([[[0.4, 0.6]]])
    assert float(tabular.concentrability(policy, data)) == pytest.approx(2.0)
    assert float(tabular.concentrability(jnp.array([[[1.0, 0.0]]]), jnp.array([[[0.0, 1.0]]]))) == math.inf
    assert float(tabular.concentrability(jnp.array([[[0.0, 1.0]]]), jnp.array([[[0.0, 1.0]]]))) == 1.0


def test_data_of_a_wanted_coverage(mdp):
    best = tabular.solve(mdp).policy
    optimal, worst = tabular.occupancy(mdp, best), 1.0 - best  # with two actions it shares no pair with the optimum
    for level in (1.0, 4.0, 20.0):
        data = tabular.covering_data(mdp, level, worst)
        np.testing.assert_allclose(data.sum(axis=(1, 2)), np.ones(HORIZON), atol=1e-6)
        assert float(tabular.concentrability(optimal, data)) == pytest.approx(level, rel=1e-5)
    assert float(tabular.concentrability(optimal, tabular.covering_data(mdp, 4.0, best))) == pytest.approx(1.0)
    with pytest.raises(ValueError, match="at least 1"):
        tabular.covering_data(mdp, 0.5, best)


def test_behaviours(mdp):
    best = np.asarray(tabular.solve(mdp).policy)
    bad = np.asarray(tabular.adversarial_policy(mdp))
    np.testing.assert_allclose(bad[best == 1.0], 0.2, atol=1e-6)
    np.testing.assert_allclose(bad[best == 0.0], 0.8, atol=1e-6)
    np.testing.assert_allclose(np.asarray(tabular.epsilon_greedy(jnp.asarray(best), 0.3))[best == 1.0], 0.85)
    np.testing.assert_allclose(tabular.uniform_policy(mdp), 0.5)


def close(counts, shares, num):
    """Whether frequencies agree within four standard errors."""
    return (np.abs(np.asarray(counts) / num - shares) < 4 * np.sqrt(shares / num) + 1e-9).all()


def test_episodes_visit_as_often_as_computed(mdp, mixed):
    data = tabular.sample_episodes(mdp, jnp.asarray(mixed, jnp.float32), jax.random.key(0), 5_000)
    assert data.states.shape == (HORIZON, 5_000)
    np.testing.assert_array_equal(data.next_states[:-1], data.states[1:])
    counts = np.asarray(data.counts(STATES, ACTIONS))
    assert counts.sum() == HORIZON * 5_000
    assert close(counts, forward(mdp, mixed), 5_000)
    rewards = np.asarray(mdp.rewards)[np.arange(HORIZON)[:, None], data.states, data.actions]
    np.testing.assert_array_equal(data.rewards, rewards)


def test_layers_are_drawn_from_any_distribution(mdp):
    wanted = np.random.default_rng(2).dirichlet(np.ones(STATES * ACTIONS), HORIZON).reshape(HORIZON, STATES, ACTIONS)
    data = tabular.sample_layers(mdp, jnp.asarray(wanted, jnp.float32), jax.random.key(0), 5_000)
    assert close(data.counts(STATES, ACTIONS), wanted, 5_000)
    rewards = np.asarray(mdp.rewards)[np.arange(HORIZON)[:, None], data.states, data.actions]
    np.testing.assert_array_equal(data.rewards, rewards)
    layer, state, action = np.unravel_index(np.argmax(wanted), wanted.shape)
    chosen = np.asarray((data.states[layer] == state) & (data.actions[layer] == action))
    following = np.bincount(np.asarray(data.next_states[layer])[chosen], minlength=STATES)
    assert close(following, np.asarray(mdp.transitions[layer, state, action]), chosen.sum())


def test_as_an_environment_it_shows_state_and_step(mdp):
    def first(states, observations, key):
        return jnp.zeros(len(observations), jnp.int32)

    _, rows = jax.tree.map(np.asarray, rollout(mdp, first, jax.random.key(0), num_envs=8, num_steps=HORIZON))
    np.testing.assert_array_equal(rows.observations[..., :STATES].sum(axis=-1), 1.0)
    np.testing.assert_array_equal(rows.observations[..., STATES:].argmax(axis=-1), [[0] * 8, [1] * 8, [2] * 8])
    np.testing.assert_array_equal(rows.next_observations[-1, :, STATES:], 0.0)
    np.testing.assert_array_equal(rows.terminations, [[False] * 8, [False] * 8, [True] * 8])
    states = rows.observations[..., :STATES].argmax(axis=-1)
    np.testing.assert_array_equal(rows.rewards, np.asarray(mdp.rewards)[np.arange(HORIZON)[:, None], states, 0])


# Discounted -----------------------------------------------------------------------------------------------------------


def test_discounted_values_against_all_policies_and_long_sums():
    mdp = theory.random_discounted(num_states=4, num_actions=2, discount=0.8, seed=1)
    transitions, rewards = np.asarray(mdp.transitions, np.float64), np.asarray(mdp.rewards, np.float64)

    def values(policy):
        kernel = np.einsum("sa,sat->st", policy, transitions)
        return np.linalg.solve(np.eye(4) - 0.8 * kernel, (policy * rewards).sum(axis=1))

    best = np.max([values(np.eye(2)[list(choice)]) for choice in itertools.product(range(2), repeat=4)], axis=0)
    optimal = np.asarray(tabular.solve_discounted(mdp))
    np.testing.assert_allclose(optimal.max(axis=-1), best, atol=1e-5)
    np.testing.assert_allclose(optimal, rewards + 0.8 * transitions @ best, atol=1e-5)
    policy = np.random.default_rng(0).dirichlet(np.ones(2), 4)
    found = tabular.evaluate_discounted(mdp, jnp.asarray(policy, jnp.float32))
    np.testing.assert_allclose((policy * np.asarray(found)).sum(axis=1), values(policy), atol=1e-5)
    here, total = np.full(4, 0.25), np.zeros((4, 2))
    for time in range(200):
        total += 0.2 * 0.8**time * here[:, None] * policy
        here = np.einsum("s,sa,sat->t", here, policy, transitions)
    occupancy = tabular.occupancy_discounted(mdp, jnp.asarray(policy, jnp.float32))
    np.testing.assert_allclose(occupancy, total, atol=1e-6)
    data = tabular.sample_pairs(mdp, occupancy, jax.random.key(0), 4_000)
    assert close(data.counts(4, 2)[0], np.asarray(occupancy), 4_000)
    np.testing.assert_array_equal(data.rewards, np.asarray(mdp.rewards)[data.states, data.actions])
    with pytest.raises(ConfigError, match="discount"):
        theory.random_discounted(discount=1.0)


# Instances ------------------------------------------------------------------------------------------------------------


def test_forest_as_published():
    forest = theory.forest()
    waiting = jnp.zeros((20, 4, 2)).at[..., theory.FOREST_WAIT].set(1.0)
    assert float(tabular.evaluate(forest, waiting).value) / 20 == pytest.approx(2.740, abs=1e-3)
    ages = np.asarray(tabular.occupancy(forest, waiting)).sum(axis=(0, 2)) / 20
    np.testing.assert_allclose(ages, [0.10, 0.10, 0.10, 0.69], atol=0.02)
    solution = tabular.solve(forest)
    assert float(solution.value) / 20 == pytest.approx(2.749, abs=1e-3)
    np.testing.assert_array_equal(solution.policy[:17, :, theory.FOREST_WAIT], 1.0)
    np.testing.assert_array_equal(solution.q[-1], [[0, 0], [0, 1], [0, 1], [4, 2]])


def test_simplex_linear_mdp_is_linear():
    linear = theory.simplex_linear()
    mdp = linear.tabular
    features, measures, weights = (
        np.asarray(part, np.float64) for part in (linear.features, linear.measures, linear.reward_weights)
    )
    assert mdp.transitions.shape == (6, 50, 5, 50)
    assert features.shape == (50, 5, 8)
    for array in (features, measures):
        assert array.min() >= 0
        np.testing.assert_allclose(array.sum(axis=-1), 1.0, atol=1e-5)
    assert 0 <= weights.min() < weights.max() <= 1 / 6
    np.testing.assert_allclose(mdp.transitions, np.broadcast_to(features @ measures, (6, 50, 5, 50)), atol=1e-6)
    np.testing.assert_allclose(mdp.rewards, np.broadcast_to(features @ weights, (6, 50, 5)), atol=1e-6)
    v = np.zeros(50)
    for _ in range(6):
        v = (features @ (weights + measures @ v)).max(axis=-1)
    assert float(tabular.solve(mdp).value) == pytest.approx(v.mean(), abs=1e-6)
    assert v.max() <= 1.0


def test_deep_sea():
    sea = theory.deep_sea(4, seed=2)
    solution = tabular.solve(sea)
    assert float(solution.value) == pytest.approx(0.99)
    transitions, rewards = np.asarray(sea.transitions), np.asarray(sea.rewards)
    assert {round(float(value), 6) for value in rewards.reshape(-1)} == {0.0, -0.0025, 0.9975}
    assert ((rewards == 0).sum(axis=-1) == 1).all()  # one of two actions goes left, for free
    successes = 0
    for actions in itertools.product(range(2), repeat=4):
        column = total = 0
        for row, action in enumerate(actions):
            reward = rewards[row, column, action]
            target = min(column + 1, 3) if reward != 0 else max(column - 1, 0)
            assert transitions[row, column, action, target] == 1.0
            total, column = total + reward, target
        successes += total > 0.5
        assert total <= 0.99 + 1e-6
    assert successes == 1
    assert bool(sea.solved(jnp.float32(0.9975), True))
    assert not bool(sea.solved(jnp.float32(0.0), True))
    mapping = np.stack([np.asarray(theory.deep_sea(20, seed=seed).rewards) != 0 for seed in range(2)])
    assert 0.4 < mapping[..., 0].mean() < 0.6
    assert (mapping[0] != mapping[1]).any()
    with pytest.raises(ConfigError, match="at least 1"):
        theory.deep_sea(0)


def test_deep_sea_data_hold_the_way_now_and_then():
    sea = theory.deep_sea(6)
    data = tabular.sample_episodes(sea, theory.deep_sea_behavior(sea), jax.random.key(0), 2_000)
    share = (1 - 1 / 12) ** 6  # an exploring step, one in six, goes right half the time
    assert np.mean(np.asarray(data.rewards[-1]) > 0.5) == pytest.approx(share, abs=4 * math.sqrt(0.25 / 2_000))


@pytest.mark.parametrize(("gap", "value"), [(0.25, 0.75), (-0.25, 0.5), (-0.5, 0.5)])
def test_two_branches(gap, value):
    mdp = theory.two_branches(5, gap)
    assert mdp.num_states == 1 + 2**3
    solution = tabular.solve(mdp)
    assert float(solution.value) == pytest.approx(value)
    np.testing.assert_allclose(solution.q[0, 0], [0.5, 0.5 + gap], atol=1e-6)
    covered = tabular.occupancy(mdp, theory.branch_a_behavior(mdp))
    ratio = float(tabular.concentrability(tabular.occupancy(mdp, solution.policy), covered))
    assert math.isinf(ratio) == (gap > 0)
    # Every string of branch B has its own way: sixteen leaves, one of which pays.
    reach = np.asarray(tabular.reachability(mdp))
    np.testing.assert_array_equal(reach[1], [1.0, 1.0, *[0.0] * 7])
    np.testing.assert_array_equal(reach[-1], np.ones(9))
    assert (np.asarray(mdp.rewards[-1, 1:]) > 0).sum() == (gap > -0.5)
    assert np.asarray(mdp.rewards[:-1]).max() == 0.0
    uniform = float(tabular.evaluate(mdp, tabular.uniform_policy(mdp)).value)
    assert uniform == pytest.approx(0.5 * 0.5 + (0.5 + gap) / 2**5)


def test_two_branches_of_impossible_shape():
    for horizon, gap in ((1, 0.1), (4, -0.6), (4, 0.7)):
        with pytest.raises(ConfigError, match=r"at least 2, and -0\.5 to 0\.5"):
            theory.two_branches(horizon, gap)
