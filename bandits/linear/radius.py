"""Radii of the confidence ellipsoids: |<theta_hat - theta, u>| <= radius times the width of u, with chance 1 - delta.

S bounds the norm of theta, L that of the features, sigma is the noise's sub-Gaussian constant, t counts the rounds that
were learned from.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["discounted_radius", "oful_radius", "trace_radius", "window_radius"]


def oful_radius(log_volume: Tensor, lam: float, bound: float, noise: float, delta: float) -> Tensor:
    """(R,) sqrt(lam) S + sigma sqrt(2 ln(1/delta) + ln det V - d ln lam), log_volume (R,) = ln det V - d ln lam."""
    inside = log_volume - 2.0 * math.log(delta)
    return math.sqrt(lam) * bound + noise * torch.clamp_min(inside, 0.0).sqrt()


def trace_radius(
    t: int, dimension: int, lam: float, bound: float, noise: float, delta: float, feature_bound: float
) -> float:
    """sqrt(lam) S + sigma sqrt(2 ln(1/delta) + d ln(1 + t L^2 / (lam d))): no determinant."""
    volume = dimension * math.log1p(t * feature_bound**2 / (lam * dimension))
    return math.sqrt(lam) * bound + noise * math.sqrt(volume - 2.0 * math.log(delta))


def discounted_radius(
    t: int, discount: float, dimension: int, lam: float, bound: float, noise: float, delta: float, feature_bound: float
) -> float:
    """sqrt(lam) S + sigma sqrt(2 ln(1/delta) + d ln(1 + L^2 (1 - g^{2t}) / (lam d (1 - g^2))))."""
    # (1 - g^{2t}) / (1 - g^2), which is t at g = 1, in a form that is exact near it
    log = 2.0 * math.log(discount) if discount > 0 else -math.inf
    rounds = float(t) if log == 0 or t == 0 else math.expm1(t * log) / math.expm1(log)
    volume = dimension * math.log1p(feature_bound**2 * rounds / (lam * dimension))
    return math.sqrt(lam) * bound + noise * math.sqrt(volume - 2.0 * math.log(delta))


def window_radius(window: int, dimension: int, lam: float, bound: float, noise: float, delta: float) -> float:
    """sqrt(lam) S + sigma sqrt(d ln((1 + tau / lam) / delta))."""
    return math.sqrt(lam) * bound + noise * math.sqrt(dimension * (math.log1p(window / lam) - math.log(delta)))
