"""This library's own MuJoCo datasets, made on the spot from behaviour policies: those it ships, or your own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from envs.behavior import Actor, BehaviorPolicy, UniformPolicy
from envs.extras import make_gymnasium
from envs.minari_files import Episode, write_minari
from envs.shards import Progress, run_shards
from hybridrl.data_folder import data_root
from hybridrl.errors import ConfigError, DatasetError

SHARDS = 8
HORIZON = 1000
SHIPPED = Path(__file__).parent / "policies"
ENVIRONMENTS = {"hopper": "Hopper-v5", "halfcheetah": "HalfCheetah-v5", "walker2d": "Walker2d-v5", "ant": "Ant-v5"}
# kind -> whose actions it holds; the parts of a dataset are shared out evenly between them, in this order
KINDS = {
    "random": ("uniform",),
    "medium": ("medium",),
    "expert": ("expert",),
    "medium-expert": ("medium", "expert"),
}


def policy_folder(robot: str) -> Path:
    """Where the policies of `robot` and their datasheet `<robot>.json` are: in the package, else in the data cache."""
    return SHIPPED if (SHIPPED / f"{robot}.json").exists() else data_root() / "policies"


def datasheet(robot: str) -> dict[str, Any] | None:
    """What is known about the policies of `robot`; None if there are none yet."""
    path = policy_folder(robot) / f"{robot}.json"
    if not path.exists():
        return None
    sheet: dict[str, Any] = json.loads(path.read_text())
    return sheet


def collect_command(robot: str) -> str:
    """The command that trains the policies of `robot`, as its datasheet has it."""
    sheet = datasheet(robot)
    return str(sheet["command"]) if sheet else f"python -m experiments.collect {robot}"


def load_actor(robot: str, name: str, action_dim: int) -> Actor:
    """The behaviour policy "uniform", "medium" or "expert" of a robot.

    Raises:
        DatasetError: the robot has no such policy; the message names the command that makes it.
    """
    if name == "uniform":
        return UniformPolicy(action_dim)
    path = policy_folder(robot) / f"{robot}_{name}.npz"
    if not path.exists():
        raise DatasetError(
            f"no {name} policy of {robot!r} is shipped, and there is none at {path}; make it with: "
            f"{collect_command(robot)}"
        )
    return BehaviorPolicy.load(path)


def generate_local(
    robot: str,
    kind: str,
    folder: Path,
    *,
    rows: int = 100_000,
    seed: int = 0,
    actors: dict[str, Actor] | None = None,
    processes: int | None = None,
    progress: Progress | None = None,
) -> None:
    """Write the dataset `local/<robot>-<kind>-v0` by running its behaviour policies, which sample their actions.

    Args:
        robot: a key of `ENVIRONMENTS`.
        kind: a key of `KINDS`.
        folder: an empty folder, which becomes the dataset's in Minari's layout.
        rows: transitions, made in eight equal parts; the last episode of each is cut and marked as truncated.
        seed: of the environment and the actions.
        actors: what acts, by the names in `KINDS`, in place of the robot's policies.
        processes, progress: see `run_shards`; the data do not depend on them.
    """
    if robot not in ENVIRONMENTS or kind not in KINDS:
        raise ConfigError(
            f"no local dataset of {robot!r} and kind {kind!r}; "
            f"expected one of {', '.join(ENVIRONMENTS)} and one of {', '.join(KINDS)}"
        )
    if rows < SHARDS:
        raise ConfigError(f"rows={rows}; expected at least {SHARDS}, one for each part")
    name, env_id = f"local/{robot}-{kind}-v0", ENVIRONMENTS[robot]
    env = make_gymnasium(env_id)
    names = KINDS[kind]
    acting = [(actors or {}).get(who) or load_actor(robot, who, env.action_space.shape[0]) for who in names]
    counts = [len(part) for part in np.array_split(np.arange(rows), SHARDS)]
    shards = [(env_id, acting[index * len(names) // SHARDS], count, seed, index) for index, count in enumerate(counts)]
    parts = run_shards(_episodes, shards, title=f"making {name}", processes=processes, progress=progress)
    write_local(
        folder,
        robot,
        kind,
        (episode for part in parts for episode in part),
        f"Actions sampled from the behaviour policies {', '.join(names)} (seed {seed}).",
    )
    env.close()


def write_local(folder: Path, robot: str, kind: str, episodes: Any, description: str) -> None:
    """Write episodes as the dataset `local/<robot>-<kind>-v0`, in Minari's layout, into an empty folder."""
    env = make_gymnasium(ENVIRONMENTS[robot])
    spec = env.spec
    spec.max_episode_steps = HORIZON
    write_minari(
        Path(folder),
        f"local/{robot}-{kind}-v0",
        episodes,
        observation_space=env.observation_space,
        action_space=env.action_space,
        env_spec=spec,
        algorithm_name="SAC (hybridrl)" if kind != "random" else "uniformly random actions",
        description=description,
        requirements=("mujoco",),
    )
    env.close()


def _episodes(env_id: str, actor: Actor, rows: int, seed: int, index: int) -> list[Episode]:
    """Part `index` of a dataset: episodes with `rows` steps between them."""
    env = make_gymnasium(env_id).unwrapped
    rng = np.random.default_rng([seed, index])
    low, high = env.action_space.low, env.action_space.high
    episodes = []
    while rows > 0:
        observation, _ = env.reset(seed=int(rng.integers(2**31)))
        observations, actions, rewards, terminated = [observation], [], [], False
        for _ in range(min(HORIZON, rows)):
            action = (low + (actor.act(observation, rng) + 1.0) * 0.5 * (high - low)).astype(np.float32)
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
