"""Exact search of the dataset row nearest to ``[beta * state, policy action]``, for PRDC (arXiv 2306.06569).

Every query state is a dataset row of known index, so a table of state neighbours answers most queries with a
proof: a row outside the list of row j is at least ``beta * radius[j]`` away, whatever its action. What the proof
does not cover is searched exactly in a KD-tree. The index equals that of a float64 brute force over the same keys,
lowest index on a tie. The authors query a joint KD-tree every time; the answers are the same.
"""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from torch import Tensor

Array = npt.NDArray[Any]

FORMAT = 1
SHORT = 8  # most queries are answered by the first few neighbours, so these are tried alone first
REACH = 2.0  # neighbours beyond this many mean standard deviations hardly ever matter: they are not listed
BLOCK, WIDTH = 256, 4096  # rows of a tile of distances, and its columns
CROWD = 2_000  # a list that expands to more rows than this (many repeated states) goes to the tree instead


def _canonical(states: Array) -> Array:
    """float32 where that loses nothing, else float64, with -0 as +0, so that equal states have equal bytes."""
    if states.ndim != 2 or 0 in states.shape or states.dtype not in (np.float32, np.float64):
        raise ValueError(
            f"states: expected a non-empty (N, state_dim) array of float32 or float64, got shape {states.shape} of "
            f"{states.dtype}; pass the dataset's normalised observations"
        )
    if not np.isfinite(states).all():
        bad = int(np.flatnonzero(~np.isfinite(states).all(1))[0])
        raise ValueError(f"states: expected finite numbers, row {bad} is not finite; drop or repair that row")
    with np.errstate(over="ignore"):
        single = states.astype(np.float32)
    exact = states.dtype == np.float32 or np.array_equal(single.astype(np.float64), states)
    compact = np.ascontiguousarray(single if exact else states)
    return np.asarray(compact + compact.dtype.type(0))


def _checksum(states: Array) -> str:
    """sha256 of the canonical states, their type and shape."""
    head = f"{states.dtype}{states.shape}".encode()
    return hashlib.sha256(head + states.tobytes()).hexdigest()


def _principal(points: Array) -> tuple[Array, Array, Array]:
    """Centre and rotate (n, d) float64 points to principal axes: same distances, and boxes that prune far better."""
    mean = points.mean(0)
    centred = points - mean
    axes = np.linalg.eigh(centred.T @ centred)[1][:, ::-1]
    return np.ascontiguousarray(centred @ axes), mean, axes


@contextmanager
def _full_precision() -> Iterator[None]:
    """Keep float32 products float32: the error bounds here do not hold for TF32 or bfloat16."""
    backends: list[Any] = [torch.backends.cuda.matmul, getattr(torch.backends.mkldnn, "matmul")]  # noqa: B009
    before = [backend.fp32_precision for backend in backends]
    try:
        for backend in backends:
            backend.fp32_precision = "ieee"
        yield
    finally:
        for backend, precision in zip(backends, before, strict=True):
            backend.fp32_precision = precision


