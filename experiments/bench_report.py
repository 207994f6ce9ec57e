"""A benchmark's folder turned into what is kept of it: the report, published numbers beside ours, the raw table."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments import html_report, plots, published, results
from experiments import report as reports
from experiments.agreement import agreement, csv, lines
from experiments.benchmark_file import Benchmark

if TYPE_CHECKING:
    from pandas import DataFrame

__all__ = ["Made", "origin", "write"]

KEPT = (
    "eval/score", "eval/return", "eval/length", "eval/value_error", "time/updates_per_second", "time/steps_per_second",
)  # fmt: skip


@dataclass(frozen=True)
class Made:
    """`text` for the console, `paths` of the files written, by what they are."""

    text: str
    paths: dict[str, Path]


@dataclass(frozen=True)
class _Beside:
    """Published numbers of one cell: where they were measured, and (mean, std, number of its source) each."""

    dataset: str
    numbers: list[tuple[float, float | None, int]]

    def text(self) -> str:
        def one(mean: float, std: float | None, source: int) -> str:
            return f"{mean:g}{'' if std is None else f' ± {std:g}'} [{source}]"

        return "; ".join(one(*number) for number in self.numbers)


def write(spec: Benchmark, folder: Path, out: Path) -> Made:
    """Read every run folder below `folder`; write tables and figures into `out`.

    What was trained beyond the benchmark's `steps` is left out. Besides the files of `orbs report`, index.html (all
    of it in one page), and benchmark.md (ours
    and the published numbers, machine, versions, commands), raw.csv (every evaluation of every run), scores.png (both
    in one figure) and, where a second opinion on ours was trained, agreement.csv.

    Raises:
        ValueError: nothing was evaluated yet.
    """
    found = results.cut(results.read_results(folder), spec.steps)
    made = reports.report(folder, out, found=found)
    table, data = found.table, found.data
    order = {name: place for place, name in enumerate(spec.algorithms)}
    rows = made.table.assign(place=made.table["algorithm"].map(order).fillna(len(order)))
    rows = rows.sort_values(["problem", "place"], kind="stable")
    beside, sources = _published(spec, rows)
    metric = "eval/score" if (table["metric"] == "eval/score").any() else "eval/return"
    means = {problem: value for (problem, name), value in data.items() if name == metric}
    kept = table[table["metric"].isin(KEPT)].sort_values([*results.IDENTITY, "step", "metric"], kind="stable")
    heading = _heading(spec, rows)
    label = spec.published.label if spec.published else ""
    paths = {
        **made.paths,
        "raw": results.write_text(out / "raw.csv", kept.to_csv(index=False)),
        "scores": plots.final_scores(
            rows, metric, out / "scores.png", means, label,
            {key: [mean for mean, _, _ in cell.numbers] for key, cell in beside.items()},
        ),
    }  # fmt: skip
    shown = _table(spec, rows, means, beside)
    text = [f"# {spec.title}", "", heading, "", *reports.markdown_table(shown)]
    if sources:
        text += ["", spec.published.note if spec.published else "", ""]
        text += [f"[{number}] {source}  " for source, number in sources.items()]
    pairs = agreement(found)
    if pairs:
        text += ["", *lines(pairs)]
        paths["agreement"] = csv(pairs, out / "agreement.csv")
    text += ["", "![scores](scores.png)", "", *origin(folder, spec.noun), "", *_speed(table, order, spec.noun)]
    text += ["", "Statistics, pooled tables and learning curves: report.md; every evaluation of every run: raw.csv."]
    paths["benchmark"] = results.write_text(out / "benchmark.md", "\n".join(text) + "\n")
    about = [heading, *([spec.published.note] if spec.published and sources else [])]
    about += [f"[{number}] {source}" for source, number in sources.items()]
    table_first = html_report.Beside("The benchmark", about, shown)
    paths["html"] = html_report.write(made, folder, out / "index.html", spec.title, [table_first])
    return Made(f"{made.text}\n" + "\n".join(textwrap.wrap(heading, reports.WIDTH)), paths)


def _heading(spec: Benchmark, rows: DataFrame) -> str:
    """What kind of comparison it is, by the steps of its shortest cell."""
    steps = [int(part) for span in rows["steps"] if span for part in str(span).split("..")]
    least, most = (min(steps), max(steps)) if steps else (0, 0)
    updates = f"{least} {spec.noun}" if least == most else f"{least} to {most} {spec.noun}"
    planned = "" if least >= spec.steps else f" of {spec.steps} planned"
    if least < spec.smoke_below:
        return (
            f"Smoke comparison: {updates}{planned}, fewer than the {spec.smoke_below} from which on this benchmark "
            "calls itself a comparison. It shows that every algorithm runs here, not which is best."
        )
    return f"Comparison after {updates}{planned}."


def _published(spec: Benchmark, rows: DataFrame) -> tuple[dict[tuple[str, str], _Beside], dict[str, int]]:
    """({(problem, algorithm): published}, {source: its number}), without best scores: ours are last ones."""
    beside: dict[tuple[str, str], _Beside] = {}
    sources: dict[str, int] = {}
    for problem, algorithm in zip(rows["problem"], rows["algorithm"], strict=True):
        name = spec.published.datasets.get(problem) if spec.published else None
        found = [
            one
            for one in published.scores()
            if one.dataset == name and _same(one.algorithm, algorithm) and "best scores" not in one.source.lower()
        ]
        if name is not None and found:
            numbers = [(one.mean, one.std, sources.setdefault(one.source, len(sources) + 1)) for one in found]
            beside[problem, algorithm] = _Beside(name, numbers)
    return beside, sources


def _same(one: str, other: str) -> bool:
    return published.key(one) == published.key(other)


def _table(
    spec: Benchmark, rows: DataFrame, means: dict[str, float], beside: dict[tuple[str, str], _Beside]
) -> list[dict[str, str]]:
    """One row a cell, and one a dataset for what its own episodes reach."""
    shown: list[dict[str, str]] = []
    label = spec.published.label if spec.published else None
    last = None
    for row in rows.to_dict("records"):
        problem = str(row["problem"])
        if problem != last and problem in means:
            blank = {"problem": problem, "algorithm": "the data's own episodes", spec.noun: "", "runs": ""}
            blank |= {"mean": reports.number(means[problem]), "95 %": "", "IQM": "", "95 % of the IQM": ""}
            shown.append(blank | ({label: ""} if label else {}))
        last = problem
        cell = reports.cell(row)
        line = {"problem": problem, "algorithm": cell["algorithm"], spec.noun: str(row["steps"] or "-")}
        line |= {"runs": cell["runs"], "mean": cell["mean"], "95 %": cell["mean 95 %"]}
        line |= {"IQM": cell["IQM"], "95 % of the IQM": cell["IQM 95 %"]}
        if label:
            found = beside.get((problem, str(row["algorithm"])))
            line[label] = f"{found.dataset}: {found.text()}" if found else "none known"
        shown.append(line)
    return shown


def origin(folder: Path, noun: str) -> list[str]:
    """Machines, versions, commits, commands and settings of the runs, each said once; regrets have no evaluation."""
    configs = [results.read_config(found) for found in results.find_folders(folder)]
    every = [one for config in configs for one in (config, *config.get("earlier", []))]

    def once(values: Sequence[Any]) -> list[str]:
        return list(dict.fromkeys(str(value) for value in values if value))

    def versions(config: dict[str, Any]) -> str:
        return ", ".join(f"{name} {version}" for name, version in (config.get("versions") or {}).items())

    def device(config: dict[str, Any]) -> str:
        threads = config.get("threads", 1)
        where = config.get("device_name") or config.get("device", "cpu")
        return f"{where}, {threads} thread{'s' * (threads != 1)}, {config.get('matmul', 'float32')} products"

    def evaluation(config: dict[str, Any]) -> str:
        return f"{config.get('eval_episodes')} episodes a run every {config.get('eval_every')} {noun}"

    facts = {
        "Machine": once([one.get("machine") for one in every]) or ["not recorded"],
        "Device": once([device(one) for one in every]),
        "Versions": once([versions(one) for one in every]),
        "Commit": once([one.get("git_commit") for one in every]),
        "Command": [f"`{' '.join(words)}`" for words in dict.fromkeys(tuple(one.get("command", ())) for one in every)],
        "Evaluation": once([evaluation(config) for config in configs if "eval_every" in config]),
        "Simulator": once([f"{c.get('env')}, {c.get('simulator')}" for c in configs if "simulator" in c]),
    }  # fmt: skip
    return [f"- {name}: {'; '.join(values)}" for name, values in facts.items() if values]


def _speed(table: DataFrame, order: dict[str, int], noun: str) -> list[str]:
    """Median updates (steps) a second of each algorithm, as it happened to run: no measurement of speed."""
    rows = table[table["metric"].isin(["time/updates_per_second", "time/steps_per_second"])]
    median = rows.groupby("algorithm")["value"].median()
    names = sorted(median.index, key=lambda name: (order.get(name, len(order)), name))
    said = ", ".join(f"{name} {median[name]:.0f}" for name in names if np.isfinite(median[name]))
    what = f"{noun.capitalize()} a second of all runs together, median over log points"
    return [f"{what}, whatever else the machine did: {said}."]
