"""Figures: what is drawn, not only that a file appears."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from experiments import plots, results, statistics


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The figures that are saved while a test runs."""
    figures: list[Any] = []
    save = plots._save

    def keep(figure: Any, path: Path) -> Path:
        figures.append(figure)
        return save(figure, path)

    monkeypatch.setattr(plots, "_save", keep)
    return figures


def table(algorithms: dict[str, np.ndarray], problem: str = "hopper") -> pd.DataFrame:
    """{algorithm: values (steps, runs)}, at steps 0, 100, ..."""
    frames = []
    for name, values in algorithms.items():
        recorder = results.Table("exp", name, problem)
        for i, row in enumerate(values):
            recorder.record_runs(100 * i, {"eval/return": row}, np.arange(len(row)))
        frames.append(recorder.frame())
    return pd.concat(frames, ignore_index=True)


def is_png(path: Path) -> bool:
    return path.read_bytes().startswith(b"\x89PNG\r\n\x1a\n") and path.stat().st_size > 5000


def labels(ax: Any) -> list[str]:
    return [text.get_text() for text in ax.get_legend().get_texts()]


def band(ax: Any, index: int = 0) -> np.ndarray:
    return np.concatenate([path.vertices for path in ax.collections[index].get_paths()])


def test_curves_show_mean_and_t_interval(tmp_path: Path, drawn: list[Any]) -> None:
    values = np.random.default_rng(0).normal(50, 5, (4, 5))
    df = pd.concat([table({"BC": values, "IQL": values + 10}), table({"BC": values}, "walker")])
    path = plots.learning_curves(df, "eval/return", tmp_path / "new" / "curves.png", reference={"hopper": 42.0})
    assert is_png(path)
    assert [file.name for file in path.parent.iterdir()] == ["curves.png"]
    hopper, walker = drawn[0].axes
    assert (hopper.get_title(), walker.get_title()) == ("hopper", "walker")
    assert hopper.get_xlabel() == "training steps"
    assert hopper.get_ylabel() == "undiscounted return"
    assert labels(hopper) == ["BC (n = 5)", "IQL (n = 5)", "mean of the data"]
    assert labels(walker) == ["BC (n = 5)"]
    np.testing.assert_allclose(hopper.lines[0].get_xydata(), np.c_[np.arange(4) * 100, values.mean(axis=1)])
    interval = statistics.mean_interval(values[2])
    at = band(hopper)[np.isclose(band(hopper)[:, 0], 200), 1]
    assert interval.low is not None
    assert interval.high is not None
    assert (at.min(), at.max()) == pytest.approx((float(interval.low), float(interval.high)))
    dashed = [line for line in hopper.lines if line.get_linestyle() == "--"]
    assert [list(line.get_ydata()) for line in dashed] == [[42.0, 42.0]]
    assert hopper.lines[0].get_color() == walker.lines[0].get_color() != hopper.lines[1].get_color()


def test_one_run_has_a_line_and_no_band(tmp_path: Path, drawn: list[Any]) -> None:
    plots.learning_curves(table({"BC": np.arange(3.0)[:, None]}), "eval/return", tmp_path / "a.png")
    (ax,) = drawn[0].axes
    assert labels(ax) == ["BC (n = 1, no interval)"]
    assert np.isfinite(ax.lines[0].get_ydata()).all()
    assert not ax.collections[0].get_paths()


def test_diverged_runs_leave_from_their_step_on(tmp_path: Path, drawn: list[Any]) -> None:
    values = np.array([[1.0, 2, 3], [1, 2, 3], [1, 2, 1000], [np.nan, 2, 1000]])
    df = table({"BC": values})
    status = pd.DataFrame([["exp", "BC", "hopper", 2, 200]], columns=[*results.IDENTITY, "diverged_step"]).astype(
        {"diverged_step": "Int64"}
    )
    plots.learning_curves(df, "eval/return", tmp_path / "a.png", status=status)
    (ax,) = drawn[0].axes
    np.testing.assert_allclose(ax.lines[0].get_ydata(), [2, 2, 1.5, 2])
    assert labels(ax) == ["BC (n = 3, 2 diverged)"]
    crosses = sorted(float(line.get_xdata()[0]) for line in ax.lines if line.get_marker() == "X")
    assert crosses == [100, 200]


def test_all_diverged_and_stopped_early_are_said(tmp_path: Path, drawn: list[Any]) -> None:
    df = table({"BC": np.full((2, 2), np.nan), "IQL": np.ones((3, 2))})
    df = df[~((df["algorithm"] == "IQL") & (df["run"] == 1) & (df["step"] == 200))]
    plots.learning_curves(df, "eval/return", tmp_path / "a.png")
    assert labels(drawn[0].axes[0]) == ["BC (n = 2, 2 diverged, no curve)", "IQL (n = 1 to 2)"]


def test_curves_refuse(tmp_path: Path) -> None:
    df = table({"BC": np.ones((2, 2))})
    with pytest.raises(ValueError, match="metric: expected a recorded one, got 'eval/score'"):
        plots.learning_curves(df, "eval/score", tmp_path / "a.png")
    with pytest.raises(ValueError, match="got several for BC on hopper"):
        plots.learning_curves(pd.concat([df, df.assign(experiment="b")]), "eval/return", tmp_path / "a.png")
    assert list(tmp_path.iterdir()) == []


def test_profile(tmp_path: Path, drawn: list[Any]) -> None:
    rng = np.random.default_rng(0)
    scores = {"BC": [np.array([10.0, 20.0, 30.0])], "IQL": [np.array([25.0])]}
    assert is_png(plots.performance_profile(scores, tmp_path / "p.png", rng))
    (ax,) = drawn[0].axes
    assert labels(ax) == ["BC (3 runs)", "IQL (1 runs, no interval)"]
    x, y = ax.lines[0].get_data()
    assert y[0] == 1
    assert y[-1] == 0
    assert y[np.searchsorted(x, 15)] == pytest.approx(2 / 3)
    assert len(ax.collections) == 1
    with pytest.raises(ValueError, match="scores: expected at least one algorithm"):
        plots.performance_profile({}, tmp_path / "p.png", rng)


def test_styles_differ_and_import_is_light() -> None:
    found = plots.styles([f"a{i}" for i in range(28)])
    assert len({(style["color"], str(style["linestyle"])) for style in found.values()}) == 28
    code = (
        "import sys, experiments.report;"
        "heavy = {'torch', 'pandas', 'matplotlib', 'scipy', 'pyarrow'} & set(sys.modules);"
        "assert not heavy, heavy"
    )
    root = Path(plots.__file__).parents[1]
    subprocess.run([sys.executable, "-c", code], check=True, cwd=root)
