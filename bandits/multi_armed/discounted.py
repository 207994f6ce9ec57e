"""UCB for means that change: over a window of rounds (SW-UCB), or with discounted rounds (D-UCB).

Garivier and Moulines, "On upper-confidence bound policies for non-stationary bandit problems" (ALT 2011,
arXiv 0805.3415). An arm without plays in the window is played next.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from bandits.multi_armed.arm_means import IndexLearner
from orbs import Feedback, reject

__all__ = ["DiscountedUCB", "SlidingWindowUCB", "window_index"]


def window_index(sums: Tensor, plays: Tensor, log_time: Tensor | float, factor: float) -> Tensor:
    """(R, K) sums / plays + factor sqrt(log_time / plays); infinite where an arm has no plays, log_time >= 0."""
    return torch.where(plays > 0, sums / plays + factor * (log_time / plays).sqrt(), torch.inf)


class SlidingWindowUCB(IndexLearner):
    """argmax m + scale sqrt(xi ln(min(t, window)) / n), means and plays over the last `window` rounds.

    Args:
        arms, runs, seed, device, low, high, ties: as for `IndexLearner`; with a finite range rewards are moved into
            [0, 1].
        window: rounds that are remembered, at least 1; all of them are kept, R x window numbers.
        xi: of the bonus, above 0.
        scale: length of the range of rewards, 1 once they are moved; sigma for Gaussian rewards.
    """

    label: ClassVar[str] = "sw-ucb"

    def __init__(
        self, arms: int, runs: int | Sequence[int] = 1, seed: int = 0, *, window: int, xi: float = 0.6,
        scale: float = 1.0, **common: Any,
    ) -> None:  # fmt: skip
        super().__init__(arms, runs, seed, **common)
        if window < 1:
            reject("window", "at least 1 round", window, "make it longer")
        if not xi > 0:
            reject("xi", "a number above 0", xi, "e.g. 0.6")
        self.window, self.factor = window, scale * math.sqrt(xi)
        self._last_arms, self._last_rewards = self.zeros(window).long(), self.zeros(window)

    def _index(self) -> Tensor:
        log = math.log(min(self.rounds + 1, self.window))
        return window_index(self.sums, self.plays, log, self.factor)

    def _take(self, action: Tensor, reward: Tensor, feedback: Feedback) -> None:
        slot, moved = self.rounds % self.window, self.moved(reward)
        arms, rewards = self._last_arms[:, slot], self._last_rewards[:, slot]
        if self.rounds >= self.window:
            old = arms.unsqueeze(1)
            self.plays.scatter_add_(1, old, torch.full_like(reward, -1.0).unsqueeze(1))
            self.sums.scatter_add_(1, old, -rewards.unsqueeze(1))
        self._count(action, moved)
        arms.copy_(action)
        rewards.copy_(moved)

    def _tensors(self) -> dict[str, Tensor]:
        return {**super()._tensors(), "last_arms": self._last_arms, "last_rewards": self._last_rewards}


class DiscountedUCB(IndexLearner):
    """argmax m + 2 scale sqrt(xi ln(sum n) / n), a round that is u rounds past counting g^u in m and n.

    Args:
        arms, runs, seed, device, low, high, ties: as for `IndexLearner`; with a finite range rewards are moved into
            [0, 1].
        discount: g in (0, 1]; at 1 nothing is forgotten.
        xi, scale: as for `SlidingWindowUCB`.
    """

    label: ClassVar[str] = "d-ucb"

    def __init__(
        self, arms: int, runs: int | Sequence[int] = 1, seed: int = 0, *, discount: float, xi: float = 0.6,
        scale: float = 1.0, **common: Any,
    ) -> None:  # fmt: skip
        super().__init__(arms, runs, seed, **common)
        if not 0 < discount <= 1:
            reject("discount", "a number in (0, 1]", discount, "e.g. 0.99")
        if not xi > 0:
            reject("xi", "a number above 0", xi, "e.g. 0.6")
        self.discount, self.factor = discount, 2.0 * scale * math.sqrt(xi)

    def _index(self) -> Tensor:
        log = self.plays.sum(-1, keepdim=True).clamp_min(1.0).log()
        return window_index(self.sums, self.plays, log, self.factor)

    @property
    def means(self) -> Tensor:
        """(R, K) discounted, 0 where the arm was not played."""
        return self.sums / torch.where(self.plays > 0, self.plays, 1.0)

    def _take(self, action: Tensor, reward: Tensor, feedback: Feedback) -> None:
        self.plays *= self.discount
        self.sums *= self.discount
        self._count(action, self.moved(reward))
