"""The discriminators, H2O and DARC once more, in float64 NumPy; see `numpy_reference`."""

import jax
import numpy as np
from numpy_reference import Adam, Reference, critics, fields, gradient, hidden, noise, positive

from hybridrl.types import Transitions


def logits(params, inputs):
    params = params["params"]
    return 2 * np.tanh(hidden(params["MLP_0"], inputs, False) @ params["logits"]["kernel"] + params["logits"]["bias"])


def pairs(batch):
    return np.concatenate([batch.observations, batch.actions], axis=-1)


def triples(batch):
    return np.concatenate([pairs(batch), batch.next_observations], axis=-1)


def cut(batch, part):
    return Transitions(*[np.asarray(field, np.float64)[part] for field in fields(batch)])


def join(first, second):
    return Transitions(*[np.concatenate(two) for two in zip(fields(first), fields(second), strict=True)])


def cross_entropy(z, label):
    return np.mean(np.log(np.exp(z).sum(axis=-1)) - z[..., label])


class GapReference(Reference):
    """An agent with discriminators."""

    def __init__(self, agent):
        super().__init__(agent.sac)
        self.settings, rate = agent.config, agent.config.discriminator.learning_rate
        self.state_action = Adam(agent.discriminators.state_action, rate)
        self.transition = Adam(agent.discriminators.transition, rate)

    def noisy(self, batch, key):
        std, keys = self.settings.discriminator.noise_std, jax.random.split(key, 3)
        names = ("observations", "actions", "next_observations")
        return batch.replace(
            **{
                name: getattr(batch, name) + std * noise(k, *getattr(batch, name).shape)
                for name, k in zip(names, keys, strict=True)
            }
        )

    def discriminate(self, real, simulated, key):
        """One step of both networks; returns the two losses."""
        real_key, simulated_key = jax.random.split(key)
        sources = (self.noisy(real, real_key), self.noisy(simulated, simulated_key))

        def losses(pair_params, triple_params):
            pair_loss = triple_loss = 0.0
            for label, rows in enumerate(sources):
                z = logits(pair_params, pairs(rows))
                pair_loss += cross_entropy(z, label)
                triple_loss += cross_entropy(z + logits(triple_params, triples(rows)), label)
            return pair_loss, triple_loss

        a, b = self.state_action.params, self.transition.params
        found = losses(a, b)
        slopes = gradient(lambda p: sum(losses(p, b)), a), gradient(lambda p: sum(losses(a, p)), b)
        self.state_action.step(slopes[0])
        self.transition.step(slopes[1])
        return {"discriminator/state_action_loss": found[0], "discriminator/transition_loss": found[1]}

    def log_ratio(self, batch):
        z = logits(self.transition.params, triples(batch))
        return z[..., 0] - z[..., 1]

    def h2o_update(self, batch, std, multiplier=None):
        """H2O's update; `multiplier` is None or its Adam."""
        config, count = self.settings, self.settings.discriminator.batch_size
        real, simulated = cut(batch.offline, slice(None, -count)), cut(batch.online, slice(None, -count))
        self.key, discriminator_key, target_key, gap_key, actor_key = jax.random.split(self.key, 5)
        found = self.discriminate(
            cut(batch.offline, slice(-count, None)), cut(batch.online, slice(-count, None)), discriminator_key
        )
        targets = self.td_targets(join(real, simulated), target_key)
        ratios = np.clip(np.exp(self.log_ratio(simulated)), *config.ratio_clip)
        draws = noise(gap_key, config.gap_samples, *simulated.next_observations.shape)
        gaps = np.zeros(len(simulated.rewards))
        for draw in draws:
            moved = simulated.next_observations + config.gap_std_scale * std * draw
            gaps -= self.log_ratio(simulated.replace(next_observations=moved)) / config.gap_samples
        gaps = np.clip(gaps, 1e-37, config.max_gap)
        weights = gaps / gaps.sum() if config.choices.adaptive_weights else np.full(len(gaps), 1 / len(gaps))
        if not config.choices.importance_weights:
            ratios = np.ones_like(ratios)
        n, t = len(real.rewards), config.penalty_temperature
        factor = 1.0 if multiplier is None else positive(multiplier.params, "exp")
        threshold = 0.0 if multiplier is None else config.target_gap

        def penalties(params):
            found = []
            q_sim = critics(params, simulated.observations, simulated.actions, self.config)
            q_real = critics(params, real.observations, real.actions, self.config)
            for a, b in zip(q_sim, q_real, strict=True):
                if config.choices.penalty == "logsumexp":
                    pushed = t * np.log(np.sum(weights ** (1 / t) * np.exp(a / t)))
                else:
                    pushed = np.sum(weights * a)
                found.append(np.clip(pushed - b.mean(), -config.penalty_clip, config.penalty_clip))
            return found

        def loss(params):
            q_sim = critics(params, simulated.observations, simulated.actions, self.config)
            q_real = critics(params, real.observations, real.actions, self.config)
            total = 0.0
            for a, b, penalty in zip(q_sim, q_real, penalties(params), strict=True):
                total += np.mean((b - targets[:n]) ** 2) + np.mean(ratios * (a - targets[n:]) ** 2)
                total += factor * config.penalty_weight * (penalty - threshold)
            return total

        before, penalty = self.critic.params, np.mean(penalties(self.critic.params))
        found |= {"critic/loss": loss(before), "critic/penalty": penalty, "dynamics/gap_mean": gaps.mean()}
        self.critic_step(loss)
        found |= self.policy_step(join(real, simulated), actor_key, before)
        if multiplier is not None:
            scale = config.penalty_weight * (penalty - threshold)
            multiplier.step(gradient(lambda p: -positive(p, "exp") * scale, multiplier.params))
        return found

    def darc_update(self, batch):
        """DARC's and DARC+'s update."""
        config, count = self.settings, self.settings.discriminator.batch_size
        real, simulated = cut(batch.offline, slice(None, -count)), cut(batch.online, slice(None, -count))
        self.key, discriminator_key, critic_key, actor_key = jax.random.split(self.key, 4)
        found = self.discriminate(
            cut(batch.offline, slice(-count, None)), cut(batch.online, slice(-count, None)), discriminator_key
        )
        simulated = simulated.replace(rewards=simulated.rewards + self.log_ratio(simulated))
        rows = join(real, simulated) if config.critic_on_real else simulated
        targets, before = self.td_targets(rows, critic_key), self.critic.params
        found["critic/loss"] = self.td_loss(before, rows, targets)
        self.critic_step(lambda params: self.td_loss(params, rows, targets))
        return found | self.policy_step(simulated, actor_key, before)
