"""MJX robots against Gymnasium's on the same states. Tests that compile a step are slow."""

import functools
import sys

import gymnasium
import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from envs.mjx import HORIZON, ROBOTS, RobotState, _aligned_contact_frames, make_mjx, with_simulation
from hybridrl.errors import ConfigError, MissingExtraError

NUM_STATES = 50
# After one step in float32: largest error of a position or velocity, of a contact force, and of the reward. Measured:
# docs/environments.md. Contacts are stiff, so that forces are less exact than the motion they cause.
OBSERVATION_TOLERANCE = {"HalfCheetah-v5": 1e-3, "Hopper-v5": 3e-5, "Walker2d-v5": 3e-4, "Ant-v5": 2e-4}
FORCE_TOLERANCE = 5e-2
REWARD_TOLERANCE = {"HalfCheetah-v5": 2e-5, "Hopper-v5": 2e-5, "Walker2d-v5": 2e-5, "Ant-v5": 1e-4}


@pytest.fixture(autouse=True)
def _allow_rank_promotion():
    with jax.numpy_rank_promotion("allow"):  # MJX broadcasts silently
        yield


@functools.cache
def steps(name):
    """States of Gymnasium's robot after random actions, an action for each, and what the robot made of it."""
    env, rng = gymnasium.make(name).unwrapped, np.random.default_rng(0)
    start = RobotState(make_mjx(name).initial, jnp.int32(0))
    states, actions, results = [], [], []
    for seed in range(1000):
        env.reset(seed=seed)
        if any(env.step(rng.uniform(-1, 1, env.action_space.shape))[2] for _ in range(rng.integers(1, 60))):
            continue  # it fell on the way
        action = rng.uniform(-1, 1, env.action_space.shape).astype(np.float32)
        states.append(with_simulation(start, env.data))
        actions.append(action)
        observation, reward, terminated, _, _ = env.step(action)
        results.append((observation, reward, terminated, env.is_healthy if name != "HalfCheetah-v5" else True))
        if len(results) == NUM_STATES:
            break
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *states), jnp.array(actions), results


@pytest.mark.slow
@pytest.mark.parametrize("name", ROBOTS)
def test_a_step_agrees_with_gymnasium_s(name):
    env = make_mjx(name)
    states, actions, results = steps(name)
    last = jnp.arange(NUM_STATES) % 2 == 0
    states = states.replace(steps=jnp.where(last, HORIZON - 1, 0).astype(jnp.int32))
    step = jax.jit(jax.vmap(env.step, in_axes=(0, 0, None)))
    after, observations, rewards, terminated, truncated = step(states, actions, jax.random.key(0))
    expected = [np.array(column) for column in zip(*results, strict=True)]
    errors = np.abs(observations - expected[0])
    motion, forces = np.split(errors, [27 if name == "Ant-v5" else env.obs_dim], axis=-1)
    print(name, motion.max(), forces.max(initial=0.0), np.abs(rewards - expected[1]).max())  # for the documentation
    assert motion.max() < OBSERVATION_TOLERANCE[name]
    assert forces.max(initial=0.0) < FORCE_TOLERANCE
    assert np.abs(rewards - expected[1]).max() < REWARD_TOLERANCE[name]
    np.testing.assert_array_equal(terminated, expected[2])
    np.testing.assert_array_equal(truncated, ~expected[2] & np.asarray(last))
    np.testing.assert_array_equal(after.steps, states.steps + 1)
    moved = np.abs(env.observe(jax.tree.map(lambda leaf: leaf[0], states.data)) - expected[0][0]).max()
    assert moved > 100 * OBSERVATION_TOLERANCE[name]  # a step that does nothing would be found out


@pytest.mark.slow
@pytest.mark.parametrize("name", ROBOTS)
def test_resets_have_gymnasium_s_noise(name):
    env, theirs = make_mjx(name), gymnasium.make(name).unwrapped
    states, observations = jax.jit(jax.vmap(env.reset))(jax.random.split(jax.random.key(0), 400))
    scale = ROBOTS[name].reset_noise
    noise = np.asarray(states.data.qpos - theirs.init_qpos)
    assert np.abs(noise).max() <= scale + 1e-6
    np.testing.assert_allclose(noise.std(), scale / np.sqrt(3.0), rtol=0.05)
    deviation = scale if ROBOTS[name].normal_velocities else scale / np.sqrt(3.0)
    np.testing.assert_allclose(np.asarray(states.data.qvel).std(), deviation, rtol=0.05)
    for index in range(5):
        theirs.reset(seed=0)
        theirs.set_state(np.float64(states.data.qpos[index]), np.float64(states.data.qvel[index]))
        np.testing.assert_allclose(observations[index], theirs._get_obs(), atol=1e-6)


