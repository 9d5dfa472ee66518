"""Files of several published formats -> `Steps`. Files are taken as hostile: sizes are read from their headers before
memory is allocated, nothing is unpickled, no link is followed, and no environment is made from what a file says."""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from hybridrl.datasets.dataset import Steps
from hybridrl.disk import read_json
from hybridrl.errors import DatasetError, HybridRLError
from hybridrl.task import Task

_MINARI_FILE = Path("data", "main_data.hdf5")
_FLOATS, _NUMBERS, _FLAGS = "f", "fiub", "bfiu"  # NumPy's kinds of dtype


def read_minari(folder: Path | str, task: Task) -> Steps:
    """Read a Minari dataset in HDF5: an episode of T steps holds T + 1 observations, so every next one is exact.

    Success of step t is the entry `infos/<success_key>` that came with it: the infos of the reset, where they are
    recorded, are left out. A `success_key` of "reward" means that a step succeeds if its reward is positive.

    Args:
        folder: the dataset's own folder, with `data/main_data.hdf5` in it.

    Raises:
        DatasetError: the file is missing, damaged, of another layout, or larger than this machine's memory.
    """
    path = Path(folder) / _MINARI_FILE
    try:
        with h5py.File(path, "r", locking="best-effort") as file:
            groups = [(int(name[8:]), name) for name in file if name.startswith("episode_") and name[8:].isdigit()]
            if not groups:
                raise DatasetError(f"{path} holds no group 'episode_<number>'; expected a Minari dataset; get it again")
            root, episodes, declared = _Group(path, file), [], 0
            for _, name in sorted(groups):
                group = root[name]
                if not isinstance(group, _Group):
                    raise DatasetError(f"{root.where(name)} is not a group; expected an episode; get the dataset again")
                arrays = _arrays(group, task)
                declared += _declared_bytes(arrays)
                _check_size(path, declared)
                episodes.append(_read_episode(group, arrays, task))
    except FileNotFoundError:
        raise DatasetError(f"{path} does not exist; expected a Minari dataset in HDF5 there{_hint(path)}") from None
    except HybridRLError:
        raise
    except (OSError, KeyError, RuntimeError, ValueError) as error:  # h5py's errors for damaged files
        raise DatasetError(
            f"{path} is not a readable HDF5 file ({error}); delete its folder and get it again"
        ) from error
    episodes = [episode for episode in episodes if len(episode["rewards"])]
    if not episodes:
        raise DatasetError(f"{path} holds episodes of no steps only; expected at least one transition; get it again")
    widths = {(episode["observations"].shape[1], episode["actions"].shape[1]) for episode in episodes}
    if len(widths) > 1:
        raise DatasetError(
            f"{path}: episodes differ in their (observation, action) widths: {sorted(widths)}; get it again"
        )
    return Steps(**{name: np.concatenate([episode[name] for episode in episodes]) for name in episodes[0]})


