"""HalfCheetah, Hopper, Walker2d and Ant in JAX: Gymnasium's v5 robots stepped by MJX, by the hundred on an accelerator.

They have the interface of `envs.functional`, whose `rollout` steps many of them in one compiled call:

    env = make_mjx("Ant-v5")
    running, rows = rollout(env, policy, key, num_envs=1024, num_steps=100)

Models are Gymnasium's own files with their own solver settings; observation, reward, termination and the noise of
resets are v5's defaults. How near one step in float32 comes to Gymnasium's stands in `docs/environments.md`. On a CPU
this is many times slower than MuJoCo itself, and compiling takes minutes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from envs.extras import import_extra, make_gymnasium
from envs.functional import Continuous, StepResult
from hybridrl.errors import ConfigError

HORIZON = 1000


@dataclasses.dataclass(frozen=True)
class Robot:
    """What Gymnasium's v5 class adds to the simulation; the defaults of its constructor.

    Attributes:
        control_cost: weight of the squared action.
        reset_noise: half-width of the uniform noise on first positions; also scales that of the velocities.
        normal_velocities: whether the noise on first velocities is normal and not uniform.
        alive_reward: paid at each step that ends healthy; an unhealthy one ends the episode. None: always healthy.
        heights: healthy range of the torso's height.
        angles: healthy range of the torso's pitch; None if it has none.
        state_limit: healthy bound on the pitch, the joints and all velocities.
        closed: whether the ends of `heights` are healthy.
        velocity_limit: observed velocities are clipped to it.
        planar: whether the world has two dimensions; else the observation leaves out x and y and has contact forces.
        contact_cost: weight of the squared contact forces, each clipped to [-1, 1].
    """

    control_cost: float
    reset_noise: float
    normal_velocities: bool
    alive_reward: float | None = None
    heights: tuple[float, float] = (-math.inf, math.inf)
    angles: tuple[float, float] | None = None
    state_limit: float = math.inf
    closed: bool = False
    velocity_limit: float = math.inf
    planar: bool = True
    contact_cost: float = 0.0


ROBOTS = {
    "HalfCheetah-v5": Robot(control_cost=0.1, reset_noise=0.1, normal_velocities=True),
    "Hopper-v5": Robot(
        control_cost=1e-3,
        reset_noise=5e-3,
        normal_velocities=False,
        alive_reward=1.0,
        heights=(0.7, math.inf),
        angles=(-0.2, 0.2),
        state_limit=100.0,
        velocity_limit=10.0,
    ),
    "Walker2d-v5": Robot(
        control_cost=1e-3,
        reset_noise=5e-3,
        normal_velocities=False,
        alive_reward=1.0,
        heights=(0.8, 2.0),
        angles=(-1.0, 1.0),
        velocity_limit=10.0,
    ),
    "Ant-v5": Robot(
        control_cost=0.5,
        reset_noise=0.1,
        normal_velocities=True,
        alive_reward=1.0,
        heights=(0.2, 1.0),
        closed=True,
        planar=False,
        contact_cost=5e-4,
    ),
}


class RobotState(struct.PyTreeNode):
    """Where an episode is."""

    data: Any  # mjx.Data
    steps: jax.Array  # int32 (), taken so far


class MJXRobot(struct.PyTreeNode):
    """One of `ROBOTS` as a functional environment."""

    model: Any  # mjx.Model
    initial: Any  # mjx.Data at Gymnasium's initial state
    robot: Robot = struct.field(pytree_node=False)
    frame_skip: int = struct.field(pytree_node=False)

    @property
    def obs_dim(self) -> int:
        """Width of an observation: 17, 11, 17 and 105 in the order of `ROBOTS`."""
        skipped = 1 if self.robot.planar else 2
        forces = 0 if self.robot.planar else 6 * (self.model.nbody - 1)
        return self.model.nq - skipped + self.model.nv + forces

    @property
    def actions(self) -> Continuous:
        """Entries in [-1, 1]; the actuators clip others."""
        return Continuous(self.model.nu)

    @property
    def horizon(self) -> int:
        """The most steps an episode can take."""
        return HORIZON

    def reset(self, key: jax.Array) -> tuple[RobotState, jax.Array]:
        """A first state with v5's noise, and its observation `(obs_dim,)`, float32."""
        mjx = _mjx()
        position_key, velocity_key = jax.random.split(key)
        noise = self.robot.reset_noise
        draw = jax.random.normal if self.robot.normal_velocities else functools.partial(jax.random.uniform, minval=-1.0)
        qpos = self.initial.qpos + noise * jax.random.uniform(position_key, (self.model.nq,), minval=-1.0)
        qvel = self.initial.qvel + noise * draw(velocity_key, (self.model.nv,))
        with _aligned_contact_frames():
            data = mjx.forward(self.model, self.initial.replace(qpos=qpos, qvel=qvel))
        data = data.replace(qpos=qpos)  # MJX normalises quaternions here, MuJoCo at the first step
        return RobotState(data, jnp.int32(0)), self.observe(data)

    def step(self, state: RobotState, action: jax.Array, key: jax.Array) -> StepResult:
        """The next state and observation, the reward `()`, and whether the episode terminated or was truncated.

        Args:
            action: `(actions.dim,)`. The control cost is that of the action as it is, before the actuators clip it.
            key: not used; the robots are deterministic.
        """
        mjx = _mjx()
        before = self._position(state.data)

        def substep(data: Any, _: None) -> tuple[Any, None]:
            return mjx.step(self.model, data), None

        with _aligned_contact_frames():
            data, _ = jax.lax.scan(substep, state.data.replace(ctrl=action), None, length=self.frame_skip)
        if not self.robot.planar:
            data = mjx.rne_postconstraint(self.model, data)
        velocity = (self._position(data) - before) / (self.model.opt.timestep * self.frame_skip)
        healthy = self.healthy(data)
        reward = velocity - self.robot.control_cost * jnp.sum(jnp.square(action))
        if self.robot.alive_reward is not None:
            reward += self.robot.alive_reward * healthy
        if not self.robot.planar:
            reward -= self.robot.contact_cost * jnp.sum(jnp.square(_contact_forces(data)))
        state = RobotState(data, state.steps + 1)
        truncated = healthy & (state.steps >= self.horizon)
        return state, self.observe(data), reward, ~healthy, truncated

    def solved(self, reward: jax.Array, terminated: jax.Array) -> jax.Array:
        """Never: running has no goal."""
        return jnp.bool_(False)

    def observe(self, data: Any) -> jax.Array:
        """The observation `(obs_dim,)` of a simulation."""
        limit = self.robot.velocity_limit
        parts = [data.qpos[1 if self.robot.planar else 2 :], jnp.clip(data.qvel, -limit, limit)]
        if not self.robot.planar:
            parts.append(_contact_forces(data)[1:].ravel())
        return jnp.concatenate(parts)

    def healthy(self, data: Any) -> jax.Array:
        """Whether the robot still stands, bool `()`."""
        robot = self.robot
        if robot.alive_reward is None:
            return jnp.bool_(True)
        state = jnp.concatenate([data.qpos, data.qvel])
        height = data.qpos[1 if robot.planar else 2]
        low, high = robot.heights
        healthy = jnp.isfinite(state).all() & ((height > low) & (height < high))
        if robot.closed:
            healthy |= jnp.isfinite(state).all() & ((height == low) | (height == high))
        if robot.angles is not None:
            healthy &= (data.qpos[2] > robot.angles[0]) & (data.qpos[2] < robot.angles[1])
        if math.isfinite(robot.state_limit):
            healthy &= (jnp.abs(state[2:]) < robot.state_limit).all()
        return healthy

    def _position(self, data: Any) -> jax.Array:
        # Ant-v5 measures its torso's position in the world, which the simulator refreshes at the start of a substep.
        return data.qpos[0] if self.robot.planar else data.xpos[1, 0]


