"""Online regression and classification on the unit ball: f_t(x) = phi(a_t.x, b_t), features and labels drawn anew.

The Huber problem is the synthetic regression of the code beside Zhao, Zhang, Zhang, Zhou (JMLR 25(98), 2024, arXiv
2112.14368): ten stages, features in the unit ball. Its numbers are those of this suite's generator, not of the seed 42
and the five starts there: each run here is a draw of its own. The other problems are this suite's own.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from envs import hindsight as links
from envs.hindsight import Hindsight, Link
from envs.regions import Ball
from envs.regret_world import RegretWorld, SingleWorld, between, known, unit_vectors, whole
from orbs import reject, runs_last

__all__ = ["KINDS", "OnlineRegression", "least_squares_on_ball", "single"]

LARGEST_NORMAL = 6.77  # of the generator in float64
HALVINGS = 100


@dataclasses.dataclass(frozen=True)
class Kind:
    """What a kind leaves open: noise and stages by default, whether features fill the ball, targets of any length."""

    noise: float
    stages: int = 1
    ball: bool = False
    dimension: int = 5
    horizon: int = 1000
    labels: bool = False


KINDS = {
    "squared": Kind(0.1),
    "absolute": Kind(0.1),
    "huber": Kind(0.05, stages=10, ball=True, dimension=10, horizon=20_000),
    "logistic": Kind(0.0, labels=True),
    "hinge": Kind(0.1, labels=True),
}


class OnlineRegression(RegretWorld):
    """Linear prediction of noisy targets; x* is each run's own, in each of its equally long stages.

    Kinds (features a uniform on the unit sphere, x* = 0.5 times a uniform unit vector, one stage, unless said):
        squared: (a.x - b)^2 / 2, b = a.x* + noise N(0, 1), noise 0.1. Exp-concave with 1 / residual_bound^2; the
            residual bound is 2.5, or what the generator's largest normal number makes it for a larger noise, so that
            no target is ever clipped.
        absolute: |a.x - b|, b = a.x* + Laplace noise of scale `noise`, 0.1.
        huber: Huber's loss of a.x - b, b = a.x* + noise N(0, 1), noise 0.05; a uniform in the unit ball, ten stages,
            d = 10, x* a uniform direction times a uniform length up to 1, horizon 20000 by default.
        logistic: ln(1 + exp(-b a.x)), b = 1 with probability 1 / (1 + exp(-a.x*)), else -1.
        hinge: max(0, 1 - b a.x), b the sign of a.x*, flipped with probability `noise`, 0.1.

    The feedback's terms hold the features a (R, d) and the target b (R,); facts["term"] is the kind.

    Regret: "regret/static" for one stage, "regret/dynamic" for several, against x* of the stage, which minimises the
    expected loss. The expectation is over noise and features for squared, over the noise given a for absolute, huber
    and logistic; hinge has none, its minimiser is not x*. "regret/sampled" for squared, exact from running moments; for
    all others `loss` and `hindsight` are there for a solver.

    Args:
        kind: one of the above.
        dimension, horizon, stages, noise: the kind's own by default.
        runs, seed, device: as for `RegretWorld`.
        threshold: of Huber's loss, in (0, 2]: it is the gradient bound.

    Raises:
        ValueError: a value out of its range, an unknown kind.
    """

    def __init__(
        self,
        kind: str = "squared",
        dimension: int | None = None,
        horizon: int | None = None,
        runs: int | Sequence[int] = 20,
        seed: int = 0,
        device: torch.device | str = "cpu",
        *,
        stages: int | None = None,
        noise: float | None = None,
        threshold: float = 2.0,
    ) -> None:
        self.kind = known("OnlineRegression.kind", kind, KINDS)
        default = KINDS[kind]
        self.dimension = whole("OnlineRegression.dimension", default.dimension if dimension is None else dimension, 1)
        self.horizon = whole("OnlineRegression.horizon", default.horizon if horizon is None else horizon, 1)
        self.stages = whole("OnlineRegression.stages", default.stages if stages is None else stages, 1)
        if self.stages > self.horizon:
            reject("OnlineRegression.stages", f"at most the horizon {self.horizon}", self.stages, "change one of them")
        highest = {"hinge": 0.5, "logistic": 0.0}.get(kind, math.inf)
        self.noise = between("OnlineRegression.noise", default.noise if noise is None else noise, 0.0, highest)
        self.threshold = between("OnlineRegression.threshold", threshold, 1e-6, 2.0)
        self._ball = Ball(self.dimension)
        self._link = self._link_of(kind)
        # Huber's expected loss at x*, the same in every round.
        self._least = float(expected_huber(torch.zeros((), dtype=torch.float64), self.noise, self.threshold))
        facts: dict[str, Any] = dict(term=kind, gradient_bound=1.0)
        if kind == "squared":
            residual = max(2.5, 1.5 + LARGEST_NORMAL * self.noise)
            facts |= dict(gradient_bound=residual, residual_bound=residual, exp_concavity=residual**-2, smoothness=1.0)
        elif kind == "huber":
            facts |= dict(gradient_bound=self.threshold, smoothness=1.0)
        elif kind == "logistic":
            bound = 1 / (1 + math.exp(-1.0))  # the largest slope at |a.x| <= 1
            facts |= dict(gradient_bound=bound, smoothness=0.25, exp_concavity=math.exp(-1.0))
        bound = facts["gradient_bound"]
        super().__init__(
            self._ball, self.horizon, runs, seed, device, self.dimension + 1, facts, (-bound, bound, None)
        )  # fmt: skip

    def _link_of(self, kind: str) -> Link:
        return links.huber(self.threshold) if kind == "huber" else getattr(links, kind)()

    def _prepare(self) -> None:
        best = unit_vectors(self.philox, "regression/best", 0, self.stages, self.dimension)
        if KINDS[self.kind].ball:
            length = self.philox.uniform("regression/length", 0, self.stages, 1, torch.float64)
            self._best = best * length
        else:
            self._best = 0.5 * best

    def _draw(self, first: int, rounds: int) -> tuple[Tensor, ...]:
        features = unit_vectors(self.philox, "regression/features", first, rounds, self.dimension)
        if KINDS[self.kind].ball:
            radius = self.philox.uniform("regression/radius", first, rounds, 1, torch.float64)
            features = runs_last(features * radius ** (1 / self.dimension))
        t = torch.arange(first, first + rounds, device=self.device)
        stage = torch.div(t * self.stages, self.horizon, rounding_mode="floor")
        best = self._best.movedim(0, -1).index_select(0, stage).movedim(-1, 0)
        target = (features * best).sum(-1)
        if KINDS[self.kind].labels:
            u = self.philox.uniform("regression/label", first, rounds, 1, torch.float64)[..., 0]
            chance = torch.sigmoid(target) if self.kind == "logistic" else self._agrees(target)
            target = torch.where(u < chance, 1.0, -1.0).double()
        elif self.kind == "absolute":
            u = self.philox.uniform("regression/label", first, rounds, 1, torch.float64)[..., 0] - 0.5
            target = target - self.noise * u.sign() * torch.log1p(-2 * u.abs())
        else:
            noise = self.philox.normal("regression/label", first, rounds, 1, torch.float64)[..., 0]
            target = target + self.noise * noise
        return features, runs_last(target), best

    def _agrees(self, margin: Tensor) -> Tensor:
        return torch.where(margin >= 0, 1 - self.noise, self.noise)

    def _sums(self) -> dict[str, Tensor]:
        sums = {} if self.kind == "hinge" else {"expected": self.zeros()}
        if self.kind == "squared":
            d = self.dimension
            sums |= {"gram": self.zeros(d, d), "moment": self.zeros(d), "target squared": self.zeros()}
        return sums

    def _play(self, x: Tensor, row: tuple[Tensor, ...]) -> tuple[Tensor, Tensor, dict[str, Tensor] | None]:
        features, target, best = row
        prediction = (features * x).sum(-1)
        if self.kind == "squared":
            away = x - best
            self.sums["expected"] += (away * away).sum(-1)
            self.sums["gram"] += features.unsqueeze(1) * features.unsqueeze(2)
            self.sums["moment"] += features * target.unsqueeze(-1)
            self.sums["target squared"] += target * target
        elif self.kind != "hinge":
            self.sums["expected"] += self._expected(prediction, (features * best).sum(-1))
        gradient = features * self._link.slope(prediction, target).unsqueeze(-1)
        return self._link.value(prediction, target), gradient, {"features": features, "target": target}

    def _expected(self, prediction: Tensor, best: Tensor) -> Tensor:
        """(R,) the expected loss given the features, less that of x*."""
        away, scale = prediction - best, self.noise
        if self.kind == "absolute":
            size = away.abs()
            return size if scale == 0 else size + scale * torch.expm1(-size / scale)
        if self.kind == "huber":
            return expected_huber(away, scale, self.threshold) - self._least
        chance, one = torch.sigmoid(best), torch.ones_like(best)
        value = self._link.value
        return chance * (value(prediction, one) - value(best, one)) + (1 - chance) * (
            value(prediction, -one) - value(best, -one)
        )

    def regret(self) -> dict[str, Tensor]:
        name = "regret/static" if self.stages == 1 else "regret/dynamic"
        if self.kind != "squared":
            self._refuse_if_outside()
            return {} if self.kind == "hinge" else {name: self.sums["expected"].clone()}
        sums = self.sums
        u = least_squares_on_ball(sums["gram"], sums["moment"])
        quadratic = (u.unsqueeze(1) * sums["gram"] * u.unsqueeze(2)).sum((1, 2))
        least = 0.5 * (quadratic - 2 * (u * sums["moment"]).sum(-1) + sums["target squared"])
        return {name: sums["expected"] / (2 * self.dimension), "regret/sampled": self.loss - least}

    def hindsight(self, rounds: int) -> Hindsight:
        """The sum of the losses of the first rounds, regenerated, as a function of the point."""
        if not 0 <= rounds <= self.horizon:
            reject("rounds", f"0 to {self.horizon}", rounds, "ask for rounds of this world")
        draw = self.tape.draw

        def part(first: int, count: int) -> tuple[Tensor, Tensor]:
            features, target, _ = draw(first, count)
            return features, target

        return Hindsight(self._link, part, rounds, self.tape.block)


def expected_huber(mean: Tensor, scale: float, threshold: float) -> Tensor:
    """E of Huber's loss of a normal number of this mean (any shape) and standard deviation."""
    if scale == 0:
        return links.huber(threshold).value(mean, torch.zeros_like(mean))
    high, low = (threshold - mean) / scale, (-threshold - mean) / scale
    density_high, density_low = (torch.exp(-0.5 * z * z) / math.sqrt(2 * math.pi) for z in (high, low))
    below, above = torch.special.ndtr(low), torch.special.ndtr(-high)
    between_them = 1 - below - above
    square = (mean * mean + scale**2) * between_them + 2 * mean * scale * (density_low - density_high)
    square = square + scale**2 * (low * density_low - high * density_high)
    beyond = mean * above + scale * density_high - mean * below + scale * density_low
    expected: Tensor = 0.5 * square + threshold * beyond - 0.5 * threshold**2 * (below + above)
    return expected


