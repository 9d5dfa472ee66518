"""scale=cpu: the numbers it puts in place of the published ones. Budgets and widths only, never the algorithm.

To tune what a laptop runs by default, edit the table `CPU`, or `GOALS` for goal-conditioned algorithms. Uni-O4 and BPPO
need higher rates as well, see `presets.unio4`.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from experiments.presets import Preset
from experiments.settings import LoopConfig
from hybridrl.task import Task


@dataclasses.dataclass(frozen=True)
class CpuScale:
    """Ceilings on budgets and widths; a published number below one of them stays."""

    offline_updates: int = 20_000
    warmup_steps: int = 1_000
    online_steps: int = 20_000
    offline_batch_size: int = 128
    rows_per_critic_update: int = 64  # of an online batch that several critic updates share
    hidden_width: int = 64
    hidden_layers: int = 2
    offline_every: int = 5_000
    dense_every: int = 500
    dense_until: int = 3_000
    every: int = 2_500
    eval_episodes: int = 20
    log_every: int = 500
    checkpoint_every: int = 2_500
    probe_rows: int = 512


CPU = {
    "pointmaze": CpuScale(
        offline_updates=8_000,
        warmup_steps=5_000,
        online_steps=12_000,
        offline_every=1_000,
        dense_every=100,
        dense_until=500,
        every=500,
        log_every=100,
        checkpoint_every=1_000,
    ),
    "other": CpuScale(),
}
# Goal-conditioned agents need more: each value crosses the maze step by step, at the pace of its target network.
GOALS = CpuScale(
    offline_updates=120_000,
    offline_batch_size=256,
    hidden_width=128,
    hidden_layers=3,
    offline_every=15_000,
    eval_episodes=20,
    log_every=1_000,
    checkpoint_every=5_000,
    probe_rows=256,
)
# On-policy agents need more steps, which cost less: an update uses many of them, and whole rollouts.
ON_POLICY = CpuScale(online_steps=100 * 2_048, dense_until=0, every=20_480, checkpoint_every=10_000)
# The probes are small as they are.
PROBE_LOOP = LoopConfig(log_every=50, checkpoint_every=200, eval_episodes=10, eval_envs=10, probe_rows=64)
PROBE_EVALUATIONS: dict[str, Any] = {"offline_every": 200, "dense_every": 50, "dense_until": 200, "every": 200}
_BUDGETS = (
    "offline_updates",
    "offline_batch_size",
    "warmup_steps",
    "online_steps",
    "offline_every",
    "dense_every",
    "dense_until",
    "every",
)
_LOOP = ("eval_episodes", "log_every", "checkpoint_every", "probe_rows")


def shrink(preset: Preset, task: Task, limits: CpuScale | None = None) -> Preset:
    """The preset within what a few CPU cores do in minutes: within `limits`, or those of the task's family."""
    if task.family == "probe":
        return preset
    limits = limits or CPU.get(task.family, CPU["other"])
    critic_updates = getattr(getattr(preset.agent, "sac", preset.agent), "critic_updates", 1)
    rows = limits.offline_batch_size if critic_updates == 1 else critic_updates * limits.rows_per_critic_update
    schedule = _lower(preset.schedule, limits, _BUDGETS)
    return Preset(
        agent=_narrow(preset.agent, limits),
        schedule=dataclasses.replace(schedule, online_batch_size=min(schedule.online_batch_size, rows)),
        loop=_lower(preset.loop, limits, _LOOP),
    )


def _lower(config: Any, limits: CpuScale, fields: tuple[str, ...]) -> Any:
    changes = {field: min(getattr(config, field), getattr(limits, field)) for field in fields}
    return dataclasses.replace(config, **changes)


def _narrow(config: Any, limits: CpuScale) -> Any:
    """Hidden layers, wherever they are in the nested configs, cut to the limits."""
    changes: dict[str, Any] = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            changes[field.name] = _narrow(value, limits)
        elif field.name.endswith("hidden_dims"):
            changes[field.name] = tuple(min(width, limits.hidden_width) for width in value[: limits.hidden_layers])
    return dataclasses.replace(config, **changes)
