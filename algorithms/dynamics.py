"""The dynamics gap between a simulator and the data: two discriminators, their input noise, and the ratio they give."""

from __future__ import annotations

import dataclasses
from typing import Any, Self

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import struct

from hybridrl.errors import ConfigError
from hybridrl.model import Model
from hybridrl.networks import MLP
from hybridrl.networks.mlp import kernel_init
from hybridrl.types import Metrics, SourcedBatch, Transitions

REAL, SIMULATED = 0, 1  # the classes, in the order of the discriminators' outputs
LOGIT_BOUND = 2.0  # so that |log w| <= 4


@dataclasses.dataclass(frozen=True)
class DiscriminatorConfig:
    """Settings of the discriminators: those of H2O's published code, which DARC shares there."""

    hidden_dims: tuple[int, ...] = (256, 256)
    learning_rate: float = 3e-4
    initializer: str = "fan_in"  # PyTorch's default for linear layers
    noise_std: float = 0.1  # of the Gaussian noise on s, a and s' in training, in the observations' own units
    batch_size: int = 256  # rows per source and step, beside those the agent itself learns from

    def __post_init__(self) -> None:
        """Reject settings that cannot work."""
        if self.noise_std < 0.0 or self.batch_size < 1:
            raise ConfigError(
                f"noise_std={self.noise_std}, batch_size={self.batch_size}; expected at least 0 and at least 1"
            )


class Discriminator(nn.Module):
    """`(*batch, features)` -> logits `(*batch, 2)` of "real" and "simulated", within `LOGIT_BOUND` by a tanh."""

    hidden_dims: tuple[int, ...]
    initializer: str

    @nn.compact
    def __call__(self, inputs: jax.Array) -> jax.Array:
        """The logits of `inputs`."""
        features = MLP(self.hidden_dims, initializer=self.initializer)(inputs)
        logits = nn.Dense(2, kernel_init=kernel_init(self.initializer), name="logits")(features)
        return LOGIT_BOUND * jnp.tanh(logits)


