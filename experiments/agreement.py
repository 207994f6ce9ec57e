"""Whether our agents agree with the second opinion on them: the difference of final returns, the ratio of speeds.

Returns are those of one evaluation, the last that every run of both has, so that a training that got further is not
held against the other. It is the number of the tables beside it. The mean over the last ten evaluations would have
less noise in a long training; in one of some ten evaluations it is the mean of the whole learning curve, from the
random start on, which says how fast both learn rather than where they arrive.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from experiments import results
from experiments.agents import SECOND_OPINIONS
from experiments.report import markdown_table, number
from experiments.statistics import Estimate, FloatArray, pooled_mean_interval

__all__ = ["Pair", "agreement", "csv", "lines", "steps_per_second", "welch"]


@dataclass(frozen=True)
class Pair:
    """Ours against the second opinion on one problem.

    Attributes:
        step: the last one at which every run of both was evaluated; None where there is none, and nothing to compare.
        runs: of each, without diverged ones.
        means: of the runs' evaluations at that step, eval/return.
        difference: of these means, ours minus theirs, with its 95 % interval (Welch); None for too few runs.
        speed: ratio of `steps_per_second`, ours over theirs; NaN where one is not known, or where their folders do not
            hold equally many runs: one program for many runs shares its work among them, so that more runs a folder
            are more steps a second, and the ratio would tell of the folders, not of the agents.
    """

    problem: str
    ours: str
    theirs: str
    step: int | None
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


def steps_per_second(found: results.Results) -> dict[tuple[str, str], dict[int, float]]:
    """{(problem, algorithm): {runs of a folder: environment steps of all of them over the seconds of learning}}.

    The mean over the folders with that many runs; evaluations are not counted. What a row holds is the rate of steps
    that each run of its folder makes. A folder with a diverged run is left out: Stable-Baselines3's is stepped no more.
    """
    rows = found.table[found.table["metric"] == "time/steps_per_second"].sort_values("step", kind="stable")
    where = found.status.set_index(results.IDENTITY)["folder"].to_dict()
    size = found.status.groupby("folder").size()
    whole = found.status.groupby("folder")["diverged_step"].count() == 0
    rates: dict[tuple[str, str], dict[int, list[float]]] = {}
    for key, run in rows.groupby(results.IDENTITY):
        if not whole[where[key]]:
            continue
        steps = np.diff(run["step"].to_numpy(), prepend=0)
        seconds = float((steps / run["value"].to_numpy()).sum())
        runs = int(size[where[key]])
        own = rates.setdefault((str(key[2]), str(key[1])), {})
        own.setdefault(runs, []).append(runs * float(steps.sum()) / seconds)
    return {key: {runs: float(np.mean(each)) for runs, each in own.items()} for key, own in rates.items()}


def agreement(found: results.Results) -> list[Pair]:
    """Every pair of ours and a second opinion on a problem where both have a run that did not diverge."""
    if not (found.table["metric"] == "eval/return").any():
        return []
    runs = results.summarise(found.table, "eval/return", found.status)
    left = runs[~runs["diverged"]].set_index(results.IDENTITY).index
    rows = found.table[found.table["metric"] == "eval/return"].set_index(results.IDENTITY)
    rows = rows[rows.index.isin(left)].reset_index()
    # (steps x runs) of each, a step that a run was not evaluated at left out.
    returns = {
        (str(key[0]), str(key[1])): group.pivot(index="step", columns=["experiment", "run"], values="value").dropna()
        for key, group in rows.groupby(["problem", "algorithm"])
    }
    speed = steps_per_second(found)
    pairs = []
    for problem in sorted({key[0] for key in returns}):
        for theirs, ours in SECOND_OPINIONS.items():
            if (problem, ours) not in returns or (problem, theirs) not in returns:
                continue
            tables = returns[problem, ours], returns[problem, theirs]
            counts = (tables[0].shape[1], tables[1].shape[1])
            common = tables[0].index.intersection(tables[1].index)
            ratio = _ratio(speed.get((problem, ours), {}), speed.get((problem, theirs), {}))
            if common.empty:
                nothing = Estimate(np.array(np.nan), None, None, "never evaluated at the same step")
                pairs.append(Pair(problem, ours, theirs, None, counts, (np.nan, np.nan), nothing, ratio))
                continue
            step = int(common.max())
            first, second = (table.loc[step].to_numpy(np.float64) for table in tables)
            means = (float(first.mean()), float(second.mean()))
            pairs.append(Pair(problem, ours, theirs, step, counts, means, welch(first, second), ratio))
    return pairs


def _ratio(ours: dict[int, float], theirs: dict[int, float]) -> float:
    """Of the rates by runs a folder; NaN unless both are known for the same numbers of runs, else their mean."""
    if ours.keys() != theirs.keys() or not ours:
        return float("nan")
    return float(np.mean([ours[runs] / theirs[runs] for runs in ours]))


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
                "last common evaluation at": "-" if pair.step is None else str(pair.step),
                "runs": f"{pair.runs[0]} and {pair.runs[1]}",
                "mean return there": f"{number(pair.means[0])} and {number(pair.means[1])}",
                "difference": number(float(pair.difference.value)),
                "95 % (Welch)": span,
                "0 in it": said,
                "ratio of steps/s of all runs": number(pair.speed),
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
            "step": pair.step,
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
