"""One run folder: what was run, how, with what, and what came out."""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import importlib.metadata
import os
import platform
import statistics
import subprocess
from pathlib import Path
from typing import Any

from experiments.config import RunConfig
from experiments.settings import PAIR
from hybridrl import disk
from hybridrl.errors import ConfigError, CorruptError
from hybridrl.logger import read_lines
from hybridrl.training.panel import panel_row, summarize_switch

CONFIG, PROVENANCE, RESULT, ERROR, CURVE, DIFF = (
    "config.json",
    "provenance.json",
    "result.json",
    "error.txt",
    "learning_curve.png",
    "uncommitted.patch",
)
_PACKAGES = (
    "hybridrl",
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "orbax-checkpoint",
    "numpy",
    "gymnasium",
    "gymnasium-robotics",
    "mujoco",
    "minari",
    "ogbench",
    "hydra-core",
)


@dataclasses.dataclass(frozen=True)
class Run:
    """A run folder, read. `result` is empty while the run is unfinished."""

    folder: Path
    config: dict[str, Any]
    provenance: dict[str, Any]
    evaluations: list[dict[str, Any]]
    metrics: list[dict[str, Any]]
    timing: list[dict[str, Any]]
    result: dict[str, Any]

    @property
    def finished(self) -> bool:
        """Whether it went to its end."""
        return self.result.get("status") == "finished"


def load(folder: Path | str) -> Run:
    """Read a run folder.

    Raises:
        ConfigError: it is none.
        CorruptError: one of its files cannot be read.
    """
    folder = Path(folder)
    if not (folder / CONFIG).is_file():
        raise ConfigError(f"{folder} has no {CONFIG}; expected a run folder, <root>/<task>/<algo>/<hash>/seed_<n>")
    try:
        return Run(
            folder=folder,
            config=disk.read_json(folder / CONFIG),
            provenance=_read(folder / PROVENANCE),
            evaluations=_lines(folder / "evaluations.jsonl"),
            metrics=_lines(folder / "metrics.jsonl"),
            timing=_lines(folder / "timing.jsonl"),
            result=_read(folder / RESULT),
        )
    except ValueError as error:
        if isinstance(error, CorruptError):
            raise
        raise CorruptError(
            f"a log in {folder} holds no readable JSON lines ({error}); run the command again"
        ) from error


def is_finished(folder: Path) -> bool:
    """Whether the folder holds a run that went to its end."""
    return _read(folder / RESULT).get("status") == "finished"


def find(root: Path | str, task: str | None = None, algo: str | None = None) -> list[Run]:
    """All runs below `root`, of one task and algorithm if given, ordered by folder."""
    runs = [load(path.parent) for path in sorted(Path(root).rglob(f"seed_*/{CONFIG}"))]
    return [run for run in runs if task in (None, run.config["task"]) and algo in (None, run.config["algo"])]


def write_start(
    config: RunConfig, command: list[str], dataset: dict[str, Any] | None, source_run: Path | None = None
) -> None:
    """Write config and provenance; on a resumed run, add to the list of its starts."""
    folder = config.folder()
    folder.mkdir(parents=True, exist_ok=True)
    resolved = config.resolved() | {"seed": config.seed}
    if not (folder / CONFIG).is_file():
        disk.write_json(folder / CONFIG, resolved)
    elif disk.read_json(folder / CONFIG) != resolved:
        raise ConfigError(f"{folder} holds a run with other settings; use another root")
    starts = _read(folder / PROVENANCE).get("starts", [])
    git, diff = _git_state()
    if diff:
        disk.write_bytes(folder / DIFF, diff)
    start = {
        "time": _now(),
        "command": command,
        "git": git,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "host": platform.node(),
        "cpu_count": os.cpu_count(),
        "devices": _devices(),
        "versions": _versions(),
        "dataset": dataset,
        "start_from": None if source_run is None else str(source_run),
    }
    disk.write_json(folder / PROVENANCE, {"starts": [*starts, start]})


def write_failure(folder: Path, message: str) -> None:
    """Record that a run stopped with an error, if it has a folder."""
    if (folder / CONFIG).is_file():
        disk.write_json(folder / RESULT, {"status": f"failed: {message}", "time": _now()})


def write_result(config: RunConfig, score_label: str) -> dict[str, Any]:
    """Summarise a run that went to its end."""
    result = load_completed(config.folder(), score_label).result
    disk.write_json(config.folder() / RESULT, result)
    return result


def load_completed(folder: Path, score_label: str) -> Run:
    """The run in a folder with the result it is about to get."""
    run = load(folder)
    result = {"status": "finished", "time": _now(), "score_label": score_label, **summarize(run)}
    return dataclasses.replace(run, result=result)


