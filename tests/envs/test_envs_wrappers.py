"""TaskEnv: one seed, one course; time limits truncate; nonsense is refused."""

import dataclasses

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box
from gymnasium.utils.env_checker import check_env

import envs
from envs.wrappers import EnvironmentFault, TaskEnv
from hybridrl.errors import ConfigError
from hybridrl.task import Task

NAMES = ["pointmaze-umaze-v2", "pointmaze-medium-navigate-singletask-v0", "local/hopper-medium-v0", "probe/reach-v0"]


def course(env, steps=40, seed=None):
    """Observations, rewards and ends of a walk with the environment's own action samples."""
    rows, action_rng = [env.reset(seed=seed)[0]], np.random.default_rng(3)
    for _ in range(steps):
        observation, reward, terminated, truncated, _ = env.step(action_rng.uniform(-1, 1, env.action_space.shape))
        rows += [observation, reward, terminated, truncated]
        if terminated or truncated:
            rows.append(env.reset()[0])
    return np.concatenate([np.ravel(row).astype(np.float64) for row in rows])


@pytest.mark.parametrize("name", NAMES)
def test_the_course_follows_from_the_seed(name):
    task = envs.make_task(name)
    np.random.seed(0)
    first = course(TaskEnv(task, 7))
    np.random.seed(99)
    env = TaskEnv(task, 7)
    np.testing.assert_array_equal(course(env), first)
    np.testing.assert_array_equal(course(env, seed=7), first)  # a seeded reset starts over
    other = course(TaskEnv(task, 8))
    assert other.shape != first.shape or not np.array_equal(other, first)


def test_environments_do_not_disturb_one_another_nor_the_caller():
    task = envs.make_task("pointmaze-medium-navigate-singletask-v0")  # draws from NumPy's global generator
    alone = [TaskEnv(task, 1).reset()[0]]
    np.random.seed(5)
    expected = np.random.RandomState(5).rand(3)
    first, second = TaskEnv(task, 1), TaskEnv(task, 2)
    second.reset()
    np.testing.assert_array_equal(first.reset()[0], alone[0])
    first.step(np.zeros(2))
    np.testing.assert_array_equal(np.random.rand(3), expected)
    assert not np.array_equal(first.reset()[0], alone[0])  # episodes of one environment differ


@pytest.mark.filterwarnings("ignore:.*:UserWarning")
@pytest.mark.parametrize("name", [*NAMES, "probe/bandit-v0", "probe/chain-v0"])
def test_gymnasium_s_checker_accepts_it(name):
    check_env(TaskEnv(envs.make_task(name), 0), skip_render_check=True)


def test_negative_seeds_are_refused():
    with pytest.raises(ConfigError, match="seed -1"):
        TaskEnv(envs.make_task("probe/reach-v0"), -1)


class Scripted(gymnasium.Env):
    """Plays a list of (observation, reward, terminated, success), and records the actions it is given."""

    def __init__(self, steps):
        self.steps, self.actions = steps, []
        self.observation_space = Box(-np.inf, np.inf, (2,))
        self.action_space = Box(np.array([-2.0, 0.0], np.float32), np.array([2.0, 10.0], np.float32))

    def reset(self, *, seed=None, options=None):
        self.cursor = 0
        return np.zeros(2), {}

    def step(self, action):
        self.actions.append(action)
        observation, reward, terminated, success = self.steps[self.cursor]
        self.cursor += 1
        return observation, reward, terminated, False, {"is_success": success}


def scripted(steps, **changes):
    settings = {"horizon": 3, "reward_scale": 10.0, "reward_shift": -5.0, "success_key": "is_success"} | changes
    task = Task(name="scripted", family="probe", env_id="none", make=lambda task: Scripted(steps), **settings)
    env = TaskEnv(task, 0)
    env.reset()
    return env


QUIET = (np.ones(2), 0.0, False, False)
WON = (np.ones(2), 1.0, False, True)


def test_scores_may_be_made_of_an_entry_of_info():
    env = scripted([WON, (np.ones(2), 7.0, False, False)], return_key="is_success")
    seen = [env.step(np.zeros(2)) for _ in range(2)]
    assert [(reward, info["raw_reward"]) for _, reward, _, _, info in seen] == [(5.0, 1.0), (65.0, 0.0)]


