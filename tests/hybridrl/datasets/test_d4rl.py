"""D4RL's files, written here by plain h5py: both meanings of an episode's end, and everything that is refused."""

import dataclasses
import hashlib
import shutil
import time

import h5py
import jax
import numpy as np
import pytest

import envs
from hybridrl.datasets import Dataset, load, read
from hybridrl.datasets.cache import dataset_folder
from hybridrl.datasets.d4rl import infer_timeouts, keep_successes, read_d4rl
from hybridrl.datasets.dataset import Steps
from hybridrl.errors import ConfigError, DatasetError
from hybridrl.task import DatasetSpec, Task

HORIZON = 4


def task_of(boundaries="corrected", **fields):
    spec = DatasetSpec("some-v0", "d4rl", boundaries=boundaries, **fields)
    return Task("some", "probe", "none", HORIZON, dataset=spec, score_range=(0.0, 1.0))


def arrays_of(rows, terminals=(), timeouts=(), width=2):
    """Row t holds the numbers t, so that every transition shows where it came from."""
    count = np.arange(rows, dtype=np.float32)
    flags = {"terminals": np.zeros(rows, bool), "timeouts": np.zeros(rows, bool)}
    flags["terminals"][list(terminals)] = True
    flags["timeouts"][list(timeouts)] = True
    return {
        "observations": count[:, None] + np.arange(width, dtype=np.float32) * 100,
        "actions": count[:, None] / 1000,
        "rewards": count * 10,
        **flags,
    }


def write(path, arrays, **options):
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file.create_dataset(name, data=array, **options)
    return path


def rows_of(steps):
    """The rows of the file that were kept, by their observations; the other fields must have come along."""
    rows = steps.observations[:, 0].astype(int)
    np.testing.assert_array_equal(steps.observations[:, 1], rows + 100)
    np.testing.assert_array_equal(steps.actions[:, 0], rows.astype(np.float32) / np.float32(1000))
    np.testing.assert_array_equal(steps.rewards, rows * 10)
    return rows.tolist()


# Rows 0-2 end in a termination, rows 3-6 at the time limit, rows 7-8 are cut by the end of the file.
NINE = {"rows": 9, "terminals": [2], "timeouts": [6]}


def test_corrected_rows_by_hand(tmp_path):
    steps = read_d4rl(write(tmp_path / "a.hdf5", arrays_of(**NINE)), task_of())
    assert rows_of(steps) == [0, 1, 2, 3, 4, 5, 7]
    np.testing.assert_array_equal(steps.next_observations[:, 0], [1, 2, 2, 4, 5, 6, 8])  # row 2 shows its own
    np.testing.assert_array_equal(steps.terminations, [0, 0, 1, 0, 0, 0, 0])
    np.testing.assert_array_equal(steps.ends, [0, 0, 1, 0, 0, 1, 1])


def test_d4rl_rows_by_hand(tmp_path):
    steps = read_d4rl(write(tmp_path / "a.hdf5", arrays_of(**NINE)), task_of("d4rl"))
    assert rows_of(steps) == [0, 1, 2, 3, 4, 5, 7]
    np.testing.assert_array_equal(steps.next_observations[:, 0], [1, 2, 3, 4, 5, 6, 8])  # row 2 shows another episode
    np.testing.assert_array_equal(steps.terminations, [0, 0, 1, 0, 0, 0, 0])
    np.testing.assert_array_equal(steps.ends, [0, 0, 1, 0, 0, 1, 1])


def test_a_termination_in_the_last_row_is_kept_unless_d4rl_is_followed(tmp_path):
    path = write(tmp_path / "a.hdf5", arrays_of(4, terminals=[3]))
    steps = read_d4rl(path, task_of())
    assert rows_of(steps) == [0, 1, 2, 3]
    np.testing.assert_array_equal(steps.terminations, [0, 0, 0, 1])
    assert rows_of(read_d4rl(path, task_of("d4rl"))) == [0, 1, 2]


