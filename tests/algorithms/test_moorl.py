import dataclasses
import functools
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from tiny import assert_identical, batch, scrambled

from algorithms import MOORLAgent, MOORLConfig, SACAgent
from algorithms.moorl import MOORL_SAC
from hybridrl.errors import ConfigError
from hybridrl.model import polyak_update, tree_norm
from hybridrl.replay import BlockSampler, ReplayBuffer, UniformSampler
from hybridrl.types import SourceBlock

SAC = dataclasses.replace(
    MOORL_SAC,
    actor_hidden_dims=(4,),
    critic_hidden_dims=(4,),
    actor_learning_rate=1e-2,
    critic_learning_rate=3e-2,
    temperature_learning_rate=2e-2,
    target_update_rate=0.1,
    discount=0.9,
)
CONFIG = MOORLConfig(SAC, inner_steps=3, meta_rate=0.3)


def new_agent(config=CONFIG):
    agent = MOORLAgent.create(jax.random.key(0), batch(), config)
    sac = scrambled(agent.sac)
    adapted = sac.actor.params if config.act_with == "adapted" else None
    return agent.replace(sac=sac, adapted_actor=adapted)


def block(length=3, share=1.0):
    rows = jax.tree.map(lambda *fields: jnp.stack(fields), *(batch(8, seed) for seed in range(length)))
    return SourceBlock(transitions=rows, offline_share=jnp.float32(share))


def assert_close(first, second, atol=1e-6):
    for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=atol)


def between(old, new, rate):
    return jax.tree.map(lambda a, b: (1 - rate) * a + rate * b, old, new)


def test_the_meta_parameters_go_a_fixed_part_of_the_way_to_sacs():
    """Three updates of the library's own SAC, one after the other, are the inner loop."""
    agent = new_agent()
    fast = agent.sac
    for seed in range(3):
        fast, _ = fast.update(batch(8, seed))
    after, metrics = agent.update(block())
    for role in ("actor", "critic"):
        start, end = getattr(agent.sac, role), getattr(fast, role)
        found = getattr(after.sac, role)
        assert_close(found.params, between(start.params, end.params, 0.3))
        assert_close(found.opt_state, end.opt_state)  # the moments go on
    assert_close(after.sac.temperature, fast.temperature)
    assert_close(after.sac.target_critic_params, fast.target_critic_params)
    np.testing.assert_array_equal(jax.random.key_data(after.sac.key), jax.random.key_data(fast.key))
    assert int(after.iterations) == 1
    distance = jax.tree.map(jnp.subtract, after.sac.target_critic_params, after.sac.critic.params)
    np.testing.assert_allclose(metrics["meta/target_distance"], tree_norm(distance), rtol=1e-4)


def test_all_options_together():
    """One batch for all steps, fresh moments, a target behind the meta critic, a frozen temperature, a falling rate."""
    config = dataclasses.replace(
        CONFIG,
        inner_batch="same",
        reset_optimizers=True,
        target_source="meta",
        act_with="adapted",
        temperature_in="online",
        meta_rate_schedule="linear",
        meta_iterations=4,
    )
    agent = new_agent(config).replace(iterations=jnp.int32(1))
    agent = agent.replace(sac=agent.sac.update(batch(8, 5))[0])  # moments that a restart would drop
    fast = agent.sac.replace(actor=agent.sac.actor.restarted(), critic=agent.sac.critic.restarted())
    for _ in range(3):
        stepped, _ = fast.update(batch(8, 0))
        fast = stepped.replace(temperature=fast.temperature, target_critic_params=fast.target_critic_params)
    after, _ = agent.update(block(1))
    rate = 0.3 * 3 / 4
    critic = between(agent.sac.critic.params, fast.critic.params, rate)
    assert_close(after.sac.actor.params, between(agent.sac.actor.params, fast.actor.params, rate))
    assert_close(after.sac.critic.params, critic)
    assert_close(after.sac.target_critic_params, polyak_update(critic, agent.sac.target_critic_params, 1 - 0.9**3))
    assert_identical(after.sac.temperature, agent.sac.temperature)
    assert_close(after.adapted_actor, fast.actor.params)
    still, _ = agent.replace(iterations=jnp.int32(9)).update(block(1))  # the rate has fallen to 0
    assert_close(still.sac.actor.params, agent.sac.actor.params, atol=0)
    assert_close(still.sac.critic.params, agent.sac.critic.params, atol=0)
    online, _ = agent.update(block(1, share=0.0))
    assert online.sac.temperature() != agent.sac.temperature()
    # The adapted policy collects; the meta policy is evaluated.
    acting, evaluated = (after.policy(deterministic=kind).actor.params for kind in (False, True))
    assert_identical(acting, after.adapted_actor)
    assert_identical(evaluated, after.sac.actor.params)


