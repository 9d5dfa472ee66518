"""What a run's logs amount to, worked out by hand."""

from pathlib import Path

import pytest

from experiments.results import Run, speeds


@pytest.mark.parametrize(
    ("algo", "agent", "critics"),
    [
        ("wsrl", {"sac": {"critic_updates": 4}}, 4.0),
        ("moorl", {"sac": {"critic_updates": 1}, "inner_steps": 10}, 10.0),
        ("hnpg", {"critic_updates": 30}, 30.0),
        ("iql+sac", {"offline": {}, "online": {"critic_updates": 2}}, 2.0),
        ("ppo", {}, 1.0),
    ],
)
def test_speeds_are_medians_by_phase(algo, agent, critics):
    timing = [{"phase": "offline", "per_second": rate, "updates_per_second": rate} for rate in (1.0, 50.0, 60.0)] + [
        {"phase": "online", "per_second": rate, "updates_per_second": rate / 8} for rate in (80.0, 8.0, 800.0)
    ]
    run = Run(Path("x"), {"algo": algo, "agent": agent}, {}, [], [], timing, {})
    assert speeds(run) == {
        "offline": {"per_second": 50.0, "updates_per_second": 50.0, "critic_updates_per_second": 50.0},
        "online": {"per_second": 80.0, "updates_per_second": 10.0, "critic_updates_per_second": 10.0 * critics},
    }
