"""The long table on disk and in summary."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from experiments import results


def table(runs: int = 3, steps: tuple[int, ...] = (0, 100, 200), algorithm: str = "BC", first: int = 0) -> pd.DataFrame:
    recorder = results.Table("exp", algorithm, "hopper")
    for step in steps:
        ids = np.arange(first, first + runs)
        recorder.record_runs(step, {"eval/return": step + ids / 10, "train/loss": np.full(runs, 1 / (step + 1))}, ids)
    return recorder.frame()


def folder(path: Path, df: pd.DataFrame, **config: Any) -> Path:
    results.write_table(df, path / "metrics.parquet")
    if config:
        (path / "config.json").write_text(json.dumps(config))
    return path


def test_recorder_rows_and_types() -> None:
    recorder = results.Table("exp", "BC", "hopper")
    assert len(recorder) == 0
    assert dict(recorder.frame().dtypes.astype(str)) == results.COLUMNS
    buffer = np.array([1.0, np.nan])
    recorder.record_runs(5, {"eval/return": buffer}, [4, 7])
    buffer[:] = -1
    recorder.record(4, 10, "eval/score", float("inf"))
    df = recorder.frame()
    assert dict(df.dtypes.astype(str)) == results.COLUMNS
    assert df[["run", "step", "metric"]].values.tolist() == [
        [4, 5, "eval/return"],
        [7, 5, "eval/return"],
        [4, 10, "eval/score"],
    ]
    np.testing.assert_array_equal(df["value"], [1.0, np.nan, np.inf])
    assert set(df["algorithm"]) == {"BC"}
    assert set(df["experiment"]) == {"exp"}
    assert set(df["problem"]) == {"hopper"}
    recorder.record(4, 15, "eval/score", 1.0)
    assert len(recorder) == 4 == len(recorder.frame()) == len(recorder.frame())
    resumed = results.Table("exp", "BC", "hopper", rows=results.drop_after(recorder.frame(), 5))
    resumed.record(4, 6, "eval/return", 2.0)
    assert resumed.frame()["step"].tolist() == [5, 5, 6]


def test_recorder_refuses() -> None:
    recorder = results.Table("exp", "BC", "hopper")
    with pytest.raises(ValueError, match=r"values\['b'\]: expected one value per run, shape \(2,\), got \(3,\)"):
        recorder.record_runs(0, {"a": [1, 2], "b": [1, 2, 3]}, [0, 1])
    assert len(recorder) == 0, "a refused call leaves nothing behind"
    with pytest.raises(ValueError, match="run_ids: expected a vector of integers"):
        recorder.record_runs(0, {"a": [1.0]}, [0.5])
    with pytest.raises(ValueError, match="step: expected an integer of at least 0, got -1"):
        recorder.record(0, -1, "a", 0.0)
    with pytest.raises(ValueError, match="algorithm: expected a non-empty name"):
        results.Table("exp", "", "hopper")


def test_round_trip_keeps_every_bit(tmp_path: Path) -> None:
    df = table()
    df.loc[0, "value"] = np.nan
    df.loc[1, "value"] = -np.inf
    df.loc[2, "value"] = 0.1 + 0.2
    back = results.read_table(results.write_table(df, tmp_path / "new" / "metrics.parquet"))
    pd.testing.assert_frame_equal(back, df, check_exact=True)
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["metrics.parquet"]


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = results.write_table(table(), tmp_path / "metrics.parquet")
    before = path.read_bytes()

    def fail(_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        results.write_table(table(runs=5), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_data_are_synced_before_the_rename(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    sync, replace = os.fsync, os.replace

    def syncing(descriptor: int) -> None:
        calls.append("fsync")
        sync(descriptor)

    def replacing(source: Path, target: Path) -> None:
        calls.append("replace")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", syncing)
    monkeypatch.setattr(os, "replace", replacing)
    results.write_text(tmp_path / "a.txt", "text")
    assert calls == ["fsync", "replace", "fsync"]


def test_truncated_and_foreign_files_are_named(tmp_path: Path) -> None:
    path = results.write_table(table(), tmp_path / "metrics.parquet")
    whole = path.read_bytes()
    for keep in (0, 3, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:keep])
        with pytest.raises(ValueError, match=f"parquet: expected a whole parquet file, got {keep} bytes"):
            results.read_table(path)
    pd.DataFrame({"a": [1]}).to_parquet(path)
    with pytest.raises(ValueError, match=r"metrics\.parquet: expected the columns experiment.*missing of a"):
        results.read_table(path)
    table().assign(step="many").to_parquet(path)
    with pytest.raises(ValueError, match=r"metrics\.parquet: expected columns of types"):
        results.read_table(path)
    with pytest.raises(FileNotFoundError, match="found no file"):
        results.read_table(tmp_path / "none.parquet")


def test_drop_off_grid() -> None:
    recorder = results.Table("exp", "BC", "hopper")
    for step in (10, 15, 20, 25, 30, 35):
        recorder.record_runs(step, {"train/loss": [1.0], "time/rate": [1.0], "eval/score": [1.0]}, [0])

    def left(steps: int) -> dict[int, list[str]]:
        kept = results.drop_off_grid(recorder.frame(), steps, eval_every=20, log_every=10)
        return {int(step): sorted(rows["metric"]) for step, rows in kept.groupby("step")}  # type: ignore[call-overload]

    every, logged = ["eval/score", "time/rate", "train/loss"], ["time/rate", "train/loss"]
    assert left(40) == {10: logged, 20: every, 30: logged}
    assert left(35) == {10: logged, 20: every, 30: logged, 35: every}


def test_drop_after() -> None:
    assert results.drop_after(table(), 100)["step"].unique().tolist() == [0, 100]


def test_read_folders_searches_and_joins(tmp_path: Path) -> None:
    folder(tmp_path / "a" / "deep", table(), status="complete", steps=200, diverged={"1": 150, "9": 20})
    folder(tmp_path / "b", table(algorithm="IQL"), data={"eval/return": 3.5})
    # The same folder reached twice is read once.
    found = results.read_results([tmp_path, tmp_path / "a"])
    pd.testing.assert_frame_equal(results.read_folders(tmp_path), found.table)
    assert len(found.table) == 2 * len(table())
    status: Any = found.status.set_index(["algorithm", "run"])
    assert status.loc[("BC", 1), "diverged_step"] == 150
    assert status.loc[("BC", 1), "status"] == "complete"
    assert pd.isna(status.loc[("BC", 0), "diverged_step"])
    assert status.loc[("BC", 9), "diverged_step"] == 20, "a run without rows is a run all the same"
    assert status.loc[("IQL", 0), "status"] == "unknown"
    assert pd.isna(status.loc[("IQL", 0), "steps"])
    assert found.data == {("hopper", "eval/return"): 3.5}


def test_duplicates_name_both_folders(tmp_path: Path) -> None:
    folder(tmp_path / "a", table())
    folder(tmp_path / "b", table(first=3))
    assert len(results.read_folders(tmp_path)) == 2 * len(table())
    folder(tmp_path / "b", table(first=2))
    with pytest.raises(ValueError, match=r"hopper / 2 / 0 / eval/return: expected one value, got 2, in .*/a and .*/b;"):
        results.read_folders(tmp_path)


def test_folder_errors(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="folders: expected at least one run folder"):
        results.read_folders([])
    with pytest.raises(FileNotFoundError, match="absent, which is not there"):
        results.read_folders(tmp_path / "absent")
    with pytest.raises(ValueError, match="found none; no run has started"):
        results.read_folders(tmp_path)
    folder(tmp_path / "a", table())
    for text, message in (
        ("{", "expected JSON"),
        ("[]", "expected a JSON object"),
        ('{"diverged": [1]}', "diverged: exp"),
    ):
        (tmp_path / "a" / "config.json").write_text(text)
        with pytest.raises(ValueError, match=message):
            results.read_folders(tmp_path)


def test_summaries_are_kept_apart() -> None:
    recorder = results.Table("exp", "BC", "hopper")
    values = [5.0, 40.0, 3.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0]
    # Recorded out of order: the step counts, not the row.
    for step in reversed(range(12)):
        recorder.record(0, step, "eval/return", values[step])
        recorder.record(0, step, "train/loss", 1e9)
    recorder.record(1, 3, "eval/return", 7.0)
    first, second = results.summarise(recorder.frame(), "eval/return").to_dict("records")
    assert (first["final"], first["final_step"], first["last10"], first["best"]) == (9.0, 11, 4.8, 40.0)
    assert (first["last10_count"], first["evaluations"], first["diverged"]) == (10, 12, False)
    assert (second["final"], second["last10"], second["last10_count"], second["best"]) == (7.0, 7.0, 1, 7.0)
    with pytest.raises(ValueError, match="got 'eval/score'; recorded are eval/return, train/loss"):
        results.summarise(recorder.frame(), "eval/score")
    with pytest.raises(ValueError, match="no evaluation yet"):
        results.summarise(recorder.frame()[:0], "eval/score")


def test_summary_of_diverged_runs() -> None:
    recorder = results.Table("exp", "BC", "hopper")
    for run, values in enumerate(([1.0, 2.0, 3.0], [1.0, np.nan, np.nan], [9.0, 4.0, np.inf], [np.nan] * 3)):
        for step, value in enumerate(values):
            recorder.record(run, step, "eval/return", value)
    status = pd.DataFrame(
        [["exp", "BC", "hopper", 0, 2], ["exp", "BC", "hopper", 2, 1], ["exp", "BC", "hopper", 8, 0]],
        columns=[*results.IDENTITY, "diverged_step"],
    ).astype({"diverged_step": "Int64"})
    plain = results.summarise(recorder.frame(), "eval/return")
    assert plain["diverged"].tolist() == [False, True, True, True]
    assert plain["diverged_step"].tolist()[1:] == [1, 2, 0]
    assert np.isnan(plain["final"][1])
    assert np.isnan(plain["last10"][1])
    assert plain["best"].tolist()[:3] == [3.0, 1.0, 9.0]
    assert np.isnan(plain["best"][3])
    told = results.summarise(recorder.frame(), "eval/return", status)
    assert told["run"].tolist() == [0, 1, 2, 3, 8]
    assert told["diverged"].all()
    assert told["diverged_step"].tolist() == [2, 1, 1, 0, 0]
    assert told["evaluations"].tolist() == [3, 3, 3, 3, 0]


def test_rows_say_what_scored_them(tmp_path: Path) -> None:
    """Rows that a resumed run keeps were scored in the simulator of their time."""
    recorder = results.Table("exp", "BC", "hopper", env="Hopper-v4", simulator="mujoco 3.9.0")
    recorder.record(0, 10, "eval/return", 1.0)
    path = results.write_table(recorder.frame(), tmp_path / "metrics.parquet")
    resumed = results.Table("exp", "BC", "hopper", results.read_table(path), "Hopper-v4", "mujoco 3.10.0")
    resumed.record(0, 20, "eval/return", 2.0)
    resumed.record(1, 20, "eval/return", 2.0)
    frame = resumed.frame()
    assert frame["env"].tolist() == ["Hopper-v4"] * 3
    assert frame["simulator"].tolist() == ["mujoco 3.9.0", "mujoco 3.10.0", "mujoco 3.10.0"]
    runs = results.summarise(frame, "eval/return")
    assert runs["env"].tolist() == ["Hopper-v4"] * 2
    assert runs["simulator"].tolist() == ["mujoco 3.9.0 + mujoco 3.10.0", "mujoco 3.10.0"]


def test_table_of_an_older_version_lacks_what_scored_it(tmp_path: Path) -> None:
    df = table().drop(columns=list(results.OPTIONAL))
    df.to_parquet(tmp_path / "metrics.parquet")
    read = results.read_table(tmp_path / "metrics.parquet")
    assert list(read.columns) == list(results.COLUMNS)
    assert set(read["env"]) == set(read["simulator"]) == {""}
    assert results.summarise(read, "eval/return")["simulator"].tolist() == [""] * 3


def test_status_says_why_nothing_scores_a_run(tmp_path: Path) -> None:
    folder(tmp_path / "a", table(algorithm="A"), env=None, env_note="its environment is a car")
    folder(tmp_path / "b", table(algorithm="B"), env=None)
    folder(tmp_path / "c", table(algorithm="C"), env="Hopper-v4", env_note="Hopper-v4 of Gymnasium")
    folder(tmp_path / "d", table(algorithm="D"))
    status = results.read_results(tmp_path).status
    assert status.groupby("algorithm")["unscored"].first().tolist() == [
        "its environment is a car",
        "no environment is known",
        "",
        "",
    ]


def test_cut_at_a_step_is_as_if_training_had_ended_there(tmp_path: Path) -> None:
    recorder = results.Table("exp", "A", "p")
    for run, last in ((0, 30), (1, 10)):
        for step in range(10, last + 1, 10):
            recorder.record(run, step, "eval/return", step + run)
    folder(tmp_path / "a", recorder.frame(), status="running", steps=50, diverged={"0": 30, "1": 5})
    found = results.cut(results.read_results(tmp_path), 20)
    assert found.table["step"].tolist() == [10, 20, 10]
    assert found.status["status"].tolist() == ["complete", "running"]  # run 1 has not come to step 20
    assert found.status["steps"].tolist() == [20, 20]
    assert found.status["diverged_step"].isna().tolist() == [True, False]
    assert results.summarise(found.table, "eval/return", found.status)["final"].tolist() == [20, 11]
    for until in (9, 0):
        with pytest.raises(ValueError, match=f"until: .* got {until}, before the first row at step 10"):
            results.cut(results.read_results(tmp_path), until)
