"""Many runs by one command. A launcher of Hydra's carries them: in series, on all cores, or on a cluster.

A sweep is only a list of runs, each with its own folder; so a killed sweep is finished by the same command.
"""

from __future__ import annotations

import contextlib
import functools
import os
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from hydra._internal.callbacks import Callbacks
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path
from hydra.core.global_hydra import GlobalHydra
from hydra.core.plugins import Plugins
from hydra.types import HydraContext, RunMode
from rich.console import Console
from rich.table import Table

from experiments import results, runner
from experiments.config import RunConfig, from_hydra, register
from experiments.console import RunConsole
from experiments.overrides import DEFAULTS

_ENDINGS = {
    runner.OK: "finished",
    runner.INTERNAL: "failed",
    runner.USER: "refused",
    runner.DATA: "no data",
    runner.PREEMPTED: "stopped",
}


def sweep(configs: Sequence[RunConfig], jobs: Sequence[list[str]], launch: list[str], command: list[str]) -> int:
    """Carry out all jobs, show a table of how they ended, and return 0 if all finished, 75 if stopped, else 1.

    Args:
        configs: of the jobs, checked.
        jobs: their overrides with full names.
        launch: overrides of Hydra's launcher.
    """
    side_by_side = any(text.startswith("hydra/launcher=") and not text.endswith("=basic") for text in launch)
    job = functools.partial(_job, command=command, side_by_side=side_by_side)
    with _passing_signals_on():
        outcomes = _launch(job, jobs, launch)
    Console(highlight=False, width=130).print(_table(configs, outcomes))
    codes = [outcome["code"] for outcome in outcomes]
    if all(code == runner.OK for code in codes):
        return runner.OK
    failed = [code for code in codes if code not in (runner.OK, runner.PREEMPTED)]
    return runner.INTERNAL if failed else runner.PREEMPTED


def _job(config: Any, command: list[str], side_by_side: bool) -> dict[str, Any]:
    """One run of a sweep, possibly in another process; says how it ended and raises nothing."""
    run = from_hydra(config)
    prefix = f"[{run.algo} {run.task} seed {run.seed}] " if side_by_side else ""
    outcome = runner.execute(run, command, RunConsole(prefix=prefix, quiet=side_by_side))
    return {"code": outcome.code, "message": outcome.message}


def _launch(job: Any, jobs: Sequence[list[str]], launch: list[str]) -> list[dict[str, Any]]:
    """Hand the jobs to the launcher. `hydra.main` would drop what they return and stop at the first failure."""
    GlobalHydra.instance().clear()
    register(**DEFAULTS)  # the launcher's own config has the default choices
    hydra = Hydra.create_main_hydra2(task_name="run", config_search_path=create_config_search_path(None))
    try:
        config = hydra.compose_config(
            config_name="run", overrides=launch, run_mode=RunMode.MULTIRUN, with_log_configuration=False
        )
        context = HydraContext(config_loader=hydra.config_loader, callbacks=Callbacks(config))
        launcher = Plugins.instance().instantiate_launcher(hydra_context=context, task_function=job, config=config)
        returned = launcher.launch([list(overrides) for overrides in jobs], initial_job_idx=0)
    finally:
        GlobalHydra.instance().clear()
    outcomes = []
    for job_return in returned:
        value = job_return._return_value  # the property raises where the job did
        failed = {"code": runner.INTERNAL, "message": f"{type(value).__name__}: {value}"}
        outcomes.append(value if isinstance(value, dict) else failed)
    return outcomes


@contextlib.contextmanager
def _passing_signals_on() -> Iterator[None]:
    """SIGTERM to this process reaches the workers, which then end their runs with a checkpoint."""

    def forward(number: int, frame: FrameType | None) -> None:
        for child in _children():
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGTERM)

    old = {number: signal.signal(number, forward) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


def _children() -> list[int]:
    """Child processes, where the system lists them."""
    found: list[int] = []
    for path in Path("/proc/self/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found += [int(number) for number in path.read_text().split()]
    return found


def _table(configs: Sequence[RunConfig], outcomes: Sequence[dict[str, Any]]) -> Table:
    table = Table(title="all runs of this sweep", title_justify="left", title_style="bold")
    for column in ("algo", "task", "seed", "ended", "score", "folder, or what went wrong"):
        table.add_column(column, justify="right" if column in ("seed", "score") else "left", overflow="fold")
    for config, outcome in zip(configs, outcomes, strict=True):
        score = ""
        folder = config.folder()
        if outcome["code"] == runner.OK:
            score = f"{results.load(folder).result['scores']['final']:.1f}"
        last = str(folder) if outcome["code"] == runner.OK else outcome["message"]
        ending = _ENDINGS.get(outcome["code"], "failed")
        table.add_row(config.algo, config.task, str(config.seed), ending, score, last)
    return table
