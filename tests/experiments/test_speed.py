"""The speed benchmark runs and tells what it measured; its numbers are nobody's business here."""

import numpy as np
import pandas as pd
import pytest

from experiments.benchmarks import speed
from experiments.benchmarks.plain_odice import PlainODICE
from orbs import Transitions


def small_data(kind="HalfCheetah", rows=2500, one_controller=False):
    rng = np.random.default_rng(0)
    obs = rng.normal(size=(rows + 1, 3)).astype(np.float32)
    action = rng.uniform(-1, 1, (rows, 2)).astype(np.float32)
    return Transitions(obs[:-1], action, rng.normal(size=rows), obs[1:], np.zeros(rows), name=kind)


def test_a_group_is_measured_beside_its_plain_version(tmp_path, monkeypatch):
    monkeypatch.setattr(speed, "transitions", small_data)
    asked = ["--only", "odice", "--kinds", "HalfCheetah", "--rounds", "1", "--warm-up", "2", "--out", str(tmp_path)]
    speed.main(asked)
    table = pd.read_csv(tmp_path / "speed.csv")
    assert table["contestant"].tolist() == ["plain odice", "odice", "odice x4"]
    assert (table["run_updates_per_s"] > 0).all()
    text = (tmp_path / "speed.md").read_text()
    assert "odice x4 / plain odice" in text
    assert "of the rows have a weight" in text


def test_unknown_groups_and_groups_without_a_device_are_refused(tmp_path, capsys):
    for asked, message in ((["--only", "dqn"], "invalid choice"), (["--only", "odice", "--device", "cuda"], "nothing")):
        with pytest.raises(SystemExit):
            speed.main([*asked, "--out", str(tmp_path)])
        assert message in capsys.readouterr().err


def test_the_plain_odice_learns_and_stays_finite():
    plain = PlainODICE(small_data())
    before = plain.slow.heads[0][0].weight.clone()
    plain.update(3)
    assert np.isfinite(list(plain.log.values())).all()
    assert not before.equal(plain.slow.heads[0][0].weight)


def timed(**speeds):
    rows = [
        {"data": "Hopper", "round": i, "contestant": n, "run_updates_per_s": v}
        for n, v in speeds.items()
        for i in (0, 1)
    ]
    return pd.DataFrame(rows)


def test_the_guard_finds_a_ratio_that_dropped_by_a_third(tmp_path):
    path = tmp_path / "kept.json"
    path.write_text('{"Hopper": {"ours / plain": 1.5}}')
    assert speed.guarded(timed(ours=101, plain=100), path) == []
    assert speed.guarded(timed(ours=99, plain=100), path) == ["Hopper, ours / plain: 0.99, was 1.50"]
    with pytest.raises(ValueError, match=r"--guard: expected ratios that are measured, on Hopper, got ours / plain"):
        speed.guarded(timed(ours=1), path)


def test_a_command_with_a_guard_fails(tmp_path, monkeypatch):
    monkeypatch.setattr(speed, "transitions", small_data)
    path = tmp_path / "kept.json"
    path.write_text('{"Hopper": {"odice / plain odice": 1e6}}')
    asked = ["--only", "odice", "--kinds", "Hopper", "--rounds", "1", "--warm-up", "2", "--out", str(tmp_path)]
    with pytest.raises(SystemExit, match="speed: ratios dropped by more than a third: Hopper, odice / plain odice"):
        speed.main([*asked, "--guard", str(path)])
    assert (tmp_path / "speed.csv").exists()


def test_rivals_are_timed_beside_ours(tmp_path, monkeypatch):
    """An environment whose python prints numbers: what it is called with, and what becomes of them."""
    monkeypatch.setattr(speed, "transitions", small_data)
    python = tmp_path / "env" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(
        '#!/bin/sh\ntest -f "$2" || exit 1\necho noise\n'
        'echo \'{"version": "9.9", "updates/s": {"td3bc": 50, "iql": 40, "prdc": 1e-3}}\'\n'
    )
    python.chmod(0o755)
    asked = ["--only", "odice", "--kinds", "Hopper", "--rounds", "1", "--warm-up", "2", "--out", str(tmp_path)]
    speed.main([*asked, "--rivals", str(tmp_path / "env"), "--rival-rounds", "2"])
    table = pd.read_csv(tmp_path / "speed.csv")
    assert (table["contestant"] == "d3rlpy td3bc").sum() == 2
    assert set(table.loc[table["contestant"] == "d3rlpy iql", "run_updates_per_s"]) == {40}
    text = (tmp_path / "speed.md").read_text()
    assert "prdc / d3rlpy prdc" in text
    assert "d3rlpy 9.9" in text


def test_growth_cells():
    from experiments.benchmarks import growth

    assert growth.cells([10, 20], [1, 4], [64, 256, 1024]) == [
        (10, 1, 256), (10, 4, 256), (20, 1, 256), (20, 4, 256), (10, 1, 64), (10, 1, 1024),
    ]  # fmt: skip


def test_growth_measures_each_cell_in_a_process_of_its_own(tmp_path):
    from experiments.benchmarks import growth

    growth.main(["--out", str(tmp_path), "--rows", "3000", "--runs", "1", "2", "--batches", "16", "--seconds", "0.1"])
    table = pd.read_csv(tmp_path / "growth.csv")
    assert table["runs"].tolist() == [1, 2]
    np.testing.assert_allclose(table["arrays_mb"], 3000 * (17 + 6 + 1 + 17 + 1 + 1) * 4 / 1e6)
    assert (table["run_updates_per_s"] > 0).all()
    assert (table["above_mb"] < 2000).all()
    assert (tmp_path / "growth.md").read_text().count("\n") >= 5
