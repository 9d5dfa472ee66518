"""What OTA's value is for: it orders the states of long ways, where HIQL's does not. And the published scores."""

import functools
import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from algorithms import HIQLAgent, HIQLConfig, OTAAgent, OTAConfig
from envs import make_env, make_task
from envs.mazes import OGBENCH_SIZES, generate_ogbench_pointmaze
from hybridrl.datasets import Dataset, Steps
from hybridrl.training.offline import train_steps

SEEDS, UPDATES = 4, 3_000
EPISODES = {"navigate": 200, "stitch": 1_000}
SMALL = HIQLConfig(
    value_hidden_dims=(32, 32), actor_hidden_dims=(8,), learning_rate=1e-3, target_update_rate=0.02, subgoal_steps=25
)


def order_consistency(values, steps, window):
    """The share of times at which the value, smoothed over the last `window`, is higher `steps` later."""
    sums = np.cumsum(np.concatenate([[0.0], values]))
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(ends - window, 0)
    smooth = (sums[ends] - sums[starts]) / (ends - starts)
    return float(np.mean(smooth[steps:] > smooth[:-steps]))


def test_order_consistency_by_hand():
    assert order_consistency(np.arange(10.0), 3, 2) == 1.0
    assert order_consistency(-np.arange(10.0), 3, 2) == 0.0
    assert order_consistency(np.zeros(10), 3, 2) == 0.0  # a flat value orders nothing
    # Smoothed over two: 0, 1, 1, 1, 1.5, 2, which rises in three of five steps.
    np.testing.assert_allclose(order_consistency(np.array([0.0, 2.0, 0.0, 2.0, 1.0, 3.0]), 1, 2), 3 / 5)


def shortest_ways(task):
    """For each of the task's goals, the states on a shortest way from its start, walked without noise."""
    env, ways = make_env(task, 0), []
    for number in range(1, task.num_goals + 1):
        observation, info = env.reset(seed=number, options={"task_id": number})
        way, ended = [observation], False
        while not ended:
            direction = waypoint(env.env.unwrapped, way[-1], info["goal"]) - way[-1]
            observation, _, terminated, truncated, _ = env.step(direction / (np.linalg.norm(direction) + 1e-6))
            way.append(observation)
            ended = terminated or truncated
        assert terminated, "the walk missed its goal"
        ways.append(np.array(way, np.float32))
    return ways


def waypoint(maze, place, goal):
    """The goal in its own cell, elsewhere the centre of the next cell."""
    near = maze.xy_to_ij(place) == maze.xy_to_ij(goal)
    return goal if near else maze.get_oracle_subgoal(place, goal)[0]


def maze_dataset(folder, maze, kind):
    """A part of the published set, made again."""
    name = f"pointmaze-{maze}-{kind}-v0"
    generate_ogbench_pointmaze(maze, kind, folder, episodes=EPISODES[kind])
    with np.load(folder / f"{name}.npz") as file:
        rows = OGBENCH_SIZES[maze, kind][1] + 1
        states, actions = (file[key].reshape(-1, rows, 2) for key in ("observations", "actions"))
    here, following = states[:, :-1].reshape(-1, 2), states[:, 1:].reshape(-1, 2)
    nothing, ends = np.zeros(len(here)), np.zeros((len(states), rows - 1), bool)
    ends[:, -1] = True
    fields = here, actions[:, :-1].reshape(-1, 2), nothing.astype(np.float32), nothing.astype(bool), ends.ravel()
    return Dataset.from_steps(Steps(*fields, following, nothing.astype(bool)), make_task(name), 0.99)


@functools.partial(jax.jit, static_argnums=1)
def high_values(agent, is_ota, states):
    """The value that the high level follows, towards the last of `states`."""
    hiql, value = (agent.hiql, agent.high_value) if is_ota else (agent, agent.value)
    return hiql.mean_value(value, states, jnp.broadcast_to(states[-1], states.shape))


@pytest.mark.slow
@pytest.mark.parametrize(("maze", "kind", "margin"), [("medium", "navigate", 0.0), ("giant", "stitch", 0.02)])
def test_ota_orders_the_states_of_long_ways(tmp_path, maze, kind, margin):
    task, data = make_task(f"pointmaze-{maze}-{kind}-v0"), maze_dataset(tmp_path, maze, kind)
    ways = shortest_ways(task)
    if maze == "giant":
        ways = [way for way in ways if len(way) > 300]
        assert ways
    found = {}
    for agent_class, config in ((HIQLAgent, SMALL), (OTAAgent, OTAConfig(SMALL, option_steps=5))):
        sampler, ratios = config.goals().sampler(data), []
        for seed in range(SEEDS):
            agent = agent_class.create(
                jax.random.key(seed), jax.tree.map(lambda leaf: leaf[:1], data.transitions), config
            )
            key = jax.random.key(100 + seed)
            agent, _ = train_steps(agent, sampler, key, 0, num_updates=UPDATES, batch_size=128)
            values = [np.asarray(high_values(agent, agent_class is OTAAgent, way), np.float64) for way in ways]
            ratios.append([order_consistency(value, SMALL.subgoal_steps, window=30) for value in values])
        found[agent_class] = np.mean(ratios)
    print(f"\n{maze}-{kind}: HIQL {found[HIQLAgent]:.3f}, OTA {found[OTAAgent]:.3f}")
    assert found[OTAAgent] >= found[HIQLAgent] + margin


@pytest.mark.slow
@pytest.mark.skipif(jax.default_backend() == "cpu", reason="the published budget needs an accelerator")
@pytest.mark.parametrize(
    ("algo", "task", "low", "high"),
    [
        ("hiql", "pointmaze-medium-navigate-v0", 69.0, 89.0),
        ("ota", "pointmaze-medium-navigate-v0", 78.0, 94.0),
        ("hiql", "pointmaze-giant-stitch-v0", 0.0, 10.0),
        ("ota", "pointmaze-giant-stitch-v0", 30.0, 70.0),
    ],
)
def test_published_scores(tmp_path, algo, task, low, high):
    """Full budget, five goals of 50 episodes, the mean of the last three evaluations (Park et al.; Ahn et al.)."""
    command = [sys.executable, "-m", "experiments.run", f"algo={algo}", f"task={task}", "scale=paper"]
    subprocess.run([*command, f"root={tmp_path}"], check=True)
    (result,) = tmp_path.rglob("result.json")
    assert low <= json.loads(result.read_text())["scores"]["final"] <= high
