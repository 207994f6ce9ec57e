"""The checks that a dataset passes once, at the boundary. Inner code trusts what passed.

Each raises one ValueError that names the field, what was expected, what was given, and the fix.
"""

from __future__ import annotations

import warnings

import numpy as np

from orbs import ROW_BLOCK, reject

__all__ = [
    "ACTION_TOLERANCE",
    "actions_inside",
    "episodes",
    "finite",
    "flags",
    "step_limit_timeouts",
    "warn_constant_columns",
]

ACTION_TOLERANCE = 1e-5  # rounding of float64 policies stored as float32; more than that is another action


def flags(field: str, values: np.ndarray) -> np.ndarray:
    """(N,) bool from flags stored as bool, integers or floats; only 0 and 1 pass."""
    if values.dtype == np.bool_:
        return values
    bad = np.flatnonzero((values != 0) & (values != 1))
    if len(bad):
        reject(field, "0 or 1", f"{values[bad[0]]} in row {bad[0]}", "store a flag a row")
    return values.astype(np.bool_)


def finite(field: str, values: np.ndarray) -> None:
    """Reject the first NaN or infinity, with its row."""
    bad, first = 0, None
    for start in range(0, len(values), ROW_BLOCK):
        wrong = ~np.isfinite(values[start : start + ROW_BLOCK])
        if wrong.any():
            bad += int(wrong.sum())
            if first is None:
                where = np.argwhere(wrong)[0]
                first = (start + int(where[0]), *where[1:])
    if first is not None:
        given = f"{values[first]} in row {first[0]} ({bad} such values; as float32)"
        reject(field, "finite numbers", given, "drop or mend these rows")


def actions_inside(action: np.ndarray, low: np.ndarray, high: np.ndarray, clip: bool, known: bool) -> np.ndarray:
    """(N, k) actions within [low, high]: `action` itself if nothing had to be clipped, else a copy.

    Rounding up to `ACTION_TOLERANCE` is always clipped. More than that is clipped if `clip`, else rejected.

    Args:
        low, high: (k,).
        known: whether the bounds are the environment's (else assumed, which the fix then says).
    """
    worst, outside, place, inside = 0.0, 0, (0, 0), action
    for start in range(0, len(action), ROW_BLOCK):
        rows = slice(start, start + ROW_BLOCK)
        block = np.clip(action[rows], low, high)
        excess = np.abs(action[rows] - block)
        most = float(excess.max())
        if most == 0.0:
            continue
        if inside is action:
            inside = action.copy()
        inside[rows] = block
        outside += int((excess > ACTION_TOLERANCE).sum())
        if most > worst:
            row, column = np.unravel_index(int(excess.argmax()), excess.shape)
            worst, place = most, (start + int(row), int(column))
    if worst > ACTION_TOLERANCE and not clip:
        fix = "pass --clip-actions (clip_actions=True) to clip them"
        if not known:
            fix += "; or name the environment with --env (env=...), these bounds are assumed"
        share = f"{100 * outside / action.size:.3g} % of the values are outside"
        given = f"{action[place]:.6g} in row {place[0]}, column {place[1]} ({share})"
        reject("actions", f"values in the action space, {_range(low, high)}", given, fix)
    return inside


def step_limit_timeouts(terminal: np.ndarray, limit: int) -> np.ndarray:
    """(N,) bool: where a running episode reaches `limit` steps without a terminal (files without time-outs).

    The count restarts after a terminal and after each cut: these are the episodes as they were played, for returns
    and lengths. Which rows the d4rl package then drops is another matter: `envs.datasets.qlearning`.
    """
    rows = np.arange(len(terminal))
    starts = np.zeros(len(terminal), np.int64)
    starts[1:] = np.where(terminal[:-1], rows[1:], 0)
    position = rows - np.maximum.accumulate(starts)
    return np.asarray(((position + 1) % limit == 0) & ~terminal, np.bool_)


def episodes(terminal: np.ndarray, timeout: np.ndarray, timeouts_kept: bool, lenient: bool = False) -> None:
    """Reject flags that contradict each other, a file without any episode end, and empty episodes.

    An episode is empty when none of its rows is a transition: one row, ended by a time-out (or the last row of the
    file), whose next observation belongs to another episode or to none.

    Args:
        terminal, timeout: (N,) bool.
        timeouts_kept: time-out rows stay transitions (`terminate_on_end`).
        lenient: take what the d4rl package takes: both flags in a row, and episodes that leave no transition. D4RL's
            AntMaze files flag every row at the goal as a terminal; its replays are cut wherever an iteration ended.
            Where final observations are known an episode of one row is a transition.
    """
    both = np.flatnonzero(terminal & timeout)
    if len(both) and not lenient:
        given = f"both in row {both[0]} ({len(both)} rows)"
        fix = "keep the terminal where the environment itself ended, else the time-out"
        reject("terminals/timeouts", "at most one of the two set in a row", given, fix)
    end = terminal | timeout
    if not end.any():
        fix = "mark the last step of each episode in terminals or timeouts"
        reject("terminals/timeouts", "an episode end", f"none in {len(end)} rows", fix)
    if lenient:
        return
    alone = np.concatenate(([True], end[:-1])) & end
    lost = np.zeros_like(end) if timeouts_kept else timeout.copy()
    lost[-1] = True
    empty = np.flatnonzero(alone & lost)
    if len(empty):
        reject(
            "terminals/timeouts",
            "episodes of at least one transition",
            f"an empty episode in row {empty[0]}: one row whose next observation is unknown ({len(empty)} such)",
            "drop these rows from every key",
        )


def warn_constant_columns(obs: np.ndarray) -> None:
    """Warn about observation columns that never change: they tell a learner nothing (normalisers stay safe)."""
    constant = np.arange(obs.shape[1])
    for start in range(0, len(obs), ROW_BLOCK):
        block = obs[start : start + ROW_BLOCK, constant]
        constant = constant[(block == obs[0, constant]).all(axis=0)]
        if not len(constant):
            return
    shown = ", ".join(map(str, constant[:8])) + (", ..." if len(constant) > 8 else "")
    warnings.warn(
        f"observations: {len(constant)} of {obs.shape[1]} columns never change (columns {shown}); the normaliser "
        "divides by std + 1e-3 there, so nothing breaks",
        stacklevel=4,
    )


def _range(low: np.ndarray, high: np.ndarray) -> str:
    if (low == low[0]).all() and (high == high[0]).all():
        return f"[{low[0]:g}, {high[0]:g}]"
    return f"[{np.array2string(low, precision=4)}, {np.array2string(high, precision=4)}]"
