"""Uni-O4's losses, gate and scores once more, in float64 NumPy. Nothing of the library is called."""

import numpy as np
from baselines_reference import dense, features, member

HALF_LOG_2PI = 0.5 * np.log(2 * np.pi)


def density(mean, std, actions):
    return (-0.5 * ((actions - mean) / std) ** 2 - np.log(std) - HALF_LOG_2PI).sum(axis=-1)


def actor(params, obs, bounds=(-5.0, 0.0), activation=np.tanh):
    """Mean and deviation of one member from `params` of its NormalActor."""
    params = params["params"]
    x = features(params["MLP_0"], obs, activation)
    low, high = bounds
    mean = np.tanh(dense(params["mean"], x))
    return mean, np.exp(low + 0.5 * (high - low) * (np.tanh(dense(params["log_std"], x)) + 1.0))


def actors(params, obs, **kind):
    stacked = params["params"]["actor"]
    count = len(stacked["mean"]["bias"])
    found = [actor({"params": member(stacked, index)}, obs, **kind) for index in range(count)]
    return np.stack([mean for mean, _ in found]), np.stack([std for _, std in found])


def clone_losses(mean, std, frozen_mean, frozen_std, actions, noise, weights, kind, alpha, cap):
    """`(num_members,)`, one member after the other; `frozen` are the same numbers, held still in gradients."""
    count = len(mean)
    losses = []
    for i in range(count):
        others = [j for j in range(count) if j != i]
        log_prob = density(mean[i], std[i], actions)
        frozen_log_prob = density(frozen_mean[i], frozen_std[i], actions)
        loss = -(weights * log_prob).mean()
        of_data = {j: density(frozen_mean[j], frozen_std[j], actions) for j in others}
        if kind == "kl_max":
            own = mean[i] + std[i] * noise[i]
            rivals = np.max([density(frozen_mean[j], frozen_std[j], own) for j in others], axis=0)
            loss -= alpha * min((weights * (density(mean[i], std[i], own) - rivals)).mean(), cap)
        elif kind == "kl_gauss":
            nearest = np.array(others)[np.argmax([of_data[j] for j in others], axis=0)]
            rows = np.arange(len(actions))
            m, s = frozen_mean[nearest, rows], frozen_std[nearest, rows]
            kl = np.log(s / std[i]) + (std[i] ** 2 + (mean[i] - m) ** 2) / (2 * s**2) - 0.5
            loss -= alpha * min((weights * kl.sum(axis=-1)).mean(), cap)
        elif kind == "code_heuristic":
            loss -= alpha * (weights * (log_prob - np.max(list(of_data.values()), axis=0))).mean()
        elif kind == "specialise":
            ahead = frozen_log_prob > np.max(list(of_data.values()), axis=0)
            loss = -(weights * np.where(ahead, 1 + alpha, 1 - alpha) * log_prob).mean()
        losses.append(loss)
    return np.array(losses)


def transitions(params, inputs):
    """Mean and log-variance `(num_members, rows, out)`."""
    params = params["params"]
    outputs = []
    for index in range(len(inputs)):
        x = features(member(params["members"], index), inputs[index], lambda v: v / (1 + np.exp(-v)))
        outputs.append(dense(member(params["member_heads"], index), x))
    mean, log_variance = np.split(np.stack(outputs), 2, axis=-1)
    high, low = params["max_log_variance"], params["min_log_variance"]
    log_variance = high - np.logaddexp(0.0, high - log_variance)
    return mean, low + np.logaddexp(0.0, log_variance - low)


def model_loss(params, inputs, targets, hidden_decays, output_decay, bounds_weight):
    mean, log_variance = transitions(params, inputs)
    total = 0.0
    for index in range(len(inputs)):
        total += ((mean[index] - targets[index]) ** 2 * np.exp(-log_variance[index])).mean()
        total += log_variance[index].mean()
        for layer, weights in params["params"]["members"].items():
            decay = hidden_decays[min(int(layer.split("_")[1]), len(hidden_decays) - 1)]
            total += 0.5 * decay * (weights["kernel"][index] ** 2).sum()
        total += 0.5 * output_decay * (params["params"]["member_heads"]["kernel"][index] ** 2).sum()
    shared = params["params"]
    return total + bounds_weight * (shared["max_log_variance"].sum() - shared["min_log_variance"].sum())


def ppo_loss(mean, std, old_mean, old_std, actions, advantages, half_width, entropy_weight):
    """Of one member."""
    ratio = np.exp(density(mean, std, actions) - density(old_mean, old_std, actions))
    objective = np.minimum(ratio * advantages, np.clip(ratio, 1 - half_width, 1 + half_width) * advantages)
    entropy = (np.log(std) + 0.5 * np.log(2 * np.pi * np.e)).sum(axis=-1)
    return -(objective + entropy_weight * entropy).mean()
