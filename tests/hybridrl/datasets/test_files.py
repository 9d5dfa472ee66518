import dataclasses
import json
import warnings
import zipfile

import gymnasium
import h5py
import minari
import numpy as np
import pytest

from hybridrl.datasets import Dataset, Source, decoded, read
from hybridrl.datasets.decoded import read_quickly
from hybridrl.datasets.files import READERS, read_minari, read_ogbench
from hybridrl.errors import ConfigError, DatasetError
from hybridrl.task import DatasetSpec, Task


def task_of(relabel=None, format="ogbench", **fields):
    spec = DatasetSpec("some-v0", format, relabel=relabel)
    return Task("some", "probe", "none", 10, dataset=spec, **{"success_key": "success", **fields})


PLAIN = task_of(format="minari", success_key="reward")


# -------------------------------------------------------------------------------------------------------------- OGBench


def ogbench_arrays(lengths=(5, 5)):
    """Row t holds the numbers t, so that every triple shows where it came from."""
    rows = sum(lengths)
    terminals = np.zeros(rows, bool)
    terminals[np.cumsum(lengths) - 1] = True
    return {
        "observations": np.arange(rows, dtype=np.float32)[:, None] + np.array([0, 100], np.float32),
        "actions": np.arange(rows, dtype=np.float32)[:, None] / 100,
        "terminals": terminals,
        "qpos": np.arange(rows, dtype=np.float32)[:, None],
    }


def at_three(arrays):
    """Solved in the state that row 3 or row 7 begins in."""
    successes = np.isin(arrays["qpos"][:, 0], (3, 7))
    return successes - np.float32(1), successes


def test_ogbench_rows_by_hand(tmp_path):
    np.savez_compressed(tmp_path / "maze-v0.npz", **ogbench_arrays())
    np.savez_compressed(tmp_path / "maze-v0-val.npz", observations=np.zeros(3))  # left alone
    steps = read_ogbench(tmp_path, task_of(at_three))
    rows = [0, 1, 2, 3, 5, 6, 7, 8]
    np.testing.assert_array_equal(steps.observations, [[row, row + 100] for row in rows])
    np.testing.assert_array_equal(steps.next_observations, [[row + 1, row + 101] for row in rows])
    np.testing.assert_array_equal(steps.actions, np.array(rows, np.float32)[:, None] / np.float32(100))
    np.testing.assert_array_equal(steps.ends, [0, 0, 0, 1, 0, 0, 0, 1])
    np.testing.assert_array_equal(steps.terminations, np.zeros(8, bool))
    np.testing.assert_array_equal(steps.rewards, [-1, -1, -1, 0, -1, -1, 0, -1])  # of the state before the action
    np.testing.assert_array_equal(steps.successes, [0, 0, 0, 1, 0, 0, 1, 0])
    assert {steps.observations.dtype, steps.actions.dtype, steps.rewards.dtype} == {np.dtype(np.float32)}


@pytest.mark.parametrize("lengths", [(5, 5), (1, 3), (2, 1, 1, 4), (3,), (1, 1, 2)])
def test_ogbench_triples_agree_with_the_compact_form(tmp_path, lengths):
    """The compact form keeps all rows; next of t is t + 1 wherever row t is valid."""
    arrays = ogbench_arrays(lengths)
    np.savez(tmp_path / "maze.npz", **arrays)
    valid = ~arrays["terminals"]
    steps = read_ogbench(tmp_path / "maze.npz", task_of(at_three))
    assert len(steps.rewards) == sum(lengths) - len(lengths)
    np.testing.assert_array_equal(steps.observations, arrays["observations"][valid])
    np.testing.assert_array_equal(steps.next_observations, arrays["observations"][np.flatnonzero(valid) + 1])
    assert (steps.next_observations - steps.observations == 1).all()  # none crosses an episode
    assert steps.ends.sum() == sum(length > 1 for length in lengths)
    assert not len(steps.ends) or steps.ends[-1]


