"""What every linear bandit is: K arms with features, fixed or shown before each round, and the radius's constants."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from bandits.arm_learner import ArmLearner
from bandits.linear.ridge import checked_features, first_best
from orbs import Feedback, reject

__all__ = ["LinearLearner"]


class LinearLearner(ArmLearner):
    """Plays the arm of the largest score (R, K); ties, up to rounding, to the lowest index (`first_best`).

    Args:
        features: (K, d), or (R, K, d) of each run's own; None where `act` is given the features (R, K, d) of a round.
        arms, dimension: K and d, where features are None.
        lam: weight of the ridge, above 0.
        noise: sigma, the rewards' standard deviation or sub-Gaussian constant.
        bound: S, of theta's norm.
        feature_bound: L, of the features' norms; None for fixed features takes the largest, else 1.
        delta: chance that the confidence region fails; None takes 1/T.
        horizon: T, where delta is None.
        beta: a constant radius in place of the formula's.
        runs, seed, device, low, high: as for `ArmLearner`.

    Raises:
        ValueError: a constant out of its range; features that are no numbers, or of no known shape.
    """

    def __init__(
        self,
        features: Tensor | None = None,
        *,
        arms: int | None = None,
        dimension: int | None = None,
        lam: float = 1.0,
        noise: float = 1.0,
        bound: float = 1.0,
        feature_bound: float | None = None,
        delta: float | None = None,
        horizon: int | None = None,
        beta: float | None = None,
        runs: int | Sequence[int] = 1,
        seed: int = 0,
        **common: Any,
    ) -> None:
        if features is not None and features.ndim >= 2:
            known = features.shape[-2:]
            if arms not in (None, known[0]) or dimension not in (None, known[1]):
                reject(
                    "features", f"{arms} arms with {dimension} numbers", f"shape {tuple(features.shape)}", "align them"
                )
            arms, dimension = known
        if arms is None or dimension is None:
            reject("features", "features of the arms, or arms and dimension", "neither", "give one of them")
        super().__init__(arms, runs, seed, **common)
        if isinstance(dimension, bool) or not isinstance(dimension, int) or dimension < 1:
            reject("dimension", "a whole number of at least 1", repr(dimension), "give the length of a feature vector")
        if delta is None:
            if horizon is None or horizon < 1:
                reject("delta", "a chance, or a horizon", f"horizon {horizon}", "give one of them")
            delta = 1.0 / horizon
        if not 0 < delta <= 1:
            reject("delta", "a chance above 0 and at most 1", delta, "e.g. delta=0.01")
        self.dimension, self.delta = dimension, float(delta)
        self.features = None if features is None else checked_features(features, self.runs, self.device)
        if feature_bound is None:
            feature_bound = 1.0 if self.features is None else float((self.features**2).sum(1).max().sqrt())
        for name, value in (("lam", lam), ("noise", noise), ("bound", bound), ("feature_bound", feature_bound)):
            if not (value > 0 if name == "lam" else value >= 0) or value == float("inf"):
                reject(name, "a finite number above 0" if name == "lam" else "at least 0", value, "e.g. 1.0")
        self.lam, self.noise, self.bound, self.feature_bound = map(float, (lam, noise, bound, feature_bound))
        self.beta = None if beta is None else float(beta)
        self._shown: Tensor | None = None
        self._range: tuple[Tensor, Tensor] | None = None

    def check(self) -> None:
        super().check()
        if self._range is not None:
            self._refuse_contexts(self._range)

    def _choose(self, observation: Tensor | None) -> Tensor:
        return first_best(self._scores(self._rows(observation)))

    def _take(self, action: Tensor, reward: Tensor, feedback: Feedback) -> None:
        self._learn(action, reward)
        self._shown = None  # those of the next round are to be shown first

    @abstractmethod
    def _scores(self, x: Tensor) -> Tensor:
        """(R, K) of arms with features x (K, d, R or 1); it changes no state."""

    @abstractmethod
    def _learn(self, arm: Tensor, reward: Tensor) -> None:
        """Learn from a round; `_features_of` has the features of the arm."""

    def _rows(self, observation: Tensor | None) -> Tensor:
        """(K, d, R or 1) the features of this round, copied: the world may reuse what it shows."""
        if self.features is not None:
            return self.features
        shape = (self.runs, self.arms, self.dimension)
        if observation is None:
            reject("contexts", f"shape {shape}", "none", "give act the features of the round's arms")
        if observation.shape != shape:
            reject("contexts", f"shape {shape}", f"shape {tuple(observation.shape)}", "give a row a run and an arm")
        own = torch.empty(*shape[1:], self.runs, dtype=torch.float64, device=self.device)
        own.copy_(observation.permute(1, 2, 0))
        least, most = torch.aminmax(own)
        if self.device.type == "cpu":
            self._refuse_contexts((least, most))
        elif self._range is None:
            self._range = least, most
        else:  # NaN wins in both
            self._range = torch.minimum(self._range[0], least), torch.maximum(self._range[1], most)
        self._shown = own
        return own

    def _refuse_contexts(self, found: tuple[Tensor, Tensor]) -> None:
        if not (float(found[0]) > -float("inf") and float(found[1]) < float("inf")):
            reject(
                "contexts", "finite numbers", f"a NaN or inf by round {self.rounds + 1}", "mend the world's contexts"
            )

    def _features_of(self, arm: Tensor) -> Tensor:
        """(d, R) the features of the arms that were played."""
        rows = self._shown if self.features is None else self.features
        if rows is None:
            reject("contexts", "act(contexts) before observe", "none in this round", "call act first")
        if rows.shape[-1] == 1:
            return rows[:, :, 0].mT.index_select(1, arm)
        return rows.gather(0, arm.expand(1, self.dimension, -1)).squeeze(0)
