"""What the user typed, checked against every name there is. No JAX here, so that a typo is told at once."""

from __future__ import annotations

import dataclasses
import difflib
import importlib.util
import itertools
from collections.abc import Iterable, Sequence

from experiments.settings import ALGORITHMS, PAIR, SCALES, LoopConfig, ScheduleConfig, spelled
from hybridrl.errors import ConfigError, MissingExtraError

DEFAULTS = {"algo": "wsrl", "task": "pointmaze-umaze-v2", "scale": "cpu"}
LAUNCHER = "hydra/launcher"
LAUNCHERS = {  # name -> the module that must be importable, the extra that brings it
    "basic": ("hydra", ""),
    "joblib": ("hydra_plugins.hydra_joblib_launcher", "sweep"),
    "submitit_local": ("hydra_plugins.hydra_submitit_launcher", "sweep"),
    "submitit_slurm": ("hydra_plugins.hydra_submitit_launcher", "sweep"),
}
_PLAIN = ("algo", "offline", "online", "task", "scale", "seed", "root", "start_from")
_ALGORITHM_KEYS = ("algo", "offline", "online")
_GROUPS = {"schedule": ScheduleConfig, "loop": LoopConfig}


@dataclasses.dataclass(frozen=True)
class Override:
    """`key=text`, one value of it where the user listed several."""

    key: str
    text: str

    def __str__(self) -> str:
        """As on the command line."""
        return f"{self.key}={self.text}"


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that `name` most probably stands for."""
    found = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return found[0] if found else None


def parse(arguments: Sequence[str], *, sweep: bool) -> list[list[Override]]:
    """The overrides of every job, with names checked as far as that goes without the algorithm's own settings.

    Args:
        arguments: `key=value` as typed; with `sweep`, a value may be a list `a,b` or `range(0,5)`.

    Raises:
        ConfigError: a key, algorithm, task or scale does not exist, or a value cannot be parsed.
    """
    choices = []
    for argument in arguments:
        key, values = _split(argument)
        _check_key(key)
        if key in _ALGORITHM_KEYS:
            values = [spelled(value) for value in values]
        if len(values) > 1 and not sweep:
            raise ConfigError(
                f"{argument!r} lists several values; add -m to run all of them, or quote the text to mean one value"
            )
        for value in values:
            _check_choice(key, value)
        choices.append([Override(key, value) for value in values])
    keys = [options[0].key for options in choices]
    for key in keys:
        if keys.count(key) > 1:
            raise ConfigError(f"{key!r} is given {keys.count(key)} times; expected it once")
    return [_paired(list(job)) for job in itertools.product(*choices)]


def _paired(job: list[Override]) -> list[Override]:
    """`offline=a online=b` as `algo=a+b`."""
    given = {override.key: override.text for override in job if override.key in _ALGORITHM_KEYS}
    if not given.keys() - {"algo"}:
        return job
    if "algo" in given:
        raise ConfigError(
            "algo=... names the algorithm of all phases, offline=... online=... one for each; give either"
        )
    if len(given) == 1:
        ((key, name),) = given.items()
        other = "online" if key == "offline" else "offline"
        raise ConfigError(f"{key}={name} needs {other}=... beside it; for {name} in all phases write algo={name}")
    pair = Override("algo", f"{given['offline']}{PAIR}{given['online']}")
    return [pair, *(override for override in job if override.key not in given)]


def _split(argument: str) -> tuple[str, list[str]]:
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    if argument.startswith(("+", "~")):
        raise ConfigError(f"{argument!r}: settings can be changed, not added or removed; write key=value")
    if argument.startswith("-"):
        raise ConfigError(f"no option {argument!r}; expected key=value, -m, --dry-run or --help")
    if "=" not in argument:
        known = _completed(argument)
        hint = f"; did you mean {known!r}?" if known else "; for example algo=wsrl; see --help"
        raise ConfigError(f"{argument!r} is not key=value{hint}")
    try:
        override = OverridesParser.create().parse_override(argument)
    except HydraException as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(
            f"cannot read {argument!r} ({reason}); expected key=value, text with blanks in quotes"
        ) from None
    if override.is_sweep_override():
        return override.key_or_group, [str(value) for value in override.sweep_string_iterator()]
    return override.key_or_group, [argument.partition("=")[2]]


def _completed(word: str) -> str | None:
    """`wsrl` -> `algo=wsrl`, for those who leave out the key."""
    from envs import task_names

    for key, names in {"algo": ALGORITHMS, "task": task_names(), "scale": SCALES}.items():
        if found := nearest(word, names):
            return f"{key}={found}"
    return None


def _check_key(key: str) -> None:
    head, _, rest = key.partition(".")
    if key in _PLAIN or (head == "agent" and rest) or key == LAUNCHER or key.startswith("hydra.launcher."):
        return
    if key.startswith("hydra"):
        raise ConfigError(f"{key!r} is not to be set; of Hydra's own settings hydra/launcher and hydra.launcher.* are")
    if head == "agent":
        raise ConfigError("'agent' is a group of settings; set its entries one by one, e.g. agent.discount=0.995")
    names = {f"{group}.{field.name}" for group, cls in _GROUPS.items() for field in dataclasses.fields(cls)}
    if key in names:
        return
    if head in _GROUPS and not rest:
        raise ConfigError(f"{head!r} is a group of settings; set its entries one by one; see --help for their names")
    bare = {name.partition(".")[2]: name for name in sorted(names)}
    if head in _GROUPS:
        near = nearest(key, names) or bare.get(nearest(rest, bare) or "")
    elif nearest(head, (*_GROUPS, "agent")) and rest:
        group = nearest(head, (*_GROUPS, "agent"))
        near = f"agent.{rest}" if group == "agent" else nearest(f"{group}.{rest}", names)
    else:
        near = nearest(key, _PLAIN) or bare.get(nearest(key, bare) or "")
    where = f" in {_GROUPS[head].__name__}" if head in _GROUPS else ""
    hint = f"did you mean {near!r}?" if near else f"expected {', '.join(_PLAIN)}, agent.*, schedule.* or loop.*"
    raise ConfigError(f"no setting {key!r}{where}; {hint}")


def _check_launcher(name: str) -> None:
    if name not in LAUNCHERS:
        near = nearest(name, LAUNCHERS)
        hint = f"did you mean {near!r}? " if near else ""
        raise ConfigError(f"no launcher {name!r}; {hint}expected one of {', '.join(LAUNCHERS)}")
    module, extra = LAUNCHERS[name]
    try:
        found = importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        found = False
    if not found:
        raise MissingExtraError(
            f"hydra/launcher={name} needs the extra {extra!r}: pip install 'hybridrl[{extra}]'; "
            "without it, jobs run one after the other with hydra/launcher=basic"
        )


def _check_choice(key: str, value: str) -> None:
    if key == LAUNCHER:
        _check_launcher(value)
    if key in _ALGORITHM_KEYS:
        names = value.split(PAIR) if key == "algo" else [value]
        if len(names) > 2:
            raise ConfigError(f"algo={value} names {len(names)} algorithms; expected one, or two joined by {PAIR!r}")
        for name in names:
            if name not in ALGORITHMS:
                near = nearest(name, ALGORITHMS)
                hint = f"did you mean {near!r}? " if near else ""
                raise ConfigError(f"no algorithm {name!r}; {hint}expected one of {', '.join(ALGORITHMS)}")
    if key == "scale" and value not in SCALES:
        near = nearest(value, SCALES)
        hint = f"did you mean {near!r}? " if near else ""
        raise ConfigError(f"no scale {value!r}; {hint}expected one of {', '.join(SCALES)}")
    if key == "task":
        from envs import make_task

        make_task(value)
