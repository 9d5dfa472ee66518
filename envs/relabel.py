"""Rewards and goal representations of OGBench's rows, from the simulator states in its files (Park et al. 2024).

All functions take a file's arrays by name and belong to the state a row begins in. They are called through
`functools.partial`, so that tasks can be pickled.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

Arrays = Mapping[str, np.ndarray]

FIRST_OBJECT = 14  # in qpos: six joints of the arm and eight of the gripper come first
CUBE_WIDTH = 7  # of a cube in qpos: position and quaternion
TOLERANCE = 0.04  # metres, for cubes, drawer and window
# Units of the goal representations.
CENTER, SCALE, DRAWER_SCALE, WINDOW_SCALE = np.array([0.425, 0.0, 0.0]), 10.0, 18.0, 15.0


def reach(
    arrays: Arrays, *, columns: tuple[int, int], goal: tuple[float, float], tolerance: float
) -> tuple[np.ndarray, np.ndarray]:
    """Rewards 0 within `tolerance` of the goal and -1 elsewhere, and successes.

    Args:
        arrays: with `qpos` `(rows, width)`.
        columns: entries of `qpos` that hold x and y of what should be at the goal: the body or the ball.
        goal: where it should be.
        tolerance: the largest distance that counts as being there.
    """
    distances = np.linalg.norm(positions(arrays, columns=columns) - np.asarray(goal, np.float64), axis=-1)
    successes = distances <= tolerance
    return successes.astype(np.float32) - np.float32(1.0), successes


def arrange(
    arrays: Arrays,
    *,
    cubes: Sequence[Sequence[float]] = (),
    buttons: Sequence[int] = (),
    drawer: float | None = None,
    window: float | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Minus the number of objects that are not as they should be, and successes: all of them are.

    Args:
        arrays: with `qpos` `(rows, width)` and, where there are buttons, `button_states` `(rows, buttons)`.
        cubes: each cube's target `(x, y, z)`.
        buttons: each button's target state.
        drawer, window: their target positions; None where there are none.
    """
    flags = []
    if len(cubes):
        distances = np.linalg.norm(np.asarray(cubes, np.float64) - _cubes(arrays, len(cubes)), axis=-1)
        flags.append(distances <= TOLERANCE)
    if len(buttons):
        flags.append(np.asarray(arrays["button_states"]) == np.asarray(buttons))
    slides = FIRST_OBJECT + CUBE_WIDTH * len(cubes) + len(buttons)
    for column, target in enumerate((drawer, window), start=slides):
        if target is not None:
            flags.append(np.abs(arrays["qpos"][:, [column]] - target) <= TOLERANCE)
    matches = np.concatenate(flags, axis=-1)
    wrong = np.asarray(np.sum(~matches, axis=-1))
    return -wrong.astype(np.float32), wrong == 0


def positions(arrays: Arrays, *, columns: tuple[int, int]) -> np.ndarray:
    """`(rows, 2)`: where the body or the ball is, which is a maze's goal representation."""
    return np.asarray(arrays["qpos"])[:, list(columns)]


def configuration(arrays: Arrays, *, num_cubes: int, num_buttons: int, slides: bool) -> np.ndarray:
    """The objects' goal representation: positions of cubes, states of buttons, then drawer and window.

    Args:
        arrays: with `qpos` and, where there are buttons, `button_states`.
        num_cubes, num_buttons: how many there are.
        slides: whether there are a drawer and a window.
    """
    parts = []
    if num_cubes:
        scaled = (_cubes(arrays, num_cubes) - CENTER) * SCALE
        parts.append(scaled.reshape(-1, 3 * num_cubes))
    if num_buttons:
        parts.append(np.asarray(arrays["button_states"], np.float64))
    if slides:
        column = FIRST_OBJECT + CUBE_WIDTH * num_cubes + num_buttons
        parts += [arrays["qpos"][:, [column]] * DRAWER_SCALE, arrays["qpos"][:, [column + 1]] * WINDOW_SCALE]
    return np.concatenate(parts, axis=-1).astype(np.float32)


def _cubes(arrays: Arrays, count: int) -> np.ndarray:
    """Positions `(rows, count, 3)`."""
    starts = FIRST_OBJECT + CUBE_WIDTH * np.arange(count)
    return np.asarray(arrays["qpos"])[:, starts[:, None] + np.arange(3)]
