import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hybridrl.training.panel import panel_row, summarize_switch, value_diagnostics
from hybridrl.types import Transitions


def test_a_dip_and_its_recovery_by_hand():
    """Offline 60; warm-up to 100 without updates; then 20, 50, 70, 90."""
    found = summarize_switch([0, 100, 200, 300, 400, 500], [0, 0, 10, 20, 30, 40], [60, 55, 20, 50, 70, 90], 150)
    assert found.before == 60
    assert found.after == 20
    assert found.final == 70
    assert found.dip_depth == 40
    assert found.dip_length == 200  # from 200 to 400
    # 100 * ((40 + 45)/2 + (45 + 80)/2 + (80 + 50)/2 + (50 + 30)/2 + (30 + 10)/2) / 500
    assert found.regret == pytest.approx((42.5 + 62.5 + 65 + 40 + 20) / 5)


def test_only_the_window_counts_for_the_depth():
    """The window opens at the last evaluation without updates: step 100."""
    arguments = ([0, 100, 200, 300], [0, 0, 1, 2], [60, 60, 50, 0])
    assert summarize_switch(*arguments, dip_window=100).dip_depth == 10
    assert summarize_switch(*arguments, dip_window=200).dip_depth == 60
    assert summarize_switch(*arguments, dip_window=100).dip_length == 100  # never back: until the end


def test_no_dip():
    found = summarize_switch([0, 10, 20], [0, 1, 2], [30, 40, 50], 100)
    assert (found.dip_depth, found.dip_length, found.after, found.final) == (0.0, 0, 40, 40)


def test_a_fall_during_warm_up_is_no_dip():
    found = summarize_switch([0, 10, 20], [0, 0, 2], [30, 5, 50], 100)
    assert (found.dip_depth, found.dip_length) == (0.0, 0)


def test_a_run_without_online_steps():
    found = summarize_switch([0], [0], [30], 100)
    assert (found.before, found.after, found.final, found.regret) == (30, 30, 30, 70)


def test_the_first_evaluation_must_be_at_the_switch():
    with pytest.raises(ValueError, match="expected the first at 0"):
        summarize_switch([10, 20], [0, 1], [1, 2], 5)
    with pytest.raises(ValueError, match="expected the first at 0"):
        summarize_switch([], [], [], 5)


class FixedAgent:
    def diagnose(self, batch, key):
        return {"q": batch.rewards.mean(), "td_error": jnp.float32(0.25)}


def test_diagnostics_compare_values_with_returns():
    ones = jnp.ones((4, 1))
    rows = Transitions(ones, ones, jnp.arange(4.0), jnp.ones(4), ones, jnp.full(4, 5.0))
    found = value_diagnostics.__wrapped__(FixedAgent(), rows, jax.random.key(0))
    np.testing.assert_allclose(
        [found[name] for name in ("q", "return", "q_minus_return", "td_error")], [1.5, 5.0, -3.5, 0.25]
    )


def test_panel_row_leaves_out_what_is_absent():
    assert panel_row({"panel": {"a": 1.0, "b": None}}) == {"a": 1.0}
    assert panel_row({}) == {}
