"""Behaviour cloning: the policy that does what the data do."""

from __future__ import annotations

import dataclasses
from typing import Any, Self

import jax
import jax.numpy as jnp
from flax import struct

from hybridrl.errors import ConfigError
from hybridrl.model import Model
from hybridrl.networks import DeterministicActor, TanhNormalActor
from hybridrl.policies import ActorPolicy, NoisyPolicy
from hybridrl.standardizer import StandardizedPolicy, Standardizer
from hybridrl.types import Metrics, Policy, Transitions


@dataclasses.dataclass(frozen=True)
class BCConfig:
    """Settings of behaviour cloning. The defaults are those of CORL's baseline (Tarasov et al. 2022)."""

    learning_rate: float = 3e-4
    actor: str = "deterministic"  # squared error; or "tanh_normal": log-likelihood, an actor that fits SAC's
    actor_hidden_dims: tuple[int, ...] = (256, 256)
    actor_layer_norm: bool = False
    initializer: str = "fan_in"  # or "orthogonal", "xavier_uniform"
    std_kind: str = "state"  # of "tanh_normal": a function of the state, or "free"
    std_bounds: tuple[float, float] = (1e-5, 10.0)
    standardize_observations: bool = True  # by the dataset's mean and deviation

    def __post_init__(self) -> None:
        """Reject settings that cannot work."""
        for field, allowed in {
            "actor": ("deterministic", "tanh_normal"),
            "std_kind": ("state", "free"),
            "initializer": ("fan_in", "orthogonal", "xavier_uniform"),
        }.items():
            if getattr(self, field) not in allowed:
                raise ConfigError(f"{field}={getattr(self, field)!r}; expected one of {', '.join(allowed)}")


class BCAgent(struct.PyTreeNode):
    """Behaviour cloning (Pomerleau 1988): supervised regression of the data's actions. It learns no values."""

    actor: Model
    standardizer: Standardizer | None  # None if observations are used as they are
    config: BCConfig = struct.field(pytree_node=False)

    @classmethod
    def create(cls, key: jax.Array, example: Transitions, config: BCConfig = BCConfig()) -> Self:
        """A fresh agent for observations and actions shaped like `example`'s, leaves `(*batch, ...)`."""
        dims, action_dim = tuple(config.actor_hidden_dims), example.actions.shape[-1]
        if config.actor == "deterministic":
            actor: Any = DeterministicActor(dims, action_dim, config.actor_layer_norm, config.initializer)
        else:
            actor = TanhNormalActor(
                dims, action_dim, config.actor_layer_norm, config.std_kind, config.std_bounds, config.initializer
            )
        obs_dim = example.observations.shape[-1]
        return cls(
            actor=Model.create("actor", actor, key, example.observations, learning_rate=config.learning_rate),
            standardizer=Standardizer.identity(obs_dim) if config.standardize_observations else None,
            config=config,
        )

    def fit_observations(self, observations: jax.Array | None) -> Self:
        """This agent with the standardisation of these observations `(rows, obs_dim)`, if its settings want one."""
        return self.replace(standardizer=Standardizer.refit(self.standardizer, observations))

    @jax.jit
    def update(self, batch: Transitions) -> tuple[Self, Metrics]:
        """One step of regression; leaves `(batch_size, ...)`."""
        if self.standardizer is not None:
            batch = self.standardizer.transitions(batch)

        def loss(params: Any) -> tuple[jax.Array, Metrics]:
            predicted = self.actor(batch.observations, params=params)
            if self.config.actor == "deterministic":
                value = jnp.square(predicted - batch.actions).mean()
                return value, {"actor/loss": value, "actor/squared_error": value}
            value = -predicted.log_prob(batch.actions).mean()
            return value, {
                "actor/loss": value,
                "actor/squared_error": jnp.square(predicted.mode() - batch.actions).mean(),
            }

        actor, metrics = self.actor.minimize(loss)
        return self.replace(actor=actor), metrics

    def policy(self, *, deterministic: bool) -> Policy:
        """The predicted action, or with a stochastic actor its mode or samples."""
        policy: Policy = ActorPolicy(actor=self.actor, deterministic=deterministic)
        if self.config.actor == "deterministic":
            policy = NoisyPolicy(actor=self.actor, noise=0.0, deterministic=True)
        return policy if self.standardizer is None else StandardizedPolicy(policy, self.standardizer)

    def parts(self) -> dict[str, Any]:
        """The actor with its optimiser, and the standardisation, if there is one."""
        return {"actor": self.actor} | ({} if self.standardizer is None else {"standardizer": self.standardizer})

    def with_parts(self, parts: dict[str, Any]) -> Self:
        """This agent with the named parts in place of its own."""
        return self.replace(**parts)

    def diagnose(self, batch: Transitions, key: jax.Array) -> Metrics:
        """Nothing: there are no values to diagnose."""
        del batch, key
        return {}
