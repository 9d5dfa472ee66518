"""Arrays to batches, on the device."""

from hybridrl.replay.buffer import ReplayBuffer
from hybridrl.replay.lookahead import BufferLookahead, Lookahead, LookaheadSampler
from hybridrl.replay.samplers import MixtureSampler, SegmentSampler, UniformSampler, offline_rows

__all__ = [
    "BufferLookahead",
    "Lookahead",
    "LookaheadSampler",
    "MixtureSampler",
    "ReplayBuffer",
    "SegmentSampler",
    "UniformSampler",
    "offline_rows",
]
