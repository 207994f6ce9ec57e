"""Hyperparameters of the linear bandits. Imports no torch.

None means: from the facts of the problem (its horizon, its noise, its bounds, ...).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from bandits.config_base import LearnerConfig, from_zero, number

__all__ = ["LINEAR", "LinearConfig"]


@dataclass(frozen=True)
class LinearConfig(LearnerConfig):
    """Of a learner whose arms have features, fixed or shown each round."""

    family: ClassVar[str] = "bandits.linear.named"

    lam: float = 1.0
    """Weight of the ridge."""
    noise: float | None = from_zero(None)
    """sigma: the rewards' deviation; without one half of their range."""
    bound: float | None = None
    """S, at least the norm of the parameter."""
    feature_bound: float | None = None
    """L, at least the features' norms."""
    delta: float | None = number(None, most=1.0)
    """Chance that the confidence region fails; 1/T."""
    beta: float | None = from_zero(None)
    """A constant radius in place of the formula's."""


@dataclass(frozen=True)
class LinUCBConfig(LinearConfig):
    """OFUL."""

    name: ClassVar[str] = "lin-ucb"
    about: ClassVar[str] = "LinUCB (OFUL): ridge regression, optimistic on its ellipsoid"

    radius: Literal["determinant", "trace"] = "determinant"
    """OFUL's radius with ln det V, or its bound without."""


@dataclass(frozen=True)
class RestartLinUCBConfig(LinUCBConfig):
    """OFUL, restarted."""

    name: ClassVar[str] = "restart-lin-ucb"
    about: ClassVar[str] = "LinUCB that starts anew after every window, for a moving parameter"

    window: int | None = None
    """Rounds between restarts; (d T / B)^(2/3)."""
    variation: float | None = None
    """B, the length of the parameter's way; 1 where it is unknown."""


@dataclass(frozen=True)
class SWLinUCBConfig(LinearConfig):
    """LinUCB in a sliding window."""

    name: ClassVar[str] = "sw-lin-ucb"
    about: ClassVar[str] = "LinUCB on the last rounds alone, for a moving parameter"

    window: int | None = None
    """Rounds to learn from; (d T / B)^(2/3)."""
    variation: float | None = None
    """B, the length of the parameter's way; 1 where it is unknown."""


@dataclass(frozen=True)
class DLinUCBConfig(LinearConfig):
    """LinUCB with discounted sums."""

    name: ClassVar[str] = "d-lin-ucb"
    about: ClassVar[str] = "LinUCB with older rounds discounted, for a moving parameter"

    discount: float | None = number(None, least=0, most=1.0)
    """g; 1 - (B / (d T))^(2/3)."""
    variation: float | None = None
    """B, the length of the parameter's way; 1 where it is unknown."""


@dataclass(frozen=True)
class LinTSConfig(LinearConfig):
    """Linear Thompson sampling."""

    name: ClassVar[str] = "lin-ts"
    about: ClassVar[str] = "linear Thompson sampling: the best arm of a parameter drawn from the posterior"

    scale: Literal["noise", "theory"] = "noise"
    """The draw's deviations: sigma, or sigma sqrt(9 d ln(t / delta))."""


@dataclass(frozen=True)
class GLMUCBConfig(LinearConfig):
    """GLM-UCB."""

    name: ClassVar[str] = "glm-ucb"
    about: ClassVar[str] = "logistic bandit: maximum likelihood at powers of two, OFUL's bonus over kappa"

    kappa: float | None = number(None, most=0.25)
    """Least slope of the mean; that of |<theta, u>| = S L."""


LINEAR: tuple[type[LearnerConfig], ...] = (
    LinUCBConfig, LinTSConfig, DLinUCBConfig, SWLinUCBConfig, RestartLinUCBConfig, GLMUCBConfig,
)  # fmt: skip
