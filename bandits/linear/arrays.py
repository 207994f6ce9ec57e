"""Choices among few arms, in operators that NumPy and torch share; see `orbs.array`."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

__all__ = ["Array", "first_best", "joined", "largest", "where"]

Array = Any  # np.ndarray on a CPU, Tensor elsewhere


def largest(values: Array) -> Array:
    """(R,) the maximum over the first axis."""
    return values.max(0) if isinstance(values, np.ndarray) else values.amax(0)


def first_best(scores: Array, tolerance: float = 0.0) -> Array:
    """(R,) int64 the lowest row k of scores (K, R) with scores >= max - tolerance max(1, |max|)."""
    best = largest(scores)
    if tolerance:
        size = abs(best)
        best = best - tolerance * (np.maximum(size, 1.0) if isinstance(size, np.ndarray) else size.clamp_min(1.0))
    reached = scores >= best
    return reached.argmax(0) if isinstance(reached, np.ndarray) else reached.max(0).indices


def joined(*parts: Array) -> Array:
    """The parts one after the other along the first axis."""
    return np.concatenate(parts) if isinstance(parts[0], np.ndarray) else torch.cat(parts)


def where(condition: Array, one: Any, other: Any) -> Array:
    """One where the condition holds, the other elsewhere."""
    return np.where(condition, one, other) if isinstance(condition, np.ndarray) else torch.where(condition, one, other)
