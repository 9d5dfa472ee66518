import functools
import hashlib
import io
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import minari
import numpy as np
import pytest

from hybridrl import disk
from hybridrl.datasets import Source, cache, data_root, dataset_folder, fetch, load
from hybridrl.errors import CorruptError, DatasetError
from hybridrl.task import DatasetSpec, Task


def npz_bytes(seed=0, rows=10):
    """An OGBench file with two episodes."""
    generator, file = np.random.default_rng(seed), io.BytesIO()
    terminals = np.arange(rows) % 5 == 4
    observations = generator.standard_normal((rows, 2)).astype(np.float32)
    actions = generator.uniform(-1, 1, (rows, 2)).astype(np.float32)
    np.savez_compressed(file, observations=observations, actions=actions, terminals=terminals)
    return file.getvalue()


def write(folder, seed=0):
    (folder / "maze-v0.npz").write_bytes(npz_bytes(seed))


def fail(folder):
    (folder / "half.npz").write_bytes(b"half")
    raise RuntimeError("simulator exploded")


def spec_of(**fields):
    return DatasetSpec(**{"id": "maze-v0", "format": "ogbench", **fields})


def forbidden(*args, **options):
    raise AssertionError("not expected to be called")


@pytest.fixture
def url(server):
    server.content = npz_bytes()
    return server.url.replace("data.bin", "maze-v0.npz")


@pytest.fixture
def closed_port():
    with socket.create_server(("127.0.0.1", 0)) as closed:
        return closed.getsockname()[1]


def listing(root):
    """Every file except locks, marks and records beside the folders."""
    return sorted(str(file.relative_to(root)) for file in root.rglob("*") if file.is_file() and file.name[0] != ".")


def test_the_data_folder_follows_the_environment(monkeypatch, tmp_path):
    assert data_root() == tmp_path / "data root"
    monkeypatch.setenv("HYBRIDRL_DATA", "~/somewhere")
    assert data_root() == Path.home() / "somewhere"
    monkeypatch.delenv("HYBRIDRL_DATA")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert data_root() == tmp_path / "hybridrl"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # to be ignored, by its specification
    assert data_root() == Path.home() / ".cache" / "hybridrl"


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/etc", "a//b", "", ".hidden", "a/.b", "a\\b", "a\n", "ä"])
def test_ids_that_could_point_elsewhere_are_refused(name, data_folder):
    with pytest.raises(DatasetError, match="not a plain name"):
        fetch(spec_of(id=name, generate=write))
    assert not data_folder.exists()


def test_download_first_then_the_cache(server, url, caplog):
    spec = spec_of(urls=(url,), generate=forbidden)
    folder, source = fetch(spec)
    digest = hashlib.sha256(server.content).hexdigest()
    assert folder == dataset_folder(spec)
    assert source == Source("maze-v0", "download", digest)
    record = disk.read_json(folder / cache.SOURCE)
    assert record["urls"] == [url]
    assert record["sha256"] == digest
    assert record["versions"]["numpy"] == np.__version__
    assert "mujoco" in record["versions"]
    assert record["time"].endswith("+00:00")
    asked = len(server.requests)
    assert fetch(spec) == (folder, source)
    assert len(server.requests) == asked
    assert listing(data_root()) == [
        f"ogbench/maze-v0/{name}" for name in ("manifest.json", "maze-v0.npz", "source.json")
    ]
    assert not caplog.records


def test_several_files_and_published_hashes(server, url):
    digest = hashlib.sha256(server.content).hexdigest()
    urls = (url, url.replace("v0.npz", "v0-val.npz"))
    folder, source = fetch(spec_of(urls=urls, sha256=(digest, digest)))
    assert (folder / "maze-v0-val.npz").read_bytes() == (folder / "maze-v0.npz").read_bytes() == server.content
    assert len(source.sha256) == 64
    assert source.sha256 != digest
    with pytest.raises(DatasetError, match=r"expected 0{64}"):
        fetch(spec_of(id="other-v0", urls=(url,), sha256=("0" * 64,)))
    with pytest.raises(DatasetError, match="2 urls and 1 hashes"):
        fetch(spec_of(id="third-v0", urls=urls, sha256=(digest,)))


