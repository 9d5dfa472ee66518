import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy_reference import Reference, assert_same, critics, to_numpy
from tiny import TINY, assert_identical, batch, scrambled

from algorithms import SACAgent
from hybridrl.errors import ConfigError

RLPD_STYLE = dataclasses.replace(
    TINY,
    actor_layer_norm=False,
    critic_layer_norm=True,
    subset_with_replacement=False,
    shared_critic_head=False,
    actor_q="mean",
    actor_batch="last",
    entropy_backup=True,
    temperature_parameterization="exp",
    temperature_states="current",
    target_entropy_per_dim=-0.5,
)
# With one critic step the update is joint, so that there is nothing to tick.
MANY_ACTIONS = dataclasses.replace(
    TINY, critic_updates=1, std_kind="free", num_backup_actions=4, num_target_critics=3, zero_grad_ticks=True
)


def new_agent(config=TINY, seed=0):
    return SACAgent.create(jax.random.key(seed), batch(), config)


@pytest.mark.parametrize("config", [TINY, RLPD_STYLE, MANY_ACTIONS], ids=["wsrl", "rlpd", "max-backup"])
def test_update_agrees_with_numpy(config):
    """Two updates: losses, gradients (Adam's first moments), parameters, targets and the key."""
    agent = scrambled(new_agent(config))
    reference = Reference(agent)
    for seed in range(2):
        agent, metrics = agent.update(batch(8, seed))
        losses = reference.update(batch(8, seed))
        for name, expected in losses.items():
            np.testing.assert_allclose(metrics[name], expected, rtol=1e-3, atol=1e-4, err_msg=name)
        assert_same(agent, reference)


def counts(agent):
    return [int(model.opt_state[0].count) for model in (agent.actor, agent.critic, agent.temperature)]


def test_targets_move_once_per_critic_step():
    """U updates make U actor, 4U critic and U temperature steps; a still critic is (1 - rate)^(4U) as far as before."""
    agent = scrambled(new_agent(dataclasses.replace(TINY, critic_updates=4, critic_learning_rate=0.0)))
    distance = jax.tree.map(jnp.subtract, agent.target_critic_params, agent.critic.params)
    for done in (1, 2):
        agent, _ = agent.update(batch())
        assert counts(agent) == [done, 4 * done, done]
    left = jax.tree.map(jnp.subtract, agent.target_critic_params, agent.critic.params)
    for before, after in zip(jax.tree.leaves(distance), jax.tree.leaves(left), strict=True):
        np.testing.assert_allclose(after, 0.9**8 * before, rtol=1e-3, atol=1e-6)


def constant_gradients(ticks):
    """A setting in which every gradient is the same at every step.

    Rates are too small for anything to change, the deviation is fixed and tiny, returns are far above the critic.
    """
    return dataclasses.replace(
        TINY,
        critic_updates=4,
        actor_learning_rate=1e-7,
        critic_learning_rate=1e-7,
        temperature_learning_rate=1e-7,
        temperature_parameterization="exp",
        target_entropy_per_dim=-1e4,
        std_kind="free",
        std_bounds=(1e-6, 1e-6),
        discount=0.0,
        zero_grad_ticks=ticks,
    )


@pytest.mark.parametrize(
    ("ticks", "per_step"),
    [
        (False, {"actor": 1.0, "critic": 4.0, "temperature": 1.0}),
        (True, {"actor": 5**0.5, "critic": 2 * 5**0.5, "temperature": 5**0.5}),
    ],
    ids=["clean", "compatible"],
)
def test_displacement_under_constant_gradients(ticks, per_step):
    """Adam steps with zero gradients carry actor and temperature sqrt(5) = 2.236 and the critic 4.472 rates far."""
    agent = new_agent(constant_gradients(ticks))
    same = jax.tree.map(lambda field: jnp.broadcast_to(field[:1], field.shape), batch())
    same = same.replace(rewards=jnp.full(8, 1e3))

    @jax.jit
    def run(agent):
        return jax.lax.scan(lambda agent, _: (agent.update(same)[0], None), agent, length=400)[0]

    def positions(agent):
        parameters = (agent.actor.params["params"]["mean"]["bias"], agent.critic.params["params"]["head"]["bias"])
        return dict(zip(per_step, (*parameters, agent.temperature.params["params"]["raw"]), strict=True))

    start = run(agent)  # the moments have settled
    end = run(start)
    assert counts(end) == ([5 * 800] * 3 if ticks else [800, 4 * 800, 800])
    for role, before in positions(start).items():
        moved = np.abs(np.asarray(positions(end)[role], np.float64) - np.asarray(before, np.float64)) / (400 * 1e-7)
        np.testing.assert_allclose(moved, np.full_like(moved, per_step[role]), rtol=0.01, err_msg=role)


