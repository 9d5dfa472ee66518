"""H2O end to end: a point on a plane whose simulator is wrong on one half, beside SAC and CQL with half the means."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from algorithms import CQLAgent, CQLConfig, DiscriminatorConfig, H2OAgent, H2OConfig, PenaltyConfig, SACAgent
from algorithms.h2o import H2O_SAC
from hybridrl.replay import ReplayBuffer, SeparateSampler, UniformSampler
from hybridrl.types import Transitions

GOAL, MOVE, HORIZON, ROUNDS, ROUND = jnp.array([0.7, 0.7]), 0.2, 20, 150, 50
SAC = dataclasses.replace(
    H2O_SAC,
    actor_hidden_dims=(32, 32),
    critic_hidden_dims=(32, 32),
    actor_learning_rate=1e-3,
    critic_learning_rate=3e-3,
    temperature_learning_rate=3e-3,
    initial_temperature=0.1,
    target_update_rate=0.02,
    discount=0.9,
)
DISCRIMINATOR = DiscriminatorConfig(hidden_dims=(32, 32), learning_rate=3e-3, noise_std=0.02, batch_size=64)
ROWS = {"h2o": 32, "sac": 64, "cql": 64}
AGENTS = {
    "h2o": (H2OAgent, H2OConfig(SAC, DISCRIMINATOR)),
    "sac": (SACAgent, dataclasses.replace(SAC, entropy_backup=True)),
    "cql": (CQLAgent, CQLConfig(SAC, PenaltyConfig(num_actions=4, weight=1.0))),
}


def move(points, actions, simulated):
    """In the simulator the vertical part of an action is upside down on the right half."""
    vertical = jnp.where(simulated & (points[..., 0] > 0), -actions[..., 1], actions[..., 1])
    return jnp.clip(points + MOVE * jnp.stack([actions[..., 0], vertical], axis=-1), -1.0, 1.0)


def steps(points, actions, simulated):
    following = move(points, actions, simulated)
    rewards = 1.0 - jnp.linalg.norm(following - GOAL[None], axis=-1)
    ones = jnp.ones_like(rewards)
    return Transitions(points, actions, rewards, ones, following, ones)


def start(key, count):
    return jax.random.uniform(key, (count, 2), minval=-1.0, maxval=1.0)


def real_data(key, rows=2_000):
    """Noisy steps towards the goal, from anywhere."""
    point_key, noise_key = jax.random.split(key)
    points = start(point_key, rows)
    actions = jnp.clip(0.5 * (GOAL[None] - points) + 0.7 * jax.random.normal(noise_key, (rows, 2)), -0.999, 0.999)
    return steps(points, actions, False)


def act(agent, points, key, deterministic):
    return agent.policy(deterministic=deterministic).act((), points, key)[0]


def real_return(agent, key):
    """Mean over 256 episodes of the deterministic policy."""

    def step(points, _):
        after = steps(points, act(agent, points, key, True), False)
        return after.next_observations, after.rewards.mean()

    return jax.lax.scan(step, start(key, 256), None, length=HORIZON)[1].sum()


def train(name, key):
    """Rounds of simulated steps and as many updates, as the phase has them; the real return at the end."""
    agent_key, data_key, first_key, eval_key, key = jax.random.split(key, 5)
    data = real_data(data_key)
    offline, example = UniformSampler(data), jax.tree.map(lambda field: field[:1], data)
    kind, config = AGENTS[name]
    agent = kind.create(agent_key, example, config)
    if name == "h2o":
        agent = agent.fit_observations(data.observations)

    def interact(carry, inputs):
        (agent, buffer, point), (count, key) = carry, inputs
        act_key, reset_key = jax.random.split(key)
        row = steps(point, act(agent, point, act_key, False), True)
        point = jnp.where(count % HORIZON == HORIZON - 1, start(reset_key, 1), row.next_observations)
        return (agent, buffer.insert(row), point), None

    def update(buffer, agent, key):
        if name == "h2o":
            batch = SeparateSampler(offline, buffer).sample(key, ROWS[name] + DISCRIMINATOR.batch_size)
        else:
            batch = (buffer if name == "sac" else offline).sample(key, ROWS[name])
        return agent.update(batch)[0], None

    def one_round(carry, inputs):
        number, key = inputs
        act_key, update_key = jax.random.split(key)
        counts = number * ROUND + jnp.arange(ROUND)
        (agent, buffer, point), _ = jax.lax.scan(interact, carry, (counts, jax.random.split(act_key, ROUND)))
        agent, _ = jax.lax.scan(functools.partial(update, buffer), agent, jax.random.split(update_key, ROUND))
        return (agent, buffer, point), None

    carry = (agent, ReplayBuffer.create(example, ROUNDS * ROUND), start(first_key, 1))
    (agent, _, _), _ = jax.lax.scan(one_round, carry, (jnp.arange(ROUNDS), jax.random.split(key, ROUNDS)))
    return real_return(agent, eval_key)


@pytest.mark.slow
def test_real_data_and_a_flawed_simulator_are_worth_no_less_than_either_alone():
    keys = jax.random.split(jax.random.key(0), 3)
    found = {name: np.asarray(jax.jit(jax.vmap(functools.partial(train, name)))(keys)) for name in AGENTS}
    assert found["h2o"].mean() >= 0.95 * max(found["sac"].mean(), found["cql"].mean())
    # The simulator alone teaches the wrong thing, so that the comparison means something.
    assert found["sac"].mean() < 0.9 * found["h2o"].mean()
