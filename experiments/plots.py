"""Learning curves and performance profiles as PNG files, drawn from the long table; no global state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from experiments import results, statistics

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from pandas import DataFrame

# Okabe and Ito's palette without its yellow, which is lost on white; then again with other dashes.
PALETTE = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000"]
DASHES: list[Any] = ["-", (0, (5, 1.5)), (0, (1, 1)), (0, (5, 1.5, 1, 1.5))]

DPI = 150
UNITS = {
    "eval/return": "undiscounted return",
    "eval/score": "normalised score (0 random, 100 expert)",
    "eval/length": "episode length (steps)",
}


def styles(algorithms: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Colour and dash of each algorithm; the same list gives the same styles in every figure."""
    return {
        name: {"color": PALETTE[i % len(PALETTE)], "linestyle": DASHES[i // len(PALETTE) % len(DASHES)]}
        for i, name in enumerate(algorithms)
    }


def _figure(panels: int, width: float, height: float) -> tuple[Figure, list[Axes]]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = 2 if panels in (2, 4) else min(3, panels)
    rows = -(-panels // columns)
    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    FigureCanvasAgg(figure)
    axes = [figure.add_subplot(rows, columns, i + 1) for i in range(panels)]
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(color="0.92", linewidth=0.8)
        ax.set_axisbelow(True)
    return figure, axes


def lay_out(figure: Figure, dpi: float = DPI) -> None:
    """Give the parts of a figure their places for good; `savefig` alone does so, and draws all twice, for each file."""
    figure.set_dpi(dpi)
    engine = figure.get_layout_engine()
    if engine is not None:
        engine.execute(figure)
    figure.set_layout_engine("none")


def _save(figure: Figure, path: str | Path) -> Path:
    lay_out(figure)
    return results.write_atomically(path, lambda file: figure.savefig(file, format="png", dpi=DPI))


def _curve(ax: Axes, rows: DataFrame, dead: DataFrame, style: Mapping[str, Any], level: float) -> str:
    """Draw one algorithm on one problem and return what its legend entry says of its runs."""
    wide = rows.pivot(index="step", columns="run", values="value").sort_index()
    total = len(set(wide.columns) | set(dead["run"]))
    # A run that diverged tells nothing from then on, whatever finite numbers it goes on recording.
    for run, step in zip(dead["run"], dead["diverged_step"], strict=True):
        if run in wide.columns:
            wide.loc[wide.index >= step, run] = np.nan
    values = wide.to_numpy(dtype=np.float64)
    finite = np.isfinite(values)
    counts = finite.sum(axis=1)
    steps, mean = wide.index.to_numpy(), np.full(len(wide), np.nan)
    low, high = mean.copy(), mean.copy()
    for i in np.flatnonzero(counts):
        found = statistics.mean_interval(values[i, finite[i]], level)
        mean[i] = found.value
        if found.low is not None and found.high is not None:
            low[i], high[i] = found.low, found.high
    # A single evaluation is no line; a dot shows it.
    marker = "o" if (counts > 0).sum() == 1 else ""
    ax.plot(steps, mean, linewidth=1.6, marker=marker, markersize=4, **style)
    if marker:
        ax.errorbar(steps, mean, yerr=[mean - low, high - mean], color=style["color"], capsize=3)
    ax.fill_between(steps, low, high, color=style["color"], alpha=0.18, linewidth=0)
    for step in dead["diverged_step"].dropna().unique():
        before = np.flatnonzero((steps < step) & np.isfinite(mean))
        if before.size:
            ax.plot(
                steps[before[-1]], mean[before[-1]], "X", color=style["color"],
                markeredgecolor="white", markersize=9, zorder=4,
            )  # fmt: skip
    present = counts[counts > 0]
    note = f"n = {total}"
    if len(dead):
        note += f", {len(dead)} diverged"
    elif present.size and present.min() < present.max():
        note = f"n = {present.min()} to {present.max()}"
    if not present.size:
        return f"{note}, no curve"
    if present.max() == 1:
        note += ", no interval"
    return note


def learning_curves(df: DataFrame, metric: str, path: str | Path, **options: Any) -> Path:
    """`learning_figure(df, metric, **options)` as PNG at `path`."""
    return _save(learning_figure(df, metric, **options), path)


def learning_figure(
    df: DataFrame,
    metric: str,
    *,
    status: DataFrame | None = None,
    reference: Mapping[str, float] | None = None,
    level: float = 0.95,
    names: Sequence[str] | None = None,
) -> Figure:
    """Mean of `metric` over runs against steps with Student's t intervals per step.

    One panel a problem, one line an algorithm. `status` (see `results.read_results`) says which runs
    diverged; they leave the mean and the band from that step on, a cross marks the place, and the legend says
    how many there were. A step with one run has a line and no band. `reference` {problem: value} draws a
    dashed line, the data's mean return. `names`: the algorithms in the order of their colours, those here if None.
    ValueError if `metric` was never recorded.
    """
    from matplotlib.lines import Line2D
    from matplotlib.ticker import EngFormatter

    summary = results.summarise(df, metric, status)
    chosen = df[df["metric"] == metric]
    problems, algorithms = sorted(set(chosen["problem"])), sorted(set(chosen["algorithm"]))
    style = styles(names or algorithms)
    figure, axes = _figure(len(problems), 4.6, 3.9)
    for ax, problem in zip(axes, problems, strict=True):
        handles = []
        for name in algorithms:
            rows = chosen[(chosen["problem"] == problem) & (chosen["algorithm"] == name)]
            if rows.empty:
                continue
            if rows.duplicated(["run", "step"]).any():
                raise ValueError(
                    f"df: expected one value per run and step, got several for {name} on {problem}; "
                    "join experiment and algorithm into one name where experiments differ"
                )
            dead = summary[(summary["problem"] == problem) & (summary["algorithm"] == name) & summary["diverged"]]
            note = _curve(ax, rows, dead, style[name], level)
            handles.append(Line2D([], [], linewidth=1.6, label=f"{name} ({note})", **style[name]))
        value = (reference or {}).get(problem)
        if value is not None and np.isfinite(value):
            handles.append(ax.axhline(value, color="0.35", linestyle="--", linewidth=1, label="mean of the data"))
        ax.set_title(problem, fontsize=10)
        ax.set_xlabel("training steps")
        ax.set_ylabel(UNITS.get(metric, metric), fontsize=9)
        ax.xaxis.set_major_formatter(EngFormatter(sep=""))
        # Below the axes: with ten algorithms there is no free corner inside.
        ax.legend(
            handles=handles, loc="upper center", bbox_to_anchor=(0.5, -0.2), fontsize=8, frameon=False,
            ncol=1 if len(handles) < 3 else 2, columnspacing=1.2, handlelength=2.6,
        )  # fmt: skip
    figure.suptitle(f"mean over runs; bands: {100 * level:g} % t intervals", fontsize=9, color="0.3")
    return figure


def performance_profile(
    scores: Mapping[str, Sequence[ArrayLike]], path: str | Path, rng: np.random.Generator, **options: Any
) -> Path:
    """`profile_figure(scores, rng, **options)` as PNG at `path`."""
    return _save(profile_figure(scores, rng, **options), path)


def profile_figure(
    scores: Mapping[str, Sequence[ArrayLike]],
    rng: np.random.Generator,
    *,
    label: str = UNITS["eval/score"],
    level: float = 0.95,
) -> Figure:
    """Fraction of runs above each score, {algorithm: one array of runs (n_k,) a problem}.

    Bands are pointwise stratified bootstraps (see `statistics.performance_profile`); ValueError for no
    algorithm.
    """
    if not scores:
        raise ValueError("scores: expected at least one algorithm, got none; is every run diverged?")
    everything = np.concatenate([np.ravel(task) for tasks in scores.values() for task in tasks]).astype(np.float64)
    margin = 0.05 * max(np.ptp(everything), 1e-9 + 0.1 * np.abs(everything).max())
    thresholds = np.linspace(everything.min() - margin, everything.max() + margin, 301)
    figure, (ax,) = _figure(1, 6.2, 4.0)
    for name, style in styles(sorted(scores)).items():
        found = statistics.performance_profile(scores[name], thresholds, rng, level)
        count = sum(np.size(task) for task in scores[name])
        note = f"{count} runs" if found.low is not None else f"{count} runs, no interval"
        ax.plot(thresholds, found.value, linewidth=1.6, label=f"{name} ({note})", **style)
        if found.low is not None and found.high is not None:
            ax.fill_between(thresholds, found.low, found.high, color=style["color"], alpha=0.15, linewidth=0)
    ax.set_ylim(-0.02, 1.02)
    ax.set_xlabel(f"{label}, threshold")
    ax.set_ylabel("fraction of runs above the threshold")
    ax.legend(fontsize=8, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncol=3)
    return figure


def final_scores(
    rows: DataFrame,
    metric: str,
    path: str | Path,
    data: Mapping[str, float],
    label: str,
    published: Mapping[tuple[str, str], Sequence[float]],
) -> Path:
    """Means with their intervals, one panel a problem and one line an algorithm, as PNG at `path`.

    `rows`: problem, algorithm, mean, mean_low, mean_high, in the order to draw. `data` {problem: value}: a dashed line,
    the data's mean. `published` {(problem, algorithm): values}: hollow diamonds, named `label` in the legend.
    """
    from matplotlib.lines import Line2D

    problems = list(dict.fromkeys(rows["problem"]))
    algorithms = list(dict.fromkeys(rows["algorithm"]))
    style = styles(algorithms)
    figure, axes = _figure(len(problems), 4.2, 0.9 + 0.32 * max(3, len(algorithms)))
    for ax, problem in zip(axes, problems, strict=True):
        here = rows[rows["problem"] == problem].reset_index(drop=True)
        places = np.arange(len(here))[::-1]
        for place, row in zip(places, here.to_dict("records"), strict=True):
            color = style[row["algorithm"]]["color"]
            if np.isfinite(row["mean_low"]):
                ax.plot([row["mean_low"], row["mean_high"]], [place, place], color=color, linewidth=2)
            ax.plot(row["mean"], place, "o", color=color, markersize=5)
            others = list(published.get((problem, row["algorithm"]), ()))
            ax.plot(others, [place] * len(others), "D", color="0.35", markerfacecolor="none", markersize=4)
        if problem in data:
            ax.axvline(data[problem], color="0.4", linestyle="--", linewidth=1)
        ax.set_yticks(places, list(here["algorithm"]))
        ax.set_title(problem, fontsize=10)
        ax.set_xlabel(UNITS.get(metric, metric))
    marks = [Line2D([], [], color="0.2", marker="o", linewidth=2, label="ours: mean over runs, 95 %")]
    if any(published.values()):
        marks.append(Line2D([], [], color="0.35", marker="D", markerfacecolor="none", linestyle="", label=label))
    if data:
        marks.append(Line2D([], [], color="0.4", linestyle="--", label="the data's mean"))
    figure.legend(handles=marks, loc="outside lower center", ncols=len(marks), frameon=False, fontsize=9)
    return _save(figure, path)