def test_targets_of_terminal_rows_are_their_rewards():
    agent = scrambled(new_agent())
    rows = batch()
    targets = np.asarray(agent.targets(rows, jax.random.key(0)))
    ended = np.asarray(rows.masks) == 0
    np.testing.assert_array_equal(targets[ended], np.asarray(rows.rewards)[ended])
    assert (targets[~ended] != np.asarray(rows.rewards)[~ended]).all()


def test_a_subset_of_all_critics_without_replacement_is_the_plain_minimum():
    config = dataclasses.replace(TINY, num_target_critics=3, subset_with_replacement=False)
    agent, rows, key = scrambled(new_agent(config)), batch(), jax.random.key(5)
    action_key, _ = jax.random.split(key)
    actions = agent.actor(rows.next_observations).sample(action_key, (1,))
    q = critics(to_numpy(agent.target_critic_params), np.asarray(rows.next_observations), np.asarray(actions), config)
    expected = np.asarray(rows.rewards) + 0.9 * np.asarray(rows.masks) * q.min(axis=0)[0]
    np.testing.assert_allclose(agent.targets(rows, key), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("replace", [False, True])
def test_random_critics_coincide_only_with_replacement(replace):
    agent = new_agent(dataclasses.replace(TINY, num_critics=10, subset_with_replacement=replace))
    pairs = np.asarray(jax.vmap(lambda key: agent.draw_critics(key, 2))(jax.random.split(jax.random.key(0), 4000)))
    assert (pairs[:, 0] == pairs[:, 1]).mean() == pytest.approx(0.1 if replace else 0.0, abs=0.025)
    assert set(np.unique(pairs)) == set(range(10))


def test_diagnosis_trains_nothing_and_is_taken_at_the_current_values():
    agent, rows, key = scrambled(new_agent()), batch(), jax.random.key(1)
    found = agent.diagnose(rows, key)
    config = agent.config
    q = critics(to_numpy(agent.critic.params), np.asarray(rows.observations), np.asarray(rows.actions), config)
    np.testing.assert_allclose(found["q"], q.mean(), rtol=1e-4)
    errors = (q - Reference(agent).td_targets(to_numpy(rows), key)) ** 2
    np.testing.assert_allclose(found["td_error"], errors.mean(), rtol=1e-3)


def test_targets_start_at_the_critic_and_temperature_at_its_setting():
    agent = new_agent(dataclasses.replace(TINY, initial_temperature=0.3))
    assert_identical(agent.critic.params, agent.target_critic_params)
    np.testing.assert_allclose(agent.temperature(), 0.3, rtol=1e-6)


def test_a_batch_that_does_not_divide_is_refused():
    with pytest.raises(ValueError, match=r"batch of 8 rows does not divide into critic_updates=3 parts"):
        new_agent(dataclasses.replace(TINY, critic_updates=3)).update(batch())


@pytest.mark.parametrize(
    "setting",
    [
        {"actor_q": "max"},
        {"actor_batch": "first"},
        {"temperature_states": "both"},
        {"std_kind": "fixed"},
        {"temperature_parameterization": "square"},
        {"initializer": "zeros"},
        {"num_target_critics": 4, "subset_with_replacement": False},
    ],
)
def test_settings_that_cannot_work_are_named(setting):
    with pytest.raises(ConfigError, match=next(iter(setting))):
        dataclasses.replace(TINY, **setting)
