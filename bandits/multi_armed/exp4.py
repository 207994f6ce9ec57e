"""Exp4: exponential weights over experts who advise a distribution over arms each.

Auer, Cesa-Bianchi, Freund, Schapire, SIAM J. Comput. 2002; on losses, without uniform exploration by default, as in
Bubeck and Cesa-Bianchi, arXiv 1204.5721.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from bandits.arm_learner import sample
from bandits.multi_armed.exp3 import loss_rate
from bandits.multi_armed.weighted_arms import WeightedArms, between, exponential_weights, known_horizon
from orbs import Feedback, reject, runs_last

__all__ = ["Exp4", "mixed_advice"]

ROUNDING = 1e-6  # of a distribution's sum


def mixed_advice(weights: Tensor, advice: Tensor, exploration: float = 0.0) -> Tensor:
    """(R, K) (1 - g) sum of weight times advice + g / K, for weights (R, N) and advice (N, K) or (R, N, K)."""
    mixed = (advice.mT @ weights.mT).mT if advice.ndim == 2 else (weights.unsqueeze(-1) * advice).sum(1)
    return mixed if exploration == 0.0 else mixed * (1 - exploration) + exploration / advice.shape[-1]


class Exp4(WeightedArms):
    """Experts' weights are exp(-eta sum of what their advice has lost, by loss / p of the arm that was played).

    Args:
        arms, runs, seed, device, low, high: as for `WeightedArms`.
        advice: (N, K) or (R, N, K), rows with sum 1, of every round. If None, each round's is shown: `act(advice)` with
            (R, N, K) or (N, K).
        experts: N; told by `advice` where that is given.
        horizon: T: eta = sqrt(2 ln N / (K T)); anytime sqrt(ln N / (K t)) where it is None.
        exploration: g.

    Attributes:
        scores: (R, N) minus the experts' estimated losses, up to one constant a run: the largest is 0.
        weights: (R, N) of the experts in the coming round.

    Raises:
        ValueError: neither advice nor a number of experts; advice that is no distribution or of another shape.
    """

    name: ClassVar[str] = "exp4"

    def __init__(
        self, arms: int, runs: int | Sequence[int] = 1, seed: int = 0, *, advice: Tensor | None = None,
        experts: int | None = None, horizon: int | None = None, exploration: float = 0.0, **common: Any,
    ) -> None:  # fmt: skip
        super().__init__(arms, runs, seed, **common)
        if advice is not None and advice.ndim >= 2:
            experts = int(advice.shape[-2])
        if isinstance(experts, bool) or not isinstance(experts, int) or experts < 1:
            reject("experts", "a whole number of at least 1", repr(experts), "give it, or the experts' advice")
        self.experts, self.exploration = experts, between("exploration", exploration, 0.0, 1.0)
        self.horizon = None if horizon is None else known_horizon(horizon)
        self.scores = self.zeros(experts)
        self.probabilities = self.zeros(arms)
        self._shown: Tensor | None = None
        self._advised: tuple[Tensor, Tensor] | None = None
        self.advice = None if advice is None else self._kept(advice)
        if advice is not None:
            self._refuse_advice(*self._faults(advice))
        self._weigh(1)

    def _kept(self, advice: Tensor) -> Tensor:
        """A copy of its own, after a check of the shape."""
        rows = (self.experts, self.arms)
        if advice.shape not in (rows, (self.runs, *rows)):
            wanted = f"shape {rows} or {(self.runs, *rows)}"
            reject("context (advice)", wanted, f"shape {tuple(advice.shape)}", "give a row an expert, a column an arm")
        own = advice.to(self.device, torch.float64).clone(memory_format=torch.contiguous_format)
        return own if advice.ndim == 2 else runs_last(own)

    @staticmethod
    def _faults(advice: Tensor) -> tuple[Tensor, Tensor]:
        """The least entry, and how far a row's sum is from 1 at most."""
        return advice.amin(), (advice.sum(-1) - 1.0).abs().amax()

    def _refuse_advice(self, least: Tensor, off: Tensor) -> None:
        if not (float(least) >= 0.0 and float(off) <= ROUNDING):
            given = f"entries from {float(least):g}, sums off by {float(off):.3g}"
            reject("context (advice)", "a distribution over arms of each expert", given, "make each row sum to 1")

    def act(self, observation: Tensor | None = None) -> Tensor:
        """(R,) int64 the arm of this round.

        Args:
            observation: the experts' advice, (R, N, K) or (N, K), where it was not given beforehand.

        Raises:
            ValueError: none, another shape, rows that are no distributions (on CUDA told by the next `check`).
        """
        if self.advice is None:
            if observation is None:
                reject("context (advice)", f"({self.experts}, {self.arms}) a round", "none", "show the experts' advice")
            shown = self._kept(observation)
            faults = self._faults(shown)
            if self.device.type == "cpu":
                self._refuse_advice(*faults)
            elif self._advised is None:
                self._advised = faults
            else:
                self._advised = (
                    torch.minimum(self._advised[0], faults[0]), torch.maximum(self._advised[1], faults[1]),
                )  # fmt: skip
            self._shown = shown
        return self._choose(observation)

    def _loaded(self) -> None:
        super()._loaded()
        self._shown = None  # that of another round

    def check(self) -> None:
        super().check()
        if self._advised is not None:
            self._refuse_advice(*self._advised)

    def _choose(self, observation: Tensor | None) -> Tensor:
        if self.advice is None:
            assert self._shown is not None
            self.probabilities = mixed_advice(self.weights, self._shown, self.exploration)
        return sample(self.probabilities, self._draws(self.rounds)[:, 0])

    def _take(self, action: Tensor, reward: Tensor, feedback: Feedback) -> None:
        if self.advice is None and self._shown is None:
            reject("context (advice)", "advice for the round", "none", "call act with it before observe")
        super()._take(action, reward, feedback)
        self._shown = None

    def _learn(self, arm: Tensor, reward: Tensor, chance: Tensor) -> None:
        advice = self.advice if self._shown is None else self._shown
        assert advice is not None
        estimate = self._loss(reward) / chance
        if advice.ndim == 2:
            said = advice.mT[arm[:, 0]]
        else:
            said = advice.gather(2, arm.unsqueeze(1).expand(-1, self.experts, 1))[..., 0]
        self.scores -= said * estimate

    def _weigh(self, t: int) -> None:
        self.weights = exponential_weights(self.scores, loss_rate(self.arms, self.experts, t, self.horizon))
        if self.advice is not None:
            self.probabilities = mixed_advice(self.weights, self.advice, self.exploration)

    def _tensors(self) -> dict[str, Tensor]:
        return {"scores": self.scores}
