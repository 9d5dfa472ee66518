"""Flax modules: arrays in, arrays out, no losses."""

from hybridrl.networks.actors import TanhNormalActor
from hybridrl.networks.critics import CriticEnsemble, select_critics
from hybridrl.networks.mlp import MLP
from hybridrl.networks.scalar import PositiveScalar

__all__ = ["MLP", "CriticEnsemble", "PositiveScalar", "TanhNormalActor", "select_critics"]
