"""Published numbers of the goal-conditioned agents, copied by hand from their tables."""

import pytest

from envs import make_task, task_names
from experiments import presets
from experiments.config import compose
from experiments.presets import goals
from experiments.settings import GOAL_ALGORITHMS
from hybridrl.errors import ConfigError
from hybridrl.replay import GoalMixture


@pytest.mark.parametrize(
    ("name", "discount", "steps", "temperature", "random", "weights", "options"),
    # weights of cloning: GCIQL, QRL, CRL
    [
        ("pointmaze-medium-navigate", 0.99, 25, 3.0, 0.0, (0.003, 0.0003, 0.03), 5),
        ("pointmaze-giant-stitch", 0.995, 25, 3.0, 0.5, (0.003, 0.0003, 0.03), 5),
        ("pointmaze-teleport-stitch", 0.99, 25, 3.0, 0.5, (0.003, 0.0003, 0.03), 5),
        ("antmaze-large-navigate", 0.99, 25, 3.0, 0.0, (0.3, 0.003, 0.1), 5),
        ("antmaze-giant-navigate", 0.995, 25, 3.0, 0.0, (0.3, 0.003, 0.1), 5),
        ("antmaze-medium-explore", 0.99, 25, 10.0, 1.0, (0.01, 0.001, 0.003), 5),
        ("humanoidmaze-large-stitch", 0.995, 100, 3.0, 0.5, (0.1, 0.001, 0.1), 20),
        ("antsoccer-arena-stitch", 0.99, 25, 3.0, 0.5, (0.1, 0.003, 0.3), 5),
        ("cube-quadruple-play", 0.99, 10, 3.0, 0.0, (1.0, 0.3, 3.0), 5),
        ("cube-double-noisy", 0.99, 10, 3.0, 0.0, (0.03, 0.03, 0.1), 1),
        ("scene-play", 0.99, 10, 3.0, 0.0, (1.0, 0.3, 3.0), 1),
        ("scene-noisy", 0.99, 10, 3.0, 0.0, (0.03, 0.03, 0.1), 1),
        ("puzzle-4x5-play", 0.99, 10, 3.0, 0.0, (1.0, 0.3, 3.0), 1),
        ("puzzle-3x3-noisy", 0.99, 10, 3.0, 0.0, (0.03, 0.03, 0.1), 1),
    ],
)
def test_goal_conditioned_agents_as_published(name, discount, steps, temperature, random, weights, options):
    found = {algo: presets.module(algo).preset(make_task(f"{name}-v0"), "paper") for algo in GOAL_ALGORITHMS}
    agents = {algo: preset.agent for algo, preset in found.items()}
    hiql = agents["hiql"]
    assert (hiql.discount, hiql.subgoal_steps, hiql.random_goals, hiql.expectile) == (discount, steps, random, 0.7)
    assert hiql.low_awr_temperature == hiql.high_awr_temperature == temperature
    assert (hiql.representation_dim, hiql.target_update_rate, hiql.learning_rate) == (10, 0.005, 3e-4)
    assert (hiql.low_actor_trains_representation, hiql.geometric_goals) == (False, False)
    assert (agents["ota"].hiql, agents["ota"].option_steps) == (hiql, options)
    assert tuple(agents[algo].bc_weight for algo in ("gciql", "qrl", "crl")) == weights
    assert (agents["gcivl"].awr_temperature, agents["gcivl"].expectile, agents["gciql"].expectile) == (10.0, 0.9, 0.9)
    for algo in ("gcivl", "gciql", "qrl", "crl"):
        mixture = agents[algo].actor_goals
        assert (mixture.current, mixture.trajectory, mixture.random) == (0.0, 1.0 - random, random)
        assert agents[algo].discount == discount
        assert not mixture.geometric
    assert agents["gcbc"].actor_goals == GoalMixture(0.0, 1.0, 0.0, geometric=False)
    for algo in ("hiql", "gcivl", "gciql"):
        assert agents[algo].value_goals == GoalMixture(0.2, 0.5, 0.3, geometric=True)
        assert agents[algo].target_update_rate == 0.005
    assert agents["qrl"].value_goals == GoalMixture(0.0, 0.0, 1.0, geometric=False)
    assert agents["crl"].value_goals == GoalMixture(0.0, 1.0, 0.0, geometric=True)
    assert hiql.max_weight == agents["gcivl"].max_weight == 100.0
    assert (agents["qrl"].quasimetric, agents["qrl"].slack) == ("iqe", 0.05)
    assert agents["qrl"].latent_dim == agents["crl"].latent_dim == 512
    for agent in agents.values():
        one_level = getattr(agent, "hiql", agent)
        assert one_level.learning_rate == 3e-4
        assert one_level.actor_hidden_dims == getattr(one_level, "value_hidden_dims", (512,) * 3) == (512,) * 3
    for preset in found.values():
        schedule = preset.schedule
        assert (schedule.offline_updates, schedule.offline_batch_size, schedule.offline_every) == (
            1_000_000,
            1_024,
            100_000,
        )
        assert (schedule.online_steps, preset.loop.eval_episodes) == (0, 50)


def test_discounts_of_goal_conditioned_tasks():
    """The reference agents have 0.995 on giant and humanoid mazes, and 0.99 on all other data."""
    tasks = [make_task(name) for name in task_names()]
    plain = [task for task in tasks if task.num_goals and not task.pixels and task.dataset.represent is None]
    farsighted = {task.name.removesuffix("-v0") for task in plain if goals.discount(task) != 0.99}
    kinds = ("navigate", "stitch")
    mazes = ("pointmaze-giant", "antmaze-giant", *(f"humanoidmaze-{size}" for size in ("medium", "large", "giant")))
    assert farsighted == {f"{maze}-{kind}" for maze in mazes for kind in kinds}
    assert {goals.discount(task) for task in plain} == {0.99, 0.995}


@pytest.mark.parametrize("algo", GOAL_ALGORITHMS)
def test_goal_conditioned_agents_refuse_what_they_cannot_see(algo):
    for name, message in {
        "pointmaze-umaze-v2": "has no goals",
        "cube-single-play-oraclerep-v0": "choose 'cube-single-play-v0'",
        "visual-scene-play-v0": "shows images",
    }.items():
        with pytest.raises(ConfigError, match=message):
            presets.module(algo).preset(make_task(name), "cpu")
    task = "task=pointmaze-medium-navigate-v0"
    (phase,) = compose([f"algo={algo}", task]).phases()
    assert phase.goals == phase.learner.config.goals()
    with pytest.raises(ConfigError, match=r"schedule\.online_steps=10; .* expected 0"):
        compose([f"algo={algo}", task, "schedule.online_steps=10"]).phases()
