"""This library's own datasets, made on the spot from the behaviour policies it ships."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from envs.behavior import BehaviorPolicy, load_policy
from envs.extras import make_gymnasium
from envs.minari_files import Episode, write_minari
from hybridrl.errors import ConfigError

POLICIES = Path(__file__).parent / "policies"
# name -> (environment, policy file, time limit)
LOCAL_DATASETS = {"local/hopper-medium-v0": ("Hopper-v5", "hopper_medium.npz", 1000)}


def generate_local(
    name: str, folder: Path, *, rows: int = 100_000, seed: int = 0, policy: BehaviorPolicy | None = None
) -> None:
    """Write the dataset `name` by running its behaviour policy, which samples its actions as it did in training.

    Args:
        name: a key of `LOCAL_DATASETS`.
        folder: an empty folder, which becomes the dataset's in Minari's layout.
        rows: transitions; the last episode is cut there and marked as truncated.
        seed: of the environment and the actions.
        policy: what acts, in place of the shipped policy.
    """
    if name not in LOCAL_DATASETS:
        raise ConfigError(f"no local dataset {name!r}; expected one of {sorted(LOCAL_DATASETS)}")
    env_id, policy_file, horizon = LOCAL_DATASETS[name]
    policy = policy or load_policy(POLICIES / policy_file)
    env = make_gymnasium(env_id)
    spec = env.spec
    spec.max_episode_steps = horizon
    write_minari(
        Path(folder),
        name,
        _episodes(env.unwrapped, policy, horizon, rows, np.random.default_rng(seed)),
        observation_space=env.observation_space,
        action_space=env.action_space,
        env_spec=spec,
        algorithm_name="SAC (hybridrl), partly trained",
        description=f"Actions sampled from a partly trained policy (seed {seed}).",
        requirements=("mujoco",),
    )
    env.close()


def _episodes(env: Any, policy: BehaviorPolicy, horizon: int, rows: int, rng: np.random.Generator) -> Iterator[Episode]:
    low, high = env.action_space.low, env.action_space.high
    while rows > 0:
        observation, _ = env.reset(seed=int(rng.integers(2**31)))
        observations, actions, rewards, terminated = [observation], [], [], False
        for _ in range(min(horizon, rows)):
            action = (low + (policy.act(observation, rng) + 1.0) * 0.5 * (high - low)).astype(np.float32)
            observation, reward, terminated, _, _ = env.step(action)
            observations.append(observation)
            actions.append(action)
            rewards.append(reward)
            if terminated:
                break
        ends = np.arange(len(rewards)) == len(rewards) - 1
        yield Episode(
            observations=np.array(observations),
            actions=np.array(actions),
            rewards=np.array(rewards, np.float64),
            terminations=ends & terminated,
            truncations=ends & (not terminated),
        )
        rows -= len(rewards)
