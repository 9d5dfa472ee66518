"""One whole run: what it leaves, what it says, and that no interruption can be told from its files."""

import json
import shutil
import signal
import subprocess
import sys
import time
import types

import jax
import numpy as np
import pytest
from command_line import TINY

from experiments import results, runner
from experiments.config import compose
from hybridrl.checkpoint import Checkpoints
from hybridrl.disk import FolderLock
from hybridrl.training.loop import Loop


def test_leaves_everything_in_its_folder(tiny_run, run_folder):
    names = {path.name for path in run_folder.iterdir()}
    assert {
        "config.json",
        "provenance.json",
        "result.json",
        "metrics.jsonl",
        "evaluations.jsonl",
        "timing.jsonl",
        "tensorboard",
        "checkpoints",
        "learning_curve.png",
    } <= names
    assert (run_folder / "learning_curve.png").read_bytes().startswith(b"\x89PNG")
    assert list((run_folder / "tensorboard").iterdir())
    assert Checkpoints(run_folder / "checkpoints").steps()[-1] == 140
    # Nothing beside the runs: no folders of Hydra's.
    assert [path.name for path in tiny_run[0].iterdir()] == ["runs"]


def test_says_where_it_is_and_what_came_out(tiny_run, run_folder):
    text = tiny_run[1].stdout
    for expected in (
        "scale=cpu",
        "updates/s",
        "left",
        "after offline training",
        "just after the switch",
        "at the end",
        "depth of the dip",
        "length of the dip",
        "regret",
        "Q − MC return, offline data",
        "Q − MC return, online data",
        "TD error², offline data",
        "TD error², online data",
        "offline share",
        "gradient norm",
        "files in",
        "metrics.jsonl",
        "learning_curve.png",
    ):
        assert expected in text, expected
    assert tiny_run[1].stderr == ""


def test_provenance_tells_how_it_was_made(run_folder):
    (start,) = json.loads((run_folder / "provenance.json").read_text())["starts"]
    assert start["command"][:3] == ["python", "-m", "experiments.run"]
    assert start["versions"]["jax"] == jax.__version__
    assert len(start["dataset"]["sha256"]) == 64
    assert start["dataset"]["dataset_id"] == "local/reach-noisy-v0"
    assert start["cpu_count"] >= 1
    assert start["devices"]


def test_the_switch_panel_is_in_the_logs_and_in_the_result(run_folder):
    run = results.load(run_folder)
    assert run.finished
    assert [(record["phase"], record["phase_step"]) for record in run.evaluations] == [
        ("offline", 20),
        ("offline", 40),
        ("warmup", 40),
        ("online", 10),
        ("online", 20),
        ("online", 30),
        ("online", 60),
    ]
    assert [record["env_steps"] for record in run.evaluations] == [0, 0, 40, 50, 60, 70, 100]
    quantities = {f"{source}_{name}" for source in ("offline", "online") for name in ("q_minus_return", "td_error")}
    for stage in ("switch", "after", "end"):
        assert quantities | {"offline_share"} <= run.result["panel"][stage].keys()
    assert {"critic_grad_norm", "actor_grad_norm"} <= run.result["panel"]["end"].keys()
    assert run.result["panel"]["before"]["offline_share"] == 1.0
    assert run.result["panel"]["end"]["offline_share"] == 0.0
    assert set(run.result["switch"]) == {"before", "after", "final", "dip_depth", "dip_length", "regret"}
    assert run.result["speed"].keys() >= {"offline", "online"}


def test_the_same_command_shows_a_finished_run(cli, tiny_run, run_folder):
    before = {path: path.stat().st_mtime_ns for path in run_folder.rglob("*")}
    again = cli(tiny_run[0], *TINY)
    assert again.returncode == 0
    assert "finished" in again.stdout
    assert "just after the switch" in again.stdout
    assert {path: path.stat().st_mtime_ns for path in run_folder.rglob("*")} == before


def test_the_stored_curve_shows_the_final_result(run_folder, tmp_path):
    from experiments.curve import draw

    again = draw(results.load(run_folder), tmp_path / "again.png")
    assert again.read_bytes() == (run_folder / "learning_curve.png").read_bytes()


def test_find_and_load_by_task_and_algorithm(tiny_run, run_folder):
    root = tiny_run[0] / "runs"
    assert [run.folder for run in results.find(root)] == [run_folder]
    assert [run.folder for run in results.find(root, "probe/reach-v0", "wsrl")] == [run_folder]
    assert results.find(root, algo="rlpd") == []


