"""Reports on regret: slopes of known curves, bounds beside, figures, and the command line from end to end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from experiments import plots, regret_plots, regret_report, results, statistics
from experiments.cli import main
from experiments.slopes import slopes

ROOT = Path(__file__).parents[2]
ROUNDS = np.unique(np.round(np.logspace(0, 4, 41)))


def make(root, learner, values, problem="sea-iid", status="complete", metric="regret/static", **more):
    """A run folder whose runs have `values` (rounds, runs) of the metric; `more`: bounds likewise."""
    runs = np.arange(values.shape[1])
    recorder = results.Table("exp", learner, problem)
    for i, step in enumerate(ROUNDS):
        rate = np.full(len(runs), 1e6 if step > 100 else 1.0)
        own = {name.replace("_", "/"): of[i] for name, of in more.items()}
        recorder.record_runs(int(step), {metric: values[i], "time/rounds_per_second": rate, **own}, runs)
    folder = root / problem / learner
    results.write_table(recorder.frame(), folder / "metrics.parquet")
    dead = {str(run): 10 for run in runs if np.isnan(values[:, run]).any()}
    (folder / "config.json").write_text(json.dumps({"status": status, "steps": 10_000, "diverged": dead}))
    return folder


@pytest.fixture
def undrawn(monkeypatch):
    monkeypatch.setattr(
        regret_plots, "save", lambda figure, stem, *forms: [results.write_text(stem.with_name(f"{stem.name}.png"), "-")]
    )


@pytest.fixture
def drawn(monkeypatch):
    figures = []
    monkeypatch.setattr(
        regret_plots,
        "save",
        lambda figure, stem, *forms: figures.append(figure) or [stem.with_name(f"{stem.name}.png")],
    )
    return figures


def test_slopes_of_known_curves():
    scale = np.array([1.0, 2.0, 5.0])
    found = slopes(ROUNDS, 3 * ROUNDS[:, None] ** 0.5 * scale)
    assert (found.of, found.first) == ("runs", 1000)
    np.testing.assert_allclose(found.per_run[0], 0.5)
    assert float(found.power.value) == pytest.approx(0.5)
    found = slopes(ROUNDS, 7 + 2 * np.log(ROUNDS)[:, None] * scale)
    np.testing.assert_allclose(found.per_run[1], 2 * scale)
    assert (float(found.efold.low), float(found.efold.high)) == pytest.approx(
        tuple(float(end) for end in (statistics.mean_interval(2 * scale).low, statistics.mean_interval(2 * scale).high))
    )
    assert slopes(ROUNDS[:2], np.ones((2, 3))) is None


def test_slope_where_a_run_is_not_positive():
    """The mean's: its jackknife covers, and agrees with the mean curve's own slope."""
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 40, 50)
    values = ROUNDS[:, None] ** 0.5 + noise * ROUNDS[:, None] ** 0.5 / 100
    values[:, 0] = -1.0
    found = slopes(ROUNDS, values)
    assert found.of == "mean"
    assert found.per_run[0] is None
    late = ROUNDS >= 1000
    direct = np.polyfit(np.log(ROUNDS[late]), np.log(values[late].mean(1)), 1)[0]
    assert float(found.power.value) == pytest.approx(direct, abs=1e-3)
    assert found.power.low < direct < found.power.high
    assert slopes(ROUNDS, -np.ones((len(ROUNDS), 3))).power is None


def test_few_points_take_two_decades():
    rounds = np.array([1.0, 20, 1000, 10_000])
    assert slopes(rounds, rounds[:, None] ** 0.5) is None
    rounds = np.array([1.0, 100, 2000, 10_000])
    assert slopes(rounds, rounds[:, None] ** 0.5).first == 100


def test_numbers_and_files(tmp_path):
    scale = np.array([1.0, 1.5, 3.0])
    values = ROUNDS[:, None] ** 0.5 * scale
    make(tmp_path, "ogd", values, bound_path=10 * values)
    lost = np.c_[values, np.full(len(ROUNDS), np.nan)]
    make(tmp_path, "hedge", lost, status="stopped")
    found = regret_report.report([tmp_path], tmp_path / "out")
    row = found.table.set_index("algorithm").loc["ogd"]
    final = statistics.mean_interval(100 * scale)
    ends = [float(end) for end in (final.value, final.low, final.high)]
    assert [row["final"], row["final_low"], row["final_high"]] == pytest.approx(ends)
    assert (row["slope"], row["rounds_per_second"], row["round"]) == (pytest.approx(0.5), 1e6, 10_000)
    other = found.table.set_index("algorithm").loc["hedge"]
    assert (other["runs"], other["used"], other["final"]) == (4, 3, pytest.approx(float(final.value)))
    assert any("1 of 4 runs diverged" in note for note in found.notes)
    assert any("not complete (stopped)" in note for note in found.notes)
    assert {"regret", "curves", "runs", "markdown", "sea-iid-static png", "sea-iid-static pdf"} == set(found.paths)
    assert found.paths["sea-iid-static png"].read_bytes().startswith(b"\x89PNG")
    assert found.paths["sea-iid-static pdf"].read_bytes().startswith(b"%PDF")
    assert max(map(len, found.text.splitlines())) <= 130
    assert len(pd.read_csv(found.paths["runs"])) == 6
    again = regret_report.report([tmp_path], tmp_path / "again")
    assert all(again.paths[name].read_bytes() == path.read_bytes() for name, path in found.paths.items())


def test_bounds_and_bands_are_drawn(tmp_path, drawn):
    values = ROUNDS[:, None] ** 0.5 * np.array([1.0, 1.5])
    make(tmp_path, "ogd", values, bound_path=10 * values, bound_expected=20 * values)
    regret_report.report([tmp_path], tmp_path / "out")
    (ax,) = drawn[0].axes
    assert (ax.get_xscale(), ax.get_yscale(), ax.get_title()) == ("log", "log", "sea-iid: static regret")
    mean, path, theorem = ax.lines
    np.testing.assert_allclose(mean.get_ydata(), values.mean(1))
    np.testing.assert_allclose(path.get_ydata(), 10 * values.mean(1))
    np.testing.assert_allclose(theorem.get_ydata(), 20 * values.mean(1))
    assert (path.get_linestyle(), theorem.get_linestyle()) == ("--", ":")
    assert len(ax.collections) == 1
    texts = [text.get_text() for text in ax.get_legend().get_texts()]
    assert texts == ["ogd (n = 2)", "path-wise bound, mean", "bound on the expectation"]
    assert plots.styles(["ogd"])["ogd"]["color"] == mean.get_color() == path.get_color()


@pytest.mark.usefixtures("undrawn")
def test_which_regret_is_shown_first(tmp_path):
    values = ROUNDS[:, None] ** 0.5 * np.array([1.0, 1.5])
    make(tmp_path, "ogd", values, problem="sea-drift,dimension=2", regret_dynamic=2 * values)
    make(tmp_path, "ogd", values, problem="other", metric="regret/sampled", regret_dynamic=2 * values)
    text = regret_report.report([tmp_path], tmp_path / "out").text
    assert "sea-drift,dimension=2, regret/dynamic after 10000 rounds" in text
    assert "other, regret/sampled after" in text
    text = regret_report.report([tmp_path], tmp_path / "out", metric="regret/static", until=1000).text
    assert "sea-drift,dimension=2, regret/static after 1000 rounds" in text
    assert "other" not in text
    with pytest.raises(ValueError, match="metric: expected a recorded regret, got eval/score"):
        regret_report.report([tmp_path], tmp_path / "out", metric="eval/score")


def test_two_kinds_of_folders_are_refused(tmp_path, capsys):
    make(tmp_path, "ogd", ROUNDS[:, None])
    make(tmp_path, "bc", ROUNDS[:, None], problem="hopper", metric="eval/return")
    assert main(["report", str(tmp_path)]) == 2
    assert "expected runs of one kind" in capsys.readouterr().err


@pytest.mark.usefixtures("undrawn")
def test_command_line_from_end_to_end(tmp_path, capsys):
    out = tmp_path / "runs"
    words = ["regret", "--problem", "sea-dial", "--problem-set", "dial=0.5", "--learners", "ogd", "optimistic-omd",
             "--runs", "4", "--horizon", "100", "--out", str(out)]  # fmt: skip
    assert main(words) == 0
    text = capsys.readouterr().out
    assert "sea-dial,dial=0.5, regret/static after 100 rounds" in text
    assert (out / "sea-dial,dial=0.5" / "report" / "sea-dial,dial=0.5-static.png").is_file()
    assert main([*words, "--resume"]) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert main(["report", str(out), "--metric", "regret/sampled", "--out", str(tmp_path / "other")]) == 0
    assert "regret/sampled after 100 rounds" in capsys.readouterr().out
    assert main(["report", str(out), "--checkpoint", "best"]) == 2
    assert main(words) == 2
    assert "--resume" in capsys.readouterr().err


def test_list_names_problems(capsys):
    assert main(["list", "--problems"]) == 0
    text = capsys.readouterr().out
    for word in ("sea-random-order", "stages: equally long ones (10)", "experts-constrained"):
        assert word in text


@pytest.mark.parametrize("words", [["regret", "--help"], ["list", "--problems"]])
def test_help_and_list_import_no_torch(words):
    code = (
        f"import sys; sys.argv = ['orbs', *{words!r}]\n"
        "from experiments.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "assert not {'torch', 'pandas', 'matplotlib'} & set(sys.modules), sorted(sys.modules)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.usefixtures("undrawn")
def test_interpolation_runs_and_resumes(tmp_path):
    from experiments.benchmarks.interpolation import interpolate

    paths = interpolate(tmp_path, 2, 2, 20)
    table = pd.read_csv(paths[0])
    assert table["dial"].tolist() == [0.0] * 3 + [1.0] * 3
    np.testing.assert_allclose(table["variance"], [5.0] * 3 + [0.0] * 3)
    np.testing.assert_allclose(table["variation"], [0.0] * 3 + [19.0] * 3)
    before = paths[0].read_bytes()
    assert interpolate(tmp_path, 2, 2, 20)[0].read_bytes() == before


def test_speed_has_a_problem_for_every_learner():
    from bandits.online_config import ONLINE
    from experiments.benchmarks.regret_speed import NATURAL, measure

    assert NATURAL.keys() == {kind.name for kind in ONLINE}
    for name in ("hedge", "ftrl-proximal"):
        line = measure(name, 20, "cpu", 0.0, rounds=3)
        assert min(line["loop/s"], line["learner/s"], line["noise/s"]) > 0
