"""K arms with independent rewards, Bernoulli or Gaussian, whose means may change abruptly."""

from __future__ import annotations

import bisect
import math
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

    With `turns` the means change: each is a fraction of the horizon, and from the first round after that share of the
    rounds on the next stage's means hold. Stages are the rows of `means`, if it has rows; else each arm takes over its
    right neighbour's mean at a turn (the last the first's), so that the best arm moves one to the left. The regrets are
    then against the best arm of each round. Facts: `best_arm`, if it is the same in all stages, and `changes`, the
    number of turns within the horizon.

    One number a round decides the reward of whichever arm is played, so learners in the same run share their luck.

    Args:
        arms: K, at least 1.
        horizon, runs, seed, device: as for `RegretWorld`.
        kind, means, noise, turns: as above; a single turn may be a number. Turns lie in (0, 1) and grow.
        gap: of the last arm's mean to the others'; None is the one that is hardest at this horizon, sqrt(K / T) (at
            most 1/2).

    Raises:
        ValueError: a value out of its range, an unknown kind, stages that do not fit the turns.
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
        gap: float | None = 0.1,
        means: Sequence[float] | Sequence[Sequence[float]] | None = None,
        noise: float = 1.0,
        turns: Sequence[float] | float = (),
    ) -> None:
        self.kind = known("MultiArmedBandit.kind", kind, KINDS)
        whole("MultiArmedBandit.arms", arms, 1)
        whole("horizon", horizon, 1)
        self.noise = between("MultiArmedBandit.noise", noise, 0.0, np.inf)
        bernoulli = kind == "bernoulli"
        worst = min(0.5, math.sqrt(arms / horizon))
        self.gap = worst if gap is None else between("MultiArmedBandit.gap", gap, 0.0, 0.5 if bernoulli else np.inf)
        self.turns = _turns(turns)
        stages = self._stages(arms, means)
        # A round belongs to a stage if the turns before it have passed: round t, from 0, with t >= turn T.
        self._turn_rounds = [math.ceil(turn * horizon - 1e-9) for turn in self.turns]
        self.means = torch.as_tensor(stages, device=device)
        self._best = self.means.amax(1)
        facts: dict[str, Any] = {"reward_low": 0.0, "reward_high": 1.0} if bernoulli else {"noise": self.noise}
        if self.turns:
            facts["changes"] = sum(turn < horizon for turn in self._turn_rounds)
        best = stages.argmax(1)
        if (best == best[0]).all():
            facts["best_arm"] = int(best[0])
        super().__init__(stages.shape[1], horizon, runs, seed, device, 1, facts)

    def _stages(self, arms: int, means: Any) -> np.ndarray:
        """(stages, K) the means of each stage."""
        bernoulli, count = self.kind == "bernoulli", len(self.turns) + 1
        if means is None:
            values = np.full(arms, 0.5)
            values[-1] += self.gap
        else:
            try:
                values = np.asarray(means, np.float64)
            except (TypeError, ValueError):
                values = np.full(1, np.nan)
        fits = values.ndim in (1, 2) and values.size > 0 and np.isfinite(values).all()
        if not fits or (bernoulli and not ((values >= 0) & (values <= 1)).all()):
            wanted = "numbers in [0, 1]" if bernoulli else "finite numbers"
            reject("MultiArmedBandit.means", wanted, repr(means), "give one an arm, or a row of them a stage")
        if values.ndim == 2 and len(values) != count:
            given, wanted = f"{len(values)} rows", f"{count} rows, one more than turns"
            reject("MultiArmedBandit.means", wanted, given, "give a row of means a stage")
        return values if values.ndim == 2 else np.stack([np.roll(values, -stage) for stage in range(count)])

    def mean_rewards(self, first: int, rounds: int) -> np.ndarray:
        """(rounds, K) the means of rounds first .. first + rounds - 1, from 0."""
        stage = [bisect.bisect_right(self._turn_rounds, t) for t in range(first, first + rounds)]
        return np.asarray(self.means.cpu().numpy()[stage])

    def _draw(self, first: int, rounds: int) -> tuple[Tensor, ...]:
        draw = self.philox.uniform if self.kind == "bernoulli" else self.philox.normal
        return (draw("bandit/rewards", first, rounds, 1, torch.float64)[..., 0],)

    def _reward(self, arm: Tensor, row: tuple[Tensor, ...]) -> tuple[Tensor, Tensor, Tensor]:
        stage = bisect.bisect_right(self._turn_rounds, self.round)
        mean, luck = self.means[stage][arm], row[0]
        reward = (luck < mean).double() if self.kind == "bernoulli" else mean + self.noise * luck
        return reward, mean, self._best[stage]


def _turns(given: Sequence[float] | float) -> tuple[float, ...]:
    """Fractions of the horizon, growing."""
    turns: tuple[Any, ...] = tuple(given) if isinstance(given, (tuple, list)) else (given,)
    numbers = all(isinstance(turn, (int, float)) and not isinstance(turn, bool) for turn in turns)
    if not numbers or not all(a < b for a, b in zip((0.0, *turns), (*turns, 1.0), strict=True)):
        fix = "e.g. 0.5, or (0.25, 0.5)"
        reject("MultiArmedBandit.turns", "growing fractions of the horizon, within (0, 1)", repr(given), fix)
    return turns


def single(**arguments: Any) -> SingleWorld:
    """One run as a gymnasium environment."""
    return SingleWorld(MultiArmedBandit, **arguments)
