"""The goal-conditioned agents: losses against NumPy, where gradients go, and how they act."""

import functools

import goals_reference as numpy_agents
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import GOAL_AGENTS, batch, goal_batch, perturbed

from algorithms import AGENTS, HIQLAgent, HIQLConfig, QRLConfig
from hybridrl.errors import ConfigError
from hybridrl.losses.contrastive import binary_nce_loss
from hybridrl.losses.policy import awr_weights, ddpg_bc_loss
from hybridrl.losses.value import double_value_targets, expectile_value_loss
from hybridrl.model import Model
from hybridrl.networks import QUASIMETRICS


@functools.cache
def agent(name):
    """An agent in general position, so that no zero (a bias, a target equal to its network) hides anything."""
    found = AGENTS[name].create(jax.random.key(3), batch(), GOAL_AGENTS[name])
    keys = jax.random.split(jax.random.key(4), len(found.parts()))
    parts = {}
    for (role, part), key in zip(found.parts().items(), keys, strict=True):
        is_model = isinstance(part, Model)
        changed = perturbed(part.params if is_model else part, key)
        parts[role] = part.replace(params=changed) if is_model else changed
    return found.with_parts(parts)


@functools.cache
def updated(name):
    """After one update on the batch, and the metrics: losses at the parameters before it."""
    return agent(name).update(goal_batch(name))


def numbers(tree):
    return jax.tree.map(np.asarray, tree)


def params(name, role):
    part = agent(name).parts()[role]
    return numbers(part.params if isinstance(part, Model) else part)


def close(metric, expected, rtol=2e-5):
    np.testing.assert_allclose(metric, expected, rtol=rtol)


def test_hiql_losses_are_those_of_numpy():
    _, metrics = updated("hiql")
    rows, config = numbers(goal_batch("hiql")), GOAL_AGENTS["hiql"]
    get = functools.partial(params, "hiql")
    phi, value = get("representation"), get("value")
    close(metrics["value/loss"], numpy_agents.hiql_value(phi, value, get("target_value"), rows.steps, config))
    low, high = numpy_agents.hiql_policies(phi, value, value, get("low_actor"), get("high_actor"), rows, config)
    close(metrics["low_actor/loss"], low)
    close(metrics["high_actor/loss"], high)
    assert 0.0 < metrics["low_actor/saturated_share"] < 1.0  # the bound on weights is seen to work


def test_ota_losses_are_those_of_numpy():
    """Low level as in HIQL; the high level's gains come from the second value, which learns from options."""
    _, metrics = updated("ota")
    rows, config = numbers(goal_batch("ota")), GOAL_AGENTS["ota"].hiql
    get = functools.partial(params, "ota")
    phi, value, high_value = get("representation"), get("value"), get("high_value")
    steps = rows.hierarchical.steps
    close(metrics["value/loss"], numpy_agents.hiql_value(phi, value, get("target_value"), steps, config))
    expected = numpy_agents.hiql_value(phi, high_value, get("target_high_value"), rows.options, config)
    close(metrics["high_value/loss"], expected)
    actors = get("low_actor"), get("high_actor")
    low, high = numpy_agents.hiql_policies(phi, value, high_value, *actors, rows.hierarchical, config)
    close(metrics["low_actor/loss"], low)
    close(metrics["high_actor/loss"], high)


def test_ota_is_hiql_where_both_values_are_one():
    ota = agent("ota")
    same = ota.replace(high_value=ota.high_value.replace(params=ota.hiql.value.params))
    _, metrics = same.update(goal_batch("ota"))
    _, hiql_metrics = ota.hiql.update(goal_batch("ota").hierarchical)
    for name in ("low_actor/loss", "high_actor/loss", "value/loss"):
        close(metrics[name], hiql_metrics[name], rtol=1e-6)
    assert abs(metrics["high_actor/loss"] - updated("ota")[1]["high_actor/loss"]) > 1e-4


