"""Hyperparameters of the learners of online convex optimisation (`bandits.online_learning`). Imports no torch.

None means: from the facts of the problem (its diameter, gradient bound, horizon, ...), as the paper has it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

from bandits.config_base import LearnerConfig, from_zero, number

__all__ = ["ONLINE"]


class OnlineConfig(LearnerConfig):
    """Of a learner that plays points of a domain and sees gradients."""

    family: ClassVar[str] = "bandits.online_learning.named"


@dataclass(frozen=True)
class HedgeConfig(OnlineConfig):
    """Exponential weights (FTRL with the entropy on the simplex)."""

    name: ClassVar[str] = "hedge"
    about: ClassVar[str] = "Hedge: exponential weights over experts"

    tuning: Literal["anytime", "horizon"] = "anytime"
    """2 sqrt(ln K / t) over the range of losses, or sqrt(8 ln K / T) over it."""
    rate: float | None = None
    """A constant rate instead."""


@dataclass(frozen=True)
class OptimisticHedgeConfig(OnlineConfig):
    """Hedge that counts the last loss twice."""

    name: ClassVar[str] = "optimistic-hedge"
    about: ClassVar[str] = "Hedge with the last losses as prediction"

    rate: float | None = None
    """Constant rate; 1 / (4 sqrt(ln K)) over the range of losses if None."""


@dataclass(frozen=True)
class AdaHedgeConfig(OnlineConfig):
    """AdaHedge: no range, no horizon, nothing to tune (de Rooij et al., arXiv 1301.0534)."""

    name: ClassVar[str] = "adahedge"
    about: ClassVar[str] = "Hedge whose rate follows the mixability gaps"


@dataclass(frozen=True)
class LogBarrierConfig(OnlineConfig):
    """FTRL on the simplex with a barrier-like regulariser."""

    name: ClassVar[str] = "log-barrier"
    about: ClassVar[str] = "FTRL with the log-barrier on the simplex"

    rate: float | None = None
    """Constant rate; sqrt(K ln(T + 1) / T) over the range of losses if None."""


@dataclass(frozen=True)
class TsallisConfig(OnlineConfig):
    """FTRL with Tsallis entropy on the simplex, full information."""

    name: ClassVar[str] = "tsallis"
    about: ClassVar[str] = "FTRL with Tsallis entropy on the simplex"

    alpha: float = 0.5
    """Between 0 (log-barrier) and 1 (entropy), exclusive."""
    scale: float | None = None
    """eta_t = scale / sqrt(t); 2 over the range of losses if None."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.alpha >= 1:
            self._reject("alpha", "a number between 0 and 1, exclusive")


@dataclass(frozen=True)
class OGDConfig(OnlineConfig):
    """Projected online gradient descent (Zinkevich 2003; Hazan, Agarwal, Kale 2007)."""

    name: ClassVar[str] = "ogd"
    about: ClassVar[str] = "online gradient descent, eta = D / (G sqrt t)"

    scale: float | None = None
    """eta_t = scale / sqrt(t); D / G if None."""


@dataclass(frozen=True)
class StrongOGDConfig(OnlineConfig):
    """Projected online gradient descent for strongly convex losses."""

    name: ClassVar[str] = "ogd-strong"
    about: ClassVar[str] = "online gradient descent, eta = 1 / (lambda t)"

    strong_convexity: float | None = None
    """lambda."""


@dataclass(frozen=True)
class OptimisticOGDConfig(OnlineConfig):
    """Optimistic gradient descent at a constant rate."""

    name: ClassVar[str] = "optimistic-ogd"
    about: ClassVar[str] = "optimistic gradient descent at a constant rate"

    rate: float | None = None
    """1 / (8 L) if None."""


@dataclass(frozen=True)
class DualAveragingConfig(OnlineConfig):
    """FTRL with the Euclidean regulariser: lazy projection, anytime."""

    name: ClassVar[str] = "ftrl"
    about: ClassVar[str] = "lazy projection, eta = c r / sqrt(G^2 + sum ||g||^2)"

    scale: float = 1 / math.sqrt(2)
    """c."""


@dataclass(frozen=True)
class AdaGradConfig(OnlineConfig):
    """A rate a coordinate from the squares of its gradients (Duchi, Hazan, Singer 2011)."""

    name: ClassVar[str] = "adagrad"
    about: ClassVar[str] = "AdaGrad, diagonal or full matrix"

    form: Literal["mirror", "dual"] = "mirror"
    """Mirror descent, or dual averaging."""
    matrix: bool = False
    """The root of the whole matrix of products, instead of its diagonal; mirror descent alone."""
    scale: float | None = None
    """D_inf / sqrt(2) if None (with matrix: D / sqrt(2))."""
    epsilon: float = from_zero(0.0)
    """Added to the root; needed above 0 with matrix, where 1e-8 is taken if it is 0."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.matrix and self.form == "dual":
            self._reject("form", "'mirror' with matrix=True")


@dataclass(frozen=True)
class OptimisticOMDConfig(OnlineConfig):
    """Optimistic mirror descent for convex losses whose expectation is smooth (Chen et al., arXiv 2302.04552)."""

    name: ClassVar[str] = "optimistic-omd"
    about: ClassVar[str] = "optimistic mirror descent, convex losses (SEA)"

    diameter: float | None = None
    """D."""
    bound: float | None = None
    """G, of the gradients' norms."""
    delta: float | None = from_zero(None)
    """10 D^2 L^2 if None; 0 keeps the path-wise bound and loses the smoothness."""


