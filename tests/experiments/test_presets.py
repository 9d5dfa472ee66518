"""Published numbers, copied by hand from the papers' tables; phases and when their first update comes."""

import dataclasses

import pytest

from envs import make_task, task_names
from experiments import presets
from experiments.config import compose
from experiments.console import scale_note
from experiments.settings import ALGORITHMS
from hybridrl.errors import ConfigError
from hybridrl.task import Task

TABLE = {  # family: offline agent, updates, critic, actor, std, gain, multiplier, weight, sampled, online backup
    "antmaze": ("calql", 1_000_000, (256,) * 4, (256,) * 2, "free", 0.01, "lagrange", None, True, 10),
    "pointmaze": ("calql", 1_000_000, (256,) * 4, (256,) * 2, "free", 0.01, "lagrange", None, True, 10),
    "kitchen": ("calql", 250_000, (512,) * 3, (512,) * 3, "state", None, "fixed", 5.0, False, 1),
    "adroit": ("calql", 20_000, (512,) * 3, (512,) * 2, "state", 0.01, "fixed", 1.0, True, 1),
    "locomotion": ("cql", 250_000, (256,) * 2, (256,) * 2, "state", 0.01, "fixed", 5.0, True, 1),
}


def task_of(family):
    return Task(name=f"a-{family}", family=family, env_id="", horizon=300, success_key="success")


@pytest.mark.parametrize("family", TABLE)
def test_wsrl_as_published(family):
    offline, updates, critic, actor, std, gain, multiplier, weight, sampled, backup = TABLE[family]
    found = presets.module("wsrl").preset(task_of(family), "paper")
    sac, penalty, schedule = found.agent.sac, found.agent.penalty, found.schedule
    assert found.agent.offline == offline
    assert (sac.critic_hidden_dims, sac.actor_hidden_dims, sac.std_kind) == (critic, actor, std)
    assert (sac.last_hidden_gain, sac.num_backup_actions) == (gain, backup)
    assert (sac.num_critics, sac.num_target_critics, sac.critic_updates) == (10, 2, 4)
    rates = (sac.actor_learning_rate, sac.temperature_learning_rate, sac.target_update_rate, sac.initial_temperature)
    assert rates == ((3e-4, 3e-4, 0.02, 0.02) if family == "pointmaze" else (1e-4, 1e-4, 0.005, 1.0))
    assert (sac.critic_learning_rate, sac.discount, sac.target_entropy_per_dim) == (3e-4, 0.99, -1.0)
    assert sac.actor_layer_norm
    assert sac.critic_layer_norm
    assert not sac.entropy_backup
    assert (penalty.multiplier, penalty.importance_sampled, penalty.num_actions) == (multiplier, sampled, 10)
    assert penalty.weight == weight if weight else penalty.target_gap == 0.8
    assert (schedule.offline_updates, schedule.offline_batch_size) == (updates, 256)
    assert (schedule.warmup_steps, schedule.online_steps, schedule.online_batch_size) == (5_000, 500_000, 1_024)
    assert (schedule.retention, schedule.warmup_actions, schedule.updates_per_step) == ("none", "policy", 1)
    assert (found.loop.eval_episodes, schedule.every, found.loop.replay_capacity) == (20, 20_000, 2_000_000)
    learner = found.agent.offline_learner()
    assert (learner.config.sac.num_backup_actions, learner.config.sac.critic_updates) == (10, 1)


