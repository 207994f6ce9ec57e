"""Hyperparameters of the learners of robust linear MDPs, and of their baselines. Imports no torch.

None means: from the facts of the problem.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from bandits.config_base import LearnerConfig, from_zero, number

__all__ = ["ROBUST"]


class EpisodicConfig(LearnerConfig):
    """Of a learner that plays a policy an episode."""

    family: ClassVar[str] = "bandits.mdp.robust_named"


@dataclass(frozen=True)
class LinearPlannerConfig(EpisodicConfig):
    """Of one that plans by ridge regression on features."""

    beta: float | None = from_zero(None)
    """Factor of the bonus; None: by the tuning."""
    tuning: Literal["practical", "theory"] = "practical"
    """beta 1 (0.1 offline), as the papers' experiments have it, or the theorem's, which explores almost for ever."""
    delta: float = number(0.05, below=1)
    """Chance of failure in the theorem's beta."""
    ridge: float = 0.1
    """What Lambda starts from, times the identity; the theorems have 1."""
    bonus: Literal["paper", "script", "elliptical"] = "paper"
    """Sum of coordinates' widths, the square root of their squares' sum, or the joint width."""
    rewards: Literal["known", "regressed"] = "known"
    """Rewards of the problem's facts where they are known beforehand, or regressed wherever there are features."""


@dataclass(frozen=True)
class RobustConfig(LinearPlannerConfig):
    """Of one that plans for the worst case."""

    divergence: Literal["problem", "off", "tv", "kl", "chi2"] = "problem"
    """What bounds nature; off: nothing."""
    form: Literal["problem", "constrained", "regularised"] = "problem"
    """Whether it is a bound or a price."""
    level: float | None = from_zero(None)
    """The radius of all laws, or the price's weight; None: the problem's."""
    weights: Literal["auto", "signed", "projected"] = "auto"
    """Of the next states in the duals: as regressed, or made probabilities; auto: the latter for KL."""
    eps: float = from_zero(0.0)
    """c of the floor c sqrt((Lambda^-1)_ii) in the duals of KL with signed weights; 0.1 helps there."""


@dataclass(frozen=True)
class DRRPOConfig(RobustConfig):
    """DR-RPO."""

    name: ClassVar[str] = "dr-rpo"
    about: ClassVar[str] = "robust MDP: optimistic worst-case values, softmax near a reference policy"

    temperature: float = 0.05
    """Weight of the divergence from the uniform reference policy."""
    step_size: float | None = None
    """Of the proximal policy step; None: the exact softmax."""
    switching: bool = False
    """Plan only when some det Lambda has doubled."""


@dataclass(frozen=True)
class DRLSVIUCBConfig(RobustConfig):
    """DR-LSVI-UCB."""

    name: ClassVar[str] = "dr-lsvi-ucb"
    about: ClassVar[str] = "robust MDP: optimistic worst-case values, greedy"

    switching: bool = False
    """Plan only when some det Lambda has doubled."""


@dataclass(frozen=True)
class RPOConfig(LinearPlannerConfig):
    """DR-RPO with radius 0."""

    name: ClassVar[str] = "rpo"
    about: ClassVar[str] = "linear MDP: dr-rpo that trusts the nominal model"

    temperature: float = 0.05
    """Weight of the divergence from the uniform reference policy."""
    step_size: float | None = None
    """Of the proximal policy step; None: the exact softmax."""
    switching: bool = False
    """Plan only when some det Lambda has doubled."""


@dataclass(frozen=True)
class LSVIUCBConfig(EpisodicConfig):
    """LSVI-UCB."""

    name: ClassVar[str] = "lsvi-ucb"
    about: ClassVar[str] = "linear MDP: optimistic least-squares value iteration"

    temperature: float = from_zero(0.0)
    """Above 0 soft LSVI-UCB, near the uniform reference policy."""
    beta: float | None = from_zero(None)
    """Factor of the elliptical bonus; None: by the tuning."""
    tuning: Literal["practical", "theory"] = "practical"
    """beta 1, or d H sqrt(log(3 d H K/delta))."""
    delta: float = number(0.05, below=1)
    """Chance of failure there."""
    ridge: float = 0.1
    """What Lambda starts from, times the identity; the theorem has 1."""


@dataclass(frozen=True)
class R2PVIConfig(RobustConfig):
    """R2PVI, and its relatives."""

    name: ClassVar[str] = "r2pvi"
    about: ClassVar[str] = "robust MDP offline: logs of the uniform policy, then pessimistic planning once"

    explore: int | None = number(None, least=0)
    """Episodes of the uniform policy; None: a tenth of the horizon, from 1 to 100."""


@dataclass(frozen=True)
class ReferencePolicyConfig(EpisodicConfig):
    """The uniform policy."""

    name: ClassVar[str] = "reference-policy"
    about: ClassVar[str] = "MDP: the uniform policy for good"


@dataclass(frozen=True)
class BestPolicyConfig(EpisodicConfig):
    """The best policy."""

    name: ClassVar[str] = "best-policy"
    about: ClassVar[str] = "MDP: plays the policy of the best (worst-case) value, known from the problem"


ROBUST: tuple[type[LearnerConfig], ...] = (
    DRRPOConfig,
    DRLSVIUCBConfig,
    RPOConfig,
    LSVIUCBConfig,
    R2PVIConfig,
    ReferencePolicyConfig,
    BestPolicyConfig,
)
