"""BC, TD3+BC, IQL, ReBRAC and FQL once more, in float64 NumPy: each network's loss as a function of its parameters.

Nothing of the library is called but its random draws: the same keys are split in the same way.
"""

import jax
import numpy as np
from numpy_reference import Adam, gradient, noise, softplus, to_numpy


def dense(layer, x):
    return x @ layer["kernel"] + layer["bias"]


def relu(x):
    return np.maximum(x, 0.0)


def gelu(x):
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def normalized(layer, x):
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
    return x * layer["scale"] + layer["bias"]


def features(layers, x, activation=relu, norm_last=False):
    for index in range(sum(name.startswith("Dense") for name in layers)):
        x = dense(layers[f"Dense_{index}"], x)
        norm = layers.get(f"LayerNorm_{index}")
        if norm is not None and not norm_last:
            x = normalized(norm, x)
        x = activation(x)
        if norm is not None and norm_last:
            x = normalized(norm, x)
    return x


def member(tree, index):
    return jax.tree.map(lambda leaf: leaf[index], tree)


def critics(params, obs, actions, **kind):
    """`(num_critics, batch)` with heads of their own."""
    params, x = params["params"], np.concatenate([obs, actions], axis=-1)
    count = len(params["member_heads"]["bias"])
    heads = [
        dense(member(params["member_heads"], i), features(member(params["members"], i), x, **kind))
        for i in range(count)
    ]
    return np.stack(heads)[..., 0]


def value(params, obs):
    return dense(params["params"]["head"], features(params["params"]["MLP_0"], obs))[..., 0]


def action(params, obs, **kind):
    return np.tanh(dense(params["params"]["action"], features(params["params"]["MLP_0"], obs, **kind)))


def vector(params, *inputs):
    x = features(params["params"]["MLP_0"], np.concatenate(inputs, axis=-1), gelu, norm_last=True)
    return dense(params["params"]["vector"], x)


def gaussian(params, obs, config):
    params = params["params"]
    x = features(params["MLP_0"], obs)
    mean = dense(params["mean"], x)
    log_std = dense(params["log_std"], x) if config.std_kind == "state" else params["log_std"] + 0 * mean
    return mean, np.clip(np.exp(log_std), *config.std_bounds)


def log_prob(params, obs, actions, config):
    mean, std = gaussian(params, obs, config)
    if config.actor == "bounded_mean":
        mean = np.tanh(mean)
    u = np.arctanh(actions) if config.actor == "tanh_normal" else actions
    density = -0.5 * ((u - mean) / std) ** 2 - np.log(std) - 0.5 * np.log(2 * np.pi)
    if config.actor == "tanh_normal":
        density = density - 2 * (np.log(2) - u - softplus(-2 * u))
    return density.sum(axis=-1)


def squared(x):
    return np.square(x)


class Reference:
    """One agent's networks with their Adams, and its targets."""

    def __init__(self, agent, rates, targets):
        self.config = agent.config
        self.networks = {name: Adam(getattr(agent, name), rate) for name, rate in rates.items()}
        self.targets = {name: to_numpy(getattr(agent, f"target_{name}_params")) for name in targets}
        self.key = getattr(agent, "key", None)
        self.count = 0

    def __getitem__(self, name):
        return self.networks[name].params

    def step(self, **losses):
        """One Adam step per loss, all gradients at the parameters as they are; returns the losses."""
        gradients = {name: gradient(loss, self[name]) for name, loss in losses.items()}
        found = {f"{name}/loss": loss(self[name]) for name, loss in losses.items()}
        for name, slope in gradients.items():
            self.networks[name].step(slope)
        return found

    def follow(self, name):
        rate = self.config.target_update_rate
        self.targets[name] = jax.tree.map(
            lambda new, old: rate * new + (1 - rate) * old, self[name], self.targets[name]
        )


class BC(Reference):
    def __init__(self, agent):
        super().__init__(agent, {"actor": agent.config.learning_rate}, ())

    def update(self, b):
        if self.config.actor == "deterministic":
            return self.step(actor=lambda p: squared(action(p, b.observations) - b.actions).mean())
        return self.step(actor=lambda p: -log_prob(p, b.observations, b.actions, self.config).mean())


class IQL(Reference):
    def __init__(self, agent):
        super().__init__(agent, dict.fromkeys(("actor", "critic", "value"), agent.config.learning_rate), ("critic",))

    def update(self, b):
        config = self.config
        self.key, subset_key, _ = jax.random.split(self.key, 3)
        q = critics(self.targets["critic"], b.observations, b.actions)
        if config.num_target_critics < config.num_critics:
            q = q[np.asarray(jax.random.choice(subset_key, len(q), (config.num_target_critics,), replace=False))]
        q = q.min(axis=0)
        y = b.rewards + config.discount * b.masks * value(self["value"], b.next_observations)
        weights = np.minimum(np.exp(config.awr_temperature * (q - value(self["value"], b.observations))), 100.0)

        def expectile(p):
            u = q - value(p, b.observations)
            return np.mean(np.abs(config.expectile - (u < 0)) * u**2)

        found = self.step(
            value=expectile,
            critic=lambda p: squared(critics(p, b.observations, b.actions) - y).mean(),
            actor=lambda p: -np.mean(weights * log_prob(p, b.observations, b.actions, config)),
        )
        self.follow("critic")
        return found | {"actor/weight_max": weights.max()}


