import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from algorithms import (
    BCAgent,
    BCConfig,
    CalQLAgent,
    CalQLConfig,
    CQLConfig,
    IQLAgent,
    IQLConfig,
    PenaltyConfig,
    ReBRACAgent,
    ReBRACConfig,
    SACAgent,
    SACConfig,
    TD3BCAgent,
    TD3BCConfig,
    WSRLAgent,
    WSRLConfig,
)
from hybridrl.errors import ConfigError
from hybridrl.training.online import example_transition
from hybridrl.training.switch import carry_over, check_fit

SAC = SACConfig(actor_hidden_dims=(4,), critic_hidden_dims=(4,), num_critics=2, initializer="xavier_uniform")
OFFLINE = CalQLConfig(
    sac=dataclasses.replace(SAC, critic_updates=1, num_backup_actions=2, actor_learning_rate=0.05),
    penalty=PenaltyConfig(num_actions=2, multiplier="lagrange"),
)
EXAMPLE = example_transition(3, 2)


@pytest.fixture(scope="module")
def trained():
    """A Cal-QL agent after three updates: nothing in it is as created."""
    keys = jax.random.split(jax.random.key(5), 3)
    rows = jax.tree.map(lambda field: jax.random.normal(keys[0], (8, *field.shape[1:])), EXAMPLE)
    agent = CalQLAgent.create(keys[1], EXAMPLE, OFFLINE)
    for _ in range(3):
        agent, _ = agent.update(rows)
    return agent


def identical(first, second):
    for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
        if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        np.testing.assert_array_equal(a, b)


def test_everything_but_the_multiplier_crosses(trained):
    online = WSRLAgent.from_offline(trained, EXAMPLE, WSRLConfig(sac=SAC)).sac
    old = trained.cql.sac
    for role in ("actor", "critic", "temperature"):
        before, after = getattr(old, role), getattr(online, role)
        identical(before.params, after.params)
        identical(before.opt_state, after.opt_state)
        assert int(after.opt_state[0].count) == 3
    identical(old.key, online.key)
    identical(old.target_critic_params, online.target_critic_params)
    # Not re-synchronised: after three slow steps the target is still elsewhere.
    critic, target = (
        tree["params"]["members"]["Dense_0"]["kernel"] for tree in (online.critic.params, online.target_critic_params)
    )
    assert not np.allclose(critic, target)
    assert online.temperature() != 1.0
    assert set(trained.parts()) - set(online.parts()) == {"multiplier"}


def test_settings_are_the_new_agents(trained):
    online = WSRLAgent.from_offline(trained, EXAMPLE, WSRLConfig(sac=SAC))
    assert online.config.sac == SAC == online.sac.config
    fresh = WSRLAgent.create(jax.random.key(0), EXAMPLE, WSRLConfig(sac=SAC))
    assert online.sac.actor.optimizer is fresh.sac.actor.optimizer
    assert jax.tree.structure(online) == jax.tree.structure(fresh)


def test_a_part_that_the_old_agent_lacks_stays_as_created(trained):
    plain = WSRLAgent.from_offline(trained, EXAMPLE, WSRLConfig(sac=SAC))
    again = CalQLAgent.create(jax.random.key(9), EXAMPLE, OFFLINE)
    back = carry_over(plain, again)
    identical(back.cql.sac.actor.params, trained.cql.sac.actor.params)
    identical(back.cql.multiplier, again.cql.multiplier)


def test_other_networks_are_refused_with_their_shapes(trained):
    wider = WSRLConfig(sac=dataclasses.replace(SAC, critic_hidden_dims=(6,), num_critics=5))
    with pytest.raises(ConfigError) as error:
        WSRLAgent.from_offline(trained, EXAMPLE, wider)
    text = str(error.value)
    assert "WSRLAgent cannot take over from CalQLAgent" in text
    lines = text.split("give both")[0].splitlines()[1:]
    assert [line.strip() for line in lines] == [  # and nothing of the targets, which follow the critics
        "critic: hidden_dims=(4,) before, (6,) expected",
        "critic: num_critics=2 before, 5 expected",
    ]


def test_the_check_needs_shapes_only():
    def shapes(create, config):
        return jax.eval_shape(lambda key: create(key, EXAMPLE, config), jax.random.key(0))

    offline = shapes(CalQLAgent.create, OFFLINE)
    check_fit(offline, shapes(WSRLAgent.create, WSRLConfig(sac=SAC)))
    with pytest.raises(ConfigError):
        check_fit(offline, shapes(WSRLAgent.create, WSRLConfig(sac=dataclasses.replace(SAC, num_critics=3))))


