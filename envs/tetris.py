"""Tetris on a board of two rows as a linear MDP (the linear experiments of Tan and Xu 2024), with exact values.

The board is 6 columns wide. A piece is a pattern of 2 by 2 cells: its lower row is one of the three that are not empty,
its upper row any of the four, uniformly. An action turns it clockwise (0 to 3 quarters) and lets it fall at one of five
positions. Full rows among the lower two vanish. Then the board sinks by one row for each row in which something stands
above the second, and the reward is minus the number of rows sunk. Episodes have 40 steps.

A state is an integer, `board * 12 + piece`, so data are the `TabularData` of `envs.tabular`. The 49,152 states are too
many for dense transitions, but pieces do not depend on the past: `solve` and `evaluate` are exact and take a second.
Linear are the published features, 640 wide and projected to 60. They do not contain the optimal values exactly, so
algorithms that assume so meet a misfit here, as in the published experiment.

Bits: column 0 is the right one. Bits 0 to 5 of a board are its lower row, 6 to 11 its second. A piece's code has its
lower row in bits 0 and 1 and its upper row in bits 2 and 3.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import struct

from envs.functional import Discrete, StepResult, rollout
from envs.tabular import TabularData, TabularState

WIDTH = 6
NUM_BOARDS = 1 << (2 * WIDTH)
NUM_PIECES = 12
NUM_STATES = NUM_BOARDS * NUM_PIECES
NUM_ROTATIONS = 4
NUM_ACTIONS = (WIDTH - 1) * NUM_ROTATIONS  # action = position * 4 + rotation
ROW = (1 << WIDTH) - 1
FEATURES_PER_BLOCK = 8
NUM_FEATURES = (WIDTH - 1) * 16 * FEATURES_PER_BLOCK  # a block for each position and code of the turned piece
PROJECTED = 60
OFFLINE_EPISODES = 200
OFFLINE_PARTITION = 5  # directions that count as covered by the offline data


class Tetris(struct.PyTreeNode):
    """The game as an environment: it shows the board's 12 bits, the piece's 4 and the step, one-hot, zeros at the end.

    Every episode starts with an empty board and terminates after `horizon` steps.
    """

    horizon: int = struct.field(pytree_node=False, default=40)

    @property
    def obs_dim(self) -> int:
        """Width of an observation."""
        return 2 * WIDTH + 4 + self.horizon

    @property
    def actions(self) -> Discrete:
        """A position and a rotation."""
        return Discrete(NUM_ACTIONS)

    def reset(self, key: jax.Array) -> tuple[TabularState, jax.Array]:
        """An empty board and a random piece."""
        return self._seen(TabularState(state=_draw_piece(key), steps=jnp.int32(0)))

    def step(self, state: TabularState, action: jax.Array, key: jax.Array) -> StepResult:
        """The piece falls, and the next one is drawn."""
        board, reward = drop(state.state, action)
        following = TabularState(state=board * NUM_PIECES + _draw_piece(key), steps=state.steps + 1)
        reached, observation = self._seen(following)
        return reached, observation, reward, reached.steps >= self.horizon, jnp.bool_(False)

    def solved(self, reward: jax.Array, terminated: jax.Array) -> jax.Array:
        """Never: the game has no success."""
        return jnp.bool_(False)

    def decode(self, observations: jax.Array) -> jax.Array:
        """The states, int32 `(*batch,)`, that observations `(*batch, obs_dim)` show."""
        bits = observations.astype(jnp.int32)
        board = jnp.matmul(bits[..., : 2 * WIDTH], 1 << jnp.arange(2 * WIDTH))
        code = jnp.matmul(bits[..., 2 * WIDTH : 2 * WIDTH + 4], 1 << jnp.arange(4))
        return board * NUM_PIECES + (code >> 2) * 3 + (code & 3) - 1

    def _seen(self, state: TabularState) -> tuple[TabularState, jax.Array]:
        board, code = state.state // NUM_PIECES, _code(state.state % NUM_PIECES)
        bits = _bits(board, 2 * WIDTH), _bits(code, 4), jax.nn.one_hot(state.steps, self.horizon)
        return state, jnp.concatenate(bits).astype(jnp.float32)


@jax.jit
def drop(states: jax.Array, actions: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The next boards, int32, and rewards, float32, both `(*batch,)`, for states and actions `(*batch,)`.

    The piece comes to rest at the lowest row at which neither it nor its copy one row higher meets the board.
    """
    boards = states // NUM_PIECES
    turned = _turn(_code(states % NUM_PIECES), actions % NUM_ROTATIONS)
    piece = ((turned & 3) | (turned >> 2) << WIDTH) << (actions // NUM_ROTATIONS)
    for _ in range(2):  # nothing stands above the second row
        blocked = (piece & boards) | ((piece << WIDTH) & boards)
        piece = jnp.where(blocked != 0, piece << WIDTH, piece)
    cells = piece | boards
    cells = jnp.where(cells >> WIDTH & ROW == ROW, (cells & ROW) | (cells >> 2 * WIDTH) << WIDTH, cells)
    cells = jnp.where(cells & ROW == ROW, cells >> WIDTH, cells)
    sunk = (cells >> 2 * WIDTH != 0).astype(jnp.int32) + (cells >> 3 * WIDTH != 0)
    return cells >> WIDTH * sunk, -sunk.astype(jnp.float32)


# Features -------------------------------------------------------------------------------------------------------------


@jax.jit
def features(states: jax.Array, actions: jax.Array, projection: jax.Array | None = None) -> jax.Array:
    """`phi(s, a)`, float32 `(*batch, 640)`, or `(*batch, dim)` with a `projection` `(dim, 640)`.

    There is a block of eight for each position and code of the turned piece, and all others are zero: the highest
    column, the number of holes (an empty cell below a full one), the number of wells (columns lower than both
    neighbours; walls count as higher) and the five differences between neighbouring columns, from left to right.
    """
    blocks = actions // NUM_ROTATIONS * 16 + _turn(_code(states % NUM_PIECES), actions % NUM_ROTATIONS)
    placed = jax.nn.one_hot(blocks, NUM_FEATURES // FEATURES_PER_BLOCK)[..., :, None]
    values = placed * _board_features(states // NUM_PIECES)[..., None, :]
    values = values.reshape(*values.shape[:-2], NUM_FEATURES)
    return values if projection is None else jnp.matmul(values, projection.T, precision="highest")


@functools.partial(jax.jit, static_argnames=("reference_quirks",))
def transition_features(
    data: TabularData, projection: jax.Array | None = None, *, reference_quirks: bool = False
) -> jax.Array:
    """The features of each transition, `(horizon, num, dim)`, as `features` gives them.

    Args:
        reference_quirks: as in the released code, which computes them after the step: from the next state, with the
            action that led to it.
    """
    return features(data.next_states if reference_quirks else data.states, data.actions, projection)


@functools.partial(jax.jit, static_argnames=("num",))
def top_directions(rows: jax.Array, num: int) -> jax.Array:
    """The first `num` right singular vectors of `rows` `(*batch, dim)`, as `(num, dim)`, largest first.

    With the features of `OFFLINE_EPISODES` uniform episodes and 60 directions it is the published projection. Those of
    another such set, projected, and `OFFLINE_PARTITION` directions span what counts as covered by offline data. The
    largest entry of each vector is positive.
    """
    flat = rows.reshape(-1, rows.shape[-1])
    vectors = jnp.linalg.svd(flat, full_matrices=False)[2][:num]
    largest = jnp.take_along_axis(vectors, jnp.abs(vectors).argmax(axis=-1, keepdims=True), axis=-1)
    return vectors * jnp.sign(largest)


# Data and exact values ------------------------------------------------------------------------------------------------


@functools.partial(jax.jit, static_argnames=("num",))
def offline_data(env: Tetris, key: jax.Array, num: int = OFFLINE_EPISODES) -> TabularData:
    """`num` episodes of uniformly random actions: column i of all layers is one episode."""
    rows = rollout(env, _uniform_actions, key, num_envs=num, num_steps=env.horizon)[1]
    states, next_states = env.decode(rows.observations), env.decode(rows.next_observations)
    return TabularData(states, rows.actions, rows.rewards, next_states)


@jax.jit
def solve(env: Tetris) -> jax.Array:
    """The best expected return from each board before its piece is drawn, `(horizon + 1, boards)`, by layer.

    The optimum is entry `[0, 0]`. In state s of layer h the best actions maximise `reward + values[h + 1, board]` over
    the results of `drop(s, action)`.
    """
    return _backward(env, lambda q: q.max(axis=-1))


@jax.jit
def evaluate(env: Tetris, policy: jax.Array) -> jax.Array:
    """The expected return of `policy` `(states, actions)`, probabilities for all layers; as `solve` gives it."""
    return _backward(env, lambda q: jnp.sum(policy * q, axis=-1))


def _backward(env: Tetris, value: Callable[[jax.Array], jax.Array]) -> jax.Array:
    boards, rewards = drop(jnp.arange(NUM_STATES)[:, None], jnp.arange(NUM_ACTIONS)[None, :])

    def backup(following: jax.Array, _: None) -> tuple[jax.Array, jax.Array]:
        values = value(rewards + following[boards]).reshape(NUM_BOARDS, NUM_PIECES).mean(axis=-1)
        return values, values

    last = jnp.zeros(NUM_BOARDS)
    values = jax.lax.scan(backup, last, length=env.horizon)[1]
    return jnp.concatenate([values[::-1], last[None]])


def _uniform_actions(states: TabularState, observations: jax.Array, key: jax.Array) -> jax.Array:
    return jax.random.randint(key, (len(observations),), 0, NUM_ACTIONS)


# Cells ----------------------------------------------------------------------------------------------------------------


def _draw_piece(key: jax.Array) -> jax.Array:
    return jax.random.randint(key, (), 0, NUM_PIECES)


def _code(pieces: jax.Array) -> jax.Array:
    """Codes of pieces: upper row `p // 3`, lower row `p % 3 + 1`."""
    return pieces // 3 * 4 + pieces % 3 + 1


def _turn(codes: jax.Array, quarters: jax.Array) -> jax.Array:
    """Codes of pieces turned clockwise; one that is left with an empty lower row comes down."""
    for quarter in range(1, NUM_ROTATIONS):
        turned = (codes & 1) << 1 | (codes & 2) << 2 | (codes & 8) >> 1 | (codes & 4) >> 2
        codes = jnp.where(quarters >= quarter, turned, codes)
    return jnp.where(codes & 3 == 0, codes >> 2, codes)


def _bits(values: jax.Array, count: int) -> jax.Array:
    """The lowest bits of integers `(*batch,)`, lowest first, int32 `(*batch, count)`."""
    return values[..., None] >> jnp.arange(count).reshape(*(1 for _ in values.shape), count) & 1


def _board_features(boards: jax.Array) -> jax.Array:
    """The eight features of boards `(*batch,)`, float32 `(*batch, 8)`."""
    lower, upper = _bits(boards & ROW, WIDTH)[..., ::-1], _bits(boards >> WIDTH, WIDTH)[..., ::-1]  # from left to right
    heights = jnp.where(upper == 1, 2, lower)
    rises = jnp.diff(heights, axis=-1)
    wall = jnp.ones_like(rises[..., :1])
    wells = (jnp.concatenate([-wall, rises], axis=-1) < 0) & (jnp.concatenate([rises, wall], axis=-1) > 0)
    parts = heights.max(axis=-1), (upper > lower).sum(axis=-1), wells.sum(axis=-1)
    return jnp.concatenate([jnp.stack(parts, axis=-1), rises], axis=-1).astype(jnp.float32)
