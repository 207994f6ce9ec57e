"""Losses of the form phi(a.x, b): their derivatives, and their sums over past rounds at any point.

Absolute, Huber, logistic and logarithmic losses have no running sums that tell the best point in hindsight. `Hindsight`
regenerates the rounds from their counters, block by block, for whoever minimises.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.nn.functional import softplus

__all__ = ["Hindsight", "Link", "absolute", "hinge", "huber", "logarithmic", "logistic", "squared"]

KEPT_NUMBERS = 2**25  # up to so many numbers (256 MiB) stay in memory between two evaluations


@dataclasses.dataclass(frozen=True)
class Link:
    """phi(p, b) with its first two derivatives in p, elementwise in float64; p = a.x, b the target.

    At a kink the slope is 0 (hinge: of the flat side), the curvature 0.
    """

    name: str
    value: Callable[[Tensor, Tensor], Tensor]
    slope: Callable[[Tensor, Tensor], Tensor]
    curvature: Callable[[Tensor, Tensor], Tensor]


def squared() -> Link:
    """(p - b)^2 / 2."""
    return Link("squared", lambda p, b: 0.5 * (p - b) ** 2, lambda p, b: p - b, lambda p, b: torch.ones_like(p))


def absolute() -> Link:
    """|p - b|."""
    return Link(
        "absolute", lambda p, b: (p - b).abs(), lambda p, b: (p - b).sign(), lambda p, b: torch.zeros_like(p)
    )  # fmt: skip


def huber(threshold: float) -> Link:
    """(p - b)^2 / 2 up to the threshold, from there on linear with that slope."""

    def value(p: Tensor, b: Tensor) -> Tensor:
        r = (p - b).abs()
        near = r.clamp_max(threshold)
        return near * (r - 0.5 * near)

    def slope(p: Tensor, b: Tensor) -> Tensor:
        return (p - b).clamp(-threshold, threshold)

    return Link("huber", value, slope, lambda p, b: ((p - b).abs() <= threshold).double())


def logistic() -> Link:
    """ln(1 + exp(-b p)), b = -1 or 1."""

    def curvature(p: Tensor, b: Tensor) -> Tensor:
        chance = torch.sigmoid(p)
        return chance * (1 - chance)

    return Link("logistic", lambda p, b: softplus(-b * p), lambda p, b: -b * torch.sigmoid(-b * p), curvature)


def hinge() -> Link:
    """max(0, 1 - b p), b = -1 or 1."""

    def slope(p: Tensor, b: Tensor) -> Tensor:
        return torch.where(b * p < 1, -b, 0.0)

    return Link("hinge", lambda p, b: (1 - b * p).clamp_min(0.0), slope, lambda p, b: torch.zeros_like(p))


def logarithmic() -> Link:
    """-ln p; there is no target."""
    return Link("log", lambda p, b: -p.log(), lambda p, b: -1 / p, lambda p, b: 1 / (p * p))


class Hindsight:
    """The sum of the losses of rounds 1 .. `rounds`, as a function of a point for each run.

    Args:
        link: phi.
        draw: (first round, rounds) -> features (R, rounds, d) and targets (R, rounds).
        rounds, block: how many rounds, and how many at a time.
    """

    def __init__(self, link: Link, draw: Callable[[int, int], tuple[Tensor, Tensor]], rounds: int, block: int) -> None:
        self.link, self.rounds = link, rounds
        self._draw, self._block = draw, block
        self._kept: dict[int, tuple[Tensor, Tensor]] = {}

    def _blocks(self) -> Iterator[tuple[Tensor, Tensor]]:
        for first in range(0, self.rounds, self._block):
            part = self._kept.get(first)
            if part is None:
                part = self._draw(first, min(self._block, self.rounds - first))
                features = part[0]
                if features.shape[0] * self.rounds * features.shape[2] <= KEPT_NUMBERS:
                    self._kept[first] = part
            yield part

    def value(self, u: Tensor) -> Tensor:
        """(R,) the sum at u (R, d)."""
        total = torch.zeros(len(u), dtype=torch.float64, device=u.device)
        for features, target in self._blocks():
            total += self.link.value((features * u.unsqueeze(1)).sum(-1), target).sum(1)
        return total

    def derivatives(self, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The sum at u (R,), its gradient (R, d) and its Hessian (R, d, d), of subgradients where it has kinks."""
        runs, dimension = u.shape
        value = torch.zeros(runs, dtype=torch.float64, device=u.device)
        gradient, hessian = torch.zeros_like(u), value.new_zeros(runs, dimension, dimension)
        for features, target in self._blocks():
            p = (features * u.unsqueeze(1)).sum(-1)
            value += self.link.value(p, target).sum(1)
            gradient += (features * self.link.slope(p, target).unsqueeze(-1)).sum(1)
            weighted = features * self.link.curvature(p, target).unsqueeze(-1)
            hessian += weighted.transpose(1, 2) @ features
        return value, gradient, hessian
