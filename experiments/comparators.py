"""The best fixed point in hindsight where no running sums tell it: exact, with a certificate.

Smooth losses: Newton's method over the domain. Each step minimises the damped quadratic model over the domain, exactly
(`Domain.project_matrix`). Certificate: with g the gradient at x, no point u of the domain has a value below
value(x) - max_u <g, x - u>.

Losses with kinks (absolute, hinge) are for `experiments.kinks`.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from bandits.online_learning.domains import Ball, Box, Domain, Simplex
from envs.hindsight import Hindsight
from experiments import kinks
from orbs import reject

__all__ = ["Best", "best_fixed_point", "lowest"]

TOLERANCE = 1e-9
STEPS = 60  # 3 to 8 are needed, 1 to 3 from a good start


class Best(NamedTuple):
    """A point (R, d), its value (R,), and by how much at most another point of the domain is better (R,)."""

    point: Tensor
    value: Tensor
    gap: Tensor


def lowest(domain: Domain, linear: Tensor) -> Tensor:
    """(R,) the least value of <linear, u> over a ball, a box or the simplex, linear (R, d).

    Raises:
        ValueError: another domain.
    """
    if isinstance(domain, Ball):
        return -domain.radius * (linear * linear).sum(-1).sqrt()
    if isinstance(domain, Box):
        return torch.minimum(domain.low * linear, domain.high * linear).sum(-1)
    if isinstance(domain, Simplex):
        return domain.total * linear.amin(-1)
    return reject("domain", "a ball, a box or the simplex", domain, "no best point in hindsight is known elsewhere")


def best_fixed_point(
    losses: Hindsight, domain: Domain, start: Tensor, tolerance: float = TOLERANCE, steps: int = STEPS
) -> Best:
    """The minimiser over the domain of the sum of past losses, each run's own.

    Args:
        losses: the sum, with `value` and `derivatives`; with kinks if its `link` is "absolute" or "hinge".
        domain: a ball, a box or the simplex.
        start: (R, d) where to begin: a point of the domain.
        tolerance: the certified gap is at most this times max(1, |value|).
        steps: passes of Newton's method at most.

    Raises:
        ValueError: another domain.
        ArithmeticError: the tolerance is not reached, because the losses are not convex, or not finite.
    """
    kinked = getattr(getattr(losses, "link", None), "name", "") in ("absolute", "hinge")
    if kinked:
        if not isinstance(domain, Ball):
            reject("domain", "a ball for losses with kinks", domain, "choose another problem")
        found = Best(*kinks.minimise(losses, domain.radius, start, tolerance))
    else:
        found = _newton(losses, domain, start, tolerance, steps)
    missed = ~(found.gap <= tolerance * found.value.abs().clamp_min(1.0))
    if missed.any():
        worst = float((found.gap / found.value.abs().clamp_min(1.0)).nan_to_num(math.inf).max())
        raise ArithmeticError(
            f"best fixed point in hindsight: expected a gap of {tolerance:g} at most, got {worst:.3g} relative to the "
            f"value, in {int(missed.sum())} of {len(missed)} runs. Fix: check that the losses are convex and finite."
        )
    return found


def _newton(losses: Hindsight, domain: Domain, x: Tensor, tolerance: float, steps: int) -> Best:
    """Damped Newton steps; a run that is done is frozen, whatever the others need."""
    derivatives = losses.derivatives
    value, gradient, hessian = derivatives(x)
    eye = torch.eye(x.shape[-1], dtype=x.dtype, device=x.device)
    damping = torch.full_like(value, 1e-12)
    gap = (gradient * x).sum(-1) - lowest(domain, gradient)
    for _ in range(steps):
        open_ = ~(gap <= tolerance * value.abs().clamp_min(1.0))
        if not open_.any():
            break
        # Damping in units of the curvature; the slope stands in where there is none.
        slope = (gradient * gradient).sum(-1).sqrt() / domain.diameter
        unit = torch.maximum(hessian.diagonal(dim1=-2, dim2=-1).mean(-1), slope).clamp_min(1e-300)
        model = hessian + (damping * unit)[:, None, None] * eye
        # A run with broken numbers must not break the factorisation of the others.
        usable = model.isfinite().flatten(1).all(1) & gradient.isfinite().all(1)
        model = torch.where(usable[:, None, None], model, eye)
        factor, failed = torch.linalg.cholesky_ex(model)
        model = torch.where((failed != 0)[:, None, None], unit[:, None, None] * eye, model)
        factor = torch.where((failed != 0)[:, None, None], unit.sqrt()[:, None, None] * eye, factor)
        aim = x - torch.cholesky_solve(torch.where(usable[:, None], gradient, 0.0).unsqueeze(-1), factor).squeeze(-1)
        u = domain.project_matrix(aim, model)
        move = u - x
        curved = (model @ move.unsqueeze(-1)).squeeze(-1)
        promised = -(gradient * move).sum(-1) - 0.5 * (curved * move).sum(-1)
        new_value, new_gradient, new_hessian = derivatives(u)
        new_gap = (new_gradient * u).sum(-1) - lowest(domain, new_gradient)
        rounding = 1e-15 * (losses.rounds + 10 * value.abs())
        # At the end values differ by rounding alone; the gap then says which point is better.
        fell = new_value <= value - 1e-4 * promised.clamp_min(0.0)
        level = ((new_value - value).abs() <= rounding) & (new_gap < gap)
        better = (fell | level) & new_gap.isfinite() & open_
        x = torch.where(better[:, None], u, x)
        value, gap = torch.where(better, new_value, value), torch.where(better, new_gap, gap)
        gradient = torch.where(better[:, None], new_gradient, gradient)
        hessian = torch.where(better[:, None, None], new_hessian, hessian)
        damping = torch.where(better, (damping * 0.01).clamp_min(1e-12), (damping * 10).clamp_min(1e-2))
    return Best(x, value, gap)
