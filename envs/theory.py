"""The instances on which provable hybrid RL is tried out: forest, simplex linear MDP, deep sea, two branches.

Each is a `TabularMDP` with its answers known or computed exactly by `envs.tabular`, and its offline data defined
there: behaviours are policies, `sample_episodes` runs them.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from envs.tabular import DiscountedMDP, TabularMDP, epsilon_greedy, solve, uniform_policy
from hybridrl.errors import ConfigError

FOREST_WAIT, FOREST_CUT = 0, 1
BRANCH_A, BRANCH_B = 0, 1
BRANCH_A_REWARD = 0.5
DEEP_SEA_COST = 0.01  # of going right all the way
DEEP_SEA_BONUS = 1.0
LEFT, RIGHT = 0, 1


def forest(horizon: int = 20) -> TabularMDP:
    """Wait for old trees or cut them: four ages, uniform start (the forest of Tan and Xu 2024's tabular experiments).

    Waiting (action 0) grows by one age, at most 3, with probability 0.9, and burns down to age 0 otherwise; in the
    oldest it pays 4. Cutting (action 1) leads to age 0 and pays 0, 1, 1, 2 by age. The best mean reward per step is
    2.749; always waiting has 2.740, as in the last step young trees are better cut.
    """
    transitions, rewards = np.zeros((4, 2, 4), np.float32), np.zeros((4, 2), np.float32)
    for age in range(4):
        transitions[age, FOREST_WAIT, min(age + 1, 3)] += 0.9
        transitions[age, FOREST_WAIT, 0] += 0.1
        transitions[age, FOREST_CUT, 0] = 1.0
    rewards[3, FOREST_WAIT] = 4.0
    rewards[:, FOREST_CUT] = (0.0, 1.0, 1.0, 2.0)
    return _stationary(transitions, rewards, np.full(4, 0.25, np.float32), horizon)


class LinearMDP(struct.PyTreeNode):
    """A linear MDP: `P(t | s, a) = phi(s, a) . mu(t)`, `r(s, a) = phi(s, a) . theta`, and the tabular one it is."""

    tabular: TabularMDP
    features: jax.Array  # phi, (states, actions, dim)
    measures: jax.Array  # mu, (dim, states), each row sums to 1
    reward_weights: jax.Array  # theta, (dim,)


def simplex_linear(
    *, num_states: int = 50, num_actions: int = 5, dim: int = 8, horizon: int = 6, seed: int = 0
) -> LinearMDP:
    """A random linear MDP, realisable and complete exactly, the same in every layer.

    Features are Dirichlet(0.3) points of the simplex, one per state and action; the `dim` measures are Dirichlet(1)
    over states; reward weights are uniform in [0, 1 / horizon], so that returns are in [0, 1]. It starts uniformly.
    """
    rng = np.random.default_rng(seed)
    features = rng.dirichlet(np.full(dim, 0.3), (num_states, num_actions))
    measures = rng.dirichlet(np.ones(num_states), dim)
    weights = rng.uniform(0.0, 1.0 / horizon, dim)
    initial = np.full(num_states, 1.0 / num_states)
    tabular = _stationary(features @ measures, features @ weights, initial, horizon)
    arrays = (jnp.asarray(array, jnp.float32) for array in (features, measures, weights))
    return LinearMDP(tabular, *arrays)


def deep_sea(size: int, seed: int = 0) -> TabularMDP:
    """A grid of `size` rows, one a step, in which only `size` moves to the right in a row are worth going.

    The state is the column; the row is the layer. In each cell one of two actions, hidden by `seed`, moves right at a
    reward of -0.01 / size, the other left, at least to column 0. Moving right in the last column of the last row pays 1
    more, which is the one success. `V* = 0.99`; uniform actions succeed with probability `2 ** -size`.
    """
    if size < 1:
        raise ConfigError(f"a deep sea of size {size}; expected at least 1")
    right = np.random.default_rng([seed, size]).integers(0, 2, (size, size))
    layers, columns = np.indices((size, size))
    transitions, rewards = np.zeros((size, size, 2, size), np.float32), np.zeros((size, size, 2), np.float32)
    transitions[layers, columns, right, np.minimum(columns + 1, size - 1)] = 1.0
    transitions[layers, columns, 1 - right, np.maximum(columns - 1, 0)] = 1.0
    rewards[layers, columns, right] = -DEEP_SEA_COST / size
    rewards[-1, -1, right[-1, -1]] += DEEP_SEA_BONUS
    initial = np.eye(size, dtype=np.float32)[0]
    return TabularMDP(jnp.asarray(transitions), jnp.asarray(rewards), jnp.asarray(initial), success_reward=0.5)


def deep_sea_behavior(mdp: TabularMDP) -> jax.Array:
    """The behaviour of its offline data: optimal but for a share `1 / horizon` of uniform actions."""
    return epsilon_greedy(solve(mdp).policy, 1.0 / mdp.horizon)


def two_branches(horizon: int, gap: float, seed: int = 0) -> TabularMDP:
    """Branch A pays 0.5 whatever follows; in branch B one string of `horizon - 1` actions pays `0.5 + gap`, the rest 0.

    The first action chooses: 0 is A. All rewards come at the last step. Branch B is a binary tree, so that no string
    says anything about another: state 0 is the root and then A, state `1 + prefix` the actions taken in B, as a binary
    number. With `gap = -0.5` nothing in B pays, which data from A cannot certify: it takes all `2 ** (horizon - 1)`
    strings.

    Raises:
        ConfigError: a horizon below 2, or a gap below -0.5 (rewards are in [0, 1]) or above 0.5.
    """
    if horizon < 2 or not -BRANCH_A_REWARD <= gap <= BRANCH_A_REWARD:
        raise ConfigError(f"two branches of horizon {horizon}, gap {gap}; expected at least 2, and -0.5 to 0.5")
    num_states = 1 + 2 ** (horizon - 2)
    transitions = np.zeros((horizon, num_states, 2, num_states), np.float32)
    transitions[:, 0, :, 0] = 1.0
    transitions[0, 0, BRANCH_B] = np.eye(num_states, dtype=np.float32)[1]
    prefixes = np.arange(num_states - 1)
    for action in (0, 1):
        transitions[:, 1 + prefixes, action, 1 + (2 * prefixes + action) % (num_states - 1)] = 1.0
    rewards = np.zeros((horizon, num_states, 2), np.float32)
    rewards[-1, 0] = BRANCH_A_REWARD
    string = int(np.random.default_rng([seed, horizon]).integers(2 ** (horizon - 1)))
    rewards[-1, 1 + string // 2, string % 2] = BRANCH_A_REWARD + gap
    initial = np.eye(num_states, dtype=np.float32)[0]
    return TabularMDP(jnp.asarray(transitions), jnp.asarray(rewards), jnp.asarray(initial))


def branch_a_behavior(mdp: TabularMDP) -> jax.Array:
    """The behaviour of its offline data: always branch A, then anything."""
    return uniform_policy(mdp).at[0, 0].set(jax.nn.one_hot(BRANCH_A, 2))


def random_discounted(
    *, num_states: int = 5, num_actions: int = 3, discount: float = 0.9, seed: int = 0
) -> DiscountedMDP:
    """A dense random MDP: Dirichlet(1) transitions, rewards uniform in [0, 1], uniform start."""
    if not 0.0 < discount < 1.0:
        raise ConfigError(f"discount={discount}; expected a number in (0, 1)")
    rng = np.random.default_rng(seed)
    transitions = rng.dirichlet(np.ones(num_states), (num_states, num_actions))
    rewards, initial = rng.uniform(size=(num_states, num_actions)), np.full(num_states, 1.0 / num_states)
    arrays = [jnp.asarray(array, jnp.float32) for array in (transitions, rewards, initial)]
    return DiscountedMDP(transitions=arrays[0], rewards=arrays[1], initial=arrays[2], discount=discount)


def _stationary(transitions: np.ndarray, rewards: np.ndarray, initial: np.ndarray, horizon: int) -> TabularMDP:
    """The same law in all layers."""
    return TabularMDP(
        jnp.broadcast_to(jnp.asarray(transitions, jnp.float32), (horizon, *transitions.shape)),
        jnp.broadcast_to(jnp.asarray(rewards, jnp.float32), (horizon, *rewards.shape)),
        jnp.asarray(initial, jnp.float32),
    )