def test_ogbench_reads_like_the_benchmarks_own_loader(tmp_path):
    ogbench_utils = pytest.importorskip("ogbench.utils")
    arrays = ogbench_arrays((6, 4, 5))
    np.savez_compressed(tmp_path / "maze.npz", **arrays)
    theirs = ogbench_utils.load_dataset(str(tmp_path / "maze.npz"))
    ours = read_ogbench(tmp_path / "maze.npz", task_of(at_three))
    for name in ("observations", "actions", "next_observations"):
        np.testing.assert_array_equal(getattr(ours, name), theirs[name])
    np.testing.assert_array_equal(ours.ends, theirs["terminals"])


def test_ogbench_rows_are_the_valid_rows_of_the_compact_form(tmp_path):
    ogbench_utils = pytest.importorskip("ogbench.utils")
    np.savez_compressed(tmp_path / "maze.npz", **ogbench_arrays((6, 4, 5)))
    compact = ogbench_utils.load_dataset(str(tmp_path / "maze.npz"), compact_dataset=True)
    ours = read_ogbench(tmp_path / "maze.npz", task_of(at_three))
    valid = np.flatnonzero(compact["valids"])
    np.testing.assert_array_equal(ours.observations, compact["observations"][valid])
    np.testing.assert_array_equal(ours.actions, compact["actions"][valid])
    np.testing.assert_array_equal(ours.next_observations, compact["observations"][valid + 1])
    # Where goals from later rows end: the first row from here on that the compact form marks is our episode's last.
    marked, ends = np.flatnonzero(compact["terminals"]), np.flatnonzero(ours.ends)
    theirs = marked[np.searchsorted(marked, valid)]
    np.testing.assert_array_equal(valid[ends[np.searchsorted(ends, np.arange(len(valid)))]], theirs)


def test_goals_have_no_rewards_and_may_have_a_representation(tmp_path):
    np.savez(tmp_path / "maze.npz", **ogbench_arrays())
    spec = DatasetSpec("some-v0", "ogbench", represent=lambda arrays: 10 * arrays["qpos"].astype(np.float64))
    steps = read_ogbench(tmp_path / "maze.npz", dataclasses.replace(task_of(num_goals=5), dataset=spec))
    np.testing.assert_array_equal(steps.rewards, np.zeros(8))
    assert not steps.successes.any()
    np.testing.assert_array_equal(steps.goal_representations, [[0], [10], [20], [30], [50], [60], [70], [80]])
    assert steps.goal_representations.dtype == np.float32
    dataset = Dataset.from_steps(steps, task_of(num_goals=5), 0.99)
    np.testing.assert_array_equal(dataset.goal_representations, steps.goal_representations)
    assert read_ogbench(tmp_path / "maze.npz", task_of(num_goals=5)).goal_representations is None
    short = dataclasses.replace(task_of(), dataset=dataclasses.replace(spec, represent=lambda arrays: np.zeros((3, 1))))
    with pytest.raises(DatasetError, match="3 goal representations for 10 rows"):
        read_ogbench(tmp_path / "maze.npz", dataclasses.replace(short, num_goals=5))


def test_arrays_are_read_when_they_are_asked_for(tmp_path):
    np.savez(tmp_path / "maze.npz", **ogbench_arrays() | {"qpos": np.array([None] * 10)})
    assert len(read_ogbench(tmp_path / "maze.npz", task_of(num_goals=5)).rewards) == 8  # and nothing is unpickled
    np.savez(tmp_path / "maze.npz", **{k: v for k, v in ogbench_arrays().items() if k != "qpos"})
    with pytest.raises(DatasetError, match=r"lacks \['qpos'\]"):
        read_ogbench(tmp_path / "maze.npz", task_of(at_three))


