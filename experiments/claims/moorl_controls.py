"""MOORL beside Lookahead SAC on further tasks: what single sources add to slow weights. A report, not a claim.

The paper has no such control. `experiments.claims.moorl` compares the two on `local/hopper-medium-v0`; here they meet
on two tasks whose optimum is known, with equal K, meta rate, networks and update ratio: only the batches differ.
"""

from __future__ import annotations

from experiments.claims import Claim, Curves, Finding, areas, final_scores, greater

TASKS = {"reach": "probe/reach-v0", "plane": "probe/halves-exact-v0"}

# H2O's claim learns on the plane by these rates; the evaluations are many, so that seeds and not episodes differ.
_SETTINGS = (
    "agent.discount=0.9",
    "agent.actor_learning_rate=1e-3",
    "agent.critic_learning_rate=3e-3",
    "agent.temperature_learning_rate=3e-3",
    "agent.initial_temperature=0.1",
    "agent.target_update_rate=0.02",
    "schedule.dense_until=0",
    "schedule.every=100",
    "loop.eval_episodes=50",
    "loop.eval_envs=50",
    "loop.checkpoint_every=800",
)


def judge(curves: Curves) -> list[Finding]:
    """MOORL minus Lookahead SAC on each task, by final score and by the area under the curve. Seeds are paired."""
    findings = []
    for name, task in TASKS.items():
        ours, control = curves[name], curves[f"{name}_lookahead"]
        findings += [
            greater(
                f"MOORL ends above Lookahead SAC on {task}",
                f"final score of {name} minus that of {name}_lookahead",
                final_scores(ours) - final_scores(control),
            ),
            greater(
                f"MOORL learns faster than Lookahead SAC on {task}",
                f"mean score over the run, that of {name} minus that of {name}_lookahead",
                areas(ours) - areas(control),
            ),
        ]
    return findings


def _variants() -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for name, task in TASKS.items():
        found[name] = ("algo=moorl", f"task={task}", *_SETTINGS)
        found[f"{name}_lookahead"] = ("algo=lookaheadsac", f"task={task}", *_SETTINGS)
    return found


CLAIM = Claim(
    name="moorl_controls",
    statement=(
        "Report: blocks of offline and of online data, as in MOORL (Chaudhary et al. 2025, arXiv 2506.09574), against "
        "mixed batches with the same slow weights; superiority is not expected, only measured"
    ),
    task=TASKS["reach"],
    variants=_variants(),
    judge=judge,
)
