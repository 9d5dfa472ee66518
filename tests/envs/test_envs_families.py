"""Task families: splits and draws as published, rewards worked out by hand."""

import math

import gymnasium
import numpy as np
import pytest

import envs
from envs.families import FAMILIES, PointRobot
from hybridrl.errors import ConfigError

SIZES = {  # train, test, horizon, obs_dim, action_dim
    "point-robot": (45, 5, 20, 2, 2),
    "cheetah-vel": (45, 5, 200, 20, 6),
    "cheetah-vel-grid": (35, 5, 200, 20, 6),
    "cheetah-dir": (2, 2, 200, 20, 6),
    "ant-dir": (45, 5, 200, 27, 8),
    "hopper-param": (45, 5, 200, 11, 3),
    "walker-param": (45, 5, 200, 17, 6),
    "reach": (15, 5, 500, 39, 4),
}


def test_splits_are_the_published_ones():
    assert set(FAMILIES) == set(SIZES)
    for name, (train, test, horizon, *_) in SIZES.items():
        family = FAMILIES[name]
        assert (len(family.train), len(family.test), family.horizon) == (train, test, horizon)
        assert not set(family.train) & set(family.test)
        assert len(family.draw()) == family.num_tasks == train + test
        if name != "cheetah-vel-grid":
            assert family.train == tuple(range(train))
    assert FAMILIES["cheetah-vel-grid"].test == (2, 7, 15, 23, 26)


def test_parameters_lie_in_the_published_ranges():
    goals = np.array([FAMILIES["point-robot"].parameters(index)["goal"] for index in range(50)])
    assert goals.min() < -0.9
    assert goals.max() > 0.9
    assert np.abs(goals).max() < 1.0
    speeds = [FAMILIES["cheetah-vel"].parameters(index)["velocity"] for index in range(50)]
    assert 0.075 <= min(speeds) < 0.3
    assert 2.8 < max(speeds) <= 3.0
    grid = [FAMILIES["cheetah-vel-grid"].parameters(index)["velocity"] for index in range(40)]
    np.testing.assert_allclose(grid, 0.075 * np.arange(1, 41))
    assert [FAMILIES["cheetah-dir"].parameters(index)["direction"] for index in range(4)] == [1.0, -1.0, 1.0, -1.0]
    angles = [FAMILIES["ant-dir"].parameters(index)["angle"] for index in range(50)]
    assert 0.0 <= min(angles) < 0.4
    assert 5.9 < max(angles) <= 2.0 * math.pi


def test_tasks_of_a_family_differ():
    for family in FAMILIES.values():
        distinct = {repr(family.parameters(index)) for index in range(family.num_tasks)}
        assert len(distinct) == (2 if family.name == "cheetah-dir" else family.num_tasks)


@pytest.mark.parametrize(("name", "bodies", "joints", "geoms"), [("hopper-param", 5, 6, 5), ("walker-param", 8, 9, 8)])
def test_multipliers_follow_the_published_draw(name, bodies, joints, geoms):
    # One stream for everything: masses, inertias, dampings, frictions of task 0, then those of task 1, and so on.
    count = bodies + 3 * bodies + joints + 3 * geoms
    draws = np.random.RandomState(1234).uniform(-3.0, 3.0, 50 * count).reshape(50, count)
    for index in (0, 1, 49):
        found = FAMILIES[name].parameters(index)
        mass, inertia, damping, friction = np.split(draws[index], np.cumsum([bodies, 3 * bodies, joints]))
        np.testing.assert_allclose(found["body_mass"], 1.5**mass)
        np.testing.assert_allclose(found["body_inertia"].ravel(), 1.5**inertia)
        np.testing.assert_allclose(found["dof_damping"], 1.3**damping)
        np.testing.assert_allclose(found["geom_friction"].ravel(), 1.5**friction)


def test_point_robot_by_hand():
    env = PointRobot(np.array([0.3, -0.4]))
    observation, _ = env.reset(seed=0)
    np.testing.assert_array_equal(observation, [0.0, 0.0])
    observation, reward, terminated, truncated, _ = env.step(np.array([0.1, -0.5]))  # clipped to -0.1
    np.testing.assert_allclose(observation, [0.1, -0.1])
    np.testing.assert_allclose(reward, -math.hypot(0.2, 0.3))
    assert not terminated
    assert not truncated


