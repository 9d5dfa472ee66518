"""The control suite: sizes, seeds and rewards, against the suite itself and by hand."""

import types

import numpy as np
import pytest

import envs
from envs import dm_control
from envs.extras import import_extra
from hybridrl.errors import ConfigError

SIZES = {"walker": (24, 6, 18), "quadruped": (78, 12, 57)}


@pytest.fixture(scope="module", params=list(SIZES))
def walk(request):
    """Thirty steps of each domain, with the states they went through, and of the suite itself."""
    domain = request.param
    env = envs.make_env(envs.make_task(f"dmc/{domain}-walk-v0"), 0)
    actions = np.random.default_rng(0).uniform(-0.99, 0.99, (30, SIZES[domain][1])).astype(np.float32)
    suite = import_extra("dm_control.suite").load(domain, "walk", task_kwargs={"random": 7})
    expected = [suite.reset()]
    observations, rewards, states = [env.reset(seed=7)[0]], [], [dm_control.simulator_state(env)]
    spec = suite.action_spec()
    for action in actions:
        observation, reward, terminated, truncated, _ = env.step(action)
        assert not terminated
        assert not truncated
        observations.append(observation)
        rewards.append(reward)
        states.append(dm_control.simulator_state(env))
        scaled = spec.minimum + (action.astype(np.float64) + 1.0) * 0.5 * (spec.maximum - spec.minimum)
        expected.append(suite.step(scaled.astype(np.float32)))
    return types.SimpleNamespace(
        domain=domain, env=env, observations=observations, rewards=rewards, states=states, expected=expected
    )


def test_it_is_the_suite(walk):
    obs_dim, action_dim, state_dim = SIZES[walk.domain]
    assert walk.env.observation_space.shape == (obs_dim,)
    assert walk.env.action_space.shape == (action_dim,)
    assert walk.states[0].shape == (state_dim,)
    np.testing.assert_allclose(walk.rewards, [step.reward for step in walk.expected[1:]], rtol=1e-5)
    for observation, step in zip(walk.observations, walk.expected, strict=True):
        flat = np.concatenate([np.ravel(part) for part in step.observation.values()])
        np.testing.assert_allclose(observation, flat, rtol=1e-3, atol=1e-4)  # bounds are rounded to float32


def test_rewards_follow_from_states(walk):
    tasks = dm_control.DOMAINS[walk.domain]
    rewards = dm_control.rewards_of_states(walk.domain, tasks, np.array(walk.states[1:]))
    np.testing.assert_allclose(rewards[:, tasks.index("walk")], walk.rewards, atol=1e-6)
    assert rewards.min() >= 0.0
    assert rewards.max() <= 1.0
    labels, successes = dm_control.relabel(walk.domain, "stand", {"next_states": np.array(walk.states[1:])})
    np.testing.assert_array_equal(labels, rewards[:, tasks.index("stand")])
    assert not successes.any()


def test_seeds(walk):
    again, _ = walk.env.reset(seed=7)
    np.testing.assert_array_equal(again, walk.observations[0])
    following, _ = walk.env.reset()
    other, _ = walk.env.reset(seed=8)
    assert not np.array_equal(following, again)
    assert not np.array_equal(other, again)


def test_many_rows_are_shared_out(walk, monkeypatch):
    tasks = dm_control.DOMAINS[walk.domain]
    whole = dm_control.rewards_of_states(walk.domain, tasks, np.array(walk.states))
    monkeypatch.setattr(dm_control, "_ROWS_PER_SHARD", 20)
    np.testing.assert_array_equal(
        dm_control.rewards_of_states(walk.domain, tasks, np.array(walk.states), processes=1), whole
    )


def physics(**values):
    """A simulator in which only what the rewards read has a value."""
    data = types.SimpleNamespace(
        subtree_angmom={"torso": [0.0, values.get("spin", 0.0), 0.0]},
        subtree_com={"torso": [0.0, 0.0, values.get("height", 0.0)]},
    )
    return types.SimpleNamespace(
        torso_upright=lambda: values.get("upright", 1.0),
        torso_height=lambda: values.get("torso", 2.0),
        horizontal_velocity=lambda: values.get("speed", 0.0),
        torso_velocity=lambda: [values.get("speed", 0.0), 0.0, 0.0],
        named=types.SimpleNamespace(data=data),
    )


