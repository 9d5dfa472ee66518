"""HNPG against formulas written out, and on combination locks."""

import dataclasses
import functools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from tiny import perturbed

import envs
from algorithms import HNPGAgent, HNPGConfig
from algorithms.hnpg import GaussianActor
from envs.lock import Lock, offline_data
from envs.tasks.locks import generate_lock
from experiments.presets import hnpg
from experiments.settings import ScheduleConfig
from hybridrl.datasets import Dataset, read
from hybridrl.errors import ConfigError
from hybridrl.logger import read_lines
from hybridrl.natural_gradient import fisher_vector_product
from hybridrl.training.loop import Loop
from hybridrl.training.online import example_transition
from hybridrl.training.progress import LoopSettings
from hybridrl.types import OnPolicyBatch, Rollout, Transitions

HORIZON, ENVS, OBS_DIM, ACTION_DIM = 3, 4, 2, 2
TINY = HNPGConfig(horizon=HORIZON, actor_hidden_dims=(4,), critic_hidden_dims=(5,), critic_updates=2, value_samples=3)


def numbers(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


def rollout(seed=0, ends=None):
    """Random steps, all of whose episodes end at the last one, or where `ends` says."""
    shape = (HORIZON, ENVS)
    ends = jnp.broadcast_to(jnp.arange(HORIZON)[:, None] == HORIZON - 1, shape) if ends is None else ends
    observations = numbers(seed, HORIZON + 1, ENVS, OBS_DIM)
    return Rollout(
        observations=observations[:-1],
        actions=numbers(seed + 1, *shape, ACTION_DIM),
        rewards=numbers(seed + 2, *shape),
        masks=1.0 - ends,
        ends=ends.astype(jnp.float32),
        next_observations=observations[1:],
    )


def offline(seed=10, shape=(HORIZON, ENVS)):
    return Transitions(
        observations=numbers(seed, *shape, OBS_DIM),
        actions=numbers(seed + 1, *shape, ACTION_DIM),
        rewards=numbers(seed + 2, *shape),
        masks=jnp.ones(shape),  # a dataset may call its last step a time limit
        next_observations=numbers(seed + 3, *shape, OBS_DIM),
        mc_returns=jnp.zeros(shape),
    )


def agent_of(config=TINY, seed=0):
    agent = HNPGAgent.create(jax.random.key(seed), example_transition(OBS_DIM, ACTION_DIM), config)
    return agent.replace(
        actor=agent.actor.replace(params=perturbed(agent.actor.params, jax.random.key(8))),
        critic=agent.critic.replace(params=perturbed(agent.critic.params, jax.random.key(9))),
    )


def network(stacked, index):
    return jax.tree.map(lambda leaf: leaf[index], stacked)


def test_the_fisher_matrix_is_the_explicit_one():
    """Mean of J' Sigma^-1 J over states for the mean's weights, and 2 for each log-deviation."""
    with jax.enable_x64(True):
        module = GaussianActor((3,), 2)
        states = jnp.asarray(np.random.default_rng(0).standard_normal((7, 3)))
        params = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), module.init(jax.random.key(0), states))
        flat, unravel = ravel_pytree(perturbed(params, jax.random.key(1)))
        assert flat.size == 22
        old = module.apply(unravel(flat), states)
        divergence = lambda vector: jnp.mean(old.kl(module.apply(unravel(vector), states)))  # noqa: E731

        @jax.jit
        def both(flat):
            jacobian = jax.jacobian(lambda vector: module.apply(unravel(vector), states).mean)(flat)  # (7, 2, 22)
            explicit = jnp.einsum("nap,na,naq->pq", jacobian, 1.0 / old.std**2, jacobian) / 7
            return explicit, jax.vmap(fisher_vector_product(divergence, flat, damping=0.1))(jnp.eye(22))

        explicit, found = map(np.array, both(flat))
        of_std = jax.tree.map(jnp.zeros_like, unravel(flat)["params"]) | {"log_std": jnp.ones(2)}
        explicit += np.diag(2.0 * ravel_pytree({"params": of_std})[0])
        np.testing.assert_allclose(found, explicit + 0.1 * np.eye(22), rtol=1e-8, atol=1e-11)
        np.testing.assert_allclose(found, found.T, rtol=1e-8, atol=1e-11)
        assert np.linalg.eigvalsh(found).min() > 0.1 - 1e-9
        # The divergence itself, by integrating log p / q over draws of p in closed form for one state.
        new = module.apply(unravel(flat + 0.1), states)
        by_hand = np.log(new.std / old.std) + (old.std**2 + (old.mean - new.mean) ** 2) / (2 * new.std**2) - 0.5
        np.testing.assert_allclose(old.kl(new), by_hand.sum(axis=-1), rtol=1e-10)


