"""H2O: real data and a flawed simulator together beat either alone (Niu et al. 2022)."""

from __future__ import annotations

import math

from experiments.claims import Claim, Curves, Finding, final_scores, greater, mean_metrics, within

MARGIN = 5.0  # points: a twentieth of the way from random to the data's expert
RATIO_TOLERANCE = 0.1
STRONG = "task=local/halfcheetah-medium-v0+gravity2"
NONE = "task=local/halfcheetah-medium-v0+gravity1"  # the plain robot as the simulator

# H2O's own learner without what makes it H2O, so that the comparison is of the method and not of its base. Entropy in
# the target is what the paper's baseline has.
_BASE_SAC = (
    "algo=sac",
    "agent.num_critics=2",
    "agent.critic_updates=1",
    "agent.subset_with_replacement=false",
    "agent.shared_critic_head=false",
    "agent.actor_layer_norm=false",
    "agent.critic_layer_norm=false",
    "agent.actor_learning_rate=3e-4",
    "agent.temperature_learning_rate=3e-4",
    "agent.initializer=fan_in",
    "agent.last_hidden_gain=null",
    "agent.output_gain=0.01",
    "agent.std_kind=scaled",
    f"agent.std_bounds=[{math.exp(-20.0)},{math.exp(2.0)}]",
    "agent.temperature_parameterization=exp",
    "agent.temperature_objective=log",
    "agent.temperature_states=current",
    "agent.entropy_backup=true",
    "schedule.online_batch_size=128",
    "schedule.dense_until=0",
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
            "with twice the gravity in the simulator, H2O beats SAC trained in the simulator alone",
            "final real score of H2O minus that of SAC, points",
            finals["h2o"] - finals["sac_simulator"],
        ),
        greater(
            "with twice the gravity in the simulator, H2O beats CQL trained on the real data alone",
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
    task="local/halfcheetah-medium-v0",
    variants={
        "h2o": ("algo=h2o", STRONG),
        "sac_simulator": (*_BASE_SAC, STRONG),
        "cql_data": ("algo=cql", "schedule.online_steps=0", STRONG),
        "no_gap": ("algo=h2o", NONE),
        "no_gap_plain": ("algo=h2o", *_PLAIN, NONE),
    },
    judge=judge,
    metrics=("dynamics/ratio_mean", "dynamics/gap_mean"),
)
