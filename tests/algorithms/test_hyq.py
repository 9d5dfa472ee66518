"""Hy-Q against formulas written out in NumPy, and on discrete combination locks."""

import dataclasses
import functools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import assert_identical, perturbed, same_values

import envs
from algorithms import HyQAgent, HyQConfig
from algorithms.hyq import EncodedQ, HyQRun
from experiments import presets
from hybridrl.datasets import Dataset, read
from hybridrl.errors import ConfigError
from hybridrl.logger import read_lines
from hybridrl.model import member
from hybridrl.training.loop import Loop
from hybridrl.training.online import example_transition
from hybridrl.training.progress import LoopSettings
from hybridrl.training.rollouts import DeviceCollector, TaskProcess
from hybridrl.types import OnPolicyBatch, Rollout, Transitions

HORIZON, COPIES, WARM, OBS_DIM, CHOICES, LATENTS = 3, 2, 4, 5, 4, 3
TINY = HyQConfig(
    horizon=HORIZON, critic_updates=2, batch_size=6, learning_rate=0.05, encoder_temperature=0.5, discount=0.9
)


def rows(seed, *shape):
    """Random offline rows with one-hot actions, some of which end the episode."""
    rng = np.random.default_rng(seed)
    fields = {name: rng.standard_normal((*shape, OBS_DIM)) for name in ("observations", "next_observations")}
    fields |= {name: rng.standard_normal(shape) for name in ("rewards", "mc_returns")}
    fields |= {"actions": np.eye(CHOICES)[rng.integers(0, CHOICES, shape)], "masks": rng.integers(0, 3, shape) > 0}
    return Transitions(**{name: jnp.asarray(field, jnp.float32) for name, field in fields.items()})


def rollout(seed=50):
    """Random episodes, in which environments 0 and 1 are said to explore at step 0, 2 and 3 at step 1..."""
    seen = rows(seed, HORIZON, HORIZON * COPIES)
    ends = jnp.zeros(seen.rewards.shape).at[-1].set(1.0)
    return Rollout(seen.observations, seen.actions, seen.rewards, seen.masks, ends, seen.next_observations)


def agent_of(config=TINY, capacity=20, seed=0):
    agent = HyQAgent.create(
        jax.random.key(seed), example_transition(OBS_DIM, CHOICES), HyQRun(config, COPIES, capacity)
    )
    return agent.replace(critic=agent.critic.replace(params=perturbed(agent.critic.params, jax.random.key(9))))


# One by one, in NumPy ---------------------------------------------------------------------------------------------


def forward(params, observations, temperature):
    """Encodings and all choices' values: a linear head on the Kronecker product of one-hot choice and encoding."""
    logits = observations @ params["encoder"] / temperature
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    encodings = weights / weights.sum(axis=1, keepdims=True)
    products = np.stack([np.kron(np.eye(CHOICES), encoding[None]) for encoding in encodings])  # (rows, choices, 12)
    return encodings, products, products @ params["weights"] + params["bias"]


def gradient(params, batch, targets, temperature):
    observations, chosen = batch["observations"], batch["actions"].argmax(axis=1)
    encodings, products, q = forward(params, observations, temperature)
    picked = np.arange(len(chosen)), chosen
    slope = 2.0 * (q[picked] - targets) / len(chosen)
    inner = slope[:, None] * params["weights"].reshape(CHOICES, LATENTS)[chosen]
    logits = encodings * (inner - (inner * encodings).sum(axis=1, keepdims=True))
    return {
        "encoder": observations.T @ logits / temperature,
        "weights": products[picked].T @ slope,
        "bias": slope.sum(),
    }


class NumpyAdam:
    def __init__(self, rate):
        self.rate, self.count, self.first, self.second = rate, 0, {}, {}

    def step(self, params, gradients):
        self.count += 1
        updated = {}
        for name, value in params.items():
            slope = gradients[name]
            self.first[name] = 0.9 * self.first.get(name, 0.0) + 0.1 * slope
            self.second[name] = 0.999 * self.second.get(name, 0.0) + 0.001 * slope**2
            first = self.first[name] / (1.0 - 0.9**self.count)
            second = self.second[name] / (1.0 - 0.999**self.count)
            updated[name] = value - self.rate * first / (np.sqrt(second) + 1e-8)
        return updated


