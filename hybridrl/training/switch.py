"""What crosses when one agent takes over from another."""

from __future__ import annotations

import dataclasses
from typing import Any, TypeVar

import jax

from hybridrl.errors import ConfigError
from hybridrl.model import Model, copy_params
from hybridrl.standardizer import Standardizer
from hybridrl.types import Agent

_BEGINNINGS = ("initializer", "last_gain", "initial", "dropout_rate", "name", "parent")
AgentT = TypeVar("AgentT", bound=Agent)


def carry_over(source: Agent, target: AgentT) -> AgentT:
    """`target` with every part that `source` has too: parameters, optimiser states, target networks and random key.

    A part of the target's that the source lacks stays as created, but a target network of which the source has the
    network alone starts at that; a part that only the source has is dropped. Networks and learning rates are the
    target's, so only values cross. Where the two optimisers are of different kinds, the new one begins afresh.

    Raises:
        ConfigError: a shared part has another structure or other shapes; all mismatches are listed.
    """
    given, wanted = source.parts(), target.parts()
    mismatches: list[str] = []
    mismatched: set[str] = set()
    parts: dict[str, Any] = {}
    if _standardizes(given) != _standardizes(wanted):
        before, after = ("as they are", "standardised") if _standardizes(wanted) else ("standardised", "as they are")
        mismatches.append(f"observations: seen {before} before, {after} by the new agent; set standardize_observations")
    for role in wanted:
        if role not in given:
            network = parts.get(role.removeprefix("target_"))
            if isinstance(network, Model):
                parts[role] = copy_params(network.params)
            continue
        problems = _kind_mismatches(role, given[role], wanted[role])
        if not problems:
            problems = _mismatches(role, *_values(given[role], wanted[role]))
        followed = role.removeprefix("target_")
        if role == followed or followed not in mismatched:  # a target says nothing that its network has not said
            mismatches.extend(problems)
        if problems:
            mismatched.add(role)
        else:
            parts[role] = _with_values(wanted[role], _values(given[role], wanted[role])[0])
    if mismatches:
        shown = "\n  ".join(mismatches[:8]) + ("\n  ..." if len(mismatches) > 8 else "")
        raise ConfigError(
            f"{type(target).__name__} cannot take over from {type(source).__name__}: their networks differ\n  {shown}\n"
            "give both the same settings where these are listed, or choose another pair of agents"
        )
    return target.with_parts(parts)


def check_fit(source: Agent, target: Agent) -> None:
    """Raise ConfigError where `carry_over` would; both may hold shapes only, as from `jax.eval_shape`."""
    jax.eval_shape(carry_over, source, target)


def _values(given: Any, wanted: Any) -> tuple[Any, Any]:
    """What crosses from one part to the other, and what that replaces."""
    if not isinstance(given, Model) or not isinstance(wanted, Model):
        return given, wanted
    before, after = jax.tree.structure(given.opt_state), jax.tree.structure(wanted.opt_state)
    if before == after:  # type: ignore[operator]
        return (given.params, given.opt_state), (wanted.params, wanted.opt_state)
    return (given.params, wanted.restarted().opt_state), (wanted.params, wanted.opt_state)


def _kind_mismatches(role: str, given: Any, wanted: Any) -> list[str]:
    """Where two networks would make something else of the same parameters: another class, or another setting of it.

    Settings that only say how a network begins, and dropout, which only training knows, may differ.
    """
    if not isinstance(given, Model) or not isinstance(wanted, Model):
        return []
    old, new = given.module, wanted.module
    if type(old) is not type(new):
        return [f"{role}: a {type(old).__name__} before, a {type(new).__name__} expected"]
    return [
        f"{role}: {field.name}={getattr(old, field.name)!r} before, {getattr(new, field.name)!r} expected"
        for field in dataclasses.fields(old)
        if field.name not in _BEGINNINGS and getattr(old, field.name) != getattr(new, field.name)
    ]


def _standardizes(parts: dict[str, Any]) -> bool:
    return any(isinstance(part, Standardizer) for part in parts.values())


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
