"""Contracted-features policy optimisation, without a warm-up: Cassel and Rosenberg, arXiv 2407.03065.

For linear MDPs without a simulator, losses of a stochastic adversary with bandit feedback, or of any adversary when the
whole loss is revealed. Exponential weights on optimistic Q functions, started anew when a covariance has doubled its
determinant; features are contracted where they are unknown, in place of clipping Q.

With the whole loss revealed its table is contracted instead of its weights: the same numbers where losses are linear.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from bandits.mdp.ftrl_base import CumulativeLearner
from bandits.mdp.linear_features import LinearFeatures
from bandits.online_learning.simplex_solvers import soft_weights
from orbs import Feedback, reject

__all__ = ["CFPO", "CFPORates", "cfpo_epochs", "cfpo_rates"]

DOUBLED = math.log(2.0) - 1e-12  # a first unit feature doubles a determinant exactly: rounding must not decide


@dataclasses.dataclass(frozen=True)
class CFPORates:
    """eta: learning rate; bonus: beta_b; contraction: beta_w, inside the sigmoid; offset: log K, there too."""

    eta: float
    bonus: float
    contraction: float
    offset: float


def cfpo_rates(
    tuning: str, actions: int, dimension: int, steps: int, horizon: int, delta: float = 0.05, full: bool = False
) -> CFPORates:
    """Rates for K = horizon episodes of H = steps.

    "practical": eta 1, beta_b 0.3, beta_w 4.
    "theory", delta the chance of failure: beta_r = 2 sqrt(2 d ln(6KH/delta)), 0 when the loss is revealed;
    beta_p = 28 H d sqrt(ln(10 K^5 H/delta)); beta_b = beta_r + beta_p; beta_w = 4 beta_b ln(eK);
    eta = sqrt(3 d H ln(2K) ln A/(K (2H)^2)). Nearly uniform play below a million episodes.
    """
    count = max(1, horizon)
    offset = math.log(count)
    if tuning == "practical":
        return CFPORates(1.0, 0.3, 4.0, offset)
    loss = 0.0 if full else 2.0 * math.sqrt(2.0 * dimension * math.log(6 * count * steps / delta))
    law = 28.0 * steps * dimension * math.sqrt(math.log(10.0 * steps / delta) + 5.0 * offset)
    logs = math.log(2.0 * count) * math.log(max(2, actions))
    eta = math.sqrt(3.0 * dimension * steps * logs / (count * (2.0 * steps) ** 2))
    return CFPORates(eta, loss + law, 4.0 * (loss + law) * (1.0 + offset), offset)


def cfpo_epochs(dimension: int, steps: int, horizon: int) -> float:
    """(3/2) d H ln(2K): no run has more epochs, for features of norm at most 1."""
    return 1.5 * dimension * steps * math.log(2.0 * horizon)


class CFPO(CumulativeLearner):
    """The learner above.

    Args:
        features: (S, A, d), (H, S, A, d) or (R, H, S, A, d), norms at most 1.
        steps: H.
        rates: see `cfpo_rates`.
        full: whether the whole loss is revealed: feedback.terms["loss_table"], (R or 1, H, S, A).
        runs, seed, device, low, high: see `CumulativeLearner`.

    Attributes:
        epochs: (R,) epochs so far, the current one included.
        estimates: (R, H, S, A) Qhat of the last episode, at most 2 (H - h) in magnitude while the good event holds;
            zero before the first.
    """

    def __init__(
        self, features: Tensor, steps: int, rates: CFPORates, full: bool = False, runs: int | Sequence[int] = 1,
        seed: int = 0, device: torch.device | str = "cpu", low: float = 0.0, high: float = 1.0,
    ) -> None:  # fmt: skip
        number = runs if isinstance(runs, int) else len(runs)
        self.features = LinearFeatures(features, steps, number, device)
        super().__init__(self.features.states, self.features.actions, steps, runs, seed, device, low, high)
        finite = 0 <= rates.bonus < math.inf and 0 <= rates.contraction < math.inf and math.isfinite(rates.offset)
        if not (rates.eta >= 0 and finite):
            wanted = "eta, bonus and contraction of at least 0, all but eta finite"
            reject("rates", wanted, rates, "choose others")
        self.rates, self.full = rates, full
        shape = self.runs, steps, self.features.dimension
        eye = torch.eye(shape[2], dtype=torch.float64, device=self.device).expand(*shape, shape[2])
        self._inverse, self._frozen = eye.clone(), eye.clone()
        self._losses = torch.zeros(shape, dtype=torch.float64, device=self.device)
        self._growth = torch.zeros_like(self._losses[..., 0])
        self._arrivals = self._losses.new_zeros(*shape, self.states)
        self._numbers = torch.arange(self.states, device=self.device)
        self.epochs = self._losses.new_ones(self.runs)
        self.estimates = torch.zeros_like(self.cumulative)

    def _tensors(self) -> dict[str, Tensor]:
        return {
            **super()._tensors(), "inverse": self._inverse, "frozen": self._frozen, "growth": self._growth,
            "losses": self._losses, "arrivals": self._arrivals, "epochs": self.epochs, "estimates": self.estimates,
        }  # fmt: skip

    def _plan(self) -> Tensor:
        return soft_weights(self.cumulative, self.rates.eta)

    def _take(self, policy: Tensor, states: Tensor, actions: Tensor, rewards: Tensor, feedback: Feedback) -> None:
        table = self.loss_table(feedback) if self.full else None
        self._evaluate(policy, table)
        self.cumulative += self.estimates
        met = self.features.visited(states[:, :-1] * self.actions + actions)
        # Sherman and Morrison; the covariances start at the identity, so little cancels.
        spread = (self._inverse @ met.unsqueeze(-1)).squeeze(-1)
        grown = (spread * met).sum(-1)
        self._inverse -= (spread / (1.0 + grown).unsqueeze(-1)).unsqueeze(-1) * spread.unsqueeze(-2)
        self._growth += grown.log1p()
        self._losses.addcmul_(met, self.unit(rewards).unsqueeze(-1))
        arrived = (states[:, 1:].unsqueeze(-1) == self._numbers).to(met.dtype)
        self._arrivals.addcmul_(met.unsqueeze(-1), arrived.unsqueeze(-2))
        anew = (self._growth >= DOUBLED).any(-1)
        self.cumulative.masked_fill_(anew.view(-1, 1, 1, 1), 0.0)
        self._growth.masked_fill_(anew.unsqueeze(-1), 0.0)
        torch.where(anew.view(-1, 1, 1, 1), self._inverse, self._frozen, out=self._frozen)
        self.epochs += anew

    def contraction(self) -> tuple[Tensor, Tensor]:
        """(R, H, S A) twice: |phi| in the inverse covariance of the epoch's start, and the factor of features."""
        width = self.features.quadratic(self._frozen).clamp_min_(0.0).sqrt_()
        return width, torch.sigmoid(self.rates.offset - self.rates.contraction * width)

    def _evaluate(self, policy: Tensor, table: Tensor | None) -> None:
        """Qhat of the policy, backwards, from what was met before this episode, into `estimates`."""
        width, factor = self.contraction()
        if table is None:
            table = self.features.linear((self._inverse @ self._losses.unsqueeze(-1)).squeeze(-1))
        found = self.estimates.flatten(2)
        torch.mul(factor, table - self.rates.bonus * width, out=found)
        if self.steps > 1:
            laws = self.features.table @ (self._inverse @ self._arrivals)
            laws *= factor.unsqueeze(-1)
            for h in range(self.steps - 2, -1, -1):
                value = (policy[:, h + 1] * self.estimates[:, h + 1]).sum(-1, keepdim=True)
                found[:, h].unsqueeze(-1).baddbmm_(laws[:, h], value)
