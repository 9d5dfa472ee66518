"""Published settings, one module per algorithm, and the phases each algorithm's run consists of."""

from __future__ import annotations

import dataclasses
import importlib
from typing import Any

from experiments.settings import ALGORITHMS, PAIR, LoopConfig, ScheduleConfig


@dataclasses.dataclass(frozen=True)
class Preset:
    """What an algorithm starts from on a task, before the command line changes anything."""

    agent: Any  # the algorithm's own config
    schedule: ScheduleConfig
    loop: LoopConfig


def module(algo: str) -> Any:
    """What offers `preset(task, scale)` and `phases(config, task)`: the module of an algorithm in `ALGORITHMS`.

    Of `a+b` it is the pair of both: offline training by the first, then online training by the second.
    """
    if PAIR in algo:
        from experiments.presets.pair import Pair

        return Pair(*algo.split(PAIR))
    if algo not in ALGORITHMS:
        raise KeyError(algo)
    return importlib.import_module(f"experiments.presets.{algo}")
