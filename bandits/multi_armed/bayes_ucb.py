"""Bayes-UCB (Kaufmann, Cappe, Garivier, AISTATS 2012): the arm whose posterior has the largest upper quantile.

The posterior of a mean in [0, 1] is Beta(1 + s, 1 + n - s), also for rewards that are not 0 or 1. Quantiles are exact
to 1e-10 in every round: the arm just played is solved afresh, and the others, whose posterior stayed while the level
rose a little, move on by steps whose mass is integrated and counted.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

from torch import Tensor

from bandits.multi_armed.arm_means import IndexLearner, log_horizon
from bandits.multi_armed.beta_quantile import beta_logit, log_beta, log_density, mass_between, step_to
from orbs import Feedback, reject

__all__ = ["BayesUCB"]


class BayesUCB(IndexLearner):
    """argmax of the quantile of Beta(1 + s, 1 + n - s) at the level 1 - 1 / (t (ln T)^c).

    Args:
        arms, runs, seed, device, low, high, ties: as for `IndexLearner`; the range must be declared.
        c: 5 in the theorem, 0 in practice.
        horizon: T, for c above 0 (ln T counts as 1 below e).
    """

    label: ClassVar[str] = "bayes-ucb"

    def __init__(
        self, arms: int, runs: int | Sequence[int] = 1, seed: int = 0, *, c: float = 0.0, horizon: int | None = None,
        **common: Any,
    ) -> None:  # fmt: skip
        super().__init__(arms, runs, seed, **common)
        self._need_range(self.label)
        if not c >= 0:
            reject("c", "a number of at least 0", c, "e.g. 0 or 5")
        if c > 0 and horizon is None:
            reject("horizon", "the number of rounds, for c above 0", None, "give it, or c=0")
        self.shift = c * math.log(max(log_horizon(horizon) or 1.0, 1.0))
        # Logit of the index, the posterior mass above it and ln B(1 + s, 1 + n - s).
        self.logit, self.mass, self.log_beta = self.zeros(arms), self.zeros(arms), self.zeros(arms)
        self._start_fresh(self._log_tail(1))

    def _log_tail(self, round: int) -> float:
        """ln of the mass above the index in a round, counted from 1; at most ln(1/2), of a round 2 with c = 0."""
        return min(-math.log(round) - self.shift, -math.log(2.0))

    def _index(self) -> Tensor:
        """(R, K) logits of the quantiles: they order arms as the quantiles do, also where those are nearly 1."""
        return self.logit

    @property
    def quantiles(self) -> Tensor:
        """(R, K) the index of the round to come; in round 1, where the level may be 0, that of the level 1/2."""
        return self.logit.sigmoid()

    def _take(self, action: Tensor, reward: Tensor, feedback: Feedback) -> None:
        arm, log_tail = action.unsqueeze(1), self._log_tail(self.rounds + 2)
        start = self.logit.gather(1, arm)
        self._advance(log_tail)
        self._count(action, self.moved(reward))
        self._start_fresh(log_tail)
        a, b = 1.0 + self.sums.gather(1, arm), 1.0 + (self.plays - self.sums).gather(1, arm)
        self.logit.scatter_(1, arm, beta_logit(a, b, log_tail, start, steps=3 if self.rounds > 30 else 5))
        self.mass.scatter_(1, arm, math.exp(log_tail))
        self.log_beta.scatter_(1, arm, log_beta(a, b))

    def _advance(self, log_tail: float) -> None:
        """All arms to the next level, as if none had been played."""
        a, b = 1.0 + self.sums, 1.0 + (self.plays - self.sums)
        for nodes in (4, 2) if self.rounds > 30 else (6, 6, 6, 6):
            density = (log_density(self.logit, a, b) - self.log_beta).exp()
            step = step_to(self.mass.log() - log_tail, density / self.mass, self.logit, a, b)
            self.mass -= density * mass_between(self.logit, self.logit + step, a, b, nodes)
            self.logit += step

    def _start_fresh(self, log_tail: float) -> None:
        """Arms without plays, whose posterior is uniform."""
        fresh = self.plays == 0
        self.logit.masked_fill_(fresh, math.log(math.expm1(-log_tail)))
        self.mass.masked_fill_(fresh, math.exp(log_tail))

    def _tensors(self) -> dict[str, Tensor]:
        return {**super()._tensors(), "logit": self.logit, "mass": self.mass, "log_beta": self.log_beta}
