"""Flax modules: arrays in, arrays out, no losses."""

from hybridrl.networks.actors import DeterministicActor, FlowField, NormalActor, TanhNormalActor
from hybridrl.networks.critics import CriticEnsemble, Value, select_critics
from hybridrl.networks.mlp import MLP
from hybridrl.networks.scalar import PositiveScalar

__all__ = [
    "MLP",
    "CriticEnsemble",
    "DeterministicActor",
    "FlowField",
    "NormalActor",
    "PositiveScalar",
    "TanhNormalActor",
    "Value",
    "select_critics",
]
