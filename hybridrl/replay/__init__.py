"""Arrays to batches, on the device."""

from hybridrl.replay.bootstrap import Bootstrap, BootstrapSampler
from hybridrl.replay.buffer import ReplayBuffer
from hybridrl.replay.goals import FlatGoals, GoalMixture, HierarchicalGoals, OptionGoals
from hybridrl.replay.lookahead import BufferLookahead, Lookahead, LookaheadSampler
from hybridrl.replay.samplers import (
    BlockSampler,
    MixtureSampler,
    SegmentSampler,
    SeparateSampler,
    StepSampler,
    UniformSampler,
    offline_rows,
)

__all__ = [
    "BlockSampler",
    "Bootstrap",
    "BootstrapSampler",
    "BufferLookahead",
    "FlatGoals",
    "GoalMixture",
    "HierarchicalGoals",
    "Lookahead",
    "LookaheadSampler",
    "MixtureSampler",
    "OptionGoals",
    "ReplayBuffer",
    "SegmentSampler",
    "SeparateSampler",
    "StepSampler",
    "UniformSampler",
    "offline_rows",
]
