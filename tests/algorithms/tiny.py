"""Small batches and networks for the agents' tests."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from algorithms import (
    BCConfig,
    ClonesConfig,
    CRLConfig,
    DiscriminatorConfig,
    FQLConfig,
    GCBCConfig,
    GCIQLConfig,
    GCIVLConfig,
    HIQLConfig,
    ImprovementConfig,
    IQLConfig,
    OfflineValuesConfig,
    OTAConfig,
    PPOConfig,
    PPORun,
    QRLConfig,
    ReBRACConfig,
    SACConfig,
    TD3BCConfig,
    TransitionModelConfig,
    UniO4Config,
)
from hybridrl.types import (
    GoalSteps,
    GoalTransitions,
    HierarchicalTransitions,
    OnPolicyBatch,
    OptionTransitions,
    Rollout,
    SourcedBatch,
    Transitions,
)

OBS_DIM, ACTION_DIM = 2, 2

TINY = SACConfig(
    actor_hidden_dims=(4,),
    critic_hidden_dims=(4,),
    num_critics=3,
    critic_updates=2,
    actor_learning_rate=1e-2,
    critic_learning_rate=3e-2,
    temperature_learning_rate=2e-2,
    target_update_rate=0.1,
    discount=0.9,
    initializer="xavier_uniform",  # compiles faster
)

_NETS = {"actor_hidden_dims": (4,), "critic_hidden_dims": (4,), "initializer": "xavier_uniform"}
_TD = _NETS | {"discount": 0.9, "target_update_rate": 0.1}
BASELINES = {
    "bc": BCConfig(learning_rate=1e-2, actor_hidden_dims=(4,), initializer="xavier_uniform"),
    "td3bc": TD3BCConfig(actor_learning_rate=1e-2, critic_learning_rate=3e-2, **_TD),
    "iql": IQLConfig(learning_rate=1e-2, value_hidden_dims=(4,), **_TD),
    "rebrac": ReBRACConfig(actor_learning_rate=1e-2, critic_learning_rate=3e-2, critic_bc_weight=0.2, **_TD),
    "fql": FQLConfig(learning_rate=1e-2, bc_weight=0.7, flow_steps=3, **_TD),
}
UNIO4 = UniO4Config(
    discount=0.9,
    values=OfflineValuesConfig(
        learning_rate=1e-2, target_update_rate=0.1, critic_hidden_dims=(4,), value_hidden_dims=(4,)
    ),
    model=TransitionModelConfig(num_members=3, num_elites=2, model_hidden_dims=(5,), learning_rate=1e-2),
    clones=ClonesConfig(num_members=2, learning_rate=1e-2, actor_hidden_dims=(4,)),
    improvement=ImprovementConfig(learning_rate=1e-2, gate_every=2, horizon=4, num_starts=6),
)
BPPO = dataclasses.replace(
    UNIO4,
    values=dataclasses.replace(UNIO4.values, kind="sarsa", num_critics=1),
    clones=dataclasses.replace(UNIO4.clones, num_members=1, diversity="none"),
    improvement=dataclasses.replace(UNIO4.improvement, schedule="exponential", positive_weight=0.9, gate="returns"),
)
_GOALS = {"learning_rate": 1e-2, "discount": 0.9, "value_hidden_dims": (5,), "actor_hidden_dims": (4,)}
_HIQL = HIQLConfig(
    representation_dim=3,
    target_update_rate=0.1,
    low_awr_temperature=2.0,
    high_awr_temperature=1.5,
    max_weight=2.0,
    **_GOALS,
)
GOAL_AGENTS = {
    "hiql": _HIQL,
    "ota": OTAConfig(_HIQL, option_steps=2),
    "gcbc": GCBCConfig(learning_rate=1e-2, actor_hidden_dims=(4,)),
    "gcivl": GCIVLConfig(target_update_rate=0.1, expectile=0.8, awr_temperature=2.0, max_weight=2.0, **_GOALS),
    "gciql": GCIQLConfig(target_update_rate=0.1, expectile=0.8, **_GOALS),
    "qrl": QRLConfig(latent_dim=16, **_GOALS),
    "crl": CRLConfig(latent_dim=3, **_GOALS),
}

PPO = PPORun(
    PPOConfig(
        actor_learning_rate=1e-2,
        value_learning_rate=3e-2,
        discount=0.9,
        clip_range=0.2,
        num_epochs=2,
        minibatch_size=4,
        actor_hidden_dims=(4,),
        value_hidden_dims=(4,),
        actor_initializer="xavier_uniform",  # compiles faster
    ),
    num_updates=10,
    num_envs=2,
)


@functools.lru_cache
def rollout(seed=0):
    """Four steps of two environments, of which the first terminates and the second is cut by a time limit."""
    rng = np.random.default_rng(200 + seed)
    shapes = {"observations": (4, 2, OBS_DIM), "actions": (4, 2, ACTION_DIM), "next_observations": (4, 2, OBS_DIM)}
    fields = {name: rng.standard_normal(shape) for name, shape in (shapes | {"rewards": (4, 2)}).items()}
    fields["masks"] = np.array([[1, 1], [0, 1], [1, 1], [1, 1]])
    fields["ends"] = np.array([[0, 0], [1, 0], [0, 1], [0, 0]])
    return Rollout(**{name: jnp.asarray(field, jnp.float32) for name, field in fields.items()})


@functools.lru_cache
def goal_batch(name, rows=8, seed=0):
    """Random rows with goals, of the kind that the agent takes; every fourth one is at its goal."""
    rng = np.random.default_rng(100 + seed)

    def states():
        return jnp.asarray(rng.standard_normal((rows, OBS_DIM)), jnp.float32)

    def steps(observations):
        masks = jnp.asarray(np.arange(rows) % 4 != 3, jnp.float32)
        return GoalSteps(observations, states(), states(), -masks, masks)

    here = states()
    actions = jnp.asarray(rng.uniform(-0.95, 0.95, (rows, ACTION_DIM)), jnp.float32)
    if name not in ("hiql", "ota"):
        return GoalTransitions(steps(here), actions, states())
    hierarchical = HierarchicalTransitions(steps(here), actions, states(), states(), states())
    return hierarchical if name == "hiql" else OptionTransitions(hierarchical, steps(here))


@functools.lru_cache
def batch(rows=8, seed=0):
    """Random transitions; every fourth one terminates, and what the third one was followed by is not known."""
    rng = np.random.default_rng(seed)

    def normal(*shape):
        return jnp.asarray(rng.normal(size=shape), jnp.float32)

    return Transitions(
        observations=normal(rows, OBS_DIM),
        actions=jnp.asarray(rng.uniform(-0.95, 0.95, (rows, ACTION_DIM)), jnp.float32),
        rewards=normal(rows),
        masks=jnp.asarray(np.arange(rows) % 4 != 3, jnp.float32),
        next_observations=normal(rows, OBS_DIM),
        mc_returns=normal(rows),
        next_actions=jnp.asarray(
            np.where(np.arange(rows)[:, None] == 2, np.nan, rng.uniform(-0.95, 0.95, (rows, ACTION_DIM))), jnp.float32
        ),
    )


def whole_episodes(seed=0, num_steps=3, num_envs=6):
    """Random episodes from beginning to end, with as many offline rows of each step."""
    shape = (num_steps, num_envs)
    rows, away = (
        jax.tree.map(lambda leaf: leaf.reshape(*shape, *leaf.shape[1:]), batch(num_steps * num_envs, number))
        for number in (2 * seed, 2 * seed + 1)
    )
    ends = jnp.broadcast_to(jnp.arange(num_steps)[:, None] == num_steps - 1, shape).astype(jnp.float32)
    seen = Rollout(rows.observations, rows.actions, rows.rewards, 1.0 - ends, ends, rows.next_observations)
    return OnPolicyBatch(seen, away)


DISCRIMINATOR = DiscriminatorConfig(hidden_dims=(4,), batch_size=6, learning_rate=2e-2)


def sourced(seed=0, rows=8 + DISCRIMINATOR.batch_size):
    """Random rows of both sources: 8 to learn from and those of the discriminators."""
    return SourcedBatch(offline=batch(rows, 2 * seed), online=batch(rows, 2 * seed + 1))


def assert_identical(first, second):
    assert jax.tree.structure(first) == jax.tree.structure(second)
    for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(first), jax.tree.leaves(second), strict=True):
        np.testing.assert_array_equal(raw(a), raw(b), err_msg=jax.tree_util.keystr(path))


def raw(leaf):
    return jax.random.key_data(leaf) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf


def same_values(first, second):
    """Whether two trees are equal to the last bit."""
    return all(
        np.array_equal(raw(a), raw(b)) for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True)
    )


@jax.jit
def perturbed(tree, key):
    """The tree with noise on every leaf, so that zeros (biases, a target equal to its critic) hide nothing."""
    leaves, structure = jax.tree.flatten(tree)
    keys = jax.random.split(key, len(leaves))
    return jax.tree.unflatten(
        structure, [leaf + 0.3 * jax.random.normal(k, leaf.shape) for leaf, k in zip(leaves, keys, strict=True)]
    )


def scrambled(sac):
    """A SAC agent in general position."""
    keys = jax.random.split(jax.random.key(42), 3)
    return sac.replace(
        actor=sac.actor.replace(params=perturbed(sac.actor.params, keys[0])),
        critic=sac.critic.replace(params=perturbed(sac.critic.params, keys[1])),
        target_critic_params=perturbed(sac.target_critic_params, keys[2]),
    )
