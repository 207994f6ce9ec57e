"""Ridge regression over K fixed actions from counts and sums: no drift, however many rounds.

V = lam I + sum_k N_k u_k u_k^T and b = sum_k S_k u_k hold all that a learner with K fixed actions has seen. V = L L^T
is factorised anew at each look, and an action's width is the norm of L^-1 u: unlike a product with V^-1 that stays
accurate for an action that was played a million times more often than the others.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from bandits.linear.arrays import Array
from orbs import array, tensor

__all__ = ["CountRidge"]

FEW = 8  # dimensions up to which the factorisation is written out, four calls a pivot for all runs


class CountRidge:
    """Means and widths of K actions for R runs; counts and sums stay with the caller.

    Args:
        features: (K, d) float64, the actions, on the device where everything lies.
        runs: R.
    """

    def __init__(self, features: Tensor, runs: int) -> None:
        self.features = features
        self.actions, d = features.shape
        u = features
        self._outer = array((u.unsqueeze(2) * u.unsqueeze(1)).flatten(1).mT.contiguous())  # (d d, K)
        self._transposed = array(u.mT.contiguous())
        # Row i: V's row i, then coordinate i of u_1 .. u_K and of b.
        work = torch.empty(d, d + self.actions + 1, runs, dtype=torch.float64, device=u.device)
        self._work, self._sides = array(work), array(u.mT.unsqueeze(-1).expand(-1, -1, runs).contiguous())
        m = self._work
        self._v, self._b, self._own, self._other = m[:, :d], m[:, -1], m[:, d:-1], m[:, -1:]
        # Each pivot's diagonal entry, the rest of its row, the rest of its column, and what is below.
        self._pivots = [(m[i, i], m[i, i + 1 :], m[i, i + 1 : d, None], m[i + 1 :, i + 1 :]) for i in range(d)]

    @property
    def dimension(self) -> int:
        return self.features.shape[1]

    def look(self, counts: Array, sums: Array, ridge: Any) -> tuple[Array, Array]:
        """(K, R) the actions' estimated rewards <V^-1 b, u>, and (K, R) their squared widths u^T V^-1 u.

        Args:
            counts, sums: (K, R), how often each action was played and what it brought.
            ridge: lam > 0.
        """
        self._solve(counts, sums, ridge)
        own = self._own
        return (own * self._other).sum(0), (own * own).sum(0)

    def products(self, counts: Array, sums: Array, first: int) -> tuple[Array, Array]:
        """(K, R) the estimated rewards as `look` has them, and (K, first, R) u_j^T V^-1 u_k for the first actions k.

        With counts of unit vectors among the actions in place of a ridge.
        """
        self._solve(counts, sums, 0.0)
        own = self._own
        return (own * self._other).sum(0), (own[:, :, None] * own[:, None, :first]).sum(0)

    def _solve(self, counts: Array, sums: Array, ridge: Any) -> None:
        """Put L^-1 u of each action into `_own`, (d, K, R), and L^-1 b into `_other`, (d, 1, R)."""
        self._own[:] = self._sides
        self._b[:] = self._transposed @ sums
        d = self.dimension
        if d > FEW:
            self._batched(counts, ridge)
            return
        self._v[:] = (self._outer @ counts).reshape(d, d, -1)
        for diagonal, row, column, below in self._pivots:
            # Over its root, a pivot's row is a column of L and then what is solved; the rows below lose its share.
            row *= (diagonal + ridge) ** -0.5
            below -= column * row

    def _batched(self, counts: Array, ridge: Any) -> None:
        factor = torch.linalg.cholesky_ex(self._precision(counts, ridge))[0]
        sides = tensor(self._work)[:, self.dimension :].permute(2, 0, 1)
        sides.copy_(torch.linalg.solve_triangular(factor, sides, upper=False))

    def _precision(self, counts: Array, ridge: Any) -> Tensor:
        """(R, d, d) V."""
        u = self.features
        eye = torch.eye(self.dimension, dtype=u.dtype, device=u.device)
        v: Tensor = torch.einsum("kr,ki,kj->rij", tensor(counts), u, u) + ridge * eye
        return v

    def estimate(self, counts: Array, sums: Array, ridge: Any) -> Tensor:
        """(R, d) the estimated parameter V^-1 b."""
        b = (tensor(sums).mT @ self.features).unsqueeze(-1)
        return torch.cholesky_solve(b, torch.linalg.cholesky(self._precision(counts, ridge))).squeeze(-1)
