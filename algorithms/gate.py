"""The gate of offline PPO: scores decide which snapshots its steps are taken from, member by member."""

from __future__ import annotations

from typing import Self

import jax
import jax.numpy as jnp
from flax import struct

from algorithms.offline_ppo import ImprovementConfig


class Decision(struct.PyTreeNode):
    """What a gate decided, bool `(num_members,)` each."""

    accept: jax.Array  # the candidate replaces the accepted snapshot
    back: jax.Array  # the member returns to that snapshot


class Gate(struct.PyTreeNode):
    """The scores so far of an ensemble's members. They pass or fail independently of each other."""

    best: jax.Array  # (num_members,), the accepted snapshots' scores; -inf before the first gate
    scores: jax.Array  # (num_members,), of the last gate
    acceptances: jax.Array  # (num_members,), gates passed, without the clones' own
    refusals: jax.Array  # (num_members,), in a row
    believed: jax.Array  # (), share of the last gate's scores that were believed
    least_gain: jax.Array  # (), by which a score rose at the least when a snapshot was accepted; inf before any was

    @classmethod
    def create(cls, num_members: int) -> Self:
        """Before the first gate."""
        return cls(  # each array its own, since agents are donated
            best=jnp.full(num_members, -jnp.inf),
            scores=jnp.zeros(num_members),
            acceptances=jnp.zeros(num_members),
            refusals=jnp.zeros(num_members),
            believed=jnp.ones(()),
            least_gain=jnp.float32(jnp.inf),
        )

    def decide(self, scores: jax.Array, believed: jax.Array, config: ImprovementConfig) -> tuple[Self, Decision]:
        """One gate: a score must exceed the member's best so far; equal ones are refused.

        The first gate is the clones' own and always passed: its scores are what later ones must exceed.

        Args:
            scores: `(num_members,)`.
            believed: bool `(num_members,)`; a score that is not is refused.
        """
        begun = jnp.isfinite(self.best)
        threshold = self.best + config.margin * jnp.where(begun, jnp.abs(self.best), 0.0)
        accept = ~begun | ((scores > threshold) & believed)
        gains = jnp.where(accept & begun, scores - self.best, jnp.inf)
        refusals = jnp.where(accept, 0.0, self.refusals + 1.0)
        back = refusals >= config.reset_after if config.reset_after else jnp.zeros_like(accept)
        gate = self.replace(
            best=jnp.where(accept, scores, self.best),
            scores=scores,
            acceptances=self.acceptances + (accept & begun),
            refusals=jnp.where(back, 0.0, refusals),
            believed=believed.mean(dtype=jnp.float32),
            least_gain=jnp.minimum(self.least_gain, gains.min()),
        )
        return gate, Decision(accept, back)

    def metrics(self) -> dict[str, jax.Array]:
        """Means over members; see `docs/algorithms/unio4.md`."""
        return {
            "gate/score": self.scores.mean(),
            "gate/best_score": self.best.mean(),
            "gate/acceptances": self.acceptances.mean(),
            "gate/believed": self.believed,
            "gate/least_gain": jnp.where(jnp.isfinite(self.least_gain), self.least_gain, 0.0),
        }
