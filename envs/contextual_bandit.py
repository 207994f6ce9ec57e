"""Contextual bandits: a context for all arms each round, rewards whose means depend on it; linear, or Lipschitz."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from envs.bandit_world import BanditWorld
from envs.regret_world import SingleWorld, between, known, unit_vectors, whole
from orbs import runs_last

__all__ = ["KINDS", "ContextualBandit", "ContextualWorld", "single"]

KINDS = ("linear", "lipschitz")


class ContextualWorld(BanditWorld):
    """A bandit whose observation is the coming round's context, (R, d); zeros after the last round.

    A subclass gives `_context` besides what `BanditWorld` asks for, and "context_dimension" among the facts.
    """

    @abstractmethod
    def _context(self, row: tuple[Tensor, ...]) -> Tensor:
        """(R, d) of a round's row of the tape."""

    def context(self) -> Tensor:
        """(R, d) what a learner is shown before the coming round."""
        return self._before(self.round)

    def _before(self, round: int) -> Tensor:
        if round >= self.horizon:
            return self.zeros(*(self.single_observation_space.shape or ()))
        return self._context(self.tape.round(round))

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Tensor, dict[str, Any]]:
        """As `RegretWorld.reset`; the observation is the first context."""
        _, info = super().reset(seed=seed, options=options)
        return self.context(), info

    def _play(self, x: Tensor, row: tuple[Tensor, ...]) -> tuple[Tensor, Tensor, dict[str, Tensor] | None]:
        loss, _, terms = super()._play(x, row)
        return loss, self._before(self.round + 1), terms


class ContextualBandit(ContextualWorld):
    """K arms whose mean rewards are functions of a context.

    Kinds:
        linear: contexts uniform on the unit sphere of R^d, mean <w_a, x> with unit vectors w_a drawn once a run,
            normal noise of standard deviation `noise`.
        lipschitz: contexts uniform in [0, 1], d = 1; rewards 0 or 1 of mean 0.9 - L |x - c_a|, at least 0.1, around
            centres c_a = (a + 1/2)/K: arm a is best in its part of K equal ones.

    One number a round decides the reward of whichever arm is played.

    Args:
        arms: K, at least 1.
        horizon, runs, seed, device: as for `RegretWorld`.
        kind: as above.
        dimension: d, of linear.
        noise: of linear.
        lipschitz: L, of lipschitz.

    Raises:
        ValueError: a value out of its range, an unknown kind.
    """

    def __init__(
        self,
        arms: int = 10,
        horizon: int = 1000,
        runs: int | Sequence[int] = 20,
        seed: int = 0,
        device: torch.device | str = "cpu",
        *,
        kind: str = "linear",
        dimension: int = 5,
        noise: float = 0.1,
        lipschitz: float = 1.0,
    ) -> None:
        self.kind = known("ContextualBandit.kind", kind, KINDS)
        whole("ContextualBandit.arms", arms, 1)
        self.dimension = whole("ContextualBandit.dimension", dimension, 1) if kind == "linear" else 1
        self.noise = between("ContextualBandit.noise", noise, 0.0, np.inf)
        self.lipschitz = between("ContextualBandit.lipschitz", lipschitz, 0.0, np.inf)
        facts: dict[str, Any] = {"context_dimension": self.dimension, "feature_bound": 1.0}
        if kind == "linear":
            facts |= {"parameter_bound": 1.0, "noise": self.noise, "context_low": -1.0, "context_high": 1.0}
        else:
            facts |= {"lipschitz": self.lipschitz, "context_low": 0.0, "context_high": 1.0}
            facts |= {"reward_low": 0.0, "reward_high": 1.0}
        super().__init__(arms, horizon, runs, seed, device, self.dimension + 1, facts, (self.dimension,))

    def _prepare(self) -> None:
        if self.kind == "linear":
            count = self.arms * self.dimension
            z = self.philox.normal("contextual/weights", 0, 1, count, torch.float64)[:, 0]
            w = z.reshape(self.num_envs, self.arms, self.dimension)
            self.weights = runs_last(w / (w * w).sum(-1, keepdim=True).sqrt())
        else:
            self.centres = (torch.arange(self.arms, dtype=torch.float64, device=self.device) + 0.5) / self.arms

    def _draw(self, first: int, rounds: int) -> tuple[Tensor, ...]:
        if self.kind == "linear":
            contexts = unit_vectors(self.philox, "contextual/contexts", first, rounds, self.dimension)
            luck = self.philox.normal("contextual/rewards", first, rounds, 1, torch.float64)
        else:
            contexts = self.philox.uniform("contextual/contexts", first, rounds, 1, torch.float64)
            luck = self.philox.uniform("contextual/rewards", first, rounds, 1, torch.float64)
        return contexts, luck[..., 0]

    def _context(self, row: tuple[Tensor, ...]) -> Tensor:
        return row[0]

    def means(self, x: Tensor) -> Tensor:
        """(R, K) of the arms for contexts x (R, d)."""
        if self.kind == "linear":
            return (self.weights.movedim(0, -1) * x.mT).sum(1).mT
        return (0.9 - self.lipschitz * (x.mT - self.centres.unsqueeze(-1)).abs()).clamp_min(0.1).mT

    def _reward(self, arm: Tensor, row: tuple[Tensor, ...]) -> tuple[Tensor, Tensor, Tensor]:
        means, luck = self.means(row[0]), row[1]
        mean = means.gather(1, arm.unsqueeze(1))[:, 0]
        reward = mean + self.noise * luck if self.kind == "linear" else (luck < mean).double()
        return reward, mean, means.max(-1).values


def single(**arguments: Any) -> SingleWorld:
    """One run as a gymnasium environment."""
    return SingleWorld(ContextualBandit, **arguments)
