"""Checks of what a user hands to a learner, once, at the boundary; inner code trusts what passed."""

from __future__ import annotations

import operator
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch

from orbs import ROW_BLOCK, Rows, Transitions, reject

__all__ = ["check_count", "column_statistics", "device_of", "rows_of", "run_ids_of"]


def rows_of(dataset: Any) -> Rows:
    """The rows of `Transitions` or another `orbs.Rows`, or of what has a `view()` or `transitions()` of its rows."""
    if isinstance(dataset, Transitions) or callable(getattr(dataset, "part", None)):
        rows: Rows = dataset
        return rows
    made = getattr(dataset, "view", None)
    if not callable(made):
        made = getattr(dataset, "transitions", None)
    if not callable(made):
        reject("dataset", "orbs.Transitions or a dataset with transitions()", type(dataset).__name__, "wrap the arrays")
    try:
        data: Rows = made()
        fine = hasattr(data, "part") and hasattr(data, "obs_dim")
    except TypeError:  # a tensor has a view of another kind
        fine = False
    if not fine:
        reject("dataset", "orbs.Transitions or a dataset with transitions()", type(dataset).__name__, "wrap the arrays")
    return data


def check_count(field: str, n: Any) -> None:
    """ValueError unless n is an integer of at least 1."""
    if isinstance(n, bool) or not isinstance(n, (int, np.integer)) or n < 1:
        reject(field, "an integer of at least 1", repr(n), "ask for one or more updates")


def run_ids_of(runs: Any) -> list[int]:
    """The runs' ids from a number of runs or from the ids."""
    try:
        ids = list(range(operator.index(runs))) if not isinstance(runs, Iterable) else [operator.index(i) for i in runs]
    except TypeError:
        ids = []
    if not ids or min(ids) < 0 or len(set(ids)) < len(ids):
        reject("runs", "a positive integer or distinct integer ids from 0 on", repr(runs), "e.g. runs=5")
    return ids


def device_of(device: str | torch.device) -> torch.device:
    """The device, if this machine has it."""
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise ValueError(
            f"device: expected 'cpu' or 'cuda', got {device!r}. Fix: choose one of these ({error})."
        ) from error
    if chosen.type not in ("cpu", "cuda"):
        reject("device", "'cpu' or 'cuda'", repr(str(device)), "choose one of these")
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        seen = torch.cuda.device_count()
        reject("device", "a device of this machine", device, f"{seen} CUDA devices are visible; use device='cpu'")
    return chosen


def column_statistics(rows: Rows, field: str, dtype: np.dtype[Any]) -> tuple[np.ndarray, np.ndarray]:
    """Mean and (population) standard deviation of each column of a field, computed and returned in `dtype`.

    float64 sums run block by block, which needs no float64 copy of the array; float32 ones are numpy's own, because
    other code's normalisers are to be reproduced bit for bit.
    """
    count = len(rows)
    if dtype != np.float64:
        array = rows.part(field, 0, count)
        return array.mean(0, dtype=dtype), array.std(0, dtype=dtype)
    edges = [(start, min(start + ROW_BLOCK, count)) for start in range(0, count, ROW_BLOCK)]
    mean = sum(rows.part(field, *edge).sum(0, dtype=np.float64) for edge in edges) / count
    squares = sum(np.square(rows.part(field, *edge) - mean).sum(0) for edge in edges)
    return np.asarray(mean), np.sqrt(squares / count)