@pytest.mark.parametrize("name", ["gcbc", "gcivl", "gciql", "crl", "qrl"])
def test_flat_losses_are_those_of_numpy(name):
    _, metrics = updated(name)
    rows, config = numbers(goal_batch(name)), GOAL_AGENTS[name]
    get, steps = functools.partial(params, name), rows.steps
    obs, following, goals = steps.observations, steps.next_observations, steps.goals
    mean = numpy_agents.actor(get("actor"), obs, rows.actor_goals)
    log_prob = numpy_agents.log_normal(rows.actions, mean)
    played = np.clip(mean, -1.0, 1.0)
    if name == "gcbc":
        close(metrics["actor/loss"], -log_prob.mean())
    elif name == "gcivl":
        value, target = get("value"), get("target_value")
        expected = numpy_agents.double_expectile(
            steps.rewards,
            steps.masks,
            numpy_agents.heads(target, following, goals),
            numpy_agents.heads(target, obs, goals),
            numpy_agents.heads(value, obs, goals),
            config.discount,
            config.expectile,
        )
        close(metrics["value/loss"], expected)
        gain = (
            numpy_agents.heads(value, following, rows.actor_goals) - numpy_agents.heads(value, obs, rows.actor_goals)
        ).mean(0)
        close(metrics["actor/loss"], numpy_agents.cloning(gain, log_prob, config.awr_temperature, config.max_weight))
    elif name == "gciql":
        critic, value = get("critic"), get("value")
        v = numpy_agents.heads(value, obs, goals)[0]
        gap = numpy_agents.heads(get("target_critic"), obs, goals, rows.actions).min(0) - v
        close(metrics["value/loss"], (np.abs(config.expectile - (gap < 0)) * gap**2).mean())
        target = steps.rewards + config.discount * steps.masks * numpy_agents.heads(value, following, goals)[0]
        errors = numpy_agents.heads(critic, obs, goals, rows.actions) - target
        close(metrics["critic/loss"], (errors**2).sum(0).mean())
        q = numpy_agents.heads(critic, obs, rows.actor_goals, played).min(0)
        close(metrics["actor/loss"], numpy_agents.ddpg_bc(q, log_prob, config.bc_weight))
    elif name == "crl":
        part = get("critic")["params"]

        def embeddings(kind, *inputs):
            return np.stack([numpy_agents.embed(numpy_agents.member(part[kind], i), *inputs) for i in range(2)])

        close(
            metrics["critic/loss"], numpy_agents.nce(embeddings("steps", obs, rows.actions), embeddings("goals", goals))
        )
        products = embeddings("steps", obs, played) * embeddings("goals", rows.actor_goals)
        q = (products.sum(-1) / np.sqrt(config.latent_dim)).min(0)
        close(metrics["actor/loss"], numpy_agents.ddpg_bc(q, log_prob, config.bc_weight))
    else:
        share, encoder, dynamics = get("metric")["params"]["share"], get("encoder"), get("dynamics")
        weight = np.exp(get("multiplier")["params"]["raw"])
        here, there, far = (numpy_agents.embed(encoder, states) for states in (obs, following, goals))
        predicted = here + numpy_agents.embed(dynamics, here, rows.actions)
        spread = (100.0 * np.log1p(np.exp(5.0 - numpy_agents.iqe(here, far, share) / 100.0))).mean()
        close(metrics["metric/spread_loss"], spread)
        close(metrics["metric/step_excess"], (np.maximum(numpy_agents.iqe(here, there, share) - 1.0, 0.0) ** 2).mean())
        both_ways = numpy_agents.iqe(there, predicted, share) + numpy_agents.iqe(predicted, there, share)
        close(metrics["dynamics/loss"], both_ways.mean() / 2.0, rtol=1e-4)
        close(metrics["multiplier/value"], weight)
        led_to = here + numpy_agents.embed(dynamics, here, played)
        q = -numpy_agents.iqe(led_to, numpy_agents.embed(encoder, rows.actor_goals), share)
        close(metrics["actor/loss"], numpy_agents.ddpg_bc(q, log_prob, config.bc_weight), rtol=1e-4)


