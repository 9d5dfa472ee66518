"""Uni-O4: published settings per task, and its phases: values, model, clones, offline PPO, online PPO."""

from __future__ import annotations

import dataclasses
from typing import Any

from algorithms import (
    ClonesConfig,
    ImprovementConfig,
    OfflineValuesConfig,
    OnlineConfig,
    PPOAgent,
    PPORun,
    StagesConfig,
    TransitionModelConfig,
    UniO4Agent,
    UniO4Config,
    UniO4Stage,
)
from experiments.presets import Preset
from experiments.presets import families as published
from experiments.presets.scale import PROBE_EVALUATIONS, PROBE_LOOP, shrink
from experiments.schedules import evaluation_points, rollout_phases, rollout_updates
from experiments.settings import LoopConfig, ScheduleConfig
from hybridrl.replay import Bootstrap
from hybridrl.task import Task
from hybridrl.training.phases import Learner, Phase

_WIDE_MODEL: dict[str, Any] = {"model.model_hidden_dims": (400,) * 4, "model.learning_rate": 3e-4}
_SARSA: dict[str, Any] = {"values.kind": "sarsa", "values.num_critics": 1, "improvement.positive_weight": 0.7}
_SMALL_VALUES: dict[str, Any] = {"values.critic_hidden_dims": (256,) * 3, "values.value_hidden_dims": (256,) * 3}
_RAW: dict[str, Any] = {"standardize_observations": False}
_TANH: dict[str, Any] = {"clones.activation": "tanh"}


def _lengths(values: int, clones: int) -> dict[str, Any]:
    return {"stages.value_updates": values, "stages.clone_updates": clones}


def _policy(horizon: int, rate: float) -> dict[str, Any]:
    return {"improvement.horizon": horizon, "improvement.learning_rate": rate}


_KITCHEN = _WIDE_MODEL | _policy(2, 3e-5) | _lengths(1_000_000, 200_000) | {"model.patience": 20}
# Published settings: changes to `UniO4Config` by the longest beginning of a dataset's name. Of lists that the authors
# swept, the first value. The weight of diversity stays 0.1 where they swept it: their code cannot tell 0 from it.
_PUBLISHED: dict[str, dict[str, Any]] = {
    "halfcheetah": _TANH,
    "halfcheetah-medium-replay": _TANH | _RAW,
    "halfcheetah-medium-expert": _SARSA,
    "hopper-medium-expert": _SARSA,
    "walker2d-medium-v": {"model.max_epochs": 30},
    "walker2d-medium-replay": _lengths(500_000, 200_000),
    "pen-human": _RAW | _WIDE_MODEL | _policy(50, 1e-5) | _lengths(1_000_000, 200_000) | {"model.patience": 20},
    "pen": _RAW | _WIDE_MODEL | _policy(50, 1e-5) | {"model.patience": 10},
    "door-human": _RAW | _WIDE_MODEL | _policy(20, 1e-5) | {"model.patience": 20},
    "door": _RAW | _WIDE_MODEL | _policy(50, 1e-5) | {"model.patience": 10},
    "hammer-human": _TANH | _WIDE_MODEL | _policy(50, 1e-5) | {"model.patience": 20},
    "hammer": _TANH | _WIDE_MODEL | _policy(20, 1e-5) | {"model.patience": 10},
    "relocate-human": _RAW | _TANH | _WIDE_MODEL | _policy(10, 1e-5) | {"model.patience": 20},
    "relocate": _RAW | _TANH | _WIDE_MODEL | _policy(10, 1e-5) | {"model.patience": 10},
    "kitchen-complete": _RAW | _WIDE_MODEL | _policy(5, 5e-6) | _lengths(500_000, 100_000) | {"model.patience": 20},
    "kitchen": _KITCHEN,
    "kitchen-mixed": _KITCHEN | {"clones.diversity_weight": 0.0},
    "antmaze-umaze-diverse": _RAW | _SMALL_VALUES | _policy(50, 5e-5) | {"values.expectile": 0.9},
    "antmaze-umaze": _RAW | _WIDE_MODEL | _SMALL_VALUES | _policy(70, 3e-5) | {"values.expectile": 0.9},
    "antmaze-large": _RAW | _WIDE_MODEL | _SMALL_VALUES | _policy(150, 5e-5) | {"values.expectile": 0.9},
    "antmaze": _RAW | _WIDE_MODEL | _SMALL_VALUES | _policy(100, 5e-5) | {"values.expectile": 0.9},
}
_STEPS = {"door-human": 5_000, "kitchen": 1_000}  # updates of offline PPO where they are not 10,000
# Online, by the same rule: the actor's rate, epochs and rows of a minibatch.
_ONLINE: dict[str, tuple[float, int, int]] = {
    "hopper": (1e-5, 5, 128),
    "hopper-medium-expert": (6e-6, 5, 128),
    "walker2d": (1e-5, 20, 128),
    "halfcheetah": (3e-5, 30, 128),
    "halfcheetah-medium-replay": (3e-5, 20, 128),
    "halfcheetah-medium-expert": (2e-5, 10, 128),
    "pen": (3e-6, 10, 256),
}
_OTHERS_ONLINE = (8e-6, 10, 256)  # hammer's and door's; the authors advise Adroit's settings where they tried none
_NUM_ENVS, _ROLLOUT_STEPS = 4, 512  # 2,048 steps per update, as published with one environment
PROBE: dict[str, Any] = {
    "standardize_observations": False,
    "stages": StagesConfig(value_updates=400, model_updates=400, clone_updates=400, model_batch_size=64),
    "values": OfflineValuesConfig(
        learning_rate=3e-3,
        expectile=0.9,
        target_update_rate=0.05,
        target_every=1,
        critic_hidden_dims=(32,) * 2,
        value_hidden_dims=(32,) * 2,
    ),
    "model": TransitionModelConfig(num_members=3, num_elites=2, model_hidden_dims=(32,) * 2),
    "clones": ClonesConfig(num_members=2, learning_rate=3e-3, actor_hidden_dims=(32,) * 2),
    "improvement": ImprovementConfig(learning_rate=3e-3, horizon=20, num_starts=32, gate_every=50),
    "online": OnlineConfig(actor_learning_rate=1e-3, value_learning_rate=3e-3, minibatch_size=64),
}
PROBE_SCHEDULE = ScheduleConfig(
    offline_updates=200,
    offline_batch_size=64,
    warmup_steps=0,
    online_steps=1_280,
    num_envs=4,
    rollout_steps=64,
    **PROBE_EVALUATIONS,
)
# At scale=cpu: ceilings on what is not in the schedule. Shorter rollouts, from fewer states.
_CPU_STAGES = StagesConfig(value_updates=30_000, model_updates=6_000, clone_updates=20_000)
_CPU_POLICY_UPDATES, _CPU_HORIZON, _CPU_STARTS = 500, 200, 64
_CPU_ROLLOUTS = 50
# So few updates need higher rates, which narrow networks bear, and a gate that decides more often.
_CPU_RATE, _CPU_TARGET_RATE = 1e-3, 0.02
_CPU_ONLINE_RATES = {"actor_learning_rate": 1e-4, "value_learning_rate": 1e-3}
_CPU_GATE = {"gate_every": 50, "reset_after": 2}


