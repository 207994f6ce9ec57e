"""Log-barrier FTRL for linear MDPs without a simulator: in epochs (Dai et al., arXiv 2301.12942).

An epoch's W episodes play one policy, some of them a cover; a random half of them estimates covariances, the other half
regresses losses-to-go and dilated bonuses-to-go on features. Regret of order K^(8/9) in the paper, whose parameters
are not those here: the cover is the uniform policy, and all constants are ours.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from bandits.mdp.dilated_bonus import local_bonus, regressed_bonus
from bandits.mdp.ftrl_base import SMALLEST, CumulativeLearner, Rates
from bandits.mdp.inverse_covariance import regularised_inverse
from bandits.mdp.linear_features import LinearFeatures
from bandits.online_learning.simplex_solvers import log_barrier
from orbs import Feedback, reject

__all__ = ["EpochPlan", "SimulatorFreeFTRL", "epoch_plan"]


@dataclasses.dataclass(frozen=True)
class EpochPlan:
    """epoch: W; explore: chance that an episode plays the cover; eta: learning rate of the log barrier."""

    epoch: int
    explore: float
    eta: float


def epoch_plan(
    horizon: int, epoch: int | None = None, explore: float | None = None, eta: float | None = None
) -> EpochPlan:
    """For K = horizon episodes, where not given: W = 2 K^(1/3) rounded, K^(-1/3), and 3/sqrt(J) with J = K // W."""
    horizon = max(1, horizon)
    length = max(2, round(2.0 * horizon ** (1 / 3))) if epoch is None else epoch
    chance = horizon ** (-1 / 3) if explore is None else explore
    return EpochPlan(length, chance, 3.0 / math.sqrt(max(1, horizon // length)) if eta is None else eta)


class SimulatorFreeFTRL(CumulativeLearner):
    """The learner above; episodes of an epoch that never ends are not learned from.

    Args:
        features: (S, A, d), (H, S, A, d) or (R, H, S, A, d).
        steps: H.
        plan: epochs (W at least 2), exploration and learning rate.
        beta: size of the bonus.
        gamma: what is added to covariances, times the identity.
        alpha: bonuses are 0 at states where max_a |phi|^2 in the inverse of gamma I + the cover's own covariance so far
            is larger: states that the cover does not know. None: infinity.
        runs, seed, device, low, high: see `CumulativeLearner`.
    """

    def __init__(
        self, features: Tensor, steps: int, plan: EpochPlan, beta: float = 0.002, gamma: float = 0.01,
        alpha: float | None = None, runs: int | Sequence[int] = 1, seed: int = 0, device: torch.device | str = "cpu",
        low: float = 0.0, high: float = 1.0,
    ) -> None:  # fmt: skip
        number = runs if isinstance(runs, int) else len(runs)
        self.features = LinearFeatures(features, steps, number, device)
        super().__init__(self.features.states, self.features.actions, steps, runs, seed, device, low, high)
        if plan.epoch < 2:
            reject("epoch", "at least 2 episodes, one for each half", plan.epoch, "choose longer epochs")
        if not (0 <= plan.explore <= 1 and 0 < plan.eta < math.inf):
            reject("plan", "explore in [0, 1] and a finite eta above 0", plan, "choose others")
        if not (0 <= beta < math.inf and 0 < gamma < math.inf):
            reject("beta, gamma", "finite beta of at least 0, gamma above 0", f"{beta}, {gamma}", "choose others")
        if gamma < SMALLEST or (alpha is not None and not alpha > 0):
            reject(
                "gamma, alpha", f"gamma of at least {SMALLEST:g}, alpha above 0", f"{gamma}, {alpha}", "choose others"
            )
        self.plan, self.alpha = plan, alpha
        self.rates = Rates(plan.eta, beta, gamma)
        kept = self.runs, plan.epoch, steps
        self._pairs = torch.zeros(kept, dtype=torch.int64, device=self.device)
        self._to_go = torch.zeros(kept, dtype=torch.float64, device=self.device)
        self._uniform = self.uniform()
        d = self.features.dimension
        self._cover = torch.zeros(self.runs, steps, d, d, dtype=torch.float64, device=self.device)
        self._covers = torch.zeros(self.runs, dtype=torch.float64, device=self.device)
        self._drawn = -1
        self._explore = torch.zeros(self.runs, plan.epoch, dtype=torch.bool, device=self.device)
        self._current = self._policy_of()

    def _tensors(self) -> dict[str, Tensor]:
        own = {**super()._tensors(), "pairs": self._pairs, "to_go": self._to_go}
        return own if self.alpha is None else {**own, "cover": self._cover, "covers": self._covers}

    def _loaded(self) -> None:
        super()._loaded()
        self._current = self._policy_of()

    def _policy_of(self) -> Tensor:
        return log_barrier(self.cumulative, self.plan.eta)[0]

    def _exploring(self, round: int) -> tuple[Tensor, int]:
        """(R, W) whether an episode of the round's epoch plays the cover, and the round's place in it."""
        epoch, place = divmod(round, self.plan.epoch)
        if epoch != self._drawn:
            u = self.philox.uniform(
                "simulator-free/explore", epoch * self.plan.epoch, self.plan.epoch, 1, torch.float64
            )
            self._explore, self._drawn = u[..., 0] < self.plan.explore, epoch
        return self._explore, place

    def _plan(self) -> Tensor:
        explore, place = self._exploring(self.rounds)
        return torch.where(explore[:, place].view(-1, 1, 1, 1), self._uniform, self._current)

    def _take(self, policy: Tensor, states: Tensor, actions: Tensor, rewards: Tensor, feedback: Feedback) -> None:
        place = self.rounds % self.plan.epoch
        torch.add(states[:, :-1] * self.actions, actions, out=self._pairs[:, place])
        self._to_go[:, place] = self.losses_to_go(rewards)
        if place == self.plan.epoch - 1:
            self._learn(self.rounds // self.plan.epoch)
            self._current = self._policy_of()

    def _learn(self, epoch: int) -> None:
        """What follows from the epoch's episodes."""
        length, half = self.plan.epoch, self.plan.epoch // 2
        u = self.philox.uniform("simulator-free/split", epoch, 1, length, torch.float64)[:, 0]
        first = (u.argsort(-1).argsort(-1) < half).to(u.dtype)
        met = self.features.visited(self._pairs)
        inverse = regularised_inverse(_covariance(met, first / half), self.rates.gamma)
        share = (1.0 - first) / (length - half)
        mean = torch.einsum("rwhd,rwh->rhd", met, self._to_go * share.unsqueeze(-1))
        change = self.features.linear((inverse @ mean.unsqueeze(-1)).squeeze(-1))
        if self.rates.beta > 0:
            local = local_bonus(self.features.quadratic(inverse), self._current, self.rates.beta)
            if self.alpha is not None:
                known = self._known(met, epoch, self.alpha)
                local = torch.where(known, local.view(self.cumulative.shape), 0.0).flatten(2)
            factor = 1.0 + 1.0 / self.steps
            change = change - regressed_bonus(local, self._pairs, share, inverse, self.features, factor)
        self.cumulative += change.view(self.cumulative.shape)

    def _known(self, met: Tensor, epoch: int, alpha: float) -> Tensor:
        """(R, H, S, 1) whether the cover knows a state, the epoch included; met (R, W, H, d)."""
        explored = self._exploring(epoch * self.plan.epoch)[0].to(met.dtype)
        self._cover += _covariance(met, explored)
        self._covers += explored.sum(-1)
        mean = self._cover / self._covers.clamp_min(1.0).view(-1, 1, 1, 1)
        norms = self.features.quadratic(regularised_inverse(mean, self.rates.gamma))
        return norms.view(self.cumulative.shape).amax(-1, keepdim=True) <= alpha


def _covariance(met: Tensor, share: Tensor) -> Tensor:
    """(R, H, d, d): sum over episodes of share (R, W) times phi phi^T of met (R, W, H, d)."""
    by_step = met.transpose(1, 2)
    return by_step.mT @ (by_step * share.view(share.shape[0], 1, -1, 1))
