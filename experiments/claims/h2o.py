"""H2O: real data and a flawed simulator together beat either alone (Niu et al. 2022)."""

from __future__ import annotations

from experiments.claims import Claim, Curves, Finding, final_scores, greater, mean_metrics, within

MARGIN = 5.0  # points: a twentieth of the way from standing still to the best
RATIO_TOLERANCE = 0.1
STRONG = "task=probe/halves-v0"  # half of the plane's simulator is upside down
NONE = "task=probe/halves-exact-v0"

# Networks of two layers of 32 on a task of 20 steps learn at these rates; all variants have them.
_RATES = (
    "agent.discount=0.9",
    "agent.actor_learning_rate=1e-3",
    "agent.critic_learning_rate=3e-3",
    "agent.temperature_learning_rate=3e-3",
    "agent.initial_temperature=0.1",
    "agent.target_update_rate=0.02",
)
_EVALUATIONS = (
    "schedule.every=500",
    "schedule.dense_until=0",
    "loop.eval_episodes=100",
    "loop.eval_envs=100",
    "loop.log_every=500",
    "loop.checkpoint_every=7500",
)
_H2O = (
    *_RATES,
    "agent.discriminator.learning_rate=3e-3",
    "agent.discriminator.noise_std=0.02",
    "schedule.online_steps=7500",
    *_EVALUATIONS,
)
# H2O's own learner without what makes it H2O, so that the comparison is of the method and not of its base.
_BASE = {
    "num_critics": "2",
    "num_target_critics": "2",
    "critic_updates": "1",
    "subset_with_replacement": "false",
    "shared_critic_head": "false",
    "actor_layer_norm": "false",
    "critic_layer_norm": "false",
}
_SAC = (
    "algo=sac",
    *_RATES,
    *_EVALUATIONS,
    *(f"agent.{name}={value}" for name, value in _BASE.items()),
    "agent.entropy_backup=true",
    "schedule.online_batch_size=64",
    "schedule.online_steps=7500",
)
_CQL = (
    "algo=cql",
    *_RATES,
    *_EVALUATIONS,
    *(f"agent.sac.{name}={value}" for name, value in _BASE.items()),
    "agent.penalty.multiplier=fixed",
    "agent.penalty.weight=1.0",
    "schedule.offline_batch_size=64",
    "schedule.offline_updates=7500",
    "schedule.offline_every=500",
    "schedule.online_steps=0",
)
_PLAIN = (
    "agent.choices.importance_weights=false",
    "agent.choices.adaptive_weights=false",
    "agent.choices.penalty=none",
)


def judge(curves: Curves) -> list[Finding]:
    """Against both halves of the method alone, and what it costs where there is no gap. Seeds are paired."""
    finals = {name: final_scores(runs) for name, runs in curves.items()}
    ratios = mean_metrics(curves["no_gap"], "dynamics/ratio_mean")
    return [
        greater(
            "with a simulator that is wrong on one half, H2O beats SAC trained in the simulator alone",
            "final real score of H2O minus that of SAC, points",
            finals["h2o"] - finals["sac_simulator"],
        ),
        greater(
            "with a simulator that is wrong on one half, H2O beats CQL trained on the real data alone",
            "final real score of H2O minus that of CQL, points",
            finals["h2o"] - finals["cql_data"],
        ),
        within(
            "with no gap, simulated rows count nearly in full",
            f"mean weight of simulated rows (at most {RATIO_TOLERANCE} from 1)",
            ratios,
            1.0 - RATIO_TOLERANCE,
            1.0 + RATIO_TOLERANCE,
        ),
        greater(
            "with no gap, the weights and the penalty cost nothing",
            f"final score of H2O minus that without weights and penalty, points (margin {MARGIN:.0f})",
            finals["no_gap"] - finals["no_gap_plain"],
            MARGIN,
        ),
    ]


CLAIM = Claim(
    name="h2o",
    statement=(
        "An agent that weighs simulated experience by how far its dynamics can be trusted gets more out of real data "
        "and a flawed simulator together than out of either alone (Niu et al. 2022, arXiv 2206.13464, abstract)"
    ),
    task="probe/halves-v0",
    variants={
        "h2o": ("algo=h2o", *_H2O, STRONG),
        "sac_simulator": (*_SAC, STRONG),
        "cql_data": (*_CQL, STRONG),
        "no_gap": ("algo=h2o", *_H2O, NONE),
        "no_gap_plain": ("algo=h2o", *_H2O, *_PLAIN, NONE),
    },
    judge=judge,
    metrics=("dynamics/ratio_mean", "dynamics/gap_mean"),
)
