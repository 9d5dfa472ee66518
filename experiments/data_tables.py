"""What `python -m experiments.data` shows of datasets without reading them: lists, one in full, the documentation.

Only records are read here: no JAX, no simulator, no data file.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from typing import Any

from envs.catalog import Entry, publishers
from experiments.units import ABSENT, seconds_text, size_text
from hybridrl.data_folder import all_stored, data_root, dataset_folder, stored

BEGIN, END = "<!-- datasets:begin -->", "<!-- datasets:end -->"


def list_rows(entries: dict[str, Entry], pattern: str = "", local: bool = False) -> list[dict[str, Any]]:
    """One record per dataset, also for those in the cache that no task uses.

    Args:
        pattern: part of the id or of a task's name, or a shell pattern with `*` or `?`; empty for all.
        local: only those that are on this machine.
    """
    others = {entry.folder: entry for entry in all_stored()}
    rows = []
    for entry in entries.values():
        found = stored(entry.spec)
        others.pop(dataset_folder(entry.spec), None)
        rows.append(
            {
                "id": entry.spec.id,
                "format": entry.spec.format,
                "rows": entry.rows or None,
                "size": found.size if found else entry.measured.size if entry.measured else None,
                "source": list(entry.ways),
                "here": found.origin if found else None,
                "folder": str(found.folder) if found else None,
                "tasks": list(entry.tasks),
            }
        )
    for found in others.values():
        format = found.folder.relative_to(data_root()).parts[0]
        rows.append(
            {
                "id": found.id,
                "format": format,
                "rows": None,
                "size": found.size,
                "source": [],
                "here": found.origin,
                "folder": str(found.folder),
                "tasks": [],
            }
        )
    return [row for row in rows if _matches(row, pattern) and (row["here"] is not None or not local)]


def list_text(rows: list[dict[str, Any]]) -> str:
    """The records as aligned lines, with a summary below."""
    lines = [("dataset", "format", "rows", "size", "source", "here", "tasks")]
    for row in rows:
        tasks = row["tasks"]
        more = f" and {len(tasks) - 1} more" if len(tasks) > 1 else ""
        lines.append(
            (
                row["id"],
                row["format"],
                f"{row['rows']:,}" if row["rows"] else ABSENT,
                size_text(row["size"]),
                ", ".join(row["source"]) or "files by hand",
                row["here"] or ABSENT,
                (tasks[0] + more) if tasks else ABSENT,
            )
        )
    here = sum(row["here"] is not None for row in rows)
    return f"{_aligned(lines, right=(2, 3))}\n\n{len(rows)} datasets, {here} of them here, in {data_root()}"


def show_text(entry: Entry) -> str:
    """Everything known about one dataset, without reading it."""
    spec, measured, publisher = entry.spec, entry.measured, entry.publisher
    found = stored(spec)
    pairs: list[tuple[str, str]] = [("format", spec.format)]
    pairs += [("task", name) for name in entry.tasks]
    pairs += [("published by", publisher.name), ("source", publisher.source), ("licence", publisher.licence)]
    pairs += [("url", url) for url in spec.urls]
    pairs += [("published sha256", f"{hash}  {url.rpartition('/')[2]}") for url, hash in
              zip(spec.urls, spec.sha256, strict=False) if hash]  # fmt: skip
    pairs += [("can be had by", text) for text in _ways(entry)]
    pairs.append(("rows", f"{entry.rows:,}" if entry.rows else "not recorded"))
    if measured is None:
        pairs.append(("recorded", "nothing has been measured of this dataset"))
    else:
        pairs += [
            ("recorded size", size_text(measured.size)),
            ("recorded sha256", f"{measured.sha256} ({measured.origin})"),
            ("episodes", f"{measured.episodes:,}"),
            ("mean length", f"{measured.mean_episode_length:.2f} +- {measured.length_tolerance:.2g}"),
            ("mean return", f"{measured.mean_episode_return:.2f} +- {measured.return_tolerance:.2g}, "
             f"rewards of {measured.task} as recorded"),
            ("measured with", _versions(measured.versions)),
        ]  # fmt: skip
    pairs.append(("folder", str(dataset_folder(spec))))
    if found is None:
        pairs.append(("here", "no"))
    else:
        pairs += [
            ("here", f"yes, {found.origin}, {found.record.get('time', 'at a time not recorded')}"),
            ("size", size_text(found.size)),
            ("sha256", str(found.record.get("sha256", "not recorded"))),
            ("made with", _versions(found.record.get("versions", {}))),
        ]
        if "not_downloaded" in found.record:
            pairs.append(("not downloaded", str(found.record["not_downloaded"])))
    return f"{spec.id}\n" + "\n".join(f"  {name:<17} {text}" for name, text in pairs)


def docs_table(entries: dict[str, Entry]) -> str:
    """All datasets as one Markdown table, then who published them; the same on every machine."""
    lines = [
        "| Dataset | Published by | Rows | Size | How to get it | Tasks |",
        "|---|---|---|---|---|---|",
    ]
    for entry in sorted(entries.values(), key=lambda entry: (entry.publisher.name, entry.spec.id)):
        tasks = f"`{entry.tasks[0]}`" + (f" and {len(entry.tasks) - 1} more" if len(entry.tasks) > 1 else "")
        rows = f"{entry.rows:,}" if entry.rows else "not recorded"
        size = size_text(entry.measured.size) if entry.measured else "not measured"
        ways = "; ".join(_ways(entry))
        lines.append(f"| `{entry.spec.id}` | {entry.publisher.name} | {rows} | {size} | {ways} | {tasks} |")
    used = {entry.publisher.name for entry in entries.values()}
    lines += ["", "| Publisher | Licence |", "|---|---|"]
    licences = {known.name: known.licence for known in publishers() if known.name in used}
    lines += [f"| {name} | {licence} |" for name, licence in licences.items()]
    return "\n".join(lines) + "\n"


def _ways(entry: Entry) -> list[str]:
    """Each way with what it needs and how long it takes."""
    measured, found = entry.measured, []
    for way in entry.ways:
        extra = entry.publisher.extra_download if way == "download" else entry.publisher.extra_generate
        details = [f"extra `{extra}`" if extra else "no extra"]
        if measured is not None and measured.seconds is not None and measured.origin.startswith(way):
            details.append(f"{seconds_text(measured.seconds)} on {measured.cores} cores")
        elif way == "generate":
            details.append("time not measured")
        found.append(f"{way} ({', '.join(details)})")
    if not found and entry.spec.id.startswith("local/"):
        return [entry.spec.how_to_get]
    return found or [f"put its files into `<data root>/{entry.spec.format}/{entry.spec.id}` (no extra)"]


def _matches(row: dict[str, Any], pattern: str) -> bool:
    names = [row["id"], *row["tasks"]]
    if any(character in pattern for character in "*?["):
        return any(fnmatch.fnmatch(name.lower(), pattern.lower()) for name in names)
    return any(pattern.lower() in name.lower() for name in names)


def _versions(versions: dict[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items()) or "not recorded"


def _aligned(lines: Sequence[tuple[str, ...]], right: tuple[int, ...]) -> str:
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )
