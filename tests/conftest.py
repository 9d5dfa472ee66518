"""Strict settings: arrays of different ranks do not broadcast in silence."""

import jax
import pytest


@pytest.fixture(autouse=True, scope="session")
def _strict_ranks():
    jax.config.update("jax_numpy_rank_promotion", "raise")
