"""Published numbers, copied by hand from the papers' tables; phases and when their first update comes."""

import dataclasses

import pytest
from preset_runs import phases, phases_on, task_of

from envs import make_task, task_names
from experiments import presets
from experiments.config import compose
from experiments.console import scale_note
from experiments.settings import ALGORITHMS, GOAL_ALGORITHMS
from hybridrl.errors import ConfigError
from hybridrl.training.online import example_transition
from hybridrl.training.phases import check_phases

TABLE = {  # family: offline agent, updates, critic, actor, std, gain, multiplier, weight, sampled, online backup
    "antmaze": ("calql", 1_000_000, (256,) * 4, (256,) * 2, "free", 0.01, "lagrange", None, True, 10),
    "pointmaze": ("calql", 1_000_000, (256,) * 4, (256,) * 2, "free", 0.01, "lagrange", None, True, 10),
    "kitchen": ("calql", 250_000, (512,) * 3, (512,) * 3, "state", None, "fixed", 5.0, False, 1),
    "adroit": ("calql", 20_000, (512,) * 3, (512,) * 2, "state", 0.01, "fixed", 1.0, True, 1),
    "locomotion": ("cql", 250_000, (256,) * 2, (256,) * 2, "state", 0.01, "fixed", 5.0, True, 1),
}

REWARD_ALGORITHMS = [algo for algo in ALGORITHMS if algo not in GOAL_ALGORITHMS]


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
    assert rates == (1e-4, *((3e-3, 0.005, 0.02) if family == "pointmaze" else (1e-4, 0.005, 1.0)))
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
    rates = (learner.config.sac.actor_learning_rate, learner.config.sac.target_update_rate)
    assert rates == ((3e-4, 0.02) if family == "pointmaze" else (1e-4, 0.005))


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


