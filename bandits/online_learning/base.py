"""What every learner of online convex optimisation is: the verbs and the checks."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from bandits.base import LARGEST, Learner
from bandits.online_learning.domains import Domain
from orbs import Feedback, reject

__all__ = ["LARGEST", "OnlineLearner"]


class OnlineLearner(Learner):
    """Plays points of a domain, sees the gradient of each round's loss; `runs` independent copies at once.

    Args:
        domain: where points are chosen.
        runs: how many independent copies, or their ids.
        device: where everything lies.
        low, high: the range that every coordinate of a gradient is declared to be in.

    Attributes:
        rounds: rounds observed.
        bound: {how it is called: function of this learner} path-wise bounds on the regret so far, (R,); see `named`.
    """

    def __init__(
        self,
        domain: Domain,
        runs: int | Sequence[int] = 1,
        device: torch.device | str = "cpu",
        low: float = -LARGEST,
        high: float = LARGEST,
    ) -> None:
        super().__init__(runs, device)
        if not low <= high:
            reject("loss range", "low at most high", f"[{low}, {high}]", "swap them")
        self.domain = domain
        self.low, self.high = max(float(low), -LARGEST), min(float(high), LARGEST)
        self.shape = (len(self.run_ids), domain.dimension)
        self.bound: Callable[[Any], Tensor] | None = None
        self._seen: tuple[Tensor, Tensor] | None = None

    def act(self, observation: Tensor | None = None) -> Tensor:
        """(R, d) the point of this round. Asked twice, it answers the same; the observation is of no effect."""
        return self._point

    def observe(self, action: Tensor, feedback: Feedback | Tensor) -> None:
        """Take in what the round revealed.

        Args:
            action: the point that was played.
            feedback: with the gradient (R, d) of the round's loss there, or that gradient itself.

        Raises:
            ValueError: no gradient, another shape, a number that is not finite or outside the declared range. On CUDA,
                where looking would stop the device, numbers are judged by the next `check`.
        """
        if not isinstance(feedback, Feedback):
            feedback = Feedback(gradient=feedback)
        gradient = feedback.gradient
        if gradient is None:
            reject("feedback.gradient", "the loss's gradient (full information)", "none", "choose a bandit learner")
        if gradient.shape != self.shape:
            fix = "one row a run, one column a coordinate"
            reject("feedback.gradient", f"shape {self.shape}", f"shape {tuple(gradient.shape)}", fix)
        least, largest = torch.aminmax(gradient)
        if self.device.type == "cpu":
            if not (self.low <= float(least) and float(largest) <= self.high):
                self._refuse(least, largest)
        elif self._seen is None:
            self._seen = least, largest
        else:  # NaN wins in both
            self._seen = torch.minimum(self._seen[0], least), torch.maximum(self._seen[1], largest)
        self._take(gradient, feedback)
        self.rounds += 1

    def check(self) -> None:
        """Raise what `observe` could not on CUDA: ValueError."""
        if self._seen is not None:
            least, largest = self._seen
            if not (self.low <= float(least) and float(largest) <= self.high):
                self._refuse(least, largest)

    def _refuse(self, least: Tensor, largest: Tensor) -> None:
        bounded = self.low > -LARGEST or self.high < LARGEST
        expected = f"losses in [{self.low:g}, {self.high:g}]" if bounded else "finite numbers"
        given = f"numbers from {float(least):g} to {float(largest):g} by round {self.rounds + 1}"
        reject("feedback.gradient", expected, given, "mend the world, or declare its range by low and high")

    def regret_bound(self) -> Tensor | None:
        """(R,) the theorem's bound on the regret of these rounds with these gradients; None where there is none."""
        return None if self.bound is None or not self.rounds else self.bound(self)

    # What a learner fills in.

    _point: Tensor

    @abstractmethod
    def _take(self, gradient: Tensor, feedback: Feedback) -> None:
        """Learn from a round and set `_point` to the next."""

    def _zeros(self) -> Tensor:
        return self.zeros(self.domain.dimension)
