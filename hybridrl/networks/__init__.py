"""Flax modules: arrays in, arrays out, no losses."""

from hybridrl.networks.actors import DeterministicActor, FlowField, NormalActor, TanhNormalActor
from hybridrl.networks.critics import CriticEnsemble, Value, select_critics
from hybridrl.networks.goals import BilinearCritic, Embedding, UnitNormalActor, length_normalized
from hybridrl.networks.mlp import MLP
from hybridrl.networks.quasimetrics import QUASIMETRICS
from hybridrl.networks.scalar import PositiveScalar

__all__ = [
    "MLP",
    "QUASIMETRICS",
    "BilinearCritic",
    "CriticEnsemble",
    "DeterministicActor",
    "Embedding",
    "FlowField",
    "NormalActor",
    "PositiveScalar",
    "TanhNormalActor",
    "UnitNormalActor",
    "Value",
    "length_normalized",
    "select_critics",
]
