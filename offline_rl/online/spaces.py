"""What an agent needs to know of an environment: the sizes of its vectors and its action box, without gymnasium."""

from __future__ import annotations

from typing import Any, NoReturn

import numpy as np

from orbs import reject

__all__ = ["box_of"]


def box_of(env: Any, name: str) -> tuple[int, int, np.ndarray, np.ndarray]:
    """(obs_dim, action_dim, action_low, action_high) of an Env's or a VectorEnv's single spaces.

    Raises:
        ValueError: an action space other than a bounded box of numbers, or observations other than one vector.
    """

    def refuse(what: str, expected: str, space: Any, fix: str) -> NoReturn:
        reject(f"{name}.for_env: {what} space", expected, space if space is not None else type(env).__name__, fix)

    obs, action = (
        getattr(env, f"single_{what}_space", None) or getattr(env, f"{what}_space", None)
        for what in ("observation", "action")
    )
    shape = getattr(obs, "shape", None)
    if obs is None or hasattr(obs, "n") or hasattr(obs, "spaces") or shape is None or len(shape) != 1 or shape[0] < 1:
        refuse("observation", "a Box of one axis", obs, "flatten it (gymnasium.wrappers.FlattenObservation)")
    low, high = getattr(action, "low", None), getattr(action, "high", None)
    if low is None or high is None or np.ndim(low) != 1 or np.size(low) < 1:
        refuse("action", "a Box of one axis, continuous", action, "choose an environment with continuous actions")
    if np.dtype(getattr(action, "dtype", float)).kind != "f":
        refuse("action", "a Box of floating-point numbers", action, "choose an environment with continuous actions")
    low, high = np.asarray(low, np.float32), np.asarray(high, np.float32)
    if not (np.isfinite(low).all() and np.isfinite(high).all() and (low < high).all()):
        refuse("action", "a bounded Box, low below high", action, "wrap it (gymnasium.wrappers.RescaleAction)")
    return int(shape[0]), int(low.size), low, high
