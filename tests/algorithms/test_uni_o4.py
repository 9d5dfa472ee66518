"""Uni-O4's policy stage: its loss against NumPy, and what it promises: gate, scores, handover."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import uni_o4_reference as reference
from baselines_reference import critics
from jax.tree_util import keystr
from numpy_reference import assert_close, gradient, to_numpy
from tiny import BPPO, UNIO4, assert_identical, batch, perturbed, same_values

from algorithms import (
    ClonesConfig,
    OfflineValuesConfig,
    PPOAgent,
    PPORun,
    TransitionModelConfig,
    UniO4Agent,
    UniO4Config,
    UniO4Stage,
)
from algorithms.amq import amq_scores
from algorithms.offline_ppo import LearningRate, clip_range, policy_optimizer, ppo_step, standardized_advantages
from algorithms.transition_model import TransitionModel
from envs.terminations import Unhealthy
from hybridrl.datasets.dataset import Dataset
from hybridrl.errors import ConfigError
from hybridrl.networks import select_actor
from hybridrl.replay import Bootstrap
from hybridrl.training.switch import carry_over
from hybridrl.types import BootstrapBatch, Transitions

EXAMPLE = jax.tree.map(lambda field: field[:1], batch())


def dataset(rows):
    count = len(rows.rewards)
    return Dataset(rows, jnp.zeros(count), jnp.zeros(1, jnp.int32), jnp.full(1, count, jnp.int32))


def bootstrapped(rows=8, seed=0):
    """Three members' rows, all different, and eight rows held out."""
    training = jax.tree.map(lambda *fields: jnp.stack(fields), *(batch(rows, 10 * seed + i) for i in range(3)))
    return BootstrapBatch(training, batch(8, 99), jnp.int32(2 * rows))


# Offline PPO and its gate


STAGE = UniO4Stage(UNIO4, "policies", num_updates=40)


def agent(stage=STAGE, seed=0):
    """Clones in general position, and a model and values that nobody trained."""
    found = UniO4Agent.create(jax.random.key(seed), EXAMPLE, stage).fit_observations(batch(64).observations)
    return found._begin_at(found.clones.replace(params=perturbed(found.clones.params, jax.random.key(5))))


def one_step(start, observations, key):
    """Offline PPO's step on observations as the networks see them."""
    improvement = start.stage.config.improvement
    half_width = clip_range(improvement, start.stage.num_updates, start.count)
    step = jax.jit(ppo_step, static_argnums=5)
    return step(start.policies, start.accepted, start.values, observations, key, improvement, half_width)


def test_first_step_is_the_plain_policy_gradient():
    """At equal policies all ratios are 1, the loss is minus the mean advantage, 0, and its gradient REINFORCE's."""
    start = agent()
    noise_key = jax.random.key(3)
    policies, metrics = one_step(start, start._seen(batch().observations), noise_key)
    np.testing.assert_allclose(metrics["policies/log_ratio"], 0.0, atol=1e-6)
    assert abs(float(metrics["policies/loss"])) < 1e-6
    obs = to_numpy(start._seen(batch().observations))
    mean, std = reference.actors(to_numpy(start.accepted), obs, activation=lambda x: np.maximum(x, 0.0))
    actions = mean + std * np.asarray(jax.random.normal(noise_key, mean.shape), np.float64)
    values = start.values.value(obs)
    advantages = start.values.q(jnp.float32(obs), jnp.clip(jnp.float32(actions), -1, 1)) - values[None]
    advantages = np.asarray(standardized_advantages(advantages, values), np.float64)
    for index in range(2):
        params = to_numpy(select_actor(start.accepted, index))

        def loss(params, index=index):
            now = reference.actor(params, obs, activation=lambda x: np.maximum(x, 0.0))
            return reference.ppo_loss(*now, mean[index], std[index], actions[index], advantages[index], 0.25, 0.0)

        def plain(params, index=index):
            now = reference.actor(params, obs, activation=lambda x: np.maximum(x, 0.0))
            return -(advantages[index] * reference.density(*now, actions[index])).mean()

        slope = gradient(loss, params)
        assert_close(gradient(plain, params), slope, 1e-3, 1e-5, "policy gradient")
        norm = np.sqrt(sum((leaf**2).sum() for leaf in jax.tree.leaves(slope)))
        clipped = jax.tree.map(lambda leaf, norm=norm: leaf * min(1.0, 0.5 / norm), slope)
        moments = jax.tree.map(lambda leaf: leaf / 0.1, policies.opt_state[1][0].mu)
        assert_close(select_actor(moments, index), clipped, 5e-3, 2e-4, "gradients, clipped member by member")


