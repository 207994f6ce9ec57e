"""Two layers for dynamic regret: optimistic descent at several rates under a meta learner that pays for switching.

Zhao, Zhang, Zhang, Zhou, JMLR 25(98), 2024, arXiv 2112.14368 (Sword++); in the SEA model Chen et al., arXiv 2302.04552.
Constants as in the authors' public code (li-lf/PyNOL), the paper's as options. Differences: the meta rate's largest
|loss - prediction| is taken as max_i |<g_t - g_{t-1}, x_{t,i}>|, which it equals, because the penalties cancel; weights
are kept as logarithms.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from bandits.online_learning.base import OnlineLearner
from bandits.online_learning.domains import Domain
from orbs import Feedback, reject, runs_last

__all__ = ["TwoLayer", "step_pool"]


def step_pool(pool: str, diameter: float, bound: float, smoothness: float, horizon: int) -> tuple[float, ...]:
    """The base learners' rates.

    "code": from D / (G sqrt(T)), doubled as long as the one before is at most 1 / (8 L), so that the last may be up to
    twice that. "theory": sqrt(D^2 / (8 G^2 T)) 2^i, at most 1 / (8 L), ceil(log2(G^2 T / (8 D^2 L^2)) / 2) + 1 of them.

    Raises:
        ValueError: another name.
    """
    largest = 1.0 / (8.0 * smoothness)
    if pool == "code":
        rates = [diameter / (bound * math.sqrt(horizon))]
        while rates[-1] <= largest:
            rates.append(2.0 * rates[-1])
        return tuple(rates)
    if pool == "theory":
        ratio = bound**2 * horizon / (8.0 * diameter**2 * smoothness**2)
        count = max(1, math.ceil(0.5 * math.log2(ratio)) + 1)
        first = math.sqrt(diameter**2 / (8.0 * bound**2 * horizon))
        return tuple(min(largest, first * 2.0**i) for i in range(count))
    return reject("pool", "'code' or 'theory'", repr(pool), "choose one")


class TwoLayer(OnlineLearner):
    """Optimistic gradient descent at `rates`, mixed by weights that follow losses with a switching cost.

    Args:
        domain: convex; `project` is called with (R, N, d).
        rates: of the N base learners.
        diameter, smoothness: D and L.
        penalty: of a base learner's squared move; 2 L by default, 0 for none.
        meta_scale: the meta rate is min(1 / (8 D^2 L), meta_scale / sqrt(C)); 1 in the authors' code, sqrt(ln N) / D in
            the theory.
        lazy: weigh by the sum of all losses at the present rate, instead of rate by rate.
        runs, device, low, high: as of `OnlineLearner`.

    Raises:
        ValueError: no rate, or a number that is not positive.
    """

    def __init__(
        self,
        domain: Domain,
        rates: Sequence[float],
        diameter: float,
        smoothness: float,
        penalty: float | None = None,
        meta_scale: float = 1.0,
        lazy: bool = False,
        runs: int | Sequence[int] = 1,
        device: torch.device | str = "cpu",
        **ranges: float,
    ) -> None:
        super().__init__(domain, runs, device, **ranges)
        if not rates or min(rates) <= 0:
            reject("rates", "one or more positive rates", list(rates), "give step_pool(...)")
        for name, value in (("diameter", diameter), ("smoothness", smoothness), ("meta_scale", meta_scale)):
            if not 0 < value < math.inf:
                reject(name, "a finite number above 0", value, "give the problem's")
        self.rates, self.lazy = tuple(map(float, rates)), lazy
        self.penalty = 2.0 * smoothness if penalty is None else float(penalty)
        self.meta_scale, self._cap = meta_scale, 1.0 / (8.0 * diameter**2 * smoothness)
        count = len(self.rates)
        wide = (self.runs, count, domain.dimension)
        self._rates = torch.tensor(self.rates, dtype=torch.float64, device=self.device).view(count, 1)
        self.base = runs_last(domain.centre().to(self.device, torch.float64).expand(wide).clone())
        self.secondary = self.base.clone()
        self.weights = runs_last(torch.full(wide[:2], -math.log(count), dtype=torch.float64, device=self.device))
        self.losses = torch.zeros_like(self.weights)
        self.variation = torch.ones(self.runs, dtype=torch.float64, device=self.device)
        self.last = self._zeros()
        self.moves = torch.zeros_like(self.weights)
        self._mix()

    def _meta_rate(self) -> Tensor:
        """(R, 1)"""
        rate = self.meta_scale * torch.rsqrt(self.variation)
        # The first rate is the cap itself, whatever the scale.
        return (rate.clamp_max(self._cap) if self.rounds_taken else torch.full_like(rate, self._cap)).unsqueeze(1)

    rounds_taken = 0

    def _mix(self) -> None:
        """Weights and point of the next round."""
        eps = self._meta_rate()
        expected = (self.last.unsqueeze(1) * self.base).sum(-1) + self.penalty * self.moves
        logits = -eps * (self.losses + expected) if self.lazy else self.weights - eps * expected
        logits = logits - logits.amax(1, keepdim=True)
        mixture = torch.exp(logits)
        self.mixture = mixture / mixture.sum(1, keepdim=True)
        self._point = (self.mixture.unsqueeze(-1) * self.base).sum(1)

    def _take(self, gradient: Tensor, feedback: Feedback) -> None:
        eps = self._meta_rate()
        loss = (gradient.unsqueeze(1) * self.base).sum(-1) + self.penalty * self.moves
        off = ((gradient - self.last).unsqueeze(1) * self.base).sum(-1)
        self.losses += loss
        self.weights -= eps * loss
        self.weights -= self.weights.amax(1, keepdim=True)
        self.variation += (off * off).amax(1)
        step = self._rates * gradient.unsqueeze(1)
        self.secondary = self.domain.project(self.secondary - step)
        before = self.base
        self.base = self.domain.project(self.secondary - step)
        move = self.base - before
        self.moves = (move * move).sum(-1)
        self.last.copy_(gradient)  # the world may reuse its tensor
        self.rounds_taken = self.rounds + 1
        self._mix()

    def _tensors(self) -> dict[str, Tensor]:
        names = ("base", "secondary", "weights", "losses", "variation", "last", "moves")
        return {name: getattr(self, name) for name in names}

    def _loaded(self) -> None:
        self.rounds_taken = self.rounds
        self._mix()
