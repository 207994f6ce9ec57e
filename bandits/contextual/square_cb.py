"""SquareCB (Foster, Rakhlin, ICML 2020, arXiv 2002.04926): from predicted losses to the chances of arms.

Its two regression oracles, both of one linear model per arm: ridge regression, and online gradient descent in a ball.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from bandits.arm_learner import Draws, one_hot, sample
from bandits.contextual.context import ContextLearner
from bandits.contextual.regression import REBUILD, ArmRidge, linear_scores
from orbs import reject

__all__ = ["ArmDescent", "SquareCB", "gap_weights", "learning_rate", "regression_regret"]


def gap_weights(losses: Tensor, gamma: float) -> Tensor:
    """(R, K) p_a = 1/(K + gamma (loss_a - least)) and what is left for the arm b of the least predicted loss.

    Ties for b to the lowest arm. losses: (R, K); gamma: at least 0.
    """
    arms = losses.shape[-1]
    lead = one_hot((-losses).max(-1).indices, arms)
    p = (1.0 - lead) / (arms + gamma * (losses - losses.min(-1, keepdim=True).values))
    return p + lead * (1.0 - p.sum(-1, keepdim=True))


def learning_rate(rounds: float, arms: int, regret: float, delta: float) -> float:
    """gamma = sqrt(K T/(Reg + ln(2/delta)))."""
    return math.sqrt(arms * rounds / (regret + math.log(2.0 / delta)))


def regression_regret(
    oracle: str, rounds: float, arms: int, dimension: int, radius: float, bound: float, ridge: float
) -> float:
    """Reg: a bound on the oracle's regret in the squared loss after `rounds`, losses in [0, 1].

    For ridge K (ridge S^2 + d ln(1 + T L^2/(ridge K d))), as it holds for its forward kind (Vovk; Azoury, Warmuth);
    for OGD sqrt(2) D G sqrt(K T) with D = 2 S and gradients of at most G = 2 L (1 + S L). S: radius, norm of each arm's
    weights; L: bound, norm of contexts.
    """
    if oracle == "ridge":
        return arms * (ridge * radius**2 + dimension * math.log1p(rounds * bound**2 / (ridge * arms * dimension)))
    return math.sqrt(2.0) * 2.0 * radius * 2.0 * bound * (1.0 + radius * bound) * math.sqrt(arms * rounds)


class ArmDescent:
    """w_a of each arm by gradient descent in the squared loss, in a ball: step sqrt(2) S/sqrt(sum of |g|^2).

    Args:
        like, arms, dimension: as for `ArmRidge`.
        radius: S, above 0.

    Attributes:
        weights: (R, K, d); squares: (R, K).
    """

    def __init__(self, like: Tensor, arms: int, dimension: int, radius: float) -> None:
        self.radius, self.runs = radius, like.shape[0]
        self.weights = torch.zeros(self.runs, arms, dimension, dtype=torch.float64, device=like.device)
        self.squares = torch.zeros(self.runs, arms, dtype=torch.float64, device=like.device)
        self._first = arms * torch.arange(self.runs, device=like.device)

    def predict(self, x: Tensor) -> Tensor:
        """(R, K) <w_a, x>."""
        return linear_scores(self.weights, x)

    def add(self, arm: Tensor, x: Tensor, y: Tensor) -> None:
        """A row of each run's arm."""
        rows, x = self._first + arm, x.contiguous()
        weights, squares = self.weights.view(-1, x.shape[1]), self.squares.view(-1)
        own = weights.index_select(0, rows)
        gradient = (2.0 * ((own * x).sum(-1) - y)).unsqueeze(-1) * x
        total = squares.index_select(0, rows) + (gradient * gradient).sum(-1)
        squares.index_copy_(0, rows, total)
        step = math.sqrt(2.0) * self.radius / total.clamp_min(1e-300).sqrt()
        moved = own - gradient * step.unsqueeze(-1)
        norm = (moved * moved).sum(-1, keepdim=True).sqrt()
        weights.index_copy_(0, rows, moved * (self.radius / norm.clamp_min(self.radius)))

    def rebuild(self) -> None:
        """Nothing here is kept twice."""

    def tensors(self) -> dict[str, Tensor]:
        return {"weights": self.weights, "squares": self.squares}


class SquareCB(ContextLearner):
    """Arms drawn from `gap_weights` of the losses (1 - reward) that an online regression predicts.

    Predictions are clipped to [0, 1] where rewards have a range; where they have none, losses are minus the rewards.

    Args:
        arms, dimension, runs, seed, device, low, high: as for `ContextLearner`.
        gamma: above 0; or a function of the round t = 1, 2, ..
        oracle: "ridge" or "ogd".
        ridge: of the ridge oracle, above 0.
        radius: of the OGD oracle's ball, above 0.
    """

    def __init__(
        self, arms: int, dimension: int, runs: int | Sequence[int] = 1, seed: int = 0, *,
        gamma: float | Callable[[int], float], oracle: str = "ridge", ridge: float = 1.0, radius: float = 1.0,
        **common: Any,
    ) -> None:  # fmt: skip
        super().__init__(arms, dimension, runs, seed, **common)
        if oracle not in ("ridge", "ogd"):
            reject("oracle", "ridge or ogd", repr(oracle), "e.g. oracle='ridge'")
        first = gamma(1) if callable(gamma) else gamma
        for field, value in (("gamma", first), ("ridge", ridge), ("radius", radius)):
            if not 0 < value < math.inf:
                reject(field, "a finite number above 0", value, f"e.g. {field}=1.0")
        self.gamma = gamma
        self.model: ArmRidge | ArmDescent = (
            ArmRidge(self.zeros(1), arms, dimension, ridge)
            if oracle == "ridge"
            else ArmDescent(self.zeros(1), arms, dimension, radius)
        )
        self._random = Draws(self.philox, "square-cb/arm")

    def probabilities(self, x: Tensor) -> Tensor:
        """(R, K) of the coming round with contexts x (R, d)."""
        losses = self.model.predict(x)
        gamma = self.gamma(self.rounds + 1) if callable(self.gamma) else self.gamma
        return gap_weights(losses.clamp(0.0, 1.0) if self.bounded else losses, gamma)

    def _pick(self, x: Tensor) -> Tensor:
        return sample(self.probabilities(x), self._random(self.rounds)[:, 0])

    def _learn(self, x: Tensor, arm: Tensor, reward: Tensor) -> None:
        self.model.add(arm, x, 1.0 - reward if self.bounded else -reward)
        if (self.rounds + 1) % REBUILD == 0:
            self.model.rebuild()

    def _tensors(self) -> dict[str, Tensor]:
        return self.model.tensors()
