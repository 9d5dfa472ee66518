"""RLPD: SAC from scratch at a high update ratio, every batch half offline data."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Self

import jax
from flax import struct

from algorithms.sac import SACAgent, SACConfig
from hybridrl.policies import ActorPolicy
from hybridrl.types import Metrics, Transitions

RLPD_SAC = SACConfig(
    actor_learning_rate=3e-4,
    critic_learning_rate=3e-4,
    temperature_learning_rate=3e-4,
    actor_layer_norm=False,
    initializer="xavier_uniform",
    std_bounds=(math.exp(-20.0), math.exp(2.0)),
    subset_with_replacement=False,
    shared_critic_head=False,
    critic_updates=20,
    actor_q="mean",
    actor_batch="last",
    entropy_backup=True,
    temperature_parameterization="exp",
    temperature_states="current",
    target_entropy_per_dim=-0.5,
)


@dataclasses.dataclass(frozen=True)
class RLPDConfig:
    """Settings of RLPD: SAC's, with the values of the authors' locomotion experiments (Ball et al. 2023)."""

    sac: SACConfig = RLPD_SAC


class RLPDAgent(struct.PyTreeNode):
    """RLPD (Ball et al. 2023): symmetric sampling, a layer-normalised critic ensemble and many updates per step.

    The agent is SAC; what makes it RLPD is what it is fed: batches in which every second row is offline data, so that
    each critic update sees exactly half of each (see `hybridrl.replay.MixtureSampler`).
    """

    sac: SACAgent
    config: RLPDConfig = struct.field(pytree_node=False)

    @classmethod
    def create(cls, key: jax.Array, example: Transitions, config: RLPDConfig = RLPDConfig()) -> Self:
        """A fresh agent for observations and actions shaped like `example`'s, leaves `(*batch, ...)`."""
        return cls(sac=SACAgent.create(key, example, config.sac), config=config)

    @jax.jit
    def update(self, batch: Transitions) -> tuple[Self, Metrics]:
        """SAC's update; `batch` holds offline and online rows alternately."""
        sac, metrics = self.sac.update(batch)
        return self.replace(sac=sac), metrics

    def policy(self, *, deterministic: bool) -> ActorPolicy:
        """The actor's mode or its samples."""
        return self.sac.policy(deterministic=deterministic)

    def parts(self) -> dict[str, Any]:
        """SAC's parts."""
        return self.sac.parts()

    def with_parts(self, parts: dict[str, Any]) -> Self:
        """This agent with the named parts in place of its own."""
        return self.replace(sac=self.sac.with_parts(parts))

    def diagnose(self, batch: Transitions, key: jax.Array) -> Metrics:
        """SAC's diagnosis."""
        return self.sac.diagnose(batch, key)
