"""Projections in a full-matrix norm: argmin over the set of (x - v)^T H (x - v), batched over rows.

Ball: eigenvectors and the secular equation. Box, simplex, capped simplex and L1 ball are quadratic programs. What
remains of the residual ||x - P(x - H(x - v)/||H||)|| is below 1e-10, relatively.

A row inside the set keeps its bits. On the CPU only rows outside are worked on, elsewhere all rows (no waiting).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from bandits.online_learning import projections as onto
from bandits.online_learning import quadratic_programs as programs

__all__ = [
    "on_outside_rows",
    "onto_ball_matrix",
    "onto_ball_spectral",
    "onto_box_matrix",
    "onto_capped_simplex_matrix",
    "onto_l1_ball_matrix",
    "onto_simplex_matrix",
]

Solver = Callable[[Tensor, Tensor], Tensor]


def on_outside_rows(v: Tensor, matrix: Tensor, nearest: Tensor, size: float, solve: Solver) -> Tensor:
    """`solve(v, matrix)` on the rows that their Euclidean projection `nearest` moves; the others stay as they are.

    `solve` sees flat rows, (n, d) and (n, d, d); `size` is the length that rounding is judged against.
    """
    outside = (v - nearest).abs().amax(-1) > onto.INSIDE * size
    rows, flags = v.reshape(-1, v.shape[-1]), outside.reshape(-1)
    shape = matrix.shape[-2:]
    matrices = matrix.expand(*v.shape[:-1], *shape).reshape(-1, *shape)
    if v.device.type != "cpu":
        return torch.where(flags[:, None], solve(rows, matrices), rows).reshape(v.shape)
    if not flags.any():
        return v
    chosen = flags.nonzero().squeeze(-1)
    result = torch.empty_like(v).copy_(v)  # keeps the memory layout
    result[outside] = solve(rows[chosen], matrices[chosen])
    return result


def onto_ball_spectral(v: Tensor, vectors: Tensor, values: Tensor, radius: float) -> Tensor:
    """As `onto_ball_matrix` for H = vectors diag(values) vectors^T; v, values (..., d), vectors (..., d, d)."""
    turned = (vectors.mT @ v.unsqueeze(-1)).squeeze(-1)
    turned = onto.onto_ball_weighted(turned, values, radius)
    return onto.onto_ball((vectors @ turned.unsqueeze(-1)).squeeze(-1), radius)


def onto_ball_matrix(v: Tensor, matrix: Tensor, radius: float = 1.0) -> Tensor:
    """(..., d): onto ||x|| <= radius, in the eigenbasis of the matrix, so that H + mu I is never inverted."""

    def solve(rows: Tensor, matrices: Tensor) -> Tensor:
        values, vectors = torch.linalg.eigh((matrices + matrices.mT) / 2)
        return onto_ball_spectral(rows, vectors, values, radius)

    return on_outside_rows(v, matrix, onto.onto_ball(v, radius), radius, solve)


def onto_box_matrix(v: Tensor, matrix: Tensor, low: float, high: float) -> Tensor:
    """(..., d): onto low <= x_i <= high."""
    width, face = high - low, programs.Face(1.0, None)

    def solve(rows: Tensor, matrices: Tensor) -> Tensor:
        return low + width * programs.nearest(face, matrices, (rows - low) / width)

    return on_outside_rows(v, matrix, onto.onto_box(v, low, high), max(abs(low), abs(high)), solve).clamp(low, high)


def onto_simplex_matrix(v: Tensor, matrix: Tensor, total: float = 1.0) -> Tensor:
    """(..., d): onto x_i >= 0, sum x_i = total."""
    face = programs.Face(math.inf, 1.0)

    def solve(rows: Tensor, matrices: Tensor) -> Tensor:
        return total * programs.nearest(face, matrices, rows / total)

    return on_outside_rows(v, matrix, onto.onto_simplex(v, total), total, solve)


def onto_capped_simplex_matrix(v: Tensor, matrix: Tensor, cap: float, total: float = 1.0, floor: float = 0.0) -> Tensor:
    """(..., d): onto floor <= x_i <= cap, sum x_i = total."""
    width, dimension = cap - floor, v.shape[-1]
    share = (total / dimension - floor) / width
    nearest = onto.onto_capped_simplex(v, cap, total, floor)
    if min(share, 1.0 - share) <= 1e-12:  # the set is a single point, without an interior to move in
        return nearest
    face = programs.Face(1.0, dimension * share)

    def solve(rows: Tensor, matrices: Tensor) -> Tensor:
        return floor + width * programs.nearest(face, matrices, (rows - floor) / width)

    return on_outside_rows(v, matrix, nearest, max(abs(cap), abs(floor)), solve)


def onto_l1_ball_matrix(v: Tensor, matrix: Tensor, radius: float = 1.0) -> Tensor:
    """(..., d): onto sum |x_i| <= radius: a simplex once the signs are known, which 2d variables find (x = p - n)."""
    face = programs.Face(math.inf, 1.0)

    def ball(x: Tensor) -> Tensor:
        return onto.onto_l1_ball(x, 1.0)

    def reflected(
        signs: Tensor, start: Tensor, matrices: Tensor, linear: Tensor, level: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        turned = signs.unsqueeze(-1) * matrices * signs.unsqueeze(-2)
        x = ball(signs * programs.active_set(face, turned, signs * linear, start, level)[0])
        return x, programs.residual(x, matrices, linear, ball)

    def solve(rows: Tensor, matrices: Tensor) -> Tensor:
        matrices, linear = programs.scaled(matrices, rows / radius)
        guess = onto.onto_l1_ball_weighted(rows / radius, matrices.diagonal(dim1=-2, dim2=-1))
        x, score = reflected(torch.where(guess == 0, linear.sign(), guess.sign()), guess.abs(), matrices, linear)

        def harder(matrices: Tensor, linear: Tensor) -> tuple[Tensor, Tensor]:
            doubled = torch.cat((torch.cat((matrices, -matrices), -1), torch.cat((-matrices, matrices), -1)), -2)
            halves, level = programs.interior(face, doubled, torch.cat((linear, -linear), -1))
            positive, negative = halves.chunk(2, dim=-1)
            signs = torch.where(positive >= negative, 1.0, -1.0).to(linear.dtype)
            return reflected(signs, (positive - negative).abs(), matrices, linear, level)

        return radius * programs.where_unfinished(x, score, matrices, linear, harder)

    return on_outside_rows(v, matrix, onto.onto_l1_ball(v, radius), radius, solve)
