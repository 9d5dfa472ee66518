"""WSRL: fine-tuning without offline data neither forgets at the switch nor ends lower (Zhou et al. 2025)."""

from __future__ import annotations

from typing import Any

import numpy as np

from experiments.claims import Claim, Curves, Finding, final_scores, greater

WINDOW = 1_000  # environment steps after the first update, a seventh of those that WSRL learns from
MARGIN = 5.0  # points of success that count as no loss: one of 20 evaluation episodes


def learning_starts(run: dict[str, Any]) -> int:
    """Environment steps done by the last evaluation before the first online update."""
    return max(steps for steps, updates in zip(run["env_steps"], run["online_updates"], strict=True) if updates == 0)


def in_window(run: dict[str, Any], name: str) -> list[float]:
    """A curve's values from the first update to the end of the window."""
    start = learning_starts(run)
    return [
        value
        for steps, updates, value in zip(run["env_steps"], run["online_updates"], run[name], strict=True)
        if updates > 0 and steps - start <= WINDOW
    ]


def loss_at_switch(run: dict[str, Any]) -> float:
    """Score at the switch minus the mean score over the window after the first update, in points.

    The mean over the window's evaluations, not their minimum: the minimum of several noisy evaluations lies below the
    truth even for a policy that never changes.
    """
    return run["scores"][0] - float(np.mean(in_window(run, "scores")))


def rise_of_error(run: dict[str, Any]) -> float:
    """Largest squared TD error on offline data in the window over the one at the switch: the downward spiral's mark."""
    return max(in_window(run, "offline_td_errors")) / run["offline_td_errors"][0]


def judge(curves: Curves) -> list[Finding]:
    """The two parts of the claim; seeds are paired, since variants of one seed share the offline agent."""
    losses = {name: np.array([loss_at_switch(run) for run in runs]) for name, runs in curves.items() if name != "rlpd"}
    finals = {name: final_scores(runs) for name, runs in curves.items()}
    findings = [
        greater(
            "WSRL does not lose its offline performance at the switch",
            f"minus WSRL's loss at the switch, points of success (margin {MARGIN:.0f})",
            -losses["wsrl"],
            MARGIN,
        ),
        greater(
            "without warm-up and without retention the same run loses more",
            "loss without warm-up minus loss with it, points of success",
            losses["no_warmup"] - losses["wsrl"],
        ),
        greater(
            "without warm-up the values of the offline data break down further",
            "rise of the TD error on offline data without warm-up minus the rise with it, in multiples",
            np.array([rise_of_error(run) for run in curves["no_warmup"]])
            - np.array([rise_of_error(run) for run in curves["wsrl"]]),
        ),
    ]
    for name, label in {"calql": "Cal-QL with retention", "rlpd": "RLPD"}.items():
        findings.append(
            greater(
                f"WSRL ends at least as high as {label}, given the same environment steps",
                f"final success of WSRL minus that of {label}, points (margin {MARGIN:.0f})",
                finals["wsrl"] - finals[name],
                MARGIN,
            )
        )
    return findings


CLAIM = Claim(
    name="wsrl",
    statement=(
        "After pre-training, online fine-tuning needs no offline data: with a short warm-up it keeps the offline "
        "performance at the switch and ends at least as high as methods that retain the data (Zhou et al. 2025, "
        "arXiv 2412.07762, abstract and figures 7, 9 and 10)"
    ),
    task="pointmaze-umaze-v2",
    variants={
        "wsrl": ("algo=wsrl",),
        # The published ablation still waits for a batch of rows; this one removes that wait too.
        "no_warmup": ("algo=wsrl", "schedule.warmup_steps=0", "schedule.min_buffer=1"),
        # With WSRL's networks, so that only the online phase differs.
        "calql": (
            "algo=calql",
            "agent.sac.num_critics=10",
            "agent.sac.actor_layer_norm=true",
            "agent.sac.critic_layer_norm=true",
            "agent.sac.subset_with_replacement=true",
        ),
        "rlpd": ("algo=rlpd",),
    },
    judge=judge,
    pretraining=("algo=wsrl", "schedule.online_steps=0"),
    pretrained=("wsrl", "no_warmup", "calql"),
)
