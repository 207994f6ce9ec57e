"""One self-contained HTML page from a report: `write(made, folders, path)`. Nothing is fetched, no script is needed.

The numbers are those of the report's CSV files, in full in the attributes data-value, data-low and data-high of the
tables' cells. The page holds no time or place of its making: the same results give the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments import html_origin, plots, regret_plots, regret_report, report, results, robustness
from experiments.html_elements import Cell, Page, bullets, facts, paragraph
from experiments.problems import PROBLEMS
from experiments.report import number
from orbs import reject

if TYPE_CHECKING:
    from pandas import DataFrame

__all__ = ["Beside", "place", "write"]

MOST_RUNS = 200  # rows of a table of single runs; beyond that runs.csv is the better place


@dataclass(frozen=True)
class Beside:
    """A table that stands before the problems: what a benchmark compares with."""

    heading: str
    about: Sequence[str]
    rows: Sequence[Mapping[str, str]]


def place(given: Sequence[Path], out: Path) -> Path:
    """Where the page goes: the one path `given`, or index.html in `out`.

    Raises:
        ValueError: several paths, or one that names no page.
    """
    if not given:
        return out / "index.html"
    if len(given) > 1:
        reject("--html", "one path or none", " ".join(map(str, given)), "name the folders before --html")
    (path,) = given
    if path.suffix.lower() not in (".html", ".htm") or path.is_dir():
        what = f"{path}, a folder" if path.is_dir() else str(path)
        reject("--html", "a file that ends in .html", what, f"e.g. --html {path / 'index.html'}, folders before it")
    return path


def write(
    made: report.Report | regret_report.RegretReport,
    folders: str | Path | Iterable[str | Path],
    path: Path,
    title: str = "",
    beside: Sequence[Beside] = (),
) -> Path:
    """Write the page of the report `made` of `folders` to `path`.

    Args:
        title: the page's; by default the problems' names.
        beside: tables to put before the problems.
    """
    found = html_origin.read(folders)
    problems = sorted(set(made.table["problem"]))
    names = sorted(set(made.table["algorithm"]))
    families = list(dict.fromkeys(problem.partition(",")[0] for problem in problems))
    shown = ", ".join(families[:3]) + (f" and {len(families) - 3} more" if len(families) > 3 else "")
    shown += f": {len(problems)} problems" if len(problems) > len(families) else ""
    page = Page(f"{title or shown}: orbs report")
    regrets = isinstance(made, regret_report.RegretReport)
    if isinstance(made, regret_report.RegretReport):
        lede = "Regret at the last round, mean over runs; smaller is better. Intervals are 95 %."
    else:
        lede = f"{made.title}. Larger is better."
    page.head = f"<h1>{escape(title or shown)}</h1>{paragraph(lede)}"
    page.add(_notes(made.notes))
    what = {
        "Problems": "; ".join(problems) if len(problems) < 5 else f"{len(problems)}, listed below",
        "Learners" if regrets else "Algorithms": ", ".join(names),
    }
    page.add(facts(what | html_origin.summary(found)))
    contents = len(page.parts)
    links: list[tuple[str, str]] = []
    for one in beside:
        links.append((page.heading(2, one.heading), one.heading))
        page.add(*(paragraph(text) for text in one.about))
        page.table(one.heading, [{k: _plain(v) for k, v in row.items()} for row in one.rows])
    for problem in problems:
        links.append((page.heading(2, problem), problem))
        if isinstance(made, regret_report.RegretReport):
            _regrets(page, made, problem, names, made.values[made.values["problem"] == problem])
        else:
            _scores(page, made, problem, names)
    if isinstance(made, report.Report):
        links += _together(page, made)
    links.append((page.heading(2, "How this was made"), "How this was made"))
    html_origin.add(page, found)
    items = "".join(f'<li><a href="#{name}">{escape(text)}</a></li>' for name, text in links)
    page.parts.insert(contents, f'<nav aria-label="Contents"><ul>{items}</ul></nav>')
    return results.write_text(path, page.html("Made by orbs report --html; it needs no network and no script."))


def _notes(notes: Sequence[str]) -> str:
    if not notes:
        fine = "No warning, no diverged run, none known to be incomplete."
        return f'<section class="notes fine"><h2>Nothing odd</h2>{paragraph(fine)}</section>'
    warned = sorted(notes, key=lambda note: not note.startswith("WARNING"))
    return f'<section class="notes"><h2>Read this first</h2>{bullets(warned)}</section>'


def _plain(text: str) -> Cell:
    """Numbers to the right, as given; words to the left."""
    words = any(c.isalpha() for c in text)
    return Cell(text, kind=("long" if len(text) > 40 else "text") if words else "")


def _estimate(row: Any, name: str, title: str) -> dict[str, Cell]:
    """A value and its interval, in two columns."""
    value, low, high = (float(row[f"{name}{end}"]) for end in ("", "_low", "_high"))
    between = f"[{number(low)}, {number(high)}]" if np.isfinite(low) else "-"
    return {title: Cell(number(value), value), f"{title} 95 %": Cell(between, None, low, high)}


def _count(row: Any) -> Cell:
    used, total = int(row["used"]), int(row["runs"])
    return Cell(f"{used}" if used == total else f"{used} of {total}", used)


def _scores(page: Page, made: report.Report, problem: str, names: Sequence[str]) -> None:
    """The table, the learning curves and the single runs of one problem."""
    here = made.table[made.table["problem"] == problem]
    steps = ", ".join(dict.fromkeys(str(s) for s in here["steps"] if s)) or "none"
    scored = "; ".join(dict.fromkeys(str(s) for s in here["scored_by"] if s != "unknown"))
    data = made.found.data.get((problem, made.metric))
    page.add(
        facts({"Steps": steps, "Scored in": scored, "The data's mean": "" if data is None else number(data)}),
    )
    rows = []
    for row in here.to_dict("records"):
        shown = {"algorithm": Cell(str(row["algorithm"])), "runs": _count(row)}
        shown |= _estimate(row, "mean", "mean") | _estimate(row, "iqm", "IQM")
        shown |= {name: Cell(number(row[name]), float(row[name])) for name in ("std", "min", "max")}
        rows.append(shown | {"diverged": Cell(str(row["diverged"]), int(row["diverged"])), "steps": Cell(row["steps"])})
    said = report.DESCRIBED[made.checkpoint]
    page.table(f"{made.metric} on {problem}: {said}; mean over runs, 95 % interval, interquartile mean", rows)
    table = made.found.table
    mine = table[(table["problem"] == problem) & (table["metric"] == made.metric)]
    if len(mine):
        state = made.found.status[made.found.status["problem"] == problem]
        figure = plots.learning_figure(
            mine, made.metric, status=state, names=names, reference={} if data is None else {problem: data}
        )
        dead = "; a cross: a run diverged" if (here["diverged"] > 0).any() else ""
        about = f"Mean of {made.metric} against training steps. " + _said(rows, "mean")
        page.add(_figures([page.figure(figure, f"Learning curves on {problem}{dead}", about)]))
    runs = made.runs[made.runs["problem"] == problem]
    keys = ("final", "last10", "best")
    single = [
        {"algorithm": Cell(str(row["algorithm"])), "run": Cell(str(row["run"]), int(row["run"]))}
        | {name: Cell(number(row[name]), float(row[name])) for name in keys}
        | {"diverged at step": Cell("-" if not row["diverged"] else str(row["diverged_step"]))}
        for row in runs.to_dict("records")
    ]
    _single(page, f"{made.metric} of each run on {problem}", single)


def _single(page: Page, caption: str, rows: Sequence[Mapping[str, Cell]]) -> None:
    """A table of single runs, closed until asked for."""
    if len(rows) > MOST_RUNS:
        page.add(paragraph(f"{len(rows)} single runs: see runs.csv."))
        return
    page.add(f"<details><summary>Every run ({len(rows)})</summary>")
    page.table(caption, rows)
    page.add("</details>")


def _said(rows: Sequence[Mapping[str, Cell]], value: str) -> str:
    """The numbers behind a figure in words."""
    name = next(iter(rows[0]))
    return (
        "; ".join(
            f"{row[name].text} {row[value].text}"
            + (f" {row[f'{value} 95 %'].text}" * (row[f"{value} 95 %"].text != "-"))
            for row in rows
        )
        + "."
    )


def _figures(figures: Sequence[str]) -> str:
    return f'<div class="figures">{"".join(figures)}</div>' if figures else ""


def _together(page: Page, made: report.Report) -> list[tuple[str, str]]:
    """Over all problems: the pooled table, the profile, the probabilities; returns the headings' ids and texts."""
    if not (len(made.pooled) or len(made.improvement) or made.scores):
        return []
    heading = "All problems together" if len(made.pooled) else "Algorithms compared"
    links = [(page.heading(2, heading), heading)]
    if len(made.pooled):
        rows = []
        for row in made.pooled.to_dict("records"):
            shown = {"algorithm": Cell(str(row["algorithm"])), "runs": Cell(str(row["used"]), int(row["used"]))}
            rows.append(shown | _estimate(row, "mean", "mean") | _estimate(row, "iqm", "IQM"))
        count = int(made.pooled["problems"].iloc[0])
        page.table(f"Pooled over {count} problems: mean of their means, interquartile mean of all runs", rows)
    if len(made.improvement):
        rows = []
        for row in made.improvement.to_dict("records"):
            shown = {"first": Cell(str(row["first"])), "second": Cell(str(row["second"]), kind="text")}
            low, high = float(row["probability_low"]), float(row["probability_high"])
            between = f"[{low:.2f}, {high:.2f}]" if np.isfinite(low) else "-"
            value = float(row["probability"])
            rows.append(shown | {"P": Cell(f"{value:.2f}", value), "P 95 %": Cell(between, None, low, high)})
        count = int(made.improvement["problems"].iloc[0])
        over = f", averaged over {count} problems" if count > 1 else ""
        page.table(f"Probability P that a run of the first beats one of the second{over}", rows)
    if made.scores:
        figure = plots.profile_figure(made.scores, np.random.default_rng(made.seed))
        about = f"Fraction of runs above each score, of {', '.join(made.scores)}."
        page.add(_figures([page.figure(figure, "Performance profile; bands: 95 % bootstraps at each score", about)]))
    return links


