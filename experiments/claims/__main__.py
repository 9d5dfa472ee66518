"""`python -m experiments.claims wsrl`: carry out what a claim needs, judge it, and store what was measured.

Runs that are finished are not repeated, and a killed check goes on by the same command.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import subprocess
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from experiments import results
from experiments.claims import Claim, Finding, claims
from experiments.config import RunConfig, compose
from experiments.settings import SCALES, spelled
from hybridrl import disk
from hybridrl.errors import ConfigError, HybridRLError

STORED = Path("results/claims")
README = Path("README.md")
BEGIN, END = "<!-- claims:begin -->", "<!-- claims:end -->"


def main(arguments: Sequence[str] | None = None) -> int:
    """Check one claim; exit code 0 whatever the verdict, 1 if a run failed, 2 for a user's mistake."""
    parser = argparse.ArgumentParser(prog="python -m experiments.claims", description=__doc__)
    parser.add_argument("claim", help=f"one of: {', '.join(claims())}")
    parser.add_argument("--scale", choices=SCALES, default="cpu")
    parser.add_argument("--seeds", type=int, default=5, help="runs per variant, at least 5")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="runs at a time")
    parser.add_argument("--root", default="runs/claims", help="where the run folders are")
    parser.add_argument("--output", type=Path, default=STORED, help="where the measured results are stored")
    options = parser.parse_args(arguments)
    try:
        return _check(options)
    except HybridRLError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code


def _check(options: argparse.Namespace) -> int:
    known = {spelled(name): claim for name, claim in claims().items()}
    if spelled(options.claim) not in known:
        raise ConfigError(f"no claim {options.claim!r}; expected one of: {', '.join(claims())}")
    if options.seeds < 5:
        raise ConfigError(f"--seeds {options.seeds}; a claim needs at least 5")
    claim = known[spelled(options.claim)]
    console = Console(width=130, highlight=False)
    console.print(f"[bold]{claim.name}[/]: {claim.statement}")
    console.print(f"{len(claim.variants)} variants x {options.seeds} seeds on {claim.task}, scale={options.scale}")
    common = (f"scale={options.scale}", f"root={options.root}")
    seeds = range(options.seeds)
    jobs = {
        (variant, seed): claim.overrides(claim.settings(variant, options.scale), *common, f"seed={seed}")
        for seed in seeds
        for variant in claim.variants
    }
    _make_datasets(jobs.values())
    if claim.pretraining:
        pretraining = {
            ("pretraining", seed): claim.overrides(claim.pretraining, *common, f"seed={seed}") for seed in seeds
        }
        if not _run_all(console, pretraining, options.jobs):
            return 1
        for seed in seeds:
            begun = compose(pretraining["pretraining", seed]).folder()
            for variant in claim.pretrained:
                jobs[variant, seed].append(f"start_from={begun}")
    if not _run_all(console, jobs, options.jobs):
        return 1
    stored = measure(claim, {job: compose(overrides) for job, overrides in jobs.items()}, options.scale)
    options.output.mkdir(parents=True, exist_ok=True)
    path = options.output / f"{claim.name}.json"
    disk.write_json(path, stored)
    show(console, stored)
    console.print(f"stored in {path}")
    if README.is_file() and options.output == STORED:
        update_readme(README, STORED)
        console.print(f"updated the table in {README}")
    return 0


def _make_datasets(jobs: Iterable[list[str]]) -> None:
    """Have the data in the cache before several processes ask for them."""
    from envs import make_task
    from hybridrl import datasets

    for name in sorted({compose(overrides).task for overrides in jobs}):
        task = make_task(name)
        if task.dataset is not None:
            datasets.load(task)


def _run_all(console: Console, jobs: dict[tuple[str, int], list[str]], count: int) -> bool:
    """Carry out runs, `count` at a time; whether all finished."""
    with ThreadPoolExecutor(count) as pool:
        codes = list(pool.map(lambda job: _run(console, job[0], job[1], jobs[job]), jobs))
    if any(codes):
        console.print("[red]some runs did not finish; the claim is not judged[/]; run the command again to go on")
    return not any(codes)


def _run(console: Console, variant: str, seed: int, overrides: list[str]) -> int:
    """One run in a process of its own: on a CPU that is faster than several in one program."""
    command = [sys.executable, "-m", "experiments.run", *overrides]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    console.print(f"  {variant}, seed {seed}: {'finished' if finished.returncode == 0 else finished.stderr.strip()}")
    return finished.returncode


