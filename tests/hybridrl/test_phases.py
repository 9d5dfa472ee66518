import dataclasses

import pytest

from algorithms import CQLAgent, CQLConfig, SACAgent, SACConfig, WSRLAgent, WSRLConfig
from hybridrl.errors import ConfigError
from hybridrl.training.online import example_transition
from hybridrl.training.phases import Learner, Phase, check_phases

SAC = SACConfig(actor_hidden_dims=(4,), critic_hidden_dims=(4,), num_critics=2, initializer="xavier_uniform")
ONLINE = WSRLConfig(sac=SAC)
EXAMPLE = example_transition(3, 2)


def schedule(online):
    return (
        Phase("offline", ONLINE.offline_learner(), num_updates=10),
        Phase("warmup", ONLINE.offline_learner(), env_steps=5),
        Phase("online", online, env_steps=20, updates_per_step=1),
    )


def test_wsrls_own_schedule_fits():
    check_phases(schedule(Learner(WSRLAgent, ONLINE)), EXAMPLE)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"critic_hidden_dims": (4, 4)}, "critic"),
        ({"num_critics": 3}, "critic: num_critics=2 before, 3 expected"),
        ({"actor_layer_norm": False}, "actor: layer_norm=True before, False expected"),
        ({"std_kind": "free"}, "actor"),
        ({"shared_critic_head": False}, "critic: shared_head=True before, False expected"),
    ],
)
def test_networks_that_do_not_fit_are_found_before_training(changes, named):
    online = Learner(WSRLAgent, WSRLConfig(sac=dataclasses.replace(SAC, **changes)))
    with pytest.raises(ConfigError, match=r"(?s)WSRLAgent cannot take over from CalQLAgent.*" + named):
        check_phases(schedule(online), EXAMPLE)


def test_a_run_needs_a_phase():
    with pytest.raises(ConfigError, match="at least one phase"):
        check_phases((), EXAMPLE)


@pytest.mark.parametrize(
    "setting",
    [
        {"num_updates": 1, "env_steps": 1},
        {},
        {"env_steps": 1, "mix_order": "shuffle"},
        {"env_steps": 1, "start_buffer": "empty"},
        {"env_steps": 1, "actions": "best"},
        {"env_steps": 1, "insert": "never"},
        {"env_steps": 1, "offline_ratio": 1.5},
        {"env_steps": 1, "batches": "both"},
        {"env_steps": 1, "batches": "separate"},
        {"env_steps": 1, "batches": "separate", "offline_ratio": 0.25},
        {"num_updates": 1, "batches": "separate", "offline_ratio": 0.5},
        {"env_steps": 1, "batches": "blocks", "block_source": "die"},
        {"env_steps": 1, "offline_by_step": True},
        {"num_updates": 1, "offline_by_step": True, "next_actions": True},
        {"num_updates": 1, "offline_by_step": True, "n_step": 2},
    ],
)
def test_phases_that_contradict_themselves(setting):
    with pytest.raises(ConfigError, match="phase 'x'"):
        Phase("x", Learner(SACAgent, SAC), **setting)


def test_what_a_phase_needs():
    learner = Learner(CQLAgent, CQLConfig())
    offline, online = Phase("a", learner, num_updates=7), Phase("b", learner, env_steps=9)
    assert (offline.offline, offline.length, offline.needs_dataset) == (True, 7, True)
    assert (online.offline, online.length, online.needs_dataset) == (False, 9, False)
    assert dataclasses.replace(online, offline_ratio=0.1).needs_dataset
    assert dataclasses.replace(online, start_buffer="offline").needs_dataset
    assert dataclasses.replace(online, batches="blocks").needs_dataset


def test_a_batch_that_does_not_divide_is_refused_before_training():
    learner = Learner(SACAgent, SACConfig(actor_hidden_dims=(4,), critic_hidden_dims=(4,), critic_updates=4))
    online = Phase("online", learner, env_steps=10, updates_per_step=1, batch_size=30)
    with pytest.raises(ConfigError, match=r"'online'.*30 rows does not divide"):
        check_phases((online,), example_transition(2, 1))
    check_phases((dataclasses.replace(online, batch_size=32),), example_transition(2, 1))


@pytest.mark.parametrize(
    "wrong", [{"min_buffer": 0}, {"updates_per_step": -1}, {"batch_size": 0}, {"update_every": 0}, {"block_length": 0}]
)
def test_numbers_that_cannot_work_are_refused(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        Phase("online", Learner(None, None), env_steps=10, **wrong)


def test_updates_per_update_and_per_environment_step():
    learner = Learner(None, None)
    assert Phase("offline", learner, num_updates=7).updates_per_unit == 1.0
    assert Phase("warmup", learner, env_steps=10).updates_per_unit == 0.0
    assert Phase("online", learner, env_steps=10, updates_per_step=20, update_every=5).updates_per_unit == 4.0
    rollouts = Phase("online", learner, env_steps=80, batches="rollouts", num_envs=4, rollout_steps=10)
    assert rollouts.updates_per_unit == 1 / 40
