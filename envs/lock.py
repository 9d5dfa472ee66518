"""The combination lock: `horizon` right choices in a row, or nothing (Zhou et al. 2024, section 6 and appendix E).

Hidden states at every step: 0 and 1, both good, and 2, from which nothing leads back. In each good state one of ten
latent actions leads to 0 or 1 with probability 1/2 each; all others lead to 2. The action is a vector, whose softmax at
temperature 0.1 is the law of the latent action. What is seen is the hidden state and the step in disguise:
`RotatedEmission`, from which both can be decoded, or `ImageEmission`, from which they nearly can.

Everything after construction is on the device: dynamics, observations, behaviour and offline data.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from envs.functional import Continuous, Discrete, StepResult
from hybridrl.errors import ConfigError

NUM_ACTIONS = 10
BAD = 2  # the absorbing hidden state
REWARD_MODES = ("paper", "hnpg_code")
CONSOLATION = 0.1  # paid with probability 1/2 to those who fail, to mislead
ACTION_TEMPERATURE = 0.1  # the released code's; the paper's text has a plain softmax, with which no data succeed
EMISSION_NOISE = 0.1

IMAGE_DIM = 512
IMAGE_MAX_HORIZON = 32  # 3 * (32 + 1) of CIFAR-100's classes
IMAGE_POOL = {"train": 500, "heldout": 100}  # images per class, as in CIFAR-100
IMAGE_SPREAD = 2.9


class LockState(struct.PyTreeNode):
    """What is hidden, and the step."""

    latent: jax.Array  # int32 (), 0, 1 or 2
    steps: jax.Array  # int32 (), taken so far


class RotatedEmission(struct.PyTreeNode):
    """Observation `Hadamard @ g`, where `g` holds the hidden state one-hot, then the step one-hot, both with noise.

    The Sylvester matrix has entries ±1 and is not normalised, so `Hadamard.T @ observation / obs_dim` is `g`. The last
    `obs_dim - horizon - 3` entries of `g` carry no noise, so that the terminal step is marked exactly.
    """

    rotation: jax.Array  # (obs_dim, obs_dim), symmetric
    horizon: int = struct.field(pytree_node=False)

    @classmethod
    def create(cls, horizon: int) -> RotatedEmission:
        """The emission of a lock of this horizon, of width `2 ** ceil(log2(horizon + 4))`."""
        matrix = np.ones((1, 1), np.float32)
        while len(matrix) < horizon + 4:
            matrix = np.block([[matrix, matrix], [matrix, -matrix]])
        return cls(rotation=jnp.asarray(matrix), horizon=horizon)

    @property
    def obs_dim(self) -> int:
        """Width of an observation."""
        return self.rotation.shape[-1]

    def emit(self, state: LockState, key: jax.Array) -> jax.Array:
        """An observation `(obs_dim,)` of the state."""
        index = jnp.arange(self.obs_dim)
        code = ((index == state.latent) | (index == 3 + state.steps)).astype(jnp.float32)
        noise = EMISSION_NOISE * jax.random.normal(key, (self.horizon + 3,))
        code = code.at[: self.horizon + 3].add(noise)
        return jnp.matmul(self.rotation, code, precision="highest")

    def decode(self, observations: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The hidden states and steps, int32 `(*batch,)`, that observations `(*batch, obs_dim)` show."""
        codes = jnp.matmul(observations, self.rotation, precision="highest") / self.obs_dim
        return jnp.argmax(codes[..., :3], axis=-1), jnp.argmax(codes[..., 3 : self.horizon + 4], axis=-1)


class ImageEmission(struct.PyTreeNode):
    """Observation: a random member of the pool of class `3 * step + hidden state`, a unit vector of width 512.

    The published lock shows CLIP features of CIFAR-100 images (512 wide, normalised). This is a stand-in that needs
    neither: each class is a random unit centre with Gaussian spread, and a pool holds as many vectors per class as
    CIFAR-100 has images, 500 to train with and 100 held out. The spread is set so that a classifier of the policies'
    own form (two layers of 16 tanh) is about as often right as on the published features, 78% and 72% (section 6.2;
    here 80% and 71% at horizon 30): states cannot be decoded exactly, and less well on images not seen before.
    """

    pool: jax.Array  # (3 * (horizon + 1), images, 512)

    @classmethod
    def create(cls, horizon: int, split: str) -> ImageEmission:
        """The emission of a lock of this horizon; `split` is "train" or "heldout"."""
        if not 1 <= horizon <= IMAGE_MAX_HORIZON:
            raise ConfigError(
                f"an image lock of horizon {horizon}; expected 1 to {IMAGE_MAX_HORIZON}: there are 100 classes of "
                "images and a lock needs 3 * (horizon + 1); use the plain lock for longer ones"
            )
        if split not in IMAGE_POOL:
            raise ConfigError(f"no split {split!r} of the images; expected one of {sorted(IMAGE_POOL)}")
        return cls(pool=jnp.stack([_image_class(label)[split] for label in range(3 * (horizon + 1))]))

    @property
    def obs_dim(self) -> int:
        """Width of an observation."""
        return self.pool.shape[-1]

    def emit(self, state: LockState, key: jax.Array) -> jax.Array:
        """An observation `(512,)` of the state."""
        return self.pool[3 * state.steps + state.latent, jax.random.randint(key, (), 0, self.pool.shape[1])]


