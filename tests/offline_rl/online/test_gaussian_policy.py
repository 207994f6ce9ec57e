"""The squashed Gaussian: densities that integrate to one, gradients in closed form."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.distributions import Independent, Normal, TanhTransform, TransformedDistribution

from offline_rl.online.gaussian_policy import log_density, squashed_sample

F64 = torch.float64


def test_hand_value():
    """mean 0.5, std 2, noise 0.25: u = 1, a = tanh 1, log pi = log N(0.25) - log 2 - log(1 - tanh(1)^2)."""
    action, density = squashed_sample(*(torch.tensor([x], dtype=F64) for x in (0.5, 2.0, 0.25)))
    assert action.item() == pytest.approx(0.7615941559557649, abs=1e-15)
    expected = -0.03125 - 0.5 * math.log(2 * math.pi) - math.log(2.0) - math.log(1 - 0.7615941559557649**2)
    assert density.item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("mean", "std"), [(0.0, 1.0), (0.7, 0.3), (-1.5, 0.8), (0.2, 0.0067153)])
def test_density_integrates_to_one_over_the_action(mean, std):
    u = torch.linspace(mean - 12 * std, mean + 12 * std, 400_001, dtype=F64)
    noise = (u - mean) / std
    density = log_density(u.unsqueeze(-1), torch.full_like(u, std).unsqueeze(-1), noise.unsqueeze(-1)).exp()
    assert np.trapezoid(density, torch.tanh(u)) == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, F64], ids=str)
def test_density_is_finite_where_the_action_rounds_to_one(dtype):
    mean = torch.tensor([[20.0], [-20.0], [300.0]], dtype=dtype)
    for noise in (0.0, 3.0, -3.0):
        action, density = squashed_sample(mean, torch.full_like(mean, 0.0067), torch.full_like(mean, noise))
        assert (action.abs() == 1).all() or dtype == F64
        assert torch.isfinite(density).all()
    at_mean = log_density(mean[:1], torch.ones(1, 1, dtype=dtype), torch.zeros(1, 1, dtype=dtype))
    # log(1 - tanh(u)^2) = log 4 - 2 |u| far out
    assert at_mean.item() == pytest.approx(40.0 - math.log(4.0) - 0.5 * math.log(2 * math.pi), rel=1e-6)


def test_sample_and_gradient_equal_torch_distributions():
    generator = torch.Generator().manual_seed(0)
    mean, raw, noise, of_action = (torch.randn(2, 5, 3, generator=generator, dtype=F64) for _ in range(4))
    of_density = torch.randn(2, 5, generator=generator, dtype=F64)
    results = []
    for ours in (True, False):
        m, z = mean.clone().requires_grad_(), raw.clone().requires_grad_()
        std = z.exp()
        if ours:
            action, density = squashed_sample(m, std, noise)
        else:
            policy = TransformedDistribution(Independent(Normal(m, std), 1), [TanhTransform(cache_size=1)])
            action = policy.transforms[0](m + std * noise)
            density = policy.log_prob(action)
        grads = torch.autograd.grad((action * of_action).sum() + (density * of_density).sum(), (m, z))
        results.append((action.detach(), density.detach(), *grads))
    for mine, theirs in zip(*results, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-10)
    with torch.no_grad():
        for mine, theirs in zip(squashed_sample(mean, raw.exp(), noise), results[0], strict=False):
            torch.testing.assert_close(mine, theirs, rtol=0, atol=0)


def test_gradcheck():
    generator = torch.Generator().manual_seed(1)
    mean, std, noise = (torch.rand(4, 2, generator=generator, dtype=F64) + 0.2 for _ in range(3))
    assert torch.autograd.gradcheck(squashed_sample, (mean.requires_grad_(), std.requires_grad_(), noise))
