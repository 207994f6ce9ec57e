"""Hyperparameters of the stochastic bandits with K arms. Imports no torch.

None means: from the facts of the problem (its horizon, its noise, ...).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from bandits.config_base import LearnerConfig

__all__ = ["ARMED", "ArmedConfig"]


class ArmedConfig(LearnerConfig):
    """Of a learner that plays one of K arms and sees its reward."""

    family: ClassVar[str] = "bandits.multi_armed.named"


@dataclass(frozen=True)
class UCB1Config(ArmedConfig):
    """UCB1."""

    name: ClassVar[str] = "ucb1"
    about: ClassVar[str] = "UCB1: mean + sqrt(2 ln t / n)"

    time: Literal["round", "horizon"] = "round"
    """ln t (Auer), or ln T (Slivkins' book)."""
    scale: float | None = None
    """Factor of the bonus; 1 for rewards in a range (moved into [0, 1]), else the noise."""


ARMED: tuple[type[LearnerConfig], ...] = (UCB1Config,)
