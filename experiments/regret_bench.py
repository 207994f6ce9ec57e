"""`orbs bench` of a benchmark of regret: every (problem, learner) played, then tables and curves.

A unit is (problem, learner) with all runs, in a folder of its own as `orbs regret` makes it. A unit that fails is
reported and does not stop the others; whatever is stopped goes on with the same command.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments import html_report, launch, pool, problems, regret_plots, regret_report, results, robustness
from experiments.bench import finish, positive
from experiments.bench_report import Made, origin
from experiments.options import Bench
from experiments.regret_benchmark import Reference, RegretBenchmark, check_settings, restricted, split
from experiments.report import markdown_table, number
from orbs import reject

if TYPE_CHECKING:
    from pandas import DataFrame

    from experiments.regret_options import Regret

__all__ = ["bench"]

FORMS = ("png",)
Z = 4.0  # combined standard errors within which a reference value counts as met
ALONE = 0.02  # the part of it, where its standard error is not known


@dataclass(frozen=True)
class Unit:
    """One learner on one problem, with all its runs."""

    problem: str
    options: Regret
    variants: dict[str, str]

    @property
    def folder(self) -> Path:
        from experiments.regret import unit_folder

        label = problems.label(problems.find(self.options.problem), problems.settings(self.options.problem_set))
        return unit_folder(self.options, label, self.options.learners[0])


def bench(spec: RegretBenchmark, options: Bench) -> int:
    """Run the command; the exit status is 1 where a unit failed.

    Raises:
        ValueError: options that do not fit, before anything is written.
    """
    spec = chosen(spec, options)
    folder = options.out / spec.name
    failed: dict[str, str] = {}
    launch.check(options)
    if not options.report_only:
        todo = units(spec, options)
        print(
            f"{spec.title}: {len(spec.learners)} learners, {len(spec.problems)} problems, {spec.runs} runs of "
            f"{spec.horizon} rounds, in {len(todo)} units. Writes to {folder}.",
            flush=True,
        )
        names = [" ".join([*unit.options.learners, "on", unit.problem]) for unit in todo]
        if options.launcher == "ray":
            with launch.cluster(options, todo) as each:
                errors = each(play, todo, keep_going=True)
            failed = {name: str(e) for name, e in zip(names, errors, strict=True) if e is not None}
        elif options.jobs == 1:
            for name, unit in zip(names, todo, strict=True):
                try:
                    play(unit, 0)
                except Exception as error:
                    failed[name] = f"{type(error).__name__}: {error}"
        else:
            errors = pool.each(play, todo, options.jobs, keep_going=True)
            failed = {name: str(e) for name, e in zip(names, errors, strict=True) if e is not None}
    return finish(options, folder, functools.partial(write, spec), failed)


def chosen(spec: RegretBenchmark, options: Bench) -> RegretBenchmark:
    """The benchmark as the command line restricts and changes it.

    Raises:
        ValueError: a learner or problem that it does not have, an option that is for other kinds, a number below 1.
    """
    for field in ("datasets", "envs", "eval_every", "eval_episodes", "every", "block"):
        if getattr(options, field):
            name = f"--{field.replace('_', '-')}"
            reject(name, "none in a benchmark of regret", getattr(options, field), "leave it out")
    positive(options, "runs", "steps", "jobs", "threads")
    check_settings("--set", options.set, spec.learners)
    changes: dict[str, Any] = {"set": spec.set + options.set}
    for field, known in (("algos", spec.learners), ("problems", spec.problems)):
        wanted = getattr(options, field)
        for one in wanted:
            if one not in known:
                reject(f"--{field}", f"some of {', '.join(known)}", f"'{one}'", "name those of the file")
        if wanted:
            changes["learners" if field == "algos" else field] = tuple(one for one in known if one in wanted)
    for field, value in (("runs", options.runs), ("horizon", options.steps), ("seed", options.seed)):
        if value is not None:
            changes[field] = value
    return restricted(spec, changes)


def units(spec: RegretBenchmark, options: Bench) -> list[Unit]:
    """Every unit, problem by problem."""
    from experiments.regret_options import Regret

    found = []
    for problem, learner in spec.units():
        name, settings = split(problem)
        given = Regret(
            problem=name,
            learners=(learner,),
            problem_set=settings,
            set=tuple(one for one in spec.set if one.partition(".")[0] == learner),
            runs=spec.runs,
            horizon=spec.horizon,
            seed=spec.seed,
            device=options.device,
            out=options.out / spec.name,
            experiment=spec.name,
            points_per_decade=spec.points_per_decade,
            jump=spec.jump,
            checkpoint_seconds=options.checkpoint_seconds,
            resume=True,
            threads=options.threads,
        )
        found.append(Unit(problem, given, spec.variants))
    return found


def play(unit: Unit, place: int) -> None:
    """One unit, in this process."""
    from experiments.regret import regret

    regret(unit.options, unit.variants)


def write(spec: RegretBenchmark, folder: Path, out: Path) -> Made:
    """Into `out`: the tables and figures of `orbs regret`, index.html, benchmark.md and reference.csv.

    The figures are PNG; `orbs report` of the folder gives those of the problems as PDF too.
    """
    raw = results.cut(results.read_results(folder), spec.horizon)
    made = regret_report.report(folder, out, forms=FORMS, found=raw)
    beside = compared(spec, raw.table, raw.status)
    paths = dict(made.paths)
    text = [f"# {spec.title}", "", f"{spec.runs} runs of {spec.horizon} rounds; regret at the last round, mean [95 %]."]
    text += ["", *markdown_table(_final(spec, made.table, raw.table))]
    lines: list[str] = []
    if len(beside):
        met = int(beside["met"].sum())
        lines = [f"{met} of {len(beside)} values of the {spec.label} are met."]
        played = {(row["problem"], row["algorithm"]) for row in raw.status.to_dict("records")}
        there = {(row["problem"], row["learner"], row["round"], row["metric"]) for row in _records(beside)}
        for one in spec.references:
            key = (one.problem, one.learner, one.round, one.metric or metric_of(one.problem))
            if one.horizon == spec.horizon and (one.problem, one.learner) in played and key not in there:
                lines.append(
                    f"Nothing recorded beside the reference of {key[1]} on {key[0]}, {key[3]}, round {key[2]}."
                )
        text += ["", f"## Beside the {spec.label}", "", spec.note, "", *lines, ""]
        text += markdown_table([_shown(row) for row in _records(beside)])
        paths["reference"] = results.write_text(out / "reference.csv", beside.to_csv(index=False))
    first = made.curves["problem"].map({problem: metric_of(problem) for problem in spec.problems})
    drawn = made.curves[made.curves["metric"] == first]
    if len(drawn):
        paths["panels"] = regret_plots.panels(drawn, out / "panels", spec.learners, FORMS)[0]
        text += ["", "![regret a round](panels.png)"]
    values = made.values
    values = values[values["problem"].isin(spec.problems) & values["algorithm"].isin(spec.learners)]
    values = values.sort_values("problem", key=lambda names: names.map(spec.problems.index), kind="stable")
    if values["shift"].notna().any():
        labels = {name: one.targets for name, one in problems.PROBLEMS.items()}
        drawn_to = robustness.draw(values, out / "robustness-panels", labels, spec.learners, FORMS)
        paths["robustness panels"] = drawn_to[0]
        text += ["", "![values of the last policies](robustness-panels.png)"]
    text += robustness.section(values, {})
    text += ["", *origin(folder, "rounds")]
    paths["benchmark"] = results.write_text(out / "benchmark.md", "\n".join(text) + "\n")
    shown = [html_report.Beside(f"Beside the {spec.label}", [spec.note, *lines], [_shown(r) for r in _records(beside)])]
    paths["html"] = html_report.write(made, folder, out / "index.html", spec.title, shown if len(beside) else ())
    return Made(made.text + "\n" + "\n".join(lines), paths)


def _records(frame: DataFrame) -> list[dict[Any, Any]]:
    return frame.to_dict("records")


def metric_of(problem: str) -> str:
    """The regret that the problem's tables show first."""
    return problems.find(split(problem)[0]).metric


