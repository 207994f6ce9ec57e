"""Exp3 and its kin: exponential weights of importance-weighted rewards, for rewards that anybody may have chosen.

Exp3, Exp3.S: Auer, Cesa-Bianchi, Freund, Schapire, SIAM J. Comput. 2002. Exp3 on losses, Exp3.P: as in Bubeck and
Cesa-Bianchi, arXiv 1204.5721. Exp3-IX: Neu, arXiv 1506.03271. Rexp3: Besbes, Gur, Zeevi, arXiv 1405.3316. Differences:
rates that a short horizon would drive above their range are cut to it; weights are kept as sums of estimates (Exp3.S:
as shares), so that none overflows. Everything is in rewards moved into [0, 1], losses are 1 - reward.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

from torch import Tensor

from bandits.multi_armed.weighted_arms import WeightedArms, between, exponential_weights, known_horizon

__all__ = ["Exp3", "Exp3Auer", "Exp3IX", "Exp3P", "Exp3S", "Rexp3", "exp3p_bound", "exp3p_rates", "loss_rate"]

Runs = int | Sequence[int]


def loss_rate(arms: int, choices: int, t: int, horizon: int | None) -> float:
    """Of weights over `choices`: sqrt(ln N / (K t)), with a horizon sqrt(2 ln N / (K T))."""
    return math.sqrt(math.log(choices) / (arms * t) if horizon is None else 2 * math.log(choices) / (arms * horizon))


def auer_exploration(arms: int, horizon: int) -> float:
    """min(1, sqrt(K ln K / ((e - 1) T)))."""
    return min(1.0, math.sqrt(arms * math.log(arms) / ((math.e - 1) * horizon)))


def exp3p_rates(arms: int, horizon: int, delta: float) -> tuple[float, float, float]:
    """Exp3.P's bonus b, rate eta and exploration g (at most 1)."""
    bonus = math.sqrt(math.log(arms / delta) / (horizon * arms))
    rate = 0.95 * math.sqrt(math.log(arms) / (horizon * arms))
    return bonus, rate, min(1.0, 1.05 * math.sqrt(arms * math.log(arms) / horizon))


def exp3p_bound(arms: int, horizon: int, delta: float) -> float:
    """5.15 sqrt(T K ln(K / delta)): Exp3.P's regret exceeds it with probability delta at most."""
    return 5.15 * math.sqrt(horizon * arms * math.log(arms / delta))


def rexp3_epoch(arms: int, horizon: int, variation: float) -> int:
    """ceil((K ln K)^(1/3) (T / V)^(2/3)) rounds, from 1 to T."""
    length: float = (arms * math.log(arms)) ** (1 / 3) * (horizon / variation) ** (2 / 3)
    return min(horizon, max(1, math.ceil(length)))


class _Scored(WeightedArms):
    """Keeps `scores` (R, K): estimated rewards (or minus losses) so far, up to one constant a run: the largest is 0."""

    def __init__(self, arms: int, runs: Runs = 1, seed: int = 0, **common: Any) -> None:
        super().__init__(arms, runs, seed, **common)
        self.scores = self.zeros(arms)

    def _tensors(self) -> dict[str, Tensor]:
        return {"scores": self.scores}


class Exp3(_Scored):
    """p from exp(-eta sum of losses / p); eta_t = sqrt(ln K / (K t)), or sqrt(2 ln K / (K T)) with a horizon.

    Args:
        arms, runs, seed, device, low, high: as for `WeightedArms`.
        horizon: T; anytime where it is None.
        rate: a constant eta instead.
    """

    name: ClassVar[str] = "exp3"

    def __init__(
        self, arms: int, runs: Runs = 1, seed: int = 0, *, horizon: int | None = None, rate: float | None = None,
        **common: Any,
    ) -> None:  # fmt: skip
        super().__init__(arms, runs, seed, **common)
        self.horizon = None if horizon is None else known_horizon(horizon)
        self.rate = None if rate is None else between("rate", rate, 0.0, math.inf, "()")
        self._weigh(1)

    def rate_at(self, t: int) -> float:
        """eta of round t, counted from 1."""
        return loss_rate(self.arms, self.arms, t, self.horizon) if self.rate is None else self.rate

    def _learn(self, arm: Tensor, reward: Tensor, chance: Tensor) -> None:
        self.scores.scatter_add_(1, arm, self._loss(reward).neg_().div_(chance))

    def _weigh(self, t: int) -> None:
        self.probabilities = exponential_weights(self.scores, self.rate_at(t))


class Exp3IX(Exp3):
    """Exp3 with losses / (p + g), g = eta / 2: estimates too small on average, and never large."""

    name: ClassVar[str] = "exp3-ix"

    def _learn(self, arm: Tensor, reward: Tensor, chance: Tensor) -> None:
        chance = chance + 0.5 * self.rate_at(self.rounds + 1)
        self.scores.scatter_add_(1, arm, self._loss(reward).neg_().div_(chance))