def test_pixels_stay_bytes(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (10, 8, 8, 3), np.uint8)
    np.savez(tmp_path / "maze.npz", **ogbench_arrays() | {"observations": images})
    task = task_of(at_three, pixels=True)
    steps = read_ogbench(tmp_path / "maze.npz", task)
    np.testing.assert_array_equal(steps.observations, images[[0, 1, 2, 3, 5, 6, 7, 8]])
    transitions = Dataset.from_steps(steps, task, 0.99).transitions
    assert transitions.observations.dtype == transitions.next_observations.dtype == np.uint8
    np.testing.assert_array_equal(transitions.next_observations, images[[1, 2, 3, 4, 6, 7, 8, 9]])
    with pytest.raises(DatasetError, match=r"dtype uint8"):
        read_ogbench(tmp_path / "maze.npz", task_of(at_three))
    np.savez(tmp_path / "maze.npz", **ogbench_arrays())
    with pytest.raises(DatasetError, match=r"expected uint8 \(rows, height, width, channels\)"):
        read_ogbench(tmp_path / "maze.npz", task)


def test_ogbench_takes_integer_flags_doubles_and_an_unfinished_episode(tmp_path):
    arrays = ogbench_arrays() | {"terminals": np.array([0, 0, 0, 0, 1, 0, 0, 0, 0, 0], np.int32)}
    arrays["observations"] = arrays["observations"].astype(np.float64)
    np.savez(tmp_path / "maze.npz", **arrays)
    steps = read_ogbench(tmp_path / "maze.npz", task_of(at_three))
    np.testing.assert_array_equal(steps.ends, [0, 0, 0, 1, 0, 0, 0, 1])
    assert steps.observations.dtype == np.float32


def test_ogbench_rewards_stored_or_missing(tmp_path):
    np.savez(tmp_path / "maze.npz", **ogbench_arrays())
    with pytest.raises(DatasetError, match="holds no 'rewards'"):
        read_ogbench(tmp_path / "maze.npz", task_of())
    np.savez(tmp_path / "maze.npz", **ogbench_arrays(), rewards=np.arange(10.0))
    np.testing.assert_array_equal(read_ogbench(tmp_path / "maze.npz", task_of()).rewards, [0, 1, 2, 3, 5, 6, 7, 8])


BAD_NPZ = {
    "missing key": (lambda a: a.pop("actions"), r"lacks \['actions'\]"),
    "rows differ": (lambda a: a.update(actions=a["actions"][:-1]), "'actions' has 9 rows"),
    "flags of another length": (lambda a: a.update(terminals=a["terminals"][:-1]), "'terminals' has shape"),
    "flags that are none": (lambda a: a.update(terminals=np.full(10, 2)), "is 2 in row 0; expected flags"),
    "integer actions": (lambda a: a.update(actions=np.zeros((10, 1), np.int64)), "'actions' has dtype int64"),
    "pixels": (lambda a: a.update(observations=np.zeros((10, 4, 4, 3), np.float32)), "expected .rows, width."),
    "text": (lambda a: a.update(observations=np.full((10, 1), "x")), "dtype <U1"),
    "objects": (lambda a: a.update(qpos=np.array([None] * 10)), "pickled Python objects"),
}


@pytest.mark.parametrize("case", BAD_NPZ)
def test_ogbench_files_of_another_shape_are_refused(tmp_path, case):
    change, message = BAD_NPZ[case]
    arrays = ogbench_arrays()
    change(arrays)
    np.savez(tmp_path / "maze.npz", **arrays)
    with pytest.raises(DatasetError, match=message):
        read_ogbench(tmp_path / "maze.npz", task_of(at_three))


def test_a_relabelling_of_the_wrong_length_is_refused(tmp_path):
    np.savez(tmp_path / "maze.npz", **ogbench_arrays())
    with pytest.raises(DatasetError, match="'rewards' has shape"):
        read_ogbench(tmp_path / "maze.npz", task_of(lambda arrays: (np.zeros(9), np.zeros(9, bool))))


