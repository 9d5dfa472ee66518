"""`python -m paper_figures.wsrl`: score over environment steps after the switch, with bootstrap bands.

Zhou et al. 2025, figures 7 and 10: WSRL against its ablations and baselines. Reads the claim's stored results,
`results/claims/wsrl.json`, or run folders:

    python -m paper_figures.wsrl                                   # from the stored results of the claim
    python -m paper_figures.wsrl --runs runs --task pointmaze-umaze-v2
    python -m paper_figures.wsrl --output figures/wsrl.pdf

The stored file holds a list of runs, or an object with such a list under "runs"; each run is
    {"variant": "wsrl", "seed": 0, "env_steps": [0, 1000, ...], "scores": [55.0, 60.0, ...]}
with scores from 0 to 100, and may name its "task".
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from experiments.curve import thousands
from experiments.results import Run, find
from experiments.statistics import curve_bands, interval, iqm
from hybridrl import disk
from hybridrl.errors import ConfigError, HybridRLError
from paper_figures import style

STORED = Path("results/claims/wsrl.json")


def main(arguments: Sequence[str] | None = None) -> int:
    """Draw the figure and print the numbers behind it."""
    parser = argparse.ArgumentParser(
        prog="python -m paper_figures.wsrl", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--runs", type=Path, help="draw from the run folders below this one")
    parser.add_argument("--stored", type=Path, default=STORED, help=f"the claim's results (default {STORED})")
    parser.add_argument("--task", help="only runs of this task")
    parser.add_argument("--output", type=Path, default=Path("figures/wsrl.png"), help="a .png or .pdf")
    options = parser.parse_args(arguments)
    try:
        runs = from_folders(options.runs, options.task) if options.runs else from_stored(options.stored, options.task)
        with style.styled():
            path = style.save(draw(runs), options.output)
    except HybridRLError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    for line in numbers(runs):
        print(line)
    print(f"drew {path}")
    return 0


def from_stored(path: Path, task: str | None = None) -> list[dict[str, Any]]:
    """The runs in a claim's stored results.

    Raises:
        ConfigError: there are none of that task.
    """
    if not path.is_file():
        raise ConfigError(
            f"no {path}; make it with `python -m experiments.claims wsrl`, or draw from run folders with --runs"
        )
    stored = disk.read_json(path)
    runs = stored["runs"] if isinstance(stored, dict) else stored
    return _checked([run for run in runs if task in (None, run.get("task", task))], str(path))


def from_folders(root: Path, task: str | None = None) -> list[dict[str, Any]]:
    """The finished runs below `root`; configurations of one algorithm are told apart by their hash."""
    found = [run for run in find(root, task) if run.finished]
    tasks = sorted({run.config["task"] for run in found})
    if len(tasks) > 1:
        raise ConfigError(f"runs of several tasks below {root}; choose one with --task: {', '.join(tasks)}")
    hashes: dict[str, set[str]] = {}
    for run in found:
        hashes.setdefault(run.config["algo"], set()).add(run.folder.parent.name)
    return _checked([_record(run, hashes) for run in found], str(root))


def _record(run: Run, hashes: dict[str, set[str]]) -> dict[str, Any]:
    algo, settings = run.config["algo"], run.folder.parent.name
    offline = [index for index, record in enumerate(run.evaluations) if record["phase"] == "offline"]
    shown = run.evaluations[offline[-1] if offline else 0 :]
    return {
        "variant": algo if len(hashes[algo]) == 1 else f"{algo} {settings}",
        "task": run.config["task"],
        "seed": run.config["seed"],
        "env_steps": [record["env_steps"] for record in shown],
        "scores": [record["summary"]["score"] for record in shown],
    }


def _checked(runs: list[dict[str, Any]], origin: str) -> list[dict[str, Any]]:
    if not runs:
        raise ConfigError(f"no runs to draw in {origin}; expected finished runs")
    for run in runs:
        if len(run["env_steps"]) != len(run["scores"]) or not run["scores"]:
            raise ConfigError(f"{origin}: seed {run['seed']} of {run['variant']!r} has unequal or empty curves")
    return runs


def curves(runs: list[dict[str, Any]]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """By variant, environment steps `(points,)` and scores `(runs, points)`, interpolated to the first run's steps."""
    found = {}
    for variant in dict.fromkeys(run["variant"] for run in runs):
        members = [run for run in runs if run["variant"] == variant]
        steps = np.asarray(members[0]["env_steps"], np.float64)
        scores = np.stack([np.interp(steps, run["env_steps"], run["scores"]) for run in members])
        found[variant] = (steps, scores)
    return found


def draw(runs: list[dict[str, Any]]) -> Figure:
    """One curve per variant: interquartile mean and 95% stratified bootstrap band over seeds."""
    figure = Figure(figsize=(6.4, 3.8))
    axis = figure.subplots()
    ends, furthest = {}, 0.0
    for index, (variant, (steps, scores)) in enumerate(curves(runs).items()):
        shade, name = style.color(variant, index), style.label(variant)
        if len(scores) > 1:
            centre, low, high = curve_bands(scores)
            axis.fill_between(steps, low, high, color=shade, alpha=0.16, linewidth=0)
        else:
            centre = scores[0]
        axis.plot(steps, centre, color=shade, label=name)
        ends[f"{name} ({len(scores)})"] = (float(centre[-1]), shade)
        furthest = max(furthest, steps[-1])
    axis.set_xlim(0, furthest)
    axis.set_ylim(-3, 103)
    axis.set_xlabel("environment steps after the switch")
    axis.set_ylabel("score")
    axis.xaxis.set_major_formatter(FuncFormatter(thousands))
    style.end_labels(axis, ends, spacing=6.5)
    task = runs[0].get("task")
    title = "interquartile mean over seeds (their number in brackets), 95% bootstrap interval"
    axis.set_title(f"{task}\n{title}" if task else title, loc="left", fontsize=9, color="#30363d")
    return figure


def numbers(runs: list[dict[str, Any]]) -> list[str]:
    """The table behind the figure: final scores with their intervals."""
    lines = [f"{'variant':<32} {'seeds':>5} {'start':>7} {'lowest':>7} {'final':>7}   95% interval of the final score"]
    for variant, (_, scores) in curves(runs).items():
        final = scores[:, -3:].mean(axis=1)
        bounds = interval(final[:, None]) if len(final) > 1 else (float(final[0]), float(final[0]))
        lines.append(
            f"{variant:<32} {len(scores):>5} {float(iqm(scores[:, :1])):>7.1f} "
            f"{min(float(iqm(column[:, None])) for column in scores.T):>7.1f} {float(iqm(final[:, None])):>7.1f}   "
            f"[{bounds[0]:.1f}, {bounds[1]:.1f}]"
        )
    return lines


if __name__ == "__main__":
    sys.exit(main())
