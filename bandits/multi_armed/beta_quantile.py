"""Upper quantiles of Beta distributions with a, b >= 1, vectorised, on any device; torch has no inverse of its own.

Everything is in the logit v = ln(x / (1 - x)), where the density exp(a ln x + b ln(1 - x)) / B(a, b) is log-concave on
the whole line. The mass above v is integrated by Gauss and Legendre's rule up to where the density has fallen below
e^-38 of the tail. The root is found by Halley's method on the logarithm of that mass, which is concave.
"""

from __future__ import annotations

import functools

import numpy as np
import torch
from torch import Tensor

__all__ = ["beta_logit", "far_end", "log_beta", "log_density", "mass_between", "step_to"]

FALL = 38.0  # about e^-38 of the tail is left out
NODES = 36


@functools.cache
def _rule(nodes: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Nodes and weights on [0, 1], each (nodes,)."""
    x, w = np.polynomial.legendre.leggauss(nodes)
    return torch.as_tensor(0.5 * (x + 1.0), device=device), torch.as_tensor(0.5 * w, device=device)


def log_beta(a: Tensor, b: Tensor) -> Tensor:
    """ln B(a, b)."""
    return torch.lgamma(a) + torch.lgamma(b) - torch.lgamma(a + b)


def log_density(v: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """ln of the logit's density at v, up to ln B(a, b): a ln x + b ln(1 - x)."""
    return (a + b) * v.sigmoid().log() - b * v


def mass_between(v: Tensor, end: Tensor, a: Tensor, b: Tensor, nodes: int) -> Tensor:
    """The mass between two logits over the density at the first, of either sign: integral of density / density(v).

    Args:
        v, end, a, b: of one shape.
        nodes: of the rule; what it integrates must be smooth enough for them.
    """
    x, w = (part.view(-1, *[1] * v.ndim) for part in _rule(nodes, v.device))
    ratio = (log_density(v + x * (end - v), a, b) - log_density(v, a, b)).exp_()
    return ratio.mul_(w).sum(0) * (end - v)


def far_end(v: Tensor, a: Tensor, b: Tensor, fall: float) -> Tensor:
    """A logit above v and the mode, where the density is at most e^-fall of what it is at the higher one of the two."""
    mode, width = (a / b).log(), (1.0 / a + 1.0 / b).sqrt().clamp_max(1.0)
    peak = torch.maximum(v, mode)
    # From `peak + width` on the density falls at least as fast as there, so this end is far enough. Newton's method
    # for the fall, a convex function, brings it nearer.
    far = peak + width
    end = far + fall / ((a + b) * far.sigmoid() - a)
    goal = log_density(peak, a, b) - fall
    for _ in range(6):
        end = end - (goal - log_density(end, a, b)) / ((a + b) * end.sigmoid() - a)
    return end


def step_to(excess: Tensor, hazard: Tensor, v: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Halley's step for ln(mass above v) = goal, by what the left side exceeds the right and density / mass."""
    bend = hazard + a - (a + b) * v.sigmoid()  # at least 0: the hazard of a log-concave density grows
    return 2.0 * excess / torch.maximum(2.0 * hazard + excess * bend, 0.5 * hazard)


def beta_logit(a: Tensor, b: Tensor, log_tail: float, start: Tensor | None = None, steps: int = 8) -> Tensor:
    """The logit of the x above which the Beta(a, b) distribution has the mass exp(log_tail).

    Args:
        a, b: of one shape, at least 1.
        log_tail: at most ln(1/2).
        start: a guess; the mode of the logit where it is lower, or None.
        steps: of Halley's method; 8 are enough for tails from 1e-12 up without a guess.
    """
    v = (a / b).log()
    if start is not None:
        v = torch.maximum(v, start)
    end = far_end(v, a, b, FALL - log_tail)
    normal, nodes = log_beta(a, b) + log_tail, NODES if log_tail > -2.5 else NODES * 5 // 6
    for _ in range(steps):
        mass = mass_between(v, end, a, b, nodes)
        excess = mass.log() + log_density(v, a, b) - normal
        v = v + step_to(excess, mass.reciprocal(), v, a, b)
    return v
