"""HNPG: with offline data an on-policy method opens locks that it does not open without (Zhou et al. 2024)."""

from __future__ import annotations

import numpy as np

from experiments.claims import Claim, Curves, Finding, final_scores, greater

SOLVED = 50.0  # per cent of episodes that open the lock, the paper's threshold
UNSOLVED = 5.0  # per cent: what counts as never

_LOCKS = {"hnpg": "5 steps", "hnpg_h10": "10 steps", "hnpg_h15": "15 steps, 300 episodes per update,"}
_WITHOUT = {
    "trpo": "TRPO, which has no offline data",
    "no_offline_critic": "HNPG without the offline targets of its critic",
    "no_offline_actor": "HNPG without the offline states of its policy step",
}


def judge(curves: Curves) -> list[Finding]:
    """Success of the last three evaluations, by drawn actions as in training: above one half, or next to nothing."""
    finals: dict[str, np.ndarray] = {name: final_scores(runs) for name, runs in curves.items()}
    return [
        *(
            greater(
                f"HNPG opens the lock of {label} in most episodes",
                f"final success of {name} minus {SOLVED:.0f}, points",
                finals[name] - SOLVED,
            )
            for name, label in _LOCKS.items()
        ),
        *(
            greater(
                f"{label} does not open the lock of 5 steps",
                f"{UNSOLVED:.0f} minus the final success of {name}, points",
                UNSOLVED - finals[name],
            )
            for name, label in _WITHOUT.items()
        ),
    ]


CLAIM = Claim(
    name="hnpg",
    statement=(
        "Offline data in the critic and among the states of an on-policy method open combination locks on which the "
        "method alone fails from 5 steps on, and each of the two uses is needed (Zhou et al. 2024, arXiv 2311.08384, "
        "section 6 and figure 2; the ablation is ours)"
    ),
    task="lock/h5-v0",
    variants={
        "hnpg": ("algo=hnpg",),
        "trpo": ("algo=trpo",),
        "no_offline_critic": ("algo=hnpg", "agent.offline_critic=false"),
        "no_offline_actor": ("algo=hnpg", "agent.offline_actor=false"),
        "hnpg_h10": ("algo=hnpg", "task=lock/h10-v0"),
        "hnpg_h15": ("algo=hnpg", "task=lock/h15-v0"),
    },
    judge=judge,
)