class Canary:
    """Pickled, it would create a file when loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_pickles_are_never_loaded(tmp_path):
    arrays = ogbench_arrays() | {"observations": np.array([Canary(tmp_path / "canary")] * 10)}
    np.savez(tmp_path / "maze.npz", **arrays)
    with pytest.raises(DatasetError, match="could run code"):
        read_ogbench(tmp_path / "maze.npz", task_of(at_three))
    assert not (tmp_path / "canary").exists()


def npy(header, body=b""):
    text = repr(header).encode()
    text += b" " * (63 - (10 + len(text)) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + body


@pytest.mark.parametrize("shape", [(65536, 65536, 1024), (10**12, 10**12), (3, 2)])
def test_headers_that_promise_too_much_are_refused_before_allocation(tmp_path, shape):
    """An array of terabytes in a file of a few hundred bytes."""
    np.savez(tmp_path / "maze.npz", **{name: array for name, array in ogbench_arrays().items() if name != "qpos"})
    with zipfile.ZipFile(tmp_path / "maze.npz", "a") as archive:
        archive.writestr("qpos.npy", npy({"descr": "<f8", "fortran_order": False, "shape": shape}))
    with pytest.raises(DatasetError, match="declares shape"):
        read_ogbench(tmp_path / "maze.npz", task_of(at_three))


def test_more_than_the_machines_memory_is_refused(tmp_path, monkeypatch):
    np.savez(tmp_path / "maze.npz", **ogbench_arrays())
    monkeypatch.setattr("os.sysconf", lambda name: 8)
    with pytest.raises(DatasetError, match="GiB of memory"):
        read_ogbench(tmp_path / "maze.npz", task_of(at_three))


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_damaged_npz_files_are_refused_or_read_the_same(tmp_path):
    np.savez_compressed(tmp_path / "maze.npz", **ogbench_arrays())
    content = (tmp_path / "maze.npz").read_bytes()
    intact = read_ogbench(tmp_path / "maze.npz", task_of(at_three))
    generator, refused = np.random.default_rng(0), 0
    for trial in range(150):
        damaged = bytearray(content)
        if trial % 3 == 0:
            del damaged[int(generator.integers(len(content))) :]
        else:
            damaged[int(generator.integers(len(content)))] ^= 1 << int(generator.integers(8))
        (tmp_path / "damaged.npz").write_bytes(damaged)
        try:
            steps = read_ogbench(tmp_path / "damaged.npz", task_of(at_three))
        except DatasetError as error:
            refused += 1
            assert "damaged.npz" in str(error)  # noqa: PT017 - either outcome is fine
        else:
            np.testing.assert_array_equal(steps.observations, intact.observations)
            np.testing.assert_array_equal(steps.ends, intact.ends)
    assert refused > 100


def test_which_file(tmp_path):
    with pytest.raises(DatasetError, match=r"no \.npz file"):
        read_ogbench(tmp_path, task_of(at_three))
    with pytest.raises(DatasetError, match="does not exist"):
        read_ogbench(tmp_path / "x.npz", task_of(at_three))
    for name in "ab":
        np.savez(tmp_path / f"{name}.npz", **ogbench_arrays())
    with pytest.raises(DatasetError, match=r"expected one \.npz"):
        read_ogbench(tmp_path, task_of(at_three))


# --------------------------------------------------------------------------------------------------------------- Minari


class Walk(gymnasium.Env):
    """Moves by its action; done when it passes 2. Doubles, a dict of parts, and success in `info`."""

    observation_space = gymnasium.spaces.Dict(
        position=gymnasium.spaces.Box(-np.inf, np.inf, (1,), np.float64),
        goal=gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float64),
    )
    action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)

    def _seen(self):
        return {"position": np.array([self.x]), "goal": np.array([2.0, -2.0])}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.x = 0.0
        return self._seen(), {"success": False}

    def step(self, action):
        self.x += float(action[0])
        success = self.x >= 2
        return self._seen(), 10 * self.x, success, False, {"success": success}


@pytest.fixture
def collected(tmp_path, monkeypatch):
    """Two episodes through minari's own collector: one that succeeds after three steps, one cut after two."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    env = minari.DataCollector(gymnasium.wrappers.TimeLimit(Walk(), 4), record_infos=True)
    for actions in ([0.5, 1.0, 0.75], [0.25, -1.0, 0.5, 0.5]):
        env.reset(seed=0)
        for action in actions:
            env.step(np.array([action], np.float32))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # advice on metadata
        env.create_dataset("walk-v0", algorithm_name="none", eval_env=None)
    env.close()
    return tmp_path / "walk-v0"


