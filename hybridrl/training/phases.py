"""A run is a tuple of phases, and phases are data: one loop runs every schedule."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp

from hybridrl.datasets.dataset import Dataset
from hybridrl.errors import ConfigError
from hybridrl.replay import (
    BlockSampler,
    Bootstrap,
    BufferLookahead,
    Lookahead,
    LookaheadSampler,
    MixtureSampler,
    ReplayBuffer,
    SeparateSampler,
    StepSampler,
    UniformSampler,
)
from hybridrl.replay.goals import FlatGoals, HierarchicalGoals, OptionGoals
from hybridrl.replay.samplers import BLOCK_SOURCES
from hybridrl.training.switch import check_fit
from hybridrl.types import Agent, OnPolicyBatch, Rollout, Sampler, Transitions

ROLLOUT_FIELDS = ("num_envs", "rollout_steps", "offline_rows", "offline_by_step")


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
        updates_per_step: agent updates at a step that updates; 0 freezes everything.
        update_every: environment steps from one step that updates to the next; with 1, the usual, each does.
        batch_size: rows per update; with "separate", of each source; with "blocks", per batch of the block.
        batches: what an update gets. "mixed": Transitions, offline and online rows in one batch. "separate": a
            SourcedBatch, the two kept apart. "blocks": a SourceBlock, several batches from one source. "rollouts": an
            OnPolicyBatch; the phase makes one update per rollout, has no replay buffer and heeds, beside name, learner,
            env_steps and evaluate_at, only the four settings that follow.
        num_envs, rollout_steps: environments of a rollout, and steps of each; `env_steps` counts those of all.
        offline_rows: rows of the dataset that come with each rollout.
        offline_by_step: draw so many of each time step, see `hybridrl.replay.StepSampler`; in an offline phase, whose
            batches then have leaves `(horizon, batch_size, ...)`, too.
        block_length, block_source: batches per block, and how the source is chosen, see
            `hybridrl.replay.BlockSampler`.
        offline_ratio: share of offline rows in each batch of an interacting phase; with "blocks", of offline blocks.
        mix_order: how they are laid out, see `hybridrl.replay.offline_rows`.
        start_buffer: "keep" the replay buffer as the last phase left it (empty at first) or "offline": begin with the
            whole dataset in it.
        actions: "policy" samples the agent's policy, "uniform" draws from the action box.
        insert: "step" stores each transition at once, "episode" only when its episode has ended and its Monte-Carlo
            returns are known.
        min_buffer: updates begin once the buffer holds so many rows.
        n_step: steps per transition of a training batch (see `hybridrl.replay.lookahead`).
        next_actions: whether training batches say which action came next.
        goals: how goals are drawn for the rows of an offline phase's batches; None for agents without goals.
        bootstrap: makes an offline phase's batches a `BootstrapBatch`, for ensembles; None for all other agents.
        judge_at: numbers of updates of an offline phase, 0 among them, at which the agent's candidates are tried in the
            environment (see `hybridrl.types.JudgedByReturns`); without any, the phase touches no environment.
        judge_episodes: episodes of each candidate in a trial.
        evaluate_at: numbers of updates (offline) or steps done in this phase at which to evaluate.
    """

    name: str
    learner: Learner
    num_updates: int = 0
    env_steps: int = 0
    updates_per_step: int = 0
    update_every: int = 1
    batch_size: int = 256
    batches: str = "mixed"
    num_envs: int = 1
    rollout_steps: int = 1
    offline_rows: int = 0
    offline_by_step: bool = False
    block_length: int = 1
    block_source: str = "coin"
    offline_ratio: float = 0.0
    mix_order: str = "interleave"
    start_buffer: str = "keep"
    actions: str = "policy"
    insert: str = "step"
    min_buffer: int = 1
    n_step: int = 1
    next_actions: bool = False
    goals: FlatGoals | HierarchicalGoals | OptionGoals | None = None
    bootstrap: Bootstrap | None = None
    judge_at: tuple[int, ...] = ()
    judge_episodes: int = 10
    evaluate_at: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        """Reject phases that contradict themselves."""
        if (self.num_updates > 0) == (self.env_steps > 0):
            raise ConfigError(
                f"phase {self.name!r} has num_updates={self.num_updates} and env_steps={self.env_steps}; "
                "expected exactly one of them above 0"
            )
        for field, allowed in {
            "batches": ("mixed", "separate", "blocks", "rollouts"),
            "block_source": BLOCK_SOURCES,
            "mix_order": ("interleave", "concat"),
            "start_buffer": ("keep", "offline"),
            "actions": ("policy", "uniform"),
            "insert": ("step", "episode"),
        }.items():
            if getattr(self, field) not in allowed:
                raise ConfigError(
                    f"phase {self.name!r}: {field}={getattr(self, field)!r}; expected one of {', '.join(allowed)}"
                )
        if self.updates_per_step < 0:
            raise ConfigError(f"phase {self.name!r}: updates_per_step={self.updates_per_step}; expected at least 0")
        if self.judge_at and self.env_steps:
            raise ConfigError(
                f"phase {self.name!r}: judge_at={self.judge_at} and env_steps={self.env_steps}; candidates are "
                "tried in phases on data: expected none of them or no env_steps"
            )
        for field in ("update_every", "batch_size", "block_length", "min_buffer", "n_step", "judge_episodes"):
            if getattr(self, field) < 1:
                raise ConfigError(f"phase {self.name!r}: {field}={getattr(self, field)}; expected at least 1")
        if not 0.0 <= self.offline_ratio <= 1.0:
            raise ConfigError(f"phase {self.name!r}: offline_ratio={self.offline_ratio}; expected a share in [0, 1]")
        if self.batches == "separate" and (self.offline or self.offline_ratio != 0.5):
            raise ConfigError(
                f"phase {self.name!r}: batches='separate' draws as many offline as online rows: expected env_steps "
                f"above 0 and offline_ratio=0.5; got {self.env_steps} and {self.offline_ratio}"
            )
        if self.batches != "mixed" and (self.n_step > 1 or self.next_actions):
            raise ConfigError(
                f"phase {self.name!r}: n_step={self.n_step}, next_actions={self.next_actions}; "
                f"batches={self.batches!r} look one step ahead: expected 1 and False"
            )
        if self.goals is not None and (self.env_steps or self.batches != "mixed" or self.lookahead(1.0) is not None):
            raise ConfigError(
                f"phase {self.name!r} draws goals and has env_steps={self.env_steps}, batches={self.batches!r}, "
                f"n_step={self.n_step}, next_actions={self.next_actions}; goals are drawn for single steps of a "
                "dataset: expected 0, 'mixed', 1, False"
            )
        if self.bootstrap is not None and (
            self.env_steps or self.goals is not None or self.batches != "mixed" or self.lookahead(1.0) is not None
        ):
            raise ConfigError(
                f"phase {self.name!r} resamples its rows and has env_steps={self.env_steps}, "
                f"goals={self.goals}, batches={self.batches!r}, n_step={self.n_step}, "
                f"next_actions={self.next_actions}; resamples are of single steps of a dataset: expected 0, None, "
                "'mixed', 1, False"
            )
        self._check_rollouts()

    def _check_rollouts(self) -> None:
        """Raise ConfigError for settings of rollouts elsewhere, for others in a phase of rollouts, and for misfits."""
        rollouts = self.batches == "rollouts"
        heeded = {"name", "learner", "env_steps", "evaluate_at", "batches", *(ROLLOUT_FIELDS if rollouts else ())}
        elsewhere = set(ROLLOUT_FIELDS) - ({"offline_by_step"} if self.offline else set())
        for field in dataclasses.fields(self):
            idle = field.name not in heeded if rollouts else field.name in elsewhere
            if idle and getattr(self, field.name) != field.default:
                raise ConfigError(
                    f"phase {self.name!r}: batches={self.batches!r} makes no use of {field.name}="
                    f"{getattr(self, field.name)!r}; leave it out"
                )
        if self.num_envs < 1 or self.rollout_steps < 1 or self.offline_rows < 0:
            raise ConfigError(
                f"phase {self.name!r}: num_envs={self.num_envs}, rollout_steps={self.rollout_steps}, "
                f"offline_rows={self.offline_rows}; expected at least 1, 1 and 0"
            )
        plain = self.goals is None and self.bootstrap is None and self.lookahead(1.0) is None
        if self.offline_by_step and not plain:
            raise ConfigError(
                f"phase {self.name!r} draws rows by time step and has goals={self.goals}, bootstrap={self.bootstrap}, "
                f"n_step={self.n_step}, next_actions={self.next_actions}; expected None, None, 1, False"
            )
        if self.offline_by_step and rollouts and not self.offline_rows:
            raise ConfigError(
                f"phase {self.name!r}: offline_by_step=True and offline_rows=0; set how many of each step"
            )
        if rollouts:
            for field_name, points in {"env_steps": (self.env_steps,), "evaluate_at": self.evaluate_at}.items():
                for steps in points:
                    if steps % self.steps_per_rollout:
                        count = max(steps // self.steps_per_rollout, 1)
                        raise ConfigError(
                            f"phase {self.name!r}: {field_name}={steps} is no multiple of num_envs * rollout_steps = "
                            f"{self.num_envs} * {self.rollout_steps}; choose {count * self.steps_per_rollout} or "
                            f"{(count + 1) * self.steps_per_rollout}"
                        )

    @property
    def steps_per_rollout(self) -> int:
        """Environment steps of one rollout, all environments together."""
        return self.num_envs * self.rollout_steps

    @property
    def offline(self) -> bool:
        """Whether it touches no environment."""
        return self.env_steps == 0

    @property
    def trains(self) -> bool:
        """Whether it updates its agent; a phase that does not acts with a frozen one."""
        return self.offline or self.batches == "rollouts" or self.updates_per_step > 0

    @property
    def updates_per_unit(self) -> float:
        """Agent updates per unit of `length`: per update of an offline phase, per environment step of another."""
        if self.offline:
            return 1.0
        if self.batches == "rollouts":
            return 1.0 / (self.num_envs * self.rollout_steps)
        return self.updates_per_step / self.update_every

    @property
    def length(self) -> int:
        """Updates of an offline phase, environment steps of another."""
        return self.num_updates if self.offline else self.env_steps

    def lookahead(self, discount: float) -> Lookahead | None:
        """What its batches tell beyond one step; None if nothing."""
        plain = self.n_step == 1 and not self.next_actions
        return None if plain else Lookahead(self.n_step, self.next_actions, discount)

    def dataset_sampler(self, dataset: Dataset, discount: float) -> Sampler:
        """Draws the offline rows of its batches from `dataset`."""
        if self.goals is not None:
            return self.goals.sampler(dataset)
        if self.bootstrap is not None:
            return self.bootstrap.sampler(dataset)
        if self.offline_by_step:
            return StepSampler.create(dataset)
        ahead = self.lookahead(discount)
        return UniformSampler(dataset.transitions) if ahead is None else LookaheadSampler.create(dataset, ahead)

    @property
    def needs_dataset(self) -> bool:
        """Whether it reads offline data to train on."""
        mixed = self.offline_ratio > 0.0 or self.batches == "blocks" or self.offline_rows > 0
        return self.offline or mixed or self.start_buffer == "offline"

    def sampler(
        self,
        offline: Sampler | None,
        buffer: ReplayBuffer | None,
        index: jax.Array,
        lookahead: Lookahead | None = None,
    ) -> Sampler:
        """Where an update's batch comes from.

        Args:
            offline: rows of the dataset, as `dataset_sampler` draws them; None only where `needs_dataset` is false.
            buffer: the replay buffer; None in an offline phase.
            index: int32 `()`, number of the update within the phase.
            lookahead: what mixed batches tell of the buffer's rows beyond one step.
        """
        if self.batches == "blocks":
            assert isinstance(offline, UniformSampler), "checked before training starts"
            return BlockSampler(offline, buffer, index, self.block_length, self.block_source, self.offline_ratio)
        if buffer is None:
            assert offline is not None, "checked before training starts"
            return offline
        online: Sampler = buffer if lookahead is None else BufferLookahead(buffer, lookahead)
        if self.offline_ratio == 0.0:
            return online
        assert offline is not None, "checked before training starts"
        if self.batches == "separate":
            return SeparateSampler(offline, online)
        return MixtureSampler(offline, online, self.offline_ratio, self.mix_order)


def check_phases(phases: tuple[Phase, ...], example: Transitions, longest_episode: int = 1) -> None:
    """Raise ConfigError before training starts if a phase could not be carried out.

    That is, if an agent could not take over from the one before it, or could not be updated on the phase's batches.

    Args:
        phases: the run.
        example: one row of the task's data, leaves `(1, ...)`.
        longest_episode: steps of the longest episode of the dataset, if there is one.
    """
    if not phases:
        raise ConfigError("a run needs at least one phase; got none")

    for phase in phases:
        if phase.trains:
            batch = _batch_shapes(phase, example, longest_episode)
            try:
                jax.eval_shape(lambda agent, batch: agent.update(batch), _shapes(phase.learner, example), batch)
            except ValueError as error:
                raise ConfigError(f"phase {phase.name!r} cannot update its agent: {error}") from error

    for before, after in itertools.pairwise(phases):
        check_handover(before.learner, after.learner, example)


def _batch_shapes(phase: Phase, example: Transitions, longest_episode: int) -> Any:
    """The shapes of what an update of the phase gets."""
    if phase.batches == "rollouts":
        rollout = Rollout(
            observations=example.observations,
            actions=example.actions,
            rewards=example.rewards,
            masks=example.masks,
            ends=example.masks,
            next_observations=example.next_observations,
        )
        rows = (longest_episode, phase.offline_rows) if phase.offline_by_step else (phase.offline_rows,)
        return OnPolicyBatch(
            rollout=_repeated(rollout, (phase.rollout_steps, phase.num_envs)),
            offline=_repeated(example, rows) if phase.offline_rows else None,
        )
    if phase.offline_by_step:
        return _repeated(example, (longest_episode, phase.batch_size))
    row = example.replace(next_actions=example.actions) if phase.next_actions else example
    buffer = None if phase.offline else ReplayBuffer.create(row, 1)
    # Rows that look ahead have the shapes of plain ones.
    special = phase.goals is not None or phase.bootstrap is not None
    offline = phase.dataset_sampler(_two_rows(example), 1.0) if special else UniformSampler(row)
    sampler = phase.sampler(offline, buffer, jnp.int32(0))
    return jax.eval_shape(functools.partial(sampler.sample, batch_size=phase.batch_size), jax.random.key(0))


def _repeated(row: Any, shape: tuple[int, ...]) -> Any:
    """The shapes of `row`, leaves `(1, ...)`, with `shape` in place of the 1."""
    return jax.tree.map(lambda field: jax.ShapeDtypeStruct((*shape, *field.shape[1:]), field.dtype), row)


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


def _two_rows(example: Transitions) -> Dataset:
    """The dataset of one episode of two steps, both `example`, leaves `(1, ...)`."""
    return Dataset(
        transitions=jax.tree.map(lambda field: jnp.concatenate([field, field]), example),
        truncations=jnp.array([0.0, 1.0]),
        episode_starts=jnp.zeros(1, jnp.int32),
        episode_lengths=jnp.full(1, 2, jnp.int32),
    )
