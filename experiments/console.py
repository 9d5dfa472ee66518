"""What a run shows: a header, progress with speed and time left, evaluations, and a closing table."""

from __future__ import annotations

import dataclasses
import statistics
import time
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
from rich.table import Table
from rich.text import Text

from experiments import presets
from experiments.config import RunConfig
from experiments.results import CURVE, Run
from experiments.units import duration
from hybridrl.task import Task as RLTask
from hybridrl.training.phases import Phase

_PLAIN_SECONDS = 5.0  # between lines of progress where there is no terminal
_STAGES = {
    "before": "after offline",
    "switch": "after warm-up",
    "after": "just after switch",
    "end": "at the end",
}
_PANEL = {
    "offline_q_minus_return": "Q − MC return, offline data",
    "online_q_minus_return": "Q − MC return, online data",
    "offline_td_error": "TD error², offline data",
    "online_td_error": "TD error², online data",
    "offline_share": "offline share of batch",
    "critic_grad_norm": "gradient norm, critic",
    "actor_grad_norm": "gradient norm, actor",
}


class Stopping(Protocol):
    """Knows whether the user or the machine wants the run to end."""

    stopping: bool


class RunConsole:
    """The watcher of a run that talks to a terminal, or line by line to a file.

    Args:
        prefix: goes before each line, to tell the jobs of a sweep apart; a prefixed console draws no bars.
        quiet: no header, no progress and no closing table: what jobs that run side by side show.
    """

    def __init__(self, prefix: str = "", quiet: bool = False) -> None:
        out = Console(highlight=False, soft_wrap=True)
        width = max(out.width, 100) if out.is_terminal else 110
        self._out = Console(highlight=False, width=width)
        self._errors = Console(highlight=False, stderr=True, soft_wrap=True, markup=False)
        self._prefix, self._quiet = prefix, quiet
        self._bars: Progress | None = None
        self._bar_of: dict[str, Any] = {}
        self._last_line = -1e9
        self._rates: dict[str, list[float]] = {}
        self._signals: Stopping | None = None

    def header(self, config: RunConfig, task: RLTask, phases: tuple[Phase, ...]) -> None:
        """What is about to be run, and what scale=cpu changed."""
        if self._quiet:
            return
        self.notice(f"hybridrl  algo={config.algo}  task={config.task}  seed={config.seed}  scale={config.scale}")
        self.notice("  " + scale_note(config, task))
        if task.simulator is not None:
            self.notice("  online phases interact with the task's simulator; evaluation is in its real environment")
        for phase in phases:
            unit = "updates" if phase.offline else "environment steps"
            details = []
            if phase.batches == "rollouts":
                details.append(f"1 agent update per {phase.num_envs} x {phase.rollout_steps} steps")
                if phase.offline_rows:
                    each = " of each time step" if phase.offline_by_step else ""
                    details.append(f"with {phase.offline_rows} offline rows{each}")
            elif phase.updates_per_step:
                every = "step" if phase.update_every == 1 else f"{phase.update_every:,} steps"
                rows = {
                    "mixed": f"{phase.batch_size}",
                    "separate": f"{phase.batch_size} + {phase.batch_size}",
                    "blocks": f"{phase.block_length} x {phase.batch_size}",
                }[phase.batches]
                details.append(f"{phase.updates_per_step} agent update(s) of {rows} rows per {every}")
            elif not phase.offline:
                details.append(f"nothing trained, {phase.actions} actions")
            else:
                each = " of each time step" if phase.offline_by_step else ""
                details.append(f"{phase.batch_size} rows{each} each")
            if phase.offline_ratio:
                details.append(f"{phase.offline_ratio:.0%} offline rows")
            learner = phase.learner.agent_class.__name__
            self.notice(f"  {phase.name:<8} {phase.length:>9,} {unit:<17} {learner}; {', '.join(details)}")
        self.notice(f"  files in {config.folder()}")

    def notice(self, text: str) -> None:
        """One line."""
        self._out.print(self._prefix + text, markup=False, soft_wrap=True)

    def error(self, text: str) -> None:
        """One message on the error stream."""
        self._stop_bars()
        self._errors.print(f"{self._prefix}{text}")

    def attach(self, signals: Stopping) -> None:
        """Ask `signals` whether to stop."""
        self._signals = signals

    def begin(self, phases: tuple[Phase, ...], done: Any) -> None:
        """Show a bar per phase, where there is a terminal; `done` is the loop's progress, above 0 on a resumed run."""
        if done.step:
            self.notice(f"resuming at step {done.step:,}")
        if self._quiet or self._prefix or not self._out.is_terminal:
            return
        columns = (TextColumn("{task.description:<8}"), BarColumn(bar_width=32), _Figures())
        self._bars = Progress(*columns, console=self._out)
        for index, phase in enumerate(phases):
            completed = phase.length if index < done.phase else done.done if index == done.phase else 0
            unit = "updates" if phase.offline else "steps"
            self._bar_of[phase.name] = self._bars.add_task(
                phase.name, total=phase.length, completed=completed, unit=unit
            )
        self._bars.start()

    def progress(self, phase: Phase, done: int, rate: float) -> None:
        """Move the phase's bar, or print a line now and then."""
        # The first rate of a phase is mostly the time to compile: nothing is told from it. The median forgets others.
        recent = self._rates.setdefault(phase.name, [])
        recent.append(rate)
        left = (phase.length - done) / max(statistics.median(recent[1:][-5:]), 1e-9) if len(recent) > 1 else -1.0
        if self._bars is not None:
            self._bars.update(self._bar_of[phase.name], completed=done, rate=rate, left=left)
            return
        now, complete = time.monotonic(), done >= phase.length
        spacing = 12 * _PLAIN_SECONDS if self._quiet else _PLAIN_SECONDS
        if not complete and now - self._last_line < spacing:
            return
        self._last_line = now
        filled = int(20 * done / phase.length)
        bar = "#" * filled + "." * (20 - filled)
        unit = "updates" if phase.offline else "steps"
        self.notice(f"{phase.name:<8} [{bar}] {_figures(done, phase.length, rate, left, unit)}")

    def evaluated(self, record: dict[str, Any]) -> None:
        """One line per evaluation."""
        if self._quiet:
            return
        summary = record["summary"]
        where = f"update {record['phase_step']:,}" if record["phase"] == "offline" else f"step {record['env_steps']:,}"
        self.notice(
            f"{record['phase']:<8} {where:<16} score {summary['score']:6.1f}   "
            f"return {summary['return']:9.2f}   episode length {summary['length']:7.1f}"
        )

    def should_stop(self) -> bool:
        """Whether a signal came."""
        return self._signals is not None and self._signals.stopping

    def end_progress(self) -> None:
        """Leave the bars as they are."""
        self._stop_bars()

    def close(self) -> None:
        """Give the terminal back."""
        self._stop_bars()

    def closing_table(self, run: Run) -> None:
        """Scores, the dip, the switch panel, speeds, and where the files are."""
        if self._quiet:
            self.notice(f"finished: score {run.result['scores']['final']:.1f}; files in {run.folder}")
            return
        for table in closing_tables(run):
            self._out.print(table)
        for line in file_lines(run.folder):
            self.notice(line)

    def _stop_bars(self) -> None:
        if self._bars is not None:
            self._bars.stop()
            self._bars = None


