"""tanh of a diagonal Gaussian: actions in (-1, 1) with their log-density, and the gradient of both in closed form.

With u = mean + std * noise, a = tanh(u) and log pi(a) = sum_j [ log N(u_j) - 2 (log 2 - u_j - softplus(-2 u_j)) ]. The
density comes from the u that made the action, never from an inverse of a rounded a. One node of the autograd graph: its
dozen small operations would cost more as nodes of their own than as numbers.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import softplus

__all__ = ["log_density", "squashed_sample"]

_HALF_LOG_2PI = 0.5 * math.log(2.0 * math.pi)


def log_density(u: Tensor, std: Tensor, noise: Tensor) -> Tensor:
    """log pi(tanh(u)), where u = mean + std * noise: all (..., d) -> (...), finite for every finite u."""
    # -log(1 - tanh(u)^2) = 2 (u + softplus(-2 u) - log 2)
    stretch = (u + softplus(-2.0 * u)).mul_(2.0)
    constant = u.shape[-1] * (2.0 * math.log(2.0) + _HALF_LOG_2PI)
    return torch.addcmul(stretch, noise, noise, value=-0.5).sub_(torch.log(std)).sum(-1).sub_(constant)


def squashed_sample(mean: Tensor, std: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """Actions (..., d) and their log-density (...) from mean, std and standard normal noise (..., d)."""
    if torch.is_grad_enabled():
        return _Squashed.apply(mean, std, noise)  # type: ignore[no-any-return, no-untyped-call]
    u = torch.addcmul(mean, std, noise)
    return torch.tanh(u), log_density(u, std, noise)


class _Squashed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, mean: Tensor, std: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        u = torch.addcmul(mean, std, noise)
        action = torch.tanh(u)
        ctx.save_for_backward(action, std, noise)
        return action, log_density(u, std, noise)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_action: Tensor, of_density: Tensor) -> tuple[Tensor, Tensor, None]:
        action, std, noise = ctx.saved_tensors
        of_density = of_density.unsqueeze(-1)
        # da/du = 1 - a^2; d log pi / du = 2 a at fixed noise; d log pi / d std has -1 / std besides.
        of_u = of_action * (1.0 - action * action) + 2.0 * of_density * action
        return of_u, of_u * noise - of_density / std, None
