"""Hybrid training on small environments, compiled as one program whose seeds train side by side."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from algorithms import MOORLAgent
from envs.functional import Continuous, rollout
from envs.halves import GOAL
from hybridrl.model import tree_norm
from hybridrl.replay import BlockSampler, ReplayBuffer, UniformSampler
from hybridrl.types import Transitions

BATCH = 64


class UMaze(struct.PyTreeNode):
    """A point in a U-shaped corridor: along the bottom to the right, up, and back along the top to the goal.

    It lives in [-1, 1]^2, moves by 0.2 of the action and stops at the wall |y| <= 0.1 that reaches from the left to
    x = 0.4. Reward 1 and the end within 0.3 of (-0.8, 0.6), else 0; starts around (-0.8, -0.6); cut after 50 steps.
    """

    obs_dim: int = struct.field(pytree_node=False, default=2)
    actions: Continuous = struct.field(pytree_node=False, default=Continuous(2))
    horizon: int = struct.field(pytree_node=False, default=50)

    def reset(self, key):
        position = jnp.array([-0.8, -0.6]) + jax.random.uniform(key, (2,), minval=-0.1, maxval=0.1)
        return (position, jnp.int32(0)), position

    def step(self, state, action, key):
        position, steps = state[0], state[1] + 1
        moved = jnp.clip(position + 0.2 * jnp.clip(action, -1.0, 1.0), -1.0, 1.0)
        blocked = (moved[0] <= 0.4) & ((jnp.abs(moved[1]) <= 0.1) | (moved[1] * position[1] < 0.0))
        position = jnp.where(blocked, position, moved)
        reached = jnp.linalg.norm(position - jnp.array([-0.8, 0.6])) < 0.3
        return (position, steps), position, reached * 1.0, reached, ~reached & (steps >= self.horizon)


def through_the_maze(states, observations, key):
    """The way round, in noisy steps of half the length."""
    x, y = observations[:, 0], observations[:, 1]
    rising, above = (y < 0.1) & (x > 0.5), y >= 0.1
    aim = (
        jnp.where(above, -1.0, jnp.where(rising, 0.0, 1.0)),
        jnp.where(above, 0.6 - y, jnp.where(rising, 1.0, -0.6 - y)),
    )
    return jnp.clip(0.5 * jnp.stack(aim, axis=-1) + 0.3 * jax.random.normal(key, (len(x), 2)), -0.999, 0.999)


def towards_the_goal(states, observations, key):
    """In `Halves`, half of the way that is left, with noise."""
    way = 0.5 * (jnp.array(GOAL)[None] - observations)
    return jnp.clip(way + 0.3 * jax.random.normal(key, way.shape), -0.999, 0.999)


def uniform(states, observations, key):
    return jax.random.uniform(key, (len(observations), 2), minval=-0.999, maxval=0.999)


def by_policy(policy, states, observations, key):
    return policy.act((), observations, key)[0]


def transitions(rows):
    """Transitions `(rows, ...)` of a rollout's leaves `(num_steps, num_envs, ...)`."""
    flat = jax.tree.map(lambda field: field.reshape(-1, *field.shape[2:]), rows)
    fields = (flat.observations, flat.actions, flat.rewards, 1.0 - flat.terminations, flat.next_observations)
    return Transitions(*fields, mc_returns=jnp.zeros_like(flat.rewards))


def episodes_return(env, agent, key, count=64):
    """Mean undiscounted return of one episode by the mean action from each of `count` starts."""
    policy = agent.policy(deterministic=True)
    states, observations = jax.vmap(env.reset)(jax.random.split(key, count))

    def step(carry, step_key):
        states, observations, alive = carry
        actions = by_policy(policy, states, observations, step_key)
        states, observations, rewards, *ends = jax.vmap(env.step, (0, 0, None))(states, actions, step_key)
        return (states, observations, alive * ~(ends[0] | ends[1])), alive * rewards

    carry = (states, observations, jnp.ones(count))
    return jax.lax.scan(step, carry, jax.random.split(key, env.horizon))[1].sum(axis=0).mean()


def look_at_returns(env, agent, sampler, key, eval_key):
    """The return, from the same starts at each look, and the temperature."""
    return {"return": episodes_return(env, agent, eval_key), "temperature": agent.sac.temperature()}


