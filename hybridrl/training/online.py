"""The online driver's compiled half: store, update and act in one call per environment step."""

from __future__ import annotations

import functools
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from hybridrl.datasets.returns import monte_carlo_returns
from hybridrl.replay import Lookahead, LookaheadSampler, ReplayBuffer, UniformSampler
from hybridrl.training.phases import Phase
from hybridrl.types import Agent, Metrics, Policy, Transitions

AgentT = TypeVar("AgentT", bound=Agent)


@jax.jit
def act(policy: Policy, carry: Any, observations: jax.Array, key: jax.Array) -> tuple[jax.Array, Any]:
    """Actions `(*batch, action_dim)` of any policy, and its next carry."""
    return policy.act(carry, observations, key)


@functools.partial(jax.jit, donate_argnames=("buffer",))
def insert(buffer: ReplayBuffer, batch: Transitions, count: jax.Array) -> ReplayBuffer:
    """`buffer` with the first `count` rows of `batch` appended; the buffer is donated."""
    return buffer.insert(batch, count)


@functools.partial(jax.jit, static_argnames=("phase", "lookahead"), donate_argnames=("agent", "buffer"))
def insert_and_update(
    agent: AgentT,
    buffer: ReplayBuffer,
    offline: UniformSampler | LookaheadSampler | None,
    batch: Transitions,
    count: jax.Array,
    key: jax.Array,
    first_update: int | jax.Array = 0,
    *,
    phase: Phase,
    lookahead: Lookahead | None = None,
) -> tuple[AgentT, ReplayBuffer, Metrics]:
    """Append `count` rows of `batch`, then make the phase's updates, the first of them the phase's `first_update`-th.

    Agent and buffer are donated. With `offline_ratio` 0 mixed batches do not touch the offline data. With a `lookahead`
    the buffer's rows are sampled with what followed them; the offline sampler must give batches of the same kind.

    Returns:
        The agent, the buffer, and metrics averaged over the updates.
    """
    buffer = buffer.insert(batch, count)

    def step(agent: AgentT, inputs: tuple[jax.Array, jax.Array]) -> tuple[AgentT, Metrics]:
        update_key, index = inputs
        return agent.update(phase.sampler(offline, buffer, index, lookahead).sample(update_key, phase.batch_size))

    indices = first_update + jnp.arange(phase.updates_per_step)
    agent, metrics = jax.lax.scan(step, agent, (jax.random.split(key, phase.updates_per_step), indices))
    return agent, buffer, jax.tree.map(lambda values: values.mean(axis=0), metrics)


class EpisodeRecorder:
    """Collects the steps of the current episode on the host, to finish them with Monte-Carlo returns."""

    def __init__(self, discount: float, failure_reward: float | None) -> None:
        self._discount = discount
        self._failure_reward = failure_reward
        self._rows: list[Transitions] = []

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, row: Transitions) -> None:
        """Append one step, leaves `(1, ...)`."""
        self._rows.append(row)

    def finish(self) -> Transitions:
        """The episode with its returns-to-go, leaves `(length, ...)`; the recorder is empty afterwards."""
        episode = jax.tree.map(lambda *fields: np.concatenate(fields), *self._rows)
        self._rows = []
        ends = np.zeros(len(episode.rewards), bool)
        returns = monte_carlo_returns(episode.rewards, episode.masks, ends, self._discount, self._failure_reward)
        return episode.replace(mc_returns=returns)


def chunks(episode: Transitions, size: int) -> list[tuple[Transitions, int]]:
    """`episode` in pieces of exactly `size` rows, the last one padded with zeros, each with its number of real rows.

    Equal sizes keep one compiled insert for episodes of every length.
    """
    pieces = []
    for start in range(0, len(episode.rewards), size):
        piece = jax.tree.map(lambda field, start=start: field[start : start + size], episode)
        count = len(piece.rewards)
        padded = jax.tree.map(
            lambda field, count=count: np.concatenate([field, np.zeros((size - count, *field.shape[1:]), field.dtype)]),
            piece,
        )
        pieces.append((padded, count))
    return pieces


def transition_row(
    observation: np.ndarray,
    action: np.ndarray,
    reward: float,
    terminated: bool,
    next_observation: np.ndarray,
) -> Transitions:
    """One environment step as a batch of one row; its return-to-go is not known yet."""
    fields: dict[str, Any] = {  # NumPy until the compiled call that stores them
        "observations": np.asarray(observation, np.float32)[None],
        "actions": np.asarray(action, np.float32)[None],
        "rewards": np.asarray([reward], np.float32),
        "masks": np.asarray([0.0 if terminated else 1.0], np.float32),
        "next_observations": np.asarray(next_observation, np.float32)[None],
        "mc_returns": np.full(1, np.nan, np.float32),
    }
    return Transitions(**fields)


def example_transition(obs_dim: int, action_dim: int) -> Transitions:
    """A row of zeros, leaves `(1, ...)`: what agents and buffers take their shapes from."""
    return Transitions(
        observations=jnp.zeros((1, obs_dim)),
        actions=jnp.zeros((1, action_dim)),
        rewards=jnp.zeros(1),
        masks=jnp.ones(1),
        next_observations=jnp.zeros((1, obs_dim)),
        mc_returns=jnp.zeros(1),
    )
