"""SAC, CQL and Cal-QL once more, in float64 NumPy with gradients by central differences.

Nothing of the library is called but its random draws: the same keys are split in the same way, so that both see the
same noise. Parameters are nested dicts of float64 arrays.
"""

import jax
import numpy as np

from hybridrl.types import Transitions


def to_numpy(tree):
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), tree)


def softplus(x):
    return np.logaddexp(0.0, x)


def hidden(layers, x, layer_norm):
    for index in range(sum(name.startswith("Dense") for name in layers)):
        x = x @ layers[f"Dense_{index}"]["kernel"] + layers[f"Dense_{index}"]["bias"]
        if layer_norm:
            norm = layers[f"LayerNorm_{index}"]
            x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
            x = x * norm["scale"] + norm["bias"]
        x = np.maximum(x, 0.0)
    return x


def critics(params, observations, actions, config):
    """`(num_critics, *batch)`, one member at a time."""
    params, values = params["params"], []
    observations = np.broadcast_to(observations, (*actions.shape[:-1], observations.shape[-1]))
    for member in range(config.num_critics):
        features = hidden(
            jax.tree.map(lambda leaf, member=member: leaf[member], params["members"]),
            np.concatenate([observations, actions], axis=-1),
            config.critic_layer_norm,
        )
        if config.shared_critic_head:
            head = params["head"]
        else:
            head = jax.tree.map(lambda leaf, member=member: leaf[member], params["member_heads"])
        values.append((features @ head["kernel"] + head["bias"])[..., 0])
    return np.stack(values)


def act(params, observations, noise, config):
    """Actions and log-densities for standard normal `noise` `(*, batch, action_dim)`."""
    params = params["params"]
    features = hidden(params["MLP_0"], observations, config.actor_layer_norm)
    mean = features @ params["mean"]["kernel"] + params["mean"]["bias"]
    if config.std_kind in ("state", "scaled"):
        log_std = features @ params["log_std"]["kernel"] + params["log_std"]["bias"]
        if config.std_kind == "scaled":
            log_std = params["log_std_scale"] * log_std + params["log_std_offset"]
    else:
        log_std = params["log_std"] + 0 * mean
    std = np.clip(np.exp(log_std), *config.std_bounds)
    u = mean + std * noise
    normal = -0.5 * noise**2 - np.log(std) - 0.5 * np.log(2 * np.pi)
    return np.tanh(u), (normal - 2 * (np.log(2) - u - softplus(-2 * u))).sum(axis=-1)


def positive(params, kind):
    raw = params["params"]["raw"]
    return softplus(raw) if kind == "softplus" else np.exp(raw)


def gradient(loss, params, step=1e-5):
    """Central differences of a scalar loss in every entry."""
    leaves, structure = jax.tree.flatten(params)
    found = []
    for number, leaf in enumerate(leaves):
        slope = np.zeros(leaf.shape)
        for index in np.ndindex(leaf.shape):
            values = []
            for sign in (1, -1):
                moved = np.array(leaf)
                moved[index] += sign * step
                values.append(loss(jax.tree.unflatten(structure, [*leaves[:number], moved, *leaves[number + 1 :]])))
            slope[index] = (values[0] - values[1]) / (2 * step)
        found.append(slope)
    return jax.tree.unflatten(structure, found)


class Adam:
    """A network's parameters and moments."""

    def __init__(self, model, learning_rate):
        self.params, self.rate = to_numpy(model.params), learning_rate
        state = model.opt_state[0]
        self.count, self.mu, self.nu = int(state.count), to_numpy(state.mu), to_numpy(state.nu)

    def step(self, gradients):
        self.count += 1
        self.mu = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, self.mu, gradients)
        self.nu = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g**2, self.nu, gradients)
        first, second = 1 - 0.9**self.count, 1 - 0.999**self.count
        self.params = jax.tree.map(
            lambda p, m, v: p - self.rate * (m / first) / (np.sqrt(v / second) + 1e-8), self.params, self.mu, self.nu
        )


