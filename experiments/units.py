"""Sizes and times as people read them."""

from __future__ import annotations

ABSENT = "-"


def size_text(size: int | None) -> str:
    """Bytes in powers of 1000, as file sizes are published."""
    if size is None:
        return ABSENT
    for unit, scale in (("GB", 1e9), ("MB", 1e6)):
        if size >= scale:
            return f"{size / scale:.1f} {unit}"
    return f"{size / 1e3:.0f} kB"


def seconds_text(seconds: float) -> str:
    """A duration one can read at a glance."""
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def duration(seconds: float) -> str:
    """`1:02:03` or `2:03`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
