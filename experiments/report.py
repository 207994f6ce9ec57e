"""From run folders to tables and figures: `report(folders, out)`.

Statistics are over runs, one number a run: its last evaluation ("final"), the mean of its last ten ("last10")
or its best ("best"; chosen by looking, biased upwards). Runs that diverged enter no mean; every table says
how many there were. Larger is taken to be better. Intervals are 95 %; `experiments.statistics` says what they
cover.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from experiments import plots, results, statistics
from experiments.statistics import Estimate, FloatArray

if TYPE_CHECKING:
    from pandas import DataFrame

Checkpoint = Literal["final", "last10", "best"]
WIDTH = 100
DESCRIBED = {
    "final": "the last evaluation of each run",
    "last10": "the mean of each run's last ten evaluations",
    "best": "the best evaluation of each run (chosen by looking: biased upwards)",
}


@dataclass(frozen=True)
class Report:
    """`text` for the console (at most 100 columns), `paths` of the files written, by what they are.

    `table`: one row a (problem, algorithm); `pooled`: one row an algorithm over the common problems,
    `improvement`: one row a pair of algorithms, both empty where there is nothing to pool or compare;
    `notes`: what a reader must know. `runs`: one row a run; `found`: the rows that all of it is made from, with the
    names of the tables; `scores`: of the profile, {algorithm: one array of runs a problem}, {} where there is none.
    """

    text: str
    paths: dict[str, Path]
    table: DataFrame
    pooled: DataFrame
    improvement: DataFrame
    notes: list[str]
    title: str
    metric: str
    checkpoint: Checkpoint
    runs: DataFrame
    found: results.Results
    scores: dict[str, list[FloatArray]]
    seed: int


def report(
    folders: str | Path | Iterable[str | Path],
    out: str | Path,
    metric: str | None = None,
    checkpoint: Checkpoint = "final",
    seed: int = 0,
    until: int | None = None,
    found: results.Results | None = None,
) -> Report:
    """Read all run folders at or below `folders`, write tables and figures into the folder `out`.

    `metric`: None takes "eval/score" if every evaluated run has it and "eval/return" otherwise. `seed` seeds
    the bootstrap resamples, so the same folders give the same files. `until`: leave out whatever came after that step,
    to compare at equal steps. `found`: what `folders` hold, where it was read already. Files: runs.csv (one row a run),
    table.csv, report.md, curves.png, and where they make sense pooled.csv, improvement.csv and profile.png
    (scores only). Errors: ValueError or FileNotFoundError that name the folder, metric or checkpoint at
    fault; see `results`.
    """
    import pandas as pd

    if checkpoint not in get_args(Checkpoint):
        raise ValueError(f"checkpoint: expected one of {', '.join(get_args(Checkpoint))}, got {checkpoint!r}")
    found = results.read_results(folders) if found is None else found
    table, status, data = found if until is None else results.cut(found, until)
    table, status = _named(table, status)
    notes: list[str] = []
    metric = _choose(table, metric, notes, status)
    runs = results.summarise(table, metric, status)
    merged = (
        status.sort_values("folder")
        .groupby(results.IDENTITY, as_index=False)
        .agg(status=("status", "first"), steps=("steps", "max"))
    )
    runs = runs.merge(merged, on=results.IDENTITY, how="left")
    # A value may be missing though nothing says diverged ("best" of no finite value): it is a diverged run.
    runs["used"] = ~runs["diverged"]
    groups = {
        (str(key[0]), str(key[1])): group
        for key, group in runs.sort_values(["problem", "algorithm", "run"]).groupby(["problem", "algorithm"])
    }
    cells = {key: group.loc[group["used"], checkpoint].to_numpy(np.float64) for key, group in groups.items()}
    per_cell = pd.DataFrame([_row(*key, group, cells[key], notes) for key, group in groups.items()])
    _compare_steps(per_cell, notes)
    rng = np.random.default_rng(seed)
    common = _common(cells, notes)
    pooled = pd.DataFrame(_pooled(cells, common, metric, rng, notes))
    improvement = pd.DataFrame(_improvement(cells, common))

    out = Path(out)
    paths = {
        "runs": _csv(runs, out / "runs.csv"),
        "table": _csv(per_cell, out / "table.csv"),
        "curves": plots.learning_curves(
            table, metric, out / "curves.png", status=status,
            reference={problem: value for (problem, name), value in data.items() if name == metric},
        ),
    }  # fmt: skip
    for name, frame in (("pooled", pooled), ("improvement", improvement)):
        if len(frame):
            paths[name] = _csv(frame, out / f"{name}.csv")
    scores: dict[str, list[FloatArray]] = {}
    if metric == "eval/score" and common:
        names = sorted({algorithm for _, algorithm in cells})
        scores = {name: [cells[problem, name] for problem in common] for name in names}
        paths["profile"] = plots.performance_profile(scores, out / "profile.png", rng)

    title = f"{metric}: {DESCRIBED[checkpoint]}; mean over runs, intervals 95 %"
    text = _console(title, per_cell, pooled, improvement, len(common), notes)
    markdown = _markdown(title, per_cell, pooled, improvement, len(common), notes, paths)
    paths["markdown"] = results.write_text(out / "report.md", markdown)
    return Report(
        text, paths, per_cell, pooled, improvement, notes, title, metric, checkpoint, runs,
        results.Results(table, status, data), scores, seed,
    )  # fmt: skip


def _named(table: DataFrame, status: DataFrame) -> tuple[DataFrame, DataFrame]:
    """Put the experiment into the algorithm's name where there are several: their runs differ in kind."""
    if status["experiment"].nunique() > 1:
        table = table.assign(algorithm=table["experiment"] + "/" + table["algorithm"])
        status = status.assign(algorithm=status["experiment"] + "/" + status["algorithm"])
    return table, status