def test_point_robot_s_score_is_0_for_standing_still_and_100_for_the_shortest_way():
    task = envs.make_task("family/point-robot/7-v0")
    goal = FAMILIES["point-robot"].parameters(7)["goal"]
    env = envs.make_env(task, 0)
    for policy, expected in ((lambda o: np.zeros(2), 0.0), (lambda o: np.clip(10.0 * (goal - o), -1, 1), 100.0)):
        observation, _ = env.reset()
        total, steps, truncated = 0.0, 0, False
        while not truncated:
            observation, reward, _, truncated, _ = env.step(policy(observation))
            total, steps = total + reward, steps + 1
        assert steps == 20
        np.testing.assert_allclose(task.score(np.array([total]), np.zeros(1)), expected, atol=0.05)


@pytest.mark.parametrize(
    ("name", "index", "objective"),
    [
        ("cheetah-vel-grid", 39, lambda speed: -abs(speed - 3.0)),
        ("cheetah-dir", 0, lambda speed: speed),
        ("cheetah-dir", 1, lambda speed: -speed),
    ],
)
def test_cheetah_by_hand(name, index, objective):
    env, rng = FAMILIES[name].make(index), np.random.default_rng(0)
    observation, _ = env.reset(seed=0)
    data = env.unwrapped.data
    for _ in range(20):
        x, action = data.qpos[0], rng.uniform(-1, 1, 6).astype(np.float32)
        observation, reward, terminated, truncated, _ = env.step(action)
        np.testing.assert_allclose(
            reward, objective((data.qpos[0] - x) / 0.05) - 0.05 * np.square(action).sum(), rtol=1e-6
        )
        np.testing.assert_array_equal(observation, np.concatenate([data.qpos[1:], data.qvel, data.body("torso").xpos]))
        assert not terminated
    assert not truncated


def test_ant_by_hand_and_without_end():
    family, rng = FAMILIES["ant-dir"], np.random.default_rng(0)
    env, angle = family.make(3), family.parameters(3)["angle"]
    env.reset(seed=0)
    data = env.unwrapped.data
    for _ in range(50):
        before, action = data.body("torso").xpos.copy(), rng.uniform(-1, 1, 8).astype(np.float32)
        observation, reward, terminated, _, _ = env.step(action)
        moved = (data.body("torso").xpos - before) / 0.05
        contact = np.square(np.clip(data.cfrc_ext, -1, 1)).sum()
        expected = moved[0] * math.cos(angle) + moved[1] * math.sin(angle) + 1.0
        np.testing.assert_allclose(reward, expected - 0.5 * np.square(action).sum() - 5e-4 * contact, atol=1e-6)
        np.testing.assert_array_equal(observation, np.concatenate([data.qpos[2:], data.qvel]))
        assert not terminated
    env.unwrapped.set_state(np.r_[0.0, 0.0, 3.0, data.qpos[3:]], data.qvel)  # unhealthy: too high
    _, reward, terminated, _, info = env.step(np.zeros(8, np.float32))
    assert info["reward_survive"] == 0.0
    assert not terminated
    speed = info["x_velocity"] * math.cos(angle) + info["y_velocity"] * math.sin(angle)
    np.testing.assert_allclose(reward, speed + info["reward_contact"] + 1.0)


@pytest.mark.parametrize(("name", "env_id", "kwargs"), [
    ("hopper-param", "Hopper-v5", {}), ("walker-param", "Walker2d-v5", {"xml_file": "walker2d.xml"})
])  # fmt: skip
def test_random_robots_by_hand_and_without_end(name, env_id, kwargs):
    family, rng = FAMILIES[name], np.random.default_rng(0)
    env, base = family.make(5), gymnasium.make(env_id, **kwargs).unwrapped.model
    model, data = env.unwrapped.model, env.unwrapped.data
    for field, factors in family.parameters(5).items():
        np.testing.assert_allclose(getattr(model, field), getattr(base, field) * factors)
        assert not np.allclose(getattr(model, field), getattr(base, field))
    np.testing.assert_allclose(model.body_subtreemass[0], model.body_mass.sum())  # derived constants follow
    env.reset(seed=0)
    fallen = False
    for _ in range(60):
        x, time, action = data.qpos[0], data.time, rng.uniform(-1, 1, family.action_dim).astype(np.float32)
        observation, reward, terminated, _, info = env.step(action)
        np.testing.assert_allclose(data.time - time, 0.016)
        np.testing.assert_allclose(reward, (data.qpos[0] - x) / 0.016 + 1.0 - 1e-3 * np.square(action).sum(), rtol=1e-6)
        np.testing.assert_array_equal(observation, np.concatenate([data.qpos[1:], np.clip(data.qvel, -10, 10)]))
        assert not terminated
        fallen = fallen or info["reward_survive"] == 0.0
    assert fallen


