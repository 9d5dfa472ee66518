"""Simulators with a dynamics gap: MuJoCo robots whose gravity, friction, mass or actuation differ from the real one's.

A gap is part of a task's name: `local/hopper-medium-v0+gravity2`. Online phases then interact with the shifted robot
and evaluation stays on the plain one, the setting of H2O (Niu et al. 2022): data from reality, a simulator with a flaw.
Models are edited in memory, one copy per environment; no file is written and no other environment notices.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import math
import re
from typing import Any

import gymnasium
import numpy as np

from envs.wrappers import make_bare
from hybridrl.errors import ConfigError
from hybridrl.task import Task

ROBOTS = ("HalfCheetah", "Hopper", "Walker2d", "Ant")
GAPS = {"gravity": "gravity", "friction": "friction", "noise": "joint_noise", "mass": "body_mass"}  # in names -> field
_NOISE_STREAM = 0x6E6F697365  # apart from the stream of the resets, which has the same seed


@dataclasses.dataclass(frozen=True)
class DynamicsGap:
    """What differs between a simulator and reality; the default is no difference, bit for bit.

    H2O's gaps are `gravity=2`, `friction=0.3` and `joint_noise=1`. Its code has a fourth, the geoms' density, which
    does nothing on HalfCheetah, whose file fixes the total mass, and elsewhere equals `body_mass`.

    Attributes:
        gravity: multiplies every component of gravity.
        friction: multiplies the sliding, torsional and rolling friction of every geom. MuJoCo takes the larger friction
            of two geoms in contact, so the floor is scaled too.
        joint_noise: standard deviation of Gaussian noise added to each action entry before it is executed, in units of
            the action. The noise is not clipped (the actuators are) and the reward's control cost sees it, as in H2O.
        body_mass: multiplies the mass and the rotational inertia of every body, as if all were made of a denser
            material. Rotor inertia, damping and stiffness belong to the joints and stay.

    Raises:
        ConfigError: a value that is not finite, negative, or a mass of zero.
    """

    gravity: float = 1.0
    friction: float = 1.0
    joint_noise: float = 0.0
    body_mass: float = 1.0

    def __post_init__(self) -> None:
        """Reject values that cannot work."""
        for field, value in dataclasses.asdict(self).items():
            if not math.isfinite(value) or value < 0 or (field == "body_mass" and value == 0):
                raise ConfigError(f"{field}={value}; expected a finite number, not negative and a mass above 0")

    def apply(self, model: Any) -> None:
        """Edit an `mjModel` in place."""
        model.opt.gravity[:] *= self.gravity
        model.geom_friction[:] *= self.friction
        model.body_mass[:] *= self.body_mass
        model.body_inertia[:] *= self.body_mass
        refresh_constants(model)


def refresh_constants(model: Any) -> None:
    """Recompute what MuJoCo derives from masses and inertias when it compiles a model.

    These are subtree masses, inverse weights of bodies and joints (which soften contacts and limits) and the mean
    inertia. Left as they were, the model would be one that no file describes.
    """
    import mujoco

    mujoco.mj_setConst(model, mujoco.MjData(model))


class ShiftedEnv(gymnasium.Wrapper[Any, Any, Any, Any]):
    """A MuJoCo environment with a dynamics gap. Observations, rewards and terminations are computed as before.

    `info["executed_action"]` is the action with its noise; the agent keeps the clean one it chose.
    """

    def __init__(self, env: gymnasium.Env[Any, Any], gap: DynamicsGap) -> None:
        super().__init__(env)
        self.gap = gap
        inner: Any = env.unwrapped
        gap.apply(inner.model)
        self._rng = np.random.default_rng(_NOISE_STREAM)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode; a `seed` also starts the noise anew."""
        if seed is not None:
            self._rng = np.random.default_rng([seed, _NOISE_STREAM])
        return self.env.reset(seed=seed, options=options)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Execute the action plus noise."""
        if self.gap.joint_noise > 0:
            action = action + self._rng.normal(0.0, self.gap.joint_noise, np.shape(action))
        observation, reward, terminated, truncated, info = self.env.step(action)
        return observation, reward, terminated, truncated, info | {"executed_action": action}


def make_shifted(task: Task, gap: DynamicsGap) -> ShiftedEnv:
    """The task's bare environment with a dynamics gap."""
    return ShiftedEnv(make_bare(task), gap)


def with_gap(task: Task, text: str) -> Task:
    """`task` with a simulator whose dynamics differ as `text` says; data, evaluation and score stay.

    Args:
        text: what follows the `+` in a task's name: `gravity2`, `friction0.3`, `noise1`, `mass1.5` or several of them
            in this order, as in `gravity2+noise0.5`.

    Raises:
        ConfigError: the text is not a gap, is not in its one spelling, or the task is not one of the four robots.
    """
    name = f"{task.name}+{text}"
    gap = parse_gap(name, text)
    if task.env_id.partition("-")[0] not in ROBOTS:
        raise ConfigError(
            f"no task {name!r}: dynamics gaps exist for {', '.join(ROBOTS)}, and {task.name!r} runs {task.env_id!r}; "
            "choose another task or leave out the gap"
        )
    return dataclasses.replace(task, name=name, simulator=functools.partial(make_shifted, gap=gap))


def parse_gap(name: str, text: str) -> DynamicsGap:
    """The gap that `text` stands for; `name` is the task's, for messages.

    Raises:
        ConfigError: it stands for none, or for one that is spelled otherwise (each gap has one name and so one folder).
    """
    values: dict[str, float] = {}
    for part in text.split("+"):
        match = re.fullmatch(r"([a-z]*)(.*)", part, re.DOTALL)
        word, number = match.groups() if match else ("", part)
        if word not in GAPS:
            near = difflib.get_close_matches(word, GAPS, n=1, cutoff=0.4)
            hint = f"did you mean {near[0] + number!r}? " if near else ""
            raise ConfigError(f"no task {name!r}: no gap {part!r}; {hint}expected {_expected()}")
        if not re.fullmatch(r"\d+(\.\d+)?", number):
            raise ConfigError(f"no task {name!r}: {number!r} in {part!r} is no plain number; expected {_expected()}")
        if word in values:
            raise ConfigError(f"no task {name!r}: {word!r} is given twice; expected it once")
        values[word] = float(number)
    spelled = "+".join(f"{word}{np.format_float_positional(values[word], trim='-')}" for word in GAPS if word in values)
    if spelled != text:
        raise ConfigError(f"no task {name!r}: the gap {text!r} is spelled {spelled!r}; write it so")
    return DynamicsGap(**{GAPS[word]: value for word, value in values.items()})


def _expected() -> str:
    words = ", ".join(f"{word}<number>" for word in GAPS)
    return f"{words}, such as gravity2, or several joined by +; or '+d4rl' right after the name of a task of D4RL's"
