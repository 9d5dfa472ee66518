"""Hierarchical implicit Q-learning: one goal-conditioned value, from which two levels of policy are extracted."""

from __future__ import annotations

import dataclasses
from typing import Any, Self

import jax
import jax.numpy as jnp
from flax import struct

from algorithms.goals import check_expectile, new_value, weighted_cloning
from hybridrl.errors import ConfigError
from hybridrl.losses.value import double_value_targets, expectile_value_loss
from hybridrl.model import Model, copy_params, minimize_together, polyak_update
from hybridrl.networks import Embedding, UnitNormalActor, length_normalized
from hybridrl.replay import GoalMixture, HierarchicalGoals
from hybridrl.types import GoalSteps, HierarchicalTransitions, Metrics, Transitions


@dataclasses.dataclass(frozen=True)
class HIQLConfig:
    """Settings of HIQL. The defaults are those of OGBench's reference agent (Park et al. 2024)."""

    learning_rate: float = 3e-4  # of every network
    discount: float = 0.99
    expectile: float = 0.7
    low_awr_temperature: float = 3.0  # inverse: it multiplies the advantage; larger trusts the value more
    high_awr_temperature: float = 3.0
    max_weight: float = 100.0  # of one row in a policy's loss
    target_update_rate: float = 0.005  # fraction of the value heads their target takes over per update
    subgoal_steps: int = 25  # steps from a state to its subgoal
    representation_dim: int = 10  # of a subgoal, as the high level names it
    low_actor_trains_representation: bool = False  # as published for images; there the low level's loss shapes it too
    value_goals: GoalMixture = GoalMixture()
    random_goals: float = 0.0  # share of the high level's goals that are any state; 0.5 on stitch, 1 on explore data
    geometric_goals: bool = False  # whether its other goals are a geometric number of steps away, else uniform
    value_hidden_dims: tuple[int, ...] = (512, 512, 512)  # of value heads and representation
    actor_hidden_dims: tuple[int, ...] = (512, 512, 512)  # of both policies

    def __post_init__(self) -> None:
        """Reject settings that cannot work."""
        check_expectile(self.expectile)
        for field in ("subgoal_steps", "representation_dim"):
            if getattr(self, field) < 1:
                raise ConfigError(f"{field}={getattr(self, field)}; expected at least 1")
        if not 0.0 <= self.random_goals <= 1.0:
            raise ConfigError(f"random_goals={self.random_goals}; expected a share in [0, 1]")

    def goals(self) -> HierarchicalGoals:
        """How batches are drawn."""
        return HierarchicalGoals(
            self.value_goals, self.random_goals, self.geometric_goals, self.subgoal_steps, self.discount
        )


class SubgoalCarry(struct.PyTreeNode):
    """What the two levels remember."""

    goal: jax.Array  # (*batch, obs_dim)
    subgoal: jax.Array  # (*batch, representation_dim): what the high level named last; zeros before the first step


class SubgoalPolicy(struct.PyTreeNode):
    """Names a subgoal at every step and acts towards it: both means if `deterministic`, else samples."""

    high_actor: Model
    low_actor: Model
    deterministic: bool = struct.field(pytree_node=False)

    def begin(self, context: jax.Array) -> SubgoalCarry:
        """Remember the goal, `(*batch, obs_dim)`."""
        return SubgoalCarry(context, jnp.zeros((*context.shape[:-1], self.high_actor.module.action_dim)))

    def act(self, carry: SubgoalCarry, observations: jax.Array, key: jax.Array) -> tuple[jax.Array, SubgoalCarry]:
        """Actions `(*batch, action_dim)` for `observations` `(*batch, obs_dim)`."""
        high_key, low_key = jax.random.split(key)
        subgoal = self.high_actor(observations, carry.goal).mean
        if not self.deterministic:
            subgoal += jax.random.normal(high_key, subgoal.shape)  # deviation 1, and not bounded as actions are
        subgoal = length_normalized(subgoal)
        distribution = self.low_actor(observations, subgoal)
        actions = distribution.mode() if self.deterministic else distribution.sample(low_key)
        return actions, carry.replace(subgoal=subgoal)