def test_ppo_loss_agrees_with_numpy_after_the_policies_moved():
    """The whole update: at its fifth step the clip range has fallen by a tenth."""
    config = dataclasses.replace(UNIO4.improvement, positive_weight=0.9, entropy_weight=0.01, gate="returns")
    start = agent(UniO4Stage(dataclasses.replace(UNIO4, improvement=config), "policies", 40))
    other = perturbed(start.accepted, jax.random.key(8))
    moved = jax.tree.map(lambda a, b: 0.7 * a + 0.3 * b, start.accepted, other)
    start = start.replace(policies=start.policies.replace(params=moved), count=jnp.int32(4))
    _, metrics = start.update(batch())
    key, seen = jax.random.split(start.key, 3)[1], start._seen(batch().observations)
    obs, relu = to_numpy(seen), {"activation": lambda x: np.maximum(x, 0.0)}
    old_mean, old_std = reference.actors(to_numpy(start.accepted), obs, **relu)
    mean, std = reference.actors(to_numpy(moved), obs, **relu)
    actions = old_mean + old_std * np.asarray(jax.random.normal(key, mean.shape), np.float64)
    q = start.values.q(seen, jnp.clip(jnp.float32(actions), -1, 1))
    a = np.asarray(q - start.values.value(seen)[None], np.float64)
    a = (a - a.mean(axis=1, keepdims=True)) / a.std(axis=1, ddof=1, keepdims=True)
    a *= np.where(a > 0, 0.9, 0.1)
    half_width = config.clip_range * (1 - 4 / 40)
    losses = [
        reference.ppo_loss(mean[i], std[i], old_mean[i], old_std[i], actions[i], a[i], half_width, 0.01) for i in (0, 1)
    ]
    np.testing.assert_allclose(metrics["policies/loss"], np.mean(losses), rtol=2e-3)
    assert 0.0 < float(metrics["policies/clipped"]) < 1.0
    rate = LearningRate(1e-2, 40, "linear", 200)
    assert start.policies.optimizer is policy_optimizer(rate, 0.5)


def test_equal_advantages_give_no_gradient():
    """Values around 100 leave rounding errors of 1e-5; a plain division by their deviation would blow them up to 1."""
    values = jnp.full(64, 100.0)
    noise = jnp.asarray(np.random.default_rng(0).choice([-7.6e-6, 0.0, 7.6e-6], (2, 64)), jnp.float32)
    assert float(jnp.abs(standardized_advantages(noise, values)).max()) < 0.02
    spread = standardized_advantages(jnp.asarray(np.random.default_rng(0).normal(3, 2, (2, 64)), jnp.float32), values)
    np.testing.assert_allclose(spread.mean(axis=1), 0.0, atol=1e-5)
    np.testing.assert_allclose(spread.std(axis=1, ddof=1), 1.0, atol=1e-2)


def test_schedules():
    config = UNIO4.improvement
    linear = dataclasses.replace(config, clip_range=0.25, decay_clip_until=200)
    half_widths = [float(clip_range(linear, 10_000, jnp.int32(count))) for count in (0, 200, 5_000)]
    np.testing.assert_allclose(half_widths, [0.25, 0.245, 0.245], rtol=1e-6)
    bppo = dataclasses.replace(linear, schedule="exponential")
    half_widths = [float(clip_range(bppo, 1_000, jnp.int32(count))) for count in (0, 1, 200, 900)]
    np.testing.assert_allclose(half_widths, [0.24, 0.2304, 0.25 * 0.96**201, 0.25 * 0.96**201], rtol=1e-4)
    rates = [float(LearningRate(1e-4, 100, "linear", 200)(jnp.int32(count))) for count in (0, 50, 100)]
    np.testing.assert_allclose(rates, [1e-4, 5e-5, 0.0], atol=1e-12)
    rates = [float(LearningRate(1e-4, 100, "exponential", 200)(jnp.int32(count))) for count in (0, 1, 2, 500)]
    np.testing.assert_allclose(rates, [1e-4, 1e-4, 9.8e-5, 1e-4 * 0.98**100], rtol=1e-4)


