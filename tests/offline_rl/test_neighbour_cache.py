"""The file in which a neighbour table is kept: written once, checked, made again where it is damaged."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest

from offline_rl.nearest import NeighbourTable
from tests.offline_rl.test_nearest import world


def same(one: NeighbourTable, two: NeighbourTable) -> bool:
    names = [field.name for field in dataclasses.fields(one)]
    return all(np.array_equal(getattr(one, name), getattr(two, name)) for name in names)


def test_cache_is_written_once_and_reused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    states, _ = world("duplicated", 300)
    table = NeighbourTable.cached(states, 8, tmp_path)
    (file,) = tmp_path.iterdir()  # no temporary file is left behind
    stamp = file.stat().st_mtime_ns
    with monkeypatch.context() as patch:
        patch.setattr(NeighbourTable, "build", lambda *_: pytest.fail("built a table that was cached"))
        assert same(NeighbourTable.cached(states, 8, tmp_path), table)
        monkeypatch.setenv("ORBS_CACHE", str(tmp_path))
        assert same(NeighbourTable.cached(states.astype(np.float64), 8), table)
    assert file.stat().st_mtime_ns == stamp
    NeighbourTable.cached(states, 9, tmp_path)
    NeighbourTable.cached(states + 1, 8, tmp_path)
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "other"])
def test_damaged_cache_is_rebuilt_with_a_warning(damage: str, tmp_path: Path) -> None:
    states, _ = world("random", 300)
    table = NeighbourTable.cached(states, 8, tmp_path)
    (file,) = tmp_path.iterdir()
    data = bytearray(file.read_bytes())
    if damage == "flip":
        data[-100] ^= 255
    elif damage == "cut":
        data = data[: len(data) // 2]
    elif damage == "empty":
        data.clear()
    else:
        NeighbourTable.cached(states + 1, 8, tmp_path / "other")
        data = bytearray(next((tmp_path / "other").iterdir()).read_bytes())
    file.write_bytes(data)
    with pytest.warns(UserWarning, match="building it again"):
        assert same(NeighbourTable.cached(states, 8, tmp_path), table)
    assert same(NeighbourTable.cached(states, 8, tmp_path), table)


def test_interrupted_write_leaves_no_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        NeighbourTable.cached(world("random", 50)[0], 4, tmp_path)
    assert not list(tmp_path.iterdir())
