"""Any Minari dataset as a task: `minari/<dataset id>`, with its environment built again from what the dataset records.

A dataset's metadata are taken as hostile: of the recorded environment only its id, arguments and time limit are used,
the id must be registered by Gymnasium or Gymnasium-Robotics, and nothing is imported by a name found in a file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from envs.extras import import_extra, make_gymnasium
from envs.terminations import by_environment
from hybridrl.errors import ConfigError, DatasetError
from hybridrl.task import DatasetSpec, Task

PREFIX = "minari/"
_ID = re.compile(r"([\w-]+/)*[\w-]+-v\d+", re.ASCII)
_ENV_ID = re.compile(r"[\w.-]+-v\d+", re.ASCII)  # no "module:name" and no namespace, which Gymnasium would import
_REGISTRARS = ("gymnasium.envs.", "gymnasium_robotics.")
_FAMILIES = {"PointMaze": "pointmaze", "AntMaze": "antmaze", "FrankaKitchen": "kitchen", "AdroitHand": "adroit"}
_RENDERING = ("render_mode", "width", "height", "camera_id", "camera_name", "default_camera_config")


def minari_task(name: str) -> Task:
    """The task of the dataset `name` without "minari/". The dataset is fetched now, as only it says what the task is.

    - Environment: the recorded evaluation environment, else the one that made the data.
    - Observations: see `observation_keys`. Actions are rescaled from the recorded bounds to [-1, 1].
    - Rewards: as recorded. An episode succeeds by the entry `success` of its infos where there is one, else by a
      reward above 0.
    - Score: between the recorded `ref_min_score` and `ref_max_score`; in the kitchen the share of tasks completed;
      else the share of successful episodes.

    Raises:
        ConfigError: the name is not that of a dataset, or its environment is one that cannot be built here.
        DatasetError: the dataset cannot be had, or its metadata are damaged.
    """
    from hybridrl.datasets import fetch
    from hybridrl.datasets.files import minari_infos

    dataset_id = name.removeprefix(PREFIX)
    if not _ID.fullmatch(dataset_id):
        raise ConfigError(
            f"no task {name!r}; expected minari/<dataset id>, the id as Minari writes it, such as D4RL/door/human-v2"
        )
    folder, _ = fetch(DatasetSpec(dataset_id, "minari"))
    metadata = _Metadata(folder / "data" / "metadata.json")
    env = metadata.environment()
    family = next((family for start, family in _FAMILIES.items() if env["id"].startswith(start)), "locomotion")
    success_key = "success" if "success" in minari_infos(folder) else "reward"
    score_range, label = metadata.score(env)
    if score_range is None and success_key == "reward":
        label = "episodes with a reward above 0 (%)"
    return Task(
        name=name,
        family=family,
        env_id=env["id"],
        horizon=env["max_episode_steps"],
        env_kwargs=tuple((key, _frozen(value)) for key, value in sorted(env["kwargs"].items())),
        dataset=DatasetSpec(
            dataset_id,
            "minari",
            rows=int(metadata.get("total_steps", 0)),
            action_bounds=metadata.action_bounds(),
        ),
        observation_keys=observation_keys(metadata.space("observation_space"), env["id"]),
        success_key=success_key,
        score_range=score_range,
        score_label=label,
        make=make_recorded,
        terminates=by_environment(env["id"]),
    )


def observation_keys(space: Mapping[str, Any], env_id: str) -> tuple[str, ...]:
    """Which parts of an observation make the vector, and in which order; empty for a plain vector.

    - Goals that are vectors: `observation`, `desired_goal`; in the ant mazes `achieved_goal` first, as only it says
      where the ant is (which gives D4RL's order: position, body, goal).
    - Goals that have parts themselves, as in the kitchen: `observation` alone, since all episodes have the same goal.
    - Any other dict: all its parts in the space's order, nested ones as `outer/inner`.

    Args:
        space: the observation space as Minari records it.
        env_id: of the environment.

    Raises:
        ConfigError: a part is not a vector of numbers.
    """
    if space.get("type") != "Dict":
        _check_vector("observation", space)
        return ()
    parts = _parts(space)
    keys: tuple[str, ...]
    if {"observation", "achieved_goal", "desired_goal"} <= set(parts):
        nested = parts["desired_goal"].get("type") == "Dict"
        keys = ("observation",) if nested else ("observation", "desired_goal")
        if env_id.startswith("AntMaze"):
            keys = ("achieved_goal", *keys)
    else:
        keys = tuple(_leaves(parts))
    for key in keys:
        part: Mapping[str, Any] = space
        for name in key.split("/"):
            part = _parts(part)[name]
        _check_vector(key, part)
    return keys


def make_recorded(task: Task) -> Any:
    """The environment that a Minari dataset records, if Gymnasium or Gymnasium-Robotics registers it.

    Raises:
        ConfigError: neither does, or it does not take the recorded arguments.
    """
    import gymnasium

    package = None
    if task.env_id not in gymnasium.registry:
        package = "gymnasium_robotics"
        gymnasium.register_envs(import_extra(package))
    spec = gymnasium.registry.get(task.env_id)
    if spec is None or not str(spec.entry_point).startswith(_REGISTRARS):
        raise ConfigError(
            f"task {task.name!r} records the environment {task.env_id!r}; expected one that Gymnasium or "
            "Gymnasium-Robotics registers; to use another, write a task for it (docs/extending.md)"
        )
    try:
        return make_gymnasium(task.env_id, package, **dict(task.env_kwargs))
    except TypeError as error:  # an argument that this version of the environment does not have
        raise ConfigError(
            f"task {task.name!r}: the environment {task.env_id!r} refuses its recorded arguments ({error}); "
            "install the version that made the dataset, or write a task for it (docs/extending.md)"
        ) from error


class _Metadata(dict[str, Any]):
    """A dataset's metadata.json."""

    def __init__(self, path: Path) -> None:
        from hybridrl.disk import read_json

        content = read_json(path)
        if not isinstance(content, dict):
            raise DatasetError(f"{path} holds no metadata; get the dataset again")
        super().__init__(content)
        self.path = path

    def environment(self) -> dict[str, Any]:
        """`id`, `kwargs` and `max_episode_steps` of the environment to evaluate in."""
        recorded = self._json("eval_env_spec") or self._json("env_spec")
        if recorded is None:
            raise ConfigError(f"{self.path} records no environment; write a task for this dataset (docs/extending.md)")
        env_id, kwargs, horizon = recorded.get("id"), recorded.get("kwargs") or {}, recorded.get("max_episode_steps")
        if not isinstance(env_id, str) or not _ENV_ID.fullmatch(env_id):
            raise ConfigError(f"{self.path} records the environment {env_id!r}; expected an id such as 'Hopper-v5'")
        if not isinstance(horizon, int) or horizon < 1:
            raise ConfigError(
                f"{self.path} records a time limit of {horizon!r} steps for {env_id!r}; expected a positive number; "
                "write a task for this dataset (docs/extending.md)"
            )
        if not isinstance(kwargs, dict):
            raise DatasetError(f"{self.path} records arguments {kwargs!r}; expected names and values; get it again")
        kwargs = {key: value for key, value in kwargs.items() if key not in _RENDERING}
        for key, value in kwargs.items():
            if any("/" in text or "\\" in text for text in _strings(value)):
                raise ConfigError(
                    f"{self.path} records {key}={value!r} for {env_id!r}, which names a file; do not trust this dataset"
                )
        return {"id": env_id, "kwargs": kwargs, "max_episode_steps": horizon}

    def score(self, env: Mapping[str, Any]) -> tuple[tuple[float, float] | None, str]:
        """The returns that count as 0 and 100, and what the score is called."""
        low, high = self.get("ref_min_score"), self.get("ref_max_score")
        if isinstance(low, int | float) and isinstance(high, int | float) and low < high:
            return (float(low), float(high)), "Minari's normalised return"
        tasks = env["kwargs"].get("tasks_to_complete")
        if isinstance(tasks, list) and tasks:
            return (0.0, float(len(tasks))), "tasks completed (%)"
        return None, "success rate (%)"

    def action_bounds(self) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
        """Low and high of the recorded actions, one number per entry; None if all are -1 and 1."""
        space = self.space("action_space")
        low, high = space.get("low"), space.get("high")
        if space.get("type") != "Box" or not isinstance(low, list) or not isinstance(high, list):
            raise ConfigError(
                f"{self.path}: the actions are of type {space.get('type')!r}; expected a bounded vector; "
                "choose a dataset with continuous actions"
            )
        if len(low) != len(high) or not all(isinstance(value, int | float) for value in (*low, *high)):
            raise ConfigError(f"{self.path}: actions between {low} and {high}; expected a bounded vector")
        if any(not abs(value) < float("inf") for value in (*low, *high)) or any(
            bottom >= top for bottom, top in zip(low, high, strict=True)
        ):
            raise ConfigError(f"{self.path}: actions between {low} and {high}; expected finite bounds, low < high")
        if set(low) == {-1.0} and set(high) == {1.0}:
            return None
        return tuple(map(float, low)), tuple(map(float, high))

    def space(self, key: str) -> Mapping[str, Any]:
        """A recorded space."""
        found = self._json(key)
        if found is None:
            raise DatasetError(f"{self.path} lacks {key!r}; get the dataset again, or convert it with a newer Minari")
        return found

    def _json(self, key: str) -> dict[str, Any] | None:
        """The JSON object that is stored as text under `key`; None if there is none."""
        if self.get(key) is None:
            return None
        try:
            found = json.loads(self[key])
        except (TypeError, ValueError, RecursionError) as error:
            raise DatasetError(f"{self.path}: {key!r} is not readable ({error}); get the dataset again") from error
        if not isinstance(found, dict):
            raise DatasetError(f"{self.path}: {key!r} is {found!r}; expected an object; get the dataset again")
        return found


def _parts(space: Mapping[str, Any]) -> Mapping[str, Any]:
    """The spaces in a recorded dict of spaces."""
    parts = space.get("subspaces")
    if not isinstance(parts, dict) or not all(isinstance(part, dict) for part in parts.values()):
        raise DatasetError(f"the recorded observation space has the parts {parts!r}; get the dataset again")
    return parts


def _leaves(parts: Mapping[str, Any]) -> list[str]:
    names = []
    for name, part in parts.items():
        if part.get("type") == "Dict":
            names += [f"{name}/{inner}" for inner in _leaves(_parts(part))]
        else:
            names.append(name)
    return names


def _check_vector(name: str, space: Mapping[str, Any]) -> None:
    if space.get("type") != "Box" or len(space.get("shape", ())) > 1:
        kind = f"{space.get('type')} of shape {space.get('shape')}"
        raise ConfigError(
            f"the dataset's observations have the part {name!r}, a {kind}; expected vectors of numbers; "
            "write a task for this dataset (docs/extending.md)"
        )


def _strings(value: Any) -> list[str]:
    """All texts in a JSON value."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [text for pair in value.items() for item in pair for text in _strings(item)]
    return [text for item in value for text in _strings(item)] if isinstance(value, list) else []


def _frozen(value: Any) -> Any:
    """Lists as tuples, so that a task can be hashed."""
    return tuple(map(_frozen, value)) if isinstance(value, list) else value
