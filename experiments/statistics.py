"""How results of several runs are summarised: interquartile means and stratified bootstrap intervals.

The practice of Agarwal et al. (2021), "Deep reinforcement learning at the edge of the statistical precipice".
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from hybridrl.errors import ConfigError

Statistic = Callable[[np.ndarray], np.ndarray]


def mean(scores: np.ndarray) -> np.ndarray:
    """The mean over runs and tasks: `(*batch, runs, tasks)` to `(*batch,)`."""
    return scores.mean(axis=(-2, -1))


def iqm(scores: np.ndarray) -> np.ndarray:
    """The interquartile mean of all runs of all tasks together: `(*batch, runs, tasks)` to `(*batch,)`.

    A quarter of the values, rounded down, is left out at either end; with three values or fewer, none.
    """
    pooled = np.sort(scores.reshape(*scores.shape[:-2], -1), axis=-1)
    cut = pooled.shape[-1] // 4
    return pooled[..., cut : pooled.shape[-1] - cut].mean(axis=-1)


def interval(
    scores: np.ndarray,
    statistic: Statistic = iqm,
    repetitions: int = 2_000,
    confidence: float = 0.95,
    seed: int = 0,
) -> tuple[float, float]:
    """The percentile interval of `statistic` under the stratified bootstrap.

    Each repetition draws, for every task by itself, as many runs as there are, with replacement.

    Args:
        scores: `(runs, tasks)`, at least two runs, all finite.
        statistic: `(*batch, runs, tasks)` to `(*batch,)`, such as `mean` or `iqm`.

    Raises:
        ConfigError: the scores are not of that form.
    """
    scores = np.asarray(scores, np.float64)
    if scores.ndim != 2 or len(scores) < 2 or not np.isfinite(scores).all():
        raise ConfigError(
            f"scores of shape {scores.shape}; expected finite (runs, tasks) with at least 2 runs; "
            "run more seeds, and leave no failed one out"
        )
    runs, tasks = scores.shape
    rows = np.random.default_rng(seed).integers(0, runs, (repetitions, runs, tasks))
    values = statistic(scores[rows, np.arange(tasks)])
    tail = 50.0 * (1.0 - confidence)
    low, high = np.percentile(values, [tail, 100.0 - tail])
    return float(low), float(high)


def probability_of_improvement(ours: np.ndarray, theirs: np.ndarray) -> float:
    """The probability that a random run of ours beats one of theirs on the same task, ties counting half.

    Args:
        ours, theirs: `(runs, tasks)`; the numbers of runs may differ.
    """
    wins = ours[:, None] > theirs[None]
    ties = ours[:, None] == theirs[None]
    return float((wins + 0.5 * ties).mean(axis=(0, 1)).mean())


def curve_bands(
    curves: np.ndarray, statistic: Statistic = iqm, repetitions: int = 2_000, confidence: float = 0.95, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Centre, lower and upper bound `(points,)` of learning curves `(runs, points)` of one task, point by point."""
    curves = np.asarray(curves, np.float64)
    centre = np.array([statistic(column[:, None]) for column in curves.T])
    bounds = [interval(column[:, None], statistic, repetitions, confidence, seed) for column in curves.T]
    return centre, np.array([low for low, _ in bounds]), np.array([high for _, high in bounds])
