"""Trains the behaviour policies behind `local/...` datasets, and agents that explore without a reward.

    python -m experiments.collect halfcheetah          # SAC: medium and expert policy, datasheet, medium-replay data
    python -m experiments.collect walker-rnd           # RND: the explored data themselves, with simulator states

A robot's other datasets are made from its policies whenever they are first used, in about a minute.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import importlib.metadata
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from algorithms import SACAgent, SACConfig
from algorithms.rnd import RNDAgent, RNDConfig
from envs import make_env, make_task
from envs.behavior import UniformPolicy
from envs.dm_control import DOMAINS, simulator_state
from envs.local import ENVIRONMENTS, SHIPPED, write_local
from envs.minari_files import Episode
from envs.tasks.local import training_task
from experiments.collecting import Collecting, Rows, Snapshot, measure, train
from hybridrl import disk
from hybridrl.data_folder import data_root, dataset_folder
from hybridrl.datasets import fetch
from hybridrl.datasets.exorl import write_exorl
from hybridrl.errors import ConfigError, HybridRLError
from hybridrl.task import Task
from hybridrl.training.evaluation import Episodes

# Small and fast: two critics of modest width with layer norm, one update a step.
BEHAVIOR_SAC = SACConfig(
    actor_learning_rate=3e-4,
    critic_learning_rate=3e-4,
    temperature_learning_rate=3e-4,
    actor_hidden_dims=(128, 128),
    critic_hidden_dims=(128, 128),
    actor_layer_norm=False,
    num_critics=2,
    subset_with_replacement=False,
    shared_critic_head=False,
    critic_updates=1,
    entropy_backup=True,
    temperature_parameterization="exp",
    temperature_states="current",
    std_bounds=(float(np.exp(-5.0)), float(np.exp(2.0))),
)
# HalfCheetah never falls, and bears a higher rate: a return of 3600 after 40,000 steps. At that rate Hopper fell back
# from 400 to 38 by 60,000 steps; at the lower one Hopper and Walker2d kept rising, to about 2900 within 300,000.
FAST_SAC = dataclasses.replace(
    BEHAVIOR_SAC, actor_learning_rate=1e-3, critic_learning_rate=1e-3, temperature_learning_rate=1e-3
)
EXPLORER = RNDConfig(sac=BEHAVIOR_SAC, hidden_dims=(256, 256), output_dim=64)
MEDIUM_SHARE = 1.0 / 3.0  # D4RL's "medium": about a third of the expert's return
TRAINING = {  # robot -> settings, rows per update
    "hopper": (BEHAVIOR_SAC, 256),
    "halfcheetah": (FAST_SAC, 128),
    "walker2d": (BEHAVIOR_SAC, 256),
    "ant": (BEHAVIOR_SAC, 256),
}
STEPS = {"hopper": 300_000, "halfcheetah": 150_000, "walker2d": 300_000, "ant": 1_000_000}
EXPLORED = {f"{domain}-rnd": domain for domain in DOMAINS}
EXPLORED_STEPS = 100_000


def choose(snapshots: Sequence[Snapshot]) -> tuple[Snapshot, Snapshot]:
    """The medium snapshot, first at a third of the best return, and the expert one, which is the best."""
    expert = max(snapshots, key=lambda snapshot: snapshot.mean_return)
    medium = next(snap for snap in snapshots if snap.mean_return >= MEDIUM_SHARE * expert.mean_return)
    return medium, expert


def replay_episodes(rows: Rows, count: int) -> Iterator[Episode]:
    """The first `count` rows as episodes; the last one is cut there."""
    arrays = {name: array[:count] for name, array in rows.used().items()}
    ends = arrays["ends"].copy()
    ends[-1:] = True
    for part in np.split(np.arange(len(ends)), np.flatnonzero(ends)[:-1] + 1):
        last = np.arange(len(part)) == len(part) - 1
        terminations = arrays["terminations"][part]
        yield Episode(
            observations=np.concatenate([arrays["observations"][part], arrays["next_observations"][part[-1:]]]),
            actions=arrays["actions"][part],
            rewards=arrays["rewards"][part],
            terminations=terminations,
            truncations=last & ~terminations,
        )


def collect_policies(arguments: argparse.Namespace, robot: str) -> None:
    """Train SAC on a robot; write its medium and expert policies, their datasheet and the medium-replay data."""
    task = training_task(robot)
    config, batch_size = TRAINING[robot]
    settings = Collecting(arguments.steps or STEPS[robot], batch_size=batch_size)
    with _training(arguments) as folder:
        snapshots, rows = train(
            functools.partial(SACAgent.create, config=config),
            functools.partial(make_env, task),
            folder,
            settings,
            arguments.seed,
        )
    medium, expert = choose(snapshots)
    measured = _measure(task, medium, expert, arguments.episodes)
    low, high = measured["random"].returns.mean(), measured["expert_mode"].returns.mean()
    if high <= low:
        raise ConfigError(
            f"the best policy after {settings.steps} steps returns {high:.1f} and random actions {low:.1f}; "
            "nothing was written; train for longer with --steps"
        )
    target: Path = arguments.policies
    command = f"python -m experiments.collect {robot} --steps {settings.steps} --seed {arguments.seed} "
    command += f"--episodes {arguments.episodes}"
    sheet = {
        "environment": task.env_id,
        "policies": _write_policies(target, robot, {"medium": medium, "expert": expert}),
        "score_range": {"random": float(low), "expert": float(high)},
        "episodes": arguments.episodes,
        "measured": {name: _figures(episodes) for name, episodes in measured.items()},
        "snapshots": [[snapshot.env_steps, round(snapshot.mean_return, 1)] for snapshot in snapshots],
        "training": {"algorithm": "SAC", "settings": dataclasses.asdict(config)} | dataclasses.asdict(settings),
        "command": command,
        "versions": {
            name: importlib.metadata.version(name) for name in ("jax", "flax", "gymnasium", "mujoco", "numpy")
        },
    }
    disk.write_json(target / f"{robot}.json", sheet)
    for name, episodes in measured.items():
        print(f"{name}: return {episodes.returns.mean():.1f} +- {episodes.returns.std():.1f}")
    print(f"written: {robot}_medium.npz, {robot}_expert.npz and {robot}.json in {target}")
    if target.resolve() != SHIPPED.resolve() and (SHIPPED / f"{robot}.json").exists():
        print(f"tasks keep using the policies of {robot} that are shipped in {SHIPPED}")
    replay = replay_episodes(rows, medium.env_steps)
    description = f"The first {medium.env_steps} steps of: {command}"
    _store(
        make_task(f"local/{robot}-medium-replay-v0"),
        lambda folder: write_local(folder, robot, "medium-replay", replay, description),
    )


def _measure(task: Task, medium: Snapshot, expert: Snapshot, episodes: int) -> dict[str, Episodes]:
    """What each policy earns; 100 on the score's scale is the expert's mode."""
    env = make_env(task, 0)
    run = functools.partial(measure, env, episodes=episodes)
    measured = {
        "random": run(UniformPolicy(len(env.action_space.sample())), seed=10_000, sample=True),
        "medium_sampled": run(medium.policy, seed=20_000, sample=True),
        "expert_sampled": run(expert.policy, seed=30_000, sample=True),
        "expert_mode": run(expert.policy, seed=40_000, sample=False),
    }
    env.close()
    return measured


def _write_policies(target: Path, robot: str, snapshots: dict[str, Snapshot]) -> dict[str, dict[str, Any]]:
    """Write the policies' files; what the datasheet says of them."""
    target.mkdir(parents=True, exist_ok=True)
    entries = {}
    for name, snapshot in snapshots.items():
        file = target / f"{robot}_{name}.npz"
        snapshot.policy.save(file)
        entries[name] = {"file": file.name, "sha256": disk.sha256_file(file), "env_steps": snapshot.env_steps}
    return entries


