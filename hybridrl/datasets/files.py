"""Files of several published formats to `Steps`. They are not trusted: nothing is unpickled, no link followed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from hybridrl.datasets.checks import FLAGS, NUMBERS, check_size, column, flags, float32, images, matrix
from hybridrl.datasets.d4rl import read_d4rl
from hybridrl.datasets.dataset import Steps
from hybridrl.datasets.exorl import read_exorl
from hybridrl.datasets.hdf5 import Array, Group, opened
from hybridrl.datasets.npz import NpzArrays
from hybridrl.disk import read_json
from hybridrl.errors import DatasetError
from hybridrl.task import Task

_MINARI_FILE = Path("data", "main_data.hdf5")


def read_minari(folder: Path | str, task: Task) -> Steps:
    """Read a Minari dataset in HDF5: an episode of T steps holds T + 1 observations, so every next one is exact.

    Success of step t is the entry `infos/<success_key>` that came with it: the infos of the reset, where they are
    recorded, are left out. A `success_key` of "reward" means that a step succeeds if its reward is positive.

    Args:
        folder: the dataset's own folder, with `data/main_data.hdf5` in it.

    Raises:
        DatasetError: the file is missing, damaged, of another layout, or larger than this machine's memory.
    """
    path = _minari_file(folder)
    with opened(path) as root:
        episodes, declared = [], 0
        names = [name for name in root.names() if name.startswith("episode_") and name[8:].isdigit()]
        if not names:
            raise DatasetError(f"{path} holds no group 'episode_<number>'; expected a Minari dataset; get it again")
        for name in sorted(names, key=lambda name: int(name[8:])):
            group = root.group_at(name)
            if group is None:
                raise DatasetError(f"{root.where(name)} is an array; expected an episode; get the dataset again")
            arrays = _arrays(group, task)
            declared += sum(array.nbytes for array in arrays.values())
            check_size(path, declared)
            episodes.append(_read_episode(group, arrays, task))
        _check_totals(path, len(episodes), sum(len(episode["rewards"]) for episode in episodes))
    episodes = [episode for episode in episodes if len(episode["rewards"])]
    if not episodes:
        raise DatasetError(f"{path} holds episodes of no steps only; expected at least one transition; get it again")
    widths = {(episode["observations"].shape[1], episode["actions"].shape[1]) for episode in episodes}
    if len(widths) > 1:
        raise DatasetError(
            f"{path}: episodes differ in their (observation, action) widths: {sorted(widths)}; get it again"
        )
    return Steps(**{name: np.concatenate([episode[name] for episode in episodes]) for name in episodes[0]})


def minari_infos(folder: Path | str) -> tuple[str, ...]:
    """The names of the infos that a Minari dataset's first episode recorded.

    Raises:
        DatasetError: the file is missing or damaged.
    """
    path = _minari_file(folder)
    with opened(path) as root:
        episode = root.group_at("episode_0")
        infos = episode.group_at("infos") if episode is not None else None
        return tuple(infos.names()) if infos is not None else ()


def read_ogbench(path: Path | str, task: Task) -> Steps:
    """Read an OGBench file, with rewards and successes from the task's `relabel`.

    The last row of each episode has no successor: it serves as the next observation of the row before it and is left
    out otherwise. So nothing is lost against the benchmark's compact form, which keeps that row and marks it as not
    valid: the rows here are its valid rows, and an episode's states are its rows' observations and the last row's next
    one. A goal drawn from later rows never is that very last state, as in the benchmark's samplers.

    Rewards and successes belong to the state before the action, as in the benchmark since its version
    1.2: the row that starts in a solved state is the one that succeeds. A task with goals has rewards of zero.

    Args:
        path: the `.npz` file, or a folder with one (a `-val.npz` beside it is left alone).

    Raises:
        DatasetError: an array is missing or of a wrong type or shape, holds Python objects, or the file is damaged.
    """
    path = Path(path)
    if path.is_dir():
        path = _training_file(path)
    spec = task.dataset
    arrays = NpzArrays(path, required=("observations", "actions", "terminals"))
    rows_of = images if task.pixels else matrix
    observations = rows_of(f"{path}: 'observations'", arrays["observations"])
    actions = matrix(f"{path}: 'actions'", arrays["actions"])
    rows = len(observations)
    last = flags(f"{path}: 'terminals'", arrays["terminals"], rows)
    if len(actions) != rows:
        raise DatasetError(f"{path}: 'actions' has {len(actions)} rows, 'observations' has {rows}; get the file again")
    successes = np.zeros(rows, bool)
    if spec is not None and spec.relabel is not None:
        rewards, successes = spec.relabel(arrays)
    elif task.num_goals:
        rewards = np.zeros(rows, np.float32)
    elif "rewards" in arrays:
        rewards = arrays["rewards"]
    else:
        raise DatasetError(
            f"{path} holds no 'rewards', and task {task.name!r} does not say how to compute them; "
            "choose one of the dataset's single-task variants or set DatasetSpec.relabel"
        )
    rewards = column(f"{path}: 'rewards'", rewards, rows, NUMBERS)
    successes = column(f"{path}: 'successes'", successes, rows, FLAGS)
    goals = None
    if spec is not None and spec.represent is not None:
        goals = matrix(f"{path}: 'goal_representations'", spec.represent(arrays), NUMBERS)
        if len(goals) != rows:
            raise DatasetError(f"{path}: {len(goals)} goal representations for {rows} rows; get the file again")
    last[-1:] = True
    kept = np.flatnonzero(~last)
    return Steps(
        observations=observations[kept],
        actions=actions[kept],
        rewards=float32(rewards[kept]),
        terminations=np.zeros(len(kept), bool),  # `terminals` are time limits here
        ends=last[kept + 1],
        next_observations=observations[kept + 1],
        successes=successes[kept].astype(bool),
        goal_representations=None if goals is None else goals[kept],
    )


READERS: dict[str, Callable[[Path, Task], Steps]] = {
    "d4rl": read_d4rl,
    "exorl": read_exorl,
    "minari": read_minari,
    "ogbench": read_ogbench,
}


def read(folder: Path | str, task: Task) -> Steps:
    """Read the task's dataset from its folder, in the format its record names.

    Raises:
        DatasetError: the format is unknown, or the files are not what they should be.
    """
    if task.dataset is None:
        raise DatasetError(f"task {task.name!r} has no dataset; train it online, or choose a task with data")
    reader = READERS.get(task.dataset.format)
    if reader is None:
        raise DatasetError(
            f"dataset {task.dataset.id!r} has format {task.dataset.format!r}; expected {sorted(READERS)}"
        )
    return reader(Path(folder), task)


def has_data(folder: Path, format: str) -> bool:
    """Whether a folder holds files that look like a dataset of this format."""
    if format == "minari":
        return (folder / _MINARI_FILE).is_file() and (folder / "data" / "metadata.json").is_file()
    return folder.is_dir() and any(
        file.suffix in (".npz", ".hdf5", ".zip") for file in folder.iterdir() if file.is_file()
    )


def _arrays(episode: Group, task: Task) -> dict[str, Array]:
    """The arrays of an episode that are needed, unread; the parts of an observation as `observations/<key>`."""
    parts = episode.group_at("observations")
    if parts is not None:
        arrays = {f"observations/{key}": _nested(parts, key) for key in task.observation_keys or parts.names()}
    elif task.observation_keys and episode.get("observations") is not None:
        raise DatasetError(
            f"{episode.where('observations')} is one array; "
            f"task {task.name!r} expects its parts {task.observation_keys}; choose the dataset of the task"
        )
    else:
        arrays = {"observations": episode.array("observations")}
    arrays |= {name: episode.array(name) for name in ("actions", "rewards", "terminations", "truncations")}
    if task.success_key not in (None, "reward"):
        infos = episode.group_at("infos")
        if infos is None or infos.get(task.success_key) is None:
            raise DatasetError(
                f"{episode.where('infos')} has no entry {task.success_key!r}, which task {task.name!r} needs to know "
                "successes; record the infos, or set the task's success_key to 'reward' if success is a reward above 0"
            )
        arrays["successes"] = infos.array(task.success_key)
    return arrays


def _nested(group: Group, key: str) -> Array:
    """The array at `outer/inner`, however deep."""
    *outer, name = key.split("/")
    for step in outer:
        inner = group.group_at(step)
        if inner is None:
            raise DatasetError(f"{group.where(step)} is no group; expected one with {key!r}; get the dataset again")
        group = inner
    return group.array(name)


def _rescaled(where: str, actions: np.ndarray, task: Task) -> np.ndarray:
    """Actions in units of [-1, 1], from the bounds that the dataset records."""
    if task.dataset is None or task.dataset.action_bounds is None:
        return actions
    low, high = (np.asarray(bound, np.float32) for bound in task.dataset.action_bounds)
    if actions.shape[1:] != low.shape:
        raise DatasetError(
            f"{where} has actions of width {actions.shape[1]}; expected {len(low)}; get the dataset again"
        )
    return 2.0 * (actions - low) / (high - low) - 1.0


def _read_episode(episode: Group, arrays: dict[str, Array], task: Task) -> dict[str, np.ndarray]:
    """One episode's fields of `Steps`."""
    parts = {
        name: matrix(array.where, array.read(), NUMBERS)
        for name, array in arrays.items()
        if name.startswith("observations")
    }
    if len({len(part) for part in parts.values()}) > 1:
        lengths = {name: len(part) for name, part in parts.items()}
        raise DatasetError(f"{episode.where('observations')} has parts of unequal lengths {lengths}; get it again")
    plain = "observations" in parts
    observations = task.flatten_observation(
        parts["observations"] if plain else {name.split("/", 1)[1]: part for name, part in parts.items()}
    )
    actions = matrix(arrays["actions"].where, arrays["actions"].read())
    actions = _rescaled(arrays["actions"].where, actions, task)
    steps = len(actions)
    if len(observations) != steps + 1:
        raise DatasetError(
            f"{episode.where('observations')} has {len(observations)} rows and 'actions' has {steps}; "
            "expected one observation more than actions; get the dataset again"
        )

    def stored(name: str, kinds: str) -> np.ndarray:
        content = arrays[name].read()
        if name == "successes" and len(content) == steps + 1:  # the first came with the reset
            content = content[1:]
        return column(arrays[name].where, content, steps, kinds)

    rewards = stored("rewards", NUMBERS)
    ends = stored("truncations", FLAGS).astype(bool)
    ends[-1:] = True
    if "successes" in arrays:
        successes = stored("successes", FLAGS).astype(bool)
    else:
        successes = rewards > 0 if task.success_key == "reward" else np.zeros(steps, bool)
    return {
        "observations": observations[:-1],
        "actions": actions,
        "rewards": float32(rewards),
        "terminations": stored("terminations", FLAGS).astype(bool),
        "ends": ends,
        "next_observations": observations[1:],
        "successes": successes,
    }


