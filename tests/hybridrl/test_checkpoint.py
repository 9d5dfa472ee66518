import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hybridrl.checkpoint import Checkpoints
from hybridrl.errors import ConfigError, CorruptError

STATE = {"weights": jnp.arange(6.0).reshape(2, 3), "count": jnp.int32(7), "key": jax.random.key(3)}


@pytest.fixture
def checkpoints(tmp_path):
    return Checkpoints(tmp_path / "checkpoints", keep=2)


def test_arrays_counters_and_keys_come_back_exactly(checkpoints):
    checkpoints.save(5, STATE, {"done": 5})
    restored = checkpoints.restore(
        5, jax.tree.map(jnp.zeros_like, {k: STATE[k] for k in ("weights", "count")}) | {"key": jax.random.key(0)}
    )
    np.testing.assert_array_equal(restored["weights"], STATE["weights"])
    assert restored["weights"].dtype == jnp.float32
    assert restored["count"].dtype == jnp.int32
    assert int(restored["count"]) == 7
    np.testing.assert_array_equal(jax.random.key_data(restored["key"]), jax.random.key_data(STATE["key"]))
    assert checkpoints.progress(5) == {"done": 5}


def test_the_newest_two_are_kept(checkpoints):
    assert checkpoints.steps() == []
    for step in (1, 20, 3):
        checkpoints.save(step, {"x": jnp.float32(step)}, {})
    assert checkpoints.steps() == [3, 20]
    checkpoints.save(20, {"x": jnp.float32(-1)}, {"again": True})
    assert checkpoints.restore(20, {"x": jnp.float32(0)})["x"] == -1
    assert checkpoints.progress(20) == {"again": True}


@pytest.mark.parametrize(
    ("template", "named"),
    [
        ({"x": jnp.zeros(4)}, r"\(3,\) float32 there and \(4,\) float32 here"),
        ({"x": jnp.zeros(3, jnp.int32)}, r"\(3,\) float32 there and \(3,\) int32 here"),
        ({"y": jnp.zeros(3)}, "absent here"),
    ],
)
def test_another_tree_is_refused(checkpoints, template, named):
    checkpoints.save(1, {"x": jnp.zeros(3)}, {})
    with pytest.raises(ConfigError, match=named):
        checkpoints.restore(1, template)


def test_a_changed_byte_is_noticed(checkpoints, tmp_path):
    checkpoints.save(1, {"x": jnp.arange(100.0)}, {"done": 1})
    largest = max((p for p in tmp_path.rglob("state/**/*") if p.is_file()), key=lambda p: p.stat().st_size)
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 1
    largest.chmod(0o644)
    largest.write_bytes(content)
    with pytest.raises(CorruptError):
        checkpoints.restore(1, {"x": jnp.zeros(100)})
    with pytest.raises(CorruptError):
        checkpoints.progress(1)
