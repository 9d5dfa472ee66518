"""`python -m experiments.data`: every command with a data folder of its own and a dataset of a dozen rows."""

import dataclasses
import functools
import http.server
import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from command_line import REPOSITORY
from tiny_dataset import ID, folder, run, tiny_arrays

from envs import catalog as catalog_module
from envs.catalog import catalog, find
from envs.registry import TASKS
from experiments import data, data_tables, data_work
from experiments.data import main
from experiments.units import duration, seconds_text, size_text
from hybridrl import disk
from hybridrl.data_folder import data_root, stored
from hybridrl.errors import ConfigError
from hybridrl.task import DatasetSpec, Task

# ----------------------------------------------------------------------------------------------------------------- list


def listed(capsys, *arguments):
    code, out, _ = run(capsys, "list", "--json", *arguments)
    assert code == 0
    return {row["id"]: row for row in json.loads(out)}


def test_list_has_one_row_per_dataset(maker, capsys):
    rows = listed(capsys)
    specs = {make().dataset.id for make in TASKS.values() if make().dataset is not None}
    assert rows.keys() == specs
    assert rows[ID] == {
        "id": ID,
        "format": "ogbench",
        "rows": 9,
        "size": None,
        "source": ["generate"],
        "here": None,
        "folder": None,
        "tasks": ["tiny-maze-one-v0", "tiny-maze-two-v0"],
    }
    assert rows["D4RL/pointmaze/umaze-v2"]["source"] == ["download", "generate"]
    _, out, _ = run(capsys, "list")
    (line,) = [line for line in out.splitlines() if line.startswith(ID)]
    assert line.split() == [ID, "ogbench", "9", "-", "generate", "-", "tiny-maze-one-v0", "and", "1", "more"]
    assert out.splitlines()[-1] == f"{len(rows)} datasets, 0 of them here, in {data_root()}"


def test_list_patterns_and_what_is_here(maker, capsys):
    assert (
        listed(capsys, "tiny").keys() == listed(capsys, "TINY-maze-tw").keys() == listed(capsys, "t*y-*").keys() == {ID}
    )
    assert listed(capsys, "--local") == {}
    assert run(capsys, "get", ID)[0] == 0
    unknown = data_root() / "minari" / "someones" / "set-v0"
    unknown.parent.mkdir(parents=True)
    with disk.atomic_folder(unknown) as temporary:
        (temporary / "file").write_bytes(b"123")
        disk.write_json(temporary / "source.json", {"origin": "download"})
    rows = listed(capsys, "--local")
    assert rows.keys() == {ID, "someones/set-v0"}
    assert rows[ID]["here"] == "generated"
    assert (
        rows[ID]["size"]
        == sum(file.stat().st_size for file in folder().iterdir() if file.suffix in (".npz",))
        + (folder() / "source.json").stat().st_size
    )
    assert (rows["someones/set-v0"]["tasks"], rows["someones/set-v0"]["here"]) == ([], "download")