@pytest.mark.parametrize(
    ("name", "network", "target"),
    [
        ("hiql", "value", "target_value"),
        ("ota", "value", "target_value"),
        ("ota", "high_value", "target_high_value"),
        ("gcivl", "value", "target_value"),
        ("gciql", "critic", "target_critic"),
    ],
)
def test_targets_follow_the_parameters_from_before_the_step(name, network, target):
    old, old_target = params(name, network), params(name, target)
    expected = jax.tree.map(lambda new, before: 0.1 * new + 0.9 * before, old, old_target)
    found = numbers(updated(name)[0].parts()[target])
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-7), found, expected)


def test_every_loss_trains_what_it_should():
    """Rows: the losses; columns: which networks have a gradient."""
    ota = agent("ota")
    models = ota.hiql.models() | {"high_value": ota.high_value}
    rows, options = goal_batch("ota").hierarchical, goal_batch("ota").options
    flagged = ota.hiql.replace(config=HIQLConfig(**{**vars(ota.hiql.config), "low_actor_trains_representation": True}))

    steps, hiql = rows.steps, ota.hiql
    target, advantages = double_value_targets(
        steps.rewards,
        steps.masks,
        hiql.heads(hiql.value, steps.next_observations, steps.goals, hiql.target_value_params),
        hiql.heads(hiql.value, steps.observations, steps.goals, hiql.target_value_params),
        hiql.config.discount,
    )

    def regression(params):
        """The value's loss with its targets as mere numbers."""
        found = hiql.represent(steps.observations, steps.goals, params["representation"])
        values = hiql.value(steps.observations, found, params=params["value"])
        return expectile_value_loss(values, target, advantages, hiql.config.expectile).mean(axis=-1).sum()

    def losses(params):
        return {
            "regression": regression(params),
            "value": ota.hiql.value_loss(params, rows.steps, ota.hiql.value, ota.hiql.target_value_params)[0],
            "high_value": ota.hiql.value_loss(params, options, ota.high_value, ota.target_high_value_params)[0],
            "low": ota.hiql.low_actor_loss(params, rows)[0],
            "low_flagged": flagged.low_actor_loss(params, rows)[0],
            "high": ota.hiql.high_actor_loss(params, rows, ota.high_value)[0],
        }

    gradients = jax.jit(jax.jacrev(losses))({role: model.params for role, model in models.items()})
    trained = {
        loss: {role for role, part in parts.items() if any(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(part))}
        for loss, parts in gradients.items()
    }
    close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-7)
    jax.tree.map(close, gradients["value"], gradients.pop("regression"))  # none flows through the targets
    del trained["regression"]
    assert trained == {
        "value": {"representation", "value"},
        "high_value": {"representation", "high_value"},
        "low": {"low_actor"},
        "low_flagged": {"low_actor", "representation"},
        "high": {"high_actor"},
    }


def test_expectile_loss_by_hand():
    one = jnp.ones(1)
    next_values, values = jnp.array([[-1.0], [-3.0]]), jnp.array([[-2.0], [-2.0]])
    targets, advantages = double_value_targets(-one, one, next_values, values, 0.9)
    np.testing.assert_allclose(targets[:, 0], [-1.9, -3.7], rtol=1e-6)
    np.testing.assert_allclose(advantages, [-1.7], rtol=1e-6)
    loss = expectile_value_loss(jnp.zeros((2, 1)), targets, advantages, 0.7)
    np.testing.assert_allclose(loss.sum(), 0.3 * (3.61 + 13.69), rtol=1e-6)
    even = expectile_value_loss(jnp.zeros((2, 1)), targets, jnp.zeros(1), 0.7)
    np.testing.assert_allclose(even.sum(), 0.7 * (3.61 + 13.69), rtol=1e-6)  # a tie counts as a gain


