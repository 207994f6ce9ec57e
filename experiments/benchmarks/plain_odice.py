"""O-DICE as one would first write it in eager PyTorch: the baseline of the speed benchmark, one run.

Value heads as modules, one backward pass for each of the three value gradients, the default Adam, `.item()` each step
for the log. The same mathematics, batch and networks as `offline_rl.ODICE` with the authors' settings for MuJoCo.
"""

from __future__ import annotations

import copy
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from offline_rl.odice import block_returns
from orbs import Transitions

__all__ = ["PlainODICE"]

LAMBDA, ETA, DISCOUNT, TAU, WEIGHT_CAP = 0.6, 1.0, 0.99, 0.005, 100.0


def _net(sizes: tuple[int, ...], layer_norm: bool) -> nn.Sequential:
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise(sizes[:-1]):
        layers += [nn.Linear(fan_in, fan_out), *([nn.LayerNorm(fan_out)] if layer_norm else []), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(sizes[-2], sizes[-1]))


class _TwinValue(nn.Module):
    def __init__(self, obs_dim: int) -> None:
        super().__init__()
        self.heads = nn.ModuleList(_net((obs_dim, 256, 256, 1), layer_norm=True) for _ in range(2))

    def forward(self, obs: Tensor) -> Tensor:
        """obs (B, obs_dim) -> (2, B)."""
        return torch.stack([head(obs).squeeze(1) for head in self.heads])


def _conjugate(y: Tensor) -> Tensor:
    """f*(y) of f(x) = (x - 1)^2 over x >= 0."""
    omega = torch.relu(y / 2 + 1)
    return y * omega - (omega - 1) ** 2


class PlainODICE:
    """Symmetric action box [-1, 1] alone."""

    def __init__(self, data: Transitions, seed: int = 0, batch_size: int = 256) -> None:
        torch.manual_seed(seed)
        self.batch_size = batch_size
        self.value = _TwinValue(data.obs_dim)
        self.slow = copy.deepcopy(self.value)
        self.actor = _net((data.obs_dim, 1024, 1024, data.action_dim), layer_norm=False)
        self.log_std = nn.Parameter(torch.zeros(data.action_dim))
        self.value_adam = torch.optim.Adam(self.value.parameters(), lr=2e-4)
        self.actor_adam = torch.optim.Adam([*self.actor.parameters(), self.log_std], lr=2e-4, weight_decay=1e-4)
        returns = block_returns(data.reward, data.terminal, 1000)
        self.obs, self.action, self.next_obs, self.reward, self.terminal = (
            torch.as_tensor(column) for column in (data.obs, data.action, data.next_obs, data.reward, data.terminal)
        )
        self.reward = self.reward * float(1000 / (returns.max() - returns.min()))
        self.log: dict[str, float] = {}

    def update(self, n: int) -> None:
        for _ in range(n):
            self._step()

    def _gradient(self, loss: Tensor, keep: bool = False) -> Tensor:
        """(P,): one backward pass through the value."""
        grads = torch.autograd.grad(loss, list(self.value.parameters()), retain_graph=keep)
        return torch.cat([grad.flatten() for grad in grads])

    def _step(self) -> None:
        rows = torch.randint(len(self.obs), (self.batch_size,))
        obs, action, next_obs = self.obs[rows], self.action[rows], self.next_obs[rows]
        reward, goes_on = self.reward[rows], DISCOUNT * (1.0 - self.terminal[rows])
        with torch.no_grad():
            slow, slow_next = self.slow(obs).min(0).values, self.slow(next_obs).min(0).values
        value, next_value = self.value(obs), self.value(next_obs)
        residual = reward + goes_on * slow_next - value
        linear = (1 - LAMBDA) * value.mean()
        forward = LAMBDA * _conjugate(residual).mean()
        backward = LAMBDA * ETA * _conjugate(reward + goes_on * next_value - slow).mean()
        g_f = self._gradient(forward, keep=True)
        g_0 = self._gradient(linear)
        g_b = self._gradient(backward)
        c = torch.dot(g_f, g_b) / torch.dot(g_f, g_f).clamp(min=1e-10)
        total = g_0 + g_f + (g_b - c * g_f)
        parameters = list(self.value.parameters())
        for parameter, part in zip(parameters, total.split_with_sizes([p.numel() for p in parameters]), strict=True):
            parameter.grad = part.view_as(parameter)
        self.value_adam.step()
        self.log["value_loss"], self.log["projection"] = (linear + forward).item(), c.item()
        for parameter, old in zip(self.value.parameters(), self.slow.parameters(), strict=True):
            old.data.copy_(TAU * parameter.data + (1 - TAU) * old.data)

        weight = functional.relu(residual.detach()).clamp(max=WEIGHT_CAP)
        policy = torch.distributions.Normal(self.actor(obs), self.log_std.clamp(-5.0, 2.0).exp())
        actor_loss: Tensor = -(weight * policy.log_prob(action).sum(1)).mean()  # type: ignore[no-untyped-call]
        self.actor_adam.zero_grad()
        actor_loss.backward()  # type: ignore[no-untyped-call]
        self.actor_adam.step()
        self.log["actor_loss"] = actor_loss.item()