def test_one_update_written_out():
    """The critic's sweep from the last step backwards, then the policies' steps, in plain loops over time steps."""
    agent = agent_of()
    data, rows = rollout(), offline()
    after, metrics = agent.update(OnPolicyBatch(data, rows))
    key, _, critic_key, value_key, offline_key = jax.random.split(agent.key, 5)
    np.testing.assert_array_equal(jax.random.key_data(after.key), jax.random.key_data(key))
    returns = np.cumsum(np.asarray(data.rewards)[::-1], axis=0)[::-1]
    critic_keys = jax.random.split(critic_key, HORIZON)
    fitted = [None] * HORIZON
    for step in reversed(range(HORIZON)):
        critic, targets = network(agent.critic, step).restarted(), rows.rewards[step]
        if step < HORIZON - 1:
            states = rows.next_observations[step]
            drawn = network(agent.actor, step + 1)(states).draw(critic_keys[step])
            targets = targets + fitted[step + 1](states, drawn)

        def loss(params, critic=critic, targets=targets, step=step):
            online = critic(data.observations[step], data.actions[step], params=params) - returns[step]
            away = critic(rows.observations[step], rows.actions[step], params=params) - targets
            return jnp.mean(online**2) + jnp.mean(away**2), {}

        for _ in range(TINY.critic_updates):
            critic, _ = critic.minimize(loss)
        fitted[step] = critic
        for found, wanted in zip(
            jax.tree.leaves(network(after.critic.params, step)), jax.tree.leaves(critic.params), strict=True
        ):
            np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-6)

    def values(step, states, key):
        drawn = network(agent.actor, step)(states).draw(key, (TINY.value_samples,))
        return jnp.mean(jnp.stack([fitted[step](states, actions) for actions in drawn]), axis=0)

    value_keys = jax.random.split(jax.random.split(value_key)[0], HORIZON)
    online_values = [values(step, data.observations[step], value_keys[step]) for step in range(HORIZON)] + [0.0]
    action_key, baseline_key = jax.random.split(offline_key)
    action_keys, baseline_keys = jax.random.split(action_key, HORIZON), jax.random.split(baseline_key, HORIZON)
    following, changed = 0.0, 0
    for step in reversed(range(HORIZON)):
        actor, states = network(agent.actor, step), rows.observations[step]
        following = data.rewards[step] + online_values[step + 1] - online_values[step] + 0.97 * following
        drawn = actor(states).draw(action_keys[step])
        gained = fitted[step](states, drawn) - values(step, states, baseline_keys[step])
        joined = [
            jnp.concatenate(pair)
            for pair in ((data.observations[step], states), (data.actions[step], drawn), (following, gained))
        ]
        wanted = agent.improve_policy(actor, *joined)
        assert wanted.kl <= TINY.region.max_kl
        changed += int(wanted.accepted)
        for found, new in zip(
            jax.tree.leaves(network(after.actor.params, step)), jax.tree.leaves(wanted.params), strict=True
        ):
            np.testing.assert_allclose(found, new, rtol=2e-3, atol=2e-5)
    assert changed > 0
    np.testing.assert_allclose(metrics["actor/accepted"], changed / HORIZON, rtol=1e-6)


def test_the_gradient_is_that_of_the_advantages_times_the_log_density():
    agent = agent_of()
    actor = network(agent.actor, 0)
    states, actions, advantages = numbers(1, 6, OBS_DIM), numbers(2, 6, ACTION_DIM), numbers(3, 6)
    step = agent.improve_policy(actor, states, actions, advantages)
    gain = lambda params: jnp.mean(advantages * actor(states, params=params).log_prob(actions))  # noqa: E731
    slope, _ = ravel_pytree(jax.grad(gain)(actor.params))
    change = ravel_pytree(step.params)[0] - ravel_pytree(actor.params)[0]
    assert step.accepted
    assert jnp.vdot(slope, change) > 0
    np.testing.assert_allclose(step.improvement, jnp.vdot(slope, change), rtol=0.2)
    assert step.residual < 0.05


