"""Runs that begin with the phases of a finished one."""

import json

import pytest
from command_line import TINY

from experiments.config import compose

OFFLINE = (*(text for text in TINY if not text.startswith("schedule.online_steps")), "schedule.online_steps=0")


@pytest.fixture(scope="module")
def pretrained(cli, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pretrained")
    done = cli(folder, *OFFLINE, f"root={folder}")
    assert done.returncode == 0, done.stderr
    return compose([*OFFLINE, f"root={folder}"]).folder()


def test_ends_as_a_run_from_scratch_does(cli, tmp_path, pretrained, run_folder):
    done = cli(tmp_path, *TINY, f"root={tmp_path}", f"start_from={pretrained}")
    assert done.returncode == 0, done.stderr
    assert f"starting where {pretrained} ended" in done.stdout.replace("\n", "")
    folder = compose([*TINY, f"root={tmp_path}"]).folder()
    assert folder.parent.name == run_folder.parent.name  # not a setting: the same hash
    for name in ("metrics.jsonl", "evaluations.jsonl"):
        assert (folder / name).read_bytes() == (run_folder / name).read_bytes()
    (start,) = json.loads((folder / "provenance.json").read_text())["starts"]
    assert start["start_from"] == str(pretrained)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ("schedule.offline_updates=60", "is not the beginning of this one: phase 'offline'"),
        ("agent.discount=0.9", "is not the beginning of this one: phase 'offline'"),
        ("loop.log_every=5", "its loop is"),
        ("schedule.online_steps=0", "1 phases and this run 1"),
    ],
)
def test_another_beginning_is_refused_and_nothing_written(cli, tmp_path, pretrained, changed, message):
    kept = [text for text in TINY if text.partition("=")[0] != changed.partition("=")[0]]
    done = cli(tmp_path, *kept, changed, f"root={tmp_path}", f"start_from={pretrained}")
    assert done.returncode == 2
    assert message in done.stderr.replace("\n", " ")
    assert not list(tmp_path.rglob("checkpoints"))


def test_another_seed_and_an_unfinished_run_are_refused(cli, tmp_path, pretrained):
    done = cli(tmp_path, *TINY, "seed=3", f"root={tmp_path}", f"start_from={pretrained}")
    assert done.returncode == 2
    assert "its seed is 0, this run's is 3" in done.stderr
    done = cli(tmp_path, *TINY, f"root={tmp_path}", "start_from=nowhere")
    assert done.returncode == 2
    assert "expected a run folder" in done.stderr