class _Figures(ProgressColumn):
    """Share done, count, speed and time left."""

    def render(self, task: Task) -> Text:
        """The text of one bar."""
        rate = task.fields.get("rate")
        done, total = int(task.completed), int(task.total or 0)
        if rate is None and done < total:
            return Text(f"{done / max(total, 1):4.0%}  {done:,}/{total:,} {task.fields['unit']}")
        return Text(_figures(done, total, rate or 0.0, task.fields.get("left", -1.0), task.fields["unit"]))


def _figures(done: int, total: int, rate: float, left: float, unit: str) -> str:
    remaining = "" if left < 0 else f"  {duration(left)} left"
    speed = "" if rate <= 0 else f"  {rate:,.0f} {unit}/s"
    return f"{done / max(total, 1):4.0%}  {done:,}/{total:,} {unit}{speed}{remaining}"


def scale_note(config: RunConfig, task: RLTask) -> str:
    """What scale=cpu changed of the published settings, found by comparing the two presets."""
    if config.scale == "paper":
        return "scale=paper: published budgets and widths"
    module = presets.module(config.algo)
    published, small = (_flat(module.preset(task, scale)) for scale in ("paper", "cpu"))
    changes = [f"{_words(name)} {_show(published[name])} -> {_show(small[name])}" for name in small
               if small[name] != published[name]]  # fmt: skip
    if not changes:
        return "scale=cpu: the same as scale=paper, as this task is small"
    return f"scale=cpu: the published algorithm with smaller numbers: {'; '.join(changes)}"


