"""HDF5 files that are not to be trusted: sizes come from headers, and nothing outside the file is ever opened."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np

from hybridrl.datasets.checks import NUMBERS
from hybridrl.errors import DatasetError, HybridRLError


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Group]:
    """The root group of a file.

    Raises:
        DatasetError: the file cannot be opened, or is found to be damaged inside the block.
    """
    try:
        with h5py.File(path, "r", locking="best-effort") as file:
            yield Group(path, file.id)
    except HybridRLError:
        raise
    except (OSError, KeyError, RuntimeError, ValueError) as error:  # h5py's errors for damaged files
        raise DatasetError(
            f"{path} is not a readable HDF5 file ({error}); delete its folder and get it again"
        ) from error


class Group:
    """An HDF5 group that gives its own members only: no soft or external links, no storage in other files.

    It stands on h5py's low-level calls, which open an array several times faster; files have 10,000s of them.
    """

    def __init__(self, path: Path, group: h5py.h5g.GroupID, name: str = "", root: Group | None = None) -> None:
        self.path, self.group, self.name = path, group, name
        self.root = self if root is None else root

    def names(self) -> list[str]:
        """The members' names."""
        return [name.decode(errors="replace") for name in self.group]

    def where(self, name: str) -> str:
        """A member's place, for error messages."""
        return f"{self.path}: {self.name}{name}"

    def get(self, name: str) -> Group | Array | None:
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
            return Group(self.path, member, f"{self.name}{name}/", self.root)
        if not isinstance(member, h5py.h5d.DatasetID):
            raise DatasetError(f"{self.where(name)} is neither array nor group; get the dataset again")
        return Array(self.where(name), member, self.root)

    def group_at(self, name: str) -> Group | None:
        """The member of this name, or None if there is none or it is an array."""
        member = self.get(name)
        return member if isinstance(member, Group) else None

    def array(self, name: str) -> Array:
        """The array of this name; an error if there is none."""
        member = self.get(name)
        if member is None:
            raise DatasetError(f"{self.where(name)} is missing; found {sorted(self.names())}; get the dataset again")
        if isinstance(member, Group):
            raise DatasetError(f"{self.where(name)} is a group; expected an array; get the dataset again")
        return member


class Array:
    """An HDF5 array of numbers, not read yet.

    A virtual array, which shows pieces of others as one, is taken if those others are in the same file.
    """

    def __init__(self, where: str, array: h5py.h5d.DatasetID, root: Group) -> None:
        layout = array.get_create_plist()
        virtual = layout.get_layout() == h5py.h5d.VIRTUAL
        if layout.get_external_count() or (virtual and not _within(layout, root)):
            raise DatasetError(f"{where} is stored in other files; expected data in the file itself; do not trust it")
        self.where, self.array, self.dtype, self.shape = where, array, array.dtype, array.shape
        if self.dtype.kind not in NUMBERS:
            raise DatasetError(f"{where} has dtype {self.dtype}; expected numbers; get the dataset again")
        if self.shape is None:
            raise DatasetError(f"{where} is empty; expected an array; get the dataset again")

    @property
    def nbytes(self) -> int:
        """What reading it will take."""
        return math.prod(self.shape) * self.dtype.itemsize

    def read(self) -> np.ndarray:
        """Its content, in the dtype it is stored in."""
        content = np.empty(self.shape, self.dtype)
        if content.size:
            self.array.read(h5py.h5s.ALL, h5py.h5s.ALL, content)
        return content


def _within(layout: h5py.h5p.PropDCID, root: Group) -> bool:
    """Whether a virtual array is made of arrays of this file, reached without any link."""
    for index in range(layout.get_virtual_count()):
        if layout.get_virtual_filename(index) != ".":
            return False
        *folders, name = layout.get_virtual_dsetname(index).strip("/").split("/")
        group: Group | None = root
        for folder in folders:
            group = group.group_at(folder) if group is not None else None
        source = group.get(name) if group is not None else None
        if not isinstance(source, Array):  # which has passed this very check
            return False
    return True
