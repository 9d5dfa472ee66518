"""MOORL: a meta-policy that moves towards what a few SAC steps on one source of data, offline or online, make of it."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, Self

import jax
import jax.numpy as jnp
from flax import struct

from algorithms.rlpd import RLPD_SAC
from algorithms.sac import SACAgent, SACConfig
from hybridrl.errors import ConfigError
from hybridrl.model import polyak_update, tree_norm
from hybridrl.policies import ActorPolicy
from hybridrl.replay.samplers import BLOCK_SOURCES
from hybridrl.types import Metrics, SourceBlock, Transitions

MOORL_SAC = dataclasses.replace(
    RLPD_SAC,
    num_critics=2,
    critic_layer_norm=False,
    critic_updates=1,
    actor_q="min",
    actor_batch="all",
    target_entropy_per_dim=-1.0,
    temperature_objective="log",
)


@dataclasses.dataclass(frozen=True)
class MOORLConfig:
    """Settings of MOORL (Chaudhary et al. 2025). The paper's values are not known here: all defaults are inferred.

    Attributes:
        sac: the inner learner; SAC with RLPD's rates and network shapes, two critics and no layer norm.
        inner_steps: K, SAC updates per iteration; 1 would leave no meta effect, and "no high update ratio" caps it.
        meta_rate: eta_meta, how far the meta parameters go to the adapted ones; 1 removes the method.
        meta_rate_schedule: "constant", or "linear": down to 0 over `meta_iterations`, as Reptile's authors do.
        meta_iterations: iterations until a linear schedule reaches 0.
        meta: "reptile" interpolates; "fomaml" takes a gradient step of size `meta_rate` from the meta parameters, with
            the gradient at the adapted ones on one more batch of the block, as the listing may also be read.
        inner_batch: "fresh", a new batch for each inner step, or "same", one batch for all.
        source_choice: how the source of a block is chosen: "coin" (offline with probability
            `schedule.offline_ratio`), "alternate", "proportional" to the sizes, or "mixed": the controls' batches of
            both sources.
        reset_optimizers: start each block with fresh Adam moments of actor and critic.
        target_source: the target critic follows the "fast" critic at every inner step, or the "meta" critic once per
            iteration at the rate that K steps add up to.
        act_with: the policy that collects data is the "meta" or the last "adapted" one; evaluation takes the meta one.
        temperature_in: the temperature learns in "both" kinds of blocks or only in "online" ones.
    """

    sac: SACConfig = MOORL_SAC
    inner_steps: int = 5
    meta_rate: float = 0.5
    meta_rate_schedule: str = "constant"
    meta_iterations: int = 250_000
    meta: str = "reptile"
    inner_batch: str = "fresh"
    source_choice: str = "coin"
    reset_optimizers: bool = False
    target_source: str = "fast"
    act_with: str = "meta"
    temperature_in: str = "both"

    def __post_init__(self) -> None:
        """Reject settings that cannot work."""
        for field, allowed in {
            "meta_rate_schedule": ("constant", "linear"),
            "meta": ("reptile", "fomaml"),
            "inner_batch": ("fresh", "same"),
            "source_choice": BLOCK_SOURCES,
            "target_source": ("fast", "meta"),
            "act_with": ("meta", "adapted"),
            "temperature_in": ("both", "online"),
        }.items():
            if getattr(self, field) not in allowed:
                raise ConfigError(f"{field}={getattr(self, field)!r}; expected one of {', '.join(allowed)}")
        if self.inner_steps < 1 or self.meta_iterations < 1 or not 0.0 <= self.meta_rate <= 1.0:
            raise ConfigError(
                f"inner_steps={self.inner_steps}, meta_iterations={self.meta_iterations}, meta_rate={self.meta_rate}; "
                "expected at least 1, at least 1 and a number in [0, 1]"
            )
        if self.sac.critic_updates != 1:
            raise ConfigError(
                f"sac.critic_updates={self.sac.critic_updates}; MOORL's inner steps are joint SAC updates: expected 1; "
                "for more updates raise inner_steps"
            )

    @property
    def block_length(self) -> int:
        """Batches an iteration needs."""
        return (1 if self.inner_batch == "same" else self.inner_steps) + (self.meta == "fomaml")


class MOORLAgent(struct.PyTreeNode):
    """MOORL (Chaudhary et al. 2025, algorithm 1): Reptile with offline and online data as the two tasks.

    One update is one iteration: K SAC steps on batches of one source, from the meta parameters, then a step of the meta
    parameters towards the result. `sac` holds the meta actor and critic between iterations; temperature, target critic
    and optimiser states have one copy, which the inner steps carry on.
    """

    sac: SACAgent
    adapted_actor: Any  # parameters, where `act_with` is "adapted", else None
    iterations: jax.Array  # int32 (), done so far
    config: MOORLConfig = struct.field(pytree_node=False)

    @classmethod
    def create(cls, key: jax.Array, example: Transitions, config: MOORLConfig = MOORLConfig()) -> Self:
        """A fresh agent for rows shaped like `example`'s, leaves `(*batch, ...)`."""
        sac = SACAgent.create(key, example, config.sac)
        adapted = jax.tree.map(jnp.array, sac.actor.params) if config.act_with == "adapted" else None
        return cls(sac=sac, adapted_actor=adapted, iterations=jnp.zeros((), jnp.int32), config=config)

    @jax.jit
    def update(self, block: SourceBlock) -> tuple[Self, Metrics]:
        """One iteration.

        Args:
            block: `config.block_length` batches of one source.
        """
        config, meta = self.config, self.sac
        if len(block.transitions.rewards) != config.block_length:
            raise ValueError(
                f"a block of {len(block.transitions.rewards)} batches; these settings need {config.block_length}; "
                "make the phase's block_length agree"
            )
        fast, metrics = self.adapt(block)
        rate = self.meta_rate()
        if config.meta == "reptile":
            actor = polyak_update(fast.actor.params, meta.actor.params, rate)
            critic = polyak_update(fast.critic.params, meta.critic.params, rate)
            key = fast.key
        else:
            key, critic_key, actor_key = jax.random.split(fast.key, 3)
            last = jax.tree.map(lambda field: field[-1], block.transitions)
            actor_loss = functools.partial(fast.actor_loss, last, actor_key, fast.critic)
            critic_loss = functools.partial(fast.critic_loss, last, critic_key)
            actor = _descend(meta.actor.params, jax.grad(actor_loss, has_aux=True)(fast.actor.params)[0], rate)
            critic = _descend(meta.critic.params, jax.grad(critic_loss, has_aux=True)(fast.critic.params)[0], rate)
        sac = fast.replace(actor=fast.actor.replace(params=actor), critic=fast.critic.replace(params=critic), key=key)
        if config.target_source == "meta":
            target_rate = 1.0 - (1.0 - config.sac.target_update_rate) ** config.inner_steps
            sac = sac.replace(target_critic_params=polyak_update(critic, meta.target_critic_params, target_rate))
        adapted = fast.actor.params if config.act_with == "adapted" else None
        agent = self.replace(sac=sac, adapted_actor=adapted, iterations=self.iterations + 1)
        return agent, metrics | agent.meta_metrics(block, fast)

    def adapt(self, block: SourceBlock) -> tuple[SACAgent, Metrics]:
        """K SAC updates from the meta parameters, and their metrics' means."""
        config, start = self.config, self.sac
        if config.reset_optimizers:
            start = start.replace(actor=start.actor.restarted(), critic=start.critic.restarted())
        count = config.inner_steps
        if config.inner_batch == "same":
            rows = jax.tree.map(lambda field: jnp.broadcast_to(field[:1], (count, *field.shape[1:])), block.transitions)
        else:
            rows = jax.tree.map(lambda field: field[:count], block.transitions)

        def step(sac: SACAgent, batch: Transitions) -> tuple[SACAgent, Metrics]:
            stepped, metrics = sac.update(batch)
            if config.target_source == "meta":
                stepped = stepped.replace(target_critic_params=sac.target_critic_params)
            if config.temperature_in == "online":
                frozen = block.offline_share == 1.0
                keep = jax.tree.map(lambda a, b: jnp.where(frozen, a, b), sac.temperature, stepped.temperature)
                stepped = stepped.replace(temperature=keep)
            return stepped, metrics

        fast, metrics = jax.lax.scan(step, start, rows)
        return fast, jax.tree.map(jnp.mean, metrics)

    def meta_rate(self) -> jax.Array | float:
        """eta_meta in this iteration."""
        config = self.config
        if config.meta_rate_schedule == "constant":
            return config.meta_rate
        return config.meta_rate * jnp.maximum(1.0 - self.iterations / config.meta_iterations, 0.0)

    def meta_metrics(self, block: SourceBlock, fast: SACAgent) -> Metrics:
        """How far things are from the meta parameters, and how large values are on the block's last batch."""
        last = jax.tree.map(lambda field: field[-1], block.transitions)
        critic = self.sac.critic
        return {
            "meta/offline_share": block.offline_share,
            "meta/adaptation": tree_norm(_difference(fast.actor.params, self.sac.actor.params)),
            "meta/target_distance": tree_norm(_difference(self.sac.target_critic_params, critic.params)),
            "meta/q_abs_max": jnp.abs(critic(last.observations, last.actions)).max(),
        }

    def policy(self, *, deterministic: bool) -> ActorPolicy:
        """The meta actor's mode, or samples of the meta or the adapted actor, as `act_with` says."""
        policy = self.sac.policy(deterministic=deterministic)
        if deterministic or self.adapted_actor is None:
            return policy
        return policy.replace(actor=self.sac.actor.replace(params=self.adapted_actor))

    def parts(self) -> dict[str, Any]:
        """SAC's parts, the count of iterations, and the adapted actor if it acts."""
        own = {"iterations": self.iterations}
        return self.sac.parts() | own | ({} if self.adapted_actor is None else {"adapted_actor": self.adapted_actor})

    def with_parts(self, parts: dict[str, Any]) -> Self:
        """This agent with the named parts in place of its own."""
        parts = dict(parts)
        own = {name: parts.pop(name, getattr(self, name)) for name in ("iterations", "adapted_actor")}
        return self.replace(sac=self.sac.with_parts(parts), **own)

    def diagnose(self, batch: Transitions, key: jax.Array) -> Metrics:
        """SAC's diagnosis at the meta parameters."""
        return self.sac.diagnose(batch, key)


def _descend(params: Any, gradients: Any, rate: jax.Array | float) -> Any:
    return jax.tree.map(lambda value, slope: value - rate * slope, params, gradients)


def _difference(first: Any, second: Any) -> Any:
    return jax.tree.map(jnp.subtract, first, second)
