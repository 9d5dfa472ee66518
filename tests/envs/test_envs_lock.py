"""The combination lock against a NumPy one, closed forms and the published frequencies."""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

import envs
from envs import lock as lock_module
from envs.functional import rollout
from envs.lock import Lock, LockState, occupancy_data, offline_data, offline_success_rate
from hybridrl.datasets import Dataset, read
from hybridrl.errors import ConfigError


def reference_step(secret, mode, latent, step, action, luck):
    """Zhou et al. 2024, appendix E.1, and their released code: next hidden state, reward, end."""
    horizon = secret.shape[1]
    last = step == horizon - 1
    if latent == 2:
        return 2, (0.1 if mode == "hnpg_code" and last and luck[1] else 0.0), last
    if action == secret[latent, step]:
        return (latent, 1.0, True) if last else (int(luck[0]), 0.0, False)
    return 2, (0.1 if luck[1] and (last or mode == "paper") else 0.0), last


@pytest.mark.parametrize("mode", ["paper", "hnpg_code"])
def test_dynamics_and_rewards_are_those_of_a_plain_program(mode):
    horizon, episodes = 4, 400
    lock = Lock.create(horizon, seed=3, reward_mode=mode)
    rng = np.random.default_rng(0)
    secret = np.asarray(lock.secret)
    firsts, lucks = rng.integers(0, 2, episodes), rng.random((episodes, horizon, 2)) < 0.5
    slips = rng.random((episodes, horizon)) < 0.2
    actions, expected = np.zeros((episodes, horizon), np.int32), np.zeros((3, episodes, horizon))
    for episode in range(episodes):
        latent = firsts[episode]
        for step in range(horizon):
            action = (secret[min(latent, 1), step] + slips[episode, step] * rng.integers(1, 10)) % 10
            actions[episode, step] = action
            outcome = reference_step(secret, mode, latent, step, action, lucks[episode, step])
            expected[:, episode, step], latent = outcome, outcome[0]

    def episode(first, actions, luck):
        def step(state, row):
            state, reward, ended = lock.apply(state, *row)
            return state, (state.latent, reward, ended)

        return jax.lax.scan(step, LockState(first, jnp.int32(0)), (actions, luck))[1]

    found = jax.jit(jax.vmap(episode))(jnp.asarray(firsts, jnp.int32), actions, lucks)
    for seen, wanted in zip(found, expected, strict=True):
        np.testing.assert_allclose(np.asarray(seen, np.float64), wanted, atol=1e-6)
    returns, slipped = expected[1].sum(axis=1), slips.any(axis=1)
    assert returns[slipped].max() == pytest.approx(0.1)
    assert (returns[~slipped] == 1.0).all()
    assert returns[slipped].mean() == pytest.approx(0.05, abs=0.01)


def test_the_latent_action_follows_the_softmax_at_temperature_a_tenth():
    action = np.linspace(-0.1, 0.2, 10).astype(np.float32)
    keys = jax.random.split(jax.random.key(0), 20_000)
    choose = jax.jit(jax.vmap(functools.partial(lock_module._softmax_choice, jnp.asarray(action) / 0.1)))
    shares = np.bincount(np.asarray(choose(keys)), minlength=10) / 20_000
    weights = np.exp(action / 0.1)
    wanted = weights / weights.sum()
    assert (np.abs(shares - wanted) < 4 * np.sqrt(wanted / 20_000)).all()
    assert lock_module.ACTION_TEMPERATURE == 0.1


def test_a_certain_choice_is_never_missed():
    logits = jnp.zeros(10).at[9].set(1000.0)
    choices = jax.vmap(functools.partial(lock_module._softmax_choice, logits))(jax.random.split(jax.random.key(1), 500))
    assert (np.asarray(choices) == 9).all()


@pytest.mark.parametrize(("horizon", "width"), [(5, 16), (10, 16), (15, 32), (25, 32), (30, 64), (50, 64), (100, 128)])
def test_observations_are_as_wide_as_published(horizon, width):
    assert Lock.create(horizon).obs_dim == width


