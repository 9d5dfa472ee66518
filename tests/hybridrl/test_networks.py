import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from hybridrl.networks import MLP, CriticEnsemble, NormalActor, PositiveScalar, TanhNormalActor, select_critics
from hybridrl.networks.mlp import kernel_init

OBS, ACTIONS = jnp.linspace(-1, 1, 12).reshape(4, 3), jnp.linspace(-0.9, 0.9, 8).reshape(4, 2)
KEY = jax.random.key(0)


def leaves(params):
    return {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(params)}


@pytest.mark.parametrize("layer_norm", [False, True])
def test_mlp_applies_norm_and_relu_after_every_layer(layer_norm):
    module = MLP((5, 4), layer_norm)
    params = module.init(KEY, OBS)
    x = np.asarray(OBS, np.float64)
    for layer in range(2):
        x = x @ np.asarray(params["params"][f"Dense_{layer}"]["kernel"], np.float64)
        if layer_norm:
            x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
        x = np.maximum(x, 0)
    np.testing.assert_allclose(module.apply(params, OBS), x, atol=1e-5)
    assert (x == 0).any()


def test_orthogonal_gains():
    square = kernel_init("orthogonal")(KEY, (6, 6))
    np.testing.assert_allclose(square @ square.T, 2 * np.eye(6), atol=1e-5)
    params = MLP((8, 8), last_gain=0.01).init(KEY, OBS)["params"]
    last = np.asarray(params["Dense_1"]["kernel"])
    np.testing.assert_allclose(last @ last.T, 1e-4 * np.eye(8), atol=1e-8)
    first = np.asarray(params["Dense_0"]["kernel"])
    np.testing.assert_allclose(first @ first.T, 2 * np.eye(3), atol=1e-5)
    assert all((leaf == 0).all() for name, leaf in leaves(params).items() if "bias" in name)


def test_xavier_bound_and_unknown_kinds():
    kernel = kernel_init("xavier_uniform")(KEY, (40, 60))
    assert np.abs(kernel).max() <= math.sqrt(6 / 100)
    assert np.abs(kernel).max() > 0.95 * math.sqrt(6 / 100)
    params = TanhNormalActor((40, 40), 2, initializer="xavier_orthogonal", last_gain=0.1).init(KEY, OBS)["params"]
    last, bound = np.abs(params["MLP_0"]["Dense_1"]["kernel"]).max(), 0.1 * math.sqrt(6 / 80)
    assert 0.95 * bound < last <= bound
    head = np.asarray(params["mean"]["kernel"])
    np.testing.assert_allclose(head.T @ head, 2 * np.eye(2), atol=1e-5)
    with pytest.raises(ValueError, match="unknown initialiser 'zeros'"):
        kernel_init("zeros")


def test_small_gain_never_reaches_the_output_heads():
    actor = TanhNormalActor((8,), action_dim=2, last_gain=0.01).init(KEY, OBS)["params"]
    for head in ("mean", "log_std"):
        kernel = np.asarray(actor[head]["kernel"])
        np.testing.assert_allclose(kernel.T @ kernel, 2 * np.eye(2), atol=1e-5)


def test_free_deviation_is_one_vector_that_starts_at_one():
    module = TanhNormalActor((8,), action_dim=2, std_kind="free")
    params = module.init(KEY, OBS)
    np.testing.assert_array_equal(module.apply(params, OBS).std, np.ones((4, 2)))
    assert params["params"]["log_std"].shape == (2,)
    params["params"]["log_std"] = jnp.array([-100.0, 50.0])
    np.testing.assert_allclose(module.apply(params, OBS).std[0], [1e-5, 10.0])


def test_deviation_depends_on_the_state_by_default():
    module = TanhNormalActor((8,), action_dim=2)
    distribution = module.apply(module.init(KEY, OBS), OBS)
    assert distribution.mean.shape == distribution.std.shape == (4, 2)
    assert not np.allclose(distribution.std[0], distribution.std[1])
    with pytest.raises(ValueError, match="unknown std_kind"):
        TanhNormalActor((8,), action_dim=2, std_kind="other").init(KEY, OBS)


