import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time

import pytest

from hybridrl import disk
from hybridrl.errors import ConfigError, CorruptError


def contents(folder):
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def dead_pid():
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    return child.pid


def make(path, text="hello", **options):
    with disk.atomic_folder(path, **options) as temporary:
        (temporary / "inner").mkdir()
        (temporary / "a.txt").write_text(text)
        (temporary / "inner" / "b.bin").write_bytes(bytes(range(256)))


def test_a_folder_appears_whole_with_its_manifest(tmp_path):
    make(tmp_path / "x" / "data")
    files = disk.verify_folder(tmp_path / "x" / "data")
    # sha256 of b"hello", from the standard's command-line tool
    assert files["a.txt"] == {
        "size": 5,
        "sha256": "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824",
    }
    assert set(files) == {"a.txt", "inner/b.bin"}
    assert [entry.name for entry in (tmp_path / "x").iterdir()] == ["data"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_failing_block_leaves_nothing(tmp_path, error):
    def fail():
        with disk.atomic_folder(tmp_path / "data") as temporary:
            (temporary / "a.txt").write_text("half")
            raise error

    with pytest.raises(error):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_replacing_must_be_asked_for(tmp_path):
    make(tmp_path / "data", "old")
    with pytest.raises(ConfigError, match="exists already"):
        make(tmp_path / "data", "new")
    assert (tmp_path / "data" / "a.txt").read_text() == "old"
    make(tmp_path / "data", "new", replace=True)
    assert (tmp_path / "data" / "a.txt").read_text() == "new"
    assert [entry.name for entry in tmp_path.iterdir()] == ["data"]


def test_a_failing_replacement_keeps_the_old_folder(tmp_path):
    make(tmp_path / "data", "old")
    with pytest.raises(OSError, match="full"), disk.atomic_folder(tmp_path / "data", replace=True):
        raise OSError("disk full")
    disk.verify_folder(tmp_path / "data")
    assert (tmp_path / "data" / "a.txt").read_text() == "old"


@pytest.mark.parametrize("step", ["fsync", "rename"])
def test_an_error_at_any_operation_leaves_the_old_or_the_new_folder(tmp_path, monkeypatch, step):
    """Fail at the 1st, 2nd, 3rd, ... call until the work completes."""
    make(tmp_path / "data", "old")
    original = os.fsync if step == "fsync" else type(tmp_path).rename
    for failing in range(1, 30):
        calls = 0

        def fail_once(*args, failing=failing):
            nonlocal calls
            calls += 1
            if calls == failing:
                raise OSError(28, "No space left on device")
            return original(*args)

        with monkeypatch.context() as patch:
            patch.setattr(*((os, "fsync") if step == "fsync" else (type(tmp_path), "rename")), fail_once)
            try:
                make(tmp_path / "data", "new", replace=True)
            except OSError:
                pass
            else:
                break
        disk.clean_temporaries(tmp_path)
        assert disk.verify_folder(tmp_path / "data")["a.txt"]["size"] == 3
    assert failing > 2
    assert (tmp_path / "data" / "a.txt").read_text() == "new"


@pytest.mark.parametrize("change", ["flip", "truncate", "delete", "manifest", "no manifest", "escape"])
def test_damage_is_found_and_named(tmp_path, change):
    make(tmp_path / "data")
    file, manifest = tmp_path / "data" / "inner" / "b.bin", tmp_path / "data" / disk.MANIFEST
    if change == "flip":
        content = bytearray(file.read_bytes())
        content[100] ^= 1
        file.write_bytes(content)
    elif change == "truncate":
        file.write_bytes(file.read_bytes()[:-1])
    elif change == "delete":
        file.unlink()
    elif change == "manifest":
        manifest.write_text("{")
    elif change == "no manifest":
        manifest.unlink()
    else:
        manifest.write_text(json.dumps({"files": {"../secret": {"size": 1, "sha256": "0"}}}))
    with pytest.raises(CorruptError, match=r"manifest" if "manifest" in change or change == "escape" else r"b\.bin"):
        disk.verify_folder(tmp_path / "data")
    assert CorruptError.exit_code == 3


def test_symbolic_links_are_not_vouched_for(tmp_path):
    with pytest.raises(CorruptError, match="symbolic link"), disk.atomic_folder(tmp_path / "data") as temporary:
        (temporary / "link").symlink_to("/etc/hostname")
    assert list(tmp_path.iterdir()) == []


def test_temporaries_of_the_dead_are_removed_and_of_the_living_kept(tmp_path):
    host = disk._host()
    dead = tmp_path / f".data.tmp-{host}-{dead_pid()}-0123abcd"
    dead.mkdir()
    (dead / "half.bin").write_bytes(b"x")
    elsewhere = tmp_path / f".data.tmp-another_{host}-{dead_pid()}-0123abcd"
    elsewhere.mkdir()
    other = tmp_path / ".data.tmp-notes"
    other.mkdir()
    starting = tmp_path / f".data.tmp-{host}-{os.getpid()}-0123abcd"  # its writer has not locked it yet
    starting.mkdir()
    with disk.atomic_folder(tmp_path / "live") as temporary:
        assert disk.clean_temporaries(tmp_path) == [dead]
        assert temporary.is_dir()
    assert {entry.name for entry in tmp_path.iterdir()} == {elsewhere.name, other.name, starting.name, "live"}


def test_a_folder_put_aside_by_the_dead_comes_back(tmp_path):
    make(tmp_path / "data", "old")
    aside = tmp_path / f".data.old-{disk._host()}-{dead_pid()}-0123abcd"
    (tmp_path / "data").rename(aside)
    assert disk.clean_temporaries(tmp_path) == []
    assert (tmp_path / "data" / "a.txt").read_text() == "old"
    (tmp_path / "data").rename(aside)
    make(tmp_path / "data", "new")
    assert disk.clean_temporaries(tmp_path) == [aside]
    assert (tmp_path / "data" / "a.txt").read_text() == "new"


WRITER = """
import sys, time
from pathlib import Path
from hybridrl import disk
generation = 0
while True:
    generation += 1
    with disk.atomic_folder(sys.argv[1], replace=True) as temporary:
        for name in "abcd":
            (temporary / name).write_bytes(str(generation).encode() * 50_000)
    print(generation, flush=True)
"""


def test_a_kill_at_any_moment_leaves_one_whole_generation(tmp_path):
    for round_number in range(5):
        with subprocess.Popen([sys.executable, "-c", WRITER, tmp_path / "data"], stdout=subprocess.PIPE) as child:
            child.stdout.readline()  # the first generation is there
            time.sleep(0.013 * (round_number + 1))
            child.send_signal(signal.SIGKILL)
        disk.clean_temporaries(tmp_path)
        assert set(disk.verify_folder(tmp_path / "data")) == set("abcd")
        assert len({content for name, content in contents(tmp_path / "data").items() if name != disk.MANIFEST}) == 1
        assert [entry.name for entry in tmp_path.iterdir()] == ["data"]


def test_json_goes_round_and_a_failed_write_keeps_the_old_file(tmp_path, monkeypatch):
    disk.write_json(tmp_path / "x.json", {"a": [1, 2.5, None, "ü"]})
    assert disk.read_json(tmp_path / "x.json") == {"a": [1, 2.5, None, "ü"]}

    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        disk.write_json(tmp_path / "x.json", {})
    assert disk.read_json(tmp_path / "x.json") == {"a": [1, 2.5, None, "ü"]}
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.json"]


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe\x00", b"[" * 100_000])
def test_what_is_not_json_is_corrupt(tmp_path, content):
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(CorruptError, match=r"x\.json"):
        disk.read_json(tmp_path / "x.json")
    with pytest.raises(FileNotFoundError):
        disk.read_json(tmp_path / "y.json")


HOLDER = """
import sys, time
from hybridrl.disk import FolderLock
with FolderLock(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_lock_names_its_owner_and_dies_with_it(tmp_path):
    with subprocess.Popen([sys.executable, "-c", HOLDER, tmp_path / "run"], stdout=subprocess.PIPE) as child:
        child.stdout.readline()
        with pytest.raises(ConfigError, match=f"in use by process {child.pid} on "):
            disk.FolderLock(tmp_path / "run").acquire()
        child.kill()
    with disk.FolderLock(tmp_path / "run") as lock:
        with pytest.raises(ConfigError, match=f"process {os.getpid()}"):
            disk.FolderLock(tmp_path / "run").acquire()
        lock.release()
        disk.FolderLock(tmp_path / "run").acquire().release()
    assert not (tmp_path / "run").exists()


def _count_up(path):
    for _ in range(20):
        with disk.FolderLock(path, wait=True):
            count = int((path / "count").read_text())
            time.sleep(0.001)
            (path / "count").write_text(str(count + 1))


def test_waiting_locks_exclude_each_other(tmp_path):
    (tmp_path / "count").write_text("0")
    context = multiprocessing.get_context("spawn")
    children = [context.Process(target=_count_up, args=(tmp_path,)) for _ in range(2)]
    for child in children:
        child.start()
    for child in children:
        child.join()
    assert (tmp_path / "count").read_text() == "40"
