"""What a dataset looks like, in numbers: a checksum of its values, its returns, the moments of each column.

Two machines do not give the same bits (another CPU or C library rounds differently, and a contact-rich simulator
amplifies that within an episode), but they give the same distribution. So a set that is made again is compared first
by checksum, then, where that differs, by its mean return and each column's mean and deviation, within bounds that are
six standard errors of the difference of two such sets. A set that comes from training again (medium-replay) is another
training elsewhere, so its bounds are fractions of the deviations themselves.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np

from orbs import reject

__all__ = ["checksum", "describe", "differences"]

Arrays = Mapping[str, np.ndarray]
_ORDER = ("observations", "actions", "rewards", "terminals", "timeouts")
_GROUPS = 20
_SIGMAS = 6.0


def checksum(arrays: Arrays) -> str:
    """SHA-256 of the values in D4RL layout, whatever the file's compression: key, type, shape and bytes of each."""
    digest = hashlib.sha256()
    for key in _ORDER:
        array = np.ascontiguousarray(arrays[key])
        digest.update(f"{key} {array.dtype.str} {array.shape}".encode())
        digest.update(array.data)
    return digest.hexdigest()


def describe(arrays: Arrays, retrained: bool = False) -> dict[str, Any]:
    """Rows, episodes, mean return and column moments of whole episodes, each with the bound of an honest repetition.

    The bounds come from the data: episodes are cut into twenty groups, whose spread gives the standard error of each
    figure (steps within an episode are far from independent).

    Args:
        retrained: the set comes from training again: one deviation for means, three quarters of one for deviations
            and for the mean return.

    Raises:
        ValueError: fewer than forty episodes, from which no spread can be told.
    """
    ends = np.flatnonzero(arrays["terminals"] | arrays["timeouts"])
    if len(ends) < 2 * _GROUPS:
        reject("dataset", f"at least {2 * _GROUPS} episodes", f"{len(ends)}", "collect more rows")
    starts = np.concatenate(([0], ends[:-1] + 1))
    totals = np.add.reduceat(arrays["rewards"][: ends[-1] + 1].astype(np.float64), starts)
    error = float(totals.std(ddof=1)) / np.sqrt(len(totals))
    found: dict[str, Any] = {
        "rows": len(arrays["rewards"]),
        "episodes": len(ends),
        "return": {
            "value": float(totals.mean()),
            "bound": 0.75 * float(totals.std(ddof=1)) if retrained else float(_SIGMAS * np.sqrt(2.0) * error),
        },
    }
    edges = [0, *(int(ends[part[-1]]) + 1 for part in np.array_split(np.arange(len(ends)), _GROUPS))]
    for key in ("observations", "actions", "rewards"):
        values = arrays[key].reshape(len(arrays[key]), -1)[: edges[-1]]
        groups = [values[a:b] for a, b in itertools.pairwise(edges)]
        means = np.array([group.mean(0, dtype=np.float64) for group in groups])
        deviations = np.array([group.std(0, dtype=np.float64) for group in groups])
        for figure, each in (("mean", means), ("deviation", deviations)):
            bound = _SIGMAS * np.sqrt(2.0) * each.std(0, ddof=1) / np.sqrt(_GROUPS)
            floor = 1e-4 * deviations.mean(0) + 1e-6
            if retrained:
                bound = (1.0 if figure == "mean" else 0.75) * deviations.mean(0)
            found[f"{key} {figure}"] = {
                "value": [float(f"{x:.7g}") for x in each.mean(0)],
                "bound": [float(f"{x:.3g}") for x in np.maximum(bound, floor)],
            }
    return found


def differences(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """One sentence for each figure of `found` that lies outside the bounds of `wanted`; empty if all agree."""
    out = []
    for name, stated in wanted.items():
        if not isinstance(stated, Mapping) or "bound" not in stated:
            continue
        value, target, bound = (np.atleast_1d(x) for x in (found[name]["value"], stated["value"], stated["bound"]))
        if value.shape != target.shape:
            out.append(f"{name}: {len(value)} columns, expected {len(target)}")
            continue
        for column in np.flatnonzero(~(np.abs(value - target) <= bound)):
            where = f"{name}, column {column}" if len(value) > 1 else name
            out.append(f"{where}: {value[column]:.6g}, expected {target[column]:.6g} within {bound[column]:.3g}")
    return out
