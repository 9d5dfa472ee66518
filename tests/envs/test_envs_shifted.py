"""Dynamics gaps: the same states stepped in shifted and plain robots differ where they should and only there."""

import functools
import hashlib
import pickle
from pathlib import Path

import gymnasium
import mujoco
import numpy as np
import pytest

import envs
from envs.extras import make_gymnasium
from envs.shifted import ROBOTS, DynamicsGap, ShiftedEnv
from hybridrl.errors import ConfigError
from hybridrl.task import Task

NUM_STATES = 50
TASK = "local/hopper-medium-v0"
GRAVITY, FRICTION = DynamicsGap(gravity=2.0), DynamicsGap(friction=0.3)
NOISE, MASS = DynamicsGap(joint_noise=1.0), DynamicsGap(body_mass=1.5)


def plain(robot):
    return make_gymnasium(f"{robot}-v5")


def shifted(robot, gap):
    return ShiftedEnv(plain(robot), gap)


@functools.cache
def states(robot):
    """Positions, velocities and actions after random actions; the last 20 lifted too high to touch the floor."""
    env, rng, found = plain(robot), np.random.default_rng(0), []
    for index in range(NUM_STATES):
        env.reset(seed=index)
        for _ in range(rng.integers(5, 40)):
            env.step(rng.uniform(-1.0, 1.0, env.action_space.shape))
        qpos, qvel = env.unwrapped.data.qpos.copy(), env.unwrapped.data.qvel.copy()
        if index >= NUM_STATES - 20:
            qpos[2 if robot == "Ant" else 1] += 5.0
        found.append((qpos, qvel, rng.uniform(-1.0, 1.0, env.action_space.shape).astype(np.float32)))
    return found


def rubbing(inner, action):
    """Whether the action presses something on the floor: a contact with friction and a normal force."""
    force = np.zeros(6)
    inner.data.ctrl[:] = action
    mujoco.mj_forward(inner.model, inner.data)
    for index in range(inner.data.ncon):
        mujoco.mj_contactForce(inner.model, inner.data, index, force)
        if inner.data.contact[index].dim > 1 and force[0] > 0:
            return True
    return False


def step_all(robot, env):
    """Each state stepped once: observation, reward, termination, next state, friction before, contacts after, info."""
    results = []
    for qpos, qvel, action in states(robot):
        env.reset(seed=0)  # also forgets the solver's last solution
        inner = env.unwrapped
        inner.set_state(qpos, qvel)
        pressed = rubbing(inner, action)
        observation, reward, terminated, _, info = env.step(action)
        after = np.concatenate([inner.data.qpos, inner.data.qvel])
        results.append((observation, reward, terminated, after, pressed, inner.data.ncon > 0, info))
    return results


@functools.cache
def plain_results(robot):
    return step_all(robot, plain(robot))


def differences(robot, gap):
    """Per state, whether the simulator's next state differs from the plain robot's in any bit."""
    found = step_all(robot, shifted(robot, gap))
    return np.array([not np.array_equal(a[3], b[3]) for a, b in zip(found, plain_results(robot), strict=True)])


@pytest.mark.parametrize("robot", ROBOTS)
def test_no_gap_changes_no_bit(robot):
    gap = DynamicsGap(gravity=1.0, friction=1.0, joint_noise=0.0, body_mass=1.0)
    for mine, theirs in zip(step_all(robot, shifted(robot, gap)), plain_results(robot), strict=True):
        for index in (0, 1, 2, 3):
            np.testing.assert_array_equal(mine[index], theirs[index])
    model, untouched = shifted(robot, gap).unwrapped.model, plain(robot).unwrapped.model
    for name in ("body_mass", "body_inertia", "dof_invweight0", "body_invweight0", "geom_friction", "body_subtreemass"):
        np.testing.assert_array_equal(getattr(model, name), getattr(untouched, name))


@pytest.mark.parametrize("robot", ROBOTS)
@pytest.mark.parametrize("gap", [GRAVITY, NOISE, MASS], ids=["gravity", "noise", "mass"])
def test_gravity_noise_and_mass_change_every_state(robot, gap):
    assert differences(robot, gap).all()


@pytest.mark.parametrize("robot", ROBOTS)
def test_friction_changes_states_that_touch_the_floor_and_no_others(robot):
    differ, results = differences(robot, FRICTION), plain_results(robot)
    rubs, touched = (np.array([result[index] for result in results]) for index in (4, 5))
    assert rubs[:30].sum() >= 5
    assert differ[rubs].all()
    assert not (rubs | touched)[30:].any()
    assert not differ[30:].any()


