"""Features of pairs (s, a) and the contractions with them that learners of linear MDPs repeat each episode.

Pairs are numbered s * A + a. Features may be the same in all steps and runs, differ by step, or by step and run; the
first case is one matrix product over runs and steps.
"""

from __future__ import annotations

import torch
from torch import Tensor

from orbs import reject

__all__ = ["LinearFeatures"]

LARGEST_TABLE = 1 << 22  # numbers in a table of the products phi_i phi_j of all pairs, beyond which none is kept


class LinearFeatures:
    """phi(s, a) in R^d of all pairs, at each of H steps.

    Args:
        features: (S, A, d), (H, S, A, d) or (R, H, S, A, d).
        steps: H.
        runs: R, checked where the features differ by run.
        device: where they lie.

    Attributes:
        states, actions, steps, dimension: S, A, H, d.
        table: (S A, d), (H, S A, d) or (R, H, S A, d).
        bound: largest Euclidean norm of a feature.

    Raises:
        ValueError: features of another shape, or not finite.
    """

    def __init__(self, features: Tensor, steps: int, runs: int, device: torch.device | str = "cpu") -> None:
        given = torch.as_tensor(features, dtype=torch.float64, device=device)
        leading = given.shape[:-3]
        if given.ndim < 3 or tuple(leading) not in ((), (steps,), (1,), (runs, steps)) or 0 in given.shape:
            wanted = f"shape (S, A, d), ({steps}, S, A, d) or ({runs}, {steps}, S, A, d)"
            reject("features", wanted, f"shape {tuple(given.shape)}", "give a vector a pair (s, a)")
        if not bool(torch.isfinite(given).all()):
            reject("features", "finite numbers", "a NaN or inf", "mend the features")
        given = given.squeeze(0) if tuple(leading) == (1,) else given
        self.states, self.actions, self.dimension = (int(n) for n in given.shape[-3:])
        self.steps, self.pairs = steps, self.states * self.actions
        self.table = given.flatten(-3, -2).contiguous()
        self.bound = float(self.table.norm(dim=-1).max())
        self._mT = self.table.mT.contiguous()
        self._rows = self.table.flatten(0, -2)
        self._offset: Tensor | None = None
        if self.table.ndim > 2:
            number = self.table.shape[:-2].numel()
            self._offset = (torch.arange(number, device=device) * self.pairs).view(self.table.shape[:-2])
        self._products: Tensor | None = None
        if self._rows.shape[0] * self.dimension**2 <= LARGEST_TABLE:
            self._products = (self.table.unsqueeze(-1) * self.table.unsqueeze(-2)).flatten(-2)
            self._products_mT = self._products.mT.contiguous()

    def visited(self, pairs: Tensor) -> Tensor:
        """(R, ..., H, d) the features of pairs (R, ..., H), int64."""
        if self._offset is not None:
            by_run = self._offset.view(-1, *(1,) * (pairs.ndim - 2), self.steps) if self._offset.ndim > 1 else None
            pairs = pairs + (self._offset if by_run is None else by_run)
        return self._rows.index_select(0, pairs.reshape(-1)).view(*pairs.shape, self.dimension)

    def linear(self, vectors: Tensor) -> Tensor:
        """(R, H, S A): phi^T v_h of vectors (R, H, d)."""
        return _times(vectors, self._mT)

    def covariance(self, weights: Tensor) -> Tensor:
        """(R, H, d, d): sum over pairs of weights (R, H, S A) times phi phi^T."""
        shape = (*weights.shape[:2], self.dimension, self.dimension)
        if self._products is not None:
            return _times(weights, self._products).view(shape)
        return self._mT @ (weights.unsqueeze(-1) * self.table)

    def quadratic(self, matrix: Tensor) -> Tensor:
        """(R, H, S A): phi^T M_h phi of matrices (R, H, d, d)."""
        if self._products is not None:
            return _times(matrix.flatten(2), self._products_mT)
        return ((self.table @ matrix) * self.table).sum(-1)

    def gram(self, matrix: Tensor) -> Tensor:
        """(R, H, S A, S A): phi(s, a)^T M_h phi(s', a') of symmetric matrices (R, H, d, d)."""
        return (matrix @ self._mT).mT.contiguous() @ self._mT


def _times(rows: Tensor, table: Tensor) -> Tensor:
    """(R, H, m): rows (R, H, n) times a table (n, m), (H, n, m) or (R, H, n, m)."""
    if table.ndim == 2:
        return rows.view(-1, rows.shape[-1]).mm(table).view(*rows.shape[:2], -1)
    if table.ndim == 3:
        return torch.bmm(rows.transpose(0, 1), table).transpose(0, 1).contiguous()
    return (rows.unsqueeze(-2) @ table).squeeze(-2)
