"""Strict settings for every test: no network, JAX on the CPU, warnings and silent broadcasts are errors."""

import os
import shutil
import tempfile

# Before anything imports JAX; processes that tests start inherit it.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# At these sizes compilation is nearly all of a test's time, and most optimisations nearly all of compilation.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
os.environ["HYBRIDRL_OFFLINE"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.pop("MINARI_DATASETS_PATH", None)

import jax
import pytest

_WARNINGS = (
    "error",
    "ignore::ResourceWarning",  # tests leave loops and loggers to the garbage collector
    # Raised inside packages this library does not control; none of them is about how it uses them.
    "ignore::DeprecationWarning:(gymnasium_robotics|glfw|dm_control|tensorboardX|google|joblib|hydra|omegaconf|antlr4).*",
    "ignore:.*Overriding environment.*:UserWarning",
    "ignore:.*is not async.*:UserWarning",
)


def pytest_configure(config):
    for entry in _WARNINGS:
        config.addinivalue_line("filterwarnings", entry)
    if not os.environ.get("HYBRIDRL_DATA"):
        folder = tempfile.mkdtemp(prefix="hybridrl-test-data-")
        os.environ["HYBRIDRL_DATA"] = folder
        config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))
    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        # What one test has compiled, the other test processes and the runs that tests start read from disk. Not what
        # compiles in an instant: nine of ten entries, which save no time, and in storing one JAX once crashed.
        compiled = tempfile.mkdtemp(prefix="hybridrl-test-compiled-")
        for name, value in {
            "jax_compilation_cache_dir": compiled,
            "jax_persistent_cache_min_compile_time_secs": 0.1,
            "jax_persistent_cache_min_entry_size_bytes": -1,
        }.items():
            jax.config.update(name, value)
            os.environ[name.upper()] = str(value)
        config.add_cleanup(lambda: shutil.rmtree(compiled, ignore_errors=True))


@pytest.fixture(autouse=True, scope="session")
def _strict_ranks():
    jax.config.update("jax_numpy_rank_promotion", "raise")