@pytest.mark.filterwarnings("ignore")
def test_minari_rows_by_hand(collected):
    task = task_of(format="minari", observation_keys=("position", "goal"))
    steps = read_minari(collected, task)
    np.testing.assert_array_equal(steps.observations[:, 0], [0, 0.5, 1.5, 0, 0.25, -0.75, -0.25])
    np.testing.assert_array_equal(steps.next_observations[:, 0], [0.5, 1.5, 2.25, 0.25, -0.75, -0.25, 0.25])
    np.testing.assert_array_equal(steps.observations[:, 1:], np.tile([2, -2], (7, 1)))
    np.testing.assert_array_equal(steps.actions[:, 0], [0.5, 1.0, 0.75, 0.25, -1.0, 0.5, 0.5])
    np.testing.assert_array_equal(steps.rewards, [5, 15, 22.5, 2.5, -7.5, -2.5, 2.5])
    np.testing.assert_array_equal(steps.terminations, [0, 0, 1, 0, 0, 0, 0])
    np.testing.assert_array_equal(steps.ends, [0, 0, 1, 0, 0, 0, 1])
    np.testing.assert_array_equal(steps.successes, [0, 0, 1, 0, 0, 0, 0])
    assert {array.dtype for array in (steps.observations, steps.actions, steps.rewards)} == {np.dtype(np.float32)}
    by_reward = read_minari(collected, task_of(format="minari", observation_keys=("goal",), success_key="reward"))
    np.testing.assert_array_equal(by_reward.successes, [1, 1, 1, 1, 0, 0, 1])
    assert by_reward.observations.shape == (7, 2)
    with pytest.raises(ConfigError, match="set observation_keys"):
        read_minari(collected, task_of(format="minari"))
    with pytest.raises(DatasetError, match="observations/speed is missing; found"):
        read_minari(collected, task_of(format="minari", observation_keys=("speed",)))
    with pytest.raises(DatasetError, match="has no entry 'solved'"):
        read_minari(collected, task_of(format="minari", observation_keys=("goal",), success_key="solved"))


def episode_of(steps=3, width=2, offset=0.0):
    return {
        "observations": np.arange((steps + 1) * width, dtype=float).reshape(steps + 1, width) + offset,
        "actions": np.zeros((steps, 1), np.float32),
        "rewards": np.arange(steps, dtype=float),
        "terminations": np.zeros(steps, bool),
        "truncations": np.arange(steps) == steps - 1,
    }


def write_minari(folder, *episodes, **metadata):
    (folder / "data").mkdir(parents=True, exist_ok=True)
    (folder / "data" / "metadata.json").write_text(json.dumps({"data_format": "hdf5"} | metadata))
    with h5py.File(folder / "data" / "main_data.hdf5", "w") as file:
        for index, episode in enumerate(episodes):
            group = file.create_group(f"episode_{index}")
            for name, array in episode.items():
                group.create_dataset(name, data=array)
    return folder


def test_minari_episodes_are_in_the_order_of_their_numbers(tmp_path):
    folder = write_minari(tmp_path, *(episode_of(steps=1, offset=index) for index in range(12)))
    np.testing.assert_array_equal(read_minari(folder, PLAIN).observations[:, 0], np.arange(12))


def test_minari_infos_without_those_of_the_reset(tmp_path):
    folder = write_minari(tmp_path, episode_of())
    with h5py.File(folder / "data" / "main_data.hdf5", "a") as file:
        file["episode_0/infos/success"] = np.array([0, 1, 0], bool)
    np.testing.assert_array_equal(read_minari(folder, task_of(format="minari")).successes, [0, 1, 0])


