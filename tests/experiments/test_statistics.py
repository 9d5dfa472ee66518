"""Statistics against numbers worked out by hand and against an independent, slow computation."""

import itertools

import numpy as np
import pytest

from experiments.statistics import curve_bands, interval, iqm, mean, probability_of_improvement
from hybridrl.errors import ConfigError


def test_iqm_by_hand():
    assert iqm(np.arange(8.0).reshape(4, 2)) == pytest.approx((2 + 3 + 4 + 5) / 4)  # 0, 1 and 6, 7 are cut
    assert iqm(np.array([[0.0], [10.0], [20.0], [30.0], [1000.0]])) == pytest.approx(20.0)  # one cut at either end
    assert iqm(np.array([[1.0], [2.0], [9.0]])) == pytest.approx(4.0)  # too few to cut any


def test_statistics_take_batches():
    scores = np.random.default_rng(0).normal(size=(5, 6, 3))
    for statistic in (mean, iqm):
        np.testing.assert_allclose(statistic(scores), [statistic(one) for one in scores])


def test_iqm_is_the_trimmed_mean_of_scipy():
    from scipy.stats import trim_mean

    rng = np.random.default_rng(1)
    for runs in range(2, 12):
        scores = rng.normal(size=(runs, 3))
        assert iqm(scores) == pytest.approx(trim_mean(scores, 0.25, axis=None))


@pytest.mark.parametrize("statistic", [mean, iqm])
def test_interval_against_all_possible_resamples(statistic):
    """With 3 runs and 2 tasks there are 27 x 27 equally probable stratified resamples."""
    scores = np.array([[0.0, 50.0], [10.0, 60.0], [40.0, 95.0]])
    draws = list(itertools.product(range(3), repeat=3))
    values = []
    for first, second in itertools.product(draws, draws):
        resample = np.stack([scores[list(first), 0], scores[list(second), 1]], axis=1)
        values.append(float(statistic(resample)))
    expected = np.percentile(values, [5.0, 95.0])
    found = interval(scores, statistic, repetitions=60_000, confidence=0.9)
    np.testing.assert_allclose(found, expected, atol=1.5)


def test_interval_against_a_loop():
    scores = np.random.default_rng(2).uniform(0, 100, (6, 4))
    rng = np.random.default_rng(3)
    values = []
    for _ in range(4_000):
        columns = [rng.choice(scores[:, task], 6) for task in range(4)]
        values.append(np.mean(np.sort(np.concatenate(columns))[6:18]))
    np.testing.assert_allclose(interval(scores, repetitions=20_000), np.percentile(values, [2.5, 97.5]), atol=1.5)


def test_tasks_are_resampled_apart():
    """Two tasks whose runs differ only between tasks: pooled resampling would give a width, stratified gives none."""
    scores = np.tile([0.0, 100.0], (5, 1))
    assert interval(scores, mean) == (50.0, 50.0)


def test_interval_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(4)
    hits = 0
    for trial in range(300):
        low, high = interval(rng.normal(3.0, 1.0, (20, 1)), mean, repetitions=400, confidence=0.9, seed=trial)
        hits += low <= 3.0 <= high
    assert 0.82 <= hits / 300 <= 0.95


def test_same_seed_same_interval():
    scores = np.random.default_rng(5).normal(size=(5, 2))
    assert interval(scores, seed=7) == interval(scores, seed=7) != interval(scores, seed=8)


@pytest.mark.parametrize("scores", [np.ones(3), np.ones((1, 2)), np.array([[1.0], [np.nan]])])
def test_what_cannot_be_resampled_is_refused(scores):
    with pytest.raises(ConfigError, match="at least 2 runs"):
        interval(scores)


def test_probability_of_improvement_by_hand():
    ours, theirs = np.array([[1.0], [3.0]]), np.array([[0.0], [1.0], [2.0]])
    assert probability_of_improvement(ours, theirs) == pytest.approx((1 + 0.5 + 0 + 1 + 1 + 1) / 6)


def test_bands_are_intervals_point_by_point():
    curves = np.random.default_rng(6).uniform(0, 100, (5, 3))
    centre, low, high = curve_bands(curves)
    for point in range(3):
        assert centre[point] == pytest.approx(iqm(curves[:, point, None]))
        assert (low[point], high[point]) == interval(curves[:, point, None])