def summarize(run: Run) -> dict[str, Any]:
    """Scores, the switch's summary, the panel at its stages, and speeds, from a run's logs."""
    stages = switch_stages(run.evaluations)
    scores: dict[str, float | None] = {name: None for name in ("after_offline", "after_switch", "final", "last")}
    if run.evaluations:
        last = [record["summary"]["score"] for record in run.evaluations[-3:]]
        scores |= {"final": statistics.fmean(last), "last": last[-1]}
    switch = None
    if "before" in stages and "end" in stages:
        records = _since_switch(run.evaluations)
        summary = summarize_switch(
            [record["env_steps"] for record in records],
            [record["online_updates"] for record in records],
            [record["summary"]["score"] for record in records],
            dip_window(run.config["schedule"]),
        )
        switch = dataclasses.asdict(summary)
        scores |= {"after_offline": summary.before, "after_switch": summary.after}
    elif "before" in stages:
        scores["after_offline"] = stages["before"]["summary"]["score"]
    panel = {
        name: {"env_steps": record["env_steps"], "score": record["summary"]["score"], **panel_row(record)}
        for name, record in stages.items()
    }
    return {"scores": scores, "switch": switch, "panel": panel, "speed": speeds(run)}


def dip_window(schedule: dict[str, Any]) -> int:
    """Environment steps after the first online update in which a fall of the score counts as the dip.

    The first twentieth of the online steps, and no less than the densely evaluated stretch.
    """
    return int(max(schedule["online_steps"] // 20, schedule["dense_until"]))


def switch_stages(evaluations: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The evaluations that the closing table shows: those that exist of "before", "switch", "after" and "end".

    "before" ends offline training; "switch" ends the warm-up, with the same policy; "after" is the first one after an
    online update.
    """
    offline = [record for record in evaluations if record["phase"] == "offline"]
    warm = [record for record in evaluations if record["phase"] == "warmup"]
    trained = [record for record in evaluations if record["online_updates"] > 0]
    stages = {}
    if offline:
        stages["before"] = offline[-1]
    if warm:
        stages["switch"] = warm[-1]
    if trained:
        stages |= {"after": trained[0], "end": trained[-1]}
    return stages


def speeds(run: Run) -> dict[str, dict[str, float]]:
    """Per phase: steps (updates offline, environment steps else), agent updates and critic updates per second.

    They are medians over the lines of the log, so that the time for compiling does not count.
    """
    lines: dict[str, list[dict[str, float]]] = {}
    for line in run.timing:
        lines.setdefault(line["phase"], []).append(line)
    agent = run.config["agent"]
    agent = agent["online"] if PAIR in run.config["algo"] else agent
    critic_updates = agent.get("sac", agent).get("critic_updates", 1) * agent.get("inner_steps", 1)
    found = {}
    for phase, timed in lines.items():
        updates = statistics.median(line["updates_per_second"] for line in timed)
        found[phase] = {
            "per_second": statistics.median(line["per_second"] for line in timed),
            "updates_per_second": updates,
            "critic_updates_per_second": updates * (1 if phase == "offline" else critic_updates),
        }
    return found


def _since_switch(evaluations: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """From the last offline evaluation on."""
    first = max(index for index, record in enumerate(evaluations) if record["phase"] == "offline")
    return evaluations[first:]


def _read(path: Path) -> dict[str, Any]:
    return disk.read_json(path) if path.is_file() else {}


def _lines(path: Path) -> list[dict[str, Any]]:
    return read_lines(path) if path.is_file() else []


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _versions() -> dict[str, str]:
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def _devices() -> list[str]:
    import jax

    return [f"{device.platform}: {device.device_kind}" for device in jax.devices()]


def _git_state() -> tuple[dict[str, Any] | None, bytes]:
    """Commit and uncommitted changes of the checkout this code is in; None for an installed package."""
    folder = Path(__file__).resolve().parent

    def git(*arguments: str) -> bytes:
        return subprocess.run(["git", *arguments], cwd=folder, capture_output=True, check=True, timeout=30).stdout

    try:
        tracked = git("ls-files", "--", Path(__file__).name).strip()
        commit = git("rev-parse", "HEAD").decode().strip()
        diff = git("diff", "HEAD")
        untracked = git("ls-files", "--others", "--exclude-standard", "--full-name", ":/").decode().splitlines()
    except (OSError, subprocess.SubprocessError):
        return None, b""
    if not tracked:  # installed below some other checkout
        return None, b""
    state = {
        "commit": commit,
        "dirty": bool(diff or untracked),
        "diff_sha256": hashlib.sha256(diff).hexdigest() if diff else None,
        "untracked": untracked[:50],
    }
    return state, diff
