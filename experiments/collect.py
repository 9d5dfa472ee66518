"""Makes the behaviour policies behind the `local/...` datasets: trains SAC, picks snapshots, measures score ranges.

    python -m experiments.collect hopper-medium                      # trains, then writes policy and datasheet
    python -m experiments.collect hopper-medium --steps 50000 --policies /tmp/policies

The dataset itself is made from the shipped policy whenever it is first used, in under a minute.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.metadata
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from algorithms import SACAgent, SACConfig
from envs import make_env, make_task
from envs.behavior import BehaviorPolicy, load_policy, save_policy
from envs.local import POLICIES
from hybridrl import disk
from hybridrl.errors import ConfigError, HybridRLError
from hybridrl.policies import UniformPolicy
from hybridrl.task import Task
from hybridrl.training.evaluation import Episodes, evaluate
from hybridrl.training.loop import Loop, LoopSettings, Stopped
from hybridrl.training.phases import Learner, Phase

# A small, fast SAC: what matters is that its policy fits in a few hundred kilobytes and learns in minutes.
BEHAVIOR_SAC = SACConfig(
    actor_learning_rate=3e-4,
    critic_learning_rate=3e-4,
    temperature_learning_rate=3e-4,
    actor_hidden_dims=(128, 128),
    critic_hidden_dims=(128, 128),
    actor_layer_norm=False,
    num_critics=4,
    subset_with_replacement=False,
    shared_critic_head=False,
    critic_updates=2,
    actor_q="mean",
    entropy_backup=True,
    temperature_parameterization="exp",
    temperature_states="current",
    std_bounds=(float(np.exp(-5.0)), float(np.exp(2.0))),
)
MEDIUM_SHARE = 1.0 / 3.0  # D4RL's "medium": about a third of the expert's return
DATASETS = {"hopper-medium": "local/hopper-medium-v0"}


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """A policy during training: the file it was saved in and its mean evaluation return."""

    env_steps: int
    mean_return: float
    path: Path


class SnapshotKeeper:
    """Watches the training loop and saves the policy at each evaluation."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.loop: Loop | None = None

    def progress(self, phase: Phase, done: int, rate: float) -> None:
        """One line now and then."""
        if done % 2_500 == 0:
            print(f"{phase.name}: {done:,} of {phase.length:,} steps, {rate:.0f} per second", flush=True)

    def evaluated(self, record: dict[str, Any]) -> None:
        """Save the policy that was just evaluated."""
        assert self.loop is not None
        config, steps = BEHAVIOR_SAC, record["env_steps"]
        self.folder.mkdir(parents=True, exist_ok=True)
        low, high = np.log(config.std_bounds)
        parameters = self.loop.agent.parts()["actor"].params["params"]
        save_policy(self.folder / f"step_{steps:07d}.npz", _flat(parameters), log_std_bounds=(float(low), float(high)))
        print(f"  after {steps:,} steps: return {record['summary']['return']:.1f}", flush=True)

    def should_stop(self) -> bool:
        """Never of its own accord: a killed run resumes by the same command."""
        return False


def _flat(parameters: Any) -> dict[str, np.ndarray]:
    """Flax's parameters of a TanhNormalActor under the names of a policy file."""
    arrays = {}
    for name, layer in parameters["MLP_0"].items():
        for part, value in layer.items():
            arrays[f"layer_{name.removeprefix('Dense_')}/{part}"] = np.asarray(value)
    for head in ("mean", "log_std"):
        for part, value in parameters[head].items():
            arrays[f"{head}/{part}"] = np.asarray(value)
    return arrays


def train(task: Task, folder: Path, steps: int, seed: int) -> list[Snapshot]:
    """Train SAC from scratch for `steps` environment steps (resuming what `folder` holds); all snapshots."""
    learner = Learner(SACAgent, BEHAVIOR_SAC)
    every = 2_500
    phases = (
        Phase("random", learner, env_steps=every, actions="uniform"),
        Phase(
            "online",
            learner,
            env_steps=steps,
            updates_per_step=1,
            batch_size=256,
            evaluate_at=tuple(range(every, steps + 1, every)),
        ),
    )
    settings = LoopSettings(log_every=500, checkpoint_every=10_000, eval_episodes=10, eval_envs=10)
    keeper = SnapshotKeeper(folder / "snapshots")
    loop = Loop(phases, task, None, lambda seed: make_env(task, seed), folder, seed, settings, keeper)
    keeper.loop = loop
    loop.run()
    return [
        Snapshot(
            record["env_steps"], record["summary"]["return"], keeper.folder / f"step_{record['env_steps']:07d}.npz"
        )
        for record in loop.evaluations()
    ]


def choose(snapshots: Sequence[Snapshot]) -> tuple[Snapshot, Snapshot]:
    """The medium snapshot, first at a third of the best return, and the expert one, which is the best."""
    expert = max(snapshots, key=lambda snapshot: snapshot.mean_return)
    medium = next(snap for snap in snapshots if snap.mean_return >= MEDIUM_SHARE * expert.mean_return)
    return medium, expert