@pytest.mark.parametrize(
    ("family", "widths", "subset", "entropy", "steps"),
    [
        ("antmaze", (256,) * 3, 1, False, 300_000),
        ("pointmaze", (256,) * 3, 1, False, 300_000),
        ("adroit", (256,) * 3, 2, False, 1_000_000),
        ("locomotion", (256,) * 2, 2, True, 250_000),
    ],
)
def test_rlpd_as_published(family, widths, subset, entropy, steps):
    found = presets.module("rlpd").preset(task_of(family), "paper")
    sac, schedule = found.agent.sac, found.schedule
    assert (sac.critic_hidden_dims, sac.actor_hidden_dims) == (widths, widths)
    assert (sac.num_target_critics, sac.entropy_backup, sac.critic_updates) == (subset, entropy, 20)
    assert (sac.actor_q, sac.actor_batch, sac.target_entropy_per_dim) == ("mean", "last", -0.5)
    assert (schedule.online_batch_size, schedule.offline_ratio, schedule.retention) == (5_120, 0.5, "mixed")
    assert (schedule.warmup_steps, schedule.warmup_actions) == (5_000, "uniform")
    assert (schedule.online_steps, schedule.every, found.loop.eval_episodes) == (steps, 5_000, 10)


@pytest.mark.parametrize(("algo", "insert"), [("calql", "episode"), ("cql", "step")])
def test_plain_baselines_as_published(algo, insert):
    found = presets.module(algo).preset(task_of("antmaze"), "paper")
    sac, schedule = found.agent.sac, found.schedule
    assert (sac.num_critics, sac.critic_updates, sac.num_backup_actions) == (2, 1, 10)
    assert not sac.critic_layer_norm
    assert not sac.actor_layer_norm
    assert (schedule.online_batch_size, schedule.updates_per_step) == (256, 1)
    assert (schedule.retention, schedule.offline_ratio, schedule.insert) == ("mixed", 0.5, insert)


def test_sac_is_wsrls_online_agent():
    task = task_of("kitchen")
    assert presets.module("sac").preset(task, "paper").agent == presets.module("wsrl").preset(task, "paper").agent.sac


@pytest.mark.parametrize("algo", ALGORITHMS)
@pytest.mark.parametrize("family", ["pointmaze", "kitchen", "adroit", "locomotion"])
def test_scale_cpu_shrinks_budgets_and_widths_only(algo, family):
    task = task_of(family)
    paper, small = (presets.module(algo).preset(task, scale) for scale in ("paper", "cpu"))

    def flat(config, prefix=""):
        values = {}
        for field in dataclasses.fields(config):
            value = getattr(config, field.name)
            nested = dataclasses.is_dataclass(value)
            values |= flat(value, f"{prefix}{field.name}.") if nested else {f"{prefix}{field.name}": value}
        return values

    changed = {name for name, value in flat(small).items() if value != flat(paper)[name]}
    assert changed <= {
        *(f"schedule.{name}" for name in ("offline_updates", "warmup_steps", "online_steps")),
        *(f"schedule.{name}" for name in ("offline_batch_size", "online_batch_size")),
        *(f"schedule.{name}" for name in ("offline_every", "dense_every", "dense_until", "every")),
        *(f"loop.{name}" for name in ("log_every", "checkpoint_every", "eval_episodes", "probe_rows")),
        *(f"agent.{part}{net}_hidden_dims" for part in ("", "sac.") for net in ("actor", "critic")),
    }
    assert all(flat(small)[name] < flat(paper)[name] for name in changed if name.startswith(("schedule", "loop")))


def test_the_header_lists_what_shrank():
    config = compose(["scale=cpu"])
    note = scale_note(config, config.make_task())
    assert f"offline updates 1,000,000 -> {config.schedule.offline_updates:,}" in note
    assert "critic hidden widths 256x4 -> 64x2" in note
    config = compose(["scale=paper"])
    assert scale_note(config, config.make_task()) == "scale=paper: published budgets and widths"


def test_every_combination_of_algorithm_and_task_has_a_preset():
    for algo in ALGORITHMS:
        for name in task_names():
            task = make_task(name)
            if task.num_goals or task.pixels:  # not every algorithm can take them
                continue
            for scale in ("cpu", "paper"):
                presets.module(algo).preset(task, scale)


