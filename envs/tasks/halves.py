"""The point on a plane with a half-wrong simulator as tasks. JAX is imported when one is made, not before."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from hybridrl.task import DatasetSpec, Task

ROWS = 2_000
# Expected returns of standing still and of going straight to the goal, from uniform starts.
SCORE_RANGE = (-3.3822, 17.0756)


def halves() -> Task:
    """The simulator is wrong on the right half."""
    return _task("probe/halves-v0", flawed=True)


def halves_exact() -> Task:
    """The simulator is right everywhere: what a method against dynamics gaps must not suffer from."""
    return _task("probe/halves-exact-v0", flawed=False)


def generate_halves(folder: Path, *, rows: int = ROWS, seed: int = 0) -> None:
    """Write the true plane's dataset: steps `clip((goal - position) / 2 + 0.7 noise, -1, 1)`, noisy but to the goal."""
    from envs.functional import FunctionalEnv
    from envs.halves import GOAL, HORIZON, MOVE, Halves
    from envs.minari_files import Episode, write_minari

    rng = np.random.default_rng(seed)
    goal = np.asarray(GOAL, np.float32)

    def episodes() -> Iterator[Episode]:
        for first in range(0, rows, HORIZON):
            length = min(HORIZON, rows - first)
            positions = [rng.uniform(-1.0, 1.0, 2).astype(np.float32)]
            actions = []
            for noise in rng.standard_normal((length, 2)).astype(np.float32):
                actions.append(np.clip(0.5 * (goal - positions[-1]) + np.float32(0.7) * noise, -1.0, 1.0))
                positions.append(np.clip(positions[-1] + np.float32(MOVE) * actions[-1], -1.0, 1.0))
            yield Episode(
                observations=np.array(positions, np.float32),
                actions=np.array(actions, np.float32),
                rewards=1.0 - np.linalg.norm(np.array(positions[1:]) - goal, axis=1),
                terminations=np.zeros(length, bool),
                truncations=np.arange(length) == length - 1,
                infos={},
            )

    env = FunctionalEnv(Halves())
    write_minari(
        Path(folder),
        "local/halves-noisy-v0",
        episodes(),
        observation_space=env.observation_space,
        action_space=env.action_space,
        algorithm_name="noisy steps towards the goal",
        description=f"A point on a plane, in its true dynamics (seed {seed}).",
    )


def _task(name: str, *, flawed: bool) -> Task:
    return Task(
        name=name,
        family="probe",
        env_id="probe/halves-v0",
        horizon=20,
        score_range=SCORE_RANGE,
        score_label="normalised return (0 standing still, 100 optimal)",
        dataset=DatasetSpec(id="local/halves-noisy-v0", format="minari", generate=generate_halves, rows=ROWS),
        make=_make_real,
        simulator=_make_flawed if flawed else _make_real,
    )


def _make_real(task: Task) -> Any:
    from envs.functional import FunctionalEnv
    from envs.halves import Halves

    return FunctionalEnv(Halves())


def _make_flawed(task: Task) -> Any:
    from envs.functional import FunctionalEnv
    from envs.halves import Halves

    return FunctionalEnv(Halves(flawed=True))


TASKS: dict[str, Callable[[], Task]] = {"probe/halves-v0": halves, "probe/halves-exact-v0": halves_exact}
