"""How a learner is asked for actions while it plays an episode, and what an environment is given of them."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np

__all__ = ["Player", "within"]


class Player:
    """A learner that plays: asked with the number of the step where its action may be drawn, so that each is fresh.

    Args:
        learner: `act(obs)`, or `act(obs, draw=...)` as agents that interact have it; soft agents an `entropy_bonus`.
    """

    def __init__(self, learner: Any) -> None:
        self._act, self._bonus = learner.act, getattr(learner, "entropy_bonus", None)
        self._draws = "draw" in inspect.signature(learner.act).parameters

    def act(self, obs: Any, step: int) -> np.ndarray:
        """As the learner's `act`, for step number `step` of the episode, from 0."""
        return np.asarray(self._act(obs, draw=step) if self._draws else self._act(obs))

    def bonus(self, obs: np.ndarray, step: int) -> np.ndarray:
        """(runs, n): the entropy bonuses of the actions that `act` gives for the same obs (runs, n, .) and step."""
        if self._bonus is None:
            return np.zeros(obs.shape[:2])
        given = self._bonus(obs, draw=step) if self._draws else self._bonus(obs)
        return np.asarray(given.detach().cpu().double().numpy())


def within(action: Any, space: Any) -> np.ndarray:
    """The action in the numbers of a box space, (..., action_dim) inside its bounds.

    A bound may be no float32, the type that policies answer in: float32's 0.1 is beyond a double's.
    """
    exact = np.asarray(action, space.dtype)
    return np.asarray(np.minimum(np.maximum(exact, space.low), space.high))
