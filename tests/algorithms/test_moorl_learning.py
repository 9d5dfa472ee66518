"""MOORL end to end on small environments, five seeds each. Settings were chosen on other seeds than those tested here.

What is measured is also printed (`pytest -m slow -rP`), whatever the verdict.
"""

import dataclasses

import jax
import numpy as np
import pytest
from hybrid_runs import Hop, UMaze, look_at_adaptation, seeds, through_the_maze, towards_the_goal, uniform

from algorithms import MOORLConfig
from algorithms.moorl import MOORL_SAC
from envs.halves import Halves

pytestmark = pytest.mark.slow

# The rates of H2O's claim, on the same plane.
SAC = dataclasses.replace(
    MOORL_SAC,
    actor_hidden_dims=(32, 32),
    critic_hidden_dims=(32, 32),
    actor_learning_rate=1e-3,
    critic_learning_rate=3e-3,
    temperature_learning_rate=3e-3,
    initial_temperature=0.1,
    target_update_rate=0.02,
    discount=0.9,
)
CONTROL = MOORLConfig(SAC, meta_rate=1.0)  # without a meta effect it is SAC with as many updates
STEPS, EVERY, BUDGET = 800, 50, 500
RUN = {"steps": STEPS, "warmup": 100, "every": EVERY, "look": look_at_adaptation}


def at_budget(returns):
    """`(seeds,)` of returns `(seeds, evaluations)`."""
    return returns[:, BUDGET // EVERY - 1]


@pytest.fixture(scope="module")
def moorl():
    """On medium data, on them alone without any online block, and on data of uniform actions."""
    runs = {"medium": (towards_the_goal, 0.5), "offline": (towards_the_goal, 1.0), "random": (uniform, 0.5)}
    seen, _, behaviour = seeds(Halves(), MOORLConfig(SAC), list(runs.values()), **RUN)
    return {
        name: jax.tree.map(lambda leaf, i=index: leaf[i], seen) | {"data": behaviour[index]}
        for index, name in enumerate(runs)
    }


@pytest.fixture(scope="module")
def online_sac():
    """SAC with as many updates and no offline block: returns `(seeds, evaluations)`."""
    seen, _, _ = seeds(Halves(), CONTROL, [(uniform, 0.0)], **RUN)
    return seen["return"][0]


@pytest.fixture(scope="module")
def mixed_sac():
    """SAC with as many updates, each on half offline, half online rows of medium data."""
    config = dataclasses.replace(CONTROL, source_choice="mixed")
    return jax.tree.map(lambda leaf: leaf[0], seeds(Halves(), config, [(towards_the_goal, 0.5)], **RUN)[0])


def test_both_sources_are_worth_more_than_either(moorl, online_sac):
    """Item 7 of the method's acceptance: at a fixed small number of steps, beyond one standard error."""
    ours = at_budget(moorl["medium"]["return"])
    for name, rival in {"online SAC": online_sac, "the data alone": moorl["offline"]["return"]}.items():
        more = ours - at_budget(rival)
        error = more.std(ddof=1) / np.sqrt(len(more))
        print(f"after {BUDGET} steps: {ours.mean():.2f}, {more.mean():.2f} +- {error:.2f} more than {name}")
        assert more.mean() > error, name
    final, data = moorl["medium"]["return"][:, -1].mean(), moorl["medium"]["data"].mean()
    print(f"after {STEPS} steps it returns {final:.2f}, an episode of the data {data:.2f}")
    assert final >= data


def test_random_data_do_little_harm(moorl, online_sac):
    """At the same number of environment steps, at least 90 per cent of what online SAC returns."""
    ours, rival = moorl["random"]["return"][:, -1].mean(), online_sac[:, -1].mean()
    print(f"after {STEPS} steps: {ours:.2f} with random data, {rival:.2f} by online SAC")
    assert rival > 10.0  # of at most 17.1 expected; standing still returns -3.4
    assert ours >= 0.9 * rival


def test_the_meta_policy_varies_no_more_than_what_a_block_makes_of_it(moorl):
    """Variance over the evaluations of the run's second half, all from the same starts; means over the seeds."""
    half = STEPS // EVERY // 2
    meta, adapted = (moorl["medium"][name][:, half:].var(axis=1).mean() for name in ("return", "adapted_return"))
    print(f"variance over successive evaluations: {meta:.3f} of the meta policy, {adapted:.3f} of the adapted one")
    assert meta <= adapted


def test_both_sources_want_the_same_step_no_less_than_under_mixed_batches(moorl, mixed_sac):
    """Cosine of the losses' gradients on offline and online rows, mean over evaluations."""
    for name in ("actor_cosine", "critic_cosine"):
        ours, control = (runs[name].mean(axis=1) for runs in (moorl["medium"], mixed_sac))
        difference = ours - control
        error = difference.std(ddof=1) / np.sqrt(len(difference))
        print(f"{name}: {ours.mean():.3f} at MOORL's parameters, {control.mean():.3f} at mixed SAC's, +- {error:.3f}")
        assert difference.mean() >= 0.0, name


@pytest.mark.parametrize(
    ("env", "behaviour", "largest_reward"),
    [(UMaze(), through_the_maze, 1.0), (Hop(), uniform, 2.0)],
    ids=["maze", "hop"],
)
def test_values_stay_bounded(env, behaviour, largest_reward):
    """1.2 times the largest return there can be, and what entropy adds to it, for the whole run in 4 of 5 seeds.

    A step's entropy is at most that of uniform actions, log 2 per dimension. On the sparse maze there is none in the
    target, as the preset has it. The same learner on the data alone is measured for comparison; it may do as it likes.
    """
    sac = dataclasses.replace(SAC, discount=0.99, entropy_backup=largest_reward > 1.0)
    settings = {"steps": 1_500, "warmup": 200, "every": 500}
    seen, largest, _ = seeds(env, MOORLConfig(sac), [(behaviour, 0.5), (behaviour, 1.0)], **settings)
    temperature = np.maximum(seen["temperature"].max(axis=-1), sac.initial_temperature)
    allowance = temperature * env.actions.dim * np.log(2.0) / (1 - sac.discount) * sac.entropy_backup
    bounds = 1.2 * largest_reward / (1 - sac.discount) + allowance
    largest = largest.max(axis=-1)
    for index, name in enumerate(("MOORL", "offline data alone")):
        print(f"{name}: largest |Q| {np.round(largest[index], 1)}, bounds {np.round(bounds[index], 1)}")
    assert np.isfinite(largest[0]).all()
    assert (largest[0] < bounds[0]).sum() >= 4
