"""Natural-gradient steps within a trust region: Fisher-vector products, conjugate gradients, backtracking.

Everything is a pure function of flat parameter vectors and compiles; several policies step side by side under `vmap`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jax.flatten_util import ravel_pytree

from hybridrl.errors import ConfigError

Product = Callable[[jax.Array], jax.Array]  # (params,) -> (params,)


@dataclasses.dataclass(frozen=True)
class TrustRegionConfig:
    """How far a natural-gradient step may go, and how it is found (Schulman et al. 2015, appendix C).

    Attributes:
        max_kl: the largest mean divergence of the new policy from the old, in nats.
        damping: multiple of the identity that is added to the Fisher matrix.
        cg_iterations, cg_tolerance: conjugate gradients stop after so many iterations, or as soon as the squared norm
            of the residual is below the tolerance.
        backtracks, backtrack_factor: the step is tried at 1, the factor, its square, and so on, so many times in all.
        accept_ratio: accepted is the first that gains at least this share of what the slope promises.
        enforce_kl: also require the true mean divergence to stay within `max_kl`. False is the rule of HNPG's released
            code, which trusts the quadratic model: divergences of 2.5 times the bound then occur.
    """

    max_kl: float = 1e-2
    damping: float = 0.1
    cg_iterations: int = 10
    cg_tolerance: float = 1e-10
    backtracks: int = 10
    backtrack_factor: float = 0.5
    accept_ratio: float = 0.1
    enforce_kl: bool = True

    def __post_init__(self) -> None:
        """Reject settings that cannot work."""
        for field in ("max_kl", "cg_iterations", "backtracks"):
            if getattr(self, field) <= 0:
                raise ConfigError(f"{field}={getattr(self, field)}; expected more than 0")
        for field in ("damping", "cg_tolerance", "accept_ratio"):
            if getattr(self, field) < 0:
                raise ConfigError(f"{field}={getattr(self, field)}; expected 0 or more")
        if not 0.0 < self.backtrack_factor < 1.0:
            raise ConfigError(f"backtrack_factor={self.backtrack_factor}; expected a number in (0, 1)")


class NaturalStep(struct.PyTreeNode):
    """What one step did; all but `params` are scalars `()`."""

    params: Any  # the new ones; the old ones to the last bit if nothing was accepted
    accepted: jax.Array  # bool
    fraction: jax.Array  # of the full step that was tried last
    kl: jax.Array  # mean divergence of the accepted policy from the old; 0 if nothing was accepted
    improvement: jax.Array  # of the surrogate; 0 if nothing was accepted
    residual: jax.Array  # |target - product(solution)| / |target| of the linear system
    model_kl: jax.Array  # divergence of the full step by the quadratic model, damping included


def fisher_vector_product(divergence: Callable[[jax.Array], jax.Array], params: jax.Array, damping: float) -> Product:
    """`v -> F v + damping * v`, where F is the Hessian of `divergence` at `params`.

    For the mean divergence KL(old policy || policy of the argument), at the old parameters, that is the Fisher matrix.
    The matrix itself is never formed.
    """
    hessian = jax.linearize(jax.grad(divergence), params)[1]
    return lambda vector: hessian(vector) + damping * vector


def conjugate_gradients(product: Product, target: jax.Array, iterations: int, tolerance: float) -> jax.Array:
    """`x` with `product(x)` close to `target` `(n,)`, for a symmetric positive definite product.

    Args:
        iterations: at most so many; in exact arithmetic `n` are enough.
        tolerance: ends when the squared norm of the residual is below.
    """

    def step(_: int, state: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        solution, residual, direction, error = state
        curved = product(direction)
        length = error / jnp.vdot(direction, curved)
        found = solution + length * direction
        left = residual - length * curved
        new_error = jnp.vdot(left, left)
        following = found, left, left + (new_error / error) * direction, new_error
        return jax.tree.map(lambda old, new: jnp.where(error < tolerance, old, new), state, following)

    # A residual of exactly 0 must not be divided by, even with a tolerance of 0.
    tolerance = max(tolerance, float(jnp.finfo(target.dtype).tiny))
    start = jnp.zeros_like(target), target, target, jnp.vdot(target, target)
    return jax.lax.fori_loop(0, iterations, step, start)[0]


def natural_step(
    surrogate: Callable[[Any], jax.Array],
    divergence: Callable[[Any], jax.Array],
    params: Any,
    config: TrustRegionConfig,
) -> NaturalStep:
    """One step up `surrogate` along its natural gradient, to the edge of the trust region or as far as it gains.

    Args:
        surrogate: of the policy's parameters, `()`, to be raised.
        divergence: mean KL(policy of `params` || policy of the argument), `()`; zero and flat at `params`.
        params: a pytree of one float dtype.
        config: the region.
    """
    flat, unravel = ravel_pytree(params)
    value, gradient = jax.value_and_grad(lambda vector: surrogate(unravel(vector)))(flat)
    product = fisher_vector_product(lambda vector: divergence(unravel(vector)), flat, config.damping)
    direction = conjugate_gradients(product, gradient, config.cg_iterations, config.cg_tolerance)
    curved = product(direction)
    tiny = jnp.finfo(flat.dtype).tiny  # without a gradient there is no direction, and the step is zero
    full = direction * jnp.sqrt(2.0 * config.max_kl / jnp.maximum(jnp.vdot(direction, curved), tiny))
    slope = jnp.vdot(gradient, full)

    def attempt(state: Any) -> Any:
        tried = state[0]
        fraction = jnp.asarray(config.backtrack_factor, flat.dtype) ** tried
        candidate = unravel(flat + fraction * full)
        gain, kl = surrogate(candidate) - value, divergence(candidate)
        accepted = (gain > 0.0) & (gain > config.accept_ratio * fraction * slope)
        if config.enforce_kl:
            accepted &= kl <= config.max_kl
        return tried + 1, fraction, accepted, gain, kl

    zero = jnp.zeros((), flat.dtype)
    start = jnp.int32(0), zero, jnp.bool_(False), zero, zero
    _, fraction, accepted, gain, kl = jax.lax.while_loop(
        lambda state: ~state[2] & (state[0] < config.backtracks), attempt, start
    )
    return NaturalStep(
        params=unravel(jnp.where(accepted, flat + fraction * full, flat)),
        accepted=accepted,
        fraction=fraction,
        kl=jnp.where(accepted, kl, 0.0),
        improvement=jnp.where(accepted, gain, 0.0),
        residual=jnp.linalg.norm(curved - gradient) / jnp.maximum(jnp.linalg.norm(gradient), tiny),
        model_kl=0.5 * jnp.vdot(full, product(full)),
    )
