"""The convex sets that online learners play in, as values: what they are, and how to project onto them.

    Ball  Box  Simplex  L1Ball  CappedSimplex  Unconstrained

All tensors are float64 with the coordinates on the last axis, (..., d). Each set projects in three norms: Euclidean,
diagonal (`project_weighted`) and full matrix (`project_matrix`).
"""

from __future__ import annotations

import dataclasses
import math
from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

from bandits.online_learning import matrix_projections as matrices
from bandits.online_learning import projections as onto
from orbs import reject

__all__ = ["DOMAINS", "Ball", "Box", "CappedSimplex", "Domain", "L1Ball", "Simplex", "Unconstrained"]

ROUNDING = 1e-12  # cap * dimension may miss total by rounding (49 * (1/49) < 1)


@dataclasses.dataclass(frozen=True)
class Domain(ABC):
    """A closed convex set in R^dimension.

    Raises:
        ValueError: a dimension below 1, or parameters that describe no set.
    """

    dimension: int
    name: ClassVar[str]

    def __post_init__(self) -> None:
        if isinstance(self.dimension, bool) or not isinstance(self.dimension, int) or self.dimension < 1:
            reject(f"{self.name}.dimension", "a whole number of at least 1", repr(self.dimension), "give the length")

    def _positive(self, field: str) -> None:
        value = getattr(self, field)
        if not (math.isfinite(value) and value > 0):
            reject(f"{self.name}.{field}", "a positive number", repr(value), "give its size")

    @abstractmethod
    def project(self, v: Tensor) -> Tensor:
        """(..., d): argmin over the set of ||x - v||; a point of the set stays as it is."""

    @abstractmethod
    def project_weighted(self, v: Tensor, weights: Tensor) -> Tensor:
        """(..., d): argmin over the set of sum_i weights_i (x_i - v_i)^2; weights (..., d) > 0."""

    @abstractmethod
    def project_matrix(self, v: Tensor, matrix: Tensor) -> Tensor:
        """(..., d): argmin over the set of (x - v)^T matrix (x - v); matrix (..., d, d) symmetric positive definite."""

    @abstractmethod
    def contains(self, x: Tensor, tolerance: float = 1e-9) -> Tensor:
        """(...,) bool: no constraint is missed by more than `tolerance`; False for NaN."""

    @property
    @abstractmethod
    def diameter(self) -> float:
        """The largest Euclidean distance between two points, math.inf where there is none."""

    @property
    @abstractmethod
    def infinity_diameter(self) -> float:
        """The largest difference between two points in one coordinate, math.inf where there is none."""

    def centre(self, device: torch.device | str = "cpu") -> Tensor:
        """(d,): the projection of 0, for the simplices the uniform point."""
        return self.project(torch.zeros(self.dimension, dtype=torch.float64, device=device))


@dataclasses.dataclass(frozen=True)
class _NormBall(Domain):
    """Points of at most `radius` in a norm in which unit vectors have length 1."""

    radius: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._positive("radius")

    @property
    def diameter(self) -> float:
        return 2.0 * self.radius

    @property
    def infinity_diameter(self) -> float:
        return 2.0 * self.radius


@dataclasses.dataclass(frozen=True)
class Ball(_NormBall):
    """||x|| <= radius."""

    name: ClassVar[str] = "ball"

    def project(self, v: Tensor) -> Tensor:
        return onto.onto_ball(v, self.radius)

    def project_weighted(self, v: Tensor, weights: Tensor) -> Tensor:
        return onto.onto_ball_weighted(v, weights, self.radius)

    def project_matrix(self, v: Tensor, matrix: Tensor) -> Tensor:
        return matrices.onto_ball_matrix(v, matrix, self.radius)

    def contains(self, x: Tensor, tolerance: float = 1e-9) -> Tensor:
        return (x * x).sum(-1).sqrt() <= self.radius + tolerance


@dataclasses.dataclass(frozen=True)
class L1Ball(_NormBall):
    """sum |x_i| <= radius."""

    name: ClassVar[str] = "l1_ball"

    def project(self, v: Tensor) -> Tensor:
        return onto.onto_l1_ball(v, self.radius)

    def project_weighted(self, v: Tensor, weights: Tensor) -> Tensor:
        return onto.onto_l1_ball_weighted(v, weights, self.radius)

    def project_matrix(self, v: Tensor, matrix: Tensor) -> Tensor:
        return matrices.onto_l1_ball_matrix(v, matrix, self.radius)

    def contains(self, x: Tensor, tolerance: float = 1e-9) -> Tensor:
        return x.abs().sum(-1) <= self.radius + tolerance


@dataclasses.dataclass(frozen=True)
class Box(Domain):
    """low <= x_i <= high."""

    name: ClassVar[str] = "box"
    low: float = -1.0
    high: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            reject("box.low", "finite bounds, low below high", f"{self.low} and {self.high}", "mend the bounds")

    def project(self, v: Tensor) -> Tensor:
        return onto.onto_box(v, self.low, self.high)

    def project_weighted(self, v: Tensor, weights: Tensor) -> Tensor:
        return onto.onto_box(v, self.low, self.high)

    def project_matrix(self, v: Tensor, matrix: Tensor) -> Tensor:
        return matrices.onto_box_matrix(v, matrix, self.low, self.high)

    def contains(self, x: Tensor, tolerance: float = 1e-9) -> Tensor:
        return (x.amin(-1) >= self.low - tolerance) & (x.amax(-1) <= self.high + tolerance)

    @property
    def diameter(self) -> float:
        return math.sqrt(self.dimension) * (self.high - self.low)

    @property
    def infinity_diameter(self) -> float:
        return self.high - self.low