def test_exact_successors_keep_every_row(tmp_path):
    arrays = arrays_of(**NINE)
    arrays["next_observations"] = arrays["observations"] + 1
    arrays["next_observations"][6] = [-6, 94]  # what followed the time limit
    path = write(tmp_path / "a.hdf5", arrays)
    steps = read_d4rl(path, task_of())
    assert rows_of(steps) == list(range(9))
    np.testing.assert_array_equal(steps.next_observations, arrays["next_observations"])
    np.testing.assert_array_equal(steps.ends, [0, 0, 1, 0, 0, 0, 1, 0, 1])
    data = Dataset.from_steps(steps, task_of(), 0.9)
    np.testing.assert_array_equal(data.truncations, [0, 0, 0, 0, 0, 0, 1, 0, 1])
    assert rows_of(read_d4rl(path, task_of("d4rl"))) == [0, 1, 2, 3, 4, 5, 7]


def test_a_break_that_no_flag_marks_ends_an_episode(tmp_path, caplog):
    arrays = arrays_of(6)
    arrays["next_observations"] = arrays["observations"] + 1
    arrays["next_observations"][2] = [50, 150]
    arrays["timeouts"][5] = True
    steps = read_d4rl(write(tmp_path / "a.hdf5", arrays), task_of())
    np.testing.assert_array_equal(steps.ends, [0, 0, 1, 0, 0, 1])
    assert "the first is row 2" in caplog.text


# Without timeouts ----------------------------------------------------------------------------------------------------


def test_time_limits_are_inferred_where_the_file_has_none(tmp_path):
    arrays = arrays_of(13, terminals=[5])  # episodes: 0-3 limit, 4-5 termination, 6-9 limit, 10-12 cut
    del arrays["timeouts"]
    path = write(tmp_path / "a.hdf5", arrays)
    assert rows_of(read_d4rl(path, task_of())) == [0, 1, 2, 4, 5, 6, 7, 8, 10, 11]
    # D4RL's counter stands at 1 after a termination, so the limit of the next episode comes one row early.
    assert rows_of(read_d4rl(path, task_of("d4rl"))) == [0, 1, 2, 4, 5, 6, 7, 9, 10, 11]


@pytest.mark.parametrize("horizon", [1, 2, 3, 5])
def test_inferred_limits_equal_a_count_row_by_row(horizon):
    rng = np.random.default_rng(horizon)
    for _ in range(100):
        terminals = rng.random(rng.integers(1, 60)) < rng.choice([0.0, 0.1, 0.5, 0.9])
        plain, step = [], 0
        for terminal in terminals:
            plain.append(step == horizon - 1)
            step = 0 if terminal or plain[-1] else step + 1
        np.testing.assert_array_equal(infer_timeouts(terminals, horizon), plain)


def reference_qlearning(arrays, horizon):
    """Written from the description of D4RL's function, one row after the other."""
    result = {name: [] for name in ("observations", "actions", "rewards", "terminals", "next_observations")}
    clock = 0
    for row in range(len(arrays["rewards"]) - 1):
        limit = arrays["timeouts"][row] if "timeouts" in arrays else clock == horizon - 1
        if limit:
            clock = 0
            continue
        for name in ("observations", "actions", "rewards"):
            result[name].append(np.float32(arrays[name][row]))
        result["next_observations"].append(np.float32(arrays["observations"][row + 1]))
        result["terminals"].append(bool(arrays["terminals"][row]))
        clock = 1 if arrays["terminals"][row] else clock + 1
    return {name: np.array(values) for name, values in result.items()}


