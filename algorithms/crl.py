"""Contrastive RL: a critic that tells which goal a step led to, and a policy that climbs it."""

from __future__ import annotations

import dataclasses
from typing import Any, Self

import jax
import jax.numpy as jnp
from flax import struct

from algorithms.goals import FUTURE_GOALS, new_actor
from hybridrl.losses.contrastive import all_logits, binary_nce_loss, paired_logits
from hybridrl.losses.policy import ddpg_bc_loss
from hybridrl.model import Model
from hybridrl.networks import BilinearCritic
from hybridrl.policies import GoalPolicy
from hybridrl.replay import FlatGoals, GoalMixture
from hybridrl.types import GoalTransitions, Metrics, Transitions


@dataclasses.dataclass(frozen=True)
class CRLConfig:
    """Settings of CRL. The defaults are those of OGBench's reference agent (Park et al. 2024)."""

    learning_rate: float = 3e-4  # of every network
    discount: float = 0.99  # of the goals' geometric distance, which makes the critic a discounted one
    bc_weight: float = 0.1  # of the data's likelihood in the policy's loss; tuned per family
    latent_dim: int = 512  # of the embeddings
    value_goals: GoalMixture = GoalMixture(0.0, 1.0, 0.0, geometric=True)  # goals that steps led to
    actor_goals: GoalMixture = FUTURE_GOALS
    value_hidden_dims: tuple[int, ...] = (512, 512, 512)  # of the embeddings
    actor_hidden_dims: tuple[int, ...] = (512, 512, 512)

    def goals(self) -> FlatGoals:
        """How batches are drawn."""
        return FlatGoals(self.value_goals, self.actor_goals, self.discount)


class CRLAgent(struct.PyTreeNode):
    """CRL (Eysenbach et al. 2022) with DDPG+BC, as in OGBench: binary NCE over all pairs of a batch.

    At its optimum the critic is the logarithm of how much likelier the goal is after this step than at random. Rewards
    and masks of the batch are not used.
    """

    actor: Model
    critic: Model
    config: CRLConfig = struct.field(pytree_node=False)

    @classmethod
    def create(cls, key: jax.Array, example: Transitions, config: CRLConfig = CRLConfig()) -> Self:
        """A fresh agent for observations, which goals are too, and actions shaped like `example`'s."""
        actor_key, critic_key = jax.random.split(key)
        obs, rate = example.observations, config.learning_rate
        module = BilinearCritic(tuple(config.value_hidden_dims), config.latent_dim, num_critics=2)
        critic = Model.create("critic", module, critic_key, obs, example.actions, obs, learning_rate=rate)
        return cls(actor=new_actor(actor_key, example, config), critic=critic, config=config)

    @jax.jit
    def update(self, batch: GoalTransitions) -> tuple[Self, Metrics]:
        """One step of critics and policy, both at the same parameters; leaves `(batch_size, ...)`."""
        obs = batch.steps.observations

        def critic_loss(params: Any) -> tuple[jax.Array, Metrics]:
            logits = all_logits(*self.critic(obs, batch.actions, batch.steps.goals, params=params))
            loss = binary_nce_loss(logits).mean()
            matched = jnp.diagonal(logits, axis1=1, axis2=2)
            rows = logits.shape[-1]
            others = (logits.sum() - matched.sum()) / (len(logits) * rows * max(rows - 1, 1))
            found = jnp.argmax(logits.mean(axis=0), axis=1) == jnp.arange(rows)
            return loss, {
                "critic/loss": loss,
                "critic/logit_matched": matched.mean(),
                "critic/logit_others": others,
                "critic/accuracy": found.mean(),
            }

        def actor_loss(params: Any) -> tuple[jax.Array, Metrics]:
            distribution = self.actor(obs, batch.actor_goals, params=params)
            q = self.q(obs, distribution.mode(), batch.actor_goals).min(axis=0)
            log_probs = distribution.log_prob(batch.actions)
            loss = ddpg_bc_loss(q, log_probs, self.config.bc_weight).mean()
            return loss, {"actor/loss": loss, "actor/q_mean": q.mean(), "actor/log_prob": log_probs.mean()}

        critic, metrics = self.critic.minimize(critic_loss)
        actor, actor_metrics = self.actor.minimize(actor_loss)
        return self.replace(actor=actor, critic=critic), metrics | actor_metrics

    def q(self, observations: jax.Array, actions: jax.Array, goals: jax.Array) -> jax.Array:
        """Both critics' logits, `(2, *batch)`."""
        return paired_logits(*self.critic(observations, actions, goals))

    def policy(self, *, deterministic: bool) -> GoalPolicy:
        """The actor's mean or its samples."""
        return GoalPolicy(actor=self.actor, deterministic=deterministic)

    def parts(self) -> dict[str, Any]:
        """Actor and critics with their optimisers."""
        return {"actor": self.actor, "critic": self.critic}

    def with_parts(self, parts: dict[str, Any]) -> Self:
        """This agent with the named parts in place of its own."""
        return self.replace(**parts)

    def diagnose(self, batch: GoalTransitions, key: jax.Array) -> Metrics:
        """Nothing: its critic is a ratio of likelihoods and obeys no TD equation."""
        del batch, key
        return {}