class Discriminators(struct.PyTreeNode):
    """Real or simulated? One network judges (s, a), the other adds what s' tells (Eysenbach et al. 2021).

    `p(y | s, a) = softmax(z_sa)` and `p(y | s, a, s') = softmax(z_sas + z_sa)`, with logits in [-2, 2]. By Bayes' rule
    the ratio of the dynamics is `w = P(s' | s, a) / P_sim(s' | s, a)`, with
    `log w = log p(real | s, a, s') / p(sim | s, a, s') - log p(real | s, a) / p(sim | s, a)`, in which `z_sa` cancels.
    """

    state_action: Model
    transition: Model
    config: DiscriminatorConfig = struct.field(pytree_node=False)

    @classmethod
    def create(cls, key: jax.Array, example: Transitions, config: DiscriminatorConfig) -> Self:
        """Fresh ones for rows shaped like `example`'s, leaves `(*batch, ...)`."""
        state_action_key, transition_key = jax.random.split(key)
        pairs, triples = _inputs(example)
        module = Discriminator(tuple(config.hidden_dims), config.initializer)
        rate = config.learning_rate
        return cls(
            state_action=Model.create("state_action", module, state_action_key, pairs, learning_rate=rate),
            transition=Model.create("transition", module, transition_key, triples, learning_rate=rate),
            config=config,
        )

    def update(self, batch: SourcedBatch, key: jax.Array) -> tuple[Self, Metrics]:
        """One step of each on noisy rows of both sources. The transition loss trains both networks."""
        offline_key, online_key = jax.random.split(key)
        real, simulated = self.with_noise(batch.offline, offline_key), self.with_noise(batch.online, online_key)
        params = (self.state_action.params, self.transition.params)
        gradients, metrics = jax.grad(self.loss, has_aux=True)(params, real, simulated)
        state_action = self.state_action.apply_gradients(gradients[0])
        transition = self.transition.apply_gradients(gradients[1])
        return self.replace(state_action=state_action, transition=transition), metrics

    def loss(self, params: tuple[Any, Any], real: Transitions, simulated: Transitions) -> tuple[jax.Array, Metrics]:
        """The sum of four cross-entropies: of each network on each source, each a mean over its rows."""
        real_sa, real_sas = self.log_probabilities(params, real)
        sim_sa, sim_sas = self.log_probabilities(params, simulated)
        state_action = -real_sa[..., REAL].mean() - sim_sa[..., SIMULATED].mean()
        transition = -real_sas[..., REAL].mean() - sim_sas[..., SIMULATED].mean()
        hits = (real_sas[..., REAL] > real_sas[..., SIMULATED]).mean()
        hits += (sim_sas[..., SIMULATED] > sim_sas[..., REAL]).mean()
        return state_action + transition, {
            "discriminator/state_action_loss": state_action,
            "discriminator/transition_loss": transition,
            "discriminator/transition_accuracy": hits / 2.0,
        }

    def log_probabilities(self, params: tuple[Any, Any], batch: Transitions) -> tuple[jax.Array, jax.Array]:
        """`log p(y | s, a)` and `log p(y | s, a, s')`, each `(*batch, 2)`."""
        pairs, triples = _inputs(batch)
        pair_logits = self.state_action(pairs, params=params[0])
        triple_logits = self.transition(triples, params=params[1])
        return jax.nn.log_softmax(pair_logits), jax.nn.log_softmax(triple_logits + pair_logits)

    def log_ratio(self, batch: Transitions) -> jax.Array:
        """`log w(s, a, s')`, `(*batch,)`, in [-4, 4]; no gradient flows from it."""
        logits = self.transition(_inputs(batch)[1])
        return jax.lax.stop_gradient(logits[..., REAL] - logits[..., SIMULATED])

    def parts(self) -> dict[str, Any]:
        """Both networks by role."""
        return {"state_action_discriminator": self.state_action, "transition_discriminator": self.transition}

    def with_parts(self, parts: dict[str, Any]) -> tuple[Self, dict[str, Any]]:
        """These discriminators with those among the named parts, and the other parts."""
        rest = dict(parts)
        state_action = rest.pop("state_action_discriminator", self.state_action)
        transition = rest.pop("transition_discriminator", self.transition)
        return self.replace(state_action=state_action, transition=transition), rest

    def with_noise(self, batch: Transitions, key: jax.Array) -> Transitions:
        """`batch` with independent noise on observations, actions and next observations."""
        keys, std = jax.random.split(key, 3), self.config.noise_std

        def noisy(field: jax.Array, field_key: jax.Array) -> jax.Array:
            return field + std * jax.random.normal(field_key, field.shape)

        return batch.replace(
            observations=noisy(batch.observations, keys[0]),
            actions=noisy(batch.actions, keys[1]),
            next_observations=noisy(batch.next_observations, keys[2]),
        )


def split_rows(batch: SourcedBatch, discriminator_rows: int) -> tuple[SourcedBatch, SourcedBatch]:
    """The rows an agent learns from, and the last `discriminator_rows` of each source for the discriminators.

    All rows are drawn independently, so the two parts are as well.

    Raises:
        ValueError: a source has nothing left for the agent.
    """
    rows = min(len(batch.offline.rewards), len(batch.online.rewards))
    if rows <= discriminator_rows:
        raise ValueError(
            f"a batch with {rows} rows of one source leaves none beside the discriminators' {discriminator_rows}; "
            "raise batch_size or lower the discriminators' batch_size"
        )

    def cut(part: slice) -> SourcedBatch:
        found: SourcedBatch = jax.tree.map(lambda field: field[part], batch)
        return found

    return cut(slice(None, -discriminator_rows)), cut(slice(-discriminator_rows, None))


def _inputs(batch: Transitions) -> tuple[jax.Array, jax.Array]:
    """(s, a) and (s, a, s') as vectors."""
    pairs = jnp.concatenate([batch.observations, batch.actions], axis=-1)
    return pairs, jnp.concatenate([pairs, batch.next_observations], axis=-1)
