"""What every learner of a finite set of arms is: the verbs, the checks, its own random numbers.

A learner fills in `_choose`, `_take` and `_tensors`. Tensors are (R, ...) float64 with the run axis last in memory
(`zeros`), where operations over arms are fastest.
"""

from __future__ import annotations

import functools
import math
from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from bandits.base import LARGEST, Learner
from orbs import Feedback, Philox, reject

__all__ = ["ArmLearner", "Draws", "one_hot", "sample"]

Range = tuple[Tensor, Tensor]

BLOCK_NUMBERS = 2**16  # a block of random numbers: hides the cost of a call, fits the caches
BLOCK_ROUNDS = 1024  # at most, so that a few rounds of a few runs do not wait for thousands


class Draws:
    """Random numbers of each round, a function of (seed, run, round), drawn a block of rounds at a time.

    Args:
        philox: of the learner, runs last.
        purpose: what they are for; streams of different purposes are independent.
        count: numbers a run and round.
        normal: standard normal numbers, not uniform ones in (0, 1).
    """

    def __init__(self, philox: Philox, purpose: str, count: int = 1, normal: bool = False) -> None:
        self.philox, self.purpose, self.count, self.normal = philox, purpose, count, normal
        self.block = min(BLOCK_ROUNDS, max(1, BLOCK_NUMBERS // (count * len(philox.runs))))
        self._first = -1
        self._rows: Sequence[Tensor] = ()

    def __call__(self, round: int) -> Tensor:
        """(R, count) the numbers of a round, counted from 0."""
        first = round - round % self.block
        if first != self._first:
            draw = self.philox.normal if self.normal else self.philox.uniform
            self._rows = draw(self.purpose, first, self.block, self.count, torch.float64).unbind(1)
            self._first = first
        return self._rows[round - first]


def sample(probabilities: Tensor, u: Tensor) -> Tensor:
    """(R,) int64: an arm from each row of probabilities (R, K), by one uniform number a row, (R,).

    The last arm takes what rounding leaves over.
    """
    above = probabilities.cumsum(-1) <= u.unsqueeze(-1)
    return above.sum(-1).clamp_max(probabilities.shape[-1] - 1)


def one_hot(arm: Tensor, arms: int) -> Tensor:
    """(R, K) float64, 1 at each run's arm, the run axis last in memory."""
    numbers = torch.arange(arms, device=arm.device).unsqueeze(-1)
    return (numbers == arm).double().mT


def _wider(one: Range | None, other: Range) -> Range:
    """The range of both; NaN wins."""
    least, most = other
    return (least, most) if one is None else (torch.minimum(one[0], least), torch.maximum(one[1], most))


class ArmLearner(Learner):
    """Plays one of K arms, sees the reward of that arm alone; `runs` independent copies at once.

    Args:
        arms: K, at least 1.
        runs: how many independent copies, or their ids.
        seed: of its own random numbers, 0 .. 2^32 - 1.
        device: where everything lies.
        low, high: the range that rewards are declared to be in; not finite where they may be any number.

    Attributes:
        run_ids, rounds, device: see `Learner`; arms, low, high as above.
        philox: counter-based numbers of (seed, run), for `Draws`.
    """

    def __init__(
        self,
        arms: int,
        runs: int | Sequence[int] = 1,
        seed: int = 0,
        device: torch.device | str = "cpu",
        low: float = -LARGEST,
        high: float = LARGEST,
    ) -> None:
        super().__init__(runs, device)
        if isinstance(arms, bool) or not isinstance(arms, int) or arms < 1:
            reject("arms", "a whole number of at least 1", repr(arms), "give the number of arms")
        if not low <= high:
            reject("reward range", "low at most high", f"[{low}, {high}]", "swap them")
        self.arms, self.seed = arms, seed
        self.low, self.high = max(float(low), -LARGEST), min(float(high), LARGEST)
        self.philox = Philox(seed, self.run_ids, self.device, runs_last=True)
        self._rewards: Range | None = None
        self._played: Range | None = None
        self._given: Tensor | None = None

    @functools.cached_property
    def bounded(self) -> bool:
        """Whether rewards lie in a known range, of some length."""
        return -LARGEST < self.low < self.high < LARGEST

    def unit(self, reward: Tensor) -> Tensor:
        """The reward moved from its declared range into [0, 1]."""
        if (self.low, self.high) == (0.0, 1.0):
            return reward
        return (reward - self.low) * (1.0 / (self.high - self.low))

    def act(self, observation: Tensor | None = None) -> Tensor:
        """(R,) int64 the arm of this round. Asked twice, it answers the same.

        Args:
            observation: the contexts, for a learner that uses them; of no effect for the others.
        """
        self._given = self._choose(observation)
        return self._given

    def observe(self, action: Tensor, feedback: Feedback | Tensor) -> None:
        """Take in what the round revealed.

        Args:
            action: (R,) int64 the arms that were played.
            feedback: with their rewards (R,), or the rewards themselves; numbers of any type.

        Raises:
            ValueError: no reward, an arm that is none, another shape, a number that is not finite or outside the
                declared range. On CUDA, where looking would stop the device, numbers are judged by the next `check`.
        """
        reward = feedback.reward if isinstance(feedback, Feedback) else feedback
        if reward is None:
            reject("feedback.reward", "the reward of the arm (bandit feedback)", "none", "choose another learner")
        if reward.shape != (self.runs,):
            reject("feedback.reward", f"shape ({self.runs},)", f"shape {tuple(reward.shape)}", "give one a run")
        if action.shape != (self.runs,) or action.dtype != torch.int64:
            given = f"{action.dtype} of shape {tuple(action.shape)}"
            reject("action", f"int64 of shape ({self.runs},)", given, "give the arm of each run")
        if reward.dtype != torch.float64:
            reward = reward.double()
        rewards = torch.aminmax(reward)
        # What `act` answered is an arm; looking would cost more than many a learner.
        played = None if action is self._given else torch.aminmax(action)
        if self.device.type == "cpu":
            self._refuse(rewards, played)
        else:
            self._rewards = _wider(self._rewards, rewards)
            if played is not None:
                self._played = _wider(self._played, played)
                action = action.clamp(0, self.arms - 1)  # an index outside would end all work on the device
        self._take(action, reward, feedback if isinstance(feedback, Feedback) else Feedback(reward))
        self.rounds += 1

    def check(self) -> None:
        if self._rewards is not None:
            self._refuse(self._rewards, self._played)

    def _refuse(self, rewards: Range, played: Range | None) -> None:
        least, most = float(rewards[0]), float(rewards[1])
        if not (self.low <= least and most <= self.high):
            known = self.low > -LARGEST or self.high < LARGEST
            wanted = f"rewards in [{self.low:g}, {self.high:g}]" if known else "finite numbers"
            given = f"numbers from {least:g} to {most:g} by round {self.rounds + 1}"
            reject("feedback.reward", wanted, given, "mend the world, or declare its range by low and high")
        if played is None:
            return
        first, last = int(played[0]), int(played[1])
        if first < 0 or last >= self.arms:
            given = f"arm {first if first < 0 else last} by round {self.rounds + 1}"
            reject("action", f"arms 0 to {self.arms - 1}", given, "play one of the learner's arms")

    # What a learner fills in.

    @abstractmethod
    def _choose(self, observation: Tensor | None) -> Tensor:
        """(R,) int64, a function of what is learned, the round and the observation alone: it changes no state."""

    @abstractmethod
    def _take(self, action: Tensor, reward: Tensor, feedback: Feedback) -> None:
        """Learn from a round. What is handed over is neither written to nor kept: the world may reuse it."""


def log_or_zero(value: float) -> float:
    """max(ln value, 0), also at 0."""
    return math.log(value) if value > 1 else 0.0
