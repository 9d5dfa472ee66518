"""Phases from a schedule: the pieces that the presets put together."""

from __future__ import annotations

from experiments.settings import ScheduleConfig
from hybridrl.errors import ConfigError
from hybridrl.training.phases import Learner, Phase


def evaluation_points(length: int, every: int, dense_every: int = 1, dense_until: int = 0) -> tuple[int, ...]:
    """Steps of a phase of `length` at which to evaluate: densely at first, then every so often, and at its end."""
    dense = range(dense_every, min(dense_until, length) + 1, dense_every)
    return tuple(sorted({*dense, *range(every, length + 1, every), length} - {0}))


def offline_phases(learner: Learner, schedule: ScheduleConfig, next_actions: bool = False) -> tuple[Phase, ...]:
    """Training on the dataset, if the schedule has any; with `next_actions`, batches say which action came next."""
    if schedule.offline_updates == 0:
        return ()
    phase = Phase(
        "offline",
        learner,
        num_updates=schedule.offline_updates,
        batch_size=schedule.offline_batch_size,
        n_step=schedule.n_step,
        next_actions=next_actions,
        evaluate_at=evaluation_points(schedule.offline_updates, schedule.offline_every),
    )
    return (phase,)


def online_phases(
    frozen: Learner, learner: Learner, schedule: ScheduleConfig, min_buffer: int, next_actions: bool = False
) -> tuple[Phase, ...]:
    """The warm-up, in which `frozen` acts and nothing is trained, and then training of `learner`.

    Args:
        min_buffer: rows the buffer must hold before updates begin, unless the schedule says otherwise.
        next_actions: whether training batches say which action came next.
    """
    if schedule.online_steps == 0:
        return ()
    appended = "offline" if schedule.retention == "append" else "keep"
    phases: tuple[Phase, ...] = ()
    if schedule.warmup_steps:
        warmup = Phase(
            "warmup",
            frozen,
            env_steps=schedule.warmup_steps,
            batch_size=schedule.online_batch_size,
            start_buffer=appended,
            actions=schedule.warmup_actions,
            insert=schedule.insert,
            evaluate_at=(schedule.warmup_steps,),  # the same policy still, but now there are online data to look at
        )
        phases = (warmup,)
    steps = schedule.online_steps - schedule.warmup_steps
    online = Phase(
        "online",
        learner,
        env_steps=steps,
        updates_per_step=schedule.updates_per_step,
        update_every=schedule.update_every,
        batch_size=schedule.online_batch_size,
        offline_ratio=schedule.offline_ratio if schedule.retention == "mixed" else 0.0,
        mix_order=schedule.mix_order,
        start_buffer="keep" if phases else appended,
        insert=schedule.insert,
        min_buffer=min_buffer if schedule.min_buffer is None else schedule.min_buffer,
        n_step=schedule.n_step,
        next_actions=next_actions,
        evaluate_at=evaluation_points(steps, schedule.every, schedule.dense_every, schedule.dense_until),
    )
    return (*phases, online)


def online_rows(schedule: ScheduleConfig) -> int:
    """Rows of each online batch that come from the replay buffer."""
    ratio = schedule.offline_ratio if schedule.retention == "mixed" else 0.0
    return schedule.online_batch_size - int(schedule.online_batch_size * ratio)


def rows_to_wait_for(schedule: ScheduleConfig) -> int:
    """Rows in the buffer before online updates begin: a batch's, and no update in the warm-up.

    With the whole dataset in the buffer there is nothing to wait for.
    """
    return max(schedule.warmup_steps, 1 if schedule.retention == "append" else online_rows(schedule))


def rollout_phases(
    learner: Learner, schedule: ScheduleConfig, offline_rows: int = 0, offline_by_step: bool = False
) -> tuple[Phase, ...]:
    """On-policy training, if the schedule has any; it is evaluated at the first rollouts' ends at or after its points.

    Args:
        offline_rows, offline_by_step: rows of the dataset that come with each rollout, see
            `hybridrl.training.phases.Phase`.

    Raises:
        ConfigError: the schedule has what on-policy training has not.
    """
    if schedule.online_steps == 0:
        return ()
    if schedule.warmup_steps or schedule.retention != "none" or schedule.n_step != 1:
        raise ConfigError(
            f"schedule.warmup_steps={schedule.warmup_steps}, schedule.retention={schedule.retention!r}, "
            f"schedule.n_step={schedule.n_step}; on-policy training has neither a replay buffer nor n-step targets: "
            "expected 0, 'none' and 1"
        )
    size = schedule.num_envs * schedule.rollout_steps
    points = evaluation_points(schedule.online_steps, schedule.every, schedule.dense_every, schedule.dense_until)
    phase = Phase(
        "online",
        learner,
        env_steps=schedule.online_steps,
        batches="rollouts",
        num_envs=schedule.num_envs,
        rollout_steps=schedule.rollout_steps,
        offline_rows=offline_rows,
        offline_by_step=offline_by_step,
        evaluate_at=tuple(sorted({-(-point // size) * size for point in points})),
    )
    return (phase,)


def rollout_updates(schedule: ScheduleConfig) -> int:
    """Updates of on-policy training: one per rollout."""
    return schedule.online_steps // (schedule.num_envs * schedule.rollout_steps)
