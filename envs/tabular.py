"""Tabular decision processes with exact answers: optimal values, policy values, occupancies, coverage.

`TabularMDP` has a finite horizon and a law of its own in each layer, as the theory of hybrid RL has it; `DiscountedMDP`
is stationary. Policies are arrays of probabilities, data are integer arrays, everything is plain `jax.numpy` and
compiles. `envs.theory` builds the instances.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from envs.functional import Discrete, StepResult


class TabularState(struct.PyTreeNode):
    """Where an episode is."""

    state: jax.Array  # int32 ()
    steps: jax.Array  # int32 (), taken so far


class TabularMDP(struct.PyTreeNode):
    """A finite-horizon MDP, undiscounted: layer h has its own transitions and rewards.

    As an environment it shows the state and the step, both one-hot (the step is all zeros at the end), takes int32
    actions and terminates after `horizon` steps. Rewards are deterministic given layer, state and action.
    """

    transitions: jax.Array  # (horizon, states, actions, states), rows sum to 1
    rewards: jax.Array  # (horizon, states, actions)
    initial: jax.Array  # (states,), sums to 1
    success_reward: float = struct.field(pytree_node=False, default=float("inf"))  # a reward from here on is a success

    @property
    def horizon(self) -> int:
        """Steps of an episode."""
        return self.rewards.shape[0]

    @property
    def num_states(self) -> int:
        """States of a layer."""
        return self.rewards.shape[1]

    @property
    def num_actions(self) -> int:
        """Actions in every state."""
        return self.rewards.shape[2]

    @property
    def obs_dim(self) -> int:
        """Width of an observation."""
        return self.num_states + self.horizon

    @property
    def actions(self) -> Discrete:
        """One of `num_actions`."""
        return Discrete(self.num_actions)

    def reset(self, key: jax.Array) -> tuple[TabularState, jax.Array]:
        """A state drawn from `initial`."""
        state = jax.random.categorical(key, jnp.log(self.initial)).astype(jnp.int32)
        return self._seen(TabularState(state=state, steps=jnp.int32(0)))

    def step(self, state: TabularState, action: jax.Array, key: jax.Array) -> StepResult:
        """The layer's reward, and a state drawn from its transitions."""
        layer = jnp.minimum(state.steps, self.horizon - 1)
        reward = self.rewards[layer, state.state, action]
        row = self.transitions[layer, state.state, action]
        following = jax.random.categorical(key, jnp.log(row)).astype(jnp.int32)
        reached, observation = self._seen(TabularState(state=following, steps=state.steps + 1))
        return reached, observation, reward, reached.steps >= self.horizon, jnp.bool_(False)

    def solved(self, reward: jax.Array, terminated: jax.Array) -> jax.Array:
        """Whether the reward reaches `success_reward`."""
        return reward >= self.success_reward

    def _seen(self, state: TabularState) -> tuple[TabularState, jax.Array]:
        parts = jax.nn.one_hot(state.state, self.num_states), jax.nn.one_hot(state.steps, self.horizon)
        return state, jnp.concatenate(parts)


class Solution(struct.PyTreeNode):
    """Values of a policy by layer."""

    q: jax.Array  # (horizon, states, actions)
    v: jax.Array  # (horizon + 1, states), zeros in the last row
    policy: jax.Array  # (horizon, states, actions), probabilities
    value: jax.Array  # (), expected return from `initial`


@jax.jit
def solve(mdp: TabularMDP) -> Solution:
    """The optimal policy by backward induction; of equally good actions it takes the first."""

    def backup(v: jax.Array, layer: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, tuple[jax.Array, ...]]:
        q = _backup(layer, v)
        return q.max(axis=-1), (q, q.max(axis=-1))

    q, v = jax.lax.scan(backup, jnp.zeros(mdp.num_states), (mdp.transitions, mdp.rewards), reverse=True)[1]
    return _solution(mdp, q, v, greedy(q))