@pytest.mark.parametrize("with_timeouts", [True, False])
@pytest.mark.parametrize("horizon", [1, 2, 3, 7])
def test_d4rl_boundaries_are_qlearning_dataset_bit_for_bit(tmp_path, horizon, with_timeouts):
    rng = np.random.default_rng(horizon)
    for trial in range(12):
        rows = int(rng.integers(3, 80))
        arrays = {
            "observations": rng.normal(size=(rows, 3)),  # double precision
            "actions": rng.uniform(-1, 1, (rows, 2)),
            "rewards": rng.normal(size=rows),
            "terminals": rng.random(rows) < rng.choice([0.05, 0.4, 0.9]),
        }
        if with_timeouts:
            arrays["timeouts"] = rng.random(rows) < 0.3
        expected = reference_qlearning(arrays, horizon)
        task = dataclasses.replace(task_of("d4rl"), horizon=horizon)
        path = write(tmp_path / f"{trial}.hdf5", arrays)
        if not len(expected["rewards"]):
            with pytest.raises(DatasetError, match="none of its"):
                read_d4rl(path, task)
            continue
        steps = read_d4rl(path, task)
        np.testing.assert_array_equal(steps.terminations, expected.pop("terminals"))
        for name, values in expected.items():
            np.testing.assert_array_equal(getattr(steps, name), values)
            assert getattr(steps, name).dtype == np.float32


def test_an_unknown_choice_of_boundaries_is_refused():
    with pytest.raises(ConfigError, match="boundaries 'right'; expected one of"):
        task_of("right")


# Layouts -------------------------------------------------------------------------------------------------------------


def test_columns_doubles_numbers_for_flags_and_compression_read_the_same(tmp_path):
    arrays = arrays_of(**NINE)
    plain = read_d4rl(write(tmp_path / "a.hdf5", arrays), task_of())
    columns = {name: array.astype(np.float64) for name, array in arrays.items()}
    for name in ("rewards", "terminals", "timeouts"):
        columns[name] = columns[name][:, None]
    steps = read_d4rl(write(tmp_path / "b.hdf5", columns, compression="gzip"), task_of())
    np.savez(tmp_path / "c.npz", **arrays)
    archived = read_d4rl(tmp_path / "c.npz", task_of())
    for name, array in plain.arrays().items():
        for other in (steps, archived):
            np.testing.assert_array_equal(getattr(other, name), array)
            assert getattr(other, name).dtype == array.dtype


def chunked(path, arrays, cuts):
    """`virtual/<number>/<name>`, numbers in an order that sorting them as text would break."""
    with h5py.File(path, "w") as file:
        for number, (start, stop) in zip((0, 2, 10), zip((0, *cuts), (*cuts, None), strict=True), strict=True):
            for name, array in arrays.items():
                file[f"virtual/{number}/{name}"] = array[start:stop]
    return path


def test_chunks_are_laid_end_to_end_in_the_order_of_their_numbers(tmp_path):
    arrays = arrays_of(**NINE)
    steps = read_d4rl(chunked(tmp_path / "a.hdf5", arrays, (4, 5)), task_of())
    whole = read_d4rl(write(tmp_path / "b.hdf5", arrays), task_of())
    for name, array in whole.arrays().items():
        np.testing.assert_array_equal(getattr(steps, name), array)


def test_chunks_that_are_views_of_the_same_file(tmp_path):
    arrays = arrays_of(**NINE)
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        for name, array in arrays.items():
            source = file.create_dataset(f"all/{name}", data=array)
            for number, part in enumerate((slice(0, 4), slice(4, 9))):
                layout = h5py.VirtualLayout(array[part].shape, array.dtype)
                layout[...] = h5py.VirtualSource(source)[part]
                file.create_virtual_dataset(f"virtual/{number}/{name}", layout)
    assert rows_of(read_d4rl(tmp_path / "a.hdf5", task_of())) == [0, 1, 2, 3, 4, 5, 7]


