"""What Uni-O4 is made of before its policies improve: clones, values, the model; each loss against NumPy."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import uni_o4_reference as reference
from numpy_reference import assert_close, gradient, to_numpy
from tiny import UNIO4, assert_identical, batch, perturbed

from algorithms import (
    ClonesConfig,
)
from algorithms.clone_ensemble import clone, clone_losses, gaussian_divergences
from algorithms.offline_values import OfflineValues
from algorithms.transition_model import TransitionModel
from hybridrl.datasets.dataset import Dataset
from hybridrl.distributions import Normal
from hybridrl.errors import ConfigError
from hybridrl.replay import Bootstrap
from hybridrl.types import BootstrapBatch

EXAMPLE = jax.tree.map(lambda field: field[:1], batch())


def dataset(rows):
    count = len(rows.rewards)
    return Dataset(rows, jnp.zeros(count), jnp.zeros(1, jnp.int32), jnp.full(1, count, jnp.int32))


def bootstrapped(rows=8, seed=0):
    """Three members' rows, all different, and eight rows held out."""
    training = jax.tree.map(lambda *fields: jnp.stack(fields), *(batch(rows, 10 * seed + i) for i in range(3)))
    return BootstrapBatch(training, batch(8, 99), jnp.int32(2 * rows))


# Clones


def members(count=3, rows=6, dim=2, seed=0):
    rng = np.random.default_rng(seed)
    mean = rng.uniform(-0.8, 0.8, (count, rows, dim))
    return mean, np.exp(rng.uniform(-2.0, 0.0, (count, rows, dim)))


@pytest.mark.parametrize("cap", [5.0, 1e-3])
@pytest.mark.parametrize("kind", ["none", "kl_max", "kl_gauss", "specialise", "code_heuristic"])
def test_clone_losses_and_their_gradients_agree_with_numpy(kind, cap):
    (mean, std), rng = members(), np.random.default_rng(1)
    actions, noise = rng.uniform(-1, 1, (6, 2)), rng.standard_normal(mean.shape)
    weights = np.array([0.0, 1.0, 2.0, 1.0, 1.0, 1.0])
    config = ClonesConfig(num_members=3, diversity=kind, diversity_weight=0.3, max_divergence=cap)

    def theirs(moving):
        arguments = (mean, std, actions, noise, weights, kind, 0.3, cap)
        return reference.clone_losses(moving["mean"], moving["std"], *arguments).sum()

    def ours(moving):
        found = clone_losses(
            Normal(moving["mean"], moving["std"]), *map(jnp.float32, (actions, noise, weights)), config
        )
        return found[0].sum()

    moving = {"mean": mean, "std": std}
    value, slopes = jax.value_and_grad(ours)(jax.tree.map(jnp.float32, moving))
    np.testing.assert_allclose(value, theirs(moving), rtol=1e-4)
    assert_close(slopes, gradient(theirs, moving), 2e-3, 2e-4, f"gradients of {kind}")


def test_gaussian_divergence_by_hand():
    """KL(N(0, 1) || N(1, 2)) = log 2 + (1 + 1) / 8 - 1 / 2 per dimension."""
    first, second = Normal(jnp.zeros((1, 3)), jnp.ones((1, 3))), Normal(jnp.ones((1, 3)), jnp.full((1, 3), 2.0))
    np.testing.assert_allclose(gaussian_divergences(first, second), 3 * (np.log(2) - 0.25), rtol=1e-6)


@functools.partial(jax.jit, static_argnums=(0, 1))
def toy(kind, alpha):
    """Four state-free Gaussians on actions around -0.6 and 0.6: mean log-likelihoods and divergences, two seeds."""
    config = ClonesConfig(num_members=4, diversity=kind, diversity_weight=alpha)
    optimizer = optax.adam(1e-2)

    def distribution(raw):
        mean, log_std = jnp.tanh(raw[0]), -5.0 + 2.5 * (jnp.tanh(raw[1]) + 1.0)
        return Normal(mean[:, None, None], jnp.exp(log_std)[:, None, None])

    def draw(key, rows):
        side_key, key = jax.random.split(key)
        sides = jnp.where(jax.random.bernoulli(side_key, shape=(rows, 1)), 0.6, -0.6)
        return sides + 0.1 * jax.random.normal(key, (rows, 1))

    def train(key):
        start_key, key, test_key = jax.random.split(key, 3)
        raw = 0.3 * jax.random.normal(start_key, (2, 4))

        def step(state, key):
            raw, moments = state
            data_key, noise_key = jax.random.split(key)
            actions, noise = draw(data_key, 256), jax.random.normal(noise_key, (4, 256, 1))

            def loss(raw):
                one = distribution(raw)
                wide = Normal(*(jnp.broadcast_to(part, (4, 256, 1)) for part in (one.mean, one.std)))
                return clone_losses(wide, actions, noise, jnp.ones(256), config)[0].sum()

            updates, moments = optimizer.update(jax.grad(loss)(raw), moments)
            return (optax.apply_updates(raw, updates), moments), None

        (raw, _), _ = jax.lax.scan(step, (raw, optimizer.init(raw)), jax.random.split(key, 2_000))
        found = distribution(raw)
        log_probs = Normal(found.mean, found.std).log_prob(jnp.broadcast_to(draw(test_key, 2_000)[None], (4, 2_000, 1)))
        one, other = (Normal(*(part[index, 0] for part in (found.mean, found.std))) for index in PAIRS)
        return log_probs.mean(), log_probs.max(axis=0).mean(), gaussian_divergences(one, other).mean()

    return jax.tree.map(jnp.mean, jax.vmap(train)(jax.random.split(jax.random.key(0), 2)))


