"""What every agent must do, whatever it is."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import (
    BASELINES,
    BPPO,
    DISCRIMINATOR,
    GOAL_AGENTS,
    PPO,
    TINY,
    UNIO4,
    assert_identical,
    batch,
    goal_batch,
    rollout,
    same_values,
    sourced,
    whole_episodes,
)

from algorithms import (
    AGENTS,
    CalQLConfig,
    CQLConfig,
    DARCConfig,
    FQLConfig,
    H2OConfig,
    HNPGConfig,
    HyQConfig,
    IQLConfig,
    MOORLConfig,
    PenaltyConfig,
    ReBRACConfig,
    RLPDConfig,
    SACConfig,
    TD3BCConfig,
    UniO4Stage,
    WSRLConfig,
)
from algorithms.darc import DARC_SAC
from algorithms.h2o import H2O_SAC
from algorithms.hyq import HyQRun
from algorithms.moorl import MOORL_SAC
from algorithms.rlpd import RLPD_SAC
from hybridrl.checkpoint import Checkpoints
from hybridrl.types import OnPolicyBatch, SourceBlock, SourcedBatch, Transitions

JOINT = dataclasses.replace(TINY, critic_updates=1, num_backup_actions=2)
PENALTY = PenaltyConfig(num_actions=2)
FOUR_WIDE = {"actor_hidden_dims": (4,), "critic_hidden_dims": (4,)}
CONFIGS = {
    "sac": TINY,
    "cql": CQLConfig(JOINT, PENALTY),
    "calql": CalQLConfig(JOINT, dataclasses.replace(PENALTY, multiplier="lagrange")),
    "rlpd": RLPDConfig(
        dataclasses.replace(RLPD_SAC, actor_hidden_dims=(4,), critic_hidden_dims=(4,), num_critics=3, critic_updates=2)
    ),
    "wsrl": WSRLConfig(TINY),
    **BASELINES,
    "h2o": H2OConfig(dataclasses.replace(H2O_SAC, **FOUR_WIDE), DISCRIMINATOR),
    "darc": DARCConfig(dataclasses.replace(DARC_SAC, **FOUR_WIDE), DISCRIMINATOR),
    "darcplus": DARCConfig(dataclasses.replace(DARC_SAC, **FOUR_WIDE), DISCRIMINATOR, critic_on_real=True),
    "moorl": MOORLConfig(dataclasses.replace(MOORL_SAC, **FOUR_WIDE), inner_steps=2, act_with="adapted"),
    "mixedsac": MOORLConfig(dataclasses.replace(MOORL_SAC, **FOUR_WIDE), inner_steps=2, meta_rate=1.0),
    "lookaheadsac": MOORLConfig(dataclasses.replace(MOORL_SAC, **FOUR_WIDE), inner_steps=2),
    "unio4": UniO4Stage(UNIO4, "policies", num_updates=10),
    "ppo": PPO,
    "bppo": UniO4Stage(BPPO, "policies", num_updates=10),
    "hnpg": HNPGConfig(horizon=3, actor_hidden_dims=(4,), critic_hidden_dims=(4,), critic_updates=2),
    "trpo": HNPGConfig(
        actor_hidden_dims=(4,),
        critic_hidden_dims=(4,),
        critic_updates=2,
        discount=0.9,
        offline_critic=False,
        offline_actor=False,
        standardize_observations=True,
    ),
    "hyq": HyQRun(HyQConfig(horizon=3, critic_updates=2, batch_size=4, learning_rate=1e-2), copies=2, capacity=30),
    **GOAL_AGENTS,
}
BLOCKS = ("moorl", "mixedsac", "lookaheadsac")
BY_SOURCE = ("h2o", "darc", "darcplus")
BY_STEP = ("hnpg", "hyq")


def rows_for(name, seed=0):
    """What an update of the agent takes."""
    if name in BLOCKS:
        rows = jax.tree.map(lambda *fields: jnp.stack(fields), batch(8, 2 * seed), batch(8, 2 * seed + 1))
        return SourceBlock(transitions=rows, offline_share=jnp.float32(seed % 2))
    if name in GOAL_AGENTS:
        return goal_batch(name, 8, seed)
    if name in ("ppo", "trpo"):
        return OnPolicyBatch(rollout(seed))
    if name in BY_STEP:
        return whole_episodes(seed)
    return sourced(seed) if name in BY_SOURCE else batch(8, seed)


def create(name, seed):
    return AGENTS[name].create(jax.random.key(seed), batch(), CONFIGS[name])


def trained(name, seed, updates=2):
    agent = create(name, seed)
    for number in range(updates):
        agent, _ = agent.update(rows_for(name, number))
    return agent


def sac_of(agent):
    while not hasattr(agent, "actor"):
        agent = agent.cql if hasattr(agent, "cql") else agent.sac
    return agent


def actor_of(agent):
    parts = agent.parts()
    return next(parts[role] for role in ("actor", "low_actor", "critic") if role in parts)


def slow_if(*slow, among=CONFIGS):
    """All agents; those named, another's code with other settings, are marked slow."""
    return [pytest.param(name, marks=pytest.mark.slow) if name in slow else name for name in among]


