import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from hybridrl.replay import UniformSampler
from hybridrl.training.offline import train_steps
from hybridrl.training.online import example_transition


class Accumulator(struct.PyTreeNode):
    """Its state depends on every batch and on their order."""

    state: jax.Array

    def update(self, batch):
        state = 0.5 * self.state + batch.rewards.mean()
        return self.replace(state=state), {"batch/mean": batch.rewards.mean()}


def sampler():
    rows = jax.tree.map(lambda f: jnp.zeros((50, *f.shape[1:])), example_transition(2, 1))
    return UniformSampler(rows.replace(rewards=jnp.arange(50.0)))


def run(*cuts, seed=0):
    agent, first, means = Accumulator(jnp.float32(0)), 0, []
    for count in cuts:
        agent, metrics = train_steps(agent, sampler(), jax.random.key(seed), first, num_updates=count, batch_size=4)
        first += count
        means.append(float(metrics["batch/mean"]) * count)
    return float(agent.state), sum(means) / first


def test_cutting_a_phase_differently_changes_nothing():
    whole, mean = run(12)
    for cuts in ((6, 6), (6, 1, 5)):
        state, average = run(*cuts)
        assert state == whole
        np.testing.assert_allclose(average, mean, rtol=1e-6)


def test_batches_follow_the_key():
    assert run(3) != run(3, seed=1)
