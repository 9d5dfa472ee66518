"""A recorded curve holds what the run's logs hold, and the command that made it."""

import json
from pathlib import Path

import pytest

from experiments import record
from experiments.run import main as run


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    budget = ["schedule.online_steps=100", "loop.eval_episodes=3"]
    arguments = ["algo=sac", "task=probe/bandit-v0", f"root={root}", *budget]
    assert run(arguments) == 0
    (config,) = Path(root).rglob("seed_*/config.json")
    return config.parent


def test_a_curve_is_the_runs(folder, tmp_path):
    assert record.main([str(folder), "bandit", "--output", str(tmp_path)]) == 0
    stored = json.loads((tmp_path / "bandit.json").read_text())
    lines = [json.loads(line) for line in (folder / "evaluations.jsonl").read_text().splitlines()]
    assert stored["env_steps"] == [line["env_steps"] for line in lines]
    assert stored["scores"] == [line["summary"]["score"] for line in lines]
    for line, least, mean, largest in zip(
        lines, stored["least_returns"], stored["mean_returns"], stored["largest_returns"], strict=True
    ):
        assert line["summary"]["return"] == pytest.approx(mean)
        assert sorted(line["episodes"]["returns"])[:: len(line["episodes"]["returns"]) - 1] == [least, largest]
    assert "algo=sac task=probe/bandit-v0" in stored["command"]
    assert stored["seed"] == 0


def test_an_unfinished_run_is_refused(folder, tmp_path, capsys):
    result = folder / "result.json"
    kept = result.read_text()
    result.unlink()
    try:
        assert record.main([str(folder), "bandit", "--output", str(tmp_path)]) == 2
    finally:
        result.write_text(kept)
    assert "not finished (no result yet)" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
    assert record.main([str(tmp_path), "bandit"]) == 2
