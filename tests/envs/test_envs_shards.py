"""Work in pieces gives the same results in any number of processes, from any kind of script."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from envs.shards import run_shards

SCRIPT = """
from envs.shards import run_shards
print("script")
print(list(run_shards(divmod, [(7, 2), (9, 4)], title="t", processes=2, progress=lambda done, total: None)))
"""


def test_results_come_in_order_whatever_the_number_of_processes():
    shards = [(number, 3) for number in range(5)]
    quiet = {"title": "t", "progress": lambda done, total: None}
    assert list(run_shards(divmod, shards, processes=1, **quiet)) == [divmod(*shard) for shard in shards]


def test_a_script_without_a_main_guard_is_not_run_again_by_its_workers(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.splitlines() == ["script", "[(3, 1), (2, 1)]"]


def count_up(log, number):
    with open(log, "a") as file:
        file.write(f"{number} ")
    if os.environ.get("STOP_AT") == str(number):
        raise RuntimeError("stopped")
    return {"numbers": np.full(3, number), "flags": np.array([number % 2 == 0])}


def test_finished_pieces_are_not_made_again(tmp_path, monkeypatch):
    log, work = tmp_path / "log", tmp_path / "work"
    shards = [(str(log), number) for number in range(4)]
    settings = {"title": "t", "processes": 1, "work": work}
    monkeypatch.setenv("STOP_AT", "2")
    with pytest.raises(RuntimeError, match="stopped"):
        list(run_shards(count_up, shards, **settings))
    monkeypatch.delenv("STOP_AT")
    (work / "00001.npz").write_bytes(b"PK damaged")
    results = list(run_shards(count_up, shards, **settings))
    assert log.read_text() == "0 1 2 1 2 3 "  # piece 0 was there, piece 1 damaged
    for number, result in enumerate(results):
        np.testing.assert_array_equal(result["numbers"], [number] * 3)
        assert result["flags"].dtype == bool
    # Other arguments are other work, whose pieces must not be mixed with these.
    log.unlink()
    list(run_shards(count_up, shards[:3], **settings))
    assert log.read_text() == "0 1 2 "


WORK = """
import sys, time
import numpy as np
from pathlib import Path
from envs.shards import run_shards
def slow(number):
    if number == 2 and len(sys.argv) > 2:
        print("working", flush=True)
        time.sleep(60)
    return {"numbers": np.array([number])}
for part in run_shards(slow, [(n,) for n in range(4)], title="t", processes=1, work=Path(sys.argv[1])):
    pass
print(sorted(file.name for file in Path(sys.argv[1]).glob("*.npz")))
"""


def test_pieces_survive_a_kill(tmp_path):
    (tmp_path / "script.py").write_text(WORK)
    command = [sys.executable, str(tmp_path / "script.py"), str(tmp_path / "work")]
    with subprocess.Popen([*command, "slowly"], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout.readline() == "working\n"
        child.send_signal(signal.SIGKILL)
    first = tmp_path / "work" / "00000.npz"
    written = first.stat().st_mtime_ns
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == str([f"0000{number}.npz" for number in range(4)])
    assert first.stat().st_mtime_ns == written


PIECES = """
import os, time
def endless(folder, number):
    open(f"{folder}/{os.getpid()}", "w").close()
    time.sleep(300)
"""
ENDLESS = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in what a shell's background job starts
from pieces import endless
from envs.shards import run_shards
list(run_shards(endless, [(sys.argv[1], n) for n in range(6)], title="t", processes=2, progress=lambda *_: None))
"""


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL])
def test_workers_end_at_once_with_their_caller(tmp_path, sent):
    (tmp_path / "pieces.py").write_text(PIECES)
    (tmp_path / "script.py").write_text(ENDLESS)
    started = tmp_path / "started"
    started.mkdir()
    command = [sys.executable, str(tmp_path / "script.py"), str(started)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as child:
        try:
            while len(workers := [int(file.name) for file in started.iterdir()]) < 2:
                assert child.poll() is None
                time.sleep(0.02)
            child.send_signal(sent)
            errors = child.communicate(timeout=30)[1]
        finally:
            child.kill()
    assert ("KeyboardInterrupt" in errors) == (sent == signal.SIGINT)
    until = time.monotonic() + 30
    while any(map(alive, workers)):
        assert time.monotonic() < until
        time.sleep(0.02)
    assert len(list(started.iterdir())) == 2  # no other piece was begun