def agent_config(task: Task) -> UniO4Config:
    """Lei et al. 2024, published code: the settings of a task's dataset, or what its family has in common.

    Tasks that the paper has not: the mazes take AntMaze's, all others locomotion's.
    """
    name = task.name.removeprefix("local/")
    unpublished = "antmaze" if published.family(task) == "antmaze" else name
    changes = published.longest_prefix(name, _PUBLISHED, published.longest_prefix(unpublished, _PUBLISHED, {}))
    config = UniO4Config()
    for field, value in changes.items():
        part, _, inner = field.rpartition(".")
        if part:
            config = dataclasses.replace(config, **{part: dataclasses.replace(getattr(config, part), **{inner: value})})
        else:
            config = dataclasses.replace(config, **{field: value})
    rate, epochs, rows = published.longest_prefix(name, _ONLINE, _OTHERS_ONLINE)
    online = OnlineConfig(actor_learning_rate=rate, num_epochs=epochs, minibatch_size=rows)
    config = dataclasses.replace(config, online=online)
    horizon = min(config.improvement.horizon, task.horizon)
    config = dataclasses.replace(config, improvement=dataclasses.replace(config.improvement, horizon=horizon))
    if task.failure_reward is not None or task.reward_shift < 0.0:
        # Where every step costs, a sum over steps would praise the shortest rollout.
        improvement = dataclasses.replace(config.improvement, reduction="mean_visited")
        config = dataclasses.replace(config, improvement=improvement)
    if task.failure_reward is None:
        return config
    # Only what leads to the goal is cloned: rows whose return is above that of failing for ever. The nearest such
    # return, that of a success a thousand steps away, is above it by 4e-5 of the reward's range.
    worst = task.failure_reward / (1.0 - config.discount)
    return dataclasses.replace(config, clones=dataclasses.replace(config.clones, min_return=worst * (1.0 - 1e-5)))


def preset(task: Task, scale: str) -> Preset:
    """Lei et al. 2024, main.py and the scripts of each domain in the published code, offline and online.

    4e5 updates of the clones, 2e6 of the values and 1e4 of the policies on 512 rows, but for the tasks above; then
    about a million environment steps, as in the paper's figures.
    """
    if task.family == "probe":
        return Preset(UniO4Config(**PROBE), PROBE_SCHEDULE, PROBE_LOOP)
    agent = agent_config(task)
    updates = published.longest_prefix(task.name, _STEPS, 10_000)
    found = Preset(agent, stages_schedule(updates), LoopConfig())
    return shrink_stages(found, task) if scale == "cpu" else found


