"""Regularisers that the gradients shape: AdaGrad's diagonal and full-matrix norms, and online Newton's quadratic.

Duchi, Hazan, Singer, JMLR 12 (2011); Hazan, Agarwal, Kale, Machine Learning 69 (2007). All are psi = 1/2 x^T H x with
H gathered per run, so points are (R, d) here. Matrices (R, d, d) are kept with the run axis last in memory.

`include_current` is for mirror descent: its correction step of a round then uses the H that holds the round's own
gradient (AdaGrad, online Newton); otherwise the H of before the round (optimistic methods).
"""

from __future__ import annotations

import dataclasses
import math
from typing import ClassVar

import torch
from torch import Tensor

from bandits.online_learning.domains import Ball, Domain
from bandits.online_learning.matrix_projections import on_outside_rows, onto_ball_spectral
from bandits.online_learning.regulariser_base import Rate, Regulariser, State, column
from orbs import reject

__all__ = ["Diagonal", "MatrixAdaptive", "Quadratic"]

LIGHTEST = 1e-6  # of the heaviest: weight, in a projection, of a direction that no gradient has shown
REFRESH = 1000  # updates of an inverse between two fresh ones


def _rows_last(dimension: int, runs: int, device: torch.device | str) -> Tensor:
    """(runs, dimension) zeros, run axis last in memory."""
    return torch.zeros(dimension, runs, dtype=torch.float64, device=device).T


def _matrices_last(matrix: Tensor) -> Tensor:
    """The same (R, d, d) with the run axis last in memory."""
    return matrix.permute(1, 2, 0).contiguous().permute(2, 0, 1)


def _times(matrix: Tensor, x: Tensor) -> Tensor:
    """(R, d): matrix @ x column by column, which is fast where the run axis is last in memory; bmm is not."""
    result = matrix[..., 0] * x[..., :1]
    for j in range(1, x.shape[-1]):
        result.addcmul_(matrix[..., j], x[..., j : j + 1])
    return result


def _add_square(matrix: Tensor, x: Tensor, scale: float | Tensor) -> None:
    """matrix += scale x x^T, in place; scale a number or (R, 1)."""
    matrix.addcmul_((x * scale).unsqueeze(-1), x.unsqueeze(-2))


def _nowhere_zero(weights: Tensor) -> Tensor:
    """Weights (..., d) with the zeros (directions without any gradient) made light, so that projections are unique."""
    heaviest = weights.amax(-1, keepdim=True)
    lightest = torch.where(heaviest > 0, LIGHTEST * heaviest, 1.0)
    return torch.where(weights > 0, weights, lightest)


def _at_least_zero(name: str, **values: float) -> None:
    for field, value in values.items():
        if not (math.isfinite(value) and value >= 0):
            reject(f"{name}.{field}", "a finite number of at least 0", value, "0 leaves it out")


@dataclasses.dataclass(frozen=True)
class Diagonal(Regulariser):
    """psi = 1/2 sum h_i x_i^2, h_i = epsilon + sqrt(offset + sum of g_i^2): AdaGrad.

    A coordinate without any gradient has h_i = 0 where epsilon = offset = 0; it stays where it is (0/0 = 0).
    """

    name: ClassVar[str] = "diagonal"
    adaptive: ClassVar[bool] = True
    epsilon: float = 0.0
    offset: float = 0.0
    include_current: bool = False

    def __post_init__(self) -> None:
        _at_least_zero("diagonal", epsilon=self.epsilon, offset=self.offset)

    def start(self, domain: Domain, runs: int, device: torch.device | str = "cpu") -> State:
        """{"squares": (R, d)}, sums of squared gradients."""
        return {"squares": _rows_last(domain.dimension, runs, device)}

    def update(self, state: State, gradient: Tensor) -> None:
        state["squares"].addcmul_(gradient, gradient)

    def weights(self, state: State) -> Tensor:
        """(R, d): h."""
        return (state["squares"] + self.offset).sqrt_().add_(self.epsilon)

    def _step(self, start: Tensor | float, gradient: Tensor, eta: Rate, domain: Domain, state: State) -> Tensor:
        weights = self.weights(state)
        step = gradient * column(eta) / weights
        if self.epsilon == 0.0 and self.offset == 0.0:
            step = torch.where((weights == 0) & (gradient == 0), 0.0, step)
            weights = _nowhere_zero(weights)
        return domain.project_weighted(start - step, weights)

    def minimise(self, linear: Tensor, eta: Rate, domain: Domain, state: State, rounds: int = 0) -> Tensor:
        return self._step(0.0, linear, eta, domain, state)

    def move(self, mirror: Tensor, gradient: Tensor, eta: Rate, domain: Domain, state: State) -> Tensor:
        return self._step(mirror, gradient, eta, domain, state)

    def value(self, x: Tensor, state: State) -> Tensor:
        return (self.weights(state) * x * x).sum(-1) / 2

    def divergence(self, x: Tensor, y: Tensor, state: State) -> Tensor:
        return self.value(x - y, state)


