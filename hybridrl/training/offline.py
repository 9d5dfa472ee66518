"""The offline driver: many updates in one compiled call."""

from __future__ import annotations

import functools
from typing import TypeVar

import jax
import jax.numpy as jnp

from hybridrl.types import Agent, Metrics, Sampler

AgentT = TypeVar("AgentT", bound=Agent)


@functools.partial(jax.jit, static_argnames=("num_updates", "batch_size"), donate_argnames=("agent",))
def train_steps(
    agent: AgentT,
    sampler: Sampler,
    key: jax.Array,
    first_update: int | jax.Array = 0,
    *,
    num_updates: int,
    batch_size: int,
) -> tuple[AgentT, Metrics]:
    """`num_updates` updates on freshly sampled batches, inside one `lax.scan`.

    Update i draws its batch with `fold_in(key, first_update + i)`, so cutting a phase into calls differently changes
    nothing. The agent's buffers are donated: go on with the one returned.

    Returns:
        The agent and its metrics averaged over the updates.
    """

    def step(agent: AgentT, index: jax.Array) -> tuple[AgentT, Metrics]:
        batch = sampler.sample(jax.random.fold_in(key, index), batch_size)
        return agent.update(batch)

    agent, metrics = jax.lax.scan(step, agent, first_update + jnp.arange(num_updates))
    return agent, jax.tree.map(lambda values: values.mean(axis=0), metrics)