PAIRS = tuple(np.array([(i, j) for i in range(4) for j in range(4) if i != j]).T)


def test_diversity_diversifies_and_specialising_covers_both_modes():
    likelihood, best, apart = toy("none", 0.0)
    strong_likelihood, _, strong_apart = toy("kl_max", 0.5)
    assert strong_apart >= 5.0 * apart
    assert likelihood - strong_likelihood < 0.2
    weak_likelihood, _, weak_apart = toy("kl_max", 0.1)
    assert weak_apart >= 0.9 * apart
    assert likelihood - weak_likelihood < 0.02
    assert toy("specialise", 0.3)[1] - best > 0.2


def test_the_published_codes_diversity_changes_nothing():
    """Its gradient is that of the likelihood, scaled, and Adam does not see scales."""
    found = []
    for alpha in (0.0, 0.1, 0.5):
        config = dataclasses.replace(UNIO4.clones, diversity="code_heuristic", diversity_weight=alpha)
        clones, step = config.create(jax.random.key(0), EXAMPLE), jax.jit(clone, static_argnums=3)
        for number in range(4):
            clones, _ = step(clones, batch(8, number), jax.random.key(number), config)
        found.append(clones.params)
    assert_close(found[1], to_numpy(found[0]), 1e-4, 1e-5, "alpha = 0.1")
    assert_close(found[2], to_numpy(found[0]), 1e-4, 1e-5, "alpha = 0.5")


def test_only_returns_above_the_bound_are_cloned():
    """The gradient is that of the chosen rows alone."""
    config = dataclasses.replace(UNIO4.clones, diversity="none", min_return=0.0)
    clones, rows = config.create(jax.random.key(0), EXAMPLE), batch()
    chosen = np.flatnonzero(np.asarray(rows.mc_returns) > 0.0)
    assert 0 < len(chosen) < 8
    few = jax.tree.map(lambda field: field[chosen], rows)
    step = jax.jit(clone, static_argnums=3)
    both, _ = step(clones, rows, jax.random.key(0), config)
    alone, _ = step(clones, few, jax.random.key(0), dataclasses.replace(config, min_return=None))
    assert_close(both.opt_state[0].mu, to_numpy(alone.opt_state[0].mu), 1e-4, 1e-6, "gradients")


# Values


def test_iqls_value_is_the_mean_at_one_half_and_rises_with_the_expectile():
    """In one state, of actions that end the episode with rewards 0 and 1, at most the better one's value."""
    rewards = jnp.arange(8) % 2.0
    rows = batch().replace(
        observations=jnp.zeros((8, 2)),
        actions=jnp.stack([rewards - 0.5, rewards - 0.5], axis=1),
        rewards=rewards,
        masks=jnp.zeros(8),
    )

    def learnt(expectile):
        config = dataclasses.replace(UNIO4.values, expectile=expectile, learning_rate=3e-2)
        values = OfflineValues.create(jax.random.key(0), rows, config)
        values = train(values)
        return values.value(rows.observations)[0], values.target_q(rows.observations, rows.actions)

    @jax.jit
    def train(values):
        return jax.lax.scan(lambda v, _: (v.update(rows, 0.9)[0], None), values, length=300)[0]

    found = [learnt(expectile) for expectile in (0.5, 0.7, 0.9)]
    value, q = found[0]
    np.testing.assert_allclose(value, q.mean(), atol=0.02)
    assert found[0][0] < found[1][0] < found[2][0] <= found[2][1].max() + 1e-2