def numbers(model, step):
    params = jax.tree.map(lambda leaf: np.asarray(leaf[step], np.float64), model.params["params"])
    return {"encoder": params["encoder"]["kernel"], "weights": params["weights"][:, 0], "bias": params["bias"]}


def test_two_rounds_written_out():
    """Storing, minibatches, targets, encoder copies and gradients; Adam's state lives on into the second round."""
    agent, optimizers = agent_of(), [NumpyAdam(0.05) for _ in range(HORIZON)]
    params = [numbers(agent.critic, step) for step in range(HORIZON)]
    warm, rounds = rows(1, HORIZON, WARM), [(rollout(50), rows(2, HORIZON, COPIES)), (rollout(51), rows(3, HORIZON, 2))]
    stored = [jax.tree.map(lambda field, step=step: np.asarray(field[step]), warm) for step in range(HORIZON)]
    agent, _ = agent.update(warm)
    for seen, offline in rounds:
        key, sweep_key = jax.random.split(agent.key)
        agent, metrics = agent.update(OnPolicyBatch(seen, offline))
        np.testing.assert_array_equal(jax.random.key_data(agent.key), jax.random.key_data(key))
        keys, losses, following = jax.random.split(sweep_key, HORIZON), [], None
        for step in reversed(range(HORIZON)):
            mine = slice(COPIES * step, COPIES * (step + 1))
            for name in ("observations", "actions", "rewards", "masks", "next_observations"):
                parts = getattr(stored[step], name), getattr(seen, name)[step, mine], getattr(offline, name)[step]
                stored[step] = stored[step].replace(**{name: np.concatenate([np.asarray(part) for part in parts])})
            data = {name: np.asarray(value, np.float64) for name, value in vars(stored[step]).items() if name[0] != "_"}
            if following is not None:
                params[step] = params[step] | {"encoder": following["encoder"]}
            for update_key in jax.random.split(keys[step], TINY.critic_updates):
                drawn = np.asarray(jax.random.randint(update_key, (TINY.batch_size,), 0, len(data["rewards"])))
                batch = {name: data[name][drawn] for name in data if name not in ("mc_returns", "next_actions")}
                targets = batch["rewards"]
                if following is not None:
                    best = forward(following, batch["next_observations"], 0.5)[2].max(axis=1)
                    targets = targets + 0.9 * batch["masks"] * best
                q = forward(params[step], batch["observations"], 0.5)[2]
                picked = q[np.arange(TINY.batch_size), batch["actions"].argmax(axis=1)]
                loss = np.mean((picked - targets) ** 2)
                slopes = gradient(params[step], batch, targets, 0.5)
                params[step] = optimizers[step].step(params[step], slopes)
            losses.append(loss)
            following = params[step]
        for step in range(HORIZON):
            found = numbers(agent.critic, step)
            for name, value in params[step].items():
                np.testing.assert_allclose(found[name], value, rtol=2e-3, atol=2e-4, err_msg=f"{name} of step {step}")
        np.testing.assert_allclose(metrics["critic/loss"], np.mean(losses), rtol=1e-3)
    # Half of what a round brings is offline; what the warm start brought still counts.
    assert metrics["buffer/rows"] == WARM + 2 * 2 * COPIES
    np.testing.assert_allclose(metrics["batch/offline_share"], (WARM + 2 * COPIES) / (WARM + 4 * COPIES), rtol=1e-6)
    kept = agent.buffer.storage
    for step in range(HORIZON):
        np.testing.assert_array_equal(kept.rewards[step, : 4 * COPIES + WARM], stored[step].rewards)
        np.testing.assert_array_equal(kept.actions[step, : 4 * COPIES + WARM], stored[step].actions)