def test_gate():
    """Scores repeat exactly; equal ones are refused; the best never falls; only the member that rose is replaced."""
    start = agent()
    same, other = start.accepted, perturbed(start.accepted, jax.random.key(1))
    score = jax.jit(UniO4Agent.score)
    first = score(start, same, start.starts, start.score_key)
    np.testing.assert_array_equal(first, score(start, same, start.starts, start.score_key))
    assert not np.array_equal(first, score(start, other, start.starts, start.score_key))

    trust = jnp.ones(2, bool)
    begun = start._decide(same, first, trust)  # the clones' own gate
    np.testing.assert_array_equal(begun.gate.best, first)
    np.testing.assert_array_equal(begun.gate.acceptances, [0.0, 0.0])
    assert_identical(begun.accepted, same)

    assert_identical(begun._decide(other, first, trust).accepted, same)  # equal scores
    lower, higher = first - 1.0, first + jnp.array([-1.0, 2.0])
    assert_identical(begun._decide(other, lower, trust).accepted, same)
    rose = begun._decide(other, higher, trust)
    assert_identical(select_actor(rose.accepted, 0), select_actor(same, 0))
    assert_identical(select_actor(rose.accepted, 1), select_actor(other, 1))
    np.testing.assert_array_equal(rose.gate.best, [first[0], first[1] + 2.0])
    np.testing.assert_array_equal(rose.gate.acceptances, [0.0, 1.0])
    np.testing.assert_array_equal(rose.gate.refusals, [1.0, 0.0])
    assert np.isinf(begun.gate.least_gain)
    np.testing.assert_allclose(rose.gate.least_gain, 2.0, rtol=1e-6)
    assert_identical(begun._decide(other, higher, jnp.array([True, False])).accepted, same)  # not believed
    best = int(rose.gate.best.argmax())
    assert_identical(rose.actor.params, select_actor(rose.accepted, best))

    wary = begun.replace(stage=_with_improvement(margin=0.5), gate=begun.gate.replace(best=jnp.array([-2.0, 2.0])))
    assert_identical(wary._decide(other, jnp.array([-1.1, 2.9]), trust).accepted, same)
    assert_identical(wary._decide(other, jnp.array([-0.9, 3.1]), trust).accepted, other)
    impatient = begun.replace(stage=_with_improvement(reset_after=2), policies=begun.policies.replace(params=other))
    once = impatient._decide(other, lower, trust)
    assert_identical(once.policies.params, other)
    assert_identical(once._decide(other, lower, trust).policies.params, same)
    live = begun.replace(stage=_with_improvement(hand_over="live"), policies=begun.policies.replace(params=other))
    last = jnp.where(jnp.arange(2) == first.argmax(), first - 2.0, first.min() - 1.0)  # the order of the best turned
    last = last.at[int(first.argmin())].set(first.max() - 1.0)
    handed = live._decide(other, last, trust)
    assert_identical(handed.accepted, same)
    assert_identical(handed.actor.params, select_actor(other, int(last.argmax())))


@pytest.mark.parametrize(("reduction", "steps"), [("sum", UNIO4.improvement.horizon), ("mean_visited", 1)])
def test_a_score_is_believed_up_to_three_times_the_datas_values(reduction, steps):
    """The same constant added to all values moves the score, per step, and the data's largest value alike."""
    decide = jax.jit(UniO4Agent._score_and_decide)
    start = agent(_with_improvement(reduction=reduction))
    start = start.replace(gate=start.gate.replace(best=jnp.full(2, -1e6)))
    other, rows = perturbed(start.accepted, jax.random.key(1)), jax.tree.map(lambda leaf: leaf[:1], batch())
    value = float(start.values.q(start._seen(rows.observations), rows.actions)[0])
    score = np.asarray(decide(start, other, rows, jax.random.key(0)).gate.scores) / steps
    for ratio in (2.9, 3.1):
        shift = float((score[0] - ratio * value) / (ratio - 1.0))  # score + shift = ratio * (value + shift)
        critic = jax.tree_util.tree_map_with_path(
            lambda path, leaf, by=shift: leaf + by if "['member_heads']['bias']" in keystr(path) else leaf,
            start.values.critic.params,
        )
        values = start.values.replace(critic=start.values.critic.replace(params=critic))
        found = decide(start.replace(values=values), other, rows, jax.random.key(0)).gate
        np.testing.assert_allclose(found.scores, steps * (score + shift), rtol=1e-3, atol=1e-4)
        believed = np.abs(score + shift) <= 3.0 * abs(value + shift)
        assert believed[0] == (ratio < 3.0)
        np.testing.assert_array_equal(found.acceptances, believed)
        np.testing.assert_allclose(found.metrics()["gate/believed"], believed.mean())


