"""Linear losses f_t(x) = <g_t, x>: random signs, normal and turning vectors, and two that punish the greedy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from envs.regions import Ball, Box, Region, Simplex
from envs.regret_world import RegretWorld, between, known, whole
from orbs import reject, runs_last

__all__ = ["KINDS", "LinearLosses"]

# Kind: the domain that it is played on by default.
KINDS = {
    "rademacher": "ball", "gaussian": "ball", "rotating": "ball", "ftl-killer": "box", "drifting-best": "simplex"
}  # fmt: skip
REGIONS: dict[str, type[Region]] = {"ball": Ball, "box": Box, "simplex": Simplex}


class LinearLosses(RegretWorld):
    """Linear losses on the unit ball, the box [-1, 1]^d or the simplex.

    Kinds, t = 1 .. horizon:
        rademacher: independent signs in each coordinate.
        gaussian: independent standard normal coordinates; there is no gradient bound.
        rotating: (cos(speed t), sin(speed t), 0, ..); needs two coordinates.
        ftl-killer: one coordinate, 0.5, -1, +1, -1, ..: whoever follows the leader, 0 where all points lead, loses
            horizon - 0.5 to the best fixed point of [-1, 1] for an even horizon.
        drifting-best: coordinate i is (1 - cos(2 pi (t / horizon - i / d))) / 2, in [0, 1]: over the horizon each
            coordinate is the best one once.

    Regret: "regret/sampled" against the best fixed point of the losses so far, in closed form; for the kinds without
    chance "regret/static", the same, and "regret/dynamic" against each round's best point.

    Args:
        kind: one of the above.
        dimension: 5 by default, 1 for ftl-killer.
        horizon, runs, seed, device: as for `RegretWorld`.
        domain: "ball", "box" or "simplex"; by default that of the kind (box: ftl-killer, simplex: drifting-best).
        speed: radians a round, of "rotating".
    """

    def __init__(
        self,
        kind: str = "rademacher",
        dimension: int | None = None,
        horizon: int = 1000,
        runs: int | Sequence[int] = 20,
        seed: int = 0,
        device: torch.device | str = "cpu",
        *,
        domain: str | None = None,
        speed: float = 0.1,
    ) -> None:
        self.kind = known("LinearLosses.kind", kind, KINDS)
        given = (1 if kind == "ftl-killer" else 5) if dimension is None else dimension
        self.dimension = whole("LinearLosses.dimension", given, 2 if kind == "rotating" else 1)
        if kind == "ftl-killer" and self.dimension != 1:
            reject("LinearLosses.dimension", "1 for kind 'ftl-killer'", dimension, "leave it out")
        self.speed = between("LinearLosses.speed", speed, 0.0, math.inf)
        self.chance = kind in ("rademacher", "gaussian")
        place = known("LinearLosses.domain", KINDS[kind] if domain is None else domain, REGIONS)
        region = REGIONS[place](self.dimension)
        facts: dict[str, Any] = dict(smoothness=0.0)
        bound = math.inf
        if kind != "gaussian":
            facts["gradient_bound"] = 1.0 if kind in ("rotating", "ftl-killer") else math.sqrt(self.dimension)
            bound, low = 1.0, 0.0 if kind == "drifting-best" else -1.0
            facts |= dict(loss_low=low, loss_high=1.0)
        super().__init__(region, horizon, runs, seed, device, self.dimension, facts, (-bound, bound, None))

    def _draw(self, first: int, rounds: int) -> tuple[Tensor, ...]:
        width = self.dimension
        if self.kind == "rademacher":
            words = self.philox.words("linear/signs", first, rounds, width)
            return ((words >> 31).double().mul_(2.0).sub_(1.0),)
        if self.kind == "gaussian":
            return (runs_last(self.philox.normal("linear/normal", first, rounds, width, torch.float64)),)
        t = torch.arange(first + 1, first + rounds + 1, dtype=torch.float64, device=self.device)
        g = torch.zeros(1, rounds, width, dtype=torch.float64, device=self.device)
        if self.kind == "rotating":
            g[0, :, 0], g[0, :, 1] = torch.cos(self.speed * t), torch.sin(self.speed * t)
        elif self.kind == "ftl-killer":
            g[0, :, 0] = torch.where(t == 1, 0.5, 2 * (t % 2) - 1)
        else:
            place = torch.arange(width, dtype=torch.float64, device=self.device) / width
            g[0] = 0.5 * (1 - torch.cos(2 * math.pi * (t[:, None] / self.horizon - place)))
        return (g.expand(self.num_envs, -1, -1),)

    def _sums(self) -> dict[str, Tensor]:
        return {"gradient": self.zeros(self.dimension)} | ({} if self.chance else {"least": self.zeros()})

    def _play(self, x: Tensor, row: tuple[Tensor, ...]) -> tuple[Tensor, Tensor, dict[str, Tensor] | None]:
        gradient = row[0]
        self.sums["gradient"] += gradient
        if not self.chance:
            self.sums["least"] += self.region.lowest(gradient)
        return (gradient * x).sum(-1), gradient, {}

    def regret(self) -> dict[str, Tensor]:
        sampled = self.loss - self.region.lowest(self.sums["gradient"])
        if self.chance:
            return {"regret/sampled": sampled}
        dynamic = self.loss - self.sums["least"]
        return {"regret/static": sampled, "regret/sampled": sampled, "regret/dynamic": dynamic}
