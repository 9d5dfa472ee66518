"""Verdicts worked out by hand from made-up curves."""

import dataclasses
import json
import math

import numpy as np
import pytest

from experiments.claims import areas, claims, exactly, final_scores, greater, within
from experiments.claims.__main__ import BEGIN, END, main, readme_table, update_readme
from experiments.claims.ota import on_a_path
from experiments.claims.unio4 import gain_offline, kept_at_switch
from experiments.claims.wsrl import learning_starts, loss_at_switch, rise_of_error
from experiments.config import compose

RUN = {
    "env_steps": [0, 1000, 1100, 1400, 1500, 2000, 3000],
    "online_updates": [0, 0, 98, 398, 498, 998, 1998],
    "scores": [80.0, 80.0, 60.0, 50.0, 70.0, 90.0, 95.0],
    "offline_td_errors": [2.0, 2.0, 3.0, 8.0, 4.0, 3.0, 20.0],
}


def test_loss_at_the_switch_by_hand():
    assert learning_starts(RUN) == 1000
    assert loss_at_switch(RUN) == pytest.approx(80.0 - 67.5)  # the mean of 60, 50, 70 and 90: steps 1000 to 2000
    assert rise_of_error(RUN) == pytest.approx(4.0)  # 8 over 2; the 20 lies outside the window


def test_summaries_by_hand():
    np.testing.assert_allclose(final_scores([RUN, RUN]), [(70.0 + 90.0 + 95.0) / 3] * 2)
    line = {"env_steps": [0, 100, 300], "scores": [0.0, 10.0, 30.0]}
    np.testing.assert_allclose(areas([line]), [(500.0 + 4000.0) / 300.0])


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        ([0.95, 1.0, 1.02], "holds"),
        ([0.5, 0.6, 0.55], "does not hold"),
        ([1.5, 1.6, 1.4], "does not hold"),
        ([0.5, 1.0, 1.3], "inconclusive"),
    ],
)
def test_values_within_bounds(values, verdict):
    assert within("a", "b", np.array(values), 0.9, 1.1).verdict == verdict


@pytest.mark.parametrize(
    ("differences", "margin", "verdict"),
    [
        ([3.0, 4.0, 5.0, 4.0, 4.0], 0.0, "holds"),
        ([-3.0, -4.0, -5.0, -4.0, -4.0], 0.0, "does not hold"),
        ([-3.0, -4.0, -5.0, -4.0, -4.0], 5.0, "holds"),
        ([-30.0, 30.0, -20.0, 20.0, 1.0], 0.0, "inconclusive"),
    ],
)
def test_verdicts(differences, margin, verdict):
    finding = greater("a", "b", np.array(differences), margin)
    assert finding.verdict == verdict
    assert finding.low <= finding.value <= finding.high


@pytest.mark.parametrize("name", ["wsrl", "h2o", "moorl", "moorl_controls", "ota", "unio4", "hnpg"])
def test_every_variant_is_a_valid_run(name):
    claim = claims()[name]
    for variant in claim.variants:
        for scale in ("cpu", "paper"):
            compose(claim.overrides(claim.settings(variant, scale), f"scale={scale}")).check()
    if claim.pretraining:
        begun = compose(claim.overrides(claim.pretraining)).phases()
        for variant in claim.pretrained:
            assert compose(claim.overrides(claim.variants[variant])).phases()[: len(begun)] == begun


def test_h2os_rival_in_the_simulator_is_its_own_learner():
    claim = claims()["h2o"]
    h2o, rival = (compose(claim.overrides(claim.variants[name])) for name in ("h2o", "sac_simulator"))
    assert rival.agent == dataclasses.replace(h2o.agent.sac, entropy_backup=True)
    assert rival.schedule.online_batch_size == h2o.schedule.online_batch_size  # there half of them are real
    assert rival.schedule.online_steps == h2o.schedule.online_steps


def test_the_claim_fails_when_its_curves_are_exchanged():
    good = {**RUN, "scores": [80.0, 80.0, 80.0, 80.0, 80.0, 95.0, 95.0], "offline_td_errors": [2.0] * 7}
    curves = {"wsrl": [good] * 5, "no_warmup": [RUN] * 5, "calql": [good] * 5, "rlpd": [RUN] * 5}
    claim = claims()["wsrl"]
    assert [finding.verdict for finding in claim.judge(curves)] == ["holds"] * 5
    swapped = curves | {"wsrl": [RUN] * 5, "no_warmup": [good] * 5}
    assert [finding.verdict for finding in claim.judge(swapped)][:3] == ["does not hold"] * 3


@pytest.fixture(scope="module")
def path_findings():
    return on_a_path()


def test_values_on_a_path_bear_out_what_ota_says(path_findings):
    """The numbers of the closed forms: gains of 0.70 and 0.0012 over 25 steps, 1,000 from the goal."""
    assert [finding.verdict for finding in path_findings] == ["holds"] * 4
    assert max(finding.value for finding in path_findings[:2]) < 0.01
    for finding, gain in zip(path_findings[2:], (0.69745, 0.00123315), strict=True):
        share = 50.0 * (1.0 + math.erf(gain / (0.1 * 2.0)))
        assert finding.value == pytest.approx(share, abs=0.002)
        assert finding.low == finding.value == finding.high


