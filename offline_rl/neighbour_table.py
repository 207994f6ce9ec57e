"""The table of state neighbours behind PRDC's search (`offline_rl.nearest`): built once a dataset, cached on disk.

For every row the K rows nearest by state, and a radius: whatever is not listed is at least that far away.
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

Array = npt.NDArray[Any]

FORMAT = 1
SHORT = 8  # most queries are answered by the first few neighbours, so these are tried alone first
REACH = 2.0  # neighbours beyond this many mean standard deviations hardly ever matter: they are not listed
BLOCK, WIDTH = 256, 4096  # rows of a tile of distances, and its columns


def canonical(states: Array) -> Array:
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


def checksum(states: Array) -> str:
    """sha256 of the canonical states, their type and shape."""
    head = f"{states.dtype}{states.shape}".encode()
    return hashlib.sha256(head + states.tobytes()).hexdigest()


def principal(points: Array) -> tuple[Array, Array, Array]:
    """Centre and rotate (n, d) float64 points to principal axes: same distances, and boxes that prune far better."""
    mean = points.mean(0)
    centred = points - mean
    axes = np.linalg.eigh(centred.T @ centred)[1][:, ::-1]
    return np.ascontiguousarray(centred @ axes), mean, axes


@contextmanager
def full_precision() -> Iterator[None]:
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

        states = canonical(states)
        dim = states.shape[1]
        bits = states.view(np.dtype((np.void, states.dtype.itemsize * dim))).ravel()
        _, leader, state, count = np.unique(bits, return_index=True, return_inverse=True, return_counts=True)
        members = np.argsort(state, kind="stable")
        first = np.cumsum(count) - count
        points, _, _ = principal(states[leader].astype(np.float64))
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
            found, limit = block_neighbours(points, starts, low, high, int(start), k, reach)
            mine = slice(int(start), int(start) + BLOCK)
            lists[order[mine]] = np.where(found < 0, -1, leader[order[found]])
            bound[order[mine]] = limit
        radius = np.nextafter(bound.astype(np.float32), np.float32(0))
        radius[np.isinf(bound)] = np.inf
        inner, outer = radius[state].T.copy()
        groups = [part.astype(np.int32) for part in (first[state], count[state], members)]
        return cls(lists[state], outer, inner, groups[0], groups[1], groups[2], checksum(states))

    @classmethod
    def cached(
        cls, states: Array, k: int = 64, cache_dir: Path | None = None, progress: bool = False
    ) -> NeighbourTable:
        """Load the table from ``cache_dir`` (``$ORBS_CACHE`` or ~/.cache/orbs/neighbours), building it if needed.

        The file's name is a checksum of the states, k and the format. A file that is damaged or belongs to other
        states is rebuilt with a warning. Two processes may build at once: each renames a complete file.
        """
        states = canonical(states)
        folder = Path(cache_dir or os.environ.get("ORBS_CACHE") or Path.home() / ".cache/orbs/neighbours")
        identity = f"{FORMAT}-{k}-{REACH}-{checksum(states)}"
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


def block_neighbours(
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
    with full_precision():
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
