"""The core of hybridrl: data, replay, networks, losses and training loops that name no algorithm."""

__version__ = "0.1.0"
