"""Arrays to batches, on the device."""

from hybridrl.replay.buffer import ReplayBuffer
from hybridrl.replay.samplers import MixtureSampler, SegmentSampler, UniformSampler, offline_rows

__all__ = ["MixtureSampler", "ReplayBuffer", "SegmentSampler", "UniformSampler", "offline_rows"]
