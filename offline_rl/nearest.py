"""Exact search of the dataset row nearest to ``[beta * state, policy action]``, for PRDC (arXiv 2306.06569).

Every query state is a dataset row of known index, so a table of state neighbours answers most queries with a
proof: a row outside the list of row j is at least ``beta * radius[j]`` away, whatever its action. What the proof
does not cover is searched exactly, by a KD-tree or by a scan of all rows, whichever is quicker on these data. The
index equals that of a float64 brute force over the same keys, lowest index on a tie. The authors query a joint
KD-tree every time; the answers are the same.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from offline_rl.device_search import DeviceSearch
from offline_rl.neighbour_table import SHORT, NeighbourTable, canonical, checksum, full_precision, principal

__all__ = ["NearestRow", "NeighbourTable"]

Array = npt.NDArray[Any]

CROWD = 2_000  # a list that expands to more rows than this (many repeated states) goes to the full search instead
CELL, TILE = 512, 8192  # rows whose least distance a scan keeps, and rows that it multiplies at once
TRIAL, PERIOD = 2, 256  # queries given now and then to the slower full search, and how often, to keep its clock true


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
    ) -> None:
        """Keys are ``[beta * states, actions]`` in the tensors' own type, float32 or float64.

        states (N, state_dim) normalised, actions (N, action_dim), on one device. ``method``: "list" (default on CPU;
        without ``table`` all queries go to the KD-tree), or "device" (default on CUDA: tensors alone, no scipy; without
        ``table`` all queries are looked for among all rows). ValueError for bad input.
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
            method = "device" if states.is_cuda else "list"
        if method not in ("list", "device") or (method == "list" and states.device.type != "cpu"):
            raise ValueError(
                f'method: expected "device", or "list" for tensors on the CPU, got {method!r} on {states.device}; '
                "leave it out"
            )
        self.k, self.beta, self.method, self.table = k, float(beta), method, table
        states, actions = states.detach(), actions.detach()
        self._keys = torch.cat([states * beta, actions], 1).contiguous()  # one product for rows and queries
        self._state_dim, self._action_dim = states.shape[1], actions.shape[1]
        if not bool(torch.isfinite(self._keys).all()):
            raise ValueError("states, actions: expected finite numbers, got NaN or infinity; repair the dataset")
        if table is not None and beta > 0 and table.checksum != checksum(canonical(states.cpu().numpy())):
            raise ValueError(
                "table: expected the neighbour table of these states, got that of others; build it from the "
                "same normalised states"
            )
        self.device_search: DeviceSearch | None = None
        if method == "device":
            self.device_search = DeviceSearch(self._keys, self._state_dim, self.beta, k, table)
            return
        self._rows: Array = self._keys.numpy()
        self._tree: Any = None
        self._scan: _Scan | None = None
        self._searches = 0
        # Seconds per query (tree) and per query + SETUP (scan), as last measured; both searches are exact, so the
        # clock decides about the speed alone.
        self._pace = {"tree": 0.0, "scan": 0.0}
        if table is not None and beta > 0:  # with beta = 0 no list proves anything
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
        and certified (R, B) bool: which needed no full search. Every row is exact; by "device" so long as
        ``device_search`` may wait for the host, else but for what it counts as open.
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
        if self.device_search is not None:
            with torch.no_grad(), full_precision():
                best, certified = self.device_search.query(flat, action)
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
        """The k nearest of all rows to each query (Q, d): rows (Q, k)."""
        if self.beta == 0 or self.k > 1:
            return self._by_tree(query)
        self._searches += 1
        count = len(query)
        quicker = self._pace["tree"] * count <= self._pace["scan"] * (count + _Scan.SETUP)
        first, second = ("tree", "scan") if quicker else ("scan", "tree")
        split = min(TRIAL, count) if self._searches % PERIOD == 2 else 0
        if self._searches == 1:  # never a measured pace from the call that builds
            self._by_tree(query[:1])
            self._scan = _Scan(self._rows)
        parts = [self._timed(name, part) for name, part in ((second, query[:split]), (first, query[split:]))]
        return np.concatenate(parts)

    def _timed(self, name: str, query: Array) -> Array:
        """One of the two searches, its pace noted."""
        if not len(query):
            return np.empty((0, 1), np.int64)
        began = time.perf_counter()
        if name == "tree":
            found = self._by_tree(query)
            self._pace[name] = (time.perf_counter() - began) / len(query)
        else:
            assert self._scan is not None
            found = self._scan.nearest(query)[:, None]
            self._pace[name] = (time.perf_counter() - began) / (len(query) + _Scan.SETUP)
        return found

    def _by_tree(self, query: Array) -> Array:
        """By a KD-tree on principal axes, made on first use; at beta = 0 of the actions alone."""
        used = slice(self._state_dim if self.beta == 0 else 0, None)  # beta = 0: a search among actions alone
        if self._tree is None:
            from scipy.spatial import cKDTree  # type: ignore[import-untyped,unused-ignore]

            points, self._mean_key, self._axes = principal(self._rows[:, used].astype(np.float64))
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