def test_list_is_quick_and_loads_nothing_heavy(tmp_path):
    """Under 2 s. Processor time is judged, not the clock, as the tests of others may run beside."""
    code = (
        "import sys; from experiments.data import main; main(['list']); "
        "heavy = {'jax', 'mujoco', 'h5py', 'hydra', 'minari', 'ogbench', 'gymnasium_robotics'} & set(sys.modules); "
        "sys.exit(str(heavy) if heavy else 0)"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "HYBRIDRL_DATA": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0, done.stderr
    assert "pointmaze-umaze-v2" in done.stdout
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 2.0


# ----------------------------------------------------------------------------------------------------------------- show


def test_show_by_task_and_by_id(maker, capsys):
    code, out, _ = run(capsys, "show", "pointmaze-medium-navigate-singletask-task2-v0")
    assert code == 0
    for expected in (
        "pointmaze-medium-navigate-v0\n",
        "https://rail.eecs.berkeley.edu/datasets/ogbench/pointmaze-medium-navigate-v0-val.npz",
        "licence           code MIT; for the data files see publisher",
        "generate (extra `envs`",
        "mean return",
        "recorded sha256",
        "here              no",
    ):
        assert expected in out
    assert run(capsys, "show", "pointmaze-medium-navigate-v0")[1] == out
    assert run(capsys, "get", ID)[0] == 0
    out = run(capsys, "show", ID, "probe/reach-v0")[1]
    assert "here              yes, generated, 20" in out
    assert disk.sha256_file(folder() / f"{ID}.npz") in out
    assert "made with         python 3." in out
    assert "nothing has been measured of this dataset" in out
    assert "\n\nlocal/reach-noisy-v0\n" in out


# ------------------------------------------------------------------------------------------------------------------ get


def test_get_makes_checks_and_reports(maker, capsys):
    code, out, _ = run(capsys, "get", "tiny-maze-two-v0", ID)
    assert code == 0
    assert maker.calls == 1  # two names of one dataset
    lines = [line.split(maxsplit=1) for line in out.splitlines()]
    assert lines[:2] == [[ID], ["folder", str(folder())]]
    assert ["rows", "9 in 3 episodes"] in lines
    assert ["length", "3.0 steps per episode on average"] in lines
    assert ["return", "15 per episode on average, as recorded"] in lines
    assert ["sha256", disk.sha256_file(folder() / f"{ID}.npz")] in lines
    assert "origin    generated" in out
    assert "checks    passed" in out
    assert run(capsys, "get", ID)[0] == 0
    assert maker.calls == 1


def test_get_refuses_and_names_the_row(maker, capsys):
    maker.changes = {"actions": tiny_arrays()["actions"] * np.where(np.arange(12) == 5, np.nan, 1)[:, None]}
    code, out, err = run(capsys, "get", ID)
    assert (code, out) == (3, "")
    assert err.startswith(f"error: {ID}: dataset '{ID}' in {folder()}: 'actions' is not finite in row 4 (step 1 of ep")


def test_get_keeps_to_the_ways_allowed(maker, capsys):
    code, _, err = run(capsys, "get", ID, "--no-generate")
    assert (code, maker.calls) == (3, 0)
    assert "generation: switched off by the caller" in err
    code, _, err = run(capsys, "get", "pointmaze-umaze-v2", "--no-download", "--no-generate")
    assert code == 3
    assert "download: switched off by the caller" in err


def test_one_failure_does_not_keep_the_others_from_being_had(maker, capsys):
    code, _, err = run(capsys, "get", "pointmaze-umaze-v2", ID, "--no-download", "--no-generate")
    assert code == 3
    assert err.count("error: ") == 2
    maker.error = RuntimeError("exploded")
    code, out, err = run(capsys, "get", ID, "probe/reach-v0")
    assert code == 3
    assert "RuntimeError: exploded" in err
    assert out.startswith("local/reach-noisy-v0\n")


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


@pytest.fixture
def served(tmp_path):
    """A folder and the address it is served at."""
    shown = tmp_path / "served"
    shown.mkdir()
    handler = functools.partial(_Quiet, directory=shown)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield shown, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_get_downloads_with_progress(maker, served, capsys, monkeypatch):
    shown, address = served
    np.savez(shown / f"{ID}.npz", **tiny_arrays())
    digest = disk.sha256_file(shown / f"{ID}.npz")
    spec = DatasetSpec(ID, "ogbench", urls=(f"{address}/{ID}.npz",), sha256=(digest,))
    task = Task("tiny-maze-one-v0", "pointmaze", "none", 10, dataset=spec, success_key="success")
    monkeypatch.setitem(TASKS, task.name, lambda: task)
    monkeypatch.delenv("HYBRIDRL_OFFLINE")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    code, out, err = run(capsys, "get", ID)
    assert code == 0, err
    assert "origin    download" in out
    size = size_text((shown / f"{ID}.npz").stat().st_size)
    assert err.startswith(f"{ID}: {size} of {size}")
    assert run(capsys, "verify", ID)[0] == 0
    wrong = dataclasses.replace(task, dataset=dataclasses.replace(spec, sha256=("0" * 64,)))
    monkeypatch.setitem(TASKS, task.name, lambda: wrong)
    code, _, err = run(capsys, "verify", ID)
    assert code == 3
    assert f"published is {'0' * 64}" in err


def test_lines_of_progress_tell_speed_and_time_left(capsys, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    shown = data_work._Lines("maze")
    shown.update(1_000_000, 10_000_000)
    for seconds, done in ((1, 2_000_000), (6, 4_000_000), (10, 10_000_000)):
        now[0] = 100.0 + seconds
        shown.update(done, 10_000_000)
    assert capsys.readouterr().err.splitlines() == [
        "maze: 4.0 MB of 10.0 MB, 500 kB/s, 0:12 left",  # 3 MB in 6 s; 6 MB to go
        "maze: 10.0 MB of 10.0 MB, 900 kB/s",
    ]


def test_a_bar_is_shown_while_a_file_grows(monkeypatch):
    shown = data_work._Bar("maze")
    shown.update(1, 10)
    assert shown.display is not None
    assert shown.display.tasks[0].completed == 1
    shown.update(10, 10)
    assert shown.display is None
    shown.stop()


# ----------------------------------------------------------------------------------------------------------------- make


def test_make_generates_and_only_force_replaces(maker, capsys):
    assert run(capsys, "make", ID)[0] == 0
    assert stored(catalog()[ID].spec).origin == "generated"
    code, out, _ = run(capsys, "make", ID)
    assert (code, maker.calls) == (0, 1)
    assert "here already; add --force" in out
    maker.changes = tiny_arrays(seed=1)
    before = disk.sha256_file(folder() / f"{ID}.npz")
    code, out, _ = run(capsys, "make", "--force", ID)
    assert (code, maker.calls) == (0, 2)
    after = disk.sha256_file(folder() / f"{ID}.npz")
    assert after != before
    assert after in out


def test_make_never_downloads_and_says_what_has_no_generator(maker, capsys, monkeypatch):
    spec = DatasetSpec(ID, "ogbench", urls=("http://127.0.0.1:9/x.npz",))
    task = Task("tiny-maze-one-v0", "pointmaze", "none", 10, dataset=spec, success_key="success")
    monkeypatch.setitem(TASKS, task.name, lambda: task)
    code, _, err = run(capsys, "make", ID)
    assert code == 3
    assert "download: switched off by the caller" in err
    assert "no generator" in err


@pytest.mark.parametrize(("error", "code"), [(RuntimeError("exploded"), 3), (KeyboardInterrupt(), 75)])
def test_a_failed_or_interrupted_make_leaves_what_was_there(maker, capsys, error, code):
    maker.error = error
    assert run(capsys, "make", ID)[0] == code
    assert not folder().exists()
    maker.error = None
    assert run(capsys, "make", ID)[0] == 0
    maker.error, maker.changes = error, tiny_arrays(seed=1)
    before = disk.sha256_file(folder() / f"{ID}.npz")
    found, _, err = run(capsys, "make", "--force", ID)
    assert found == code
    if code == 75:
        assert "the same command goes on" in err
    assert disk.sha256_file(folder() / f"{ID}.npz") == before
    assert run(capsys, "verify", ID)[0] == 0
    assert [entry.name for entry in folder().parent.iterdir() if entry.name.startswith(f".{ID}.")] == [f".{ID}.lock"]


def test_make_does_not_take_the_place_of_files_of_another_origin_unasked(maker, capsys):
    folder().mkdir(parents=True)
    np.savez(folder() / f"{ID}.npz", **tiny_arrays(seed=2))
    assert run(capsys, "get", ID)[0] == 0
    code, _, err = run(capsys, "make", ID)
    assert (code, maker.calls) == (2, 0)
    assert "with origin 'local file'" in err
    assert "--force" in err
    assert run(capsys, "make", ID, "--force")[0] == 0
    assert stored(catalog()[ID].spec).origin == "generated"


# -------------------------------------------------------------------------------------------------- record, table, docs


def test_record_measures_and_the_lists_show_it(maker, capsys):
    code, out, _ = run(capsys, "record", "tiny-maze-one-v0")
    assert code == 0
    assert out.startswith(f"recorded {ID}: 9 rows, generated\n")
    measured = catalog()[ID].measured
    assert (measured.rows, measured.episodes, measured.mean_episode_return, measured.mean_episode_length) == (
        9,
        3,
        15,
        3,
    )
    assert measured.return_tolerance == pytest.approx(6 * np.std([3, 15, 27]) / np.sqrt(3))
    assert measured.length_tolerance == pytest.approx(3e-6)
    assert measured.sha256 == disk.sha256_file(folder() / f"{ID}.npz")
    assert measured.task == "tiny-maze-one-v0"
    assert measured.seconds is not None
    assert measured.versions["numpy"] == np.__version__
    assert f"| `{ID}` | OGBench | 9 | {size_text(measured.size)} | generate (extra `envs`, 0 s on" in (
        data_tables.docs_table(catalog())
    )
    other = find("tiny-maze-two-v0", catalog())
    assert other.task().name == "tiny-maze-one-v0"
    assert run(capsys, "record", "tiny-maze-two-v0")[0] == 0  # a task's name says whose rewards are measured
    assert catalog()[ID].measured.task == "tiny-maze-two-v0"


def test_the_table_in_the_documentation_is_up_to_date():
    page = (REPOSITORY / "docs" / "datasets.md").read_text()
    assert page.count(data_tables.BEGIN) == page.count(data_tables.END) == 1
    shown = page.split(data_tables.BEGIN)[1].split(data_tables.END)[0]
    assert shown == "\n" + data_tables.docs_table(catalog()), (
        "run: python -m experiments.data table --write docs/datasets.md"
    )


def test_table_writes_between_the_marks(capsys, tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"above\n{data_tables.BEGIN}\nold\n{data_tables.END}\nbelow\n")
    assert run(capsys, "table", "--write", page)[0] == 0
    table = data_tables.docs_table(catalog())
    assert page.read_text() == f"above\n{data_tables.BEGIN}\n{table}{data_tables.END}\nbelow\n"
    assert run(capsys, "table") == (0, table, "")
    page.write_text("no marks")
    assert run(capsys, "table", "--write", page)[0] == 2
    assert page.read_text() == "no marks"
    assert run(capsys, "table", "--write", tmp_path / "none.md")[0] == 2


def test_every_dataset_has_one_format_a_publisher_and_a_licence():
    formats = {}
    for make in TASKS.values():
        spec = make().dataset
        if spec is not None:
            assert formats.setdefault(spec.id, spec.format) == spec.format
    for entry in catalog().values():
        assert entry.publisher.source
        assert entry.publisher.licence
        assert entry.measured is None or (entry.measured.task in entry.tasks and len(entry.measured.sha256) == 64)


def test_records_in_the_catalogue_belong_to_datasets():
    assert set(catalog_module._facts()["datasets"]) <= set(catalog())


# ------------------------------------------------------------------------------------------------------------- mistakes


MISTAKES = {
    "a command": (["lst"], "no command 'lst'; did you mean 'list'?"),
    "no command": ([], "COMMAND"),
    "a task": (["get", "pointmaze-umaze-v3"], "did you mean 'pointmaze-umaze-v2'?"),
    "an id": (["verify", "local/hopper-medium-v1"], "did you mean 'local/hopper-medium-v0'?"),
    "an option": (["list", "--locl"], "no option '--locl'; did you mean '--local'?"),
    "an option of another command": (["list", "--force"], "no option '--force'"),
    "no name": (["get"], "NAME"),
    "a task without data": (["show", "probe/bandit-v0"], "task 'probe/bandit-v0' has no dataset"),
    "a pattern": (["list", "pointmaze-umazze-v2"], "did you mean 'pointmaze-umaze-v2'?"),
    "one of two names": (["get", ID, "tiny-mazes"], "no dataset or task 'tiny-mazes'; did you mean 'tiny-maze"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_mistakes_are_told_before_anything_is_done(maker, capsys, case):
    arguments, message = MISTAKES[case]
    code, out, err = run(capsys, *arguments)
    assert (code, out, maker.calls) == (2, "", 0)
    assert err.startswith("error: ")
    assert message in err
    assert not data_root().exists()


def test_a_dataset_of_an_unknown_publisher_is_an_error_that_names_the_file(maker, monkeypatch):
    task = Task("odd-v0", "pointmaze", "none", 10, dataset=DatasetSpec("odd", "csv"), success_key="success")
    monkeypatch.setitem(TASKS, "odd-v0", lambda: task)
    with pytest.raises(ConfigError, match=r"no publisher; add one to .*catalog\.json"):
        catalog()


def test_sizes_and_times_by_hand():
    assert [size_text(size) for size in (None, 999, 1_234_567, 2_500_000_000)] == ["-", "1 kB", "1.2 MB", "2.5 GB"]
    assert [seconds_text(seconds) for seconds in (0.9, 119, 120, 3599)] == ["1 s", "119 s", "2 min", "60 min"]
    assert [duration(seconds) for seconds in (5, 65, 3661)] == ["0:05", "1:05", "1:01:01"]


def test_help_names_every_command(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    out = capsys.readouterr().out
    for word in ("list", "show", "get", "verify", "make", "HYBRIDRL_DATA", "75"):
        assert word in out


def test_the_handler_of_signals_is_given_back(maker, capsys):
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), data._sigterm_interrupts():
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) == before


# ------------------------------------------------------------------------------------------- processes of their own


def start(tmp_path, *arguments):
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "HYBRIDRL_DATA": str(tmp_path / "shared")}
    command = [sys.executable, "-m", "experiments.data", *arguments]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_two_processes_that_ask_at_once_get_one_dataset(tmp_path):
    children = [start(tmp_path, "get", "probe/reach-v0") for _ in range(2)]
    said = [child.communicate() for child in children]
    assert [child.returncode for child in children] == [0, 0], said
    assert said[0][0] == said[1][0]  # the same folder, time of making and hash
    assert "rows      4,000 in" in said[0][0]


def test_what_reads_the_list_may_stop_early(tmp_path):
    child = start(tmp_path, "list")
    child.stdout.close()
    assert child.wait() == 0
    assert "Traceback" not in child.stderr.read()
    child.stderr.close()
