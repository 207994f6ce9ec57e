"""FTRL at every state on estimated Q functions minus dilated bonuses, with a simulator: what its learners share.

An episode: play the policy, estimate the inverse covariance of its features, add Qhat - B to what is cumulated over
states, actions and steps. Estimates are not clipped: that would destroy their mean. Losses are moved to [0, 1] first.
"""

from __future__ import annotations

import dataclasses
import math
from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from bandits.mdp.base import PolicyLearner
from bandits.mdp.dilated_bonus import DilatedBonus, local_bonus
from bandits.mdp.inverse_covariance import InverseCovariance
from bandits.mdp.linear_features import LinearFeatures
from bandits.mdp.occupancy import Simulator
from orbs import Feedback, reject

__all__ = ["CumulativeLearner", "DilatedFTRL", "Rates", "by_met", "fresh_trajectories"]


SMALLEST = 1e-100  # gamma whose inverse, squared, is finite


@dataclasses.dataclass(frozen=True)
class Rates:
    """eta, the learning rate; beta, the size of the bonus; gamma, what is added to covariances."""

    eta: float
    beta: float
    gamma: float


def fresh_trajectories(dimension: int, steps: int, horizon: int, gamma: float) -> int:
    """ceil(4 ln(dHK)/gamma): enough for a covariance within a factor of 2, or for the correction of A2."""
    return math.ceil(4.0 * math.log(max(2.0, dimension * steps * horizon)) / gamma)


def by_met(inverse: Tensor, met: Tensor) -> Tensor:
    """(R, H, d): Sdag_h phi_h of symmetric matrices (R, H, d, d) and features (R, H, d)."""
    size = met.shape[-1]  # a row times a matrix takes half the time of a matrix times a column
    return torch.bmm(met.view(-1, 1, size), inverse.view(-1, size, size)).view(met.shape)


class CumulativeLearner(PolicyLearner):
    """Policies that are functions of numbers cumulated over (h, s, a): what follows from the episode's losses.

    Args:
        states, actions, steps, runs, seed, device: see `PolicyLearner`.
        low, high: the range of losses, low < high; rewards are their negatives.

    Attributes:
        cumulative: (R, H, S, A).
    """

    def __init__(
        self, states: int, actions: int, steps: int, runs: int | Sequence[int] = 1, seed: int = 0,
        device: torch.device | str = "cpu", low: float = 0.0, high: float = 1.0,
    ) -> None:  # fmt: skip
        super().__init__(states, actions, steps, runs, seed, device)
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            reject("loss range", "finite low < high", f"[{low}, {high}]", "give the range of losses")
        self.low, self.high = float(low), float(high)
        shape = self.runs, steps, states, actions
        self.cumulative = torch.zeros(shape, dtype=torch.float64, device=self.device)
        # Losses-to-go from rewards in one product: -(r + low)/(high - low), summed over the coming steps.
        ones = torch.ones(steps, steps, dtype=torch.float64, device=self.device).tril()
        self._tail = -ones / (high - low)
        self._tail_shift = (low * self._tail).sum(0)

    def _tensors(self) -> dict[str, Tensor]:
        return {"cumulative": self.cumulative}

    def unit(self, rewards: Tensor) -> Tensor:
        """The losses in [0, 1] of rewards of any shape."""
        return (rewards + self.low) * (-1.0 / (self.high - self.low))

    def losses_to_go(self, rewards: Tensor) -> Tensor:
        """(R, H): L_h = sum_{i >= h} l_i, in [0, H - h], of rewards (R, H)."""
        return torch.addmm(self._tail_shift, rewards, self._tail)

    def loss_table(self, feedback: Feedback) -> Tensor:
        """(R or 1, H, S A) the whole loss of the episode, in [0, 1].

        Raises:
            ValueError: the world does not reveal it, or in another shape.
        """
        table = feedback.terms.get("loss_table")
        if table is None:
            there = ", ".join(feedback.terms) or "none"
            reject("feedback.terms['loss_table']", "the episode's whole loss (full information)", there,
                   "play a problem that reveals it, or a learner from bandit feedback")  # fmt: skip
        shape = self.steps, self.states, self.actions
        if table.ndim != 4 or table.shape[0] not in (1, self.runs) or table.shape[1:] != shape:
            wanted = f"shape ({self.runs} or 1, {', '.join(map(str, shape))})"
            reject("feedback.terms['loss_table']", wanted, f"shape {tuple(table.shape)}", "give a loss each (h, s, a)")
        strange = ~torch.isfinite(table).all()
        if self.device.type != "cpu":
            self._strange |= strange
        elif bool(strange):
            reject("feedback.terms['loss_table']", "finite losses", "a NaN or inf", "mend the world")
        return self.unit(-table).flatten(2)


