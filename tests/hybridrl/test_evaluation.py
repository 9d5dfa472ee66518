import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

from hybridrl.task import Task
from hybridrl.training.evaluation import evaluate

TASK = Task(name="counting", family="probe", env_id="none", horizon=9, score_range=(0.0, 10.0))


class CountingEnv:
    """Episode `seed` lasts `seed % 4 + 1` steps, shows `(seed, step)` and pays the action."""

    seeds: list[int]

    def __init__(self, seeds):
        self.seeds, self.running = seeds, False

    def reset(self, *, seed):
        self.seeds.append(seed)
        self.seed, self.step_number, self.running = seed, 0, True
        return np.array([seed, 0], np.float32), {"goal": np.float32(seed)}

    def step(self, action):
        assert self.running, "stepped after its end"
        self.step_number += 1
        ended = self.step_number == self.seed % 4 + 1
        self.running = not ended
        info = {"raw_reward": float(action[0]), "success": ended and self.seed % 2 == 0}
        # The task's reward must not be what is counted, and truncation ends as well.
        return np.array([self.seed, self.step_number], np.float32), -999.0, ended and self.seed % 2 == 0, ended, info


class Remembering(struct.PyTreeNode):
    """Acts by what it saw before: previous observation, steps so far, and the goal it was given."""

    def begin(self, context):
        rows = len(context)
        return {"goal": context, "steps": jnp.zeros(rows), "previous": jnp.full((rows, 2), -1.0)}

    def act(self, carry, observations, key):
        # 1 if the memory is right: the goal is this episode's, and the last observation one step back.
        steps_right = carry["steps"] == observations[:, 1]
        goal_right = carry["goal"] == observations[:, 0]
        before = jnp.where(observations[:, 1] > 0, observations[:, 1] - 1, -1.0)
        right = steps_right & goal_right & (carry["previous"][:, 1] == before)
        carry = carry | {"steps": carry["steps"] + 1, "previous": observations}
        return right.astype(jnp.float32)[:, None], carry


@pytest.mark.parametrize(("num_envs", "num_episodes"), [(1, 3), (4, 10), (5, 5), (3, 2)])
def test_every_episode_counts_once_with_its_own_seed_and_memory(num_envs, num_episodes):
    seeds: list[int] = []
    envs = [CountingEnv(seeds) for _ in range(num_envs)]
    episodes = evaluate(Remembering(), envs, TASK, num_episodes, jax.random.key(0), 70, lambda info: info["goal"])
    assert seeds == list(range(70, 70 + num_episodes))
    lengths = [seed % 4 + 1 for seed in seeds]
    np.testing.assert_array_equal(episodes.lengths, lengths)
    np.testing.assert_array_equal(episodes.returns, lengths)  # the memory was right at every step
    np.testing.assert_array_equal(episodes.successes, [seed % 2 == 0 for seed in seeds])
    np.testing.assert_allclose(episodes.scores, [10.0 * length for length in lengths])
    assert episodes.summary()["return"] == np.mean(lengths)
    records = episodes.records()
    assert [len(values) for values in records.values()] == [num_episodes] * 4
    assert records["lengths"] == lengths


class Noisy(struct.PyTreeNode):
    def begin(self, context):
        return ()

    def act(self, carry, observations, key):
        return jax.random.normal(key, (len(observations), 1)), carry


def test_randomness_follows_the_key_and_differs_between_rounds():
    def returns(key):
        envs = [CountingEnv([]) for _ in range(4)]
        return evaluate(Noisy(), envs, TASK, 8, jax.random.key(key), 0).returns

    np.testing.assert_array_equal(returns(1), returns(1))
    assert not np.array_equal(returns(1), returns(2))
    assert len(np.unique(returns(1))) == 8


class GoalEnv(CountingEnv):
    """Each goal has its own score, and the policy is told the goal's number."""

    def reset(self, *, seed, options):
        observation, _ = super().reset(seed=seed)
        self.number = options["task_id"]
        return observation, {"goal": np.full(2, self.number, np.float32)}

    def step(self, action):
        observation, reward, _, ended, info = super().step(action)
        return observation, reward, ended, ended, info | {"success": ended and action[0] == self.number == 2}


class TellsItsGoal(struct.PyTreeNode):
    def begin(self, context):
        return context

    def act(self, carry, observations, key):
        return carry[:, :1], carry


@pytest.mark.parametrize("num_envs", [1, 4, 20])
def test_every_goal_has_as_many_episodes_and_reaches_the_policy(num_envs):
    task = Task(name="goals", family="probe", env_id="none", horizon=9, success_key="success", num_goals=3)
    seeds: list[int] = []
    envs = [GoalEnv(seeds) for _ in range(num_envs)]
    episodes = evaluate(TellsItsGoal(), envs, task, 4, jax.random.key(0), 70)
    assert seeds == list(range(70, 82))
    np.testing.assert_array_equal(episodes.goals, [1, 2, 3] * 4)
    np.testing.assert_array_equal(episodes.returns, episodes.goals * episodes.lengths)
    np.testing.assert_array_equal(episodes.successes, episodes.goals == 2)
    summary = episodes.summary()
    assert [summary[f"score_goal_{number}"] for number in (1, 2, 3)] == [0.0, 100.0, 0.0]
    np.testing.assert_allclose(summary["score"], 100.0 / 3.0)
    assert episodes.records()["goals"] == [1, 2, 3] * 4