def test_observations_are_a_rotated_noisy_code():
    emission = Lock.create(5).emission
    np.testing.assert_array_equal(emission.rotation, scipy.linalg.hadamard(16))
    keys = jax.random.split(jax.random.key(0), 2_000)
    emit = jax.jit(jax.vmap(emission.emit, in_axes=(None, 0)))
    for latent, step in ((0, 0), (2, 3), (1, 5)):
        state = LockState(jnp.int32(latent), jnp.int32(step))
        seen = np.asarray(emit(state, keys), np.float64)
        codes = seen @ scipy.linalg.hadamard(16) / 16
        clean = np.zeros(16)
        clean[latent] = clean[3 + step] = 1.0
        np.testing.assert_allclose(codes.mean(axis=0), clean, atol=0.012)
        np.testing.assert_allclose(codes[:, :8].std(axis=0), 0.1, rtol=0.1)
        np.testing.assert_allclose(codes[:, 8:] - clean[8:], 0.0, atol=1e-5)
        latents, steps = emission.decode(jnp.asarray(seen, jnp.float32))
        assert np.mean((np.asarray(latents) == latent) & (np.asarray(steps) == step)) > 0.999


@pytest.mark.parametrize("margin", [0.0, 0.3, 1.0])
def test_the_lock_opens_as_often_as_computed(margin):
    lock, episodes = Lock.create(2, seed=1), 6_000
    policy = jax.tree_util.Partial(right_by_margin, lock, jnp.float32(margin))
    _, rows = rollout(lock, policy, jax.random.key(2), num_envs=episodes, num_steps=2)
    np.testing.assert_array_equal(rows.terminations, np.broadcast_to([[False], [True]], (2, episodes)))
    assert not rows.truncations.any()
    rewards = np.asarray(rows.rewards)
    rate = (math.exp(margin / 0.1) / (math.exp(margin / 0.1) + 9)) ** 2  # 1 in 100 for uniform latent actions
    assert lock.success_probability(margin) == pytest.approx(rate)
    error = 3 * math.sqrt(rate * (1 - rate) / episodes) + 1e-4
    assert np.mean(rewards[-1] == 1.0) == pytest.approx(rate, abs=error)
    assert lock.optimal_return(margin) == pytest.approx(rate + 0.05 * (1 - rate))
    assert rewards.sum(axis=0).mean() == pytest.approx(lock.optimal_return(margin), abs=error)


def right_by_margin(lock, margin, states, observations, key):
    return margin * jax.vmap(lock.optimal_action)(states)


def test_closed_forms_as_published():
    assert Lock.create(50).success_probability() == pytest.approx(0.980, abs=5e-4)
    for horizon, share in ((5, 0.370), (10, 0.388), (15, 0.392), (30, 0.396), (50, 0.395)):
        assert offline_success_rate(Lock.create(horizon)) == pytest.approx(share, abs=1e-3)
    assert offline_success_rate(Lock.create(5), explore="wrong") == pytest.approx(0.327, abs=5e-4)
    assert offline_success_rate(Lock.create(50), explore="wrong") == pytest.approx(0.357, abs=5e-4)


@pytest.mark.slow
def test_uniform_latents_succeed_one_time_in_a_hundred_thousand():
    lock = Lock.create(5)
    policy = jax.tree_util.Partial(right_by_margin, lock, jnp.float32(0.0))
    _, rows = rollout(lock, policy, jax.random.key(0), num_envs=50_000, num_steps=5 * 40)
    assert abs(int((rows.rewards == 1.0).sum()) - 20) < 3 * math.sqrt(20)


@pytest.fixture(scope="module")
def data5():
    lock = Lock.create(5)
    return lock, jax.tree.map(np.asarray, offline_data(lock, jax.random.key(0), 12_000))