@pytest.mark.parametrize(
    ("domain", "task", "values", "expected"),
    [
        ("walker", "stand", {}, 1.0),
        ("walker", "stand", {"upright": -1.0}, 0.75),
        ("walker", "stand", {"torso": 0.6, "upright": 0.0}, (3.0 * 0.1 + 0.5) / 4.0),  # 0.1 at the margin's end
        ("walker", "walk", {"speed": 0.0}, 1.0 / 6.0),
        ("walker", "walk", {"speed": 0.5}, 3.5 / 6.0),
        ("walker", "walk", {"speed": 1.0}, 1.0),
        ("walker", "run", {"speed": 4.0}, 3.5 / 6.0),
        ("walker", "flip", {"spin": 2.5}, 3.5 / 6.0),
        ("walker", "flip", {"spin": -5.0}, 1.0 / 6.0),
        ("walker", "flip", {"spin": 6.0, "upright": -1.0}, 0.75),
        ("quadruped", "stand", {"upright": 0.0}, 0.5),
        ("quadruped", "walk", {"speed": 0.25, "upright": 0.0}, 0.375),
        ("quadruped", "walk", {"speed": -0.5}, 0.0),
        ("quadruped", "run", {"speed": 2.5}, 0.75),
        ("quadruped", "jump", {"height": 0.5}, 0.75),
        ("quadruped", "jump", {"height": 1.2, "upright": -1.0}, 0.0),
    ],
)
def test_rewards_by_hand(domain, task, values, expected):
    assert dm_control.reward(domain, task, physics(**values)) == pytest.approx(expected, abs=1e-9)


def test_custom_quantities_exist_in_the_models():
    """The flip reads an angular momentum that MuJoCo computes only on demand; the jump reads the centre of mass."""
    env = dm_control.ControlEnv("walker", "flip")
    env.reset(seed=0)
    state = env.physics.get_state()
    state[9:] = 0.0
    spins = []
    for rate in (-4.0, 4.0):  # about the hinge that turns the whole body
        state[9 + 2] = rate
        rewards = dm_control.rewards_of_states("walker", ("stand", "flip"), state[None])
        spins.append(rewards[0, 1] / rewards[0, 0])
    assert spins[0] == pytest.approx(1.0 / 6.0, abs=1e-6)  # backwards earns nothing
    assert spins[1] > 0.5
    quadruped = dm_control.ControlEnv("quadruped", "jump")
    quadruped.reset(seed=0)
    state = quadruped.physics.get_state()
    state[2] = 3.0  # lifted three metres
    rewards = dm_control.rewards_of_states("quadruped", ("stand", "jump"), state[None])
    assert rewards[0, 0] == pytest.approx(rewards[0, 1], abs=1e-6)
    state[2] = 0.2
    rewards = dm_control.rewards_of_states("quadruped", ("stand", "jump"), state[None])
    assert rewards[0, 1] < 0.8 * rewards[0, 0]


def test_it_truncates_and_never_terminates():
    env = envs.make_env(envs.make_task("dmc/walker-stand-v0"), 0)
    env.reset()
    for step in range(1000):
        _, reward, terminated, truncated, _ = env.step(np.zeros(6))
        assert 0.0 <= reward <= 1.0
        assert not terminated
        assert truncated == (step == 999)


def test_unknown_tasks_are_refused():
    with pytest.raises(ConfigError, match=r"'roll' of the control suite's 'quadruped'.*jump"):
        dm_control.ControlEnv("quadruped", "roll")
    with pytest.raises(ConfigError, match="expected one of walker"):
        dm_control.rewards_of_states("cartpole", ("swingup",), np.zeros((1, 4)))


def test_tasks_name_their_data():
    task = envs.make_task("exorl/walker-proto-flip-v0")
    assert task.dataset.urls == ("https://dl.fbaipublicfiles.com/exorl/walker/proto.zip",)
    assert task.dataset.relabel.args == ("walker", "flip")
    assert task.score(np.array([500.0]), np.zeros(1)) == 50.0
    local = {envs.make_task(f"local/quadruped-rnd-{name}-v0").dataset.id for name in dm_control.DOMAINS["quadruped"]}
    assert local == {"local/quadruped-rnd-v0"}  # one set, whatever the task
