"""The exact nearest-row search: every answer against a float64 brute force over the same keys."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from offline_rl.nearest import NearestRow, NeighbourTable, _Scan

Array = npt.NDArray[Any]
ROWS = 1000


def keys_of(states: Array, actions: Array, beta: float) -> Array:
    """The searched keys, products in the states' own type as the module promises."""
    return np.concatenate([states * states.dtype.type(beta), actions], 1)


def brute(keys: Array, index: Array, action: Array, k: int = 1) -> Array:
    """(Q, k) rows by (float64 distance, row)."""
    query = np.concatenate([keys[index, : keys.shape[1] - action.shape[1]], action], 1).astype(np.float64)
    rows = np.empty((len(index), k), np.int64)
    for start in range(0, len(index), 250):
        part = slice(start, start + 250)
        distance = np.square(keys[None].astype(np.float64) - query[part, None]).sum(-1)
        rows[part] = np.argsort(distance, 1, kind="stable")[:, :k] if k > 1 else distance.argmin(1)[:, None]
    return rows


def ask(search: NearestRow, index: Array, action: Array) -> tuple[Array, Array]:
    rows, certified = search.query(torch.from_numpy(index)[None], torch.from_numpy(action)[None])
    return rows[0].numpy(), certified[0].numpy()


def searcher(states: Array, actions: Array, beta: float, **options: Any) -> NearestRow:
    return NearestRow(torch.from_numpy(states), torch.from_numpy(actions), beta, **options)


