"""What the goal-conditioned agents share: goal mixtures, networks and the loss of weighted cloning."""

from __future__ import annotations

from typing import Any

import jax

from hybridrl.errors import ConfigError
from hybridrl.losses.policy import awr_weights
from hybridrl.model import Model
from hybridrl.networks import CriticEnsemble, UnitNormalActor
from hybridrl.replay import GoalMixture
from hybridrl.types import Metrics, Transitions

FUTURE_GOALS = GoalMixture(0.0, 1.0, 0.0, geometric=False)  # uniform over the rest of the episode
# Networks of values and critics: GELU, then LayerNorm.
VALUE_BODY: dict[str, Any] = {
    "layer_norm": True,
    "initializer": "xavier_uniform",
    "activation": "gelu",
    "norm_last": True,
}


def check_expectile(expectile: float) -> None:
    """Raise ConfigError unless it is one."""
    if not 0.0 < expectile < 1.0:
        raise ConfigError(f"expectile={expectile}; expected a number between 0 and 1")


def new_actor(key: jax.Array, example: Transitions, config: Any) -> Model:
    """The policy of an agent with one level; `config` has its widths and rate."""
    obs = example.observations
    module = UnitNormalActor(tuple(config.actor_hidden_dims), example.actions.shape[-1])
    return Model.create("actor", module, key, obs, obs, learning_rate=config.learning_rate)


def new_value(key: jax.Array, observations: jax.Array, goals: jax.Array, config: Any, name: str = "value") -> Model:
    """Two value heads of a state and a goal or its representation; `config` has their widths and rate."""
    heads = CriticEnsemble(tuple(config.value_hidden_dims), num_critics=2, **VALUE_BODY)
    return Model.create(name, heads, key, observations, goals, learning_rate=config.learning_rate)


def weighted_cloning(
    name: str, advantages: jax.Array, log_probs: jax.Array, temperature: float, max_weight: float
) -> tuple[jax.Array, Metrics]:
    """`-mean(min(exp(temperature * A), max_weight) * log pi)` and what to log under `name`; A carries no gradient."""
    weights = jax.lax.stop_gradient(awr_weights(advantages, temperature, max_weight))
    loss = -(weights * log_probs).mean()
    metrics = {
        "loss": loss,
        "advantage_mean": advantages.mean(),
        "log_prob": log_probs.mean(),
        "weight_mean": weights.mean(),
        "saturated_share": (weights >= max_weight).mean(),
    }
    return loss, {f"{name}/{quantity}": value for quantity, value in metrics.items()}
