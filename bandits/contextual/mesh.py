"""Lipschitz contexts (Slivkins, arXiv 1904.07272, section 8.2): a uniform mesh of contexts, UCB1 in each cell."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from bandits.contextual.context import ContextLearner
from orbs import reject

__all__ = ["MeshUCB", "cells_per_axis"]

MOST_CELLS = 2**20


def cells_per_axis(horizon: int, arms: int, lipschitz: float, dimension: int, side: float = 1.0) -> int:
    """1/eps with eps = (K/(T (L s)^2))^(1/(d+2)), to the nearest whole number, at least 1.

    The book's rule is that of the unit cube, into which a cube of side s goes with the constant L s.
    In many dimensions that is one cell: the bandit that looks at no context.
    """
    return max(1, round(math.pow(horizon * (lipschitz * side) ** 2 / arms, 1.0 / (dimension + 2))))


class MeshUCB(ContextLearner):
    """The box of contexts in m^d equal cells, each a bandit of its own: argmax mean + scale sqrt(2 ln t/n) in the cell.

    t is the number of the cell's round, or the horizon. A context outside the box counts for the nearest cell.

    Args:
        arms, dimension, runs, seed, device, rewards' low and high: as for `ContextLearner`.
        cells: m, at least 1; `cells_per_axis` gives the book's.
        box: least and largest value of each coordinate of a context.
        scale: as for `UCB1`.
        horizon: ln T in place of ln t where it is given.
    """

    def __init__(
        self, arms: int, dimension: int, runs: int | Sequence[int] = 1, seed: int = 0, *, cells: int,
        box: tuple[float, float] = (0.0, 1.0), scale: float = 1.0, horizon: int | None = None, **common: Any,
    ) -> None:  # fmt: skip
        super().__init__(arms, dimension, runs, seed, **common)
        if cells < 1 or dimension * math.log(cells) > math.log(MOST_CELLS):
            wanted = f"at least 1 and at most {MOST_CELLS} cells in {dimension} dimensions"
            reject("cells", wanted, f"{cells} an axis", "choose fewer cells, or a learner of linear models")
        if not -math.inf < box[0] < box[1] < math.inf:
            reject("box", "low below high, both finite", box, "e.g. box=(0.0, 1.0)")
        if horizon is not None and horizon < 1:
            reject("horizon", "at least 1 round", horizon, "give the number of rounds, or None for ln t")
        self.cells, self.box, self.scale = cells, box, scale
        self.log_horizon = None if horizon is None else math.log(horizon)
        count = cells**dimension
        self.plays, self.sums = self.zeros(arms, count), self.zeros(arms, count)
        self._strides = torch.tensor([cells**i for i in range(dimension)], device=self.device).unsqueeze(-1)
        self._run = torch.arange(self.runs, device=self.device)

    def cell(self, x: Tensor) -> Tensor:
        """(R,) int64 the number of the cell that a context lies in: the first coordinate counts fastest."""
        low, high = self.box
        place = ((x.mT - low) * (self.cells / (high - low))).clamp(0.0, self.cells - 0.5).long()
        return (place * self._strides).sum(0)

    def _of(self, table: Tensor, cell: Tensor) -> Tensor:
        """(K, R) the cell's part of plays or sums."""
        place = (cell * self.runs + self._run).expand(self.arms, self.runs)
        return table.movedim(0, -1).view(self.arms, -1).gather(1, place)

    def _pick(self, x: Tensor) -> Tensor:
        cell = self.cell(x)
        plays, sums = self._of(self.plays, cell), self._of(self.sums, cell)
        if self.log_horizon is None:
            log = (plays.sum(0) + 1.0).log().clamp_min(1e-300)  # at t = 1 0 / 0 would be no number
        else:
            log = torch.full_like(plays[0], max(self.log_horizon, 1e-300))
        index = sums / plays.clamp_min(1.0) + self.scale * (2.0 * log / plays).sqrt()
        return index.max(0).indices

    def _learn(self, x: Tensor, arm: Tensor, reward: Tensor) -> None:
        place = (arm * self.cells**self.dimension + self.cell(x)) * self.runs + self._run
        self.plays.movedim(0, -1).view(-1).scatter_add_(0, place, torch.ones_like(reward))
        self.sums.movedim(0, -1).view(-1).scatter_add_(0, place, reward)

    def _tensors(self) -> dict[str, Tensor]:
        return {"plays": self.plays, "sums": self.sums}
