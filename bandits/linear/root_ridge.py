"""Ridge regression for features that change each round: a square root of V^-1, updated at rank one."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from bandits.linear.cholesky import factor, log_determinant, solve_lower, solve_upper
from orbs import reject

__all__ = ["RootRidge"]


class RootRidge:
    """theta = V^-1 b with V = lam I + sum u u^T, b = sum u y, of R runs; B (d, d, R) with B B^T = V^-1.

    V and b are sums. A round multiplies B by I - c w w^T, w = B^T u, whose square is I - w w^T / (1 + |w|^2); every
    `rebuild` rounds B is L^{-T} anew, V = L L^T. A square root makes widths squares, and samples of N(theta, V^-1) a
    product.

    Args:
        dimension: d.
        lam: weight of the ridge, above 0.
        runs: R.
        device: where everything lies.
        rebuild: rounds between two factorisations.

    Attributes:
        theta: (d, R). log_volume: (R,) ln det V - d ln lam. rounds: added so far.
    """

    def __init__(
        self, dimension: int, lam: float, runs: int, device: torch.device | str = "cpu", rebuild: int = 100
    ) -> None:
        if not 0 < lam < float("inf"):
            reject("lam", "a finite number above 0", lam, "e.g. lam=1.0")

        def zeros(*shape: int) -> Tensor:
            return torch.zeros(*shape, runs, dtype=torch.float64, device=device)

        self.dimension, self.lam, self.runs, self.rebuild = dimension, float(lam), runs, rebuild
        self.matrix, self.target, self.root = zeros(dimension, dimension), zeros(dimension), zeros(dimension, dimension)
        self.theta, self.log_volume = zeros(dimension), zeros()
        self._unit = torch.eye(dimension, dtype=torch.float64, device=device).unsqueeze(-1).expand(-1, -1, runs)
        self.reset()

    def scores(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(R, K) <theta, x_k> and x_k^T V^-1 x_k, of x (K, d, R or 1)."""
        half = torch.zeros(self.dimension, len(x), self.runs, dtype=x.dtype, device=x.device)
        for i in range(self.dimension):
            half.addcmul_(self.root[i].unsqueeze(1), x[:, i].unsqueeze(0))
        return (x * self.theta).sum(1).mT, (half * half).sum(0).mT

    def add(self, u: Tensor, reward: Tensor) -> None:
        """Learn from a round: features u (d, R) and rewards (R,)."""
        self.rounds += 1
        self._sum(u, reward, 1.0)
        if self.rounds % self.rebuild == 0:
            self._renew()
        else:
            self._update(u, reward, 1.0)

    def remove(self, u: Tensor, reward: Tensor) -> None:
        """Forget an earlier round. 1 - u^T V^-1 u, which a removal divides by, is at least lam / (lam + |u|^2)."""
        self._sum(u, reward, -1.0)
        self._update(u, reward, -1.0)

    def recount(self, u: Tensor, reward: Tensor) -> None:
        """Anew from the rounds that are to count, u (n, d, R) and rewards (n, R)."""
        for i in range(self.dimension):
            self.matrix[i] = (u[:, i : i + 1] * u).sum(0)
        self.matrix.diagonal(dim1=0, dim2=1).add_(self.lam)
        self.target.copy_((u * reward.unsqueeze(1)).sum(0))
        self._renew()

    def reset(self) -> None:
        """Forget all rounds."""
        self.rounds = 0
        self.matrix.copy_(self.lam * self._unit)
        self.target.zero_()
        self._renew()

    def tensors(self) -> dict[str, Tensor]:
        """The state by name, each with a leading axis of runs, to be saved or filled in place; then call `loaded`."""
        return {
            "matrix": self.matrix.permute(2, 0, 1), "target": self.target.mT, "root": self.root.permute(2, 0, 1),
            "theta": self.theta.mT, "log_volume": self.log_volume,
        }  # fmt: skip

    def loaded(self, rounds: int) -> None:
        """After a state of so many rounds has been filled in."""
        self.rounds = rounds

    def _sum(self, u: Tensor, reward: Tensor, sign: float) -> None:
        self.matrix.addcmul_(u.unsqueeze(0), u.unsqueeze(1), value=sign)
        self.target.addcmul_(u, reward, value=sign)

    def _update(self, u: Tensor, reward: Tensor, sign: float) -> None:
        w = (self.root * u.unsqueeze(1)).sum(0)
        size = (w * w).sum(0)
        direction = (self.root * w).sum(1)  # V^-1 u
        error = (reward - (u * self.theta).sum(0)) / (1.0 + sign * size)
        self.theta.addcmul_(direction, error, value=sign)
        scale = (1.0 + sign * size).sqrt()
        self.root.addcmul_((direction / (scale * (1.0 + scale))).unsqueeze(1), w.unsqueeze(0), value=-sign)
        self.log_volume += (sign * size).log1p()

    def _renew(self) -> None:
        lower = factor(self.matrix)
        self.root.copy_(solve_upper(lower, self._unit))
        self.theta.copy_(solve_upper(lower, solve_lower(lower, self.target.unsqueeze(1))).squeeze(1))
        self.log_volume.copy_(log_determinant(lower) - self.dimension * math.log(self.lam))
