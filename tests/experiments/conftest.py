"""One tiny finished run that many tests look at."""

import pytest
from command_line import TINY, CommandLine


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