def stages_schedule(updates: int) -> ScheduleConfig:
    """The published schedule with so many updates of offline PPO; evaluations are dense right after the switch."""
    rollout = _NUM_ENVS * _ROLLOUT_STEPS
    return ScheduleConfig(
        offline_updates=updates,
        offline_batch_size=512,
        offline_every=500,
        warmup_steps=0,
        online_steps=488 * rollout,
        num_envs=_NUM_ENVS,
        rollout_steps=_ROLLOUT_STEPS,
        dense_every=rollout,
        dense_until=25 * rollout,
        every=10 * rollout,
    )


def shrink_stages(found: Preset, task: Task) -> Preset:
    """The preset within what a few CPU cores do in minutes.

    Chosen on seeds 100 to 104 of local Hopper data and 100 of HalfCheetah's: after 500 updates offline the return had
    risen by 5 points on average, after 2,000 by 1, though AM-Q went on rising.
    """
    small = shrink(found, task)
    agent, schedule = small.agent, small.schedule
    lowered = {
        field.name: min(getattr(agent.stages, field.name), getattr(_CPU_STAGES, field.name))
        for field in dataclasses.fields(StagesConfig)
    }
    improvement = dataclasses.replace(
        agent.improvement,
        horizon=min(agent.improvement.horizon, _CPU_HORIZON),
        num_starts=min(agent.improvement.num_starts, _CPU_STARTS),
        **_CPU_GATE,
    )
    agent = dataclasses.replace(
        agent,
        stages=StagesConfig(**lowered),
        values=dataclasses.replace(agent.values, learning_rate=_CPU_RATE, target_update_rate=_CPU_TARGET_RATE),
        clones=dataclasses.replace(agent.clones, learning_rate=_CPU_RATE),
        improvement=improvement,
        online=dataclasses.replace(agent.online, **_CPU_ONLINE_RATES),
    )
    rollout = schedule.num_envs * schedule.rollout_steps
    schedule = dataclasses.replace(
        schedule,
        offline_updates=min(schedule.offline_updates, _CPU_POLICY_UPDATES),
        online_steps=min(found.schedule.online_steps, _CPU_ROLLOUTS * rollout),
        offline_every=min(schedule.offline_every, _CPU_POLICY_UPDATES // 5),
        dense_every=rollout,
        dense_until=10 * rollout,
        every=10 * rollout,
    )
    # Environments are rebuilt at checkpoints, and each must get through an episode between two of them.
    return Preset(agent, schedule, dataclasses.replace(small.loop, checkpoint_every=found.loop.checkpoint_every))


def _trials(config: Any) -> tuple[int, ...]:
    """Numbers of updates of offline PPO at which members are tried in the environment."""
    improvement, length = config.agent.improvement, config.schedule.offline_updates
    if improvement.gate == "returns":
        return (0, *range(improvement.gate_every, length + 1, improvement.gate_every))
    return (length,) if improvement.select == "amq_top3_then_real" else ()


def phases(config: Any, task: Task) -> tuple[Phase, ...]:
    """The stages on the dataset, then PPO on fresh rollouts by an agent that takes over actor and value."""
    schedule = config.schedule
    run = PPORun(config.agent.ppo(), max(rollout_updates(schedule), 1), schedule.num_envs)
    return (*offline_stages(config, task), *rollout_phases(Learner(PPOAgent, run), schedule))


def offline_stages(config: Any, task: Task) -> tuple[Phase, ...]:
    """The offline phases, if the schedule has any."""
    schedule = config.schedule
    if schedule.offline_updates == 0:
        return ()
    # Runs that differ only online may share these stages by `start_from`.
    agent = dataclasses.replace(config.agent, online=OnlineConfig())

    def learner(stage: str) -> Learner:
        return Learner(UniO4Agent, UniO4Stage(agent, stage, schedule.offline_updates, task.terminates))

    rows, lengths = schedule.offline_batch_size, agent.stages
    values = Phase(
        "values",
        learner("values"),
        num_updates=lengths.value_updates,
        batch_size=rows,
        next_actions=agent.values.needs_next_actions,
    )
    model = Phase(
        "model",
        learner("model"),
        num_updates=lengths.model_updates,
        batch_size=lengths.model_batch_size,
        bootstrap=Bootstrap(agent.model.num_members),
    )
    clones = Phase("clones", learner("clones"), num_updates=lengths.clone_updates, batch_size=rows)
    policies = Phase(
        "offline",
        learner("policies"),
        num_updates=schedule.offline_updates,
        batch_size=rows,
        judge_at=_trials(config),
        # After the first update the clones themselves still act.
        evaluate_at=evaluation_points(schedule.offline_updates, schedule.offline_every, dense_until=1),
    )
    # Nobody asks the model where returns decide.
    return (values, clones, policies) if agent.improvement.gate == "returns" else (values, model, clones, policies)
