"""RunConfig, and how the command line becomes one: Hydra's structured configs, checked before anything is written."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import hashlib
import json
import types
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from envs import make_task
from experiments import presets
from experiments.overrides import DEFAULTS, Override, nearest, parse
from experiments.settings import LoopConfig, ScheduleConfig
from hybridrl.errors import ConfigError
from hybridrl.task import Task
from hybridrl.training.phases import Phase
from hybridrl.training.progress import LoopSettings


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """All that determines a run.

    Attributes:
        algo, task: names.
        scale: "cpu" or "paper": which preset the settings started from.
        seed: of everything random.
        root: the folder of all run folders.
        start_from: a finished run that this one begins with, see `experiments.start_from`; it changes no result.
        agent: the algorithm's own config.
        schedule: what happens when.
        loop: how it is carried out.
    """

    algo: str
    task: str
    scale: str
    seed: int
    root: str
    agent: Any
    schedule: ScheduleConfig
    loop: LoopConfig
    start_from: str = ""

    def resolved(self) -> dict[str, Any]:
        """Every setting as plain JSON values, without seed, root and start_from: what seeds share."""
        values = dataclasses.asdict(self)
        for name in ("seed", "root", "start_from"):
            del values[name]
        return json.loads(json.dumps(values))

    def hash(self) -> str:
        """Ten hexadecimal digits of the resolved settings."""
        return hashlib.sha256(json.dumps(self.resolved(), sort_keys=True).encode()).hexdigest()[:10]

    def folder(self) -> Path:
        """`<root>/<task>/<algo>/<hash>/seed_<n>`."""
        return Path(self.root) / self.task / self.algo / self.hash() / f"seed_{self.seed}"

    def make_task(self) -> Task:
        """The task's record."""
        return make_task(self.task)

    def phases(self) -> tuple[Phase, ...]:
        """What the run does.

        Raises:
            ConfigError: settings contradict one another, or the task lacks the data they need.
        """
        task = self.make_task()
        found: tuple[Phase, ...] = presets.module(self.algo).phases(self, task)
        needing = [phase.name for phase in found if phase.needs_dataset]
        if needing and task.dataset is None:
            raise ConfigError(
                f"algo={self.algo} trains on offline data in its {needing[0]!r} phase, and task {task.name!r} has "
                "none; choose another task, or algo=sac"
            )
        if not found:
            raise ConfigError(
                f"algo={self.algo} has nothing to do with schedule.offline_updates={self.schedule.offline_updates} and "
                f"schedule.online_steps={self.schedule.online_steps}; raise one of them"
            )
        return found

    def check(self) -> None:
        """Raise ConfigError if the run could not even begin."""
        self.phases()
        self.loop_settings()

    def loop_settings(self) -> LoopSettings:
        """The loop's settings, with the agent's discount, if it has one.

        Raises:
            ConfigError: two agents of the run have different ones.
        """
        names = [name for name in field_names(type(self.agent)) if name.rpartition(".")[2] == "discount"]
        values = {name: float(functools.reduce(getattr, name.split("."), self.agent)) for name in names}
        if len(set(values.values())) > 1:
            listed = " and ".join(f"agent.{name}={value}" for name, value in values.items())
            raise ConfigError(
                f"{listed} of one run; expected equal discounts, since values cross from one to the other"
            )
        settings = LoopSettings(**dataclasses.asdict(self.loop))
        return dataclasses.replace(settings, discount=min(values.values())) if values else settings


def compose(overrides: Sequence[str] = ()) -> RunConfig:
    """The config of one run from overrides as on the command line, e.g. `compose(["algo=rlpd", "seed=3"])`.

    Raises:
        ConfigError: anything in them is wrong.
    """
    jobs = parse(overrides, sweep=False)
    return from_hydra(compose_node(expand(jobs[0])))


def compose_node(overrides: Sequence[str]) -> Any:
    """Hydra's config for checked and expanded overrides.

    Raises:
        ConfigError: a value has the wrong type.
    """
    from hydra import compose as hydra_compose
    from hydra import initialize
    from hydra.errors import HydraException

    try:
        with initialize(version_base="1.3", config_path=None):
            return hydra_compose(config_name="run", overrides=list(overrides))
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(_type_error(error)) from error


def _type_error(error: BaseException) -> str:
    """One line out of OmegaConf's several."""
    root: BaseException = error
    while root.__cause__ is not None:
        root = root.__cause__
    key = getattr(root, "full_key", None)
    text = str(getattr(root, "msg", None) or root).splitlines()[0]
    return f"{key}: {text}" if key else text


def expand(overrides: Sequence[Override]) -> list[str]:
    """Overrides of one job with full names, after registering the job's preset with Hydra.

    Raises:
        ConfigError: the algorithm has no such setting.
    """
    chosen = DEFAULTS | {override.key: override.text for override in overrides if override.key in DEFAULTS}
    preset = register(chosen["algo"], chosen["task"], chosen["scale"])
    expanded = []
    for override in overrides:
        head, _, rest = override.key.partition(".")
        if head != "agent":
            expanded.append(str(override))
            continue
        expanded.append(f"agent.{field_name(type(preset.agent), rest)}={override.text}")
    return expanded


@functools.cache
def register(algo: str, task: str, scale: str) -> presets.Preset:
    """Make a preset known to Hydra, and return it."""
    preset: presets.Preset = presets.module(algo).preset(make_task(task), scale)
    store = ConfigStore.instance().store
    store(name="run", node=_Node)
    for key, value in {"algo": algo, "task": task, "scale": scale}.items():
        group, _, name = f"{key}/{value}".rpartition("/")
        store(group=group, name=name, node={key: value}, package="_global_")
    parts = {"agent": node(preset.agent), "schedule": node(preset.schedule), "loop": node(preset.loop)}
    store(group=f"preset/{algo}/{task}", name=scale, node=parts, package="_global_")
    return preset


