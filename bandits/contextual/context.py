"""A learner that is shown one context for all arms each round: its checks, and its memory until `observe`."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from bandits.arm_learner import ArmLearner
from bandits.base import LARGEST
from orbs import Feedback, reject

__all__ = ["ContextLearner"]


class ContextLearner(ArmLearner):
    """`act(contexts)` with contexts (R, d), then `observe`; a subclass fills in `_pick` and `_learn`.

    Args:
        arms, runs, seed, device, low, high: as for `ArmLearner`.
        dimension: d, at least 1.
    """

    def __init__(self, arms: int, dimension: int, runs: int | Sequence[int] = 1, seed: int = 0, **common: Any) -> None:
        super().__init__(arms, runs, seed, **common)
        if isinstance(dimension, bool) or not isinstance(dimension, int) or dimension < 1:
            reject("dimension", "a whole number of at least 1", repr(dimension), "give the length of a context")
        self.dimension = dimension
        self._context: Tensor | None = None
        self._largest: Tensor | None = None

    def act(self, observation: Tensor | None = None) -> Tensor:
        """(R,) int64 the arm of this round. Asked twice with the same contexts, it answers the same.

        Args:
            observation: (R, d) the contexts of the round; copied.

        Raises:
            ValueError: none, another shape, a number that is not finite (on CUDA by the next `check`).
        """
        self._context = self._checked(observation)
        return super().act(self._context)

    def observe(self, action: Tensor, feedback: Feedback | Tensor) -> None:
        """As `ArmLearner.observe`, for the contexts that `act` was last given.

        Raises:
            ValueError: no contexts since the last round, and all that `ArmLearner.observe` refuses.
        """
        if self._context is None:
            reject("context", "act(contexts) before observe", "no contexts in this round", "call act first")
        super().observe(action, feedback)
        self._context = None

    def check(self) -> None:
        super().check()
        if self._largest is not None:
            self._refuse_context(self._largest)

    def _checked(self, given: Tensor | None) -> Tensor:
        shape = (self.runs, self.dimension)
        if given is None:
            reject("context", f"shape {shape}", "none", "give act the contexts of the round")
        if given.shape != shape:
            reject("context", f"shape {shape}", f"shape {tuple(given.shape)}", "give one context a run")
        # A copy: the world may reuse what it shows.
        x = given.movedim(0, -1).to(torch.float64, copy=True, memory_format=torch.contiguous_format).movedim(-1, 0)
        largest = x.mT.abs().max()
        if self.device.type == "cpu":
            self._refuse_context(largest)
        else:  # NaN wins
            self._largest = largest if self._largest is None else torch.maximum(self._largest, largest)
        return x

    def _refuse_context(self, largest: Tensor) -> None:
        if not float(largest) <= LARGEST:
            reject("context", "finite numbers", f"a NaN or inf by round {self.rounds + 1}", "mend the world's contexts")

    def _choose(self, observation: Tensor | None) -> Tensor:
        assert observation is not None
        return self._pick(observation)

    def _take(self, action: Tensor, reward: Tensor, feedback: Feedback) -> None:
        assert self._context is not None
        self._learn(self._context, action, self.unit(reward) if self.bounded else reward)

    # What a learner fills in.

    @abstractmethod
    def _pick(self, x: Tensor) -> Tensor:
        """(R,) int64, of contexts x (R, d), runs last in memory; changes no state."""

    @abstractmethod
    def _learn(self, x: Tensor, arm: Tensor, reward: Tensor) -> None:
        """From the round's contexts, the arms that were played and their rewards, in [0, 1] where they have a range."""
