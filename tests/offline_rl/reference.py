"""The algorithms once more, run by run in float64, from the formulas of specs/prdc.md and specs/baselines_offline.md.

Shares no code with offline_rl: plain matrix products and autograd, Adam and Polyak steps written out, brute-force
neighbours, dataset-sized arrays. Only the starting weights and the random draws are the learner's.
"""

from __future__ import annotations

import numpy as np
import torch

from orbs import Transitions

F64 = torch.float64


def make_data(rows=200, obs_dim=3, action_dim=2, low=-1.0, high=1.0, seed=0) -> Transitions:
    """Random rows, a tenth of them terminal, another tenth timed out; columns of unlike scale and offset."""
    rng = np.random.default_rng(seed)
    end = rng.random(rows)
    spread, offset = np.linspace(0.5, 3.0, obs_dim), np.linspace(-2.0, 5.0, obs_dim)
    return Transitions(
        obs=rng.normal(size=(rows, obs_dim)) * spread + offset,
        action=rng.uniform(low, high, (rows, action_dim)),
        reward=rng.normal(size=rows) + 1.0,
        next_obs=rng.normal(size=(rows, obs_dim)) * spread + offset,
        terminal=end < 0.1,
        timeout=end > 0.9,
        action_low=low,
        action_high=high,
        next_action=rng.uniform(low, high, (rows, action_dim)),
    )


def net(x, layers):
    """Perceptron [(W (in, out), b (1, out)), ...], ReLU in between."""
    for W, b in layers[:-1]:
        x = torch.relu(x @ W + b)
    W, b = layers[-1]
    return x @ W + b


def layers_of(tensors, prefix, index):
    """Perceptron number `index` of a stack in a state dict, as leaves."""
    flat = [tensors[f"{prefix}.{i}"][index].detach().clone().requires_grad_() for i in range(count(tensors, prefix))]
    return list(zip(flat[::2], flat[1::2], strict=True))


def count(tensors, prefix):
    return sum(name.rsplit(".", 1)[0] == prefix for name in tensors)


def flatten(layers):
    return [tensor for layer in layers for tensor in layer]


class TextbookAdam:
    """Kingma & Ba, algorithm 1, eps outside the root."""

    def __init__(self, leaves, rate):
        self.leaves, self.rate, self.t = leaves, rate, 0
        self.m = [torch.zeros_like(p) for p in leaves]
        self.v = [torch.zeros_like(p) for p in leaves]

    def descend(self, loss):
        grads = torch.autograd.grad(loss, self.leaves)
        self.t += 1
        with torch.no_grad():
            for p, g, m, v in zip(self.leaves, grads, self.m, self.v, strict=True):
                m.mul_(0.9).add_(0.1 * g)
                v.mul_(0.999).add_(0.001 * g * g)
                p -= self.rate * (m / (1 - 0.9**self.t)) / (torch.sqrt(v / (1 - 0.999**self.t)) + 1e-8)