def measure(task: Task, policy: BehaviorPolicy | None, episodes: int, seed: int, *, sample: bool = False) -> Episodes:
    """Episodes of `policy` (None acts uniformly at random), by its mode or its samples."""
    if policy is None:
        env = make_env(task, 0)
        acting: Any = UniformPolicy(action_dim=len(env.action_space.sample()))
        return evaluate(acting, [env], task, episodes, jax.random.key(seed), seed)
    # Simulated with NumPy, as the dataset's generator does.
    returns, lengths = np.zeros(episodes), np.zeros(episodes, np.int64)
    env = make_env(task, 0)
    rng = np.random.default_rng(seed) if sample else None
    for index in range(episodes):
        observation, _ = env.reset(seed=seed + index)
        ended = False
        while not ended:
            observation, _, terminated, truncated, info = env.step(policy.act(observation, rng))
            returns[index] += info["raw_reward"]
            lengths[index] += 1
            ended = terminated or truncated
    return Episodes(returns, lengths, np.zeros(episodes, bool), returns)


def main(argv: Sequence[str] | None = None) -> int:
    """Train, choose, measure, and write the policy with its datasheet."""
    parser = argparse.ArgumentParser(prog="python -m experiments.collect", description=__doc__.splitlines()[0])
    parser.add_argument("dataset", choices=sorted(DATASETS), help="whose behaviour policy to make")
    parser.add_argument("--steps", type=int, default=100_000, help="environment steps of training")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--episodes", type=int, default=100, help="episodes per measured return")
    parser.add_argument("--root", type=Path, default=Path("runs/collect"), help="where training is kept")
    parser.add_argument("--policies", type=Path, default=POLICIES, help="where policy and datasheet are written")
    arguments = parser.parse_args(argv)
    try:
        return _collect(arguments)
    except HybridRLError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except (Stopped, KeyboardInterrupt):
        print("interrupted: run the same command to resume", file=sys.stderr)
        return 75


def _collect(arguments: argparse.Namespace) -> int:
    if arguments.steps < 2_500:
        raise ConfigError(f"--steps {arguments.steps}; expected at least 2500, one evaluation")
    task = dataclasses.replace(make_task(DATASETS[arguments.dataset]), dataset=None)
    folder = arguments.root / f"{arguments.dataset}-steps{arguments.steps}" / f"seed_{arguments.seed}"
    with disk.FolderLock(folder):
        snapshots = train(task, folder, arguments.steps, arguments.seed)
    medium, expert = choose(snapshots)
    random = measure(task, None, arguments.episodes, 10_000)
    best = measure(task, load_policy(expert.path), arguments.episodes, 20_000)
    behavior = measure(task, load_policy(medium.path), arguments.episodes, 30_000, sample=True)
    stem = arguments.dataset.replace("-", "_")
    arguments.policies.mkdir(parents=True, exist_ok=True)
    disk.write_bytes(arguments.policies / f"{stem}.npz", medium.path.read_bytes())
    sheet = {
        "task": task.name,
        "environment": task.env_id,
        "policy": f"{stem}.npz",
        "sha256": disk.sha256_file(arguments.policies / f"{stem}.npz"),
        "score_range": {"random": float(random.returns.mean()), "expert": float(best.returns.mean())},
        "measured": {
            "episodes": arguments.episodes,
            "random": _figures(random),
            "behavior_sampled": _figures(behavior) | {"env_steps": medium.env_steps},
            "expert_mode": _figures(best) | {"env_steps": expert.env_steps},
        },
        "training": {
            "algorithm": "SAC",
            "seed": arguments.seed,
            "env_steps": arguments.steps,
            "settings": {key: value for key, value in dataclasses.asdict(BEHAVIOR_SAC).items()},
        },
        "command": f"python -m experiments.collect {arguments.dataset} --steps {arguments.steps} "
        f"--seed {arguments.seed} --episodes {arguments.episodes}",
        "versions": {
            name: importlib.metadata.version(name) for name in ("jax", "flax", "gymnasium", "mujoco", "numpy")
        },
    }
    disk.write_json(arguments.policies / f"{stem}.json", sheet)
    print(f"random {sheet['score_range']['random']:.1f}, expert {sheet['score_range']['expert']:.1f}")  # type: ignore[index]
    print(f"medium: snapshot after {medium.env_steps:,} steps, sampled return {behavior.returns.mean():.1f}")
    print(f"written: {arguments.policies / stem}.npz and .json")
    return 0


def _figures(episodes: Episodes) -> dict[str, float]:
    return {
        "return_mean": float(episodes.returns.mean()),
        "return_std": float(episodes.returns.std()),
        "length_mean": float(episodes.lengths.mean()),
    }


if __name__ == "__main__":
    sys.exit(main())
