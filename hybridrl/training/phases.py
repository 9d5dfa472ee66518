"""A run is a tuple of phases, and phases are data: one loop runs every schedule."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import jax

from hybridrl.errors import ConfigError
from hybridrl.replay.lookahead import Lookahead
from hybridrl.training.switch import check_fit
from hybridrl.types import Agent, Transitions


@dataclasses.dataclass(frozen=True)
class Learner:
    """Which agent: its class and the settings to create it with."""

    agent_class: Any
    config: Any

    def create(self, key: jax.Array, example: Transitions) -> Agent:
        """A fresh agent of this kind."""
        return self.agent_class.create(key, example, self.config)


@dataclasses.dataclass(frozen=True)
class Phase:
    """One stretch of a run.

    A phase without `env_steps` is offline: it makes `num_updates` updates on the dataset. One with `env_steps` acts in
    the environment. Where a phase's learner differs from the one before, the new agent is created and takes over all
    parts that both have (see `hybridrl.training.switch`).

    Attributes:
        name: how it appears in logs, e.g. "offline", "warmup", "online".
        learner: which agent.
        num_updates: updates of an offline phase.
        env_steps: environment steps of an interacting phase.
        updates_per_step: agent updates per environment step; 0 freezes everything.
        batch_size: rows per update.
        offline_ratio: share of offline rows in each batch of an interacting phase.
        mix_order: how they are laid out, see `hybridrl.replay.offline_rows`.
        start_buffer: "keep" the replay buffer as the last phase left it (empty at first) or "offline": begin with the
            whole dataset in it.
        actions: "policy" samples the agent's policy, "uniform" draws from the action box.
        insert: "step" stores each transition at once, "episode" only when its episode has ended and its Monte-Carlo
            returns are known.
        min_buffer: updates begin once the buffer holds so many rows.
        n_step: steps per transition of a training batch (see `hybridrl.replay.lookahead`).
        next_actions: whether training batches say which action came next.
        evaluate_at: numbers of updates (offline) or steps done in this phase at which to evaluate.
    """

    name: str
    learner: Learner
    num_updates: int = 0
    env_steps: int = 0
    updates_per_step: int = 0
    batch_size: int = 256
    offline_ratio: float = 0.0
    mix_order: str = "interleave"
    start_buffer: str = "keep"
    actions: str = "policy"
    insert: str = "step"
    min_buffer: int = 1
    n_step: int = 1
    next_actions: bool = False
    evaluate_at: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        """Reject phases that contradict themselves."""
        if (self.num_updates > 0) == (self.env_steps > 0):
            raise ConfigError(
                f"phase {self.name!r} has num_updates={self.num_updates} and env_steps={self.env_steps}; "
                "expected exactly one of them above 0"
            )
        for field, allowed in {
            "mix_order": ("interleave", "concat"),
            "start_buffer": ("keep", "offline"),
            "actions": ("policy", "uniform"),
            "insert": ("step", "episode"),
        }.items():
            if getattr(self, field) not in allowed:
                raise ConfigError(
                    f"phase {self.name!r}: {field}={getattr(self, field)!r}; expected one of {', '.join(allowed)}"
                )
        if self.updates_per_step < 0 or self.batch_size < 1 or self.min_buffer < 1 or self.n_step < 1:
            raise ConfigError(
                f"phase {self.name!r}: updates_per_step={self.updates_per_step}, batch_size={self.batch_size}, "
                f"min_buffer={self.min_buffer}, n_step={self.n_step}; expected at least 0, 1, 1 and 1"
            )
        if not 0.0 <= self.offline_ratio <= 1.0:
            raise ConfigError(f"phase {self.name!r}: offline_ratio={self.offline_ratio}; expected a share in [0, 1]")

    @property
    def offline(self) -> bool:
        """Whether it touches no environment."""
        return self.env_steps == 0

    @property
    def length(self) -> int:
        """Updates of an offline phase, environment steps of another."""
        return self.num_updates if self.offline else self.env_steps

    def lookahead(self, discount: float) -> Lookahead | None:
        """What its batches tell beyond one step; None if nothing."""
        plain = self.n_step == 1 and not self.next_actions
        return None if plain else Lookahead(self.n_step, self.next_actions, discount)

    @property
    def needs_dataset(self) -> bool:
        """Whether it reads offline data to train on."""
        return self.offline or self.offline_ratio > 0.0 or self.start_buffer == "offline"


def check_phases(phases: tuple[Phase, ...], example: Transitions) -> None:
    """Raise ConfigError before training starts if a phase could not be carried out.

    That is, if an agent could not take over from the one before it, or could not be updated on the phase's batches.

    Args:
        phases: the run.
        example: one row of the task's data, leaves `(1, ...)`.
    """
    if not phases:
        raise ConfigError("a run needs at least one phase; got none")

    for phase in phases:
        if phase.offline or phase.updates_per_step > 0:
            row = example.replace(next_actions=example.actions) if phase.next_actions else example
            batch = jax.tree.map(
                lambda field, rows=phase.batch_size: jax.ShapeDtypeStruct((rows, *field.shape[1:]), field.dtype), row
            )
            try:
                jax.eval_shape(lambda agent, batch: agent.update(batch), _shapes(phase.learner, example), batch)
            except ValueError as error:
                raise ConfigError(f"phase {phase.name!r} cannot update its agent: {error}") from error

    for before, after in itertools.pairwise(phases):
        check_handover(before.learner, after.learner, example)


def check_handover(before: Learner, after: Learner, example: Transitions) -> None:
    """Raise ConfigError, listing what differs, if one learner's agent could not take over from the other's.

    Args:
        before, after: of consecutive phases.
        example: one row of data, leaves `(1, ...)`.
    """
    if before != after:
        check_fit(_shapes(before, example), _shapes(after, example))


def _shapes(learner: Learner, example: Transitions) -> Agent:
    found: Agent = jax.eval_shape(learner.create, jax.random.key(0), example)
    return found