def test_without_a_meta_effect_it_is_sac():
    """A meta rate of 1, one inner step and online blocks only: a thousand updates of SAC."""
    agent = MOORLAgent.create(jax.random.key(0), batch(), MOORLConfig(SAC, inner_steps=1, meta_rate=1.0))
    buffer = ReplayBuffer.create(batch(), 64).insert(batch(64))
    poison = UniformSampler(jax.tree.map(lambda field: jnp.full_like(field, jnp.nan), batch()))

    @jax.jit
    def run(agent, sac):
        def step(agents, key):
            drawn = BlockSampler(poison, buffer, jnp.int32(0), 1, "coin", 0.0).sample(key, 8)
            rows = jax.tree.map(lambda field: field[0], drawn.transitions)
            return (agents[0].update(drawn)[0], agents[1].update(rows)[0]), None

        return jax.lax.scan(step, (agent, sac), jax.random.split(jax.random.key(1), 1_000))[0]

    meta, sac = run(agent, SACAgent.create(jax.random.key(0), batch(), SAC))
    assert int(sac.actor.opt_state[0].count) == 1_000
    assert_close(meta.sac.parts() | {"key": None}, sac.parts() | {"key": None}, atol=1e-5)


def with_sgd(sac, rate):
    optimizer = optax.sgd(rate)

    def swapped(model):
        return model.replace(optimizer=optimizer, opt_state=optimizer.init(model.params))

    return sac.replace(actor=swapped(sac.actor), critic=swapped(sac.critic))


def test_one_inner_step_of_sgd_is_a_smaller_step_of_sgd():
    agent = new_agent(dataclasses.replace(CONFIG, inner_steps=1))
    after, _ = agent.replace(sac=with_sgd(agent.sac, 0.1)).update(block(1))
    expected, _ = with_sgd(agent.sac, 0.1 * 0.3).update(batch(8, 0))
    assert_close(after.sac.actor.params, expected.actor.params)
    assert_close(after.sac.critic.params, expected.critic.params)


class Slope(nn.Module):
    """Q(s, a) = slope * s."""

    num_critics: int = 1

    @nn.compact
    def __call__(self, observations, actions):
        positions = jnp.broadcast_to(observations[..., 0], actions.shape[:-1])
        slopes = self.param("members", nn.initializers.zeros, (self.num_critics,))
        return slopes.reshape(-1, *(1,) * positions.ndim) * positions[None]


@pytest.fixture(scope="module")
def quadratics():
    """A run on two sources, and one iteration on one of them.

    Without a discount the critic's loss is `(slope s - r)^2`: of curvature h = 2 s^2 and optimum c = r / s. Offline
    they are 1 and -1, online 4 and 1; inner steps are SGD of rate 0.1, five of them.
    """
    sac = dataclasses.replace(SAC, num_critics=1, num_target_critics=1, discount=0.0, entropy_backup=False)
    agent = MOORLAgent.create(jax.random.key(0), batch(), MOORLConfig(sac, inner_steps=5, meta_rate=0.02))
    inner = with_sgd(agent.sac, 0.1)
    params = Slope().init(jax.random.key(0), batch().observations, batch().actions)
    critic = inner.critic.replace(module=Slope(), params=params, opt_state=inner.critic.optimizer.init(params))
    agent = agent.replace(sac=inner.replace(critic=critic, target_critic_params=params))

    def source(curvature, optimum):
        position = np.sqrt(curvature / 2)
        states = jnp.full((5, 2, 2), position)
        rows = jax.tree.map(lambda field: jnp.broadcast_to(field[:2], (5, *field[:2].shape)), batch())
        return rows.replace(observations=states, rewards=jnp.full((5, 2), optimum * position))

    offline, online = source(1.0, -1.0), source(4.0, 1.0)

    @jax.jit
    def run(flags):
        def step(agent, flag):
            rows = jax.tree.map(functools.partial(jnp.where, flag > 0), offline, online)
            agent, _ = agent.update(SourceBlock(transitions=rows, offline_share=flag))
            return agent, agent.sac.critic.params["params"]["members"][0]

        return jax.lax.scan(step, agent, flags)[1]

    return lambda flags: np.asarray(run(jnp.asarray(flags, jnp.float32)), np.float64)


ITERATIONS = 1_200