def compared(spec: RegretBenchmark, table: DataFrame, status: DataFrame) -> DataFrame:
    """A row a reference value of this horizon: ours beside it, the difference in standard errors, whether it is met."""
    import pandas as pd

    wanted = [(one, one.metric or metric_of(one.problem)) for one in spec.references if one.horizon == spec.horizon]
    # Few of millions of rows: first the rounds, numbers, then the names.
    some = table[table["step"].isin({one.round for one, _ in wanted})]
    some = some[some["metric"].isin({metric for _, metric in wanted})]
    cells = dict(list(some.groupby(["problem", "algorithm", "metric", "step"])))
    lost = status.loc[status["diverged_step"].notna(), ["problem", "algorithm", "run"]]
    dead = set(lost.itertuples(index=False, name=None))
    rows = []
    for one, metric in wanted:
        here = cells.get((one.problem, one.learner, metric, one.round))
        if here is None:
            continue
        here = here[[(one.problem, one.learner, run) not in dead for run in here["run"]]]
        if len(here):
            rows.append(_row(one, here["value"].to_numpy(np.float64)) | {"metric": metric})
    columns = [*Reference.__dataclass_fields__, "ours", "ours_error", "runs", "z", "met"]
    return pd.DataFrame(rows, columns=columns)


def _row(one: Reference, values: Any) -> dict[str, Any]:
    runs = len(values)
    error = float(values.std(ddof=1) / np.sqrt(runs)) if runs > 1 else np.nan
    difference = float(values.mean()) - one.mean
    both = float(np.hypot(np.nan_to_num(error), one.error))
    z = difference / both if both > 0 else np.nan
    # The reference is rounded to the digits that are given.
    rounding = 0.5 * 10.0 ** int(Decimal(repr(one.mean)).as_tuple().exponent)
    allowed = Z * both + rounding if one.error else max(ALONE * abs(one.mean), rounding)
    met = abs(difference) <= (allowed if one.within is None else one.within)
    return {**vars(one), "ours": values.mean(), "ours_error": error, "runs": runs, "z": z, "met": bool(met)}