@dataclasses.dataclass(frozen=True)
class MatrixAdaptive(Regulariser):
    """psi = 1/2 x^T H x, H = epsilon I + (sum of g g^T)^(1/2): full-matrix AdaGrad, one eigendecomposition a round.

    Directions without any gradient are left alone where epsilon = 0, as in `Diagonal`.
    """

    name: ClassVar[str] = "matrix_adaptive"
    adaptive: ClassVar[bool] = True
    epsilon: float = 0.0
    include_current: bool = False

    def __post_init__(self) -> None:
        _at_least_zero("matrix_adaptive", epsilon=self.epsilon)

    def start(self, domain: Domain, runs: int, device: torch.device | str = "cpu") -> State:
        """{"squares", "vectors": (R, d, d), "roots": (R, d)}: sum of g g^T, its eigenvectors, roots of eigenvalues."""
        size = domain.dimension
        zeros = torch.zeros(runs, size, size, dtype=torch.float64, device=device)
        vectors = torch.eye(size, dtype=torch.float64, device=device).expand(runs, size, size)
        roots = _rows_last(size, runs, device)
        return {"squares": _matrices_last(zeros), "vectors": _matrices_last(vectors), "roots": roots}

    def update(self, state: State, gradient: Tensor) -> None:
        squares = state["squares"]
        _add_square(squares, gradient, 1.0)
        values, vectors = torch.linalg.eigh((squares + squares.mT) / 2)
        # What rounding leaves in directions without any gradient is not an eigenvalue.
        rounding = values.amax(-1, keepdim=True) * (4e-16 * values.shape[-1])
        state["roots"].copy_(torch.where(values > rounding, values, 0.0).sqrt_())
        state["vectors"].copy_(vectors)

    def _step(self, start: Tensor | float, gradient: Tensor, eta: Rate, domain: Domain, state: State) -> Tensor:
        vectors, weights = state["vectors"], state["roots"] + self.epsilon
        step = _times(vectors.mT, gradient * column(eta)) / weights
        if self.epsilon == 0.0:
            step = torch.where(weights == 0, 0.0, step)
            weights = _nowhere_zero(weights)
        aim = start - _times(vectors, step)
        if isinstance(domain, Ball):
            radius = domain.radius

            def turned(rows: Tensor, parts: Tensor) -> Tensor:
                return onto_ball_spectral(rows, parts[..., :-1], parts[..., -1], radius)

            parts = torch.cat((vectors, weights.unsqueeze(-1)), dim=-1)
            return on_outside_rows(aim, parts, domain.project(aim), radius, turned)
        return domain.project_matrix(aim, (vectors * weights.unsqueeze(-2)) @ vectors.mT)

    def minimise(self, linear: Tensor, eta: Rate, domain: Domain, state: State, rounds: int = 0) -> Tensor:
        return self._step(0.0, linear, eta, domain, state)

    def move(self, mirror: Tensor, gradient: Tensor, eta: Rate, domain: Domain, state: State) -> Tensor:
        return self._step(mirror, gradient, eta, domain, state)

    def value(self, x: Tensor, state: State) -> Tensor:
        turned = _times(state["vectors"].mT, x)
        return ((state["roots"] + self.epsilon) * turned * turned).sum(-1) / 2

    def divergence(self, x: Tensor, y: Tensor, state: State) -> Tensor:
        return self.value(x - y, state)


@dataclasses.dataclass(frozen=True)
class Quadratic(Regulariser):
    """psi = 1/2 x^T H x, H = initial I + growth * sum of g g^T: online Newton step.

    H and its inverse are both kept; the inverse by Sherman and Morrison's formula, afresh from a Cholesky factor
    every 1000 updates.
    """

    name: ClassVar[str] = "quadratic"
    adaptive: ClassVar[bool] = True
    initial: float = 1.0
    growth: float = 1.0
    include_current: bool = False

    def __post_init__(self) -> None:
        if not (math.isfinite(self.initial) and self.initial > 0):
            reject("quadratic.initial", "a positive number", self.initial, "H has to be invertible from the start")
        _at_least_zero("quadratic", growth=self.growth)

    def start(self, domain: Domain, runs: int, device: torch.device | str = "cpu") -> State:
        """{"matrix", "inverse": (R, d, d), "updates": ()}; the count lies on the CPU, where reading it is free."""
        unit = torch.eye(domain.dimension, dtype=torch.float64, device=device)
        unit = unit.expand(runs, domain.dimension, domain.dimension)
        return {
            "matrix": _matrices_last(unit * self.initial),
            "inverse": _matrices_last(unit / self.initial),
            "updates": torch.zeros((), dtype=torch.int64),
        }

    def update(self, state: State, gradient: Tensor) -> None:
        matrix, inverse = state["matrix"], state["inverse"]
        _add_square(matrix, gradient, self.growth)
        state["updates"] += 1
        if int(state["updates"]) % REFRESH == 0:
            inverse.copy_(torch.cholesky_inverse(torch.linalg.cholesky_ex(matrix)[0]))
            return
        along = _times(inverse, gradient)
        shrink = -self.growth / (1.0 + self.growth * (gradient * along).sum(-1, keepdim=True))
        _add_square(inverse, along, shrink)

    def minimise(self, linear: Tensor, eta: Rate, domain: Domain, state: State, rounds: int = 0) -> Tensor:
        aim = _times(state["inverse"], linear * column(eta)).neg_()
        return domain.project_matrix(aim, state["matrix"])

    def move(self, mirror: Tensor, gradient: Tensor, eta: Rate, domain: Domain, state: State) -> Tensor:
        aim = mirror - _times(state["inverse"], gradient * column(eta))
        return domain.project_matrix(aim, state["matrix"])

    def value(self, x: Tensor, state: State) -> Tensor:
        return (x * _times(state["matrix"], x)).sum(-1) / 2

    def divergence(self, x: Tensor, y: Tensor, state: State) -> Tensor:
        return self.value(x - y, state)