def test_walker_s_feet_differ_as_in_the_published_model():
    model = gymnasium.make("Walker2d-v5", xml_file="walker2d.xml").unwrapped.model
    frictions = FAMILIES["walker-param"].make(0).unwrapped.model.geom_friction
    factors = FAMILIES["walker-param"].parameters(0)["geom_friction"]
    feet = [model.geom("foot_geom").id, model.geom("foot_left_geom").id]
    np.testing.assert_allclose((frictions / factors)[feet, 0], [0.9, 1.9])


def test_reach_hides_its_goal_and_pays_for_coming_near():
    family = FAMILIES["reach"]
    env, parameters = family.make(4), family.parameters(4)
    first, _ = env.reset(seed=0)
    again, _ = env.reset(seed=1)
    np.testing.assert_array_equal(first, again)  # the placement is the task's, not the episode's
    np.testing.assert_allclose(env.unwrapped._target_pos, parameters["goal"])
    np.testing.assert_array_equal(first[-3:], np.zeros(3))
    np.testing.assert_allclose(first[4:6], parameters["object"][:2], atol=1e-3)
    rewards, observation = [], first
    for _ in range(60):
        action = np.r_[np.clip(10.0 * (parameters["goal"] - observation[:3]), -1, 1), 0.0]
        observation, reward, _, _, info = env.step(action)
        rewards.append(reward)
    assert rewards[-1] > 9.0 > rewards[0]
    assert info["success"] == 1.0


@pytest.mark.slow
def test_reach_goals_are_those_of_the_benchmark():
    import metaworld

    benchmark = metaworld.ML1("reach-v3", seed=3407)
    env = benchmark.train_classes["reach-v3"]()
    for index in range(20):
        env.set_task(benchmark.train_tasks[index])
        env.reset()
        np.testing.assert_array_equal(env._target_pos, FAMILIES["reach"].parameters(index)["goal"])
        np.testing.assert_array_equal(env.obj_init_pos, FAMILIES["reach"].parameters(index)["object"])


@pytest.mark.parametrize("name", [name for name in SIZES if name != "reach"])
def test_tasks_are_as_their_family_says_and_repeat_with_the_seed(name):
    *_, horizon, obs_dim, action_dim = SIZES[name]
    task = envs.make_task(f"family/{name}/1-v0")
    assert task.horizon == horizon
    courses = []
    for _ in range(2):
        env, rng = envs.make_env(task, 3), np.random.default_rng(0)
        assert env.observation_space.shape == (obs_dim,)
        assert env.action_space.shape == (action_dim,)
        courses.append([env.reset()[0], *(env.step(rng.uniform(-1, 1, action_dim))[0] for _ in range(10))])
    np.testing.assert_array_equal(*courses)


def test_scores_of_speeds():
    assert envs.make_task("family/cheetah-dir/1-v0").score_range == (0.0, 200.0)
    assert envs.make_task("family/hopper-param/1-v0").score_range == (200.0, 400.0)
    assert envs.make_task("family/cheetah-vel-grid/39-v0").score_range == (-600.0, 0.0)
    assert envs.make_task("family/reach/0-v0").score_range is None


def test_unknown_members():
    with pytest.raises(ConfigError, match="no task 50; expected 0 to 49"):
        FAMILIES["ant-dir"].parameters(50)
    with pytest.raises(ConfigError, match="did you mean 'family/ant-dir/"):
        envs.make_task("family/ant-dir/50-v0")
