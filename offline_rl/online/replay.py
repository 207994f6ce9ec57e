"""The memory of what was played: one ring of packed rows a run, on the device, and which rows make a batch."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from orbs import Philox, reject

__all__ = ["Replay", "distinct_rows", "few", "first_distinct", "words_wanted"]

# Below this many batches in the replay a batch without repeats is cut from a permutation of all rows.
FEW_BATCHES = 8


class Replay:
    """`capacity` rows of `width` numbers for each of R runs; the oldest row makes room for a new one.

    No memory is taken before the first row. From then on a CPU's system gives it page by page, as the ring fills; on
    CUDA it is taken at once.

    Attributes:
        added: rows put in so far, per run.
    """

    def __init__(self, runs: int, capacity: int, width: int, dtype: torch.dtype, device: torch.device) -> None:
        self.capacity, self.added = capacity, 0
        self.shape, self.dtype, self.device = (runs, capacity, width), dtype, device
        self._rows: Tensor | None = None
        self._array: np.ndarray | None = None
        self._first = (capacity * torch.arange(runs, device=device)).unsqueeze(1)

    @property
    def rows(self) -> Tensor:
        """(R, capacity, width), of which the first `size` rows of each run mean something."""
        if self._rows is None:
            try:
                self._rows = torch.empty(self.shape, dtype=self.dtype, device=self.device)
            except (RuntimeError, MemoryError) as error:
                runs, capacity, width = self.shape
                size = runs * capacity * width * self.dtype.itemsize / 2**30
                raise ValueError(
                    f"capacity: expected a replay that fits the memory of {self.device}, got {size:.1f} GiB for {runs} "
                    f"runs of {capacity} rows. Fix: choose a smaller capacity or fewer runs."
                ) from error
            self._array = self._rows.numpy() if self.device.type == "cpu" else None
        return self._rows

    @property
    def size(self) -> int:
        """Rows of each run that are filled."""
        return min(self.added, self.capacity)

    def add(self, row: np.ndarray) -> None:
        """Put in one row a run: (R, width) of the replay's dtype."""
        place = self.added % self.capacity
        if self._array is not None:
            self._array[:, place] = row
        else:  # CUDA, or the first row
            self.rows[:, place].copy_(torch.from_numpy(row), non_blocking=True)
        self.added += 1

    def take(self, index: Tensor) -> Tensor:
        """Rows of each run by their numbers: index (R, B) -> (R, B, width)."""
        flat = self.rows.view(-1, self.shape[2])
        return flat.index_select(0, (index + self._first).view(-1)).view(*index.shape, -1)

    def filled(self) -> Tensor:
        """(R, size, width), a view: in the order of the ring, which begins with the oldest row until it wraps."""
        if self._rows is None:
            return torch.empty((self.shape[0], 0, self.shape[2]), dtype=self.dtype, device=self.device)
        return self._rows[:, : self.size]

    def restore(self, rows: Tensor | None, added: int) -> None:
        """Go on from what `filled` gave and from how many rows had been added; None empties the replay."""
        self.added = 0 if rows is None else added
        if rows is not None and added:
            self.rows[:, : self.size].copy_(rows)

    def check(self, rows: Tensor, added: int) -> None:
        """ValueError unless `restore` can take these."""
        runs, _, width = self.shape
        expected = (runs, min(added, self.capacity), width)
        if tuple(rows.shape) != expected or rows.dtype != self.dtype:
            given, fix = f"{tuple(rows.shape)} {rows.dtype}", "load into the same learner, of the same capacity"
            reject("state_dict.replay", f"{expected} {self.dtype}", given, fix)


def words_wanted(batch_size: int, distinct: bool) -> int:
    """Random words per update and run: with `distinct` a quarter more than rows, and eight."""
    return batch_size + batch_size // 4 + 8 if distinct else batch_size


def distinct_rows(philox: Philox, words: Tensor, step: int, size: int, batch_size: int) -> Tensor:
    """(R, batch_size) different row numbers in 0 .. size - 1 of each run, every such set equally likely.

    The first different ones among the candidates that `words` (R, K) give, in the order of the draw. From
    `FEW_BATCHES` batches on, too few of them differ with a chance below 1e-12 at 256 rows; repeats would fill up.
    Below, a random permutation of all rows, from words of its own, is cut to the batch.
    """
    if few(size, batch_size):
        order = philox.words("permutation", step, 1, size)[:, 0]
        return torch.argsort(order, dim=1, stable=True)[:, :batch_size]
    return first_distinct(words, size, batch_size)


def few(size: int, batch_size: int) -> bool:
    """Whether a replay of `size` rows is one that `distinct_rows` permutes."""
    return size < FEW_BATCHES * batch_size


def first_distinct(words: Tensor, size: int | Tensor, batch_size: int) -> Tensor:
    """The first `batch_size` different ones of (words * size) >> 32, in the order of the draw."""
    drawn = (words * size) >> 32
    ordered, place = torch.sort(drawn, dim=1, stable=True)
    repeat = torch.zeros_like(drawn, dtype=torch.uint8)
    repeat[:, 1:] = ordered[:, 1:] == ordered[:, :-1]
    # Back to the order of the draw: of equal candidates the earliest is no repeat, since the sort is stable.
    repeat = torch.empty_like(repeat).scatter_(1, place, repeat)
    first = torch.argsort(repeat, dim=1, stable=True)[:, :batch_size]
    return drawn.gather(1, first)
