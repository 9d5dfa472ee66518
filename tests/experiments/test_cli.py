"""Names and values that do not exist get a suggestion and exit code 2; no traceback, and nothing is written."""

import re

import pytest

from experiments.overrides import parse
from experiments.run import main
from experiments.settings import ALGORITHMS
from hybridrl.errors import ConfigError

WRONG = {
    "an algorithm": (["algo=wsrk"], "no algorithm 'wsrk'; did you mean 'wsrl'?"),
    "a task": (["task=pointmaze-umaze-v3"], "did you mean 'pointmaze-umaze-v2'?"),
    "a scale": (["scale=papre"], "did you mean 'paper'?"),
    "a plain key": (["sede=1"], "no setting 'sede'; did you mean 'seed'?"),
    "a group": (["agnet.discount=0.9"], "did you mean 'agent.discount'?"),
    "a key of the agent": (
        ["agent.discout=0.9"],
        "no setting 'agent.discout' in WSRLConfig; did you mean 'agent.discount'?",
    ),
    "a nested key": (["agent.sac.discuont=0.9"], "did you mean 'agent.discount'?"),
    "another agent's key": (["algo=sac", "agent.weihgt=1"], "no setting 'agent.weihgt' in SACConfig"),
    "a key of the schedule": (["schedule.warmup_step=1"], "did you mean 'schedule.warmup_steps'?"),
    "a key of the loop": (["loop.log_evry=1"], "did you mean 'loop.log_every'?"),
    "a forgotten group": (["warmup_steps=1"], "did you mean 'schedule.warmup_steps'?"),
    "a forgotten key": (["wsrl"], "did you mean 'algo=wsrl'?"),
    "an ambiguous key": (["agent.num_critics=3"], "write the one you mean in full"),
    "a float for an int": (["schedule.online_steps=1.5"], "schedule.online_steps"),
    "a word for a float": (["agent.discount=high"], "agent.sac.discount: Value 'high'"),
    "a word for an int": (["seed=one"], "seed: Value 'one'"),
    "a number for a list": (["agent.actor_hidden_dims=64"], "agent.sac.actor_hidden_dims"),
    "a negative seed": (["seed=-1"], "expected 0 or more"),
    "a choice": (["schedule.retention=som"], "expected one of none, mixed, append"),
    "a choice of the agent's": (["agent.actor_q=max"], "expected one of min, mean"),
    "a warm-up too long": (["schedule.warmup_steps=99999"], "which includes it"),
    "spacings that do not fit": (["loop.checkpoint_every=350"], "is no multiple of log_every"),
    "a list without -m": (["seed=0,1"], "add -m"),
    "a key twice": (["seed=0", "seed=1"], "given 2 times"),
    "an added key": (["+x=1"], "changed, not added"),
    "a group as a whole": (["agent.sac=1"], "group of settings"),
    "an option": (["--sed"], "no option '--sed'"),
    "a setting of Hydra's": (["hydra.run.dir=x"], "not to be set"),
    "a launcher": (["-m", "hydra/launcher=jolib"], "did you mean 'joblib'?"),
    "a task without data": (["task=probe/bandit-v0"], "choose another task, or algo=sac"),
    "RLPD with an offline phase": (["algo=rlpd", "schedule.offline_updates=5"], "RLPD has no offline phase"),
    "Cal-QL without returns": (["algo=calql", "schedule.insert=step"], "finished episodes"),
    "BC with an online phase": (["algo=bc", "schedule.online_steps=50"], "give offline=bc online=sac"),
    "half a pair": (["offline=iql"], "offline=iql needs online=... beside it"),
    "a pair and an algorithm": (["algo=iql", "offline=iql", "online=sac"], "give either"),
    "a pair of a wrong name": (["offline=iql", "online=sca"], "no algorithm 'sca'; did you mean 'sac'?"),
    "three algorithms": (["algo=bc+iql+sac"], "names 3 algorithms"),
    "a pair without an offline phase": (["offline=rlpd", "online=sac"], "schedule.offline_updates=0"),
    "a pair that goes on by cloning": (["offline=iql", "online=bc"], "BC only clones a dataset"),
    "a pair's ambiguous key": (["offline=iql", "online=sac", "agent.num_critics=3"], "write the one you mean in full"),
    "a pair of other actors": (
        ["offline=td3bc", "online=sac"],
        "actor: a DeterministicActor before, a TanhNormalActor expected",
    ),
    "a pair of other densities": (
        ["offline=iql", "online=sac", "agent.offline.actor=normal"],
        "actor: a NormalActor before, a TanhNormalActor expected",
    ),
    "a pair of on-policy and off-policy": (
        ["offline=unio4", "online=rlpd", "task=probe/reach-v0"],
        "RLPDAgent cannot take over from UniO4Agent",
    ),
    "n steps of rollouts": (["algo=ppo", "schedule.n_step=3"], "nor n-step targets"),
    "n steps of blocks": (["algo=moorl", "schedule.n_step=3"], "look one step ahead"),
    "n steps of nothing": (["schedule.n_step=0"], "schedule.n_step=0"),
    "one bad job of a sweep": (["-m", "algo=wsrl,rlpd", "agent.penalty.weight=1"], "RLPDConfig"),
}


