"""Arms with feature vectors, rewards whose means are linear in them (or logistic), of a parameter at rest or moving."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from envs.bandit_world import BanditWorld
from envs.regret_world import SingleWorld, between, known, unit_vectors, whole
from orbs import Philox, runs_last

__all__ = ["KINDS", "LinearBandit", "single"]

KINDS = ("fixed", "contexts", "rotating", "abrupt", "logistic")


class LinearBandit(BanditWorld):
    """K arms with features u_k uniform on the unit sphere of R^d; a round's mean reward is <theta, u_k>.

    Kinds:
        fixed: features drawn once a run, theta uniform on the sphere of radius `norm`.
        contexts: new features each round, shown by `context` and as the observation, (K, d).
        rotating: as fixed; theta turns once around in all rounds, in a random plane.
        abrupt: as fixed; theta becomes -theta after half of the rounds.
        logistic: as fixed; rewards are 0 or 1, of mean 1 / (1 + e^{-<theta, u_k>}).

    Rewards but the logistic ones have normal noise. One number a round decides the reward of whichever arm is played.

    Args:
        arms: K, at least 1.
        horizon, runs, seed, device: as for `RegretWorld`.
        kind: as above.
        dimension: d; at least 2 where theta turns.
        noise: standard deviation, of no effect for logistic.
        norm: of theta.
        shared: all runs have the same features, where these stay.
        fresh: features are new each round, as for contexts, with the parameter of another kind.

    Raises:
        ValueError: a value out of its range, an unknown kind.
    """

    def __init__(
        self,
        arms: int = 20,
        horizon: int = 1000,
        runs: int | Sequence[int] = 20,
        seed: int = 0,
        device: torch.device | str = "cpu",
        *,
        kind: str = "fixed",
        dimension: int = 5,
        noise: float = 0.1,
        norm: float = 1.0,
        shared: bool = False,
        fresh: bool = False,
    ) -> None:
        self.kind = known("LinearBandit.kind", kind, KINDS)
        whole("LinearBandit.arms", arms, 1)
        self.dimension = whole("LinearBandit.dimension", dimension, 2 if kind == "rotating" else 1)
        self.noise = between("LinearBandit.noise", noise, 0.0, np.inf)
        self.norm = between("LinearBandit.norm", norm, 0.0, np.inf)
        self.shared, self.fresh = bool(shared), bool(fresh) or kind == "contexts"
        self._half = (whole("horizon", horizon, 1) + 1) // 2
        self._turn = 2.0 * math.pi / horizon
        facts: dict[str, Any] = {
            "feature_dimension": self.dimension, "feature_bound": 1.0, "parameter_bound": self.norm,
        }  # fmt: skip
        facts |= {"reward_low": 0.0, "reward_high": 1.0} if kind == "logistic" else {"noise": self.noise}
        if kind in ("rotating", "abrupt"):
            facts["variation"] = self.norm * (2.0 * math.pi if kind == "rotating" else 2.0)
        width, seen = (arms * self.dimension + 1, (arms, self.dimension)) if self.fresh else (1, (1,))
        super().__init__(arms, horizon, runs, seed, device, width, facts, seen)
        if not self.fresh:
            self.facts = {**self.facts, "features": self.features}

    def _prepare(self) -> None:
        d = self.dimension
        first = unit_vectors(self.philox, "linear-bandit/parameter", 0, 1, d)[:, 0]
        self.axes = [runs_last(self.norm * first)]
        if self.kind == "rotating":
            second = self.philox.normal("linear-bandit/plane", 0, 1, d, torch.float64)[:, 0]
            second = second - (second * first).sum(-1, keepdim=True) * first
            self.axes.append(runs_last(self.norm * second / (second * second).sum(-1, keepdim=True).sqrt()))
        if self.fresh:
            return
        # An arm takes the place of a round: its features are the same however many arms there are.
        if self.shared:
            own = Philox(self.seed, [0], self.device, runs_last=True)
            self.features = unit_vectors(own, "linear-bandit/shared features", 0, self.arms, d)[0].contiguous()
        else:
            self.features = unit_vectors(self.philox, "linear-bandit/features", 0, self.arms, d)
        rows = self.features.unsqueeze(-1) if self.shared else self.features.movedim(0, -1)
        self._levels = [(rows * axis.mT).sum(1).mT for axis in self.axes]
        if "features" in self.__dict__.get("facts", {}):
            self.facts = {**self.facts, "features": self.features}

    def _draw(self, first: int, rounds: int) -> tuple[Tensor, ...]:
        draw = self.philox.uniform if self.kind == "logistic" else self.philox.normal
        luck = draw("linear-bandit/rewards", first, rounds, 1, torch.float64)[..., 0]
        if not self.fresh:
            return (luck,)
        count = self.arms * self.dimension
        z = self.philox.normal("linear-bandit/contexts", first, rounds, count, torch.float64).movedim(0, -1)
        z = z.reshape(rounds, self.arms, self.dimension, -1)
        z /= (z * z).sum(2, keepdim=True).sqrt()
        return luck, z.movedim(-1, 0)

    def parameter(self, round: int) -> Tensor:
        """(R, d) theta of a round, counted from 0."""
        return self._moved(self.axes, round)

    def _moved(self, parts: list[Tensor], round: int) -> Tensor:
        """What is linear in theta, of a round, from what it is for each axis."""
        if self.kind == "rotating":
            angle = self._turn * round
            return math.cos(angle) * parts[0] + math.sin(angle) * parts[1]
        return -parts[0] if self.kind == "abrupt" and round >= self._half else parts[0]

    def means(self, round: int, features: Tensor | None = None) -> Tensor:
        """(R, K) of the arms in a round, counted from 0, with the round's features (R, K, d) where they are new."""
        if features is None:
            found = self._moved(self._levels, round)
        else:
            found = (features.permute(1, 2, 0) * self.parameter(round).mT).sum(1).mT
        return torch.sigmoid(found) if self.kind == "logistic" else found

    def context(self) -> Tensor | None:
        """(R, K, d) the features of the coming round's arms; None where they stay; zeros after the last round."""
        return self._before(self.round) if self.fresh else None

    def _before(self, round: int) -> Tensor:
        if round >= self.horizon:
            return self.zeros(self.arms, self.dimension)
        shown: Tensor = self.tape.round(round)[1]
        return shown

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Tensor, dict[str, Any]]:
        """As `RegretWorld.reset`; where features are new each round, the observation is the first ones."""
        seen, info = super().reset(seed=seed, options=options)
        return (self._before(0) if self.fresh else seen), info

    def _play(self, x: Tensor, row: tuple[Tensor, ...]) -> tuple[Tensor, Tensor, dict[str, Tensor] | None]:
        loss, seen, terms = super()._play(x, row)
        return loss, (self._before(self.round + 1) if self.fresh else seen), terms

    def _reward(self, arm: Tensor, row: tuple[Tensor, ...]) -> tuple[Tensor, Tensor, Tensor]:
        means = self.means(self.round, row[1] if self.fresh else None)
        mean, luck = means.gather(1, arm.unsqueeze(1))[:, 0], row[0]
        reward = (luck < mean).double() if self.kind == "logistic" else mean + self.noise * luck
        return reward, mean, means.amax(-1)


def single(**arguments: Any) -> SingleWorld:
    """One run as a gymnasium environment."""
    return SingleWorld(LinearBandit, **arguments)
