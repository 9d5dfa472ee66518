"""The loop behind `experiments.collect`: fifty steps in NumPy, then fifty updates in one compiled call.

Where a small policy meets a fast simulator on a CPU, most of a step's time is the calls into compiled code. The policy
here acts as plain arrays (`envs.behavior`), and its updates are made in blocks, so that a step costs little more than
its update. Between two blocks the policy is held fixed.
"""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from envs.behavior import Actor, BehaviorPolicy, UniformPolicy, behavior_policy
from hybridrl.checkpoint import Checkpoints
from hybridrl.disk import read_json, write_json
from hybridrl.errors import ConfigError, DivergenceError
from hybridrl.training.evaluation import Episodes
from hybridrl.training.online import example_transition
from hybridrl.types import Agent, Metrics, Transitions

BLOCK = 50  # environment steps between two blocks of as many updates


@dataclasses.dataclass(frozen=True)
class Collecting:
    """How an agent is trained while its data are kept.

    Attributes:
        steps: environment steps in all.
        uniform_steps: how many of them, at the start, take uniformly random actions and are not trained on yet.
        batch_size: rows per update; there is one update per step.
        evaluate_every: environment steps between evaluations, each of which saves the policy.
        checkpoint_every: environment steps between checkpoints. The environment is built anew at each, in
            uninterrupted runs too, so that no simulator has to be stored.
        eval_episodes: episodes per evaluation; 0 for no evaluations.
    """

    steps: int
    uniform_steps: int = 5_000
    batch_size: int = 128
    evaluate_every: int = 5_000
    checkpoint_every: int = 10_000
    eval_episodes: int = 5

    def __post_init__(self) -> None:
        """Reject settings that cannot work."""
        for field in ("steps", "uniform_steps", "evaluate_every", "checkpoint_every"):
            value = getattr(self, field)
            if value < BLOCK or value % BLOCK:
                raise ConfigError(f"{field}={value}; expected a positive multiple of {BLOCK}")
        if self.steps < self.uniform_steps + self.evaluate_every:
            raise ConfigError(
                f"steps={self.steps}; expected at least {self.uniform_steps + self.evaluate_every}: the uniform steps "
                "and one evaluation"
            )
        if self.steps % self.checkpoint_every:
            raise ConfigError(
                f"steps={self.steps}; expected a multiple of checkpoint_every={self.checkpoint_every}, so that "
                "a longer training can continue from its end"
            )


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """A policy during training, and its mean evaluation return."""

    env_steps: int
    mean_return: float
    policy: BehaviorPolicy


class Rows:
    """All steps taken, in order: the replay buffer, on the host."""

    def __init__(self, capacity: int, obs_dim: int, action_dim: int, state_dim: int) -> None:
        self.size = 0
        self.arrays = {
            "observations": np.zeros((capacity, obs_dim), np.float32),
            "actions": np.zeros((capacity, action_dim), np.float32),
            "rewards": np.zeros(capacity, np.float32),
            "terminations": np.zeros(capacity, bool),
            "ends": np.zeros(capacity, bool),  # the last row of each recorded stretch
            "next_observations": np.zeros((capacity, obs_dim), np.float32),
        }
        if state_dim:
            self.arrays |= {
                "states": np.zeros((capacity, state_dim)),  # the simulator's, before the step
                "next_states": np.zeros((capacity, state_dim)),
            }

    def add(self, **row: Any) -> None:
        """Append one step."""
        for name, array in self.arrays.items():
            array[self.size] = row[name]
        self.size += 1

    def used(self) -> dict[str, np.ndarray]:
        """The rows so far, by name."""
        return {name: array[: self.size] for name, array in self.arrays.items()}

    def restore(self, arrays: dict[str, Any]) -> None:
        """Take over rows stored by `used`."""
        self.size = len(arrays["rewards"])
        for name, array in arrays.items():
            self.arrays[name][: self.size] = array

    def batches(self, rng: np.random.Generator, count: int, batch_size: int) -> Transitions:
        """`count` uniform batches, leaves `(count, batch_size, ...)`."""
        rows = rng.integers(0, self.size, (count, batch_size))
        fields: dict[str, Any] = {
            name: self.arrays[name][rows] for name in ("observations", "actions", "rewards", "next_observations")
        }
        fields["masks"] = 1.0 - self.arrays["terminations"][rows].astype(np.float32)
        fields["mc_returns"] = np.full(rows.shape, np.nan, np.float32)  # no agent here looks at them
        return Transitions(**fields)


