"""O-DICE once more, run by run in float64, from the formulas of specs/odice.md.

The reference shares no code with offline_rl: one head at a time, LayerNorm and Adam written out, autograd through f* as
defined. Only the starting weights and the row draws are the learner's.
"""

from __future__ import annotations

import numpy as np
import torch

from offline_rl import ODICE
from tests.offline_rl.reference import F64, TextbookAdam, flatten, layers_of, make_data, net

SMALL = {
    "runs": 2,
    "dtype": F64,
    "hidden": (16, 12),
    "actor_hidden": (10, 9),
    "batch_size": 20,
    "learning_rate": 3e-3,
}
DATA = make_data()
BOX = {"low": [-0.3, 1.0], "high": [0.7, 4.0]}


def shaken(data=DATA, **arguments):
    """A learner whose LayerNorms, log-stds and slow copies are not what they start as."""
    learner = ODICE.for_dataset(data, **{**SMALL, **arguments})
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in [*learner.value, *learner.value_target, *learner.actor]:
            p += 0.2 * torch.randn(p.shape, generator=generator, dtype=F64)
        learner.log_std.copy_(torch.linspace(-0.5, 2.5, learner.log_std.numel()).view(learner.log_std.shape))
        learner.log_std[0, 0, 0] = -5.5
    return learner


def tensor(*values):
    return torch.tensor(values, dtype=F64)


def f_star(y, divergence):
    """max over x >= 0 of x y - f(x)."""
    if divergence == "kl":
        return torch.exp(y - 1)
    return torch.where(y >= -2, y * y / 4 + y, -torch.ones_like(y))


def omega_star(y, divergence):
    return torch.exp(y - 1) if divergence == "kl" else torch.maximum(torch.zeros_like(y), y / 2 + 1)


class ODICEReference:
    """One run of `learner` (float64, attached to `data`), as it stands, to be trained by `train`."""

    def __init__(self, learner, data, run=0):
        self.learner, self.run, self.config = learner, run, learner.config
        config, state = learner.config, learner.state_dict()
        s, s2 = data.obs.astype(np.float64), data.next_obs.astype(np.float64)
        if config.normalise_obs:
            mean, std = s.mean(0), s.std(0) + 1e-3
            s, s2 = (s - mean) / std, (s2 - mean) / std
        self.s, self.s2 = torch.tensor(s), torch.tensor(s2)
        low, high = (torch.tensor(x, dtype=F64) for x in (data.action_low, data.action_high))
        self.a = 2 * (torch.tensor(data.action, dtype=F64) - low) / (high - low) - 1
        self.r = config.reward_scale * torch.tensor(data.reward, dtype=F64) + config.reward_shift
        self.nd = 1 - torch.tensor(data.terminal, dtype=F64)
        self.heads = 2 if config.twin else 1
        index = [self.heads * run + h for h in range(self.heads)]
        self.count = sum(name.rsplit(".", 1)[0] == "value" for name in state)
        self.theta = [[self.leaf(state[f"value.{i}"][g]) for i in range(self.count)] for g in index]
        self.slow = [[state[f"value_target.{i}"][g].clone() for i in range(self.count)] for g in index]
        self.actor, self.log_std = layers_of(state, "actor", run), self.leaf(state["log_std"][run])
        self.value_adam = TextbookAdam([p for head in self.theta for p in head], config.learning_rate)
        self.actor_adam = TextbookAdam([*flatten(self.actor), self.log_std], config.learning_rate)

    @staticmethod
    def leaf(tensor):
        return tensor.detach().clone().requires_grad_()

    def head(self, x, parameters):
        """V of one head: Linear, LayerNorm, ReLU, ..., Linear: (B, d) -> (B,)."""
        *hidden, W, b = parameters
        step = 4 if self.config.layer_norm else 2
        for i in range(0, len(hidden), step):
            x = x @ hidden[i] + hidden[i + 1]
            if step == 4:
                centred = x - x.mean(1, keepdim=True)
                x = centred / torch.sqrt((centred**2).mean(1, keepdim=True) + 1e-5)
                x = x * hidden[i + 2] + hidden[i + 3]
            x = torch.relu(x)
        return (x @ W + b)[:, 0]

    def values(self, x, heads):
        return torch.stack([self.head(x, parameters) for parameters in heads])

    def value_gradients(self, rows):
        """{"0": g_0, "f": g_f, "b": g_b} flat over both heads (or {"true": ...}), and the residual (H, B)."""
        config, lam = self.config, self.config.lam
        s, s2, r, keep = self.s[rows], self.s2[rows], self.r[rows], config.discount * self.nd[rows]

        def gradient(loss):
            return torch.cat([g.flatten() for g in torch.autograd.grad(loss, self.value_adam.leaves)])

        def dual(y):
            return lam * f_star(y, config.divergence).mean()

        if config.gradient == "true":
            y = r + keep * self.values(s2, self.theta) - self.values(s, self.theta)
            linear = (1 - lam) * self.values(s, self.theta).mean()
            return {"true": gradient(linear + dual(y))}, y.detach()
        slow, slow2 = (self.values(x, self.slow).min(0).values for x in (s, s2))
        y = r + keep * slow2 - self.values(s, self.theta)
        grads = {"0": gradient((1 - lam) * self.values(s, self.theta).mean()), "f": gradient(dual(y))}
        if config.gradient == "orthogonal":
            grads["b"] = config.eta * gradient(dual(r + keep * self.values(s2, self.theta) - slow))
        return grads, y.detach()

    def train(self, steps):
        config = self.config
        for t in range(1, steps + 1):
            rows = self.learner.philox.integers("batch", len(self.s), t, 1, config.batch_size)[self.run, 0]
            grads, y = self.value_gradients(rows)
            total = sum(grads.values())
            if "b" in grads:
                f, b = grads["f"], grads["b"]
                total = total - torch.dot(f, b) / max(torch.dot(f, f).item(), 1e-10) * f
            leaves = self.value_adam.leaves
            parts = torch.split(total, [p.numel() for p in leaves])
            self.value_adam.descend(sum((p.flatten() * g).sum() for p, g in zip(leaves, parts, strict=True)))
            with torch.no_grad():
                for slow, fast in zip(self.slow, self.theta, strict=True):
                    for target, p in zip(slow, fast, strict=True):
                        target.copy_((1 - config.tau) * target + config.tau * p)
            w = torch.relu(y) if config.policy_weight == "relu_residual" else omega_star(y, config.divergence)
            w = torch.minimum(w, torch.tensor(config.weight_cap, dtype=F64))
            mean = net(self.s[rows], self.actor)
            mean = torch.tanh(mean) if config.tanh_mean else mean
            normal = torch.distributions.Normal(mean, torch.exp(self.log_std.clamp(-5, 2)).expand_as(mean))
            loss = (-w * normal.log_prob(self.a[rows]).sum(1)).mean()
            decay = sum((p * p).sum() for p in self.actor_adam.leaves) / 2
            self.actor_adam.descend(loss + config.weight_decay * decay)
        return self

    def worst_gap(self):
        """Largest absolute difference between this run's parameters and the learner's."""
        state, run = self.learner.state_dict(), self.run
        pairs = [(state["log_std"][run], self.log_std)]
        pairs += [(state[f"actor.{i}"][run], p) for i, p in enumerate(flatten(self.actor))]
        for h in range(self.heads):
            for prefix, heads in (("value", self.theta), ("value_target", self.slow)):
                pairs += [(state[f"{prefix}.{i}"][self.heads * run + h], p) for i, p in enumerate(heads[h])]
        return max((ours - own).abs().max().item() for ours, own in pairs)