class Exp3Auer(_Scored):
    """On rewards: p = (1 - g) softmax(g / K sum of rewards / p) + g / K.

    Args:
        arms, runs, seed, device, low, high: as for `WeightedArms`.
        horizon: T, which sets g to min(1, sqrt(K ln K / ((e - 1) T))).
        exploration: g instead.

    Raises:
        ValueError: neither of them.
    """

    name: ClassVar[str] = "exp3-auer"

    def __init__(
        self, arms: int, runs: Runs = 1, seed: int = 0, *, horizon: int | None = None,
        exploration: float | None = None, **common: Any,
    ) -> None:  # fmt: skip
        super().__init__(arms, runs, seed, **common)
        if exploration is None:
            exploration = auer_exploration(arms, known_horizon(horizon))
        self.exploration = between("exploration", exploration, 0.0, 1.0)
        self._weigh(1)

    def _learn(self, arm: Tensor, reward: Tensor, chance: Tensor) -> None:
        self.scores.scatter_add_(1, arm, self.unit(reward) / chance)

    def _weigh(self, t: int) -> None:
        g = self.exploration
        self.probabilities = exponential_weights(self.scores, g / self.arms).mul_(1 - g).add_(g / self.arms)


class Rexp3(Exp3Auer):
    """Exp3 on rewards that forgets everything after each epoch, for means that drift by V in all.

    Args:
        arms, runs, seed, device, low, high: as for `WeightedArms`.
        horizon: T.
        variation: V; an epoch has ceil((K ln K)^(1/3) (T / V)^(2/3)) rounds, and g is Exp3's for that many.
    """

    name: ClassVar[str] = "rexp3"

    def __init__(
        self, arms: int, runs: Runs = 1, seed: int = 0, *, horizon: int, variation: float = 1.0, **common: Any
    ) -> None:
        super().__init__(arms, runs, seed, exploration=1.0, **common)
        self.epoch = rexp3_epoch(arms, known_horizon(horizon), between("variation", variation, 0.0, math.inf, "()"))
        self.exploration = auer_exploration(arms, self.epoch)

    def _learn(self, arm: Tensor, reward: Tensor, chance: Tensor) -> None:
        super()._learn(arm, reward, chance)
        if (self.rounds + 1) % self.epoch == 0:
            self.scores.zero_()


class Exp3P(_Scored):
    """p = (1 - g) softmax(eta G) + g / K, where every arm's G grows by (x 1{played} + b) / p: regret in probability.

    Args:
        arms, runs, seed, device, low, high: as for `WeightedArms`.
        horizon: T.
        delta: how often the bound may fail; see `exp3p_bound`, `exp3p_rates`.
    """

    name: ClassVar[str] = "exp3-p"

    def __init__(
        self, arms: int, runs: Runs = 1, seed: int = 0, *, horizon: int, delta: float = 0.05, **common: Any
    ) -> None:
        super().__init__(arms, runs, seed, **common)
        between("delta", delta, 0.0, 1.0, "()")
        self.bonus, self.rate, self.exploration = exp3p_rates(arms, known_horizon(horizon), delta)
        self._weigh(1)

    def _learn(self, arm: Tensor, reward: Tensor, chance: Tensor) -> None:
        self.scores.add_(self.probabilities.reciprocal(), alpha=self.bonus)
        self.scores.scatter_add_(1, arm, self.unit(reward) / chance)

    def _weigh(self, t: int) -> None:
        g = self.exploration
        self.probabilities = exponential_weights(self.scores, self.rate).mul_(1 - g).add_(g / self.arms)


class Exp3S(WeightedArms):
    """Exp3 on rewards whose arms each get e alpha / K of all weight a round: it follows a best arm that changes.

    Args:
        arms, runs, seed, device, low, high: as for `WeightedArms`.
        horizon: T; alpha is 1 / T.
        segments: S, stretches of rounds with one best arm, which sets the exploration g to
            min(1, sqrt(K (S ln(K T) + e) / ((e - 1) T))); min(1, sqrt(K ln(K T) / T)) where it is None.

    Attributes:
        shares: (R, K) weights over their sum; none falls below about alpha / K, so these need no logarithm.
    """

    name: ClassVar[str] = "exp3-s"

    def __init__(
        self, arms: int, runs: Runs = 1, seed: int = 0, *, horizon: int, segments: int | None = None, **common: Any
    ) -> None:
        super().__init__(arms, runs, seed, **common)
        log = math.log(arms * known_horizon(horizon))
        square = log
        if segments is not None:
            square = (between("segments", segments, 1, math.inf, "[)") * log + math.e) / (math.e - 1)
        self.exploration = min(1.0, math.sqrt(arms * square / horizon))
        self.share = 1.0 / horizon
        self.shares = self.zeros(arms).add_(1.0 / arms)
        self._weigh(1)

    def _learn(self, arm: Tensor, reward: Tensor, chance: Tensor) -> None:
        growth = (self.unit(reward) / chance).mul_(self.exploration / self.arms).exp_()
        given = math.e * self.share / self.arms
        self.shares.scatter_(1, arm, self.shares.gather(1, arm) * growth).add_(given)
        self.shares.div_(self.shares.sum(-1, keepdim=True))

    def _weigh(self, t: int) -> None:
        g = self.exploration
        self.probabilities = (self.shares * (1 - g)).add_(g / self.arms)

    def _tensors(self) -> dict[str, Tensor]:
        return {"shares": self.shares}