def read_ogbench(path: Path | str, task: Task) -> Steps:
    """Read an OGBench file, with rewards and successes from the task's `relabel`.

    The last row of each episode has no successor: it serves as the next observation of the row before it and is left
    out otherwise. Rewards and successes belong to the state before the action, as in the benchmark since its version
    1.2: the row that starts in a solved state is the one that succeeds.

    Args:
        path: the `.npz` file, or a folder with one (a `-val.npz` beside it is left alone).

    Raises:
        DatasetError: an array is missing or of a wrong type or shape, holds Python objects, or the file is damaged.
    """
    path = Path(path)
    if path.is_dir():
        path = _training_file(path)
    relabel = task.dataset.relabel if task.dataset is not None else None
    arrays = _read_npz(path, ("observations", "actions", "terminals"), everything=relabel is not None)
    observations = _matrix(path, "observations", arrays["observations"])
    actions = _matrix(path, "actions", arrays["actions"])
    rows = len(observations)
    terminals = _column(path, "terminals", arrays["terminals"], rows, _FLAGS)
    if len(actions) != rows:
        raise DatasetError(f"{path}: 'actions' has {len(actions)} rows, 'observations' has {rows}; get the file again")
    if not np.isin(terminals, (0, 1)).all():
        raise DatasetError(f"{path}: 'terminals' has entries other than 0 and 1; expected flags; get the file again")
    if relabel is not None:
        rewards, successes = relabel(arrays)
    elif "rewards" in arrays:
        rewards, successes = arrays["rewards"], np.zeros(rows, bool)
    else:
        raise DatasetError(
            f"{path} holds no 'rewards', and task {task.name!r} does not say how to compute them; "
            "choose one of the dataset's single-task variants or set DatasetSpec.relabel"
        )
    rewards = _column(path, "rewards", rewards, rows, _NUMBERS)
    successes = _column(path, "successes", successes, rows, _FLAGS)
    last = terminals.astype(bool)
    last[-1:] = True
    kept = np.flatnonzero(~last)
    return Steps(
        observations=observations[kept],
        actions=actions[kept],
        rewards=_float32(rewards[kept]),
        terminations=np.zeros(len(kept), bool),  # `terminals` are time limits here
        ends=last[kept + 1],
        next_observations=observations[kept + 1],
        successes=successes[kept].astype(bool),
    )


READERS: dict[str, Callable[[Path, Task], Steps]] = {"minari": read_minari, "ogbench": read_ogbench}


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
    return folder.is_dir() and any(file.suffix in (".npz", ".hdf5") for file in folder.iterdir() if file.is_file())


# ---------------------------------------------------------------------------------------------------------------- HDF5


class _Group:
    """An HDF5 group that gives its own members only: no soft, external or virtual links, no foreign storage."""

    def __init__(self, path: Path, group: h5py.Group) -> None:
        self.path, self.group = path, group

    def __contains__(self, name: str) -> bool:
        return name in self.group.keys()  # noqa: SIM118 - `in group` would follow a link

    def where(self, name: str) -> str:
        return f"{self.path}: {self.group.name.strip('/')}/{name}".replace(": /", ": ")

    def __getitem__(self, name: str) -> Any:
        if name not in self:
            raise DatasetError(f"{self.where(name)} is missing; found {sorted(self.group)}; get the dataset again")
        if not isinstance(self.group.get(name, getlink=True), h5py.HardLink):
            raise DatasetError(
                f"{self.where(name)} is a link; expected data in the file itself; do not trust this file"
            )
        member = self.group[name]
        if isinstance(member, h5py.Group):
            return _Group(self.path, member)
        if not isinstance(member, h5py.Dataset):
            raise DatasetError(f"{self.where(name)} is neither array nor group; get the dataset again")
        if member.external or member.is_virtual:
            raise DatasetError(
                f"{self.where(name)} is stored in another file; expected data in the file itself; "
                "do not trust this file"
            )
        if member.dtype.kind not in _NUMBERS:
            raise DatasetError(f"{self.where(name)} has dtype {member.dtype}; expected numbers; get the dataset again")
        return member


def _arrays(episode: _Group, task: Task) -> dict[str, Any]:
    """The HDF5 arrays of an episode that are needed, by name; observations of several parts as a dict."""
    observations = episode["observations"]
    if isinstance(observations, _Group):
        keys = task.observation_keys or tuple(observations.group)
        observations = {key: observations[key] for key in keys}
    elif task.observation_keys:
        raise DatasetError(
            f"{episode.where('observations')} is one array; "
            f"task {task.name!r} expects its parts {task.observation_keys}; choose the dataset of the task"
        )
    arrays = {name: episode[name] for name in ("actions", "rewards", "terminations", "truncations")}
    if task.success_key not in (None, "reward"):
        infos = episode["infos"] if "infos" in episode else None  # noqa: SIM401 - a group of ours has no get
        if not isinstance(infos, _Group) or task.success_key not in infos:
            raise DatasetError(
                f"{episode.where('infos')} has no entry {task.success_key!r}, which task {task.name!r} needs to know "
                "successes; record the infos, or set the task's success_key to 'reward' if success is a reward above 0"
            )
        arrays["successes"] = infos[task.success_key]
    parts = (
        {f"observations/{key}": part for key, part in observations.items()} if isinstance(observations, dict) else {}
    )
    nested = [name for name, array in (arrays | parts).items() if isinstance(array, _Group)]
    if nested:
        raise DatasetError(f"{episode.where(nested[0])} is a group; expected an array; name its parts differently")
    return {"observations": observations, **arrays}