def minibatch(batch, count, number):
    return Transitions(*[np.split(np.asarray(field, np.float64), count)[number] for field in fields(batch)])


def fields(batch):
    return (
        batch.observations,
        batch.actions,
        batch.rewards,
        batch.masks,
        batch.next_observations,
        batch.mc_returns,
    )


def noise(key, *shape):
    return np.asarray(jax.random.normal(key, shape), np.float64)


def draw(key, config, count):
    indices = jax.random.choice(key, config.num_critics, (count,), replace=config.subset_with_replacement)
    return np.asarray(indices)


class Reference:
    """A SAC agent; `conservative_update` makes it CQL or Cal-QL."""

    def __init__(self, agent):
        config = self.config = agent.config
        self.actor = Adam(agent.actor, config.actor_learning_rate)
        self.critic = Adam(agent.critic, config.critic_learning_rate)
        self.temperature = Adam(agent.temperature, config.temperature_learning_rate)
        self.target = to_numpy(agent.target_critic_params)
        self.key = agent.key

    def beta(self):
        return positive(self.temperature.params, self.config.temperature_parameterization)

    def td_targets(self, batch, key):
        config = self.config
        action_key, subset_key = jax.random.split(key)
        draws = noise(action_key, config.num_backup_actions, *batch.actions.shape)
        actions, log_probs = act(self.actor.params, batch.next_observations, draws, config)
        values = critics(self.target, batch.next_observations, actions, config)
        subset = values[draw(subset_key, config, config.num_target_critics)]
        if config.entropy_backup:
            subset = subset - self.beta() * log_probs
        backup = np.array([max(min(q[a, b] for q in subset) for a in range(len(draws))) for b in range(len(draws[0]))])
        return batch.rewards + config.discount * batch.masks * backup

    def td_loss(self, params, batch, targets):
        return np.mean((critics(params, batch.observations, batch.actions, self.config) - targets) ** 2)

    def critic_step(self, loss):
        self.critic.step(gradient(loss, self.critic.params))
        rate = self.config.target_update_rate
        self.target = jax.tree.map(lambda new, old: rate * new + (1 - rate) * old, self.critic.params, self.target)

    def policy_step(self, batch, key, critic_params):
        config, beta = self.config, self.beta()
        action_key, entropy_key = jax.random.split(key)
        draws = noise(action_key, *batch.actions.shape)

        def actor_loss(params):
            actions, log_probs = act(params, batch.observations, draws, config)
            q = critics(critic_params, batch.observations, actions, config)
            return np.mean(beta * log_probs - (q.min(axis=0) if config.actor_q == "min" else q.mean(axis=0)))

        if config.temperature_states == "next":
            draws_next = noise(entropy_key, config.num_backup_actions, *batch.actions.shape)
            entropy = -act(self.actor.params, batch.next_observations, draws_next, config)[1].mean()
        else:
            entropy = -act(self.actor.params, batch.observations, draws, config)[1].mean()
        target = config.target_entropy_per_dim * batch.actions.shape[-1]
        kind = config.temperature_parameterization

        def temperature_loss(params):
            value = positive(params, kind)
            return (np.log(value) if config.temperature_objective == "log" else value) * (entropy - target)

        losses = {
            "actor/loss": actor_loss(self.actor.params),
            "temperature/loss": temperature_loss(self.temperature.params),
        }
        self.actor.step(gradient(actor_loss, self.actor.params))
        self.temperature.step(gradient(temperature_loss, self.temperature.params))
        return losses

    def update(self, batch):
        """SAC's update; returns its losses."""
        config, count = self.config, self.config.critic_updates
        self.key, critic_key, actor_key = jax.random.split(self.key, 3)
        before, losses = self.critic.params, []
        for number, key in enumerate(jax.random.split(critic_key, count)):
            part = minibatch(batch, count, number)
            targets = self.td_targets(part, key)
            losses.append(self.td_loss(self.critic.params, part, targets))
            self.critic_step(lambda params, part=part, targets=targets: self.td_loss(params, part, targets))
        chosen = minibatch(batch, 1, 0) if config.actor_batch == "all" else minibatch(batch, count, count - 1)
        found = self.policy_step(chosen, actor_key, before if count == 1 else self.critic.params)
        return found | {"critic/loss": np.mean(losses)}

    def conservative_update(self, batch, penalty, multiplier, lower_bounds):
        """CQL's update; `multiplier` is None or its Adam, which is stepped too."""
        config, batch, count = self.config, minibatch(batch, 1, 0), penalty.num_actions
        self.key, target_key, subset_key, penalty_key, actor_key = jax.random.split(self.key, 5)
        targets = self.td_targets(batch, target_key)
        chosen = draw(subset_key, config, penalty.num_critics)
        uniform_key, current_key, next_key = jax.random.split(penalty_key, 3)
        shape = (count, *batch.actions.shape)
        uniform = np.asarray(jax.random.uniform(uniform_key, shape, minval=-1.0, maxval=1.0), np.float64)
        current, current_log = act(self.actor.params, batch.observations, noise(current_key, *shape), config)
        following, next_log = act(self.actor.params, batch.next_observations, noise(next_key, *shape), config)
        size = batch.actions.shape[-1]

        def mean_gap(params):
            def values(actions):
                return critics(params, batch.observations, actions, config)[chosen]

            q_random, q_current, q_next = values(uniform), values(current), values(following)
            if lower_bounds is not None:
                q_current, q_next = np.maximum(q_current, lower_bounds), np.maximum(q_next, lower_bounds)
            q_data, t = critics(params, batch.observations, batch.actions, config)[chosen], penalty.softmax_temperature
            if penalty.importance_sampled:
                z = [q_random - size * np.log(0.5), q_current - current_log, q_next - next_log]
            else:
                z = [q - t * np.log(3 * count + 1) for q in (q_random, q_current, q_next, q_data[:, None])]
            total = t * np.log(np.exp(np.concatenate(z, axis=1) / t).sum(axis=1))
            return np.mean(total - q_data)

        def weight(params):
            if penalty.multiplier == "lagrange":
                return positive(params, "softplus")
            return min(positive(params, "exp"), 1e6) * penalty.weight

        gap = mean_gap(self.critic.params)
        if multiplier is None:
            strength, threshold = penalty.weight, 0.0
        else:
            strength, threshold = weight(multiplier.params), penalty.target_gap

        def critic_loss(params):
            return self.td_loss(params, batch, targets) + strength * (mean_gap(params) - threshold)

        losses = {"critic/loss": critic_loss(self.critic.params), "critic/conservative_gap": gap}
        before = self.critic.params
        self.critic_step(critic_loss)
        losses |= self.policy_step(batch, actor_key, before)
        if multiplier is not None:
            multiplier.step(gradient(lambda p: -weight(p) * (gap - threshold), multiplier.params))
        return losses


def assert_same(agent, reference, rtol=2e-3, atol=2e-5):
    """Parameters, first moments (the gradients) and targets agree."""
    pairs = {"actor": agent.actor, "critic": agent.critic, "temperature": agent.temperature}
    for role, model in pairs.items():
        expected = getattr(reference, role)
        state = model.opt_state[0]
        assert int(state.count) == expected.count, role
        assert_close(state.mu, expected.mu, rtol, atol, f"{role}'s gradients")
        assert_close(model.params, expected.params, rtol, 1e-4, f"{role}'s parameters")
    assert_close(agent.target_critic_params, reference.target, rtol, 1e-5, "targets")
    np.testing.assert_array_equal(jax.random.key_data(agent.key), jax.random.key_data(reference.key))


def assert_close(tree, expected, rtol, atol, what):
    for (path, leaf), value in zip(jax.tree_util.tree_leaves_with_path(tree), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(leaf, value, rtol=rtol, atol=atol, err_msg=f"{what} {jax.tree_util.keystr(path)}")