def _image_class(label: int) -> dict[str, np.ndarray]:
    """The pools of one class, equal in locks of all horizons."""
    rng = np.random.default_rng([label, IMAGE_DIM])
    centre = rng.standard_normal(IMAGE_DIM)
    offsets = rng.standard_normal((sum(IMAGE_POOL.values()), IMAGE_DIM)) * (IMAGE_SPREAD / math.sqrt(IMAGE_DIM))
    images = centre / np.linalg.norm(centre) + offsets
    images = (images / np.linalg.norm(images, axis=-1, keepdims=True)).astype(np.float32)
    return {"train": images[: IMAGE_POOL["train"]], "heldout": images[IMAGE_POOL["train"] :]}


class Lock(struct.PyTreeNode):
    """A combination lock.

    Attributes:
        secret: the right latent action of states 0 and 1 at each step.
        emission: what is seen.
        horizon: steps of an episode, all of which have this length; the last one terminates.
        reward_mode: a right action at the last step, from a good state, pays 1 in all modes. "paper" pays 0.1 with
            probability 1/2 for a step from a good state to the bad one; "hnpg_code" (the released code) for a last step
            that fails, from the bad state too, and nothing before. Failing is worth 0.05 in both.
        discrete: the action is the latent action itself, as in Hy-Q's lock: what a one-hot vector times a large number
            is in the continuous one. All else, the secret and observations among it, is the same. (Hy-Q's code also
            switches the good state at the last step; neither its targets nor anything here looks at that.)
    """

    secret: jax.Array  # int32 (2, horizon)
    emission: RotatedEmission | ImageEmission
    horizon: int = struct.field(pytree_node=False)
    reward_mode: str = struct.field(pytree_node=False, default="paper")
    discrete: bool = struct.field(pytree_node=False, default=False)

    @classmethod
    def create(
        cls,
        horizon: int,
        *,
        seed: int = 0,
        images: str | None = None,
        reward_mode: str = "paper",
        discrete: bool = False,
    ) -> Lock:
        """The lock whose secret is drawn from `seed`: uniform and independent for each state and step.

        Args:
            images: "train" or "heldout" for an image lock; None for the rotated code. Locks of one seed and horizon
                share their secret, whatever they show.

        Raises:
            ConfigError: a horizon below 1 or, with images, above 32; an unknown split or reward mode.
        """
        if horizon < 1:
            raise ConfigError(f"a lock of horizon {horizon}; expected at least 1")
        if reward_mode not in REWARD_MODES:
            raise ConfigError(f"no reward_mode {reward_mode!r}; expected one of {REWARD_MODES}")
        secret = np.random.default_rng([seed, horizon]).integers(0, NUM_ACTIONS, (2, horizon))
        emission = RotatedEmission.create(horizon) if images is None else ImageEmission.create(horizon, images)
        return cls(jnp.asarray(secret, jnp.int32), emission, horizon, reward_mode, discrete)

    @property
    def obs_dim(self) -> int:
        """Width of an observation."""
        return self.emission.obs_dim

    @property
    def actions(self) -> Continuous | Discrete:
        """Ten logits, divided by the temperature 0.1, or one of ten choices.

        The nominal box is [-1, 1]; published data stay in its part [0, 1].
        """
        return Discrete(NUM_ACTIONS) if self.discrete else Continuous(NUM_ACTIONS)

    def reset(self, key: jax.Array) -> tuple[LockState, jax.Array]:
        """State 0 or 1, with equal probability."""
        latent_key, emission_key = jax.random.split(key)
        latent = jax.random.bernoulli(latent_key).astype(jnp.int32)
        state = LockState(latent=latent, steps=jnp.int32(0))
        return state, self.emission.emit(state, emission_key)

    def step(self, state: LockState, action: jax.Array, key: jax.Array) -> StepResult:
        """One choice; see `apply` for what follows from it."""
        choice_key, luck_key, emission_key = jax.random.split(key, 3)
        latent_action = action if self.discrete else _softmax_choice(action / ACTION_TEMPERATURE, choice_key)
        state, reward, terminated = self.apply(state, latent_action, jax.random.uniform(luck_key, (2,)) < 0.5)
        return state, self.emission.emit(state, emission_key), reward, terminated, jnp.bool_(False)

    def apply(
        self, state: LockState, latent_action: jax.Array, luck: jax.Array
    ) -> tuple[LockState, jax.Array, jax.Array]:
        """The next state, the reward and whether the episode ends, given the two coins `luck`, bool `(2,)`.

        The first is the next good state, the second says whether a failure is paid. The last step keeps its good state.
        """
        last = state.steps == self.horizon - 1
        good = state.latent != BAD
        right = good & (latent_action == self.right_action(state))
        latent = jnp.where(right, jnp.where(last, state.latent, luck[0].astype(jnp.int32)), BAD)
        misled = good & ~right if self.reward_mode == "paper" else last & ~right
        reward = jnp.where(right & last, 1.0, jnp.where(misled & luck[1], CONSOLATION, 0.0))
        return LockState(latent=latent, steps=state.steps + 1), reward.astype(jnp.float32), last

    def solved(self, reward: jax.Array, terminated: jax.Array) -> jax.Array:
        """The lock opened: only that pays 1."""
        return reward == 1.0

    def right_action(self, state: LockState) -> jax.Array:
        """The latent action that goes on from a good state, int32 `()`; of the bad state, that of state 1 (unused)."""
        return self.secret[jnp.minimum(state.latent, 1), jnp.minimum(state.steps, self.horizon - 1)]

    def optimal_action(self, state: LockState) -> jax.Array:
        """The one-hot vector of the right latent action, or that action itself in a discrete lock."""
        return self._as_action(self.right_action(state))

    def success_probability(self, margin: float = 1.0) -> float:
        """Chance that the lock opens if the right entry of every action exceeds the nine others by `margin`.

        It is `p ** horizon`, `p = exp(margin / 0.1) / (exp(margin / 0.1) + 9)`; 1 in a discrete lock.
        """
        return 1.0 if self.discrete else _right_probability(margin) ** self.horizon

    def optimal_return(self, margin: float = 1.0) -> float:
        """Expected return of such a policy: 1 if it opens the lock, 0.05 on average if not."""
        probability = self.success_probability(margin)
        return probability + 0.5 * CONSOLATION * (1.0 - probability)

    def _as_action(self, latent_action: jax.Array) -> jax.Array:
        return latent_action if self.discrete else jax.nn.one_hot(latent_action, NUM_ACTIONS)


