"""What the algorithms for simulators with a dynamics gap share: H2O's protocol, and batches of two sources."""

from __future__ import annotations

import dataclasses
from typing import Any

from algorithms import DiscriminatorConfig, SACConfig
from experiments.presets import Preset
from experiments.presets import families as published
from experiments.presets.scale import PROBE_EVALUATIONS, PROBE_LOOP, shrink
from experiments.schedules import online_phases
from experiments.settings import LoopConfig, ScheduleConfig
from hybridrl.errors import ConfigError
from hybridrl.task import Task
from hybridrl.training.phases import Learner, Phase

_PROBE_WIDTHS = (32,) * 2


def gap_preset(config: Any, task: Task, scale: str) -> Preset:
    """Niu et al. 2022 and its launch script: 1,000 rounds of 1,000 simulated steps and 1,000 updates.

    Evaluated every 10,000 steps by 5 deterministic episodes in the real environment. `config` holds the agent's
    published settings, which are the same for every task; the probes get smaller networks.
    """
    common: dict[str, Any] = {"offline_updates": 0, "warmup_steps": 0, "retention": "mixed"}
    if published.family(task) == "probe":
        sac: SACConfig = dataclasses.replace(
            config.sac, actor_hidden_dims=_PROBE_WIDTHS, critic_hidden_dims=_PROBE_WIDTHS
        )
        discriminator: DiscriminatorConfig = dataclasses.replace(
            config.discriminator, hidden_dims=_PROBE_WIDTHS, batch_size=64
        )
        agent = dataclasses.replace(config, sac=sac, discriminator=discriminator)
        schedule = ScheduleConfig(
            online_steps=800,
            online_batch_size=64,
            updates_per_step=50,
            update_every=50,
            **common,
            **PROBE_EVALUATIONS,
        )
        return Preset(agent, schedule, PROBE_LOOP)
    schedule = ScheduleConfig(
        online_steps=1_000_000,
        online_batch_size=256,
        updates_per_step=1_000,
        update_every=1_000,
        every=10_000,
        dense_until=0,
        **common,
    )
    found = Preset(config, schedule, LoopConfig(eval_episodes=5, eval_envs=5))
    return shrink(found, task) if scale == "cpu" else found


def gap_phases(learner: Learner, config: Any, task: Task, rows: int) -> tuple[Phase, ...]:
    """One phase: act in the simulator, then learn from real and simulated rows, kept apart.

    Args:
        rows: of each source and update, what the agent learns from; the discriminators get their own beside them.

    Raises:
        ConfigError: the task has no simulator, or the schedule asks for what these algorithms do not have.
    """
    schedule = config.schedule
    if task.simulator is None:
        raise ConfigError(
            f"algo={config.algo} acts in a simulator and task {task.name!r} has none; choose a task with a dynamics "
            "gap, e.g. task=local/halfcheetah-medium-v0+gravity2"
        )
    for field, expected in {"offline_updates": 0, "retention": "mixed", "offline_ratio": 0.5}.items():
        if getattr(schedule, field) != expected:
            raise ConfigError(
                f"schedule.{field}={getattr(schedule, field)!r}; algo={config.algo} learns from the real data beside "
                f"simulated steps, as many rows of each: expected {expected!r}"
            )
    *before, online = online_phases(learner, learner, schedule, min_buffer=1)
    batch_size = rows + config.agent.discriminator.batch_size
    return (*before, dataclasses.replace(online, batches="separate", batch_size=batch_size))
