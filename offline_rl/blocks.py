"""Rows cut into blocks, as public offline code cuts filtered data: at an end or after a fixed number of rows."""

from __future__ import annotations

import numpy as np

__all__ = ["block_edges"]


def block_edges(end: np.ndarray, horizon: int) -> np.ndarray:
    """(blocks + 1,) int64: block i holds rows edges[i] .. edges[i + 1] - 1; an incomplete last block is left out.

    Args:
        end: (N,), not 0 where a block ends; the count of rows begins anew after it.
        horizon: rows after which a block ends anyhow.
    """
    row, end = np.arange(len(end)), end.astype(bool)
    begins = np.concatenate(([True], end[:-1]))
    since = row - np.maximum.accumulate(np.where(begins, row, 0))
    return np.concatenate(([0], np.flatnonzero(end | ((since + 1) % horizon == 0)) + 1))