@pytest.mark.parametrize(("arguments", "message"), WRONG.values(), ids=WRONG)
def test_mistakes_are_told(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert message in err
    assert "Traceback" not in err
    assert err.startswith("error: ")
    assert out == ""
    assert list(tmp_path.iterdir()) == []


def test_a_typo_in_a_process_of_its_own(cli, tmp_path):
    done = cli(tmp_path, "agent.expectle=0.9")
    assert done.returncode == 2
    assert done.stdout == ""
    assert "no setting 'agent.expectle' in WSRLConfig" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_help_in_a_process_of_its_own(cli, tmp_path):
    done = cli(tmp_path, "--help")
    assert done.returncode == 0
    assert done.stderr == ""
    for name in ALGORITHMS:
        assert f"algo={name}" in done.stdout
    for expected in (
        "task=pointmaze-umaze-v2",
        "scale=paper",
        "schedule.warmup_steps=5000",
        "agent.sac.discount=0.99",
        "hydra/launcher=joblib",
        "resume",
        "exit codes",
        "  75  ",
        "fraction of the critic its target takes over",
    ):
        assert expected in done.stdout, expected
    assert list(tmp_path.iterdir()) == []


def test_help_shows_the_chosen_algorithms_settings(capsys):
    assert main(["-h", "algo=rlpd", "scale=paper"]) == 0
    out = capsys.readouterr().out
    assert "agent.sac.critic_updates=20" in out
    assert "schedule.online_steps=300000" in out


def test_a_dry_run_writes_nothing(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["--dry-run", "agent.discount=0.995"]) == 0
    out = capsys.readouterr().out
    assert '"discount": 0.995' in out
    assert re.search(r"folder: runs/pointmaze-umaze-v2/wsrl/[0-9a-f]{10}/seed_0", out)
    assert list(tmp_path.iterdir()) == []


def test_sweeps_are_the_product_of_their_lists():
    jobs = parse(["algo=wsrl,sac", "seed=range(0,3)"], sweep=True)
    assert [[str(override) for override in job] for job in jobs] == [
        [f"algo={algo}", f"seed={seed}"] for algo in ("wsrl", "sac") for seed in range(3)
    ]


def test_a_list_that_is_one_value_is_no_sweep():
    assert len(parse(["agent.sac.actor_hidden_dims=[64,64]"], sweep=True)) == 1


def test_values_keep_their_spelling():
    with pytest.raises(ConfigError, match="no task"):
        parse(["task='a,b'"], sweep=True)


@pytest.mark.parametrize("typed", ["uni_o4", "uni-o4", "Uni-O4", "unio4"])
def test_names_of_algorithms_may_be_spelled_as_in_their_papers(typed):
    assert [str(override) for override in parse([f"algo={typed}"], sweep=False)[0]] == ["algo=unio4"]
    pair = parse([f"offline={typed}", "online=TD3_BC"], sweep=False)[0]
    assert [str(override) for override in pair] == ["algo=unio4+td3bc"]
