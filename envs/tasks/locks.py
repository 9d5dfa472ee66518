"""The combination locks as tasks. JAX is imported when an environment or a dataset is made, not before."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from hybridrl.errors import ConfigError
from hybridrl.task import DatasetSpec, Task

# horizon -> trajectories. 50,000 as published for horizons up to 50; 10,000 as in Hy-Q's data for 100.
HORIZONS = {5: 50_000, 10: 50_000, 15: 50_000, 25: 50_000, 30: 50_000, 50: 50_000, 100: 10_000}
# Fewer than published: an image is 2 KB, so 50,000 trajectories of 30 steps would take 3 GB on disk and more in memory.
IMAGE_HORIZONS = {5: 10_000, 10: 10_000, 15: 10_000, 30: 10_000}
_DISCRETE_TRAJECTORIES = 10_000  # Hy-Q has so many transitions of each step, at horizon 100
_CHOICES = 10  # `envs.lock.NUM_ACTIONS`, without importing JAX
_CHUNK = 2_000  # trajectories made at a time; part of what a dataset's numbers depend on


def generate_lock(
    folder: Path,
    *,
    name: str,
    horizon: int,
    images: str | None,
    trajectories: int,
    discrete: bool = False,
    seed: int = 0,
) -> None:
    """Write a lock's offline data: the published behaviour, right but for random steps at rate `1 / horizon`.

    Those of a discrete lock are Hy-Q's "optimal trajectory": a random step in the middle of every episode too, and
    actions as one-hot vectors. Every episode has exactly `horizon` steps, so row `i` of the dataset is step
    `i % horizon`. Entries of `infos`: `success`, and the hidden state as `latent`.

    Args:
        folder: an empty folder, which becomes the dataset's in Minari's layout.
        name: the dataset's id.
        horizon, images, discrete: of the lock, see `envs.lock.Lock.create`.
        trajectories: a positive number.
        seed: of the trajectories, not of the lock's secret.
    """
    import jax

    from envs.functional import ArgmaxActions, FunctionalEnv
    from envs.lock import Lock, offline_data
    from envs.minari_files import Episode, write_minari

    if trajectories < 1:
        raise ConfigError(f"trajectories={trajectories}; expected a positive number")
    lock = Lock.create(horizon, images=images, discrete=discrete)
    ends = np.arange(horizon) == horizon - 1
    never = np.zeros(horizon, bool)

    def episodes() -> Iterator[Episode]:
        for chunk, first in enumerate(range(0, trajectories, _CHUNK)):
            key = jax.random.fold_in(jax.random.key(seed), chunk)
            data = offline_data(lock, key, _CHUNK, force_middle=discrete)
            data = jax.tree.map(lambda leaf: np.ascontiguousarray(np.swapaxes(np.asarray(leaf), 0, 1)), data)
            observations = np.concatenate([data.observations, data.next_observations[:, -1:]], axis=1)
            actions = np.eye(_CHOICES, dtype=np.float32)[data.actions] if discrete else data.actions
            successes = np.pad(data.rewards == 1.0, ((0, 0), (1, 0)))
            for index in range(min(_CHUNK, trajectories - first)):
                yield Episode(
                    observations=observations[index],
                    actions=actions[index],
                    rewards=data.rewards[index],
                    terminations=ends,
                    truncations=never,
                    infos={"success": successes[index], "latent": data.latents[index]},
                )

    env = FunctionalEnv(ArgmaxActions(lock) if discrete else lock)
    write_minari(
        Path(folder),
        name,
        episodes(),
        observation_space=env.observation_space,
        action_space=env.action_space,
        algorithm_name="right latent action, random at rate 1/horizon",
        description=f"{trajectories} trajectories of a combination lock of horizon {horizon} (seed {seed}).",
    )


def _lock(horizon: int, images: str | None) -> Task:
    kind = "" if images is None else "image-"
    suffix = "-heldout" if images == "heldout" else ""
    count = (HORIZONS if images is None else IMAGE_HORIZONS)[horizon]
    dataset_id = f"local/lock-{kind}h{horizon}-v0"
    generate = functools.partial(
        generate_lock, name=dataset_id, horizon=horizon, images=images and "train", trajectories=count
    )
    return Task(
        name=f"lock/{kind}h{horizon}{suffix}-v0",
        family="lock",
        env_id=f"lock/{kind}h{horizon}{suffix}-v0",
        env_kwargs=(("horizon", horizon), ("images", images)),
        horizon=horizon,
        success_key="success",
        bounded_actions=False,  # they are logits
        dataset=DatasetSpec(id=dataset_id, format="minari", generate=generate, rows=count * horizon),
        make=_make,
        simulator=_make_to_train_in if images == "heldout" else None,
        functional=_functional,
    )


def _discrete_lock(horizon: int) -> Task:
    """The lock of `lock/h<horizon>-v0`, its latent actions as choices: the same secret, states and observations."""
    name, dataset_id = f"lock/discrete-h{horizon}-v0", f"local/lock-discrete-h{horizon}-v0"
    task, count = _lock(horizon, None), _DISCRETE_TRAJECTORIES
    generate = functools.partial(
        generate_lock, name=dataset_id, horizon=horizon, images=None, trajectories=count, discrete=True
    )
    return dataclasses.replace(
        task,
        name=name,
        env_id=name,
        env_kwargs=(*task.env_kwargs, ("discrete", True)),
        choices=_CHOICES,
        dataset=DatasetSpec(id=dataset_id, format="minari", generate=generate, rows=count * horizon),
    )


@functools.lru_cache(maxsize=2)  # image pools are large, and a run makes many environments of one task
def _lock_of(env_kwargs: tuple[tuple[str, Any], ...]) -> Any:
    from envs.functional import ArgmaxActions
    from envs.lock import Lock

    lock = Lock.create(**dict(env_kwargs))
    return ArgmaxActions(lock) if lock.discrete else lock


def _functional(task: Task) -> Any:
    """The lock to train in: held-out images are for evaluation alone, as in the paper."""
    settings = dict(task.env_kwargs)
    return _lock_of(tuple((settings | {"images": settings["images"] and "train"}).items()))


def _make_to_train_in(task: Task) -> Any:
    from envs.functional import FunctionalEnv

    return FunctionalEnv(_functional(task))


def _make(task: Task) -> Any:
    from envs.functional import FunctionalEnv

    return FunctionalEnv(_lock_of(task.env_kwargs))


TASKS: dict[str, Callable[[], Task]] = {
    **{f"lock/h{horizon}-v0": functools.partial(_lock, horizon, None) for horizon in HORIZONS},
    **{f"lock/discrete-h{horizon}-v0": functools.partial(_discrete_lock, horizon) for horizon in HORIZONS},
    **{f"lock/image-h{horizon}-v0": functools.partial(_lock, horizon, "train") for horizon in IMAGE_HORIZONS},
    **{f"lock/image-h{horizon}-heldout-v0": functools.partial(_lock, horizon, "heldout") for horizon in IMAGE_HORIZONS},
}
