"""OTA: values that count options still rank subgoals far from the goal, where HIQL's are flat (Ahn et al. 2025)."""

from __future__ import annotations

import statistics

import jax
import jax.numpy as jnp
import numpy as np

from experiments.claims import Claim, Curves, Finding, exactly, final_scores, greater
from hybridrl.datasets import Dataset
from hybridrl.losses.value import double_value_targets
from hybridrl.replay import GoalMixture, HierarchicalGoals, OptionGoals
from hybridrl.types import GoalSteps, Transitions

PATH = 1_000  # steps from the first state to the goal
DRAWS = 40_000  # transitions drawn, so many that every state of the path is among them
ERROR = 0.1  # standard deviation of a value's error in the comparison of signs: a thousandth of the values' range
SUBGOAL_STEPS = 25
DISCOUNT, OPTION_STEPS = 0.99, 5  # HIQL's and OTA's published settings on this size of maze


def path_dataset(length: int) -> Dataset:
    """One episode along a path of `length` steps; states are their numbers."""
    states = jnp.arange(length + 1, dtype=jnp.float32)[:, None]
    nothing = jnp.zeros(length + 1)
    return Dataset(
        transitions=Transitions(states, jnp.zeros((length + 1, 1)), nothing, nothing + 1.0, states + 1.0, nothing),
        truncations=nothing,
        episode_starts=jnp.zeros(1, jnp.int32),
        episode_lengths=jnp.full(1, length + 1, jnp.int32),
    )


def learned_values(steps: GoalSteps, goal: int, discount: float) -> np.ndarray:
    """`(goal + 1,)`: the values of a path's states that HIQL's regression on `steps` converges to, for its last state.

    Where each state has one successor, any expectile of its targets is the target itself, so a sweep sets it.
    """
    rows, following, goals = (
        np.asarray(states)[:, 0].astype(int) for states in (steps.observations, steps.next_observations, steps.goals)
    )
    _, first = np.unique(np.where(goals == goal, rows, -1), return_index=True)
    kept = first[goals[first] == goal]
    rows, following = rows[kept], np.minimum(following[kept], goal)
    rewards, masks = steps.rewards[kept], steps.masks[kept]

    def sweep(_: int, values: jax.Array) -> jax.Array:
        targets, _advantages = double_value_targets(rewards, masks, values[:, following], values[:, rows], discount)
        return values.at[:, rows].set(targets)

    values = jax.lax.fori_loop(0, goal + 1, sweep, jnp.full((2, goal + 1), jnp.nan).at[:, rows].set(0.0))
    return np.asarray(values[0], np.float64)


def sign_share(values: np.ndarray, distance: int) -> float:
    """How often, in per cent, the subgoal on the way has the higher value when both values carry independent errors."""
    state = len(values) - 1 - distance
    gain = values[state + SUBGOAL_STEPS] - values[state]
    return 100.0 * statistics.NormalDist().cdf(gain / (ERROR * 2.0**0.5))


def on_a_path() -> list[Finding]:
    """What needs no runs: both values on a path, from the samplers and targets that training uses."""
    to_the_end = GoalMixture(0.0, 1.0, 0.0, geometric=True)  # with goals so far ahead that all are the path's end
    sampling = HierarchicalGoals(to_the_end, 0.0, False, SUBGOAL_STEPS, discount=1.0 - 1e-7)
    batch = OptionGoals(sampling, OPTION_STEPS).sampler(path_dataset(PATH)).sample(jax.random.key(0), DRAWS)
    hiql = learned_values(batch.hierarchical.steps, PATH, DISCOUNT)
    ota = learned_values(batch.options, PATH, DISCOUNT)
    distances = np.arange(PATH, -1, -1)
    counts = {"HIQL": (hiql, distances), "OTA": (ota, np.maximum(np.ceil(distances / OPTION_STEPS) - 1, 0))}
    findings = []
    for name, (values, exponents) in counts.items():
        expected = -(1.0 - DISCOUNT**exponents) / (1.0 - DISCOUNT)
        findings.append(
            exactly(
                f"on a path of {PATH:,} steps {name}'s value has its closed form",
                "largest deviation, per cent of the values' range (at most 1)",
                float(100.0 * np.abs(values - expected).max() * (1.0 - DISCOUNT)),
                0.0,
                1.0,
            )
        )
    given = f"{PATH:,} steps from the goal, given errors of a thousandth of the values' range,"
    return [
        *findings,
        exactly(
            f"{given} OTA prefers the right subgoal",
            "how often, per cent (at least 95)",
            sign_share(ota, PATH),
            95.0,
            100.0,
        ),
        exactly(
            f"{given} HIQL might as well toss a coin",
            "how often it prefers the right subgoal, per cent (45 to 55)",
            sign_share(hiql, PATH),
            45.0,
            55.0,
        ),
    ]


def judge(curves: Curves) -> list[Finding]:
    """By final success, the mean of the last three evaluations. Seeds are paired."""
    finals = {name: final_scores(runs) for name, runs in curves.items()}
    return [
        greater(
            "on a long maze OTA reaches more goals than HIQL",
            "final success of OTA minus that of HIQL, points",
            finals["ota"] - finals["hiql"],
        )
    ]


def _small(agent: str) -> tuple[str, ...]:
    """Budgets of minutes, the same for both. Narrow networks learn at a higher rate and with faster targets.

    Chosen on seed 100, where OTA had reached 20 per cent of the goals after 20,000 updates, and HIQL none.
    """
    return (
        f"{agent}.value_hidden_dims=[64,64,64]",
        f"{agent}.actor_hidden_dims=[64,64,64]",
        f"{agent}.learning_rate=1e-3",
        f"{agent}.target_update_rate=0.02",
        "schedule.offline_updates=30000",
        "schedule.offline_every=5000",
        "loop.eval_episodes=10",
    )


CLAIM = Claim(
    name="ota",
    statement=(
        "The high level of offline goal-conditioned RL fails over long horizons because its value cannot rank subgoals "
        "there; a value that counts temporally extended options ranks them, and long tasks are solved (Ahn et al. "
        "2025, arXiv 2505.12737, abstract)"
    ),
    task="pointmaze-giant-navigate-v0",
    variants={"ota": ("algo=ota",), "hiql": ("algo=hiql",)},
    judge=judge,
    computed=on_a_path,
    small={"ota": _small("agent.hiql"), "hiql": _small("agent")},
)