@dataclass(frozen=True)
class NeighbourTable:
    """State neighbours of every row; depends on the normalised states alone, not on beta, actions, policy or seed.

    neighbours (N, K) int32: rows nearest to row j by state, nearest first, own state first. Repeated states count
        once, as their first row; -1 fills a list that has fewer than K entries.
    radius, short_radius (N,) float32: every state missing from the list, or from its first 8 entries, is at
        least this far from state j (rounded down; inf where none is missing). In the units of the states.
    first, count, members (N,) int32: the rows that share row j's state are
        ``members[first[j] : first[j] + count[j]]``, in increasing order.
    """

    neighbours: Array
    radius: Array
    short_radius: Array
    first: Array
    count: Array
    members: Array
    checksum: str

    @classmethod
    def build(cls, states: Array, k: int = 64, progress: bool = False) -> NeighbourTable:
        """Compute the table of (N, state_dim) normalised states: minutes for 400,000 rows on one core.

        Distances to whole blocks of rows come from one matrix product in float32 around the block's centre; the
        stored radii are lowered by a bound on its rounding error. ValueError for bad states or k.
        """
        if k < 1:
            raise ValueError(f"k: expected at least 1 neighbour a row, got {k}; 64 is a good start")
        from scipy.spatial import cKDTree  # type: ignore[import-untyped,unused-ignore]
        from tqdm import tqdm  # type: ignore[import-untyped,unused-ignore]

        states = _canonical(states)
        dim = states.shape[1]
        bits = states.view(np.dtype((np.void, states.dtype.itemsize * dim))).ravel()
        _, leader, state, count = np.unique(bits, return_index=True, return_inverse=True, return_counts=True)
        members = np.argsort(state, kind="stable")
        first = np.cumsum(count) - count
        points, _, _ = _principal(states[leader].astype(np.float64))
        total = len(points)
        order = cKDTree(points, leafsize=64, balanced_tree=False).indices
        points = points[order]  # blocks of neighbours
        starts = np.arange(0, total, BLOCK)
        low, high = np.minimum.reduceat(points, starts), np.maximum.reduceat(points, starts)
        reach = float(np.square(REACH) * np.square(points).sum(1).mean() / dim)
        lists = np.full((total, k), -1, np.int32)
        bound = np.empty((total, 2), np.float64)
        hidden = not (progress and sys.stderr.isatty())
        for start in tqdm(starts, desc="neighbour table", disable=hidden, unit="block"):
            found, limit = _block_neighbours(points, starts, low, high, int(start), k, reach)
            mine = slice(int(start), int(start) + BLOCK)
            lists[order[mine]] = np.where(found < 0, -1, leader[order[found]])
            bound[order[mine]] = limit
        radius = np.nextafter(bound.astype(np.float32), np.float32(0))
        radius[np.isinf(bound)] = np.inf
        inner, outer = radius[state].T.copy()
        groups = [part.astype(np.int32) for part in (first[state], count[state], members)]
        return cls(lists[state], outer, inner, groups[0], groups[1], groups[2], _checksum(states))

    @classmethod
    def cached(
        cls, states: Array, k: int = 64, cache_dir: Path | None = None, progress: bool = False
    ) -> NeighbourTable:
        """Load the table from ``cache_dir`` (``$ORBS_CACHE`` or ~/.cache/orbs/neighbours), building it if needed.

        The file's name is a checksum of the states, k and the format. A file that is damaged or belongs to other
        states is rebuilt with a warning. Two processes may build at once: each renames a complete file.
        """
        states = _canonical(states)
        folder = Path(cache_dir or os.environ.get("ORBS_CACHE") or Path.home() / ".cache/orbs/neighbours")
        identity = f"{FORMAT}-{k}-{REACH}-{_checksum(states)}"
        path = folder / f"{hashlib.sha256(identity.encode()).hexdigest()[:32]}.safetensors"
        if path.exists():
            try:
                return cls._load(path, identity, len(states), k)
            except (SafetensorError, ValueError, KeyError, OSError) as error:
                warnings.warn(f"neighbour table {path} is unusable ({error}); building it again", stacklevel=2)
        table = cls.build(states, k, progress)
        folder.mkdir(parents=True, exist_ok=True)
        names = ("neighbours", "radius", "short_radius", "first", "count", "members")
        tensors = {name: np.ascontiguousarray(getattr(table, name)) for name in names}
        body = hashlib.sha256(b"".join(tensors[name].tobytes() for name in names)).hexdigest()
        handle, temporary = tempfile.mkstemp(dir=folder, prefix=path.stem, suffix=".tmp")
        os.close(handle)
        try:
            save_file(tensors, temporary, {"identity": identity, "body": body, "checksum": table.checksum})
            with open(temporary, "rb+") as file:
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            Path(temporary).unlink(missing_ok=True)
        return table

    @classmethod
    def _load(cls, path: Path, identity: str, rows: int, k: int) -> NeighbourTable:
        names = ("neighbours", "radius", "short_radius", "first", "count", "members")
        with safe_open(path, framework="np") as file:
            meta = file.metadata() or {}
            parts = [file.get_tensor(name) for name in names]
        if meta.get("identity") != identity or parts[0].shape != (rows, k):
            raise ValueError("it belongs to other states or another k")
        if meta.get("body") != hashlib.sha256(b"".join(part.tobytes() for part in parts)).hexdigest():
            raise ValueError("its checksum is wrong")
        neighbours, radius, short_radius, first, count, members = parts
        return cls(neighbours, radius, short_radius, first, count, members, meta["checksum"])


