"""WSRL: online SAC that starts from an offline agent and never sees offline data again."""

from __future__ import annotations

import dataclasses
from typing import Any, Self

import jax
from flax import struct

from algorithms.calql import CalQLAgent, CalQLConfig
from algorithms.cql import CQLAgent, CQLConfig, PenaltyConfig
from algorithms.sac import SACAgent, SACConfig
from hybridrl.errors import ConfigError
from hybridrl.policies import ActorPolicy
from hybridrl.training.phases import Learner
from hybridrl.training.switch import carry_over
from hybridrl.types import Agent, Metrics, Transitions


@dataclasses.dataclass(frozen=True)
class WSRLConfig:
    """Settings of WSRL: the online SAC agent, and how the offline agent with the same networks is trained."""

    sac: SACConfig = SACConfig()
    offline: str = "calql"  # the offline agent: "calql", or "cql" where returns are dense
    offline_backup_actions: int = 10  # next actions of the offline agent's max-target backup
    offline_actor_learning_rate: float | None = None  # the offline agent's own; None: as online
    offline_target_update_rate: float | None = None  # likewise
    penalty: PenaltyConfig = PenaltyConfig(multiplier="lagrange")

    def __post_init__(self) -> None:
        """Reject settings that cannot work."""
        if self.offline not in ("calql", "cql"):
            raise ConfigError(f"offline={self.offline!r}; expected 'calql' or 'cql'")

    def offline_learner(self) -> Learner:
        """The offline agent: the online one's networks and discount, with the penalty on."""
        own: dict[str, Any] = {
            "actor_learning_rate": self.offline_actor_learning_rate,
            "target_update_rate": self.offline_target_update_rate,
        }
        sac = dataclasses.replace(
            self.sac,
            critic_updates=1,
            num_backup_actions=self.offline_backup_actions,
            entropy_backup=False,
            **{name: rate for name, rate in own.items() if rate is not None},
        )
        if self.offline == "calql":
            return Learner(CalQLAgent, CalQLConfig(sac, self.penalty))
        return Learner(CQLAgent, CQLConfig(sac, self.penalty))


class WSRLAgent(struct.PyTreeNode):
    """WSRL (Zhou et al. 2025): plain SAC with 10 critics and 4 critic updates per step, warm-started.

    Three phases make the method: an offline agent (Cal-QL, or CQL where returns are dense) with the same networks; a
    warm-up of 5,000 steps in which the frozen offline policy fills an empty buffer; then this agent, trained on that
    buffer alone, with no pessimism. Created without an offline agent it is the paper's baseline "SAC (fast)".
    """

    sac: SACAgent
    config: WSRLConfig = struct.field(pytree_node=False)

    @classmethod
    def create(cls, key: jax.Array, example: Transitions, config: WSRLConfig = WSRLConfig()) -> Self:
        """A fresh agent for observations and actions shaped like `example`'s, leaves `(*batch, ...)`."""
        return cls(sac=SACAgent.create(key, example, config.sac), config=config)

    @classmethod
    def from_offline(cls, offline: Agent, example: Transitions, config: WSRLConfig = WSRLConfig()) -> Self:
        """The online agent that takes over from `offline`.

        Actor, critics, target critics (not re-synchronised), temperature, the optimisers' states and the random key
        cross; a conservative penalty's multiplier stays behind.

        Raises:
            ConfigError: the networks of the two do not have the same shapes.
        """
        return carry_over(offline, cls.create(jax.random.key(0), example, config))

    @jax.jit
    def update(self, batch: Transitions) -> tuple[Self, Metrics]:
        """SAC's update; `batch` holds online rows only."""
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