def test_a_tanh_keeps_the_logarithm_of_the_deviation_between_its_bounds():
    """-5 + 2.5 (1 + tanh(u)) with the bounds exp(-5) and 1: the actor of Uni-O4 and of PPO here."""
    module = NormalActor((8,), action_dim=2, std_kind="tanh", std_bounds=(math.exp(-5.0), 1.0), bounded_mean=True)
    params = module.init(KEY, OBS)
    params["params"]["log_std"] = {"kernel": jnp.zeros((8, 2)), "bias": jnp.array([0.5, -50.0])}
    distribution = module.apply(params, OBS)
    expected = np.exp(-5.0 + 2.5 * (1.0 + np.tanh([0.5, -50.0])))
    np.testing.assert_allclose(distribution.std, np.tile(expected, (4, 1)), rtol=1e-5)
    assert np.abs(distribution.mean).max() < 1.0


@pytest.mark.parametrize("shared_head", [False, True])
def test_critics_are_independent_up_to_a_shared_head(shared_head):
    module = CriticEnsemble((6,), num_critics=4, layer_norm=True, shared_head=shared_head)
    params = module.init(KEY, OBS, ACTIONS)
    values = module.apply(params, OBS, ACTIONS)
    assert values.shape == (4, 4)
    names = leaves(params["params"])
    heads = {name: leaf.shape for name, leaf in names.items() if "head" in name}
    assert sorted(heads.values()) == ([(1,), (6, 1)] if shared_head else [(4, 1), (4, 6, 1)])
    assert all(leaf.shape[0] == 4 for name, leaf in names.items() if "members" in name)
    hidden = params["params"]["members"]["Dense_0"]["kernel"]
    assert not np.allclose(hidden[0], hidden[1])
    # What one member does depends on its own hidden layers alone.
    one = jax.grad(lambda p: module.apply(p, OBS, ACTIONS)[2].sum())(params)["params"]["members"]["Dense_0"]["kernel"]
    assert (one[jnp.array([0, 1, 3])] == 0).all()
    assert (one[2] != 0).any()


@pytest.mark.parametrize("shared_head", [False, True])
def test_selected_critics_are_those_of_the_whole_ensemble(shared_head):
    module = CriticEnsemble((6,), num_critics=4, shared_head=shared_head)
    params = module.init(KEY, OBS, ACTIONS)
    indices = jnp.array([3, 1, 3])
    chosen = module.clone(num_critics=3).apply(select_critics(params, indices), OBS, ACTIONS)
    np.testing.assert_allclose(chosen, module.apply(params, OBS, ACTIONS)[indices], rtol=1e-5)


def test_observations_are_repeated_over_leading_axes_of_the_actions():
    module = CriticEnsemble((6,), num_critics=2)
    params = module.init(KEY, OBS, ACTIONS)
    many = jnp.stack([ACTIONS, -ACTIONS, 0 * ACTIONS])
    values = module.apply(params, OBS, many)
    assert values.shape == (2, 3, 4)
    for row in range(3):
        np.testing.assert_allclose(values[:, row], module.apply(params, OBS, many[row]), rtol=1e-5)


@pytest.mark.parametrize("kind", ["softplus", "exp"])
def test_positive_scalar_starts_where_it_should_and_stays_positive(kind):
    module = PositiveScalar(0.37, kind)
    params = module.init(KEY)
    np.testing.assert_allclose(module.apply(params), 0.37, rtol=1e-6)
    low = jax.tree.map(lambda leaf: leaf - 20.0, params)
    assert 0 < module.apply(low) < 1e-6


def test_unknown_parameterisation():
    with pytest.raises(ValueError, match="unknown parameterization"):
        PositiveScalar(1.0, "square").init(KEY)


def test_modules_are_hashable_and_equal_by_value():
    modules: list[nn.Module] = [CriticEnsemble((6,), 2), TanhNormalActor((6,), 2), PositiveScalar(1.0)]
    for module in modules:
        assert module == module.clone()
        assert hash(module) == hash(module.clone())
