"""The q-learning view against a plain loop by d4rl's rules, and the rows that close an episode."""

from __future__ import annotations

import numpy as np
import pytest

from envs.datasets.qlearning import closing_rows, qlearning_view, step_limit_cuts


def flags(rows: int, *where: int) -> np.ndarray:
    found = np.zeros(rows, np.bool_)
    found[list(where)] = True
    return found


def kept(terminal: np.ndarray, timeout: np.ndarray | None, limit: int, terminate_on_end: bool) -> list[bool]:
    """Row by row, with d4rl's count of steps."""
    keep, count = [], 0
    for row in range(len(terminal) - 1):
        final = bool(timeout[row]) if timeout is not None else count == limit - 1
        keep.append(terminate_on_end or not final)
        count = (1 if final or terminal[row] else count + 1) if keep[-1] else 0
    return keep


@pytest.mark.parametrize("seed", range(200))
def test_view_equals_a_loop(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows, limit = int(rng.integers(1, 80)), int(rng.integers(1, 9))
    terminal = rng.random(rows) < rng.choice([0.0, 0.05, 0.2, 0.5, 0.9])
    for timeout in (None, rng.random(rows) < 0.2):
        for terminate_on_end in (False, True):
            view = qlearning_view(terminal, timeout, step_limit=limit, terminate_on_end=terminate_on_end)
            assert view.keep.tolist() == kept(terminal, timeout, limit, terminate_on_end)
            np.testing.assert_array_equal(view.terminal, terminal[:-1][view.keep])


def test_the_count_after_a_terminal_begins_at_one() -> None:
    """Limit 5: cuts in rows 4 and 9; after the terminal in row 11 in row 15, one early, then every 5."""
    assert np.flatnonzero(step_limit_cuts(flags(25, 11), 5)).tolist() == [4, 9, 15, 20]


def test_a_terminal_in_the_row_of_a_cut_is_dropped_and_resets_to_zero() -> None:
    assert np.flatnonzero(step_limit_cuts(flags(16, 4), 5)).tolist() == [4, 9, 14]
    view = qlearning_view(flags(16, 4), None, step_limit=5)
    assert not view.terminal.any()


def test_a_row_with_both_flags_is_a_time_out() -> None:
    view = qlearning_view(flags(6, 2), flags(6, 2))
    assert view.keep.tolist() == [True, True, False, True, True]
    assert not view.terminal.any()


def test_terminate_on_end_keeps_time_outs_as_they_are() -> None:
    view = qlearning_view(flags(6, 4), flags(6, 2), terminate_on_end=True)
    assert view.keep.all()
    assert view.terminal.tolist() == [False, False, False, False, True]


def test_closing_rows() -> None:
    """Time-outs in rows 2 and 3 (an episode of one row), a terminal in row 5, the file's last row a time-out."""
    terminal, timeout = flags(9, 5), flags(9, 2, 3, 8)
    keep = qlearning_view(terminal, timeout).keep
    rows = np.flatnonzero(keep)
    assert rows.tolist() == [0, 1, 4, 5, 6, 7]
    assert rows[closing_rows(keep, terminal, timeout)].tolist() == [1, 7]
    everything = np.ones(8, np.bool_)
    assert np.flatnonzero(closing_rows(everything, terminal, timeout)).tolist() == [2, 3, 7]
    assert not closing_rows(np.zeros(8, np.bool_), terminal, timeout).size


def test_bad_input() -> None:
    with pytest.raises(ValueError, match=r"terminals: expected shape \(N,\)"):
        qlearning_view(np.zeros(0, np.bool_), None, step_limit=3)
    with pytest.raises(ValueError, match=r"timeouts: expected shape \(5,\)"):
        qlearning_view(flags(5), flags(4))
    for limit in (None, 0):
        with pytest.raises(ValueError, match="step_limit: expected at least 1 step"):
            qlearning_view(flags(5), None, step_limit=limit)


def test_a_million_rows_at_once() -> None:
    terminal = np.random.default_rng(0).random(1_000_000) < 0.02
    view = qlearning_view(terminal, None, step_limit=100)
    assert view.keep.tolist() == kept(terminal, None, 100, False)
