"""Imports of optional packages: quiet, late, and with an error that names the extra."""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import warnings
from typing import Any

from hybridrl.errors import MissingExtraError


def import_envs(package: str) -> Any:
    """An optional environment package, imported now.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):  # one prints a notice on import
            warnings.simplefilter("ignore", DeprecationWarning)
            return importlib.import_module(package)
    except ModuleNotFoundError as error:
        if error.name != package.partition(".")[0]:
            raise  # it is there and something else is not
        raise MissingExtraError(
            f"this task needs the package {package!r}, which is not installed; "
            'expected the extra "envs"; run: pip install "hybridrl[envs]"'
        ) from error


def make_gymnasium(env_id: str, package: str | None = None, **kwargs: Any) -> Any:
    """The environment `env_id` without a time limit or checks of its own; `package` is the one that registers it."""
    import gymnasium

    if package is not None:
        gymnasium.register_envs(import_envs(package))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        env = gymnasium.make(env_id, max_episode_steps=-1, disable_env_checker=True, **kwargs)
    # The mazes write their model to a temporary file, load it, and leave it behind.
    leftover = getattr(env.unwrapped, "tmp_xml_file_path", None) or (
        getattr(env.unwrapped, "fullpath", None) if package == "ogbench" else None
    )
    if leftover and os.path.dirname(leftover) != os.path.dirname(importlib.import_module("mujoco").__file__ or ""):
        with contextlib.suppress(OSError):
            os.unlink(leftover)
    return env