def test_minari_parts_that_share_their_storage(tmp_path):
    """Equal arrays may be stored once, under two names."""
    folder = write_minari(tmp_path, episode_of(), episode_of())
    with h5py.File(folder / "data" / "main_data.hdf5", "a") as file:
        del file["episode_1/terminations"]
        file["episode_1/terminations"] = file["episode_0/terminations"]
    assert len(read_minari(folder, PLAIN).rewards) == 6


def test_minari_metadata_names_no_code_that_runs(tmp_path):
    env_spec = json.dumps({"id": "X-v0", "entry_point": "antigravity:fly"})
    read_minari(write_minari(tmp_path, episode_of(), env_spec=env_spec), PLAIN)


BAD_EPISODES = {
    "missing array": (lambda e: e.pop("rewards"), "rewards is missing; found"),
    "no last observation": (lambda e: e.update(observations=e["observations"][:-1]), "3 rows and 'actions' has 3"),
    "short rewards": (lambda e: e.update(rewards=e["rewards"][:-1]), "rewards has shape .2,."),
    "discrete actions": (lambda e: e.update(actions=np.zeros((3, 1), int)), "actions has dtype int64"),
    "text": (lambda e: e.update(rewards=np.array([b"x"] * 3)), "rewards has dtype"),
    "images": (lambda e: e.update(observations=np.zeros((4, 2, 2, 3))), "expected .rows, width."),
}


@pytest.mark.parametrize("case", BAD_EPISODES)
def test_minari_files_of_another_shape_are_refused(tmp_path, case):
    change, message = BAD_EPISODES[case]
    episode = episode_of()
    change(episode)
    with pytest.raises(DatasetError, match=rf"episode_1/{message}|{message}"):
        read_minari(write_minari(tmp_path, episode_of(), episode), PLAIN)


def test_minari_episodes_without_steps_are_left_out_and_those_of_one_step_kept(tmp_path):
    folder = write_minari(tmp_path, episode_of(steps=0), episode_of(steps=1), episode_of(steps=0), episode_of(steps=2))
    steps = read_minari(folder, PLAIN)
    np.testing.assert_array_equal(steps.ends, [1, 0, 1])
    np.testing.assert_array_equal(steps.observations[:, 0], [0, 0, 2])


@pytest.mark.parametrize(("name", "promised"), [("total_episodes", 3), ("total_steps", 7)])
def test_minari_files_that_hold_less_than_their_metadata_promise(tmp_path, name, promised):
    episodes = (episode_of(), episode_of())
    read_minari(write_minari(tmp_path, *episodes, total_episodes=2, total_steps=6), PLAIN)
    with pytest.raises(DatasetError, match=f"{name} = .*says {promised}; .*incomplete"):
        read_minari(write_minari(tmp_path, *episodes, **{name: promised}), PLAIN)


def test_minari_episodes_of_different_widths(tmp_path):
    with pytest.raises(DatasetError, match="episodes differ"):
        read_minari(write_minari(tmp_path, episode_of(width=2), episode_of(width=3)), PLAIN)


def test_minari_files_without_data(tmp_path):
    with pytest.raises(DatasetError, match="does not exist"):
        read_minari(tmp_path / "nowhere", PLAIN)
    with pytest.raises(DatasetError, match="no group 'episode_"):
        read_minari(write_minari(tmp_path / "empty"), PLAIN)
    with pytest.raises(DatasetError, match="no steps only"):
        read_minari(write_minari(tmp_path / "short", episode_of(steps=0)), PLAIN)
    folder = write_minari(tmp_path / "arrow", data_format="arrow")
    (folder / "data" / "main_data.hdf5").unlink()
    with pytest.raises(DatasetError, match="stored as 'arrow'"):
        read_minari(folder, PLAIN)