def test_two_sources_meet_where_the_theory_says(quadratics):
    """`sum p w c / sum p w` with `w = 1 - (1 - 0.1 h)^5`, which is 0.385; the joint optimum is 0.6."""
    weights = 1 - (1 - 0.1 * np.array([1.0, 4.0])) ** 5
    expected = (weights @ [-1.0, 1.0]) / weights.sum()
    assert expected == pytest.approx(0.385, abs=0.001)
    alternating = quadratics(np.arange(ITERATIONS) % 2 == 0)
    assert alternating[-400:].mean() == pytest.approx(expected, abs=0.01)
    coin = quadratics(np.random.default_rng(0).uniform(size=ITERATIONS) < 0.5)
    assert coin[-800:].mean() == pytest.approx(expected, abs=0.1)


def test_one_source_alone_is_fitted_by_the_exact_steps(quadratics):
    for flag, curvature, optimum in ((1.0, 1.0, -1.0), (0.0, 4.0, 1.0)):
        found = quadratics(np.full(ITERATIONS, flag))
        part = 0.02 * (1 - (1 - 0.1 * curvature) ** 5)
        expected = optimum * (1 - (1 - part) ** np.arange(1, ITERATIONS + 1))
        np.testing.assert_allclose(found, expected, atol=1e-4)
        assert found[-1] == pytest.approx(optimum, abs=0.01)


@pytest.mark.slow
def test_the_first_order_variant_descends_along_the_slope_at_the_adapted_parameters():
    config = dataclasses.replace(CONFIG, meta="fomaml", meta_rate=0.05)
    agent = new_agent(config)
    after, _ = agent.update(block(4))
    fast, last = agent.sac, batch(8, 3)
    for seed in range(3):
        fast, _ = fast.update(batch(8, seed))
    _, critic_key, actor_key = jax.random.split(fast.key, 3)
    slopes = {
        "actor": jax.grad(lambda p: fast.actor_loss(last, actor_key, fast.critic, p)[0])(fast.actor.params),
        "critic": jax.grad(lambda p: fast.critic_loss(last, critic_key, p)[0])(fast.critic.params),
    }
    for role, slope in slopes.items():
        expected = jax.tree.map(lambda value, s: value - 0.05 * s, getattr(agent.sac, role).params, slope)
        assert_close(getattr(after.sac, role).params, expected, atol=1e-5)


def test_nothing_is_kept_but_sac_and_a_counter():
    """The second copy of the parameters lives within an update only; an acting adapted policy is one more actor."""

    def size(tree):
        return sum(leaf.size for leaf in jax.tree.leaves(tree))

    agent, sac = new_agent(), SACAgent.create(jax.random.key(0), batch(), SAC)
    assert size(agent) == size(sac) + 1
    adapted = new_agent(dataclasses.replace(CONFIG, act_with="adapted"))
    assert size(adapted) == size(sac) + size(sac.actor.params) + 1


@pytest.mark.slow
def test_an_iteration_costs_hardly_more_than_its_sac_updates():
    wide = dataclasses.replace(MOORL_SAC, actor_hidden_dims=(256, 256), critic_hidden_dims=(256, 256))
    agent = MOORLAgent.create(jax.random.key(0), batch(), MOORLConfig(wide))
    rows = jax.tree.map(lambda *fields: jnp.stack(fields), *(batch(256, seed) for seed in range(5)))
    blocks = SourceBlock(transitions=rows, offline_share=jnp.float32(1.0))
    plain = jax.jit(lambda sac, rows: jax.lax.scan(lambda sac, batch: sac.update(batch), sac, rows))

    def fastest(step):
        jax.block_until_ready(step())
        times = []
        for _ in range(20):
            started = time.perf_counter()
            jax.block_until_ready(step())
            times.append(time.perf_counter() - started)
        return min(times)

    assert fastest(lambda: agent.update(blocks)) <= 1.15 * fastest(lambda: plain(agent.sac, rows))


def test_a_block_of_another_length_is_refused():
    with pytest.raises(ValueError, match=r"a block of 2 batches; these settings need 3"):
        new_agent().update(block(2))
    lengths = {
        (meta, inner): dataclasses.replace(CONFIG, meta=meta, inner_batch=inner).block_length
        for meta in ("reptile", "fomaml")
        for inner in ("fresh", "same")
    }
    assert list(lengths.values()) == [3, 1, 4, 2]


@pytest.mark.parametrize(
    "setting",
    [
        {"meta": "maml"},
        {"meta_rate_schedule": "cosine"},
        {"inner_batch": "old"},
        {"source_choice": "die"},
        {"target_source": "slow"},
        {"act_with": "both"},
        {"temperature_in": "offline"},
        {"inner_steps": 0},
        {"meta_rate": 1.5},
    ],
)
def test_settings_that_cannot_work_are_named(setting):
    with pytest.raises(ConfigError, match=next(iter(setting))):
        dataclasses.replace(CONFIG, **setting)
    with pytest.raises(ConfigError, match="critic_updates=2"):
        MOORLConfig(dataclasses.replace(SAC, critic_updates=2))
