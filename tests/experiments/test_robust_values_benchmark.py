"""The table of robust values of a model from a file."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from envs.finite_mdp import load_mdp
from envs.robust_values import at_start, evaluate, optimal
from envs.uncertainty import Uncertainty
from experiments.benchmarks import robust_values as benchmark


def write(path: Path, **more: np.ndarray) -> Path:
    rng = np.random.default_rng(0)
    np.savez(path, kernel=rng.dirichlet(np.ones(6), (6, 3)), reward=rng.uniform(size=(6, 3)), **more)
    return path


def test_table(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    expert = np.zeros((6, 3))
    expert[:5, 1] = 1.0  # the last row is none: uniform
    path = write(tmp_path / "a.npz", expert_policy=expert)
    arguments = [
        "--model",
        str(path),
        "--steps",
        "4",
        "--out",
        str(tmp_path / "out"),
        "--levels",
        "0.1",
        "0.3",
        "--weights",
        "0.5",
    ]
    monkeypatch.setattr(sys, "argv", ["robust_values", *arguments])
    benchmark.main()
    assert "robust-values.csv" in capsys.readouterr().out
    table = pd.read_csv(tmp_path / "out" / "robust-values.csv")
    assert len(table) == 1 + 3 * (2 + 1)
    assert (tmp_path / "out" / "robust-values.md").read_text().count("|---") > 0
    mdp, at = load_mdp(path, 4), {"nominal optimum": None, "expert": torch.as_tensor(expert), "uniform": None}
    at["expert"][5] = 1 / 3
    row = table[(table.divergence == "kl") & (table.form == "constrained") & (table.level == 0.3)].iloc[0]
    nature = Uncertainty("kl", "constrained", 0.3)
    assert row["robust optimum"] == pytest.approx(float(at_start(mdp, optimal(mdp, nature)[0])), abs=1e-12)
    wanted = {
        "nominal optimum": optimal(mdp)[1],
        "expert": at["expert"].expand(4, -1, -1),
        "uniform": torch.full((4, 6, 3), 1 / 3, dtype=torch.float64),
    }
    for name, policy in wanted.items():
        assert row[name] == pytest.approx(float(at_start(mdp, evaluate(mdp, policy, nature))), abs=1e-12)
        assert (table[name] <= table["robust optimum"] + 1e-12).all()
    assert (table.iloc[1:]["robust optimum"] < table.iloc[0]["robust optimum"]).all()


def test_without_an_expert(tmp_path: Path) -> None:
    paths = benchmark.robust_values(write(tmp_path / "a.npz"), 2, tmp_path, radii=(0.1,), weights=(1.0,))
    assert "expert" not in pd.read_csv(paths[0]).columns


@pytest.mark.parametrize("expert", [np.ones((6, 3)), np.full((6, 2), 0.5)], ids=["sum", "shape"])
def test_bad_expert(tmp_path: Path, expert: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"expert_policy: expected .* Fix: "):
        benchmark.robust_values(write(tmp_path / "a.npz", expert_policy=expert), 2, tmp_path)
