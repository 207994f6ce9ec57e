"""FTRL-Proximal: per-coordinate rates and L1, the form that runs in production.

McMahan et al., KDD 2013; McMahan, arXiv 1403.3465. Minimises sum_s <g_s, w> + 1/2 sum_s s_s (w - w_s)^2 + l1 ||w||_1 +
1/2 (l2 + beta / alpha) ||w||^2, s_s the growth of sqrt(sum g^2) / alpha, coordinate by coordinate.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from bandits.online_learning.base import OnlineLearner
from bandits.online_learning.domains import Box, Domain, Unconstrained
from orbs import Feedback, reject

__all__ = ["FTRLProximal"]


class FTRLProximal(OnlineLearner):
    """FTRL-Proximal on a box that holds 0, or on the whole space.

    Args:
        domain: `Box` or `Unconstrained`.
        alpha, beta: rate alpha / (beta + sqrt(sum g^2)); alpha > 0, beta >= 0.
        l1, l2: weights of the penalties, at least 0; a coordinate with |z| <= l1 is exactly 0.
        runs, device, low, high: as of `OnlineLearner`.

    Raises:
        ValueError: another domain, a number out of range.
    """

    def __init__(
        self,
        domain: Domain,
        alpha: float = 0.1,
        beta: float = 1.0,
        l1: float = 0.0,
        l2: float = 0.0,
        runs: int | Sequence[int] = 1,
        device: torch.device | str = "cpu",
        **ranges: float,
    ) -> None:
        super().__init__(domain, runs, device, **ranges)
        if not isinstance(domain, (Box, Unconstrained)):
            reject("domain", "a box, or the whole space", domain, "coordinates must be independent")
        if not 0 < alpha < math.inf:
            reject("alpha", "a finite number above 0", alpha, "e.g. 0.1")
        for name, value in (("beta", beta), ("l1", l1), ("l2", l2)):
            if not 0 <= value < math.inf:
                reject(name, "a finite number of at least 0", value, "0 leaves it out")
        self.alpha, self.beta, self.l1, self.l2 = alpha, beta, l1, l2
        self.linear, self.squares = self._zeros(), self._zeros()
        self._solve()

    def _solve(self) -> None:
        curvature = (self.beta + torch.sqrt(self.squares)) / self.alpha + self.l2
        shrunk = torch.sign(self.linear) * self.l1 - self.linear
        # Nothing seen and no penalty: every point is as good, and 0 is played.
        free = (self.linear.abs() <= self.l1) | (curvature == 0)
        self._point = self.domain.project(torch.where(free, 0.0, shrunk / torch.where(free, 1.0, curvature)))

    def _take(self, gradient: Tensor, feedback: Feedback) -> None:
        grown = self.squares + gradient * gradient
        growth = (torch.sqrt(grown) - torch.sqrt(self.squares)) / self.alpha
        self.linear += gradient - growth * self._point
        self.squares = grown
        self._solve()

    def _tensors(self) -> dict[str, Tensor]:
        return {"linear": self.linear, "squares": self.squares}

    def _loaded(self) -> None:
        self._solve()
