"""The loop that runs every schedule of phases, evaluates, logs, and can stop and go on anywhere."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

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
from hybridrl.training.panel import offline_share, value_diagnostics
from hybridrl.training.phases import Phase, check_phases
from hybridrl.training.progress import LoopSettings, Progress, Stopped, Watcher
from hybridrl.training.rollouts import (
    Collector,
    DeviceCollector,
    EpisodeSplitter,
    HostCollector,
    Outcomes,
    TaskProcess,
    check_segments,
    cut_short,
    outcome_metrics,
    update_on_rollout,
)
from hybridrl.training.switch import carry_over
from hybridrl.types import Agent, FitsObservations, JudgedByReturns, Transitions


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
        self._on_device = task.functional is not None
        self._folder, self._seed = folder, seed
        self._key = jax.random.key(seed)
        self._eval_envs = [make_env(0) for _ in range(settings.eval_envs)]
        space = self._eval_envs[0]
        self._example = example_transition(space.observation_space.shape[0], space.action_space.shape[0])
        if dataset is not None:
            self._check_shapes(dataset.example)
        self._dataset_rows = 0 if dataset is None else dataset.num_rows
        self._longest_episode = 0 if dataset is None else int(dataset.episode_lengths.max())
        check_phases(phases, self._example, self._longest_episode)
        check_segments(phases, task.horizon, settings.checkpoint_every)
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
                    end = self._segment_end(phase)
                    if phase.offline:
                        self._train_offline(phase, end)
                    elif phase.batches == "rollouts":
                        self._roll_out(phase, end)
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
        if self.progress.done == 0 in phase.judge_at:
            self._judge(phase)
        while self.progress.done < end:
            done = self.progress.done
            looks = (*phase.evaluate_at, *phase.judge_at)
            stops = [_next_multiple(done, self.settings.log_every), end, *(p for p in looks if p > done)]
            count = min(stops) - done
            started = time.monotonic()
            self.agent, metrics = train_steps(
                self.agent, sampler, key, done, num_updates=count, batch_size=phase.batch_size
            )
            values = {name: float(value) for name, value in jax.device_get(metrics).items()}
            self._advance(count, updates=count)
            self._log(phase, values, count / (time.monotonic() - started))
            if self.progress.done in phase.judge_at:
                self._judge(phase)
            if self.progress.done in phase.evaluate_at:
                self._evaluate(phase, values)
            if self.watcher.should_stop() and self.progress.done < end:
                self._save()
                raise Stopped

    def _judge(self, phase: Phase) -> None:
        """Let the environment decide between the agent's candidates; what that costs is logged."""
        assert isinstance(self.agent, JudgedByReturns), "the presets see to it"
        key = jax.random.fold_in(jax.random.fold_in(self._phase_key(), 5), self.progress.done)
        seed = self._derived_seed("judge", self.progress.phase, self.progress.done)
        found = [
            evaluate(policy, self._eval_envs, self.task, phase.judge_episodes, key, seed)
            for policy in self.agent.candidates()
        ]
        returns = np.array([episodes.returns.mean() for episodes in found], np.float32)
        self.agent = self.agent.judged(jnp.asarray(returns))
        steps = sum(int(episodes.lengths.sum()) for episodes in found)
        metrics = {"judge/return_mean": float(returns.mean()), "judge/return_max": float(returns.max())}
        self.logger.metrics(self.progress.step, phase.name, metrics | {"judge/env_steps": float(steps)})

    def _interact(self, phase: Phase, end: int) -> None:
        """Environment steps until `end`, in an environment of its own."""
        phase_key = self._phase_key()
        env = self._make_training_env(self._derived_seed("train", self.progress.phase, self.progress.done))
        recorder = EpisodeRecorder(self.settings.discount, self.task.failure_reward)
        policy, carry, observation = self._begin_episode(phase, env)
        piece = min(self.settings.probe_rows, self.buffer.capacity, self.task.horizon)
        window = _Window(self.progress.done)
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
                        self._probe(part, count)
                        stored += [(part, count)] if phase.insert == "episode" else []
                    if self.progress.done < end:
                        policy, carry, observation = self._begin_episode(phase, env)
                else:
                    observation = next_observation
                metrics = self._learn(phase, stored, update_key)
                if metrics is not None:
                    window.pending.append(metrics)
                self._look(phase, window, 1, end)
        finally:
            env.close()

    def _roll_out(self, phase: Phase, end: int) -> None:
        """Rollouts and updates on them until `end`, in environments of their own."""
        index, phase_key = self.progress.phase, self._phase_key()
        splitter = EpisodeSplitter(self.task, self.settings.discount, phase.num_envs)
        collector = self._collector(phase)
        window = _Window(self.progress.done)
        try:
            while self.progress.done < end:
                act_key, update_key = _step_keys(phase_key, self.progress.done)
                collected = collector.collect(self.agent.policy(deterministic=False), act_key)
                finished, outcomes = splitter.add(jax.device_get(collected))
                window.outcomes.append(outcomes)
                self._advance(phase.steps_per_rollout, updates=1, env_steps=phase.steps_per_rollout)
                self.progress.online_updates += 1
                self.progress.episodes += len(outcomes.lengths)
                if finished is not None:
                    newest = jax.tree.map(lambda field: field[-self.online_probe.capacity :], finished)
                    ((part, count),) = chunks(newest, self.online_probe.capacity)
                    self._probe(part, count)
                rollout = collected.rollout
                if self.progress.done == end:  # the environments are rebuilt here, which cuts their episodes
                    rollout = cut_short(rollout)
                self.agent, metrics = update_on_rollout(
                    self.agent, rollout, self._samplers[index], update_key, num_offline=phase.offline_rows
                )
                window.pending.append(metrics)
                self._look(phase, window, phase.steps_per_rollout, end)
        finally:
            collector.close()

    def _collector(self, phase: Phase) -> Collector:
        """New environments for a phase's rollouts."""
        index, done = self.progress.phase, self.progress.done
        if self._on_device:
            key = jax.random.fold_in(jax.random.fold_in(self._phase_key(), 4), done)
            return DeviceCollector(TaskProcess.create(self.task), phase.num_envs, phase.rollout_steps, key)
        seeds = [self._derived_seed("rollouts", index, done, number) for number in range(phase.num_envs)]
        return HostCollector(self._make_training_env, seeds, phase.rollout_steps)

    def _look(self, phase: Phase, window: _Window, steps: int, end: int) -> None:
        """After `steps` more environment steps: log and evaluate where that is due, and stop if asked to."""
        done, every = self.progress.done, self.settings.log_every
        evaluating = done in phase.evaluate_at
        if done // every == (done - steps) // every and done != end and not evaluating:
            return
        rate = (done - window.since) / (time.monotonic() - window.started)
        if window.pending:
            window.latest = _average(window.pending)
            outcomes = outcome_metrics(window.outcomes, self.task.success_key is not None)
            self._log(phase, window.latest | outcomes, rate)
        else:
            self.watcher.progress(phase, done, rate)
        if evaluating:
            self._evaluate(phase, window.latest)
        window.restart(done)
        if self.watcher.should_stop() and done < end:
            raise Stopped

    def _probe(self, rows: Transitions, count: int) -> None:
        """Show the switch panel the first `count` of finished rows."""
        self.online_probe = insert(self.online_probe, rows, jnp.int32(count))
        self.progress.probe_rows = min(self.progress.probe_rows + count, self.online_probe.capacity)

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
        # An agent that keeps data of its own says what its batches hold.
        panel = {"offline_share": metrics.get("batch/offline_share", self._offline_share(phase))}
        for source, batch in batches.items():
            found = jax.device_get(value_diagnostics(self.agent, batch, key))
            panel |= {f"{source}_{name}": float(value) for name, value in found.items()}
        return panel | {name.replace("/", "_"): value for name, value in metrics.items() if name.endswith("grad_norm")}

    def _offline_share(self, phase: Phase) -> float:
        progress, rows, longest = self.progress, self._dataset_rows, self._longest_episode
        before = self.phases[: progress.phase]
        return offline_share(phase, before, progress.done, progress.buffer_rows, self.buffer.capacity, rows, longest)

    def _log(self, phase: Phase, values: dict[str, float], rate: float) -> None:
        broken = sorted(name for name, value in values.items() if not np.isfinite(value))
        if broken:
            raise DivergenceError(
                f"{broken[0]} is {values[broken[0]]} in phase {phase.name!r} at step {self.progress.done} "
                f"({len(broken)} such metrics); the last checkpoint is kept; lower a learning rate or look at the "
                "metrics before this step"
            )
        self.logger.metrics(self.progress.step, phase.name, values)
        speeds = {"per_second": rate, "updates_per_second": rate * phase.updates_per_unit}
        self.logger.timing(self.progress.step, phase.name, speeds)
        self.watcher.progress(phase, self.progress.done, rate)

    # Coming back

    def _save(self) -> None:
        state = {
            "agent": self.agent,
            "buffer": self.buffer.cut_to(self.progress.buffer_rows),
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
            "buffer": ReplayBuffer.create(self._example, capacity).cut_to(rows),
            "probe": self.online_probe,
        }
        state = self.checkpoints.restore(steps[-1], template)
        self.agent, self.online_probe = state["agent"], state["probe"]
        self.buffer = state["buffer"].grown_to(capacity)
        return RunLogger(self._folder, positions, self.progress.step)

    # Small things

    def _advance(self, count: int, *, updates: int = 0, env_steps: int = 0) -> None:
        self.progress.done += count
        self.progress.step += count
        self.progress.updates += updates
        self.progress.env_steps += env_steps

    def _segment_end(self, phase: Phase) -> int:
        """Where the next checkpoint is due: at a multiple of `checkpoint_every`, or as the rollout around it ends."""
        end = _next_multiple(self.progress.done, self.settings.checkpoint_every)
        if phase.batches == "rollouts":
            end = -(-end // phase.steps_per_rollout) * phase.steps_per_rollout
        return min(end, phase.length)

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
        rows = sum(phase.env_steps for phase in self.phases if phase.batches != "rollouts")
        if any(phase.start_buffer == "offline" for phase in self.phases):
            assert self._offline is not None, "checked at the start"
            rows += len(self._offline.transitions.rewards)
        return min(self.settings.replay_capacity, max(rows, 1))

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


class _Window:
    """What happened since the last line of metrics."""

    def __init__(self, done: int) -> None:
        self.latest: dict[str, float] = {}  # the newest line of the updates' metrics
        self.restart(done)

    def restart(self, done: int) -> None:
        """Begin a new line at step `done`."""
        self.pending: list[dict[str, jax.Array]] = []
        self.outcomes: list[Outcomes] = []
        self.started, self.since = time.monotonic(), done


def _next_multiple(value: int, step: int) -> int:
    return (value // step + 1) * step


@jax.jit
def _step_keys(phase_key: jax.Array, step: int) -> tuple[jax.Array, jax.Array]:
    act_key, update_key = jax.random.split(jax.random.fold_in(jax.random.fold_in(phase_key, 2), step))
    return act_key, update_key


def _average(pending: list[dict[str, jax.Array]]) -> dict[str, float]:
    host = jax.device_get(pending)
    return {name: float(np.mean([metrics[name] for metrics in host])) for name in (host[0] if host else {})}
