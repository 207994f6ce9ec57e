"""Minimisers over the simplex for regularisers that have no projection: barriers, and capped relative entropy.

Barriers (Zimmert and Seldin, arXiv 1807.07623). Stationarity of <L, x> + psi(x)/eta says, with p = 1/(1 - alpha),

    x_i = (eta (L_i - z) / p)^(-p),    p = 1 the log-barrier, p = 2 Tsallis-1/2, p -> infinity the entropy,

where z < min L makes sum x = 1. All is computed in scores s = eta (L - min L) >= 0 and y = eta (min L - z) - p, so
no size of L or eta loses digits. S(y) = sum x falls from S(0) >= 1, and S^(-1/p), the power mean of linear functions
with exponent -p, is concave and increasing: Newton's iteration for S^(-1/p) = 1 climbs from y = 0 and never
overshoots. Its steps are at least those of Newton's iteration for the convex S = 1, and solve equal scores at once.
"""

from __future__ import annotations

import math
import sys

import torch
from torch import Tensor

from bandits.online_learning.projections import standing_still

__all__ = ["barrier_weights", "capped_entropy", "log_barrier", "ranks", "soft_weights", "tsallis"]

LARGEST = sys.float_info.max
EXTRA_STEPS = 8  # beyond the doublings; Newton for S = 1 needs 5


def barrier_weights(scores: Tensor, power: float) -> tuple[Tensor, Tensor]:
    """The weights x (..., K) above, summing to 1, and y (..., 1), for scores with smallest entry 0 and p = `power`."""
    y = torch.zeros_like(scores[..., :1])
    for _ in range(max(1, math.ceil(math.log2(scores.shape[-1]))) + EXTRA_STEPS):
        weights, slope, total = _powers(scores, y, power)
        if power == 1.0:
            excess = total - 1.0
        elif power == 2.0:
            excess = total.sqrt() - 1.0
        else:
            excess = torch.expm1(total.log() / power)
        further = torch.maximum(y, y + (power * total) * excess / slope)
        if standing_still(y, further):
            break
        y = further
    return weights / total, y


def _powers(scores: Tensor, y: Tensor, power: float) -> tuple[Tensor, Tensor, Tensor]:
    """x_i = (1 + (s_i + y)/p)^(-p), sum x^(1 + 1/p) and sum x."""
    if power == 1.0:
        weights = (scores + (y + 1.0)).reciprocal_()
        slope = (weights * weights).sum(-1, keepdim=True)
    elif power == 2.0:
        root = (scores + (y + 2.0)).reciprocal_().mul_(2.0)
        weights = root * root
        slope = root.mul_(weights).sum(-1, keepdim=True)
    else:
        ratio = (scores + y).div_(power)
        weights = ratio.log1p().mul_(-power).exp_()  # exact for p up to 1e6 and more, where 1 + s/p rounds s away
        slope = (weights / ratio.add_(1.0)).sum(-1, keepdim=True)
    return weights, slope, weights.sum(-1, keepdim=True)


def _column(eta: float | Tensor) -> float | Tensor:
    return eta.unsqueeze(-1) if isinstance(eta, Tensor) else eta


def _solved(linear: Tensor, eta: float | Tensor, power: float) -> tuple[Tensor, Tensor]:
    least, rate = linear.amin(-1, keepdim=True), _column(eta)
    weights, y = barrier_weights((linear - least) * rate, power)
    return weights, (least - (power + y) / rate).squeeze(-1)


def log_barrier(linear: Tensor, eta: float | Tensor) -> tuple[Tensor, Tensor]:
    """argmin over the simplex of <L, x> - (1/eta) sum ln x_i, and z (...,) with x_i = 1/(eta (L_i - z)).

    linear (..., K); eta > 0 a number or (...,).
    """
    return _solved(linear, eta, 1.0)


def tsallis(linear: Tensor, eta: float | Tensor, alpha: float = 0.5) -> tuple[Tensor, Tensor]:
    """argmin over the simplex of <L, x> - sum (x_i^alpha - alpha x_i) / (alpha (1 - alpha) eta), and z (...,).

    linear (..., K); eta > 0 a number or (...,); x_i = (eta (1 - alpha) (L_i - z))^(-1/(1 - alpha)).
    """
    return _solved(linear, eta, 1.0 / (1.0 - alpha))


def soft_weights(linear: Tensor, eta: float | Tensor) -> Tensor:
    """x_i proportional to exp(-eta L_i), (..., K); where eta is infinite uniform over the smallest L_i."""
    # The largest float stands for infinity: times a gap of 0 it is 0, not NaN, and any other gap underflows.
    rate = -eta.clamp(max=LARGEST).unsqueeze(-1) if isinstance(eta, Tensor) else -min(eta, LARGEST)
    weights = (linear - linear.amin(-1, keepdim=True)).mul_(rate).exp_()
    return weights.div_(weights.sum(-1, keepdim=True))


def ranks(linear: Tensor) -> Tensor:
    """(..., K) float64: how many different smaller numbers the row holds; ties share a rank."""
    ranked, order = linear.sort(dim=-1)
    rises = torch.zeros_like(ranked)
    rises[..., 1:] = (ranked[..., 1:] > ranked[..., :-1]).to(ranked.dtype)
    return torch.empty_like(ranked).scatter_(-1, order, rises.cumsum(-1))


def capped_entropy(logs: Tensor, cap: float, total: float, floor: float = 0.0) -> Tensor:
    """ln of the point of {floor <= x_i <= cap, sum x = total} that is nearest to exp(logs) in relative entropy.

    x_i = clip(exp(logs_i - theta), floor, cap). The sum falls in theta; bisect for the last theta, of those where a
    coordinate leaves its cap or meets its floor, with the sum still `total` or more, then scale those in between.
    """
    leaves = logs - math.log(cap)
    meets = logs - math.log(floor) if floor > 0 else torch.full_like(logs, math.inf)
    points = (torch.cat((leaves, meets), dim=-1) if floor > 0 else leaves).sort(dim=-1).values
    low = torch.zeros_like(logs[..., :1], dtype=torch.int64)
    high = torch.full_like(low, points.shape[-1])
    for _ in range(points.shape[-1].bit_length()):
        middle = (low + high) // 2
        enough = (logs - points.gather(-1, middle)).exp().clamp(floor, cap).sum(-1, keepdim=True) >= total
        low, high = torch.where(enough, middle, low), torch.where(enough, high, middle)
    theta = points.gather(-1, low)
    capped, floored = leaves > theta, meets <= theta
    moving = torch.where(capped | floored, 0.0, (logs - theta).exp()).sum(-1, keepdim=True)
    # A count times a number is float32 in torch, hence the conversions.
    fixed = (capped.to(logs.dtype) * cap + floored.to(logs.dtype) * floor).sum(-1, keepdim=True)
    share = torch.where(moving > 0, ((total - fixed) / moving).clamp(0.0, 1.0), 1.0)
    least = math.log(floor) if floor > 0 else -math.inf
    return ((logs - theta) + share.log()).clamp(least, math.log(cap))