@pytest.mark.parametrize("case", ["another file", "a link", "a view of a view", "itself"])
def test_views_that_leave_the_file_are_refused(tmp_path, case):
    arrays = arrays_of(**NINE)
    write(tmp_path / "other.hdf5", arrays)
    with h5py.File(write(tmp_path / "a.hdf5", arrays), "a") as file:
        rewards = file["rewards"][:]
        del file["rewards"]
        layout = h5py.VirtualLayout(rewards.shape, rewards.dtype)
        if case == "another file":
            layout[...] = h5py.VirtualSource(tmp_path / "other.hdf5", "rewards", rewards.shape)
        elif case == "a link":
            file["out"] = h5py.ExternalLink(tmp_path / "other.hdf5", "/")
            layout[...] = h5py.VirtualSource(".", "out/rewards", rewards.shape)
        elif case == "itself":
            layout[...] = h5py.VirtualSource(".", "rewards", rewards.shape)
        else:
            inner = h5py.VirtualLayout(rewards.shape, rewards.dtype)
            inner[...] = h5py.VirtualSource(tmp_path / "other.hdf5", "rewards", rewards.shape)
            file.create_virtual_dataset("inner", inner)
            layout[...] = h5py.VirtualSource(".", "inner", rewards.shape)
        file.create_virtual_dataset("rewards", layout)
    with pytest.raises(DatasetError, match=r"a link; expected data|stored in other files|recursion"):
        read_d4rl(tmp_path / "a.hdf5", task_of())


# Refusals ------------------------------------------------------------------------------------------------------------


def with_entry(name, row, value):
    def change(arrays):
        arrays[name] = arrays[name].astype(np.float64)
        arrays[name][row] = value

    return change