@pytest.mark.parametrize("kind", ["iql", "sarsa"])
def test_values_agree_with_numpy(kind):
    """Both losses, the order V, Q, target, and rows whose next action nobody knows."""
    from baselines_reference import critics, value

    config = dataclasses.replace(UNIO4.values, kind=kind, target_every=1)
    values = OfflineValues.create(jax.random.key(0), EXAMPLE, config)
    values = values.replace(
        critic=values.critic.replace(params=perturbed(values.critic.params, jax.random.key(1))),
        value=values.value.replace(params=perturbed(values.value.params, jax.random.key(2))),
        target_critic_params=perturbed(values.critic.params, jax.random.key(3)),
    )
    rows = batch().replace(masks=jnp.ones(8).at[3].set(0.0))
    b = to_numpy(rows)
    new, metrics = jax.jit(OfflineValues.update, static_argnums=2)(values, rows, 0.9)
    critic, target = to_numpy(values.critic.params), to_numpy(values.target_critic_params)

    def value_loss(params):
        v = value(params, b.observations)
        if kind == "sarsa":
            return ((v - b.mc_returns) ** 2).mean()
        u = critics(target, b.observations, b.actions).min(axis=0) - v
        return (np.where(u > 0, config.expectile, 1 - config.expectile) * u**2).mean()

    known = np.isfinite(b.next_actions).all(axis=1)
    assert not known[2]
    if kind == "iql":
        following, weights = value(to_numpy(new.value.params), b.next_observations), np.ones(8)
    else:
        following = critics(target, b.next_observations, np.nan_to_num(b.next_actions)).min(axis=0)
        weights = (known | (b.masks == 0)).astype(float)
    y = b.rewards + 0.9 * b.masks * following

    def critic_loss(params):
        return (weights * (critics(params, b.observations, b.actions) - y) ** 2).mean(axis=1).sum()

    np.testing.assert_allclose(metrics["value/loss"], value_loss(to_numpy(values.value.params)), rtol=1e-4)
    np.testing.assert_allclose(metrics["critic/loss"], critic_loss(critic), rtol=1e-3)
    slopes = {"value": gradient(value_loss, to_numpy(values.value.params)), "critic": gradient(critic_loss, critic)}
    for name, slope in slopes.items():
        found = jax.tree.map(lambda moment: moment / 0.1, getattr(new, name).opt_state[0].mu)
        assert_close(found, slope, 2e-3, 2e-4, f"{name}'s gradients")
    rate = config.target_update_rate
    expected = jax.tree.map(lambda n, o: rate * n + (1 - rate) * o, to_numpy(new.critic.params), target)
    assert_close(new.target_critic_params, expected, 1e-4, 1e-5, "target")


def test_ends_that_are_terminal_and_ends_that_are_cut():
    """No bootstrap through a termination; through a cut there is, unless the published code's rule is asked for."""
    rows = batch().replace(rewards=jnp.zeros(8))  # row 2 was cut: its next action is not known; rows 3 and 7 ended

    def targets(**changes):
        values = OfflineValues.create(jax.random.key(0), EXAMPLE, dataclasses.replace(UNIO4.values, **changes))
        one = jax.jit(lambda v, r: v.update(r, 0.9)[1]["critic/target_mean"])
        repeat = lambda index: jax.tree.map(lambda field: jnp.repeat(field[index : index + 1], 8, axis=0), rows)  # noqa: E731
        return [float(one(values, repeat(index))) for index in (2, 3, 4)]

    cut, ended, inside = targets()
    assert ended == 0.0 != cut
    assert inside != 0.0
    assert targets(timeouts_as_terminal=True) == [0.0, 0.0, inside]


# The transition model


def test_model_loss_agrees_with_numpy():
    model = TransitionModel.create(jax.random.key(0), EXAMPLE, UNIO4.model).fit_observations(batch(64).observations)
    model = model.replace(net=model.net.replace(params=perturbed(model.net.params, jax.random.key(1))))
    rows = bootstrapped()
    b, mean = to_numpy(rows.training), np.asarray(batch(64).observations, np.float64).mean(axis=0)
    std = np.asarray(batch(64).observations, np.float64).std(axis=0) + 1e-3
    inputs = np.concatenate([(b.observations - mean) / std, b.actions], axis=-1)
    targets = np.concatenate([b.next_observations - b.observations, b.rewards[..., None]], axis=-1)
    config = UNIO4.model

    def loss(params):
        decays = (config.weight_decays, config.output_weight_decay)
        return reference.model_loss(params, inputs, targets, *decays, config.bounds_weight)

    new, metrics = jax.jit(TransitionModel.update)(model, rows)
    params = to_numpy(model.net.params)
    np.testing.assert_allclose(metrics["model/loss"], loss(params), rtol=1e-4)
    slopes = jax.tree.map(lambda moment: moment / 0.1, new.net.opt_state[0].mu)
    assert_close(slopes, gradient(loss, params), 5e-3, 1e-3, "gradients")


