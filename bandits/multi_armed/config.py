"""Hyperparameters of the stochastic bandits with K arms. Imports no torch.

None means: from the facts of the problem (its horizon, its noise, ...).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from bandits.config_base import LearnerConfig, from_zero, number

__all__ = ["ARMED", "ArmedConfig"]


class ArmedConfig(LearnerConfig):
    """Of a learner that plays one of K arms and sees its reward."""

    family: ClassVar[str] = "bandits.multi_armed.named"


@dataclass(frozen=True)
class IndexConfig(ArmedConfig):
    """Of a learner that plays the arm of the largest index."""

    ties: Literal["lowest", "random"] = "lowest"
    """Of equal indices the lowest arm, or one at random."""


@dataclass(frozen=True)
class UCB1Config(IndexConfig):
    """UCB1."""

    name: ClassVar[str] = "ucb1"
    about: ClassVar[str] = "UCB1: mean + sqrt(2 ln t / n)"

    time: Literal["round", "horizon"] = "round"
    """ln t (Auer), or ln T (Slivkins' book)."""
    scale: float | None = None
    """Factor of the bonus; 1 for rewards in a range (moved into [0, 1]), else the noise."""


@dataclass(frozen=True)
class UCBTunedConfig(IndexConfig):
    """UCB1-Tuned."""

    name: ClassVar[str] = "ucb1-tuned"
    about: ClassVar[str] = "UCB1-Tuned: the bonus shrinks with the variance seen"


@dataclass(frozen=True)
class UCBVConfig(IndexConfig):
    """UCB-V."""

    name: ClassVar[str] = "ucb-v"
    about: ClassVar[str] = "UCB-V: mean + sqrt(2 variance ln t / n) + 3 ln t / n"


@dataclass(frozen=True)
class KLUCBConfig(IndexConfig):
    """KL-UCB."""

    name: ClassVar[str] = "kl-ucb"
    about: ClassVar[str] = "KL-UCB: the largest mean within a divergence of the mean seen"

    c: float = from_zero(0.0)
    """Of c ln ln t in the level: 3 in theory, 0 in practice."""
    divergence: Literal["auto", "bernoulli", "gaussian"] = "auto"
    """Bernoulli's for rewards in a range, else that of normal rewards; or the one named."""
    scale: float | None = None
    """Standard deviation for the latter; 1/2 for rewards in a range (moved into [0, 1]), else the noise."""


@dataclass(frozen=True)
class MOSSConfig(IndexConfig):
    """MOSS."""

    name: ClassVar[str] = "moss"
    about: ClassVar[str] = "MOSS: mean + sqrt(ln(T / (K n)) / n), worst case without a logarithm"

    anytime: bool = False
    """t in place of the horizon T."""
    scale: float | None = None
    """Factor of the bonus; 1 for rewards in a range (moved into [0, 1]), else twice the noise."""


@dataclass(frozen=True)
class ThompsonBetaConfig(ArmedConfig):
    """Thompson sampling, Beta posterior."""

    name: ClassVar[str] = "thompson-beta"
    about: ClassVar[str] = "Thompson sampling from Beta posteriors (rewards in a range)"


@dataclass(frozen=True)
class ThompsonGaussianConfig(ArmedConfig):
    """Thompson sampling, normal posterior."""

    name: ClassVar[str] = "thompson-gaussian"
    about: ClassVar[str] = "Thompson sampling from normal posteriors"

    noise: float | None = None
    """Standard deviation of rewards; 1/2 for rewards in a range (moved into [0, 1]), else the problem's noise."""
    prior_mean: float | None = number(None, least=-1e9)
    """Of rewards as moved; 1/2 for rewards in a range, else 0."""
    prior_variance: float = 1.0
    """Of the mean beforehand."""


@dataclass(frozen=True)
class BayesUCBConfig(IndexConfig):
    """Bayes-UCB."""

    name: ClassVar[str] = "bayes-ucb"
    about: ClassVar[str] = "Bayes-UCB: the Beta posterior's quantile at 1 - 1 / (t (ln T)^c)"

    c: float = from_zero(0.0)
    """5 in theory, 0 in practice; above 0 the horizon is needed."""


@dataclass(frozen=True)
class ExploreFirstConfig(IndexConfig):
    """Explore-first."""

    name: ClassVar[str] = "explore-first"
    about: ClassVar[str] = "each arm N times, then the best of them for ever"

    explore: int | None = None
    """N; (T / K)^(2/3) (ln T)^(1/3)."""


@dataclass(frozen=True)
class EpsilonGreedyConfig(IndexConfig):
    """Epsilon-greedy."""

    name: ClassVar[str] = "epsilon-greedy"
    about: ClassVar[str] = "a uniform arm with probability eps, else the best mean"

    epsilon: float | None = number(None, least=0, most=1)
    """A constant; None is (K ln(t + 1) / t)^(1/3)."""


@dataclass(frozen=True)
class SuccessiveEliminationConfig(ArmedConfig):
    """Successive elimination."""

    name: ClassVar[str] = "successive-elimination"
    about: ClassVar[str] = "plays all arms in turn and drops those that are surely worse"

    scale: float | None = None
    """Factor of the radius sqrt(2 ln T / n); 1 for rewards in a range (moved into [0, 1]), else the noise."""


@dataclass(frozen=True)
class BoltzmannConfig(ArmedConfig):
    """Boltzmann exploration."""

    name: ClassVar[str] = "boltzmann"
    about: ClassVar[str] = "Boltzmann exploration: probabilities exp(mean / temperature)"

    temperature: float = 0.1
    """Constant; of means as moved into [0, 1] for rewards in a range."""


@dataclass(frozen=True)
class GreedyConfig(IndexConfig):
    """Greedy."""

    name: ClassVar[str] = "greedy"
    about: ClassVar[str] = "each arm once, then the best mean"


@dataclass(frozen=True)
class RandomConfig(ArmedConfig):
    """Random."""

    name: ClassVar[str] = "random"
    about: ClassVar[str] = "a uniform arm each round"


@dataclass(frozen=True)
class OracleConfig(ArmedConfig):
    """Oracle."""

    name: ClassVar[str] = "oracle"
    about: ClassVar[str] = "the best arm each round"

    arm: int | None = number(None, least=0)
    """Another arm's number than the best one's."""


@dataclass(frozen=True)
class SlidingWindowUCBConfig(IndexConfig):
    """SW-UCB."""

    name: ClassVar[str] = "sw-ucb"
    about: ClassVar[str] = "SW-UCB: UCB over a window of rounds, for means that change"

    window: int | None = None
    """Rounds; 2 sqrt(T ln T / changes)."""
    changes: int | None = None
    """How often means change, for that; 1 where the problem does not say."""
    xi: float = 0.6
    """Of the bonus sqrt(xi ln(min(t, window)) / n)."""
    scale: float | None = None
    """Factor of the bonus; 1 for rewards in a range (moved into [0, 1]), else the noise."""


@dataclass(frozen=True)
class DiscountedUCBConfig(IndexConfig):
    """D-UCB."""

    name: ClassVar[str] = "d-ucb"
    about: ClassVar[str] = "D-UCB: UCB with discounted rounds, for means that change"

    discount: float | None = number(None, most=1)
    """1 - sqrt(changes / T) / 4."""
    changes: int | None = None
    """How often means change, for that; 1 where the problem does not say."""
    xi: float = 0.6
    """Of the bonus 2 sqrt(xi ln(sum n) / n)."""
    scale: float | None = None
    """Factor of the bonus; 1 for rewards in a range (moved into [0, 1]), else the noise."""


ARMED: tuple[type[LearnerConfig], ...] = (
    UCB1Config, UCBTunedConfig, UCBVConfig, KLUCBConfig, MOSSConfig, ThompsonBetaConfig, ThompsonGaussianConfig,
    BayesUCBConfig, ExploreFirstConfig, EpsilonGreedyConfig, SuccessiveEliminationConfig, BoltzmannConfig,
    GreedyConfig, RandomConfig, OracleConfig, SlidingWindowUCBConfig, DiscountedUCBConfig,
)  # fmt: skip
