"""PRDC's search without a glance at the host: what it answers is exact, or counted as open."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from offline_rl import device_search
from offline_rl.nearest import NearestRow, NeighbourTable
from tests.offline_rl.test_nearest import ROWS, brute, keys_of, policy, searcher, world

BETA = 2.0


def waitless(states: Any, actions: Any, capacity: int | None, k: int = 1, table_k: int | None = 8) -> NearestRow:
    table = None if table_k is None else NeighbourTable.build(states, table_k)
    search = searcher(states, actions, BETA, k=k, table=table, method="device")
    assert search.device_search is not None
    search.device_search.waits, search.device_search.capacity = False, capacity
    return search


def asked(search: NearestRow, index: Any, action: Any) -> tuple[Any, Any, int, int]:
    """Rows, certified, open, needed of one query."""
    inner = search.device_search
    assert inner is not None
    inner.reset()
    rows, certified = search.query(torch.from_numpy(index)[None], torch.from_numpy(action)[None])
    return rows[0].numpy(), certified[0].numpy(), int(inner.open), int(inner.needed)


@pytest.mark.parametrize("kind", ["random", "correlated", "duplicated"])
@pytest.mark.parametrize("k", [1, 3])
def test_with_room_for_all_nothing_is_open_and_everything_exact(kind: str, k: int) -> None:
    states, actions = world(kind)
    rng = np.random.default_rng(5)
    index = rng.integers(0, ROWS, 600)
    action = policy(actions, index, rng)
    rows, certified, left, needed = asked(waitless(states, actions, None, k), index, action)
    assert left == 0
    assert needed == (~certified).sum() > 0
    np.testing.assert_array_equal(rows, brute(keys_of(states, actions, BETA), index, action, k))


def test_too_little_room_is_counted_and_what_is_not_open_is_exact() -> None:
    states, actions = world("random")
    rng = np.random.default_rng(6)
    index = rng.integers(0, ROWS, 600)
    action = policy(actions, index, rng)
    expected = brute(keys_of(states, actions, BETA), index, action)
    rows, certified, left, needed = asked(waitless(states, actions, 20), index, action)
    assert needed == (~certified).sum() > 20
    assert left == needed - 20
    searched = np.flatnonzero(~certified)[:20]  # the first that the list left over
    exact = np.union1d(np.flatnonzero(certified), searched)
    np.testing.assert_array_equal(rows[exact], expected[exact])
    inner = waitless(states, actions, 20)
    assert inner.device_search is not None
    inner.device_search.waits = True
    assert np.array_equal(asked(inner, index, action)[0], expected)


def test_counts_add_up_over_queries_and_the_most_needed_is_kept() -> None:
    states, actions = world("random")
    search = waitless(states, actions, 4)
    inner = search.device_search
    assert inner is not None
    seen = []
    for count in (50, 200, 30):
        index = torch.arange(count)[None]
        _, certified = search.query(index, torch.full((1, count, 2), 0.3))
        seen.append(int((~certified).sum()))
    assert int(inner.needed) == max(seen) == seen[1]
    assert int(inner.open) == sum(max(n - 4, 0) for n in seen)


def test_rows_too_alike_for_float32_are_open_not_guessed(monkeypatch: pytest.MonkeyPatch) -> None:
    # 500 rows within float32 rounding of one another (the mean lies far from them), more than the cells that are looked
    # into: only float64 over all rows can tell.
    monkeypatch.setattr(device_search, "CELL", 8)
    rng = np.random.default_rng(7)
    states = np.ones((ROWS, 2))
    actions = 100.0 + 1e-9 * rng.permutation(ROWS)[:, None]
    actions[::2] = -100.0
    search = waitless(states, actions, None, table_k=None)
    index, action = np.arange(40), np.full((40, 1), 100.0 - 1e-6)
    _, _, left, _ = asked(search, index, action)
    assert left == 40
    assert search.device_search is not None
    search.device_search.waits = True
    np.testing.assert_array_equal(
        asked(search, index, action)[0], np.full((40, 1), np.abs(actions[:, 0] - 100.0 + 1e-6).argmin())
    )


def test_a_shared_state_never_certifies_by_its_first_row_alone() -> None:
    states = np.zeros((40, 1), np.float32)
    states[20:, 0] = np.arange(20) + 1.0
    actions = np.full((40, 1), 1.0, np.float32)
    actions[7] = -0.5  # of the state that rows 0 to 19 share; the table names row 0 for all of them
    search = waitless(states, actions, None, table_k=4)
    rows, certified, left, _ = asked(search, np.array([3, 30]), np.array([[-0.5], [1.0]], np.float32))
    assert rows.tolist() == [[7], [30]]
    assert certified.tolist() == [False, True]
    assert left == 0


def test_rounding_of_the_scan_never_passes_for_a_proof(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clusters of eight rows whose distances from a query differ by less than float32 can tell: right, or open."""
    monkeypatch.setattr(device_search, "CELL", 1)  # four rows are looked into
    rng = np.random.default_rng(8)
    centre = rng.normal(size=(100, 3)) * 100.0
    states = np.ones((800, 1))
    actions = np.repeat(centre, 8, 0) + 1e-4 * rng.normal(size=(800, 3))
    index, action = np.arange(100), centre + 1e-4 * rng.normal(size=(100, 3))
    expected = brute(keys_of(states, actions, BETA), index, action)[:, 0]
    search = waitless(states, actions, None, table_k=None)
    found = [asked(search, index[[i]], action[[i]]) for i in range(100)]
    rows, left = np.array([one[0][0, 0] for one in found]), np.array([one[2] for one in found], bool)
    assert (rows != expected).sum() > 20  # rounding does mislead the scan
    assert left[rows != expected].all()


@pytest.mark.parametrize("k", [1, 3])
def test_many_rows_as_near_as_the_nearest_are_searched_together(k: int) -> None:
    states, actions = np.zeros((ROWS, 2), np.float32), np.full((ROWS, 1), 0.25, np.float32)
    actions[[40, 900]] = 0.5
    search = waitless(states, actions, None, k, table_k=None)
    assert search.device_search is not None
    search.device_search.waits = True
    index, action = np.arange(300), np.tile(np.float32([[0.25], [0.5], [-1.0]]), (100, 1))
    rows, *_ = asked(search, index, action)
    np.testing.assert_array_equal(rows, brute(keys_of(states, actions, BETA), index, action, k))
