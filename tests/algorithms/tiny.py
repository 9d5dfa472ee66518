"""Small batches and networks for the agents' tests."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from algorithms import (
    BCConfig,
    DiscriminatorConfig,
    FQLConfig,
    IQLConfig,
    ReBRACConfig,
    SACConfig,
    TD3BCConfig,
)
from hybridrl.types import SourcedBatch, Transitions

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