def test_offline_data_have_the_published_frequencies(data5):
    lock, data = data5
    assert data.observations.shape == data.next_observations.shape == (5, 12_000, 16)
    assert data.actions.shape == (5, 12_000, 10)
    assert data.rewards.shape == (5, 12_000)
    assert np.mean(data.rewards[-1] == 1.0) == pytest.approx(0.370, abs=0.013)
    np.testing.assert_array_equal(data.observations[1:], data.next_observations[:-1])
    exact = (np.sort(data.actions, axis=-1) == np.eye(10)[-1]).all(axis=-1)
    np.testing.assert_allclose(1.0 - exact.mean(axis=1), 0.2, atol=0.013)
    states = np.minimum(data.latents[:-1], 1)  # the bad state is answered like state 1
    right = np.asarray(lock.secret)[states, np.arange(5)[:, None]]
    np.testing.assert_array_equal(data.actions.argmax(axis=-1)[exact], right[exact])
    random = data.actions[~exact]
    assert random.min() >= 0.0
    np.testing.assert_allclose([random.mean(), random.std()], [0.5, math.sqrt(1 / 12)], atol=0.005)


def test_offline_observations_show_the_hidden_states(data5):
    lock, data = data5
    latents, steps = lock.emission.decode(jnp.asarray(data.observations))
    assert np.mean(np.asarray(latents) == data.latents[:-1]) > 0.999
    assert np.mean(np.asarray(steps) == np.arange(5)[:, None]) > 0.999


def test_random_steps_that_always_miss_give_the_stated_share():
    data = offline_data(Lock.create(5), jax.random.key(0), 5_000, explore="wrong")
    assert np.mean(data.rewards[-1] == 1.0) == pytest.approx(0.327, abs=0.02)
    assert np.asarray(data.actions).min() == -1.0
    with pytest.raises(ConfigError, match="'uniform' or 'wrong'"):
        offline_data(Lock.create(5), jax.random.key(0), 1, explore="never")


def test_hyq_data_on_the_discrete_lock():
    lock = Lock.create(4, discrete=True)
    data = offline_data(lock, jax.random.key(0), 4_000, force_middle=True)
    right = np.asarray(lock.secret)[np.minimum(data.latents[:-1], 1), np.arange(4)[:, None]]
    hits = (np.asarray(data.actions) == right).mean(axis=1)
    np.testing.assert_allclose(hits, [0.775, 0.775, 0.1, 0.775], atol=0.03)
    data = occupancy_data(lock, jax.random.key(1), 4_000)
    assert (np.asarray(data.latents[:4]) < 2).all()
    assert np.mean(data.rewards[-1] == 1.0) == pytest.approx(0.1, abs=0.018)
    np.testing.assert_allclose(np.mean(np.isclose(data.rewards[:3], 0.1), axis=1), 0.45, atol=0.03)


def test_discrete_tasks_are_the_same_locks_with_choices(tmp_path):
    task, plain = envs.make_task("lock/discrete-h5-v0"), envs.make_task("lock/h5-v0")
    discrete, continuous = task.functional(task), plain.functional(plain)
    np.testing.assert_array_equal(discrete.env.secret, continuous.secret)
    assert (task.choices, plain.choices, discrete.actions) == (10, None, continuous.actions)
    key = jax.random.key(0)
    (state, observation), (_, wanted) = (jax.jit(type(lock).reset)(lock, key) for lock in (discrete, continuous))
    np.testing.assert_array_equal(observation, wanted)
    # As the vector grows, the continuous lock's law becomes the discrete one's choice.
    action = 100.0 * continuous.optimal_action(state)
    steps = [jax.jit(type(lock).step)(lock, state, action, key)[1:] for lock in (discrete, continuous)]
    for seen, wanted in zip(*steps, strict=True):
        np.testing.assert_array_equal(seen, wanted)
    functools.partial(task.dataset.generate, trajectories=400)(tmp_path)
    data = Dataset.from_steps(read(tmp_path, task), task, 1.0)
    actions = np.asarray(data.transitions.actions)
    np.testing.assert_allclose(np.sort(actions, axis=-1), np.eye(10)[-1:] * np.ones((2_000, 1)), atol=2e-5)
    steps = np.arange(2_000) % 5
    latents, decoded = discrete.env.emission.decode(data.transitions.observations)
    np.testing.assert_array_equal(decoded, steps)
    good = np.asarray(latents) < 2
    right = np.asarray(discrete.env.secret)[np.minimum(latents, 1), steps] == actions.argmax(axis=-1)
    shares = [right[good & (steps == step)].mean() for step in range(5)]
    np.testing.assert_allclose(shares, [0.82, 0.82, 0.1, 0.82, 0.82], atol=0.14)