@pytest.mark.parametrize("gap", [GRAVITY, FRICTION, NOISE, MASS], ids=["gravity", "friction", "noise", "mass"])
def test_observations_and_rewards_are_computed_as_before(gap):
    env = shifted("Hopper", gap)
    for (qpos, _, action), result in zip(states("Hopper"), step_all("Hopper", env), strict=True):
        observation, reward, terminated, after, _, _, info = result
        np.testing.assert_array_equal(observation, np.concatenate([after[1:6], np.clip(after[6:], -10, 10)]))
        executed = info["executed_action"]
        healthy = after[1] > 0.7 and abs(after[2]) < 0.2 and (np.abs(after[2:]) < 100).all()
        expected = (after[0] - qpos[0]) / 0.008 + healthy - 1e-3 * np.square(executed).sum()
        np.testing.assert_allclose(reward, expected, rtol=1e-6)
        assert terminated == (not healthy)
        assert np.array_equal(executed, action) == (gap is not NOISE)
    first, _ = env.reset(seed=3)
    np.testing.assert_array_equal(first, plain("Hopper").reset(seed=3)[0])


def test_values_of_the_published_gaps_on_half_cheetah():
    model = shifted("HalfCheetah", DynamicsGap(gravity=2.0, friction=0.3)).unwrapped.model
    np.testing.assert_allclose(model.opt.gravity, [0.0, 0.0, -19.62])
    np.testing.assert_allclose(model.geom_friction, np.tile([0.12, 0.03, 0.03], (model.ngeom, 1)))
    np.testing.assert_allclose(shifted("HalfCheetah", MASS).unwrapped.model.body_mass.sum(), 21.0)


def test_heavier_bodies_are_those_of_a_denser_material():
    spec = mujoco.MjSpec.from_file(plain("Walker2d").unwrapped.fullpath)
    for geom in spec.geoms:
        geom.density *= 1.5
    compiled, model = spec.compile(), shifted("Walker2d", MASS).unwrapped.model
    for name in ("body_mass", "body_inertia", "body_subtreemass", "dof_invweight0", "body_invweight0", "dof_M0"):
        np.testing.assert_allclose(getattr(model, name), getattr(compiled, name), rtol=1e-10, err_msg=name)
    np.testing.assert_allclose(model.stat.meaninertia, compiled.stat.meaninertia, rtol=1e-10)
    assert not np.allclose(model.dof_invweight0, plain("Walker2d").unwrapped.model.dof_invweight0, rtol=0.1)


def test_noise_is_executed_and_the_agent_s_action_is_clean():
    env = envs.make_env(half_cheetah_task("noise1"), 0, simulator=True)
    rng, noise, costs = np.random.default_rng(1), [], []
    env.reset()
    for _ in range(2500):
        action = rng.uniform(-0.9, 0.9, 6).astype(np.float32)
        given = action.copy()
        _, _, _, truncated, info = env.step(action)
        np.testing.assert_array_equal(action, given)
        noise.append(info["executed_action"] - action)
        costs.append(info["reward_ctrl"] + 0.1 * np.square(action).sum())
        if truncated:
            env.reset()
    assert abs(np.std(noise) - 1.0) < 0.02
    assert abs(np.mean(noise)) < 0.02
    assert abs(np.corrcoef(np.ravel(noise)[:-6], np.ravel(noise)[6:])[0, 1]) < 0.03
    assert abs(np.mean(costs) + 0.6) < 0.03  # 6 joints pay 0.1 for a variance of 1


def half_cheetah_task(gap):
    """A task on HalfCheetah whatever its dataset."""
    from envs.shifted import with_gap

    bare = Task("cheetah", "locomotion", "HalfCheetah-v5", 1000, score_range=(0.0, 1.0))
    return with_gap(bare, gap)


def course(env, steps=30):
    rng = np.random.default_rng(5)
    observation, _ = env.reset(seed=7)
    seen = [observation]
    for _ in range(steps):
        observation, _, terminated, _, _ = env.step(rng.uniform(-1.0, 1.0, env.action_space.shape).astype(np.float32))
        seen.append(observation)
        if terminated:
            break
    return np.array(seen)


def test_course_follows_from_the_seed():
    env, again = (envs.make_env(half_cheetah_task("noise0.5"), seed, simulator=True) for seed in (0, 1))
    np.testing.assert_array_equal(course(env), course(again))  # both are reset with seed 7
    np.testing.assert_array_equal(course(env), course(env))


def test_noise_follows_from_the_seed_and_goes_on_over_episodes():
    env, drawn = shifted("HalfCheetah", NOISE), []
    for seed in (7, 7, 8, None):
        env.reset(seed=seed)
        drawn.append(env.step(np.zeros(6, np.float32))[4]["executed_action"])
    np.testing.assert_array_equal(drawn[0], drawn[1])
    assert len({tuple(noise) for noise in drawn}) == 3