def slow_but(*fast, among=CONFIGS):
    """All agents; those that wrap a fast one's code are marked slow."""
    return slow_if(*(name for name in among if name not in fast), among=among)


def test_every_agent_is_tested_here():
    assert set(CONFIGS) == set(AGENTS)


@pytest.mark.parametrize("name", slow_if("darcplus", "mixedsac", "lookaheadsac", "hiql", "bppo"))
def test_agent(name, tmp_path):
    """Everything that one compiled update can show."""
    # Same key, same result; another key, another one; the old agent is left as it was.
    start = create(name, 0)
    once = trained(name, 0)
    assert_identical(once, trained(name, 0))
    assert not same_values(actor_of(once).params, actor_of(trained(name, 1)).params)
    assert_identical(start, create(name, 0))
    reached, metrics = once.update(rows_for(name))
    assert all(value.shape == () and np.isfinite(value) for value in metrics.values())
    assert all("/" in metric for metric in metrics)

    # Restoring continues exactly.
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, once, {})
    restored = checkpoints.restore(1, start)
    assert_identical(restored.update(rows_for(name))[0], reached)

    # Three seeds share one compilation (tracing is enough to see it).
    chex.clear_trace_counter()  # which counts by function, and two names may share one
    step = jax.jit(chex.assert_max_traces(type(start).update.__wrapped__, n=1))
    for seed in range(3):
        step.trace(create(name, seed), rows_for(name))

    # Parts can be taken out and put back. An agent's own count of updates is none: a new agent begins at 0.
    own = {field: getattr(once, field) for field in ("delay", "count") if hasattr(once, field)}
    assert_identical(start.with_parts(once.parts()).replace(**own), once)
    found = once.diagnose(rows_for(name) if name in GOAL_AGENTS else batch(), jax.random.key(0))
    assert set(found) == (set() if name in ("bc", "gcbc", "crl", "qrl", *BY_STEP) else {"q", "td_error"})


@pytest.mark.parametrize("name", slow_but("sac", "calql", "td3bc", "iql", "fql", "ota"))
def test_vmapped_seeds_equal_lone_seeds(name):
    keys = jax.random.split(jax.random.key(7), 3)
    kind, config, rows = AGENTS[name], CONFIGS[name], rows_for(name)
    stacked = jax.jit(jax.vmap(lambda key: kind.create(key, batch(), config).update(rows)[0]))(keys)
    for index, key in enumerate(keys):
        alone, _ = kind.create(key, batch(), config).update(rows)
        together = jax.tree.map(lambda leaf, index=index: leaf[index], stacked)
        for role in {"actor", "low_actor", "critic", "high_value"} & alone.parts().keys():
            pairs = zip(
                jax.tree.leaves(alone.parts()[role].params),
                jax.tree.leaves(together.parts()[role].params),
                strict=True,
            )
            for a, b in pairs:
                np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", [name for name in CONFIGS if name not in (*GOAL_AGENTS, *BY_STEP, "trpo")])
