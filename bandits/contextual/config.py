"""Hyperparameters of the contextual bandits with one context for all arms. Imports no torch.

None means: from the facts of the problem (its horizon, its bounds, ...).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from bandits.config_base import LearnerConfig, from_zero, number

__all__ = ["CONTEXTUAL", "ContextualConfig"]


class ContextualConfig(LearnerConfig):
    """Of a learner that is shown one context for all arms each round."""

    family: ClassVar[str] = "bandits.contextual.named"


@dataclass(frozen=True)
class DisjointLinUCBConfig(ContextualConfig):
    """Disjoint LinUCB."""

    name: ClassVar[str] = "disjoint-lin-ucb"
    about: ClassVar[str] = "LinUCB with one linear model per arm: mean + alpha width"

    alpha: float = from_zero(1.0)
    """Factor of the width, for rewards in [0, 1] where they have a range."""
    ridge: float = 1.0
    """What V_a starts from, times the identity."""


@dataclass(frozen=True)
class PolicyConfig(ContextualConfig):
    """Of a learner that fits a linear policy to explored rounds."""

    oracle: Literal["weighted", "ips", "dr"] = "weighted"
    """Regression that finds the policy: weighted by 1/p, of IPS rewards, or of doubly robust ones."""
    ridge: float = 1.0
    """Of the oracle's regressions."""


@dataclass(frozen=True)
class EpochGreedyConfig(PolicyConfig):
    """Epoch-greedy."""

    name: ClassVar[str] = "epoch-greedy"
    about: ClassVar[str] = "epoch-greedy: a random round, then ever more greedy ones"

    policies: float | None = number(None, least=1)
    """|Pi| in the epochs' lengths; None: K^d."""
    delta: float = number(0.05, below=1)
    """Chance of failure in the epochs' lengths."""


@dataclass(frozen=True)
class ContextualEpsilonGreedyConfig(PolicyConfig):
    """Epsilon-greedy over linear policies."""

    name: ClassVar[str] = "contextual-epsilon-greedy"
    about: ClassVar[str] = "epsilon-greedy over linear policies, by an IPS or doubly robust oracle"

    epsilon: float | None = number(0.1, most=1)
    """Chance of a random arm; None: min(1, (K ln(t + 1)/t)^(1/3))."""


@dataclass(frozen=True)
class ContextualExploreFirstConfig(PolicyConfig):
    """Explore-first over linear policies."""

    name: ClassVar[str] = "contextual-explore-first"
    about: ClassVar[str] = "random rounds first, then the linear policy fitted to them"

    explore: int | None = None
    """Random rounds; None: T^(2/3) (K ln(T |Pi|))^(1/3)."""
    policies: float | None = number(None, least=1)
    """|Pi| there; None: K^d."""


@dataclass(frozen=True)
class SquareCBConfig(ContextualConfig):
    """SquareCB."""

    name: ClassVar[str] = "square-cb"
    about: ClassVar[str] = "SquareCB: chances from the gaps of predicted losses"

    oracle: Literal["ridge", "ogd"] = "ridge"
    """Online regression of losses: ridge, or gradient descent in a ball."""
    gamma: float | None = None
    """Learning rate; None: sqrt(K T/(Reg + ln(2/delta)))."""
    scale: float = 1.0
    """Factor of the learning rate; the theorem's is cautious, 10 and more learn faster."""
    anytime: bool = False
    """The round t in place of T in the learning rate."""
    regret: float | None = from_zero(None)
    """Reg, of the regression; None: a bound for the oracle."""
    delta: float = number(0.05, below=1)
    """Chance of failure in the learning rate."""
    ridge: float = 1.0
    """Of the ridge oracle."""
    radius: float | None = None
    """Largest norm of an arm's weights; None: the problem's parameter_bound, else 1."""


@dataclass(frozen=True)
class MeshUCBConfig(ContextualConfig):
    """UCB1 in each cell of a mesh."""

    name: ClassVar[str] = "mesh-ucb"
    about: ClassVar[str] = "Lipschitz contexts: a uniform mesh, UCB1 in each cell"

    cells: int | None = None
    """Along each axis; None: (T (L s)^2/K)^(1/(d+2)) for a box of side s, to the nearest whole number."""
    lipschitz: float | None = None
    """L there; None: the problem's, else 1."""
    low: float | None = number(None, least=-1e300)
    """Least value of a context's coordinates; None: the problem's, else 0."""
    high: float | None = number(None, least=-1e300)
    """Largest one; None: the problem's, else 1."""
    time: Literal["round", "horizon"] = "round"
    """ln t of the cell's own rounds, or ln T."""
    scale: float | None = None
    """Factor of the bonus; 1 for rewards in a range (moved into [0, 1]), else the noise."""


CONTEXTUAL: tuple[type[LearnerConfig], ...] = (
    DisjointLinUCBConfig,
    EpochGreedyConfig,
    ContextualEpsilonGreedyConfig,
    ContextualExploreFirstConfig,
    SquareCBConfig,
    MeshUCBConfig,
)
