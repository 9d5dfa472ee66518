"""Two algorithms in one run: `offline=cql online=sac`, the offline phase of the first, then the second's online phases.

The second agent takes over the networks of the first, so both must have the same kind. The preset gives the offline
agent the online agent's network settings, wherever both have a setting of that name, as WSRL does with its own pair.
What still differs (a deterministic actor and a stochastic one, say) is told before training starts.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

from experiments import presets
from hybridrl.errors import ConfigError
from hybridrl.task import Task
from hybridrl.training.online import example_transition
from hybridrl.training.phases import Phase, check_handover

# Settings that say what a network is, not how it is trained.
_NETWORKS = (
    "actor_hidden_dims",
    "critic_hidden_dims",
    "value_hidden_dims",
    "actor_layer_norm",
    "critic_layer_norm",
    "std_kind",
    "std_bounds",
    "num_critics",
    "shared_critic_head",
    "temperature_parameterization",
)
_OFFLINE = ("offline_updates", "offline_batch_size", "offline_every")  # of the schedule; the rest is the online agent's


@dataclasses.dataclass(frozen=True)
class Pair:
    """The preset of `offline` followed by `online`, names in `ALGORITHMS`."""

    offline: str
    online: str

    def preset(self, task: Task, scale: str) -> presets.Preset:
        """Both algorithms' presets in one: settings `agent.offline.*` and `agent.online.*`."""
        first, second = (presets.module(name).preset(task, scale) for name in (self.offline, self.online))
        schedule = dataclasses.replace(second.schedule, **{field: getattr(first.schedule, field) for field in _OFFLINE})
        if schedule.online_steps == 0:  # an algorithm published offline only
            schedule = dataclasses.replace(schedule, online_steps=first.schedule.online_steps)
        agents: tuple[Any, Any] = (type(first.agent), type(second.agent))
        kind = _pair_config(*agents)
        return presets.Preset(kind(_fitted(first.agent, second.agent), second.agent), schedule, second.loop)

    def phases(self, config: Any, task: Task) -> tuple[Phase, ...]:
        """The offline phase, a warm-up with its frozen policy if there is one, then the online agent's phases.

        Raises:
            ConfigError: one of the two has no such phase, or their networks do not fit.
        """
        schedule = config.schedule
        for field in ("offline_updates", "online_steps"):
            if getattr(schedule, field) == 0:
                raise ConfigError(
                    f"schedule.{field}=0; offline={self.offline} online={self.online} needs both phases; "
                    "set it above 0, or give algo=... for one algorithm alone"
                )
        first = self._part(config, self.offline, config.agent.offline, task, online_steps=0, warmup_steps=0)
        second = self._part(config, self.online, config.agent.online, task, offline_updates=0)
        trained = first[-1].learner
        # Whether two kinds of networks fit does not depend on the task's dimensions.
        check_handover(trained, second[-1].learner, example_transition(2, 1))
        second = tuple(phase if phase.trains else dataclasses.replace(phase, learner=trained) for phase in second)
        return (*first, *second)

    def _part(self, config: Any, algo: str, agent: Any, task: Task, **schedule: Any) -> tuple[Phase, ...]:
        part = dataclasses.replace(
            config, algo=algo, agent=agent, schedule=dataclasses.replace(config.schedule, **schedule)
        )
        found: tuple[Phase, ...] = presets.module(algo).phases(part, task)
        return found


@functools.cache
def _pair_config(offline: Any, online: Any) -> Any:
    """The config class of two agents in one run."""
    name = f"{offline.__name__.removesuffix('Config')}Then{online.__name__}"
    return dataclasses.make_dataclass(name, [("offline", offline), ("online", online)], frozen=True)


def _fitted(config: Any, model: Any) -> Any:
    """`config` with the network settings of `model`, and a stochastic actor where `model` has one."""
    new, old = _network_holder(model), _network_holder(config)
    shared = {field.name for field in dataclasses.fields(new)} & {field.name for field in dataclasses.fields(old)}
    changes = {name: getattr(new, name) for name in _NETWORKS if name in shared}
    if hasattr(old, "actor") and not hasattr(new, "actor") and hasattr(new, "std_kind"):
        changes["actor"] = "tanh_normal"  # what SAC has, and all that hold it
    if hasattr(old, "standardize_observations"):
        changes["standardize_observations"] = getattr(new, "standardize_observations", False)
    fitted = dataclasses.replace(old, **changes)
    return fitted if old is config else dataclasses.replace(config, sac=fitted)


def _network_holder(config: Any) -> Any:
    """The config whose fields describe the networks: the one of the SAC agent within, or `config` itself."""
    return getattr(config, "sac", config)
