"""Whether our agents agree with the second opinion on them: the difference of final returns, the ratio of speeds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from experiments import results
from experiments.agents import SECOND_OPINIONS
from experiments.report import markdown_table, number
from experiments.statistics import Estimate, FloatArray, pooled_mean_interval

if TYPE_CHECKING:
    from pandas import DataFrame

__all__ = ["Pair", "agreement", "csv", "lines", "steps_per_second", "welch"]


@dataclass(frozen=True)
class Pair:
    """Ours against the second opinion on one problem.

    Attributes:
        runs: of each, without diverged ones.
        means: of the runs' last evaluations, eval/return.
        difference: of these means, ours minus theirs, with its 95 % interval (Welch); None for too few runs.
        speed: ratio of steps a second, ours over theirs; NaN where one is not known.
    """

    problem: str
    ours: str
    theirs: str
    runs: tuple[int, int]
    means: tuple[float, float]
    difference: Estimate
    speed: float

    @property
    def agree(self) -> bool | None:
        """Whether the interval contains 0; None where there is no interval."""
        if self.difference.low is None or self.difference.high is None:
            return None
        return bool(self.difference.low <= 0 <= self.difference.high)


def welch(first: FloatArray, second: FloatArray) -> Estimate:
    """mean(first) - mean(second) with Welch's 95 % interval: unequal variances, Satterthwaite's degrees of freedom."""
    # Twice the mean of the means of `first` and of -`second`, whose interval has the same degrees of freedom.
    half = pooled_mean_interval([first, -np.asarray(second)])
    if half.low is None or half.high is None:
        return Estimate(2 * half.value, None, None, half.reason)
    return Estimate(2 * half.value, 2 * half.low, 2 * half.high, half.reason)


def steps_per_second(table: DataFrame) -> dict[tuple[str, str], float]:
    """{(problem, algorithm): environment steps a run over the seconds that learning took}, evaluations not counted."""
    rows = table[table["metric"] == "time/steps_per_second"].sort_values("step", kind="stable")
    found: dict[tuple[str, str], list[float]] = {}
    for key, run in rows.groupby(results.IDENTITY):
        steps = np.diff(run["step"].to_numpy(), prepend=0)
        seconds = float((steps / run["value"].to_numpy()).sum())
        found.setdefault((str(key[2]), str(key[1])), []).append(float(steps.sum()) / seconds)
    return {key: float(np.mean(rates)) for key, rates in found.items()}


def agreement(found: results.Results) -> list[Pair]:
    """Every pair of ours and a second opinion on a problem where both have a run that did not diverge."""
    if not (found.table["metric"] == "eval/return").any():
        return []
    runs = results.summarise(found.table, "eval/return", found.status)
    runs = runs[~runs["diverged"]]
    finals = {
        (str(key[0]), str(key[1])): group["final"].to_numpy(np.float64)
        for key, group in runs.groupby(["problem", "algorithm"])
    }
    speed = steps_per_second(found.table)
    pairs = []
    for problem in sorted({key[0] for key in finals}):
        for theirs, ours in SECOND_OPINIONS.items():
            if (problem, ours) not in finals or (problem, theirs) not in finals:
                continue
            first, second = finals[problem, ours], finals[problem, theirs]
            ratio = speed.get((problem, ours), np.nan) / speed.get((problem, theirs), np.nan)
            means = (float(first.mean()), float(second.mean()))
            counts = (len(first), len(second))
            pairs.append(Pair(problem, ours, theirs, counts, means, welch(first, second), ratio))
    return pairs


def lines(pairs: list[Pair]) -> list[str]:
    """Markdown: a line a pair."""
    if not pairs:
        return []
    shown = []
    for pair in pairs:
        low, high = pair.difference.low, pair.difference.high
        span = "-" if low is None or high is None else f"[{number(float(low))}, {number(float(high))}]"
        said = {None: pair.difference.reason, True: "yes", False: "no"}[pair.agree]
        shown.append(
            {
                "problem": pair.problem,
                "algorithm": f"{pair.ours} - {pair.theirs}",
                "runs": f"{pair.runs[0]} and {pair.runs[1]}",
                "mean return": f"{number(pair.means[0])} and {number(pair.means[1])}",
                "difference": number(float(pair.difference.value)),
                "95 % (Welch)": span,
                "0 in it": said,
                "ratio of steps/s": number(pair.speed),
            }
        )
    return ["## Ours and the second opinion", "", *markdown_table(shown)]


def csv(pairs: list[Pair], path: Path) -> Path:
    """The same as a table of numbers."""
    import pandas as pd

    rows = [
        {
            "problem": pair.problem,
            "ours": pair.ours,
            "theirs": pair.theirs,
            "runs_ours": pair.runs[0],
            "runs_theirs": pair.runs[1],
            "mean_ours": pair.means[0],
            "mean_theirs": pair.means[1],
            "difference": float(pair.difference.value),
            "low": np.nan if pair.difference.low is None else float(pair.difference.low),
            "high": np.nan if pair.difference.high is None else float(pair.difference.high),
            "zero_inside": pair.agree,
            "steps_per_second_ratio": pair.speed,
        }
        for pair in pairs
    ]
    return results.write_text(path, pd.DataFrame(rows).to_csv(index=False))
