"""Updates per second of agents, as a share of the machine's matrix-multiplication rate: `python benchmarks/updates.py`.

The floor of an update is the time its matrix multiplications alone take at the machine's best rate for large ones,
float32. Windows of multiplications and of updates take turns, so that both see the same load, and rates are per second
of processor time as well as of wall-clock time: on a machine that others use too, read the former. Updates are those of
training, with sampling, in one compiled call per window; compilation is not counted.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from algorithms import HIQLAgent, HIQLConfig, OTAAgent, OTAConfig
from hybridrl.datasets import Dataset
from hybridrl.training.offline import train_steps
from hybridrl.types import Transitions

BATCH = 1_024
OBS_DIM, ACTION_DIM = 29, 8  # of AntMaze
EPISODES, LENGTH = 100, 1_000
MATRIX = 2_048


def dataset() -> Dataset:
    """Random numbers in the shape of a dataset."""
    rng = np.random.default_rng(0)
    rows = EPISODES * LENGTH

    def normal(*shape: int) -> jax.Array:
        return jnp.asarray(rng.standard_normal(shape, np.float32))

    return Dataset(
        transitions=Transitions(
            observations=normal(rows, OBS_DIM),
            actions=jnp.clip(normal(rows, ACTION_DIM), -0.999, 0.999),
            rewards=jnp.zeros(rows),
            masks=jnp.ones(rows),
            next_observations=normal(rows, OBS_DIM),
            mc_returns=jnp.zeros(rows),
        ),
        truncations=jnp.zeros(rows),
        episode_starts=jnp.arange(EPISODES, dtype=jnp.int32) * LENGTH,
        episode_lengths=jnp.full(EPISODES, LENGTH, jnp.int32),
    )


def forward(*widths: int) -> float:
    """Floating-point operations of a perceptron's multiplications on one batch."""
    return 2.0 * BATCH * sum(before * after for before, after in itertools.pairwise(widths))


def hiql_operations(config: HIQLConfig, *, values: int = 1) -> float:
    """The fewest multiplications that an update of HIQL needs; with `values=2` OTA's.

    A trained network costs three forward passes, less what its inputs' gradient would cost where they are data. What
    the losses ask for twice, such as the representation of the same pair, is counted once.
    """
    dim = config.representation_dim
    representation = forward(2 * OBS_DIM, *config.value_hidden_dims, dim)
    heads = 2.0 * forward(OBS_DIM + dim, *config.value_hidden_dims, 1)
    low = forward(OBS_DIM + dim, *config.actor_hidden_dims, ACTION_DIM)
    high = forward(2 * OBS_DIM, *config.actor_hidden_dims, dim)
    first_value, first_actor = config.value_hidden_dims[0], config.actor_hidden_dims[0]
    # Targets at both states; the trained value, whose gradient goes on into the representation alone.
    regression = 2 * heads + representation + 3 * (heads + representation)
    regression -= forward(2 * OBS_DIM, first_value) + 2 * forward(OBS_DIM, first_value)
    gains = 4 * (heads + representation)  # two states of each level
    named = representation  # what the high level is to name
    actors = 3 * (low + high) - forward(OBS_DIM + dim, first_actor) - forward(2 * OBS_DIM, first_actor)
    return values * regression + gains + named + actors


def cases() -> dict[str, tuple[Any, Any, float]]:
    """Name -> agent, sampler, operations per update."""
    data, hiql, ota = dataset(), HIQLConfig(), OTAConfig()
    key, example = jax.random.key(0), jax.tree.map(lambda leaf: leaf[:1], data.transitions)
    return {
        "hiql": (HIQLAgent.create(key, example, hiql), hiql.goals().sampler(data), hiql_operations(hiql)),
        "ota": (OTAAgent.create(key, example, ota), ota.goals().sampler(data), hiql_operations(ota.hiql, values=2)),
    }


def timed(work: Callable[[], Any]) -> tuple[float, float]:
    """Seconds of wall clock and of processor time."""
    wall, processor = time.perf_counter(), time.process_time()
    jax.block_until_ready(work())
    return time.perf_counter() - wall, time.process_time() - processor


def measure(name: str, rounds: int, updates: int) -> str:
    """A row of the table, from the medians over `rounds` windows of `updates` updates and as much multiplication."""
    agent, sampler, operations = cases()[name]
    matrix = jnp.asarray(np.random.default_rng(0).standard_normal((MATRIX, MATRIX), np.float32))
    multiply = jax.jit(lambda left: left @ left)
    products = max(1, round(updates * operations / (2.0 * MATRIX**3)))
    done = 0

    def update() -> Any:
        nonlocal agent, done
        agent, metrics = train_steps(agent, sampler, jax.random.key(1), done, num_updates=updates, batch_size=BATCH)
        done += updates
        return metrics

    works = {"floor": lambda: [multiply(matrix) for _ in range(products)], "updates": update}
    for work in works.values():
        timed(work)
    seconds: dict[str, list[tuple[float, float]]] = {kind: [] for kind in works}
    for _ in range(rounds):
        for kind, work in works.items():
            seconds[kind].append(timed(work))
    amounts = {"floor": products * 2.0 * MATRIX**3, "updates": updates * operations}
    # Operations per second, of wall clock and of processor time.
    rates = {
        kind: [amounts[kind] / statistics.median(column) for column in zip(*values, strict=True)]
        for kind, values in seconds.items()
    }
    wall, processor = (rate / operations for rate in rates["updates"])
    shares = [ours / floor for ours, floor in zip(rates["updates"], rates["floor"], strict=True)]
    return (
        f"| {name} | {operations / 1e9:.1f} | {rates['floor'][1] / 1e9:.0f} | {wall:.2f} | {processor:.2f} | "
        f"{shares[0]:.2f} | {shares[1]:.2f} |"
    )


def main() -> None:
    """Print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=["hiql", "ota"], help="agents; all of them by default")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--updates", type=int, default=10, help="per window")
    options = parser.parse_args()
    load = f"load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "load unknown"
    print(f"{jax.devices()[0].device_kind}, {os.cpu_count()} cores, {load}\n")
    print(
        "| Agent | GFLOP per update | floor, GFLOP per processor second | updates/s | updates per processor second | "
        "share of the floor, wall clock | share, processor time |\n|---|---|---|---|---|---|---|"
    )
    for name in options.names:
        print(measure(name, options.rounds, options.updates), flush=True)


if __name__ == "__main__":
    main()
