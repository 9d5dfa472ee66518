"""MOORL: does a meta-policy over single-source blocks help? Its controls decide (Chaudhary et al. 2025)."""

from __future__ import annotations

import numpy as np

from experiments.claims import Claim, Curves, Finding, areas, final_scores, greater

_STEPS = ("schedule.online_steps=10000", "schedule.warmup_steps=1000", "schedule.dense_until=0", "schedule.every=1000")

_RIVALS = {
    "rlpd": "RLPD, which makes 20 updates per step with 10 critics",
    "mixed_sac": "SAC on mixed batches, without the meta-step",
    "lookahead_sac": "Lookahead SAC on mixed batches, with the meta-step but without single sources",
    "online_sac": "online SAC, which has no offline data",
    "offline_only": "the same learner on the offline data alone",
}


def judge(curves: Curves) -> list[Finding]:
    """MOORL against each rival, by final score and by the area under the curve. Seeds are paired."""
    finals = {name: final_scores(runs) for name, runs in curves.items()}
    under = {name: areas(runs) for name, runs in curves.items()}
    findings = [
        greater(
            f"MOORL ends above {label}", f"final score of MOORL minus that of {name}", finals["moorl"] - finals[name]
        )
        for name, label in _RIVALS.items()
    ]
    for name in ("mixed_sac", "lookahead_sac"):
        difference: np.ndarray = under["moorl"] - under[name]
        findings.append(
            greater(
                f"MOORL learns faster than its control {name}",
                f"mean score over the run, MOORL's minus that of {name}",
                difference,
            )
        )
    return findings


CLAIM = Claim(
    name="moorl",
    statement=(
        "Meta-learning one policy over blocks of offline and of online data improves on hybrid and offline baselines "
        "without large ensembles or high update ratios (Chaudhary et al. 2025, arXiv 2506.09574, abstract)"
    ),
    task="local/hopper-medium-v0",
    variants={
        "moorl": ("algo=moorl", *_STEPS),
        "mixed_sac": ("algo=mixedsac", *_STEPS),
        "lookahead_sac": ("algo=lookaheadsac", *_STEPS),
        "rlpd": ("algo=rlpd", *_STEPS),
        "online_sac": ("algo=mixedsac", "schedule.offline_ratio=0", *_STEPS),
        "offline_only": ("algo=moorl", "schedule.offline_ratio=1", *_STEPS),
    },
    judge=judge,
)
