"""The goal-conditioned agents' losses in NumPy, written from the papers' equations and from no code of this project."""

import itertools
import math

import numpy as np


def gelu(x):
    return 0.5 * x * (1.0 + np.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x**3)))


def layer_norm(x, part):
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6) * part["scale"] + part["bias"]


def dense(x, part):
    return x @ part["kernel"] + part["bias"]


def body(x, part, norm):
    """One hidden layer."""
    x = gelu(dense(x, part["Dense_0"]))
    return layer_norm(x, part["LayerNorm_0"]) if norm else x


def member(tree, index):
    return {name: member(part, index) if isinstance(part, dict) else part[index] for name, part in tree.items()}


def actor(params, *inputs):
    part = params["params"]
    return dense(body(np.concatenate(inputs, -1), part["MLP_0"], norm=False), part["mean"])


def embed(params, *inputs):
    part = params.get("params", params)
    return dense(body(np.concatenate(inputs, -1), part["MLP_0"], norm=True), part["vector"])


def heads(params, *inputs):
    """Values `(members, rows)`."""
    part, x = params["params"], np.concatenate(inputs, -1)
    count = len(part["members"]["Dense_0"]["bias"])
    return np.stack(
        [
            dense(body(x, member(part["members"], i), norm=True), member(part["member_heads"], i))[:, 0]
            for i in range(count)
        ]
    )


def log_normal(x, mean):
    return (-0.5 * (x - mean) ** 2 - 0.5 * math.log(2.0 * math.pi)).sum(-1)


def representation(params, observations, goals):
    z = embed(params, observations, goals)
    return z / np.sqrt((z**2).sum(-1, keepdims=True)) * math.sqrt(z.shape[-1])


def double_expectile(rewards, masks, next_target, target, online, discount, expectile):
    total = 0.0
    advantage = rewards + discount * masks * np.minimum(next_target[0], next_target[1]) - (target[0] + target[1]) / 2
    weight = np.abs(expectile - (advantage < 0))
    for i in range(2):
        total += (weight * (rewards + discount * masks * next_target[i] - online[i]) ** 2).mean()
    return total


def cloning(advantage, log_prob, alpha, limit):
    return -(np.minimum(np.exp(alpha * advantage), limit) * log_prob).mean()


def hiql_value(phi, online, target, steps, config):
    def value(params, observations):
        return heads(params, observations, representation(phi, observations, steps.goals))

    return double_expectile(
        steps.rewards,
        steps.masks,
        value(target, steps.next_observations),
        value(target, steps.observations),
        value(online, steps.observations),
        config.discount,
        config.expectile,
    )


def hiql_policies(phi, value, high_value, low, high, batch, config):
    """Losses of the low and the high level."""

    def mean_value(params, observations, goals):
        return heads(params, observations, representation(phi, observations, goals)).mean(0)

    obs = batch.steps.observations
    low_gain = mean_value(value, batch.steps.next_observations, batch.low_goals) - mean_value(
        value, obs, batch.low_goals
    )
    low_mean = actor(low, obs, representation(phi, obs, batch.low_goals))
    high_gain = mean_value(high_value, batch.high_targets, batch.high_goals) - mean_value(
        high_value, obs, batch.high_goals
    )
    high_log = log_normal(representation(phi, obs, batch.high_targets), actor(high, obs, batch.high_goals))
    limit = config.max_weight
    return (
        cloning(low_gain, log_normal(batch.actions, low_mean), config.low_awr_temperature, limit),
        cloning(high_gain, high_log, config.high_awr_temperature, limit),
    )


def ddpg_bc(q, log_prob, bc_weight):
    return -q.mean() / (np.abs(q).mean() + 1e-6) - bc_weight * log_prob.mean()


def iqe(start, end, share):
    """Interval by interval, over the sorted end points."""
    lengths = np.zeros((len(start), start.shape[1] // 8))
    for row in range(len(start)):
        for component in range(lengths.shape[1]):
            columns = slice(8 * component, 8 * component + 8)
            x, y = start[row, columns], np.maximum(start[row, columns], end[row, columns])
            cuts = np.sort(np.concatenate([x, y]))
            for low, high in itertools.pairwise(cuts):
                lengths[row, component] += (high - low) * np.any((x <= low) & (y >= high))
    mix = 1.0 / (1.0 + np.exp(-share))
    return mix * lengths.mean(1) + (1.0 - mix) * lengths.max(1)


def mrn(start, end):
    half = start.shape[-1] // 2
    gaps = start - end
    return np.sqrt((gaps[:, :half] ** 2).sum(-1)) + np.maximum(gaps[:, half:], 0.0).max(-1)


def nce(left, right):
    """Mean over members, rows and columns, pair by pair."""
    members, rows, dim = left.shape
    total = 0.0
    for e in range(members):
        for i in range(rows):
            for j in range(rows):
                logit = left[e, i] @ right[e, j] / math.sqrt(dim)
                total += np.log1p(np.exp(-logit if i == j else logit))
    return total / (members * rows * rows)
