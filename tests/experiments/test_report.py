"""Reports: the numbers, what is said about odd runs, and the files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from experiments import plots, report, results, statistics


@pytest.fixture(autouse=True)
def _undrawn(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rendering takes most of a report's time; one test does it, and test_plots looks at the figures."""
    if request.node.name != "test_numbers_and_files":
        monkeypatch.setattr(plots, "_save", lambda figure, path: results.write_text(path, "no figure"))


def make(
    root: Path,
    algorithm: str,
    problem: str,
    final: list[float],
    *,
    score: bool = True,
    steps: tuple[int, ...] = (0, 50, 100),
    experiment: str = "exp",
    scored_by: tuple[str, str] = ("", ""),
    **config: Any,
) -> Path:
    """A run folder whose runs end at `final`; earlier evaluations are 1000 lower, returns 10 x the score."""
    recorder = results.Table(experiment, algorithm, problem, None, *scored_by)
    runs = np.arange(len(final))
    for step in steps:
        value = np.array(final) - 1000.0 * (step != steps[-1])
        recorder.record_runs(step, {"eval/return": 10 * value, "train/loss": np.zeros(len(final))}, runs)
        if score:
            recorder.record_runs(step, {"eval/score": value}, runs)
    folder = root / experiment / f"{algorithm}-{problem}"
    results.write_table(recorder.frame(), folder / "metrics.parquet")
    (folder / "config.json").write_text(json.dumps({"status": "complete", "steps": 100} | config))
    return folder