def test_returns_end_with_episodes_and_are_continued_by_the_critic_where_they_are_cut():
    shared = dataclasses.replace(TINY, horizon=None, discount=0.5)
    agent = agent_of(shared)
    ends = jnp.zeros((HORIZON, ENVS)).at[1, 0].set(1.0).at[1, 1].set(1.0)
    data = rollout(ends=ends)
    data = data.replace(masks=data.masks.at[1, 1].set(1.0))  # a time limit
    key = jax.random.key(3)
    found = jax.jit(lambda agent, data: agent.returns(data, key))(agent, data)
    rest = agent._values(data.next_observations, key)
    rewards = np.asarray(data.rewards)
    np.testing.assert_allclose(found[0, 0], rewards[0, 0] + 0.5 * rewards[1, 0], rtol=1e-5)
    limit = rewards[0, 1] + 0.5 * (rewards[1, 1] + 0.5 * rest[1, 1])
    np.testing.assert_allclose(found[0, 1], limit, rtol=1e-5)
    np.testing.assert_allclose(found[2], rewards[2] + 0.5 * rest[2], rtol=1e-5)
    per_step = agent_of()
    sums = np.cumsum(rewards[::-1], axis=0)[::-1]
    np.testing.assert_allclose(per_step.returns(rollout(), key), sums, rtol=1e-4, atol=1e-6)


def tabular(online_weight, offline_critic, critic_updates=1500):
    """Fit critics that are a table over three states; the policy's action is always (0.5, -0.5)."""
    config = HNPGConfig(
        horizon=HORIZON,
        actor_hidden_dims=(2,),
        critic_hidden_dims=(),
        critic_updates=critic_updates,
        critic_learning_rate=0.05,
        online_weight=online_weight,
        offline_critic=offline_critic,
        offline_actor=False,
    )
    agent = HNPGAgent.create(jax.random.key(0), example_transition(3, ACTION_DIM), config)
    params = jax.tree.map(jnp.zeros_like, agent.actor.params)
    params["params"]["log_std"] -= 30.0
    params["params"]["mean"]["bias"] += jnp.array([[0.5, -0.5]])
    agent = agent.replace(actor=agent.actor.replace(params=params))
    rng = np.random.default_rng(4)
    states, nexts = rng.integers(0, 3, (2, HORIZON, 12))
    states[:, :3] = np.arange(3)
    rewards = rng.standard_normal((HORIZON, 12)).astype(np.float32)
    action = jnp.broadcast_to(jnp.array([0.5, -0.5]), (HORIZON, 12, 2))
    data = Transitions(
        observations=jax.nn.one_hot(states, 3),
        actions=action,
        rewards=jnp.asarray(rewards),
        masks=jnp.ones((HORIZON, 12)),
        next_observations=jax.nn.one_hot(nexts, 3),
        mc_returns=jnp.zeros((HORIZON, 12)),
    )
    returns = jnp.asarray(rng.standard_normal((HORIZON, 12)), jnp.float32)
    critic, _ = jax.jit(lambda agent: agent.evaluate_policy((data.observations, action, returns), data, agent.key))(
        agent
    )
    table = jax.vmap(lambda critic: critic(jnp.eye(3), action[0, :3]))(critic)
    return table, states, nexts, rewards, returns


def means(states, labels):
    return np.array([labels[states == state].mean() for state in range(3)])


def test_without_offline_targets_the_critics_are_the_mean_returns():
    table, states, _, _, returns = tabular(1.0, False)
    for step in range(HORIZON):
        np.testing.assert_allclose(table[step], means(states[step], np.asarray(returns[step])), atol=1e-3)


def test_without_online_returns_the_critics_are_backward_induction_on_the_data():
    table, states, nexts, rewards, _ = tabular(0.0, True)
    following = np.zeros(3)
    for step in reversed(range(HORIZON)):
        following = means(states[step], rewards[step] + following[nexts[step]])
        np.testing.assert_allclose(table[step], following, atol=1e-3)