def _choose(table: DataFrame, metric: str | None, notes: list[str], status: DataFrame) -> str:
    """The metric to show; says in `notes` whose runs nothing scores."""
    if metric is not None:
        return metric
    unscored = status.loc[status["unscored"] != "", ["problem", "unscored"]].drop_duplicates()
    notes += [f"{problem} trains but cannot be scored: {why}." for problem, why in unscored.to_numpy()]

    def having(name: str) -> set[tuple[Any, ...]]:
        rows = table.loc[table["metric"] == name, results.IDENTITY].drop_duplicates()
        return set(rows.itertuples(index=False, name=None))

    scored, returned = having("eval/score"), having("eval/return")
    if not scored | returned:
        have = sorted(set(table["metric"]))
        raise ValueError(
            "metric: expected eval/score or eval/return to be recorded, got "
            f"{', '.join(have) or 'no rows at all'}; "
            + " ".join([*notes, "Name another metric"] if notes else ["wait for the first evaluation, or name one"])
        )
    if scored >= returned:
        return "eval/score"
    if scored:
        without = sorted({str(row[2]) for row in returned - scored})
        notes.append(f"eval/return is shown: {', '.join(without)} has runs without eval/score.")
    return "eval/return"


def _row(problem: str, algorithm: str, group: DataFrame, values: FloatArray, notes: list[str]) -> dict[str, Any]:
    """One row of the table; says in `notes` what is odd about its runs."""
    who = f"{algorithm} on {problem}"
    dead = group[group["diverged"]]
    if len(dead):
        where = ", ".join(
            f"run {run} at step {step}" for run, step in zip(dead["run"], dead["diverged_step"], strict=True)
        )
        rest = f"statistics over the {len(values)} others" if len(values) else "no statistics"
        notes.append(f"{who}: {len(dead)} of {len(group)} diverged ({where}); {rest}.")
    open_ = group[group["status"].isin(["running", "stopped"]) & group["used"]]
    if len(open_):
        planned = "" if open_["steps"].isna().all() else f" of {open_['steps'].max()}"
        notes.append(
            f"{who}: {len(open_)} of {len(group)} runs not complete "
            f"({', '.join(sorted(set(open_['status'])))}), last evaluated at step "
            f"{open_['final_step'].min()}{planned}; they are in the statistics."
        )
    steps = group.loc[group["used"], "final_step"].dropna()
    row: dict[str, Any] = {"problem": problem, "algorithm": algorithm, "runs": len(group), "used": len(values)}
    if len(values):
        mean, trimmed = statistics.mean_interval(values), statistics.trimmed_interval(values)
        if mean.reason:
            notes.append(f"{who}: {len(values)} run{'s' * (len(values) > 1)} used, {mean.reason}.")
    else:
        mean = trimmed = Estimate(np.asarray(np.nan), None, None, "no run is left")
    row |= _fields("mean", mean) | _fields("iqm", trimmed)
    row |= {
        "std": values.std(ddof=1) if len(values) > 1 else np.nan,
        "min": values.min() if len(values) else np.nan,
        "max": values.max() if len(values) else np.nan,
        "diverged": len(dead),
        "steps": _span(int(steps.min()), int(steps.max())) if len(steps) else "",
        "scored_by": " and ".join(sorted(set((group["env"] + ", " + group["simulator"])[group["env"] != ""])))
        or "unknown",
    }
    if len(steps) and steps.min() < steps.max():
        notes.append(f"WARNING, {who}: runs were last evaluated at different steps, {row['steps']}.")
    return row


