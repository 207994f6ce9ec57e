"""A bench for learners of adversarial MDPs: the instances of the reference results, episodes, exact regret."""

import time

import numpy as np
import torch

import bandits
from orbs import Feedback

STATES, ACTIONS, DIMENSION = 6, 4, 4


def instance(number, steps=3):
    """Features (S, A, d) and kernel (H, S, A, S)."""
    rng = np.random.default_rng([400 if steps == 1 else 100, number])
    phi = rng.dirichlet(np.full(DIMENSION, 0.3), (STATES, ACTIONS))
    laws = rng.dirichlet(np.full(STATES, 1.0 if steps == 1 else 0.5), (steps, DIMENSION))
    return torch.as_tensor(phi), torch.as_tensor(np.einsum("sai,hit->hsat", phi, laws))


def weights(kind, episodes, number, steps=3):
    """(K, H, d) loss weights."""
    rng, shape = np.random.default_rng([200, number]), (steps, DIMENSION)
    if kind == "iid":
        mean = rng.uniform(size=shape)
        return torch.as_tensor(np.clip(mean + rng.uniform(-0.3, 0.3, (episodes, *shape)), 0, 1))
    profiles = rng.uniform(size=(2, *shape))
    if kind == "doubling":
        return torch.as_tensor(profiles[[((k + 1).bit_length() - 1) % 2 for k in range(episodes)]])
    part = np.linspace(0, 1, episodes)[:, None, None]
    return torch.as_tensor((1 - part) * profiles[0] + part * profiles[1])


def facts(phi, kernel, horizon):
    start = torch.zeros(phi.shape[0], dtype=torch.float64)
    start[0] = 1.0
    return {
        "states": phi.shape[0], "actions": phi.shape[1], "episode_length": len(kernel), "start": start,
        "kernel": kernel, "features": phi, "horizon": horizon, "loss_low": 0.0, "loss_high": 1.0,
    }  # fmt: skip


def value(policy, losses, kernel):
    """(R,) expected losses from state 0 of policies (R, H, S, A) under losses (H, S, A)."""
    later = policy.new_zeros(len(policy), kernel.shape[1])
    for h in range(len(losses) - 1, -1, -1):
        table = losses[h] + (later @ kernel[h].flatten(0, 1).mT).view(-1, *losses.shape[1:])
        later = (policy[:, h] * table).sum(-1)
    return later[:, 0]


def least(losses, kernel):
    """Expected losses of the best policy for losses (H, S, A)."""
    later = losses.new_zeros(kernel.shape[1])
    for h in range(len(losses) - 1, -1, -1):
        later = (losses[h] + kernel[h] @ later).amin(-1)
    return float(later[0])


def pick(rows, u):
    return (rows.cumsum(-1) <= u.unsqueeze(-1)).sum(-1).clamp_max(rows.shape[-1] - 1)


def uniform_regret(kind, episodes, number, steps=3):
    phi, kernel = instance(number, steps)
    total = torch.einsum("sai,hi->hsa", phi, weights(kind, episodes, number, steps).sum(0))
    policy = torch.full((1, steps, STATES, ACTIONS), 1 / ACTIONS, dtype=torch.float64)
    return float(value(policy, total, kernel)[0]) - least(total, kernel)


class Played:
    """What came of a learner: regret {episodes: (R,)}, lowest estimate (R,), seconds of the learner alone."""

    def __init__(self, learner):
        self.learner, self.regret, self.seconds = learner, {}, 0.0
        self.lowest = torch.zeros(learner.runs, dtype=torch.float64)
        if hasattr(learner, "estimate"):
            estimate = learner.estimate

            def watched(*given):
                found = estimate(*given)
                self.lowest = torch.minimum(self.lowest, found.flatten(1).amin(1))
                return found

            learner.estimate = watched


def play(name, kind, episodes, number, runs=20, steps=3, noise=False, at=(), **given):
    """A named learner on an instance, bandit feedback and the whole loss both told; noise: losses are 0 or 1."""
    phi, kernel = instance(number, steps)
    learner = bandits.make(name, facts(phi, kernel, episodes), runs=runs, **given)
    losses = torch.einsum("sai,khi->khsa", phi, weights(kind, episodes, number, steps))
    draws = torch.Generator().manual_seed(1000 + number)
    u = torch.rand(episodes, 3 * steps, runs, generator=draws, dtype=torch.float64)
    rows, total, played = torch.arange(runs), torch.zeros(runs, dtype=torch.float64), Played(learner)
    for k in range(episodes):
        began = time.perf_counter()
        policy = learner.act()
        played.seconds += time.perf_counter() - began
        state = torch.zeros(runs, dtype=torch.int64)
        states, actions, rewards = [state], [], []
        for h in range(steps):
            action = pick(policy[rows, h, state], u[k, 3 * h])
            loss = losses[k, h, state, action]
            rewards.append(-(u[k, 3 * h + 2] < loss).double() if noise else -loss)
            state = pick(kernel[h, state, action], u[k, 3 * h + 1])
            states.append(state)
            actions.append(action)
        total += value(policy, losses[k], kernel)
        terms = {
            "states": torch.stack(states, 1),
            "actions": torch.stack(actions, 1),
            "rewards": torch.stack(rewards, 1),
        }
        began = time.perf_counter()
        learner.observe(policy, Feedback(None, None, {**terms, "loss_table": losses[k : k + 1]}))
        played.seconds += time.perf_counter() - began
        if k + 1 in (*at, episodes):
            played.regret[k + 1] = total - least(losses[: k + 1].sum(0), kernel)
    return played