class DilatedFTRL(CumulativeLearner):
    """One of the three FTRL learners with bonuses; `policy_of` and `estimate` make the difference.

    Args:
        kernel: (H or 1, S, A, S), what the simulator knows; start: (S,).
        features: (S, A, d), (H, S, A, d) or (R, H, S, A, d), norms at most 1 for the theorems.
        steps: H.
        rates: eta at least 0 (infinite for follow the leader), beta at least 0, gamma above 0.
        bonus: "exact", "sample" or "off".
        covariance: "exact", "direct" or "mgr".
        trajectories: simulated each episode for "direct".
        chains, length: of "mgr"; length None: `resampling_length`.
        runs, seed, device, low, high: see `CumulativeLearner`.
    """

    def __init__(
        self, kernel: Tensor, start: Tensor, features: Tensor, steps: int, rates: Rates, bonus: str = "exact",
        covariance: str = "exact", trajectories: int = 256, chains: int = 16, length: int | None = None,
        runs: int | Sequence[int] = 1, seed: int = 0, device: torch.device | str = "cpu", low: float = 0.0,
        high: float = 1.0,
    ) -> None:  # fmt: skip
        simulator = Simulator(kernel, start, steps, device)
        super().__init__(simulator.states, simulator.actions, steps, runs, seed, device, low, high)
        for name, value, fits in (
            ("eta", rates.eta, rates.eta >= 0), ("beta", rates.beta, 0 <= rates.beta < math.inf),
            ("gamma", rates.gamma, SMALLEST <= rates.gamma < math.inf),
        ):  # fmt: skip
            if not fits:
                reject(name, f"a number of at least 0 (gamma: {SMALLEST:g})", value, "choose another one")
        for name, word, words in (
            ("bonus", bonus, ("exact", "sample", "off")), ("covariance", covariance, ("exact", "direct", "mgr")),
        ):  # fmt: skip
            if word not in words:
                reject(name, " or ".join(map(repr, words)), repr(word), "choose one of them")
        self.rates, self.simulator = rates, simulator
        self.features = LinearFeatures(features, steps, self.runs, device)
        if (self.features.states, self.features.actions) != (self.states, self.actions):
            wanted = f"{self.states} states and {self.actions} actions, as the kernel has"
            reject("features", wanted, f"{self.features.states} and {self.features.actions}", "align them")
        self.inverse = InverseCovariance(
            covariance, simulator, self.features, rates.gamma, self.philox, trajectories, chains, length
        )
        self.bonus = DilatedBonus(bonus, simulator, self.philox) if bonus != "off" and rates.beta > 0 else None

    def _plan(self) -> Tensor:
        return self.policy_of(self.cumulative)

    def _take(self, policy: Tensor, states: Tensor, actions: Tensor, rewards: Tensor, feedback: Feedback) -> None:
        weights = self.simulator.weights(policy)
        inverse, metric = self.inverse(policy, self.rounds, weights)
        pairs = states[:, :-1] * self.actions + actions
        change = self.estimate(inverse, self.features.visited(pairs), self.losses_to_go(rewards), policy, weights)
        if self.bonus is not None:
            local = local_bonus(self.features.quadratic(metric), policy, self.rates.beta)
            change -= self.bonus(local, policy, self.rounds)
        self.cumulative += change.view(policy.shape)

    @abstractmethod
    def policy_of(self, cumulative: Tensor) -> Tensor:
        """(..., A) the policy of cumulated losses (..., A)."""

    def estimate(self, inverse: Tensor, met: Tensor, to_go: Tensor, policy: Tensor, weights: Tensor) -> Tensor:
        """(R, H, S A) new: Qhat = phi^T Sdag_h phi(s_h, a_h) L_h, with mean phi^T Sdag Sigma theta.

        Args:
            inverse: (R, H, d, d), Sdag; met: (R, H, d), phi(s_h, a_h); to_go: (R, H), L_h.
            policy: (R, H, S, A) and weights (R, H, S A), what it does, for estimates that need them.
        """
        return self.features.linear(by_met(inverse, met * to_go.unsqueeze(-1)))
