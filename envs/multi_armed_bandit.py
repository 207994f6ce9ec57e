"""K arms with independent rewards: Bernoulli or Gaussian."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from envs.bandit_world import BanditWorld
from envs.regret_world import SingleWorld, between, known, whole
from orbs import reject

__all__ = ["KINDS", "MultiArmedBandit", "single"]

KINDS = ("bernoulli", "gaussian")


class MultiArmedBandit(BanditWorld):
    """Arms with means `means`, or 0.5 and for the last arm 0.5 + gap.

    Kinds:
        bernoulli: rewards 0 or 1.
        gaussian: rewards with standard deviation `noise`.

    One number a round decides the reward of whichever arm is played, so learners in the same run share their luck.

    Args:
        arms: K, at least 1.
        horizon, runs, seed, device: as for `RegretWorld`.
        kind, gap, means, noise: as above.

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
        kind: str = "bernoulli",
        gap: float = 0.1,
        means: Sequence[float] | None = None,
        noise: float = 1.0,
    ) -> None:
        self.kind = known("MultiArmedBandit.kind", kind, KINDS)
        if means is not None:
            arms = len(means)
        whole("MultiArmedBandit.arms", arms, 1)
        self.noise = between("MultiArmedBandit.noise", noise, 0.0, np.inf)
        bernoulli = kind == "bernoulli"
        self.gap = between("MultiArmedBandit.gap", gap, 0.0, 0.5 if bernoulli else np.inf)
        values = np.full(arms, 0.5) if means is None else np.asarray(means, np.float64)
        if means is None:
            values[-1] += self.gap
        fits = np.isfinite(values).all() and (not bernoulli or ((values >= 0) & (values <= 1)).all())
        if values.ndim != 1 or not fits:
            wanted = "numbers in [0, 1]" if bernoulli else "finite numbers"
            reject("MultiArmedBandit.means", wanted, repr(means), "give one an arm")
        self.means, self._best = torch.as_tensor(values, device=device), torch.as_tensor(values.max(), device=device)
        facts: dict[str, Any] = {"reward_low": 0.0, "reward_high": 1.0} if bernoulli else {"noise": self.noise}
        super().__init__(arms, horizon, runs, seed, device, 1, {**facts, "best_arm": int(values.argmax())})

    def _draw(self, first: int, rounds: int) -> tuple[Tensor, ...]:
        draw = self.philox.uniform if self.kind == "bernoulli" else self.philox.normal
        return (draw("bandit/rewards", first, rounds, 1, torch.float64)[..., 0],)

    def _reward(self, arm: Tensor, row: tuple[Tensor, ...]) -> tuple[Tensor, Tensor, Tensor]:
        mean, luck = self.means[arm], row[0]
        reward = (luck < mean).double() if self.kind == "bernoulli" else mean + self.noise * luck
        return reward, mean, self._best


def single(**arguments: Any) -> SingleWorld:
    """One run as a gymnasium environment."""
    return SingleWorld(MultiArmedBandit, **arguments)
