"""Steps per second of the environments that run on the device: `python benchmarks/environments.py`.

For each environment, the best of several calls of `rollout`, with a policy that costs nothing (constant actions) and
with one that draws uniform actions; compilation is not counted. Run it on an idle machine and say which.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp

from envs.functional import Continuous, Environment, rollout
from envs.lock import Lock
from envs.probe import PROBES
from envs.tetris import Tetris
from envs.theory import deep_sea, forest, simplex_linear

NUM_ENVS = 1_024
NUM_STEPS = 200
CALLS = 6

ENVIRONMENTS: dict[str, Callable[[], Environment]] = {
    "probe/reach": lambda: PROBES["probe/reach-v0"],
    "lock, horizon 5": lambda: Lock.create(5),
    "lock, horizon 10": lambda: Lock.create(10),
    "lock, horizon 30": lambda: Lock.create(30),
    "lock, horizon 50": lambda: Lock.create(50),
    "forest": forest,
    "simplex linear": lambda: simplex_linear().tabular,
    "deep sea 10": lambda: deep_sea(10),
    "tetris": Tetris,
}


def steps_per_second(env: Environment, *, uniform: bool) -> float:
    """The best rate of several calls."""
    actions = env.actions

    def policy(states: object, observations: jax.Array, key: jax.Array) -> jax.Array:
        if uniform:
            return actions.sample(key, NUM_ENVS)
        return jnp.zeros((NUM_ENVS, actions.dim)) if isinstance(actions, Continuous) else jnp.zeros(NUM_ENVS, jnp.int32)

    seconds = []
    for seed in range(CALLS + 1):
        begun = time.perf_counter()
        jax.block_until_ready(rollout(env, policy, jax.random.key(seed), num_envs=NUM_ENVS, num_steps=NUM_STEPS))
        seconds.append(time.perf_counter() - begun)
    return NUM_ENVS * NUM_STEPS / min(seconds[1:])


def main() -> None:
    """Print a table in Markdown."""
    load = f"load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "load unknown"
    print(f"{jax.devices()[0].device_kind}, {os.cpu_count()} cores, {load}; millions of steps per second\n")
    print("| Environment | constant actions | uniform actions |\n|---|---|---|")
    for name, create in ENVIRONMENTS.items():
        env = create()
        constant, uniform = (steps_per_second(env, uniform=uniform) / 1e6 for uniform in (False, True))
        print(f"| {name} | {constant:.2f} | {uniform:.2f} |", flush=True)


if __name__ == "__main__":
    main()
