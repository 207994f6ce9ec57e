"""From the long table to robustness: the last policies' exact values in the nominal model, the worst case, the targets.

The rows are those of `envs.episodic_world.EpisodicWorld.measures`: "value/nominal", "value/worst", "value/losses" and
"value/target=SHIFT", a perturbed model each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments import plots, regret_plots, results, statistics
from experiments.report import markdown_table, number

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

__all__ = ["draw", "figure", "heads", "robustness", "said", "section", "write"]

TARGET = "value/target="
COLUMNS = ["problem", "algorithm", "round", "metric", "shift", "mean", "low", "high", "runs"]


def robustness(table: DataFrame, status: DataFrame) -> DataFrame:
    """A row a (problem, learner, value) at the learner's last round: mean over runs, 95 % interval; no row without any.

    `shift` is a target's number, NaN for what is no target. Runs that diverged are left out.
    """
    import pandas as pd

    values = table[table["metric"].str.startswith("value/")]
    rows = []
    for (problem, name), here in values.groupby(["problem", "algorithm"], sort=False):
        state = status[(status["problem"] == problem) & (status["algorithm"] == name)]
        dead = set(state.loc[state["diverged_step"].notna(), "run"])
        here = here[~here["run"].isin(dead)]
        # Runs that are not equally far are compared where all of them were.
        last = here[here["step"] == here.groupby("run")["step"].max().min()]
        for metric, some in last.groupby("metric", sort=False):
            found = statistics.mean_interval(some["value"].to_numpy(np.float64))
            low, high = (np.nan if end is None else float(end) for end in (found.low, found.high))
            shift = _number(str(metric).removeprefix(TARGET)) if str(metric).startswith(TARGET) else np.nan
            rows.append(
                (problem, name, int(last["step"].iloc[0]), metric, shift, float(found.value), low, high, len(some))
            )
    return pd.DataFrame(rows, columns=COLUMNS)


def _number(name: str) -> float:
    """A target's number, NaN for a name that is none."""
    try:
        return float(name)
    except ValueError:
        return np.nan


def draw(
    rows: DataFrame,
    stem: Path,
    labels: Mapping[str, str],
    names: Sequence[str] | None = None,
    forms: Sequence[str] = regret_plots.FORMS,
) -> list[Path]:
    """`figure(rows, labels, names)` as PNG and PDF, or in `forms`; `stem`: their names without their endings."""
    there = set(rows.loc[rows["shift"].notna(), "algorithm"])
    chosen = None if names is None else [name for name in names if name in there]
    return regret_plots.save(figure(rows, labels, chosen), stem, forms)


def figure(rows: DataFrame, labels: Mapping[str, str], names: Sequence[str] | None = None) -> Figure:
    """Value against the perturbation, a panel a problem and a line a learner with its 95 % band.

    Args:
        rows: of `robustness`.
        labels: {problem: what its targets' numbers are}, by names without settings.
        names: the learners, in the order of their colours; as they come if None.
    """
    from matplotlib.lines import Line2D

    targets = rows[rows["shift"].notna()]
    problems = list(dict.fromkeys(targets["problem"]))
    there = list(dict.fromkeys(targets["algorithm"]))
    styles = {name: style for name, style in plots.styles(names or there).items() if name in there}
    drawn, axes = plots._figure(len(problems), 6.4 if len(problems) == 1 else 5.2, 4.6 if len(problems) == 1 else 3.4)
    for ax, problem in zip(axes, problems, strict=True):
        # Lines that coincide are seen around each other.
        for (name, style), width in zip(
            styles.items(), np.linspace(1.4 + 0.2 * len(styles), 1.4, len(styles)), strict=True
        ):
            here = targets[(targets["problem"] == problem) & (targets["algorithm"] == name)].sort_values("shift")
            ax.plot(here["shift"], here["mean"], linewidth=width, **style)
            ax.fill_between(here["shift"], here["low"], here["high"], color=style["color"], alpha=0.18, lw=0)
        ax.set_title(regret_plots.title(problem), fontsize=10)
        ax.set_xlabel(labels.get(problem.partition(",")[0], "shift"))
        ax.set_ylabel("value of the last policy")
    handles = [Line2D([], [], linewidth=1.6, label=name, **style) for name, style in styles.items()]
    drawn.legend(
        handles=handles, loc="outside lower center", ncol=3 if len(problems) == 1 else 5, fontsize=8, frameon=False
    )
    runs = " to ".join(f"{count}" for count in sorted({int(targets["runs"].min()), int(targets["runs"].max())}))
    drawn.suptitle(f"exact values; mean over {runs} runs, bands: 95 % t intervals", fontsize=9, color="0.3")
    return drawn


def heads(here: DataFrame) -> dict[str, str]:
    """{metric: its column's heading} of one problem's table: at most five targets, evenly over them, then the rest."""
    shifts = sorted(set(here["shift"].dropna()))
    some = [shifts[i] for i in sorted({round(i * (len(shifts) - 1) / 4) for i in range(5)})] if shifts else []
    by_shift = here[here["shift"].notna()].drop_duplicates("shift").set_index("shift")["metric"]
    metrics = [m for m in dict.fromkeys(here["metric"]) if m not in set(by_shift)]
    return {by_shift[s]: f"target {s:g}" for s in some} | {m: m.removeprefix("value/") for m in metrics}


def section(rows: DataFrame, figures: Mapping[str, list[Path]]) -> list[str]:
    """Lines of Markdown: a table a problem, of at most five targets, and its figure."""
    lines: list[str] = []
    for problem, here in rows.groupby("problem", sort=False):
        names = heads(here)
        table = []
        for name, cells in here.groupby("algorithm", sort=False):
            row: dict[str, Any] = {"learner": str(name)}
            for metric, head in names.items():
                cell = cells[cells["metric"] == metric]
                row[head] = said(cell.iloc[0]) if len(cell) else "-"
            table.append(row)
        lines += ["", f"## {problem}, values of the last policies", "", "Exact values, mean over runs [95 %].", ""]
        lines += markdown_table(table)
        if problem in figures:
            lines += ["", f"![{problem}, robustness]({figures[str(problem)][0].name})"]
    return lines


def said(cell: Any) -> str:
    """A row of `robustness` as tables show it: mean [low, high]."""
    between = f" [{number(cell['low'])}, {number(cell['high'])}]" if np.isfinite(cell["low"]) else ""
    return number(cell["mean"]) + between


def write(
    rows: DataFrame, out: Path, labels: Mapping[str, str], forms: Sequence[str] = regret_plots.FORMS
) -> tuple[list[str], dict[str, Path]]:
    """robustness.csv and a figure a problem with targets, into `out`; the Markdown section and the paths by name.

    Args:
        rows: of `robustness`.
        labels: {problem: what its targets' numbers are}, by names without settings.
        forms: what a figure is written as.
    """
    if rows.empty:
        return [], {}
    paths = {"robustness": results.write_text(out / "robustness.csv", rows.to_csv(index=False))}
    figures: dict[str, list[Path]] = {}
    for problem, here in rows[rows["shift"].notna()].groupby("problem", sort=False):
        stem = "".join(c if c.isalnum() or c in "-=.," else "-" for c in str(problem)) + "-robustness"
        figures[str(problem)] = draw(here, out / stem, labels, forms=forms)
        paths |= {f"{stem} {path.suffix[1:]}": path for path in figures[str(problem)]}
    return section(rows, figures), paths
