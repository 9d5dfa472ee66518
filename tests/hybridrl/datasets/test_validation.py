"""What is refused before training, and that the message leads to the row."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from hybridrl.datasets import Dataset, Steps, dataset
from hybridrl.datasets.validation import Statistics, check_memory, locate, statistics, validate
from hybridrl.errors import DatasetError
from hybridrl.task import DatasetSpec, Task

TASK = Task("maze", "antmaze", "none", 100, dataset=DatasetSpec("maze-v0", "ogbench"), success_key="success")


def steps_of(lengths=(3, 1, 2)):
    """Episodes of these lengths; row t has reward t."""
    rows = sum(lengths)
    ends = np.isin(np.arange(rows), np.cumsum(lengths) - 1)
    observations = np.zeros((rows, 2), np.float32)
    return Steps(
        observations=observations,
        actions=np.zeros((rows, 1), np.float32),
        rewards=np.arange(rows, dtype=np.float32),
        terminations=np.zeros(rows, bool),
        ends=ends,
        next_observations=observations + 1,
        successes=np.zeros(rows, bool),
    )


def test_sound_rows_pass_also_with_an_episode_of_one_step():
    validate(steps_of(), "x")
    validate(steps_of((1,)), "x")
    validate(steps_of((1, 1, 1)), "x")


@pytest.mark.parametrize(
    ("row", "place"),
    [(0, "row 0 (step 0 of episode 0)"), (2, "row 2 (step 2 of episode 0)"), (3, "row 3 (step 0 of episode 1)"),
     (5, "row 5 (step 1 of episode 2)")],
)  # fmt: skip
def test_rows_are_named_with_their_episode(row, place):
    steps = steps_of()
    assert locate(steps, row) == place
    steps.rewards[row:] = np.nan  # the first bad row is named, not just any
    with pytest.raises(DatasetError) as caught:
        validate(steps, "dataset 'maze-v0' in /data/maze")
    assert f"dataset 'maze-v0' in /data/maze: 'rewards' is not finite in {place}" in str(caught.value)


def test_a_termination_inside_a_recorded_stretch_begins_a_new_episode():
    steps = steps_of((4,))
    steps.terminations[1] = True
    assert locate(steps, 2) == "row 2 (step 0 of episode 1)"
    assert statistics(steps).episodes == 2


def test_actions_out_of_range_name_the_first_row_not_the_worst():
    steps = steps_of()
    steps.actions[[2, 4]] = [[-1.5], [9.0]]
    with pytest.raises(DatasetError, match=r"'actions' reaches 1\.5 in row 2 \(step 2 of episode 0\); .*rescale"):
        validate(steps, "x")
    steps.actions[[2, 4]] = 1.0005  # rounding of published files
    validate(steps, "x")


BAD = {
    "flags as numbers": ({"ends": np.zeros(6)}, "'ends' has shape .* dtype float64; expected one flag a row"),
    "whole numbers": ({"rewards": np.zeros(6, int)}, "'rewards' has .*dtype int64"),
    "a column": ({"rewards": np.zeros((6, 1), np.float32)}, r"'rewards' has shape \(6, 1\)"),
    "a flat observation": ({"observations": np.zeros(6, np.float32)}, "'observations' has shape"),
    "rows that differ": ({"ends": np.zeros(5, bool)}, "'ends' has 5 rows and 'rewards' has 6"),
    "widths that differ": ({"next_observations": np.zeros((6, 3), np.float32)}, "expected equal shapes"),
}


@pytest.mark.parametrize("case", BAD)
def test_arrays_that_do_not_fit_are_refused(case):
    changes, message = BAD[case]
    with pytest.raises(DatasetError, match=message):
        validate(dataclasses.replace(steps_of(), **changes), "x")


def test_images_are_observations_and_nothing_else():
    images = np.zeros((6, 4, 4, 3), np.uint8)
    validate(dataclasses.replace(steps_of(), observations=images, next_observations=images), "x")
    with pytest.raises(DatasetError, match=r"'actions' has shape \(6, 4, 4, 3\)"):
        validate(dataclasses.replace(steps_of(), actions=images), "x")


def test_statistics_by_hand():
    """Returns 0 + 1 + 2, 3 and 4 + 5; lengths 3, 1 and 2."""
    found = statistics(steps_of())
    returns, lengths = np.array([3.0, 3.0, 9.0]), np.array([3.0, 1.0, 2.0])
    assert found == Statistics(
        6, 3, 5.0, 2.0, pytest.approx(returns.std() / np.sqrt(3)), pytest.approx(lengths.std() / np.sqrt(3))
    )
    steps = steps_of()
    steps.ends[-1] = False  # an unfinished episode counts
    assert statistics(steps) == found


def test_the_folder_is_named_when_a_dataset_is_made(tmp_path):
    steps = steps_of()
    steps.actions[1] = np.inf
    with pytest.raises(DatasetError, match=f"'maze-v0' in {tmp_path}: 'actions' is not finite in row 1"):
        Dataset.from_steps(steps, TASK, 0.99, folder=tmp_path)


def test_memory_that_does_not_suffice():
    check_memory(10, 10, "x", "memory")
    check_memory(10, None, "x", "memory")
    with pytest.raises(DatasetError, match=r"x needs 2\.00 GiB of memory, of which 1\.00 GiB are free"):
        check_memory(2 << 30, 1 << 30, "x", "memory")


class Device:
    """An accelerator of 1,000 bytes, some of them taken."""

    def __init__(self, taken):
        self.taken = taken

    def memory_stats(self):
        return {"bytes_limit": 1000, "bytes_in_use": self.taken}

    def __str__(self):
        return "gpu:0"


@pytest.mark.parametrize(("taken", "fits"), [(1000 - 216, True), (1000 - 215, False)])
def test_a_dataset_larger_than_the_device_is_refused_before_it_is_copied(monkeypatch, taken, fits):
    """Six rows of 2 + 2 + 1 floats, and of reward, mask, return and truncation: 216 bytes."""
    device = Device(taken)
    monkeypatch.setattr(dataset, "_default_device", lambda: device)
    if fits:
        assert Dataset.from_steps(steps_of(), TASK, 0.99).num_rows == 6
    else:
        with pytest.raises(DatasetError, match=r"memory on gpu:0, .*JAX_PLATFORMS=cpu"):
            Dataset.from_steps(steps_of(), TASK, 0.99)


def test_without_figures_of_the_device_the_hosts_memory_counts(monkeypatch):
    assert dataset._default_device() in jnp.zeros(()).devices()
    monkeypatch.setattr(dataset, "free_host_memory", lambda: 100)
    with pytest.raises(DatasetError, match=r"needs 0\.00 GiB of memory, of which"):
        Dataset.from_steps(steps_of(), TASK, 0.99)
