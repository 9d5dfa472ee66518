"""ExORL's layout: what is written is read, archives too, and damaged files are refused."""

import dataclasses
import shutil
import zipfile

import numpy as np
import pytest

from hybridrl.datasets import files
from hybridrl.datasets.dataset import Dataset
from hybridrl.datasets.exorl import read_exorl_rows, write_exorl
from hybridrl.errors import DatasetError
from hybridrl.task import DatasetSpec, Task

LENGTHS = (3, 1, 2)


def steps():
    """Episodes whose states count 100, 101, ... with a jump between two, and whose rewards are not to be used."""
    states = np.concatenate([100.0 * (1 + i) + np.arange(n) for i, n in enumerate(LENGTHS)])
    ends = np.concatenate([np.arange(n) == n - 1 for n in LENGTHS])
    return {
        "observations": np.stack([states, -states], axis=1).astype(np.float32),
        "actions": (states[:, None] / 1000.0).astype(np.float32),
        "rewards": np.full(6, -7.0, np.float32),
        "terminations": np.arange(6) == 3,
        "ends": ends,
        "next_observations": np.stack([states + 1.0, -states - 1.0], axis=1).astype(np.float32),
        "states": np.stack([states, states**2, states], axis=1),
        "next_states": np.stack([states + 1.0, (states + 1.0) ** 2, states + 1.0], axis=1),
    }


def reached(rows):
    return rows["next_states"][:, 0] / 10.0, rows["next_states"][:, 0] > 300.0


TASK = Task("t", "locomotion", "none", 5, dataset=DatasetSpec("a/b", "exorl", relabel=reached), score_range=(0.0, 1.0))


@pytest.fixture
def folder(tmp_path):
    assert write_exorl(tmp_path, steps()) == 3
    return tmp_path


def test_layout(folder):
    assert sorted(path.name for path in folder.iterdir()) == [
        "episode_000000_3.npz",
        "episode_000001_1.npz",
        "episode_000002_2.npz",
    ]
    with np.load(folder / "episode_000002_2.npz") as file:
        np.testing.assert_array_equal(file["physics"][:, 0], [300.0, 301.0, 302.0])
        np.testing.assert_array_equal(file["observation"][:, 1], [-300.0, -301.0, -302.0])
        np.testing.assert_allclose(file["action"][:, 0], [0.0, 0.3, 0.301])  # row 0 is the reset
        np.testing.assert_array_equal(file["reward"], [[0.0], [-7.0], [-7.0]])
        assert file["discount"].shape == (3, 1)


def test_what_was_written_is_read(folder):
    expected, rows = steps(), read_exorl_rows(folder)
    for name in ("observations", "actions", "next_observations", "states", "next_states", "ends"):
        np.testing.assert_array_equal(rows[name], expected[name], err_msg=name)
    np.testing.assert_array_equal(rows["discounts"] == 0.0, expected["terminations"])
    read = files.read(folder, TASK)
    np.testing.assert_allclose(read.rewards, [10.1, 10.2, 10.3, 20.1, 30.1, 30.2], rtol=1e-6)  # where the step leads
    np.testing.assert_array_equal(read.successes, [False] * 4 + [True] * 2)
    dataset = Dataset.from_steps(read, TASK, discount=0.9)
    np.testing.assert_array_equal(dataset.episode_lengths, LENGTHS)
    np.testing.assert_array_equal(dataset.truncations, [0, 0, 1, 0, 0, 1])


def test_an_archive_is_read_as_it_is(folder, tmp_path):
    packed = tmp_path / "packed"
    packed.mkdir()
    with zipfile.ZipFile(packed / "rnd.zip", "w") as archive:
        for path in folder.glob("*.npz"):
            archive.write(path, f"buffer/{path.name}")
        archive.writestr("video/0.mp4", b"no episode")
    expected = read_exorl_rows(folder)
    for name, array in read_exorl_rows(packed).items():
        np.testing.assert_array_equal(array, expected[name])
    assert files.has_data(packed, "exorl")
    shutil.copy(packed / "rnd.zip", packed / "again.zip")
    with pytest.raises(DatasetError, match="2 archives"):
        read_exorl_rows(packed)


def test_bad_data_are_refused(folder, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(DatasetError, match="no episodes"):
        read_exorl_rows(empty)
    (empty / "x.zip").write_bytes(b"not an archive")
    with pytest.raises(DatasetError, match="not a readable archive"):
        read_exorl_rows(empty)
    plain = dataclasses.replace(TASK, dataset=dataclasses.replace(TASK.dataset, relabel=None))
    with pytest.raises(DatasetError, match="does not say how to compute rewards"):
        files.read(folder, plain)
    with np.load(folder / "episode_000002_2.npz") as file:
        good = dict(file)
    for changes, message in (
        ({"physics": good["physics"][:2]}, r"physics \(2, 3\)"),
        ({"action": good["action"][:2]}, r"action \(2, 1\)"),
        ({"discount": good["discount"][:2]}, "'discount'"),
        ({"observation": np.zeros((3, 9), np.float32)}, "widths"),
    ):
        np.savez(folder / "episode_000002_2.npz", **(good | changes))
        with pytest.raises(DatasetError, match=message):
            read_exorl_rows(folder)
    np.savez(folder / "episode_000002_2.npz", **{name: array for name, array in good.items() if name != "physics"})
    with pytest.raises(DatasetError, match=r"lacks \['physics'\]"):
        read_exorl_rows(folder)
