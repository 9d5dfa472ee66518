"""Checkpoints: everything a run needs to go on, verified before it is believed."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from hybridrl import disk
from hybridrl.errors import ConfigError

_STATE, _TREE, _PROGRESS = "state", "tree.json", "progress.json"


class Checkpoints:
    """The checkpoints of one run, in folders `step_<number>` of which the newest `keep` remain.

    Orbax stores the pytree; the folder appears under its name only when complete, with a hash of every file.
    """

    def __init__(self, folder: Path, keep: int = 2) -> None:
        self._folder = folder
        self._keep = keep

    def save(self, step: int, state: Any, progress: dict[str, Any]) -> None:
        """Store the pytree `state` and the JSON-able `progress` as the checkpoint of `step`, then drop old ones."""
        self._folder.mkdir(parents=True, exist_ok=True)
        disk.clean_temporaries(self._folder)
        with disk.atomic_folder(self._path(step), replace=True) as temporary:
            checkpointer = ocp.StandardCheckpointer()
            checkpointer.save((temporary / _STATE).absolute(), state)
            checkpointer.wait_until_finished()
            checkpointer.close()
            disk.write_json(temporary / _TREE, _describe(state))
            disk.write_json(temporary / _PROGRESS, progress)
        for old in self.steps()[: -self._keep]:
            shutil.rmtree(self._path(old))

    def steps(self) -> list[int]:
        """The steps that have a checkpoint, in increasing order."""
        if not self._folder.is_dir():
            return []
        names = [path.name for path in self._folder.iterdir() if path.name.startswith("step_")]
        return sorted(int(name.removeprefix("step_")) for name in names)

    def progress(self, step: int) -> dict[str, Any]:
        """What was stored beside the state, after the checkpoint's hashes have been compared."""
        disk.verify_folder(self._path(step))
        return disk.read_json(self._path(step) / _PROGRESS)

    def restore(self, step: int, template: Any) -> Any:
        """The stored pytree, in the structure of `template` (arrays or their shapes).

        Raises:
            CorruptError: a file does not have the hash it was stored with.
            ConfigError: the stored tree has another structure, shape or dtype than the template.
        """
        path = self._path(step)
        disk.verify_folder(path)
        stored, expected = disk.read_json(path / _TREE), _describe(template)
        if stored != expected:
            differing = sorted(
                name for name in stored.keys() | expected.keys() if stored.get(name) != expected.get(name)
            )
            name = differing[0]
            raise ConfigError(
                f"checkpoint {path} does not fit this run: {name} is {stored.get(name, 'absent')} there and "
                f"{expected.get(name, 'absent')} here ({len(differing)} such entries); "
                "resume with the settings it was made with, or use another run folder"
            )
        sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
        abstract = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), template)
        checkpointer = ocp.StandardCheckpointer()
        state = checkpointer.restore((path / _STATE).absolute(), abstract)
        checkpointer.close()
        return state

    def _path(self, step: int) -> Path:
        return self._folder / f"step_{step:010d}"


def _describe(tree: Any) -> dict[str, str]:
    """Path of each leaf -> its shape and dtype."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path): f"{tuple(leaf.shape)} {leaf.dtype}" for path, leaf in leaves}
