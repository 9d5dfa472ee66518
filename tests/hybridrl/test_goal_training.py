"""Goal-conditioned agents in the loop: goals from the dataset, evaluation per goal, and coming back."""

import functools
import math

import gymnasium
import jax
import numpy as np
import pytest

from algorithms import GCBCAgent, GCBCConfig, HIQLAgent, HIQLConfig
from envs.wrappers import TaskEnv
from hybridrl.datasets import Dataset, Steps
from hybridrl.errors import ConfigError
from hybridrl.logger import read_lines
from hybridrl.replay import GoalMixture
from hybridrl.task import Task
from hybridrl.training.loop import Loop
from hybridrl.training.phases import Learner, Phase
from hybridrl.training.progress import LoopSettings, Stopped


class Line(gymnasium.Env):
    """A point on a line that is to reach one of two places."""

    observation_space = gymnasium.spaces.Box(-2.0, 2.0, (1,), np.float64)
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float64)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place = self.np_random.uniform(-0.2, 0.2)
        self.goal = (-0.8, 0.8)[(options or {"task_id": 1})["task_id"] - 1]
        return np.array([self.place]), {"goal": np.array([self.goal])}

    def step(self, action):
        self.place = float(np.clip(self.place + 0.2 * action[0], -1.0, 1.0))
        success = abs(self.place - self.goal) < 0.15
        return np.array([self.place]), float(success), success, False, {"success": float(success)}


TASK = Task(
    name="line",
    family="probe",
    env_id="line",
    horizon=12,
    success_key="success",
    terminate_on_success=True,
    num_goals=2,
    make=lambda task: Line(),
)
SETTINGS = LoopSettings(log_every=10, checkpoint_every=10, eval_episodes=3, eval_envs=4, probe_rows=8)
SMALL = {"value_hidden_dims": (8,), "actor_hidden_dims": (8,)}
HIQL = HIQLConfig(subgoal_steps=3, discount=0.9, **SMALL)


@functools.cache
def dataset():
    """Walks from end to end of the line, with noise."""
    rng = np.random.default_rng(0)
    observations, actions, following, ends = [], [], [], []
    for _ in range(20):
        place, heading = rng.uniform(-1, 1), 1.0
        for step in range(30):
            action = float(np.clip(heading + 0.3 * rng.standard_normal(), -1, 1))
            arrived = float(np.clip(place + 0.2 * action, -1, 1))
            heading = -heading if abs(arrived) > 0.95 else heading
            observations.append([place]), actions.append([action]), following.append([arrived])
            ends.append(step == 29)
            place = arrived
    count = len(ends)
    steps = Steps(
        np.array(observations, np.float32),
        np.array(actions, np.float32),
        np.zeros(count, np.float32),
        np.zeros(count, bool),
        np.array(ends),
        np.array(following, np.float32),
        np.zeros(count, bool),
    )
    return Dataset.from_steps(steps, TASK, 0.9)


class Watcher:
    def __init__(self, stop_at=math.inf):
        self.asked, self.stop_at = 0, stop_at

    def progress(self, phase, done, rate):
        assert rate >= 0

    def evaluated(self, record):
        assert record["episodes"]["goals"] == [1, 2] * 3

    def should_stop(self):
        self.asked += 1
        return self.asked >= self.stop_at


def phase(agent_class, config, updates=20):
    return Phase(
        "offline",
        Learner(agent_class, config),
        num_updates=updates,
        batch_size=16,
        goals=config.goals(),
        evaluate_at=(updates,),
    )


def loop(folder, phases, watcher=None):
    return Loop(phases, TASK, dataset(), functools.partial(TaskEnv, TASK), folder, 0, SETTINGS, watcher or Watcher())


def test_hiql_trains_with_goals_is_evaluated_per_goal_and_resumes(tmp_path):
    phases = (phase(HIQLAgent, HIQL),)
    whole = loop(tmp_path / "whole", phases).run()
    (record,) = read_lines(tmp_path / "whole" / "evaluations.jsonl")
    summary, panel = record["summary"], record["panel"]
    np.testing.assert_allclose(summary["score"], (summary["score_goal_1"] + summary["score_goal_2"]) / 2)
    assert {"offline_q", "offline_td_error", "value_grad_norm"} <= panel.keys()
    assert "offline_return" not in panel  # there are no rewards
    with pytest.raises(Stopped):
        loop(tmp_path / "cut", phases, Watcher(stop_at=2)).run()
    resumed = loop(tmp_path / "cut", phases).run()
    jax.tree.map(np.testing.assert_array_equal, resumed, whole)
    for name in ("metrics.jsonl", "evaluations.jsonl"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_cloning_towards_goals_reaches_them(tmp_path):
    """The actions that lead to either end of the line differ, and only the goal tells them apart."""
    soon = GoalMixture(0.0, 1.0, 0.0, geometric=True)  # before the walk turns
    config = GCBCConfig(actor_hidden_dims=(16,), learning_rate=1e-2, discount=0.7, actor_goals=soon)
    loop(tmp_path, (phase(GCBCAgent, config, 300),)).run()
    (record,) = read_lines(tmp_path / "evaluations.jsonl")
    assert record["summary"]["score"] == 100.0


def test_goals_need_single_steps_of_a_dataset_and_an_agent_that_takes_them(tmp_path):
    good = phase(HIQLAgent, HIQL)
    fields = {"name": "online", "learner": good.learner, "goals": good.goals}
    with pytest.raises(ConfigError, match="draws goals and has env_steps=5"):
        Phase(env_steps=5, **fields)
    with pytest.raises(ConfigError, match="n_step=3"):
        Phase(num_updates=5, n_step=3, **fields)
