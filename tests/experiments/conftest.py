"""One tiny finished run, and one tiny dataset, that many tests look at."""

import dataclasses
import functools

import pytest
from command_line import TINY, CommandLine
from tiny_dataset import ID, Maker

from envs import catalog as catalog_module
from envs.registry import TASKS
from hybridrl.task import DatasetSpec, Task


@pytest.fixture(scope="session")
def cli(tmp_path_factory):
    return CommandLine(tmp_path_factory.mktemp("compiled"))


@pytest.fixture(scope="session")
def tiny_run(cli, tmp_path_factory):
    """The folder in which the tiny run was made, and what it printed."""
    folder = tmp_path_factory.mktemp("finished")
    done = cli(folder, *TINY)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, done


@pytest.fixture(scope="session")
def run_folder(tiny_run):
    (config,) = tiny_run[0].rglob("config.json")
    return config.parent


@pytest.fixture
def maker(monkeypatch, tmp_path):
    """Two tasks that share a generated dataset; the folder of all datasets and the catalogue are this test's own."""
    maker = Maker()
    spec = DatasetSpec(ID, "ogbench", generate=maker, rows=9)
    for name in ("tiny-maze-one-v0", "tiny-maze-two-v0"):
        task = Task(name, "pointmaze", "none", 10, dataset=spec, success_key="success")
        monkeypatch.setitem(TASKS, name, functools.partial(dataclasses.replace, task))
    monkeypatch.setenv("HYBRIDRL_DATA", str(tmp_path / "data"))
    own = tmp_path / "catalog.json"
    own.write_bytes(catalog_module.CATALOG.read_bytes())
    monkeypatch.setattr(catalog_module, "CATALOG", own)
    catalog_module._facts.cache_clear()
    yield maker
    catalog_module._facts.cache_clear()
