"""OGBench's cube, scene and puzzle datasets made again by their published procedure (Park et al. 2024, appendix).

The environments and the scripted policies ("oracles") are the benchmark's own; this module is the loop around them.
"play" follows plans with smooth noise, "noisy" a closed-loop policy with Gaussian noise and random actions. Each
episode has a seed of its own, so the data depend on neither the number of processes nor on interruptions.
"""

from __future__ import annotations

import functools
import logging
from pathlib import Path
from typing import Any

import numpy as np

from envs.extras import global_generator, keep_action_space, make_gymnasium
from envs.ogbench_files import split_sizes, write_ogbench
from envs.shards import Progress, run_shards
from hybridrl.errors import ConfigError

# Training episodes of the published sets, for either kind of data.
MANIPULATION_EPISODES = {
    "cube-single": 1000,
    "cube-double": 1000,
    "cube-triple": 3000,
    "cube-quadruple": 5000,
    "scene": 1000,
    "puzzle-3x3": 1000,
    "puzzle-4x4": 1000,
    "puzzle-4x5": 3000,
    "puzzle-4x6": 5000,
}
MANIPULATION_KINDS = ("play", "noisy")
MANIPULATION_STEPS = 1000  # transitions per episode, written as one row more
EPISODES_PER_SHARD = 10  # under a minute of work, which is what a kill loses
# Probability that a cube's target is on another cube: drawn per episode between these bounds.
STACKING = {
    "cube-single": (0.0, 0.0),
    "cube-double": (0.0, 0.25),
    "cube-triple": (0.05, 0.35),
    "cube-quadruple": (0.1, 0.5),
}
NOISE = 0.1  # of the plans ("play"); upper bound of the level drawn per episode ("noisy")
NOISE_SMOOTHING = 0.5  # standard deviation in time steps of the filter on the plans' noise
NOISE_SHAPE = np.array([1.0, 1.0, 1.0, 3.0, 10.0])  # of the actions' entries: position, yaw, gripper
MIN_NORM = 0.4  # the closed-loop policy's smallest step
CUBE_POSITION = slice(14, 17)  # in qpos

_log = logging.getLogger(__name__)


def generate_manipulation(
    environment: str,
    kind: str,
    folder: Path,
    *,
    episodes: int | None = None,
    steps: int = MANIPULATION_STEPS,
    seed: int = 0,
    processes: int | None = None,
    progress: Progress | None = None,
    work: Path | None = None,
) -> None:
    """Write `<environment>-<kind>-v0.npz` and its validation set, a tenth of it.

    The last row of each episode has an action that leads nowhere, as in the published files.

    Args:
        environment: "cube-single", "scene", "puzzle-3x3", ...: a key of `MANIPULATION_EPISODES`.
        kind: "play" or "noisy".
        folder: an empty folder.
        episodes: training episodes; None makes the published number, which takes an hour of one core per million rows.
        steps: transitions per episode.
        seed: of the whole set.
        processes, progress, work: see `run_shards`.
    """
    if environment not in MANIPULATION_EPISODES or kind not in MANIPULATION_KINDS:
        raise ConfigError(
            f"no generator for {environment}-{kind}; expected one of {sorted(MANIPULATION_EPISODES)} and one of "
            f"{MANIPULATION_KINDS}; get the other sets from their published files"
        )
    train, validation = split_sizes(episodes, MANIPULATION_EPISODES[environment])
    shards = [
        (environment, kind, seed, list(range(first, min(first + EPISODES_PER_SHARD, train + validation))), steps + 1)
        for first in range(0, train + validation, EPISODES_PER_SHARD)
    ]
    name = f"{environment}-{kind}-v0"
    parts = list(
        run_shards(_episodes, shards, title=f"making {name}", processes=processes, progress=progress, work=work)
    )
    solved = np.concatenate([part.pop("solved") for part in parts])
    _log.info("%s: %d of %d finished attempts ended with success", name, solved.sum(), len(solved))
    write_ogbench(folder, name, parts, train * (steps + 1))


def _episodes(environment: str, kind: str, seed: int, numbers: list[int], rows: int) -> dict[str, np.ndarray]:
    """The episodes with these numbers end to end, with the published files' keys and types.

    Beside them `solved`, for each target that was worked on to the end: whether the object was there then.
    """
    env = _environment(environment)
    parts = [_episode(env, environment, kind, seed, number, rows) for number in numbers]
    return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}


@functools.lru_cache(maxsize=1)
def _environment(name: str) -> Any:
    """An environment takes a second to build; a worker process needs one."""
    env = make_gymnasium(f"{name}-v0", "ogbench", terminate_at_goal=False, mode="data_collection").unwrapped
    keep_action_space(env)
    return env