def _span(low: int, high: int) -> str:
    return str(low) if low == high else f"{low}..{high}"


def _compare_steps(table: DataFrame, notes: list[str]) -> None:
    for problem, rows in table[table["used"] > 0].groupby("problem"):
        if rows["steps"].nunique() > 1:
            each = ", ".join(f"{a} {s}" for a, s in zip(rows["algorithm"], rows["steps"], strict=True))
            notes.append(f"WARNING, {problem}: algorithms are compared at different steps: {each}.")
        if rows["scored_by"].nunique() > 1 or rows["scored_by"].str.contains(r" and | \+ ").any():
            each = "; ".join(f"{a} {s}" for a, s in zip(rows["algorithm"], rows["scored_by"], strict=True))
            notes.append(f"WARNING, {problem}: scored in different environments or simulators: {each}.")


def _fields(name: str, found: Estimate) -> dict[str, float]:
    return {
        name: float(found.value),
        f"{name}_low": np.nan if found.low is None else float(found.low),
        f"{name}_high": np.nan if found.high is None else float(found.high),
    }


Cells = dict[tuple[str, str], FloatArray]


def _common(cells: Cells, notes: list[str]) -> list[str]:
    """Problems on which every algorithm has a run left: only there is a pooled comparison fair."""
    problems, algorithms = sorted({key[0] for key in cells}), sorted({key[1] for key in cells})
    common = [p for p in problems if all(len(cells.get((p, a), ())) for a in algorithms)]
    left = [p for p in problems if p not in common]
    if left and len(problems) > 1:
        notes.append(f"Not pooled or compared, for want of a run of every algorithm: {', '.join(left)}.")
    return common


def _pooled(
    cells: Cells, common: Sequence[str], metric: str, rng: np.random.Generator, notes: list[str]
) -> list[dict[str, Any]]:
    if len(common) < 2:
        return []
    if metric == "eval/return":
        notes.append("Returns of different problems have different units: no pooled mean or IQM without eval/score.")
        return []
    rows = []
    for algorithm in sorted({key[1] for key in cells}):
        tasks = [cells[problem, algorithm] for problem in common]
        mean, trimmed = statistics.pooled_mean_interval(tasks), statistics.iqm_interval(tasks, rng)
        if mean.low is None:
            notes.append(f"{algorithm}, pooled: {mean.reason}.")
        row: dict[str, Any] = {"algorithm": algorithm, "problems": len(common), "used": sum(map(len, tasks))}
        rows.append(row | _fields("mean", mean) | _fields("iqm", trimmed))
    return rows


def _improvement(cells: Cells, common: Sequence[str]) -> list[dict[str, Any]]:
    """P(first beats second) for every pair, once: the other direction is one minus it."""
    rows = []
    algorithms = sorted({key[1] for key in cells}) if common else []
    for i, first in enumerate(algorithms):
        for second in algorithms[i + 1 :]:
            found = statistics.probability_of_improvement(
                [cells[problem, first] for problem in common], [cells[problem, second] for problem in common]
            )
            rows.append({"first": first, "second": second, "problems": len(common)} | _fields("probability", found))
    return rows


def _csv(frame: DataFrame, path: Path) -> Path:
    return results.write_text(path, frame.to_csv(index=False))


def number(value: float) -> str:
    """Some three digits: whole numbers from 1000 on, powers of ten beyond a million."""
    if not np.isfinite(value):
        return "-"
    size = abs(value)
    if size >= 1e6 or 0 < size < 1e-3:
        return f"{value:.2e}"
    digits = 0 if size >= 1000 else 1 if size >= 10 else 2 if size >= 1 else 3
    return f"{value:.{digits}f}"


def _interval(row: Any, name: str) -> str:
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    return "-" if not np.isfinite(low) else f"[{number(low)}, {number(high)}]"


def cell(row: Any) -> dict[str, str]:
    """A row of the table as it is shown: algorithm, runs, mean and IQM with their intervals, min, max."""
    shown = {
        "algorithm": str(row["algorithm"]),
        "runs": f"{row['used']}" if not row.get("diverged") else f"{row['used']} of {row['runs']}",
    }
    for name in ("mean", "iqm"):
        title = name.replace("iqm", "IQM")
        shown |= {title: number(row[name]), f"{title} 95 %": _interval(row, name)}
    if "min" in row:
        shown |= {name: number(row[name]) for name in ("min", "max")}
    return shown