def test_fresh_draws_are_the_batchs_and_the_keys():
    """As in the published code: starts from the batch, and another key, another score for the same policy."""
    start = agent(_with_improvement(common_draws=False))
    rows = batch(8, 3)
    found = [start._score_and_decide(start.accepted, rows, jax.random.key(seed)).gate.scores for seed in (0, 0, 1)]
    np.testing.assert_array_equal(found[0], found[1])
    assert (np.asarray(found[0]) != np.asarray(found[2])).all()
    expected = start.score(start.accepted, rows.observations[:6], jax.random.key(0))
    np.testing.assert_array_equal(found[0], expected)


def test_members_that_never_pass_end_as_their_clones():
    """Their steps move on all the same."""
    clones = agent()
    found, _ = clones.update(batch(8, 0))
    found = found.replace(gate=found.gate.replace(best=found.gate.best + 1e6))
    acting = found.actor.params
    for number in range(1, 6):
        found, metrics = found.update(batch(8, number))
    assert_identical(found.accepted, clones.accepted)
    assert_identical(found.actor.params, acting)
    assert metrics["gate/acceptances"] == 0.0
    assert not same_values(found.policies.params, clones.accepted)


def _with_improvement(**changes):
    improvement = dataclasses.replace(UNIO4.improvement, **changes)
    return UniO4Stage(dataclasses.replace(UNIO4, improvement=improvement), "policies", num_updates=40)


def test_updates_gate_when_due_and_never_lower_the_best_score():
    found, bests, scores = agent(), [], [np.zeros(2)]
    for number in range(6):  # gates before the first update, after the second, the fourth and the sixth
        found, _ = found.update(batch(8, number))
        bests.append(np.asarray(found.gate.best))
        scores.append(np.asarray(found.gate.scores))
        if number == 0:
            assert_identical(found.accepted, agent().accepted)
            assert_identical(found.actor.params, select_actor(agent().accepted, int(found.gate.best.argmax())))
    assert (np.diff(bests, axis=0) >= 0).all()
    assert [bool(changed) for changed in np.diff(scores, axis=0).any(axis=1)] == [True, True, False, True, False, True]
    np.testing.assert_array_equal(found.score(found.accepted, found.starts, found.score_key), found.gate.best)


def test_scores_begin_in_raw_states_of_the_data_and_networks_see_standardised_ones():
    """After one step a score is the mean of the least Q of the members' means in the data's states."""
    start = agent(_with_improvement(horizon=1))
    rows = np.asarray(batch(64).observations)
    assert all((rows == state).all(axis=1).any() for state in np.asarray(start.starts))
    seen = (np.asarray(start.starts, np.float64) - rows.mean(axis=0)) / (rows.std(axis=0) + 1e-3)
    means, _ = reference.actors(to_numpy(start.accepted), seen, activation=lambda x: np.maximum(x, 0.0))
    q = [critics(to_numpy(start.values.critic.params), seen, mean).min(axis=0).mean() for mean in means]
    np.testing.assert_allclose(start.score(start.accepted, start.starts, start.score_key), q, rtol=1e-3, atol=1e-5)


def test_a_stage_steps_nothing_but_its_own_networks():
    rows = {"model": bootstrapped()}
    trained = {
        "values": {"critic", "value", "target_critic", "values_count"},
        "model": {"model"},
        "clones": {"clones", "policies", "accepted", "actor", "key"},
    }
    for stage, own in trained.items():
        before = UniO4Agent.create(jax.random.key(0), EXAMPLE, UniO4Stage(UNIO4, stage, 40))
        before = before.fit_observations(batch(64).observations)
        after, _ = before.update(rows.get(stage, batch()))
        for role, part in before.parts().items():
            if role not in own:
                assert_identical(after.parts()[role], part)
        assert_identical(carry_over(after, agent()).parts()["policies"].params, after.policies.params)
        if stage == "values":  # targets move with every second update
            again, _ = after.update(batch())
            assert_identical(after.parts()["target_critic"], before.parts()["target_critic"])
            assert not same_values(again.parts()["target_critic"], after.parts()["target_critic"])
    with pytest.raises(ConfigError, match="resampled"):
        before.replace(stage=UniO4Stage(UNIO4, "model", 40)).update(batch())