class Reference:
    """One run of `learner` (float64, freshly built and attached to `data`), to be trained by `bc` or `td3`."""

    def __init__(self, learner, data: Transitions, run: int = 0) -> None:
        config, self.run, self.learner = learner.config, run, learner
        self.config = config
        obs, next_obs = data.obs.astype(np.float64), data.next_obs.astype(np.float64)
        if config.normalise_obs:
            kind = np.dtype(config.stats_dtype)
            mean, std = data.obs.mean(0, dtype=kind), data.obs.std(0, dtype=kind)
            shift, scale = mean, std + kind.type(1e-3)
            obs, next_obs = (obs - shift) / scale, (next_obs - shift) / scale
        self.s, self.s2 = torch.tensor(obs), torch.tensor(next_obs)
        self.a = torch.tensor(data.action, dtype=F64)
        self.r = config.reward_scale * torch.tensor(data.reward, dtype=F64) + config.reward_shift
        self.goes_on = 1.0 - torch.tensor(data.terminal, dtype=F64)
        self.low, self.high = (torch.tensor(x, dtype=F64) for x in (data.action_low, data.action_high))
        state = learner.state_dict()
        self.actor = layers_of(state, "actor", run)
        self.actor_adam = TextbookAdam(flatten(self.actor), config.learning_rate)
        if hasattr(learner, "critic"):
            self.critics = [layers_of(state, "critic.online", 2 * run + i) for i in (0, 1)]
            self.slow_critics = [[(W.detach().clone(), b.detach().clone()) for W, b in q] for q in self.critics]
            self.slow_actor = [(W.detach().clone(), b.detach().clone()) for W, b in self.actor]
            self.critic_adam = TextbookAdam(flatten(self.critics[0]) + flatten(self.critics[1]), config.learning_rate)

    def draws(self, step):
        """Row numbers (B,) and noise (B, d_a) of update `step`, counted from 1."""
        size, dim = self.config.batch_size, self.a.shape[1]
        rows = self.learner.philox.integers("batch", len(self.s), step, 1, size)[self.run, 0]
        noise = self.learner.philox.normal("target_noise", step, 1, size * dim, F64)[self.run, 0]
        return rows, noise.reshape(size, dim)

    def policy(self, s, layers):
        """tanh stretched over the box."""
        return self.low + (self.high - self.low) * (torch.tanh(net(s, layers)) + 1) / 2

    def bc(self, steps):
        """Behaviour cloning, baselines_offline.md section 1."""
        for t in range(1, steps + 1):
            rows, _ = self.draws(t)
            self.actor_adam.descend(torch.mean((self.policy(self.s[rows], self.actor) - self.a[rows]) ** 2))
        return self

    def td3(self, steps, penalty=None, q_normaliser="policy"):
        """prdc.md section 3; penalty(reference, rows, p) -> scalar, by default TD3+BC's."""
        config = self.config
        penalty = penalty or (lambda me, rows, p: torch.mean((p - me.a[rows]) ** 2))
        half = (self.high - self.low) / 2
        for t in range(1, steps + 1):
            rows, noise = self.draws(t)
            s, a, s2 = self.s[rows], self.a[rows], self.s2[rows]
            with torch.no_grad():
                sigma, c = config.policy_noise * half, config.noise_clip * half
                e = torch.minimum(torch.maximum(sigma * noise, -c), c)
                a2 = torch.minimum(torch.maximum(self.policy(s2, self.slow_actor) + e, self.low), self.high)
                slow = [net(torch.cat([s2, a2], 1), q)[:, 0] for q in self.slow_critics]
                y = self.r[rows] + config.discount * self.goes_on[rows] * torch.minimum(*slow)
            x = torch.cat([s, a], 1)
            self.critic_adam.descend(sum(torch.mean((net(x, q)[:, 0] - y) ** 2) for q in self.critics))
            if t % config.policy_period:
                continue
            p = self.policy(s, self.actor)
            q = net(torch.cat([s, p], 1), self.critics[0])[:, 0]
            scaler = q if q_normaliser == "policy" else net(x, self.critics[0])[:, 0]
            weight = config.alpha / torch.mean(torch.abs(scaler)).item()
            self.actor_adam.descend(-weight * torch.mean(q) + penalty(self, rows, p))
            with torch.no_grad():
                slow = flatten(self.slow_critics[0]) + flatten(self.slow_critics[1]) + flatten(self.slow_actor)
                fast = flatten(self.critics[0]) + flatten(self.critics[1]) + flatten(self.actor)
                for target, parameter in zip(slow, fast, strict=True):
                    target.copy_(config.tau * parameter + (1 - config.tau) * target)
        return self

    def nearest(self, rows, p, beta, k=1):
        """Row numbers (B, k) by brute force, nearest first."""
        keys = torch.cat([beta * self.s, self.a], 1)
        queries = torch.cat([beta * self.s[rows], p.detach()], 1)
        distance = ((queries[:, None] - keys[None]) ** 2).sum(2)
        return distance.argsort(dim=1, stable=True)[:, :k]

    def worst_gap(self):
        """Largest absolute difference between this run's parameters and the learner's."""
        state, run = self.learner.state_dict(), self.run
        own = {"actor": (self.actor, run)}
        if hasattr(self, "critics"):
            own["actor_target"] = (self.slow_actor, run)
        gaps = []
        for prefix, (layers, index) in own.items():
            gaps += [(state[f"{prefix}.{i}"][index] - p).abs().max() for i, p in enumerate(flatten(layers))]
        if hasattr(self, "critics"):
            for prefix, pair in (("critic.online", self.critics), ("critic.target", self.slow_critics)):
                for i, layers in enumerate(pair):
                    stack = [state[f"{prefix}.{j}"][2 * run + i] for j in range(len(flatten(layers)))]
                    gaps += [(x - p).abs().max() for x, p in zip(stack, flatten(layers), strict=True)]
        return max(gap.item() for gap in gaps)


def moved(before, after, prefix):
    """Whether any tensor whose name starts with `prefix` differs between two snapshots."""
    return any(not torch.equal(before[name], after[name]) for name in before if name.startswith(prefix))


def snapshot(learner):
    return {name: tensor.detach().clone() for name, tensor in learner.state_dict().items()}