@functools.partial(jax.jit, donate_argnums=0)
def update_many(agent: Agent, batches: Transitions) -> tuple[Agent, Metrics]:
    """One update per leading entry of `batches`, leaves `(count, batch_size, ...)`; metrics are their means."""
    agent, metrics = jax.lax.scan(lambda agent, batch: agent.update(batch), agent, batches)
    return agent, jax.tree.map(jnp.mean, metrics)


def train(
    create: Callable[[jax.Array, Transitions], Agent],
    make_env: Callable[[int], Any],
    folder: Path,
    settings: Collecting,
    seed: int,
    state_of: Callable[[Any], np.ndarray] = lambda env: np.zeros(0),
    report: Callable[[str], None] = print,
) -> tuple[list[Snapshot], Rows]:
    """Train an agent with a tanh-Gaussian actor from scratch, or from where `folder` left off.

    Randomness follows from the seed and the step, so a run that was killed and resumed equals one that was not, and a
    longer one continues a shorter one as if it had been meant to.

    Args:
        create: makes the agent, from a key and an example row.
        make_env: a `TaskEnv` for a seed.
        folder: for checkpoints and evaluations.
        state_of: the simulator's state, stored before and after each step; nothing by default.
        report: told how it goes.

    Returns:
        The policy at each evaluation and all steps.

    Raises:
        ConfigError: `folder` holds more steps than `settings.steps`.
    """
    checkpoints = Checkpoints(folder / "checkpoints")
    env = make_env(_seed(seed, 0, 0))
    obs_dim, action_dim = env.observation_space.shape[0], env.action_space.shape[0]
    env.reset()
    rows = Rows(settings.steps, obs_dim, action_dim, len(state_of(env)))
    env.close()
    agent = create(jax.random.key(seed), example_transition(obs_dim, action_dim))
    if checkpoints.steps():
        rows.size = checkpoints.steps()[-1]
        if rows.size > settings.steps:
            raise ConfigError(
                f"{folder} holds {rows.size} steps of training; expected at most steps={settings.steps}; "
                "ask for as many, or choose another folder"
            )
        stored = checkpoints.restore(rows.size, {"agent": agent, "rows": rows.used()})
        agent = stored["agent"]
        rows.restore(stored["rows"])
    while rows.size < settings.steps:
        end = min((rows.size // settings.checkpoint_every + 1) * settings.checkpoint_every, settings.steps)
        agent = _stretch(agent, rows, end, make_env, folder, settings, seed, state_of, report)
        checkpoints.save(rows.size, {"agent": agent, "rows": rows.used()}, {"steps": rows.size})
    snapshots = [_snapshot(path) for path in sorted(folder.glob("snapshots/*.json"))]
    return snapshots, rows


def _stretch(
    agent: Any,
    rows: Rows,
    end: int,
    make_env: Callable[[int], Any],
    folder: Path,
    settings: Collecting,
    seed: int,
    state_of: Callable[[Any], np.ndarray],
    report: Callable[[str], None],
) -> Any:
    """Steps and updates up to row `end`, in an environment of its own; the agent then."""
    env = make_env(_seed(seed, 1, rows.size))
    observation, _ = env.reset()
    state = state_of(env)
    while rows.size < end:
        started = time.monotonic()
        uniform = rows.size < settings.uniform_steps
        actor: Actor = UniformPolicy(rows.arrays["actions"].shape[1]) if uniform else policy_of(agent)
        rng = np.random.default_rng([seed, 2, rows.size])
        for _ in range(BLOCK):
            action = actor.act(observation, rng)
            next_observation, reward, terminated, truncated, _ = env.step(action)
            next_state = state_of(env)
            stop = terminated or truncated or rows.size + 1 == end
            rows.add(
                observations=observation,
                actions=env.task.transform(action, 0.0, False, False)[0],
                rewards=reward,
                terminations=terminated,
                ends=stop,
                next_observations=next_observation,
                states=state,
                next_states=next_state,
            )
            observation, state = next_observation, next_state
            if stop and rows.size < end:
                observation, _ = env.reset()
                state = state_of(env)
        if not uniform:
            agent, metrics = update_many(agent, rows.batches(rng, BLOCK, settings.batch_size))
            _check(metrics, rows.size)
        if rows.size % 1_000 == 0:
            report(f"{rows.size:,} steps, {BLOCK / (time.monotonic() - started):.0f} per second")
        if settings.eval_episodes and not uniform and rows.size % settings.evaluate_every == 0:
            _evaluate(policy_of(agent), rows.size, make_env, folder, settings, seed, report)
    env.close()
    return agent


def policy_of(agent: Any) -> BehaviorPolicy:
    """The agent's present policy as plain arrays; its actor is a `TanhNormalActor` without layer norm."""
    sac = getattr(agent, "sac", agent)
    parameters = jax.device_get(sac.actor.params["params"])
    arrays = {}
    for name, layer in parameters["MLP_0"].items():
        for part, value in layer.items():
            arrays[f"layer_{name.removeprefix('Dense_')}/{part}"] = value
    for head in ("mean", "log_std"):
        for part, value in parameters[head].items():
            arrays[f"{head}/{part}"] = value
    low, high = np.log(sac.config.std_bounds)
    return behavior_policy(arrays, log_std_bounds=(float(low), float(high)))


def measure(env: Any, actor: Actor, episodes: int, seed: int, *, sample: bool) -> Episodes:
    """Whole episodes of `actor` in a `TaskEnv`, by its samples or its mode, simulated as the datasets are."""
    returns, lengths = np.zeros(episodes), np.zeros(episodes, np.int64)
    rng = np.random.default_rng(seed) if sample else None
    for index in range(episodes):
        observation, _ = env.reset(seed=seed + index)
        ended = False
        while not ended:
            observation, _, terminated, truncated, info = env.step(actor.act(observation, rng))
            returns[index] += info["raw_reward"]
            lengths[index] += 1
            ended = terminated or truncated
    no_success = np.zeros(episodes, bool)
    return Episodes(returns, lengths, no_success, env.task.score(returns, no_success))


def _evaluate(
    policy: BehaviorPolicy,
    steps: int,
    make_env: Callable[[int], Any],
    folder: Path,
    settings: Collecting,
    seed: int,
    report: Callable[[str], None],
) -> None:
    """Save the policy with its mean return."""
    env = make_env(0)
    mean = float(measure(env, policy, settings.eval_episodes, _seed(seed, 3, steps), sample=False).returns.mean())
    env.close()
    path = folder / "snapshots" / f"step_{steps:08d}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    policy.save(path.with_suffix(".npz"))
    write_json(path, {"env_steps": steps, "mean_return": mean})  # last: its presence says that both are there
    report(f"  after {steps:,} steps: return {mean:.1f}")


def _snapshot(path: Path) -> Snapshot:
    record = read_json(path)
    return Snapshot(record["env_steps"], record["mean_return"], BehaviorPolicy.load(path.with_suffix(".npz")))


def _check(metrics: Metrics, steps: int) -> None:
    broken = sorted(name for name, value in jax.device_get(metrics).items() if not np.isfinite(value))
    if broken:
        raise DivergenceError(
            f"{broken[0]} is not finite after {steps} steps; the last checkpoint is kept; lower a learning rate"
        )


def _seed(seed: int, purpose: int, step: int) -> int:
    """A 31-bit seed for an environment, different for every purpose and step."""
    return int(np.random.SeedSequence([seed, purpose, step]).generate_state(1)[0] >> 1)
