import hashlib
import importlib.util
import os
import random
import socket
import subprocess
import sys
import time

import pytest

from hybridrl.datasets.download import check_reachable, download, download_minari, minari_root
from hybridrl.errors import DatasetError, MissingExtraError

CONTENT = random.Random(0).randbytes(500_000)
HASH = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def target(server, tmp_path):
    server.content = CONTENT
    return tmp_path / "got" / "data.bin"


def fast(url, path, **options):
    return download(url, path, **{"backoff": 0.01, "timeout": 5, **options})


def nothing_but(path, *names):
    return sorted(entry.name for entry in path.parent.iterdir()) == sorted(names)


def test_a_plain_download(server, target):
    seen = []
    fast(server.url, target, sha256=HASH, size=len(CONTENT), progress=lambda done, total: seen.append((done, total)))
    assert target.read_bytes() == CONTENT
    assert seen[-1] == (500_000, 500_000)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert nothing_but(target, "data.bin")
    fast(server.url, target, sha256=HASH)
    assert len(server.requests) == 1  # complete and right, so not asked for again


@pytest.mark.parametrize("validator", ["etag", "modified"])
def test_cut_connections_are_continued(server, target, validator):
    if validator == "modified":
        server.etag, server.modified = 'W/"weak"', "Mon, 01 Jan 2024 00:00:00 GMT"
    server.cuts = [100_000, 250_000, 1]
    fast(server.url, target)
    assert target.read_bytes() == CONTENT
    assert [request.get("Range") for request in server.requests] == [
        None,
        "bytes=100000-",
        "bytes=350000-",
        "bytes=350001-",
    ]
    assert nothing_but(target, "data.bin")


@pytest.mark.parametrize("reason", ["changed", "no ranges", "no validator", "weak tag"])
def test_what_cannot_be_continued_starts_over(server, target, reason):
    server.content, server.cuts = CONTENT[::-1], [100_000]
    if reason in ("no validator", "weak tag"):
        server.etag = None if reason == "no validator" else 'W/"weak"'
    with pytest.raises(DatasetError, match="after 1 attempts"):
        fast(server.url, target, attempts=1)
    assert target.with_name("data.bin.part").stat().st_size == 100_000
    if reason == "changed":
        server.etag = '"two"'
    elif reason == "no ranges":
        server.ranges = False
    server.content = CONTENT
    fast(server.url, target)
    assert target.read_bytes() == CONTENT


def test_a_changed_file_behind_an_unchanged_tag_is_refused_by_its_hash(server, target):
    server.content, server.cuts = CONTENT[::-1], [100_000]
    with pytest.raises(DatasetError, match="attempts"):
        fast(server.url, target, attempts=1)
    server.content = CONTENT
    with pytest.raises(DatasetError, match=f"expected {HASH}"):
        fast(server.url, target, sha256=HASH)
    assert nothing_but(target)
    assert fast(server.url, target, sha256=HASH).read_bytes() == CONTENT


def test_a_part_of_another_address_or_too_long_is_dropped(server, target):
    server.cuts = [400_000]
    with pytest.raises(DatasetError, match="attempts"):
        fast(server.url + "?version=1", target, attempts=1)
    server.content = CONTENT[:1000]
    fast(server.url, target)
    assert target.read_bytes() == CONTENT[:1000]


def test_a_shrunk_file_behind_an_unchanged_tag(server, target):
    server.cuts = [400_000]
    with pytest.raises(DatasetError, match="attempts"):
        fast(server.url, target, attempts=1)
    server.content = CONTENT[:1000]  # byte 400,000 does not exist any more: 416, then from the start
    fast(server.url, target)
    assert target.read_bytes() == CONTENT[:1000]


def test_wrong_lengths(server, target):
    with pytest.raises(DatasetError, match="500000 bytes, expected 400000"):
        fast(server.url, target, size=400_000)
    server.headers = {"Content-Length": str(len(CONTENT) + 5)}
    with pytest.raises(DatasetError, match="500000 of 500005 bytes"):
        fast(server.url, target, attempts=1)
    server.headers = {"Content-Length": None}
    with pytest.raises(DatasetError, match="does not say how long"):
        fast(server.url + "?x", target)
    assert not target.exists()
    fast(server.url + "?x", target, size=len(CONTENT))
    assert target.read_bytes() == CONTENT