def test_weights_saturate_at_a_hundred():
    found = awr_weights(jnp.array([-1.0, 0.0, 1.53, 1.54]), 3.0)
    np.testing.assert_allclose(found, [np.exp(-3.0), 1.0, np.exp(4.59), 100.0], rtol=1e-5)


def test_the_critics_scale_does_not_matter():
    q, log_probs = jnp.array([-3.0, 1.0, 4.0]), jnp.array([-1.0, -2.0, 0.5])
    np.testing.assert_allclose(
        ddpg_bc_loss(q, log_probs, 0.1).mean(), ddpg_bc_loss(10.0 * q, log_probs, 0.1).mean(), rtol=1e-5
    )


def test_contrastive_loss_without_knowledge_is_log_two():
    np.testing.assert_allclose(binary_nce_loss(jnp.zeros((2, 5, 5))), np.log(2.0), rtol=1e-6)
    # What belongs together lowers it, what does not raises it.
    assert binary_nce_loss(3.0 * jnp.eye(4)[None]).mean() < np.log(2.0) < binary_nce_loss(jnp.ones((1, 4, 4))).mean()


@pytest.mark.parametrize("kind", ["iqe", "mrn"])
def test_quasimetrics_are_quasimetrics(kind):
    module = QUASIMETRICS[kind]()
    points = jnp.asarray(np.random.default_rng(0).standard_normal((3, 50, 16)), jnp.float32)
    x, y, z = points
    weights = jax.tree.map(lambda leaf: leaf + 0.7, module.init(jax.random.key(0), x, y))
    distance = jax.jit(functools.partial(module.apply, weights))
    np.testing.assert_array_equal(distance(x, x), np.zeros(50))
    assert (distance(x, y) >= 0).all()
    assert (distance(x, z) <= distance(x, y) + distance(y, z) + 1e-5).all()
    assert np.abs(distance(x, y) - distance(y, x)).max() > 0.1
    expected = numpy_agents.iqe(*map(np.asarray, (x, y)), 0.7) if kind == "iqe" else numpy_agents.mrn(x, y)
    np.testing.assert_allclose(distance(x, y), expected, rtol=1e-5)
    gradient = jax.jit(jax.grad(lambda point: module.apply(weights, point, point).sum()))(x)
    assert np.isfinite(gradient).all()


def test_the_multiplier_rises_while_steps_are_too_long():
    before = params("qrl", "multiplier")["params"]["raw"]
    after, metrics = updated("qrl")
    change = after.multiplier.params["params"]["raw"] - before
    excess = metrics["metric/step_excess"]
    assert excess > 0.05
    assert change > 0.0
    # It falls where no step has any length.
    rows = goal_batch("qrl")
    still = rows.replace(steps=rows.steps.replace(next_observations=rows.steps.observations))
    after, metrics = agent("qrl").update(still)
    assert metrics["metric/step_excess"] == 0.0
    assert after.multiplier.params["params"]["raw"] < before


def test_the_multiplier_weighs_long_steps_and_learns_from_nothing_else():
    """The gradient of QRL's loss is that of spread + weight * excess + dynamics, and of weight * (slack - excess)."""
    qrl, rows = agent("qrl"), goal_batch("qrl")
    parts = {role: model.params for role, model in qrl.models().items()}
    weight = float(np.exp(parts["multiplier"]["params"]["raw"]))

    def weighed(params):
        _, metrics = qrl.distance_loss(params, rows)
        return metrics["metric/spread_loss"] + weight * metrics["metric/step_excess"] + metrics["dynamics/loss"]

    def loss(params):
        return qrl.distance_loss(params, rows)[0]

    gradient, expected = jax.jit(lambda params: (jax.grad(loss)(params), jax.grad(weighed)(params)))(parts)
    found = gradient.pop("multiplier")["params"]["raw"]
    np.testing.assert_allclose(found, weight * (0.05 - updated("qrl")[1]["metric/step_excess"]), rtol=1e-4)
    assert expected.pop("multiplier")["params"]["raw"] == 0.0
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), gradient, expected)


