"""Hyperparameters of the bandits with K arms for rewards that an adversary may choose. Imports no torch.

None means: from the facts of the problem.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from bandits.config_base import LearnerConfig, number

__all__ = ["ADVERSARIAL", "AdversarialConfig"]


class AdversarialConfig(LearnerConfig):
    """Of a learner that draws one of K arms and sees its reward, in a declared range."""

    family: ClassVar[str] = "bandits.multi_armed.adversarial_named"


@dataclass(frozen=True)
class Exp3Config(AdversarialConfig):
    """Exp3 on losses."""

    name: ClassVar[str] = "exp3"
    about: ClassVar[str] = "Exp3: exponential weights of importance-weighted losses"

    tuning: Literal["anytime", "horizon"] = "anytime"
    """sqrt(ln K / (K t)), or sqrt(2 ln K / (K T))."""
    rate: float | None = None
    """A constant rate instead, of losses moved into [0, 1]."""


@dataclass(frozen=True)
class Exp3AuerConfig(AdversarialConfig):
    """Exp3 on rewards with uniform exploration (Auer et al. 2002)."""

    name: ClassVar[str] = "exp3-auer"
    about: ClassVar[str] = "Exp3 on rewards with uniform exploration, as first published"

    exploration: float | None = number(None, most=1)
    """g; min(1, sqrt(K ln K / ((e - 1) T))) if None."""


@dataclass(frozen=True)
class Exp3IXConfig(AdversarialConfig):
    """Exp3-IX."""

    name: ClassVar[str] = "exp3-ix"
    about: ClassVar[str] = "Exp3 with implicit exploration, losses / (p + eta / 2)"

    tuning: Literal["horizon", "anytime"] = "horizon"
    """sqrt(2 ln K / (K T)), or sqrt(ln K / (K t))."""
    rate: float | None = None
    """A constant rate instead, of losses moved into [0, 1]."""


@dataclass(frozen=True)
class Exp3PConfig(AdversarialConfig):
    """Exp3.P."""

    name: ClassVar[str] = "exp3-p"
    about: ClassVar[str] = "Exp3.P: optimistic estimates, regret bounded with high probability"

    delta: float = number(0.05, below=1)
    """How often the bound may fail."""


@dataclass(frozen=True)
class Exp3SConfig(AdversarialConfig):
    """Exp3.S."""

    name: ClassVar[str] = "exp3-s"
    about: ClassVar[str] = "Exp3.S: shares weight, follows a best arm that changes"

    segments: int | None = None
    """S, stretches of rounds with one best arm; if None the rate needs no such number."""


@dataclass(frozen=True)
class Rexp3Config(AdversarialConfig):
    """Rexp3."""

    name: ClassVar[str] = "rexp3"
    about: ClassVar[str] = "Exp3 that starts anew after each epoch, for drifting means"

    variation: float = 1.0
    """V, how far the means of rewards in [0, 1] move in all."""


@dataclass(frozen=True)
class Exp4Config(AdversarialConfig):
    """Exp4; the experts' advice is the fact `advice`, or shown each round by `experts` of them."""

    name: ClassVar[str] = "exp4"
    about: ClassVar[str] = "Exp4: exponential weights over experts who advise arms"

    tuning: Literal["horizon", "anytime"] = "horizon"
    """sqrt(2 ln N / (K T)), or sqrt(ln N / (K t))."""
    exploration: float = number(0.0, least=0, most=1)
    """g, the share of uniform exploration."""


@dataclass(frozen=True)
class TsallisINFConfig(AdversarialConfig):
    """Tsallis-INF."""

    name: ClassVar[str] = "tsallis-inf"
    about: ClassVar[str] = "Tsallis-INF: near the best for stochastic and for adversarial rewards"

    variant: Literal["rv", "iw"] = "rv"
    """Estimates of reduced variance, or importance-weighted ones."""


ADVERSARIAL: tuple[type[LearnerConfig], ...] = (
    Exp3Config,
    Exp3AuerConfig,
    Exp3IXConfig,
    Exp3PConfig,
    Exp3SConfig,
    Rexp3Config,
    Exp4Config,
    TsallisINFConfig,
)