def _declared_bytes(arrays: dict[str, Any]) -> int:
    parts = [part for array in arrays.values() for part in (array.values() if isinstance(array, dict) else (array,))]
    return sum(part.nbytes for part in parts)


def _read_episode(episode: _Group, arrays: dict[str, Any], task: Task) -> dict[str, np.ndarray]:
    """One episode's fields of `Steps`."""
    path = episode.path
    name = episode.group.name.strip("/")
    parts = arrays["observations"]
    if isinstance(parts, dict):
        parts = {key: _matrix(path, f"{name}/observations/{key}", part[()], _NUMBERS) for key, part in parts.items()}
        lengths = {key: len(part) for key, part in parts.items()}
        if len(set(lengths.values())) > 1:
            raise DatasetError(f"{path}: {name}/observations has parts of unequal lengths {lengths}; get it again")
        observations = task.flatten_observation(parts)
    else:
        observations = task.flatten_observation(_matrix(path, f"{name}/observations", parts[()], _NUMBERS))
    actions = _matrix(path, f"{name}/actions", arrays["actions"][()])
    steps = len(actions)
    if len(observations) != steps + 1:
        raise DatasetError(
            f"{path}: {name} has {len(observations)} observations and {steps} actions; expected one observation more "
            "than actions; get the dataset again"
        )
    rewards = _column(path, f"{name}/rewards", arrays["rewards"][()], steps, _NUMBERS)
    terminations = _column(path, f"{name}/terminations", arrays["terminations"][()], steps, _FLAGS).astype(bool)
    ends = _column(path, f"{name}/truncations", arrays["truncations"][()], steps, _FLAGS).astype(bool)
    ends[-1:] = True
    if task.success_key == "reward":
        successes = rewards > 0
    elif task.success_key is None:
        successes = np.zeros(steps, bool)
    else:
        flags = np.asarray(arrays["successes"][()])
        if len(flags) == steps + 1:  # the first came with the reset
            flags = flags[1:]
        successes = _column(path, f"{name}/infos/{task.success_key}", flags, steps, _FLAGS).astype(bool)
    return {
        "observations": observations[:-1],
        "actions": actions,
        "rewards": _float32(rewards),
        "terminations": terminations,
        "ends": ends,
        "next_observations": observations[1:],
        "successes": successes,
    }


def _hint(path: Path) -> str:
    """What else may be in the place of an HDF5 file."""
    metadata = path.parent / "metadata.json"
    if metadata.is_file():
        stored = read_json(metadata)
        if isinstance(stored, dict) and stored.get("data_format") not in (None, "hdf5"):
            return f"; this one is stored as {stored['data_format']!r}, so convert it to data_format='hdf5'"
    return "; get the dataset again"


# ----------------------------------------------------------------------------------------------------------------- npz


def _training_file(folder: Path) -> Path:
    files = sorted(file for file in folder.glob("*.npz") if not file.stem.endswith("-val"))
    if len(files) != 1:
        names = [file.name for file in files]
        raise DatasetError(f"{folder} holds {names or 'no .npz file'}; expected one .npz file and perhaps its -val.npz")
    return files[0]