def collect_exploration(arguments: argparse.Namespace, name: str) -> None:
    """Train RND in a domain of the control suite and keep all its steps, with the simulator's states."""
    domain = EXPLORED[name]
    task = make_task(f"local/{name}-{DOMAINS[domain][0]}-v0")
    steps = arguments.steps or EXPLORED_STEPS
    with _training(arguments) as folder:
        _, rows = train(
            functools.partial(RNDAgent.create, config=EXPLORER),
            functools.partial(make_env, task),
            folder,
            Collecting(steps, eval_episodes=0),
            arguments.seed,
            state_of=simulator_state,
        )
    _store(task, lambda folder: write_exorl(folder, rows.used()))


@contextlib.contextmanager
def _training(arguments: argparse.Namespace) -> Iterator[Path]:
    """The folder that the training is kept in, locked."""
    folder: Path = arguments.root / arguments.what / f"seed_{arguments.seed}"
    with disk.FolderLock(folder):
        yield folder


def _store(task: Task, write: Callable[[Path], Any]) -> None:
    """Write a dataset where its task looks for it; what is there already stays."""
    assert task.dataset is not None
    folder = dataset_folder(task.dataset)
    if folder.exists():
        print(f"kept as it is: {folder}; delete it and run the same command again to replace it")
        return
    fetch(dataclasses.replace(task.dataset, generate=write), allow_download=False)
    print(f"written: {folder}")


def _figures(episodes: Episodes) -> dict[str, float]:
    return {
        "return_mean": float(episodes.returns.mean()),
        "return_std": float(episodes.returns.std()),
        "length_mean": float(episodes.lengths.mean()),
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Train, then write what came of it; a killed run resumes by the same command."""
    parser = argparse.ArgumentParser(prog="python -m experiments.collect", description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=[*ENVIRONMENTS, *EXPLORED], help="a robot, or a domain explored by RND")
    parser.add_argument("--steps", type=int, help="environment steps of training; more than before continue it")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--episodes", type=int, default=100, help="episodes per measured return")
    parser.add_argument("--root", type=Path, default=Path("runs/collect"), help="where training is kept")
    parser.add_argument(
        "--policies",
        type=Path,
        default=data_root() / "policies",
        help="where policies and datasheet are written; tasks look into the package first, then here",
    )
    arguments = parser.parse_args(argv)
    try:
        (collect_policies if arguments.what in ENVIRONMENTS else collect_exploration)(arguments, arguments.what)
    except HybridRLError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted: run the same command to resume", file=sys.stderr)
        return 75
    return 0


if __name__ == "__main__":
    sys.exit(main())
