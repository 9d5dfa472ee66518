"""The papers' central claims as executable entries: statement, runs, verdict."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from experiments.statistics import interval, mean

HOLDS, FAILS, OPEN = "holds", "does not hold", "inconclusive"

Curves = dict[str, list[dict[str, Any]]]  # variant -> its runs, in the order of the seeds


@dataclasses.dataclass(frozen=True)
class Finding:
    """One part of a claim: a quantity with its 95% interval, and what that says.

    Attributes:
        statement: what is claimed.
        quantity: what was measured, in words and units.
        value, low, high: its mean over seeds and stratified bootstrap interval; all the same where nothing is random.
        verdict: "holds", "does not hold" or "inconclusive".
    """

    statement: str
    quantity: str
    value: float
    low: float
    high: float
    verdict: str


@dataclasses.dataclass(frozen=True)
class Claim:
    """A paper's central claim.

    Attributes:
        name: what users type.
        statement: the claim, with its citation.
        task: on which it is checked, where a variant names no other.
        variants: name -> overrides of the command line, for every algorithm and ablation compared.
        judge: the findings from the variants' runs.
        pretraining: overrides of a run that several variants begin with; it is done once per seed.
        pretrained: the names of those variants.
        metrics: training metrics that the judge needs; their mean over each run's last ten lines of logs is stored.
        computed: the findings of a part that needs no runs, such as values known on paper; in seconds.
        small: name -> further overrides of a variant at scale=cpu, where that scale's own budgets do not fit.
    """

    name: str
    statement: str
    task: str
    variants: dict[str, tuple[str, ...]]
    judge: Callable[[Curves], list[Finding]]
    pretraining: tuple[str, ...] = ()
    pretrained: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()
    computed: Callable[[], list[Finding]] | None = None
    small: dict[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)

    def settings(self, variant: str, scale: str) -> tuple[str, ...]:
        """A variant's overrides at a scale."""
        return (*self.variants[variant], *(self.small.get(variant, ()) if scale == "cpu" else ()))

    def findings(self, curves: Curves) -> list[Finding]:
        """What is computed, then what the runs say."""
        return [*(self.computed() if self.computed else []), *self.judge(curves)]

    def overrides(self, chosen: tuple[str, ...], *common: str) -> list[str]:
        """What to type for one run: the task unless `chosen` names one, and what is common to all runs."""
        task = () if any(text.startswith("task=") for text in chosen) else (f"task={self.task}",)
        return [*chosen, *task, *common]


def greater(statement: str, quantity: str, differences: np.ndarray, margin: float = 0.0) -> Finding:
    """Whether the mean of `differences` `(seeds,)` exceeds `-margin`.

    It holds if the whole interval lies above, does not if the whole interval lies below, else it is inconclusive.
    """
    return within(statement, quantity, differences, -margin, np.inf)


def within(statement: str, quantity: str, values: np.ndarray, lowest: float, highest: float) -> Finding:
    """Whether the mean of `values` `(seeds,)` lies between two bounds.

    It holds if the whole interval lies between them, does not if it lies on one side of both, else it is inconclusive.
    """
    values = np.asarray(values, np.float64)
    low, high = interval(values[:, None], mean)
    verdict = HOLDS if lowest < low and high < highest else FAILS if high < lowest or low > highest else OPEN
    return Finding(statement, quantity, float(values.mean()), low, high, verdict)


def exactly(statement: str, quantity: str, value: float, lowest: float, highest: float) -> Finding:
    """Whether a quantity without any randomness lies between two bounds, themselves included."""
    return Finding(statement, quantity, value, value, value, HOLDS if lowest <= value <= highest else FAILS)


def final_scores(runs: list[dict[str, Any]]) -> np.ndarray:
    """`(seeds,)`: the mean score of each run's last three evaluations."""
    return np.array([np.mean(run["scores"][-3:]) for run in runs])


def areas(runs: list[dict[str, Any]]) -> np.ndarray:
    """`(seeds,)`: each run's mean score over its environment steps, by trapezoids between evaluations."""
    found = []
    for run in runs:
        steps = np.asarray(run["env_steps"], np.float64)
        found.append(np.trapezoid(run["scores"], steps) / (steps[-1] - steps[0]))
    return np.array(found)


def mean_metrics(runs: list[dict[str, Any]], name: str) -> np.ndarray:
    """`(seeds,)`: a metric at the end of training, one of `Claim.metrics`."""
    return np.array([run["metrics"][name] for run in runs])


def claims() -> dict[str, Claim]:
    """All claims by name."""
    from experiments.claims import h2o, hnpg, moorl, moorl_controls, ota, unio4, wsrl

    known = (wsrl.CLAIM, h2o.CLAIM, moorl.CLAIM, moorl_controls.CLAIM, ota.CLAIM, unio4.CLAIM, hnpg.CLAIM)
    return {claim.name: claim for claim in known}
