"""What `python -m experiments.run --help` says."""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
from collections.abc import Sequence
from typing import Any

from envs import make_task, task_names
from experiments.overrides import DEFAULTS, parse
from experiments.settings import ALGORITHMS
from hybridrl.task import Task

_USAGE = """\
Train an agent offline, online, or first one and then the other, on one task.

usage: python -m experiments.run [algo=NAME] [task=NAME] [scale=cpu|paper] [seed=N] [key=value ...]
       python -m experiments.run offline=NAME online=NAME [...]     (one algorithm's offline phase, another's online)
       python -m experiments.run -m key=value,value,... [hydra/launcher=joblib]     (a sweep)

A run writes its settings, provenance, metrics (JSON lines and TensorBoard), checkpoints, result and learning curve to
  runs/<task>/<algo>/<hash of the settings>/seed_<n>/
The same command resumes a run that was interrupted, and shows the results of one that is finished.

options
  -m, --multirun   run every combination of the values given as lists: seed=0,1,2 or seed='range(0,5)'
  --dry-run        check everything, show all settings and the run folder, and write nothing
  -h, --help       this text, with the defaults of the algo, task and scale given beside it
"""

_EXAMPLES = """\
examples
  python -m experiments.run                                        # WSRL on the embedded maze data; minutes on 2 cores
  python -m experiments.run algo=rlpd task=probe/reach-v0 seed=3
  python -m experiments.run agent.discount=0.995 schedule.warmup_steps=0          # change settings
  python -m experiments.run algo=wsrl scale=paper                  # published budgets and widths; wants a GPU or a day
  python -m experiments.run -m algo=wsrl,rlpd seed=0,1,2,3 hydra/launcher=joblib  # a sweep on all cores
  python -m experiments.run offline=cql online=sac                 # settings are agent.offline.* and agent.online.*
  python -m experiments.run algo=rlpd --help                       # the settings of RLPD
  To resume, give the command again: by run or by sweep, only what is missing is done.

environment
  HYBRIDRL_DATA       folder of all datasets (default ~/.cache/hybridrl)
  HYBRIDRL_OFFLINE=1  never download

exit codes
  0   finished (also: was finished already)
  1   internal error or diverged training; of a sweep: some run failed
  2   a setting or name is wrong, an extra is missing, or another process uses the run folder
  3   data cannot be had or are damaged
  75  stopped by a signal; the same command resumes
"""


def help_text(typed: Sequence[str] = ()) -> str:
    """The whole text; `typed` overrides choose whose defaults it shows.

    Raises:
        ConfigError: an algorithm, task or scale in `typed` does not exist.
    """
    chosen = dict(DEFAULTS)
    for job in parse(typed, sweep=True)[:1]:
        chosen |= {override.key: override.text for override in job if override.key in DEFAULTS}
    parts = [_USAGE, _algorithms(), _tasks(), _scales(), _general(), _settings(chosen), _EXAMPLES]
    return "\n".join(parts)


def describe(config: Any) -> str:
    """All settings of one run, for `--dry-run`."""
    settings = json.dumps(config.resolved() | {"seed": config.seed, "root": config.root}, indent=2)
    phases = ", ".join(f"{phase.name} ({phase.length:,})" for phase in config.phases())
    return f"{settings}\nphases: {phases}\nfolder: {config.folder()}"


def _algorithms() -> str:
    lines = [f"  algo={name:<9} {text}" for name, text in ALGORITHMS.items()]
    return "\n".join([f"algorithms (default {DEFAULTS['algo']})", *lines, ""])


_GROUPED = ("local/", "dmc/", "exorl/")


