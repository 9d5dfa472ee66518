"""Published settings, one module per algorithm, and the phases each algorithm's run consists of."""

from __future__ import annotations

import dataclasses
import importlib
from typing import Any

from experiments.settings import ALGORITHMS, LoopConfig, ScheduleConfig


@dataclasses.dataclass(frozen=True)
class Preset:
    """What an algorithm starts from on a task, before the command line changes anything."""

    agent: Any  # the algorithm's own config
    schedule: ScheduleConfig
    loop: LoopConfig


def module(algo: str) -> Any:
    """The module with `preset(task, scale)` and `phases(config, task)` of an algorithm in `ALGORITHMS`."""
    if algo not in ALGORITHMS:
        raise KeyError(algo)
    return importlib.import_module(f"experiments.presets.{algo}")
