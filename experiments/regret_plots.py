"""Regret curves on log axes with bands and bounds, and one that follows a dial; PNG and PDF, no global state."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments import plots, results
from experiments.statistics import FloatArray

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

__all__ = ["FORMS", "curves", "curves_figure", "dial", "panels", "save", "title"]

FORMS = ("png", "pdf")
BOUNDS: dict[str, tuple[Any, str]] = {
    "bound/path": ("--", "path-wise bound, mean"),
    "bound/expected": (":", "bound on the expectation"),
}


def title(problem: str) -> str:
    """A problem's name in lines that fit above a panel, broken between settings."""
    return textwrap.fill(problem.replace(",", ", "), 46)


def save(figure: Figure, stem: Path, forms: Sequence[str] = FORMS) -> list[Path]:
    """`stem`.png and `stem`.pdf, without the time in them: the same figure gives the same files."""
    plots.lay_out(figure)
    paths = []
    for form in forms:
        meta = {"CreationDate": None} if form == "pdf" else None
        paths.append(
            results.write_atomically(
                stem.with_name(f"{stem.name}.{form}"),
                lambda file, form=form, meta=meta: figure.savefig(file, format=form, dpi=plots.DPI, metadata=meta),  # type: ignore[misc]
            )
        )
    return paths


def curves(rows: DataFrame, bounds: DataFrame, stem: Path, title: str, forms: Sequence[str] = FORMS) -> list[Path]:
    """`curves_figure(rows, bounds, title)` in files; `stem`: their names without their endings."""
    return save(curves_figure(rows, bounds, title), stem, forms)


def curves_figure(rows: DataFrame, bounds: DataFrame, title: str, names: Sequence[str] | None = None) -> Figure:
    """Mean regret against rounds, log-log, a line a learner with its 95 % band, its bounds in the same colour.

    Args:
        rows: algorithm, round, mean, low, high, runs; bounds: bound, algorithm, round, mean.
        names: the learners, in the order of their colours; those here if None.
    """
    from matplotlib.lines import Line2D

    figure, (ax,) = plots._figure(1, 6.4, 4.8)
    handles = []
    there = sorted(set(rows["algorithm"]))
    for name, style in plots.styles(names or there).items():
        if name not in there:
            continue
        here = rows[rows["algorithm"] == name].sort_values("round")
        rounds, mean = here["round"].to_numpy(), here["mean"].to_numpy(np.float64)
        seen = np.where(mean > 0, mean, np.nan)
        ax.plot(rounds, seen, linewidth=1.6, marker="o" if len(rounds) == 1 else "", **style)
        low, high = here["low"].to_numpy(np.float64), here["high"].to_numpy(np.float64)
        # A log axis has no room below 0: the band then ends at the smallest mean that is shown.
        if np.isfinite(seen).any() and np.isfinite(low).any():
            floor = np.nanmin(seen)
            ax.fill_between(
                rounds, np.maximum(low, floor), high, where=high > floor, color=style["color"], alpha=0.18, lw=0
            )
        count = int(here["runs"].max())
        handles.append(Line2D([], [], linewidth=1.6, label=f"{name} (n = {count})", **style))
        for bound, (dash, _) in BOUNDS.items():
            line = bounds[(bounds["algorithm"] == name) & (bounds["bound"] == bound)].sort_values("round")
            if len(line):
                ax.plot(line["round"], line["mean"], color=style["color"], linestyle=dash, linewidth=1.1, alpha=0.8)
    for bound, (dash, text) in BOUNDS.items():
        if (bounds["bound"] == bound).any():
            handles.append(Line2D([], [], color="0.4", linestyle=dash, linewidth=1.1, label=text))
    ax.set_xscale("log")
    ax.set_yscale("log")
    # Rounding around a regret of 0 must not stretch the axis over what can be seen.
    ax.set_ylim(bottom=max(ax.get_ylim()[0], 1e-9 * ax.get_ylim()[1]))
    ax.set_title(title, fontsize=10)
    ax.set_xlabel("round")
    ax.set_ylabel("regret")
    ax.legend(
        handles=handles, loc="upper center", bbox_to_anchor=(0.5, -0.14), fontsize=8, frameon=False,
        ncol=1 if len(handles) < 3 else 2,
    )  # fmt: skip
    figure.suptitle("mean over runs; bands: 95 % t intervals", fontsize=9, color="0.3")
    return figure


def panels(rows: DataFrame, stem: Path, names: Sequence[str], forms: Sequence[str] = FORMS) -> list[Path]:
    """Mean regret a round, a panel a problem and a line a learner with its 95 % band; learners that learn go to 0.

    Args:
        rows: problem, algorithm, round, mean, low, high of one kind of regret.
        stem: the files' names without their endings.
        names: the learners, in the order of their colours.
        forms: what the figure is written as.
    """
    from matplotlib.lines import Line2D

    problems = list(dict.fromkeys(rows["problem"]))
    figure, axes = plots._figure(len(problems), 5.2, 3.4)
    styles = plots.styles([name for name in names if name in set(rows["algorithm"])])
    for ax, problem in zip(axes, problems, strict=True):
        for name, style in styles.items():
            here = rows[(rows["problem"] == problem) & (rows["algorithm"] == name)].sort_values("round")
            rounds = here["round"].to_numpy(np.float64)
            mean, low, high = (here[key].to_numpy(np.float64) / rounds for key in ("mean", "low", "high"))
            ax.plot(rounds, mean, linewidth=1.4, **style)
            ax.fill_between(rounds, low, high, color=style["color"], alpha=0.15, lw=0)
        ax.set_xscale("log")
        if (rows.loc[rows["problem"] == problem, "mean"] >= 0).all():
            ax.set_ylim(bottom=0)
        ax.set_title(title(problem), fontsize=10)
        ax.set_xlabel("round")
        ax.set_ylabel("regret / round")
    handles = [Line2D([], [], linewidth=1.4, label=name, **style) for name, style in styles.items()]
    figure.legend(handles=handles, loc="outside lower center", ncol=5, fontsize=8, frameon=False)
    figure.suptitle("mean over runs; bands: 95 % t intervals", fontsize=9, color="0.3")
    return save(figure, stem, forms)


def dial(rows: DataFrame, theory: Mapping[str, tuple[FloatArray, FloatArray]], stem: Path, title: str) -> list[Path]:
    """Final regret against the dial, a line a learner with its 95 % band, and curves of the theory in grey.

    Args:
        rows: algorithm, dial, final, final_low, final_high; theory: {label: (dials, values)}.
        stem: the files' names without their endings.
    """
    figure, (ax,) = plots._figure(1, 6.4, 4.6)
    for name, style in plots.styles(sorted(set(rows["algorithm"]))).items():
        here = rows[rows["algorithm"] == name].sort_values("dial")
        ax.plot(here["dial"], here["final"], linewidth=1.6, marker="o", markersize=3, label=name, **style)
        ax.fill_between(here["dial"], here["final_low"], here["final_high"], color=style["color"], alpha=0.18, lw=0)
    for (label, (dials, values)), dash in zip(theory.items(), ("--", ":", "-."), strict=False):
        ax.plot(dials, values, color="0.4", linestyle=dash, linewidth=1.1, label=label)
    ax.set_title(title, fontsize=10)
    ax.set_xlabel("dial: 0 i.i.d., 1 adversarial")
    ax.set_ylabel("expected-loss regret")
    ax.set_ylim(bottom=0)
    ax.legend(fontsize=8, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.14), ncol=2)
    return save(figure, stem)
