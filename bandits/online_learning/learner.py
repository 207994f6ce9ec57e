"""FTRL and mirror descent, plain and optimistic: a regulariser, a domain, a step rule and an optimism make a learner.

    FTRL  x_t = argmin_{x in X} <g_1 + .. + g_{t-1} + M_t, x> + psi_t(x) / eta_t
    OMD   hat x_{t+1} = argmin_{x in X} <g_t, x> + D_psi(x, hat x_t) / eta_t
          x_t = argmin_{x in X} <M_t, x> + D_psi(x, hat x_t) / eta_t

M_t predicts g_t (0 without optimism, where x_t = hat x_t). Sources: McMahan, arXiv 1403.3465; Orabona, arXiv
1912.13213; Chen et al., arXiv 2302.04552. The named algorithms are compositions, in `bandits.online_learning.named`.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from bandits.online_learning.base import LARGEST, OnlineLearner
from bandits.online_learning.domains import Domain
from bandits.online_learning.optimism import Ahead, Hints, LastGradient, NoOptimism, Optimism
from bandits.online_learning.regularisers import Euclidean, Regulariser
from bandits.online_learning.steps import Round, Step
from orbs import Feedback, reject, runs_last

__all__ = ["FTRL", "OMD", "OptimisticFTRL", "OptimisticOMD"]


class _Composed(OnlineLearner):
    """What FTRL and OMD share."""

    def __init__(
        self,
        regulariser: Regulariser,
        domain: Domain,
        step: Step,
        optimism: Optimism,
        runs: int | Sequence[int] = 1,
        device: torch.device | str = "cpu",
        start: Tensor | None = None,
        low: float = -LARGEST,
        high: float = LARGEST,
    ) -> None:
        super().__init__(domain, runs, device, low, high)
        regulariser.check(domain)
        self.regulariser, self.step, self.optimism = regulariser, step, optimism
        self.memory = regulariser.start(domain, self.runs, self.device)
        self.step_memory = step.start(self.runs, self.device)
        self.start = None if start is None else self._feasible(start)
        self._prediction = self._zeros()
        self._predicts = False
        self._begin()
        self._eta = step.rate(self.step_memory, 1)
        self._point, predicted = self.optimism.play(self._ahead(None))
        self._remember(predicted)
        if self.start is not None:
            self._point = self.start

    def _ahead(self, seen: Feedback | None) -> Ahead:
        return Ahead(self._prox, seen, self._eta, self._anchor(), self.domain.contains)

    def hint(self, prediction: Tensor) -> None:
        """Predict the gradient of the round that comes, (R, d); `act` answers with it in mind.

        Raises:
            ValueError: the learner's optimism is not `Hints`, or another shape.
        """
        if not isinstance(self.optimism, Hints):
            reject("hint", "a learner with optimism Hints()", type(self.optimism).__name__, "compose it with Hints()")
        if prediction.shape != self.shape:
            reject("hint", f"shape {self.shape}", f"shape {tuple(prediction.shape)}", "one row a run")
        self._remember(prediction)
        self._point = self._prox(prediction)

    def _feasible(self, start: Tensor) -> Tensor:
        given = torch.as_tensor(start, dtype=torch.float64, device=self.device)
        if given.shape not in ((self.shape[1],), self.shape):
            expected = f"shape ({self.shape[1]},) or {self.shape}"
            reject("start", expected, f"shape {tuple(given.shape)}", "give one point, or one a run")
        point = runs_last(given.expand(self.shape).clone())
        if not bool(self.domain.contains(point).all()):
            reject("start", f"a point of {self.domain}", given.tolist(), "project it first")
        return point

    def _remember(self, predicted: Tensor | None) -> None:
        self._predicts = predicted is not None
        if predicted is not None:
            self._prediction.copy_(predicted)  # it may be the world's tensor, which the world may reuse

    def _take(self, gradient: Tensor, feedback: Feedback) -> None:
        predicted = self._prediction if self._predicts else None
        self._learn(gradient)
        self.step.update(self.step_memory, Round(gradient, predicted, self._point, self._eta))
        self._eta = self.step.rate(self.step_memory, self.rounds + 2)
        self._point, predicted = self.optimism.play(self._ahead(feedback))
        self._remember(predicted)

    def _tensors(self) -> dict[str, Tensor]:
        named = {"point": self._point, "prediction": self._prediction, **self._own()}
        named |= {f"step.{name}": tensor for name, tensor in self.step_memory.items()}
        return named | {f"regulariser.{name}": tensor for name, tensor in self.memory.items()}

    def state_dict(self) -> dict[str, Tensor]:
        return {**super().state_dict(), "predicts": torch.tensor(self._predicts)}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        state = dict(state)
        predicts = state.pop("predicts", None)
        if predicts is None:
            reject("state", "'predicts'", ", ".join(sorted(state)), "load a state of the same learner")
        self._point = runs_last(self._point.clone())  # somebody may hold the old one
        super().load_state_dict(state)
        self._predicts = bool(predicts)

    def _loaded(self) -> None:
        self._eta = self.step.rate(self.step_memory, self.rounds + 1)

    @abstractmethod
    def _begin(self) -> None:
        """Make what is learned, before the first point."""

    @abstractmethod
    def _own(self) -> dict[str, Tensor]:
        """Likewise, by name."""

    @abstractmethod
    def _learn(self, gradient: Tensor) -> None:
        """Take the gradient of round `rounds + 1`, played at `_point` with `_eta`, in."""

    @abstractmethod
    def _prox(self, prediction: Tensor | None) -> Tensor:
        """The point for a prediction."""

    def _anchor(self) -> Tensor | None:
        """z where `_prox(M)` is the projection of z - eta M."""
        return None


class OptimisticFTRL(_Composed):
    """Follow the regularised leader, with a prediction of the next gradient.

    Args:
        regulariser, domain, step, optimism: the composition; optimism defaults to the last gradient.
        surrogate: mu, where every loss is mu-strongly convex: the leader then follows the quadratics <g, x> + mu / 2
            ||x - x_t||^2 below the losses, `step` must be InverseTime(1 / mu, offset=1), and x_1 is `start`.
        runs, device, low, high: as of `OnlineLearner`.
        start: the first point, (d,) or (R, d), feasible; the minimiser of the regulariser otherwise.

    Raises:
        ValueError: a regulariser that does not fit the domain, an infeasible start.
    """

    def __init__(
        self,
        regulariser: Regulariser,
        domain: Domain,
        step: Step,
        optimism: Optimism | None = None,
        surrogate: float = 0.0,
        **common: Any,
    ) -> None:
        if surrogate < 0 or not math.isfinite(surrogate):
            reject("surrogate", "a number of at least 0", surrogate, "0, or the losses' strong convexity")
        if surrogate and not isinstance(regulariser, Euclidean):
            reject("surrogate", "the regulariser Euclidean()", type(regulariser).__name__, "leave surrogate out")
        self.surrogate = surrogate
        super().__init__(regulariser, domain, step, optimism or LastGradient(), **common)

    def _begin(self) -> None:
        self.cumulative = self._zeros()

    def _own(self) -> dict[str, Tensor]:
        return {"cumulative": self.cumulative}

    def _learn(self, gradient: Tensor) -> None:
        self.cumulative += gradient
        if self.surrogate:
            self.cumulative.sub_(self._point, alpha=self.surrogate)
        self.regulariser.update(self.memory, gradient)
        self._gradients = self.rounds + 1

    _gradients = 0

    def _loaded(self) -> None:
        super()._loaded()
        self._gradients = self.rounds

    def _prox(self, prediction: Tensor | None) -> Tensor:
        linear = self.cumulative if prediction is None else self.cumulative + prediction
        eta = self._eta
        if isinstance(eta, float) and math.isinf(eta):
            eta = 1.0  # nothing is known yet, and any point may be the first
        return self.regulariser.minimise(linear, eta, self.domain, self.memory, self._gradients)


class FTRL(OptimisticFTRL):
    """Follow the regularised leader. Arguments as of `OptimisticFTRL`, without optimism."""

    def __init__(self, regulariser: Regulariser, domain: Domain, step: Step, **common: Any) -> None:
        super().__init__(regulariser, domain, step, NoOptimism(), **common)


class OptimisticOMD(_Composed):
    """Optimistic mirror descent in two steps.

    The correction step of round t uses the regulariser of before the round (unless it says `include_current`), the
    prediction step of round t + 1 the one after it, likewise with eta_t and eta_{t+1}.

    Args:
        regulariser, domain, step, optimism: the composition; optimism defaults to the last gradient.
        runs, device, low, high: as of `OnlineLearner`.
        start: the first point, (d,) or (R, d), feasible; the domain's centre otherwise.

    Raises:
        ValueError: a regulariser that does not fit the domain, an infeasible start.
    """

    def __init__(
        self, regulariser: Regulariser, domain: Domain, step: Step, optimism: Optimism | None = None, **common: Any
    ) -> None:
        super().__init__(regulariser, domain, step, optimism or LastGradient(), **common)

    def _begin(self) -> None:
        start = self.start
        if start is None:
            start = runs_last(self.domain.centre().to(self.device, torch.float64).expand(self.shape).clone())
        self.secondary = runs_last(self.regulariser.mirror(start).clone())

    def _own(self) -> dict[str, Tensor]:
        return {"secondary": self.secondary}

    def _learn(self, gradient: Tensor) -> None:
        current = bool(getattr(self.regulariser, "include_current", False))
        if current:
            self.regulariser.update(self.memory, gradient)
        self.secondary = self.regulariser.move(self.secondary, gradient, self._eta, self.domain, self.memory)
        if not current:
            self.regulariser.update(self.memory, gradient)

    def _prox(self, prediction: Tensor | None) -> Tensor:
        ahead = self.secondary
        if prediction is not None:
            ahead = self.regulariser.move(ahead, prediction, self._eta, self.domain, self.memory)
        return self.regulariser.point(ahead)

    def _anchor(self) -> Tensor | None:
        plain = isinstance(self.regulariser, Euclidean) and self.regulariser.scale == 1.0
        return self.secondary if plain else None


class OMD(OptimisticOMD):
    """Mirror descent. Arguments as of `OptimisticOMD`, without optimism: projected gradient descent and its kin."""

    def __init__(self, regulariser: Regulariser, domain: Domain, step: Step, **common: Any) -> None:
        super().__init__(regulariser, domain, step, NoOptimism(), **common)