def _check_totals(path: Path, episodes: int, steps: int) -> None:
    """Compare with what the metadata beside the file promise, where they do: a cut copy lacks its last episodes."""
    metadata = path.parent / "metadata.json"
    promised = read_json(metadata) if metadata.is_file() else {}
    for name, found in (("total_episodes", episodes), ("total_steps", steps)):
        if isinstance(promised, dict) and promised.get(name, found) != found:
            raise DatasetError(
                f"{path} holds {name} = {found}, and {metadata.name} beside it says {promised[name]}; "
                "expected equal counts; the file is incomplete; delete its folder and get it again"
            )


def _minari_file(folder: Path | str) -> Path:
    path = Path(folder) / _MINARI_FILE
    if not path.exists():
        raise DatasetError(f"{path} does not exist; expected a Minari dataset in HDF5 there{_hint(path)}")
    return path


def _hint(path: Path) -> str:
    """What else may be in the place of an HDF5 file."""
    metadata = path.parent / "metadata.json"
    if metadata.is_file():
        stored = read_json(metadata)
        if isinstance(stored, dict) and stored.get("data_format") not in (None, "hdf5"):
            return f"; this one is stored as {stored['data_format']!r}, so convert it to data_format='hdf5'"
    return "; get the dataset again"


def _training_file(folder: Path) -> Path:
    files = sorted(file for file in folder.glob("*.npz") if not file.stem.endswith("-val"))
    if len(files) != 1:
        names = [file.name for file in files]
        raise DatasetError(f"{folder} holds {names or 'no .npz file'}; expected one .npz file and perhaps its -val.npz")
    return files[0]