def test_the_first_downloads_hash_is_kept_to(server, url):
    spec = spec_of(urls=(url,))
    folder, _ = fetch(spec)
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()
    server.content, server.etag = npz_bytes(seed=1), '"two"'
    with pytest.raises(DatasetError, match=r"the first download had .*\.maze-v0\.sha256\.json"):
        fetch(spec)
    assert not folder.exists()
    (folder.parent / ".maze-v0.sha256.json").unlink()
    assert (fetch(spec)[0] / "maze-v0.npz").read_bytes() == server.content


def test_generation_stands_in_for_a_failed_download_and_says_so(closed_port, caplog):
    spec = spec_of(urls=(f"http://127.0.0.1:{closed_port}/maze-v0.npz",), generate=write)
    begun = time.monotonic()
    folder, source = fetch(spec)
    assert time.monotonic() - begun < 2
    assert source.origin == "generated"
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "cannot reach 127.0.0.1" in caplog.text
    assert "cannot reach 127.0.0.1" in disk.read_json(folder / cache.SOURCE)["not_downloaded"]


def test_offline_and_the_switches(server, url, monkeypatch):
    monkeypatch.setenv("HYBRIDRL_OFFLINE", "1")
    assert fetch(spec_of(urls=(url,), generate=write))[1].origin == "generated"
    monkeypatch.delenv("HYBRIDRL_OFFLINE")
    assert fetch(spec_of(id="b-v0", urls=(url,), generate=write), allow_download=False)[1].origin == "generated"
    assert server.requests == []
    assert fetch(spec_of(id="c-v0", urls=(url,), generate=write))[1].origin == "download"


def test_when_nothing_works_one_error_names_all_ways(closed_port, data_folder):
    spec = spec_of(urls=(f"http://127.0.0.1:{closed_port}/maze-v0.npz",), generate=fail)
    with pytest.raises(DatasetError) as caught:
        fetch(spec)
    text = str(caught.value)
    assert f"local cache: not in {dataset_folder(spec)}" in text
    assert "download: cannot reach" in text
    assert "generation: RuntimeError: simulator exploded" in text
    assert isinstance(caught.value.__cause__, RuntimeError)
    assert listing(data_folder) == []
    with pytest.raises(DatasetError, match=r"download: published nowhere\n.*needs a learned expert"):
        fetch(spec_of())
    with pytest.raises(DatasetError, match=r"download: published nowhere\n.*switched off by the caller"):
        fetch(spec_of(id="local/x-v0", format="minari", generate=write), allow_generate=False)
    with pytest.raises(DatasetError, match="left no ogbench data"):
        fetch(spec_of(generate=lambda folder: None))