def row(found: report.Report, problem: str, algorithm: str) -> Any:
    return found.table.set_index(["problem", "algorithm"]).loc[(problem, algorithm)]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two algorithms on two problems, five and four runs."""
    path = tmp_path / "runs"
    make(path, "BC", "hopper", [10.0, 11.0, 12.0, 13.0, 19.0])
    make(path, "IQL", "hopper", [20.0, 21.0, 22.0, 23.0, 12.0])
    make(path, "BC", "walker", [50.0, 52.0, 54.0, 56.0])
    make(path, "IQL", "walker", [60.0, 62.0, 64.0, 66.0])
    return path


def test_numbers_and_files(root: Path, tmp_path: Path) -> None:
    found = report.report([root], tmp_path / "out")
    cell = row(found, "hopper", "BC")
    mean, trimmed = (f([10.0, 11.0, 12.0, 13.0, 19.0]) for f in (statistics.mean_interval, statistics.trimmed_interval))
    assert [cell[f"mean{end}"] for end in ("", "_low", "_high")] == [mean.value, mean.low, mean.high]
    assert [cell[f"iqm{end}"] for end in ("", "_low", "_high")] == [trimmed.value, trimmed.low, trimmed.high]
    assert (cell["mean"], cell["iqm"], cell["min"], cell["max"]) == (13, 12, 10, 19)
    assert (cell["runs"], cell["used"], cell["diverged"], cell["steps"]) == (5, 5, 0, "100")
    assert cell["std"] == pytest.approx(np.sqrt(50 / 4))
    expected = {"runs", "table", "curves", "pooled", "improvement", "profile", "markdown"}
    assert set(found.paths) == expected
    assert sorted((tmp_path / "out").iterdir()) == sorted(found.paths.values()), "no temporary file is left"
    assert len(pd.read_csv(found.paths["runs"])) == 18
    pd.testing.assert_frame_equal(
        pd.read_csv(found.paths["table"], dtype={"steps": str}), found.table, check_dtype=False
    )
    assert not found.notes


def test_pooled_and_improvement(root: Path, tmp_path: Path) -> None:
    found = report.report(root, tmp_path / "out")
    bc = found.pooled.set_index("algorithm").loc["BC"]
    tasks = [[10.0, 11.0, 12.0, 13.0, 19.0], [50.0, 52.0, 54.0, 56.0]]
    assert bc["mean"] == (13 + 53) / 2
    assert bc["iqm"] == statistics.iqm(np.concatenate(tasks))
    assert bc["mean_low"] == statistics.pooled_mean_interval(tasks).low
    assert bc["iqm_low"] < bc["iqm"] < bc["iqm_high"]
    (pair,) = found.improvement.to_dict("records")
    # hopper: BC's 13 and 19 beat IQL's 12, and 12 ties it: 2.5 of 25 pairs; walker: none.
    assert (pair["first"], pair["second"]) == ("BC", "IQL")
    assert pair["probability"] == pytest.approx(0.05)
    assert "P(BC > IQL) = 0.05 [" in found.text


def test_the_same_folders_give_the_same_report(root: Path, tmp_path: Path) -> None:
    one, two = report.report([root], tmp_path / "a"), report.report([root], tmp_path / "b")
    assert one.text == two.text
    for name in ("runs", "table", "pooled", "improvement", "markdown"):
        assert one.paths[name].read_bytes() == two.paths[name].read_bytes()
    assert not one.pooled.equals(report.report([root], tmp_path / "c", seed=1).pooled)


def test_text_is_aligned_and_narrow(root: Path, tmp_path: Path) -> None:
    make(
        root,
        "A very long name of an algorithm with its five ablations and hyperparameters",
        "hopper",
        [1e9, -2e9],
    )
    found = report.report(root, tmp_path / "out")
    lines = found.text.splitlines()
    assert max(map(len, lines)) <= report.WIDTH
    heads = [line for line in lines if line.startswith("  algorithm  ")]
    rows = [line for line in lines if line.startswith("  BC ")]
    assert len(heads) == 2
    assert len(rows) == 2, "walker lacks an algorithm: nothing is pooled"
    assert heads[0].index("mean") + 4 == rows[0].index("13.0") + 4
    assert len({len(line) for line in [*heads, *rows]}) == 1
    markdown = found.paths["markdown"].read_text()
    assert "| hopper | BC | 5 | 13.0 | [" in markdown
    assert "![curves](curves.png)" in markdown


def test_diverged_runs_are_counted_and_left_out(tmp_path: Path) -> None:
    make(tmp_path / "r", "BC", "hopper", [10.0, np.nan, 12.0, 1e6, 14.0], diverged={"3": 50})
    found = report.report(tmp_path / "r", tmp_path / "out")
    cell = row(found, "hopper", "BC")
    assert (cell["runs"], cell["used"], cell["diverged"], cell["mean"], cell["max"]) == (5, 3, 2, 12, 14)
    assert "3 of 5" in found.text
    (note,) = found.notes
    assert "2 of 5 diverged (run 1 at step 0, run 3 at step 50); statistics over the 3 others" in note
    assert "2 of 5 diverged" in " ".join(found.text.split())
    runs = pd.read_csv(found.paths["runs"])
    assert runs["used"].tolist() == [True, False, True, False, True]
    assert note in found.paths["markdown"].read_text()


def test_all_runs_diverged(tmp_path: Path) -> None:
    make(tmp_path / "r", "BC", "hopper", [np.nan, np.nan])
    make(tmp_path / "r", "IQL", "hopper", [1.0, 2.0])
    found = report.report(tmp_path / "r", tmp_path / "out")
    assert np.isnan(row(found, "hopper", "BC")["mean"])
    assert "2 of 2 diverged" in found.text
    assert "no statistics" in found.text
    assert found.improvement.empty
    assert "profile" not in found.paths


def test_one_run_has_no_interval(tmp_path: Path) -> None:
    make(tmp_path / "r", "BC", "hopper", [10.0])
    found = report.report(tmp_path / "r", tmp_path / "out")
    cell = row(found, "hopper", "BC")
    assert cell["mean"] == cell["iqm"] == 10
    assert cell[["mean_low", "mean_high", "iqm_low", "iqm_high", "std"]].isna().all()
    assert "1 run used, an interval needs at least 2 runs" in found.text


def test_checkpoints_are_told_apart(tmp_path: Path) -> None:
    recorder = results.Table("exp", "BC", "hopper")
    for step in range(12):
        recorder.record_runs(step, {"eval/return": [100.0 if step == 0 else step, 100.0 + step]}, [0, 1])
    results.write_table(recorder.frame(), tmp_path / "r" / "metrics.parquet")
    means = {}
    checkpoints: tuple[report.Checkpoint, ...] = ("final", "last10", "best")
    for checkpoint in checkpoints:
        found = report.report(tmp_path / "r", tmp_path / checkpoint, checkpoint=checkpoint)
        means[checkpoint] = row(found, "hopper", "BC")["mean"]
        assert report.DESCRIBED[checkpoint] in " ".join(found.text.split())
    assert means == {"final": (11 + 111) / 2, "last10": (6.5 + 106.5) / 2, "best": (100 + 111) / 2}
    with pytest.raises(ValueError, match="checkpoint: expected one of final, last10, best, got 'last'"):
        report.report(tmp_path / "r", tmp_path / "out", checkpoint="last")  # type: ignore[arg-type]


def test_score_is_taken_only_if_all_have_it(tmp_path: Path) -> None:
    make(tmp_path / "r", "BC", "hopper", [1.0, 2.0])
    found = report.report(tmp_path / "r", tmp_path / "a")
    assert found.text.startswith("eval/score:")
    assert row(found, "hopper", "BC")["mean"] == 1.5
    make(tmp_path / "r", "BC", "pendulum", [5.0, 6.0], score=False)
    found = report.report(tmp_path / "r", tmp_path / "b")
    assert found.text.startswith("eval/return:")
    assert row(found, "hopper", "BC")["mean"] == 15
    assert "pendulum has runs without eval/score" in found.text
    assert found.pooled.empty
    assert "different units" in found.text
    assert "profile" not in found.paths
    assert list(report.report(tmp_path / "r", tmp_path / "c", metric="eval/score").table["problem"]) == ["hopper"]


def test_different_steps_are_warned_of(tmp_path: Path) -> None:
    make(tmp_path / "r", "BC", "hopper", [1.0, 2.0])
    make(tmp_path / "r", "IQL", "hopper", [1.0, 2.0], steps=(0, 50), status="running")
    found = report.report(tmp_path / "r", tmp_path / "a")
    assert found.notes == [
        "IQL on hopper: 2 of 2 runs not complete (running), last evaluated at step 50 of 100; "
        "they are in the statistics.",
        "WARNING, hopper: algorithms are compared at different steps: BC 100, IQL 50.",
    ]
    assert "hopper (steps: 100, 50)" in found.text
    folder = tmp_path / "r" / "exp" / "BC-hopper" / "metrics.parquet"
    df = results.read_table(folder)
    results.write_table(df[(df["run"] == 0) | (df["step"] < 100)], folder)
    found = report.report(tmp_path / "r", tmp_path / "b")
    assert any("WARNING, BC on hopper: runs were last evaluated at different steps, 50..100" in n for n in found.notes)


def test_experiments_are_not_mixed(tmp_path: Path) -> None:
    make(tmp_path / "r", "BC", "hopper", [1.0, 2.0], experiment="old")
    make(tmp_path / "r", "BC", "hopper", [3.0, 4.0], experiment="new")
    found = report.report(tmp_path / "r", tmp_path / "out")
    assert found.table[["algorithm", "mean"]].to_numpy().tolist() == [["new/BC", 3.5], ["old/BC", 1.5]]


def test_errors(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="folders: expected at least one run folder, got none"):
        report.report([], tmp_path / "out")
    with pytest.raises(FileNotFoundError, match="which is not there"):
        report.report([tmp_path / "none"], tmp_path / "out")
    recorder = results.Table("exp", "BC", "hopper")
    recorder.record(0, 0, "train/loss", 1.0)
    results.write_table(recorder.frame(), tmp_path / "r" / "metrics.parquet")
    with pytest.raises(ValueError, match="expected eval/score or eval/return to be recorded, got train/loss"):
        report.report(tmp_path / "r", tmp_path / "out")
    with pytest.raises(ValueError, match="expected a recorded one, got 'regret'; recorded are train/loss"):
        report.report(tmp_path / "r", tmp_path / "out", metric="regret")
    results.write_table(recorder.frame()[:0], tmp_path / "r" / "metrics.parquet")
    with pytest.raises(ValueError, match="got no rows at all; wait for the first evaluation"):
        report.report(tmp_path / "r", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_environment_and_simulator_stand_beside_the_numbers(tmp_path: Path) -> None:
    make(tmp_path / "r", "BC", "hopper", [10.0, 11.0], scored_by=("Hopper-v4", "mujoco 3.10.0"))
    found = report.report(tmp_path / "r", tmp_path / "out")
    assert row(found, "hopper", "BC")["scored_by"] == "Hopper-v4, mujoco 3.10.0"
    assert "hopper (steps: 100; Hopper-v4, mujoco 3.10.0)" in found.text
    assert "| Hopper-v4, mujoco 3.10.0 |" in found.paths["markdown"].read_text()
    assert pd.read_csv(found.paths["runs"])["simulator"].tolist() == ["mujoco 3.10.0"] * 2
    assert "different environments" not in found.text
    make(tmp_path / "r", "IQL", "hopper", [10.0, 11.0], scored_by=("Hopper-v5", "mujoco 3.10.0"))
    notes = report.report(tmp_path / "r", tmp_path / "out").notes
    assert (
        "WARNING, hopper: scored in different environments or simulators: BC Hopper-v4, mujoco 3.10.0; "
        "IQL Hopper-v5, mujoco 3.10.0."
    ) in notes


def test_what_cannot_be_scored_is_said(tmp_path: Path) -> None:
    unscored = make(tmp_path / "r", "BC", "carla", [0.0], env=None, env_note="its environment is a car")
    df = results.read_table(unscored / "metrics.parquet")
    results.write_table(df[df["metric"] == "train/loss"], unscored / "metrics.parquet")
    with pytest.raises(
        ValueError, match=r"carla trains but cannot be scored: its environment is a car\. Name another metric"
    ):
        report.report(tmp_path / "r", tmp_path / "out")
    assert row(report.report(tmp_path / "r", tmp_path / "out", "train/loss"), "carla", "BC")["mean"] == 0.0
    make(tmp_path / "r", "BC", "hopper", [10.0])
    found = report.report(tmp_path / "r", tmp_path / "out")
    assert "carla trains but cannot be scored: its environment is a car." in found.notes
    assert found.table["problem"].tolist() == ["hopper"]
