"""LinUCB and D-LinUCB as the experiments of "Dynamical Linear Bandits" tune them (Mussi, Metelli, Restelli, ICML 2023).

They take each round's reward for the action's own, which it is not where actions work on: they are what DynLin-UCB is
measured against. For linear bandits proper see `lin_ucb.py` and `discounted.py`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from bandits.linear.arrays import Array, joined
from bandits.linear.count_ridge import CountRidge
from bandits.linear.dyn_lin_ucb import CountUCB, ridge_of
from bandits.linear.dynamics import Dynamics
from orbs import Feedback, array, reject, tensor

__all__ = ["DynamicalDLinUCB", "DynamicalLinUCB", "ExperimentFacts"]


LARGEST_POWER = 300.0  # of e, so that sums of squares of what is undone stay numbers too


@dataclasses.dataclass(frozen=True)
class ExperimentFacts:
    """What these baselines know: the system's bounds, T, and the most that an action's coordinates add up to."""

    dynamics: Dynamics
    horizon: int
    budget: float

    def __post_init__(self) -> None:
        if self.horizon < 1:
            reject("horizon", "at least 1 round", self.horizon, "give the number of rounds")
        if not (math.isfinite(self.budget) and self.budget >= 0):
            reject("budget", "a finite number of at least 0", self.budget, "give the largest sum of an action's inputs")


def _known(tuning: str, known: Sequence[str]) -> None:
    if tuning not in known:
        reject("tuning", " or ".join(map(repr, known)), repr(tuning), "choose one")


class DynamicalLinUCB(CountUCB):
    """LinUCB that learns from every round.

    Args:
        features: (K, d), the actions.
        facts: see `ExperimentFacts`.
        tuning: "log", lam = ln T and DynLin-UCB's radius without its transient term; "one", lam = 1 and the radius
            Th sqrt(lam) + sqrt(2 ln T + d ln((d lam + T budget^2) / (d lam))), in which the noise does not appear;
            "dynamic", lam = ln T and DynLin-UCB's own radius.
        first_action, runs, seed, device, low, high: as for `CountUCB`.
    """

    def __init__(
        self, features: Any, facts: ExperimentFacts, *, tuning: Literal["log", "one", "dynamic"] = "log",
        first_action: int | None = None, runs: int | Sequence[int] = 1, seed: int = 0,
        device: torch.device | str = "cpu", **common: Any,
    ) -> None:  # fmt: skip
        _known(tuning, ("log", "one", "dynamic"))
        ridge = ridge_of(facts.horizon, 1.0 if tuning == "one" else None)
        super().__init__(features, ridge, first_action, "dynamical-lin-ucb", runs, seed, device, **common)
        self.facts, self.tuning = facts, tuning

    def beta(self, time: int) -> float:
        known, lam, d = self.facts.dynamics, self.ridge_weight, self.features.shape[1]
        if self.tuning == "one":
            horizon, budget = self.facts.horizon, self.facts.budget
            volume = d * math.log1p(horizon * budget**2 / (d * lam))
            return known.action_weight * math.sqrt(lam) + math.sqrt(2 * math.log(horizon) + volume)
        return known.radius(time, self.facts.horizon, lam, d, transient=self.tuning == "dynamic")


class DynamicalDLinUCB(CountUCB):
    """D-LinUCB in its two published tunings.

    Args:
        features: (K, d), the actions.
        facts: see `ExperimentFacts`.
        tuning: "log", lam = ln T and discount 0.999999 within the radius alone (V is not discounted); "one", lam = 1,
            discount 0.999999999, V and W discounted towards mu_t = lam discount^-t.
        discount: in place of these.
        first_action, runs, seed, device, low, high: as for `CountUCB`.
    """

    def __init__(
        self, features: Any, facts: ExperimentFacts, *, tuning: Literal["log", "one"] = "log",
        discount: float | None = None, first_action: int | None = None, runs: int | Sequence[int] = 1, seed: int = 0,
        device: torch.device | str = "cpu", **common: Any,
    ) -> None:  # fmt: skip
        _known(tuning, ("log", "one"))
        default = 0.999999 if tuning == "log" else 0.999999999
        self.discount = default if discount is None else discount
        if not 0 < self.discount < 1:
            reject("discount", "a number between 0 and 1, exclusive", discount, "e.g. 0.999999")
        if tuning == "one" and -facts.horizon * math.log(self.discount) > LARGEST_POWER:
            least = math.exp(-LARGEST_POWER / facts.horizon)
            wanted = f"at least {least:.8f}, whose power of -{facts.horizon} is no overflow"
            reject("discount", wanted, discount, "forget more slowly: this tuning undoes the discount")
        ridge = ridge_of(facts.horizon, 1.0 if tuning == "one" else None)
        super().__init__(features, ridge, first_action, "dynamical-d-lin-ucb", runs, seed, device, **common)
        self.facts, self.tuning = facts, tuning
        if tuning == "one":
            # V and W are sums over the actions and, for their ridges, over the unit vectors.
            d = self.features.shape[1]
            eye = torch.eye(d, dtype=torch.float64, device=self.device)
            self._all = CountRidge(torch.cat([self.features, eye]), self.runs)
            self.once, self.twice = self.zeros(self.arms + d), self.zeros(self.arms + d)
            self.once[:, self.arms :] = self.twice[:, self.arms :] = self.ridge_weight
            self._once, self._twice = array(self.once.mT), array(self.twice.mT)
            self._none = array(self.zeros(d).mT)

    def beta(self, time: int) -> float:
        known, lam, d, g = self.facts.dynamics, self.ridge_weight, self.features.shape[1], self.discount
        seen = -math.expm1(2 * time * math.log(g)) / (1 - g * g)  # (1 - g^2t) / (1 - g^2)
        if self.tuning == "log":
            return known.radius(time * seen, self.facts.horizon, lam, d, transient=False)
        mu = lam * g**-time
        volume = d * math.log1p(self.facts.budget**2 * seen / (d * mu))
        return known.action_weight * math.sqrt(mu) + known.noise * math.sqrt(2 * math.log(self.facts.horizon) + volume)

    @property
    def estimate(self) -> Tensor:
        if self.tuning == "log":
            return super().estimate
        return self._all.estimate(self._once, joined(self._sums, self._none), 0.0)

    def widths(self) -> Tensor:
        if self.tuning == "log":
            return super().widths()
        widths2 = self._all.look(self._once, joined(self._sums, self._none), 0.0)[1]
        return tensor(widths2[: self.arms]).sqrt().mT

    def _take(self, action: Tensor, reward: Tensor, feedback: Feedback) -> None:
        if self.tuning == "one":
            g, arms = self.discount, self.arms
            mu = self.ridge_weight * g**-self.rounds
            self._once *= g
            self._twice *= g * g
            self._sums *= g
            self._once[arms:] += (1 - g) * mu
            self._twice[arms:] += (1 - g * g) * mu
            played = self._rows == array(action)
            self._once[:arms] += played
            self._twice[:arms] += played
        super()._take(action, reward, feedback)

    def _scores(self, time: int) -> Array:
        if self.tuning == "log":
            return super()._scores(time)
        arms = self.arms
        means, products = self._all.products(self._once, joined(self._sums, self._none), arms)
        width2 = (products * products * self._twice[:, None]).sum(0)
        return means[:arms] + self.beta(time) * width2**0.5

    def _tensors(self) -> dict[str, Tensor]:
        more = {"once": self.once, "twice": self.twice} if self.tuning == "one" else {}
        return {**super()._tensors(), **more}