def _regrets(
    page: Page, made: regret_report.RegretReport, problem: str, names: Sequence[str], values: DataFrame
) -> None:
    """The tables and figures of one problem: each kind of regret, then the values of the last policies."""
    known = PROBLEMS.get(problem.partition(",")[0])
    page.add(paragraph(known.about[0].upper() + known.about[1:].rstrip(".") + "." if known and known.about else ""))
    here = made.table[made.table["problem"] == problem]
    kinds = list(dict.fromkeys(here["metric"]))
    first = [known.metric] if known is not None and known.metric in kinds else []
    for kind in dict.fromkeys([*first, *kinds]):
        short = kind.removeprefix("regret/").capitalize() + " regret"
        page.heading(3, short)
        page.add(paragraph(f"{regret_report.KINDS[kind].capitalize()}."))
        rows = [_regret_row(row) for row in here[here["metric"] == kind].to_dict("records")]
        rounds = ", ".join(dict.fromkeys(row["rounds"].text for row in rows))
        page.table(
            f"{short} on {problem} after {rounds} rounds, and its slope over the last decade: of log regret on log "
            "round; per e-fold: regret added when the rounds grow by a factor e",
            rows,
        )
        drawn = made.curves[(made.curves["problem"] == problem) & (made.curves["metric"] == kind)]
        bounds = regret_report.bounds_of(made.found.table, problem, kind)
        figure = regret_plots.curves_figure(drawn, bounds, "", names)
        about = f"{short} against rounds, on log axes. At the end: " + _said(rows, "regret")
        page.add(_figures([page.figure(figure, f"{short} on {problem}", about)]))
        runs = made.runs[(made.runs["problem"] == problem) & (made.runs["metric"] == kind)]
        single = [
            {"learner": Cell(str(row["algorithm"])), "run": Cell(str(row["run"]), int(row["run"]))}
            | {name: Cell(number(row[key]), float(row[key])) for key, name in _RUN.items()}
            for row in runs.to_dict("records")
        ]
        _single(page, f"{short} of each run on {problem}", single)
    if len(values):
        _values(page, problem, values, names)