def _tasks() -> str:
    """Tasks, those of large families in one or two lines per environment."""
    lines = []
    grouped: dict[str, list[str]] = {}
    ogbench: dict[str, list[str]] = {}
    d4rl: dict[str, dict[str, list[str]]] = {}  # environment -> version -> kinds of data
    families: dict[str, int] = {}  # name without the number -> how many
    for name in task_names():
        task = make_task(name)
        if task.dataset is not None and task.dataset.format == "ogbench":
            environment, kind, _ = task.dataset.id.rsplit("-", 2)
            kinds = ogbench.setdefault(environment.removeprefix("visual-"), [])
            kinds += [kind] if kind not in kinds else []
            continue
        if task.dataset is not None and task.dataset.format == "d4rl":
            env, _, kind = name.partition("-")
            kind, _, version = kind.rpartition("-")
            d4rl.setdefault(env, {}).setdefault(version, []).append(kind)
            continue
        if name.startswith(_GROUPED):
            short = name.removesuffix("-v0")
            reward_free = task.dataset is None or task.dataset.format == "exorl"
            stem, _, kind = short.rpartition("-") if reward_free else short.partition("-")
            grouped.setdefault(stem, []).append(kind)
            continue
        if name.startswith("family/"):
            stem = name.rpartition("/")[0]
            families[stem] = families.get(stem, 0) + 1
            continue
        lines.append(f"  task={name}".ljust(66) + _task_text(task))
    lines += [f"  task={stem}-{{{','.join(kinds)}}}-v0" for stem, kinds in grouped.items()]
    lines += [  # of these names alone there are hundreds
        "  OGBench: task=<environment>-<kind><form>-v0, the form being -singletask or -singletask-task1 to -task5;",
        "  to reach any goal it is nothing or -oraclerep; visual-... has pixels; more in docs/datasets.md",
        *(f"    {environment}-{{{','.join(kinds)}}}" for environment, kinds in ogbench.items()),
        "  Minari: task=minari/<dataset id>, such as minari/D4RL/door/human-v2; more in docs/datasets.md",
        *(
            f"  task={stem}/0-v0 to {count - 1}-v0".ljust(66) + "one task of a family for meta-learning, no dataset"
            for stem, count in families.items()
        ),
        "  HalfCheetah, Hopper, Walker2d, Ant: task=<task>+gravity2, +friction0.3, +noise1 or +mass1.5 goes online in",
        "  a simulator that differs by so much; more in docs/environments.md",
    ]
    for env, versions in d4rl.items():
        lines.append(f"  task={env}-KIND-VERSION".ljust(66) + "D4RL; with +d4rl behind, its own episode ends")
        lines += [f"    {version}: {', '.join(kinds)}" for version, kinds in sorted(versions.items())]
    return "\n".join([f"tasks (default {DEFAULTS['task']})", *lines, ""])


def _task_text(task: Task) -> str:
    data = "no dataset, for algo=sac"
    if task.dataset is not None:
        ways = [
            *(["download"] if task.dataset.published else []),
            *(["generated here"] if task.dataset.generate is not None else []),
        ] or ["see docs/datasets.md"]
        size = f"{task.dataset.rows:,} rows " if task.dataset.rows else ""
        data = f"{size}({' or '.join(ways)})"
    return f"{task.family}; {data}"


def _scales() -> str:
    return (
        "scales (default cpu)\n"
        "  scale=paper     published budgets and network widths\n"
        "  scale=cpu       the same algorithm with smaller budgets and widths; a run's header lists what shrank\n"
    )


def _general() -> str:
    return (
        "general settings\n  seed=0          of everything random\n  root=runs       the folder of all run folders\n"
        "  start_from=         a finished run whose phases this one begins with; they are taken from there\n"
    )


def _settings(chosen: dict[str, str]) -> str:
    from experiments import presets

    preset = presets.module(chosen["algo"]).preset(make_task(chosen["task"]), chosen["scale"])
    title = f"settings and their defaults for algo={chosen['algo']} task={chosen['task']} scale={chosen['scale']}"
    lines = [title]
    nested = [name for name, _ in _flat(preset.agent) if "." in name]
    if nested:
        lines.append(f"  (agent.* may leave out the part between if only one fits: for instance of agent.{nested[0]})")
    for group in ("agent", "schedule", "loop"):
        lines += _documented(group, getattr(preset, group))
    return "\n".join([*lines, ""])


def _documented(prefix: str, config: Any) -> list[str]:
    """`name=value` of every setting, with what the source says of it."""
    values = [getattr(config, field.name) for field in dataclasses.fields(config)]
    # A pair's config holds nothing but the two agents'; it was made on the spot and has no source to read.
    comments = {} if all(dataclasses.is_dataclass(value) for value in values) else _comments(type(config))
    lines = []
    for field in dataclasses.fields(config):
        name, value = f"{prefix}.{field.name}", getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            lines += _documented(name, value)
            continue
        line = f"  {name}={_value(value)}"
        comment = comments.get(field.name, "")
        lines.append(f"{line:<46} {comment}".rstrip())
    return lines


def _comments(cls: type) -> dict[str, str]:
    """What is said of each field: the comment beside it, or its first sentence in the docstring's "Attributes"."""
    found = {}
    for line in inspect.getsource(cls).splitlines():
        if match := re.match(r"    (\w+): .*?  # (.*)", line):
            found[match[1]] = match[2]
    docstring = " ".join((cls.__doc__ or "").partition("Attributes:")[2].split())
    names = "|".join(field.name for field in dataclasses.fields(cls))
    entry = rf"(?:^|\. )((?:(?:{names})(?:, )?)+): "
    pieces = re.split(entry, docstring)[1:]
    for given, text in zip(pieces[::2], pieces[1::2], strict=True):
        sentence = re.split(r"[.;] ", text)[0].rstrip(".")
        found |= {name: sentence for name in given.split(", ")}
    return found


def _flat(config: Any) -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            found += [(f"{field.name}.{name}", inner) for name, inner in _flat(value)]
        else:
            found.append((field.name, value))
    return found


def _value(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, tuple):
        return "[" + ",".join(_value(entry) for entry in value) + "]"
    return str(value).lower() if isinstance(value, bool) else str(value)
