"""Logistic bandits: a generalised linear upper confidence bound (Filippi et al., NIPS 2010; Li, Lu, Zhou, ICML 2017).

Maximum likelihood with a ridge after rounds 1, 2, 4, 8, ..; in between the widths alone move.
Deliberate difference: the bonus is OFUL's over kappa, in the linear predictor; Filippi et al. add theirs to the mean.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from bandits.linear.cholesky import factor, solve_lower, solve_upper
from bandits.linear.lin_ucb import RidgeLearner
from bandits.linear.radius import oful_radius
from orbs import reject

__all__ = ["GLMUCB", "least_slope", "logistic_fit"]

PART = 2**21  # numbers that a pass over the rows works on at a time
STEPS = 25  # Newton's; ten are enough unless a plane parts the rewards 0 from the rewards 1


def least_slope(size: float) -> float:
    """kappa = min over |m| <= size of the logistic function's slope, 1 / (2 + 2 cosh(size))."""
    return 1.0 / (2.0 + math.exp(size) + math.exp(-size)) if size < 700 else 0.0


def logistic_fit(theta: Tensor, rows: Tensor, sums: Tensor, plays: Tensor, lam: float, steps: int = STEPS) -> Tensor:
    """(d, R) argmin f = sum_i n_i ln(1 + e^{<x_i, theta>}) - s_i <x_i, theta> + lam/2 |theta|^2 by Newton's method.

    A step is of length 1 or ln(1 + c) / c, c the largest |<x_i, delta>|, whichever leads lower; the latter descends
    from anywhere (Bach, Electronic Journal of Statistics 2010).

    Args:
        theta: (d, R) where to start.
        rows: x (n, d, R or 1). sums: s (n, R). plays: n (n, R).
        lam: above 0.
        steps: for all runs the same.
    """
    d, runs = theta.shape
    part = max(1, PART // (d * runs))
    parts = [slice(at, at + part) for at in range(0, len(rows), part)]

    def value(at: Tensor) -> Tensor:
        total = 0.5 * lam * (at * at).sum(0)
        for some in parts:
            score = (rows[some] * at).sum(1)
            total += (plays[some] * torch.nn.functional.softplus(score) - sums[some] * score).sum(0)
        return total

    for _ in range(steps):
        gradient, hessian = lam * theta, torch.zeros(d, d, runs, dtype=theta.dtype, device=theta.device)
        hessian.diagonal(dim1=0, dim2=1).add_(lam)
        for some in parts:
            x, n = rows[some], plays[some]
            mean = torch.sigmoid((x * theta).sum(1))
            gradient += (x * (n * mean - sums[some]).unsqueeze(1)).sum(0)
            weighted = x * (n * mean * (1.0 - mean)).unsqueeze(1)
            for i in range(d):
                hessian[i] += (x[:, i : i + 1] * weighted).sum(0)
        lower = factor(hessian)
        step = solve_upper(lower, solve_lower(lower, gradient.unsqueeze(1))).squeeze(1)
        size = torch.full_like(theta[0], 1e-12)
        for some in parts:
            size = torch.maximum(size, (rows[some] * step).sum(1).abs().amax(0))
        whole, damped = theta - step, theta - step * (size.log1p() / size)
        theta = torch.where(value(whole) <= value(damped), whole, damped)
    return theta


class GLMUCB(RidgeLearner):
    """argmax <theta_hat, u> + beta / kappa ||u||_{V^-1}, the mean reward being 1 / (1 + e^{-<theta, u>}).

    Args:
        features, arguments: as for `RidgeLearner`; rewards in a range, moved into [0, 1], where noise is.
        kappa: least slope of the mean; None is that at |<theta, u>| = S L.
        horizon: rounds in all, needed for features that change: those of the largest power of two of rounds are kept.
    """

    def __init__(
        self,
        features: Tensor | None = None,
        *,
        kappa: float | None = None,
        noise: float = 0.5,
        horizon: int | None = None,
        **arguments: Any,
    ) -> None:
        super().__init__(features, noise=noise, horizon=horizon, **arguments)
        if not self.bounded:
            reject("reward range", "rewards in a range", f"[{self.low:g}, {self.high:g}]", "give low and high")
        self.kappa = least_slope(self.bound * self.feature_bound) if kappa is None else float(kappa)
        if not 0 < self.kappa <= 0.25:
            fix = "give kappa, or smaller bounds"
            reject("kappa", "a slope above 0 and at most 1/4", self.kappa, fix)
        self.estimate = self.zeros(self.dimension)
        self.kept = 0
        if self.changing is not None:
            if horizon is None:
                reject("horizon", "a number of rounds", "none", "give it, or fixed features")
            self.kept = 1 << (horizon.bit_length() - 1)
        self._past = torch.zeros(self.kept, self.dimension, self.runs, dtype=torch.float64, device=self.device)
        self._past_rewards = torch.zeros(self.kept, self.runs, dtype=torch.float64, device=self.device)

    def confidence(self) -> Tensor | float:
        """(R,), or one for all: the radius of this round's ellipsoid, over kappa."""
        if self.beta is not None:
            return self.beta / self.kappa
        return oful_radius(self.ridge.log_volume, self.lam, self.bound, self.noise, self.delta) / self.kappa

    def _scores(self, x: Tensor) -> Tensor:
        _, squares = self._statistics(x)
        beta = self.confidence()
        if isinstance(beta, Tensor):
            beta = beta.unsqueeze(-1)
        return (x * self.estimate.mT).sum(1).mT + beta * squares.clamp_min(0.0).sqrt()

    def _learn(self, arm: Tensor, reward: Tensor) -> None:
        unit, done = self.unit(reward), self.rounds + 1
        super()._learn(arm, unit)
        if done <= self.kept:
            self._past[done - 1], self._past_rewards[done - 1] = self._features_of(arm), unit
        if done & (done - 1) or (self.fixed is None and done > self.kept):
            return
        if self.fixed is not None:
            rows, sums, plays = self.fixed.features, self.fixed.sums.mT, self.fixed.plays.mT
        else:
            rows, sums = self._past[:done], self._past_rewards[:done]
            plays = torch.ones_like(sums)
        self.estimate.mT.copy_(logistic_fit(self.estimate.mT, rows, sums, plays, self.lam))

    def _tensors(self) -> dict[str, Tensor]:
        own = {**self.ridge.tensors(), "estimate": self.estimate}
        if self.fixed is not None:
            return own
        return {**own, "past": self._past.permute(2, 0, 1), "rewards": self._past_rewards.mT}