def test_the_last_step_has_no_future_and_no_borrowed_encoder():
    agent, data = agent_of(), rows(4, 6)
    following = member(agent.critic, 2)
    np.testing.assert_array_equal(agent.targets(data, following, jnp.bool_(True)), data.rewards)
    best = following(data.next_observations).max(axis=-1)
    inner = data.rewards + 0.9 * data.masks * best
    np.testing.assert_allclose(agent.targets(data, following, jnp.bool_(False)), inner, rtol=1e-6)
    # Where gradient steps move nothing, the last encoder reaches the first step; heads stay each step's own.
    agent = agent_of(dataclasses.replace(TINY, learning_rate=0.0))
    after, _ = agent.update(OnPolicyBatch(rollout(), rows(2, HORIZON, COPIES)))
    before, found = agent.critic.params["params"], after.critic.params["params"]
    kernel = before["encoder"]["kernel"]
    np.testing.assert_array_equal(found["encoder"]["kernel"], jnp.stack([kernel[-1]] * HORIZON))
    np.testing.assert_array_equal(found["weights"], before["weights"])


def test_the_warm_start_stores_and_fits_only_if_asked():
    agent, warm = agent_of(), rows(1, HORIZON, WARM)
    after, metrics = agent.update(warm)
    assert_identical(after.critic, agent.critic)
    assert metrics == {"buffer/rows": WARM, "batch/offline_share": 1.0}
    fitted, metrics = agent_of(dataclasses.replace(TINY, fit_offline=True)).update(warm)
    assert "critic/loss" in metrics
    assert not same_values(fitted.critic.params, agent.critic.params)


def test_networks_begin_as_published():
    """Orthonormal encoders, a head of norm 1 and no bias."""
    module = EncodedQ(10, 3, 1.0)
    params = module.init(jax.random.key(0), jnp.zeros((1, 16)))["params"]
    kernel, weights = params["encoder"]["kernel"], params["weights"]
    np.testing.assert_allclose(kernel.T @ kernel, np.eye(3), atol=1e-5)
    np.testing.assert_allclose(jnp.linalg.norm(weights), 1.0, rtol=1e-5)
    assert weights.shape == (30, 1)
    assert params["bias"] == 0.0


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (OnPolicyBatch(rollout(), None), "got none"),
        (OnPolicyBatch(rollout(), rows(0, 8)), r"got leaves \(8,\)"),
        (rows(0, 2, 8), r"got leaves \(2, 8\)"),
        (OnPolicyBatch(jax.tree.map(lambda leaf: leaf[:, :4], rollout()), rows(2, HORIZON, 2)), r"expected \(3, 6\)"),
    ],
)
def test_batches_that_do_not_fit_are_refused(batch, message):
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(lambda agent: agent.update(batch), jax.eval_shape(agent_of))


@pytest.mark.parametrize("changes", [{"horizon": 0}, {"critic_updates": 0}, {"encoder_temperature": 0.0}])
def test_settings_that_cannot_work_are_refused(changes):
    with pytest.raises(ConfigError, match=next(iter(changes))):
        dataclasses.replace(TINY, **changes)


# On locks -------------------------------------------------------------------------------------------------------------


TASK = envs.make_task("lock/discrete-h5-v0")
STEPS, MANY, ROLLOUT = 5, 100, 5 * 5 * 100  # 100 copies explore at each of 5 steps


class Watcher:
    def progress(self, phase, done, rate):
        pass

    def evaluated(self, record):
        pass

    def should_stop(self):
        return False


