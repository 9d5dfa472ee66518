"""Files of several published formats -> `Steps`. Files are taken as hostile: sizes are read from their headers before
memory is allocated, nothing is unpickled, no link is followed, and no environment is made from what a file says."""

from __future__ import annotations

import contextlib
import math
import os
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
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
            root, episodes, declared = _Group(path, file.id), [], 0
            names = [name for name in root.names() if name.startswith("episode_") and name[8:].isdigit()]
            if not names:
                raise DatasetError(f"{path} holds no group 'episode_<number>'; expected a Minari dataset; get it again")
            for name in sorted(names, key=lambda name: int(name[8:])):
                group = root.group_at(name)
                if group is None:
                    raise DatasetError(f"{root.where(name)} is an array; expected an episode; get the dataset again")
                arrays = _arrays(group, task)
                declared += sum(array.nbytes for array in arrays.values())
                _check_size(path, declared)
                episodes.append(_read_episode(group, arrays, task))
            _check_totals(path, len(episodes), sum(len(episode["rewards"]) for episode in episodes))
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


def minari_infos(folder: Path | str) -> tuple[str, ...]:
    """The names of the infos that a Minari dataset's first episode recorded.

    Raises:
        DatasetError: the file is missing or damaged.
    """
    path = Path(folder) / _MINARI_FILE
    try:
        with h5py.File(path, "r", locking="best-effort") as file:
            episode = _Group(path, file.id).group_at("episode_0")
            infos = episode.group_at("infos") if episode is not None else None
            return tuple(infos.names()) if infos is not None else ()
    except FileNotFoundError:
        raise DatasetError(f"{path} does not exist; expected a Minari dataset in HDF5 there{_hint(path)}") from None
    except OSError as error:
        raise DatasetError(
            f"{path} is not a readable HDF5 file ({error}); delete its folder and get it again"
        ) from error


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
    arrays = _NpzArrays(path, required=("observations", "actions", "terminals"))
    rows_of = _images if task.pixels else _matrix
    observations = rows_of(f"{path}: 'observations'", arrays["observations"])
    actions = _matrix(f"{path}: 'actions'", arrays["actions"])
    rows = len(observations)
    terminals = _column(f"{path}: 'terminals'", arrays["terminals"], rows, _FLAGS)
    if len(actions) != rows:
        raise DatasetError(f"{path}: 'actions' has {len(actions)} rows, 'observations' has {rows}; get the file again")
    if not np.isin(terminals, (0, 1)).all():
        raise DatasetError(f"{path}: 'terminals' has entries other than 0 and 1; expected flags; get the file again")
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
    rewards = _column(f"{path}: 'rewards'", rewards, rows, _NUMBERS)
    successes = _column(f"{path}: 'successes'", successes, rows, _FLAGS)
    goals = None
    if spec is not None and spec.represent is not None:
        goals = _matrix(f"{path}: 'goal_representations'", spec.represent(arrays), _NUMBERS)
        if len(goals) != rows:
            raise DatasetError(f"{path}: {len(goals)} goal representations for {rows} rows; get the file again")
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
        goal_representations=None if goals is None else goals[kept],
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
    """An HDF5 group that gives its own members only: no soft, external or virtual links, no foreign storage.

    It stands on h5py's low-level calls, which open an array several times faster; files have 10,000s of them.
    """

    def __init__(self, path: Path, group: h5py.h5g.GroupID, name: str = "") -> None:
        self.path, self.group, self.name = path, group, name

    def names(self) -> list[str]:
        return [name.decode(errors="replace") for name in self.group]

    def where(self, name: str) -> str:
        return f"{self.path}: {self.name}{name}"

    def get(self, name: str) -> _Group | _Array | None:
        """The member of this name, or None if there is none."""
        raw = name.encode()
        if not self.group.links.exists(raw):
            return None
        if self.group.links.get_info(raw).type != h5py.h5l.TYPE_HARD:
            raise DatasetError(
                f"{self.where(name)} is a link; expected data in the file itself; do not trust this file"
            )
        member = h5py.h5o.open(self.group, raw)
        if isinstance(member, h5py.h5g.GroupID):
            return _Group(self.path, member, f"{self.name}{name}/")
        if not isinstance(member, h5py.h5d.DatasetID):
            raise DatasetError(f"{self.where(name)} is neither array nor group; get the dataset again")
        return _Array(self.where(name), member)

    def group_at(self, name: str) -> _Group | None:
        member = self.get(name)
        return member if isinstance(member, _Group) else None

    def array(self, name: str) -> _Array:
        member = self.get(name)
        if member is None:
            raise DatasetError(f"{self.where(name)} is missing; found {sorted(self.names())}; get the dataset again")
        if isinstance(member, _Group):
            raise DatasetError(f"{self.where(name)} is a group; expected an array; get the dataset again")
        return member


class _Array:
    """An HDF5 array of numbers, not read yet."""

    def __init__(self, where: str, array: h5py.h5d.DatasetID) -> None:
        layout = array.get_create_plist()
        if layout.get_layout() == h5py.h5d.VIRTUAL or layout.get_external_count():
            raise DatasetError(f"{where} is stored in other files; expected data in the file itself; do not trust it")
        self.where, self.array, self.dtype, self.shape = where, array, array.dtype, array.shape
        if self.dtype.kind not in _NUMBERS:
            raise DatasetError(f"{where} has dtype {self.dtype}; expected numbers; get the dataset again")
        if self.shape is None:
            raise DatasetError(f"{where} is empty; expected an array; get the dataset again")

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    def read(self) -> np.ndarray:
        content = np.empty(self.shape, self.dtype)
        if content.size:
            self.array.read(h5py.h5s.ALL, h5py.h5s.ALL, content)
        return content


