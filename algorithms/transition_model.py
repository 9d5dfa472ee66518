"""An ensemble of probabilistic transition models with held-out rows, early stopping and elites."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Self

import jax
import jax.numpy as jnp
from flax import struct

from hybridrl.errors import ConfigError
from hybridrl.model import Model, copy_params
from hybridrl.networks import TransitionEnsemble, replace_members, select_members
from hybridrl.standardizer import Standardizer
from hybridrl.types import BootstrapBatch, Metrics, Transitions

_METRICS = ("model/loss", "model/log_variance_mean", "model/grad_norm")


@dataclasses.dataclass(frozen=True)
class TransitionModelConfig:
    """Settings of the transition model: those of Uni-O4's published code on locomotion, which it has from MOBILE's."""

    num_members: int = 7
    num_elites: int = 5
    model_hidden_dims: tuple[int, ...] = (200,) * 4
    learning_rate: float = 1e-3
    weight_decays: tuple[float, ...] = (2.5e-5, 5e-5, 7.5e-5)  # of hidden layers; the last entry for all further ones
    output_weight_decay: float = 1e-4
    bounds_weight: float = 0.01  # of the trained bounds of the log-variances
    patience: int = 5  # epochs without any improved member after which training stops
    min_improvement: float = 0.01  # relative fall of a member's held-out error that counts
    max_epochs: int | None = None

    def __post_init__(self) -> None:
        """Reject settings that cannot work."""
        if not 1 <= self.num_elites <= self.num_members:
            raise ConfigError(f"num_elites={self.num_elites}; expected 1 to num_members={self.num_members}")
        if not self.weight_decays:
            raise ConfigError("weight_decays is empty; expected one entry or more, [0.0] for none")
        if self.patience < 1 or (self.max_epochs is not None and self.max_epochs < 1):
            raise ConfigError(f"patience={self.patience}, max_epochs={self.max_epochs}; expected at least 1")


def gaussian_model_losses(mean: jax.Array, log_variance: jax.Array, targets: jax.Array) -> jax.Array:
    """`mean (mu - y)^2 exp(-lv) + mean lv`, `(num_members,)`, over rows and dimensions (Chua et al. 2018).

    Args:
        mean, log_variance, targets: `(num_members, batch, out_dim)`.
    """
    return (jnp.square(mean - targets) * jnp.exp(-log_variance) + log_variance).mean(axis=(1, 2))


def kernel_decay(params: Any, hidden: Sequence[float], output: float) -> jax.Array:
    """`sum over layers of decay / 2 * |W|^2`, `()`, over all members; biases are free.

    Args:
        params: of a TransitionEnsemble.
        hidden: decays of hidden layers, first layer first; the last entry serves all further ones.
        output: decay of the output layer.
    """
    layers = params["params"]["members"]
    total = output * jnp.square(params["params"]["member_heads"]["kernel"]).sum()
    for index in range(len(layers)):
        total += hidden[min(index, len(hidden) - 1)] * jnp.square(layers[f"Dense_{index}"]["kernel"]).sum()
    return 0.5 * total


class TransitionModel(struct.PyTreeNode):
    """Predicts `(s' - s, r)` from state and action.

    Each member learns from its own bootstrap resample. After each epoch a member whose held-out error fell is kept as a
    snapshot; when for some epochs none fell, training stops, and further updates change nothing. Predictions are the
    snapshots', of the members with the least held-out error.
    """

    net: Model
    best_params: Any  # of each member, at its least held-out error
    best_errors: jax.Array  # (num_members,), mean squared held-out errors; infinite before the first epoch's end
    count: jax.Array  # int32 (), updates made
    epochs: jax.Array  # int32 ()
    epochs_without: jax.Array  # int32 (), since a member improved
    stopped: jax.Array  # bool ()
    metrics: Metrics  # of the last update made
    inputs: Standardizer  # of states; actions are in [-1, 1] already
    config: TransitionModelConfig = struct.field(pytree_node=False)

    @classmethod
    def create(cls, key: jax.Array, example: Transitions, config: TransitionModelConfig) -> Self:
        """A fresh model for observations and actions shaped like `example`'s, leaves `(1, ...)`."""
        obs_dim, action_dim = example.observations.shape[-1], example.actions.shape[-1]
        module = TransitionEnsemble(tuple(config.model_hidden_dims), config.num_members, obs_dim + 1)
        rows = jnp.zeros((config.num_members, 1, obs_dim + action_dim))
        net = Model.create("model", module, key, rows, learning_rate=config.learning_rate)
        return cls(
            net=net,
            best_params=copy_params(net.params),
            best_errors=jnp.full(config.num_members, jnp.inf),
            count=jnp.zeros((), jnp.int32),
            epochs=jnp.zeros((), jnp.int32),
            epochs_without=jnp.zeros((), jnp.int32),
            stopped=jnp.zeros((), bool),
            metrics={name: jnp.zeros(()) for name in _METRICS},
            inputs=Standardizer.identity(obs_dim),
            config=config,
        )

    def fit_observations(self, observations: jax.Array) -> Self:
        """This model with its inputs standardised by the mean and deviation of `observations` `(rows, obs_dim)`."""
        return self.replace(inputs=Standardizer.fit(observations))

    def update(self, batch: BootstrapBatch) -> tuple[Self, Metrics]:
        """One step of all members, with the end of an epoch where it is due; nothing once training has stopped."""
        model = jax.lax.cond(self.stopped, lambda: self, lambda: self._step(batch))
        errors = jnp.where(jnp.isfinite(model.best_errors), model.best_errors, 0.0)  # 0 until there are any
        state = {
            "model/epochs": model.epochs.astype(jnp.float32),
            "model/stopped": model.stopped.astype(jnp.float32),
            "model/holdout_error": errors.mean(),
            "model/elite_holdout_error": errors[model.elites()].mean(),
        }
        return model, model.metrics | state

    def _step(self, batch: BootstrapBatch) -> Self:
        config = self.config
        inputs, targets = self.rows(batch.training)

        def loss(params: Any) -> tuple[jax.Array, Metrics]:
            mean, log_variance = self.net(inputs, params=params)
            shared = params["params"]
            bounds = shared["max_log_variance"].sum() - shared["min_log_variance"].sum()
            decay = kernel_decay(params, config.weight_decays, config.output_weight_decay)
            value = gaussian_model_losses(mean, log_variance, targets).sum() + decay + config.bounds_weight * bounds
            return value, {"model/loss": value, "model/log_variance_mean": log_variance.mean()}

        net, metrics = self.net.minimize(loss)
        model = self.replace(net=net, count=self.count + 1, metrics=metrics)
        per_epoch = jnp.maximum(batch.num_rows // len(batch.training.rewards[0]), 1)
        return jax.lax.cond(model.count % per_epoch == 0, lambda: model._finish_epoch(batch.holdout), lambda: model)

    def _finish_epoch(self, holdout: Transitions) -> Self:
        errors = self.held_out_errors(holdout)
        improved = errors < (1.0 - self.config.min_improvement) * self.best_errors
        without = jnp.where(improved.any(), 0, self.epochs_without + 1)
        epochs = self.epochs + 1
        stopped = without >= self.config.patience
        if self.config.max_epochs is not None:
            stopped |= epochs >= self.config.max_epochs
        return self.replace(
            best_params=replace_members(improved, self.net.params, self.best_params),
            best_errors=jnp.where(improved, errors, self.best_errors),
            epochs=epochs,
            epochs_without=without,
            stopped=stopped,
        )

    def held_out_errors(self, holdout: Transitions) -> jax.Array:
        """Mean squared errors `(num_members,)` of the predicted means on `(rows, ...)`, shown to all members."""
        inputs, targets = self.rows(holdout)
        mean, _ = self.net(jnp.broadcast_to(inputs[None], (self.config.num_members, *inputs.shape)))
        return jnp.square(mean - targets[None]).mean(axis=(1, 2))

    def rows(self, batch: Transitions) -> tuple[jax.Array, jax.Array]:
        """Inputs `(*batch, obs_dim + action_dim)` and targets `(*batch, obs_dim + 1)`."""
        inputs = jnp.concatenate([self.inputs(batch.observations), batch.actions], axis=-1)
        changes = batch.next_observations - batch.observations
        return inputs, jnp.concatenate([changes, batch.rewards[..., None]], axis=-1)

    def elites(self) -> jax.Array:
        """The members with the least held-out error, int32 `(num_elites,)`."""
        return jnp.argsort(self.best_errors)[: self.config.num_elites]

    def trained(self) -> Any:
        """Each member's snapshot; its present parameters where no epoch has ended yet."""
        return replace_members(jnp.isinf(self.best_errors), self.net.params, self.best_params)

    def sample_next(self, elite_params: Any, observations: jax.Array, actions: jax.Array, key: jax.Array) -> jax.Array:
        """Next states, each a draw from an elite chosen at random for its row.

        The draws depend on the key and the row's number alone: leading axes share them, and so do calls.

        Args:
            elite_params: `select_members(self.trained(), self.elites())`.
            observations, actions: `(members, rows, ...)`.

        Returns:
            `(members, rows, obs_dim)`.
        """
        noise_key, elite_key = jax.random.split(key)
        count, rows = self.config.num_elites, observations.shape[1]
        module = self.net.module.clone(num_members=count)
        inputs = jnp.concatenate([self.inputs(observations), actions], axis=-1)
        found: Any = module.apply(elite_params, jnp.broadcast_to(inputs[None], (count, *inputs.shape)))
        chosen = jax.random.randint(elite_key, (rows,), 0, count).reshape(1, 1, rows, 1)
        mean, log_variance = (jnp.take_along_axis(part, chosen, axis=0)[0] for part in found)
        noise = jax.random.normal(noise_key, (1, rows, mean.shape[-1]))
        return observations + (mean + jnp.exp(0.5 * log_variance) * noise)[..., :-1]

    def elite_params(self) -> Any:
        """What `sample_next` predicts with."""
        return select_members(self.trained(), self.elites())
