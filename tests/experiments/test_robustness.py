"""Robustness from the long table: last values, intervals, runs that diverged, the figure and the lines of a report."""

import numpy as np
import pandas as pd
import pytest

from experiments import regret_report, results, robustness
from experiments.regret import regret
from experiments.regret_options import Regret


def frames():
    rows = []
    for name, slope in (("steady", 0.1), ("greedy", 1.0)):
        for run in range(4):
            for step in (10, 20):
                for shift in (0.0, 0.5, 1.0):
                    value = 2 - slope * shift + 0.1 * run + (100 if step == 10 else 0) + (1e6 if run == 3 else 0)
                    rows.append((name, "off-dynamics", run, step, f"value/target={shift:g}", value))
                rows.append((name, "off-dynamics", run, step, "value/worst", 1.0 * run))
                rows.append((name, "off-dynamics", run, step, "regret/policy", 5.0))
    table = pd.DataFrame(rows, columns=["algorithm", "problem", "run", "step", "metric", "value"])
    status = pd.DataFrame(
        [{"algorithm": n, "problem": "off-dynamics", "run": r, "diverged_step": 15 if r == 3 else None}
         for n in ("steady", "greedy") for r in range(4)]
    )  # fmt: skip
    return table, status


def test_values_are_those_of_the_last_round_over_the_runs_that_are_left():
    found = robustness.robustness(*frames())
    assert len(found) == 8
    one = found[(found["algorithm"] == "greedy") & (found["shift"] == 0.5)].iloc[0]
    assert one["mean"] == pytest.approx(1.6)
    assert one["runs"] == 3
    assert one["round"] == 20
    assert one["low"] == pytest.approx(1.6 - 4.302653 * 0.1 / 3**0.5, rel=1e-6)
    worst = found[(found["algorithm"] == "steady") & (found["metric"] == "value/worst")].iloc[0]
    assert worst["mean"] == 1.0
    assert np.isnan(worst["shift"])


def test_tables_and_figures_are_written(tmp_path):
    lines, paths = robustness.write(robustness.robustness(*frames()), tmp_path, {"off-dynamics": "q"})
    text = "\n".join(lines)
    assert "| learner | target 0 | target 0.5 | target 1 | worst |" in text
    assert "| greedy | 2.10 [1.85, 2.35] | 1.60 [1.35, 1.85] | 1.10 [0.852, 1.35] | 1.00 [-1.48, 3.48] |" in text
    assert "off-dynamics-robustness.png" in text
    assert (tmp_path / "off-dynamics-robustness.png").stat().st_size > 10_000
    assert (tmp_path / "off-dynamics-robustness.pdf").exists()
    assert len(pd.read_csv(paths["robustness"])) == 8


def test_targets_may_have_names_and_runs_may_stop_early(tmp_path):
    table, status = frames()
    table["metric"] = table["metric"].str.replace("target=0.5", "target=windy").str.replace("=1", "=0.12345678")
    cut = table[~((table["algorithm"] == "greedy") & (table["run"] == 1) & (table["step"] == 20))]
    found = robustness.robustness(cut, status)
    assert found.loc[found["metric"] == "value/target=windy", "shift"].isna().all()
    assert (found.loc[found["algorithm"] == "greedy", "round"] == 10).all()
    assert (found.loc[found["algorithm"] == "greedy", "runs"] == 3).all()
    assert (found.loc[found["algorithm"] == "steady", "round"] == 20).all()
    lines, _ = robustness.write(robustness.robustness(table, status), tmp_path, {})
    assert "| learner | target 0 | target 0.123457 | target=windy | worst |" in lines
    assert not any(" - |" in line for line in lines)


def test_the_figure_shows_each_learners_values(tmp_path, monkeypatch):
    kept = {}
    monkeypatch.setattr(robustness.regret_plots, "save", lambda figure, stem, *forms: kept.update(figure=figure) or [])
    table, status = frames()
    robustness.draw(
        robustness.robustness(table, status), tmp_path / "x", {"off-dynamics": "shift q"}, ["greedy", "steady"]
    )
    (ax,) = kept["figure"].axes
    assert ax.get_xlabel() == "shift q"
    for line, slope in zip(ax.lines, (1.0, 0.1), strict=True):
        np.testing.assert_allclose(line.get_ydata(), 2.1 - slope * np.array([0, 0.5, 1]))
    names = [text.get_text() for text in kept["figure"].legends[0].get_texts()]
    assert names == ["greedy", "steady"]
    assert ax.lines[0].get_linewidth() > ax.lines[1].get_linewidth(), "one line is seen around another"


def test_tables_without_values_have_no_section(tmp_path):
    table, status = frames()
    nothing = robustness.robustness(table[table["metric"] == "regret/policy"], status)
    assert robustness.write(nothing, tmp_path, {}) == ([], {})
    assert list(tmp_path.iterdir()) == []


def test_a_play_is_reported_with_its_robustness(tmp_path):
    """orbs regret on a robust MDP: regularised regret where there is a temperature, values at every record point."""
    given = dict(problem="off-dynamics", learners=("dr-rpo", "best-policy"), runs=3, horizon=12, out=tmp_path)
    folders = regret(Regret(**given))
    table = results.read_results(folders).table
    metrics = {name: set(here["metric"]) for name, here in table.groupby("algorithm")}
    assert "regret/regularised" in metrics["dr-rpo"]
    assert "regret/regularised" not in metrics["best-policy"]
    for name in ("dr-rpo", "best-policy"):
        assert {"regret/policy", "value/nominal", "value/worst", "value/target=0", "value/target=1"} <= metrics[name]
    oracle = table[(table["algorithm"] == "best-policy") & (table["metric"] == "regret/policy")]
    assert (oracle["value"].abs() < 1e-12).all()
    made = regret_report.report(folders, tmp_path / "report")
    text = made.paths["markdown"].read_text()
    assert "values of the last policies" in text
    assert "perturbation q" not in text
    assert made.paths["robustness"].exists()
    assert "regret/policy" in made.text


def test_a_stopped_play_goes_on_to_the_same_numbers(tmp_path, monkeypatch):
    import experiments.regret_player as player

    given = dict(problem="off-dynamics", learners=("dr-rpo",), runs=2, horizon=30, checkpoint_seconds=0.0)
    straight = results.read_results(regret(Regret(**given, out=tmp_path / "a"))).table
    kept = player.Player.advance

    def stops(self, stop):
        if self.world.round >= 10:
            raise KeyboardInterrupt
        kept(self, stop)

    monkeypatch.setattr(player.Player, "advance", stops)
    with pytest.raises(KeyboardInterrupt):
        regret(Regret(**given, out=tmp_path / "b"))
    monkeypatch.setattr(player.Player, "advance", kept)
    resumed = results.read_results(regret(Regret(**given, out=tmp_path / "b", resume=True))).table

    def numbers(table):
        some = table[~table["metric"].str.startswith("time/")]
        return some.sort_values(["metric", "run", "step"])["value"].to_numpy()

    np.testing.assert_array_equal(numbers(straight), numbers(resumed))
    assert len(numbers(straight)) > 100
