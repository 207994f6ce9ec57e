"""Worst-case means a second time, of one factor, in plain NumPy and SciPy: by searches, roots and linear programmes."""

import itertools
import math

import numpy as np
from scipy.optimize import brentq, linprog


def tv_lp(w, v, rho):
    """min E_nu V over TV(nu || w) <= rho, as a linear programme over nu and |nu - w|."""
    n = len(w)
    eye = np.eye(n)
    above = np.vstack((np.hstack((eye, -eye)), np.hstack((-eye, -eye)), np.r_[np.zeros(n), np.ones(n)]))
    right = np.r_[w, -np.asarray(w), 2 * rho]
    found = linprog(np.r_[v, np.zeros(n)], above, right, np.r_[np.ones(n), np.zeros(n)][None], [1.0], method="highs")
    return float(found.fun)


def kl_primal(w, v, rho):
    """E of the exponential tilt whose KL is rho."""
    w, v = w[w > 0], v[w > 0]
    low = v.min()
    if rho >= -math.log(w[v == low].sum()):
        return float(low)
    y = v - low

    def tilt(t):
        nu = w * np.exp(-t * y)
        return nu / nu.sum()

    def missing(t):
        nu = tilt(t)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(nu > 0, nu * np.log(nu / w), 0.0).sum() - rho

    # Where the tilt is nearly all at the least value, its Kullback-Leibler divergence is flat: widen the bracket.
    top = 1.0
    while missing(top) < 0:
        top *= 2
    return float(tilt(brentq(missing, 0.0, top, xtol=1e-15, rtol=1e-15)) @ v)


def chi2_primal(w, v, rho):
    """E of the truncated linear tilt w (a - V)_+ whose divergence is rho; the least value where a law has less."""
    w, v = w[w > 0], v[w > 0]
    low = v.min()
    if w[v == low].sum() >= 1 / (1 + rho):
        return float(low)

    def tilt(a):
        nu = w * np.maximum(a - v, 0.0)
        return nu / nu.sum()

    def missing(a):
        return ((tilt(a) - w) ** 2 / w).sum() - rho

    bottom, top = low + 1e-12, v.max() + 1.0
    while missing(top) > 0:
        top = low + 2 * (top - low)
    return float(tilt(brentq(missing, bottom, top, xtol=1e-15, rtol=1e-15)) @ v)


def kl_priced(w, v, lam):
    nu = w * np.exp(-(v - v[w > 0].min()) / lam)
    nu /= nu.sum()
    at = nu > 0
    return float(nu @ v + lam * (nu[at] * np.log(nu[at] / w[at])).sum())


def chi2_priced(w, v, lam):
    """nu = w (a - V)_+ / (2 lam), of sum 1."""
    w, v = w[w > 0], v[w > 0]
    top = v.max() + 2 * lam + 1
    a = brentq(lambda a: (w * np.maximum(a - v, 0)).sum() - 2 * lam, v.min(), top, xtol=1e-15, rtol=1e-15)
    nu = w * np.maximum(a - v, 0) / (2 * lam)
    return float(nu @ v + lam * ((nu - w) ** 2 / w).sum())


def projected(w):
    """Sub-probabilities and the rest, for the value 0."""
    w = np.maximum(w, 0.0)
    total = w.sum()
    return w / max(1.0, total), max(0.0, 1.0 - total)


def tv_signed(w, v, form, level, least):
    if form == "regularised":
        return sum(wi * min(vi, least + level) for wi, vi in zip(w, v, strict=True))
    return max(sum(wi * min(vi, a) for wi, vi in zip(w, v, strict=True)) - level * (a - least) for a in (least, *v))


def _roots(polynomial):
    polynomial = np.trim_zeros(np.asarray(polynomial), "f")
    if len(polynomial) < 2:
        return []
    found = np.roots(polynomial)
    return list(found.real[np.abs(found.imag) < 1e-7])


def chi2_signed(w, v, form, level):
    """Over a in [0, max V]: on each segment the ends, and the real roots of var, and of the derivative."""

    def height(a):
        low = np.minimum(v, a)
        z, z2 = w @ low, w @ low**2
        var = max(z2 - z * z, 0.0)
        return z - (math.sqrt(level * var) if form == "constrained" else var / (4 * level))

    ends = np.unique(np.r_[0.0, v])
    best = max(height(a) for a in ends)
    for left, right in itertools.pairwise(ends):
        inside = v <= left
        s0, s1, s2 = w[~inside].sum(), w[inside] @ v[inside], w[inside] @ v[inside] ** 2
        var = np.array([s0 - s0 * s0, -2 * s1 * s0, s2 - s1 * s1])
        slope = np.polyder(var)
        if form == "constrained":
            still = np.polysub(4 * s0 * s0 * var, level * np.polymul(slope, slope))
        else:
            still = np.polysub([s0], slope / (4 * level))
        for a in (*_roots(var), *_roots(still)):
            best = max(best, height(min(max(a, left), right)))
    return best


def kl_signed(w, v, level, cap, floor):
    """The grid of 64 and a golden section of log b, one number at a time."""

    def height(log):
        b = math.exp(log)
        mean = 1 + float(w @ np.expm1(-v / b))
        return -b * (math.log(max(mean, floor, math.exp(-cap / b))) + level)

    logs = np.linspace(math.log(1e-4 * cap), math.log(cap / math.sqrt(8 * level)), 64)
    heights = [height(log) for log in logs]
    at = int(np.argmax(heights))
    left, right, golden = logs[max(at - 1, 0)], logs[min(at + 1, 63)], (math.sqrt(5) - 1) / 2
    best = max(heights[at], 0.0)
    one, two = right - golden * (right - left), left + golden * (right - left)
    for _ in range(41):
        if height(one) >= height(two):
            right, two = two, one
            one = right - golden * (right - left)
        else:
            left, one = one, two
            two = left + golden * (right - left)
        best = max(best, height(one), height(two))
    return best


def dual(w, v, divergence, form, level, kind, *, least, cap, horizon, floor=1e-12, center=True, exact_zero=True):
    """The estimate for one factor: weights (n,), values (n,)."""
    if kind == "projected":
        w, rest = projected(w)
    if form == "constrained" and level == 0 and (exact_zero or kind == "projected"):
        return float(w @ v)
    if kind == "projected":
        if divergence == "tv":
            return tv_signed(w, v, form, level, least)
        w, v = np.r_[rest, w], np.r_[0.0, v]
        primal = {
            ("kl", "constrained"): kl_primal, ("kl", "regularised"): kl_priced,
            ("chi2", "constrained"): chi2_primal, ("chi2", "regularised"): chi2_priced,
        }[divergence, form]  # fmt: skip
        return primal(w / w.sum(), v, level)
    if divergence == "tv":
        return tv_signed(w, v, form, level, least)
    if divergence == "chi2":
        return chi2_signed(w, v, form, level)
    if form == "constrained":
        return kl_signed(w, v, level, cap, floor)
    mean = 1 + w @ np.expm1(-v / level) if center else w @ np.exp(-v / level)
    low = max(math.exp(-horizon / level), floor if floor > 1e-12 else 0.0)
    return -level * math.log(min(max(mean, low), 1.0))