@dataclass(frozen=True)
class StrongOMDConfig(OnlineConfig):
    """Optimistic mirror descent for strongly convex losses (Chen et al., arXiv 2302.04552)."""

    name: ClassVar[str] = "optimistic-omd-strong"
    about: ClassVar[str] = "optimistic mirror descent, strongly convex losses, eta = 2 / (lambda t)"

    strong_convexity: float | None = None
    """lambda."""


@dataclass(frozen=True)
class ExpConcaveOMDConfig(OnlineConfig):
    """Optimistic online Newton method for exp-concave losses (Chen et al., arXiv 2302.04552)."""

    name: ClassVar[str] = "optimistic-omd-exp"
    about: ClassVar[str] = "optimistic mirror descent, exp-concave losses"

    exp_concavity: float | None = None
    """alpha."""
    diameter: float | None = None
    """D."""
    bound: float | None = None
    """G."""


@dataclass(frozen=True)
class ImplicitOMDConfig(OnlineConfig):
    """Optimistic mirror descent that predicts the last loss as a whole: non-smooth losses (arXiv 2302.04552)."""

    name: ClassVar[str] = "optimistic-omd-implicit"
    about: ClassVar[str] = "optimistic mirror descent, implicit prediction for non-smooth losses"

    diameter: float | None = None
    """D."""
    bound: float | None = None
    """G."""
    delta: float = from_zero(0.0)
    """Added under the root of the step size."""


@dataclass(frozen=True)
class OptimisticFTRLConfig(OnlineConfig):
    """Optimistic FTRL in the SEA model, convex losses (Sachs et al., arXiv 2202.07554)."""

    name: ClassVar[str] = "optimistic-ftrl"
    about: ClassVar[str] = "optimistic FTRL, convex losses (SEA)"

    diameter: float | None = None
    """A bound on the norm of the domain's points; its radius if None."""
    nu: float | None = None
    """L D^2 + D G if None; 2 D G is the worst-case tuning."""


@dataclass(frozen=True)
class StrongFTRLConfig(OnlineConfig):
    """Optimistic follow-the-leader on quadratics below strongly convex losses (Sachs et al., arXiv 2202.07554)."""

    name: ClassVar[str] = "optimistic-ftrl-strong"
    about: ClassVar[str] = "optimistic follow-the-leader, strongly convex losses"

    strong_convexity: float | None = None
    """mu."""


@dataclass(frozen=True)
class ONSConfig(OnlineConfig):
    """Online Newton step (Hazan, Agarwal, Kale 2007)."""

    name: ClassVar[str] = "ons"
    about: ClassVar[str] = "online Newton step, exp-concave losses"

    exp_concavity: float | None = None
    """alpha."""
    diameter: float | None = None
    """D."""
    bound: float | None = None
    """G."""


@dataclass(frozen=True)
class TwoLayerConfig(OnlineConfig):
    """Two layers for dynamic regret (Zhao et al., arXiv 2112.14368)."""

    name: ClassVar[str] = "two-layer"
    about: ClassVar[str] = "optimistic descent at several rates under a meta learner (dynamic regret)"

    pool: Literal["code", "theory"] = "code"
    """Which base rates: the authors' code's, or the paper's."""
    diameter: float | None = None
    """D."""
    bound: float | None = None
    """G."""
    smoothness: float | None = None
    """L."""
    penalty: float | None = from_zero(None)
    """Of a base learner's squared move; 2 L if None."""
    meta_scale: float = 1.0
    """1 in the authors' code, sqrt(ln N) / D in the theory."""
    lazy: bool = False
    """Weigh by all losses at the present rate."""


@dataclass(frozen=True)
class ProximalConfig(OnlineConfig):
    """FTRL-Proximal: per-coordinate rates and L1 (McMahan et al., KDD 2013)."""

    name: ClassVar[str] = "ftrl-proximal"
    about: ClassVar[str] = "FTRL-Proximal: per-coordinate rates, sparse"

    alpha: float = 0.1
    """Rate alpha / (beta + sqrt(sum g^2))."""
    beta: float = from_zero(1.0)
    """See alpha."""
    l1: float = from_zero(0.0)
    """Weight of the L1 penalty."""
    l2: float = from_zero(0.0)
    """Weight of half the squared norm."""


@dataclass(frozen=True)
class WeightedMajorityConfig(OnlineConfig):
    """Weighted majority: weights times (1 - eps)^loss (Slivkins, arXiv 1904.07272)."""

    name: ClassVar[str] = "weighted-majority"
    about: ClassVar[str] = "weighted majority: (1 - eps)^loss, eps for a known horizon"

    epsilon: float | None = number(None, below=1)
    """eps; min(1/2, sqrt(ln K / (3 T))) if None."""


@dataclass(frozen=True)
class FPLConfig(OnlineConfig):
    """Follow the perturbed leader (Kalai and Vempala 2005)."""

    name: ClassVar[str] = "fpl"
    about: ClassVar[str] = "follow the perturbed leader over experts"

    draw: Literal["round", "once"] = "round"
    """New noise each round, or one draw for all."""
    epsilon: float | None = None
    """Noise is uniform in [-1/eps, 1/eps]; 2 / sqrt(K T) over the range of losses if None."""


ONLINE: tuple[type[LearnerConfig], ...] = (
    HedgeConfig,
    OptimisticHedgeConfig,
    AdaHedgeConfig,
    LogBarrierConfig,
    TsallisConfig,
    OGDConfig,
    StrongOGDConfig,
    OptimisticOGDConfig,
    DualAveragingConfig,
    AdaGradConfig,
    OptimisticOMDConfig,
    StrongOMDConfig,
    ExpConcaveOMDConfig,
    ImplicitOMDConfig,
    OptimisticFTRLConfig,
    StrongFTRLConfig,
    ONSConfig,
    TwoLayerConfig,
    ProximalConfig,
    WeightedMajorityConfig,
    FPLConfig,
)
