"""Goal samplers against the frequencies that their rules imply, worked out here."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hybridrl.datasets import Dataset
from hybridrl.errors import ConfigError
from hybridrl.losses.value import double_value_targets, expectile_value_loss
from hybridrl.replay import FlatGoals, GoalMixture, HierarchicalGoals, OptionGoals
from hybridrl.replay.goals import future_rows, goal_rows
from hybridrl.types import Transitions

DRAWS = 60_000
KEY = jax.random.key(0)


def numbered(*lengths):
    """A dataset whose states are their row numbers; the last row of an episode leads to that number and a half."""
    starts = np.cumsum([0, *lengths[:-1]])
    rows = np.arange(sum(lengths), dtype=np.float32)
    following = rows + 1.0
    following[starts + np.array(lengths) - 1] -= 0.5
    columns = [rows[:, None], np.zeros((len(rows), 1)), np.zeros(len(rows)), np.ones(len(rows)), following[:, None]]
    return Dataset(
        transitions=Transitions(*[jnp.asarray(column, jnp.float32) for column in columns], jnp.zeros(len(rows))),
        truncations=jnp.zeros(len(rows)),
        episode_starts=jnp.asarray(starts, jnp.int32),
        episode_lengths=jnp.asarray(lengths, jnp.int32),
    )


@functools.cache
def drawn(settings, lengths, draws=DRAWS):
    """One large batch."""
    sampler = settings.sampler(numbered(*lengths))
    return jax.tree.map(np.asarray, jax.jit(sampler.sample, static_argnums=1)(KEY, draws))


def numbers(states):
    return states[:, 0].round().astype(int)


def frequencies(rows, count):
    return np.bincount(rows, minlength=count) / len(rows)


def far_from(found, expected, draws=DRAWS):
    """The largest deviation in standard errors."""
    return np.max(np.abs(found - expected) / np.sqrt(np.maximum(expected * (1 - expected), 1e-9) / draws))


@pytest.mark.parametrize("left", [0, 1, 2, 5])
@pytest.mark.parametrize("geometric", [True, False])
def test_later_states_have_the_published_frequencies(left, geometric):
    found = future_rows(KEY, jnp.full(DRAWS, 3), jnp.full(DRAWS, 3 + left), 0.8, geometric) - 3
    steps = np.arange(left + 1)
    if left == 0:
        expected = np.ones(1)
    elif geometric:
        expected = np.where(steps > 0, 0.2 * 0.8 ** (steps - 1.0), 0.0)
        expected[-1] += 0.8**left  # all that would go beyond the end
    elif left == 1:
        expected = np.array([0.0, 1.0])
    else:  # a uniform number between 1 and the end, rounded
        expected = np.where((steps == 1) | (steps == left), 0.5, 1.0) * (steps > 0) / (left - 1)
    assert far_from(frequencies(np.asarray(found), left + 1), expected) < 4.5


def test_goals_mix_the_current_state_later_ones_and_any():
    mixture = GoalMixture(0.3, 0.5, 0.2, geometric=True)
    rows, last = jnp.full(DRAWS, 2), jnp.full(DRAWS, 4)
    found = goal_rows(KEY, rows, last, 10, mixture, 0.8)
    expected = np.full(10, 0.02)
    expected[2] += 0.3
    expected[[3, 4]] += 0.5 * np.array([0.2, 0.8])
    assert far_from(frequencies(np.asarray(found), 10), expected) < 4.5
    current = goal_rows(KEY, rows, last, 10, GoalMixture(1.0, 0.0, 0.0, geometric=True), 0.8)
    assert (current == 2).all()


@pytest.mark.parametrize("shares", [(0.5, 0.5, 0.5), (-0.1, 1.1, 0.0)])
def test_shares_that_are_none_are_refused(shares):
    with pytest.raises(ConfigError, match="sum to 1"):
        GoalMixture(*shares)


LONG = (1_000,) * 20


def test_flat_batches():
    settings = FlatGoals(GoalMixture(), GoalMixture(0.0, 1.0, 0.0, geometric=False), 0.99)
    batch = drawn(settings, LONG)
    steps, rows = batch.steps, numbers(batch.steps.observations)
    goals = numbers(steps.goals)
    np.testing.assert_array_equal(steps.masks, goals != rows)
    np.testing.assert_array_equal(steps.rewards, -steps.masks)
    assert abs((steps.masks == 0).mean() - 0.2) < 0.006
    same = goals // 1_000 == rows // 1_000
    # Anywhere else: 0.3 of the goals, but for the twentieth of them that falls into the same episode.
    assert abs((~same).mean() - 0.3 * 19 / 20) < 0.008
    actor = numbers(batch.actor_goals)
    assert ((actor >= rows) & (actor // 1_000 == rows // 1_000)).all()
    assert ((actor == rows) == (rows % 1_000 == 999)).all()
    following = steps.next_observations[:, 0]
    np.testing.assert_array_equal(following, np.where(rows % 1_000 == 999, rows + 0.5, rows + 1))


def hierarchical(steps=25, discount=0.99, random_goals=0.0, value=GoalMixture(), geometric=False):
    return HierarchicalGoals(value, random_goals, geometric, steps, discount)


@pytest.mark.parametrize("random_goals", [0.0, 0.5])
def test_hierarchical_batches_stay_in_their_episode(random_goals):
    batch = drawn(hierarchical(random_goals=random_goals), LONG)
    rows = numbers(batch.steps.observations)
    ends = rows // 1_000 * 1_000 + 999
    np.testing.assert_array_equal(numbers(batch.low_goals), np.minimum(rows + 25, ends))
    targets, goals = numbers(batch.high_targets), numbers(batch.high_goals)
    assert ((targets >= rows) & (targets <= np.minimum(rows + 25, ends))).all()
    later = (goals >= rows) & (goals <= ends)
    np.testing.assert_array_equal(targets[~later], np.minimum(rows + 25, ends)[~later])
    if random_goals == 0.0:
        assert later.all()
        np.testing.assert_array_equal(targets, np.minimum(rows + 25, goals))
    else:
        assert abs((goals // 1_000 != rows // 1_000).mean() - 0.5 * 19 / 20) < 0.01


@pytest.mark.parametrize(("discount", "steps"), [(0.99, 5), (0.99, 1), (0.995, 20)])
def test_options(discount, steps):
    settings = OptionGoals(hierarchical(discount=discount), steps)
    batch = drawn(settings, LONG)
    options, rows = batch.options, numbers(batch.options.observations)
    ends, goals = numbers(options.next_observations), numbers(options.goals)
    last = rows // 1_000 * 1_000 + 999
    assert ((ends >= rows) & (ends <= np.minimum(rows + steps, last))).all()
    np.testing.assert_array_equal(options.masks, ends != goals)
    np.testing.assert_array_equal(options.rewards, -options.masks)
    # Goals at their option's end, and later ones within an option's length; the episodes' ends add a little.
    assert abs((options.masks == 0).mean() - (0.2 + 0.5 * (1 - discount**steps))) < 0.008 + 0.0005 * steps
    # An option never goes past a goal later in the episode; it stops early only there or at the episode's end.
    early = ends < np.minimum(rows + steps, last)
    assert (options.masks[early] == 0).all()
    beyond = (goals > ends) & (goals <= last)
    assert (ends[beyond] == np.minimum(rows + steps, last)[beyond]).all()
    if steps == 1:
        assert not early.any()
    else:
        # Early stops happen where a later goal is nearer than the option is long.
        assert abs(early.mean() - 0.5 / 0.8 * (1 - discount ** (steps - 1))) < 0.012
    alone = drawn(settings.hierarchical, LONG)
    jax.tree.map(np.testing.assert_array_equal, batch.hierarchical, alone)
    np.testing.assert_array_equal(options.observations, alone.steps.observations)


GAMMA, LENGTH = 0.99, 201


@pytest.mark.parametrize("option_steps", [1, 5, 20])
def test_values_of_a_path_have_their_closed_form(option_steps):
    """d steps from the goal: V = -(1 - gamma^d) / (1 - gamma); counting options, with ceil(d / n) - 1 in d's place."""
    value_goals = GoalMixture(0.2, 0.8, 0.0, geometric=True)
    batch = drawn(OptionGoals(hierarchical(discount=GAMMA, value=value_goals), option_steps), (LENGTH,), 20_000)
    end = LENGTH - 1
    for steps, exponent in (
        (batch.options, lambda d: -(-d // option_steps) - 1),
        (batch.hierarchical.steps, lambda d: d),
    ):
        rows, following, goals = (
            numbers(states) for states in (steps.observations, steps.next_observations, steps.goals)
        )
        # Only the goal at the end is drawn often enough from everywhere.
        kept = goals == end
        rows, following = rows[kept], np.minimum(following[kept], end)
        assert set(rows) == set(range(LENGTH))
        values = np.zeros((2, LENGTH), np.float32)
        targets_of = jax.jit(functools.partial(double_value_targets, discount=GAMMA))
        for _ in range(LENGTH + 1):
            targets, advantages = targets_of(
                steps.rewards[kept], steps.masks[kept], values[:, following], values[:, rows]
            )
            values[:, rows] = targets  # one transition for every state: its target is what any expectile fits
        distances = np.arange(1, LENGTH)
        expected = -(1 - GAMMA ** exponent(distances)) / (1 - GAMMA)
        np.testing.assert_allclose(values[:, end - distances], np.stack([expected] * 2), atol=2e-3)
        assert float(expectile_value_loss(values[:, rows], targets, advantages, 0.7).max()) < 1e-9
    assert values[0, end] == 0.0  # of single steps, at the goal


def test_the_closed_form_at_200_steps():
    """The numbers of the derivation, so that the formula above is right too."""
    for option_steps, value in ((1, -86.47), (5, -32.43), (20, -8.65)):
        assert abs(-(1 - GAMMA ** (200 // option_steps - 1)) / (1 - GAMMA) - value) < 0.005
