"""One run from its config to its closing table, with an exit code for every way it can end."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
import signal
import threading
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from envs import make_env
from experiments import results
from experiments.config import RunConfig
from experiments.console import RunConsole
from experiments.start_from import start_from
from hybridrl import datasets, disk
from hybridrl.errors import HybridRLError, MissingExtraError
from hybridrl.training.loop import Loop
from hybridrl.training.progress import Stopped

OK, INTERNAL, USER, DATA, PREEMPTED = 0, 1, 2, 3, 75
RESUME = "stopped; run the same command to resume"


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a run ended."""

    code: int
    folder: Path
    message: str = ""


class StopSignals:
    """SIGINT and SIGTERM: while training they ask for a checkpointed end, before it they end the program at once."""

    def __init__(self) -> None:
        self.stopping = False
        self.training = False

    @contextlib.contextmanager
    def installed(self) -> Iterator[StopSignals]:
        """Handle the signals in the block. Only a main thread can."""
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        old = {number: signal.signal(number, self._handle) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield self
        finally:
            for number, handler in old.items():
                signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if not self.training or (self.stopping and number == signal.SIGINT):
            self.stopping = True
            raise KeyboardInterrupt
        self.stopping = True


_signals = StopSignals()  # shared by the jobs of one process: once asked to stop, it starts no further job


def execute(config: RunConfig, command: list[str], console: RunConsole | None = None) -> Outcome:
    """Carry out a run, or take it up where it was left, or show what came of it. Errors are told, never raised."""
    console = console or RunConsole()
    folder = config.folder()
    with _signals.installed():
        try:
            if _signals.stopping:
                raise Stopped
            return _execute(config, command, console)
        except (Stopped, KeyboardInterrupt):
            console.error(RESUME)
            return Outcome(PREEMPTED, folder, RESUME)
        except HybridRLError as error:
            if error.exit_code == INTERNAL:
                results.write_failure(folder, str(error))
            console.error(str(error))
            return Outcome(error.exit_code, folder, str(error))
        except Exception as error:
            message = _keep_traceback(folder, error)
            console.error(message)
            return Outcome(INTERNAL, folder, message)
        finally:
            console.close()


def _execute(config: RunConfig, command: list[str], console: RunConsole) -> Outcome:
    config.check()
    folder, task = config.folder(), config.make_task()
    if results.is_finished(folder):
        console.notice(f"this run is finished; its results are in {folder}")
        console.closing_table(results.load(folder))
        return Outcome(OK, folder)
    phases = config.phases()
    with disk.FolderLock(folder), _log_lines(console):
        console.header(config, task, phases)
        dataset = None
        if task.dataset is not None:
            console.notice(f"loading {task.dataset.id} ...")
            dataset = datasets.load(task, config.loop_settings().discount)
            figures = dataset.summary()
            console.notice(
                f"{figures['rows']:,.0f} rows in {figures['episodes']:,.0f} episodes of mean length "
                f"{figures['mean_episode_length']:.1f} (source: {dataset.source.origin})"
            )
        source_run = start_from(config)
        if source_run is not None:
            console.notice(f"starting where {source_run} ended")
        console.attach(_signals)
        loop = Loop(
            phases,
            task,
            dataset,
            functools.partial(make_env, task),
            folder,
            config.seed,
            config.loop_settings(),
            console,
            None if task.simulator is None else functools.partial(make_env, task, simulator=True),
        )
        source = None if dataset is None else dataclasses.asdict(dataset.source) | dataset.summary()
        results.write_start(config, command, source, source_run)
        console.begin(phases, loop.progress)
        _signals.training = True
        try:
            loop.run()
        finally:
            _signals.training = False
        console.end_progress()
        console.notice(_draw_curve(folder, task.score_label))
        results.write_result(config, task.score_label)
    console.closing_table(results.load(folder))
    return Outcome(OK, folder)


def _draw_curve(folder: Path, score_label: str) -> str:
    """Draw the learning curve; a run without matplotlib is no less finished."""
    try:
        from experiments.curve import draw
    except MissingExtraError as error:
        return f"no {results.CURVE}: {error}"
    path = draw(results.load_completed(folder, score_label), folder / results.CURVE)
    return f"drew {path}"


def _keep_traceback(folder: Path, error: Exception) -> str:
    """Store the traceback in the run folder, or beside the working folder's name if there is none, and say where."""
    summary = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}"
    text = "".join(traceback.format_exception(error))
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / results.ERROR).write_text(text)
        results.write_failure(folder, summary)
        return f"internal error: {summary}; the traceback is in {folder / results.ERROR}"
    return f"internal error: {summary}\n{text}"


@contextlib.contextmanager
def _log_lines(console: RunConsole) -> Iterator[None]:
    """Show what the library logs (datasets being made, mostly) on the console."""

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            console.notice(self.format(record))

    log, handler = logging.getLogger("hybridrl"), Handler()
    level, propagate = log.level, log.propagate
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False  # other packages give the root logger handlers, which would show each line again
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(level)
        log.propagate = propagate


def describe_command(arguments: list[str]) -> list[str]:
    """The command line that starts this run, for its provenance."""
    return ["python", "-m", "experiments.run", *arguments]