@pytest.mark.parametrize("trick", ["soft", "external", "storage", "virtual", "group"])
def test_minari_files_that_point_elsewhere_are_refused(tmp_path, trick):
    secret = tmp_path / "secret.hdf5"
    with h5py.File(secret, "w") as file:
        file["rewards"] = np.arange(3.0)
    folder = write_minari(tmp_path / "data-v0", episode_of())
    with h5py.File(folder / "data" / "main_data.hdf5", "a") as file:
        group = file["episode_0"]
        del group["rewards"]
        if trick == "soft":
            group["rewards"] = h5py.SoftLink("/episode_0/truncations")
        elif trick == "external":
            group["rewards"] = h5py.ExternalLink(str(secret), "rewards")
        elif trick == "storage":
            group.create_dataset("rewards", (3,), "f8", external=[(str(secret), 0, 24)])
        elif trick == "virtual":
            layout = h5py.VirtualLayout((3,), "f8")
            layout[:] = h5py.VirtualSource(str(secret), "rewards", (3,))
            group.create_virtual_dataset("rewards", layout)
        else:
            file["other"] = 1
            del file["episode_0"]
            file["episode_0"] = h5py.ExternalLink(str(secret), "/")
    with pytest.raises(DatasetError, match=r"is a link|stored in other files"):
        read_minari(folder, PLAIN)


def test_minari_arrays_that_promise_too_much(tmp_path):
    folder = write_minari(tmp_path, episode_of())
    with h5py.File(folder / "data" / "main_data.hdf5", "a") as file:
        del file["episode_0/observations"]
        file["episode_0"].create_dataset("observations", (10**13, 2), "f8", chunks=(1000, 2))
    with pytest.raises(DatasetError, match="GiB of memory"):
        read_minari(folder, PLAIN)


def test_truncated_hdf5_files_are_refused(tmp_path):
    file = write_minari(tmp_path, episode_of()) / "data" / "main_data.hdf5"
    content = file.read_bytes()
    for length in (0, 7, 100, len(content) // 2, len(content) - 1):
        file.write_bytes(content[:length])
        with pytest.raises(DatasetError, match=r"not a readable HDF5 file|is missing"):
            read_minari(tmp_path, PLAIN)


def test_formats_are_looked_up_by_name(tmp_path):
    np.savez(tmp_path / "maze.npz", **ogbench_arrays())
    assert len(read(tmp_path, task_of(at_three)).rewards) == 8
    assert set(READERS) >= {"minari", "ogbench"}
    with pytest.raises(DatasetError, match=r"format 'csv'; expected \['d4rl', 'exorl', 'minari', 'ogbench'"):
        read(tmp_path, task_of(format="csv"))
    with pytest.raises(DatasetError, match="has no dataset"):
        read(tmp_path, Task("x", "probe", "none", 10, success_key="success"))


def test_a_decoded_copy_serves_instead_of_the_file_until_it_is_damaged(tmp_path, monkeypatch, caplog):
    folder, source, root = (
        write_minari(tmp_path / "some-v0", episode_of()),
        Source("some-v0", "memory", "f00"),
        tmp_path / "d",
    )
    first = read_quickly(folder, PLAIN, source, root)
    with monkeypatch.context() as patch:
        patch.setattr(decoded, "read", None)
        again = read_quickly(folder, PLAIN, source, root)
    assert first.arrays().keys() == again.arrays().keys()
    for name, array in first.arrays().items():
        np.testing.assert_array_equal(array, again.arrays()[name])
        assert array.dtype == again.arrays()[name].dtype
    write_minari(folder, episode_of(offset=7))
    other_content = read_quickly(folder, PLAIN, dataclasses.replace(source, sha256="f01"), root)
    assert other_content.observations[0, 0] == 7
    assert read_quickly(folder, dataclasses.replace(PLAIN, success_key="reward"), source, root).observations[0, 0] == 0
    for file in root.glob("*/observations.npy"):
        file.write_bytes(file.read_bytes()[:-1])
    assert not caplog.records
    assert read_quickly(folder, PLAIN, source, root).observations[0, 0] == 7
    assert "damaged" in caplog.text
    assert len(list(root.iterdir())) == 2
    (tmp_path / "file").write_text("")
    assert read_quickly(folder, PLAIN, source, tmp_path / "file" / "x").observations[0, 0] == 7