class HIQLAgent(struct.PyTreeNode):
    """HIQL (Park et al. 2023) as in OGBench: V(s, phi([s; g])) by expectile regression; two levels by weighted cloning.

    The high level names phi([s; w]) of a state w some steps ahead; the low level acts towards it. One representation
    phi serves value, target value and low level, and learns from the value's loss (and, if asked, the low level's). All
    losses are taken at the same parameters; the target follows the parameters from before the step.
    """

    representation: Model
    value: Model
    low_actor: Model
    high_actor: Model
    target_value_params: Any
    config: HIQLConfig = struct.field(pytree_node=False)

    @classmethod
    def create(cls, key: jax.Array, example: Transitions, config: HIQLConfig = HIQLConfig()) -> Self:
        """A fresh agent for observations, which goals are too, and actions shaped like `example`'s."""
        representation_key, value_key, low_key, high_key = jax.random.split(key, 4)
        obs, dim, rate = example.observations, config.representation_dim, config.learning_rate
        value_dims, actor_dims = tuple(config.value_hidden_dims), tuple(config.actor_hidden_dims)
        subgoals = jnp.zeros((*obs.shape[:-1], dim))
        embedding = Embedding(value_dims, dim, length_normalized=True)
        low = UnitNormalActor(actor_dims, example.actions.shape[-1])
        value = new_value(value_key, obs, subgoals, config)
        return cls(
            representation=Model.create("representation", embedding, representation_key, obs, obs, learning_rate=rate),
            value=value,
            low_actor=Model.create("low_actor", low, low_key, obs, subgoals, learning_rate=rate),
            high_actor=Model.create(
                "high_actor", UnitNormalActor(actor_dims, dim), high_key, obs, obs, learning_rate=rate
            ),
            target_value_params=copy_params(value.params),
            config=config,
        )

    @jax.jit
    def update(self, batch: HierarchicalTransitions) -> tuple[Self, Metrics]:
        """One joint step of value, representation and both policies; leaves `(batch_size, ...)`."""
        models, metrics = minimize_together(self.models(), lambda params: self.loss(params, batch, self.value))
        target = polyak_update(self.value.params, self.target_value_params, self.config.target_update_rate)
        return self.replace(**models, target_value_params=target), metrics

    def models(self) -> dict[str, Model]:
        """Everything that is trained."""
        return {
            "representation": self.representation,
            "value": self.value,
            "low_actor": self.low_actor,
            "high_actor": self.high_actor,
        }

    def loss(
        self, params: dict[str, Any], batch: HierarchicalTransitions, high_value: Model
    ) -> tuple[jax.Array, Metrics]:
        """The sum of the value's and both policies' losses at `params`, by role, and what to log.

        Args:
            high_value: the value that says how good the high level's targets are; in HIQL the one that is trained here.
        """
        value_loss, metrics = self.value_loss(params, batch.steps, self.value, self.target_value_params)
        low_loss, low_metrics = self.low_actor_loss(params, batch)
        high_loss, high_metrics = self.high_actor_loss(params, batch, high_value)
        return value_loss + low_loss + high_loss, metrics | low_metrics | high_metrics

    def value_loss(
        self, params: dict[str, Any], steps: GoalSteps, value: Model, target_params: Any
    ) -> tuple[jax.Array, Metrics]:
        """Expectile regression of the two heads `value` on `steps`, at `params["representation"]` and those of `value`.

        The targets are the heads' moving average on top of the present representation.
        """
        targets, advantages = double_value_targets(
            steps.rewards,
            steps.masks,
            self.heads(value, steps.next_observations, steps.goals, target_params),
            self.heads(value, steps.observations, steps.goals, target_params),
            self.config.discount,
        )
        representations = self.represent(steps.observations, steps.goals, params["representation"])
        values = value(steps.observations, representations, params=params[value.name])
        loss = expectile_value_loss(values, targets, advantages, self.config.expectile).mean(axis=-1).sum()
        metrics = {"loss": loss, "v_mean": values.mean(), "v_min": values.min(), "v_max": values.max()}
        return loss, {f"{value.name}/{name}": quantity for name, quantity in metrics.items()}

    def low_actor_loss(self, params: dict[str, Any], batch: HierarchicalTransitions) -> tuple[jax.Array, Metrics]:
        """Weighted cloning of the data's actions, told the state `subgoal_steps` later."""
        steps, config = batch.steps, self.config
        now = self.mean_value(self.value, steps.observations, batch.low_goals)
        advantages = self.mean_value(self.value, steps.next_observations, batch.low_goals) - now
        subgoals = self.represent(steps.observations, batch.low_goals, params["representation"])
        if not config.low_actor_trains_representation:
            subgoals = jax.lax.stop_gradient(subgoals)
        log_probs = self.low_actor(steps.observations, subgoals, params=params["low_actor"]).log_prob(batch.actions)
        return weighted_cloning("low_actor", advantages, log_probs, config.low_awr_temperature, config.max_weight)

    def high_actor_loss(
        self, params: dict[str, Any], batch: HierarchicalTransitions, value: Model
    ) -> tuple[jax.Array, Metrics]:
        """Weighted regression of the targets' representations, by how much `value` rises on the way to them."""
        obs, config = batch.steps.observations, self.config
        now = self.mean_value(value, obs, batch.high_goals)
        advantages = self.mean_value(value, batch.high_targets, batch.high_goals) - now
        named = self.represent(obs, batch.high_targets)
        log_probs = self.high_actor(obs, batch.high_goals, params=params["high_actor"]).log_prob(named)
        return weighted_cloning("high_actor", advantages, log_probs, config.high_awr_temperature, config.max_weight)

    def represent(self, observations: jax.Array, goals: jax.Array, params: Any = None) -> jax.Array:
        """phi([s; g]), `(*batch, representation_dim)`, of length `sqrt(representation_dim)`."""
        found: jax.Array = self.representation(observations, goals, params=params)
        return found

    def heads(self, value: Model, observations: jax.Array, goals: jax.Array, params: Any = None) -> jax.Array:
        """Both heads' V(s, phi([s; g])), `(2, *batch)`, with the present representation; no gradient flows to it."""
        found: jax.Array = value(observations, self.represent(observations, goals), params=params)
        return found

    def mean_value(self, value: Model, observations: jax.Array, goals: jax.Array) -> jax.Array:
        """The mean of both heads, `(*batch,)`, at the present parameters."""
        return self.heads(value, observations, goals).mean(axis=0)

    def policy(self, *, deterministic: bool) -> SubgoalPolicy:
        """Both levels' means or samples."""
        return SubgoalPolicy(high_actor=self.high_actor, low_actor=self.low_actor, deterministic=deterministic)

    def parts(self) -> dict[str, Any]:
        """The networks with their optimisers, and the value's target."""
        return self.models() | {"target_value": self.target_value_params}

    def with_parts(self, parts: dict[str, Any]) -> Self:
        """This agent with the named parts in place of its own."""
        fields = {("target_value_params" if role == "target_value" else role): part for role, part in parts.items()}
        return self.replace(**fields)

    def diagnose(self, batch: HierarchicalTransitions, key: jax.Array) -> Metrics:
        """Mean value and mean squared error of its one-step targets on `batch`, leaves `(batch_size, ...)`."""
        del key
        steps = batch.steps
        values = self.heads(self.value, steps.observations, steps.goals)
        following = self.heads(self.value, steps.next_observations, steps.goals, self.target_value_params)
        targets, _ = double_value_targets(steps.rewards, steps.masks, following, values, self.config.discount)
        return {"q": values.mean(), "td_error": jnp.square(targets - values).mean()}