@pytest.mark.parametrize("algo", ["wsrl", "rlpd", "calql", "cql", "sac"])
def test_goals_and_images_are_refused(algo):
    with pytest.raises(ConfigError, match="such as 'cube-single-play-singletask-v0'"):
        presets.module(algo).preset(make_task("cube-single-play-oraclerep-v0"), "cpu")
    with pytest.raises(ConfigError, match="shows images"):
        presets.module(algo).preset(make_task("visual-scene-play-singletask-v0"), "cpu")


def phases(*overrides):
    return compose(["scale=paper", *overrides]).phases()


def test_wsrl_has_three_phases():
    offline, warmup, online = phases()
    assert [phase.name for phase in (offline, warmup, online)] == ["offline", "warmup", "online"]
    assert (offline.num_updates, warmup.env_steps, online.env_steps) == (1_000_000, 5_000, 495_000)
    assert warmup.learner == offline.learner != online.learner
    assert (warmup.updates_per_step, online.updates_per_step, online.batch_size) == (0, 1, 1_024)
    assert (online.offline_ratio, online.start_buffer) == (0.0, "keep")
    assert warmup.evaluate_at == (5_000,)
    assert online.evaluate_at[:3] == (1_000, 2_000, 3_000)
    assert online.evaluate_at[-1] == 495_000


@pytest.mark.parametrize(
    ("overrides", "first"),
    [
        ([], 5_001),  # k > max(5000, 1024)
        (["schedule.warmup_steps=0"], 1_025),  # k > max(0, 1024)
        (["schedule.warmup_steps=0", "schedule.min_buffer=1"], 0),
        (["schedule.retention=mixed", "schedule.warmup_steps=0"], 513),  # 512 online rows per batch
    ],
)
def test_wsrls_first_update_comes_at_the_published_step(overrides, first):
    online = phases(*overrides)[-1]
    # Step k stores row k + 1, then updates if there are `min_buffer` rows.
    assert online.min_buffer - 1 == first


def test_wsrls_ablations_are_overrides():
    assert [phase.name for phase in phases("schedule.warmup_steps=0")] == ["offline", "online"]
    mixed = phases("schedule.retention=mixed", "schedule.offline_ratio=0.25")[-1]
    assert (mixed.offline_ratio, mixed.start_buffer) == (0.25, "keep")
    _, warmup, appended = phases("schedule.retention=append")
    assert (warmup.start_buffer, appended.start_buffer, appended.offline_ratio) == ("offline", "keep", 0.0)
    assert phases("schedule.retention=append", "schedule.warmup_steps=0")[-1].start_buffer == "offline"
    assert phases("schedule.warmup_actions=uniform")[1].actions == "uniform"
    online_only = phases("schedule.offline_updates=0")
    assert [phase.learner for phase in online_only] == [online_only[0].learner] * 2


def test_rlpd_begins_with_random_steps():
    start, online = phases("algo=rlpd")
    assert (start.actions, start.env_steps, start.updates_per_step) == ("uniform", 5_000, 0)
    assert (online.offline_ratio, online.mix_order, online.batch_size, online.env_steps) == (
        0.5,
        "interleave",
        5_120,
        295_000,
    )
    assert start.learner == online.learner


def test_calql_stores_finished_episodes():
    offline, online = phases("algo=calql")
    assert offline.learner == online.learner
    assert (online.insert, online.offline_ratio, online.min_buffer) == ("episode", 0.5, 300)
    assert [phase.name for phase in phases("algo=calql", "schedule.online_steps=0")] == ["offline"]


def test_the_discount_of_the_stored_returns_is_the_agents():
    for algo in ALGORITHMS:
        config = compose([f"algo={algo}", "agent.discount=0.995"])
        assert config.loop_settings().discount == 0.995


def test_the_folder_depends_on_settings_and_not_on_the_seed():
    base = compose()
    assert compose(["seed=3"]).folder().parent == base.folder().parent
    assert compose(["seed=3"]).folder().name == "seed_3"
    assert compose(["agent.discount=0.995"]).hash() != base.hash()
    assert compose(["root=elsewhere"]).hash() == base.hash()
    assert str(base.folder()).startswith("runs/pointmaze-umaze-v2/wsrl/")