def test_kills_in_every_phase_leave_no_trace(cli, run_folder, tmp_path):
    for phase, done in ((0, 30), (1, 30), (2, 45)):
        killed = cli.cut(tmp_path, *TINY, phase=phase, done=done)
        assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert cli(tmp_path, *TINY).returncode == 0
    (config,) = tmp_path.rglob("config.json")
    resumed = config.parent
    for name in ("config.json", "metrics.jsonl", "evaluations.jsonl"):
        assert (resumed / name).read_bytes() == (run_folder / name).read_bytes(), name
    assert len(json.loads((resumed / "provenance.json").read_text())["starts"]) == 4
    for left, right in zip(_final_leaves(run_folder), _final_leaves(resumed), strict=True):
        np.testing.assert_array_equal(left, right)
    leftovers = [path for path in resumed.rglob(".*") if ".tmp-" in path.name or ".old-" in path.name]
    assert leftovers == []


def _final_leaves(folder):
    """The leaves of the newest checkpoint, read in the structure of a loop that takes up the run."""
    from envs import make_env
    from hybridrl import datasets

    config = compose([*TINY, f"root={folder}"])
    task = config.make_task()
    copy = folder.parent / f"copy-{folder.name}"
    shutil.copytree(folder, copy)
    loop = Loop(
        config.phases(),
        task,
        datasets.load(task, config.loop_settings().discount),
        lambda seed: make_env(task, seed),
        copy,
        0,
        config.loop_settings(),
        None,
    )
    loop.logger.close()
    shutil.rmtree(copy)
    state = jax.tree.map(
        lambda leaf: jax.random.key_data(leaf) if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf,
        (loop.agent, loop.buffer, loop.online_probe),
    )
    return jax.tree.leaves(state)


def test_sigterm_stops_with_75_and_the_command_resumes(cli, run_folder, tmp_path):
    stopped = cli.cut(tmp_path, *TINY, phase=0, done=20, signal="SIGTERM")
    assert stopped.returncode == 75
    assert "run the same command to resume" in stopped.stderr
    assert "Traceback" not in stopped.stderr
    assert not list(tmp_path.rglob("result.json"))


def test_a_folder_in_use_is_refused(cli, tmp_path):
    folder = compose([*TINY, f"root={tmp_path}/runs"]).folder()
    with FolderLock(folder):
        refused = cli(tmp_path, *TINY, f"root={tmp_path}/runs")
    assert refused.returncode == 2
    assert "in use" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert not folder.exists()


@pytest.mark.slow
def test_a_sweep_survives_a_failing_job(cli, tmp_path):
    """Of two jobs side by side, one finds its folder taken; the other one finishes."""
    taken = compose([*TINY, "algo=calql", f"root={tmp_path}/runs"]).folder()
    with FolderLock(taken):
        swept = cli(tmp_path, "-m", *TINY, "algo=calql,wsrl", f"root={tmp_path}/runs", "hydra/launcher=joblib")
    assert swept.returncode == 1, swept.stdout + swept.stderr
    assert "refused" in swept.stdout
    assert "finished" in swept.stdout
    assert {path.name for path in tmp_path.iterdir()} == {"runs"}


def test_a_sweep_in_series_ends_with_a_table_of_all_jobs(cli, run_folder, tiny_run, tmp_path):
    """One job is finished already, the other's folder is taken."""
    root = tiny_run[0] / "runs"
    with FolderLock(compose([*TINY, "seed=1", f"root={root}"]).folder()):
        swept = cli(tmp_path, "-m", *TINY, "seed=1,0", f"root={root}")
    assert swept.returncode == 1, swept.stdout + swept.stderr
    table = swept.stdout[swept.stdout.index("all runs of this sweep") :]
    assert "refused" in table
    assert "finished" in table
    assert list(tmp_path.iterdir()) == []


def test_starting_is_quick():
    started = time.monotonic()
    subprocess.run([sys.executable, "-m", "experiments.run", "algo=wsrk"], capture_output=True, check=False)
    assert time.monotonic() - started < 3.0


def test_a_run_goes_online_in_its_task_s_simulator(monkeypatch, tmp_path):
    class Built(Exception):
        pass

    class FakeLoop:
        def __init__(self, phases, task, dataset, make_env, folder, seed, settings, watcher, make_simulator):
            real, simulator = make_env(0), None if make_simulator is None else make_simulator(0)
            gravity.append(
                [None if env is None else env.env.unwrapped.model.opt.gravity[2] for env in (real, simulator)]
            )
            raise Built

    gravity = []
    data = types.SimpleNamespace(source=types.SimpleNamespace(origin="test"))
    data.summary = lambda: {"rows": 1.0, "episodes": 1.0, "mean_episode_length": 1.0}
    monkeypatch.setattr(runner, "Loop", FakeLoop)
    monkeypatch.setattr(runner.datasets, "load", lambda task, discount: data)
    for name in ("local/hopper-medium-v0", "local/hopper-medium-v0+gravity2"):
        config = compose([f"task={name}", f"root={tmp_path}"])
        assert name in str(config.folder())
        assert runner.execute(config, []).code == runner.INTERNAL
    assert gravity == [[-9.81, None], [-9.81, -19.62]]
