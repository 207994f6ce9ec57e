"""Batched strictly convex quadratic programs over a box, a simplex or a capped simplex, to rounding.

A primal-dual active-set iteration (Hintermueller, Ito, Kunisch 2002) is exact where it settles, which it mostly does
within a few steps; where it does not, Mehrotra's interior point method (1992) finds the face and the active-set
iteration finishes from there. All programs are scaled: see `scaled`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import torch
from torch import Tensor

from bandits.online_learning import projections as onto

__all__ = ["Face", "active_set", "interior", "nearest", "residual", "scaled", "where_unfinished"]

INTERIOR_STEPS = 40  # 12 to 25 are needed
ACTIVE_SET_STEPS = 10  # from a guess; a third of it suffices from an interior point
ACCEPT = 1e-13  # residual of the scaled program at which a row is finished


@dataclasses.dataclass(frozen=True)
class Face:
    """{0 <= x_i <= high} (high may be math.inf), where `total` is given also sum x_i = total."""

    high: float
    total: float | None

    def project(self, x: Tensor) -> Tensor:
        if self.total is None:
            return x.clamp(0.0, self.high)
        if math.isinf(self.high):
            return onto.onto_simplex(x, self.total)
        return onto.onto_capped_simplex(x, self.high, self.total)

    def project_weighted(self, x: Tensor, weights: Tensor) -> Tensor:
        if self.total is None:
            return x.clamp(0.0, self.high)
        if math.isinf(self.high):
            return onto.onto_simplex_weighted(x, weights, self.total)
        return onto.onto_capped_simplex_weighted(x, weights, self.high, self.total)


def times(matrix: Tensor, x: Tensor) -> Tensor:
    return (matrix @ x.unsqueeze(-1)).squeeze(-1)


def scaled(matrix: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """H and H v, divided by their largest entry, so that all tolerances are relative."""
    matrix = (matrix + matrix.mT) / 2
    linear = times(matrix, v)
    scale = torch.maximum(matrix.abs().amax((-2, -1)), linear.abs().amax(-1)).unsqueeze(-1)
    return matrix / scale.unsqueeze(-1), linear / scale


def residual(x: Tensor, matrix: Tensor, linear: Tensor, project: Callable[[Tensor], Tensor]) -> Tensor:
    """(n,): how far a projected gradient step moves x: 0 at the solution and nowhere else."""
    return (x - project(x - (times(matrix, x) - linear))).abs().amax(-1)


def better(
    best: Tensor, score: Tensor, x: Tensor, matrix: Tensor, linear: Tensor, project: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor]:
    """The better of two feasible points, row by row, with its residual; a NaN is never better."""
    new = residual(x, matrix, linear, project)
    wins = new < score
    return torch.where(wins.unsqueeze(-1), x, best), torch.where(wins, new, score)


def finished(score: Tensor) -> bool:
    return score.device.type == "cpu" and bool((score <= ACCEPT).all())


def nearest(face: Face, matrix: Tensor, v: Tensor) -> Tensor:
    """argmin over `face` of (x - v)^T matrix (x - v); (n, d), (n, d, d)."""
    matrix, linear = scaled(matrix, v)
    start = face.project_weighted(v, matrix.diagonal(dim1=-2, dim2=-1))
    best, score = active_set(face, matrix, linear, start)

    def harder(matrix: Tensor, linear: Tensor) -> tuple[Tensor, Tensor]:
        return active_set(face, matrix, linear, *interior(face, matrix, linear))

    return where_unfinished(best, score, matrix, linear, harder)


def where_unfinished(
    x: Tensor, score: Tensor, matrix: Tensor, linear: Tensor, harder: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
) -> Tensor:
    """x, or what `harder(matrix, linear)` finds on the rows whose residual is too large yet, where that is better."""
    rows = torch.arange(len(score), device=score.device)
    if score.device.type == "cpu":
        rows = rows[~(score <= ACCEPT)]
        if not len(rows):
            return x
    other, new = harder(matrix[rows], linear[rows])
    x[rows] = torch.where((new < score[rows]).unsqueeze(-1), other, x[rows])
    return x


def active_set(
    face: Face, matrix: Tensor, linear: Tensor, x: Tensor, level: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The best point of a primal-dual active-set iteration from x, and its residual (n,).

    `level` (n, 1) is the multiplier of sum x = total, guessed from the coordinates between their bounds if not given.

    Each step fixes the coordinates that multiplier and distance say are at a bound, and solves for the others. It
    solves for the change of x, so that a later step also refines an earlier one.
    """
    best = face.project(x)
    score = residual(best, matrix, linear, face.project)
    if level is None:
        free = (x > 0) & (x < face.high)
        slope = (times(matrix, x) - linear) * free
        level = slope.sum(-1, keepdim=True) / free.sum(-1, keepdim=True).clamp(min=1)
        level = level * (face.total is not None)
    for _ in range(ACTIVE_SET_STEPS):
        multiplier = times(matrix, x) - linear - level
        at_low, at_high = x < multiplier, x - face.high > multiplier
        free = ~(at_low | at_high)
        fixed = torch.where(at_low, -x, torch.where(at_high, face.high - x, 0.0))  # the change of those at a bound
        keep = free.to(x.dtype)
        reduced = matrix * keep.unsqueeze(-1) * keep.unsqueeze(-2) + torch.diag_embed(1.0 - keep)
        factor, _ = torch.linalg.cholesky_ex(reduced)
        target = -(multiplier + times(matrix, fixed)) * keep
        solved = torch.cholesky_solve(torch.stack((target, keep), dim=-1), factor)
        change = fixed + solved[..., 0]
        if face.total is not None:
            missing = face.total - x.sum(-1, keepdim=True) - change.sum(-1, keepdim=True)
            reach = solved[..., 1].sum(-1, keepdim=True)
            rise = torch.where(reach > 0, missing / reach, 0.0)
            level, change = level + rise, change + rise * solved[..., 1]
        x = torch.where(at_low, 0.0, torch.where(at_high, face.high, x + change))
        best, score = better(best, score, face.project(x), matrix, linear, face.project)
        if finished(score):
            break
    return best, score


