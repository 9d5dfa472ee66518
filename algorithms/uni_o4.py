"""Uni-O4: one on-policy objective offline and online; offline it is improved in steps that a learned model approves."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Self

import jax
import jax.numpy as jnp
import optax
from flax import struct

from algorithms.amq import REDUCTIONS, amq_scores
from algorithms.clone_ensemble import ClonesConfig, clone
from algorithms.offline_values import OfflineValues, OfflineValuesConfig
from algorithms.ppo import PPOConfig
from algorithms.transition_model import TransitionModel, TransitionModelConfig
from hybridrl.errors import ConfigError
from hybridrl.losses.policy import clipped_surrogate
from hybridrl.model import Model, adam, copy_params, per_member
from hybridrl.networks import NormalActorEnsemble, select_actor
from hybridrl.policies import ActorPolicy
from hybridrl.standardizer import StandardizedPolicy, Standardizer
from hybridrl.types import BootstrapBatch, Metrics, Policy, Transitions

STAGES = ("values", "model", "clones", "policies")
SCHEDULES = ("linear", "exponential")
_TRUST = 3.0  # a score beyond so many times the largest |Q| of the data is not believed
_CLIP_DECAY, _RATE_DECAY = 0.96, 0.98  # of the exponential schedule: per update, and per two updates


@dataclasses.dataclass(frozen=True)
class ImprovementConfig:
    """Settings of offline PPO and its gate.

    The defaults are those of Uni-O4's published code on locomotion but for `reduction`, `common_draws` and `hand_over`.

    Attributes:
        learning_rate, clip_range: at the first update.
        schedule: "linear": the rate falls to 0 over the stage, the clip range with it for its first
            `decay_clip_until` updates; "exponential" (BPPO): both fall geometrically for so many updates. Then the clip
            range, and with "exponential" the rate, stay.
        positive_weight: advantages above 0 are multiplied by it, all others by 1 minus it; None leaves them alone.
        entropy_weight: of the entropy in the objective.
        max_grad_norm: of each member's gradient.
        gate: "amq", a member's snapshot is replaced if its AM-Q rises, or "returns" (BPPO), if its return rises in
            trials in the environment.
        gate_every: updates from one gate to the next.
        horizon, num_starts, reduction: of AM-Q, see `algorithms.amq`.
        common_draws: all gates of a run start from the same states with the same random draws. The published code
            draws anew for each score, so that its best score is the luckiest.
        select: which member acts in the end: "amq_only", the accepted snapshot with the best score, or
            "amq_top3_then_real" (the published code), of the best three the one with the best return in a last trial.
        margin: a score must exceed the best by this share of it.
        reset_after: refused gates in a row after which a member goes back to what was last accepted; 0: never.
        hand_over: "accepted" snapshots act, or "live" members (the published code), approved or not.
    """

    learning_rate: float = 1e-4
    clip_range: float = 0.25
    schedule: str = "linear"
    decay_clip_until: int = 200
    positive_weight: float | None = None
    entropy_weight: float = 0.0
    max_grad_norm: float = 0.5
    gate: str = "amq"
    gate_every: int = 100
    horizon: int = 1_000
    num_starts: int = 512
    reduction: str = "sum"
    common_draws: bool = True
    select: str = "amq_only"
    margin: float = 0.0
    reset_after: int = 0
    hand_over: str = "accepted"

    def __post_init__(self) -> None:
        """Reject settings that cannot work."""
        for field, allowed in {
            "schedule": SCHEDULES,
            "reduction": REDUCTIONS,
            "hand_over": ("accepted", "live"),
            "gate": ("amq", "returns"),
            "select": ("amq_only", "amq_top3_then_real"),
        }.items():
            if getattr(self, field) not in allowed:
                raise ConfigError(f"{field}={getattr(self, field)!r}; expected one of {', '.join(allowed)}")
        for field in ("gate_every", "horizon", "num_starts"):
            if getattr(self, field) < 1:
                raise ConfigError(f"{field}={getattr(self, field)}; expected at least 1")
        if self.margin < 0.0 or self.reset_after < 0:
            raise ConfigError(f"margin={self.margin}, reset_after={self.reset_after}; expected 0 or more")
        if self.positive_weight is not None and not 0.0 < self.positive_weight < 1.0:
            raise ConfigError(f"positive_weight={self.positive_weight}; expected a number between 0 and 1, or null")


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


@dataclasses.dataclass(frozen=True)
class LearningRate:
    """The policies' learning rate after `count` updates."""

    initial: float
    num_updates: int
    schedule: str
    decay_until: int

    def __call__(self, count: jax.Array) -> jax.Array:
        """The rate, `()`."""
        if self.schedule == "linear":
            return self.initial * jnp.maximum(1.0 - count / self.num_updates, 0.0)
        return self.initial * _RATE_DECAY ** (jnp.minimum(count, self.decay_until) // 2)


@functools.lru_cache
def policy_optimizer(learning_rate: LearningRate, max_grad_norm: float) -> optax.GradientTransformation:
    """Adam whose gradients are clipped member by member. Cached, so that seeds share one compilation."""
    clip = optax.clip_by_global_norm(max_grad_norm)
    return per_member(optax.chain(clip, optax.adam(learning_rate)))


def clip_range(config: ImprovementConfig, num_updates: int, count: jax.Array) -> jax.Array:
    """The half-width of the ratio's clip in the update after `count` others, `()`."""
    count = jnp.minimum(count, config.decay_clip_until)
    if config.schedule == "linear":
        return config.clip_range * (1.0 - count / num_updates)
    return config.clip_range * _CLIP_DECAY**count


def standardized_advantages(advantages: jax.Array, values: jax.Array) -> jax.Array:
    """Each member's advantages `(num_members, rows)` with mean 0 and deviation 1 over its rows.

    Where they are equal up to the rounding of `values` `(rows,)`, which they are differences of, they come out near 0,
    not as amplified noise.
    """
    centred = advantages - advantages.mean(axis=1, keepdims=True)
    floor = 1e-5 * (1.0 + jnp.abs(values).mean())
    return centred / (advantages.std(axis=1, ddof=1, keepdims=True) + floor)


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
    best: jax.Array  # (num_members,), the accepted snapshots' scores; -inf before the first gate
    scores: jax.Array  # (num_members,), of the last gate
    acceptances: jax.Array  # (num_members,), gates passed, without the clones' own
    refusals: jax.Array  # (num_members,), in a row
    least_gain: jax.Array  # (), by which a score rose at the least when a snapshot was accepted; inf before any was
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
        count, obs_dim = config.clones.num_members, example.observations.shape[-1]
        rate = LearningRate(
            improvement.learning_rate, stage.num_updates, improvement.schedule, improvement.decay_clip_until
        )
        optimizer = policy_optimizer(rate, improvement.max_grad_norm)
        params = copy_params(clones.params)
        agent = cls(
            values=OfflineValues.create(values_key, example, config.values),
            model=TransitionModel.create(model_key, example, config.model),
            clones=clones,
            policies=Model(params, optimizer.init(params), clones.module, optimizer, "policies"),
            accepted=copy_params(params),
            best=jnp.full(count, -jnp.inf),
            scores=jnp.zeros(count),
            acceptances=jnp.zeros(count),
            refusals=jnp.zeros(count),
            least_gain=jnp.float32(jnp.inf),
            actor=_single(clones, 0),
            count=jnp.zeros((), jnp.int32),
            starts=jnp.zeros((improvement.num_starts, obs_dim)),
            score_key=score_key,
            key=key,
            standardizer=Standardizer.identity(obs_dim) if config.standardize_observations else None,
            stage=stage,
        )
        return agent

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
        policies, metrics = self._ppo_step(self._seen(batch.observations), noise_key)
        agent = self.replace(policies=policies, count=self.count + 1, key=key)
        if improvement.gate == "returns":  # the loop's trials decide, see `judged`
            return agent, metrics
        # The first gate is the clones' own: what the members must exceed.
        first = self.count == 0
        candidates = jax.tree.map(lambda a, b: jnp.where(first, a, b), self.policies.params, policies.params)
        due = first | (agent.count % improvement.gate_every == 0)
        agent = jax.lax.cond(due, lambda: agent._gate(candidates, batch, gate_key), lambda: agent)
        gate = {
            "gate/score": agent.scores.mean(),
            "gate/best_score": agent.best.mean(),
            "gate/acceptances": agent.acceptances.mean(),
            "gate/least_gain": jnp.where(jnp.isfinite(agent.least_gain), agent.least_gain, 0.0),
        }
        return agent, metrics | gate

    def _ppo_step(self, observations: jax.Array, key: jax.Array) -> tuple[Model, Metrics]:
        """Lei et al. 2024, section 3.2: the clipped objective on the accepted policies' own actions in data states.

        Densities are those of the draws, which may lie outside the action box; Q is asked about what would be played.
        """
        config, module = self.stage.config.improvement, self.policies.module
        old: Any = module.apply(self.accepted, observations)
        actions = old.mean + old.std * jax.random.normal(key, old.mean.shape)
        values = self.values.value(observations)
        advantages = self.values.q(observations, jnp.clip(actions, -1.0, 1.0)) - values[None]
        advantages = standardized_advantages(advantages, values)
        if config.positive_weight is not None:
            weight = config.positive_weight
            advantages *= jnp.where(advantages > 0.0, weight, 1.0 - weight)
        half_width = clip_range(config, self.stage.num_updates, self.count)
        old_log_probs = old.log_prob(actions)

        def loss(params: Any) -> tuple[jax.Array, Metrics]:
            new = self.policies(observations, params=params)
            log_ratio = new.log_prob(actions) - old_log_probs
            objective = clipped_surrogate(log_ratio, advantages, half_width).mean(axis=1)
            entropy = new.entropy().mean(axis=1)
            value = -(objective + config.entropy_weight * entropy)
            clipped = (jnp.abs(jnp.exp(log_ratio) - 1.0) > half_width).mean()
            metrics = {
                "policies/loss": value.mean(),
                "policies/entropy": entropy.mean(),
                "policies/std": new.std.mean(),
            }
            return value.sum(), metrics | {"policies/clipped": clipped, "policies/log_ratio": log_ratio.mean()}

        return self.policies.minimize(loss)

    def _gate(self, candidates: Any, batch: Transitions, key: jax.Array) -> Self:
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
        """Replace the accepted snapshots that their candidates exceed, and let the best one act."""
        improvement = self.stage.config.improvement
        begun = jnp.isfinite(self.best)
        threshold = self.best + improvement.margin * jnp.where(begun, jnp.abs(self.best), 0.0)
        accept = ~begun | ((scores > threshold) & believed)
        accepted = _where_member(accept, candidates, self.accepted)
        best = jnp.where(accept, scores, self.best)
        gains = jnp.where(accept & begun, scores - self.best, jnp.inf)
        refusals = jnp.where(accept, 0.0, self.refusals + 1.0)
        policies = self.policies
        if improvement.reset_after:
            back = refusals >= improvement.reset_after
            policies = policies.replace(params=_where_member(back, accepted, policies.params))
            refusals = jnp.where(back, 0.0, refusals)
        acting = accepted if improvement.hand_over == "accepted" else policies.params
        return self.replace(
            policies=policies,
            accepted=accepted,
            best=best,
            scores=scores,
            acceptances=self.acceptances + (accept & begun),
            least_gain=jnp.minimum(self.least_gain, gains.min()),
            refusals=refusals,
            actor=self.actor.replace(params=select_actor(acting, best.argmax())),
        )

    def candidates(self) -> tuple[Policy, ...]:
        """What is tried in the environment: all members, or with the gate "amq" the three best accepted snapshots."""
        improvement, count = self.stage.config.improvement, self.stage.config.clones.num_members
        if improvement.gate == "returns":
            chosen = [select_actor(self.policies.params, index) for index in range(count)]
        else:
            chosen = [select_actor(self.accepted, index) for index in jnp.argsort(-self.best)[:3]]
        return tuple(self._acting(self.actor.replace(params=params), deterministic=True) for params in chosen)

    def judged(self, returns: jax.Array) -> Self:
        """With the gate "returns", snapshots replaced where returns rose; else the best of the three acts."""
        if self.stage.config.improvement.gate == "returns":
            return self._decide(self.policies.params, returns, jnp.ones_like(returns, bool))
        index = jnp.argsort(-self.best)[returns.argmax()]
        return self.replace(actor=self.actor.replace(params=select_actor(self.accepted, index)))

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