def test_model_keeps_each_members_best_and_stops_by_itself():
    """Two updates are an epoch here. Held-out errors never rise, and after the stop nothing changes."""
    config = dataclasses.replace(UNIO4.model, patience=2, min_improvement=0.5)
    model, step = TransitionModel.create(jax.random.key(0), EXAMPLE, config), jax.jit(TransitionModel.update)
    errors, epochs = [], []
    for number in range(24):
        model, metrics = step(model, bootstrapped(seed=number))
        errors.append(np.asarray(model.best_errors))
        epochs.append(int(metrics["model/epochs"]))
        if bool(model.stopped):
            break
    assert np.isinf(errors[0]).all()
    assert np.isfinite(errors[1]).all()
    assert epochs[:4] == [0, 1, 1, 2]
    assert bool(model.stopped)
    assert int(model.epochs_without) == 2
    assert (np.diff(errors[1:], axis=0) <= 0).all()
    assert_identical(step(model, bootstrapped(seed=50))[0], model)
    best = model.replace(net=model.net.replace(params=model.trained()))
    np.testing.assert_allclose(best.held_out_errors(batch(8, 99)), errors[-1], rtol=1e-5)
    assert list(model.elites()) == list(np.argsort(errors[-1])[:2])


def test_bootstraps_differ_and_hold_rows_out():
    rows = batch(40)
    sampler = Bootstrap(num_members=3, holdout_share=0.25).sampler(dataset(rows))
    held_out = {tuple(row) for row in np.asarray(sampler.holdout.observations)}
    assert len(held_out) == 10
    resamples = np.asarray(sampler.resamples)
    assert resamples.shape == (3, 30)
    assert len({tuple(row) for row in resamples}) == 3
    assert len(set(resamples[0])) < 30  # with replacement
    drawn = sampler.sample(jax.random.key(0), 200)
    assert int(drawn.num_rows) == 30
    for member in range(3):
        seen = {tuple(row) for row in np.asarray(drawn.training.observations[member])}
        assert not seen & held_out
        allowed = {tuple(row) for row in np.asarray(rows.observations)[np.unique(resamples[member])]}
        assert seen <= allowed
        assert len(seen) > 0.8 * len(allowed)
    first = np.asarray(drawn.training.next_observations[0, 0])  # fields stay aligned
    index = np.flatnonzero((np.asarray(rows.observations) == np.asarray(drawn.training.observations[0, 0])).all(axis=1))
    np.testing.assert_array_equal(first, np.asarray(rows.next_observations)[index[0]])
    with pytest.raises(ConfigError, match="cannot be split"):
        Bootstrap(2).sampler(dataset(batch(1)))


def test_next_states_are_draws_of_the_elites():
    """Members differ by their mean, 0, 1 and 2, and have a deviation of 0.5; the first is no elite."""
    model = TransitionModel.create(jax.random.key(0), EXAMPLE, UNIO4.model)
    bias = jnp.arange(3.0)[:, None] * jnp.array([[1.0, 1.0, 1.0, 0.0, 0.0, 0.0]]) + jnp.array(
        [[0.0, 0.0, 0.0, 2 * jnp.log(0.5), 2 * jnp.log(0.5), 2 * jnp.log(0.5)]]
    )
    params = model.net.params["params"] | {
        "max_log_variance": jnp.full(3, 20.0),
        "min_log_variance": jnp.full(3, -20.0),
    }
    params |= {"member_heads": {"kernel": jnp.zeros((3, 5, 6)), "bias": bias}}
    model = model.replace(net=model.net.replace(params={"params": params}), best_errors=jnp.array([3.0, 2.0, 1.0]))
    model = model.replace(best_params={"params": params})
    observations = jnp.broadcast_to(jnp.array([10.0, -10.0]), (2, 4_000, 2))
    following = jax.jit(TransitionModel.sample_next)(
        model, model.elite_params(), observations, jnp.zeros((2, 4_000, 2)), jax.random.key(0)
    )
    np.testing.assert_array_equal(following[0], following[1])  # policies share their draws
    changes = np.asarray(following[0] - observations[0])
    np.testing.assert_allclose(changes.mean(axis=0), 1.5, atol=0.05)  # half from each of the elites
    np.testing.assert_allclose(changes.std(axis=0), np.sqrt(0.5**2 + 0.5**2), atol=0.03)
    assert np.corrcoef(changes.T)[0, 1] == pytest.approx(0.5, abs=0.05)  # a row's entries come from one elite
