"""TD3+BC as one would first write it in eager PyTorch: the baseline of the speed benchmark, one run.

Separate critics as modules, the default Adam, autograd over every layer, `.item()` each step for the log. The same
mathematics, batch and networks as `offline_rl.TD3BC`.
"""

from __future__ import annotations

import copy
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from orbs import Transitions

__all__ = ["PlainTD3BC"]


def _net(sizes: tuple[int, ...]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise(sizes):
        layers += [nn.Linear(fan_in, fan_out), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


class PlainTD3BC:
    """Symmetric action box [-1, 1] alone; hyperparameters as in the paper."""

    def __init__(self, data: Transitions, seed: int = 0, batch_size: int = 256) -> None:
        torch.manual_seed(seed)
        self.batch_size = batch_size
        self.actor = _net((data.obs_dim, 256, 256, data.action_dim))
        self.critics = nn.ModuleList(_net((data.obs_dim + data.action_dim, 256, 256, 1)) for _ in range(2))
        self.actor_target, self.critic_targets = copy.deepcopy(self.actor), copy.deepcopy(self.critics)
        self.actor_adam = torch.optim.Adam(self.actor.parameters(), lr=3e-4)
        self.critic_adam = torch.optim.Adam(self.critics.parameters(), lr=3e-4)
        mean, std = data.obs.mean(0), data.obs.std(0) + 1e-3
        columns = ((data.obs - mean) / std, data.action, (data.next_obs - mean) / std)
        self.obs, self.action, self.next_obs = (torch.as_tensor(column) for column in columns)
        self.reward = torch.as_tensor(data.reward)[:, None]
        self.terminal = torch.as_tensor(data.terminal)[:, None]
        self.steps = 0
        self.log: dict[str, float] = {}

    def update(self, n: int) -> None:
        for _ in range(n):
            self._step()

    def _step(self) -> None:
        self.steps += 1
        rows = torch.randint(len(self.obs), (self.batch_size,))
        obs, action, next_obs = self.obs[rows], self.action[rows], self.next_obs[rows]
        reward, terminal = self.reward[rows], self.terminal[rows]
        with torch.no_grad():
            noise = (torch.randn_like(action) * 0.2).clamp(-0.5, 0.5)
            next_action = (torch.tanh(self.actor_target(next_obs)) + noise).clamp(-1.0, 1.0)
            x = torch.cat([next_obs, next_action], 1)
            backup = torch.min(self.critic_targets[0](x), self.critic_targets[1](x))
            target = reward + 0.99 * (1.0 - terminal) * backup
        x = torch.cat([obs, action], 1)
        loss: Tensor = sum((functional.mse_loss(critic(x), target) for critic in self.critics), torch.zeros(()))
        self.critic_adam.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.critic_adam.step()
        self.log["critic_loss"] = loss.item()
        if self.steps % 2 == 0:
            policy = torch.tanh(self.actor(obs))
            value = self.critics[0](torch.cat([obs, policy], 1))
            scale = 2.5 / value.abs().mean().detach()
            actor_loss = -scale * value.mean() + functional.mse_loss(policy, action)
            self.actor_adam.zero_grad()
            actor_loss.backward()
            self.actor_adam.step()
            self.log["actor_loss"] = actor_loss.item()
            for net, slow in ((self.actor, self.actor_target), (self.critics, self.critic_targets)):
                for parameter, old in zip(net.parameters(), slow.parameters(), strict=True):
                    old.data.copy_(0.005 * parameter.data + 0.995 * old.data)
