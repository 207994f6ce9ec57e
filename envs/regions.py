"""Where the actions of a regret world lie: ball, box, simplex, a finite set of arms, or the policies of an MDP.

Each says how far an action is outside, brings one inside for the single environment, and knows the least value of a
linear function. Learners have projections of their own: a world projects nothing that it is given.
"""

from __future__ import annotations

import dataclasses
import math
from abc import ABC, abstractmethod
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from orbs import reject

__all__ = ["Arms", "Ball", "Box", "Policies", "Region", "Simplex"]


@dataclasses.dataclass(frozen=True)
class Region(ABC):
    """A set of actions; `dimension` is the number of coordinates (of arms, for `Arms`)."""

    name: ClassVar[str]
    dtype: ClassVar[torch.dtype] = torch.float64
    dimension: int

    def __post_init__(self) -> None:
        if not isinstance(self.dimension, (int, np.integer)) or isinstance(self.dimension, bool) or self.dimension < 1:
            reject("dimension", "an integer of at least 1", repr(self.dimension), "give the number of coordinates")

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one run's action."""
        return (self.dimension,)

    @property
    def plain(self) -> tuple[str, dict[str, Any]]:
        """The region as plain data, for a world's facts."""
        return self.name, dataclasses.asdict(self)

    @property
    @abstractmethod
    def diameter(self) -> float:
        """The largest Euclidean distance of two points."""

    @abstractmethod
    def space(self) -> gym.Space[Any]:
        """A gymnasium space that holds the region."""

    @abstractmethod
    def excess(self, x: Tensor) -> Tensor:
        """() how far the worst of the actions is outside, at most 0 inside; NaN where one is not a number."""

    @abstractmethod
    def inside(self, action: np.ndarray) -> np.ndarray:
        """The one action brought inside, by the rule that the class states."""

    def centre(self) -> np.ndarray:
        """One run's action to play where a learner has none: what the middle of the space is brought inside to."""
        return self.inside(np.zeros(self.shape))

    @abstractmethod
    def lowest(self, linear: Tensor) -> Tensor:
        """(R,) the least value of <linear, u> over the region, linear (R, d)."""


@dataclasses.dataclass(frozen=True)
class Ball(Region):
    """Points of norm at most `radius`. One outside is scaled to the boundary."""

    name = "ball"
    radius: float = 1.0

    @property
    def diameter(self) -> float:
        return 2 * self.radius

    def space(self) -> gym.Space[Any]:
        return spaces.Box(-self.radius, self.radius, self.shape, np.float32)

    def excess(self, x: Tensor) -> Tensor:
        return (x * x).sum(-1).max().sqrt() - self.radius

    def inside(self, action: np.ndarray) -> np.ndarray:
        return np.asarray(action / max(1.0, float(np.linalg.norm(action)) / self.radius))

    def lowest(self, linear: Tensor) -> Tensor:
        return -self.radius * (linear * linear).sum(-1).sqrt()

    def project(self, v: Tensor) -> Tensor:
        """(R, d) the nearest points of the ball."""
        return v / ((v * v).sum(-1, keepdim=True).sqrt() / self.radius).clamp_min(1.0)


@dataclasses.dataclass(frozen=True)
class Box(Region):
    """Points with each coordinate in [low, high]. Coordinates outside are clipped."""

    name = "box"
    low: float = -1.0
    high: float = 1.0

    @property
    def diameter(self) -> float:
        return float((self.high - self.low) * np.sqrt(self.dimension))

    def space(self) -> gym.Space[Any]:
        return spaces.Box(self.low, self.high, self.shape, np.float32)

    def excess(self, x: Tensor) -> Tensor:
        # Over the transpose, contiguous where runs are last: four times as fast.
        return torch.maximum(x.mT.max() - self.high, self.low - x.mT.min())

    def inside(self, action: np.ndarray) -> np.ndarray:
        return np.asarray(np.clip(action, self.low, self.high))

    def lowest(self, linear: Tensor) -> Tensor:
        return torch.minimum(self.low * linear, self.high * linear).sum(-1)


@dataclasses.dataclass(frozen=True)
class Simplex(Region):
    """Distributions. An action is clipped at 0 and divided by its sum, or uniform where nothing is left of it."""

    name = "simplex"

    @property
    def diameter(self) -> float:
        return float(np.sqrt(2.0)) if self.dimension > 1 else 0.0

    def space(self) -> gym.Space[Any]:
        return spaces.Box(0.0, 1.0, self.shape, np.float32)

    def excess(self, x: Tensor) -> Tensor:
        # Over the transpose, contiguous where runs are last: four times as fast.
        return torch.maximum((x.sum(-1) - 1.0).abs().max(), -x.mT.min())

    def inside(self, action: np.ndarray) -> np.ndarray:
        kept = np.maximum(action, 0.0)
        total = kept.sum()
        return np.full(self.dimension, 1.0 / self.dimension) if total == 0 else np.asarray(kept / total)

    def lowest(self, linear: Tensor) -> Tensor:
        return linear.amin(-1)


@dataclasses.dataclass(frozen=True)
class Arms(Region):
    """The numbers 0 .. dimension - 1, an int64 a run. One outside is clipped. As points they are unit vectors."""

    name = "arms"
    dtype = torch.int64

    @property
    def shape(self) -> tuple[int, ...]:
        return ()

    @property
    def diameter(self) -> float:
        return math.sqrt(2.0) if self.dimension > 1 else 0.0

    def space(self) -> gym.Space[Any]:
        return spaces.Discrete(self.dimension)

    def excess(self, x: Tensor) -> Tensor:
        return torch.maximum(x.max() - (self.dimension - 1), -x.min()).double()

    def inside(self, action: np.ndarray) -> np.ndarray:
        return np.asarray(np.clip(action, 0, self.dimension - 1))

    def lowest(self, linear: Tensor) -> Tensor:
        return linear.amin(-1)


@dataclasses.dataclass(frozen=True)
class Policies(Region):
    """Policies (H, S, A) of an episodic MDP, H S A = `dimension`: a distribution over actions in each step and state.

    A row is brought inside as a point of the simplex is.
    """

    name = "policies"
    states: int = 1
    actions: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.states < 1 or self.actions < 1 or self.dimension % (self.states * self.actions):
            given = f"{self.dimension} for {self.states} states and {self.actions} actions"
            reject("dimension", "steps times states times actions", given, "align them")

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.dimension // (self.states * self.actions), self.states, self.actions)

    @property
    def diameter(self) -> float:
        return math.sqrt(2.0 * self.dimension / self.actions) if self.actions > 1 else 0.0

    def space(self) -> gym.Space[Any]:
        return spaces.Box(0.0, 1.0, self.shape, np.float32)

    def excess(self, x: Tensor) -> Tensor:
        return torch.maximum((x.sum(-1) - 1.0).abs().max(), -x.min())

    def inside(self, action: np.ndarray) -> np.ndarray:
        kept = np.maximum(action, 0.0)
        total = kept.sum(-1, keepdims=True)
        return np.where(total == 0, 1.0 / self.actions, kept / np.where(total == 0, 1.0, total))

    def lowest(self, linear: Tensor) -> Tensor:
        return linear.reshape(len(linear), *self.shape).amin(-1).sum((-1, -2))
