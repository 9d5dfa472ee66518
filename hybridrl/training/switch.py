"""What crosses when one agent takes over from another."""

from __future__ import annotations

from typing import Any, TypeVar

import jax

from hybridrl.errors import ConfigError
from hybridrl.model import Model
from hybridrl.types import Agent

AgentT = TypeVar("AgentT", bound=Agent)


def carry_over(source: Agent, target: AgentT) -> AgentT:
    """`target` with every part that `source` has too: parameters, optimiser states, target networks and random key.

    A part of the target's that the source lacks stays as created; one that only the source has is dropped. Networks
    and learning rates are the target's, so only values cross.

    Raises:
        ConfigError: a shared part has another structure or other shapes; all mismatches are listed.
    """
    given, wanted = source.parts(), target.parts()
    mismatches: list[str] = []
    parts = {}
    for role in wanted:
        if role not in given:
            continue
        problems = _mismatches(role, _values(given[role]), _values(wanted[role]))
        old, new = _parameterization(given[role]), _parameterization(wanted[role])
        if old != new:
            problems.append(f"{role}: kept positive by {old!r} before, by {new!r} expected")
        mismatches.extend(problems)
        if not problems:
            parts[role] = _with_values(wanted[role], _values(given[role]))
    if mismatches:
        shown = "\n  ".join(mismatches[:8]) + ("\n  ..." if len(mismatches) > 8 else "")
        raise ConfigError(
            f"{type(target).__name__} cannot take over from {type(source).__name__}: their networks differ\n  {shown}\n"
            "give both the same hidden dims, number of critics, layer norm, shared head and kind of actor"
        )
    return target.with_parts(parts)


def check_fit(source: Agent, target: Agent) -> None:
    """Raise ConfigError where `carry_over` would; both may hold shapes only, as from `jax.eval_shape`."""
    carry_over(source, target)


def _values(part: Any) -> Any:
    return (part.params, part.opt_state) if isinstance(part, Model) else part


def _parameterization(part: Any) -> str | None:
    """How a trained positive number reads its parameter: the same value means another number under another form."""
    return getattr(part.module, "parameterization", None) if isinstance(part, Model) else None


def _with_values(part: Any, values: Any) -> Any:
    return part.replace(params=values[0], opt_state=values[1]) if isinstance(part, Model) else values


def _mismatches(role: str, given: Any, wanted: Any) -> list[str]:
    given_leaves = {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(given)}
    wanted_leaves = {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(wanted)}
    problems = []
    for path in sorted(given_leaves.keys() | wanted_leaves.keys()):
        old, new = given_leaves.get(path), wanted_leaves.get(path)
        if old is None or new is None:
            problems.append(f"{role}{path}: only the {'new' if old is None else 'old'} agent has it")
        elif old.shape != new.shape:
            problems.append(f"{role}{path}: {tuple(old.shape)} before, {tuple(new.shape)} expected")
    return problems
