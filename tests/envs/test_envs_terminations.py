"""The rules that end rollouts in a learned model, beside the simulators whose episodes they stand for."""

import numpy as np
import pytest

import envs

# Heights and angles to put a robot at, on both sides of its limits.
ROBOTS = {
    "local/hopper-medium-v0": ((0.5, 1.6), (-0.4, 0.4)),
    "local/walker2d-medium-v0": ((0.5, 2.4), (-1.8, 1.8)),
    "ant-medium-v2": ((0.0, 1.3), None),
}


@pytest.mark.parametrize("name", ROBOTS)
def test_rules_are_those_of_the_simulators(name):
    """Every limit is crossed, and each crossing ends the simulator's episode exactly where it ends the rule's."""
    task = envs.make_task(name)
    env, rng = envs.make_env(task, 0), np.random.default_rng(0)
    robot = env.env.unwrapped
    heights, angles = ROBOTS[name]
    place = 2 if angles is None else 1  # of the height in the simulator's state; the angle comes next
    seen, ended = [], []
    for _ in range(300):
        env.reset()
        positions, velocities = robot.init_qpos.copy(), rng.normal(0.0, 1.0, robot.init_qvel.shape)
        positions[place] = rng.uniform(*heights)
        if angles is not None:
            positions[place + 1] = rng.uniform(*angles)
        robot.set_state(positions, velocities)
        observation, _, terminated, _, _ = env.step(np.zeros(env.action_space.shape, np.float32))
        seen.append(observation)
        ended.append(terminated)
    seen, ended = np.array(seen), np.array(ended)
    np.testing.assert_array_equal(task.terminates(seen), ended)
    low, high = envs.terminations.by_environment(task.env_id).intervals[0][1:]
    assert np.isinf(high) or (seen[:, 0] > high).any()
    assert 0.1 < ended.mean() < 0.9
    if angles is not None:  # an ant's body is too thick to get below its limit
        assert (seen[:, 0] < low).any()
        standing = (seen[:, 0] > low) & (seen[:, 0] < high)
        assert (ended & standing & (seen[:, 1] < 0.0)).any()
        assert (ended & standing & (seen[:, 1] > 0.0)).any()


def test_the_pen_is_dropped_by_the_same_rule():
    task = envs.make_task("pen-human-v1")
    env, rng, seen, ended = envs.make_env(task, 0), np.random.default_rng(0), [], []
    env.reset()
    for _ in range(150):
        observation, _, terminated, truncated, _ = env.step(rng.choice([-1.0, 1.0], 24).astype(np.float32))
        seen.append(observation)
        ended.append(terminated)
        if terminated or truncated:
            env.reset()
    assert 0 < sum(ended) < 150
    np.testing.assert_array_equal(task.terminates(np.array(seen)), ended)


def test_what_has_gone_astray_ends_and_others_never_do():
    """States that are not finite or far too large; a cheetah never falls; a maze ends at its goal."""
    hopper = envs.make_task("local/hopper-medium-v0").terminates
    fine = np.zeros(11)
    fine[0] = 1.2
    astray = np.stack([fine, fine, fine, fine])
    astray[1:, 7] = [np.nan, np.inf, -100.0]
    np.testing.assert_array_equal(hopper(astray), [False, True, True, True])
    cheetah = envs.make_task("local/halfcheetah-medium-v0").terminates
    rows = np.zeros((3, 17))
    rows[:, 4] = [99.0, -101.0, 101.0]
    np.testing.assert_array_equal(cheetah(rows), [False, True, True])
    maze = envs.make_task("antmaze-umaze-v2").terminates
    around = np.zeros((3, 29))
    around[:, :2] = np.array(maze.goal) + np.array([[0.29, 0.4], [0.31, -0.4], [-0.31, 0.4]])
    np.testing.assert_array_equal(maze(around), [True, False, False])
    assert envs.make_task("door-human-v1").terminates is None