def test_secrets_follow_from_the_seed_alone():
    np.testing.assert_array_equal(Lock.create(1, seed=1, images="heldout").secret, Lock.create(1, seed=1).secret)
    secrets = np.stack([Lock.create(50, seed=seed).secret for seed in range(20)])
    assert (np.abs(np.bincount(secrets.reshape(-1), minlength=10) - 200) < 60).all()
    assert 0.03 < np.mean(secrets[:, 0] == secrets[:, 1]) < 0.2  # the two may coincide


def test_images_come_from_finite_pools_by_class():
    train, heldout = (Lock.create(2, images=split).emission for split in ("train", "heldout"))
    assert (train.pool.shape, heldout.pool.shape) == ((9, 500, 512), (9, 100, 512))
    np.testing.assert_allclose(np.linalg.norm(train.pool, axis=-1), 1.0, atol=1e-5)
    emit = jax.jit(jax.vmap(train.emit, in_axes=(None, 0)))
    seen = np.asarray(emit(LockState(jnp.int32(2), jnp.int32(1)), jax.random.split(jax.random.key(0), 300)))
    pool = np.asarray(train.pool[5])
    members = (seen @ pool.T).argmax(axis=1)
    np.testing.assert_array_equal(seen, pool[members])
    assert len(set(members.tolist())) > 150
    assert np.max(np.asarray(heldout.pool[5]) @ pool.T) < 0.9
    np.testing.assert_array_equal(Lock.create(1, images="train").emission.pool, train.pool[:6])


@pytest.mark.slow
def test_images_are_decoded_about_as_well_as_the_published_ones():
    """A probe of the policies' form: 78% on the training pool, 72% on the held-out one (section 6.2)."""
    import optax

    pools = [Lock.create(30, images=split).emission.pool for split in ("train", "heldout")]
    inputs, labels = pools[0].reshape(-1, 512), jnp.repeat(jnp.arange(93), 500)
    widths, keys = (512, 16, 16, 93), jax.random.split(jax.random.key(0), 3)
    sizes = list(itertools.pairwise(widths))
    params = [
        (jax.random.uniform(key, size, minval=-1, maxval=1) / math.sqrt(size[0]), jnp.zeros((1, size[1])))
        for key, size in zip(keys, sizes, strict=True)
    ]

    def logits(params, inputs):
        (first, second, last), hidden = params, inputs * math.sqrt(512)
        for weights, bias in (first, second):
            hidden = jnp.tanh(hidden @ weights + bias)
        return hidden @ last[0] + last[1]

    def loss(params, rows):
        return optax.softmax_cross_entropy_with_integer_labels(logits(params, inputs[rows]), labels[rows]).mean()

    steps = 30 * len(labels) // 500
    optimizer = optax.adam(optax.cosine_decay_schedule(3e-3, steps))

    @jax.jit
    def fit(params):
        def step(carry, key):
            params, state = carry
            gradients = jax.grad(loss)(params, jax.random.randint(key, (500,), 0, len(labels)))
            updates, state = optimizer.update(gradients, state, params)
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(step, (params, optimizer.init(params)), jax.random.split(jax.random.key(1), steps))[0][0]

    params = fit(params)

    def accuracy(pool):
        classes = jnp.repeat(jnp.arange(93), pool.shape[1])
        return float((logits(params, pool.reshape(-1, 512)).argmax(axis=-1) == classes).mean())

    train, heldout = map(accuracy, pools)
    assert train == pytest.approx(0.78, abs=0.03)
    assert heldout == pytest.approx(0.72, abs=0.03)


