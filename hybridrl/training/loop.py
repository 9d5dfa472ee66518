"""The loop that runs every schedule of phases, evaluates, logs, and can stop and go on anywhere."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from hybridrl.checkpoint import Checkpoints
from hybridrl.datasets.dataset import Dataset
from hybridrl.errors import ConfigError, DivergenceError
from hybridrl.logger import RunLogger, read_lines
from hybridrl.policies import UniformPolicy
from hybridrl.replay import ReplayBuffer, UniformSampler
from hybridrl.task import Task
from hybridrl.training.evaluation import evaluate
from hybridrl.training.offline import train_steps
from hybridrl.training.online import (
    EpisodeRecorder,
    act,
    chunks,
    example_transition,
    insert,
    insert_and_update,
    transition_row,
)
from hybridrl.training.panel import value_diagnostics
from hybridrl.training.phases import Phase, check_phases
from hybridrl.training.switch import carry_over
from hybridrl.types import Agent, FitsObservations, Transitions


@dataclasses.dataclass(frozen=True)
class LoopSettings:
    """How a run is carried out; what it learns is in its phases.

    Attributes:
        discount: of the Monte-Carlo returns stored with the data; the agents' own.
        replay_capacity: rows of the replay buffer.
        log_every: updates or environment steps per line of metrics.
        checkpoint_every: updates or environment steps per checkpoint. Environments are rebuilt at each, also in runs
            that are never interrupted, so that no simulator state has to be stored.
        eval_episodes: episodes per evaluation; of each goal, where the task has several.
        eval_envs: how many of them run in step.
        probe_rows: rows of the fixed offline batch, and of the newest finished online steps, for the switch panel.
    """

    discount: float = 0.99
    replay_capacity: int = 2_000_000
    log_every: int = 1_000
    checkpoint_every: int = 10_000
    eval_episodes: int = 20
    eval_envs: int = 20
    probe_rows: int = 1_024

    def __post_init__(self) -> None:
        """Reject settings that cannot work."""
        for field in ("replay_capacity", "log_every", "checkpoint_every", "eval_episodes", "eval_envs", "probe_rows"):
            if getattr(self, field) < 1:
                raise ConfigError(f"{field}={getattr(self, field)}; expected at least 1")
        if self.checkpoint_every % self.log_every:
            raise ConfigError(
                f"checkpoint_every={self.checkpoint_every} is no multiple of log_every={self.log_every}; make it one, "
                "so that no line of metrics spans a checkpoint"
            )


class Watcher(Protocol):
    """Told what a run does, and asked whether it should stop."""

    def progress(self, phase: Phase, done: int, rate: float) -> None:
        """`done` of `phase.length` updates or steps, at `rate` per second."""
        ...

    def evaluated(self, record: dict[str, Any]) -> None:
        """A new evaluation."""
        ...

    def should_stop(self) -> bool:
        """Whether to save what can be saved and stop now."""
        ...


class Stopped(Exception):
    """The watcher asked the run to stop; the same command resumes it."""


@dataclasses.dataclass
class Progress:
    """Where a run is; stored with each checkpoint."""

    phase: int = 0  # index of the current phase
    done: int = 0  # updates or environment steps done in it
    step: int = 0  # offline updates and environment steps in all: the x axis of the logs
    env_steps: int = 0
    updates: int = 0  # agent updates in all
    online_updates: int = 0  # of them, made with environment steps
    episodes: int = 0
    buffer_rows: int = 0
    probe_rows: int = 0


class Loop:
    """Runs `phases` on a task, in a folder, from wherever the folder's newest checkpoint left off.

    Randomness is a function of the seed, the phase and the step, never of how often the run was interrupted, so a
    resumed run equals an uninterrupted one bit for bit (on one machine's CPU).

    Args:
        phases: what to do.
        task: on what.
        dataset: offline data; may be None if no phase needs any.
        make_env: builds the task's environment for a seed; evaluation happens there.
        folder: for checkpoints and logs.
        seed: of everything random.
        make_simulator: builds the environment that online phases interact with, where it is not the evaluated one.
    """

    def __init__(
        self,
        phases: tuple[Phase, ...],
        task: Task,
        dataset: Dataset | None,
        make_env: Callable[[int], Any],
        folder: Path,
        seed: int,
        settings: LoopSettings,
        watcher: Watcher,
        make_simulator: Callable[[int], Any] | None = None,
    ) -> None:
        needing = [phase.name for phase in phases if phase.needs_dataset]
        if dataset is None and needing:
            raise ConfigError(
                f"phase {needing[0]!r} trains on offline data and task {task.name!r} has none; choose another task"
            )
        self.phases, self.task, self.settings, self.watcher = phases, task, settings, watcher
        self._make_training_env = make_simulator or make_env
        self._folder, self._seed = folder, seed
        self._key = jax.random.key(seed)
        self._eval_envs = [make_env(0) for _ in range(settings.eval_envs)]
        space = self._eval_envs[0]
        self._example = example_transition(space.observation_space.shape[0], space.action_space.shape[0])
        if dataset is not None:
            self._check_shapes(dataset.example)
        check_phases(phases, self._example)
        appended = dataset if any(phase.start_buffer == "offline" for phase in phases) else None
        if appended is not None and settings.replay_capacity < appended.num_rows:
            raise ConfigError(
                f"replay_capacity={settings.replay_capacity} is less than the dataset's {appended.num_rows} rows, "
                "which are to go into the replay buffer; raise it"
            )
        self._offline = None if dataset is None else UniformSampler(dataset.transitions)
        self._lookaheads = [phase.lookahead(settings.discount) for phase in phases]
        self._samplers = [
            None if dataset is None else phase.dataset_sampler(dataset, settings.discount) for phase in phases
        ]
        self._offline_probe = self._draw_probe(dataset)
        self.checkpoints = Checkpoints(folder / "checkpoints")
        self.progress = Progress()
        self.agent: Agent = self._new_agent(0)
        self.buffer = ReplayBuffer.create(self._example, 1)
        self.online_probe = ReplayBuffer.create(self._example, settings.probe_rows)
        self.logger = self._resume()

    def run(self) -> Agent:
        """Do what is left to do, and return the final agent."""
        try:
            while self.progress.phase < len(self.phases):
                self._enter_phase()
                phase = self.phases[self.progress.phase]
                while self.progress.done < phase.length:
                    if self.watcher.should_stop():
                        raise Stopped
                    end = min(_next_multiple(self.progress.done, self.settings.checkpoint_every), phase.length)
                    if phase.offline:
                        self._train_offline(phase, end)
                    else:
                        self._interact(phase, end)
                    if self.progress.done == phase.length:
                        self.progress.phase += 1
                        self.progress.done = 0
                    self._save()
                    if self.progress.done == 0:
                        break
        finally:
            self.logger.close()
            for env in self._eval_envs:
                env.close()
        return self.agent

    def evaluations(self) -> list[dict[str, Any]]:
        """All evaluations so far."""
        return read_lines(self._folder / "evaluations.jsonl")

    # Phases

    def _enter_phase(self) -> None:
        """Hand over to the phase's agent and buffer, if it begins now."""
        index, phase = self.progress.phase, self.phases[self.progress.phase]
        if self.progress.done > 0:
            return
        if index > 0 and phase.learner != self.phases[index - 1].learner:
            self.agent = carry_over(self.agent, self._new_agent(index))
        if not phase.offline and self._first_interaction(index):
            self.buffer = ReplayBuffer.create(self._example, self._capacity())
        if phase.start_buffer == "offline":
            assert self._offline is not None, "checked at the start"
            self.buffer = self.buffer.insert(self._offline.transitions)
            rows = self.progress.buffer_rows + len(self._offline.transitions.rewards)
            self.progress.buffer_rows = min(rows, self.buffer.capacity)

    def _train_offline(self, phase: Phase, end: int) -> None:
        """Updates until `end`, in compiled calls between the points where something has to be looked at."""
        sampler = phase.sampler(self._samplers[self.progress.phase], None, jnp.int32(0))
        key = jax.random.fold_in(self._phase_key(), 1)
        while self.progress.done < end:
            done = self.progress.done
            stops = [_next_multiple(done, self.settings.log_every), end, *(p for p in phase.evaluate_at if p > done)]
            count = min(stops) - done
            started = time.monotonic()
            self.agent, metrics = train_steps(
                self.agent, sampler, key, done, num_updates=count, batch_size=phase.batch_size
            )
            values = {name: float(value) for name, value in jax.device_get(metrics).items()}
            self._advance(count, updates=count)
            self._log(phase, values, count / (time.monotonic() - started))
            if self.progress.done in phase.evaluate_at:
                self._evaluate(phase, values)
            if self.watcher.should_stop() and self.progress.done < end:
                self._save()
                raise Stopped

    def _interact(self, phase: Phase, end: int) -> None:
        """Environment steps until `end`, in an environment of its own."""
        phase_key = self._phase_key()
        env = self._make_training_env(self._derived_seed("train", self.progress.phase, self.progress.done))
        recorder = EpisodeRecorder(self.settings.discount, self.task.failure_reward)
        policy, carry, observation = self._begin_episode(phase, env)
        pending: list[dict[str, jax.Array]] = []
        latest: dict[str, float] = {}
        piece = min(self.settings.probe_rows, self.buffer.capacity, self.task.horizon)
        started, since = time.monotonic(), self.progress.done
        try:
            while self.progress.done < end:
                act_key, update_key = _step_keys(phase_key, self.progress.done)
                if phase.actions == "policy":
                    policy = self.agent.policy(deterministic=False)
                actions, carry = act(policy, carry, observation[None], act_key)
                action = np.asarray(actions)[0]
                next_observation, reward, terminated, truncated, _ = env.step(action)
                action, _, _ = self.task.transform(action, 0.0, False, False)
                row = transition_row(observation, action, reward, terminated, next_observation)
                recorder.add(row)
                stored = [(row, 1)] if phase.insert == "step" else []
                self._advance(1, env_steps=1)
                # A checkpoint ends the episode, since the environment is rebuilt there.
                if terminated or truncated or self.progress.done == end:
                    episode = recorder.finish()
                    self.progress.episodes += 1
                    for part, count in chunks(episode, piece):
                        self.online_probe = insert(self.online_probe, part, jnp.int32(count))
                        stored += [(part, count)] if phase.insert == "episode" else []
                    self.progress.probe_rows = min(
                        self.progress.probe_rows + len(episode.rewards), self.online_probe.capacity
                    )
                    if self.progress.done < end:
                        policy, carry, observation = self._begin_episode(phase, env)
                else:
                    observation = next_observation
                metrics = self._learn(phase, stored, update_key)
                if metrics is not None:
                    pending.append(metrics)
                done = self.progress.done
                evaluating = done in phase.evaluate_at
                if done % self.settings.log_every == 0 or done == end or evaluating:
                    latest = _average(pending) or latest
                    rate = (done - since) / (time.monotonic() - started)
                    if pending:
                        self._log(phase, latest, rate)
                        pending = []
                    else:
                        self.watcher.progress(phase, done, rate)
                    if evaluating:
                        self._evaluate(phase, latest)
                    started, since = time.monotonic(), done
                    if self.watcher.should_stop() and done < end:
                        raise Stopped
        finally:
            env.close()

    def _learn(
        self, phase: Phase, stored: list[tuple[Transitions, int]], key: jax.Array
    ) -> dict[str, jax.Array] | None:
        """Store new rows and, once there are enough and if this step updates, make the phase's updates."""
        rows = self.progress.buffer_rows + sum(count for _, count in stored)
        self.progress.buffer_rows = min(rows, self.buffer.capacity)
        round_number, since_round = divmod(self.progress.done, phase.update_every)
        updating = phase.updates_per_step > 0 and since_round == 0 and self.progress.buffer_rows >= phase.min_buffer
        for part, count in stored[:-1] if updating else stored:
            self.buffer = insert(self.buffer, part, jnp.int32(count))
        if not updating:
            return None
        part, count = stored[-1] if stored else (self._example, 0)
        index = self.progress.phase
        offline, ahead = self._samplers[index], self._lookaheads[index]
        first = jnp.int32((round_number - 1) * phase.updates_per_step)
        self.agent, self.buffer, metrics = insert_and_update(
            self.agent, self.buffer, offline, part, jnp.int32(count), key, first, phase=phase, lookahead=ahead
        )
        self.progress.updates += phase.updates_per_step
        self.progress.online_updates += phase.updates_per_step
        return metrics

    def _begin_episode(self, phase: Phase, env: Any) -> tuple[Any, Any, np.ndarray]:
        observation, _ = env.reset()
        if phase.actions == "uniform":
            policy: Any = UniformPolicy(action_dim=self._example.actions.shape[-1])
        else:
            policy = self.agent.policy(deterministic=False)
        return policy, policy.begin(None), observation

    # Looking at it

    def _evaluate(self, phase: Phase, metrics: dict[str, float]) -> None:
        key = jax.random.fold_in(self._phase_key(), 3)
        acting_key, panel_key = jax.random.split(jax.random.fold_in(key, self.progress.done))
        seed = self._derived_seed("evaluate", self.progress.phase, self.progress.done)
        policy = self.agent.policy(deterministic=True)
        episodes = evaluate(policy, self._eval_envs, self.task, self.settings.eval_episodes, acting_key, seed)
        record = {
            "step": self.progress.step,
            "phase": phase.name,
            "phase_step": self.progress.done,
            "env_steps": self.progress.env_steps,
            "updates": self.progress.updates,
            "online_updates": self.progress.online_updates,
            "summary": episodes.summary(),
            "panel": self._panel(phase, metrics, panel_key),
            "episodes": episodes.records(),
        }
        self.logger.evaluation(record)
        self.watcher.evaluated(record)

    def _panel(self, phase: Phase, metrics: dict[str, float], key: jax.Array) -> dict[str, float]:
        """The switch panel's figures now; those that do not exist yet are left out."""
        batches: dict[str, Any] = {}
        if self._offline_probe is not None:
            batches["offline"] = self._offline_probe
        if self.progress.probe_rows == self.online_probe.capacity:
            batches["online"] = self.online_probe.storage
        panel = {"offline_share": self._offline_share(phase)}
        for source, batch in batches.items():
            found = jax.device_get(value_diagnostics(self.agent, batch, key))
            panel |= {f"{source}_{name}": float(value) for name, value in found.items()}
        return panel | {name.replace("/", "_"): value for name, value in metrics.items() if name.endswith("grad_norm")}

    def _offline_share(self, phase: Phase) -> float:
        """Expected share of offline rows in a training batch of this phase."""
        if phase.offline:
            return 1.0
        begun = self.phases[: self.progress.phase + 1]
        inserted = 0
        if appending := [index for index, p in enumerate(begun) if p.start_buffer == "offline"]:
            assert self._offline is not None
            newer = sum(p.env_steps for p in begun[appending[-1] : -1]) + self.progress.done
            # A full ring overwrites the oldest rows first, which are the dataset's.
            inserted = min(len(self._offline.transitions.rewards), max(self.buffer.capacity - newer, 0))
        in_buffer = inserted / max(self.progress.buffer_rows, 1)
        if phase.batches == "blocks" and phase.block_source != "mixed":
            return self._offline_block_share(phase)
        mixed = int(phase.batch_size * phase.offline_ratio) / phase.batch_size
        return mixed + (1.0 - mixed) * in_buffer

    def _offline_block_share(self, phase: Phase) -> float:
        """Expected share of offline blocks, where every block has a single source."""
        assert self._offline is not None, "checked at the start"
        rows = len(self._offline.transitions.rewards)
        if self.progress.buffer_rows < phase.batch_size:
            return 1.0
        return {
            "coin": phase.offline_ratio,
            "alternate": 0.5,
            "proportional": rows / (rows + self.progress.buffer_rows),
        }[phase.block_source]

    def _log(self, phase: Phase, values: dict[str, float], rate: float) -> None:
        broken = sorted(name for name, value in values.items() if not np.isfinite(value))
        if broken:
            raise DivergenceError(
                f"{broken[0]} is {values[broken[0]]} in phase {phase.name!r} at step {self.progress.done} "
                f"({len(broken)} such metrics); the last checkpoint is kept; lower a learning rate or look at the "
                "metrics before this step"
            )
        self.logger.metrics(self.progress.step, phase.name, values)
        self.logger.timing(self.progress.step, phase.name, {"per_second": rate})
        self.watcher.progress(phase, self.progress.done, rate)

    # Coming back

    def _save(self) -> None:
        state = {
            "agent": self.agent,
            "buffer": _used_rows(self.buffer, self.progress.buffer_rows),
            "probe": self.online_probe,
        }
        positions = self.logger.positions()
        progress = dataclasses.asdict(self.progress)
        progress |= {"positions": positions, "learner": self._learner_index(), "capacity": self.buffer.capacity}
        self.checkpoints.save(self.progress.step, state, progress)

    def _resume(self) -> RunLogger:
        """Take up the newest checkpoint, if there is one."""
        steps = self.checkpoints.steps()
        if not steps:
            return RunLogger(self._folder)
        stored = self.checkpoints.progress(steps[-1])
        positions, learner, capacity = stored.pop("positions"), stored.pop("learner"), stored.pop("capacity")
        self.progress = Progress(**stored)
        rows = self.progress.buffer_rows
        template = {
            "agent": self._new_agent(learner),
            "buffer": _used_rows(ReplayBuffer.create(self._example, capacity), rows),
            "probe": self.online_probe,
        }
        state = self.checkpoints.restore(steps[-1], template)
        self.agent, self.online_probe = state["agent"], state["probe"]
        self.buffer = _with_capacity(state["buffer"], capacity)
        return RunLogger(self._folder, positions, self.progress.step)

    # Small things

    def _advance(self, count: int, *, updates: int = 0, env_steps: int = 0) -> None:
        self.progress.done += count
        self.progress.step += count
        self.progress.updates += updates
        self.progress.env_steps += env_steps

    def _phase_key(self) -> jax.Array:
        return jax.random.fold_in(self._key, self.progress.phase)

    def _new_agent(self, phase: int) -> Agent:
        key = jax.random.fold_in(jax.random.fold_in(self._key, phase), 0)
        agent = self.phases[phase].learner.create(key, self._example)
        if isinstance(agent, FitsObservations):
            agent = agent.fit_observations(None if self._offline is None else self._offline.transitions.observations)
        return agent

    def _learner_index(self) -> int:
        """The phase whose learner the current agent is."""
        at_start = self.progress.done == 0 and self.progress.phase > 0
        return self.progress.phase - 1 if at_start else self.progress.phase

    def _first_interaction(self, index: int) -> bool:
        return all(phase.offline for phase in self.phases[:index])

    def _capacity(self) -> int:
        """The replay capacity, or less if the run cannot fill it."""
        rows = sum(phase.env_steps for phase in self.phases)
        if any(phase.start_buffer == "offline" for phase in self.phases):
            assert self._offline is not None, "checked at the start"
            rows += len(self._offline.transitions.rewards)
        return min(self.settings.replay_capacity, rows)

    def _derived_seed(self, purpose: str, *numbers: int) -> int:
        """A 31-bit seed for NumPy-seeded environments, different for every purpose and number."""
        entropy = [self._seed, *purpose.encode(), *numbers]
        return int(np.random.SeedSequence(entropy).generate_state(1)[0] >> 1)

    def _draw_probe(self, dataset: Dataset | None) -> Any:
        """Fixed offline rows for the switch panel, as the agent's `diagnose` takes them."""
        if dataset is None:
            return None
        if self.phases[0].goals is not None:
            sampler = self.phases[0].goals.sampler(dataset)
            return sampler.sample(jax.random.fold_in(self._key, 7), self.settings.probe_rows)
        rng = np.random.default_rng([self._seed, 7])
        rows = rng.integers(0, dataset.num_rows, self.settings.probe_rows)
        return jax.tree.map(lambda field: field[rows], dataset.transitions)

    def _check_shapes(self, example: Transitions) -> None:
        for field in ("observations", "actions"):
            given, expected = getattr(example, field).shape[1:], getattr(self._example, field).shape[1:]
            if given != expected:
                raise ConfigError(
                    f"task {self.task.name!r}: the dataset's {field} have shape {given} and the environment's "
                    f"{expected}; they must agree; check the task's observation_keys and dataset"
                )


def _next_multiple(value: int, step: int) -> int:
    return (value // step + 1) * step


@jax.jit
def _step_keys(phase_key: jax.Array, step: int) -> tuple[jax.Array, jax.Array]:
    act_key, update_key = jax.random.split(jax.random.fold_in(jax.random.fold_in(phase_key, 2), step))
    return act_key, update_key


def _average(pending: list[dict[str, jax.Array]]) -> dict[str, float]:
    host = jax.device_get(pending)
    return {name: float(np.mean([metrics[name] for metrics in host])) for name in (host[0] if host else {})}


def _used_rows(buffer: ReplayBuffer, rows: int) -> ReplayBuffer:
    return buffer.replace(storage=jax.tree.map(lambda field: field[: max(rows, 1)], buffer.storage))


def _with_capacity(buffer: ReplayBuffer, capacity: int) -> ReplayBuffer:
    def grow(field: jax.Array) -> jax.Array:
        missing = capacity - len(field)
        return jnp.concatenate([field, jnp.zeros((missing, *field.shape[1:]), field.dtype)])

    return buffer.replace(storage=jax.tree.map(grow, buffer.storage))
