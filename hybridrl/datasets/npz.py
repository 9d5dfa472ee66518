"""NumPy's .npz files that are not to be trusted: nothing is unpickled, and headers are checked against the bytes."""

from __future__ import annotations

import contextlib
import math
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from hybridrl.datasets.checks import check_size
from hybridrl.errors import DatasetError, HybridRLError


class NpzArrays(Mapping[str, np.ndarray]):
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
                check_size(self.path, self._declared)
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
            raise DatasetError(f"{self.path} does not exist; expected an .npz file there") from None
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
