"""This library's own datasets, made on the spot from the behaviour policies it ships."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from envs.behavior import BehaviorPolicy, load_policy
from envs.extras import make_gymnasium
from envs.minari_files import Episode, write_minari
from envs.shards import Progress, run_shards
from hybridrl.errors import ConfigError

SHARDS = 8
POLICIES = Path(__file__).parent / "policies"
# name -> (environment, policy file, time limit)
LOCAL_DATASETS = {"local/hopper-medium-v0": ("Hopper-v5", "hopper_medium.npz", 1000)}


def generate_local(
    name: str,
    folder: Path,
    *,
    rows: int = 100_000,
    seed: int = 0,
    policy: BehaviorPolicy | None = None,
    processes: int | None = None,
    progress: Progress | None = None,
) -> None:
    """Write the dataset `name` by running its behaviour policy, which samples its actions as it did in training.

    Args:
        name: a key of `LOCAL_DATASETS`.
        folder: an empty folder, which becomes the dataset's in Minari's layout.
        rows: transitions, made in eight equal parts; the last episode of each is cut and marked as truncated.
        seed: of the environment and the actions.
        policy: what acts, in place of the shipped policy.
        processes, progress: see `run_shards`; the data do not depend on them.
    """
    if name not in LOCAL_DATASETS:
        raise ConfigError(f"no local dataset {name!r}; expected one of {sorted(LOCAL_DATASETS)}")
    env_id, policy_file, horizon = LOCAL_DATASETS[name]
    policy = policy or load_policy(POLICIES / policy_file)
    if rows < SHARDS:
        raise ConfigError(f"rows={rows}; expected at least {SHARDS}, one for each part")
    counts = [len(part) for part in np.array_split(np.arange(rows), SHARDS)]
    shards = [(env_id, policy, horizon, count, seed, index) for index, count in enumerate(counts)]
    parts = run_shards(_episodes, shards, title=f"making {name}", processes=processes, progress=progress)
    env = make_gymnasium(env_id)
    spec = env.spec
    spec.max_episode_steps = horizon
    write_minari(
        Path(folder),
        name,
        (episode for part in parts for episode in part),
        observation_space=env.observation_space,
        action_space=env.action_space,
        env_spec=spec,
        algorithm_name="SAC (hybridrl), partly trained",
        description=f"Actions sampled from a partly trained policy (seed {seed}).",
        requirements=("mujoco",),
    )
    env.close()


def _episodes(env_id: str, policy: BehaviorPolicy, horizon: int, rows: int, seed: int, index: int) -> list[Episode]:
    """Part `index` of a dataset: episodes with `rows` steps between them."""
    env = make_gymnasium(env_id).unwrapped
    rng = np.random.default_rng([seed, index])
    low, high = env.action_space.low, env.action_space.high
    episodes = []
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
        episode = Episode(
            observations=np.array(observations),
            actions=np.array(actions),
            rewards=np.array(rewards, np.float64),
            terminations=ends & terminated,
            truncations=ends & (not terminated),
        )
        episodes.append(episode)
        rows -= len(rewards)
    env.close()
    return episodes
