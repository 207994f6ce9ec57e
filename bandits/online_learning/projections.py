"""Exact projections onto the convex sets that online learners play in, in the Euclidean and in a diagonal norm.

Every function works on the last axis of (..., d) tensors and gives back the same shape and memory layout; nothing
here changes its arguments or waits for a device. All are finite algorithms: sorted breakpoints (Duchi,
Shalev-Shwartz, Singer, Chandra, ICML 2008; Held, Wolfe, Crowder 1974), or Newton's iteration from the side where it
is monotone, until it stands still. A row with a NaN gives a row of NaNs; rows never mix.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = [
    "onto_ball",
    "onto_ball_weighted",
    "onto_box",
    "onto_capped_simplex",
    "onto_capped_simplex_weighted",
    "onto_l1_ball",
    "onto_l1_ball_weighted",
    "onto_simplex",
    "onto_simplex_weighted",
    "standing_still",
]

SECULAR_STEPS = 60  # far more than are ever needed (about ten): the iteration stops where it stands still
INSIDE = 1e-15  # relative: the norm of a projected point exceeds the radius by rounding and must still count as inside


def standing_still(old: Tensor, new: Tensor) -> bool:
    """Whether an iteration has reached its fixed point in every row, so that further steps change no bit.

    Asked on the CPU alone: on other devices the answer would wait for the device, so the loop runs its full length.
    """
    return new.device.type == "cpu" and torch.equal(old, new)


def _all(flags: Tensor) -> bool:
    """Whether all hold, where asking is free (CPU); False elsewhere."""
    return flags.device.type == "cpu" and bool(flags.all())


def _running_sum(x: Tensor) -> Tensor:
    """Cumulative sum over the last axis in the memory layout of `x` (torch.cumsum makes the last axis contiguous)."""
    return torch.cumsum(x, -1, out=torch.empty_like(x))


def onto_ball(v: Tensor, radius: float = 1.0) -> Tensor:
    """(..., d): the nearest point of Euclidean norm at most `radius`."""
    norm = (v * v).sum(-1, keepdim=True).sqrt_()
    return v / norm.div_(radius).clamp_(min=1.0)


def onto_box(v: Tensor, low: float, high: float) -> Tensor:
    """(..., d): the nearest point with low <= x_i <= high, in every diagonal norm."""
    return v.clamp(low, high)


def onto_simplex(v: Tensor, total: float = 1.0) -> Tensor:
    """(..., d): the nearest point with x_i >= 0 and sum x_i = total (Duchi et al. 2008)."""
    # The shift changes nothing in exact arithmetic; without it a large common part of v eats the digits of x.
    v = v - v.amax(-1, keepdim=True)
    ranked = v.sort(dim=-1, descending=True).values
    count = torch.arange(1, v.shape[-1] + 1, dtype=v.dtype, device=v.device)
    # Any set of k coordinates bounds the threshold from below, the support attains it: no search for the support.
    threshold = ((_running_sum(ranked) - total) / count).amax(-1, keepdim=True)
    return (v - threshold).clamp_(min=0.0)


def onto_l1_ball(v: Tensor, radius: float = 1.0) -> Tensor:
    """(..., d): the nearest point with sum |x_i| <= radius (Duchi et al. 2008)."""
    size = v.abs()
    inside = ~(size.sum(-1, keepdim=True) > radius * (1.0 + INSIDE))
    if _all(inside):
        return v
    return torch.where(inside, v, onto_simplex(size, radius).copysign_(v))


def onto_capped_simplex(v: Tensor, cap: float, total: float = 1.0, floor: float = 0.0) -> Tensor:
    """(..., d): the nearest point with floor <= x_i <= cap and sum x_i = total."""
    return _capped(v, torch.ones_like(v), cap, total, floor)


def onto_ball_weighted(v: Tensor, weights: Tensor, radius: float = 1.0) -> Tensor:
    """argmin over ||x|| <= radius of sum_i weights_i (x_i - v_i)^2; weights (..., d) > 0.

    x_i = h_i v_i / (h_i + mu), where mu >= 0 solves ||x|| = radius. 1/||x(mu)|| is concave and increasing in mu, so
    Newton's iteration for 1/||x|| = 1/radius (More and Sorensen 1983) climbs from the left and never overshoots.
    """
    outside = (v * v).sum(-1, keepdim=True).sqrt_() > radius * (1.0 + INSIDE)
    if _all(~outside):
        return v
    weights = weights / weights.amax(-1, keepdim=True)
    pull = weights * v
    mu = ((pull * pull).sum(-1, keepdim=True).sqrt_() / radius - 1.0).clamp_(min=0.0)  # ||x|| >= ||pull||/(1 + mu)
    for _ in range(SECULAR_STEPS):
        denominator = weights + mu
        x = pull / denominator
        square = x * x
        norm = square.sum(-1, keepdim=True).sqrt_()
        slope = (square / denominator).sum(-1, keepdim=True).clamp_(min=1e-300)  # 0 only for v = 0, which is inside
        further = torch.maximum(mu, mu + (norm - radius) * (norm * norm) / (radius * slope))
        if standing_still(mu, further):
            break
        mu = further
    return torch.where(outside, onto_ball(pull / (weights + mu), radius), v)


def onto_simplex_weighted(v: Tensor, weights: Tensor, total: float = 1.0) -> Tensor:
    """argmin over the simplex of sum_i weights_i (x_i - v_i)^2: x_i = max(v_i - theta/h_i, 0); weights (..., d) > 0."""
    spread = 1.0 / weights
    order = (v * weights).sort(dim=-1, descending=True).indices
    sums, spreads = _running_sum(v.gather(-1, order)), _running_sum(spread.gather(-1, order))
    threshold = ((sums - total) / spreads).amax(-1, keepdim=True)
    # Rounding in the sums of heavy coordinates is large beside light ones: Newton steps on sum x = total mend it.
    for _ in range(2):
        x = (v - threshold * spread).clamp_(min=0.0)
        slope = spread * (x > 0)
        excess = (x.sum(-1, keepdim=True) - total) / slope.sum(-1, keepdim=True)
        threshold = threshold + excess
    return (x - excess * slope).clamp_(min=0.0)


def onto_l1_ball_weighted(v: Tensor, weights: Tensor, radius: float = 1.0) -> Tensor:
    """argmin over the L1 ball of sum_i weights_i (x_i - v_i)^2: soft threshold at theta/h_i; weights (..., d) > 0."""
    size = v.abs()
    inside = ~(size.sum(-1, keepdim=True) > radius * (1.0 + INSIDE))
    if _all(inside):
        return v
    return torch.where(inside, v, onto_simplex_weighted(size, weights, radius).copysign_(v))


def onto_capped_simplex_weighted(
    v: Tensor, weights: Tensor, cap: float, total: float = 1.0, floor: float = 0.0
) -> Tensor:
    """argmin over the capped simplex of sum_i weights_i (x_i - v_i)^2; weights (..., d) > 0."""
    return _capped(v, 1.0 / weights, cap, total, floor)


def _capped(v: Tensor, spread: Tensor, cap: float, total: float, floor: float) -> Tensor:
    """x_i = clip(v_i - theta spread_i, floor, cap) with sum x = total.

    The sum falls in theta, linearly between the points where a coordinate leaves its cap or meets its floor. Bisect
    for the last of these points where the sum is still `total` or more, and go the rest of the way in one step.
    """
    leaves, meets = (v - cap) / spread, (v - floor) / spread
    points = torch.cat((leaves, meets), dim=-1).sort(dim=-1).values
    low = torch.zeros_like(v[..., :1], dtype=torch.int64)
    high = torch.full_like(low, points.shape[-1])
    for _ in range(points.shape[-1].bit_length()):
        middle = (low + high) // 2
        x = (v - points.gather(-1, middle) * spread).clamp_(floor, cap)
        enough = x.sum(-1, keepdim=True) >= total
        low, high = torch.where(enough, middle, low), torch.where(enough, high, middle)
    theta = points.gather(-1, low)
    x = (v - theta * spread).clamp_(floor, cap)
    slope = spread * ((leaves <= theta) & (theta < meets))
    total_slope = slope.sum(-1, keepdim=True)
    excess = (x.sum(-1, keepdim=True) - total).clamp_(min=0.0)
    step = torch.where(total_slope > 0, excess / total_slope, 0.0)  # a flat piece has no excess to remove
    return (x - step * slope).clamp_(floor, cap)
