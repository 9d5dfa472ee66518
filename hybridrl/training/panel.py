"""The switch panel: the same diagnostics before, at and after the switch from offline to online, for every run."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax

from hybridrl.training.phases import Phase
from hybridrl.types import Agent, Metrics, Transitions


@jax.jit
def value_diagnostics(agent: Agent, batch: Any, key: jax.Array) -> Metrics:
    """Mean Q, mean Monte-Carlo return, their difference and the TD error on `batch`, leaves `(rows, ...)`.

    Of an agent that learns no values, the return alone. Rows with goals have no return.
    """
    found = agent.diagnose(batch, key)
    if not isinstance(batch, Transitions):
        return found
    returns = batch.mc_returns.mean()
    if not found:
        return {"return": returns}
    return {"q": found["q"], "return": returns, "q_minus_return": found["q"] - returns, "td_error": found["td_error"]}


def offline_share(
    phase: Phase,
    before: Sequence[Phase],
    done: int,
    buffer_rows: int,
    capacity: int,
    dataset_rows: int,
    longest_episode: int,
) -> float:
    """Expected share of offline rows in what an update gets.

    Args:
        phase: the current one.
        before: the phases of the run before it.
        done: updates or environment steps done in it.
        buffer_rows, capacity: of the replay buffer.
        dataset_rows, longest_episode: rows of the dataset, and how many of them its longest episode has; 0 without one.
    """
    if phase.offline:
        return 1.0
    if phase.batches == "rollouts":
        rows = phase.offline_rows * (longest_episode if phase.offline_by_step else 1)
        return rows / (rows + phase.steps_per_rollout)
    if phase.batches == "blocks" and phase.block_source != "mixed":
        # Every block has a single source.
        if buffer_rows < phase.batch_size:
            return 1.0
        return {
            "coin": phase.offline_ratio,
            "alternate": 0.5,
            "proportional": dataset_rows / (dataset_rows + buffer_rows),
        }[phase.block_source]
    inserted = 0
    begun = (*before, phase)
    if appending := [index for index, p in enumerate(begun) if p.start_buffer == "offline"]:
        newer = sum(p.env_steps for p in begun[appending[-1] : -1] if p.batches != "rollouts") + done
        # A full ring overwrites the oldest rows first, which are the dataset's.
        inserted = min(dataset_rows, max(capacity - newer, 0))
    in_buffer = inserted / max(buffer_rows, 1)
    rows = phase.batch_size * phase.block_length  # a mixed block is drawn as one batch
    mixed = int(rows * phase.offline_ratio) / rows
    return mixed + (1.0 - mixed) * in_buffer


@dataclasses.dataclass(frozen=True)
class SwitchSummary:
    """What the switch did to a run's score (0-100), from its evaluations.

    Attributes:
        before: score at the end of offline training.
        after: score at the first evaluation after the first online update.
        final: mean score of the last three evaluations.
        dip_depth: how far the score fell below `before` at its lowest within the dip window; 0 if it never did.
        dip_length: environment steps from the first fall below `before` until the score is back; the rest of the run
            if it never is; 0 without a dip.
        regret: mean shortfall from 100 over the online environment steps (trapezoids between evaluations).
    """

    before: float
    after: float
    final: float
    dip_depth: float
    dip_length: int
    regret: float


def summarize_switch(
    env_steps: Sequence[int], updates_online: Sequence[int], scores: Sequence[float], dip_window: int
) -> SwitchSummary:
    """The summary of evaluations in time order, the first of them at the end of offline training.

    Args:
        env_steps: environment steps done by each evaluation, 0 for the first.
        updates_online: updates made since the switch by each evaluation.
        scores: their mean scores.
        dip_window: environment steps after the first online update within which a fall counts as the dip.
    """
    if not scores or env_steps[0] != 0:
        raise ValueError(
            f"evaluations at env_steps {list(env_steps)[:3]}...; expected the first at 0, before the switch"
        )
    before = scores[0]
    trained = [index for index, count in enumerate(updates_online) if count > 0]
    after = scores[trained[0]] if trained else before
    learning_starts = max(env_steps[index] for index in range(len(scores)) if not trained or index < trained[0])
    in_window = [index for index in trained if env_steps[index] - learning_starts <= dip_window]
    depth = max([0.0] + [before - scores[index] for index in in_window])
    fallen = next((index for index in trained if scores[index] < before), None)
    length = 0
    if fallen is not None:
        back = next((index for index in trained if index > fallen and scores[index] >= before), None)
        length = (env_steps[back] if back is not None else env_steps[-1]) - env_steps[fallen]
    area = sum(
        (env_steps[i + 1] - env_steps[i]) * (200.0 - scores[i] - scores[i + 1]) / 2.0 for i in range(len(scores) - 1)
    )
    regret = area / env_steps[-1] if env_steps[-1] else 100.0 - before
    last = scores[-3:]
    return SwitchSummary(before, after, sum(last) / len(last), depth, int(length), regret)


def panel_row(evaluation: dict[str, Any]) -> dict[str, float]:
    """The panel's part of one stored evaluation, for tables and figures; absent entries are left out."""
    return {name: value for name, value in evaluation.get("panel", {}).items() if value is not None}
