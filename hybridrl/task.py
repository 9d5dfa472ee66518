"""A task: an environment, the dataset that goes with it, and everything that must agree between the two."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from hybridrl.errors import ConfigError

BOUNDARIES = ("corrected", "d4rl")


@dataclasses.dataclass(frozen=True)
class DatasetSpec:
    """Where a dataset comes from. The sources are tried in the order local cache, download, generation.

    Attributes:
        id: its published name, such as `D4RL/pointmaze/umaze-v2`; names starting with `local/` are this library's own.
        format: how its files are read: "minari", "ogbench", "exorl" or "d4rl".
        urls: the published files, if they are plain downloads. Minari datasets come through the minari package instead.
        sha256: of each file in `urls`, where published; otherwise the first download's hash is recorded and kept to.
        generate: makes the dataset's files in an empty folder by the published procedure; None where that would need a
            learned expert or a renderer.
        resumable: `generate` also takes `work=`, a folder that outlives a kill, and continues from what it finds there.
        relabel: `(rewards, successes)` for the rows of a file that does not say one of them; given its arrays by name.
        represent: `(rows, goal_dim)` representations of the rows as goals, where a goal is not an observation; given
            the file's arrays by name.
        rows: the number of transitions, for the lists a user reads; 0 if unknown.
        action_bounds: low and high of the recorded actions, one number per entry, where they are not -1 and 1; they are
            rescaled on reading (Minari).
        boundaries: what becomes of rows at the end of an episode in format "d4rl": "corrected" keeps a row only with
            its own next observation, "d4rl" does as D4RL's `qlearning_dataset`; see `datasets.d4rl.read_d4rl`.
        widths: of observations and actions, where files of another width must be refused.
        prepare: applied to the `Steps` that a reader of format "d4rl" has made.
        how_to_get: what to do for files that cannot be downloaded, told in the error that says they are missing.
    """

    id: str
    format: str
    urls: tuple[str, ...] = ()
    sha256: tuple[str, ...] = ()
    generate: Callable[..., None] | None = None
    resumable: bool = False
    relabel: Callable[[Mapping[str, np.ndarray]], tuple[np.ndarray, np.ndarray]] | None = None
    represent: Callable[[Mapping[str, np.ndarray]], np.ndarray] | None = None
    rows: int = 0
    action_bounds: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    boundaries: str = "corrected"
    widths: tuple[int, int] | None = None
    prepare: Callable[[Any], Any] | None = None
    how_to_get: str = ""

    def __post_init__(self) -> None:
        """Reject an unknown choice."""
        if self.boundaries not in BOUNDARIES:
            raise ConfigError(f"dataset {self.id!r}: boundaries {self.boundaries!r}; expected one of {BOUNDARIES}")

    @property
    def published(self) -> bool:
        """Whether there is a public home to download it from."""
        return bool(self.urls) or (self.format == "minari" and not self.id.startswith("local/"))


@dataclasses.dataclass(frozen=True)
class Task:
    """A frozen record of what an agent is asked to do.

    Attributes:
        name: what users type: `task=pointmaze-umaze-v2`.
        family: which published settings apply: "antmaze", "pointmaze", "kitchen", "adroit", "locomotion", "lock",
            "probe", or the first word of an OGBench environment.
        env_id: the Gymnasium id.
        horizon: the time limit in environment steps; reaching it truncates, it never terminates.
        env_kwargs: keyword arguments of the environment, as pairs.
        dataset: the offline data, or None for a task without any.
        observation_keys: entries of a dict observation to concatenate, in this order, nested ones as "outer/inner";
            empty for plain observations.
        pixels: observations are uint8 images `(height, width, channels)` and stay so, rather than float32 vectors.
        num_goals: how many goals the benchmark evaluates on; 0 for a task without goals. Where there are goals,
            `TaskEnv.reset(options={"task_id": k})`, k from 1 to `num_goals`, takes the k-th (at random without it), and
            the `info` it returns holds it as `goal`: an observation, or what `DatasetSpec.represent` makes of one. The
            dataset's rewards are then zeros, which goal samplers replace.
        reward_scale, reward_shift: the agent sees `reward_scale * reward + reward_shift`.
        return_key: entry of `info` that scores are made of, summed over an episode, where it is not the reward.
        success_key: entry of `info` that says whether the task is solved; "reward" if a reward above 0 does; None if
            the task has no notion of success.
        terminate_on_success: the episode ends, without bootstrapping, at the first success.
        failure_reward: the transformed reward of every step that is not a success, for sparse tasks whose failing
            episodes count as never ending (Cal-QL's rule); None for dense rewards.
        score_range: raw returns that count as 0 and 100; None makes the score the success rate in per cent.
        score_label: what to call the score, e.g. "D4RL-style normalised return" where the env's version differs.
        action_clip: actions are clipped to [-action_clip, action_clip], so that their log-density stays finite.
        bounded_actions: whether the environment plays clipped actions only. False where its bounds are nominal, saying
            where recorded actions lie, and it takes any vector: an agent's data are clipped then, what it plays is not.
        choices: how many actions there are, where an action is one of several: the environment plays the largest of so
            many entries, and the data hold one-hot vectors. None where actions are vectors in their own right.
        make: builds the bare environment; None means `gymnasium.make(env_id)`.
        simulator: builds the bare environment that training interacts with where that is not the one the agent is
            evaluated in, such as a simulator of a real robot; None where they are the same.
        terminates: for agents that act in a learned model: whether states end an episode, bool `(*batch,)` from raw
            observations `(*batch, obs_dim)` of JAX or NumPy; hashable, equal where its rule is. None: none does.
        functional: builds the bare environment that training interacts with as a `hybridrl.functional.Environment`,
            which on-policy phases run on the device; None for an environment that has no such form.
    """

    name: str
    family: str
    env_id: str
    horizon: int
    env_kwargs: tuple[tuple[str, Any], ...] = ()
    dataset: DatasetSpec | None = None
    observation_keys: tuple[str, ...] = ()
    pixels: bool = False
    num_goals: int = 0
    reward_scale: float = 1.0
    reward_shift: float = 0.0
    return_key: str | None = None
    success_key: str | None = None
    terminate_on_success: bool = False
    failure_reward: float | None = None
    score_range: tuple[float, float] | None = None
    score_label: str = "success rate (%)"
    action_clip: float = 0.99999
    bounded_actions: bool = True
    choices: int | None = None
    make: Callable[[Task], Any] | None = None
    simulator: Callable[[Task], Any] | None = None
    terminates: Callable[[Any], Any] | None = None
    functional: Callable[[Task], Any] | None = None

    def __post_init__(self) -> None:
        """Reject records that contradict themselves."""
        if self.terminate_on_success and self.success_key is None:
            raise ConfigError(f"task {self.name!r} ends on success but names no success_key; name the entry of info")
        if self.score_range is None and self.success_key is None:
            raise ConfigError(f"task {self.name!r} has neither a score_range nor a success_key; give one of them")
        if self.score_range is not None and self.score_range[0] >= self.score_range[1]:
            raise ConfigError(
                f"task {self.name!r} has score_range {self.score_range}; expected (low, high), low < high"
            )
        if self.functional is not None and (self.return_key is not None or self.pixels or self.num_goals):
            raise ConfigError(
                f"task {self.name!r} is functional and has return_key={self.return_key!r}, pixels={self.pixels}, "
                f"num_goals={self.num_goals}; functional environments have none of these: expected None, False, 0"
            )

    def transform(
        self, actions: Any, rewards: Any, terminations: Any, successes: Any, xp: Any = np
    ) -> tuple[Any, Any, Any]:
        """What the agent sees of one step or of many: clipped actions, transformed rewards, terminations.

        The same function serves the dataset and the environment, so the two cannot drift apart.

        Args:
            actions: `(*batch, action_dim)`, already in units of [-1, 1].
            rewards, terminations, successes: `(*batch,)`, as the environment or the file gives them.
            xp: the module that computes: NumPy, or `jax.numpy` in compiled code.

        Returns:
            float32 actions and rewards and boolean terminations, of the same shapes; arrays of `xp`.
        """
        actions = xp.clip(xp.asarray(actions, np.float32), -self.action_clip, self.action_clip)
        rewards = xp.asarray(rewards, np.float32) * np.float32(self.reward_scale) + np.float32(self.reward_shift)
        terminations = xp.asarray(terminations, bool)
        if self.terminate_on_success:
            terminations = terminations | xp.asarray(successes, bool)
        return actions, rewards, terminations

    def played(self, actions: Any, xp: Any = np) -> Any:
        """What the environment is given for an agent's `actions`, in units of [-1, 1] and of the same shape.

        Args:
            xp: the module that computes: NumPy, or `jax.numpy` in compiled code.
        """
        actions = xp.asarray(actions, np.float32)
        return xp.clip(actions, -self.action_clip, self.action_clip) if self.bounded_actions else actions

    def flatten_observation(self, observation: Any) -> np.ndarray:
        """A float32 vector (or `(rows, obs_dim)` array) from an observation that may be a dict of parts.

        Images of a task with `pixels` come back as they are.
        """
        if self.pixels:
            image = np.asarray(observation)
            if image.dtype != np.uint8:
                raise ConfigError(f"task {self.name!r} has pixels and gives {image.dtype} observations; expected uint8")
            return image
        if not self.observation_keys:
            if isinstance(observation, dict):
                raise ConfigError(
                    f"task {self.name!r} gives dict observations with entries {sorted(observation)}; "
                    "set observation_keys to those to concatenate"
                )
            return np.asarray(observation, np.float32)
        parts = [np.asarray(_entry(observation, key), np.float32) for key in self.observation_keys]
        return np.concatenate([np.atleast_1d(part) for part in parts], axis=-1)

    def score(self, returns: np.ndarray, successes: np.ndarray) -> np.ndarray:
        """Scores on the 0-100 scale of episodes with these raw returns and successes, both `(episodes,)`."""
        if self.score_range is None:
            return 100.0 * np.asarray(successes, np.float64)
        low, high = self.score_range
        return 100.0 * (np.asarray(returns, np.float64) - low) / (high - low)


def _entry(observation: Any, key: str) -> Any:
    """The entry of a dict, or of a dict inside it."""
    if key in observation:
        return observation[key]
    outer, _, inner = key.partition("/")
    return _entry(observation[outer], inner)