class TD3(Reference):
    """TD3+BC and ReBRAC."""

    norm_last = False

    def __init__(self, agent):
        rates = {"actor": agent.config.actor_learning_rate, "critic": agent.config.critic_learning_rate}
        super().__init__(agent, rates, ("actor", "critic"))

    def penalty(self, actions, b):
        return 0.0

    def actor_loss(self, actions, q, b):
        error = squared(actions - b.actions).mean()
        return -self.config.q_weight * q[0].mean() / self.scale(q) + error

    def scale(self, q):
        return np.abs(self.fixed_q[0]).mean()

    def update(self, b):
        config, kind = self.config, {"norm_last": self.norm_last}
        self.key, noise_key = jax.random.split(self.key)
        draws = np.clip(config.target_noise * noise(noise_key, *b.actions.shape), -0.5, 0.5)
        actions = np.clip(action(self.targets["actor"], b.next_observations, **kind) + draws, -1, 1)
        next_q = critics(self.targets["critic"], b.next_observations, actions, **kind).min(axis=0)
        y = b.rewards + config.discount * b.masks * (next_q - self.penalty(actions, b))
        found = self.step(
            critic=lambda p: squared(critics(p, b.observations, b.actions, **kind) - y).mean(axis=1).sum()
        )
        if self.count % config.actor_every == 0:
            # The size of the values is held fixed while the gradient is taken.
            self.fixed_q = critics(
                self["critic"], b.observations, action(self["actor"], b.observations, **kind), **kind
            )

            def loss(p):
                proposed = action(p, b.observations, **kind)
                return self.actor_loss(proposed, critics(self["critic"], b.observations, proposed, **kind), b)

            found |= self.step(actor=loss)
            self.follow("actor")
            self.follow("critic")
        self.count += 1
        return found


class ReBRAC(TD3):
    norm_last = True

    def penalty(self, actions, b):
        error = squared(actions - b.next_actions).sum(axis=1)
        return self.config.critic_bc_weight * np.where(np.isnan(error), 0.0, error)

    def actor_loss(self, actions, q, b):
        weight = self.config.actor_bc_weight
        if self.config.bc_decay_updates:
            weight *= max(1 - self.count / self.config.bc_decay_updates, self.config.bc_final_share)
        size = np.abs(self.fixed_q.min(axis=0)).mean()
        return np.mean(weight * squared(actions - b.actions).sum(axis=1) - q.min(axis=0) / size)


class FQL(Reference):
    def __init__(self, agent):
        super().__init__(agent, dict.fromkeys(("actor", "flow", "critic"), agent.config.learning_rate), ("critic",))

    def update(self, b):
        config, shape, kind = self.config, b.actions.shape, {"activation": gelu, "norm_last": True}
        self.key, target_key, time_key, path_key, noise_key = jax.random.split(self.key, 5)
        next_actions = np.clip(vector(self["actor"], b.next_observations, noise(target_key, *shape)), -1, 1)
        next_q = critics(self.targets["critic"], b.next_observations, next_actions, **kind)
        next_q = next_q.min(axis=0) if config.target_q == "min" else next_q.mean(axis=0)
        y = b.rewards + config.discount * b.masks * next_q
        times = np.asarray(jax.random.uniform(time_key, (shape[0], 1)), np.float64)
        start, draws = noise(path_key, *shape), noise(noise_key, *shape)
        points = (1 - times) * start + times * b.actions
        cloned = draws
        for number in range(config.flow_steps):
            now = np.full((shape[0], 1), number / config.flow_steps)
            cloned = cloned + vector(self["flow"], b.observations, cloned, now) / config.flow_steps
        cloned = np.clip(cloned, -1, 1)

        def climb(p):
            clipped = np.clip(vector(p, b.observations, draws), -1, 1)
            return critics(self["critic"], b.observations, clipped, **kind).mean(axis=0)

        size = np.abs(climb(self["actor"])).mean() if config.normalize_q else 1.0
        critic = self["critic"]
        found = self.step(
            critic=lambda p: squared(critics(p, b.observations, b.actions, **kind) - y).mean(),
            flow=lambda p: squared(vector(p, b.observations, points, times) - (b.actions - start)).mean(),
            actor=lambda p: (
                config.bc_weight * squared(vector(p, b.observations, draws) - cloned).mean() - climb(p).mean() / size
            ),
        )
        assert self["critic"] is not critic
        self.follow("critic")
        return found


REFERENCES = {"bc": BC, "td3bc": TD3, "iql": IQL, "rebrac": ReBRAC, "fql": FQL}
