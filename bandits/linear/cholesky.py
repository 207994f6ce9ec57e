"""Cholesky factors of many small matrices at once, runs last in memory: elementwise operations alone.

LAPACK takes a call a matrix and wants the runs first. These take d steps for all runs together, are as fast, and give a
run the same numbers, up to rounding, however many ride along. No step waits for the device.
"""

from __future__ import annotations

from torch import Tensor

__all__ = ["factor", "log_determinant", "solve_lower", "solve_upper"]


def factor(matrix: Tensor) -> Tensor:
    """Lower L with L L^T = matrix, both (d, d, R); above the diagonal L holds what is to be ignored.

    A matrix that is not positive definite gives NaN.
    """
    lower = matrix.clone()
    for j in range(len(lower)):
        lower[j, j].sqrt_()
        column = lower[j + 1 :, j]
        column /= lower[j, j]
        lower[j + 1 :, j + 1 :].addcmul_(column.unsqueeze(0), column.unsqueeze(1), value=-1)
    return lower


def solve_lower(lower: Tensor, right: Tensor) -> Tensor:
    """L^{-1} B (d, n, R) of lower L (d, d, R) and B (d, n, R); entries of L above the diagonal are not read."""
    solution = right.clone()
    for j in range(len(lower)):
        solution[j] /= lower[j, j]
        solution[j + 1 :].addcmul_(lower[j + 1 :, j].unsqueeze(1), solution[j].unsqueeze(0), value=-1)
    return solution


def solve_upper(lower: Tensor, right: Tensor) -> Tensor:
    """L^{-T} B (d, n, R) of lower L (d, d, R) and B (d, n, R); entries of L above the diagonal are not read."""
    solution = right.clone()
    for j in reversed(range(len(lower))):
        solution[j] /= lower[j, j]
        solution[:j].addcmul_(lower[j, :j].unsqueeze(1), solution[j].unsqueeze(0), value=-1)
    return solution


def log_determinant(lower: Tensor) -> Tensor:
    """(R,) ln det (L L^T)."""
    return 2.0 * lower.diagonal(dim1=0, dim2=1).log().sum(-1)
