"""Folders that travel: whole copies, in the order that keeps a resume right, one attempt a folder."""

from __future__ import annotations

import contextlib
import itertools
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from experiments import results, sync
from experiments.sync import FILES, Target
from orbs import load_tensors, save_tensors


def step_at(folder, step, status="running"):
    """What a session at `step` leaves, in its order."""
    rows = pd.DataFrame({"step": np.arange(1, step + 1)})
    names = {"experiment": "e", "algorithm": "a", "problem": "p", "run": 0, "metric": "m", "value": 0.0}
    results.write_table(rows.assign(**names), folder / "metrics.parquet")
    save_tensors(folder / "checkpoint.safetensors", {}, {"steps": step})
    (folder / "config.json").write_text(f'{{"status": "{status}"}}')


def state(folder):
    rows = results.read_table(folder / "metrics.parquet")["step"].max()
    return int(rows), load_tensors(folder / "checkpoint.safetensors")[1]["steps"]


def test_a_folder_goes_to_its_target_and_back(tmp_path):
    folder, target = tmp_path / "a", Target((tmp_path / "far").as_uri(), "x/y")
    assert not target.pull(tmp_path / "b")
    assert not (tmp_path / "b").exists()
    step_at(folder, 3)
    (folder / ".metrics.parquet.1.tmp").write_text("half")
    target.push(folder)
    step_at(folder, 5)
    target.push(folder)
    assert target.pull(tmp_path / "b")
    for place in (tmp_path / "far" / "x" / "y", tmp_path / "b"):
        assert sorted(path.name for path in place.iterdir()) == sorted(FILES)
        assert all((place / name).read_bytes() == (folder / name).read_bytes() for name in FILES)


@pytest.mark.parametrize("way", ["push", "pull"])
@pytest.mark.parametrize("moment", range(1, 7))
def test_a_copy_that_a_kill_cuts_short_leaves_what_a_resume_goes_on_from(tmp_path, monkeypatch, way, moment):
    """A checkpoint never lies beside a table that is older than it, nor without a configuration."""
    folder, far = tmp_path / "a", tmp_path / "far"
    target = Target(far.as_uri(), "x")
    end = far / "x" if way == "push" else tmp_path / "b"
    for old in (None, 3):
        if old is not None:
            step_at(folder, old)
            getattr(target, way)(folder if way == "push" else end)
        step_at(folder, 5)
        if way == "pull":
            target.push(folder)
        kind = type(target.fs)
        left = [moment]

        def cut(original, left=left):
            def act(*given, **more):
                left[0] -= 1
                if not left[0]:
                    raise KeyboardInterrupt
                return original(*given, **more)

            return act

        with monkeypatch.context() as patch, contextlib.suppress(KeyboardInterrupt):
            patch.setattr(kind, "mv", cut(kind.mv))
            patch.setattr(kind, "get_file", cut(kind.get_file))
            patch.setattr(Path, "replace", cut(Path.replace))
            getattr(target, way)(folder if way == "push" else end)
        if (end / "checkpoint.safetensors").exists():
            rows, steps = state(end)
            assert rows >= steps
            assert (end / "config.json").exists()


def test_a_copy_taken_while_a_unit_writes_is_whole(tmp_path, monkeypatch):
    """Read checkpoint first: the table that is read after it knows its steps."""
    folder, target = tmp_path / "a", Target((tmp_path / "far").as_uri(), "x")
    steps = itertools.count(1)
    step_at(folder, next(steps))

    def opening(*given):
        file = open(*given)  # noqa: SIM115 (the caller closes it)
        step_at(folder, next(steps))  # the unit goes on between any two files
        return file

    monkeypatch.setattr(sync, "open", opening, raising=False)
    for _ in range(2):
        target.push(folder)
        rows, reached = state(tmp_path / "far" / "x")
        assert rows == reached + 2


def test_a_later_attempt_takes_the_folder_away(tmp_path):
    target = Target(tmp_path.as_uri(), "x")
    assert target.owned("first")
    target.claim("first")
    target.claim("second")
    assert not target.owned("first")
    target.release("first")
    assert target.owned("second")
    assert not target.owned("third")
    target.release("second")
    assert not list((tmp_path / "x").iterdir())