# AM-Q


def test_scores_agree_with_numpy_step_by_step():
    """A model that adds the action to the state, a rule, and a Q that is the state's first entry."""
    model = TransitionModel.create(jax.random.key(0), EXAMPLE, UNIO4.model)
    heads = {"kernel": jnp.zeros((3, 5, 6)), "bias": jnp.zeros((3, 6)).at[:, 3:].set(-30.0)}
    params = model.net.params["params"] | {"member_heads": heads, "min_log_variance": jnp.full(3, -40.0)}
    drift = jnp.array([0.3, 0.0, 0.0])
    params["member_heads"]["bias"] = heads["bias"].at[:, :3].set(drift)
    model = model.replace(net=model.net.replace(params={"params": params}))
    starts = jnp.array([[0.0, 0.0], [0.5, 0.0], [0.8, 0.0]])
    rule = Unhealthy(intervals=((0, -1.0, 1.0),))
    arguments = (
        lambda observations: observations, lambda observations, actions: observations[..., 0], model, rule, starts, 2
    )  # fmt: skip
    # From 0: 0, 0.3, 0.6, 0.9, ended. From 0.5: 0.5, 0.8, ended. From 0.8: 0.8, ended. At most three steps each.
    total, visits = 0.0 + 0.3 + 0.6 + 0.5 + 0.8 + 0.8, 6
    for reduction, expected in {"mean_visited": total / visits, "sum": total / 3}.items():
        found = jax.jit(lambda key, kind=reduction: amq_scores(*arguments, key, 3, kind))(jax.random.key(0))
        np.testing.assert_allclose(found, [expected] * 2, rtol=1e-5)


def test_scores_rank_policies_as_the_true_dynamics_do():
    """A double integrator: the model and Q are learnt from random rows; a good, a poor and a bad controller."""
    dynamics = lambda s, a: jnp.stack(  # noqa: E731
        [s[..., 0] + 0.2 * s[..., 1], 0.98 * s[..., 1] + 0.2 * a[..., 0]], axis=-1
    )
    reward = lambda s, a: -(s[..., 0] ** 2 + 0.1 * s[..., 1] ** 2 + 0.05 * a[..., 0] ** 2)  # noqa: E731
    rng = np.random.default_rng(0)
    states = jnp.asarray(rng.uniform(-1, 1, (4_000, 2)), jnp.float32)
    actions = jnp.asarray(rng.uniform(-1, 1, (4_000, 1)), jnp.float32)
    following = dynamics(states, actions)
    rows = Transitions(states, actions, reward(states, actions), jnp.ones(4_000), following, jnp.zeros(4_000))
    sampler = Bootstrap(3).sampler(dataset(rows))
    config = TransitionModelConfig(num_members=3, num_elites=2, model_hidden_dims=(16,), learning_rate=3e-3)
    example = jax.tree.map(lambda field: field[:1], rows)

    @jax.jit
    def train(model, key):
        step = lambda model, key: model.update(sampler.sample(key, 64))  # noqa: E731
        return jax.lax.scan(step, model, jax.random.split(key, 500))

    gains = jnp.array([[-0.8, -0.8], [-0.1, -0.1], [0.4, 0.4]])
    controllers = lambda s: jnp.clip((s * gains[:, None]).sum(axis=-1, keepdims=True), -1.0, 1.0)  # noqa: E731

    def truth(starts):
        s, total = jnp.broadcast_to(starts[None], (3, *starts.shape)), jnp.zeros(3)
        for _ in range(15):
            a = controllers(s)
            total, s = total + reward(s, a).mean(axis=1), dynamics(s, a)
        return total

    @jax.jit
    def score(model, starts):
        return amq_scores(controllers, reward, model, None, starts, 3, jax.random.key(0), 15, "sum")

    right = 0
    for seed in range(5):
        model = TransitionModel.create(jax.random.key(seed), example, config).fit_observations(states)
        model, metrics = train(model, jax.random.key(100 + seed))
        errors = np.asarray(metrics["model/holdout_error"])
        assert errors[-1] < 0.1 * errors[60]  # an epoch has 50 updates
        starts = states[seed * 64 : (seed + 1) * 64]
        scores = score(model, starts)
        right += bool((np.argsort(scores) == np.argsort(truth(starts))).all())
    assert right >= 4


