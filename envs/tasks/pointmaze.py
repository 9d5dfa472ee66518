"""D4RL's point mazes in their maintained form: Gymnasium-Robotics environments with Minari datasets."""

from __future__ import annotations

from collections.abc import Callable

from envs.mazes import generate_pointmaze_umaze
from envs.tasks.conventions import SPARSE, make_robotics
from hybridrl.task import DatasetSpec, Task


def _pointmaze_umaze() -> Task:
    # One goal cell "g"; the free cells "0" are then all possible starts.
    maze = ((1, 1, 1, 1, 1), (1, "g", 0, 0, 1), (1, 1, 1, 0, 1), (1, 0, 0, 0, 1), (1, 1, 1, 1, 1))
    return Task(
        name="pointmaze-umaze-v2",
        family="pointmaze",
        env_id="PointMaze_UMaze-v3",
        env_kwargs=(("continuing_task", False), ("maze_map", maze)),
        horizon=300,
        observation_keys=("observation", "desired_goal"),
        reward_shift=-1.0,  # the environment gives 0, and 1 at the goal
        dataset=DatasetSpec(
            id="D4RL/pointmaze/umaze-v2", format="minari", generate=generate_pointmaze_umaze, rows=1_000_000
        ),
        make=make_robotics,
        **SPARSE,
    )


TASKS: dict[str, Callable[[], Task]] = {"pointmaze-umaze-v2": _pointmaze_umaze}
