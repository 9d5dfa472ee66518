"""Optional environment packages: imported quietly and late, made reproducible, with an error that names the extra."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import io
import os
import tempfile
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.random import mtrand

from hybridrl.errors import MissingExtraError


def import_extra(package: str, extra: str = "envs") -> Any:
    """A package that the extra of this name brings, imported now.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),  # some print notices on import
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")  # deprecations, and dm_control's complaint that there is no screen
            return importlib.import_module(package)
    except ModuleNotFoundError as error:
        if error.name not in (package, package.partition(".")[0]):
            raise  # it is there and something else is not
        raise MissingExtraError(
            f"this task needs the package {package!r}, which is not installed; "
            f'expected the extra "{extra}"; run: pip install "hybridrl[{extra}]"'
        ) from error


def make_gymnasium(env_id: str, package: str | None = None, **kwargs: Any) -> Any:
    """The environment `env_id` without a time limit or checks of its own; `package` is the one that registers it."""
    import gymnasium

    if package is not None:
        gymnasium.register_envs(import_extra(package))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.filterwarnings("ignore", module="glfw")  # on import, where there is no display
        env = gymnasium.make(env_id, max_episode_steps=-1, disable_env_checker=True, **kwargs)
    _remove_leftover(getattr(env.unwrapped, "tmp_xml_file_path", None) or getattr(env.unwrapped, "fullpath", None))
    return env


def keep_action_space(env: Any) -> None:
    """Give an environment one action space for good, where it makes a new one each time it is asked.

    OGBench's manipulation environments do, and warm up with samples from it: only a space that stays can be seeded.
    """
    kind = type(env)
    if isinstance(inspect.getattr_static(kind, "action_space", None), property):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*precision lowered by casting", UserWarning)
            env.__class__ = type(kind.__name__, (kind,), {"action_space": env.action_space})


@contextlib.contextmanager
def global_generator(bits: np.random.BitGenerator) -> Iterator[None]:
    """Let NumPy's global generator draw from `bits` for the length of the block; the caller's own is not touched."""
    # Exchanging the generator takes microseconds; exchanging its state takes longer than most environments' step.
    outside = mtrand.get_bit_generator()
    mtrand.set_bit_generator(bits)
    try:
        yield
    finally:
        mtrand.set_bit_generator(outside)


def _remove_leftover(model: str | None) -> None:
    """Delete a loaded model in the folder of temporary files: the mazes write theirs there and leave it behind."""
    if model is not None and os.path.realpath(os.path.dirname(model)) == os.path.realpath(tempfile.gettempdir()):
        with contextlib.suppress(OSError):
            os.unlink(model)
