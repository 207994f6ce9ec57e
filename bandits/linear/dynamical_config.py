"""Hyperparameters of DynLin-UCB and of the baselines of its experiments. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from bandits.config_base import LearnerConfig, number

__all__ = ["DYNAMICAL"]


class DynamicalConfig(LearnerConfig):
    """Of a learner for the dynamical linear bandit."""

    family: ClassVar[str] = "bandits.linear.dynamical_named"


@dataclass(frozen=True)
class DynLinUCBConfig(DynamicalConfig):
    """DynLin-UCB (Mussi, Metelli, Restelli, ICML 2023)."""

    name: ClassVar[str] = "dyn-lin-ucb"
    about: ClassVar[str] = "DynLin-UCB: optimism, each action held until its effect has settled"

    ridge: float | None = None
    """lam; ln T if None, the paper's other tuning is 1."""
    spectral_radius: float | None = number(None, least=0, below=1)
    """rho_bar; the system's own spectral radius if None."""
    replicate_offset: bool = False
    """The schedule of the authors' released code, a round late."""


@dataclass(frozen=True)
class DynamicalLinUCBConfig(DynamicalConfig):
    """LinUCB as the experiments of Dynamical Linear Bandits tune it."""

    name: ClassVar[str] = "dynamical-lin-ucb"
    about: ClassVar[str] = "LinUCB as DynLin-UCB's experiments tune it"

    tuning: Literal["log", "one", "dynamic"] = "log"
    """lam = ln T, lam = 1, or DynLin-UCB's own radius."""


@dataclass(frozen=True)
class DynamicalDLinUCBConfig(DynamicalConfig):
    """D-LinUCB as the experiments of Dynamical Linear Bandits tune it."""

    name: ClassVar[str] = "dynamical-d-lin-ucb"
    about: ClassVar[str] = "D-LinUCB as DynLin-UCB's experiments tune it"

    tuning: Literal["log", "one"] = "log"
    """lam = ln T, or lam = 1."""
    discount: float | None = number(None, below=1)
    """0.999999 or 0.999999999 by the tuning if None."""


@dataclass(frozen=True)
class DynamicalExp3Config(DynamicalConfig):
    """Exp3 as the experiments of Dynamical Linear Bandits run it."""

    name: ClassVar[str] = "dynamical-exp3"
    about: ClassVar[str] = "Exp3 as DynLin-UCB's experiments run it"


@dataclass(frozen=True)
class BatchExp3Config(DynamicalConfig):
    """Batch-Exp3."""

    name: ClassVar[str] = "batch-exp3"
    about: ClassVar[str] = "Exp3 that holds each action for a batch of rounds"

    batch: int | None = None
    """Rounds of a batch; ln M / ln(1 / rho) for DynLin-UCB's M epochs if None."""
    replicate_misalignment: bool = False
    """Batches as the authors' released code cuts them."""


@dataclass(frozen=True)
class AR2Config(DynamicalConfig):
    """AR2 (Chen, Golrezaei, Bouneffouf, NeurIPS 2023)."""

    name: ClassVar[str] = "ar2"
    about: ClassVar[str] = "AR2: autoregressive rewards, the better arm and triggered ones in turn"

    correlation: float | None = number(None, below=1)
    """alpha; the system's spectral radius if None."""
    replicate_quirks: bool = False
    """The first pass and the triggers of the released code."""


@dataclass(frozen=True)
class ExpertConfig(DynamicalConfig):
    """The human planner of the advertising system."""

    name: ClassVar[str] = "expert"
    about: ClassVar[str] = "the problem's human planner: one plan for ever"


DYNAMICAL: tuple[type[LearnerConfig], ...] = (
    DynLinUCBConfig,
    DynamicalLinUCBConfig,
    DynamicalDLinUCBConfig,
    DynamicalExp3Config,
    BatchExp3Config,
    AR2Config,
    ExpertConfig,
)
