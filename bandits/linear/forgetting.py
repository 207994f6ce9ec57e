"""Linear bandits that forget: discounted LinUCB (Russac, Vernade, Cappe, arXiv 1909.09146) and a sliding window.

Deliberate difference: W is discounted by itself, as in the paper; the authors' code puts V in its place.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from bandits.linear.cholesky import factor, solve_lower, solve_upper
from bandits.linear.lin_ucb import RidgeLearner
from bandits.linear.linear_learner import LinearLearner
from bandits.linear.radius import discounted_radius, window_radius
from orbs import reject

__all__ = ["DLinUCB", "SWLinUCB", "discount_of", "window_of"]


def window_of(dimension: int, horizon: int, variation: float) -> int:
    """tau = (d T / B)^{2/3}, rounded up, at most T: B the length of theta's way through all rounds."""
    return max(1, min(horizon, math.ceil(math.pow(dimension * horizon / variation, 2 / 3)))) if variation else horizon


def discount_of(dimension: int, horizon: int, variation: float) -> float:
    """g = 1 - (B / (d T))^{2/3}, at least 0."""
    return max(0.0, 1.0 - math.pow(variation / (dimension * horizon), 2 / 3))


class DLinUCB(LinearLearner):
    """argmax <theta_hat, u> + beta ||u||_{V^-1 W V^-1}, of sums in which a round counts g^age, in W g^{2 age}.

    V <- g V + u u^T + (1 - g) lam I, W <- g^2 W + u u^T + (1 - g^2) lam I, b <- g b + u y. The term with lam is of full
    rank, so V is factorised anew each round; that leaves no drift.

    Args:
        features, arguments: as for `LinearLearner`.
        discount: g, 0 to 1; 1 is LinUCB with D-LinUCB's radius.
    """

    def __init__(self, features: Tensor | None = None, *, discount: float, **arguments: Any) -> None:
        super().__init__(features, **arguments)
        if not 0 <= discount <= 1:
            reject("discount", "a number from 0 to 1", discount, "e.g. discount=0.99")
        self.discount, d = float(discount), self.dimension
        self.matrix, self.squared, self.target = self.zeros(d, d), self.zeros(d, d), self.zeros(d)
        for one in (self.matrix, self.squared):
            one.diagonal(dim1=1, dim2=2).fill_(self.lam)

    def confidence(self) -> float:
        """The radius of this round."""
        if self.beta is not None:
            return self.beta
        return discounted_radius(
            self.rounds, self.discount, self.dimension, self.lam, self.bound, self.noise, self.delta, self.feature_bound
        )

    def theta(self) -> Tensor:
        """(R, d)."""
        return self._solve(factor(self.matrix.permute(1, 2, 0)), self.target.mT.unsqueeze(1)).squeeze(1).mT

    def statistics(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(R, K) <theta_hat, x_k> and x_k^T V^-1 W V^-1 x_k, of x (K, d, R or 1)."""
        lower = factor(self.matrix.permute(1, 2, 0))
        theta = self._solve(lower, self.target.mT.unsqueeze(1))
        y = self._solve(lower, x.transpose(0, 1).expand(-1, -1, self.runs))  # V^-1 x_k
        half = self.squared.permute(1, 2, 0).clone()  # of the symmetric W: what is above the diagonal, and half of that
        half.diagonal(dim1=0, dim2=1).mul_(0.5)
        product = torch.zeros_like(y)
        for i in range(self.dimension):
            product[: i + 1].addcmul_(half[: i + 1, i].unsqueeze(1), y[i].unsqueeze(0))
        return (x * theta.squeeze(1)).sum(1).mT, 2.0 * (y * product).sum(0).mT

    @staticmethod
    def _solve(lower: Tensor, right: Tensor) -> Tensor:
        return solve_upper(lower, solve_lower(lower, right))

    def _scores(self, x: Tensor) -> Tensor:
        means, squares = self.statistics(x)
        return means + self.confidence() * squares.clamp_min(0.0).sqrt()

    def _learn(self, arm: Tensor, reward: Tensor) -> None:
        u, g = self._features_of(arm), self.discount
        for sums, factor_ in ((self.matrix, g), (self.squared, g * g)):
            runs_last = sums.permute(1, 2, 0).mul_(factor_)
            runs_last.addcmul_(u.unsqueeze(0), u.unsqueeze(1))
            runs_last.diagonal(dim1=0, dim2=1).add_((1.0 - factor_) * self.lam)
        self.target.mT.mul_(g).addcmul_(u, reward)

    def _tensors(self) -> dict[str, Tensor]:
        return {"matrix": self.matrix, "squared": self.squared, "target": self.target}


class SWLinUCB(RidgeLearner):
    """LinUCB on the last `window` rounds: one rank-one update in, one out.

    Sums are taken anew from the window each time that it has passed (at most every 100 rounds). A removal divides by no
    less than lam / (lam + L^2); where that is below 1/1000 the inverse is factorised anew each round.

    Args:
        features, arguments: as for `RidgeLearner`.
        window: tau, at least 1.
        horizon: rounds in all: no more are kept.
    """

    def __init__(
        self, features: Tensor | None = None, *, window: int, horizon: int | None = None, **arguments: Any
    ) -> None:
        super().__init__(features, horizon=horizon, **arguments)
        if window < 1:
            reject("window", "at least 1 round", window, "give the rounds to learn from")
        self.window = window
        self.kept = window if horizon is None else min(window, horizon)
        self._fresh = self.lam < 1e-3 * self.feature_bound**2
        self._again = self.kept * math.ceil(100 / self.kept)  # rounds between two fresh sums, whole windows
        shape = (self.kept,) if self.fixed is not None else (self.kept, self.dimension)
        kind = torch.int64 if self.fixed is not None else torch.float64
        self._past = torch.zeros(*shape, self.runs, dtype=kind, device=self.device)
        self._past_rewards = torch.zeros(self.kept, self.runs, dtype=torch.float64, device=self.device)

    def confidence(self) -> float:
        """The radius of every round."""
        if self.beta is not None:
            return self.beta
        return window_radius(self.window, self.dimension, self.lam, self.bound, self.noise, self.delta)

    def _scores(self, x: Tensor) -> Tensor:
        means, squares = self._statistics(x)
        return means + self.confidence() * squares.clamp_min(0.0).sqrt()

    def _learn(self, arm: Tensor, reward: Tensor) -> None:
        place, ridge = self.rounds % self.kept, self.ridge
        row = arm if self.fixed is not None else self._features_of(arm)
        ridge.add(row, reward)
        full = self.rounds >= self.kept
        if full:
            ridge.remove(self._past[place], self._past_rewards[place])
        self._past[place], self._past_rewards[place] = row, reward
        if full and (self._fresh or (self.rounds + 1) % self._again == 0):
            ridge.recount(self._past, self._past_rewards)

    def _tensors(self) -> dict[str, Tensor]:
        past = self._past.movedim(-1, 0)
        return {**self.ridge.tensors(), "past": past, "rewards": self._past_rewards.mT}
