"""Which states end an episode, as rules on observations: for agents that act in a learned model of the dynamics."""

from __future__ import annotations

import dataclasses
import math
from typing import Any


@dataclasses.dataclass(frozen=True)
class Unhealthy:
    """A robot that fell or was flung: entries outside their open intervals, or any entry too large.

    Called on arrays `(*batch, obs_dim)`, NumPy's or JAX's, it returns bool `(*batch,)`.
    """

    intervals: tuple[tuple[int, float, float], ...] = ()  # (entry, low, high)
    bound: float = math.inf  # of all entries' sizes

    def __call__(self, observations: Any) -> Any:
        """Whether each state ends the episode; those that are not finite do."""
        healthy = (abs(observations) < self.bound).all(axis=-1)
        for entry, low, high in self.intervals:
            healthy = healthy & (low < observations[..., entry]) & (observations[..., entry] < high)
        return ~healthy


@dataclasses.dataclass(frozen=True)
class Within:
    """A goal in the plane of the first two entries is reached. Called as `Unhealthy` is."""

    goal: tuple[float, float]
    radius: float

    def __call__(self, observations: Any) -> Any:
        """Whether each state lies within `radius` of the goal."""
        x, y = observations[..., 0] - self.goal[0], observations[..., 1] - self.goal[1]
        return x * x + y * y <= self.radius**2


# Entry 0 is the height and entry 1 the angle of hopper and walker. The rules are those of the environments; the cheetah
# never falls, and its bound only tells a model that has gone astray.
_BY_ENVIRONMENT = {
    "HalfCheetah": Unhealthy(bound=100.0),
    "Hopper": Unhealthy(intervals=((0, 0.7, math.inf), (1, -0.2, 0.2)), bound=100.0),
    "Walker2d": Unhealthy(intervals=((0, 0.8, 2.0), (1, -1.0, 1.0)), bound=100.0),
    "Ant": Unhealthy(intervals=((0, 0.2, 1.0),)),
    "AdroitHandPen": Unhealthy(intervals=((26, 0.075, math.inf),)),  # the pen was dropped
}


def by_environment(env_id: str) -> Unhealthy | None:
    """The rule of a Gymnasium environment, of any version; None if no state ends its episodes."""
    return _BY_ENVIRONMENT.get(env_id.rpartition("-v")[0])