@pytest.mark.parametrize("disguised", [False, True])
def test_a_web_page_never_becomes_a_dataset(server, target, disguised):
    server.content = b"\n <!DOCTYPE HTML><html>Please log in</html>"
    server.content_type = "application/octet-stream" if disguised else "text/html; charset=utf-8"
    with pytest.raises(DatasetError, match="web page"):
        fast(server.url, target)
    assert not target.parent.exists() or nothing_but(target)


@pytest.mark.parametrize("name", ["data.npz", "data.hdf5"])
def test_content_must_begin_as_its_name_says(server, target, name):
    with pytest.raises(DatasetError, match="does not begin like"):
        fast(server.url, target.with_name(name))
    assert nothing_but(target)


def test_statuses(server, target):
    server.statuses = [404]
    with pytest.raises(DatasetError, match="404"):
        fast(server.url, target)
    assert len(server.requests) == 1  # a definite answer is not asked for twice
    server.statuses = [503, 429]
    fast(server.url, target)
    assert target.read_bytes() == CONTENT
    target.unlink()
    server.statuses = [500] * 10
    with pytest.raises(DatasetError, match=r"500.*after 3 attempts"):
        fast(server.url, target, attempts=3)
    assert len(server.statuses) == 7


def test_a_silent_server_is_not_waited_for_for_ever(target):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/data.bin"
        with pytest.raises(DatasetError, match="timed out"):
            fast(url, target, timeout=0.1, attempts=2)


def test_no_network_is_noticed_at_once(target, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    begun = time.monotonic()
    with pytest.raises(DatasetError, match=rf"cannot reach 127\.0\.0\.1:{port} \(.*refused"):
        download(f"http://127.0.0.1:{port}/data.bin", target)

    def hang(*args, **options):
        time.sleep(0.4)
        raise TimeoutError

    monkeypatch.setattr(socket, "create_connection", hang)
    with pytest.raises(DatasetError, match=r"no answer within 0\.1 s"):
        check_reachable("https://example.invalid/x", timeout=0.1)
    assert time.monotonic() - begun < 1
    with pytest.raises(DatasetError, match="http or https"):
        download("file:///etc/hostname", target)


def test_the_proxy_is_what_must_be_reachable(monkeypatch, server):
    monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{server.server_port}")
    check_reachable("https://example.invalid/x")


KILLED = """
import sys
from hybridrl.datasets.download import download
download(sys.argv[1], sys.argv[2], progress=lambda done, total: print(done, flush=True))
"""


def test_a_killed_download_is_continued_by_the_next_process(server, target):
    server.pause = 0.01
    with subprocess.Popen([sys.executable, "-c", KILLED, server.url, target], stdout=subprocess.PIPE) as child:
        child.stdout.readline()
        child.kill()
    assert not target.exists()
    server.pause = 0
    fast(server.url, target)
    assert target.read_bytes() == CONTENT
    assert int(server.requests[1]["Range"].removeprefix("bytes=").removesuffix("-")) > 0


def test_minari_needs_its_hub_client(tmp_path, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "huggingface_hub" else find(name))
    with pytest.raises(MissingExtraError, match=r"pip install 'hybridrl\[hub\]'"):
        download_minari("D4RL/pointmaze/umaze-v2", tmp_path)


@pytest.mark.parametrize("behaviour", ["works", "raises", "brings nothing"])
def test_minari_downloads_into_the_folder_given(tmp_path, monkeypatch, behaviour):
    import minari

    def stub(dataset_id):
        print("Downloading")
        if behaviour == "raises":
            raise RuntimeError("odd error of some package")
        if behaviour == "works":
            os.makedirs(os.path.join(os.environ["MINARI_DATASETS_PATH"], dataset_id, "data"))

    monkeypatch.setenv("MINARI_REMOTE", "gcp://somewhere")
    monkeypatch.setattr(minari, "download_dataset", stub)
    if behaviour == "works":
        assert download_minari("aa/bb-v0", tmp_path) == "gcp://somewhere/aa/bb-v0"
        assert (tmp_path / "aa" / "bb-v0" / "data").is_dir()
    else:
        with pytest.raises(DatasetError, match="odd error" if behaviour == "raises" else "delivered no data"):
            download_minari("aa/bb-v0", tmp_path)
    assert "MINARI_DATASETS_PATH" not in os.environ


def test_the_minari_root_is_restored(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", "before")
    with pytest.raises(KeyError), minari_root(tmp_path):
        raise KeyError(os.environ["MINARI_DATASETS_PATH"])
    assert os.environ["MINARI_DATASETS_PATH"] == "before"
