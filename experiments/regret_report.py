"""From run folders of `orbs regret` to tables and figures: `report(folders, out)`.

Statistics are over runs; smaller is better. Slopes are those of each run's log regret on log round over the last
decade (two where it holds fewer than three record points), so 0.5 is what regret ~ sqrt(T) has; where a run's regret
is not positive there, the slope of the mean curve takes their place, with a jackknife over runs. For logarithmic
regret the slope on ln(round) is given beside: regret added per e-fold of rounds.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments import regret_plots, results, robustness, statistics
from experiments.problems import PROBLEMS
from experiments.report import WIDTH, markdown_table, number
from experiments.slopes import slopes
from experiments.statistics import Estimate

if TYPE_CHECKING:
    from pandas import DataFrame

__all__ = ["KINDS", "RegretReport", "bounds_of", "is_regret", "report", "shown"]

KINDS = {
    "regret/static": "expected losses, against the best fixed point of the expected losses",
    "regret/sampled": "sampled losses, against the best fixed point in hindsight",
    "regret/pseudo": "means of the arms that were played, against the best arm's",
    "regret/realised": "rewards as received, against the best arm's mean",
    "regret/policy": "exact values (worst ones, where there is an uncertainty set), against the best policy's",
    "regret/regularised": "the same less the learner's own regulariser, against the best such value",
    "regret/dynamic": "expected losses, against each round's own best point",
}


@dataclass(frozen=True)
class RegretReport:
    """`text` for the console, `paths` of the files written, by what they are.

    `table`: one row a (problem, metric, learner); `curves`: one row a (problem, metric, learner, round), with the mean,
    its 95 % interval and the runs that it is over; `notes`: what a reader must know; `runs`: one row a (problem,
    metric, learner, run); `found`: the rows that all of it is made from, with the names of the tables; `values`: those
    of `robustness.robustness`.
    """

    text: str
    paths: dict[str, Path]
    table: DataFrame
    curves: DataFrame
    notes: list[str]
    runs: DataFrame
    found: results.Results
    values: DataFrame


def is_regret(table: DataFrame) -> bool:
    """Whether a long table is one of regrets.

    Raises:
        ValueError: some rows are, and others are scores of policies: no table holds both.
    """
    metrics = set(table["metric"])
    regret = any(str(metric).startswith("regret/") for metric in metrics)
    if regret and any(str(metric).startswith("eval/") for metric in metrics):
        raise ValueError(
            "folders: expected runs of one kind, got some of orbs regret and some of orbs train. Fix: report on each."
        )
    return regret


def report(
    folders: str | Path | Iterable[str | Path],
    out: str | Path,
    metric: str | None = None,
    until: int | None = None,
    forms: Sequence[str] = regret_plots.FORMS,
    found: results.Results | None = None,
) -> RegretReport:
    """Read all run folders at or below `folders`, write tables and figures into the folder `out`.

    Files: regret.csv (`RegretReport.table`), curves.csv, runs.csv (each run's last regret and slopes), report.md, and a
    figure of each problem and kind of regret as PNG and PDF, or in `forms`. `metric`: that regret alone; `until`: leave
    out later rounds; `found`: what `folders` hold, where it was read already.

    Raises:
        ValueError, FileNotFoundError: nothing there, or no such metric.
    """
    import pandas as pd

    found = results.read_results(folders) if found is None else found
    table, status, data = found if until is None else results.cut(found, until)
    if status["experiment"].nunique() > 1:
        table = table.assign(algorithm=table["experiment"] + "/" + table["algorithm"])
        status = status.assign(algorithm=status["experiment"] + "/" + status["algorithm"])
    metrics = set(table["metric"])
    recorded = [name for name in KINDS if name in metrics]
    if not recorded or (metric is not None and metric not in recorded):
        have = ", ".join(recorded or sorted(set(table["metric"]))) or "no rows at all"
        raise ValueError(f"metric: expected a recorded regret, got {metric or 'none'}; recorded are {have}")
    chosen = [metric] if metric is not None else recorded
    notes: list[str] = []
    cells = {}
    # Grouped once: comparing the names of millions of rows for each cell costs more than all the rest.
    grouped = {(str(key[0]), str(key[1])): rows for key, rows in table.groupby(["problem", "algorithm"], sort=True)}
    for problem in sorted({problem for problem, _ in grouped}):
        names = [name for other, name in grouped if other == problem]
        regrets = {name: grouped[problem, name][lambda df: df["metric"].isin(chosen)] for name in names}
        for kind in chosen:
            for name in names:
                wide = _wide(regrets[name][regrets[name]["metric"] == kind])
                if not wide.empty:
                    dead = status[(status["problem"] == problem) & (status["algorithm"] == name)]
                    cells[problem, kind, name] = _Cell(wide, dead, grouped[problem, name])
    rows, runs, points = [], [], []
    for (problem, kind, name), one in cells.items():
        row, of_runs = _row(problem, kind, name, one, notes)
        rows.append(row)
        runs.append(of_runs)
        points.append(one.curve().assign(problem=problem, metric=kind, algorithm=name))
    made = pd.DataFrame(rows)
    _compare_rounds(made, notes)
    notes = list(dict.fromkeys(notes))
    curves = pd.concat(points, ignore_index=True)
    curves = curves[
        ["problem", "metric", "algorithm", *(c for c in curves if c not in ("problem", "metric", "algorithm"))]
    ]

    out = Path(out)
    frames = {"regret": made, "curves": curves, "runs": pd.concat(runs, ignore_index=True)}
    paths = {name: results.write_text(out / f"{name}.csv", df.to_csv(index=False)) for name, df in frames.items()}
    figures = {}
    for problem, kind in dict.fromkeys((problem, kind) for problem, kind, _ in cells):
        drawn = curves[(curves["problem"] == problem) & (curves["metric"] == kind)]
        bounds = bounds_of(table, problem, kind)
        stem = "".join(c if c.isalnum() or c in "-=.," else "-" for c in problem) + "-" + kind.removeprefix("regret/")
        heading = f"{problem}: {kind.removeprefix('regret/')} regret"
        made_of = regret_plots.curves(drawn, bounds, out / stem, heading, forms)
        figures[problem, kind] = made_of
        paths |= {f"{stem} {path.suffix[1:]}": path for path in made_of}
    values = robustness.robustness(table, status)
    said, more = robustness.write(values, out, {name: one.targets for name, one in PROBLEMS.items()}, forms)
    paths |= more
    paths["markdown"] = results.write_text(out / "report.md", _markdown(made, notes, figures, said))
    text = _console(made, notes, metric)
    used = results.Results(table, status, data)
    return RegretReport(text, paths, made, curves, notes, frames["runs"], used, values)


def _wide(rows: DataFrame) -> DataFrame:
    """Rounds x runs."""
    return rows.pivot(index="step", columns="run", values="value").sort_index()


@dataclass
class _Cell:
    """One learner on one problem: its regret (rounds x runs), its runs' status, all its rows."""

    wide: DataFrame
    status: DataFrame
    rows: DataFrame

    def used(self) -> DataFrame:
        """The columns of the runs that did not diverge, finite to the end."""
        dead = set(self.status.loc[self.status["diverged_step"].notna(), "run"])
        fine = [run for run in self.wide.columns if run not in dead and np.isfinite(self.wide[run].to_numpy()).all()]
        return self.wide[fine]

    def curve(self) -> DataFrame:
        """Mean, interval and count of the runs that are used, at each round."""
        import pandas as pd

        used = self.used()
        values = used.to_numpy(np.float64)
        steps = used.index.to_numpy()
        if not values.shape[1]:
            return pd.DataFrame({"round": steps, "mean": np.nan, "low": np.nan, "high": np.nan, "runs": 0})
        mean = statistics.mean_interval(values)
        low, high = (np.full(len(steps), np.nan) if end is None else end for end in (mean.low, mean.high))
        return pd.DataFrame({"round": steps, "mean": mean.value, "low": low, "high": high, "runs": values.shape[1]})

    def rate(self) -> float:
        """Median over record points of the run-rounds a second that the learner alone makes; NaN where unknown."""
        for name in ("time/rounds_per_second", "time/loop_rounds_per_second"):
            rows = self.rows[self.rows["metric"] == name]
            # The first points are a few rounds each, which say nothing of speed.
            late = rows[rows["step"] > rows["step"].max() / 100]
            if len(late):
                return float(late["value"].median())
        return math.nan


def _fields(name: str, found: Estimate | None) -> dict[str, float]:
    if found is None:
        return {name: math.nan, f"{name}_low": math.nan, f"{name}_high": math.nan}
    low, high = (math.nan if end is None else float(end) for end in (found.low, found.high))
    return {name: float(found.value), f"{name}_low": low, f"{name}_high": high}


def _row(problem: str, kind: str, name: str, cell: _Cell, notes: list[str]) -> tuple[dict[str, Any], DataFrame]:
    import pandas as pd

    who, used = f"{name} on {problem}", cell.used()
    total = len(set(cell.wide.columns) | set(cell.status["run"]))
    row: dict[str, Any] = {"problem": problem, "metric": kind, "algorithm": name, "runs": total, "used": used.shape[1]}
    row["round"] = int(used.index[-1]) if len(used) else 0
    if used.shape[1] < total:
        rest = "statistics over the others" if used.shape[1] else "no statistics"
        notes.append(f"{who}: {total - used.shape[1]} of {total} runs diverged; {rest}.")
    planned, states = cell.status["steps"].max(), sorted(set(cell.status["status"]) & {"running", "stopped", "failed"})
    if states:
        notes.append(f"{who}: not complete ({', '.join(states)}), at round {row['round']} of {planned}.")
    values = used.to_numpy(np.float64)
    found = slopes(used.index.to_numpy(np.float64), values) if values.shape[1] else None
    final = statistics.mean_interval(values[-1]) if values.shape[1] else None
    if final is not None and final.reason:
        notes.append(f"{who}: {final.reason}.")
    row |= _fields("final", final)
    row |= _fields("slope", found.power if found else None) | {"slope_of": found.of if found else ""}
    row |= _fields("per_efold", found.efold if found else None)
    row |= {"slope_from": found.first if found else 0, "rounds_per_second": cell.rate()}
    if found is not None and found.of == "mean":
        notes.append(f"{who}, {kind}: not every run's regret is positive; the slope is that of the mean.")
    of_runs = pd.DataFrame({"problem": problem, "metric": kind, "algorithm": name, "run": used.columns})
    power, efold = found.per_run if found is not None else (None, None)
    of_runs = of_runs.assign(
        final=values[-1] if values.size else np.nan,
        slope=np.nan if power is None else power,
        per_efold=np.nan if efold is None else efold,
    )
    return row, of_runs


def _compare_rounds(table: DataFrame, notes: list[str]) -> None:
    for (problem, kind), rows in table.groupby(["problem", "metric"]):
        if rows["round"].nunique() > 1:
            each = ", ".join(f"{a} {s}" for a, s in zip(rows["algorithm"], rows["round"], strict=True))
            notes.append(f"WARNING, {problem}, {kind}: learners are compared at different rounds: {each}.")


def bounds_of(table: DataFrame, problem: str, kind: str) -> DataFrame:
    """Means over runs of the bounds' curves: bound, algorithm, round, mean.

    The path-wise bounds hold for the gradients that were seen, and so for sampled losses; the theorem's for expected
    ones. Neither bounds dynamic regret.
    """
    wanted = {"regret/static": ("bound/path", "bound/expected"), "regret/sampled": ("bound/path",)}.get(kind, ())
    rows = table[table["metric"].isin(wanted)] if wanted else table[:0]
    rows = rows[rows["problem"] == problem]
    means = rows.groupby(["metric", "algorithm", "step"])["value"].mean().reset_index()
    return means.set_axis(["bound", "algorithm", "round", "mean"], axis=1)


def _interval(row: Any, name: str) -> str:
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    return f"[{number(low)}, {number(high)}]" if np.isfinite(low) else "-"


def shown(row: Any) -> dict[str, str]:
    """A row of the table as it is shown."""
    some = row["used"] != row["runs"]
    return {
        "learner": row["algorithm"],
        "runs": f"{row['used']} of {row['runs']}" if some else f"{row['runs']}",
        "regret": number(row["final"]), "regret 95 %": _interval(row, "final"),
        "slope": number(row["slope"]), "slope 95 %": _interval(row, "slope"),
        "per e-fold": number(row["per_efold"]), "per e-fold 95 %": _interval(row, "per_efold"),
        "run-rounds/s": number(row["rounds_per_second"]),
    }  # fmt: skip


def _first_kinds(table: DataFrame, metric: str | None) -> list[tuple[str, str]]:
    """The problems, each with the kind of regret to show first: the problem's own, else in KINDS' order.

    One that not all its learners have is not shown first.
    """
    found = []
    for problem, rows in table.groupby("problem", sort=False):
        counts = rows.groupby("metric")["algorithm"].nunique()
        known = PROBLEMS.get(str(problem).partition(",")[0])
        order = [known.metric, *KINDS] if known is not None else list(KINDS)
        kind = next(k for k in order if counts.get(k, 0) == counts.max()) if metric is None else metric
        if kind in counts:
            found.append((str(problem), kind))
    return found


def _console(table: DataFrame, notes: list[str], metric: str | None) -> str:
    lines = ["Regret at the last round and its slope over the last decade; mean over runs, intervals 95 %"]
    for problem, kind in _first_kinds(table, metric):
        here = table[(table["problem"] == problem) & (table["metric"] == kind)]
        rows = [shown(row) for row in here.to_dict("records")]
        heads = [{key: key if " 95" not in key else "95 %" for key in rows[0]}, *rows]
        width = {key: max(len(line[key]) for line in heads) for key in rows[0]}
        rounds = ", ".join(map(str, dict.fromkeys(here["round"])))
        lines += ["", *textwrap.wrap(f"{problem}, {kind} after {rounds} rounds ({KINDS[kind]})", WIDTH)]
        first, *rest = width
        for line in heads:
            lines.append(
                (f"  {line[first]:<{width[first]}}" + "".join(f"  {line[k]:>{width[k]}}" for k in rest)).rstrip()
            )
    for i, note in enumerate(notes):
        lines += [""] * (i == 0) + textwrap.wrap(note, WIDTH, initial_indent="* ", subsequent_indent="  ")
    return "\n".join(lines) + "\n"


def _markdown(table: DataFrame, notes: list[str], figures: dict[tuple[str, str], list[Path]], values: list[str]) -> str:
    lines = ["Regret, mean over runs, intervals 95 %. Slope: of log regret on log round over the last decade."]
    for (problem, kind), rows in table.groupby(["problem", "metric"], sort=False):
        rounds = ", ".join(map(str, dict.fromkeys(rows["round"])))
        lines += ["", f"## {problem}, {kind}", "", f"{KINDS[str(kind)].capitalize()}; {rounds} rounds.", ""]
        lines += markdown_table([shown(row) for row in rows.to_dict("records")])
        lines += ["", f"![{problem}]({figures[str(problem), str(kind)][0].name})"]
    lines += values
    if notes:
        lines += ["", "Notes:", "", *(f"- {note}" for note in notes)]
    return "\n".join(lines) + "\n"