def least_squares_on_ball(gram: Tensor, moment: Tensor) -> Tensor:
    """(R, d) argmin over the unit ball of u.gram u / 2 - moment.u; gram (R, d, d) positive semidefinite.

    On the boundary (gram + mu) u = moment with the mu >= 0 of norm 1, which bisection finds: the norm falls in mu.
    """
    values, vectors = torch.linalg.eigh(gram)
    values = values.clamp_min(0.0)
    turned = (vectors * moment.unsqueeze(-1)).sum(-2)
    # Directions without data are left at 0; rounding is no data.
    seen = values > 1e-12 * values[..., -1:].clamp_min(1e-300)
    low = torch.zeros_like(values[..., :1])
    high = (turned * turned).sum(-1, keepdim=True).sqrt()
    free = torch.where(seen, turned / values.clamp_min(1e-300), 0.0)
    outside = (free * free).sum(-1, keepdim=True) > 1.0
    for _ in range(HALVINGS):
        mu = 0.5 * (low + high)
        u = torch.where(seen, turned / (values + mu).clamp_min(1e-300), 0.0)
        long = (u * u).sum(-1, keepdim=True) > 1.0
        low, high = torch.where(long, mu, low), torch.where(long, high, mu)
    bounded = torch.where(seen, turned / (values + high).clamp_min(1e-300), 0.0)
    u = torch.where(outside, bounded, free)
    best: Tensor = (vectors * u.unsqueeze(-2)).sum(-1)
    return best


def single(**arguments: Any) -> SingleWorld:
    """One run as a gymnasium environment."""
    return SingleWorld(OnlineRegression, **arguments)