def from_hydra(config: Any) -> RunConfig:
    """The frozen, typed config out of Hydra's; every dataclass checks its own values.

    Raises:
        ConfigError: a value is out of its range.
    """
    values: Any = OmegaConf.to_container(config, resolve=True)
    return from_values(values)


def from_values(values: dict[str, Any]) -> RunConfig:
    """The config whose settings these plain values are, as `RunConfig.resolved` and a run folder give them.

    Raises:
        ConfigError: a value is out of its range.
    """
    preset = register(values["algo"], values["task"], values["scale"])
    if values["seed"] < 0:
        raise ConfigError(f"seed={values['seed']}; expected 0 or more")
    return RunConfig(
        algo=values["algo"],
        task=values["task"],
        scale=values["scale"],
        seed=values["seed"],
        root=values.get("root", ""),
        start_from=values.get("start_from", ""),
        agent=build(type(preset.agent), values["agent"]),
        schedule=build(ScheduleConfig, values["schedule"]),
        loop=build(LoopConfig, values["loop"]),
    )


def field_names(cls: Any) -> list[str]:
    """Dotted names of all settings in a config dataclass and those nested in it."""
    names = []
    for field, kind in _hints(cls).items():
        names += [f"{field}.{inner}" for inner in field_names(kind)] if _nested(kind) else [field]
    return names


def field_name(cls: type, name: str) -> str:
    """The full dotted name of a setting that may leave out the nested configs it is in.

    Raises:
        ConfigError: there is no such setting, or several.
    """
    names = field_names(cls)
    if name in names:
        return name
    matches = [full for full in names if full.endswith(f".{name}")]
    if len(matches) == 1:
        return matches[0]
    if matches:
        several = " and ".join(f"'agent.{full}'" for full in matches)
        raise ConfigError(f"'agent.{name}' could be {several} of {cls.__name__}; write the one you mean in full")
    inside = [full for full in names if full.startswith(f"{name}.")]
    if inside:
        raise ConfigError(
            f"'agent.{name}' is a group of settings; set its entries one by one, e.g. agent.{inside[0]}=..."
        )
    short = {full.rpartition(".")[2]: full for full in names}
    near = difflib.get_close_matches(name.rpartition(".")[2], short, n=1, cutoff=0.5)
    direct = nearest(name, names)
    hint = f"; did you mean 'agent.{near[0] if near else direct}'?" if near or direct else ""
    if not hint:
        hint = f"; expected one of {', '.join(names)}"
    raise ConfigError(f"no setting 'agent.{name}' in {cls.__name__}{hint}")


def build(cls: type, values: dict[str, Any]) -> Any:
    """A config dataclass from plain values; lists become tuples."""
    hints = _hints(cls)
    arguments = {}
    for name, value in values.items():
        arguments[name] = (
            build(hints[name], value) if _nested(hints[name]) else tuple(value) if isinstance(value, list) else value
        )
    return cls(**arguments)


_twins: dict[Any, Any] = {}


def node(config: Any) -> Any:
    """A config dataclass's values as an instance of its twin, which Hydra may fill in.

    OmegaConf refuses to override entries of frozen dataclasses; the twin has the same fields and types.
    """
    values = {field: getattr(config, field) for field in _hints(type(config))}
    values = {
        field: node(value) if _nested(value) else list(value) if isinstance(value, tuple) else value
        for field, value in values.items()
    }
    return _twin(type(config))(**values)


def _twin(cls: Any) -> Any:
    if cls not in _twins:
        fields = [(name, _twin(kind) if _nested(kind) else kind) for name, kind in _hints(cls).items()]
        _twins[cls] = dataclasses.make_dataclass(cls.__name__, fields)
    return _twins[cls]


def _hints(cls: Any) -> dict[str, Any]:
    hints = typing.get_type_hints(cls)
    # `X | None` in the spelling that OmegaConf knows in every version.
    return {field.name: _optional(hints[field.name]) for field in dataclasses.fields(cls)}


def _nested(kind: Any) -> bool:
    """Whether it is a config within a config."""
    return dataclasses.is_dataclass(kind)


def _optional(hint: Any) -> Any:
    if isinstance(hint, types.UnionType):
        return typing.Optional[next(kind for kind in hint.__args__ if kind is not type(None))]  # noqa: UP045
    return hint


@dataclasses.dataclass
class _Node:
    """The root that Hydra composes: groups first, then the preset that they choose together."""

    defaults: list[Any] = dataclasses.field(
        default_factory=lambda: [
            "_self_",
            {"algo": DEFAULTS["algo"]},
            {"task": DEFAULTS["task"]},
            {"scale": DEFAULTS["scale"]},
            {"preset": "${algo}/${task}/${scale}"},
            {"override hydra/job_logging": "disabled"},
            {"override hydra/hydra_logging": "disabled"},
        ]
    )
    algo: str = MISSING
    task: str = MISSING
    scale: str = MISSING
    seed: int = 0
    root: str = "runs"
    start_from: str = ""
    agent: Any = MISSING
    schedule: Any = MISSING
    loop: Any = MISSING
    # A run's files are in its own folder; Hydra adds none.
    hydra: Any = dataclasses.field(
        default_factory=lambda: {
            "output_subdir": None,
            "run": {"dir": "."},
            "sweep": {"dir": ".", "subdir": "."},
        }
    )