def _read_npz(path: Path, required: tuple[str, ...], *, everything: bool) -> dict[str, np.ndarray]:
    """The required arrays and, if asked, all others; headers are checked before anything is allocated."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
            missing = [name for name in required if name not in members]
            if missing:
                raise DatasetError(f"{path} lacks {missing}; it holds {sorted(members)}; expected {list(required)}")
            others = [name for name, info in members.items() if info.filename.endswith(".npy")]
            wanted = others if everything else [name for name in (*required, "rewards") if name in members]
            _check_size(path, sum(_declared_npy_bytes(path, archive, members[name]) for name in wanted))
            arrays = {}
            for name in wanted:
                with archive.open(members[name]) as file:
                    arrays[name] = np.lib.format.read_array(file, allow_pickle=False)
                    file.read(1)  # past the end, where the checksum is compared
            return arrays
    except FileNotFoundError:
        raise DatasetError(f"{path} does not exist; expected an OGBench .npz file there") from None
    except HybridRLError:
        raise
    except (zipfile.BadZipFile, ValueError, EOFError, OSError, RuntimeError, NotImplementedError, zlib.error) as error:
        raise DatasetError(
            f"{path} is not a readable .npz file ({error}); delete its folder and get it again"
        ) from error


def _declared_npy_bytes(path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> int:
    """The array's size as its header gives it, which must be that of the member that holds it."""
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        if version == (1, 0):
            shape, _, dtype = np.lib.format.read_array_header_1_0(file)
        elif version == (2, 0):
            shape, _, dtype = np.lib.format.read_array_header_2_0(file)
        else:
            raise DatasetError(f"{path}: {member.filename!r} is of npy version {version}; expected 1.0 or 2.0")
        header = file.tell()
    if dtype.hasobject:
        raise DatasetError(
            f"{path}: {member.filename!r} holds pickled Python objects, which could run code; expected numbers; "
            "do not trust this file"
        )
    declared = int(np.prod([int(size) for size in shape], dtype=object)) * dtype.itemsize
    if header + declared != member.file_size:
        raise DatasetError(
            f"{path}: {member.filename!r} declares shape {shape} of {dtype}, {declared} bytes, and holds "
            f"{member.file_size - header}; the file is damaged; delete its folder and get it again"
        )
    return declared


# -------------------------------------------------------------------------------------------------------------- checks


def _check_size(path: Path, declared: int) -> None:
    limit = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if declared > limit:
        raise DatasetError(
            f"{path} would need {declared / 2**30:.1f} GiB of memory, and this machine has {limit / 2**30:.1f} GiB; "
            "use a larger machine or a smaller dataset"
        )


def _matrix(path: Path, name: str, array: Any, kinds: str = _FLOATS) -> np.ndarray:
    """A float32 `(rows, width)` array; where integers are taken, so is a plain row, as one of width 1."""
    array = np.asarray(array)
    if array.dtype.kind not in kinds:
        raise DatasetError(f"{path}: {name!r} has dtype {array.dtype}; expected floating-point numbers")
    if array.ndim == 1 and kinds != _FLOATS:
        array = array[:, None]
    if array.ndim != 2:
        raise DatasetError(f"{path}: {name!r} has shape {array.shape}; expected (rows, width)")
    return _float32(array)


def _column(path: Path, name: str, array: Any, rows: int, kinds: str) -> np.ndarray:
    """An array of `rows` numbers; one of shape `(rows, 1)` is taken too."""
    array = np.asarray(array)
    if array.shape == (rows, 1):
        array = array[:, 0]
    if array.dtype.kind not in kinds or array.shape != (rows,):
        raise DatasetError(f"{path}: {name!r} has shape {array.shape}, dtype {array.dtype}; expected {rows} numbers")
    return array


def _float32(array: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):  # what does not fit becomes infinite, and infinities are refused with their row
        return np.asarray(array, np.float32)