def look_at_adaptation(env, agent, sampler, key, eval_key):
    """Beside those the return of the policy after one more block, and how far both sources want the same step."""
    block_key, rows_key, loss_key = jax.random.split(key, 3)
    fast, _ = agent.adapt(sampler.sample(block_key, BATCH))
    batches = [source.sample(rows_key, 256) for source in (sampler.offline, sampler.online)]
    sac = agent.sac
    actor = [
        jax.grad(lambda params, rows=rows: sac.actor_loss(rows, loss_key, sac.critic, params)[0]) for rows in batches
    ]
    critic = [jax.grad(lambda params, rows=rows: sac.critic_loss(rows, loss_key, params)[0]) for rows in batches]
    return look_at_returns(env, agent, sampler, key, eval_key) | {
        "adapted_return": episodes_return(env, agent.replace(sac=fast), eval_key),
        "actor_cosine": cosine(*(slope(sac.actor.params) for slope in actor)),
        "critic_cosine": cosine(*(slope(sac.critic.params) for slope in critic)),
    }


def cosine(first, second):
    product = sum(jax.tree.leaves(jax.tree.map(lambda a, b: (a * b).sum(), first, second)))
    return product / (tree_norm(first) * tree_norm(second))


def train(env, config, data, key, ratio, *, steps, warmup, every, look=look_at_returns):
    """Uniform steps, then one block per environment step, as MOORL's phases have it.

    Returns:
        What `look` says every so many steps, leaves `(steps // every,)`, and the largest |Q| of every block,
        `(steps,)`.
    """
    agent_key, first_key, eval_key, key = jax.random.split(key, 4)
    example = jax.tree.map(lambda field: field[:1], data)
    agent = MOORLAgent.create(agent_key, example, config)
    running, rows = rollout(env, uniform, first_key, num_envs=1, num_steps=warmup)
    buffer = ReplayBuffer.create(example, warmup + steps).insert(transitions(rows))

    def sampler(buffer, index):
        offline = UniformSampler(data)
        return BlockSampler(offline, buffer, index, config.block_length, config.source_choice, ratio)

    def step(carry, inputs):
        (agent, buffer, running), (index, key) = carry, inputs
        act_key, update_key = jax.random.split(key)
        policy = jax.tree_util.Partial(by_policy, agent.policy(deterministic=False))
        running, row = rollout(env, policy, act_key, num_envs=1, num_steps=1, start=running)
        buffer = buffer.insert(transitions(row))
        agent, metrics = agent.update(sampler(buffer, index).sample(update_key, BATCH))
        return (agent, buffer, running), metrics["meta/q_abs_max"]

    def part(carry, inputs):
        carry, largest = jax.lax.scan(step, carry, inputs)
        agent, buffer, _ = carry
        key = jax.random.fold_in(eval_key, inputs[0][0])
        return carry, (look(env, agent, sampler(buffer, inputs[0][0]), key, eval_key), largest)

    inputs = (jnp.arange(steps).reshape(-1, every), jax.random.split(key, steps).reshape(-1, every))
    seen, largest = jax.lax.scan(part, (agent, buffer, running), inputs)[1]
    return seen, largest.reshape(-1)


def seeds(env, config, runs, *, first=0, count=5, rows=2_000, **settings):
    """Runs side by side: `count` seeds of each entry of `runs`, on data of their own.

    Args:
        runs: (behaviour, share of offline blocks). Same seeds of different entries begin alike.

    Returns:
        `train`'s results with leaves `(runs, count, ...)`, and the mean return of an episode of the data,
        `(runs, count)`.
    """
    behaviours = list(dict.fromkeys(behaviour for behaviour, _ in runs))

    def one(number, ratio, key):
        data_key, run_key = jax.random.split(key)
        made = [
            rollout(env, behaviour, data_key, num_envs=rows // env.horizon, num_steps=env.horizon)[1]
            for behaviour in behaviours
        ]
        data = jax.tree.map(lambda *fields: jnp.stack(fields)[number], *made)
        ends = (data.terminations | data.truncations).sum()
        return *train(env, config, transitions(data), run_key, ratio, **settings), data.rewards.sum() / ends

    numbers = jnp.array([behaviours.index(behaviour) for behaviour, _ in runs])
    ratios = jnp.array([ratio for _, ratio in runs])
    every = jax.vmap(jax.vmap(one, (None, None, 0)), (0, 0, None))
    found = jax.jit(every)(numbers, ratios, jax.random.split(jax.random.key(first), count))
    return jax.tree.map(np.asarray, found)
