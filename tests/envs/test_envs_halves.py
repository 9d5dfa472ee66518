"""The point on a plane: true and flawed moves by hand, the score's ends in closed form, and its data."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import envs
from envs.halves import GOAL, Halves, HalvesState
from hybridrl import datasets


@pytest.mark.parametrize(
    ("start", "simulator", "expected"),
    [
        ([0.5, 0.0], False, [0.6, 0.2]),
        ([0.5, 0.0], True, [0.6, -0.2]),  # upside down
        ([-0.5, 0.0], True, [-0.4, 0.2]),  # exact on the left
        ([0.95, -0.95], True, [1.0, -1.0]),  # walls
    ],
)
def test_the_simulator_is_wrong_on_the_right(start, simulator, expected):
    task = envs.make_task("probe/halves-v0")
    plane = (task.simulator if simulator else task.make)(task).functional
    state = HalvesState(position=jnp.array(start), steps=jnp.int32(0))
    _, observation, reward, terminated, truncated = plane.step(state, jnp.array([0.5, 1.0]), jax.random.key(0))
    np.testing.assert_allclose(observation, expected, atol=1e-6)
    assert reward == pytest.approx(1.0 - np.linalg.norm(np.array(expected) - GOAL), abs=1e-6)
    assert not terminated
    assert not truncated


def test_the_exact_task_differs_in_nothing_but_its_simulator():
    task = envs.make_task("probe/halves-exact-v0")
    runs = []
    for simulator in (False, True):
        env = envs.make_env(task, 3, simulator=simulator)
        first, _ = env.reset()
        steps = [env.step(np.array([0.9, -0.7], np.float32)) for _ in range(20)]
        assert [step[3] for step in steps] == [False] * 19 + [True]
        runs.append(np.stack([first, *(step[0] for step in steps)]))
    np.testing.assert_array_equal(*runs)


def test_the_score_runs_from_standing_still_to_the_best():
    axis = (np.arange(400) + 0.5) / 200 - 1
    starts = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    still = 20 * (1 - np.linalg.norm(starts - np.array(GOAL), axis=1)).mean()
    best = Halves().optimal_return(starts).mean()
    np.testing.assert_allclose(envs.make_task("probe/halves-v0").score_range, [still, best], atol=1e-3)


def test_the_best_return_is_what_straight_steps_earn():
    env = envs.make_env(envs.make_task("probe/halves-v0"), 5)
    observation, _ = env.reset()
    expected = Halves().optimal_return(observation[None])[0]
    earned = 0.0
    for _ in range(20):
        observation, reward, *_ = env.step(np.clip((np.array(GOAL) - observation) / 0.2, -1.0, 1.0))
        earned += reward
    assert earned == pytest.approx(expected, abs=1e-3)


def test_the_data_are_steps_of_the_true_plane():
    rows = datasets.load(envs.make_task("probe/halves-v0")).transitions
    assert rows.observations.shape == (2_000, 2)
    moved = np.clip(np.asarray(rows.observations) + 0.2 * np.asarray(rows.actions), -1.0, 1.0)
    np.testing.assert_allclose(rows.next_observations, moved, atol=1e-4)
    distances = np.linalg.norm(moved - np.array(GOAL), axis=1)
    np.testing.assert_allclose(rows.rewards, 1.0 - distances, atol=1e-4)
    assert np.asarray(rows.masks).all()
