"""The one-step view of a dataset as the d4rl package gives it, without its loop over rows.

`qlearning_view` keeps the rows that `d4rl.qlearning_dataset` (d4rl 1.1) keeps and gives them the same terminal flags;
`tests/envs/test_referee.py` compares the two. Where its code differs from its documentation, the code counts:

- `terminate_on_end` keeps time-out rows and leaves their terminal flag as the file has it. A learner then bootstraps
  from the first observation of the next episode.
- A row with both flags is a time-out: it is dropped, unless `terminate_on_end`.
- Files without time-outs are cut by counting steps. After a cut the count begins at 0, after a terminal at 1, so the
  episode after a terminal loses its last but one row at the limit and keeps the last. A terminal in the row of a cut
  is dropped with it, and the count begins at 0. With `terminate_on_end` every count after the first begins at 1.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from orbs import reject

__all__ = ["View", "closing_rows", "qlearning_view", "step_limit_cuts"]


@dataclasses.dataclass(frozen=True)
class View:
    """The rows of a dataset of N rows that are transitions.

    Attributes:
        keep: (N - 1,) bool; row i is the transition from observation i to observation i + 1. The last row is none.
        terminal: (keep.sum(),) bool, the terminal flags of the kept rows.
    """

    keep: np.ndarray
    terminal: np.ndarray


def qlearning_view(
    terminal: np.ndarray,
    timeout: np.ndarray | None,
    *,
    step_limit: int | None = None,
    terminate_on_end: bool = False,
) -> View:
    """The rows that `d4rl.qlearning_dataset` keeps.

    Args:
        terminal: (N,) bool, the file's `terminals`.
        timeout: (N,) bool, the file's `timeouts`, or None if it has none.
        step_limit: the environment's, at least 1; needed where `timeout` is None, and unused elsewhere.
        terminate_on_end: keep the rows of time-outs and cuts.

    Raises:
        ValueError: no rows, flags of other shapes, or neither time-outs nor a step limit.
    """
    if terminal.ndim != 1 or not len(terminal):
        reject("terminals", "shape (N,) with at least one row", f"shape {terminal.shape}", "give a flag a row")
    if timeout is not None and timeout.shape != terminal.shape:
        reject("timeouts", f"shape {terminal.shape}, as terminals has", f"shape {timeout.shape}", "give a flag a row")
    if terminate_on_end:
        dropped = np.zeros(len(terminal), np.bool_)
    elif timeout is not None:
        dropped = np.asarray(timeout, np.bool_)
    elif step_limit is None or step_limit < 1:
        reject("step_limit", "at least 1 step, for data without timeouts", step_limit, "give the environment's")
    else:
        dropped = step_limit_cuts(terminal, step_limit)
    keep = ~dropped[:-1]
    return View(keep, np.asarray(terminal, np.bool_)[:-1][keep])


def step_limit_cuts(terminal: np.ndarray, limit: int) -> np.ndarray:
    """(N,) bool: the rows that `d4rl.qlearning_dataset` drops from a file without time-outs, by its count of steps.

    Args:
        terminal: (N,) bool.
        limit: at least 1.
    """
    rows = np.arange(len(terminal))
    if limit == 1:
        return np.ones(len(terminal), np.bool_)  # each count begins at the limit
    # The count in row i is (i - t - c) mod limit, t being the last terminal row before i, and c whether a cut fell on
    # that row too (the count then begins at 0, else at 1). The start of the file counts as a terminal in row 0, c = 0.
    last = np.concatenate(([0], np.flatnonzero(terminal)))
    gap = np.diff(last)
    # c of a terminal from c of the one before: inverted where gap + 1 is a multiple of the limit, kept where gap is,
    # 0 elsewhere. So c is the parity of the inversions since the last 0.
    inverts, keeps = (gap + 1) % limit == 0, gap % limit == 0
    inversions = np.concatenate(([0], np.cumsum(inverts)))
    index = np.arange(len(last))
    index[1:][inverts | keeps] = 0
    both = (inversions - inversions[np.maximum.accumulate(index)]) % 2
    before = np.cumsum(terminal) - terminal  # 0 up to the first terminal, then 1, ...: an index into `last`
    return np.asarray((rows - last[before] - both[before]) % limit == limit - 1, np.bool_)


def closing_rows(keep: np.ndarray, terminal: np.ndarray, timeout: np.ndarray) -> np.ndarray:
    """(keep.sum(),) bool: which kept rows are the last of an episode that ended in the file, and no terminal.

    Args:
        keep: (N - 1,) bool, from `qlearning_view`.
        terminal, timeout: (N,) bool, the flags of all rows; either ends an episode.
    """
    rows = np.flatnonzero(keep)
    if not len(rows):
        return np.zeros(0, np.bool_)
    ended = np.concatenate(([0], np.cumsum(terminal | timeout)))  # ended[i]: ends in the rows before i
    following = np.append(rows[1:], len(terminal))
    return np.asarray((ended[following] > ended[rows]) & ~terminal[rows], np.bool_)