def run_on_a_lock(folder, trajectories, agent, settings, **schedule):
    """The preset's phases in the loop, with these changes."""
    (folder / "data").mkdir()
    functools.partial(TASK.dataset.generate, trajectories=trajectories)(folder / "data")
    dataset = Dataset.from_steps(read(folder / "data", TASK), TASK, 1.0)
    preset = presets.module("hyq").preset(TASK, "cpu")
    config = SimpleNamespace(
        agent=dataclasses.replace(preset.agent, **agent), schedule=dataclasses.replace(preset.schedule, **schedule)
    )
    phases = presets.module("hyq").phases(config, TASK)
    loop = Loop(phases, TASK, dataset, functools.partial(envs.make_env, TASK), folder, 0, settings, Watcher())
    loop.run()
    return loop


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A warm start with 8 rows of each step, then two rounds."""
    settings = LoopSettings(
        discount=1.0, log_every=ROLLOUT, checkpoint_every=2 * ROLLOUT, eval_episodes=2, eval_envs=2, probe_rows=8
    )
    schedule = {"online_steps": 2 * ROLLOUT, "num_envs": STEPS * MANY, "every": ROLLOUT, "dense_every": ROLLOUT}
    folder = tmp_path_factory.mktemp("lock")
    agent = {"critic_updates": 2, "batch_size": 4}
    return folder, run_on_a_lock(folder, 30, agent, settings, offline_batch_size=8, **schedule)


def test_a_run_on_a_lock(finished):
    """The warm start is not evaluated, each round is; the panel has the share of offline rows."""
    folder, loop = finished
    lines = read_lines(folder / "metrics.jsonl")
    assert [line["buffer/rows"] for line in lines if "buffer/rows" in line] == [8.0, 208.0, 408.0]
    records = loop.evaluations()
    assert [(record["phase"], record["env_steps"]) for record in records] == [
        ("online", ROLLOUT),
        ("online", 2 * ROLLOUT),
    ]
    shares = [record["panel"]["offline_share"] for record in records]
    np.testing.assert_allclose(shares, [108 / 208, 208 / 408], rtol=1e-6)
    # Every row is of its buffer's step.
    storage = loop.agent.buffer.storage
    steps = TaskProcess.create(TASK).env.env.emission.decode(storage.observations)[1]
    np.testing.assert_array_equal(steps, np.arange(STEPS)[:, None] + np.zeros((1, 408), int))


def test_copies_roll_in_greedily_and_explore_once(finished):
    agent = finished[1].agent
    collector = DeviceCollector(TaskProcess.create(TASK), STEPS * MANY, STEPS, jax.random.key(1))
    policy = agent.policy(deterministic=False)
    for number in range(2):  # the second rollout begins with new episodes, whose parts are the same
        seen = collector.collect(policy, jax.random.key(2 + number)).rollout
    actions = np.asarray(seen.actions)
    assert set(np.unique(actions)) == {0.0, 1.0}
    assert (actions.sum(axis=-1) == 1.0).all()
    q = jax.vmap(lambda critic, states: critic(states))(agent.critic, seen.observations)
    greedy = np.asarray(q).argmax(axis=-1)
    chosen, explored = actions.argmax(axis=-1), []
    for step in range(STEPS):
        exploring = np.arange(STEPS * MANY) // MANY == step
        np.testing.assert_array_equal(chosen[step, ~exploring], greedy[step, ~exploring])
        explored.append(chosen[step, exploring])
        assert np.bincount(explored[-1], minlength=10).max() < 25  # of 100 uniform draws: 10 each, deviation 3
    shares = np.bincount(np.concatenate(explored), minlength=10) / (STEPS * MANY)
    assert (np.abs(shares - 0.1) < 4 * np.sqrt(0.1 * 0.9 / (STEPS * MANY))).all()
    kept = agent.exploring_steps(seen)
    for step in range(STEPS):
        mine = slice(step * MANY, (step + 1) * MANY)
        np.testing.assert_array_equal(kept.actions[step], seen.actions[step, mine])
        np.testing.assert_array_equal(kept.next_observations[step], seen.next_observations[step, mine])
    # Evaluation explores nowhere, and nobody explores without knowing where.
    mode = agent.policy(deterministic=True)
    played, _ = mode.act(mode.begin(None), seen.observations[0], jax.random.key(0))
    np.testing.assert_array_equal(np.asarray(played).argmax(axis=-1), greedy[0])
    with pytest.raises(ValueError, match="their number"):
        policy.begin(None)


@pytest.mark.slow
def test_it_opens_a_lock_of_five_steps(tmp_path):
    settings = LoopSettings(discount=1.0, log_every=1_250, checkpoint_every=12_500, eval_episodes=40, eval_envs=40)
    loop = run_on_a_lock(tmp_path, 10_000, {}, settings, online_steps=10 * 1_250)
    successes = [record["summary"]["success_rate"] for record in loop.evaluations()]
    assert len(successes) == 10
    assert np.mean(successes[-3:]) >= 0.9
    assert successes[0] < 0.9  # it takes more than one round
