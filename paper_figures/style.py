"""How figures look: one style, one colour per algorithm wherever it appears."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.curve import STYLE

# Chosen to stay apart for readers who see few colours, and in grey.
COLORS = {
    "wsrl": "#1f6fb4",
    "calql": "#d9731a",
    "cql": "#8b5fa8",
    "rlpd": "#2d8a57",
    "sac": "#5b6470",
}
SPARE = ("#b4473c", "#c59b1d", "#3aa3a3", "#7a5c3e", "#d46aa0")
LABELS = {"wsrl": "WSRL", "calql": "Cal-QL", "cql": "CQL", "rlpd": "RLPD", "sac": "SAC (fast)"}


def color(name: str, taken: int = 0) -> str:
    """The colour of an algorithm or, for other names, the spare colour number `taken`."""
    return COLORS.get(name, SPARE[taken % len(SPARE)])


def label(name: str) -> str:
    """How an algorithm is written."""
    return LABELS.get(name, name)


def styled() -> Any:
    """A context in which figures have this style."""
    return matplotlib.rc_context(STYLE)


def save(figure: Figure, path: Path) -> Path:
    """Write a figure as PNG or PDF, by the path's ending, and return the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=200, bbox_inches="tight", metadata={"Software": None} if path.suffix == ".png" else None)
    return path


def end_labels(axis: Axes, ends: dict[str, tuple[float, str]], spacing: float) -> None:
    """Names at the right-hand ends of curves, moved apart where they would overlap.

    Args:
        ends: by name, the last height and the colour.
        spacing: the least distance between two names, in units of the data.
    """
    placed: list[float] = []
    for name, (height, shade) in sorted(ends.items(), key=lambda entry: entry[1][0]):
        position = height if not placed else max(height, placed[-1] + spacing)
        placed.append(position)
        axis.annotate(
            name,
            (1.0, position),
            xycoords=("axes fraction", "data"),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            color=shade,
            fontsize=9,
        )