def interior(face: Face, matrix: Tensor, linear: Tensor) -> tuple[Tensor, Tensor]:
    """Mehrotra's predictor-corrector for 1/2 x^T H x - linear^T x over `face`: x (n, d), and the sum's multiplier.

    low_gap = x and high_gap = high - x are kept as variables of their own: a difference would lose their digits.
    A finished row is frozen, so what other rows need changes none of its bits.
    """
    dimension, capped, tied = linear.shape[-1], math.isfinite(face.high), face.total is not None
    middle = face.high / 2 if face.total is None else face.total / dimension
    x = torch.full_like(linear, middle)
    high_gap = torch.full_like(linear, face.high - middle if capped else 1.0)
    low_pull = torch.ones_like(linear)
    high_pull = torch.ones_like(linear) if capped else torch.zeros_like(linear)
    level = torch.zeros_like(linear[:, :1])
    running = torch.ones_like(level, dtype=torch.bool)
    for _ in range(INTERIOR_STEPS):
        residual = times(matrix, x) - linear - level - low_pull + high_pull
        gap = ((x * low_pull).sum(-1, keepdim=True) + (high_gap * high_pull).sum(-1, keepdim=True)) / dimension
        running = running & ((gap > 1e-15) | (residual.abs().amax(-1, keepdim=True) > 1e-14))
        if x.device.type == "cpu" and not running.any():
            break
        factor, _ = torch.linalg.cholesky_ex(matrix + torch.diag_embed(low_pull / x + high_pull / high_gap))
        unit = torch.cholesky_solve(torch.ones_like(linear).unsqueeze(-1), factor).squeeze(-1)

        def direction(low_aim: Tensor, high_aim: Tensor) -> tuple[Tensor, ...]:
            """The Newton step towards x low_pull = low_aim and high_gap high_pull = high_aim (residuals of both)."""
            right = low_aim / x - high_aim / high_gap - residual  # noqa: B023 (used in this round alone)
            step = torch.cholesky_solve(right.unsqueeze(-1), factor).squeeze(-1)  # noqa: B023
            rise = torch.zeros_like(level)  # noqa: B023
            if tied:
                missing = (face.total or 0.0) - x.sum(-1, keepdim=True)  # noqa: B023
                rise = (missing - step.sum(-1, keepdim=True)) / unit.sum(-1, keepdim=True)  # noqa: B023
                step = step + rise * unit  # noqa: B023
            return step, rise, (low_aim - low_pull * step) / x, (high_aim + high_pull * step) / high_gap  # noqa: B023

        step, _, low_step, high_step = direction(-x * low_pull, -high_gap * high_pull)
        length = _length((x, step), (low_pull, low_step), (high_gap, -step), (high_pull, high_step), capped=capped)
        ahead = ((x + length * step) * (low_pull + length * low_step)).sum(-1, keepdim=True)
        ahead = ahead + ((high_gap - length * step) * (high_pull + length * high_step)).sum(-1, keepdim=True)
        aim = gap * (ahead / dimension / gap).clamp(0.0, 1.0) ** 3
        step, rise, low_step, high_step = direction(
            aim - x * low_pull - step * low_step,
            (aim - high_gap * high_pull + step * high_step) if capped else -high_gap * high_pull,
        )
        length = _length((x, step), (low_pull, low_step), (high_gap, -step), (high_pull, high_step), capped=capped)
        length = length * 0.995
        moves = (x + length * step, low_pull + length * low_step, level + length * rise)
        good = running & torch.cat(moves, -1).isfinite().all(-1, keepdim=True)  # a breakdown ends at the last point
        x, low_pull = torch.where(good, moves[0], x), torch.where(good, moves[1], low_pull)
        level, running = torch.where(good, moves[2], level), good
        if capped:
            high_gap = torch.where(good, high_gap - length * step, high_gap)
            high_pull = torch.where(good, high_pull + length * high_step, high_pull)
    return x, level


def _length(*pairs: tuple[Tensor, Tensor], capped: bool) -> Tensor:
    """(n, 1): the longest step of at most 1 that keeps the values of the pairs (value, change) non-negative."""
    ratios = [torch.where(change < 0, -value / change, math.inf) for value, change in pairs[: 4 if capped else 2]]
    return torch.stack(ratios).amin(0).amin(-1, keepdim=True).clamp(max=1.0)
