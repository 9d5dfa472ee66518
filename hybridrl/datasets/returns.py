"""Monte-Carlo returns: what followed each step of the data, discounted."""

from __future__ import annotations

import numpy as np


def monte_carlo_returns(
    rewards: np.ndarray,
    masks: np.ndarray,
    ends: np.ndarray,
    discount: float,
    failure_reward: float | None = None,
) -> np.ndarray:
    """Discounted return-to-go `G_t = r_t + discount * m_t * G_{t+1}`, zero beyond each segment's end.

    Cal-QL (Nakamoto et al. 2023) uses these as lower bounds on the value of the behaviour policy. With a
    `failure_reward`, a segment in which every reward equals it is taken as never ending, so each of its steps is worth
    `failure_reward / (1 - discount)`; a segment that holds a success and is then cut by a time limit is not extended.

    Args:
        rewards: `(rows,)`, after the task's shift and scale.
        masks: `(rows,)`, 0.0 after a true termination.
        ends: `(rows,)`, true on the last row of each segment; the last row of all ends one in any case.
        discount: in [0, 1).
        failure_reward: the transformed reward of a step without success, in sparse tasks.

    Returns:
        float32 `(rows,)`.
    """
    rewards = np.asarray(rewards, np.float64)
    if len(rewards) == 0:
        return np.zeros(0, np.float32)
    ends = np.array(ends, bool)
    ends[-1] = True
    last_rows = np.flatnonzero(ends)
    starts = np.concatenate([[0], last_rows[:-1] + 1])
    lengths = last_rows - starts + 1
    # All segments are walked backwards together, aligned at their ends: one vector operation per step of the longest.
    decay = discount * np.asarray(masks, np.float64)
    returns = np.zeros(len(rewards))
    following = np.zeros(len(starts))
    order = np.argsort(-lengths, kind="stable")  # longest first, so that those still alive are a prefix
    last_rows, lengths = last_rows[order], lengths[order]
    for back in range(lengths[0]):
        alive = int(np.searchsorted(-lengths, -back, side="left"))  # segments longer than `back`
        rows = last_rows[:alive] - back
        following[:alive] = rewards[rows] + decay[rows] * following[:alive]
        returns[rows] = following[:alive]
    if failure_reward is not None:
        segment = np.cumsum(ends) - ends
        failed = np.ones(len(starts), bool)
        np.logical_and.at(failed, segment, rewards == np.float32(failure_reward))
        returns[failed[segment]] = failure_reward / (1.0 - discount)
    return returns.astype(np.float32)
