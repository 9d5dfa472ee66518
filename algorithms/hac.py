"""HAC: hybrid actor-critic with a softmax policy on finite problems, where every fit is one linear solve.

The theory's version of HNPG (Zhou et al. 2024, algorithms 1 and 2), for discounted problems with few states and
actions. It is no agent of the command line: it takes two functions that draw samples, and returns all its policies.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import struct

from hybridrl.errors import ConfigError


class OfflineSteps(struct.PyTreeNode):
    """Transitions whose pairs come from the offline distribution, leaves `(rows,)`."""

    states: jax.Array  # int32
    actions: jax.Array  # int32
    rewards: jax.Array
    next_states: jax.Array  # int32


class OnlineReturns(struct.PyTreeNode):
    """Pairs from the policy's discounted occupancy with an unbiased estimate of its value there, leaves `(rows,)`."""

    states: jax.Array  # int32
    actions: jax.Array  # int32
    returns: jax.Array


DrawOffline = Callable[[jax.Array], OfflineSteps]  # of a key
DrawOnline = Callable[[jax.Array, jax.Array], OnlineReturns]  # of a policy (states, actions) and a key


@dataclasses.dataclass(frozen=True)
class HACConfig:
    """Settings of HAC; the defaults are those of the theory (theorem 1).

    Attributes:
        num_rounds: T, improvements of the policy.
        discount: of the problem, in (0, 1).
        averaged_fits: fits whose mean is a round's critic, K2 - K1; None is T, as in the theorem.
        online_weight: lambda. 1 where the functions can hold every backed-up value; T / 2 - 1 where they cannot.
        ridge: keeps the linear systems solvable; what no sample touches has the value 0.
    """

    num_rounds: int
    discount: float
    averaged_fits: int | None = None
    online_weight: float = 1.0
    ridge: float = 1e-6

    def __post_init__(self) -> None:
        """Reject settings that cannot work."""
        if self.num_rounds < 1 or (self.averaged_fits is not None and self.averaged_fits < 1):
            raise ConfigError(
                f"num_rounds={self.num_rounds}, averaged_fits={self.averaged_fits}; expected at least 1 of each"
            )
        if not 0.0 < self.discount < 1.0:
            raise ConfigError(f"discount={self.discount}; expected a number in (0, 1)")
        if self.online_weight < 0 or self.ridge <= 0:
            raise ConfigError(
                f"online_weight={self.online_weight}, ridge={self.ridge}; expected 0 or more, and more than 0"
            )

    @property
    def discarded_fits(self) -> int:
        """K1, the fits of a round that come before those that are averaged."""
        return 4 * math.ceil(math.log(1.0 / self.discount))

    def step_size(self, num_actions: int) -> float:
        """The rate of the multiplicative updates, `(1 - discount) sqrt(log(actions) / T)`."""
        return (1.0 - self.discount) * math.sqrt(math.log(num_actions) / self.num_rounds)


def hybrid_evaluation(
    policy: jax.Array,
    features: jax.Array,
    draw_offline: DrawOffline,
    draw_online: DrawOnline,
    key: jax.Array,
    config: HACConfig,
) -> jax.Array:
    """The values of `policy`, `(states, actions)`: the mean of the last of several fits (algorithm 2).

    Each fit minimises `mean_off (f - r - discount * f_previous(s', policy))^2 + lambda mean_on (f - y)^2` over
    functions linear in the features, on fresh samples. With one feature per pair that is, in every cell, the weighted
    mean of its backed-up values and its returns. Only the offline part bootstraps.

    Args:
        policy: probabilities `(states, actions)`.
        features: `(states, actions, width)`.
    """

    def fit(values: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        offline_key, online_key = jax.random.split(key)
        offline, online = draw_offline(offline_key), draw_online(policy, online_key)
        next_values = jnp.sum(policy * values, axis=-1)[offline.next_states]
        targets = offline.rewards + config.discount * next_values
        parts = (
            (features[offline.states, offline.actions], targets, 1.0),
            (features[online.states, online.actions], online.returns, config.online_weight),
        )
        matrix = sum(weight * (rows.T @ rows) / len(rows) for rows, _, weight in parts)
        vector = sum(weight * (labels @ rows) / len(rows) for rows, labels, weight in parts)
        weights = jnp.linalg.solve(matrix + config.ridge * jnp.eye(features.shape[-1]), vector)
        values = features @ weights
        return values, values

    count = config.num_rounds if config.averaged_fits is None else config.averaged_fits
    keys = jax.random.split(key, config.discarded_fits + count)
    fitted = jax.lax.scan(fit, jnp.zeros(policy.shape), keys)[1]
    return fitted[config.discarded_fits :].mean(axis=0)


@functools.partial(jax.jit, static_argnames=("draw_offline", "draw_online", "config"))
def hac(
    features: jax.Array, draw_offline: DrawOffline, draw_online: DrawOnline, key: jax.Array, config: HACConfig
) -> jax.Array:
    """All policies of a run, `(num_rounds + 1, states, actions)`; the method's answer is their uniform mixture.

    It begins with the uniform policy; each round evaluates the policy and multiplies it by `exp(step_size * values)`
    (algorithm 1).

    Args:
        features: `(states, actions, width)`; one-hot ones make it tabular.
        draw_offline, draw_online: pure functions; see the module's types.
    """
    states, actions, _ = features.shape
    rate = config.step_size(actions)

    def improve(logits: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        policy = jax.nn.softmax(logits)
        values = hybrid_evaluation(policy, features, draw_offline, draw_online, key, config)
        return logits + rate * values, policy

    logits, policies = jax.lax.scan(improve, jnp.zeros((states, actions)), jax.random.split(key, config.num_rounds))
    return jnp.concatenate([policies, jax.nn.softmax(logits)[None]])
