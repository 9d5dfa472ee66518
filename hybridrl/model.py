"""A network together with the optimiser that trains it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Self

import jax
import optax
from flax import linen as nn
from flax import struct

from hybridrl.types import Metrics


@functools.lru_cache
def adam(learning_rate: float, beta1: float = 0.9) -> optax.GradientTransformation:
    """Adam with its usual moments. Cached, so that agents of different seeds share one compilation."""
    return optax.adam(learning_rate, b1=beta1)


@functools.lru_cache
def clipped_adam(learning_rate: float, max_grad_norm: float, epsilon: float) -> optax.GradientTransformation:
    """Adam after the whole gradient has been scaled down to `max_grad_norm` at most. Cached, as `adam` is."""
    return optax.chain(optax.clip_by_global_norm(max_grad_norm), optax.adam(learning_rate, eps=epsilon))


def per_member(optimizer: optax.GradientTransformation) -> optax.GradientTransformation:
    """The same optimiser for each member of an ensemble by itself: whatever it measures, it measures member by member.

    For parameters that all have a leading axis of members. Cache what you build with it, as `adam` is cached.
    """

    def update(gradients: Any, state: Any, params: Any = None) -> Any:
        return jax.vmap(optimizer.update)(gradients, state, params)

    return optax.GradientTransformation(jax.vmap(optimizer.init), update)


class Model(struct.PyTreeNode):
    """A network's parameters with the optimiser that trains them, and nothing it does not train.

    Calling a model uses its own parameters; gradients flow only to a `params` that is passed in.
    """

    params: Any
    opt_state: optax.OptState
    module: nn.Module = struct.field(pytree_node=False)
    optimizer: optax.GradientTransformation = struct.field(pytree_node=False)  # from a cached factory
    name: str = struct.field(pytree_node=False)  # the part of the agent it is: prefixes its metrics

    @classmethod
    def create(
        cls, name: str, module: nn.Module, key: jax.Array, *inputs: Any, learning_rate: float, beta1: float = 0.9
    ) -> Self:
        """Initialise `module` on example `inputs`, to be trained by Adam with decay `beta1` of the first moment."""
        return cls.create_with(name, module, key, *inputs, optimizer=adam(learning_rate, beta1))

    @classmethod
    def create_with(
        cls, name: str, module: nn.Module, key: jax.Array, *inputs: Any, optimizer: optax.GradientTransformation
    ) -> Self:
        """Initialise `module` on example `inputs`, to be trained by `optimizer`, which a cached factory made."""
        params = _init(module, key, *inputs)
        return cls(params=params, opt_state=optimizer.init(params), module=module, optimizer=optimizer, name=name)

    def __call__(self, *inputs: Any, params: Any = None, dropout_key: jax.Array | None = None) -> Any:
        """The network's output, with `params` in place of its own where given; a `dropout_key` turns dropout on."""
        rngs = None if dropout_key is None else {"dropout": dropout_key}
        return self.module.apply(self.params if params is None else params, *inputs, rngs=rngs)

    def minimize(
        self, loss: Callable[[Any], tuple[jax.Array, Metrics]], rate_factor: jax.Array | None = None
    ) -> tuple[Self, Metrics]:
        """One optimiser step on `loss(params) -> (scalar, metrics)`; the metrics gain `<name>/grad_norm`.

        Args:
            rate_factor: multiplies the step, `()`: a learning rate that the caller lets fall.
        """
        gradients, metrics = jax.grad(loss, has_aux=True)(self.params)
        model = self.apply_gradients(gradients, rate_factor)
        return model, metrics | {f"{self.name}/grad_norm": tree_norm(gradients)}

    def apply_gradients(self, gradients: Any, rate_factor: jax.Array | None = None) -> Self:
        """One optimiser step along given gradients, multiplied by `rate_factor` if there is one."""
        updates, opt_state = self.optimizer.update(gradients, self.opt_state, self.params)
        if rate_factor is not None:
            updates = jax.tree.map(lambda update: rate_factor * update, updates)
        return self.replace(params=optax.apply_updates(self.params, updates), opt_state=opt_state)

    def restarted(self) -> Self:
        """The same parameters with a fresh optimiser state."""
        return self.replace(opt_state=self.optimizer.init(self.params))

    def tick(self) -> Self:
        """An optimiser step with zero gradients, which Adam's momentum turns into movement.

        Only for agents that reproduce a reference implementation in which untrained networks are stepped this way.
        """
        return self.apply_gradients(jax.tree.map(jax.numpy.zeros_like, self.params))


def minimize_together(
    models: dict[str, Model], loss: Callable[[dict[str, Any]], tuple[jax.Array, Metrics]]
) -> tuple[dict[str, Model], Metrics]:
    """One optimiser step of several networks on one `loss(params by role) -> (scalar, metrics)`.

    All gradients are taken at the present parameters. Each network keeps its own Adam; as Adam treats every number by
    itself, that equals one Adam over all of them at the same rate.
    """
    gradients, metrics = jax.grad(loss, has_aux=True)({role: model.params for role, model in models.items()})
    norms = {f"{model.name}/grad_norm": tree_norm(gradients[role]) for role, model in models.items()}
    return {role: model.apply_gradients(gradients[role]) for role, model in models.items()}, metrics | norms


@functools.partial(jax.jit, static_argnames="module")  # compiled once for all networks that are equal by value
def _init(module: nn.Module, key: jax.Array, *inputs: Any) -> Any:
    return module.init(key, *inputs)


def member(stacked: Any, index: int | jax.Array) -> Any:
    """One network's part of a pytree, such as a Model, with leaves `(networks, ...)`."""
    return jax.tree.map(lambda leaf: leaf[index], stacked)


def tree_norm(tree: Any) -> jax.Array:
    """The Euclidean norm `()` of all entries of a pytree."""
    return jax.numpy.sqrt(sum(jax.numpy.sum(jax.numpy.square(leaf)) for leaf in jax.tree.leaves(tree)))


def polyak_update(params: Any, target_params: Any, rate: float | jax.Array) -> Any:
    """Targets moved towards `params`: `rate * params + (1 - rate) * target_params`."""
    return optax.incremental_update(params, target_params, rate)


def copy_params(params: Any) -> Any:
    """The same values in buffers of their own, so that both trees can be donated to one compiled call."""
    return jax.tree.map(jax.numpy.array, params)
