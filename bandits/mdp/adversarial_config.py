"""Hyperparameters of the learners of MDPs whose losses an adversary chooses. Imports no torch.

None means: from the facts of the problem, by the field `tuning` where there is one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from bandits.config_base import LearnerConfig, from_zero, number

__all__ = ["ADVERSARIAL_MDP"]


class AdversarialMDPConfig(LearnerConfig):
    """Of a learner that plays a policy an episode."""

    family: ClassVar[str] = "bandits.mdp.adversarial_named"


@dataclass(frozen=True)
class DilatedConfig(AdversarialMDPConfig):
    """FTRL with a simulator and dilated bonuses."""

    tuning: Literal["practical", "theory"] = "practical"
    """Rates that learn at feasible numbers of episodes, or the theorem's."""
    c: float = 4.0
    """Factor of the practical learning rate."""
    scale: float = 0.0625
    """Factor of the practical gamma and beta."""
    eta: float | None = None
    """Learning rate; None: by the tuning."""
    beta: float | None = from_zero(None)
    """Size of the bonus; None: by the tuning."""
    gamma: float | None = None
    """What is added to covariances, times the identity; None: by the tuning."""
    bonus: Literal["exact", "sample", "off"] = "exact"
    """Dilated bonuses by the kernel, by one draw of the simulator a step and pair, or no bonus."""
    covariance: Literal["exact", "direct", "mgr"] = "exact"
    """Inverse covariances from occupancies, averaged trajectories, or matrix geometric resampling."""
    trajectories: int = 256
    """Simulated each episode where the covariance is "direct"."""
    chains: int = 16
    """Averaged where it is "mgr"."""
    length: int | None = None
    """Trajectories of a chain there; None: (2/gamma) ln(1/gamma), thousands at the practical gamma: slow."""


@dataclass(frozen=True)
class PolOptConfig(DilatedConfig):
    """Policy optimisation by exponential weights."""

    name: ClassVar[str] = "pol-opt"
    about: ClassVar[str] = "adversarial MDP: exponential weights with dilated bonuses"


@dataclass(frozen=True)
class LogBarrierFTRLConfig(DilatedConfig):
    """Log-barrier FTRL."""

    name: ClassVar[str] = "log-barrier-ftrl"
    about: ClassVar[str] = "adversarial MDP: log-barrier FTRL with dilated bonuses"

    c: float = 32.0
    """Factor of the practical learning rate."""


@dataclass(frozen=True)
class MagnitudeReducedFTRLConfig(DilatedConfig):
    """Exponential weights on magnitude-reduced estimates."""

    name: ClassVar[str] = "magnitude-reduced-ftrl"
    about: ClassVar[str] = "adversarial MDP: exponential weights on magnitude-reduced estimates"

    correction: Literal["exact", "sample"] = "exact"
    """The estimates' correction from occupancies, or from fresh trajectories."""
    samples: int | None = None
    """Trajectories of an episode there; None: 4 ln(dHK)/gamma."""


@dataclass(frozen=True)
class FullInformationFTRLConfig(AdversarialMDPConfig):
    """Exponential weights, the whole loss revealed."""

    name: ClassVar[str] = "full-information-ftrl"
    about: ClassVar[str] = "adversarial MDP, losses revealed: exponential weights on exact Q functions"

    tuning: Literal["practical", "theory"] = "practical"
    """c sqrt(ln A/(dK)), or sqrt(8 ln A/K)/H."""
    c: float = 4.0
    """Factor of the practical learning rate."""
    eta: float | None = None
    """Learning rate; None: by the tuning."""


@dataclass(frozen=True)
class SimulatorFreeFTRLConfig(AdversarialMDPConfig):
    """Log-barrier FTRL in epochs."""

    name: ClassVar[str] = "simulator-free-ftrl"
    about: ClassVar[str] = "adversarial linear MDP, no simulator: log-barrier FTRL in epochs"

    epoch: int | None = number(None, least=2)
    """Episodes of an epoch; None: 2 K^(1/3)."""
    explore: float | None = number(None, least=0, most=1)
    """Chance that an episode plays the uniform policy; None: K^(-1/3)."""
    eta: float | None = None
    """Learning rate; None: 3/sqrt(number of epochs)."""
    beta: float = from_zero(0.002)
    """Size of the bonus."""
    gamma: float = 0.01
    """What is added to covariances, times the identity."""
    alpha: float | None = None
    """Squared width above which a state is unknown and has no bonus; None: infinity."""


@dataclass(frozen=True)
class CFPOConfig(AdversarialMDPConfig):
    """Contracted-features policy optimisation."""

    name: ClassVar[str] = "cfpo"
    about: ClassVar[str] = "linear MDP, no simulator: optimistic exponential weights on contracted features"

    information: Literal["auto", "bandit", "full"] = "auto"
    """Learns from losses of the pairs that were met, from the whole loss, or from what the problem says it reveals."""
    tuning: Literal["practical", "theory"] = "practical"
    """eta 1, bonus 0.3 and contraction 4, or the theorem's."""
    eta: float | None = None
    """Learning rate; None: by the tuning."""
    bonus: float | None = from_zero(None)
    """Of the optimism; None: by the tuning."""
    contraction: float | None = from_zero(None)
    """Of the width in the sigmoid; None: by the tuning."""
    delta: float = number(0.05, below=1)
    """Chance of failure in the theorem's constants."""


ADVERSARIAL_MDP: tuple[type[LearnerConfig], ...] = (
    PolOptConfig,
    LogBarrierFTRLConfig,
    MagnitudeReducedFTRLConfig,
    FullInformationFTRLConfig,
    SimulatorFreeFTRLConfig,
    CFPOConfig,
)
