"""AM-Q: the value of a policy from a learned model and a fixed Q-function, without touching the environment."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from algorithms.transition_model import TransitionModel

REDUCTIONS = ("mean_visited", "sum")
_State = tuple[jax.Array, jax.Array, jax.Array, jax.Array, jax.Array]


def amq_scores(
    act: Callable[[jax.Array], jax.Array],
    q: Callable[[jax.Array, jax.Array], jax.Array],
    model: TransitionModel,
    terminates: Callable[[jax.Array], jax.Array] | None,
    starts: jax.Array,
    num_members: int,
    key: jax.Array,
    horizon: int,
    reduction: str,
) -> jax.Array:
    """AM-Q of several policies at once (Lei et al. 2024, section 3.2), `(num_members,)`.

    Each policy is rolled out in the model from the same states with the same random draws, so the scores, and those of
    another call with the same `starts` and `key`, differ only by what the policies do. A row that terminates, or whose
    state is no longer finite, counts no further.

    Args:
        act: deterministic actions `(num_members, rows, action_dim)` for raw states `(num_members, rows, obs_dim)`.
        q: values `(num_members, rows)` of such states and actions.
        terminates: bool `(*batch,)` for raw states `(*batch, obs_dim)`; None: never.
        starts: `(rows, obs_dim)`.
        horizon: steps at most; once no row is left it ends earlier.
        reduction: "mean_visited", the mean of Q over all pairs visited (the published code), or "sum", the mean over
            rows of the sum of Q, to which a terminated row adds nothing more (the paper).
    """
    elites = model.elite_params()
    shape = (num_members, len(starts))
    first = jnp.broadcast_to(starts[None], (num_members, *starts.shape))

    def going_on(state: _State) -> jax.Array:
        step, _, alive, _, _ = state
        return (step < horizon) & (alive.max() > 0.0)

    def advance(state: _State) -> _State:
        step, observations, alive, total, visits = state
        actions = act(observations)
        total += (alive * q(observations, actions)).sum(axis=1)
        visits += alive.sum(axis=1)
        reached = model.sample_next(elites, observations, actions, jax.random.fold_in(key, step))
        finite = jnp.isfinite(reached).all(axis=-1)
        ended = jnp.zeros(shape, bool) if terminates is None else terminates(reached)
        alive = alive * (finite & ~ended)
        # Rows that count no more stay where they were, so that no infinity spreads.
        return step + 1, jnp.where(alive[..., None] > 0.0, reached, observations), alive, total, visits

    zeros = jnp.zeros(num_members)
    state = (jnp.zeros((), jnp.int32), first, jnp.ones(shape), zeros, zeros)
    *_, total, visits = jax.lax.while_loop(going_on, advance, state)
    return total / (visits if reduction == "mean_visited" else len(starts))