def _episode(env: Any, environment: str, kind: str, seed: int, number: int, rows: int) -> dict[str, np.ndarray]:
    """One episode; scenes whose cube leaves the visible region are drawn again."""
    rng = np.random.default_rng([seed, number])
    env_seed, space_seed, oracle_seed = rng.integers(2**31, size=3).tolist()
    env.action_space.seed(space_seed)
    with global_generator(np.random.MT19937(oracle_seed)):  # the oracles draw from the global generator
        observation, info = env.reset(seed=env_seed)
        while True:
            arrays = _attempt(env, environment, kind, rng, rows, observation, info)
            if environment != "scene" or _visible(arrays["qpos"][:, CUBE_POSITION]):
                return arrays
            observation, info = env.reset()


def _attempt(
    env: Any,
    environment: str,
    kind: str,
    rng: np.random.Generator,
    rows: int,
    observation: np.ndarray,
    info: dict[str, Any],
) -> dict[str, np.ndarray]:
    """`rows` rows from a state on, given as `env.reset` returns it."""
    stacking = rng.uniform(*STACKING.get(environment, (0.5, 0.5)))
    noise = rng.uniform(0.0, NOISE) * NOISE_SHAPE
    random_actions = 0.0 if kind == "play" else 0.2 if environment.startswith("puzzle") else 0.1
    oracles = _oracles(env, environment, kind)
    oracle = oracles[info["privileged/target_task"]]
    oracle.reset(observation, info)
    recorded: dict[str, list[Any]] = {}
    solved = []
    for _ in range(rows):
        if rng.random() < random_actions:
            action = env.action_space.sample()
        else:
            action = np.asarray(oracle.select_action(observation, info))
            if kind == "noisy":
                action = action + rng.normal(0.0, noise)
        action = np.clip(action, -1.0, 1.0)
        following, _, _, _, info = env.step(action)
        row = {"observations": observation, "actions": action, "qpos": info["prev_qpos"], "qvel": info["prev_qvel"]}
        if "prev_button_states" in info:
            row["button_states"] = info["prev_button_states"]
        for key, value in row.items():
            recorded.setdefault(key, []).append(value)
        if oracle.done:
            solved.append(bool(info["success"]))
            # As in the published loop, `info` still shows the old target when the next action is chosen.
            new_observation, new_info = env.set_new_target(p_stack=stacking)
            oracle = oracles[new_info["privileged/target_task"]]
            oracle.reset(new_observation, new_info)
        observation = following
    arrays = {
        key: np.array(values, np.int64 if key == "button_states" else np.float32) for key, values in recorded.items()
    }
    terminals = np.zeros(rows, bool)
    terminals[-1] = True
    return arrays | {"terminals": terminals, "solved": np.array(solved, bool)}


def _oracles(env: Any, environment: str, kind: str) -> dict[str, Any]:
    """The benchmark's scripted policy for each kind of target that the environment draws."""
    from ogbench.manipspace.oracles.markov.button_markov import ButtonMarkovOracle
    from ogbench.manipspace.oracles.markov.cube_markov import CubeMarkovOracle
    from ogbench.manipspace.oracles.markov.drawer_markov import DrawerMarkovOracle
    from ogbench.manipspace.oracles.markov.window_markov import WindowMarkovOracle
    from ogbench.manipspace.oracles.plan.button_plan import ButtonPlanOracle
    from ogbench.manipspace.oracles.plan.cube_plan import CubePlanOracle
    from ogbench.manipspace.oracles.plan.drawer_plan import DrawerPlanOracle
    from ogbench.manipspace.oracles.plan.window_plan import WindowPlanOracle

    family = environment.partition("-")[0]
    targets = {"cube": ("cube",), "puzzle": ("button",), "scene": ("cube", "button", "drawer", "window")}[family]
    classes: dict[str, Any]
    if kind == "play":
        classes = {
            "cube": CubePlanOracle,
            "button": ButtonPlanOracle,
            "drawer": DrawerPlanOracle,
            "window": WindowPlanOracle,
        }
        settings: dict[str, Any] = {"noise": NOISE, "noise_smoothing": NOISE_SMOOTHING}
    else:
        classes = {
            "cube": CubeMarkovOracle,
            "button": ButtonMarkovOracle,
            "drawer": DrawerMarkovOracle,
            "window": WindowMarkovOracle,
        }
        settings = {"min_norm": MIN_NORM}
    if family == "puzzle":
        settings["gripper_always_closed"] = True
    return {target: classes[target](env=env, **settings) for target in targets}


def _visible(cube: np.ndarray) -> bool:
    """Whether the cube, positions `(rows, 3)`, always stays in sight or in the drawer."""
    y, z = cube[:, 1], cube[:, 2]
    beyond_drawer = (y <= -0.3) & ((z < 0.06) | (z > 0.08))
    return not ((y >= 0.29) | beyond_drawer).any()
