"""Tetris against a game played with arrays of cells, and its values against sums over all that can happen."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs import tetris
from envs.functional import ArgmaxActions, FunctionalEnv
from envs.tetris import Tetris

LOWER_PAIR = 2  # the piece of two cells side by side
SQUARE = 11  # that of four
UNIFORM_RETURN, BEST_RETURN = (
    -33.660,
    -0.550,
)  # from an empty board; what this game's values came to when it was written
EMPTY = 0


def turned(state, action):
    """The turned piece as cells, top row first, left column first."""
    upper, lower = divmod(state % 12, 3)
    rows = [[row >> 1 & 1, row & 1] for row in (upper, lower + 1)]
    cells = np.rot90(np.array(rows, bool), -(action % 4))
    return cells if cells[1].any() else cells[::-1]


def cells_of(board):
    """A board as eight rows of cells, the lowest first, the left column first."""
    rows = [[board >> (6 * row + 5 - column) & 1 for column in range(6)] for row in range(2)]
    return np.concatenate([np.array(rows, bool), np.zeros((6, 6), bool)])


def play(state, action):
    """The next board as an integer, and the reward."""
    board, piece = cells_of(state // 12), turned(state, action)[::-1]  # now the lowest row first
    columns = slice(4 - action // 4, 6 - action // 4)
    height = 6
    while height > 0 and not (board[height - 1 : height + 1, columns] & piece).any():
        height -= 1
    board[height : height + 2, columns] |= piece
    kept = [row for index, row in enumerate(board) if index > 1 or not row.all()]
    reward = 0
    while any(row.any() for row in kept[2:]):
        kept = kept[1:]
        reward -= 1
    bits = [2 ** (6 * row + 5 - column) for row in range(2) for column in range(6) if kept[row][column]]
    return sum(bits), reward


def board_features(board):
    cells = cells_of(board)
    heights = [int(np.max(np.flatnonzero(column), initial=-1)) + 1 for column in cells.T]
    fenced = [9, *heights, 9]
    holes = sum(int((~cells[:height, column]).sum()) for column, height in enumerate(heights))
    wells = sum(fenced[i] < fenced[i - 1] and fenced[i] < fenced[i + 1] for i in range(1, 7))
    return [max(heights), holes, wells, *np.diff(heights)]


def phi(state, action):
    piece = turned(state, action)
    code = int(piece[1] @ [2, 1]) + 4 * int(piece[0] @ [2, 1])
    expected = np.zeros((80, 8))
    expected[action // 4 * 16 + code] = board_features(state // 12)
    return expected.reshape(-1)


@pytest.fixture(scope="module")
def data():
    return jax.tree.map(np.asarray, tetris.offline_data(Tetris(), jax.random.key(0), 100))


def test_moves_by_hand():
    left = 0b110000_110000
    cases = [  # board, piece, position, rotation; the next board, the reward
        (EMPTY, LOWER_PAIR, 0, 0, 0b11, 0),
        (EMPTY, LOWER_PAIR, 0, 1, 0b000010_000010, 0),  # upright
        (0b111100, LOWER_PAIR, 0, 0, EMPTY, 0),  # a full row vanishes
        (0b111100_111100, SQUARE, 0, 0, EMPTY, 0),  # and two
        (0b111111_000001, LOWER_PAIR, 1, 0, 0b000110_000001, 0),  # what stood above it comes down
        (left, LOWER_PAIR, 4, 0, left, -1),  # sinks by one
        (left, SQUARE, 4, 2, left, -2),
    ]
    boards, pieces, positions, rotations, following, rewards = jnp.array(cases).T
    found = tetris.drop(boards * 12 + pieces, positions * 4 + rotations)
    np.testing.assert_array_equal(np.stack(found), np.stack([following, rewards]))


def test_moves_and_features_are_those_of_a_game_with_cells():
    rng = np.random.default_rng(0)
    states, actions = rng.integers(0, tetris.NUM_STATES, 1500), rng.integers(0, 20, 1500)
    boards, rewards = tetris.drop(jnp.asarray(states), jnp.asarray(actions))
    played = np.array([play(state, action) for state, action in zip(states.tolist(), actions.tolist(), strict=True)])
    np.testing.assert_array_equal(np.stack([boards, rewards], axis=-1), played)
    assert set(played[:, 1]) == {0, -1, -2}
    expected = [phi(state, action) for state, action in zip(states.tolist(), actions.tolist(), strict=True)]
    np.testing.assert_array_equal(tetris.features(jnp.asarray(states), jnp.asarray(actions)), expected)


def test_data_are_uniform_episodes_of_the_game(data):
    assert data.states.shape == data.actions.shape == data.rewards.shape == (40, 100)
    np.testing.assert_array_equal(data.states[0] // 12, EMPTY)
    np.testing.assert_array_equal(data.states[1:], data.next_states[:-1])
    pairs = zip(data.states.reshape(-1).tolist(), data.actions.reshape(-1).tolist(), strict=True)
    played = np.array([play(*pair) for pair in pairs])
    np.testing.assert_array_equal(data.next_states.reshape(-1) // 12, played[:, 0])
    np.testing.assert_array_equal(data.rewards.reshape(-1), played[:, 1])
    for values, num in ((data.actions, 20), (data.states % 12, 12)):
        counts = np.bincount(values.reshape(-1), minlength=num)
        assert np.sum((counts - 4000 / num) ** 2 / (4000 / num)) < 3 * num  # chi square, of mean num - 1


def test_features_of_transitions_and_their_projection(data):
    few = jax.tree.map(lambda leaf: leaf[:, :3], data)
    states, next_states, actions = (leaf.reshape(-1).tolist() for leaf in (few.states, few.next_states, few.actions))
    before = np.array([phi(*pair) for pair in zip(states, actions, strict=True)])
    after = np.array([phi(*pair) for pair in zip(next_states, actions, strict=True)])
    np.testing.assert_array_equal(tetris.transition_features(few).reshape(120, 640), before)
    quirky = tetris.transition_features(few, reference_quirks=True)
    np.testing.assert_array_equal(quirky.reshape(120, 640), after)
    projection = np.random.default_rng(0).normal(size=(6, 640)).astype(np.float32)
    projected = tetris.transition_features(few, jnp.asarray(projection)).reshape(120, 6)
    np.testing.assert_allclose(projected, before @ projection.T, atol=1e-4)


def test_top_directions_by_numpy():
    rows = np.random.default_rng(0).normal(size=(5, 6, 8)) * np.arange(1, 9)
    found = np.asarray(tetris.top_directions(jnp.asarray(rows, jnp.float32), 3))
    expected = np.linalg.svd(rows.reshape(30, 8))[2][:3]
    signs = np.sign(np.take_along_axis(expected, np.abs(expected).argmax(axis=1)[:, None], axis=1))
    np.testing.assert_allclose(found, expected * signs, atol=1e-4)


def test_optimal_values_are_those_of_all_that_can_happen():
    @functools.cache
    def best(board, steps):
        if steps == 0:
            return 0.0
        results = [[play(board * 12 + piece, action) for action in range(20)] for piece in range(12)]
        return np.mean([max(reward + best(after, steps - 1) for after, reward in row) for row in results])

    values = tetris.solve(Tetris(horizon=2))
    assert values.shape == (3, 4096)
    full = 0b101101_110110
    assert float(values[1, full]) == pytest.approx(best(full, 1), abs=1e-6)
    assert float(values[0, full]) == pytest.approx(best(full, 2), abs=1e-6)
    assert best(full, 2) < best(full, 1) < 0
    np.testing.assert_array_equal(values[2], 0.0)


def test_the_exact_value_of_uniform_actions_is_their_mean_return(data):
    returns = data.rewards.sum(axis=0)
    value = tetris.evaluate(Tetris(), jnp.full((tetris.NUM_STATES, 20), 0.05))[0, EMPTY]
    assert abs(returns.mean() - float(value)) < 4 * returns.std() / 10
    assert float(value) == pytest.approx(UNIFORM_RETURN, abs=1e-3)
    assert float(tetris.solve(Tetris())[0, EMPTY]) == pytest.approx(BEST_RETURN, abs=1e-3)


def test_it_runs_behind_gymnasium_with_vector_actions():
    env = FunctionalEnv(ArgmaxActions(Tetris(horizon=3)))
    observation, _ = env.reset(seed=0)
    state = int(Tetris(horizon=3).decode(jnp.asarray(observation)))
    for step in range(3):
        following, reward, terminated, truncated, info = env.step(np.eye(20)[7])
        board, expected = play(state, 7)
        state = int(Tetris(horizon=3).decode(jnp.asarray(following)))
        assert (state // 12, reward, terminated) == (board, expected, step == 2)
        assert not truncated
        assert not info["success"]