def test_wsrls_offline_agent_has_its_networks_and_the_penalty():
    sac = dataclasses.replace(SAC, entropy_backup=True, critic_updates=4, num_backup_actions=1)
    learner = WSRLConfig(sac=sac, offline_backup_actions=7).offline_learner()
    assert learner.agent_class is CalQLAgent
    assert learner.config.sac == dataclasses.replace(sac, critic_updates=1, num_backup_actions=7, entropy_backup=False)
    assert learner.config.penalty.multiplier == "lagrange"
    assert isinstance(WSRLConfig(sac=sac, offline="cql").offline_learner().config, CQLConfig)
    with pytest.raises(ConfigError, match="offline='iql'"):
        WSRLConfig(offline="iql")


def test_a_temperature_of_another_form_is_refused():
    small = {"actor_hidden_dims": (4,), "critic_hidden_dims": (4,), "num_critics": 2}
    agents = [
        SACAgent.create(
            jax.random.key(0), example_transition(2, 1), SACConfig(temperature_parameterization=kind, **small)
        )
        for kind in ("exp", "softplus")
    ]
    with pytest.raises(ConfigError, match="temperature: parameterization='exp' before, 'softplus' expected"):
        carry_over(*agents)


NETS = {"actor_hidden_dims": (4,), "critic_hidden_dims": (4,), "initializer": "xavier_uniform"}
IQL = IQLConfig(value_hidden_dims=(4,), std_kind="state", actor_layer_norm=True, critic_layer_norm=True, **NETS)


def shapes(kind, config):
    return jax.eval_shape(lambda key: kind.create(key, EXAMPLE, config), jax.random.key(0))


def test_actors_of_equal_shapes_that_mean_other_distributions_do_not_fit():
    """IQL's actor has SAC's parameters to the last shape; without the tanh they are another policy."""
    online = shapes(SACAgent, dataclasses.replace(SAC, shared_critic_head=False))
    with pytest.raises(ConfigError) as error:
        check_fit(shapes(IQLAgent, IQL), online)
    assert "actor: a NormalActor before, a TanhNormalActor expected" in str(error.value)
    assert "critic" not in str(error.value)
    check_fit(shapes(IQLAgent, dataclasses.replace(IQL, actor="tanh_normal")), online)
    with pytest.raises(ConfigError, match="actor: bounded_mean=True before, False expected"):
        check_fit(shapes(IQLAgent, dataclasses.replace(IQL, actor="bounded_mean")), shapes(IQLAgent, IQL))


def test_observations_must_be_seen_alike():
    cloned = shapes(BCAgent, BCConfig(actor="tanh_normal", actor_hidden_dims=(4,), actor_layer_norm=True))
    with pytest.raises(ConfigError, match="observations: seen standardised before, as they are by the new agent"):
        check_fit(cloned, shapes(SACAgent, SAC))
    plain = BCConfig(actor="tanh_normal", actor_hidden_dims=(4,), actor_layer_norm=True, standardize_observations=False)
    check_fit(shapes(BCAgent, plain), shapes(SACAgent, SAC))


def test_a_target_that_nobody_had_starts_at_its_network():
    """Cloning has no target actor; TD3+BC goes on from the clone, not from noise. Constants of the data cross."""
    keys = jax.random.split(jax.random.key(2), 3)
    seen = jax.random.normal(keys[0], (50, 3))
    clone = BCAgent.create(keys[1], EXAMPLE, BCConfig(actor_hidden_dims=(4,))).fit_observations(seen)
    fresh = TD3BCAgent.create(keys[2], EXAMPLE, TD3BCConfig(**NETS))
    after = carry_over(clone, fresh)
    identical(after.actor.params, clone.actor.params)
    identical(after.target_actor_params, clone.actor.params)
    identical(after.standardizer, clone.standardizer)
    identical(after.critic, fresh.critic)
    identical(after.target_critic_params, fresh.target_critic_params)
    check_fit(shapes(BCAgent, BCConfig(actor_hidden_dims=(4,))), shapes(TD3BCAgent, TD3BCConfig(**NETS)))


def test_the_place_of_a_norm_matters_only_where_there_is_one():
    plain = ReBRACConfig(actor_hidden_dims=(4,), critic_hidden_dims=(4,), critic_layer_norm=False)
    clone = BCConfig(actor_hidden_dims=(4,), standardize_observations=False)
    before = TD3BCConfig(standardize_observations=False, **NETS)
    check_fit(shapes(BCAgent, clone), shapes(ReBRACAgent, plain))
    check_fit(shapes(TD3BCAgent, before), shapes(ReBRACAgent, plain))
    with pytest.raises(ConfigError, match="critic: norm_last=False before, True expected"):
        check_fit(
            shapes(TD3BCAgent, dataclasses.replace(before, critic_layer_norm=True)),
            shapes(ReBRACAgent, dataclasses.replace(plain, critic_layer_norm=True)),
        )
