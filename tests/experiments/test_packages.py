"""The five packages: imports point one way, and the wheel carries everything the command line needs."""

import ast
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from command_line import REPOSITORY

ALLOWED = {
    "hybridrl": {"hybridrl"},
    "algorithms": {"algorithms", "hybridrl"},
    "envs": {"envs", "hybridrl"},
    "experiments": {"experiments", "algorithms", "envs", "hybridrl"},
    "paper_figures": {"paper_figures", "experiments", "algorithms", "envs", "hybridrl"},
}


def imported(path):
    """The top-level packages a module imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            yield (node.module or "").split(".")[0]


@pytest.mark.parametrize("package", ALLOWED)
def test_imports_point_one_way(package):
    modules = sorted((REPOSITORY / package).rglob("*.py"))
    assert modules
    for path in modules:
        wrong = set(imported(path)) & ALLOWED.keys() - ALLOWED[package]
        assert not wrong, f"{path.relative_to(REPOSITORY)} imports {wrong}"


def test_names_are_checked_before_jax_is_loaded():
    code = "import sys, experiments.run, experiments.overrides, envs; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=False).returncode == 0


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from a copy of the packages, without a network."""
    pytest.importorskip("setuptools")
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for package in ALLOWED:
        shutil.copytree(REPOSITORY / package, source / package, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        if (REPOSITORY / name).exists():
            shutil.copy(REPOSITORY / name, source / name)
        else:
            (source / name).touch()
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--quiet"]
    command += ["--disable-pip-version-check", "--wheel-dir", str(target), str(source)]
    subprocess.run(command, check=True, timeout=120)
    (path,) = target.glob("*.whl")
    return path


def test_the_wheel_has_every_module_and_data_file(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    for package in ALLOWED:
        modules = {str(path.relative_to(REPOSITORY)) for path in (REPOSITORY / package).rglob("*.py")}
        assert modules <= names
    assert "hybridrl/py.typed" in names or not (REPOSITORY / "hybridrl/py.typed").exists()
    data = {path for path in (REPOSITORY / "envs").rglob("*") if path.suffix in (".json", ".npz")}
    assert {str(path.relative_to(REPOSITORY)) for path in data} <= names
    assert "envs/catalog.json" in names


def test_the_installed_wheel_shows_its_help(wheel, tmp_path):
    target = tmp_path / "installed"
    command = [sys.executable, "-m", "pip", "install", "--no-deps", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*command, "--target", str(target), str(wheel)], check=True, timeout=120)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    code = "import runpy, experiments, sys; print(experiments.__file__, file=sys.stderr); sys.argv[1:] = ['--help']; "
    code += "runpy.run_module('experiments.run', run_name='__main__')"
    # -P and an isolated path: nothing of the checkout can be found.
    environment = {"PYTHONPATH": str(target), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=elsewhere, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert "usage: python -m experiments.run" in done.stdout
    assert Path(done.stderr.splitlines()[0]).is_relative_to(target)
    assert list(elsewhere.iterdir()) == []