def test_a_missing_hub_client_is_a_reason_not_a_crash(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(DatasetError, match=r"download: .*pip install 'hybridrl\[hub\]'"):
        fetch(spec_of(id="D4RL/pointmaze/umaze-v2", format="minari"))


def test_damage_is_found_on_first_use_and_on_request(data_folder):
    spec = spec_of(generate=write)
    folder, _ = fetch(spec)
    file = folder / "maze-v0.npz"
    before = file.stat()
    content = bytearray(file.read_bytes())
    content[60] ^= 1
    with open(file, "r+b") as handle:  # in place, and with the old time: the quick check cannot see it
        handle.write(content)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    fetch(spec)
    with pytest.raises(CorruptError, match=r"maze-v0\.npz has SHA-256"):
        fetch(spec, verify=True)
    os.utime(file)
    with pytest.raises(CorruptError, match="delete the folder"):
        fetch(spec)
    file.unlink()
    with pytest.raises(CorruptError, match="missing"):
        fetch(spec)


def test_unchanged_files_are_hashed_once(monkeypatch):
    spec = spec_of(generate=write)
    folder, _ = fetch(spec)
    (folder / cache._STAMP).unlink()  # as after copying the cache from another machine
    calls = []
    monkeypatch.setattr(cache, "verify_folder", lambda path: calls.append(path) or disk.verify_folder(path))
    fetch(spec)
    fetch(spec)
    assert calls == [folder]


def test_a_record_of_another_dataset_is_refused():
    spec = spec_of(generate=write)
    folder, _ = fetch(spec)
    record = disk.read_json(folder / cache.SOURCE)
    disk.write_json(folder / cache.SOURCE, record | {"dataset_id": "other-v0"})
    disk.write_manifest(folder)
    with pytest.raises(CorruptError, match="does not describe"):
        fetch(spec)


def test_files_put_there_by_hand_are_taken_and_labelled(caplog):
    spec = spec_of(generate=forbidden, urls=("http://127.0.0.1/maze-v0.npz",))
    folder = dataset_folder(spec)
    folder.mkdir(parents=True)
    (folder / "readme.txt").write_text("x")
    with pytest.raises(DatasetError, match="holds no ogbench data"):
        fetch(spec)
    write(folder)
    digest = hashlib.sha256(npz_bytes()).hexdigest()
    with pytest.raises(DatasetError, match=f"has SHA-256 {digest}, expected 0000"):
        fetch(spec_of(urls=spec.urls, sha256=("0000",)))
    assert fetch(spec)[1].origin == "local file"
    assert "origin is not known" in caplog.text
    assert fetch(spec, verify=True)[1].origin == "local file"


def test_an_unusable_data_folder(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("HYBRIDRL_DATA", str(tmp_path / "file" / "cache"))
    with pytest.raises(DatasetError, match="set HYBRIDRL_DATA to another folder"):
        fetch(spec_of(generate=write))


class Corridor:
    """A two-number observation that moves; written through the minari package."""

    @staticmethod
    def generate(folder, own_root):
        import gymnasium

        episode = minari.data_collector.EpisodeBuffer(
            observations=np.arange(8.0).reshape(4, 2),
            actions=np.zeros((3, 1), np.float32),
            rewards=[0.0, 0.0, 1.0],
            terminations=[False, False, True],
            truncations=[False] * 3,
        )
        before = os.environ.get("MINARI_DATASETS_PATH")
        os.environ["MINARI_DATASETS_PATH"] = str(folder)
        minari.create_dataset_from_buffers(
            "local/corridor-v0",
            [episode],
            observation_space=gymnasium.spaces.Box(-np.inf, np.inf, (2,)),
            action_space=gymnasium.spaces.Box(-1, 1, (1,)),
        )
        os.environ.pop("MINARI_DATASETS_PATH")
        if before is not None:
            os.environ["MINARI_DATASETS_PATH"] = before
        if own_root:
            (folder / "local" / "corridor-v0" / "data").rename(folder / "data")


@pytest.mark.filterwarnings("ignore")  # minari's advice on metadata
@pytest.mark.parametrize("own_root", [False, True])
def test_minari_sees_the_dataset_where_it_is_kept(monkeypatch, own_root):
    spec = spec_of(
        id="local/corridor-v0", format="minari", generate=functools.partial(Corridor.generate, own_root=own_root)
    )
    folder, source = fetch(spec)
    assert source.origin == "generated"
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(data_root() / "minari"))
    assert list(minari.list_local_datasets()) == ["local/corridor-v0"]
    stored = minari.load_dataset("local/corridor-v0")
    assert next(stored.iterate_episodes()).observations.shape == (4, 2)
    assert folder == data_root() / "minari" / "local" / "corridor-v0"
    fetch(spec, verify=True)
    task = Task("corridor", "probe", "none", 10, dataset=spec, success_key="reward", terminate_on_success=True)
    data = load(task)
    np.testing.assert_array_equal(data.transitions.observations, [[0, 1], [2, 3], [4, 5]])
    np.testing.assert_array_equal(data.transitions.next_observations, [[2, 3], [4, 5], [6, 7]])
    np.testing.assert_array_equal(data.transitions.masks, [1, 1, 0])
    np.testing.assert_allclose(data.transitions.mc_returns, [0.9801, 0.99, 1.0], rtol=1e-6)
    assert data.source == source


def test_load_without_a_dataset():
    with pytest.raises(DatasetError, match="has no dataset; train it online"):
        load(Task("x", "probe", "none", 10, success_key="success"))


def test_replacing_keeps_the_old_files_until_the_new_ones_are_complete():
    spec = spec_of(generate=write)
    folder, first = fetch(spec)

    def other(folder):
        assert (dataset_folder(spec) / "maze-v0.npz").read_bytes() == npz_bytes()
        write(folder, seed=1)

    with pytest.raises(DatasetError, match=r"local cache: to be replaced\n.*\n.*simulator exploded"):
        fetch(spec_of(generate=fail), replace=True)
    assert fetch(spec, verify=True) == (folder, first)
    _, second = fetch(spec_of(generate=other), replace=True)
    assert second.origin == "generated"
    assert second.sha256 != first.sha256
    assert (folder / "maze-v0.npz").read_bytes() == npz_bytes(seed=1)
    assert fetch(spec, verify=True)[1] == second
    assert [entry.name for entry in folder.parent.iterdir() if ".old-" in entry.name or ".tmp-" in entry.name] == []


def test_a_kill_between_putting_aside_and_replacing_loses_nothing():
    """The folder under its aside name is all that is left: it comes back as what it was, not as a found file."""
    spec = spec_of(generate=write)
    folder, source = fetch(spec)
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    folder.rename(folder.with_name(f".maze-v0.old-{disk._host()}-{dead.pid}-0123abcd"))
    assert fetch(spec_of(generate=forbidden)) == (folder, source)


def test_the_record_says_how_long_it_took_and_on_what():
    folder, _ = fetch(spec_of(generate=lambda folder: (time.sleep(0.2), write(folder))))
    record = disk.read_json(folder / cache.SOURCE)
    assert 0.2 <= record["seconds"] < 10
    assert record["cores"] == os.cpu_count()
    assert record["cpu"] == cache.cpu_features()
    assert record["cpu"]["machine"]


PROCESS = """
import sys, time
from pathlib import Path
from hybridrl.datasets import fetch
from hybridrl.task import DatasetSpec
import json
content = Path(sys.argv[1]).read_bytes()
def generate(folder):
    with open(sys.argv[2], "a") as log:
        log.write("generating\\n")
    (folder / "maze-v0.npz").write_bytes(content[:100])
    print("half", flush=True)
    time.sleep(float(sys.argv[3]))
    (folder / "maze-v0.npz").write_bytes(content)
urls = tuple(sys.argv[4:])
spec = DatasetSpec(id="maze-v0", format="ogbench", urls=urls, generate=None if urls else generate)
folder, source = fetch(spec, progress=lambda done, total: print(done, flush=True))
print(json.dumps([str(folder), source.origin]), flush=True)
"""


def start(tmp_path, seconds, *urls):
    (tmp_path / "content").write_bytes(npz_bytes())
    command = [sys.executable, "-c", PROCESS, tmp_path / "content", tmp_path / "log", str(seconds), *urls]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_killed_while_generating(tmp_path, data_folder):
    with start(tmp_path, 60) as child:
        assert child.stdout.readline() == "half\n"
        child.send_signal(signal.SIGKILL)
    assert not (data_folder / "ogbench" / "maze-v0").exists()
    folder, source = fetch(spec_of(generate=write))
    assert source.origin == "generated"
    assert (folder / "maze-v0.npz").read_bytes() == npz_bytes()
    assert [entry.name for entry in folder.parent.iterdir() if ".tmp-" in entry.name] == []


def test_resumable_generators_get_a_folder_that_outlives_a_failure(data_folder):
    seen = []

    def generate(folder, *, work):
        seen.append(sorted(entry.name for entry in work.glob("*")))
        work.mkdir(parents=True, exist_ok=True)
        (work / f"piece-{len(seen)}").write_bytes(b"")
        if len(seen) < 3:
            raise RuntimeError("simulator exploded")
        write(folder)

    spec = spec_of(generate=generate, resumable=True)
    for _ in range(2):
        with pytest.raises(DatasetError, match="simulator exploded"):
            fetch(spec)
    assert fetch(spec)[1].origin == "generated"
    assert seen == [[], ["piece-1"], ["piece-1", "piece-2"]]
    assert listing(data_folder / "unfinished") == []  # gone once the dataset is there


def test_killed_while_downloading(tmp_path, server, url, data_folder):
    server.content = npz_bytes(rows=20_000)
    server.pause = 0.02
    with start(tmp_path, 0, url) as child:
        child.stdout.readline()
        child.send_signal(signal.SIGKILL)
    assert not (data_folder / "ogbench" / "maze-v0").exists()
    server.pause = 0
    folder, source = fetch(spec_of(urls=(url,)))
    assert source.origin == "download"
    assert (folder / "maze-v0.npz").read_bytes() == server.content
    assert "Range" in server.requests[-1]
    assert listing(data_folder / "downloads") == []


def test_two_processes_at_once_generate_once(tmp_path):
    children = [start(tmp_path, 0.3) for _ in range(2)]
    answers = [json.loads(child.communicate()[0].splitlines()[-1]) for child in children]
    assert answers == [[str(dataset_folder(spec_of())), "generated"]] * 2
    assert (tmp_path / "log").read_text() == "generating\n"
