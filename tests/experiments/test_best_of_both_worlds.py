"""The best-of-both-worlds benchmark at a tiny size: what it plays, what it writes."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from bandits import make
from envs.experts import Experts
from experiments.benchmarks import best_of_both_worlds
from experiments.benchmarks.best_of_both_worlds import (
    ENVIRONMENTS,
    LEARNERS,
    REFERENCE,
    main,
    play,
    record_points,
    tabulate,
)


def test_record_points():
    assert record_points(7) == [7]
    points = record_points(30_000)
    assert (points[0], points[-1]) == (10, 30_000)
    assert {1000, 10_000} <= set(points)
    assert points == sorted(set(points))
    assert record_points(10) == [10]


def test_regrets_are_those_of_each_world_played_alone():
    """The second environment's runs of a learner are its runs 3, 4 and 5."""
    points, regrets = play(3, 40, seed=2, learners=("Exp3", "UCB1"))
    assert set(regrets) == {(env, name) for env in ENVIRONMENTS for name in ("Exp3", "UCB1")}
    for name in ("Exp3", "UCB1"):
        for i, (env, kind) in enumerate(ENVIRONMENTS.items()):
            world = Experts(8, 40, 3, 2, kind=kind, feedback="bandit", gap=0.1)
            kind_of, given = LEARNERS[name]
            learner = make(kind_of, world.facts, range(3 * i, 3 * i + 3), 2, **given)
            for t in range(40):
                arm = learner.act()
                learner.observe(arm, world.step(arm)[4]["feedback"])
                if t + 1 in points:
                    found = regrets[env, name][:, points.index(t + 1)]
                    np.testing.assert_array_equal(found, world.regret()["regret/static"].numpy())


def test_tabulate():
    values = np.array([[70.0, 300.0], [74.0, 310.0]])
    table = tabulate([1000, 20_000], {("stochastic", "Tsallis-INF (IW)"): values})
    first, second = table.to_dict("records")
    assert (first["runs"], first["mean"], first["reference"]) == (2, 72.0, 71.0)
    assert first["ratio"] == pytest.approx(72 / 71)
    assert first["high"] - first["mean"] == pytest.approx(12.706 * 2, abs=1e-2)
    assert second["mean"] == 305.0
    assert np.isnan(second["reference"])
    assert np.isnan(second["ratio"])


def test_the_script_writes_tables_and_a_picture_and_repeats_itself(tmp_path, capsys, monkeypatch):
    texts = []
    for name, seed in (("one", 3), ("two", 3), ("three", 4)):
        main(["--out", str(tmp_path / name), "--runs", "2", "--horizon", "30", "--seed", str(seed)])
        texts.append((tmp_path / name / "table.csv").read_bytes())
        if name == "one":
            assert (tmp_path / name / "best-of-both-worlds.png").read_bytes().startswith(b"\x89PNG")
            monkeypatch.setattr(best_of_both_worlds, "draw", lambda table, path: path)  # one is enough
    assert texts[0] == texts[1] != texts[2]
    table = pd.read_csv(tmp_path / "one" / "table.csv")
    assert set(zip(table["environment"], table["learner"], strict=True)) == set(REFERENCE)
    assert table["round"].max() == 30
    assert (table["low"] <= table["mean"]).all()
    report = (tmp_path / "three" / "table.md").read_text()
    assert "--runs 2 --horizon 30 --seed 4" in report
    assert str(tmp_path) not in report
    assert report.count("| 30 |") == 8
    assert "UCB1" in capsys.readouterr().out


def test_one_run_has_no_interval(tmp_path, monkeypatch):
    monkeypatch.setattr(best_of_both_worlds, "draw", lambda table, path: path)
    main(["--out", str(tmp_path), "--runs", "1", "--horizon", "12"])
    assert pd.read_csv(tmp_path / "table.csv")["low"].isna().all()


@pytest.mark.parametrize("field", ["runs", "horizon"])
def test_nothing_to_play_is_refused(tmp_path, field):
    with pytest.raises(ValueError, match=rf"--{field}: expected at least 1, got 0"):
        main(["--out", str(tmp_path), f"--{field}", "0"])
