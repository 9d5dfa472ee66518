"""DARC: SAC on a simulator whose rewards are corrected by how much the real dynamics differ."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, Self

import jax
import jax.numpy as jnp
from flax import struct

from algorithms.dynamics import DiscriminatorConfig, Discriminators, split_rows
from algorithms.h2o import H2O_SAC
from algorithms.sac import SACAgent, SACConfig
from hybridrl.errors import ConfigError
from hybridrl.policies import ActorPolicy
from hybridrl.types import Metrics, SourcedBatch, Transitions

DARC_SAC = dataclasses.replace(H2O_SAC, entropy_backup=True)


@dataclasses.dataclass(frozen=True)
class DARCConfig:
    """Settings of DARC (Eysenbach et al. 2021) as H2O's authors run it beside H2O: its networks, rates and noise."""

    sac: SACConfig = DARC_SAC
    discriminator: DiscriminatorConfig = DiscriminatorConfig()
    max_correction: float = 10.0  # of |log w|; inert while the discriminators' logits are bounded by 2
    critic_on_real: bool = False  # DARC+: the critic learns from the real rows too, whose rewards need no correction

    def __post_init__(self) -> None:
        """Reject settings that cannot work."""
        if self.sac.critic_updates != 1:
            raise ConfigError(
                f"sac.critic_updates={self.sac.critic_updates}; DARC makes one joint update of critic and actor per "
                "batch: expected 1; for more updates raise schedule.updates_per_step"
            )


class DARCAgent(struct.PyTreeNode):
    """DARC (Eysenbach et al. 2021): in simulation, a transition that reality would not make costs `-log w` of reward.

    Batches come as `SourcedBatch`: offline rows are real, online rows simulated. Real rows train the discriminators
    and, in DARC+ (Niu et al. 2022), the critic; actor and temperature learn from simulated states.
    """

    sac: SACAgent
    discriminators: Discriminators
    config: DARCConfig = struct.field(pytree_node=False)

    @classmethod
    def create(cls, key: jax.Array, example: Transitions, config: DARCConfig = DARCConfig()) -> Self:
        """A fresh agent for rows shaped like `example`'s, leaves `(*batch, ...)`."""
        sac_key, discriminator_key = jax.random.split(key)
        return cls(
            sac=SACAgent.create(sac_key, example, config.sac),
            discriminators=Discriminators.create(discriminator_key, example, config.discriminator),
            config=config,
        )

    @jax.jit
    def update(self, batch: SourcedBatch) -> tuple[Self, Metrics]:
        """One step of the discriminators, then one joint step of critic, actor and temperature.

        Args:
            batch: of each source, the last `discriminator.batch_size` rows are for the discriminators.
        """
        batch, fitting = split_rows(batch, self.config.discriminator.batch_size)
        key, discriminator_key, critic_key, actor_key = jax.random.split(self.sac.key, 4)
        discriminators, metrics = self.discriminators.update(fitting, discriminator_key)
        agent = self.replace(discriminators=discriminators)
        simulated, corrections = agent.corrected(batch.online)
        rows = simulated
        if self.config.critic_on_real:
            rows = jax.tree.map(lambda *parts: jnp.concatenate(parts), batch.offline, simulated)
        sac = agent.sac
        critic, critic_metrics = sac.critic.minimize(functools.partial(sac.critic_loss, rows, critic_key))
        improved, actor_metrics = sac.improve_policy(simulated, actor_key, sac.critic)
        agent = agent.replace(sac=improved.with_critic(critic).replace(key=key))
        metrics["dynamics/correction_mean"] = corrections.mean()
        return agent, metrics | critic_metrics | actor_metrics

    def corrected(self, simulated: Transitions) -> tuple[Transitions, jax.Array]:
        """Simulated rows with rewards `r + log w(s, a, s')` (Eysenbach et al. 2021), and `log w`, `(batch,)`."""
        bound = self.config.max_correction
        corrections = jnp.clip(self.discriminators.log_ratio(simulated), -bound, bound)
        return simulated.replace(rewards=simulated.rewards + corrections), corrections

    def policy(self, *, deterministic: bool) -> ActorPolicy:
        """The actor's mode or its samples."""
        return self.sac.policy(deterministic=deterministic)

    def parts(self) -> dict[str, Any]:
        """SAC's parts and the discriminators."""
        return self.sac.parts() | self.discriminators.parts()

    def with_parts(self, parts: dict[str, Any]) -> Self:
        """This agent with the named parts in place of its own."""
        discriminators, rest = self.discriminators.with_parts(parts)
        return self.replace(sac=self.sac.with_parts(rest), discriminators=discriminators)

    def diagnose(self, batch: Transitions, key: jax.Array) -> Metrics:
        """SAC's diagnosis, of the rewards as they are."""
        return self.sac.diagnose(batch, key)