def _arrays(episode: _Group, task: Task) -> dict[str, _Array]:
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


def _nested(group: _Group, key: str) -> _Array:
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


def _read_episode(episode: _Group, arrays: dict[str, _Array], task: Task) -> dict[str, np.ndarray]:
    """One episode's fields of `Steps`."""
    parts = {
        name: _matrix(array.where, array.read(), _NUMBERS)
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
    actions = _matrix(arrays["actions"].where, arrays["actions"].read())
    actions = _rescaled(arrays["actions"].where, actions, task)
    steps = len(actions)
    if len(observations) != steps + 1:
        raise DatasetError(
            f"{episode.where('observations')} has {len(observations)} rows and 'actions' has {steps}; "
            "expected one observation more than actions; get the dataset again"
        )

    def column(name: str, kinds: str) -> np.ndarray:
        content = arrays[name].read()
        if name == "successes" and len(content) == steps + 1:  # the first came with the reset
            content = content[1:]
        return _column(arrays[name].where, content, steps, kinds)

    rewards = column("rewards", _NUMBERS)
    ends = column("truncations", _FLAGS).astype(bool)
    ends[-1:] = True
    if "successes" in arrays:
        successes = column("successes", _FLAGS).astype(bool)
    else:
        successes = rewards > 0 if task.success_key == "reward" else np.zeros(steps, bool)
    return {
        "observations": observations[:-1],
        "actions": actions,
        "rewards": _float32(rewards),
        "terminations": column("terminations", _FLAGS).astype(bool),
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


class _NpzArrays(Mapping[str, np.ndarray]):
    """The arrays of an .npz file by name, each read when it is first asked for and kept.

    An array's header is checked before anything is allocated, and the sizes of all that were read are added up.
    """

    def __init__(self, path: Path, required: tuple[str, ...]) -> None:
        self.path = path
        self._declared = 0
        self._read: dict[str, np.ndarray] = {}
        with self._open() as archive:
            members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        self._members = {name: info for name, info in members.items() if info.filename.endswith(".npy")}
        self._require(required)

    def __contains__(self, name: object) -> bool:
        return name in self._members

    def __iter__(self) -> Iterator[str]:
        return iter(self._members)

    def __len__(self) -> int:
        return len(self._members)

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self._read:
            self._require((name,))
            with self._open() as archive:
                self._declared += _declared_npy_bytes(self.path, archive, self._members[name])
                _check_size(self.path, self._declared)
                with archive.open(self._members[name]) as file:
                    self._read[name] = np.lib.format.read_array(file, allow_pickle=False)
                    file.read(1)  # past the end, where the checksum is compared
        return self._read[name]

    def _require(self, names: tuple[str, ...]) -> None:
        missing = [name for name in names if name not in self._members]
        if missing:
            raise DatasetError(f"{self.path} lacks {missing}; it holds {sorted(self)}; get the file again")

    @contextlib.contextmanager
    def _open(self) -> Iterator[zipfile.ZipFile]:
        try:
            with zipfile.ZipFile(self.path) as archive:
                yield archive
        except FileNotFoundError:
            raise DatasetError(f"{self.path} does not exist; expected an OGBench .npz file there") from None
        except HybridRLError:
            raise
        except (zipfile.BadZipFile, ValueError, EOFError, OSError, RuntimeError, zlib.error) as error:
            raise DatasetError(
                f"{self.path} is not a readable .npz file ({error}); delete its folder and get it again"
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
    declared = math.prod(shape) * dtype.itemsize
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


def _matrix(where: str, array: Any, kinds: str = _FLOATS) -> np.ndarray:
    """A float32 `(rows, width)` array; where integers are taken, so is a plain row, as one of width 1."""
    array = np.asarray(array)
    if array.dtype.kind not in kinds:
        raise DatasetError(f"{where} has dtype {array.dtype}; expected floating-point numbers; get the dataset again")
    if array.ndim == 1 and kinds != _FLOATS:
        array = array[:, None]
    if array.ndim != 2:
        raise DatasetError(f"{where} has shape {array.shape}; expected (rows, width); get the dataset again")
    return _float32(array)


def _images(where: str, array: Any) -> np.ndarray:
    """A uint8 `(rows, height, width, channels)` array."""
    array = np.asarray(array)
    if array.dtype != np.uint8 or array.ndim != 4:
        raise DatasetError(
            f"{where} has shape {array.shape} and dtype {array.dtype}; expected uint8 (rows, height, width, channels); "
            "get the dataset again"
        )
    return array


def _column(where: str, array: Any, rows: int, kinds: str) -> np.ndarray:
    """An array of `rows` numbers; one of shape `(rows, 1)` is taken too."""
    array = np.asarray(array)
    if array.shape == (rows, 1):
        array = array[:, 0]
    if array.dtype.kind not in kinds or array.shape != (rows,):
        raise DatasetError(f"{where} has shape {array.shape} and dtype {array.dtype}; expected {rows} numbers")
    return array


def _float32(array: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):  # what does not fit becomes infinite, and infinities are refused with their row
        return np.asarray(array, np.float32)