def _shown(row: Any) -> dict[str, str]:
    error = f" ({row['error']:g})" if row["error"] else ""
    own = f" ({row['ours_error']:.2g})" if np.isfinite(row["ours_error"]) else ""
    return {
        "problem": row["problem"], "learner": row["learner"], "round": str(row["round"]), "of": row["metric"],
        "reference (se)": f"{row['mean']:g}{error}",
        "ours (se)": f"{row['ours']:.6g}{own}",
        "z": f"{row['z']:.1f}" if np.isfinite(row["z"]) and row["error"] else "-",
        "met": "yes" if row["met"] else "NO",
    }  # fmt: skip


def _final(spec: RegretBenchmark, table: DataFrame, raw: DataFrame) -> list[dict[str, str]]:
    cells = {(row["problem"], row["algorithm"], row["metric"]): row for row in table.to_dict("records")}
    ends = raw[raw["step"].isin(set(table["round"]))]
    ends = ends[ends["metric"].isin(set(table["metric"]))]
    medians = ends.groupby(["problem", "algorithm", "metric", "step"])["value"].median()
    lines = []
    for problem, learner in spec.units():
        metric = metric_of(problem)
        row = cells.get((problem, learner, metric))
        if row is None:
            continue
        lines.append(
            {
                "problem": problem, "learner": learner, "rounds": str(row["round"]), "runs": str(row["runs"]),
                "mean": number(row["final"]), "95 %": f"[{number(row['final_low'])}, {number(row['final_high'])}]",
                "median": number(float(medians.get((problem, learner, metric, row["round"]), np.nan))),
                "slope": number(row["slope"]),
                "run-rounds/s": number(row["rounds_per_second"]),
            }
        )  # fmt: skip
    return lines