@pytest.mark.parametrize("algo", REWARD_ALGORITHMS)
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
    if algo in ("unio4", "bppo"):  # so few updates need higher rates, and a gate that is asked more often
        changed -= {
            *(f"agent.{part}.learning_rate" for part in ("values", "clones")),
            *(f"agent.online.{net}_learning_rate" for net in ("actor", "value")),
            *("agent.values.target_update_rate", "agent.improvement.reset_after"),
        }
    assert changed <= {
        *(f"schedule.{name}" for name in ("offline_updates", "warmup_steps", "online_steps")),
        *(f"schedule.{name}" for name in ("offline_batch_size", "online_batch_size")),
        *(f"schedule.{name}" for name in ("offline_every", "dense_every", "dense_until", "every")),
        *(f"loop.{name}" for name in ("log_every", "checkpoint_every", "eval_episodes", "probe_rows")),
        *(f"agent.{part}{net}_hidden_dims" for part in ("", "sac.") for net in ("actor", "critic", "value")),
        "agent.discriminator.hidden_dims",
        *(f"agent.{part}_hidden_dims" for part in ("values.critic", "values.value", "model.model", "clones.actor")),
        *(f"agent.stages.{stage}_updates" for stage in ("value", "model", "clone")),
        *(f"agent.improvement.{name}" for name in ("horizon", "num_starts", "gate_every")),
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
            # Nobody takes images or goals that are less than states, and none takes both rewards and goals.
            if task.pixels or "-oraclerep-" in name or bool(task.num_goals) != (algo in GOAL_ALGORITHMS):
                continue
            for scale in ("cpu", "paper"):
                presets.module(algo).preset(task, scale)


@pytest.mark.parametrize("algo", REWARD_ALGORITHMS)
def test_goals_and_images_are_refused(algo):
    with pytest.raises(ConfigError, match="such as 'cube-single-play-singletask-v0'"):
        presets.module(algo).preset(make_task("cube-single-play-oraclerep-v0"), "cpu")
    with pytest.raises(ConfigError, match="shows images"):
        presets.module(algo).preset(make_task("visual-scene-play-singletask-v0"), "cpu")


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
        if algo == "bc":  # it has none, and takes the usual one
            assert compose(["algo=bc"]).loop_settings().discount == 0.99
            continue
        task = ["task=pointmaze-medium-navigate-v0"] if algo in GOAL_ALGORITHMS else []
        config = compose([f"algo={algo}", "agent.discount=0.995", *task])
        assert config.loop_settings().discount == 0.995


def test_the_folder_depends_on_settings_and_not_on_the_seed():
    base = compose()
    assert compose(["seed=3"]).folder().parent == base.folder().parent
    assert compose(["seed=3"]).folder().name == "seed_3"
    assert compose(["agent.discount=0.995"]).hash() != base.hash()
    assert compose(["root=elsewhere"]).hash() == base.hash()
    assert str(base.folder()).startswith("runs/pointmaze-umaze-v2/wsrl/")


@pytest.mark.parametrize(
    ("family", "expectile", "temperature", "dropout", "updates"),
    [
        ("antmaze", 0.9, 10.0, 0.0, 1_000_000),
        ("pointmaze", 0.9, 10.0, 0.0, 1_000_000),
        ("kitchen", 0.7, 0.5, 0.1, 250_000),
        ("adroit", 0.7, 0.5, 0.1, 20_000),
        ("locomotion", 0.7, 3.0, 0.0, 250_000),
    ],
)
def test_iql_as_published(family, expectile, temperature, dropout, updates):
    found = presets.module("iql").preset(task_of(family), "paper")
    agent, schedule = found.agent, found.schedule
    assert (agent.expectile, agent.awr_temperature, agent.actor_dropout) == (expectile, temperature, dropout)
    assert agent.actor_hidden_dims == agent.critic_hidden_dims == agent.value_hidden_dims == (256, 256)
    assert (agent.actor, agent.std_kind, agent.num_critics, agent.max_weight) == ("normal", "free", 2, 100.0)
    assert (agent.learning_rate, agent.discount) == (3e-4, 0.99)
    assert (agent.initializer, agent.last_hidden_gain) == ("xavier_orthogonal", 0.1)
    assert (schedule.offline_updates, schedule.offline_batch_size, schedule.online_batch_size) == (updates, 256, 256)
    assert (schedule.retention, schedule.warmup_steps, schedule.updates_per_step) == ("append", 0, 1)


def test_td3bc_as_published():
    found = presets.module("td3bc").preset(task_of("locomotion"), "paper")
    agent, schedule = found.agent, found.schedule
    assert (agent.q_weight, agent.actor_every, agent.target_noise, agent.target_noise_clip) == (2.5, 2, 0.2, 0.5)
    assert (agent.actor_learning_rate, agent.critic_learning_rate, agent.discount) == (3e-4, 3e-4, 0.99)
    assert agent.actor_hidden_dims == agent.critic_hidden_dims == (256, 256)
    assert agent.standardize_observations
    assert not presets.module("td3bc").preset(task_of("antmaze"), "paper").agent.standardize_observations
    assert (schedule.offline_updates, schedule.offline_batch_size, schedule.online_steps) == (1_000_000, 256, 0)


@pytest.mark.parametrize(
    ("name", "family", "weights", "rates", "discount", "rows"),
    [
        ("halfcheetah-medium-v2", "locomotion", (0.001, 0.01), (1e-3, 1e-3), 0.99, 1_024),
        ("walker2d-medium-replay-v2", "locomotion", (0.05, 0.01), (1e-3, 1e-3), 0.99, 1_024),
        ("antmaze-umaze-v2", "antmaze", (0.003, 0.002), (3e-4, 5e-5), 0.999, 256),
        ("antmaze-umaze-diverse-v2", "antmaze", (0.003, 0.001), (3e-4, 5e-5), 0.999, 256),
        ("pen-human-v1", "adroit", (0.1, 0.5), (3e-4, 3e-4), 0.99, 256),
    ],
)
def test_rebrac_as_published(name, family, weights, rates, discount, rows):
    task = dataclasses.replace(task_of(family), name=name)
    found = presets.module("rebrac").preset(task, "paper")
    agent, schedule = found.agent, found.schedule
    assert (agent.actor_bc_weight, agent.critic_bc_weight) == weights
    assert (agent.actor_learning_rate, agent.critic_learning_rate) == rates
    assert (agent.discount, agent.actor_every, agent.target_noise) == (discount, 2, 0.2)
    assert agent.actor_hidden_dims == agent.critic_hidden_dims == (256, 256, 256)
    assert agent.critic_layer_norm
    assert not agent.actor_layer_norm
    assert (schedule.offline_batch_size, schedule.online_batch_size) == (rows, rows)


@pytest.mark.parametrize("name", ["antmaze-large-navigate-singletask-v0", "cube-single-play-singletask-v0"])
def test_ogbenchs_tasks_do_not_take_the_d4rl_mazes_rates(name):
    """Not even its AntMaze, whose tasks share D4RL's family."""
    agent = presets.module("rebrac").preset(make_task(name), "paper").agent
    assert (agent.discount, agent.critic_learning_rate) == (0.99, 3e-4)


def test_fql_takes_a_weight_of_d4rls_mazes_for_none_of_ogbenchs():
    for name in ("antmaze-medium-navigate", "antmaze-large-stitch", "antmaze-medium-explore"):
        agent = presets.module("fql").preset(make_task(f"{name}-singletask-v0"), "paper").agent
        assert (agent.normalize_q, agent.bc_weight) == (True, 1.0), name


def test_rebracs_penalties_change_at_the_switch():
    offline, online = phases("algo=rebrac", "task=probe/reach-v0")
    assert offline.next_actions
    assert not online.next_actions
    assert (online.learner.config.critic_bc_weight, online.learner.config.bc_decay_updates) == (0.0, 800)
    assert online.learner.config.actor_bc_weight == offline.learner.config.actor_bc_weight
    assert (online.offline_ratio, online.updates_per_step) == (0.5, 1)


@pytest.mark.parametrize(
    ("name", "weight", "discount", "target"),
    [
        ("antmaze-large-play-v2", 3.0, 0.99, "mean"),
        ("antmaze-large-navigate-singletask-v0", 10.0, 0.99, "min"),
        ("antmaze-giant-navigate-singletask-task2-v0", 10.0, 0.995, "min"),
        ("humanoidmaze-large-navigate-singletask-v0", 30.0, 0.995, "mean"),
        ("puzzle-4x4-play-singletask-v0", 1_000.0, 0.99, "mean"),
        ("relocate-cloned-v1", 10_000.0, 0.99, "min"),
    ],
)
def test_fql_as_published(name, weight, discount, target):
    found = presets.module("fql").preset(dataclasses.replace(task_of("antmaze"), name=name), "paper")
    agent, schedule = found.agent, found.schedule
    assert (agent.bc_weight, agent.discount, agent.target_q) == (weight, discount, target)
    assert (agent.normalize_q, agent.flow_steps, agent.learning_rate) == (False, 10, 3e-4)
    assert agent.actor_hidden_dims == agent.critic_hidden_dims == (512,) * 4
    assert (schedule.offline_batch_size, schedule.online_batch_size, schedule.retention) == (256, 256, "append")
    assert (schedule.offline_updates, schedule.online_steps) == (1_000_000, 1_000_000)


def test_n_step_targets_reach_every_phase_that_trains():
    offline, warmup, online = phases("schedule.n_step=5")
    assert (offline.n_step, warmup.n_step, online.n_step) == (5, 1, 5)
    assert offline.lookahead(0.97).discount == 0.97
    assert phases()[0].lookahead(0.97) is None


REACH = "task=probe/reach-v0"


def test_a_pair_is_the_first_ones_offline_phase_and_the_second_ones_online_phases():
    config = compose(["offline=iql", "online=wsrl", REACH, "scale=paper"])
    assert config.algo == "iql+wsrl"
    assert config == compose(["algo=iql+wsrl", REACH, "scale=paper"])
    assert config.folder().parts[:4] == ("runs", "probe", "reach-v0", "iql+wsrl")
    offline, warmup, online = config.phases()
    assert [phase.learner.agent_class.__name__ for phase in (offline, warmup, online)] == [
        "IQLAgent",
        "IQLAgent",
        "WSRLAgent",
    ]
    alone = compose(["algo=wsrl", REACH]).phases()
    assert dataclasses.replace(warmup, learner=alone[1].learner) == alone[1]
    assert online == alone[2]
    assert offline.num_updates == compose(["algo=iql", REACH]).phases()[0].num_updates


def test_a_pairs_offline_agent_has_the_online_agents_networks():
    agent = compose(["offline=cql", "online=sac", REACH]).agent
    for field in ("critic_hidden_dims", "actor_hidden_dims", "num_critics", "shared_critic_head", "critic_layer_norm"):
        assert getattr(agent.offline.sac, field) == getattr(agent.online, field), field
    assert agent.offline.penalty.num_critics == 2
    cloning = compose(["offline=bc", "online=sac", REACH]).agent.offline
    assert (cloning.actor, cloning.standardize_observations) == ("tanh_normal", False)
    for online in ("td3bc", "rebrac"):
        config = compose(["offline=bc", f"online={online}", REACH, "schedule.online_steps=50"])
        assert config.agent.offline.actor == "deterministic"
        assert [phase.name for phase in config.phases()] == ["offline", "online"]


@pytest.mark.parametrize("pair", ["calql+rlpd", "cql+moorl", "iql+mixedsac", "bc+wsrl"])
def test_pairs_fit_without_further_settings(pair):
    """A pair's phases check that the second agent can take over from the first."""
    phases = compose([f"algo={pair}", REACH]).phases()
    assert [phase.name for phase in phases if phase.trains] == ["offline", "online"]


def test_a_pairs_settings_are_found_by_their_short_names():
    config = compose(["offline=iql", "online=sac", REACH, "agent.expectile=0.8", "agent.offline.discount=0.9"])
    assert (config.agent.offline.expectile, config.agent.offline.discount) == (0.8, 0.9)
    with pytest.raises(ConfigError, match=r"agent\.offline\.discount=0\.9 and agent\.online\.discount=0\.99"):
        config.check()


GAP_TASK = dataclasses.replace(task_of("locomotion"), simulator=lambda task: None)


@pytest.mark.parametrize(("algo", "rows"), [("h2o", 128), ("darc", 256), ("darcplus", 256)])
def test_gap_algorithms_learn_in_rounds_from_real_and_simulated_rows(algo, rows):
    """A thousand simulated steps, then a thousand updates; 256 rows of each source more for the discriminators."""
    (online,) = phases_on(GAP_TASK, algo)
    assert (online.env_steps, online.updates_per_step, online.update_every) == (1_000_000, 1_000, 1_000)
    assert (online.batches, online.batch_size, online.offline_ratio) == ("separate", rows + 256, 0.5)
    assert (online.actions, online.min_buffer, online.start_buffer) == ("policy", 1, "keep")
    assert online.evaluate_at[:2] == (10_000, 20_000)
    loop = presets.module(algo).preset(GAP_TASK, "paper").loop
    assert loop.eval_episodes == 5
    agent = online.learner.config
    assert getattr(agent, "critic_on_real", algo == "darcplus") == (algo == "darcplus")
    check_phases((online,), example_transition(17, 6))


@pytest.mark.parametrize("change", [{"retention": "none"}, {"offline_ratio": 0.25}, {"offline_updates": 10}])
def test_gap_algorithms_name_what_they_do_not_have(change):
    with pytest.raises(ConfigError, match=next(iter(change))):
        phases_on(GAP_TASK, "h2o", **change)
    with pytest.raises(ConfigError, match=r"acts in a simulator and task 'a-locomotion' has none"):
        phases_on(task_of("locomotion"), "h2o")


@pytest.mark.parametrize(
    ("algo", "rate", "source"), [("moorl", 0.5, "coin"), ("mixedsac", 1.0, "mixed"), ("lookaheadsac", 0.5, "mixed")]
)
def test_moorl_and_its_controls_differ_in_two_settings(algo, rate, source):
    task = task_of("locomotion")
    agent = presets.module(algo).preset(task, "paper").agent
    assert (agent.meta_rate, agent.source_choice, agent.inner_steps) == (rate, source, 5)
    plain = presets.module("moorl").preset(task, "paper").agent
    assert dataclasses.replace(agent, meta_rate=0.5, source_choice="coin") == plain
    warmup, online = phases_on(task, algo)
    assert (warmup.env_steps, warmup.actions, warmup.updates_per_step) == (5_000, "uniform", 0)
    assert (online.batches, online.block_length, online.block_source) == ("blocks", 5, source)
    assert (online.env_steps, online.batch_size, online.offline_ratio) == (245_000, 256, 0.5)
    first, _, _ = phases_on(task, algo, offline_updates=100)
    assert (first.offline, first.batches, first.num_updates) == (True, "blocks", 100)
    assert phases_on(task, algo, update_every=5)[-1].update_every == 5
    check_phases((first, warmup, online), example_transition(3, 2))
    with pytest.raises(ConfigError, match="retention"):
        phases_on(task, algo, retention="none")


def test_moorl_has_rlpds_networks_on_sparse_tasks():
    sac = presets.module("moorl").preset(task_of("antmaze"), "paper").agent.sac
    assert (sac.critic_hidden_dims, sac.actor_hidden_dims, sac.entropy_backup) == ((256,) * 3, (256,) * 3, False)
    dense = presets.module("moorl").preset(task_of("locomotion"), "paper").agent.sac
    assert (dense.critic_hidden_dims, dense.entropy_backup, dense.num_critics) == ((256,) * 2, True, 2)
