"""PRDC's exact nearest row by tensor operations of fixed shape, for a GPU: nothing waits for the host.

Three stages, as in `offline_rl.nearest`: the list of state neighbours proves most answers; at most `capacity` of the
rest are looked for among all rows, in float32 by cells of rows, then in float64 within the nearest cells; what is
still open then is counted in `open`. Who reads a number above 0 there asks again with `waits`: nothing is open then.
"""

from __future__ import annotations

import torch
from torch import Tensor

from offline_rl.neighbour_table import NeighbourTable

__all__ = ["DeviceSearch"]

CELL = 128  # rows whose least distance stands for all of them
SPARE = 3  # cells looked into beyond k: the k nearest rows lie in the k nearest cells but for rounding
SCORES = 1 << 26  # distances that a pass over the rows holds at a time


class DeviceSearch:
    """Nearest rows to [beta * state of a row, policy action] among N rows of keys (N, D).

    Args:
        keys: (N, D), [beta * state, action], float32 or float64.
        state_dim: how many of the D columns are the state's.
        beta: the factor in the keys.
        k: neighbours wanted.
        table: neighbours by state; None: every query is looked for among all rows.

    Attributes:
        capacity: queries of one call that may be looked for among all rows; None: as many as there are.
        waits: whether the host may look at the numbers: then every answer is exact, whatever the capacity.
        open: () int64 on the device, answers since the last `reset` that are not proved to be the nearest.
        needed: () int64, the most queries of one call since then that the list did not decide.
    """

    def __init__(self, keys: Tensor, state_dim: int, beta: float, k: int, table: NeighbourTable | None) -> None:
        device, (count, dim) = keys.device, keys.shape
        self.keys, self.state_dim, self.k = keys, state_dim, k
        self.capacity: int | None = None
        self.waits = True
        self.open, self.needed = (torch.zeros((), dtype=torch.int64, device=device) for _ in range(2))
        self._mean = keys.double().mean(0)
        padded = -(-count // CELL) * CELL
        self._centred = torch.zeros(padded, dim, device=device)
        self._centred[:count] = (keys.double() - self._mean).float()
        self._norms = torch.full((padded,), torch.inf, device=device)  # a padded row is infinitely far away
        self._norms[:count] = self._centred[:count].square().sum(1)
        self._cells = min(k + SPARE, padded // CELL)
        self._listed: Tensor | None = None
        if table is not None and beta > 0 and k <= table.neighbours.shape[1]:  # with beta = 0 no list proves anything
            self._listed = torch.from_numpy(table.neighbours).to(device)
            # The product beta * s is rounded: each key is off by at most half an ulp of its own norm.
            ulp = torch.finfo(keys.dtype).eps
            scale = float(keys.new_tensor(beta)) * (1 - 4 * ulp)
            norm = keys[:, :state_dim].double().norm(dim=1)
            radius = torch.from_numpy(table.radius).to(device).double()
            self._limit = torch.where(radius.isinf(), radius, radius * scale - 2 * ulp * norm - 1e-30)
            self._shared = torch.from_numpy(table.count > 1).to(device)

    def reset(self) -> None:
        """Count anew."""
        self.open.zero_()
        self.needed.zero_()

    def query(self, index: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """index (Q,) int64 rows whose states are asked for, action (Q, A) -> rows (Q, k), proved by the list (Q,)."""
        query = torch.cat((self.keys[index, : self.state_dim], action.to(self.keys.dtype)), 1).double()
        if self._listed is None:
            found = index.unsqueeze(1).repeat(1, self.k)
            certified = torch.zeros_like(index, dtype=torch.bool)
        else:
            found, certified = self._by_list(index, query)
        if self.waits:
            return self._all_exact(query, found, certified), certified
        left = ~certified
        count = left.sum()
        self.needed.copy_(torch.maximum(self.needed, count))
        size = len(index) if self.capacity is None else min(self.capacity, len(index))
        place = torch.argsort(certified.to(torch.uint8), stable=True)[:size]
        rows, proved = self._by_scan(query[place])
        wanted = left[place]
        self.open.add_(count - (wanted & proved).sum())
        return found.index_copy(0, place, torch.where(wanted.unsqueeze(1), rows, found[place])), certified

    def _all_exact(self, query: Tensor, found: Tensor, certified: Tensor) -> Tensor:
        """The same with no query left open; reads numbers on the host."""
        left = (~certified).nonzero()[:, 0]
        for part in torch.split(left, max(1, SCORES // len(self._norms))) if len(left) else ():
            rows, proved = self._by_scan(query[part])
            found[part] = rows
            open_ = part[~proved]
            if len(open_):
                found[open_] = self._by_brute_force(query[open_])
        return found

    def _by_list(self, index: Tensor, query: Tensor) -> tuple[Tensor, Tensor]:
        """The k nearest listed rows and whether no other row can be as near.

        A listed state that several rows share stands for all of them, whose actions are not looked at: the answer must
        be nearer than that state alone is.
        """
        assert self._listed is not None
        rows = self._listed[index].long()
        missing = rows < 0
        rows = rows.clamp(min=0)
        square = (self.keys[rows].double() - query.unsqueeze(1)).square()
        shared = self._shared[rows] & ~missing
        floor = torch.where(shared, square[..., : self.state_dim].sum(-1), torch.inf).amin(1)
        near, distance = _nearest(rows, square.sum(-1).masked_fill(missing | shared, torch.inf), self.k)
        last = distance[:, -1]
        return near, (last.sqrt() < self._limit[index]) & (last < floor)

    def _by_scan(self, query: Tensor) -> tuple[Tensor, Tensor]:
        """The k nearest of all rows to each query (C, D), float64: rows (C, k), and whether that is proved."""
        count, dim = query.shape
        centred = (query - self._mean).float()
        norm = centred.square().sum(1)
        total = len(self._norms)
        least = centred.new_empty(count, total // CELL)
        step = max(CELL, SCORES // max(count, 1) // CELL * CELL)
        for start in range(0, total, step):
            part = slice(start, min(start + step, total))
            score = torch.addmm(self._norms[part], centred, self._centred[part].T, alpha=-2)
            least[:, part.start // CELL : part.stop // CELL] = score.view(count, score.shape[1] // CELL, CELL).amin(-1)
        value, cell = least.topk(min(self._cells + 1, least.shape[1]), 1, largest=False)
        inside = torch.arange(CELL, device=query.device)
        rows = (cell[:, : self._cells, None] * CELL + inside).flatten(1)
        beyond = rows >= len(self.keys)
        rows = rows.clamp(max=len(self.keys) - 1)
        square = torch.empty(rows.shape, dtype=torch.float64, device=query.device)
        size = max(1, SCORES // (rows.shape[1] * dim))
        for first in range(0, count, size):
            some = slice(first, first + size)
            square[some] = (self.keys[rows[some]].double() - query[some].unsqueeze(1)).square().sum(-1)
        near, distance = _nearest(rows, square.masked_fill(beyond, torch.inf), self.k)
        if value.shape[1] == self._cells:  # every row was looked at
            return near, torch.ones(count, dtype=torch.bool, device=query.device)
        # A missing row no further than the k-th has norm at most |q| + its distance: see block_neighbours.
        kth = distance[:, -1]
        slack = 2 * (dim + 8) * 2.0**-24 * (2 * norm.double().sqrt() + kth.sqrt()).square()
        return near, kth + slack < (value[:, -1] + norm).double()

    def _by_brute_force(self, query: Tensor) -> Tensor:
        """(C, k) rows nearest to the queries (C, D), every distance in float64."""
        count, dim = query.shape
        rows = torch.zeros(count, 0, dtype=torch.int64, device=query.device)
        square = torch.zeros(count, 0, dtype=torch.float64, device=query.device)
        step = max(1, SCORES // (count * dim))
        for start in range(0, len(self.keys), step):
            some = self.keys[start : start + step].double()
            here = (some - query.unsqueeze(1)).square().sum(-1)
            numbers = torch.arange(start, start + len(some), device=query.device).expand(count, -1)
            rows, square = _nearest(torch.cat((rows, numbers), 1), torch.cat((square, here), 1), self.k)
        return rows


def _nearest(rows: Tensor, square: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k smallest of each line of (Q, n) by (squared distance, row), and their squared distances."""
    if k == 1:
        least = square.amin(1, keepdim=True)
        return torch.where(square == least, rows, torch.iinfo(torch.int64).max).amin(1, keepdim=True), least
    rows, order = rows.sort(dim=1)
    square, place = square.gather(1, order).sort(dim=1, stable=True)
    return rows.gather(1, place)[:, :k], square[:, :k]
