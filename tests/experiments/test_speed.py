"""The speed benchmark runs and tells what it measured; its numbers are nobody's business here."""

import platform
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from experiments.benchmarks import speed, speed_learners
from experiments.benchmarks.plain_odice import PlainODICE
from experiments.benchmarks.speed_table import Contestant, Measured, Settings, compare, ratios, summary, timed
from orbs import Transitions

SHORT = ["--rows", "2500", "--rounds", "1", "--warm-up", "1", "--length", "0.01"]


def small_data(kind="HalfCheetah", rows=2500, one_controller=False):
    rng = np.random.default_rng(0)
    obs = rng.normal(size=(rows + 1, 3)).astype(np.float32)
    action = rng.uniform(-1, 1, (rows, 2)).astype(np.float32)
    return Transitions(obs[:-1], action, rng.normal(size=rows), obs[1:], np.zeros(rows), name=kind)


def test_groups_are_measured_into_one_table(tmp_path, monkeypatch):
    monkeypatch.setattr(speed_learners, "transitions", small_data)
    asked = ["--only", "prdc", "odice", "iql", "--kinds", "HalfCheetah", *SHORT, "--out", str(tmp_path)]
    speed.main(asked)
    table = pd.read_csv(tmp_path / "speed.csv")
    assert table.groupby("group", sort=False)["contestant"].agg(list).to_dict() == {
        "iql": ["td3bc", "iql", "iql x4"],
        "prdc": ["td3bc", "prdc"],
        "odice": ["plain odice", "odice", "odice x4"],
    }
    assert (table["per_second"] > 0).all()
    assert set(table["torch"]) == {torch.__version__}
    assert set(table["python"]) == {platform.python_version()}
    assert table["machine"].str.contains("cores").all()
    text = (tmp_path / "speed.md").read_text()
    assert "| odice | HalfCheetah | odice x4 |" in text
    assert "of the rows have a weight" in text
    assert sum(line.startswith("|") for line in text.splitlines()) == 2 + 5


def test_graphs_stand_beside_updates_one_by_one(monkeypatch):
    monkeypatch.setattr(speed_learners, "MANY", 2)
    found = speed_learners.measure_graphs(small_data(), "Hopper", Settings(rounds=1, warm_up=1, length=0.001))
    assert len(found.rows) == 5 * 4
    assert ("prdc x2", "prdc x2, one by one") in found.pairs
    assert len(summary({("graphs", "Hopper"): found})) == 2 + 10


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (["--only", "graphs"], "nothing to measure on cpu"),
        (["--only", "dqn"], "invalid choice"),
        (["--only", "odice", "--device", "cuda"], "nothing to measure on cuda"),
        (["--only", "d3rlpy"], "use --rivals FOLDER"),
        (["--guard", "FILE"], "not allowed with"),
    ],
    ids=["graphs on a CPU", "unknown", "no device", "no environment", "two things at once"],
)
def test_what_cannot_be_measured_is_refused(tmp_path, capsys, asked, message):
    with pytest.raises(SystemExit):
        speed.main(["--out", str(tmp_path), *asked])
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_quick_is_small_and_gives_way_to_what_is_asked(tmp_path, monkeypatch):
    seen = []

    def measure(data, kind, settings):
        seen.append((kind, len(data.obs), settings))
        rows = [timed(kind, 0, name, 1.0) for name in ("td3bc", "plain td3bc")]
        return Measured(rows, [("td3bc", "plain td3bc")])

    monkeypatch.setattr(speed_learners, "transitions", lambda kind, rows, one: small_data(kind, min(rows, 50)))
    monkeypatch.setitem(speed.LEARNERS, "td3bc", measure)
    speed.main(["--quick", "--only", "td3bc", "--rounds", "2", "--out", str(tmp_path)])
    assert seen == [("HalfCheetah", 50, replace(speed.QUICK, rounds=2))]
    seen.clear()
    speed.main(["--only", "td3bc", "--rows", "40", "--out", str(tmp_path)])
    assert seen == [(kind, 40, Settings(rows=40)) for kind in ("HalfCheetah", "Hopper")]


def test_rounds_measure_all_contestants_in_turn():
    calls = []

    def spin(name):
        def update(n):
            calls.append((name, n))
            sum(range(200_000))

        return update

    contestants = [Contestant("a", spin("a"), 8), Contestant("b", spin("b"), 2, runs=4)]
    rows = compare(contestants, "here", Settings(rounds=2, length=0.5))
    assert calls == [("a", 1), ("b", 1), ("a", 4), ("b", 1), ("a", 4), ("b", 1)]
    assert [(row["contestant"], row["round"], row["runs"]) for row in rows] == [
        ("a", 0, 1), ("b", 0, 4), ("a", 1, 1), ("b", 1, 4),
    ]  # fmt: skip
    assert 0.2 < ratios(pd.DataFrame(rows), "a", "b")[0] < 5  # 4 updates, and one of 4 runs, in the same time


def test_ratios_are_of_the_same_round():
    speeds = {"ours": (10.0, 40.0, 90.0), "plain": (5.0, 10.0, 90.0)}
    rows = [timed("here", i, name, value) for name, values in speeds.items() for i, value in enumerate(values)]
    found = Measured(rows, [("ours", "plain")], ["a note"])
    assert ratios(found.frame, "ours", "plain") == (2.0, 1.0, 4.0)
    text = summary({("group", "here"): found})
    assert text[2] == "| group | here | ours | 40.0 | plain | 10.0 | run-updates | 2.00 | 1.00 | 4.00 |"
    assert text[-1] == "- here, a note"


def test_the_plain_odice_learns_and_stays_finite():
    plain = PlainODICE(small_data())
    before = plain.slow.heads[0][0].weight.clone()
    plain.update(2)
    assert np.isfinite(list(plain.log.values())).all()
    assert not before.equal(plain.slow.heads[0][0].weight)