REFUSED = {
    "missing key": (lambda a: a.pop("rewards"), "rewards is missing; found .*get the dataset again"),
    "rows differ": (lambda a: a.update(actions=a["actions"][:-1]), "'actions' has 8 rows and 'observations' has 9"),
    "one flag too few": (lambda a: a.update(timeouts=a["timeouts"][1:]), r"'timeouts' has shape \(8,\)"),
    "images": (lambda a: a.update(observations=np.zeros((9, 2, 2), "f4")), r"'observations' has shape \(9, 2, 2\)"),
    "no width": (lambda a: a.update(actions=np.zeros(9, "f4")), r"'actions' has shape \(9,\)"),
    "scalar": (lambda a: a.update(observations=np.float32(3)), "'observations' holds no rows"),
    "integer actions": (lambda a: a.update(actions=np.zeros((9, 1), int)), "'actions' has dtype int64"),
    "text": (lambda a: a.update(rewards=np.array([b"x"] * 9)), "rewards has dtype"),
    "objects": (lambda a: a.update(rewards=np.array(["x"] * 9, h5py.string_dtype())), "rewards has dtype object"),
    "successors of another width": (
        lambda a: a.update(next_observations=np.zeros((9, 3), "f4")),
        r"'next_observations' has shape \(9, 3\)",
    ),
    "nan": (with_entry("observations", (3, 1), np.nan), "'observations' is not finite in row 3"),
    "infinity": (with_entry("rewards", 5, np.inf), "'rewards' is not finite in row 5"),
    "too large for single precision": (with_entry("rewards", 4, 1e60), "'rewards' is not finite in row 4"),
    "nan in flags": (with_entry("terminals", 4, np.nan), "'terminals' is nan in row 4; expected flags"),
    "flags that are none": (with_entry("timeouts", 7, 2), "'timeouts' is 2.0 in row 7; expected flags"),
    "action out of range": (with_entry("actions", (6, 0), -1.5), "'actions' reaches 1.5 in row 6; expected .*rescale"),
    "no rows": (lambda a: a.update({name: array[:0] for name, array in a.items()}), "'observations' holds no rows"),
    "one row": (lambda a: a.update({name: array[:1] for name, array in a.items()}), "none of its 1 rows"),
    "limits only": (lambda a: a.update(timeouts=np.ones(9, bool)), "none of its 9 rows"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused_names_file_and_row(tmp_path, case):
    change, message = REFUSED[case]
    arrays = arrays_of(**NINE)
    change(arrays)
    with pytest.raises(DatasetError, match=f"a.hdf5: .*{message}"):
        read_d4rl(write(tmp_path / "a.hdf5", arrays), task_of())


@pytest.mark.parametrize("link", ["soft", "external", "external storage"])
def test_links_are_refused(tmp_path, link):
    arrays = arrays_of(**NINE)
    write(tmp_path / "other.hdf5", arrays)
    with h5py.File(write(tmp_path / "a.hdf5", arrays), "a") as file:
        del file["rewards"]
        if link == "soft":
            file["rewards"] = h5py.SoftLink("/terminals")
        elif link == "external":
            file["rewards"] = h5py.ExternalLink(tmp_path / "other.hdf5", "/rewards")
        else:
            (tmp_path / "raw").write_bytes(bytes(36))
            file.create_dataset("rewards", (9,), np.float32, external=[(tmp_path / "raw", 0, 36)])
    with pytest.raises(DatasetError, match=r"is a link; .*do not trust|stored in other files"):
        read_d4rl(tmp_path / "a.hdf5", task_of())


def test_damaged_and_missing_files_are_refused(tmp_path):
    path = write(tmp_path / "a.hdf5", arrays_of(5000))
    path.write_bytes(path.read_bytes()[:-40_000])
    with pytest.raises(DatasetError, match=r"a\.hdf5 is not a readable HDF5 file.*get it again"):
        read_d4rl(path, task_of())
    with pytest.raises(DatasetError, match=r"none\.hdf5 is not a readable HDF5 file"):
        read_d4rl(tmp_path / "none.hdf5", task_of())
    write(tmp_path / "b.hdf5", arrays_of(5))
    with pytest.raises(DatasetError, match=r"holds \['a.hdf5', 'b.hdf5'\]; expected one"):
        read_d4rl(tmp_path, task_of())
    np.savez(tmp_path / "c.npz", **arrays_of(5) | {"rewards": np.array([None] * 5)})
    with pytest.raises(DatasetError, match="pickled Python objects"):
        read_d4rl(tmp_path / "c.npz", task_of())


def test_chunks_must_agree(tmp_path):
    with h5py.File(chunked(tmp_path / "a.hdf5", arrays_of(**NINE), (4, 5)), "a") as file:
        del file["virtual/2/timeouts"]
    with pytest.raises(DatasetError, match="expected the same arrays in all chunks"):
        read_d4rl(tmp_path / "a.hdf5", task_of())
    with h5py.File(tmp_path / "a.hdf5", "a") as file:
        file["virtual/more"] = np.zeros(3)
    with pytest.raises(DatasetError, match="expected numbered chunks"):
        read_d4rl(tmp_path / "a.hdf5", task_of())


def test_data_of_another_environment_are_refused(tmp_path):
    path = write(tmp_path / "a.hdf5", arrays_of(**NINE))
    assert rows_of(read_d4rl(path, task_of(widths=(2, 1))))
    with pytest.raises(DatasetError, match="have 2 and 1 entries; the environment of task 'some' has 111 and 8"):
        read_d4rl(path, task_of(widths=(111, 8)))


def test_relabelled_rewards_and_successes(tmp_path):
    def relabel(arrays):
        return arrays["rewards"] / 10, arrays["observations"][:, 0] == 4

    steps = read_d4rl(write(tmp_path / "a.hdf5", arrays_of(**NINE)), task_of(relabel=relabel))
    np.testing.assert_array_equal(steps.rewards, [0, 1, 2, 3, 4, 5, 7])
    np.testing.assert_array_equal(steps.successes, [0, 0, 0, 0, 1, 0, 0])


# The binary sets' rule -----------------------------------------------------------------------------------------------


def test_only_what_leads_to_a_success_is_kept():
    rewards = np.array([-1, 0, 0, -1, 0, -1, -1, -1, -1, 0, -1, -1], np.float32)
    ends = np.zeros(12, bool)
    ends[[5, 8, 11]] = True  # successes in rows 1, 2, 4; none; in row 9
    count = np.arange(12, dtype=np.float32)
    steps = Steps(
        observations=count[:, None],
        actions=count[:, None],
        rewards=rewards,
        terminations=ends,
        ends=ends,
        next_observations=count[:, None] + 1,
        successes=rewards == 0,
    )
    kept = keep_successes(steps)
    np.testing.assert_array_equal(kept.observations[:, 0], [0, 1, 2, 3, 4, 9])
    np.testing.assert_array_equal(kept.next_observations[:, 0], [1, 2, 3, 4, 5, 10])
    np.testing.assert_array_equal(kept.terminations, [0, 1, 1, 0, 1, 1])
    np.testing.assert_array_equal(kept.ends, [0, 0, 0, 0, 1, 1])
    none = keep_successes(dataclasses.replace(steps, successes=np.zeros(12, bool)))
    assert len(none.rewards) == 0


def test_a_file_without_any_success_is_refused(tmp_path):
    path = write(tmp_path / "a.hdf5", arrays_of(**NINE))
    with pytest.raises(DatasetError, match="none of its 9 rows"):
        read_d4rl(path, task_of(prepare=keep_successes))


# The way here ---------------------------------------------------------------------------------------------------------


def test_a_published_file_arrives_through_a_cut_connection_and_is_kept_to(server, tmp_path):
    task = envs.make_task("halfcheetah-medium-v2")
    (published,) = task.dataset.urls
    assert published == "http://rail.eecs.berkeley.edu/datasets/offline_rl/gym_mujoco_v2/halfcheetah_medium-v2.hdf5"
    arrays = arrays_of(3000, terminals=[100], width=17)
    arrays["actions"] = np.tile(arrays["actions"] / 10, 6)
    server.content = write(tmp_path / "a.hdf5", arrays).read_bytes()
    server.cuts = [100_000]
    spec = dataclasses.replace(task.dataset, urls=(server.url.replace("data.bin", "halfcheetah_medium-v2.hdf5"),))
    task = dataclasses.replace(task, dataset=spec)
    data = load(task)
    assert [request.get("Range") for request in server.requests] == [None, "bytes=100000-"]
    assert (data.source.origin, data.num_rows) == ("download", 2999)
    assert data.source.sha256 == hashlib.sha256(server.content).hexdigest()
    shutil.rmtree(dataset_folder(spec))
    server.content, server.etag = write(tmp_path / "b.hdf5", arrays | {"rewards": np.zeros(3000)}).read_bytes(), '"two"'
    with pytest.raises(DatasetError, match="the first download had"):
        load(task)


# Speed ---------------------------------------------------------------------------------------------------------------


def timed_load(rows, **options):
    rng = np.random.default_rng(0)
    arrays = {
        "observations": rng.normal(size=(rows, 17)).astype(np.float32),
        "actions": rng.uniform(-1, 1, (rows, 6)).astype(np.float32),
        "rewards": rng.normal(size=rows).astype(np.float32),
        "terminals": rng.random(rows) < 0.001,
        "timeouts": np.arange(rows) % 1000 == 999,
    }
    task = dataclasses.replace(task_of(widths=(17, 6)), horizon=1000)
    folder = dataset_folder(task.dataset)
    folder.mkdir(parents=True)
    write(folder / "a.hdf5", arrays, **options)
    jax.devices()  # so that starting JAX does not count
    start = time.process_time()  # of all threads: what other processes do meanwhile does not count
    data = load(task)
    seconds = time.process_time() - start
    assert data.num_rows == rows - rows // 1000
    assert data.source.origin == "local file"
    assert read(folder, task).observations.shape == (data.num_rows, 17)
    return seconds


def test_a_hundred_thousand_rows_load_quickly():
    assert timed_load(100_000) < 0.5


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"compression": "gzip"}])
def test_a_million_rows_load_in_two_seconds(options):
    assert timed_load(1_000_000, **options) < 2.0
