import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

from hybridrl.model import Model, adam, clipped_adam, copy_params, polyak_update

INPUTS = jnp.array([[1.0, 2.0]])


def new_model(learning_rate=0.1, seed=0):
    return Model.create("part", nn.Dense(1), jax.random.key(seed), INPUTS, learning_rate=learning_rate)


def test_calling_uses_the_models_own_parameters_unless_others_are_given():
    model = new_model()
    kernel = np.asarray(model.params["params"]["kernel"])
    np.testing.assert_allclose(model(INPUTS), np.asarray(INPUTS) @ kernel, rtol=1e-6)
    other = {"params": {"kernel": jnp.array([[3.0], [4.0]]), "bias": jnp.array([1.0])}}
    np.testing.assert_allclose(model(INPUTS, params=other), [[12.0]])
    assert all((leaf == 0).all() for leaf in jax.tree.leaves(jax.grad(lambda p: model(INPUTS).sum())(other)))


def test_a_step_is_adams_and_reports_the_gradients_norm():
    model = new_model()

    def loss(params):
        value = params["params"]["kernel"].sum() * 3.0 - 4.0 * params["params"]["bias"].sum()
        return value, {"part/loss": value}

    after, metrics = model.minimize(loss)
    # Adam's first step is the learning rate against the gradient's sign; the gradients are (3, 3) and -4.
    np.testing.assert_allclose(after.params["params"]["bias"], [0.1], rtol=1e-5)
    change = after.params["params"]["kernel"] - model.params["params"]["kernel"]
    np.testing.assert_allclose(change, [[-0.1], [-0.1]], rtol=1e-5)
    np.testing.assert_allclose(metrics["part/grad_norm"], np.sqrt(9 + 9 + 16), rtol=1e-6)
    assert set(metrics) == {"part/loss", "part/grad_norm"}
    assert after.opt_state[0].count == 1
    assert model.opt_state[0].count == 0


def test_adam_has_its_usual_constants():
    optimizer = adam(0.5)
    state = optimizer.init(jnp.zeros(()))
    update, state = optimizer.update(jnp.float32(2.0), state)
    np.testing.assert_allclose([state[0].mu, state[0].nu], [0.2, 0.004], rtol=1e-6)
    update, state = optimizer.update(jnp.float32(0.0), state)
    m, v = 0.18 / (1 - 0.81), 0.004 * 0.999 / (1 - 0.999**2)
    np.testing.assert_allclose(update, -0.5 * m / (np.sqrt(v) + 1e-8), rtol=1e-4)


def test_optimisers_are_shared_between_agents():
    assert adam(0.1) is adam(0.1)
    assert new_model(seed=0).optimizer is new_model(seed=1).optimizer
    assert jax.tree.structure(new_model(seed=0)) == jax.tree.structure(new_model(seed=1))


def test_a_tick_moves_along_the_momentum_and_not_at_all_without_any():
    fresh = new_model()
    ticked = fresh.tick()
    np.testing.assert_array_equal(ticked.params["params"]["kernel"], fresh.params["params"]["kernel"])
    assert ticked.opt_state[0].count == 1
    moving = fresh.apply_gradients(jax.tree.map(jnp.ones_like, fresh.params))
    assert (moving.tick().params["params"]["kernel"] < moving.params["params"]["kernel"]).all()


def test_polyak_update_takes_the_rate_from_the_new_parameters():
    target = polyak_update({"w": jnp.array([10.0])}, {"w": jnp.array([0.0])}, 0.005)
    np.testing.assert_allclose(target["w"], [0.05], rtol=1e-5)


def test_copies_do_not_share_buffers():
    params = {"w": jnp.arange(3.0)}
    copied = copy_params(params)
    assert copied["w"].unsafe_buffer_pointer() != params["w"].unsafe_buffer_pointer()
    np.testing.assert_array_equal(copied["w"], params["w"])


def test_gradient_norm_covers_all_leaves():
    model = new_model()
    _, metrics = model.minimize(lambda p: (optax.tree.sum(p), {}))
    np.testing.assert_allclose(metrics["part/grad_norm"], np.sqrt(3.0), rtol=1e-6)


def test_a_clipped_step_is_adams_on_the_shortened_gradient_times_its_factor():
    """A gradient of (3, 4), norm 5, cut to norm 0.5; Adam's first step along g is g / (|g| + epsilon)."""
    optimizer = clipped_adam(0.1, 0.5, 0.2)
    model = Model.create_with("part", nn.Dense(1), jax.random.key(0), INPUTS, optimizer=optimizer)

    def loss(params):
        return (params["params"]["kernel"] * jnp.array([[3.0], [4.0]])).sum(), {}

    after, metrics = model.minimize(loss, jnp.float32(0.5))
    change = after.params["params"]["kernel"] - model.params["params"]["kernel"]
    np.testing.assert_allclose(change, [[-0.05 * 0.3 / 0.5], [-0.05 * 0.4 / 0.6]], rtol=1e-4)
    np.testing.assert_allclose(metrics["part/grad_norm"], 5.0, rtol=1e-6)