def test_deterministic_policy_is_the_mode(name):
    agent, observations = create(name, 0), batch().observations
    mode = agent.policy(deterministic=True)
    sampled = agent.policy(deterministic=False)
    first, carry = mode.act(mode.begin(None), observations, jax.random.key(0))
    assert carry == ()
    actions = [sampled.act((), observations, jax.random.key(seed))[0] for seed in (0, 0, 1)]
    np.testing.assert_array_equal(actions[0], actions[1])
    if name == "fql":  # it has no mode and samples in evaluation too
        np.testing.assert_array_equal(first, actions[0])
    else:
        assert_identical(mode.act((), observations, jax.random.key(1))[0], first)
        expected = sac_of(agent).actor(observations)
        if not isinstance(expected, jax.Array):  # a distribution, else the action itself
            plain = name in ("iql", "unio4", "bppo", "ppo")  # not squashed
            expected = np.clip(expected.mean, -1, 1) if plain else np.tanh(expected.mean)
        np.testing.assert_allclose(first, expected, rtol=1e-6)
    assert np.array_equal(actions[0], actions[2]) == (name == "bc")
    assert name == "ppo" or float(jnp.abs(actions[0]).max()) <= 1.0  # it keeps its draws, which environments clip


def learns(config):
    """Settings under which a small agent solves a probe in a thousand updates."""
    return dataclasses.replace(
        config,
        actor_hidden_dims=(16,),
        critic_hidden_dims=(16, 16),
        num_critics=2,
        num_target_critics=2,
        subset_with_replacement=False,
        actor_learning_rate=3e-3,
        critic_learning_rate=3e-3,
        temperature_learning_rate=3e-3,
        target_update_rate=0.05,
        discount=0.9,
        initializer="xavier_uniform",
        initial_temperature=0.05,
        target_entropy_per_dim=-1.0,
    )


NETS = {
    "actor_hidden_dims": (16,),
    "critic_hidden_dims": (16, 16),
    "initializer": "xavier_uniform",
    "discount": 0.9,
    "target_update_rate": 0.05,
}
SMALL = NETS | {"actor_learning_rate": 3e-3, "critic_learning_rate": 3e-3}
WEAK = PenaltyConfig(num_actions=2, weight=0.02)
BACKUP = dataclasses.replace(learns(CQLConfig().sac), num_backup_actions=2)
UPDATES = 700
LEARNERS = {
    "sac": learns(SACConfig(critic_updates=1)),
    "cql": CQLConfig(BACKUP, WEAK),
    "calql": CalQLConfig(BACKUP, WEAK),
    "rlpd": RLPDConfig(dataclasses.replace(learns(RLPD_SAC), critic_updates=2)),
    "wsrl": WSRLConfig(learns(SACConfig(critic_updates=2))),
    # The bandit's data are uniform in the action, so that cloning pulls towards 0: it must count for little.
    "td3bc": TD3BCConfig(q_weight=40.0, standardize_observations=False, **SMALL),
    "iql": IQLConfig(learning_rate=3e-3, expectile=0.5, awr_temperature=40.0, value_hidden_dims=(16, 16), **NETS),
    # Where all observations are 0, layer norm leaves little of an action but its sign.
    "rebrac": ReBRACConfig(actor_bc_weight=0.02, critic_bc_weight=0.0, critic_layer_norm=False, **SMALL),
    "fql": FQLConfig(learning_rate=6e-3, bc_weight=0.02, flow_steps=3, critic_layer_norm=False, **NETS),
    "h2o": H2OConfig(learns(H2O_SAC), DISCRIMINATOR),
    "darc": DARCConfig(learns(DARC_SAC), DISCRIMINATOR),
    "darcplus": DARCConfig(learns(DARC_SAC), DISCRIMINATOR, critic_on_real=True),
    "moorl": MOORLConfig(learns(MOORL_SAC), inner_steps=2),
    "mixedsac": MOORLConfig(learns(MOORL_SAC), inner_steps=2, meta_rate=1.0),
    "lookaheadsac": MOORLConfig(learns(MOORL_SAC), inner_steps=2),
}


