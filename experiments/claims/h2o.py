"""H2O: real data and a flawed simulator together beat either alone (Niu et al. 2022)."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np

from algorithms import DiscriminatorConfig
from algorithms.dynamics import Discriminators
from experiments.claims import Claim, Curves, Finding, final_scores, greater, mean_metrics, within
from hybridrl.types import SourcedBatch, Transitions

MARGIN = 5.0  # points: a twentieth of the way from standing still to the best
RATIO_TOLERANCE = 0.1
WEIGHT_TOLERANCE = 0.05
ROWS, UPDATES = 20_000, 2_500
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
    "initializer": "fan_in",
    "last_hidden_gain": "null",
    "output_gain": "0.01",
    "std_kind": "scaled",
    "std_bounds": f"[{math.exp(-20.0)},{math.exp(2.0)}]",
    "temperature_parameterization": "exp",
    "temperature_objective": "log",
    "temperature_states": "current",
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


def same_dynamics(key: jax.Array, rows: int) -> Transitions:
    """Steps in a plane, `s' = s + a / 2 + 0.3 noise`, from normal states and uniform actions."""
    state_key, action_key, noise_key = jax.random.split(key, 3)
    states = jax.random.normal(state_key, (rows, 2))
    actions = jax.random.uniform(action_key, (rows, 2), minval=-1.0, maxval=1.0)
    following = states + 0.5 * actions + 0.3 * jax.random.normal(noise_key, (rows, 2))
    nothing = jnp.zeros(rows)
    return Transitions(states, actions, nothing, nothing + 1.0, following, nothing)


@jax.jit
def weight_without_gap(seed: jax.Array) -> jax.Array:
    """Mean clipped w, `()`, on new simulated steps after 2,500 updates of the published discriminators."""
    real_key, simulated_key, create_key, fresh_key, key = jax.random.split(jax.random.key(seed), 5)
    real, simulated = same_dynamics(real_key, ROWS), same_dynamics(simulated_key, ROWS)
    config = DiscriminatorConfig()

    def step(found: Discriminators, key: jax.Array) -> tuple[Discriminators, None]:
        real_key, simulated_key, noise_key = jax.random.split(key, 3)
        batch = SourcedBatch(
            offline=_draw(real, real_key, config.batch_size), online=_draw(simulated, simulated_key, config.batch_size)
        )
        return found.update(batch, noise_key)[0], None

    found = Discriminators.create(create_key, jax.tree.map(lambda field: field[:1], real), config)
    found, _ = jax.lax.scan(step, found, jax.random.split(key, UPDATES))
    return jnp.minimum(jnp.exp(found.log_ratio(same_dynamics(fresh_key, 4_000))), 1.0).mean()


def _draw(rows: Transitions, key: jax.Array, count: int) -> Transitions:
    chosen = jax.random.randint(key, (count,), 0, ROWS)
    return jax.tree.map(lambda field: field[chosen], rows)


def where_both_sources_go() -> list[Finding]:
    """The weights where real and simulated steps differ in nothing at all, over five seeds."""
    weights = np.array([weight_without_gap(jnp.int32(seed)) for seed in range(5)])
    return [
        within(
            "with no gap, and both sources in the same states, simulated rows count in full",
            f"mean weight of simulated rows of a noisy plane (at most {WEIGHT_TOLERANCE} from 1)",
            weights,
            1.0 - WEIGHT_TOLERANCE,
            1.0 + WEIGHT_TOLERANCE,
        )
    ]


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
            "with no gap, simulated rows still count nearly in full once the policy has left the data's states",
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
    computed=where_both_sources_go,
    metrics=("dynamics/ratio_mean", "dynamics/gap_mean"),
)
