"""BPPO: Uni-O4 with one policy, values of the behaviour itself and snapshots that real returns decide on."""

from __future__ import annotations

import dataclasses

from algorithms import ClonesConfig, ImprovementConfig, OfflineValuesConfig, StagesConfig, UniO4Config
from experiments.presets import Preset
from experiments.presets import families as published
from experiments.presets.scale import PROBE_LOOP
from experiments.presets.unio4 import PROBE, PROBE_SCHEDULE, phases, shrink_stages, stages_schedule
from experiments.settings import LoopConfig
from hybridrl.task import Task

__all__ = ["phases", "preset"]

_LENGTHS = StagesConfig(value_updates=2_000_000, clone_updates=500_000)
_SHORT = StagesConfig(value_updates=200_000, clone_updates=50_000)  # the authors' advice for two data sets
_SHORT_ON = ("hopper-medium-v", "walker2d-medium-replay-v")
_CPU_GATE_EVERY = 100  # trials take environment steps


def preset(task: Task, scale: str) -> Preset:
    """Zhuang et al. 2023, main.py and notes of the published code; the same on all tasks but two."""
    published.family(task)  # refuses tasks without rewards
    improvement = ImprovementConfig(schedule="exponential", positive_weight=0.9, gate="returns", gate_every=1)
    if task.family == "probe":
        agent = dataclasses.replace(
            UniO4Config(**PROBE),
            values=dataclasses.replace(PROBE["values"], kind="sarsa", num_critics=1),
            clones=dataclasses.replace(PROBE["clones"], num_members=1, diversity="none"),
            improvement=dataclasses.replace(improvement, learning_rate=3e-3, gate_every=50),
        )
        return Preset(agent, dataclasses.replace(PROBE_SCHEDULE, online_steps=0), PROBE_LOOP)
    name = task.name.removeprefix("local/")
    agent = UniO4Config(
        standardize_observations=not name.startswith("hopper-medium-v"),
        stages=_SHORT if name.startswith(_SHORT_ON) else _LENGTHS,
        values=OfflineValuesConfig(kind="sarsa", num_critics=1),
        clones=ClonesConfig(num_members=1, diversity="none", actor_hidden_dims=(1024,) * 2),
        improvement=improvement,
    )
    schedule = dataclasses.replace(stages_schedule(1_000), online_steps=0, offline_every=100)
    found = Preset(agent, schedule, LoopConfig())
    if scale == "paper":
        return found
    small = shrink_stages(found, task)
    improvement = dataclasses.replace(small.agent.improvement, gate_every=_CPU_GATE_EVERY, reset_after=0)
    return dataclasses.replace(small, agent=dataclasses.replace(small.agent, improvement=improvement))
