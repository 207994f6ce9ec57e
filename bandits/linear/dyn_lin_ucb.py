"""DynLin-UCB: optimism for rewards that are the output of a hidden linear system, by holding each action for a while.

Mussi, Metelli, Restelli, "Dynamical Linear Bandits", ICML 2023, arXiv 2211.08997. Epoch m holds one action for 1 + H_m
rounds, H_m = floor(ln m / ln(1 / rho)), and learns from the last reward alone, when what came before has decayed.

From the authors' code it differs in this: rounds are counted from 1, so that every epoch ends on its own last reward
(`replicate_offset` starts each a round late, as theirs); ties go to the lowest index within 1e-10, because with the
paper's actions an exact tie occurs in the third epoch, which rounding would decide; rho is a modulus, never complex.
"""

from __future__ import annotations

import dataclasses
import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from bandits.arm_learner import ArmLearner
from bandits.linear.arrays import Array, first_best
from bandits.linear.count_ridge import CountRidge
from bandits.linear.dynamics import Dynamics, Epochs
from bandits.linear.ridge import TIES
from orbs import Feedback, array, reject, tensor

__all__ = ["CountUCB", "DynLinUCB", "ridge_of"]


def checked_features(features: Any, device: torch.device | str) -> Tensor:
    """(K, d) float64 on the device.

    Raises:
        ValueError: no actions, another number of axes, numbers that are not finite.
    """
    found = torch.as_tensor(features, dtype=torch.float64, device=device)
    if found.ndim != 2 or 0 in found.shape:
        reject("features", "actions (K, d), at least one", f"shape {tuple(found.shape)}", "give a row an action")
    if not bool(torch.isfinite(found).all()):
        reject("features", "finite numbers", "a NaN or inf", "mend the actions")
    return found


def ridge_of(horizon: int, given: float | None) -> float:
    """lam: as given, else ln T (of at least 2 rounds, so that it is positive)."""
    return math.log(max(horizon, 2)) if given is None else given


class CountUCB(ArmLearner):
    """argmax <h_hat, u> + beta(t) ||u||_{V^-1} over K fixed actions, from counts and sums.

    The arm of the coming round is chosen as soon as the round before it is over, so `act` costs nothing.

    Args:
        features: (K, d), the actions.
        ridge: lam.
        first_action: the first arm; drawn uniformly if None (all actions of one norm tie then).
        purpose: of the random numbers.
        runs, seed, device, low, high: as for `ArmLearner`.

    Attributes:
        plays, sums: (R, K) the samples of each arm that were learned from, and what they add up to.
    """

    def __init__(
        self, features: Any, ridge: float, first_action: int | None, purpose: str, runs: int | Sequence[int] = 1,
        seed: int = 0, device: torch.device | str = "cpu", **common: Any,
    ) -> None:  # fmt: skip
        u = checked_features(features, device)
        super().__init__(len(u), runs, seed, device, **common)
        if first_action is not None and not 0 <= first_action < self.arms:
            reject("first_action", f"None, or an arm from 0 to {self.arms - 1}", first_action, "choose one")
        self.features, self.ridge_weight = u, ridge
        self.ridge = CountRidge(u, self.runs)
        self.plays, self.sums = self.zeros(self.arms), self.zeros(self.arms)
        if first_action is None:
            u0 = self.philox.uniform(f"{purpose}/first", 0, 1, 1, torch.float64)[:, 0, 0]
            self._arm = (u0 * self.arms).long().clamp_max(self.arms - 1)
        else:
            self._arm = torch.full((self.runs,), first_action, device=self.device)
        self._counts, self._sums = array(self.plays.mT), array(self.sums.mT)
        self._rows = array(torch.arange(self.arms, device=self.device).unsqueeze(1))
        self._chosen = array(self._arm)

    @property
    def estimate(self) -> Tensor:
        """(R, d) h_hat."""
        return self.ridge.estimate(self._counts, self._sums, self.ridge_weight)

    @abstractmethod
    def beta(self, time: int) -> float:
        """The radius for a choice after `time` rounds."""

    def widths(self) -> Tensor:
        """(R, K) ||u||_{V^-1} of each arm."""
        return tensor(self.ridge.look(self._counts, self._sums, self.ridge_weight)[1]).sqrt().mT

    def _choose(self, observation: Tensor | None) -> Tensor:
        return self._arm.clone()  # whoever keeps it must not see the next round's

    def _learn(self, action: Tensor, reward: Tensor) -> None:
        played = self._rows == array(action)
        self._counts += played
        self._sums += played * array(reward)

    def _scores(self, time: int) -> Array:
        means, widths2 = self.ridge.look(self._counts, self._sums, self.ridge_weight)
        return means + self.beta(time) * widths2**0.5

    def _next(self, time: int) -> None:
        self._chosen[:] = first_best(self._scores(time), TIES)

    def _take(self, action: Tensor, reward: Tensor, feedback: Feedback) -> None:
        self._learn(action, reward)
        self._next(self.rounds + 1)

    def _tensors(self) -> dict[str, Tensor]:
        return {"plays": self.plays, "sums": self.sums, "arm": self._arm}


class DynLinUCB(CountUCB):
    """See the module.

    Args:
        features: (K, d), the actions.
        dynamics: what is known of the system.
        horizon: T; delta = 1 / T.
        ridge: lam; ln T if None, the recommended tuning (the paper's other one is 1).
        spectral_radius: rho_bar in place of the dynamics' one; below 1e-4 (0, say) nothing is held: that is LinUCB with
            this radius.
        first_action: the first arm; drawn uniformly if None.
        replicate_offset: the authors' schedule: the first action is held a round longer, and all later ones start a
            round late.
        runs, seed, device, low, high: as for `ArmLearner`.

    Raises:
        ValueError: no actions, a spectral radius of 1 or more, a horizon or ridge that is none.
    """

    holds = True

    def __init__(
        self, features: Any, dynamics: Dynamics, horizon: int, *, ridge: float | None = None,
        spectral_radius: float | None = None, first_action: int | None = None, replicate_offset: bool = False,
        runs: int | Sequence[int] = 1, seed: int = 0, device: torch.device | str = "cpu", **common: Any,
    ) -> None:  # fmt: skip
        if horizon < 1:
            reject("horizon", "at least 1 round", horizon, "give the number of rounds")
        if ridge is not None and not (math.isfinite(ridge) and ridge > 0):
            reject("ridge", "a finite number above 0, or None for ln T", ridge, "e.g. 1.0")
        if spectral_radius is not None:
            dynamics = dataclasses.replace(dynamics, spectral_radius=spectral_radius)
        super().__init__(features, ridge_of(horizon, ridge), first_action, "dyn-lin-ucb", runs, seed, device, **common)
        self.dynamics, self.horizon = dynamics, horizon
        self.epochs = Epochs(dynamics.spectral_radius, int(replicate_offset))

    def beta(self, time: int) -> float:
        return self.dynamics.radius(time, self.horizon, self.ridge_weight, self.features.shape[1])

    def hold(self) -> int:
        """Rounds, the coming one included, for which the arm stays."""
        return self.epochs.end - self.rounds

    def _take(self, action: Tensor, reward: Tensor, feedback: Feedback) -> None:
        done = self.rounds + 1
        if done < self.epochs.end:
            return
        self._learn(action, reward)
        self._next(done)
        self.epochs.advance()

    def _loaded(self) -> None:
        self.epochs.seek(self.rounds)
