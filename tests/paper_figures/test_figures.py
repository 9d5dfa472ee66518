"""Figures are drawn from stored runs, with the numbers behind them."""

import json

import numpy as np
import pytest

from paper_figures import learning_curve, wsrl


def stored(tmp_path, count=3):
    rng = np.random.default_rng(0)
    runs = [
        {
            "variant": variant,
            "seed": seed,
            "task": "a-task",
            "env_steps": [0, 10, 20, 40],
            "scores": (level + rng.normal(0, 1, 4)).tolist(),
        }
        for variant, level in (("wsrl", 80.0), ("no warm-up", 30.0))
        for seed in range(count)
    ]
    path = tmp_path / "wsrl.json"
    path.write_text(json.dumps({"runs": runs}))
    return path


@pytest.mark.parametrize("count", [1, 4])
def test_wsrl_from_the_claims_results(tmp_path, capsys, count):
    output = tmp_path / "out" / "wsrl.png"
    assert wsrl.main(["--stored", str(stored(tmp_path, count)), "--output", str(output)]) == 0
    assert output.read_bytes().startswith(b"\x89PNG")
    out = capsys.readouterr().out
    assert "no warm-up" in out
    assert f"drew {output}" in out


def test_curves_of_one_variant_share_their_steps(tmp_path):
    runs = wsrl.from_stored(stored(tmp_path))
    runs[1]["env_steps"], runs[1]["scores"] = [0, 20, 40], [0.0, 20.0, 40.0]
    steps, scores = wsrl.curves(runs)["wsrl"]
    np.testing.assert_array_equal(steps, [0, 10, 20, 40])
    np.testing.assert_allclose(scores[1], [0.0, 10.0, 20.0, 40.0])


def test_missing_results_are_told(tmp_path, capsys):
    assert wsrl.main(["--stored", str(tmp_path / "none.json")]) == 2
    assert "python -m experiments.claims wsrl" in capsys.readouterr().err
    assert wsrl.main(["--runs", str(tmp_path)]) == 2
    assert "no runs to draw" in capsys.readouterr().err


def test_learning_curve_refuses_what_is_no_run_folder(tmp_path, capsys):
    assert learning_curve.main([str(tmp_path)]) == 2
    assert "expected a run folder" in capsys.readouterr().err
    assert learning_curve.main([]) == 2
