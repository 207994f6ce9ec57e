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
