"""Prediction with expert advice: K losses in {0, 1} or [0, 1] a round, and a distribution or one arm to answer with.

The stochastically constrained adversary is that of Zimmert and Seldin (JMLR 22(28), 2021, arXiv 1807.07623): the gaps
stay, the level jumps. The other problems are this suite's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from envs.regions import Arms, Simplex
from envs.regret_world import RegretWorld, SingleWorld, between, known, whole
from orbs import reject

__all__ = ["FEEDBACKS", "KINDS", "Experts", "single"]

KINDS = ("bernoulli", "second-best-overtakes", "stochastically-constrained")
FEEDBACKS = ("full", "bandit")


class Experts(RegretWorld):
    """Bernoulli losses of K experts with means that the kind moves; the better experts are the last ones.

    Kinds:
        bernoulli: means `means`, or (1 + gap) / 2 and for the last expert (1 - gap) / 2.
        second-best-overtakes: the last expert has mean (1 - gap) / 2 in the first half of the horizon and
            (1 + gap) / 2 after it; the one before it 1/2, then 1/2 - gap, and so overtakes after two thirds of the
            horizon; the others (1 + gap) / 2.
        stochastically-constrained: the means are 1 and for the last expert 1 - gap in even phases, gap and for the last
            0 in odd ones; phase p = 0, 1, .. is 1.6^p rounds long, ends adding up as reals, and a round t = 1, 2, ..
            belongs to the first phase with an end >= t.

    Feedback "full": an action is a distribution over the experts (R, K), its loss the mean of their losses, the
    feedback's gradient all of them. "bandit": an action is an arm (R,) int64, and the feedback holds the reward alone;
    the observation is the last loss (R, 1).

    Regret: "regret/static" (pseudo-regret: expected losses, against the expert of the least mean so far) and
    "regret/sampled" (losses as drawn, against the best expert in hindsight).

    Args:
        arms: K, at least 1 (second-best-overtakes: 2).
        horizon, runs, seed, device: as for `RegretWorld`.
        kind, feedback: as above.
        gap: from 0 to 1; to 1/2 for second-best-overtakes.
        means: (K,) in [0, 1], of "bernoulli", instead of a gap.

    Raises:
        ValueError: a value out of its range, an unknown kind or feedback, means for another kind.
    """

    def __init__(
        self,
        arms: int = 10,
        horizon: int = 1000,
        runs: int | Sequence[int] = 20,
        seed: int = 0,
        device: torch.device | str = "cpu",
        *,
        kind: str = "bernoulli",
        feedback: str = "full",
        gap: float = 0.1,
        means: Sequence[float] | None = None,
    ) -> None:
        self.kind, self.feedback = known("Experts.kind", kind, KINDS), known("Experts.feedback", feedback, FEEDBACKS)
        self.arms = whole("Experts.arms", arms, 2 if kind == "second-best-overtakes" else 1)
        self.gap = between("Experts.gap", gap, 0.0, 0.5 if kind == "second-best-overtakes" else 1.0)
        self.means: np.ndarray | None = None
        if means is not None:
            if kind != "bernoulli":
                reject("Experts.means", "none but for kind 'bernoulli'", f"means for '{kind}'", "leave them out")
            try:
                self.means = np.asarray(means, np.float64)
            except (TypeError, ValueError):
                reject("Experts.means", f"{self.arms} numbers in [0, 1]", repr(means), "give one an arm")
            if self.means.shape != (self.arms,) or not ((self.means >= 0) & (self.means <= 1)).all():
                reject("Experts.means", f"{self.arms} numbers in [0, 1]", self.means, "give one an arm")
        self._bandit = feedback == "bandit"
        region = Arms(self.arms) if self._bandit else Simplex(self.arms)
        facts: dict[str, Any] = dict(arms=self.arms, loss_low=0.0, loss_high=1.0)
        if self._bandit:
            facts |= dict(reward_low=-1.0, reward_high=0.0)
            if kind != "second-best-overtakes":
                facts["best_arm"] = self.arms - 1 if self.means is None else int(self.means.argmin())
        else:
            facts |= dict(gradient_bound=float(np.sqrt(self.arms)), smoothness=0.0)
        seen = (0.0, 1.0, (1,) if self._bandit else None)
        super().__init__(region, horizon, runs, seed, device, self.arms, facts, seen)

    def mean_losses(self, first: int, rounds: int) -> np.ndarray:
        """(rounds, K) the experts' mean losses in rounds first .. first + rounds - 1, counted from 0."""
        high, low = (1 + self.gap) / 2, (1 - self.gap) / 2
        t = np.arange(first + 1, first + rounds + 1)
        mean = np.full((rounds, self.arms), high)
        if self.kind == "bernoulli":
            mean[:, -1] = low
            return mean if self.means is None else np.tile(self.means, (rounds, 1))
        if self.kind == "second-best-overtakes":
            late = 2 * t > self.horizon
            mean[:, -1], mean[:, -2] = np.where(late, high, low), np.where(late, 0.5 - self.gap, 0.5)
            return mean
        ends = [1.0]
        while ends[-1] < t[-1]:
            ends.append(ends[-1] + 1.6 ** len(ends))
        even = np.searchsorted(ends, t) % 2 == 0
        mean[:] = np.where(even, 1.0, self.gap)[:, None]
        mean[:, -1] -= self.gap
        return np.asarray(np.clip(mean, 0.0, 1.0))

    def _draw(self, first: int, rounds: int) -> tuple[Tensor, ...]:
        mean = torch.as_tensor(self.mean_losses(first, rounds), device=self.device).unsqueeze(0)
        # A word is below mean 2^32 with that probability, exactly so for means 0 and 1; no float is made for it.
        words = self.philox.words("experts/losses", first, rounds, self.arms)
        return (words < torch.round(mean * 2.0**32).long()).double(), mean

    def _sums(self) -> dict[str, Tensor]:
        return {"expected": self.zeros(), "experts": self.zeros(self.arms), "means": self.zeros(self.arms)[:1]}

    def _play(self, x: Tensor, row: tuple[Tensor, ...]) -> tuple[Tensor, Tensor, dict[str, Tensor] | None]:
        losses, mean = row
        sums = self.sums
        sums["experts"] += losses
        sums["means"] += mean
        if self._bandit:
            arm = x.clamp(0, self.arms - 1)  # an arm outside is reported later on a device that does not wait
            loss = losses.gather(1, arm.unsqueeze(1))
            sums["expected"] += mean[0][arm]
            return loss[:, 0], loss, None
        sums["expected"] += (x * mean).sum(-1)
        return (x * losses).sum(-1), losses, {}

    def regret(self) -> dict[str, Tensor]:
        static = self.sums["expected"] - self.sums["means"].amin(-1)
        return {"regret/static": static, "regret/sampled": self.loss - self.sums["experts"].amin(-1)}


def single(**arguments: Any) -> SingleWorld:
    """One run as a gymnasium environment."""
    return SingleWorld(Experts, **arguments)