@jax.jit
def evaluate(mdp: TabularMDP, policy: jax.Array) -> Solution:
    """Values of `policy`, `(horizon, states, actions)`."""

    def backup(v: jax.Array, layer: tuple[Any, jax.Array]) -> tuple[jax.Array, tuple[jax.Array, ...]]:
        model, probabilities = layer
        q = _backup(model, v)
        v = jnp.sum(probabilities * q, axis=-1)
        return v, (q, v)

    model = mdp.transitions, mdp.rewards
    q, v = jax.lax.scan(backup, jnp.zeros(mdp.num_states), (model, policy), reverse=True)[1]
    return _solution(mdp, q, v, policy)


@jax.jit
def occupancy(mdp: TabularMDP, policy: jax.Array) -> jax.Array:
    """Probabilities `d_h(s, a)` of being there, `(horizon, states, actions)`; each layer sums to 1."""

    def forward(states: jax.Array, layer: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        transitions, probabilities = layer
        here = states[:, None] * probabilities
        return jnp.einsum("sa,sat->t", here, transitions, precision="highest"), here

    return jax.lax.scan(forward, mdp.initial, (mdp.transitions, policy))[1]


@jax.jit
def reachability(mdp: TabularMDP) -> jax.Array:
    """The largest probability, over policies, of being in each state of each layer, `(horizon, states)`."""

    def of(layer: jax.Array, state: jax.Array) -> jax.Array:
        goal = jnp.zeros((mdp.horizon, mdp.num_states)).at[layer, state].set(1.0)

        def backup(v: jax.Array, row: tuple[jax.Array, ...]) -> tuple[jax.Array, None]:
            here, transitions = row
            return jnp.maximum(here, jnp.einsum("sat,t->sa", transitions, v, precision="highest").max(axis=-1)), None

        return mdp.initial @ jax.lax.scan(backup, jnp.zeros(mdp.num_states), (goal, mdp.transitions), reverse=True)[0]

    layers, states = jnp.arange(mdp.horizon), jnp.arange(mdp.num_states)
    return jax.lax.map(lambda layer: jax.vmap(lambda state: of(layer, state))(states), layers)


def coverability(mdp: TabularMDP) -> jax.Array:
    """`min over mu of max over h, policies of |d_h / mu_h|_inf`, `()`: how well one `mu` can cover all policies.

    It equals the largest layer's sum of reachabilities over states and actions (Xie et al. 2023, lemma on cumulative
    reachability), and lies between 1 and states times actions.
    """
    return jnp.max(jnp.sum(reachability(mdp), axis=-1)) * mdp.num_actions


def concentrability(occupancies: jax.Array, data: jax.Array) -> jax.Array:
    """`max over h, s, a of d_h(s, a) / nu_h(s, a)`, `()`; infinite where the policy goes and the data do not.

    Args:
        occupancies, data: `(horizon, states, actions)`, each layer summing to 1.
    """
    ratios = jnp.where(occupancies > 0, occupancies / jnp.where(data > 0, data, 1.0), 0.0)
    return jnp.max(jnp.where((occupancies > 0) & (data <= 0), jnp.inf, ratios))


def greedy(q: jax.Array) -> jax.Array:
    """One-hot probabilities of the first best action, of the shape of `q`."""
    return jax.nn.one_hot(jnp.argmax(q, axis=-1), q.shape[-1])


def uniform_policy(mdp: TabularMDP) -> jax.Array:
    """All actions alike, `(horizon, states, actions)`."""
    return jnp.full(mdp.rewards.shape, 1.0 / mdp.num_actions)


def epsilon_greedy(policy: jax.Array, epsilon: float | jax.Array) -> jax.Array:
    """`policy`, but for a share `epsilon` of uniform actions."""
    return (1.0 - epsilon) * policy + epsilon / policy.shape[-1]


def adversarial_policy(mdp: TabularMDP) -> jax.Array:
    """Mostly wrong: with probability 0.6 a non-optimal action, uniform among them, with 0.4 any.

    The rule of the forest experiments of Tan and Xu 2024.
    """
    best = solve(mdp).policy
    return 0.6 * (1.0 - best) / (mdp.num_actions - 1) + 0.4 * uniform_policy(mdp)


class TabularData(struct.PyTreeNode):
    """Transitions by layer, leaves `(horizon, num)`: states, actions and next states int32, rewards float32."""

    states: jax.Array
    actions: jax.Array
    rewards: jax.Array
    next_states: jax.Array

    def counts(self, num_states: int, num_actions: int) -> jax.Array:
        """Visits `N_h(s, a)`, float32 `(horizon, states, actions)`."""
        empty = jnp.zeros((len(self.states), num_states, num_actions))
        return empty.at[jnp.arange(len(self.states))[:, None], self.states, self.actions].add(1.0)


@functools.partial(jax.jit, static_argnames=("num",))
def sample_episodes(mdp: TabularMDP, policy: jax.Array, key: jax.Array, num: int) -> TabularData:
    """`num` episodes of `policy`, `(horizon, states, actions)`: column i of all layers is one episode."""

    def step(state: TabularState, row: tuple[jax.Array, jax.Array]) -> tuple[TabularState, TabularData]:
        probabilities, key = row
        act_key, step_key = jax.random.split(key)
        action = jax.random.categorical(act_key, jnp.log(probabilities[state.state])).astype(jnp.int32)
        following, _, reward, _, _ = mdp.step(state, action, step_key)
        return following, TabularData(state.state, action, reward, following.state)

    def episode(key: jax.Array) -> TabularData:
        reset_key, steps_key = jax.random.split(key)
        keys = jax.random.split(steps_key, mdp.horizon)
        return jax.lax.scan(step, mdp.reset(reset_key)[0], (policy, keys))[1]

    return jax.vmap(episode, out_axes=1)(jax.random.split(key, num))


@functools.partial(jax.jit, static_argnames=("num",))
def sample_layers(mdp: TabularMDP, data: jax.Array, key: jax.Array, num: int) -> TabularData:
    """`num` independent transitions of each layer h, its pairs drawn from `data[h]`, `(horizon, states, actions)`."""

    def transition(layer: jax.Array, key: jax.Array) -> TabularData:
        pair_key, step_key = jax.random.split(key)
        pair = jax.random.categorical(pair_key, jnp.log(data[layer]).reshape(-1)).astype(jnp.int32)
        state, action = pair // mdp.num_actions, pair % mdp.num_actions
        following, _, reward, _, _ = mdp.step(TabularState(state=state, steps=layer), action, step_key)
        return TabularData(state, action, reward, following.state)

    keys = jax.random.split(key, (mdp.horizon, num))
    return jax.vmap(jax.vmap(transition, in_axes=(None, 0)))(jnp.arange(mdp.horizon), keys)


def covering_data(mdp: TabularMDP, level: float, other: jax.Array) -> jax.Array:
    """A data distribution `(horizon, states, actions)` whose concentrability for the optimal policy is at most `level`.

    It is `d* / level + (1 - 1 / level) d'`, with `d'` the occupancy of the policy `other`; exactly `level` if `other`
    misses one of the pairs that the optimal policy visits.

    Raises:
        ValueError: a level below 1, which no distribution has.
    """
    if level < 1.0:
        raise ValueError(f"level={level}; expected at least 1: no data cover a policy better than its own")
    return occupancy(mdp, solve(mdp).policy) / level + (1.0 - 1.0 / level) * occupancy(mdp, other)


# Discounted -----------------------------------------------------------------------------------------------------------


class DiscountedMDP(struct.PyTreeNode):
    """A stationary MDP with a discount in (0, 1)."""

    transitions: jax.Array  # (states, actions, states), rows sum to 1
    rewards: jax.Array  # (states, actions)
    initial: jax.Array  # (states,), sums to 1
    discount: float = struct.field(pytree_node=False)

    @property
    def num_states(self) -> int:
        """States."""
        return self.rewards.shape[0]

    def step(self, state: jax.Array, action: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The next state, int32, and the reward of `(state, action)`; nothing ever ends."""
        row = self.transitions[state, action]
        return jax.random.categorical(key, jnp.log(row)).astype(jnp.int32), self.rewards[state, action]


def solve_discounted(mdp: DiscountedMDP, tolerance: float = 1e-6) -> jax.Array:
    """`Q*`, `(states, actions)`, by value iteration from zero to within `tolerance`, up to float32's rounding."""
    num_sweeps = _sweeps(mdp, tolerance)

    def sweep(_: int, q: jax.Array) -> jax.Array:
        return _backup((mdp.transitions, mdp.rewards), mdp.discount * q.max(axis=-1))

    return jax.lax.fori_loop(0, num_sweeps, sweep, jnp.zeros_like(mdp.rewards))


@jax.jit
def evaluate_discounted(mdp: DiscountedMDP, policy: jax.Array) -> jax.Array:
    """`Q` of `policy` `(states, actions)`, of the same shape, by one linear solve."""
    kernel = jnp.einsum("sa,sat->st", policy, mdp.transitions, precision="highest")
    rewards = jnp.sum(policy * mdp.rewards, axis=-1)
    v = jnp.linalg.solve(jnp.eye(mdp.num_states) - mdp.discount * kernel, rewards)
    return _backup((mdp.transitions, mdp.rewards), mdp.discount * v)


@jax.jit
def occupancy_discounted(mdp: DiscountedMDP, policy: jax.Array) -> jax.Array:
    """`(1 - discount) sum_t discount^t P(s_t = s, a_t = a)`, `(states, actions)`, summing to 1."""
    kernel = jnp.einsum("sa,sat->st", policy, mdp.transitions, precision="highest")
    system = jnp.eye(mdp.num_states) - mdp.discount * kernel.T
    return jnp.linalg.solve(system, (1.0 - mdp.discount) * mdp.initial)[:, None] * policy


@functools.partial(jax.jit, static_argnames=("num",))
def sample_pairs(mdp: DiscountedMDP, data: jax.Array, key: jax.Array, num: int) -> TabularData:
    """`num` independent transitions, leaves `(1, num)`, their pairs drawn from `data` `(states, actions)`."""

    def transition(key: jax.Array) -> TabularData:
        pair_key, step_key = jax.random.split(key)
        pair = jax.random.categorical(pair_key, jnp.log(data).reshape(-1)).astype(jnp.int32)
        state, action = pair // data.shape[1], pair % data.shape[1]
        following, reward = mdp.step(state, action, step_key)
        return TabularData(state, action, reward, following)

    return jax.tree.map(lambda leaf: leaf[None], jax.vmap(transition)(jax.random.split(key, num)))


def _sweeps(mdp: DiscountedMDP, tolerance: float) -> int:
    """Sweeps of value iteration from zero to within `tolerance`: each shrinks the error by the discount."""
    bound = float(jnp.abs(mdp.rewards).max()) / (1.0 - mdp.discount)
    sweeps = 1
    while bound * mdp.discount**sweeps > tolerance:
        sweeps += 1
    return sweeps


def _backup(model: tuple[jax.Array, jax.Array], v: jax.Array) -> jax.Array:
    """`r + P v`, `(states, actions)`."""
    transitions, rewards = model
    return rewards + jnp.einsum("sat,t->sa", transitions, v, precision="highest")


def _solution(mdp: TabularMDP, q: jax.Array, v: jax.Array, policy: jax.Array) -> Solution:
    v = jnp.concatenate([v, jnp.zeros((1, mdp.num_states))])
    return Solution(q=q, v=v, policy=policy, value=jnp.dot(mdp.initial, v[0], precision="highest"))