def test_the_shared_version_draws_targets_anew_in_every_round():
    """Two rounds are a second fit on the targets of the critic that the first one left."""
    config = dataclasses.replace(TINY, horizon=None, discount=0.9, critic_rounds=2, offline_actor=False)
    agent = agent_of(config)
    rows = offline(shape=(5,))
    rows = rows.replace(masks=jnp.array([1.0, 0.0, 1.0, 1.0, 1.0]))
    online = numbers(1, 1, 6, OBS_DIM), numbers(2, 1, 6, ACTION_DIM), numbers(3, 1, 6)
    lifted = jax.tree.map(lambda leaf: leaf[None], rows)
    found, _ = jax.jit(lambda agent: agent.evaluate_policy(online, lifted, jax.random.key(5)))(agent)
    critic, actor = network(agent.critic, 0), network(agent.actor, 0)
    for key in jax.random.split(jax.random.key(5), 2):
        drawn = actor(rows.next_observations).draw(key)
        targets = rows.rewards + 0.9 * rows.masks * critic(rows.next_observations, drawn)
        critic = critic.restarted()

        def loss(params, critic=critic, targets=targets):
            away = critic(rows.observations, rows.actions, params=params) - targets
            here = critic(online[0][0], online[1][0], params=params) - online[2][0]
            return jnp.mean(away**2) + jnp.mean(here**2), {}

        for _ in range(config.critic_updates):
            critic, _ = critic.minimize(loss)
    for a, b in zip(jax.tree.leaves(network(found.params, 0)), jax.tree.leaves(critic.params), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_each_step_has_its_own_policy():
    agent = agent_of(dataclasses.replace(TINY, stochastic_evaluation=False))
    policy, states = agent.policy(deterministic=True), 5.0 * numbers(0, 4, OBS_DIM)
    carry = policy.begin(None)
    for step in range(HORIZON):
        actions, carry = policy.act(carry, states, jax.random.key(0))
        np.testing.assert_allclose(actions, network(agent.actor, step)(states).mean, rtol=1e-6)
    drawn, _ = agent.policy(deterministic=False).act(policy.begin(None), states, jax.random.key(0))
    np.testing.assert_allclose(drawn, network(agent.actor, 0)(states).draw(jax.random.key(0)), rtol=1e-6)
    assert not agent_of().policy(deterministic=True).deterministic  # evaluated as published
    shared = dataclasses.replace(TINY, horizon=None, standardize_observations=True, stochastic_evaluation=False)
    agent = agent_of(shared).fit_observations(states)
    policy = agent.policy(deterministic=True)
    actions, carry = policy.act(policy.begin(None), states, jax.random.key(0))
    seen = (states - states.mean(axis=0, keepdims=True)) / (states.std(axis=0, keepdims=True) + 1e-3)
    np.testing.assert_allclose(actions, jnp.clip(network(agent.actor, 0)(seen).mean, -1, 1), rtol=1e-4)
    assert carry == ()


@pytest.mark.parametrize(
    ("config", "batch", "message"),
    [
        (TINY, OnPolicyBatch(rollout(), None), "no offline rows"),
        (
            dataclasses.replace(TINY, horizon=4),
            OnPolicyBatch(rollout(), offline()),
            "a rollout of 3 steps for networks of 4",
        ),
        (TINY, OnPolicyBatch(rollout(), offline(shape=(5, 2))), "leaves \\(horizon, rows"),
        (
            dataclasses.replace(TINY, offline_critic=False, offline_actor=False),
            OnPolicyBatch(rollout(), offline()),
            "some offline rows",
        ),
    ],
)
def test_batches_that_do_not_fit_are_refused(config, batch, message):
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(lambda agent: agent.update(batch), jax.eval_shape(functools.partial(agent_of, config)))


@pytest.mark.parametrize("changes", [{"horizon": 0}, {"critic_rounds": 2}, {"value_samples": 0}])
def test_settings_that_cannot_work_are_refused(changes):
    with pytest.raises(ConfigError, match=next(iter(changes))):
        dataclasses.replace(TINY, **changes)


# On locks -------------------------------------------------------------------------------------------------------------


def train(horizon, episodes, env_steps, seed=0, **changes):
    """The online success rate of every update, `(updates,)`, in one compiled program."""
    lock = Lock.create(horizon)
    config = HNPGConfig(horizon=horizon, **changes)
    agent = HNPGAgent.create(jax.random.key(seed), example_transition(lock.obs_dim, 10), config)
    data = offline_data(lock, jax.random.key(100 + seed), 20_000)
    last = (jnp.arange(horizon) == horizon - 1)[:, None]

    def collect(policy, key):
        reset_key, steps_key = jax.random.split(key)
        states, observations = jax.vmap(lock.reset)(jax.random.split(reset_key, episodes))

        def step(state, key):
            states, observations, carry = state
            act_key, env_key = jax.random.split(key)
            actions, carry = policy.act(carry, observations, act_key)
            states, reached, rewards, ended, _ = jax.vmap(lock.step)(
                states, actions, jax.random.split(env_key, episodes)
            )
            row = Rollout(observations, actions, rewards, 1.0 - ended, ended.astype(jnp.float32), reached)
            return (states, reached, carry), row

        return jax.lax.scan(step, (states, observations, policy.begin(None)), jax.random.split(steps_key, horizon))[1]

    def draw(data, key):
        rows = jax.random.randint(key, (horizon, episodes), 0, data.rewards.shape[1])
        fields = {
            name: jax.vmap(jnp.take, (0, 0, None))(getattr(data, name), rows, 0)
            for name in ("observations", "actions", "rewards", "next_observations")
        }
        shape = (horizon, episodes)
        return Transitions(**fields, masks=jnp.broadcast_to(1.0 - last, shape), mc_returns=jnp.zeros(shape))

    @jax.jit
    def run(agent, data):
        def update(agent, key):
            act_key, draw_key = jax.random.split(key)
            seen = collect(agent.policy(deterministic=False), act_key)
            agent, metrics = agent.update(
                OnPolicyBatch(seen, draw(data, draw_key) if config.uses_offline_data else None)
            )
            return agent, ((seen.rewards[-1] == 1.0).mean(), metrics["actor/kl_max"])

        keys = jax.random.split(jax.random.key(1_000 + seed), env_steps // (horizon * episodes))
        return jax.lax.scan(update, agent, keys)[1]

    successes, divergences = run(agent, data)
    assert divergences.max() <= config.region.max_kl
    return np.asarray(successes)


def solved_after(successes):
    """Updates until the mean success of 20 of them exceeds one half; infinite if it never does."""
    means = np.convolve(successes, np.ones(20) / 20, mode="valid")
    return 20 + int(np.argmax(means > 0.5)) if (means > 0.5).any() else np.inf


class Watcher:
    def progress(self, phase, done, rate):
        pass

    def evaluated(self, record):
        pass

    def should_stop(self):
        return False


def test_a_run_on_a_lock(tmp_path):
    """The preset's phase in the loop: whole episodes, offline rows of each step, evaluation by draws."""
    kwargs = (("horizon", HORIZON), ("images", None))
    task = dataclasses.replace(envs.make_task("lock/h5-v0"), horizon=HORIZON, env_kwargs=kwargs)
    (tmp_path / "data").mkdir()
    generate_lock(tmp_path / "data", name="local/tiny", horizon=HORIZON, images=None, trajectories=30)
    dataset = Dataset.from_steps(read(tmp_path / "data", task), task, 1.0)
    agent = dataclasses.replace(TINY, actor_hidden_dims=(4,))
    schedule = ScheduleConfig(
        offline_updates=0, warmup_steps=0, online_steps=36, num_envs=6, rollout_steps=HORIZON, dense_until=0, every=18
    )
    phases = hnpg.phases(SimpleNamespace(agent=agent, schedule=schedule), task)
    settings = LoopSettings(discount=1.0, log_every=18, checkpoint_every=36, eval_episodes=2, eval_envs=2, probe_rows=8)
    loop = Loop(phases, task, dataset, functools.partial(envs.make_env, task), tmp_path, 0, settings, Watcher())
    loop.run()
    lines = [line for line in read_lines(tmp_path / "metrics.jsonl") if "actor/kl_max" in line]
    assert [line["step"] for line in lines] == [18, 36]
    assert all(line["rollout/episodes"] == 6 and line["rollout/length"] == HORIZON for line in lines)
    assert all(0.0 <= line["actor/kl_max"] <= agent.region.max_kl for line in lines)
    assert [record["env_steps"] for record in loop.evaluations()] == [18, 36]
    assert loop.evaluations()[0]["panel"]["offline_share"] == 0.5


def test_it_opens_a_short_lock():
    """Three steps at random: one time in a thousand. After 60 updates of 100 episodes: most times."""
    successes = train(3, 100, 18_000)
    assert successes[:5].mean() < 0.05
    assert successes[-10:].mean() > 0.5


@pytest.mark.slow
def test_hybrid_opens_a_lock_that_trpo_does_not():
    solved = [solved_after(train(5, 200, 150_000, seed)) for seed in range(5)]
    assert sum(np.isfinite(solved)) >= 4
    for seed in range(5):
        assert train(5, 200, 150_000, seed, offline_critic=False, offline_actor=False).max() < 0.02


@pytest.mark.slow
@pytest.mark.parametrize(
    "removed",
    [
        "offline_critic",
        pytest.param(
            "offline_actor",
            marks=pytest.mark.xfail(
                strict=False,
                reason="the lock opens late on two of the claim's five seeds, see results/claims/hnpg.json",
            ),
        ),
    ],
)
def test_both_uses_of_the_offline_data_are_needed(removed):
    assert train(5, 200, 150_000, **{removed: False})[-20:].mean() < 0.05


@pytest.mark.slow
@pytest.mark.parametrize(("horizon", "episodes", "env_steps"), [(10, 100, 300_000), (15, 300, 1_200_000)])
def test_longer_locks(horizon, episodes, env_steps):
    assert np.isfinite(solved_after(train(horizon, episodes, env_steps)))