@dataclasses.dataclass(frozen=True)
class Simplex(Domain):
    """x_i >= 0, sum x_i = total."""

    name: ClassVar[str] = "simplex"
    total: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._positive("total")

    def project(self, v: Tensor) -> Tensor:
        return onto.onto_simplex(v, self.total)

    def project_weighted(self, v: Tensor, weights: Tensor) -> Tensor:
        return onto.onto_simplex_weighted(v, weights, self.total)

    def project_matrix(self, v: Tensor, matrix: Tensor) -> Tensor:
        return matrices.onto_simplex_matrix(v, matrix, self.total)

    def contains(self, x: Tensor, tolerance: float = 1e-9) -> Tensor:
        return (x.amin(-1) >= -tolerance) & ((x.sum(-1) - self.total).abs() <= tolerance)

    def centre(self, device: torch.device | str = "cpu") -> Tensor:
        share = self.total / self.dimension
        return torch.full((self.dimension,), share, dtype=torch.float64, device=device)

    @property
    def diameter(self) -> float:
        return math.sqrt(2.0) * self.total if self.dimension > 1 else 0.0

    @property
    def infinity_diameter(self) -> float:
        return self.total if self.dimension > 1 else 0.0


@dataclasses.dataclass(frozen=True)
class CappedSimplex(Domain):
    """floor <= x_i <= cap, sum x_i = total (for instance: k of d experts, cap 1, total k)."""

    name: ClassVar[str] = "capped_simplex"
    cap: float
    total: float = 1.0
    floor: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        for field in ("cap", "total", "floor"):
            if not math.isfinite(getattr(self, field)):
                reject(f"capped_simplex.{field}", "a finite number", repr(getattr(self, field)), "give one")
        if not self.floor < self.cap:
            reject("capped_simplex.floor", f"below cap = {self.cap}", self.floor, "lower it")
        slack = ROUNDING * self.dimension * max(abs(self.cap), abs(self.floor))
        if self.dimension * self.cap < self.total - slack:
            wanted = f"at least total/dimension = {self.total / self.dimension:g}"
            reject("capped_simplex.cap", wanted, self.cap, "raise the cap, no point fits below it")
        if self.dimension * self.floor > self.total + slack:
            wanted = f"at most total/dimension = {self.total / self.dimension:g}"
            reject("capped_simplex.floor", wanted, self.floor, "lower the floor, no point fits above it")

    def project(self, v: Tensor) -> Tensor:
        return onto.onto_capped_simplex(v, self.cap, self.total, self.floor)

    def project_weighted(self, v: Tensor, weights: Tensor) -> Tensor:
        return onto.onto_capped_simplex_weighted(v, weights, self.cap, self.total, self.floor)

    def project_matrix(self, v: Tensor, matrix: Tensor) -> Tensor:
        return matrices.onto_capped_simplex_matrix(v, matrix, self.cap, self.total, self.floor)

    def contains(self, x: Tensor, tolerance: float = 1e-9) -> Tensor:
        within = (x.amin(-1) >= self.floor - tolerance) & (x.amax(-1) <= self.cap + tolerance)
        return within & ((x.sum(-1) - self.total).abs() <= tolerance)

    def centre(self, device: torch.device | str = "cpu") -> Tensor:
        share = self.total / self.dimension
        return torch.full((self.dimension,), share, dtype=torch.float64, device=device)

    @property
    def diameter(self) -> float:
        # The farthest points are a vertex and its mirror image: caps first, one part, floors, against the reverse.
        left, vertex = self.total - self.dimension * self.floor, []
        for _ in range(self.dimension):
            vertex.append(min(max(left, 0.0), self.cap - self.floor))
            left -= vertex[-1]
        return math.dist(vertex, vertex[::-1])

    @property
    def infinity_diameter(self) -> float:
        others = self.dimension - 1
        high = min(self.cap, self.total - others * self.floor)
        return max(0.0, high - max(self.floor, self.total - others * self.cap))


@dataclasses.dataclass(frozen=True)
class Unconstrained(Domain):
    """All of R^dimension."""

    name: ClassVar[str] = "unconstrained"

    def project(self, v: Tensor) -> Tensor:
        return v

    def project_weighted(self, v: Tensor, weights: Tensor) -> Tensor:
        return v

    def project_matrix(self, v: Tensor, matrix: Tensor) -> Tensor:
        return v

    def contains(self, x: Tensor, tolerance: float = 1e-9) -> Tensor:
        return x.isfinite().all(-1)

    @property
    def diameter(self) -> float:
        return math.inf

    @property
    def infinity_diameter(self) -> float:
        return math.inf


DOMAINS: dict[str, type[Domain]] = {
    kind.name: kind for kind in (Ball, Box, Simplex, L1Ball, CappedSimplex, Unconstrained)
}
