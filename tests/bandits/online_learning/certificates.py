"""What the tests of projections and regularisers share: the sets, memory layouts, and a proof of optimality."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from bandits.online_learning.domains import Ball, Box, CappedSimplex, Domain, L1Ball, Simplex, Unconstrained


def domains(dimension: int) -> list[Domain]:
    """Every bounded kind of set, none of size 1; the capped simplex with a floor, its cap in reach."""
    return [
        Ball(dimension, 1.3),
        Box(dimension, -0.5, 1.0),
        Simplex(dimension, 1.7),
        L1Ball(dimension, 0.8),
        CappedSimplex(dimension, cap=2.0 / dimension, total=1.0, floor=-0.1),
        CappedSimplex(dimension, cap=0.6, total=dimension * 0.25),
    ]


def support(domain: Domain, slope: Tensor) -> Tensor:
    """(...,): the least <slope, u> over the set, in closed form."""
    if isinstance(domain, Ball):
        return -domain.radius * (slope * slope).sum(-1).sqrt()
    if isinstance(domain, L1Ball):
        return -domain.radius * slope.abs().amax(-1)
    if isinstance(domain, Box):
        return torch.where(slope > 0, domain.low * slope, domain.high * slope).sum(-1)
    if isinstance(domain, Simplex):
        return domain.total * slope.amin(-1)
    assert isinstance(domain, CappedSimplex)
    width, left = domain.cap - domain.floor, domain.total - domain.dimension * domain.floor
    shares = torch.tensor(
        [min(max(left - i * width, 0.0), width) for i in range(domain.dimension)], dtype=torch.float64
    )
    return (slope.sort(-1).values * (shares + domain.floor)).sum(-1)


def gap(domain: Domain, x: Tensor, slope: Tensor) -> Tensor:
    """(...,): max over u in the set of <slope, x - u>, relative to the slope: 0 exactly where x is optimal."""
    size = slope.abs().amax(-1).clamp(min=1.0)
    return ((slope * x).sum(-1) - support(domain, slope)) / size


def assert_optimal(domain: Domain, x: Tensor, slope: Tensor, tolerance: float = 1e-12) -> None:
    """x is feasible and the convex function with this gradient at x has its least value over the set there."""
    assert bool(domain.contains(x, 1e-13 * domain.dimension).all()), domain
    if isinstance(domain, Unconstrained):
        assert float(slope.abs().max()) <= tolerance
        return
    worst = float(gap(domain, x, slope).max())
    assert worst <= tolerance, f"{domain}: gap {worst:.2e}"
    assert not math.isnan(worst)


def positive_definite(count: int, dimension: int, condition: float, seed: int = 0) -> Tensor:
    """(count, d, d) with eigenvalues spread evenly in the logarithm from 1/condition to 1, random axes."""
    generator = torch.Generator().manual_seed(seed)
    axes = torch.linalg.qr(torch.randn(count, dimension, dimension, dtype=torch.float64, generator=generator))[0]
    values = torch.logspace(-math.log10(condition), 0, dimension, dtype=torch.float64)
    matrix = axes @ torch.diag_embed(values.expand(count, dimension)) @ axes.mT
    return (matrix + matrix.mT) / 2


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