_RUN = {"final": "regret", "slope": "slope", "per_efold": "per e-fold"}


def _regret_row(row: Any) -> dict[str, Cell]:
    shown = {"learner": Cell(str(row["algorithm"])), "runs": _count(row)}
    for key, name in (("final", "regret"), ("slope", "slope"), ("per_efold", "per e-fold")):
        shown |= _estimate(row, key, name)
    speed = float(row["rounds_per_second"])
    return shown | {
        "rounds": Cell(str(row["round"]), int(row["round"])),
        "run-rounds/s": Cell(number(speed), speed),
    }


def _values(page: Page, problem: str, values: DataFrame, names: Sequence[str]) -> None:
    page.heading(3, "Values of the last policies")
    heads = robustness.heads(values)
    rows: list[dict[str, Cell]] = []
    for name, cells in values.groupby("algorithm", sort=True):
        row = {"learner": Cell(str(name))}
        for metric, head in heads.items():
            found = cells[cells["metric"] == metric]
            if len(found):
                value, low, high = (float(found[key].iloc[0]) for key in ("mean", "low", "high"))
                row[head] = Cell(robustness.said(found.iloc[0]), value, low, high)
            else:
                row[head] = Cell("-")
        rows.append(row)
    page.table(f"Exact values on {problem}, mean over runs [95 %]", rows)
    if values["shift"].notna().any():
        labels = {name: one.targets for name, one in PROBLEMS.items()}
        figure = robustness.figure(values, labels, names)
        about = f"Value of the last policy against {labels.get(problem.partition(',')[0]) or 'the shift'}. "
        ends = [head for head in heads.values() if head.startswith("target ")]
        about += "; ".join(f"{row['learner'].text}: " + ", ".join(f"{h} {row[h].text}" for h in ends) for row in rows)
        page.add(_figures([page.figure(figure, f"Robustness on {problem}", about)]))