@pytest.mark.parametrize("name", ROBOTS)
def test_observations_and_health_of_given_states(name):
    env, theirs, rng = make_mjx(name), gymnasium.make(name).unwrapped, np.random.default_rng(0)
    start, kinds = RobotState(env.initial, jnp.int32(0)), set()
    height, pitch = (1, 2) if ROBOTS[name].planar else (2, None)
    for index in range(24):
        theirs.reset(seed=index)
        qpos, qvel = theirs.data.qpos.copy(), theirs.data.qvel.copy() + rng.normal(0, 6, theirs.model.nv)
        qpos[height] = rng.uniform(0.0, 2.2)
        if pitch is not None:
            qpos[pitch] = rng.uniform(-0.3, 0.3) if index % 2 else rng.uniform(-1.2, 1.2)
        theirs.data.qpos[:], theirs.data.qvel[:] = np.float32(qpos), np.float32(qvel)  # no step, so no forces either
        data = with_simulation(start, theirs.data).data
        np.testing.assert_allclose(env.observe(data), theirs._get_obs(), rtol=1e-6)
        expected = name == "HalfCheetah-v5" or theirs.is_healthy
        assert bool(env.healthy(data)) == bool(expected)
        kinds.add(bool(expected))
    assert env.obs_dim == theirs.observation_space.shape[0]
    assert env.actions.gymnasium() == theirs.action_space
    assert kinds == ({True} if name == "HalfCheetah-v5" else {True, False})


@pytest.mark.parametrize(("name", "change"), [("Hopper-v5", 150.0), ("Ant-v5", np.nan), ("Ant-v5", np.inf)])
def test_wild_velocities_end_the_episode(name, change):
    env, theirs = make_mjx(name), gymnasium.make(name).unwrapped
    theirs.reset(seed=0)
    start = RobotState(env.initial, jnp.int32(0))
    assert bool(env.healthy(with_simulation(start, theirs.data).data))
    theirs.data.qvel[3] = change
    assert not theirs.is_healthy
    assert not bool(env.healthy(with_simulation(start, theirs.data).data))


def test_states_keep_shapes_and_dtypes_so_that_steps_can_be_scanned():
    def kinds(tree):
        return jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), tree)

    env = make_mjx("Hopper-v5")
    state, first = jax.eval_shape(env.reset, jax.random.key(0))
    after, *seen = jax.eval_shape(env.step, state, jnp.zeros(3), jax.random.key(0))
    assert kinds(after) == kinds(state)
    flag = ((), jnp.bool_)
    assert kinds([first, *seen]) == [((11,), jnp.float32), ((11,), jnp.float32), ((), jnp.float32), flag, flag]


def test_contacts_of_upright_capsules_have_mujoco_s_tangents():
    from mujoco import mjx
    from mujoco.mjx._src import collision_driver

    env, theirs = make_mjx("Ant-v5"), gymnasium.make("Ant-v5").unwrapped
    table, upright = dict(collision_driver._COLLISION_FUNC), 0

    @jax.jit
    def contacts(qpos):
        data = mjx.kinematics(env.model, env.initial.replace(qpos=qpos))
        with _aligned_contact_frames():
            return mjx.collision(env.model, data)._impl.contact

    rng = np.random.default_rng(0)
    for _ in range(20):
        qpos = np.r_[0.0, 0.0, 0.2, rng.normal(size=4), rng.uniform(-1, 1, 8)]
        qpos[3:7] /= np.linalg.norm(qpos[3:7])
        theirs.data.qpos[:] = qpos
        mujoco.mj_fwdPosition(theirs.model, theirs.data)
        found = contacts(jnp.asarray(qpos, jnp.float32))
        frames, positions = np.asarray(found.frame), np.asarray(found.pos)
        for contact in theirs.data.contact:
            capsule = contact.geom[1]
            if theirs.model.geom_type[capsule] != mujoco.mjtGeom.mjGEOM_CAPSULE:
                continue
            rows = np.flatnonzero(np.asarray(found.geom)[:, 1] == capsule)
            row = rows[np.argmin(np.abs(positions[rows] - contact.pos).sum(axis=-1))]
            np.testing.assert_allclose(frames[row].ravel(), contact.frame, atol=1e-4)
            upright += np.abs(theirs.data.geom_xmat[capsule].reshape(3, 3)[2, 2]) > np.sqrt(0.75)
    assert upright > 3
    assert table == collision_driver._COLLISION_FUNC  # nobody else's simulations are touched


def test_missing_package_names_the_extra(monkeypatch):
    make_mjx.cache_clear()
    monkeypatch.setitem(sys.modules, "mujoco.mjx", None)
    with pytest.raises(MissingExtraError, match=r'pip install "hybridrl\[mjx\]"'):
        make_mjx("Ant-v5")


def test_unknown_robot():
    with pytest.raises(ConfigError, match="no MJX robot 'Humanoid-v5'; expected one of HalfCheetah-v5, Hopper-v5"):
        make_mjx("Humanoid-v5")
