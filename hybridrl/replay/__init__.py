"""Arrays to batches, on the device."""

from hybridrl.replay.buffer import ReplayBuffer
from hybridrl.replay.lookahead import BufferLookahead, Lookahead, LookaheadSampler
from hybridrl.replay.samplers import (
    BlockSampler,
    MixtureSampler,
    SegmentSampler,
    SeparateSampler,
    UniformSampler,
    offline_rows,
)

__all__ = [
    "BlockSampler",
    "BufferLookahead",
    "Lookahead",
    "LookaheadSampler",
    "MixtureSampler",
    "ReplayBuffer",
    "SegmentSampler",
    "SeparateSampler",
    "UniformSampler",
    "offline_rows",
]
