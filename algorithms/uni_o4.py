"""Uni-O4: one on-policy objective offline and online; offline it is improved in steps that a learned model approves."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Self

import jax
import jax.numpy as jnp
from flax import struct

from algorithms.amq import amq_scores
from algorithms.clone_ensemble import ClonesConfig, clone
from algorithms.gate import Gate
from algorithms.offline_ppo import ImprovementConfig, LearningRate, clip_range, policy_optimizer, ppo_step
from algorithms.offline_values import OfflineValues, OfflineValuesConfig
from algorithms.ppo import PPOConfig
from algorithms.transition_model import TransitionModel, TransitionModelConfig
from hybridrl.errors import ConfigError
from hybridrl.model import Model, adam, copy_params
from hybridrl.networks import NormalActorEnsemble, select_actor
from hybridrl.policies import ActorPolicy
from hybridrl.standardizer import StandardizedPolicy, Standardizer
from hybridrl.types import BootstrapBatch, Metrics, Policy, Transitions

STAGES = ("values", "model", "clones", "policies")
_TRUST = 3.0  # a score beyond so many times the largest |Q| of the data is not believed


@dataclasses.dataclass(frozen=True)
class OnlineConfig:
    """Settings of online PPO, see `algorithms.ppo.PPOConfig`; its networks are those of the offline stages."""

    actor_learning_rate: float = 1e-5
    value_learning_rate: float = 2e-4
    trace_decay: float = 0.95
    clip_range: float = 0.05
    value_clip: float | None = None  # the published 0.05, in units of returns, all but freezes the values
    entropy_weight: float = 0.01
    num_epochs: int = 5
    minibatch_size: int = 128
    target_kl: float | None = None


@dataclasses.dataclass(frozen=True)
class StagesConfig:
    """How long the stages before offline PPO take, which is as long as the schedule says. From the published code."""

    value_updates: int = 2_000_000
    model_updates: int = 400_000  # at most; it stops by itself
    clone_updates: int = 400_000
    model_batch_size: int = 256  # rows per member; all other stages take the schedule's

    def __post_init__(self) -> None:
        """Reject settings that cannot work."""
        for field in dataclasses.fields(self):
            if getattr(self, field.name) < 1:
                raise ConfigError(f"stages.{field.name}={getattr(self, field.name)}; expected at least 1")


@dataclasses.dataclass(frozen=True)
class UniO4Config:
    """Settings of Uni-O4 (Lei et al. 2024)."""

    discount: float = 0.99
    standardize_observations: bool = True  # by the dataset's mean and deviation
    stages: StagesConfig = StagesConfig()
    values: OfflineValuesConfig = OfflineValuesConfig()
    model: TransitionModelConfig = TransitionModelConfig()
    clones: ClonesConfig = ClonesConfig()
    improvement: ImprovementConfig = ImprovementConfig()
    online: OnlineConfig = OnlineConfig()

    def ppo(self) -> PPOConfig:
        """The settings of a PPO agent that takes over actor, value and standardisation."""
        return PPOConfig(
            **dataclasses.asdict(self.online),
            discount=self.discount,
            observation_scaling="dataset" if self.standardize_observations else "none",
            actor_hidden_dims=self.clones.actor_hidden_dims,
            actor_activation=self.clones.activation,
            std_bounds=self.clones.std_bounds,
            value_hidden_dims=self.values.value_hidden_dims,
        )


@dataclasses.dataclass(frozen=True)
class UniO4Stage:
    """What one phase of a run trains.

    Attributes:
        config: the settings, the same in all phases.
        trains: "values", "model", "clones" or "policies"; nothing else is stepped.
        num_updates: of the phase that trains the policies, over which its schedules run.
        terminates: the task's rule, see `hybridrl.task.Task`.
    """

    config: UniO4Config = UniO4Config()
    trains: str = "policies"
    num_updates: int = 10_000
    terminates: Callable[[Any], Any] | None = None

    def __post_init__(self) -> None:
        """Reject an unknown stage."""
        if self.trains not in STAGES:
            raise ConfigError(f"trains={self.trains!r}; expected one of {', '.join(STAGES)}")


class UniO4Agent(struct.PyTreeNode):
    """Uni-O4's offline stages (Lei et al. 2024); BPPO (Zhuang et al. 2023) by other settings.

    A run has one phase per stage: values of the dataset, a transition model of it, an ensemble of cloned policies, and
    steps of PPO from the clones, whose advantages come from the fixed values. Every so often each member is scored by
    AM-Q, and only if its score rose becomes the policy that its next steps are taken from. The accepted snapshot with
    the best score acts.
    """

    values: OfflineValues
    model: TransitionModel
    clones: Model
    policies: Model  # the members on their way
    accepted: Any  # parameters of their last accepted snapshots, which actions are drawn from
    gate: Gate
    actor: Model  # the member that acts
    count: jax.Array  # int32 (), updates of the policies
    starts: jax.Array  # (num_starts, obs_dim), raw states that AM-Q starts from
    score_key: jax.Array
    key: jax.Array
    standardizer: Standardizer | None  # None if observations are used as they are
    stage: UniO4Stage = struct.field(pytree_node=False)

    @classmethod
    def create(cls, key: jax.Array, example: Transitions, stage: UniO4Stage = UniO4Stage()) -> Self:
        """A fresh agent for rows shaped like `example`'s, leaves `(1, ...)`; `fit_observations` completes it."""
        config, improvement = stage.config, stage.config.improvement
        key, values_key, model_key, clones_key, score_key = jax.random.split(key, 5)
        clones = config.clones.create(clones_key, example)
        obs_dim = example.observations.shape[-1]
        rate = LearningRate(
            improvement.learning_rate, stage.num_updates, improvement.schedule, improvement.decay_clip_until
        )
        optimizer = policy_optimizer(rate, improvement.max_grad_norm)
        params = copy_params(clones.params)
        return cls(
            values=OfflineValues.create(values_key, example, config.values),
            model=TransitionModel.create(model_key, example, config.model),
            clones=clones,
            policies=Model(params, optimizer.init(params), clones.module, optimizer, "policies"),
            accepted=copy_params(params),
            gate=Gate.create(config.clones.num_members),
            actor=_single(clones, 0),
            count=jnp.zeros((), jnp.int32),
            starts=jnp.zeros((improvement.num_starts, obs_dim)),
            score_key=score_key,
            key=key,
            standardizer=Standardizer.identity(obs_dim) if config.standardize_observations else None,
            stage=stage,
        )

    def fit_observations(self, observations: jax.Array | None) -> Self:
        """This agent with the states AM-Q starts from, drawn once, and the standardisation of the dataset's states.

        Raises:
            ConfigError: there are no data.
        """
        if observations is None:
            raise ConfigError("Uni-O4 and BPPO learn from a dataset, and the task has none; choose another task")
        rows = jax.random.randint(jax.random.fold_in(self.score_key, 0), (len(self.starts),), 0, len(observations))
        return self.replace(
            model=self.model.fit_observations(observations),
            starts=observations[rows],
            standardizer=Standardizer.refit(self.standardizer, observations),
        )

    @jax.jit
    def update(self, batch: Transitions | BootstrapBatch) -> tuple[Self, Metrics]:
        """One update of what the stage trains; the model's batches are `BootstrapBatch`es, all others Transitions."""
        config = self.stage.config
        if self.stage.trains == "model":
            if not isinstance(batch, BootstrapBatch):
                raise ConfigError("the stage 'model' takes resampled batches; set its phase's bootstrap")
            model, metrics = self.model.update(batch)
            return self.replace(model=model), metrics
        if not isinstance(batch, Transitions):
            raise ConfigError(f"the stage {self.stage.trains!r} takes Transitions; leave its phase's bootstrap out")
        if self.stage.trains == "values":
            values, metrics = self.values.update(self._seen_rows(batch), config.discount)
            return self.replace(values=values), metrics
        if self.stage.trains == "clones":
            key, noise_key = jax.random.split(self.key)
            clones, metrics = clone(self.clones, self._seen_rows(batch), noise_key, config.clones)
            return self.replace(key=key)._begin_at(clones), metrics
        return self._improve(batch)

    def _begin_at(self, clones: Model) -> Self:
        """The members, accepted snapshots and acting policy that go with these clones."""
        return self.replace(
            clones=clones,
            policies=self.policies.replace(params=clones.params),
            accepted=clones.params,
            actor=_single(clones, 0),
        )

    def _improve(self, batch: Transitions) -> tuple[Self, Metrics]:
        """One step of PPO for all members, and the gate where it is due."""
        improvement = self.stage.config.improvement
        key, noise_key, gate_key = jax.random.split(self.key, 3)
        half_width = clip_range(improvement, self.stage.num_updates, self.count)
        observations = self._seen(batch.observations)
        policies, metrics = ppo_step(
            self.policies, self.accepted, self.values, observations, noise_key, improvement, half_width
        )
        agent = self.replace(policies=policies, count=self.count + 1, key=key)
        if improvement.gate == "returns":  # the loop's trials decide, see `judged`
            return agent, metrics
        # The first gate is the clones' own: what the members must exceed.
        first = self.count == 0
        candidates = jax.tree.map(lambda a, b: jnp.where(first, a, b), self.policies.params, policies.params)
        due = first | (agent.count % improvement.gate_every == 0)
        agent = jax.lax.cond(due, lambda: agent._score_and_decide(candidates, batch, gate_key), lambda: agent)
        return agent, metrics | agent.gate.metrics()

    def _score_and_decide(self, candidates: Any, batch: Transitions, key: jax.Array) -> Self:
        """Score all members by AM-Q and accept those that rose.

        A score far beyond the data's values says that the model was left behind: it is never accepted.
        """
        improvement = self.stage.config.improvement
        starts, score_key = self.starts, self.score_key
        if not improvement.common_draws:
            rows = jnp.arange(improvement.num_starts) % len(batch.rewards)
            starts, score_key = batch.observations[rows], key
        scores = self.score(candidates, starts, score_key)
        largest = jnp.abs(self.values.q(self._seen(batch.observations), batch.actions)).max()
        steps = improvement.horizon if improvement.reduction == "sum" else 1
        believed = jnp.abs(scores) <= _TRUST * largest * steps
        return self._decide(candidates, scores, believed)

    def score(self, params: Any, starts: jax.Array, key: jax.Array) -> jax.Array:
        """AM-Q `(num_members,)` of members with these parameters, from raw states `(rows, obs_dim)`."""
        improvement, module = self.stage.config.improvement, self.policies.module

        def act(observations: jax.Array) -> jax.Array:
            distribution: Any = module.apply(params, self._seen(observations), True)
            return distribution.mode()

        return amq_scores(
            act,
            lambda observations, actions: self.values.q(self._seen(observations), actions),
            self.model,
            self.stage.terminates,
            starts,
            self.stage.config.clones.num_members,
            key,
            improvement.horizon,
            improvement.reduction,
        )

    def _decide(self, candidates: Any, scores: jax.Array, believed: jax.Array) -> Self:
        """Replace the accepted snapshots that their candidates exceed, and let the best member act."""
        gate, decision = self.gate.decide(scores, believed, self.stage.config.improvement)
        accepted = _where_member(decision.accept, candidates, self.accepted)
        params = _where_member(decision.back, accepted, self.policies.params)
        agent = self.replace(gate=gate, accepted=accepted, policies=self.policies.replace(params=params))
        offered, ranks = agent._offered()
        return agent._with_acting(select_actor(offered, ranks.argmax()))

    def _offered(self) -> tuple[Any, jax.Array]:
        """The members that may act, parameters of all, and what ranks them, `(num_members,)`."""
        if self.stage.config.improvement.hand_over == "accepted":
            return self.accepted, self.gate.best
        return self.policies.params, self.gate.scores

    def _with_acting(self, params: Any) -> Self:
        return self.replace(actor=self.actor.replace(params=params))

    def candidates(self) -> tuple[Policy, ...]:
        """What is tried in the environment: all members, or with the gate "amq" the three that it ranks first."""
        improvement, count = self.stage.config.improvement, self.stage.config.clones.num_members
        if improvement.gate == "returns":
            chosen = [select_actor(self.policies.params, index) for index in range(count)]
        else:
            offered, ranks = self._offered()
            chosen = [select_actor(offered, index) for index in jnp.argsort(-ranks)[:3]]
        return tuple(self._acting(self.actor.replace(params=params), deterministic=True) for params in chosen)

    def judged(self, returns: jax.Array) -> Self:
        """With the gate "returns", snapshots replaced where returns rose; else the best of the three acts."""
        if self.stage.config.improvement.gate == "returns":
            return self._decide(self.policies.params, returns, jnp.ones_like(returns, bool))
        offered, ranks = self._offered()
        return self._with_acting(select_actor(offered, jnp.argsort(-ranks)[returns.argmax()]))

    def _seen(self, observations: jax.Array) -> jax.Array:
        return observations if self.standardizer is None else self.standardizer(observations)

    def _seen_rows(self, batch: Transitions) -> Transitions:
        return batch if self.standardizer is None else self.standardizer.transitions(batch)

    def policy(self, *, deterministic: bool) -> Policy:
        """The acting member's mean or its samples."""
        return self._acting(self.actor, deterministic)

    def _acting(self, actor: Model, deterministic: bool) -> Policy:
        policy: Policy = ActorPolicy(actor=actor, deterministic=deterministic)
        return policy if self.standardizer is None else StandardizedPolicy(policy, self.standardizer)

    def parts(self) -> dict[str, Any]:
        """All that one stage leaves to the next, and actor and value for an agent that goes on online."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        values = fields.pop("values")
        for name in ("stage", *([] if self.standardizer is not None else ["standardizer"])):
            del fields[name]
        return fields | {
            "critic": values.critic,
            "value": values.value,
            "target_critic": values.target_critic_params,
            "values_count": values.count,
        }

    def with_parts(self, parts: dict[str, Any]) -> Self:
        """This agent with the named parts in place of its own."""
        names = {
            "critic": "critic",
            "value": "value",
            "target_critic": "target_critic_params",
            "values_count": "count",
        }
        values = self.values.replace(**{names[role]: part for role, part in parts.items() if role in names})
        rest = {role: part for role, part in parts.items() if role not in names}
        return self.replace(values=values, **rest)

    def diagnose(self, batch: Transitions, key: jax.Array) -> Metrics:
        """Mean value and mean squared TD error of the critics on `batch`, leaves `(batch_size, ...)`."""
        del key
        return self.values.diagnose(self._seen_rows(batch), self.stage.config.discount)


def _single(ensemble: Model, index: int) -> Model:
    """One member of an ensemble of actors as a Model of its own, with a fresh Adam."""
    module, params = ensemble.module, select_actor(ensemble.params, index)
    assert isinstance(module, NormalActorEnsemble)
    optimizer = adam(1.0)  # it is never stepped here; an agent that trains it brings its own
    return Model(params, optimizer.init(params), module.actor, optimizer, "actor")


def _where_member(chosen: jax.Array, params: Any, other: Any) -> Any:
    """`params` of the members that are `chosen` `(num_members,)`, `other` of the rest."""
    return jax.tree.map(lambda a, b: jnp.where(chosen.reshape(-1, *(1,) * (a.ndim - 1)), a, b), params, other)