def measure(claim: Claim, configs: dict[tuple[str, int], RunConfig], scale: str) -> dict[str, Any]:
    """What is stored of a claim: its findings, every run's curve, and where they came from."""
    runs: list[dict[str, Any]] = []
    provenance: dict[str, Any] = {}
    for (variant, seed), config in configs.items():
        run = results.load(config.folder())
        about = {"variant": variant, "task": config.task, "seed": seed}
        runs.append({**about, **curve(run.evaluations), **last(run.metrics, claim.metrics)})
        start = run.provenance["starts"][-1]
        provenance = {name: start[name] for name in ("git", "python", "cpu_count", "devices", "versions", "dataset")}
    curves = {name: [run for run in runs if run["variant"] == name] for name in claim.variants}
    return {
        "claim": claim.name,
        "statement": claim.statement,
        "task": claim.task,
        "scale": scale,
        "seeds": len(runs) // len(claim.variants),
        "findings": [dataclasses.asdict(finding) for finding in claim.findings(curves)],
        "command": f"python -m experiments.claims {claim.name} --scale {scale}",
        "variants": {name: list(claim.settings(name, scale)) for name in claim.variants},
        "provenance": provenance,
        "runs": runs,
    }


def last(metrics: list[dict[str, Any]], names: tuple[str, ...]) -> dict[str, Any]:
    """The means of some metrics over the last ten lines that have them; None for those that a run has not."""
    found: dict[str, float | None] = {}
    for name in names:
        values = [line[name] for line in metrics if name in line][-10:]
        found[name] = sum(values) / len(values) if values else None
    return {"metrics": found} if names else {}


def curve(evaluations: list[dict[str, Any]]) -> dict[str, Any]:
    """Scores from the end of offline training on; all of them where there is no offline training or nothing else.

    `offline_scores` are those of the offline phase, the last of which is the first of the others.
    """
    offline = [index for index, record in enumerate(evaluations) if record["phase"] == "offline"]
    both = 0 < len(offline) < len(evaluations)
    shown = evaluations[offline[-1] if both else 0 :]
    return {
        "env_steps": [record["env_steps"] for record in shown],
        "online_updates": [record["online_updates"] for record in shown],
        "scores": [record["summary"]["score"] for record in shown],
        "offline_scores": [evaluations[index]["summary"]["score"] for index in offline],
        "offline_td_errors": [record["panel"].get("offline_td_error") for record in shown],
    }


def show(console: Console, stored: dict[str, Any]) -> None:
    """The findings as a table."""
    table = Table(title=f"{stored['claim']} on {stored['task']}, scale={stored['scale']}, {stored['seeds']} seeds")
    for name in ("statement", "quantity", "mean", "95% interval", "verdict"):
        table.add_column(name, overflow="fold")
    for row in stored["findings"]:
        finding = Finding(**row)
        bounds = f"[{finding.low:.2f}, {finding.high:.2f}]".replace("[", "\\[")
        table.add_row(finding.statement, finding.quantity, f"{finding.value:.2f}", bounds, finding.verdict)
    console.print(table)


def update_readme(readme: Path, stored: Path) -> None:
    """Write the table of all stored claims between the markers in the README."""
    text = readme.read_text(encoding="utf-8")
    if BEGIN not in text or END not in text:
        raise ConfigError(f"{readme} has no lines {BEGIN} and {END}; add them where the table of claims belongs")
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    disk.write_bytes(readme, f"{before}{BEGIN}\n{readme_table(stored)}{END}{after}".encode())


def readme_table(stored: Path) -> str:
    """The stored claims as a Markdown table."""
    lines = ["| claim | quantity | mean | 95% interval | verdict |", "|---|---|---|---|---|"]
    for path in sorted(stored.glob("*.json")):
        record = disk.read_json(path)
        where = f"`{record['claim']}` ({record['task']}, scale={record['scale']}, {record['seeds']} seeds)"
        for row in record["findings"]:
            lines.append(
                f"| {where}: {row['statement']} | {row['quantity']} | {row['value']:.2f} | "
                f"[{row['low']:.2f}, {row['high']:.2f}] | **{row['verdict']}** |"
            )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
