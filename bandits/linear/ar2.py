"""AR2: bandits whose rewards are autoregressive, played by alternation of the better arm and of triggered ones.

Chen, Golrezaei, Bouneffouf, "Non-stationary bandits with auto-regressive temporal dependency", NeurIPS 2023, with the
constants of the experiments of "Dynamical Linear Bandits": alpha = rho, and an epoch of ceil(K alpha^-3 sigma^-3)
rounds. An epoch begins with one play of each arm, from the last to the first. Then, in even rounds, the superior arm is
played, the better estimated of the last two played; in odd ones the arm that was triggered first, if there is one. An
arm is triggered when it could have caught up with the superior one since it was last played; being played, in an even
round too, takes the mark away. Rounds are counted within the epoch. Arms that were triggered in one and the same round
are taken in a random order, each run's own: with the lowest first the paper's rule is 3 % worse on the advertising
system, where the order is never mixed again.

`replicate_quirks` follows the code released with that paper: the arms of the first pass but the last one all begin at
alpha^(K - 1) y and take one factor more, and a triggered arm stays so: once all are, odd rounds play a uniform one of
those that were triggered first.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from bandits.arm_learner import ArmLearner, Draws
from bandits.linear.arrays import where
from orbs import Feedback, array, reject

__all__ = ["AR2"]


class AR2(ArmLearner):
    """See the module.

    Args:
        arms: K.
        correlation: alpha, in (0, 1).
        noise: sigma > 0.
        replicate_quirks: see the module.
        runs, seed, device, low, high: as for `ArmLearner`.

    Attributes:
        epoch: rounds of an epoch.
    """

    def __init__(
        self, arms: int, correlation: float, noise: float, *, replicate_quirks: bool = False,
        runs: int | Sequence[int] = 1, seed: int = 0, device: torch.device | str = "cpu", **common: Any,
    ) -> None:  # fmt: skip
        super().__init__(arms, runs, seed, device, **common)
        for field, value, below in (("correlation", correlation, 1.0), ("noise", noise, math.inf)):
            if not 0 < value < below:
                wanted = "a number between 0 and 1, exclusive" if below == 1 else "a finite number above 0"
                reject(field, wanted, value, "choose a problem whose rewards depend on the past and are noisy")
        alpha, s = correlation, noise
        if math.log(alpha) + math.log(s) < -200:
            reject("correlation, noise", "numbers whose cubes are above 0", f"{alpha}, {s}", "choose another problem")
        self.alpha, self.quirks = alpha, replicate_quirks
        self.epoch = math.ceil(arms * alpha**-3 * s**-3)
        c0 = math.sqrt(max(0.0, 4 * math.log(1 / (alpha * s)) + 4 * math.log(self.epoch) + 2 * math.log(4 * arms)))
        self._slack = 24 * c0 * s / math.sqrt(1 - alpha**2)
        self.estimates, self.last, self.triggered = self.zeros(arms), self.zeros(arms), self.zeros(arms)
        self.recent = torch.zeros(self.runs, 2, dtype=torch.int64, device=self.device)  # the last arm, the one before
        self.arm = torch.zeros(self.runs, dtype=torch.int64, device=self.device)
        self._r, self._last = array(self.estimates.mT), array(self.last.mT)
        self._when, self._recent = array(self.triggered.mT), array(self.recent.mT)
        self._arm, self._lanes = array(self.arm), array(torch.arange(self.runs, device=self.device))
        self._rows = array(torch.arange(arms, device=self.device).unsqueeze(1))
        self._when[:] = math.inf
        self._draws = Draws(self.philox, "ar2/ties", arms)
        self._pick(0)

    def _pick(self, rounds: int) -> None:
        """The arm of the coming round, `rounds` having passed."""
        place, arms = rounds % self.epoch, self.arms
        if place == 0:
            self._when[:] = math.inf
        if place < arms:
            self._arm[:] = arms - 1 - place
            return
        t, lanes = place + 1, self._lanes
        one, other = self._recent[0], self._recent[1]
        first, second = self._r[one, lanes], self._r[other, lanes]
        best = where(first >= second, one, other)
        spread = (self.alpha**2 - self.alpha ** (2.0 * (t - self._last + 1))).clip(0.0) ** 0.5
        due = (where(first >= second, first, second) - self._r <= self._slack * spread) & (self._rows != best)
        self._when[:] = where(due & (self._when == math.inf), 1.0 * t, self._when)
        if t % 2 == 0:
            self._arm[:] = best
            return
        # Of those triggered in one and the same round, whichever draws the least.
        waiting = self._when + 0.5 * array(self._draws(rounds).mT)
        earliest = waiting.argmin(0)
        self._arm[:] = where(waiting[earliest, lanes] < math.inf, earliest, best)

    def _choose(self, observation: Tensor | None) -> Tensor:
        return self.arm.clone()

    def _take(self, action: Tensor, reward: Tensor, feedback: Feedback) -> None:
        place = self.rounds % self.epoch
        played = self._rows == array(action)
        y = array(reward)
        if self.quirks and place < self.arms - 1:
            self._r[:] = where(played, self.alpha ** (self.arms - 1) * y, self._r)
        else:
            self._r *= self.alpha
            self._r[:] = where(played, self.alpha * y, self._r)
        self._last[:] = where(played, 1.0 * (place + 1), self._last)
        if not self.quirks:
            self._when[:] = where(played, math.inf, self._when)
        self._recent[1] = self._recent[0]
        self._recent[0] = array(action)
        self._pick(self.rounds + 1)

    def _tensors(self) -> dict[str, Tensor]:
        return {
            "estimates": self.estimates, "last": self.last, "triggered": self.triggered, "recent": self.recent,
            "arm": self.arm,
        }  # fmt: skip

    def finite(self) -> Tensor:
        return torch.isfinite(self.estimates).all(-1)
