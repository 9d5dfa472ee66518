"""Calibrated Q-learning: CQL that stops pushing values below the behaviour policy's returns."""

from __future__ import annotations

import dataclasses
from typing import Any, Self

import jax
from flax import struct

from algorithms.cql import CQLAgent, CQLConfig, PenaltyConfig
from algorithms.sac import SACConfig
from hybridrl.policies import ActorPolicy
from hybridrl.types import Metrics, Transitions


@dataclasses.dataclass(frozen=True)
class CalQLConfig:
    """Settings of Cal-QL: those of the CQL agent it calibrates. The penalty's defaults are WSRL's on AntMaze."""

    sac: SACConfig = CQLConfig().sac
    penalty: PenaltyConfig = PenaltyConfig(multiplier="lagrange")


class CalQLAgent(struct.PyTreeNode):
    """Cal-QL (Nakamoto et al. 2023): CQL whose penalty reads `max(Q(s, a), G(s))` for the policy's actions.

    G(s) is the Monte-Carlo return stored with each transition. The bound stays on when the agent continues online, so
    there it may only be given transitions of finished episodes.
    """

    cql: CQLAgent
    config: CalQLConfig = struct.field(pytree_node=False)

    @classmethod
    def create(cls, key: jax.Array, example: Transitions, config: CalQLConfig = CalQLConfig()) -> Self:
        """A fresh agent for observations and actions shaped like `example`'s, leaves `(*batch, ...)`."""
        return cls(cql=CQLAgent.create(key, example, CQLConfig(config.sac, config.penalty)), config=config)

    @jax.jit
    def update(self, batch: Transitions) -> tuple[Self, Metrics]:
        """CQL's update with the batch's Monte-Carlo returns as lower bounds."""
        cql, metrics = self.cql.update(batch, batch.mc_returns)
        return self.replace(cql=cql), metrics

    def policy(self, *, deterministic: bool) -> ActorPolicy:
        """The actor's mode or its samples."""
        return self.cql.policy(deterministic=deterministic)

    def parts(self) -> dict[str, Any]:
        """CQL's parts."""
        return self.cql.parts()

    def with_parts(self, parts: dict[str, Any]) -> Self:
        """This agent with the named parts in place of its own."""
        return self.replace(cql=self.cql.with_parts(parts))

    def diagnose(self, batch: Transitions, key: jax.Array) -> Metrics:
        """SAC's diagnosis: the conservative term is not part of it."""
        return self.cql.diagnose(batch, key)