@pytest.mark.parametrize("deterministic", [True, False])
def test_two_levels_act_at_every_step(deterministic):
    policy = agent("hiql").policy(deterministic=deterministic)
    rng = np.random.default_rng(0)
    goals, first, second = (jnp.asarray(5.0 * rng.standard_normal((6, 2)), jnp.float32) for _ in range(3))
    act = jax.jit(lambda carry, observations, seed: policy.act(carry, observations, jax.random.key(seed)))
    start = policy.begin(goals)
    actions, carry = act(start, first, 0)
    np.testing.assert_allclose(np.linalg.norm(carry.subgoal, axis=-1), np.sqrt(3.0), atol=1e-5)
    np.testing.assert_array_equal(carry.goal, goals)
    assert np.abs(actions).max() <= 1.0
    repeated = act(start, first, 1)[0]
    assert np.array_equal(actions, repeated) == deterministic
    _, later = act(carry, second, 0)
    assert np.abs(later.subgoal - carry.subgoal).max(axis=-1).min() > 1e-3  # named anew
    if deterministic:
        raw = numpy_agents.actor(params("hiql", "high_actor"), first, goals)
        subgoal = raw / np.linalg.norm(raw, axis=-1, keepdims=True) * np.sqrt(3.0)
        np.testing.assert_allclose(carry.subgoal, subgoal, rtol=1e-4)
        expected = numpy_agents.actor(params("hiql", "low_actor"), first, subgoal)
        np.testing.assert_allclose(actions, np.clip(expected, -1.0, 1.0), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", ["gcbc", "qrl"])
def test_one_level_acts_by_state_and_goal(name):
    goals, observations = goal_batch(name).actor_goals, goal_batch(name).steps.observations
    mode, sampled = (agent(name).policy(deterministic=value) for value in (True, False))
    actions, carry = mode.act(mode.begin(goals), observations, jax.random.key(0))
    expected = numpy_agents.actor(params(name, "actor"), observations, goals)
    np.testing.assert_allclose(actions, np.clip(expected, -1.0, 1.0), rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(carry, goals)
    noisy = sampled.act(sampled.begin(goals), observations, jax.random.key(0))[0]
    assert np.abs(noisy).max() <= 1.0
    assert np.abs(noisy - actions).max() > 0.05


def test_networks_have_the_published_sizes_and_beginnings():
    """Parameter counts of the reference code for observations and actions of 2 numbers."""
    found = jax.eval_shape(lambda key: HIQLAgent.create(key, batch()), jax.random.key(0))
    counts = {
        role: sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(model.params))
        for role, model in found.models().items()
    }
    assert counts == {"representation": 536_074, "value": 1_071_106, "low_actor": 532_994, "high_actor": 533_002}
    wide = HIQLConfig(value_hidden_dims=(512,), actor_hidden_dims=(512,))
    fresh = HIQLAgent.create(jax.random.key(0), batch(), wide)
    kernel = fresh.high_actor.params["params"]["mean"]["kernel"]
    bound = np.sqrt(3.0 * 0.01 / ((512 + 10) / 2))  # uniform, variance 0.01 over the mean of fan-in and fan-out
    assert 0.98 * bound < np.abs(kernel).max() <= bound
    first = fresh.value.params["params"]["members"]["Dense_0"]["kernel"]
    bound = np.sqrt(6.0 / (12 + 512))
    assert 0.98 * bound < np.abs(first).max() <= bound


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: HIQLConfig(expectile=1.0), "expectile=1.0; expected a number between 0 and 1"),
        (lambda: HIQLConfig(subgoal_steps=0), "subgoal_steps=0; expected at least 1"),
        (lambda: QRLConfig(latent_dim=12), "latent_dim=12; expected a multiple of 8"),
        (lambda: QRLConfig(quasimetric="l2"), "quasimetric='l2'; expected one of iqe, mrn"),
    ],
)
def test_settings_that_cannot_work_are_refused(make, message):
    with pytest.raises(ConfigError, match=message):
        make()
