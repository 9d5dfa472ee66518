"""The probe MDPs as tasks, for the ordinary drivers. JAX is imported when one is made, not before."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from hybridrl.task import DatasetSpec, Task


def bandit() -> Task:
    """One step; uniform actions score 0 and the best action 100."""
    return Task(
        name="probe/bandit-v0",
        family="probe",
        env_id="probe/bandit-v0",
        horizon=1,
        score_range=(5.0 / 12.0, 1.0),
        score_label="normalised return (0 uniform actions, 100 optimal)",
        make=_make,
        functional=_functional,
    )


def chain() -> Task:
    """Two steps that no action can spoil; the score is always 100."""
    return Task(
        name="probe/chain-v0",
        family="probe",
        env_id="probe/chain-v0",
        horizon=2,
        score_range=(0.0, 1.0),
        score_label="normalised return",
        make=_make,
        functional=_functional,
    )


def reach() -> Task:
    """A sparse reach with a dataset, in the reward convention of AntMaze: -5 a step and +5 at the goal."""
    return Task(
        name="probe/reach-v0",
        family="probe",
        env_id="probe/reach-v0",
        horizon=20,
        reward_scale=10.0,
        reward_shift=-5.0,
        success_key="success",
        terminate_on_success=True,
        failure_reward=-5.0,
        dataset=DatasetSpec(id="local/reach-noisy-v0", format="minari", generate=generate_reach, rows=4_000),
        make=_make,
        functional=_functional,
    )


def generate_reach(folder: Path, *, rows: int = 4_000, seed: int = 0) -> None:
    """Write the dataset of `probe/reach-v0`: a noisy policy that drifts to the right and reaches the goal at times.

    Its actions are `clip(0.35 + 0.6 * noise, -1, 1)`; about half of its episodes succeed.
    """
    from envs.minari_files import Episode, write_minari
    from envs.probe import REACH_GOAL, REACH_HORIZON, REACH_MOVE, ProbeEnv

    rng = np.random.default_rng(seed)

    def episodes() -> Any:
        left = rows
        while left > 0:
            length = min(REACH_HORIZON, left)
            positions = [np.float32(rng.uniform(-1.0, 0.0))]
            actions = np.clip(0.35 + 0.6 * rng.standard_normal((length, 1)), -1.0, 1.0).astype(np.float32)
            for move in (np.float32(REACH_MOVE) * actions[:, 0]).tolist():
                positions.append(np.clip(positions[-1] + np.float32(move), np.float32(-1.0), np.float32(1.0)))
                if positions[-1] > REACH_GOAL:
                    break
            length = len(positions) - 1
            successes = np.array(positions) > REACH_GOAL
            ends = np.arange(length) == length - 1
            yield Episode(
                observations=np.array(positions, np.float32)[:, None],
                actions=actions[:length],
                rewards=successes[1:].astype(np.float64),
                terminations=ends & successes[1:],
                truncations=ends & ~successes[1:],
                infos={"success": successes},
            )
            left -= length

    env = ProbeEnv("probe/reach-v0")
    write_minari(
        Path(folder),
        "local/reach-noisy-v0",
        episodes(),
        observation_space=env.observation_space,
        action_space=env.action_space,
        algorithm_name="drift with noise",
        description=f"A one-dimensional reach with a known optimal value (seed {seed}).",
    )


@functools.lru_cache(maxsize=1)
def _probe_module() -> Any:
    import envs.probe

    return envs.probe


def _make(task: Task) -> Any:
    return _probe_module().ProbeEnv(task.env_id)


def _functional(task: Task) -> Any:
    return _probe_module().PROBES[task.env_id]


TASKS: dict[str, Callable[[], Task]] = {"probe/bandit-v0": bandit, "probe/chain-v0": chain, "probe/reach-v0": reach}
