"""Flax modules: arrays in, arrays out, no losses."""

from hybridrl.networks.actors import (
    DeterministicActor,
    FlowField,
    NormalActor,
    NormalActorEnsemble,
    TanhNormalActor,
    select_actor,
)
from hybridrl.networks.critics import CriticEnsemble, Value, select_critics
from hybridrl.networks.goals import BilinearCritic, Embedding, UnitNormalActor, length_normalized
from hybridrl.networks.mlp import MLP
from hybridrl.networks.quasimetrics import QUASIMETRICS
from hybridrl.networks.scalar import PositiveScalar
from hybridrl.networks.transitions import TransitionEnsemble, replace_members, select_members

__all__ = [
    "MLP",
    "QUASIMETRICS",
    "BilinearCritic",
    "CriticEnsemble",
    "DeterministicActor",
    "Embedding",
    "FlowField",
    "NormalActor",
    "NormalActorEnsemble",
    "PositiveScalar",
    "TanhNormalActor",
    "TransitionEnsemble",
    "UnitNormalActor",
    "Value",
    "length_normalized",
    "replace_members",
    "select_actor",
    "select_critics",
    "select_members",
]
