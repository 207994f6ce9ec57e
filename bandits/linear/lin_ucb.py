"""LinUCB in its OFUL form (Abbasi-Yadkori, Pal, Szepesvari, NIPS 2011), and the same restarted for moving parameters.

Plays argmax <theta_hat, u> + beta ||u||_{V^-1} with ridge regression's theta_hat and the radius of its ellipsoid.
"""

from __future__ import annotations

from typing import Any, Literal

from torch import Tensor

from bandits.linear.linear_learner import LinearLearner
from bandits.linear.radius import oful_radius, trace_radius
from bandits.linear.ridge import FixedArmRidge
from bandits.linear.root_ridge import RootRidge
from orbs import reject

__all__ = ["LinUCB", "RestartLinUCB", "RidgeLearner"]


class RidgeLearner(LinearLearner):
    """A linear bandit with the statistics of ridge regression, in the form that suits its features.

    Args:
        features, arguments: as for `LinearLearner`.
        rebuild: rounds between two fresh factorisations.
    """

    def __init__(self, features: Tensor | None = None, *, rebuild: int = 100, **arguments: Any) -> None:
        super().__init__(features, **arguments)
        self.fixed: FixedArmRidge | None = None
        self.changing: RootRidge | None = None
        if features is None:
            self.changing = RootRidge(self.dimension, self.lam, self.runs, self.device, rebuild)
        else:
            self.fixed = FixedArmRidge(features, self.lam, self.runs, self.device, rebuild)

    @property
    def ridge(self) -> FixedArmRidge | RootRidge:
        found = self.changing if self.fixed is None else self.fixed
        assert found is not None
        return found

    def _statistics(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(R, K) <theta_hat, x_k> and x_k^T V^-1 x_k."""
        if self.fixed is not None:
            return self.fixed.means, self.fixed.widths2
        assert self.changing is not None
        return self.changing.scores(x)

    def _learn(self, arm: Tensor, reward: Tensor) -> None:
        if self.fixed is not None:
            self.fixed.add(arm, reward)
        elif self.changing is not None:
            self.changing.add(self._features_of(arm), reward)

    def _tensors(self) -> dict[str, Tensor]:
        return self.ridge.tensors()

    def _loaded(self) -> None:
        self.ridge.loaded(self.rounds)


class LinUCB(RidgeLearner):
    """OFUL.

    Args:
        features, rebuild, arguments: as for `RidgeLearner`.
        radius: "determinant", OFUL's own, or "trace", its bound without a determinant.
    """

    def __init__(
        self,
        features: Tensor | None = None,
        *,
        radius: Literal["determinant", "trace"] = "determinant",
        **arguments: Any,
    ) -> None:
        super().__init__(features, **arguments)
        if radius not in ("determinant", "trace"):
            reject("radius", "'determinant' or 'trace'", repr(radius), "choose one")
        self.radius = radius

    def confidence(self) -> Tensor | float:
        """(R,), or one for all: the radius of this round's ellipsoid."""
        if self.beta is not None:
            return self.beta
        if self.radius == "determinant":
            return oful_radius(self.ridge.log_volume, self.lam, self.bound, self.noise, self.delta)
        t, d = self.ridge.rounds, self.dimension
        return trace_radius(t, d, self.lam, self.bound, self.noise, self.delta, self.feature_bound)

    def _scores(self, x: Tensor) -> Tensor:
        means, squares = self._statistics(x)
        beta = self.confidence()
        if isinstance(beta, Tensor):
            beta = beta.unsqueeze(-1)
        return means + beta * squares.clamp_min(0.0).sqrt()


class RestartLinUCB(LinUCB):
    """LinUCB that forgets everything after every `window` rounds.

    Args:
        features, arguments: as for `LinUCB`.
        window: tau, at least 1.
    """

    def __init__(self, features: Tensor | None = None, *, window: int, **arguments: Any) -> None:
        super().__init__(features, **arguments)
        if window < 1:
            reject("window", "at least 1 round", window, "give the rounds between two restarts")
        self.window = window

    def _learn(self, arm: Tensor, reward: Tensor) -> None:
        super()._learn(arm, reward)
        if (self.rounds + 1) % self.window == 0:
            self.ridge.reset()

    def _loaded(self) -> None:
        self.ridge.loaded(self.rounds % self.window)