class LockData(struct.PyTreeNode):
    """Offline transitions by step: row `h` of every leaf holds `num` transitions of step `h`."""

    observations: jax.Array  # (horizon, num, obs_dim)
    actions: jax.Array  # (horizon, num, 10), or (horizon, num) if discrete
    rewards: jax.Array  # (horizon, num)
    next_observations: jax.Array  # (horizon, num, obs_dim); column i of step h + 1 goes on from column i of step h
    latents: jax.Array  # int32 (horizon + 1, num), the hidden states, for diagnosis


@functools.partial(jax.jit, static_argnames=("num", "explore", "force_middle"))
def offline_data(
    lock: Lock,
    key: jax.Array,
    num: int,
    *,
    explore: str = "uniform",
    force_middle: bool = False,
    epsilon: float | jax.Array | None = None,
) -> LockData:
    """`num` trajectories of the published behaviour: right in the true state, but for a share of random steps.

    Args:
        explore: "uniform" (released code): a random step plays a vector uniform in [0, 1]^10, which hits the right
            latent action one time in ten. "wrong" (what the paper's stated 32-36% of optimal trajectories imply): it
            also has -1 at the right entry, and misses. In a discrete lock: a uniform choice, or one of the nine others.
        epsilon: the share of random steps; `1 / horizon` if None, as published.
        force_middle: a random step at `horizon // 2` in every trajectory, as in Hy-Q's "optimal trajectory" data.

    Returns:
        Data by step, equally many for each; `offline_success_rate` is the expected share that opens the lock.
    """
    if explore not in ("uniform", "wrong"):
        raise ConfigError(f"explore={explore!r}; expected 'uniform' or 'wrong'")
    rate = 1.0 / lock.horizon if epsilon is None else epsilon

    def step(carry: tuple[LockState, jax.Array], key: jax.Array) -> tuple[Any, tuple[jax.Array, ...]]:
        state, observation = carry
        coin_key, random_key, step_key = jax.random.split(key, 3)
        random = jax.random.bernoulli(coin_key, rate)
        if force_middle:
            random = random | (state.steps == lock.horizon // 2)
        action = jnp.where(random, _random_action(lock, state, random_key, explore), lock.optimal_action(state))
        following, next_observation, reward, _, _ = lock.step(state, action, step_key)
        return (following, next_observation), (observation, action, reward, next_observation, state.latent)

    def trajectory(key: jax.Array) -> tuple[jax.Array, ...]:
        reset_key, steps_key = jax.random.split(key)
        (last, _), rows = jax.lax.scan(step, lock.reset(reset_key), jax.random.split(steps_key, lock.horizon))
        return *rows[:-1], jnp.append(rows[-1], last.latent)

    return LockData(*jax.vmap(trajectory, out_axes=1)(jax.random.split(key, num)))


@functools.partial(jax.jit, static_argnames=("num",))
def occupancy_data(lock: Lock, key: jax.Array, num: int) -> LockData:
    """Hy-Q's "optimal occupancy": `num` transitions by step, a random action after right ones up to that step.

    At each step a copy of an optimal trajectory takes one uniform action, is recorded and forgotten. So each row has
    the published law; rows of different steps do not form trajectories; `latents` ends with the last step's results.
    """

    def step(carry: tuple[LockState, jax.Array], key: jax.Array) -> tuple[Any, tuple[jax.Array, ...]]:
        state, observation = carry
        random_key, branch_key, step_key = jax.random.split(key, 3)
        action = _random_action(lock, state, random_key, "uniform")
        aside, next_observation, reward, _, _ = lock.step(state, action, branch_key)
        on, seen, _, _, _ = lock.step(state, lock.optimal_action(state), step_key)
        return (on, seen), (observation, action, reward, next_observation, state.latent, aside.latent)

    def trajectory(key: jax.Array) -> tuple[jax.Array, ...]:
        reset_key, steps_key = jax.random.split(key)
        _, rows = jax.lax.scan(step, lock.reset(reset_key), jax.random.split(steps_key, lock.horizon))
        return *rows[:4], jnp.append(rows[4], rows[5][-1])

    return LockData(*jax.vmap(trajectory, out_axes=1)(jax.random.split(key, num)))


def offline_success_rate(lock: Lock, *, explore: str = "uniform") -> float:
    """The share of trajectories of `offline_data` that open the lock, in closed form."""
    epsilon = 1.0 / lock.horizon
    right = 1.0 if lock.discrete else _right_probability(1.0)
    return ((1.0 - epsilon) * right + (epsilon / NUM_ACTIONS if explore == "uniform" else 0.0)) ** lock.horizon


def _right_probability(margin: float) -> float:
    return 1.0 / (1.0 + (NUM_ACTIONS - 1) * math.exp(-margin / ACTION_TEMPERATURE))


def _softmax_choice(logits: jax.Array, key: jax.Array) -> jax.Array:
    """An index drawn from `softmax(logits)`, int32 `()`, at the cost of one random number."""
    lower = jnp.tril(jnp.ones((NUM_ACTIONS, NUM_ACTIONS)))  # XLA's cumsum is several times slower in a batch
    cumulative = jnp.matmul(lower, jnp.exp(logits - logits.max()), precision="highest")
    # The largest number below 1 keeps the threshold below the total, so the index stays in range.
    threshold = jax.random.uniform(key) * cumulative[-1] * (1.0 - 2.0**-23)
    return jnp.sum(cumulative <= threshold).astype(jnp.int32)


def _random_action(lock: Lock, state: LockState, key: jax.Array, explore: str) -> jax.Array:
    right = lock.right_action(state)
    if lock.discrete:
        if explore == "wrong":
            return (right + jax.random.randint(key, (), 1, NUM_ACTIONS)) % NUM_ACTIONS
        return jax.random.randint(key, (), 0, NUM_ACTIONS)
    action = jax.random.uniform(key, (NUM_ACTIONS,))
    return action.at[right].set(-1.0) if explore == "wrong" else action
