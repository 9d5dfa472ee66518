"""Uni-O4: one on-policy objective improves clones offline and goes on online without a dip (Lei et al. 2024)."""

from __future__ import annotations

from typing import Any

import numpy as np

from experiments.claims import Claim, Curves, Finding, areas, final_scores, greater

ROBOTS = ("hopper", "halfcheetah")
MARGIN = 5.0  # points of the normalised score that count as no loss
SHARE = 0.9  # of the score at the switch that the first online evaluations must keep
WINDOW = 5  # evaluations after the switch, one per rollout of 2,048 steps


def gain_offline(run: dict[str, Any]) -> float:
    """Score at the end of offline PPO minus that of the clone it began with."""
    return run["offline_scores"][-1] - run["offline_scores"][0]


def kept_at_switch(run: dict[str, Any]) -> float:
    """Mean score over the window after the switch minus `SHARE` of the score before it."""
    return float(np.mean(run["scores"][1 : 1 + WINDOW])) - SHARE * run["scores"][0]


def judge(curves: Curves) -> list[Finding]:
    """The parts of the claim for each robot. Seeds are paired."""
    findings = []
    for robot in ROBOTS:
        ours, scratch = curves[robot], curves[f"{robot}_ppo"]
        gains = np.array([gain_offline(run) for run in ours])
        before = np.array([run["scores"][0] for run in ours])
        least = np.array([run["metrics"]["gate/least_gain"] for run in ours])
        findings += [
            greater(f"{robot}: offline PPO improves on its clones", "final minus first score of the phase", gains),
            greater(
                f"{robot}: offline PPO never collapses",
                f"worst seed's final minus first score (margin {MARGIN:.0f})",
                np.full(len(gains), gains.min()),
                MARGIN,
            ),
            greater(
                f"{robot}: no snapshot with a lower AM-Q is accepted",
                "least rise of AM-Q at an acceptance, 0 where there was none",
                least,
                1e-9,
            ),
            greater(
                f"{robot}: online PPO begins without a dip",
                f"mean score of the first {WINDOW} online evaluations minus {SHARE:.0%} of that at the switch",
                np.array([kept_at_switch(run) for run in ours]),
            ),
            greater(
                f"{robot}: online PPO goes on improving",
                "final score minus that at the switch",
                final_scores(ours) - before,
            ),
            greater(
                f"{robot}: it is ahead of PPO from scratch, given the same environment steps",
                "mean score over the run minus PPO's",
                areas(ours) - areas(scratch),
            ),
        ]
    return findings


def _variants() -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for robot in ROBOTS:
        task = f"task=local/{robot}-medium-v0"
        found[robot] = ("algo=unio4", task)
        # The same networks and settings, without the stages before.
        found[f"{robot}_ppo"] = ("algo=unio4", task, "schedule.offline_updates=0")
    return found


CLAIM = Claim(
    name="unio4",
    statement=(
        "One on-policy objective serves offline and online: multi-step offline PPO with offline policy evaluation "
        "improves on the cloned behaviour without collapsing, and online fine-tuning goes on from it without a dip and "
        "faster than from scratch (Lei et al. 2024, arXiv 2311.03351, abstract, figures 3, 4 and 6)"
    ),
    task="local/hopper-medium-v0",
    variants=_variants(),
    judge=judge,
    metrics=("gate/least_gain",),
)
