"""A2PR as one would first write it in eager PyTorch: the baseline of the speed benchmark, one run.

Modules, the default Adam, autograd over every layer, `.item()` each step for the log. The same mathematics, batch and
networks as `offline_rl.A2PR`, in the order of the authors' code: Q1(s, a) is taken anew for the VAE and for the actor,
and the actor's backward pass runs through critic and VAE as they are, parameters and all.
"""

from __future__ import annotations

import copy
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from orbs import Transitions

__all__ = ["PlainA2PR"]


def _net(*sizes: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise(sizes):
        layers += [nn.Linear(fan_in, fan_out), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


class _VAE(nn.Module):
    def __init__(self, obs_dim: int, action_dim: int, latent_dim: int) -> None:
        super().__init__()
        self.trunk = nn.Sequential(_net(obs_dim + action_dim, 750, 750), nn.ReLU())
        self.mean = nn.Linear(750, latent_dim)
        self.log_std = nn.Linear(750, latent_dim)
        self.decoder = _net(obs_dim + latent_dim, 750, 750, action_dim)

    def forward(self, obs: Tensor, action: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        hidden = self.trunk(torch.cat([obs, action], 1))
        mean, std = self.mean(hidden), self.log_std(hidden).clamp(-4, 15).exp()
        latent = mean + std * torch.randn_like(std)
        return torch.tanh(self.decoder(torch.cat([obs, latent], 1))), mean, std


class PlainA2PR:
    """Symmetric action box [-1, 1] alone; hyperparameters as the authors' command line has them."""

    def __init__(self, data: Transitions, seed: int = 0, batch_size: int = 256, alpha: float = 2.5) -> None:
        torch.manual_seed(seed)
        self.batch_size, self.alpha = batch_size, alpha
        obs_dim, action_dim = data.obs_dim, data.action_dim
        self.actor = _net(obs_dim, 256, 256, 256, action_dim)
        self.critics = nn.ModuleList(_net(obs_dim + action_dim, 256, 256, 256, 256, 1) for _ in range(2))
        self.value = _net(obs_dim, 256, 256, 256, 256, 1)
        self.vae = _VAE(obs_dim, action_dim, 2 * action_dim)
        self.actor_target, self.critic_targets = copy.deepcopy(self.actor), copy.deepcopy(self.critics)
        self.actor_adam = torch.optim.Adam(self.actor.parameters(), lr=3e-4)
        self.critic_adam = torch.optim.Adam(self.critics.parameters(), lr=3e-4)
        self.value_adam = torch.optim.Adam(self.value.parameters(), lr=3e-4)
        self.vae_adam = torch.optim.Adam(self.vae.parameters(), lr=1e-3)
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
            x_next = torch.cat([next_obs, next_action], 1)
            backup = torch.min(self.critic_targets[0](x_next), self.critic_targets[1](x_next))
            target = reward + 0.99 * (1.0 - terminal) * backup
        x = torch.cat([obs, action], 1)
        loss: Tensor = sum((functional.mse_loss(critic(x), target) for critic in self.critics), torch.zeros(()))
        self._descend(self.critic_adam, loss, "critic_loss")

        with torch.no_grad():
            backup = torch.min(self.critics[0](x_next), self.critics[1](x_next))
            target = torch.min(reward + 0.99 * (1.0 - terminal) * backup, target)
        value = self.value(obs)
        self._descend(self.value_adam, functional.mse_loss(value, target), "value_loss")
        value = value.detach()

        with torch.no_grad():
            weight = (self.critics[0](x) > value).float()
        proposal, mean, std = self.vae(obs, action)
        reconstruction = (weight * (proposal - action).square()).mean()
        kl = -0.5 * (1.0 + torch.log(std.square()) - mean.square() - std.square()).mean()
        self._descend(self.vae_adam, reconstruction + 0.5 * kl, "vae_loss")

        if self.steps % 2 == 0:
            self._actor_step(obs, action, value)
            for net, slow in ((self.actor, self.actor_target), (self.critics, self.critic_targets)):
                for parameter, old in zip(net.parameters(), slow.parameters(), strict=True):
                    old.data.copy_(0.005 * parameter.data + 0.995 * old.data)

    def _actor_step(self, obs: Tensor, action: Tensor, value: Tensor) -> None:
        policy = torch.tanh(self.actor(obs))
        q = self.critics[0](torch.cat([obs, policy], 1))
        proposal, _, _ = self.vae(obs, policy)
        with torch.no_grad():
            q_vae = self.critics[0](torch.cat([obs, proposal], 1))
            q_data = self.critics[0](torch.cat([obs, action], 1))
            take_vae = q_vae - value >= q_data - value
            gate = ((q_vae >= value) | (q_data > value)).float()
        penalty = (gate * (policy - torch.where(take_vae, proposal, action)).square()).mean()
        loss = -self.alpha / q.abs().mean().detach() * q.mean() + 0.5 * penalty
        self._descend(self.actor_adam, loss, "actor_loss")

    def _descend(self, adam: torch.optim.Adam, loss: Tensor, name: str) -> None:
        adam.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        adam.step()
        self.log[name] = loss.item()