def _aligned(rows: Sequence[dict[str, str]]) -> list[str]:
    """A heading and one string a row, aligned; a name too long for the width gets a line of its own.

    Numbers too wide for the width (losses of 1e9) cost the columns min and max; table.csv keeps them.
    """
    lines = [{key: key.removeprefix("mean ").removeprefix("IQM ") for key in rows[0]}, *rows]
    width = {key: max(len(line[key]) for line in lines) for key in rows[0]}
    if 2 + len("algorithm") + sum(width[key] + 2 for key in width if key != "algorithm") > WIDTH:
        width = {key: size for key, size in width.items() if key not in ("min", "max")}
    room = WIDTH - 2 - sum(width[key] + 2 for key in width if key != "algorithm")
    width["algorithm"] = min(width["algorithm"], max(room, len("algorithm")))
    text = []
    for line in lines:
        name, rest = line["algorithm"], "".join(f"  {line[k]:>{width[k]}}" for k in width if k != "algorithm")
        if len(name) > width["algorithm"]:
            own = textwrap.wrap(name, WIDTH, initial_indent="  ", subsequent_indent="  ")
            text.append("\n".join([*own, "  " + " " * width["algorithm"] + rest]))
        else:
            text.append(f"  {name:<{width['algorithm']}}{rest}".rstrip())
    return text


def _pair(row: Any) -> str:
    values = [row[key] for key in ("probability", "probability_low", "probability_high")]
    interval = f"[{values[1]:.2f}, {values[2]:.2f}]" if np.isfinite(values[1]) else "no interval"
    return f"P({row['first']} > {row['second']}) = {values[0]:.2f} {interval}"


def _console(
    title: str, table: DataFrame, pooled: DataFrame, improvement: DataFrame, common: int, notes: Sequence[str]
) -> str:
    lines = textwrap.wrap(title, WIDTH)
    heading, *rows = _aligned([cell(row) for row in table.to_dict("records")])
    for problem in dict.fromkeys(table["problem"]):
        here = table["problem"] == problem
        steps = ", ".join(dict.fromkeys(s for s in table.loc[here, "steps"] if s))
        scored = "".join(f"; {s}" for s in dict.fromkeys(table.loc[here, "scored_by"]) if s != "unknown")
        lines += ["", *textwrap.wrap(f"{problem} (steps: {steps or 'none'}{scored})", WIDTH), heading]
        lines += [row for row, shown in zip(rows, here, strict=True) if shown]
    if len(pooled):
        lines += ["", f"pooled over {common} problems (mean of their means; IQM of all runs)"]
        lines += _aligned([cell(row) for row in pooled.to_dict("records")])
    if len(improvement):
        lines += ["", f"probability of improvement, averaged over {common} problem{'s' * (common > 1)}"]
        pairs = [_pair(row) for row in improvement.to_dict("records")]
        for pair in pairs[:15]:
            lines += textwrap.wrap(pair, WIDTH, initial_indent="  ", subsequent_indent="    ")
        if len(pairs) > 15:
            lines.append(f"  and {len(pairs) - 15} pairs more in improvement.csv")
    for i, note in enumerate(notes):
        lines += [""] * (i == 0) + textwrap.wrap(note, WIDTH, initial_indent="* ", subsequent_indent="  ")
    return "\n".join(lines) + "\n"


def markdown_table(rows: Sequence[dict[str, str]]) -> list[str]:
    """Lines of a Markdown table; the keys of the first row are its heading."""

    def line(cells: Iterable[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    keys = list(rows[0])
    ruler = "|" + "|".join("---" if key in ("problem", "algorithm") else "---:" for key in keys) + "|"
    return [line(keys), ruler, *(line(row.values()) for row in rows)]


def _markdown(
    title: str, table: DataFrame, pooled: DataFrame, improvement: DataFrame, common: int, notes: Sequence[str],
    paths: dict[str, Path],
) -> str:  # fmt: skip
    rows = [
        {"problem": row["problem"]}
        | cell(row)
        | {"std": number(row["std"]), "diverged": str(row["diverged"]), "steps": row["steps"] or "-"}
        | {"scored by": row["scored_by"]}
        for row in table.to_dict("records")
    ]
    lines = [title + ".", "", *markdown_table(rows)]
    if len(pooled):
        lines += ["", f"Pooled over {common} problems (mean of their means; IQM of all runs):", ""]
        lines += markdown_table([cell(row) for row in pooled.to_dict("records")])
    if len(improvement):
        lines += ["", f"Probability of improvement, averaged over {common} problem{'s' * (common > 1)}:", ""]
        lines += [f"- {_pair(row)}" for row in improvement.to_dict("records")]
    if notes:
        lines += ["", "Notes:", "", *(f"- {note}" for note in notes)]
    for name in ("curves", "profile"):
        if name in paths:
            lines += ["", f"![{name}]({paths[name].name})"]
    return "\n".join(lines) + "\n"