def world(kind: str, rows: int = ROWS, seed: int = 0) -> tuple[Array, Array]:
    """States and actions, float32: the kinds of data that the search must survive."""
    rng = np.random.default_rng(seed)
    states = rng.normal(size=(rows, 4))
    actions = rng.uniform(-1, 1, size=(rows, 2))
    if kind == "duplicated":
        again = rng.permutation(rows)[: 3 * rows // 10]
        states[again] = states[rng.integers(0, rows, len(again))]
        actions = np.round(actions, 1)  # equal rows and exact ties too
    elif kind == "cluster":
        states[: 9 * rows // 10] = states[0] + 1e-6 * rng.normal(size=(9 * rows // 10, 4))
    elif kind == "one point":
        states[:] = states[0]
    elif kind == "correlated":  # smooth episodes of a noisy linear system, restarted in one tiny ball
        mix = np.linalg.qr(rng.normal(size=(4, 4)))[0] * 0.98
        for row in range(1, rows):
            states[row] = mix @ states[row - 1] + 0.1 * np.array([*actions[row - 1], 0, 0])
            if row % 50 == 0:
                states[row] = 1e-3 * rng.normal(size=4)
        states = (states - states.mean(0)) / states.std(0)
    return states.astype(np.float32), actions.astype(np.float32)


def policy(actions: Array, index: Array, rng: np.random.Generator) -> Array:
    """A quarter each: close to the row's action, far from it, uniform in the box, and the row's action itself."""
    noise = rng.choice([0.1, 0.5, 0.0, 5.0], size=(len(index), 1))
    noisy = actions[index] + noise * rng.normal(size=actions[index].shape)
    return np.asarray(np.clip(noisy, -1, 1).astype(np.float32))


@pytest.mark.parametrize("kind", ["random", "duplicated", "cluster", "correlated", "one point"])
def test_equals_float64_brute_force(kind: str) -> None:
    states, actions = world(kind)
    rng = np.random.default_rng(7)
    tables = {k: NeighbourTable.build(states, k) for k in (1, 8, 64)}
    for beta in (0.0, 0.5, 2.0, 7.5):
        keys = keys_of(states, actions, beta)
        index = rng.integers(0, ROWS, 900 if kind != "one point" else 100)
        action = policy(actions, index, rng)
        expected = brute(keys, index, action)
        for table in tables.values():  # 4 * 3 * 900 = 10,800 queries of a kind
            rows, certified = ask(searcher(states, actions, beta, table=table), index, action)
            np.testing.assert_array_equal(rows, expected)
            if beta == 0:
                assert not certified.any()
        if kind == "random" and beta == 7.5:
            assert certified.mean() > 0.9  # the lists are used at all
        for given in (None, table):
            rows, certified = ask(searcher(states, actions, beta, table=given, method="device"), index, action)
            np.testing.assert_array_equal(rows, expected)
            assert given is not None or not certified.any()
        if kind == "random" and beta == 7.5:
            assert certified.mean() > 0.9


@pytest.mark.parametrize("kind", ["random", "duplicated", "cluster", "correlated", "one point"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_both_full_searches_equal_float64_brute_force(kind: str, dtype: Any) -> None:
    """The clock chooses between them, so each must be exact by itself."""
    states, actions = (part.astype(dtype) for part in world(kind))
    rng = np.random.default_rng(8)
    index = rng.integers(0, ROWS, 300 if kind != "one point" else 40)
    action = policy(actions, index, rng).astype(dtype)
    for beta in (0.5, 2.0, 7.5):
        keys = keys_of(states, actions, beta)
        expected = brute(keys, index, action)[:, 0]
        search = searcher(states, actions, beta)
        query = np.concatenate([keys[index, : states.shape[1]], action], 1).astype(np.float64)
        np.testing.assert_array_equal(search._by_tree(query)[:, 0], expected)
        np.testing.assert_array_equal(_Scan(keys).nearest(query), expected)


def test_clock_tries_both_full_searches(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second search measures both, later ones keep to the quicker."""
    states, actions = world("random", 500)
    search = searcher(states, actions, 2.0)
    used: list[str] = []
    timed = NearestRow._timed

    def spy(self: NearestRow, name: str, query: Array) -> Array:
        used.extend([name] * bool(len(query)))
        return timed(self, name, query)

    monkeypatch.setattr(NearestRow, "_timed", spy)
    for _ in range(6):
        ask(search, np.arange(20), actions[:20])
    assert set(used[:3]) == {"tree", "scan"}
    assert len(used) == 7
    assert len(set(used[3:])) == 1


@pytest.mark.parametrize("kind", ["random", "duplicated", "cluster"])
@pytest.mark.parametrize("table_k", [None, 1, 20])
def test_kth_neighbour(kind: str, table_k: int | None) -> None:
    states, actions = world(kind, 400)
    table = None if table_k is None else NeighbourTable.build(states, table_k)
    rng = np.random.default_rng(3)
    index = rng.integers(0, 400, 200)
    action = policy(actions, index, rng)
    for beta, k in ((0.0, 3), (2.0, 3), (2.0, 12), (7.5, 3)):
        rows, certified = ask(searcher(states, actions, beta, k=k, table=table), index, action)
        np.testing.assert_array_equal(rows, brute(keys_of(states, actions, beta), index, action, k))
        assert (kind, beta, table_k) != ("random", 7.5, 20) or certified.mean() > 0.3
        again, sure = ask(searcher(states, actions, beta, k=k, table=table, method="device"), index, action)
        np.testing.assert_array_equal(again, rows)
        assert table_k is not None or not sure.any()


@pytest.mark.parametrize("kind", ["random", "duplicated", "cluster", "correlated", "one point"])
@pytest.mark.parametrize("k", [1, 5, 64])
def test_table_radius_bounds_every_missing_state(kind: str, k: int) -> None:
    states, _ = world(kind, 700)
    table = NeighbourTable.build(states, k)
    exact = states.astype(np.float64)
    tight = []
    for row in range(0, 700, 7):
        distance = np.sqrt(np.square(exact - exact[row]).sum(1))
        for width, radius in ((k, table.radius), (min(k, 8), table.short_radius)):
            listed = table.neighbours[row, :width]
            listed = listed[listed >= 0]
            assert listed[0] == np.flatnonzero(distance == 0)[0]
            inside = np.isin(distance, distance[listed])
            missing = distance[~inside].min(initial=np.inf)
            assert missing >= radius[row]
            tight.append(radius[row] > 0.999 * missing or radius[row] > 1.9 or np.isinf(radius[row]))
        shared = table.members[table.first[row] : table.first[row] + table.count[row]]
        np.testing.assert_array_equal(shared, np.flatnonzero(distance == 0))
    # Float32 rounding around a block's centre may cost a tiny ball its radius: safe, and rare.
    assert np.mean(tight) > {"cluster": -1.0, "correlated": 0.9}.get(kind, 0.999)


@pytest.mark.parametrize("method", ["list", "device"])
def test_true_minimiser_just_outside_the_list(method: str) -> None:
    """Rows 0..7 hide row 8, whose action is the policy's: found, and not by the certificate."""
    states = np.array([[0.01 * i] for i in range(9)] + [[1.0 + i] for i in range(40)], np.float32)
    actions = np.array([[1.0]] * 8 + [[0.0]] + [[1.0]] * 40, np.float32)
    index, action = np.array([0]), np.array([[0.0]], np.float32)
    for k, expected in ((8, False), (9, True)):
        search = searcher(states, actions, 2.0, table=NeighbourTable.build(states, k), method=method)
        rows, certified = ask(search, index, action)
        assert rows[0, 0] == 8
        assert certified[0] == expected


@pytest.mark.parametrize("method", ["list", "device"])
def test_certificate_survives_the_rounding_of_the_keys(method: str) -> None:
    """Two states a few ulps apart: float32 products bring their keys nearer than beta times the states' distance."""
    misled = 0
    for trial in range(300):
        beta = float(np.random.default_rng(trial).uniform(1.1, 3.0))
        states = np.array([[10.0], [10.0 + 4e-6]], np.float32)
        products = (states * np.float32(beta)).astype(np.float64)
        gap, rounded = beta * float(states[1, 0] - states[0, 0]), float(products[1, 0] - products[0, 0])
        actions = np.array([[(gap + rounded) / 2], [0.0]], np.float32)  # row 0's distance to action 0
        misled += rounded < 0.99 * gap
        index, action = np.array([0]), np.array([[0.0]], np.float32)
        search = searcher(states, actions, beta, table=NeighbourTable.build(states, 1), method=method)
        rows, _ = ask(search, index, action)
        np.testing.assert_array_equal(rows, brute(keys_of(states, actions, beta), index, action))
    assert misled > 20


@pytest.mark.parametrize("method", ["list", "device"])
@pytest.mark.parametrize(("beta", "row"), [(2.0, 1), (10.0, 1), (15.0, 0)])
def test_hand_case(method: str, beta: float, row: int) -> None:
    states = np.array([[0.0], [0.1], [1.0]], np.float32)
    actions = np.array([[1.0], [-1.0], [0.9]], np.float32)
    for table in (None, NeighbourTable.build(states, 1), NeighbourTable.build(states, 64)):
        search = searcher(states, actions, beta, table=table, method=method)
        rows, _ = ask(search, np.array([0]), np.array([[-0.5]], np.float32))
        assert rows.tolist() == [[row]]


@pytest.mark.parametrize("method", ["list", "device"])
def test_ties_go_to_the_lowest_row(method: str) -> None:
    states = np.zeros((30, 2), np.float32)
    states[10:] = np.arange(20)[:, None] + 5
    actions = np.full((30, 1), 0.5, np.float32)
    actions[[2, 7, 4]] = [[-0.25], [0.25], [-0.25]]  # rows 2, 4 and 7 are equally far from action 0
    for table in (None, NeighbourTable.build(states, 1), NeighbourTable.build(states, 64)):
        for beta in (0.0, 2.0):
            search = searcher(states, actions, beta, table=table, method=method)
            assert ask(search, np.array([9, 7]), np.zeros((2, 1), np.float32))[0].tolist() == [[2], [2]]
        three = searcher(states, actions, 2.0, k=3, table=table, method=method)
        assert ask(three, np.array([9]), np.zeros((1, 1), np.float32))[0].tolist() == [[2, 4, 7]]


@pytest.mark.parametrize("method", ["list", "device"])
def test_large_beta_gives_the_own_row_and_own_row_bounds(method: str) -> None:
    states, actions = world("random")
    table = NeighbourTable.build(states, 8)
    rng = np.random.default_rng(1)
    index = rng.integers(0, ROWS, 500)
    action = rng.uniform(-1, 1, (500, 2)).astype(np.float32)
    rows, certified = ask(searcher(states, actions, 1e4, table=table, method=method), index, action)
    np.testing.assert_array_equal(rows[:, 0], index)
    assert certified.all()
    keys = keys_of(states, actions, 2.0)
    rows, _ = ask(searcher(states, actions, 2.0, table=table, method=method), index, action)
    query = np.concatenate([keys[index, :4], action], 1).astype(np.float64)
    own = np.square(action.astype(np.float64) - actions[index]).sum(1)
    assert (np.square(keys[rows[:, 0]] - query).sum(1) <= own).all()


@pytest.mark.parametrize("method", ["list", "device"])
def test_runs_together_equal_runs_alone_and_carry_no_gradient(method: str) -> None:
    states, actions = world("correlated")
    search = searcher(states, actions, 2.0, k=2, table=NeighbourTable.build(states, 8), method=method)
    generator = torch.Generator().manual_seed(0)
    index = torch.randint(0, ROWS, (3, 50), generator=generator)
    action = (torch.rand(3, 50, 2, generator=generator) * 2 - 1).requires_grad_()
    rows, certified = search.query(index, action)
    assert (rows.shape, rows.dtype, rows.requires_grad) == ((3, 50, 2), torch.int64, False)
    assert (certified.shape, certified.dtype) == ((3, 50), torch.bool)
    for run in range(3):
        alone = search.query(index[run : run + 1], action[run : run + 1])
        assert torch.equal(alone[0][0], rows[run])
        assert torch.equal(alone[1][0], certified[run])
    assert search.query(index[:, :0], action[:, :0])[0].shape == (3, 0, 2)


@pytest.mark.parametrize("representable", [True, False])
def test_float64_learner(representable: bool) -> None:
    states, actions = world("duplicated", 500)
    wide = states.astype(np.float64) + (0.0 if representable else 1e-12) * np.arange(500)[:, None]
    double = actions.astype(np.float64) + 1e-10
    table = NeighbourTable.build(wide, 8)
    assert (table.checksum == NeighbourTable.build(states, 8).checksum) == representable
    rng = np.random.default_rng(2)
    index = rng.integers(0, 500, 400)
    action = policy(actions, index, rng).astype(np.float64)
    for beta in (0.0, 0.1, 2.0):
        rows, _ = ask(searcher(wide, double, beta, table=table), index, action)
        expected = brute(keys_of(wide, double, beta), index, action)
        np.testing.assert_array_equal(rows, expected)
        for given in (None, table):
            rows, _ = ask(searcher(wide, double, beta, table=given, method="device"), index, action)
            np.testing.assert_array_equal(rows, expected)


def test_fewer_rows_than_neighbours() -> None:
    states, actions = world("random", 5)
    table = NeighbourTable.build(states, 64)
    assert table.neighbours.shape == (5, 64)
    index = np.arange(5)
    for k in (1, 3, 5):
        rows, _ = ask(searcher(states, actions, 2.0, k=k, table=table), index, -actions)
        np.testing.assert_array_equal(rows, brute(keys_of(states, actions, 2.0), index, -actions, k))
    one = searcher(states[:1], actions[:1], 2.0, table=NeighbourTable.build(states[:1]))
    assert ask(one, np.array([0]), -actions[:1])[0].tolist() == [[0]]


def test_negative_zero_is_zero() -> None:
    states = np.array([[0.0], [-0.0], [1.0]], np.float32)
    assert NeighbourTable.build(states, 2).count.tolist() == [2, 2, 1]


def test_matmul_precision_is_restored() -> None:
    backend: Any = getattr(torch.backends.mkldnn, "matmul")  # noqa: B009
    before = backend.fp32_precision
    try:
        backend.fp32_precision = "bf16"
        states, actions = world("random", 300)
        NeighbourTable.build(states, 4)
        search = searcher(states, actions, 2.0, method="device")
        ask(search, np.array([1]), actions[:1])
        assert backend.fp32_precision == "bf16"
    finally:
        backend.fp32_precision = before


def test_bad_input() -> None:
    states, actions = (torch.from_numpy(part) for part in world("random", 20))
    index, action = torch.zeros(1, 4, dtype=torch.int64), torch.zeros(1, 4, 2)
    table = NeighbourTable.build(states.numpy(), 4)
    with pytest.raises(ValueError, match="states: expected a non-empty"):
        NeighbourTable.build(np.zeros((0, 3), np.float32))
    with pytest.raises(ValueError, match="row 0 is not finite"):
        NeighbourTable.build(np.array([[np.nan]], np.float32))
    with pytest.raises(ValueError, match="k: expected"):
        NeighbourTable.build(states.numpy(), 0)
    with pytest.raises(ValueError, match="same N"):
        NearestRow(states, actions[:5], 2.0)
    with pytest.raises(ValueError, match="convert them"):
        NearestRow(states, actions.double(), 2.0)
    with pytest.raises(ValueError, match="beta: expected"):
        NearestRow(states, actions, -1.0)
    with pytest.raises(ValueError, match="k: expected"):
        NearestRow(states, actions, 2.0, k=21)
    with pytest.raises(ValueError, match="method: expected"):
        NearestRow(states, actions, 2.0, method="fast")
    with pytest.raises(ValueError, match="table: expected"):
        NearestRow(states + 1, actions, 2.0, table=table)
    with pytest.raises(ValueError, match="expected finite"):
        NearestRow(states, actions * torch.inf, 2.0)
    search = NearestRow(states, actions, 2.0, table=table)
    with pytest.raises(ValueError, match="policy_action: expected"):
        search.query(index, action[..., :1])
    with pytest.raises(ValueError, match="index: expected int64"):
        search.query(index.int(), action)
    with pytest.raises(ValueError, match="index: expected 0 to 19"):
        search.query(index + 20, action)
    with pytest.raises(ValueError, match="training has diverged"):
        search.query(index, action * torch.nan)
