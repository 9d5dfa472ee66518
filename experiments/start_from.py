"""Begin a run where a finished one ended, instead of repeating the phases that both have in common."""

from __future__ import annotations

import shutil
from pathlib import Path

from experiments import results
from experiments.config import RunConfig, from_values
from hybridrl import disk
from hybridrl.checkpoint import Checkpoints
from hybridrl.errors import ConfigError
from hybridrl.logger import LOGS

CHECKPOINTS = "checkpoints"


def start_from(config: RunConfig) -> Path | None:
    """Put the end of the run `config.start_from` into the folder of `config`, which then resumes there.

    The source must be the beginning of this run: the same task, seed and loop settings, and phases that are this run's
    first ones. Since randomness depends on seed, phase and step alone, the result is that of a run from scratch.
    Nothing happens in a folder that has a checkpoint already.

    Returns:
        The run folder it started from, or None if there was nothing to do.

    Raises:
        ConfigError: there is no such run, it is not finished, or it is not the beginning of this one.
    """
    folder = config.folder()
    if not config.start_from or Checkpoints(folder / CHECKPOINTS).steps():
        return None
    source = Path(config.start_from)
    if not (source / results.CONFIG).is_file():
        source = source / f"seed_{config.seed}"  # given the folder of all seeds
    run = results.load(source)
    _check(config, run)
    step = Checkpoints(source / CHECKPOINTS).steps()[-1]
    name = f"step_{step:010d}"
    disk.verify_folder(source / CHECKPOINTS / name)
    folder.mkdir(parents=True, exist_ok=True)
    for log in LOGS:
        shutil.copyfile(source / log, folder / log)
    with disk.atomic_folder(folder / CHECKPOINTS / name) as temporary:  # last: with it the run counts as begun
        shutil.copytree(source / CHECKPOINTS / name, temporary, dirs_exist_ok=True)
    return source


def _check(config: RunConfig, run: results.Run) -> None:
    """Raise ConfigError unless `run` is the beginning of the run of `config`."""
    given = f"start_from={config.start_from}"
    if not run.finished:
        raise ConfigError(f"{given}: the run in {run.folder} is not finished; finish it first by its own command")
    source = from_values(run.config)
    for name in ("task", "seed", "loop"):
        theirs, ours = getattr(source, name), getattr(config, name)
        if theirs != ours:
            raise ConfigError(f"{given}: its {name} is {theirs}, this run's is {ours}; expected the same")
    theirs, ours = source.phases(), config.phases()
    if ours[: len(theirs)] != theirs or len(ours) == len(theirs):
        first = next((i for i, pair in enumerate(zip(theirs, ours, strict=False)) if pair[0] != pair[1]), len(ours))
        difference = (
            f"phase {theirs[first].name!r} is\n  {theirs[first]}\nthere and here\n  {ours[first]}"
            if first < min(len(theirs), len(ours))
            else f"it has {len(theirs)} phases and this run {len(ours)}"
        )
        raise ConfigError(f"{given}: that run is not the beginning of this one: {difference}")
