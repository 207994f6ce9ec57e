"""Worst-case means of a value function, one a factor: the duals of total variation, KL and chi-squared sets.

`worst_case` gives inf E_nu[V] over D(nu || mu_i) <= level (constrained), or inf E_nu[V] + level D(nu || mu_i)
(regularised), where D is TV = 1/2 sum |nu - mu|, KL(nu || mu) or chi2 = sum (nu - mu)^2 / mu, as in arXiv:2402.15399,
2411.18612 and 2510.14246. What is known of mu_i is a row of ridge regression, whose weights may be negative and need
not sum to one; the dual is then not concave, and its maximum is taken over closed-form candidates on every segment
between sorted values. Deliberate differences from the papers' public code: no local search; a radius of 0 gives the
plain w . V (the dual's supremum is larger for negative weights); "projected" weights, for which the dual is exact.

Values are sorted once for all factors. Values are at least 0.
"""

from __future__ import annotations

import math
from typing import Literal, TypeAlias

import torch
from torch import Tensor

__all__ = ["DIVERGENCES", "FORMS", "Divergence", "Form", "Kind", "plain", "project", "worst_case"]

Divergence: TypeAlias = Literal["tv", "kl", "chi2"]
Form: TypeAlias = Literal["constrained", "regularised"]
Kind: TypeAlias = Literal["signed", "projected"]

DIVERGENCES = ("tv", "kl", "chi2")
FORMS = ("constrained", "regularised")

DUST = 1e-14  # a remainder below it is rounding: a point of that weight would still matter to KL
TINY, LOWEST = 1e-300, -600.0  # e^LOWEST is a normal number: what underflows is slow
GRID, GOLDEN_STEPS, NEWTON_STEPS = 64, 40, 12
GOLDEN = (math.sqrt(5.0) - 1.0) / 2.0


def worst_case(
    values: Tensor,
    weights: Tensor,
    divergence: Divergence,
    form: Form,
    level: Tensor,
    *,
    kind: Kind = "signed",
    cap: float = 1.0,
    horizon: float = 1.0,
    least: Tensor | None = None,
    floor: Tensor | None = None,
    kl_center: bool = True,
    exact_zero_radius: bool = True,
) -> Tensor:
    """(R, d) the worst-case mean of V for each factor.

    Args:
        values: (R, S), V at the points that carry weight, at least 0.
        weights: (R, d, S), signed.
        divergence, form: the set.
        level: (d,) or (R, d), the radius (at least 0) or the weight of the divergence (above 0).
        kind: "signed" takes the dual of the weights as they are; "projected" that of max(w, 0) / max(1, sum max(w, 0))
            with what is missing to 1 on value 0, which total variation does not move.
        cap: the largest value that V may take, the range of the search over b of the signed constrained KL.
        horizon: the largest return, the clip e^(-horizon/level) of the signed regularised KL.
        least: (R,) min of V over all states, where total variation may move mass; None: the least of `values`.
        floor: (R, d) in [0, 1], what signed KL takes as the least expectation of e^(-V/b); None: none of its own.
        kl_center: for signed regularised KL, regress e^(-V/level) - 1, not e^(-V/level).
        exact_zero_radius: w . V where a radius is 0, also for signed weights.
    """
    if kind == "projected":
        weights, rest = project(weights)
        if divergence == "tv":
            found = _tv(values, weights, form, level, least)
        elif divergence == "kl" and form == "regularised":
            found = _kl_regularised_exact(values, weights, rest, level)
        elif divergence == "kl":
            found = _kl_exact(*_shifted(values, weights, rest), level)
        else:
            found = _chi2_exact(*_shifted(values, weights, rest), form, level)
        return torch.where(level == 0, plain(values, weights), found) if form == "constrained" else found
    if divergence == "tv":
        found = _tv(values, weights, form, level, least)
    elif divergence == "chi2":
        found = _chi2_signed(values, weights, form, level)
    elif form == "regularised":
        found = _kl_regularised_signed(values, weights, level, horizon, floor, kl_center)
    else:
        found = _kl_signed(values, weights, level, cap, floor)
    if form == "constrained" and exact_zero_radius:
        found = torch.where(level == 0, plain(values, weights), found)
    return found