@functools.lru_cache
def make_mjx(env_id: str) -> MJXRobot:
    """The robot that Gymnasium calls `env_id`.

    Raises:
        ConfigError: there is none of this name here.
        MissingExtraError: MJX is not installed.
    """
    if env_id not in ROBOTS:
        raise ConfigError(f"no MJX robot {env_id!r}; expected one of {', '.join(ROBOTS)}")
    mjx = _mjx()
    env = make_gymnasium(env_id).unwrapped
    initial = mjx.make_data(env.model, impl="jax").replace(
        qpos=jnp.asarray(env.init_qpos, jnp.float32), qvel=jnp.asarray(env.init_qvel, jnp.float32)
    )
    return MJXRobot(mjx.put_model(env.model, impl="jax"), initial, ROBOTS[env_id], env.frame_skip)


def with_simulation(state: RobotState, data: Any) -> RobotState:
    """`state` at the positions, velocities and solver's start of an `mjData`: the same state as in Gymnasium."""
    fields = ("qpos", "qvel", "qacc_warmstart", "xpos")
    values = {name: jnp.asarray(np.array(getattr(data, name)), jnp.float32) for name in fields}
    return state.replace(data=state.data.replace(**values))


def _contact_forces(data: Any) -> jax.Array:
    """Clipped external forces and torques `(bodies, 6)`; zero after a reset, as in Gymnasium."""
    return jnp.clip(data._impl.cfrc_ext, -1.0, 1.0)  # there is no public name for it


def _mjx() -> Any:
    return import_extra("mujoco.mjx", "mjx")


@contextlib.contextmanager
def _aligned_contact_frames() -> Iterator[None]:
    """While MJX is traced in this block, a capsule's contacts with the floor have MuJoCo's tangents.

    MuJoCo's first tangent follows the capsule's axis. MJX's does so only as far as the capsule leans by more than 30
    degrees and is the y axis otherwise. Friction cones are pyramids, so that turning them changes the forces: Ant's
    joint velocities would be off by up to 0.8 rad/s after one step in a fifth of all states. The planar robots,
    whose capsules only ever lean along x, do not notice.
    """
    driver = import_extra("mujoco.mjx._src.collision_driver", "mjx")
    types = import_extra("mujoco.mjx._src.types", "mjx")
    pair = (types.GeomType.PLANE, types.GeomType.CAPSULE)
    original = driver._COLLISION_FUNC[pair]

    def aligned(model: Any, data: Any, key: Any, geoms: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        distances, positions, _ = original(model, data, key, geoms)
        planes, capsules = geoms.T
        normals, axes = data.geom_xmat[planes, :, 2], data.geom_xmat[capsules, :, 2]  # (pairs, 3)
        tangents = axes - normals * jnp.sum(normals * axes, axis=-1, keepdims=True)
        lengths = jnp.linalg.norm(tangents, axis=-1, keepdims=True)
        tangents = jnp.where(lengths > 1e-6, tangents / jnp.maximum(lengths, 1e-6), jnp.array([[1.0, 0.0, 0.0]]))
        frames = jnp.stack([normals, tangents, jnp.cross(normals, tangents)], axis=1)
        return distances, positions, jnp.repeat(frames, original.ncon, axis=0)

    aligned.ncon = original.ncon  # type: ignore[attr-defined]
    driver._COLLISION_FUNC[pair] = aligned
    try:
        yield
    finally:
        driver._COLLISION_FUNC[pair] = original