def transitions(probe, rows=256):
    """Uniform actions in every state of the bandit or the chain."""
    actions = np.random.default_rng(0).uniform(-1, 1, (rows, 1))
    if probe == "bandit":  # one state, then the end; reward 1 - (a - 0.5)^2
        states, ends = np.zeros((rows, 1)), np.ones(rows, bool)
        rewards, following = 1 - (actions[:, 0] - 0.5) ** 2, np.zeros((rows, 1))
    else:  # -1 -> +1 -> end, with reward 1 on the last step
        states = np.where(np.arange(rows) % 2, 1.0, -1.0)[:, None]
        ends = states[:, 0] > 0
        rewards, following = ends * 1.0, np.ones((rows, 1))
    returns = rewards if probe == "bandit" else np.where(ends, 1.0, 0.9)
    columns = (states, actions, rewards, 1.0 - ends, following, returns)
    return Transitions(*[jnp.asarray(column, jnp.float32) for column in columns])


@pytest.mark.parametrize("name", slow_but("sac", "calql", "td3bc", "iql", "rebrac", "fql", among=LEARNERS))
def test_agent_solves_the_probes(name):
    """The bandit's best action is 0.5; the chain's values are 0.9 and 1 at discount 0.9."""

    @jax.jit
    def train(agent, data):
        def draw(key, count=32):
            rows = jax.random.randint(key, (count,), 0, len(data.rewards))
            return jax.tree.map(lambda field: field[rows], data)

        def step(agent, key):
            if name in BY_SOURCE:  # a simulator without a gap
                keys, count = jax.random.split(key), 32 + DISCRIMINATOR.batch_size
                return agent.update(SourcedBatch(draw(keys[0], count), draw(keys[1], count)))[0], None
            if name in BLOCKS:
                rows = jax.tree.map(lambda field: field.reshape(2, 32, *field.shape[1:]), draw(key, 64))
                return agent.update(SourceBlock(transitions=rows, offline_share=jnp.float32(1.0)))[0], None
            return agent.update(draw(key))[0], None

        return jax.lax.scan(step, agent, jax.random.split(jax.random.key(1), UPDATES))[0]

    found = {}
    for probe in ("bandit", "chain"):
        data = transitions(probe)
        start = AGENTS[name].create(jax.random.key(0), data, LEARNERS[name])
        end = train(start, data)
        if name in ("td3bc", "rebrac"):
            # Values near 0 make the first scale-free gradients huge, and Adam remembers: the actor begins once more.
            end = train(end.replace(actor=start.actor, target_actor_params=start.target_actor_params), data)
        found[probe] = sac_of(end)
    actions = found["bandit"].policy(deterministic=True).act((), jnp.zeros((64, 1)), jax.random.key(0))[0]
    np.testing.assert_allclose(actions.mean(), 0.5, atol=0.12)
    # RLPD's targets hold the entropy bonus, of which the last step's reward has none and the first one little.
    states = jnp.repeat(jnp.array([[-1.0], [1.0]]), 5, axis=0)
    actions = jnp.tile(jnp.linspace(-0.9, 0.9, 5), 2)[:, None]
    q = np.asarray(found["chain"].critic(states, actions)).reshape(2, 2, 5).mean(axis=(0, 2))
    np.testing.assert_allclose(q, [0.9, 1.0], atol=0.08)