def _block_neighbours(
    points: Array, starts: Array, low: Array, high: Array, start: int, k: int, reach: float
) -> tuple[Array, Array]:
    """Neighbours of one block of (n, d) ordered points: positions (block, k), radii (block, 2) for SHORT and k.

    ``reach`` bounds the squared distances of interest. Boxes ``low``, ``high`` (blocks, d) further than the worst
    list's end are skipped, nearest boxes come first.
    """
    total, dim = points.shape
    here = start // BLOCK
    gap = np.maximum(np.maximum(low - high[here], low[here] - high), 0.0)
    apart = np.square(gap).sum(1)
    centre = points[start : start + BLOCK].mean(0)
    query = torch.from_numpy((points[start : start + BLOCK] - centre).astype(np.float32))
    norm = query.square().sum(1, keepdim=True)
    size = len(query)
    best = torch.full((size, k + 1), torch.inf)
    found = torch.full((size, k + 1), -1, dtype=torch.int64)
    best[:, 0], found[:, 0] = -1.0, torch.arange(start, start + size)  # own state first, whatever the rounding
    nearest = np.argsort(apart, kind="stable")
    offsets = np.arange(BLOCK)
    tile, below = torch.empty(size * WIDTH), np.empty(size * WIDTH, np.bool_)  # reused: fresh pages cost time
    left = torch.cat([-2 * query, torch.ones(size, 1), norm], 1)
    with _full_precision():
        for chunk in range(0, len(nearest), WIDTH // BLOCK):
            limit = torch.clamp(best.amax(1), max=reach)
            pick = nearest[chunk : chunk + WIDTH // BLOCK]
            pick = pick[apart[pick] <= float(limit.max())]
            if not len(pick):
                break
            columns = (starts[pick][:, None] + offsets).ravel()
            columns = columns[columns < total]
            other = torch.from_numpy((points[columns] - centre).astype(np.float32))
            ones = torch.ones(len(other), 1)
            right = torch.cat([other, other.square().sum(1, keepdim=True), ones], 1)
            left[:, -1] = norm[:, 0] - limit
            distance = tile[: size * len(other)].view(size, -1)
            torch.mm(left, right.T, out=distance)  # squared distance less the limit
            hit = np.flatnonzero(np.less(distance.view(-1).numpy(), 0, out=below[: distance.numel()]))
            row, column = hit // len(columns), columns[hit % len(columns)]
            keep = column != row + start
            hit, row, column = hit[keep], row[keep], column[keep]
            if not len(hit):
                continue
            place = np.arange(len(row)) - np.searchsorted(row, row)
            wide = torch.full((size, int(place.max()) + 1), torch.inf)
            ids = torch.full(wide.shape, -1, dtype=torch.int64)
            wide[row, place] = distance.view(-1)[torch.from_numpy(hit)] + limit[row]
            ids[row, place] = torch.from_numpy(column)
            best, index = torch.cat([best, wide], 1).topk(k + 1, 1, largest=False)
            found = torch.cat([found, ids], 1).gather(1, index)
    ends = best[:, [min(SHORT, k), k]].double().numpy()
    complete = np.isinf(ends) & ((found >= 0).sum(1, keepdim=True).numpy() == total)
    squared = np.clip(ends, 0.0, reach)  # rounding can make it negative
    # A missing row at true distance d < sqrt(squared) would have norm below |x| + sqrt(squared), and so a computed
    # distance wrong by at most this; its computed squared distance is not below `squared`.
    scale = np.square(2 * norm.sqrt().double().numpy() + np.sqrt(squared))
    radius = np.sqrt(np.maximum(squared - 4 * (dim + 8) * 2.0**-24 * scale, 0.0))
    radius = np.maximum(radius - 1e-13 * np.abs(high).max() * dim, 0.0)  # rotation rounding, in float64
    return found[:, :k].numpy(), np.where(complete, np.inf, radius)


class NearestRow:
    """Nearest rows to ``[beta * state of a row, policy action]`` among N rows; one object serves every run."""

    def __init__(
        self,
        states: Tensor,
        actions: Tensor,
        beta: float,
        k: int = 1,
        table: NeighbourTable | None = None,
        method: str | None = None,
        finalists: int = 16,
    ) -> None:
        """Keys are ``[beta * states, actions]`` in the tensors' own type, float32 or float64.

        states (N, state_dim) normalised, actions (N, action_dim), on one device. ``method``: "list" (default on CPU;
        without ``table`` all queries go to the KD-tree), or "brute" (default on CUDA; no table, no scipy).
        ``finalists``: rows that "brute" recomputes in float64 for each query. ValueError for bad input.
        """
        if states.ndim != 2 or actions.ndim != 2 or len(states) != len(actions) or not len(states):
            raise ValueError(
                f"states, actions: expected (N, state_dim) and (N, action_dim) with the same N > 0, got "
                f"{tuple(states.shape)} and {tuple(actions.shape)}; pass both from one dataset"
            )
        if states.dtype != actions.dtype or states.dtype not in (torch.float32, torch.float64):
            raise ValueError(
                f"states, actions: expected both float32 or both float64, got {states.dtype} and {actions.dtype}; "
                "convert them"
            )
        if not (np.isfinite(beta) and beta >= 0):
            raise ValueError(f"beta: expected a finite number, zero or more, got {beta}; PRDC uses 2 or 7.5")
        if not 1 <= k <= len(states):
            raise ValueError(f"k: expected 1 to {len(states)} (the number of rows), got {k}; PRDC uses 1")
        if method is None:
            method = "brute" if states.is_cuda else "list"
        if method not in ("list", "brute") or (method == "list" and states.device.type != "cpu"):
            raise ValueError(
                f'method: expected "brute", or "list" for tensors on the CPU, got {method!r} on {states.device}; '
                "leave it out"
            )
        self.k, self.beta, self.method, self.table = k, float(beta), method, table
        self.finalists = min(max(finalists, k), len(states))
        states, actions = states.detach(), actions.detach()
        self._keys = torch.cat([states * beta, actions], 1).contiguous()  # one product for rows and queries
        self._state_dim, self._action_dim = states.shape[1], actions.shape[1]
        if not bool(torch.isfinite(self._keys).all()):
            raise ValueError("states, actions: expected finite numbers, got NaN or infinity; repair the dataset")
        if method == "brute":
            self._mean = self._keys.double().mean(0)
            centred = self._keys.double() - self._mean
            self._centred = centred.float()
            self._norms = self._centred.square().sum(1)
            return
        self._rows: Array = self._keys.numpy()
        self._tree: Any = None
        if table is not None and beta > 0:  # with beta = 0 no list proves anything
            if table.checksum != _checksum(_canonical(states.numpy())):
                raise ValueError(
                    "table: expected the neighbour table of these states, got that of others; build it from the "
                    "same normalised states"
                )
            # The product beta * s is rounded: each key is off by at most half an ulp of its own norm.
            ulp = float(np.finfo(self._rows.dtype).eps)
            scale = float(states.new_tensor(beta)) * (1 - 4 * ulp)
            norm = np.linalg.norm(self._rows[:, : self._state_dim].astype(np.float64), axis=1)
            self._lists: list[tuple[int, Array]] = [
                (width, np.where(np.isinf(radius), np.inf, radius.astype(np.float64) * scale - 2 * ulp * norm - 1e-30))
                for width, radius in ((SHORT, table.short_radius), (table.neighbours.shape[1], table.radius))
                if width <= table.neighbours.shape[1]
            ]
            self._repeated = bool((table.count > 1).any())

    def query(self, index: Tensor, policy_action: Tensor) -> tuple[Tensor, Tensor]:
        """Rows nearest to ``[beta * states[index], policy_action]``, and which of them the certificate proved.

        index (R, B) int64 dataset rows, policy_action (R, B, action_dim) in the actions' units. Returns rows
        (R, B, k) int64 by increasing distance (the k-th nearest is ``rows[..., k-1]``, the lowest row wins a tie)
        and certified (R, B) bool. On CPU by "list" every row is exact, and certified says which needed no full
        search. By "brute" (CUDA; never waits for the host) an uncertified answer is the best of the finalists: no
        listed row is nearer, but so many others are within float32 rounding of it that one may be.
        """
        if index.dtype != torch.int64:
            raise ValueError(f"index: expected int64 rows of the dataset, got {index.dtype}; use index.long()")
        if index.shape != policy_action.shape[:-1] or policy_action.shape[-1:] != (self._action_dim,):
            raise ValueError(
                f"index, policy_action: expected (R, B) and (R, B, {self._action_dim}), got {tuple(index.shape)} and "
                f"{tuple(policy_action.shape)}; pass one policy action for each sampled row"
            )
        flat, shape = index.reshape(-1), index.shape
        action = policy_action.detach().reshape(-1, self._action_dim).to(self._keys.dtype)
        if self.method == "brute":
            with torch.no_grad(), _full_precision():
                best, certified = self._brute(flat, action)
        else:
            where, points = flat.numpy(), action.numpy()
            if where.size and (int(where.min()) < 0 or int(where.max()) >= len(self._rows)):
                raise ValueError(
                    f"index: expected 0 to {len(self._rows) - 1}, got {where.min()} to {where.max()}; sample from "
                    "the dataset that the search was built on"
                )
            if not np.isfinite(points).all():
                raise ValueError("policy_action: expected finite numbers, got NaN or infinity; training has diverged")
            found, proved = self._search(where, points)
            best, certified = torch.from_numpy(found), torch.from_numpy(proved)
        return best.reshape(*shape, self.k), certified.reshape(shape)

    def _search(self, index: Array, action: Array) -> tuple[Array, Array]:
        """Short list, whole list, tree: each for the queries (Q,) that the one before left unproved."""
        query = np.concatenate([self._rows[index, : self._state_dim], action], 1).astype(np.float64)
        found = np.empty((len(index), self.k), np.int64)
        left = np.arange(len(index))
        if self.table is not None and self.beta > 0:
            for width, limit in self._lists:
                if len(left) and self.k <= width:
                    rows, squared = self._candidates(index[left], query[left], width)
                    proved = np.sqrt(squared[:, -1]) < limit[index[left]]
                    found[left[proved]] = rows[proved]
                    left = left[~proved]
        certified = np.ones(len(index), np.bool_)
        certified[left] = False
        if len(left):
            found[left] = self._full(query[left])
        return found, certified

    def _squared(self, rows: Array, query: Array) -> Array:
        """Squared distances in float64 by summed differences: rows (...,), query (..., d) -> (...,)."""
        difference = self._rows.take(rows, 0) - query  # float64, for query is
        return np.asarray(np.square(difference, out=difference).sum(-1))

    def _candidates(self, index: Array, query: Array, width: int) -> tuple[Array, Array]:
        """The k nearest listed rows (Q, k) and squared distances; distance inf where the list does not decide."""
        assert self.table is not None
        listed = self.table.neighbours[index, :width]
        if self._repeated:
            return self._expanded(listed, query)
        squared = self._squared(listed, query[:, None])
        squared[listed < 0] = np.inf
        return _smallest(listed, squared, self.k)

    def _expanded(self, listed: Array, query: Array) -> tuple[Array, Array]:
        """As `_candidates`, each listed state (Q, width) standing for all the rows that share it."""
        assert self.table is not None
        count = np.where(listed < 0, 0, self.table.count[listed])
        count[count.sum(1) > CROWD] = 0
        repeats, sums = count.ravel(), count.sum(1)
        ends = np.cumsum(repeats)
        inside = np.arange(int(repeats.sum())) - np.repeat(ends - repeats, repeats)
        flat = self.table.members[np.repeat(self.table.first[listed.ravel()], repeats) + inside]
        owner = np.repeat(np.arange(len(listed)), sums)
        squared = self._squared(flat, query[owner])
        order = np.lexsort((flat, squared, owner))
        rows = np.zeros((len(listed), self.k), np.int64)
        nearest = np.full((len(listed), self.k), np.inf)
        place = np.arange(len(flat)) - np.repeat(np.cumsum(sums) - sums, sums)
        keep = place < self.k
        rows[owner[keep], place[keep]] = flat[order[keep]]
        nearest[owner[keep], place[keep]] = squared[order[keep]]
        return rows, nearest

    def _full(self, query: Array) -> Array:
        """The k nearest of all rows to each query (Q, d), by a KD-tree on principal axes, made on first use."""
        used = slice(self._state_dim if self.beta == 0 else 0, None)  # beta = 0: a search among actions alone
        if self._tree is None:
            from scipy.spatial import cKDTree  # type: ignore[import-untyped,unused-ignore]

            points, self._mean_key, self._axes = _principal(self._rows[:, used].astype(np.float64))
            self._blur = 1e-12 * (1 + float(np.abs(points).max()) * points.shape[1])  # far above rotation rounding
            self._tree = cKDTree(points, leafsize=8, balanced_tree=False)
        turned = (query[:, used] - self._mean_key) @ self._axes
        # One neighbour more shows whether the rotation's rounding, or a tie, could have changed the answer.
        distance, rows = self._tree.query(turned, k=range(1, self.k + 2))
        rows = np.minimum(rows, len(self._rows) - 1)  # scipy answers N where there is no further row
        squared = self._squared(rows, query[:, None])
        squared[np.isinf(distance)] = np.inf
        found = _smallest(rows[:, :-1], squared[:, :-1], self.k)[0]
        for unsure in np.flatnonzero(distance[:, -1] - distance[:, -2] <= self._blur):
            near = np.array(self._tree.query_ball_point(turned[unsure], distance[unsure, -2] + self._blur))
            squared_near = self._squared(near, query[unsure])
            found[unsure] = _smallest(near[None], squared_near[None], self.k)[0][0]
        return found

    def _brute(self, index: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """All rows in chunks, by tensor operations of fixed shape: finalists in float32, then float64."""
        query = torch.cat([self._keys[index, : self._state_dim], action], 1).double()
        centred = (query - self._mean).float()
        norm = centred.square().sum(1, keepdim=True)
        count, (total, dim) = len(query), self._keys.shape
        chunk = max(self.finalists, (1 << 26) // max(count, 1))
        best = centred.new_full((count, 0), torch.inf)
        rows = index.new_zeros((count, 0))
        for start in range(0, total, chunk):
            part = slice(start, min(start + chunk, total))
            score = torch.addmm(self._norms[part], centred, self._centred[part].T, alpha=-2)
            value, place = score.topk(min(self.finalists, score.shape[1]), 1, largest=False)
            rows = torch.cat([rows, place + start], 1)
            best, place = torch.cat([best, value], 1).topk(min(self.finalists, rows.shape[1]), 1, largest=False)
            rows = rows.gather(1, place)
        rows = rows.sort(dim=1).values
        exact = (self._keys[rows].double() - query[:, None]).square().sum(-1)
        exact, order = exact.sort(dim=1, stable=True)
        rows = rows.gather(1, order)[:, : self.k]
        # A missing row no further than the k-th has norm at most |q| + its distance: see _block_neighbours.
        kth = exact[:, self.k - 1]
        slack = 2 * (dim + 8) * 2.0**-24 * (2 * norm[:, 0].double().sqrt() + kth.sqrt()).square()
        missing = (best + norm).double().amax(1)
        everything = torch.full_like(index, self.finalists >= total, dtype=torch.bool)
        return rows, everything | (kth + slack < missing)


def _smallest(rows: Array, squared: Array, k: int) -> tuple[Array, Array]:
    """The k smallest of each line of (Q, n) by (squared, row), with their squared distances."""
    if k == 1:
        least = squared.min(1, keepdims=True)
        return np.where(squared == least, rows, np.int64(2**62)).min(1, keepdims=True), least
    order = np.lexsort((rows, squared), axis=-1)[:, :k]
    return np.take_along_axis(rows, order, 1), np.take_along_axis(squared, order, 1)