def _flat(config: Any, prefix: str = "") -> dict[str, Any]:
    values: dict[str, Any] = {}
    for field in dataclasses.fields(config):
        value, name = getattr(config, field.name), f"{prefix}{field.name}"
        values |= _flat(value, f"{name}.") if dataclasses.is_dataclass(value) else {name: value}
    return values


def _words(name: str) -> str:
    return name.rpartition(".")[2].replace("_dims", " widths").replace("_", " ")


def _show(value: Any) -> str:
    if isinstance(value, tuple) and len(set(value)) == 1:
        return f"{value[0]}x{len(value)}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def closing_tables(run: Run) -> list[Table]:
    """The switch panel stage by stage, and the run's figures."""
    result = run.result
    label = result["score_label"]
    title = f"{run.config['algo']} on {run.config['task']}, seed {run.config['seed']}"
    panel = Table(title=title, title_justify="left", title_style="bold")
    panel.add_column("")
    stages = [stage for stage in _STAGES if stage in result["panel"]]
    for stage in stages:
        panel.add_column(_STAGES[stage], justify="right")
    panel.add_row("environment steps", *(f"{result['panel'][stage]['env_steps']:,}" for stage in stages))
    panel.add_row(label, *(f"{result['panel'][stage]['score']:.1f}" for stage in stages), style="bold")
    for key, name in _PANEL.items():
        row = [result["panel"][stage].get(key) for stage in stages]
        if any(value is not None for value in row):
            shown = ("–" if value is None else f"{value:.0%}" if key == "offline_share" else f"{value:,.3g}"
                     for value in row)  # fmt: skip
            panel.add_row(name, *shown)
    figures = Table(show_header=False)
    figures.add_column("")
    figures.add_column("", justify="right")
    scores, switch = result["scores"], result["switch"]
    if scores["after_offline"] is not None:
        figures.add_row(f"{label} after offline training", f"{scores['after_offline']:.1f}")
    if switch is not None:
        figures.add_row(f"{label} just after the switch", f"{scores['after_switch']:.1f}")
    figures.add_row(f"{label} at the end (last 3 evaluations)", f"{scores['final']:.1f}", style="bold")
    if switch is not None:
        figures.add_row("depth of the dip", f"{switch['dip_depth']:.1f}")
        figures.add_row("length of the dip (environment steps)", f"{switch['dip_length']:,}")
        figures.add_row("cumulative regret (mean shortfall from 100 per online step)", f"{switch['regret']:.1f}")
    for phase, speed in result["speed"].items():
        unit = "updates/s"
        text = f"{speed['updates_per_second']:,.0f}"
        if speed["critic_updates_per_second"] > 1.01 * speed["updates_per_second"]:
            unit, text = "updates/s, agent / critic", f"{text} / {speed['critic_updates_per_second']:,.0f}"
        figures.add_row(f"{phase}: {unit}", text)
    return [panel, figures]


def file_lines(folder: Path) -> list[str]:
    """Where everything is."""
    files = {
        "results and settings": "result.json, config.json, provenance.json",
        "metrics": "metrics.jsonl, evaluations.jsonl, timing.jsonl",
        "TensorBoard": "tensorboard/",
        "checkpoint": "checkpoints/",
        "learning curve": CURVE,
    }
    present = {name: text for name, text in files.items() if (folder / text.split(",")[0]).exists()}
    return [f"files in {folder}:", *(f"  {name:<21} {text}" for name, text in present.items())]