def test_heldout_images_are_never_trained_on():
    task = envs.make_task("lock/image-h5-heldout-v0")
    trained, simulated, evaluated = task.functional(task), task.simulator(task).functional, task.make(task).functional
    assert trained.emission.pool.shape[1] == simulated.emission.pool.shape[1] == 500
    assert evaluated.emission.pool.shape[1] == 100
    np.testing.assert_array_equal(trained.secret, evaluated.secret)
    plain = envs.make_task("lock/image-h5-v0")
    assert plain.simulator is None
    np.testing.assert_array_equal(plain.make(plain).functional.emission.pool, trained.emission.pool)


def test_tasks_play_actions_as_they_are():
    """Logits of 3 against 1: the right choice nearly always, and a toss-up if both were clipped to 1."""
    task = envs.make_task("lock/h5-v0")
    lock = task.functional(task)
    env = task.make(task)
    state, _ = lock.reset(jax.random.key(0))
    action = jnp.full(10, 1.0).at[lock.right_action(state)].set(3.0)
    np.testing.assert_array_equal(task.played(action), action)
    assert env.functional is lock


def test_bad_locks_are_refused():
    with pytest.raises(ConfigError, match="at least 1"):
        Lock.create(0)
    with pytest.raises(ConfigError, match="1 to 32"):
        Lock.create(33, images="train")
    with pytest.raises(ConfigError, match="heldout"):
        Lock.create(3, images="test")
    with pytest.raises(ConfigError, match="hnpg_code"):
        Lock.create(3, reward_mode="code")


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    task, folder = envs.make_task("lock/h5-v0"), tmp_path_factory.mktemp("lock")
    functools.partial(task.dataset.generate, trajectories=60)(folder)
    return task, folder


def test_the_task_s_dataset_keeps_the_steps_apart(written):
    task, folder = written
    assert task.dataset.rows == 250_000
    steps = read(folder, task)
    assert steps.observations.shape == (300, 16)
    lock = Lock.create(5)
    seen = lock.emission.decode(jnp.asarray(steps.observations))[1]
    np.testing.assert_array_equal(np.asarray(seen).reshape(60, 5), np.tile(np.arange(5), (60, 1)))
    np.testing.assert_array_equal(steps.terminations.reshape(60, 5), np.tile(np.arange(5) == 4, (60, 1)))
    np.testing.assert_array_equal(steps.successes, steps.rewards == 1.0)
    assert 8 < steps.successes.sum() < 40
    dataset = Dataset.from_steps(steps, task, 0.99)
    np.testing.assert_array_equal(dataset.episode_lengths, np.full(60, 5))
    assert float(dataset.truncations.sum()) == 0.0


def test_minari_reads_the_hidden_states_too(written):
    import h5py

    with h5py.File(written[1] / "data" / "main_data.hdf5") as file:
        episode = file["episode_3"]
        latents, seen = episode["infos/latent"][:], episode["observations"][:]
    np.testing.assert_array_equal(Lock.create(5).emission.decode(jnp.asarray(seen))[0], latents)


@pytest.mark.parametrize("name", ["lock/h5-v0", "lock/image-h5-heldout-v0"])
def test_a_task_s_environment_opens_to_the_right_actions(name):
    task = envs.make_task(name)
    env = envs.make_env(task, 0)
    secret = np.asarray(Lock.create(5).secret)
    np.testing.assert_array_equal(env.env.functional.secret, secret)
    env.reset()
    for step in range(5):
        latent = int(env.env._state.latent)
        _, reward, terminated, truncated, info = env.step(2.0 * np.eye(10)[secret[latent, step]] - 1.0)
        assert (terminated, truncated) == (step == 4, False)
    assert (reward, info["success"]) == (1.0, True)
    env.reset()
    for step in range(5):
        wrong = (secret[0, 0] + 1 + (secret[1, 0] == (secret[0, 0] + 1) % 10)) % 10 if step == 0 else 0
        _, reward, _, _, info = env.step(2.0 * np.eye(10)[wrong] - 1.0)
        assert reward <= np.float32(0.1)
    assert not info["success"]
