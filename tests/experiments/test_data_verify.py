"""`python -m experiments.data verify`: what is as recorded passes, and nothing else does."""

import dataclasses
import os

import pytest
from tiny_dataset import ID, folder, run

from envs import catalog as catalog_module
from envs.catalog import Measurement, catalog
from experiments import data_work
from hybridrl import disk
from hybridrl.data_folder import data_root
from hybridrl.datasets.validation import Statistics


def recorded(**changes):
    """Write an entry of the tiny dataset as it is now, with changes."""
    entry = catalog()[ID]
    data_work.write_record(entry, entry.task())
    if changes:
        measured = dataclasses.replace(catalog()[ID].measured, **changes)
        catalog_module.record(ID, measured)


def test_verify_passes_what_is_as_recorded(maker, capsys):
    recorded()
    assert run(capsys, "verify", ID) == (0, f"ok: {ID}: 9 rows, generated\n", "")
    assert run(capsys, "get", ID)[1].splitlines()[-1] == "  catalogue content equal to the recorded one"


def test_verify_catches_a_flipped_byte_that_a_quick_check_cannot_see(maker, capsys):
    assert run(capsys, "get", ID)[0] == 0
    file = folder() / f"{ID}.npz"
    before, content = file.stat(), bytearray(file.read_bytes())
    content[200] ^= 1
    with open(file, "r+b") as handle:
        handle.write(content)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    code, out, err = run(capsys, "verify", "--all")
    assert (code, out) == (3, "")
    assert err.startswith(f"error: {ID}: {file} has SHA-256 ")
    assert len(err.splitlines()) == 1


WRONG = {
    "rows": ({"rows": 10}, "9 rows, expected 10"),
    "a higher return": ({"mean_episode_return": 16.0, "return_tolerance": 0.9}, "mean return 15, expected 16 +- 0.9"),
    "a lower return": ({"mean_episode_return": 14.0, "return_tolerance": 0.9}, "mean return 15, expected 14 +- 0.9"),
    "the length": ({"mean_episode_length": 3.1}, "mean episode length 3, expected 3.1"),
    "the content": ({"sha256": "0" * 64}, "versions and CPU are the recorded ones"),
}


@pytest.mark.parametrize("case", WRONG)
def test_verify_catches_what_is_not_as_recorded(maker, capsys, case, monkeypatch):
    monkeypatch.setattr("hybridrl.datasets.cache.cpu_features", lambda: {"machine": "x", "flags": ["fma"]})
    changes, message = WRONG[case]
    recorded(**changes)
    for command in ("verify", "get"):
        code, out, err = run(capsys, command, ID)
        assert code == 3
        assert err.startswith(f"error: {ID}: ")
        assert message in err
        assert len(err.splitlines()) == 1
        assert "ok: " not in out


def test_verify_allows_within_the_tolerance(maker, capsys):
    recorded(mean_episode_return=16.0, return_tolerance=1.1)
    assert run(capsys, "verify", ID)[0] == 0


@pytest.mark.parametrize("elsewhere", [{"cpu": {"machine": "x", "flags": ["avx"]}}, {"versions": {"mujoco": "3.9"}}])
def test_another_hash_of_generated_data_is_information_elsewhere(maker, capsys, elsewhere):
    recorded(sha256="0" * 64, **elsewhere)
    code, out, err = run(capsys, "verify", ID)
    assert (code, err) == (0, "")
    assert out.startswith(f"note: {ID}: content has SHA-256 ")
    recorded(sha256="0" * 64, rows=8, **elsewhere)
    assert run(capsys, "verify", ID)[0] == 3  # statistics must agree all the same


MEASURED = Measurement(
    "task", "generated", "aa", 1, 1.0, 2, 100, 10, 5.0, 0.5, 10.0, 0.1, {"numpy": "2"}, {"machine": "x"}
)


@pytest.mark.parametrize(
    ("found", "problems", "notes"),
    [
        ({"origin": "generated", "sha256": "aa"}, 0, 0),
        ({"origin": "generated", "sha256": "bb", "versions": {"numpy": "2"}, "cpu": {"machine": "x"}}, 0, 1),  # unknown
        ({"origin": "download", "sha256": "bb"}, 0, 1),
        ({"origin": "download", "sha256": "aa"}, 0, 0),
    ],
)
def test_comparing_contents_by_hand(found, problems, notes):
    counted = data_work.compare(MEASURED, found, Statistics(100, 10, 5.0, 10.0, 0.1, 0.1))
    assert tuple(map(len, counted)) == (problems, notes)


def test_comparing_statistics_by_hand():
    off = Statistics(99, 10, 5.6, 10.2, 0.1, 0.1)
    found = {"origin": "generated", "sha256": "aa"}
    assert len(data_work.compare(MEASURED, found, off)[0]) == 3
    assert len(data_work.compare(MEASURED, found, off, same_rewards=False)[0]) == 2
    problems, notes = data_work.compare(MEASURED, found | {"origin": "local file", "sha256": "bb"}, off)
    assert (len(problems), len(notes)) == (0, 3)
    downloaded = dataclasses.replace(MEASURED, origin="download")
    fine = Statistics(100, 10, 5.0, 10.0, 0.1, 0.1)
    problems, _ = data_work.compare(downloaded, {"origin": "download", "sha256": "bb"}, fine)
    assert problems == ["content has SHA-256 bb, recorded is aa"]


def test_the_recorded_tolerance_is_six_standard_errors():
    assert data_work._tolerance(5.0, 0.1) == pytest.approx(0.6)
    assert data_work._tolerance(-5.0, 0.0) == pytest.approx(5e-6)


def test_verify_all_covers_what_no_task_uses(maker, capsys):
    assert run(capsys, "verify", "--all") == (0, "", "")
    unknown = data_root() / "ogbench" / "mine-v0"
    with disk.atomic_folder(unknown) as temporary:
        (temporary / "file").write_bytes(b"123")
        disk.write_json(temporary / "source.json", {})
    assert run(capsys, "verify", "--all") == (0, "ok: mine-v0: hashes only, as no task uses it\n", "")
    (unknown / "file").write_bytes(b"124")
    code, _, err = run(capsys, "verify", "--all")
    assert code == 3
    assert f"error: mine-v0: {unknown / 'file'} has SHA-256" in err


def test_verify_needs_the_dataset_and_one_way_to_name_it(maker, capsys):
    code, _, err = run(capsys, "verify", ID)
    assert code == 3
    assert err == f"error: {ID}: not in {folder()}; get it with: python -m experiments.data get {ID}\n"
    assert run(capsys, "verify")[0] == run(capsys, "verify", ID, "--all")[0] == 2
