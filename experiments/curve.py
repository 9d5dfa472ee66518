"""A run's learning curve: score and switch panel over offline updates and environment steps, phase by phase."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

from experiments.results import Run
from hybridrl.disk import write_bytes
from hybridrl.errors import MissingExtraError

try:
    import matplotlib
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator
except ImportError as error:
    raise MissingExtraError("figures need the extra 'figures': pip install 'hybridrl[figures]'") from error

BLUE, ORANGE, GREEN, GREY = "#1f6fb4", "#d9731a", "#2d8a57", "#5b6470"
SHADES = {"offline": "#eef2f8", "warmup": "#fbe7c8", "online": "#ffffff"}
TITLES = {"offline": "offline", "warmup": "warm-up", "online": "online"}
SHARE = "offline share"
STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.edgecolor": "#9aa3ad",
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.labelcolor": "#30363d",
    "xtick.color": "#5b6470",
    "ytick.color": "#5b6470",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#dfe3e8",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "lines.linewidth": 1.7,
    "lines.markersize": 3.5,
}
_Series = list[tuple[str, str, Callable[[dict[str, Any]], float | None]]]


def draw(run: Run, path: Path) -> Path:
    """Draw `run` to a PNG and return its path."""
    with matplotlib.rc_context(STYLE):
        figure = learning_curve(run)
        content = io.BytesIO()
        figure.savefig(content, dpi=150, format="png", metadata={"Software": None})
    write_bytes(path, content.getvalue())
    return path


def learning_curve(run: Run) -> Figure:
    """Score above, the panel's rows below; offline updates to the left, environment steps to the right."""
    rows = _rows(run)
    offline = [record for record in run.evaluations if record["phase"] == "offline"]
    online = [record for record in run.evaluations if record["phase"] != "offline"]
    sides = [(side, records) for side, records in (("offline", offline), ("online", online)) if records]
    widths = [1.0 if side == "offline" else 2.0 for side, _ in sides]
    heights = [2.2, *[1.0] * (len(rows) - 1)]
    height = 1.6 + 1.25 * sum(heights)
    figure = Figure(figsize=(9.6, height))
    figure.subplots_adjust(0.08, 0.55 / height, 0.87, 1.0 - 0.85 / height, wspace=0.035, hspace=0.16)
    axes = figure.subplots(
        len(rows), len(sides), sharey="row", sharex="col", squeeze=False, width_ratios=widths, height_ratios=heights
    )
    for row, (label, series, log) in enumerate(rows):
        for column, (side, records) in enumerate(sides):
            axis = axes[row, column]
            _shade(axis, run, side, labelled=row == 0)
            _plot(axis, series, side, records, offline)
            axis.tick_params(labelleft=column == 0, left=column == 0, bottom=row == len(rows) - 1)
            axis.spines["left"].set_visible(column == 0)
        _scale(axes[row, 0], label, log)
        if len(series) > 1:
            axes[row, -1].legend(loc="center left", bbox_to_anchor=(1.0, 0.5), labelcolor="linecolor", handlelength=1.2)
    axes[0, 0].set_ylim(*_score_limits(run))
    figure.align_ylabels(axes[:, 0])
    for column, (side, _) in enumerate(sides):
        axis = axes[-1, column]
        axis.set_xlabel("offline updates" if side == "offline" else "environment steps")
        beside = side == "offline" and len(sides) > 1  # its last label would meet the other side's first
        axis.xaxis.set_major_locator(MaxNLocator(4 if beside else 7, integer=True, prune="upper" if beside else None))
        axis.xaxis.set_major_formatter(FuncFormatter(thousands))
    _title(figure, run)
    return figure


def _scale(axis: Axes, label: str, log: bool) -> None:
    """The vertical axis of a row, whose columns share it."""
    axis.set_ylabel(label)
    if label == SHARE:
        axis.set_ylim(-0.08, 1.08)
        axis.set_yticks([0.0, 0.5, 1.0], ["0%", "50%", "100%"])
        return
    axis.margins(y=0.12)
    if log:
        axis.set_yscale("log")
        low, high = axis.get_ylim()
        axis.yaxis.set_major_locator(LogLocator(subs=(1.0,) if high > 30.0 * low else (1.0, 2.0, 5.0), numticks=5))
        axis.yaxis.set_minor_locator(NullLocator())
        axis.yaxis.set_major_formatter(FuncFormatter(thousands))
    else:
        axis.yaxis.set_major_locator(MaxNLocator(4 if label.startswith("Q") else 6))
        axis.yaxis.set_major_formatter(FuncFormatter(thousands))