def test_environments_of_one_process_do_not_disturb_one_another():
    alone = {gap: course(shifted("Hopper", gap)) for gap in (GRAVITY, MASS, NOISE)}
    untouched = course(plain("Hopper"))
    together = {gap: shifted("Hopper", gap) for gap in alone}
    bystander = plain("Hopper")
    for gap, env in together.items():
        np.testing.assert_array_equal(course(env), alone[gap])
        np.testing.assert_array_equal(course(bystander), untouched)
    assert not np.array_equal(alone[GRAVITY][5], alone[MASS][5])


def test_no_file_is_written():
    file = Path(plain("Hopper").unwrapped.fullpath)
    before = hashlib.sha256(file.read_bytes()).hexdigest(), file.stat().st_mtime_ns
    course(shifted("Hopper", DynamicsGap(2.0, 0.3, 1.0, 1.5)), steps=2)
    assert (hashlib.sha256(file.read_bytes()).hexdigest(), file.stat().st_mtime_ns) == before


def test_name_says_the_gap():
    task, base = envs.make_task(f"{TASK}+gravity2+noise0.5"), envs.make_task(TASK)
    assert task.name == f"{TASK}+gravity2+noise0.5"
    assert task.dataset.id == base.dataset.id
    assert task.score_range == base.score_range
    assert envs.make_env(task, 0, simulator=True).env.gap == DynamicsGap(gravity=2.0, joint_noise=0.5)
    assert envs.make_env(envs.make_task(f"{TASK}+gravity0.1234567"), 0, simulator=True).env.gap.gravity == 0.1234567
    assert pickle.loads(pickle.dumps(task)).simulator.keywords == task.simulator.keywords


def test_gaps_of_d4rl_s_tasks():
    task = envs.make_task("halfcheetah-medium-v2+d4rl+gravity2")
    assert task.name == "halfcheetah-medium-v2+d4rl+gravity2"
    assert task.dataset == envs.make_task("halfcheetah-medium-v2+d4rl").dataset
    assert task.simulator.keywords["gap"] == GRAVITY
    assert envs.make_task("ant-medium-v2+mass1.5").simulator is not None


def test_the_evaluated_environment_has_no_gap():
    task = envs.make_task(f"{TASK}+friction0.3+mass1.5")
    real = envs.make_env(task, 0)
    np.testing.assert_array_equal(real.env.unwrapped.model.body_mass, plain("Hopper").unwrapped.model.body_mass)
    np.testing.assert_array_equal(course(real), course(envs.make_env(envs.make_task(TASK), 0)))
    assert not np.array_equal(course(real)[3], course(envs.make_env(task, 0, simulator=True))[3])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (f"{TASK}+gravty2", r"no gap 'gravty2'; did you mean 'gravity2'\? expected gravity<number>, friction<number>"),
        (f"{TASK}+", "no gap ''"),
        (f"{TASK}+gravity", "'' in 'gravity' is no plain number"),
        (f"{TASK}+gravity-2", "'-2' in 'gravity-2' is no plain number"),
        (f"{TASK}+gravityinf", "no gap|no plain number"),
        (f"{TASK}+mass0", "body_mass=0.0; expected a finite number"),
        (f"{TASK}+gravity2.0", "'gravity2.0' is spelled 'gravity2'"),
        (f"{TASK}+noise1+gravity2", "is spelled 'gravity2\\+noise1'"),
        (f"{TASK}+noise1+noise1", "'noise' is given twice"),
        ("pointmaze-umaze-v2+gravity2", "gaps exist for HalfCheetah, Hopper, Walker2d, Ant"),
        ("family/hopper-param/0-v0+gravity2", "gaps exist for HalfCheetah, Hopper, Walker2d, Ant"),
        ("local/hoper-medium-v0+gravity2", r"did you mean 'local/hopper-medium-v0\+gravity2'"),
    ],
)
def test_mistakes_in_names_are_told(name, message):
    with pytest.raises(ConfigError, match=message):
        envs.make_task(name)


def test_asking_for_a_simulator_where_there_is_none():
    with pytest.raises(ConfigError, match="has no simulator apart from its environment"):
        envs.make_env(envs.make_task(TASK), 0, simulator=True)


@pytest.mark.parametrize("values", [{"gravity": -1.0}, {"friction": float("nan")}, {"joint_noise": float("inf")}])
def test_impossible_gaps(values):
    with pytest.raises(ConfigError, match="expected a finite number"):
        DynamicsGap(**values)


def test_gymnasium_accepts_a_shifted_robot():
    env = shifted("HalfCheetah", DynamicsGap(gravity=2.0, joint_noise=0.1))
    assert isinstance(env, gymnasium.Wrapper)
    assert env.observation_space == plain("HalfCheetah").observation_space
