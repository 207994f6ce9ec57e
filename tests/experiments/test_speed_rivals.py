"""Other packages beside ours: how they are called, what becomes of their numbers, how their environment is made."""

import sys

import pandas as pd
import pytest

from experiments.benchmarks import bandit_speed, speed, speed_learners, speed_rivals
from experiments.benchmarks.rival_environment import ask, environment
from tests.experiments.rival_python import rival_python
from tests.experiments.test_speed import SHORT, small_data


def test_rivals_are_timed_beside_ours_in_the_same_table(tmp_path, monkeypatch):
    monkeypatch.setattr(speed_learners, "transitions", small_data)
    monkeypatch.setattr(speed_rivals, "MANY", 3)
    monkeypatch.setattr(speed_rivals, "BESIDE", {"mabwiser": {"UCB1": "ucb1"}, "coba": {"BanditUCB": "ucb1-tuned"}})
    asked = ["--only", "d3rlpy", "mabwiser", "coba", "--kinds", "Hopper", *SHORT, "--out", str(tmp_path)]
    folder = rival_python(tmp_path / "env")
    speed.main([*asked, "--rivals", str(folder), "--rival-rounds", "1", "--rival-seconds", "3"])
    table = pd.read_csv(tmp_path / "speed.csv")
    assert table.loc[table["contestant"] == "d3rlpy iql", "per_second"].tolist() == [40]
    assert set(table.loc[table["contestant"] == "d3rlpy iql", "version"]) == {"d3rlpy 9.9, torch 1.2"}
    assert (table["contestant"] == "ucb1 x3").sum() == 1
    assert table.loc[table["contestant"] == "ucb1 x3", "unit"].unique().tolist() == ["run-rounds"]
    lines = [line.split(" | ") for line in (tmp_path / "speed.md").read_text().splitlines() if line.startswith("| ")]
    assert [(line[2], line[4]) for line in lines[1:]] == [
        ("td3bc", "d3rlpy td3bc"), ("td3bc x4", "d3rlpy td3bc"), ("iql", "d3rlpy iql"), ("iql x4", "d3rlpy iql"),
        ("prdc", "d3rlpy prdc"), ("ucb1", "mabwiser UCB1"), ("ucb1 x3", "mabwiser UCB1"),
        ("ucb1-tuned", "coba BanditUCB"), ("ucb1-tuned x3", "coba BanditUCB"),
    ]  # fmt: skip
    assert "mabwiser 8.8" in (tmp_path / "speed.md").read_text()
    calls = (folder / "calls").read_text().splitlines()
    assert [call.split("/")[-1] for call in calls] == ["data.npz 3.0", "rivals.py 50 mabwiser", "rivals.py 50 coba"]


def test_bandit_speed_says_how_much_faster_ours_are(tmp_path, monkeypatch, capsys):
    folder = rival_python(tmp_path / "env")
    asked = ["--learners", "ucb1", "--runs", "2", "--seconds", "0.01", "--horizon", "0"]
    monkeypatch.setattr(sys, "argv", ["bandit_speed", "--out", str(tmp_path), *asked, "--rivals", str(folder)])
    bandit_speed.main()
    text = (tmp_path / "bandit-speed.md").read_text()
    assert "- mabwiser 8.8, UCB1, one run: 500 rounds/s, ucb1 here " in text
    assert "- coba 7.7, BanditUCB, one run: 300 rounds/s." in text


def test_every_rival_has_one_of_ours_beside_it():
    for pairs in bandit_speed.BESIDE.values():
        for ours in pairs.values():
            assert bandit_speed.home_of(ours)


def test_an_environment_gets_what_it_lacks(tmp_path):
    folder = rival_python(tmp_path / "env", versions={"coba": "1.0"})
    environment(folder, ("mabwiser", "coba"))
    assert (folder / "calls").read_text().splitlines() == ["-m pip install --quiet mabwiser"]
    full = rival_python(tmp_path / "full")
    environment(full)
    assert not (full / "calls").exists()


def test_d3rlpy_gets_the_torch_of_here_unless_there_is_one(tmp_path):
    import torch

    folder = rival_python(tmp_path / "env", versions={})
    environment(folder)
    same = torch.__version__.partition("+")[0]
    assert (folder / "calls").read_text().splitlines() == [
        f"-m pip install --quiet torch=={same}", "-m pip install --quiet d3rlpy mabwiser coba",
    ]  # fmt: skip
    folder = rival_python(tmp_path / "has torch", versions={"torch": "1.2", "coba": "1.0"})
    environment(folder)
    assert (folder / "calls").read_text().splitlines() == ["-m pip install --quiet d3rlpy mabwiser"]


def test_an_environment_that_cannot_be_made_is_one_clear_error(tmp_path):
    folder = rival_python(tmp_path / "env", versions={}, pip="echo no such index >&2; exit 1")
    with pytest.raises(ValueError, match=r"--rivals: expected torch==.* in .*pip's error: no such index"):
        environment(folder)


def test_a_rival_that_fails_is_one_clear_error(tmp_path):
    folder = rival_python(tmp_path / "env")
    with pytest.raises(ValueError, match="--rivals: expected an environment in which the rivals run"):
        ask(folder / "bin" / "python", "deep_rivals.py", tmp_path / "not there")
