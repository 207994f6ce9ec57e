"""Online portfolio selection: f_t(x) = -ln(r_t.x) on the simplex, price relatives r_t i.i.d. uniform."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from envs.hindsight import Hindsight, logarithmic
from envs.regions import Simplex
from envs.regret_world import RegretWorld, SingleWorld, whole
from orbs import reject

__all__ = ["Portfolio", "single"]


class Portfolio(RegretWorld):
    """Price relatives i.i.d. uniform in [0.5, 1.5]^d; exp-concave with constant 1, gradients of norm <= 3 sqrt(d).

    The feedback's terms hold the price relatives as "features"; there is no target. Neither the expected loss nor the
    best constant portfolio has a closed form: `regret` is empty, `loss` and `hindsight` are there for a solver.

    Args:
        dimension: assets, at least 1.
        horizon, runs, seed, device: as for `RegretWorld`.
    """

    def __init__(
        self,
        dimension: int = 5,
        horizon: int = 1000,
        runs: int | Sequence[int] = 20,
        seed: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        self.dimension = whole("Portfolio.dimension", dimension, 1)
        self._link = logarithmic()
        facts = dict(gradient_bound=3 * math.sqrt(dimension), exp_concavity=1.0, term="log")
        super().__init__(Simplex(dimension), horizon, runs, seed, device, dimension, facts, (-3.0, 0.0, None))

    def _draw(self, first: int, rounds: int) -> tuple[Tensor, ...]:
        u = self.philox.uniform("portfolio/relatives", first, rounds, self.dimension, torch.float64)
        return (u + 0.5,)

    def _sums(self) -> dict[str, Tensor]:
        return {}

    def _play(self, x: Tensor, row: tuple[Tensor, ...]) -> tuple[Tensor, Tensor, dict[str, Tensor] | None]:
        relatives = row[0]
        wealth = (relatives * x).sum(-1)
        return -wealth.log(), relatives * (-1 / wealth).unsqueeze(-1), {"features": relatives}

    def regret(self) -> dict[str, Tensor]:
        return {}

    def hindsight(self, rounds: int) -> Hindsight:
        """The sum of the losses of the first rounds, regenerated, as a function of the portfolio."""
        if not 0 <= rounds <= self.horizon:
            reject("rounds", f"0 to {self.horizon}", rounds, "ask for rounds of this world")
        draw = self.tape.draw

        def part(first: int, count: int) -> tuple[Tensor, Tensor]:
            (relatives,) = draw(first, count)
            return relatives, relatives.new_zeros(())

        return Hindsight(self._link, part, rounds, self.tape.block)


def single(**arguments: Any) -> SingleWorld:
    """One run as a gymnasium environment."""
    return SingleWorld(Portfolio, **arguments)
