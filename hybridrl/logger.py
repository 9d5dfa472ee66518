"""One metrics dict to JSON lines and TensorBoard, with positions that a resumed run returns to."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

LOGS = ("metrics.jsonl", "evaluations.jsonl", "timing.jsonl")


class RunLogger:
    """The logs of one run folder.

    `metrics.jsonl` and `evaluations.jsonl` hold nothing that depends on the clock, so two runs of one command write
    the same bytes; speeds go to `timing.jsonl`. TensorBoard gets all of it.

    Args:
        folder: the run folder.
        positions: from `positions()` at the checkpoint a run resumes from: the files are cut back to there.
        step: the step of that checkpoint; TensorBoard discards later points.
    """

    def __init__(self, folder: Path, positions: dict[str, int] | None = None, step: int | None = None) -> None:
        from tensorboardX import SummaryWriter

        folder.mkdir(parents=True, exist_ok=True)
        self._paths = {name: folder / name for name in LOGS}
        for name, path in self._paths.items():
            path.touch()
            os.truncate(path, (positions or {}).get(name, 0))
        self._files = {name: open(path, "a", encoding="utf-8") for name, path in self._paths.items()}  # noqa: SIM115
        # The process id keeps two writers that start in the same second apart.
        self._board = SummaryWriter(
            str(folder / "tensorboard"),
            purge_step=None if step is None else step + 1,
            filename_suffix=f".{os.getpid()}",
        )

    def metrics(self, step: int, phase: str, values: dict[str, float]) -> None:
        """Training metrics, averaged since the last call; `step` counts offline updates and environment steps."""
        self._write("metrics.jsonl", {"step": step, "phase": phase, **values})
        self._scalars(step, values)

    def evaluation(self, record: dict[str, Any]) -> None:
        """One evaluation with every episode's outcome; numbers in its "summary" and "panel" go to TensorBoard."""
        self._write("evaluations.jsonl", record)
        for group in ("summary", "panel"):
            prefix = "eval" if group == "summary" else group
            self._scalars(record["step"], {f"{prefix}/{name}": value for name, value in record[group].items()})

    def timing(self, step: int, phase: str, values: dict[str, float]) -> None:
        """Speeds, which differ from run to run."""
        self._write("timing.jsonl", {"step": step, "phase": phase, **values})
        self._scalars(step, {f"speed/{name}": value for name, value in values.items()})

    def positions(self) -> dict[str, int]:
        """Bytes in each file, after everything logged so far has reached the disk."""
        for file in self._files.values():
            file.flush()
            os.fsync(file.fileno())
        return {name: path.stat().st_size for name, path in self._paths.items()}

    def close(self) -> None:
        """Flush and close."""
        for file in self._files.values():
            file.close()
        self._board.close()

    def _write(self, name: str, record: dict[str, Any]) -> None:
        self._files[name].write(json.dumps(record) + "\n")
        self._files[name].flush()

    def _scalars(self, step: int, values: dict[str, float]) -> None:
        for name, value in values.items():
            self._board.add_scalar(name, value, step)


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The records of a JSON-lines file."""
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file]
