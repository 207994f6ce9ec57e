"""Quadratic losses between i.i.d. and adversarial: the stochastically extended adversary (SEA).

f_t(x) = 0.5 ||x - c_t||^2 on the unit ball, c_t = mu_t + s z_t, z_t uniform on the unit sphere. The expected loss has
its gradient at x - mu_t, so that sigma_t^2 = s^2 and the variation is sum_t ||mu_t - mu_{t-1}||^2, both exactly.
SEA model: Sachs, Hadiji, van Erven, Guzman (NeurIPS 2022, arXiv 2202.07554); Chen, Zhang, Tu, Zhao, Zhang (ICML 2023,
arXiv 2302.04552). Neither paper has experiments: the problems are this suite's own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from envs.regions import Ball
from envs.regret_world import RegretWorld, SingleWorld, between, known, unit_vectors, whole
from orbs import Philox, reject, runs_last

__all__ = ["KINDS", "SEA", "single"]

KINDS = ("dial", "iid", "adversarial", "corrupted", "drift", "random-order", "switching")
LENGTH = 0.5  # the norm of every mean centre
SORTED_AT_ONCE = 2**22  # keys of a random order that are sorted together


class SEA(RegretWorld):
    """Quadratic losses around moving, noisy centres; strongly convex and smooth with constants 1.

    Kinds, e the first unit vector, t = 1 .. horizon:
        dial: mu_t = 0.5 e ((1 - dial) + dial (-1)^(t+1)), s = noise (1 - dial): iid at 0, adversarial at 1.
        iid: mu_t = 0.5 e.
        adversarial: mu_t = 0.5 e for odd t, -0.5 e for even t; noise 0 unless given.
        corrupted: 0.5 e, its sign flipped in floor(sqrt(horizon)) rounds, each run's own, drawn without replacement.
        drift: mu_t = 0.5 (cos 2 pi t / horizon, sin 2 pi t / horizon, 0, ..); needs two coordinates.
        random-order: horizon / passes fixed centres 0.5 e + noise z, the same for all runs of a seed, each run plays
            them in a random order of its own, `passes` times over. The expectation is that given the past: mu_t is the
            mean of the centres still to come in the pass. Keeps 4 bytes a round and run of a pass.
        switching: `stages` equally long stages, the centre of each 0.5 times a uniform unit vector, each run's own.

    Regret, all exact: "regret/static", "regret/sampled", "regret/dynamic" (each round's minimiser is mu_t).

    Args:
        dial: from 0 to 1, for kind "dial".
        dimension: d, at least 1.
        horizon, runs, seed, device: as for `RegretWorld`.
        kind: one of the above.
        noise: s, 0.5 by default (adversarial: 0); at most 0.5 for random-order, whose means then stay in the ball.
        stages: of "switching", 10 by default.
        passes: of "random-order", 1 by default; divides the horizon.

    Raises:
        ValueError: a value out of its range, an unknown kind, an argument that the kind does not have.
    """

    def __init__(
        self,
        dial: float = 0.0,
        dimension: int = 5,
        horizon: int = 1000,
        runs: int | Sequence[int] = 20,
        seed: int = 0,
        device: torch.device | str = "cpu",
        *,
        kind: str = "dial",
        noise: float | None = None,
        stages: int | None = None,
        passes: int | None = None,
    ) -> None:
        self.kind, self.dimension = known("SEA.kind", kind, KINDS), whole("SEA.dimension", dimension, 1)
        self.horizon = whole("SEA.horizon", horizon, 1)
        self.dial = {"adversarial": 1.0}.get(kind, between("SEA.dial", dial, 0.0, 1.0))
        if kind != "dial" and dial != 0:
            reject("SEA.dial", "0 for every kind but 'dial'", dial, "leave it out, or leave out the kind")
        given = (0.0 if kind == "adversarial" else 0.5) if noise is None else noise
        self.noise = between("SEA.noise", given, 0.0, 0.5 if kind == "random-order" else math.inf)
        if kind == "dial":
            self.noise *= 1.0 - self.dial
        if kind == "drift" and dimension < 2:
            reject("SEA.dimension", "at least 2 for kind 'drift'", dimension, "a circle needs two coordinates")
        for field, value, owner in (("stages", stages, "switching"), ("passes", passes, "random-order")):
            if value is not None and kind != owner:
                reject(f"SEA.{field}", f"nothing but for kind '{owner}'", value, "leave it out")
        self.stages = whole("SEA.stages", 10 if stages is None else stages, 1)
        self.passes = whole("SEA.passes", 1 if passes is None else passes, 1)
        if kind == "switching" and self.stages > self.horizon:
            reject("SEA.stages", f"at most the horizon {horizon}", self.stages, "change one of the two")
        if self.horizon % self.passes:
            reject("SEA.passes", f"a divisor of the horizon {horizon}", passes, "change one of the two")
        bound = 1.0 + LENGTH + self.noise
        facts: dict[str, Any] = dict(gradient_bound=bound, smoothness=1.0, strong_convexity=1.0)
        facts["exp_concavity"] = 1.0 / bound**2  # strong convexity over the squared gradient bound
        ball = Ball(self.dimension)
        self.ball = ball
        super().__init__(ball, horizon, runs, seed, device, dimension, facts, (-bound, bound, None))

    def _prepare(self) -> None:
        if self.kind == "corrupted":
            self._flips = self._without_replacement(math.isqrt(self.horizon))
        elif self.kind == "switching":
            self._centres = LENGTH * unit_vectors(self.philox, "sea/stages", 0, self.stages, self.dimension)
        elif self.kind == "random-order":
            # Run 0's stream whichever runs are played: the centres are the problem's, the order a run's.
            shared = Philox(self.philox.seed, [0], self.device, runs_last=True)
            centres = (
                self.noise * unit_vectors(shared, "sea/centres", 0, self.horizon // self.passes, self.dimension)[0]
            )
            centres[:, 0] += LENGTH
            self._centres, self._centre = centres, centres.mean(0)
            self._order: tuple[int, Tensor] = (-1, torch.empty(0))

    def _without_replacement(self, count: int) -> Tensor:
        """(count, R) int64, distinct rounds from 0, each subset as likely (Floyd: memory for the subset alone)."""
        words = self.philox.words("sea/flips", 0, 1, count)[:, 0]
        chosen = torch.full((count, self.num_envs), -1, device=self.device)
        for place, top in enumerate(range(self.horizon - count, self.horizon)):
            candidate = (words[:, place] * (top + 1)) >> 32
            taken = (chosen == candidate).any(0)
            chosen[place] = torch.where(taken, torch.full_like(candidate, top), candidate)
        return chosen

    def _order_of(self, turn: int) -> Tensor:
        """(centres, R) int32, the order in which each run plays the centres in a pass."""
        if self._order[0] != turn:
            count = len(self._centres)
            order = torch.empty(count, self.num_envs, dtype=torch.int32, device=self.device)
            at_once = max(1, SORTED_AT_ONCE // count)
            for first in range(0, self.num_envs, at_once):
                ids = self.run_ids[first : first + at_once]
                keys = Philox(self.philox.seed, ids, self.device).words("sea/order", turn, 1, count)[:, 0]
                order[:, first : first + len(ids)] = keys.argsort(dim=1, stable=True).T
            self._order = (turn, order)
        return self._order[1]

    def _draw(self, first: int, rounds: int) -> tuple[Tensor, ...]:
        if self.kind == "random-order":
            centre = self._in_random_order(first, rounds)
            mean = centre  # not used: the mean of what is left follows from the sums
        else:
            mean = self._means(first, rounds)
            centre = mean
            if self.noise > 0:
                z = unit_vectors(self.philox, "sea/noise", first, rounds, self.dimension)
                centre = z.mul_(self.noise).add_(mean)
            elif len(mean) == 1:
                centre = mean.expand(self.num_envs, -1, -1)
        return centre, runs_last((centre * centre).sum(-1)), mean, runs_last((mean * mean).sum(-1))

    def _means(self, first: int, rounds: int) -> Tensor:
        """(R or 1, rounds, d) mu_t; the run axis last in memory."""
        t = torch.arange(first + 1, first + rounds + 1, dtype=torch.float64, device=self.device)
        if self.kind == "switching":
            stage = torch.div((t.long() - 1) * self.stages, self.horizon, rounding_mode="floor")
            return self._centres.movedim(0, -1).index_select(0, stage).movedim(-1, 0)
        if self.kind == "corrupted":
            place = self._flips - first
            place = torch.where((place >= 0) & (place < rounds), place, rounds)
            sign = torch.ones(rounds + 1, self.num_envs, dtype=torch.float64, device=self.device)
            sign.scatter_(0, place, -1.0)
            means = torch.zeros(rounds, self.dimension, self.num_envs, dtype=torch.float64, device=self.device)
            means[:, 0] = LENGTH * sign[:rounds]
            return means.movedim(-1, 0)
        means = torch.zeros(1, rounds, self.dimension, dtype=torch.float64, device=self.device)
        if self.kind == "drift":
            angle = (2 * math.pi / self.horizon) * t
            means[0, :, 0], means[0, :, 1] = LENGTH * torch.cos(angle), LENGTH * torch.sin(angle)
        else:
            means[0, :, 0] = LENGTH * ((1 - self.dial) + self.dial * (2 * (t % 2) - 1))
        return means

    def _in_random_order(self, first: int, rounds: int) -> Tensor:
        count, parts, at = len(self._centres), [], first
        while at < first + rounds:
            turn, place = divmod(at, count)
            stop = min(count, place + first + rounds - at)
            parts.append(self._order_of(turn)[place:stop].long())
            at += stop - place
        order = torch.cat(parts)
        return self._centres.T[:, order].permute(2, 1, 0)

    def _sums(self) -> dict[str, Tensor]:
        sums = {"distance": self.zeros(), "centre": self.zeros(self.dimension), "centre squared": self.zeros()}
        return sums | {"mean": self.zeros(self.dimension), "mean squared": self.zeros()}

    def _play(self, x: Tensor, row: tuple[Tensor, ...]) -> tuple[Tensor, Tensor, dict[str, Tensor] | None]:
        centre, centre_squared, mean, mean_squared = row
        sums = self.sums
        if self.kind == "random-order":
            turn, place = divmod(self.round, len(self._centres))
            left = (turn + 1) * len(self._centres) * self._centre - sums["centre"]
            mean = left / (len(self._centres) - place)
            mean_squared = (mean * mean).sum(-1)
        gradient, away = x - centre, x - mean
        sums["distance"] += (away * away).sum(-1)
        sums["centre"] += centre
        sums["centre squared"] += centre_squared
        sums["mean"] += mean
        sums["mean squared"] += mean_squared
        return (gradient * gradient).sum(-1).mul_(0.5), gradient, {}

    def _least(self, name: str) -> Tensor:
        """(R,) min over the ball of sum_s 0.5 ||u - c_s||^2, at the projection of the mean of the c_s."""
        total, rounds = self.sums[name], self.round
        u = self.ball.project(total / max(rounds, 1))
        return 0.5 * (rounds * (u * u).sum(-1) - 2 * (u * total).sum(-1) + self.sums[f"{name} squared"])

    def regret(self) -> dict[str, Tensor]:
        dynamic = 0.5 * self.sums["distance"]
        return {
            "regret/static": dynamic - self._least("mean"),
            "regret/sampled": self.loss - self._least("centre"),
            "regret/dynamic": dynamic,
        }

    def variance(self, rounds: int) -> Tensor:
        """(R,) sum of sigma_t^2 over the first rounds; for random-order its mean over the orders.

        With m centres left the mean of sigma^2 is (1 - 1/m) S^2, S^2 the centres' variance with the divisor n - 1.
        """
        total = rounds * self.noise**2
        if self.kind == "random-order":
            count = len(self._centres)
            lost = torch.arange(count, 0, -1, dtype=torch.float64).reciprocal().cumsum(0)
            full, rest = divmod(rounds, count)
            parts = rounds - full * float(lost[-1]) - (float(lost[rest - 1]) if rest else 0.0)
            total = parts * self._spread()
        return torch.full((self.num_envs,), total, dtype=torch.float64, device=self.device)

    def _spread(self) -> float:
        count = len(self._centres)
        away = self._centres - self._centre
        return float((away * away).sum()) / (count - 1) if count > 1 else 0.0

    def variation(self, rounds: int) -> Tensor:
        """(R,) sum of ||mu_t - mu_{t-1}||^2 over 2 <= t <= rounds; for random-order its mean over the orders.

        There the step from m to m - 1 centres left adds S^2 / (m (m - 1)), and a new pass (1 - 1/n) S^2.
        """
        steps = max(rounds - 1, 0)
        if self.kind == "corrupted":
            kept = 4 * LENGTH**2 * self._flips.new_ones(self.num_envs)
            flips = self._flips.sort(0).values
            apart = flips.diff(dim=0) > 1
            edge = torch.ones_like(flips[:1], dtype=torch.bool)
            begins = torch.cat((edge, apart)) & (flips > 0) & (flips < rounds)
            ends = torch.cat((apart, edge)) & (flips + 1 < rounds)
            return kept * (begins.sum(0) + ends.sum(0)).double()
        if self.kind == "switching":
            jumps = self._centres.diff(dim=1)
            reached = (max(rounds, 1) - 1) * self.stages // self.horizon
            return (jumps * jumps).sum(-1)[:, :reached].sum(1)
        if self.kind == "random-order":
            count = len(self._centres)
            full, place = divmod(max(rounds, 1) - 1, count)
            total = self._spread() * (2 * full * (1 - 1 / count) + 1 / (count - place) - 1 / count)
        elif self.kind == "drift":
            total = steps * (2 * LENGTH * math.sin(math.pi / self.horizon)) ** 2
        else:
            total = steps * (2 * LENGTH * self.dial) ** 2
        return torch.full((self.num_envs,), total, dtype=torch.float64, device=self.device)


def single(**arguments: Any) -> SingleWorld:
    """One run as a gymnasium environment."""
    return SingleWorld(SEA, **arguments)
