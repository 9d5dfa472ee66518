"""What surrounds the loop: how a run is carried out, who is told of it, and where it is."""

from __future__ import annotations

import dataclasses
from typing import Any, Protocol

from hybridrl.errors import ConfigError
from hybridrl.training.phases import Phase


@dataclasses.dataclass(frozen=True)
class LoopSettings:
    """How a run is carried out; what it learns is in its phases.

    Attributes:
        discount: of the Monte-Carlo returns stored with the data; the agents' own.
        replay_capacity: rows of the replay buffer.
        log_every: updates or environment steps per line of metrics.
        checkpoint_every: updates or environment steps per checkpoint. Environments are rebuilt at each, also in runs
            that are never interrupted, so that no simulator state has to be stored.
        eval_episodes: episodes per evaluation; of each goal, where the task has several.
        eval_envs: how many of them run in step.
        probe_rows: rows of the fixed offline batch, and of the newest finished online steps, for the switch panel.
    """

    discount: float = 0.99
    replay_capacity: int = 2_000_000
    log_every: int = 1_000
    checkpoint_every: int = 10_000
    eval_episodes: int = 20
    eval_envs: int = 20
    probe_rows: int = 1_024

    def __post_init__(self) -> None:
        """Reject settings that cannot work."""
        for field in ("replay_capacity", "log_every", "checkpoint_every", "eval_episodes", "eval_envs", "probe_rows"):
            if getattr(self, field) < 1:
                raise ConfigError(f"{field}={getattr(self, field)}; expected at least 1")
        if self.checkpoint_every % self.log_every:
            raise ConfigError(
                f"checkpoint_every={self.checkpoint_every} is no multiple of log_every={self.log_every}; make it one, "
                "so that no line of metrics spans a checkpoint"
            )


class Watcher(Protocol):
    """Told what a run does, and asked whether it should stop."""

    def progress(self, phase: Phase, done: int, rate: float) -> None:
        """`done` of `phase.length` updates or steps, at `rate` per second."""
        ...

    def evaluated(self, record: dict[str, Any]) -> None:
        """A new evaluation."""
        ...

    def should_stop(self) -> bool:
        """Whether to save what can be saved and stop now."""
        ...


class Stopped(Exception):
    """The watcher asked the run to stop; the same command resumes it."""


@dataclasses.dataclass
class Progress:
    """Where a run is; stored with each checkpoint."""

    phase: int = 0  # index of the current phase
    done: int = 0  # updates or environment steps done in it
    step: int = 0  # offline updates and environment steps in all: the x axis of the logs
    env_steps: int = 0
    updates: int = 0  # agent updates in all
    online_updates: int = 0  # of them, made with environment steps
    episodes: int = 0
    buffer_rows: int = 0
    probe_rows: int = 0
