"""Agents are compiled without most optimisations: at these sizes compilation is nearly all of a test's time."""

import jax
import pytest


@pytest.fixture(autouse=True, scope="module")
def _quick_compilation():
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)