def plain(values: Tensor, weights: Tensor) -> Tensor:
    """(R, d) w . V, from (R, S) and (R, d, S)."""
    return (weights @ values.unsqueeze(-1)).squeeze(-1)


def project(weights: Tensor) -> tuple[Tensor, Tensor]:
    """Sub-probabilities (R, d, S) near signed weights, and what each row misses to 1, (R, d, 1)."""
    weights = weights.clamp_min(0.0)
    total = weights.sum(-1, keepdim=True)
    rest = 1.0 - total
    return weights / total.clamp_min(1.0), torch.where(rest > DUST, rest, 0.0)


def _sorted(values: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Values in ascending order (R, 1, S) and the weights in theirs (R, d, S)."""
    values, order = values.sort(-1)
    return values.unsqueeze(1), weights.gather(-1, order.unsqueeze(1).expand_as(weights))


def _shifted(values: Tensor, weights: Tensor, rest: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Laws with the rest on value 0: sorted values less the support's least (R, d, S + 1), weights, that least."""
    values, weights = _sorted(values, weights)
    values = torch.nn.functional.pad(values, (1, 0))
    weights = torch.cat((rest, weights), -1)
    least = torch.where(weights > 0, values, math.inf).amin(-1, keepdim=True)
    return (values - least).clamp_min(0.0), weights, least.squeeze(-1)


def _tv(values: Tensor, weights: Tensor, form: Form, level: Tensor, least: Tensor | None) -> Tensor:
    """max over breakpoints a of sum w min(V, a) - rho (a - least); or sum w min(V, least + lam)."""
    if form == "regularised":
        low = values.amin(-1) if least is None else least
        return (weights * torch.minimum(values.unsqueeze(1), (low.unsqueeze(-1) + level).unsqueeze(-1))).sum(-1)
    x, w = _sorted(values, weights)
    below = w.cumsum(-1)
    low = x[..., :1] if least is None else least.view(-1, 1, 1)
    z = (w * x).cumsum(-1) + (below[..., -1:] - below) * x - level.unsqueeze(-1) * (x - low)
    found = z.amax(-1)
    return found if least is None else torch.maximum(found, below[..., -1] * least.unsqueeze(-1))


def _chi2_signed(values: Tensor, weights: Tensor, form: Form, level: Tensor) -> Tensor:
    """max over a >= 0 of z(a) - sqrt(rho var(a)), or of z(a) - var(a) / (4 lam); var is clipped at 0.

    On a segment z = S1 + S0 a and var = A a^2 + 2 B a + C. Candidates are its right end, the roots of var, where the
    clip begins, and the stationary points; a = 0 gives 0.
    """
    x, w = _sorted(values, weights)
    parts = torch.stack((w, w * x, w * x * x))
    sums = parts.cumsum(-1)
    whole = sums[0, ..., -1:]
    below, s1, s2 = (sums - parts).unbind(0)
    s0 = whole - below
    a, b, c = s0 - s0 * s0, -s1 * s0, s2 - s1 * s1
    gap = b * b - a * c
    q = -(b + torch.copysign(gap.clamp_min(0.0).sqrt(), b))
    level = level.unsqueeze(-1)
    right = x.expand_as(w)
    if form == "regularised":
        points = [right, q / a, c / q, (2.0 * level + s1) / (1.0 - s0)]
    else:
        # 4 S0^2 var = rho var'^2 is k (a t^2 + 2 b t + ...) = 0 with k = S0^2 - rho a; its discriminant is k S0^2 gap.
        k = s0 * s0 - level * a
        bk = b * k
        q2 = -(bk + torch.copysign((k * gap).clamp_min(0.0).sqrt() * s0.abs(), bk))
        points = [right, q / a, c / q, q2 / (a * k), (s0 * s0 * c - level * b * b) / q2]
    left = torch.nn.functional.pad(x, (1, 0))[..., :-1]
    t = torch.stack(points).nan_to_num_(0.0)  # 0/0: no such point
    t = torch.minimum(torch.maximum(t, left), x)
    var = ((a * t + 2.0 * b) * t + c).clamp_min_(0.0)
    cost = (level * var).sqrt_() if form == "constrained" else var / (4.0 * level)
    return (s1 + s0 * t - cost).amax(0).amax(-1).clamp_min(0.0)


def _chi2_exact(y: Tensor, w: Tensor, least: Tensor, form: Form, level: Tensor) -> Tensor:
    """For laws: the least over j of the best nu on the lowest j points, where that is a law and within the radius."""
    parts = torch.stack((w, w * y, w * y * y)).cumsum(-1)
    c, s1, s2 = parts.unbind(0)
    spread = (c * s2 - s1 * s1).clamp_min(0.0)
    level, reach = level.unsqueeze(-1), c * y - s1
    if form == "constrained":
        slack = (1.0 + level) * c - 1.0  # what the radius leaves to move within the lowest points
        legal = (slack >= 0) & (reach * reach * slack <= spread)
        found = (s1 - (spread * slack.clamp_min(0.0)).sqrt()) / c
    else:
        legal = (reach <= 2.0 * level) & (c > 0)
        found = (s1 + level * (1.0 - c) - spread / (4.0 * level)) / c
    return torch.where(legal, found, math.inf).amin(-1) + least


def _kl_regularised_signed(
    values: Tensor, weights: Tensor, level: Tensor, horizon: float, floor: Tensor | None, kl_center: bool
) -> Tensor:
    """-lam log M, M = 1 + sum w (e^(-V/lam) - 1), or sum w e^(-V/lam), clipped to [e^(-horizon/lam), 1]."""
    scaled = values.unsqueeze(1) / -level.unsqueeze(-1)
    mean = 1.0 + (weights * scaled.expm1()).sum(-1) if kl_center else (weights * scaled.exp()).sum(-1)
    low = (-horizon / level).exp()
    low = low if floor is None else torch.maximum(low, floor)
    return (-level * torch.maximum(mean, low).clamp_max(1.0).log()).clamp_max(horizon)


def _kl_regularised_exact(values: Tensor, weights: Tensor, rest: Tensor, level: Tensor) -> Tensor:
    """-lam log sum w e^(-V/lam), the support's least value taken out first."""
    values, weights = torch.nn.functional.pad(values, (1, 0)).unsqueeze(1), torch.cat((rest, weights), -1)
    least = torch.where(weights > 0, values, math.inf).amin(-1, keepdim=True)
    powers = weights * ((least - values).clamp_max(0.0) / level.unsqueeze(-1)).exp()
    return least.squeeze(-1) - level * powers.sum(-1).log()


def _kl_signed(values: Tensor, weights: Tensor, level: Tensor, cap: float, floor: Tensor | None) -> Tensor:
    """sup of -b log M(b) - b rho over b in [1e-4 cap, cap / sqrt(8 rho)], M(b) = 1 + sum w (e^(-V/b) - 1).

    M is floored at max(floor, e^(-cap/b)). The interval is part of the definition: with signed weights larger values
    may lie beyond it. A grid finds the hill, a golden section its top.
    """
    values, weights = values[:, None, None], weights.unsqueeze(2)
    level = level.unsqueeze(-1)
    low = (1e-12 if floor is None else floor.clamp(1e-12, 1.0).unsqueeze(-1)) * torch.ones_like(level)

    def height(logs: Tensor) -> Tensor:
        """(R, d, n) at n values of log b."""
        b = logs.exp()
        mean = 1.0 + (weights * (values / -b.unsqueeze(-1)).expm1()).sum(-1)
        return -b * (torch.maximum(torch.maximum(mean, low), (-cap / b).exp()).log() + level)

    start = math.log(1e-4 * cap)
    stop = (math.log(cap) - 0.5 * (8.0 * level.clamp_min(TINY)).log()).clamp(start, start + 700.0)
    at = torch.linspace(0.0, 1.0, GRID, dtype=values.dtype, device=values.device)
    grid = start + (stop - start) * at
    heights = height(grid)
    best, top = heights.max(-1, keepdim=True)
    step = (stop - start) / (GRID - 1)
    left, right = start + step * (top - 1).clamp_min(0), start + step * (top + 1).clamp_max(GRID - 1)
    width = right - left
    one, two = right - GOLDEN * width, left + GOLDEN * width
    first, second = height(one), height(two)
    for _ in range(GOLDEN_STEPS):
        lower = first >= second
        left, right = torch.where(lower, left, one), torch.where(lower, two, right)
        width = right - left
        fresh = torch.where(lower, right - GOLDEN * width, left + GOLDEN * width)
        value = height(fresh)
        one, two = torch.where(lower, fresh, two), torch.where(lower, one, fresh)
        first, second = torch.where(lower, value, second), torch.where(lower, first, value)
    return torch.maximum(best, torch.maximum(first, second)).squeeze(-1).clamp_min(0.0)


def _kl_exact(y: Tensor, w: Tensor, least: Tensor, level: Tensor) -> Tensor:
    """For laws: sup over t = 1/b of -(log M(t) + rho) / t, M(t) = E e^(-t y), where the tilt's KL is rho.

    Newton's method within a bracket on the logit of KL / KL(infinity), in log t while the tilt is weak and in t when
    it nears the least value's mass. Every t gives a lower bound, and the error is of second order in t.
    """
    y, w = y.permute(2, 0, 1).contiguous(), w.permute(2, 0, 1).contiguous()  # sums over the first axis are fast
    rest = torch.where(y > 0, w, 0.0)
    bottom = (w - rest).sum(0)
    most = -bottom.log()  # the tilt's KL in the limit: all of the mass on the least value
    done = level >= most
    scale = torch.where(w > 0, y, 0.0).amax(0).clamp_min(TINY)
    y = y / scale
    down = -y
    rho = torch.minimum(level, most * (1.0 - 1e-9)).clamp_min(1e-30)
    wanted, half = (rho / (most - rho)).log(), 0.5 * most
    t = low = (8.0 * rho).sqrt()  # Hoeffding: the tilt's KL is at most t^2 / 8
    # Where even the least of the others is tilted away, and t at most 1e6.
    high, best = -LOWEST / torch.where(rest > 0, y, math.inf).amin(0).clamp_min(-1e-6 * LOWEST), torch.zeros_like(low)
    for _ in range(NEWTON_STEPS):
        tilt = (down * t).clamp_min_(LOWEST).exp_().mul_(rest)
        above = tilt.sum(0)
        mass = above + bottom
        first = tilt.mul_(y)
        mean = first.sum(0) / mass
        variance = (first * y).sum(0) / mass - mean * mean
        lift = t * mean
        log = mass.log_()
        best = torch.minimum(best, (log + rho) / t)
        spent, left = -(log + lift), (above / bottom).log1p_() + lift
        under = spent < rho
        low, high = torch.where(under, t, low), torch.where(under, high, t)
        step = (wanted - (spent / left).log_()) * (spent * left) / (t * t * variance * most)
        t = t * torch.where(spent < half, step.clamp(-20.0, 20.0).exp_(), 1.0 + step)
        # NaN is not inside either.
        t = torch.where((t >= low) & (t <= high), t, (low * high).sqrt_())
    best = torch.minimum(best, (((down * t).clamp_min_(LOWEST).exp_().mul_(rest).sum(0) + bottom).log_() + rho) / t)
    return torch.where(done, 0.0, -best * scale) + least
