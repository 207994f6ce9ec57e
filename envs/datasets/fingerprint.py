"""What a dataset looks like, in numbers: a checksum of its values, its returns, the moments of each column.

Two machines do not give the same bits (another CPU or C library rounds differently, and a contact-rich simulator
amplifies that within an episode), but they give the same distribution. So a set that is made again is compared first
by checksum, then, where that differs, by its mean return and each column's mean and deviation, within bounds:

- six standard errors of the difference of two such sets, episodes being the independent draws (steps are not), and
- six times what the most unusual episode contributes (a cheetah on its back in one episode of a thousand moves its
  angle's deviation more than six standard errors; another repetition has none, or three), and
- no less than 0.05 of the column's deviation for a mean, 0.2 for a deviation: rare episodes that the stated set lacks.

A set that comes from training again (medium-replay) is another training elsewhere, so its bounds are fractions of the
deviations themselves.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from orbs import reject

__all__ = ["checksum", "describe", "differences"]

Arrays = Mapping[str, np.ndarray]
_ORDER = ("observations", "actions", "rewards", "terminals", "timeouts")
_SIGMAS = 6.0
_UNUSUAL = 6.0
_LEAST = {"mean": 0.05, "deviation": 0.2}
_RETRAINED = {"mean": 1.0, "deviation": 0.75}
_EPISODES = 40


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

    Args:
        retrained: the set comes from training again: one deviation for means, three quarters of one for deviations
            and for the mean return.

    Raises:
        ValueError: fewer than forty episodes, from which no spread can be told.
    """
    ends = np.flatnonzero(arrays["terminals"] | arrays["timeouts"])
    fewest = 2 if retrained else _EPISODES
    if len(ends) < fewest:
        reject("dataset", f"at least {fewest} episodes to judge it by", f"{len(ends)}", "collect more rows")
    starts, lengths = np.concatenate(([0], ends[:-1] + 1)), np.diff(ends, prepend=-1)[:, None]
    rows = int(ends[-1]) + 1
    totals = np.add.reduceat(arrays["rewards"][:rows].astype(np.float64), starts)
    spread = float(totals.std(ddof=1))
    bound = 0.75 * spread if retrained else float(_bound((totals - totals.mean()) / len(totals)))
    found: dict[str, Any] = {
        "rows": len(arrays["rewards"]),
        "episodes": len(ends),
        "return": {"value": float(totals.mean()), "bound": bound},
    }
    if not retrained:
        for name, each in (("length of an episode", lengths[:, 0]), ("share of terminals", arrays["terminals"][ends])):
            value = float(each.mean())
            bound = float(_bound((each - value) / len(ends))) + 0.02 * (value if name.startswith("length") else 1.0)
            found[name] = {"value": value, "bound": bound}
        _alignment(arrays, starts, rows, found)
    for key in ("observations", "actions", "rewards"):
        values = arrays[key][:rows].reshape(rows, -1).astype(np.float64)
        mean = values.mean(0)
        values -= mean
        np.square(values, out=(squares := np.empty_like(values)))
        deviation = np.sqrt(squares.mean(0))
        # What each episode adds to the two figures, to first order.
        to_mean = np.add.reduceat(values, starts, axis=0) / rows
        safe = np.where(deviation > 0, deviation, 1.0)
        to_deviation = (np.add.reduceat(squares, starts, axis=0) - deviation**2 * lengths) / (2 * safe * rows)
        for figure, value, parts in (("mean", mean, to_mean), ("deviation", deviation, to_deviation)):
            share = _RETRAINED[figure] if retrained else _LEAST[figure]
            bounds = share * deviation + 1e-6 if retrained else np.maximum(_bound(parts), share * deviation + 1e-6)
            found[f"{key} {figure}"] = {
                "value": [float(f"{x:.7g}") for x in value],
                "bound": [float(f"{x:.3g}") for x in bounds],
            }
    return found


def _alignment(arrays: Arrays, starts: np.ndarray, rows: int, found: dict[str, Any]) -> None:
    """Correlation of each column with its row's reward: rows that are shifted or shuffled between keys lose it."""
    reward = arrays["rewards"][:rows].astype(np.float64)
    reward = (reward - reward.mean()) / max(float(reward.std()), 1e-12)
    for key in ("observations", "actions"):
        values = arrays[key][:rows].astype(np.float64)
        values -= values.mean(0)
        values /= np.maximum(values.std(0), 1e-12)
        values *= reward[:, None]
        value = values.mean(0)
        parts = np.add.reduceat(values - value, starts, axis=0) / rows
        found[f"{key} with rewards"] = {
            "value": [float(f"{x:.6g}") for x in value],
            "bound": [float(f"{x:.3g}") for x in np.maximum(_bound(parts), 0.02)],
        }


def _bound(parts: np.ndarray) -> np.ndarray:
    """Bounds (...) of a difference from what each episode adds, (episodes, ...)."""
    error = np.sqrt(np.square(parts).sum(0))
    return np.asarray(_SIGMAS * np.sqrt(2.0) * error + _UNUSUAL * np.abs(parts).max(0))


def differences(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """One sentence for each figure of `found` that lies outside the bounds of `wanted`; empty if all agree."""
    out = []
    if "rows" in wanted and not 0 <= wanted["rows"] - found["rows"] + 1 <= 2 and "length of an episode" in wanted:
        out.append(f"{found['rows']} rows, expected {wanted['rows']}")
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