def test_the_horizon_truncates_and_never_terminates():
    env = scripted([QUIET] * 3)
    ends = [env.step(np.zeros(2))[2:4] for _ in range(3)]
    assert ends == [(False, False), (False, False), (False, True)]
    with pytest.raises(ValueError, match="after the end"):
        env.step(np.zeros(2))


def test_success_at_the_horizon_is_a_termination():
    env = scripted([QUIET, QUIET, WON], terminate_on_success=True)
    env.step(np.zeros(2))
    env.step(np.zeros(2))
    _, reward, terminated, truncated, info = env.step(np.zeros(2))
    assert (reward, terminated, truncated, info["success"], info["raw_reward"]) == (5.0, True, False, True, 1.0)


def test_success_goes_on_where_the_task_says_so():
    env = scripted([WON, QUIET, QUIET])
    assert env.step(np.zeros(2))[2:4] == (False, False)


def test_actions_are_clipped_and_stretched_to_the_bounds():
    env = scripted([QUIET] * 3, action_clip=0.5)
    env.step(np.array([0.25, -0.25]))
    env.step(np.array([1.0, -1.0]))
    np.testing.assert_allclose(env.env.actions, [[0.5, 3.75], [1.0, 2.5]])
    assert env.action_space == Box(-1.0, 1.0, (2,), np.float32)


def test_actions_of_an_environment_with_nominal_bounds_are_stretched_only():
    env = scripted([QUIET] * 3, action_clip=0.5, bounded_actions=False)
    env.step(np.array([3.0, -3.0]))
    np.testing.assert_allclose(env.env.actions, [[6.0, -10.0]])


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ((np.array([0.0, np.nan]), 0.0, False, False), r"'scripted', episode 0, step 2: observation entries \[1\]"),
        ((np.ones(3), 0.0, False, False), r"'scripted', episode 0, step 2: observation of shape \(3,\)"),
        ((np.ones(2), float("nan"), False, False), r"'scripted', episode 0, step 2: reward nan"),
    ],
)
def test_nonsense_is_refused_with_its_place(step, message):
    env = scripted([QUIET, step])
    env.step(np.zeros(2))
    with pytest.raises(EnvironmentFault, match=message):
        env.step(np.zeros(2))


def test_bad_actions_are_the_callers_mistake():
    env = scripted([QUIET])
    for action in (np.zeros(3), np.array([0.0, np.nan])):
        with pytest.raises(ValueError, match=r"expected finite numbers of shape \(2,\)"):
            env.step(action)


def test_unbounded_actions_are_refused():
    class Unbounded(Scripted):
        def __init__(self, steps):
            super().__init__(steps)
            self.action_space = Box(-np.inf, np.inf, (2,))

    task = dataclasses.replace(envs.make_task("probe/reach-v0"), make=lambda task: Unbounded([]))
    with pytest.raises(ConfigError, match="bounded"):
        TaskEnv(task, 0)


def test_umaze_episodes_have_one_goal_cell_and_start_outside_it():
    env = TaskEnv(envs.make_task("pointmaze-umaze-v2"), 0)
    starts = []
    for _ in range(200):
        observation, info = env.reset()
        assert observation.shape == (6,)
        assert not info["success"]
        np.testing.assert_allclose(observation[4:], [-1.0, 1.0], atol=0.25)
        starts.append(tuple(np.rint(observation[:2]).astype(int)))
    assert set(starts) == {(0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1)}  # every free cell but the goal's


def test_ogbench_success_is_seen_one_step_after_arriving():
    env = TaskEnv(envs.make_task("pointmaze-medium-navigate-singletask-v0"), 0)
    env.reset()
    inner = env.env.unwrapped
    inner.set_xy(np.add(inner.cur_goal_xy, (1.05, 0.0)))
    assert env.step(np.array([-1.0, 0.0]))[1:3] == (-1.0, False)  # at the goal now; the reward is of the state before
    assert env.step(np.zeros(2))[1:3] == (0.0, True)