# The switch


def test_ppo_begins_as_the_acting_member():
    """Bitwise the same means and deviations; the values are the offline ones, and both optimisers begin afresh."""
    offline = agent()
    offline = offline.replace(actor=offline.actor.replace(params=select_actor(offline.accepted, 1)))
    values, _ = offline.values.update(offline._seen_rows(batch()), 0.9)
    offline = offline.replace(values=values)
    fresh = PPOAgent.create(jax.random.key(9), EXAMPLE, PPORun(UNIO4.ppo(), num_updates=3, num_envs=2))
    online = carry_over(offline, fresh.fit_observations(batch(64).observations))
    observations, key = batch().observations, jax.random.key(0)
    before, _ = offline.policy(deterministic=True).act((), observations, key)
    after, _ = online.policy(deterministic=True).act((), observations, key)
    np.testing.assert_array_equal(before, after)
    assert_identical(online.actor(online._seen(observations)), offline.actor(offline._seen(observations)))
    assert_identical(online.value.params, offline.values.value.params)
    for model in (online.actor, online.value):
        assert_identical(model.opt_state, model.optimizer.init(model.params))
    assert_identical(online.standardizer, offline.standardizer)


# Settings


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ClonesConfig(num_members=1), "at least 2 members"),
        (lambda: ClonesConfig(diversity="kl"), "expected one of none"),
        (lambda: OfflineValuesConfig(kind="td"), "expected 'iql' or 'sarsa'"),
        (lambda: TransitionModelConfig(num_elites=8), "expected 1 to num_members=7"),
        (lambda: UniO4Stage(trains="actor"), "expected one of values"),
        (lambda: dataclasses.replace(UniO4Config().improvement, reduction="max"), "expected one of mean_visited"),
        (lambda: dataclasses.replace(UniO4Config().improvement, positive_weight=1.5), "or null"),
    ],
)
def test_settings_that_cannot_work_are_refused(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


def test_a_task_without_data_is_refused():
    with pytest.raises(ConfigError, match="learn from a dataset"):
        UniO4Agent.create(jax.random.key(0), EXAMPLE, STAGE).fit_observations(None)


def test_returns_decide_where_they_are_asked_to():
    """BPPO's snapshots follow returns; the published choice of a member takes the best of the three best."""
    start = agent(UniO4Stage(BPPO, "policies", 40))
    assert len(start.candidates()) == 1
    begun = start.judged(jnp.array([10.0]))
    moved = begun.replace(policies=begun.policies.replace(params=perturbed(begun.accepted, jax.random.key(1))))
    assert_identical(moved.judged(jnp.array([9.0])).accepted, begun.accepted)
    better = moved.judged(jnp.array([11.0]))
    assert_identical(better.accepted, moved.policies.params)
    assert_identical(better.candidates()[0].policy.actor.params, better.actor.params)
    np.testing.assert_array_equal(better.gate.best, [11.0])

    four, ranks = dataclasses.replace(UNIO4.clones, num_members=4), jnp.array([3.0, 1.0, 4.0, 2.0])
    start = agent(UniO4Stage(dataclasses.replace(UNIO4, clones=four), "policies", 40))
    for hand_over in ("accepted", "live"):  # the published code ranks and hands over what the last gate saw
        improvement = dataclasses.replace(UNIO4.improvement, select="amq_top3_then_real", hand_over=hand_over)
        config = dataclasses.replace(UNIO4, clones=four, improvement=improvement)
        start = start.replace(stage=UniO4Stage(config, "policies", 40))
        moved = perturbed(start.accepted, jax.random.key(2))
        scores = {"best": ranks, "scores": -ranks} if hand_over == "accepted" else {"best": -ranks, "scores": ranks}
        start = start.replace(gate=start.gate.replace(**scores), policies=start.policies.replace(params=moved))
        offered = start.accepted if hand_over == "accepted" else moved
        tried = [policy.policy.actor.params for policy in start.candidates()]
        for params, member in zip(tried, (2, 0, 3), strict=True):
            assert_identical(params, select_actor(offered, member))
        assert_identical(start.judged(jnp.array([1.0, 1.0, 5.0])).actor.params, select_actor(offered, 3))
