"""IQL once more, run by run in float64, from specs/baselines_offline.md section 3.

Shares no code with offline_rl: loops over rows for the rewards, torch.distributions for the likelihood, Adam, schedule
and Polyak steps written out. Only the starting weights and the random draws are the learner's.
"""

from __future__ import annotations

import numpy as np
import torch

from orbs import Transitions
from tests.offline_rl.reference import F64, TextbookAdam, flatten, layers_of, net


def true_episodes(data: Transitions) -> list[float]:
    """Returns, cut where s' is not the next s or at a terminal."""
    returns, total = [], 0.0
    for i in range(len(data)):
        total += float(data.reward[i])
        last = i == len(data) - 1
        if last or data.terminal[i] or np.linalg.norm(data.obs[i + 1] - data.next_obs[i]) > 1e-6:
            returns.append(total)
            total = 0.0
    return returns


def corl_blocks(data: Transitions) -> list[float]:
    """Returns of blocks that end at a terminal or after 1000 rows; the rest is dropped."""
    returns, total, length = [], 0.0, 0
    for reward, terminal in zip(data.reward, data.terminal, strict=True):
        total, length = total + float(reward), length + 1
        if terminal or length == 1000:
            returns.append(total)
            total, length = 0.0, 0
    return returns


class ReferenceIQL:
    """One run of `learner` (float64, freshly built and attached to `data`)."""

    def __init__(self, learner, data: Transitions, run: int = 0) -> None:
        self.learner, self.config, self.run = learner, learner.config, run
        config = self.config
        s, s2 = data.obs.astype(np.float64), data.next_obs.astype(np.float64)
        if config.normalise_obs:
            shift, scale = s.mean(0), s.std(0) + 1e-3
            s, s2 = (s - shift) / scale, (s2 - shift) / scale
        self.s, self.s2 = torch.tensor(s), torch.tensor(s2)
        low, high = (np.asarray(x, np.float32).astype(np.float64) for x in (data.action_low, data.action_high))
        unit = 2 * (data.action.astype(np.float64) - low) / (high - low) - 1
        if config.clip_data_actions:
            unit = unit.clip(-1 + 1e-5, 1 - 1e-5)
        self.unit, self.a = torch.tensor(unit), torch.tensor(low + (unit + 1) / 2 * (high - low))
        factor = 1.0
        if config.reward_normaliser != "none":
            returns = (true_episodes if config.reward_normaliser == "episodes" else corl_blocks)(data)
            factor = 1000 / (max(returns) - min(returns))
        self.r = config.reward_scale * factor * torch.tensor(data.reward, dtype=F64) + config.reward_shift
        self.goes_on = 1.0 - torch.tensor(data.terminal, dtype=F64)
        state, rate = learner.state_dict(), config.learning_rate
        self.actor, self.value = layers_of(state, "actor", run), layers_of(state, "value", run)
        self.critics = [layers_of(state, "critic.online", 2 * run + i) for i in (0, 1)]
        self.slow = [[(W.detach().clone(), b.detach().clone()) for W, b in q] for q in self.critics]
        self.log_std = [torch.zeros(unit.shape[1], dtype=F64, requires_grad=True)]
        free = self.log_std if config.policy == "gaussian" else []
        self.actor_adam = TextbookAdam([*flatten(self.actor), *free], rate)
        self.value_adam = TextbookAdam(flatten(self.value), rate)
        self.critic_adams = [TextbookAdam(flatten(q), rate) for q in self.critics]
        self.metrics = {}  # of the last update

    def mean(self, s, step):
        """tanh mean, with the dropout of update `step`."""
        p = self.config.dropout
        for depth, (W, b) in enumerate(self.actor[:-1]):
            s = torch.relu(s @ W + b)
            if p:
                count = s.numel()
                words = self.learner.philox.words(f"dropout.{depth}", step, 1, count)[self.run, 0].reshape(s.shape)
                s = torch.where(words < p * 2**32, torch.zeros_like(s), s / (1 - p))
        W, b = self.actor[-1]
        return torch.tanh(s @ W + b)

    def actor_step(self, step, rows, advantage):
        config, unit = self.config, self.unit[rows]
        weight = torch.exp(config.beta * advantage).clamp(max=config.weight_cap)
        mean = self.mean(self.s[rows], step)
        if config.policy == "gaussian":
            std = torch.exp(self.log_std[0].clamp(config.log_std_min, config.log_std_max))
            error = -torch.distributions.MultivariateNormal(mean, torch.diag(std**2)).log_prob(unit)
        else:
            error = ((mean - unit) ** 2).sum(1)
        if config.cosine_steps is not None:
            part = min((step - 1) / config.cosine_steps, 1.0)
            self.actor_adam.rate = config.learning_rate * (1 + np.cos(np.pi * part)) / 2
        loss = torch.mean(weight * error)
        self.metrics["actor_loss"] = loss.item()
        self.metrics |= {"advantage": advantage.mean().item(), "weight": weight.mean().item()}
        self.actor_adam.descend(loss)

    def critic_step(self, rows, backup):
        config = self.config
        y = self.r[rows] + config.discount * self.goes_on[rows] * backup
        x = torch.cat([self.s[rows], self.a[rows]], 1)
        values = [net(x, q)[:, 0] for q in self.critics]
        losses = [torch.mean((value - y) ** 2) for value in values]
        self.metrics["q_data"] = torch.stack(values).mean().item()
        share = 0.5 if config.critic_reduction == "mean" else 1.0
        self.metrics["critic_loss"] = share * sum(loss.item() for loss in losses)
        for adam, loss in zip(self.critic_adams, losses, strict=True):
            adam.descend(share * loss)
        with torch.no_grad():
            for q, slow in zip(self.critics, self.slow, strict=True):
                for target, parameter in zip(flatten(slow), flatten(q), strict=True):
                    target.copy_(config.tau * parameter + (1 - config.tau) * target)

    def train(self, steps):
        config = self.config
        for step in range(1, steps + 1):
            rows = self.learner.philox.integers("batch", len(self.s), step, 1, config.batch_size)[self.run, 0]
            s, s2 = self.s[rows], self.s2[rows]
            with torch.no_grad():
                q = torch.minimum(*[net(torch.cat([s, self.a[rows]], 1), layers)[:, 0] for layers in self.slow])
                old, old_next = net(s, self.value)[:, 0], net(s2, self.value)[:, 0]
            u = q - net(s, self.value)[:, 0]
            loss = torch.mean(torch.abs(config.expectile - (u < 0).double()) * u**2)
            self.metrics |= {"value_loss": loss.item(), "value": old.mean().item()}
            self.value_adam.descend(loss)
            if config.update_order == "actor_last":
                self.critic_step(rows, old_next)
                self.actor_step(step, rows, q - old)
            else:
                with torch.no_grad():
                    new, new_next = net(s, self.value)[:, 0], net(s2, self.value)[:, 0]
                self.actor_step(step, rows, q - new)
                self.critic_step(rows, new_next)
        return self

    def worst_gap(self):
        """Largest absolute difference between this run's parameters and the learner's."""
        state, run = self.learner.state_dict(), self.run
        own = [("actor", self.actor, run), ("value", self.value, run)]
        for i in (0, 1):
            own += [("critic.online", self.critics[i], 2 * run + i), ("critic.target", self.slow[i], 2 * run + i)]
        gaps = [
            (state[f"{prefix}.{j}"][index] - p).abs().max().item()
            for prefix, layers, index in own
            for j, p in enumerate(flatten(layers))
        ]
        if self.config.policy == "gaussian":
            gaps.append((state["log_std.0"][run, 0] - self.log_std[0]).abs().max().item())
        return max(gaps)