def _smallest(rows: Array, squared: Array, k: int) -> tuple[Array, Array]:
    """The k smallest of each line of (Q, n) by (squared, row), with their squared distances."""
    if k == 1:
        least = squared.min(1, keepdims=True)
        return np.where(squared == least, rows, np.int64(2**62)).min(1, keepdims=True), least
    order = np.lexsort((rows, squared), axis=-1)[:, :k]
    return np.take_along_axis(rows, order, 1), np.take_along_axis(squared, order, 1)


class _Scan:
    """The nearest of all rows by float32 matrix products over tiles, then float64 where rounding leaves doubt.

    Costs the same however far the query lies from the data, where a KD-tree in twenty dimensions visits most leaves.
    """

    SETUP = 10  # passing over the rows costs about as much as this many queries

    def __init__(self, rows: Array) -> None:
        self._rows = torch.from_numpy(rows)
        total, dim = rows.shape
        self._mean = rows.astype(np.float64).mean(0)
        padded = -(-total // TILE) * TILE
        centred = torch.zeros(padded, dim)
        centred[:total] = (self._rows.double() - torch.from_numpy(self._mean)).float()
        norms = torch.full((padded,), torch.inf)  # a padded row is infinitely far away
        norms[:total] = centred[:total].square().sum(1)
        self._tiles = [(centred[i : i + TILE].T, norms[None, i : i + TILE]) for i in range(0, padded, TILE)]

    def nearest(self, query: Array) -> Array:
        """Lowest row of least float64 distance to each query (Q, d): (Q,) int64."""
        centred = torch.from_numpy(query - self._mean).float()
        norm = centred.square().sum(1).double()
        count, dim = centred.shape
        least = torch.empty(count, len(self._tiles) * (TILE // CELL))
        with full_precision():
            for i, (tile, norms) in enumerate(self._tiles):
                score = torch.addmm(norms, centred, tile, alpha=-2)
                cells = slice(i * (TILE // CELL), (i + 1) * (TILE // CELL))
                torch.amin(score.view(count, -1, CELL), -1, out=least[:, cells])
        best = least.amin(1).double()
        # Both the best score and that of the true nearest row are wrong by at most this: see block_neighbours.
        reach = 2 * norm.sqrt() + (best + norm).clamp(min=0).sqrt()
        limit = best + 4 * (dim + 8) * 2.0**-24 * reach.square()
        owner, cell = (least.double() <= limit[:, None]).nonzero().T
        parts = []
        for part in range(0, len(owner), 256):  # repeated rows can leave many cells in doubt: bound the memory
            rows = (cell[part : part + 256, None] * CELL + torch.arange(CELL)).clamp(max=len(self._rows) - 1)
            difference = self._rows[rows].numpy() - query[owner[part : part + 256].numpy()][:, None]
            parts.append(_smallest(rows.numpy(), np.square(difference).sum(-1), 1))
        found, squared = (np.concatenate(column) for column in zip(*parts, strict=True))
        order = np.lexsort((found[:, 0], squared[:, 0], owner.numpy()))
        _, first = np.unique(owner.numpy()[order], return_index=True)
        return np.asarray(found[order[first], 0])
