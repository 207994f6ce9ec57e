"""A2PR once more, run by run in float64, from specs/a2pr.md section 3; shares no code with offline_rl.

At the end the small learners that the tests of A2PR train.
"""

from __future__ import annotations

import numpy as np
import torch

from offline_rl import A2PR
from tests.offline_rl.reference import Reference, TextbookAdam, flatten, layers_of, make_data, net

F64 = torch.float64


def first_q(s, a, critic):
    return net(torch.cat([s, a], 1), critic)[:, 0]


class A2PRReference(Reference):
    """One run of an A2PR learner, freshly built and attached; the VAE's two heads are separate layers here."""

    def __init__(self, learner, data, run=0):
        super().__init__(learner, data, run)
        state, config = learner.state_dict(), self.config
        self.V = layers_of(state, "value", run)
        self.decoder = layers_of(state, "vae_decoder", run)
        *self.trunk, (W, b) = layers_of(state, "vae_encoder", run)
        d_z = 2 * self.a.shape[1]
        heads = [(W.detach()[:, part], b.detach()[:, part]) for part in (slice(0, d_z), slice(d_z, None))]
        self.mu_head, self.sigma_head = ([x.clone().requires_grad_() for x in head] for head in heads)
        self.value_adam = TextbookAdam(flatten(self.V), config.value_learning_rate)
        vae = flatten(self.trunk) + self.mu_head + self.sigma_head + flatten(self.decoder)
        self.vae_adam = TextbookAdam(vae, config.vae_learning_rate)
        self.log = []

    def normal(self, name, step, size):
        """(B, size) standard normal numbers of update `step`."""
        rows = self.config.batch_size
        flat = self.learner.philox.normal(name, step, 1, rows * size, F64)[self.run, 0]
        return flat.reshape(rows, size)

    def squash(self, x):
        return self.low + (self.high - self.low) * (torch.tanh(x) + 1) / 2

    def encode(self, s, a):
        x = torch.cat([s, a], 1)
        for W, b in self.trunk:
            x = torch.relu(x @ W + b)
        mu, log_sigma = (x @ W + b for W, b in (self.mu_head, self.sigma_head))
        return mu, torch.exp(torch.minimum(torch.maximum(log_sigma, torch.tensor(-4.0)), torch.tensor(15.0)))

    def decode(self, s, z):
        return self.squash(net(torch.cat([s, z], 1), self.decoder))

    def train(self, steps):
        config = self.config
        half, d_z = (self.high - self.low) / 2, 2 * self.a.shape[1]
        for t in range(1, steps + 1):
            rows, noise = self.draws(t)
            s, a, s2, r, goes_on = self.s[rows], self.a[rows], self.s2[rows], self.r[rows], self.goes_on[rows]
            # (1) critic
            with torch.no_grad():
                sigma, c = config.policy_noise * half, config.noise_clip * half
                e = torch.minimum(torch.maximum(sigma * noise, -c), c)
                a2 = torch.minimum(torch.maximum(self.squash(net(s2, self.slow_actor)) + e, self.low), self.high)
                y = r + config.discount * goes_on * torch.minimum(*(first_q(s2, a2, q) for q in self.slow_critics))
            self.critic_adam.descend(sum(torch.mean((first_q(s, a, q) - y) ** 2) for q in self.critics))
            # (2) value
            with torch.no_grad():
                y_on = r + config.discount * goes_on * torch.minimum(*(first_q(s2, a2, q) for q in self.critics))
                y_V = torch.minimum(y_on, y)
            v = net(s, self.V)[:, 0]
            self.value_adam.descend(torch.mean((v - y_V) ** 2))
            v = (net(s, self.V)[:, 0] if config.fresh_value else v).detach()
            # (3) VAE
            with torch.no_grad():
                q_d = first_q(s, a, self.critics[0])
            kept = q_d - v > config.advantage_threshold
            mu, sigma = self.encode(s, a)
            rec = self.decode(s, mu + sigma * self.normal("vae_noise", t, d_z))
            weight = torch.where(kept, config.vae_weight, 0.0)
            L_rec = torch.sum(weight[:, None] * (rec - a) ** 2) / a.numel()
            L_KL = -0.5 * torch.sum(1 + torch.log(sigma**2) - mu**2 - sigma**2) / mu.numel()
            self.vae_adam.descend(L_rec + config.kl_weight * L_KL)
            if t % config.policy_period:
                continue
            # (4) actor
            p = self.squash(net(s, self.actor))
            q = first_q(s, p, self.critics[0])
            z = self.normal("vae_target_noise", t, d_z)
            if config.vae_source == "prior":
                u = self.decode(s, torch.minimum(torch.maximum(z, torch.tensor(-0.5)), torch.tensor(0.5)))
            else:
                mu, sigma = self.encode(s, p)
                u = self.decode(s, mu + sigma * z)
            if config.detach_vae_target:
                u = u.detach()
            q_u = first_q(s, u, self.critics[0]).detach()
            penalties, chosen, gated = [], 0, 0
            for i in range(len(s)):
                vae = bool(q_u[i] - v[i] >= q_d[i] - v[i])
                on = bool(q_u[i] >= v[i]) or bool(q_d[i] > v[i])
                chosen, gated = chosen + vae, gated + on
                penalties.append(float(on) * torch.mean((p[i] - (u[i] if vae else a[i])) ** 2))
            weight = config.alpha / np.mean(np.abs(q.detach().numpy()))
            loss = -weight * torch.mean(q)
            if config.bc_weight:
                loss = loss + config.bc_weight * torch.mean(torch.stack(penalties))
            self.actor_adam.descend(loss)
            share = kept.double().mean().item()
            clipped = (y_on < y).double().mean().item()
            self.log.append((share, chosen / len(s), gated / len(s), clipped))
            # (5) slow copies
            with torch.no_grad():
                slow = flatten(self.slow_critics[0]) + flatten(self.slow_critics[1]) + flatten(self.slow_actor)
                fast = flatten(self.critics[0]) + flatten(self.critics[1]) + flatten(self.actor)
                for target, parameter in zip(slow, fast, strict=True):
                    target.copy_(config.tau * parameter + (1 - config.tau) * target)
        return self

    def worst_gap(self):
        state, gaps = self.learner.state_dict(), [super().worst_gap()]
        W, b = (torch.cat(pair, 1) for pair in zip(self.mu_head, self.sigma_head, strict=True))
        encoder = [*flatten(self.trunk), W, b]
        for name, own in (("value", flatten(self.V)), ("vae_encoder", encoder), ("vae_decoder", flatten(self.decoder))):
            gaps += [(state[f"{name}.{i}"][self.run] - p).abs().max().item() for i, p in enumerate(own)]
        return max(gaps)


SMALL = {
    "runs": 2,
    "dtype": F64,
    "hidden": (16, 12),
    "critic_hidden": (14, 12, 10),
    "vae_hidden": (18, 16),
    "batch_size": 20,
    "learning_rate": 3e-3,
    "value_learning_rate": 2e-3,
    "vae_learning_rate": 4e-3,
}


def built(data=None, **arguments):
    return A2PR.for_dataset(data or make_data(), **{**SMALL, **arguments})


def trained(steps, data=None, **arguments):
    learner = built(data, **arguments)
    learner.update(steps)
    return learner


def lively(data, **arguments):
    """A learner whose values differ from row to row (untrained ones hardly do), so that every branch is taken."""
    learner = built(data, **{"reward_shift": -1.0, **arguments})  # Q values rise and fall
    with torch.no_grad():
        state = learner.critic.state()
        for last in (state["online.6"], state["target.6"], learner.value[-2]):
            last.mul_(12.0)
    return learner