def test_otas_claim_fails_when_its_curves_are_exchanged(path_findings):
    claim = claims()["ota"]
    low, high = ([{"scores": [0.0, score, score, score + seed]} for seed in range(5)] for score in (20.0, 50.0))
    found = claim.findings({"ota": high, "hiql": low})
    assert found[:-1] == path_findings
    assert found[-1].verdict == "holds"
    assert found[-1].value == pytest.approx(30.0)
    assert claim.judge({"ota": low, "hiql": high})[0].verdict == "does not hold"


def test_small_settings_are_those_of_one_scale():
    claim = claims()["ota"]
    small, paper = (
        compose(claim.overrides(claim.settings("ota", scale), f"scale={scale}")) for scale in ("cpu", "paper")
    )
    assert (small.schedule.offline_updates, small.agent.hiql.value_hidden_dims) == (30_000, (64, 64, 64))
    assert (paper.schedule.offline_updates, paper.agent.hiql.value_hidden_dims) == (1_000_000, (512, 512, 512))


@pytest.mark.parametrize(("value", "verdict"), [(0.9, "holds"), (1.1, "holds"), (1.11, "does not hold")])
def test_exact_values_within_bounds(value, verdict):
    assert exactly("a", "b", value, 0.9, 1.1).verdict == verdict


def test_locks_must_be_opened_with_the_data_and_not_without():
    opened, closed = {"scores": [0.0, 90.0, 96.0, 93.0]}, {"scores": [90.0, 0.0, 3.0, 0.0]}
    claim = claims()["hnpg"]
    curves = {name: [opened if name in ("hnpg", "hnpg_h10", "hnpg_h15") else closed] * 5 for name in claim.variants}
    findings = claim.judge(curves)
    assert [finding.verdict for finding in findings] == ["holds"] * 6
    np.testing.assert_allclose([finding.value for finding in findings], [43.0] * 3 + [4.0] * 3)
    exchanged = {name: [closed if runs[0] is opened else opened] * 5 for name, runs in curves.items()}
    assert [finding.verdict for finding in claim.judge(exchanged)] == ["does not hold"] * 6


def test_moorl_and_its_control_differ_in_their_batches_alone():
    claim = claims()["moorl_controls"]
    for name in ("reach", "plane"):
        ours, control = (compose(claim.overrides(claim.variants[variant])) for variant in (name, f"{name}_lookahead"))
        assert (ours.agent.source_choice, control.agent.source_choice) == ("coin", "mixed")
        assert dataclasses.replace(ours.agent, source_choice="mixed") == control.agent
        assert (ours.task, ours.schedule, ours.loop) == (control.task, control.schedule, control.loop)
    high, low = (
        [{"env_steps": [0, 800], "scores": [0.0, score + seed]} for seed in range(5)] for score in (50.0, 20.0)
    )
    curves = {"reach": high, "reach_lookahead": low, "plane": low, "plane_lookahead": high}
    findings = claim.judge(curves)
    assert [finding.verdict for finding in findings] == ["holds"] * 2 + ["does not hold"] * 2
    np.testing.assert_allclose([finding.value for finding in findings], [15.0, 15.0, -15.0, -15.0])


def test_unknown_claim_and_too_few_seeds_are_refused(capsys):
    assert main(["wsrll"]) == 2
    assert main(["wsrl", "--seeds", "3"]) == 2
    assert "at least 5" in capsys.readouterr().err


@pytest.mark.parametrize("typed", [*claims(), "uni_o4", "Uni-O4"])
def test_claims_are_found_however_they_are_spelled(typed, capsys):
    assert main([typed, "--seeds", "3"]) == 2
    assert "needs at least 5" in capsys.readouterr().err


def test_the_readme_table_comes_from_the_stored_results(tmp_path):
    finding = {"statement": "s", "quantity": "q", "value": 1.0, "low": 0.5, "high": 1.5, "verdict": "holds"}
    stored = {"claim": "wsrl", "task": "t", "scale": "cpu", "seeds": 5, "findings": [finding]}
    (tmp_path / "wsrl.json").write_text(json.dumps(stored))
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    update_readme(readme, tmp_path)
    assert readme.read_text() == f"before\n{BEGIN}\n{readme_table(tmp_path)}{END}\nafter\n"
    assert "[0.50, 1.50] | **holds**" in readme.read_text()


def test_unio4s_parts_by_hand():
    """A gain of 5 offline; a window that keeps 46 of 50; a fall turns the verdicts around."""
    good = {
        "offline_scores": [45.0, 48.0, 50.0],
        "env_steps": [0, 1, 2, 3, 4, 5, 6],
        "scores": [50.0, 46.0, 46.0, 46.0, 46.0, 46.0, 60.0],
        "metrics": {"gate/least_gain": 0.5},
    }
    bad = good | {
        "offline_scores": [45.0, 48.0, 20.0],
        "scores": [50.0, 10.0, 10.0, 10.0, 10.0, 10.0, 10.0],
        "metrics": {"gate/least_gain": -0.5},
    }
    assert gain_offline(good) == 5.0
    assert kept_at_switch(good) == pytest.approx(46.0 - 45.0)
    claim = claims()["unio4"]
    right = {"hopper": [good] * 5, "hopper_ppo": [bad] * 5, "halfcheetah": [good] * 5, "halfcheetah_ppo": [bad] * 5}
    verdicts = [finding.verdict for finding in claim.judge(right)]
    assert verdicts == ["holds"] * 12
    wrong = {"hopper": [bad] * 5, "hopper_ppo": [good] * 5, "halfcheetah": [bad] * 5, "halfcheetah_ppo": [good] * 5}
    assert [finding.verdict for finding in claim.judge(wrong)] == ["does not hold"] * 12