def _rows(run: Run) -> list[tuple[str, _Series, bool]]:
    """Axis label, series and whether the scale is logarithmic, of each row for which there is anything to show."""

    def panel(name: str) -> Callable[[dict[str, Any]], float | None]:
        return lambda record: record["panel"].get(name)

    def both(quantity: str) -> _Series:
        return [
            ("offline\ndata", BLUE, panel(f"offline_{quantity}")),
            ("online\ndata", ORANGE, panel(f"online_{quantity}")),
        ]

    label = run.result.get("score_label", "score")
    label = label if len(label) < 24 else "score"
    rows: list[tuple[str, _Series, bool]] = [
        (label, [("score", GREEN, lambda record: record["summary"]["score"])], False),
        ("Q − MC return", both("q_minus_return"), False),
        ("TD error²", both("td_error"), True),
        (
            "gradient norm",
            [("critic", GREY, panel("critic_grad_norm")), ("actor", GREEN, panel("actor_grad_norm"))],
            True,
        ),
        (SHARE, [("share of offline rows", BLUE, panel("offline_share"))], False),
    ]
    kept = []
    for name, series, log in rows:
        present = [entry for entry in series if any(entry[2](record) is not None for record in run.evaluations)]
        if present:
            kept.append((name, present, log))
    return kept


def _plot(axis: Axes, series: _Series, side: str, records: list[dict[str, Any]], offline: list[dict[str, Any]]) -> None:
    for name, color, value_of in series:
        points = [(_position(record, side), value_of(record)) for record in records]
        # The end of offline training is where the online side begins, for what exists without training.
        if side == "online" and offline and name in ("score", "offline\ndata"):
            points = [(0, value_of(offline[-1])), *points]
        xs = [x for x, y in points if y is not None]
        ys = [y for _, y in points if y is not None]
        axis.plot(xs, ys, color=color, label=name, marker="o", markeredgewidth=0, clip_on=False, zorder=3)


def _position(record: dict[str, Any], side: str) -> int:
    return int(record["phase_step"] if side == "offline" else record["env_steps"])


def _shade(axis: Axes, run: Run, side: str, labelled: bool) -> None:
    """Colour the phases, and name them at the top of the first row."""
    schedule = run.config["schedule"]
    spans = {"offline": (0, schedule["offline_updates"])}
    if side == "online":
        spans = {
            "warmup": (0, schedule["warmup_steps"]),
            "online": (schedule["warmup_steps"], schedule["online_steps"]),
        }
    for phase, (start, end) in spans.items():
        if start == end:
            continue
        axis.axvspan(start, end, color=SHADES[phase], linewidth=0, zorder=0)
        if labelled:
            axis.annotate(
                TITLES[phase],
                ((start + end) / 2, 1.0),
                xycoords=("data", "axes fraction"),
                xytext=(0, 3),
                textcoords="offset points",
                ha="center",
                va="bottom",
                fontsize=8.5,
                color=GREY,
            )
    axis.set_xlim(0, max(end for _, end in spans.values()))


def _score_limits(run: Run) -> tuple[float, float]:
    scores = [record["summary"]["score"] for record in run.evaluations]
    low, high = min([0.0, *scores]), max([100.0, *scores])
    margin = 0.04 * (high - low)
    return low - margin, high + margin


def _title(figure: Figure, run: Run) -> None:
    config = run.config
    title = f"{config['algo']} on {config['task']}   seed {config['seed']}, scale={config['scale']}"
    switch = run.result.get("switch")
    if switch:
        title += (
            f"\nafter offline {switch['before']:.0f}  ·  just after the switch {switch['after']:.0f}  ·  "
            f"at the end {switch['final']:.0f}      dip: depth {switch['dip_depth']:.0f}, "
            f"length {switch['dip_length']:,} steps  ·  regret {switch['regret']:.0f}"
        )
    figure.suptitle(title, x=0.08, y=0.99, ha="left", va="top", fontsize=10, linespacing=1.5, color="#30363d")


def thousands(value: float, _: int) -> str:
    """A tick label: `2.5k`, `1M`."""
    if abs(value) >= 1_000_000:
        return f"{value / 1e6:g}M"
    return f"{value / 1e3:g}k" if abs(value) >= 1_000 else f"{value:g}"
