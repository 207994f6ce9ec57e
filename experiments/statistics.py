"""Estimates with honest intervals over a handful of runs, on numpy and scipy alone.

Three to ten runs a task is what this field affords, and there the usual percentile bootstrap fails: for
normal data and three runs its "95 %" interval of a mean covers 74 %. So one task gets Student's t, and what
is pooled over tasks gets a stratified interval that was corrected until it covers. Measured coverage of every
95 % interval here, in percent, normal data, 20,000 replications each, lowest to highest over the arrangements
of tasks in `tests/experiments/test_statistics.py` (equal, shifted, far apart and unequal in spread; 2 and 6
tasks):

    interval                                  3 runs        5 runs        10 runs
    `mean_interval`, one task                 95.0          95.0          95.0
    `trimmed_interval` (IQM), one task        95.0          93.7          94.2
    `pooled_mean_interval`                    95.5-96.4     95.2-95.6     94.7-95.1
    `iqm_interval`, pooled                    94.0-97.2     94.4-96.5     94.4-95.7
    the same, plain percentile bootstrap      83.6-87.8     89.2-91.5     91.9-93.4
    `probability_of_improvement`              90.0-97.2     94.4-96.6     94.8-96.7

Sources: Agarwal et al. 2021, arXiv:2108.13264 (IQM, stratified bootstrap, profiles); Tukey & McLaughlin 1963
and Yuen 1974 (interval of a trimmed mean); Satterthwaite 1946 (degrees of freedom); Newcombe 2006, Stat. Med.
25:559, method 5, on the variance of Hanley & McNeil 1982 (interval of P(X > Y)).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]

TOO_FEW = "an interval needs at least 2 runs"
ALL_EQUAL = "the runs are all equal"


@dataclass(frozen=True, eq=False)
class Estimate:
    """A value and its interval in the unit of the data; arrays (...) where the data came in batches (..., n).

    `low` and `high` are None where no interval exists, and `reason` then says why. An interval of zero width
    is only ever the answer to runs that are all equal, and `reason` says so.
    """

    value: FloatArray
    low: FloatArray | None
    high: FloatArray | None
    reason: str = ""


def _runs(x: ArrayLike, name: str) -> FloatArray:
    """Check the values of one task once, shape (..., n) with n >= 1, all finite."""
    values = np.asarray(x, dtype=np.float64)
    if values.ndim == 0 or values.shape[-1] == 0:
        raise ValueError(
            f"{name}: expected at least one run on the last axis, got shape {values.shape}; "
            "leave out tasks and algorithms that have no finished run"
        )
    if not np.isfinite(values).all():
        bad = int((~np.isfinite(values)).sum())
        raise ValueError(
            f"{name}: expected finite values, got {bad} of {values.size} NaN or infinite; "
            "drop diverged runs first and report how many there were"
        )
    return values


def _tasks(tasks: Sequence[ArrayLike], name: str) -> list[FloatArray]:
    """Check a sequence of tasks, each of shape (..., n_k)."""
    if len(tasks) == 0:
        raise ValueError(f"{name}: expected at least one task, got none; give one array of runs per task")
    return [_runs(task, f"{name}[{k}]") for k, task in enumerate(tasks)]


def _check_level(level: float) -> None:
    if not 0.0 < level < 1.0:
        raise ValueError(f"level: expected a number between 0 and 1, got {level}; 0.95 is 95 %")


def _t_quantile(level: float, df: FloatArray | float) -> FloatArray:
    from scipy.special import stdtrit

    return np.asarray(stdtrit(df, 0.5 + level / 2), dtype=np.float64)


def _z_quantile(level: float) -> float:
    from scipy.special import ndtri

    return float(ndtri(0.5 + level / 2))


def _centred(value: FloatArray, half: FloatArray) -> Estimate:
    reason = ALL_EQUAL if half.ndim == 0 and half == 0 else ""
    return Estimate(value, np.asarray(value - half), np.asarray(value + half), reason)


def iqm(x: ArrayLike, convention: Literal["trim", "quartile"] = "trim") -> FloatArray:
    """Interquartile mean over the last axis, shape (..., n) -> (...), in the unit of `x`.

    "trim", the default and what rliable reports: drop floor(n / 4) values at each end and average the rest
    (`scipy.stats.trim_mean(x, 0.25)`). It always averages at least half of the values and is smooth under
    resampling. "quartile", STAC's (specs/stac.md): the mean of the values between the linearly interpolated
    quartiles, both boundaries included. Both give 4.5 for 1..8; they differ where n is not a multiple of 4
    (0, 0, 4: 4/3 against 0).
    """
    values = _runs(x, "x")
    if convention == "trim":
        cut = values.shape[-1] // 4
        return np.asarray(np.sort(values, axis=-1)[..., cut : values.shape[-1] - cut].mean(axis=-1))
    if convention == "quartile":
        low, high = np.quantile(values, [0.25, 0.75], axis=-1, keepdims=True)
        inside = (values >= low) & (values <= high)
        return np.asarray(np.where(inside, values, 0.0).sum(axis=-1) / inside.sum(axis=-1))
    raise ValueError(f"convention: expected 'trim' or 'quartile', got {convention!r}; 'trim' is rliable's")


def window_iqm(evaluations: ArrayLike) -> float:
    """The table statistic of STAC's authors (Ozalp, arXiv 2601.00737): IQM of the last evaluations, all runs pooled.

    The window is the last floor(0.02 n) + 1 of n evaluations, which gives the published numbers (the paper calls it
    the last 1 %); quartiles are linear, their values included. Runs are pooled, so failed stretches are dropped and
    the number lies above a mean over runs; there is no interval, because the numbers are not independent.

    Args:
        evaluations: (runs, n), in order.

    Raises:
        ValueError: no run or no evaluation, a value that is not finite.
    """
    table = np.asarray(evaluations, np.float64)
    if table.ndim != 2 or table.size == 0 or not np.isfinite(table).all():
        raise ValueError(f"evaluations: expected finite numbers (runs, n), both from 1, got shape {table.shape}")
    # n // 50 is floor(0.02 n) without the rounding of 0.02.
    return float(iqm(table[:, -(table.shape[1] // 50 + 1) :].reshape(-1), "quartile"))


def mean_interval(x: ArrayLike, level: float = 0.95) -> Estimate:
    """Mean of one task and Student's t interval over the last axis of `x` (..., n); none for one run."""
    return pooled_mean_interval([x], level)


def pooled_mean_interval(tasks: Sequence[ArrayLike], level: float = 0.95) -> Estimate:
    """Mean of the task means (tasks weigh the same), with tasks fixed and runs random; tasks (..., n_k).

    The variance is the sum of the tasks' own, the degrees of freedom are Satterthwaite's, so one task is
    Student's t. Any task with a single run leaves its share of the variance unknown: the value comes without
    an interval.
    """
    _check_level(level)
    values = _tasks(tasks, "tasks")
    count = len(values)
    mean = np.asarray(sum(task.mean(axis=-1) for task in values) / count, dtype=np.float64)
    if min(task.shape[-1] for task in values) < 2:
        return Estimate(mean, None, None, TOO_FEW if count == 1 else f"{TOO_FEW} in every task")
    share = [task.var(axis=-1, ddof=1) / task.shape[-1] / count**2 for task in values]
    total = np.asarray(sum(share))
    df = _satterthwaite(share, [task.shape[-1] for task in values])
    return _centred(mean, np.asarray(_t_quantile(level, df) * np.sqrt(total)))


def _satterthwaite(share: Sequence[FloatArray], runs: Sequence[int], correction: int = 0) -> FloatArray:
    """Degrees of freedom of a sum of independent variance estimates `share` (...), each with runs - 1.

    `correction` 0 is the classical plug-in, 2 puts unbiased estimates into numerator and denominator (the
    square of a variance estimate with f degrees of freedom is too large by (f + 2) / f). With one task both
    are runs - 1.
    """
    # In units of the largest: squares of tiny shares underflow, and 0/0 (all runs equal) must not warn.
    largest = np.maximum(np.max(share, axis=0), np.finfo(np.float64).tiny)
    scaled = [part / largest for part in share]
    total = np.asarray(sum(scaled))
    squares = np.asarray(sum(part**2 / (n - 1 + correction) for part, n in zip(scaled, runs, strict=True)))
    pooled = float(sum(runs) - len(runs))
    found = total**2 / np.where(squares > 0, squares, 1.0) - correction
    return np.asarray(np.where(squares > 0, np.minimum(found, pooled), pooled))


def trimmed_interval(x: ArrayLike, level: float = 0.95) -> Estimate:
    """IQM ("trim") of one task and the Tukey-McLaughlin/Yuen interval, over the last axis of `x` (..., n).

    Standard error from the Winsorised sample, Student's t with h - 1 degrees of freedom, h = n - 2 floor(n /
    4) the values kept. Up to three runs nothing is trimmed and it is Student's t interval. With four runs h
    is 2: the interval covers, and is three times as wide as the mean's; with five, 1.4 times. That is the
    price of trimming.
    """
    _check_level(level)
    values = np.sort(_runs(x, "x"), axis=-1)
    n = values.shape[-1]
    value = iqm(values)
    if n < 2:
        return Estimate(value, None, None, TOO_FEW)
    cut = n // 4
    kept = n - 2 * cut
    winsorised = np.clip(values, values[..., cut, None], values[..., n - cut - 1, None])
    squares = (n - 1) * winsorised.var(axis=-1, ddof=1)
    return _centred(value, np.asarray(_t_quantile(level, kept - 1.0) * np.sqrt(squares / (kept * (kept - 1)))))


def iqm_interval(
    tasks: Sequence[ArrayLike], rng: np.random.Generator, level: float = 0.95, samples: int = 5000
) -> Estimate:
    """IQM ("trim") of all tasks' runs together, as rliable pools them, and its interval; tasks (..., n_k).

    Runs are resampled within each task (`rng`, `samples` times; a batch shares its resamples) and percentiles
    taken, with two corrections without which three runs a task cover 84 to 88 % and not 95 %. A resample of n
    values has (n - 1)/n of their variance: its deviations from the task's mean are stretched by sqrt(n / (n -
    1)). And the spread itself is an estimate: the percentiles' distances from the value are multiplied by t /
    z, with Satterthwaite's degrees of freedom of the Winsorised variances (moments corrected: the classical
    ones cover 96 to 98 % at three runs). One task is `trimmed_interval`, which needs no resampling. A task
    weighs by its runs: where these differ (diverged runs), tasks with more runs count more.
    """
    _check_level(level)
    if samples < 100:
        raise ValueError(
            f"samples: expected at least 100 resamples for percentiles, got {samples}; 2000 or more is usual"
        )
    values = _tasks(tasks, "tasks")
    if len(values) == 1:
        return trimmed_interval(values[0], level)
    value = iqm(np.concatenate(values, axis=-1))
    runs = [task.shape[-1] for task in values]
    if min(runs) < 2:
        return Estimate(value, None, None, f"{TOO_FEW} in every task")
    resampled = []
    for task, n in zip(values, runs, strict=True):
        mean = task.mean(axis=-1)[..., None, None]
        drawn = task[..., rng.integers(0, n, size=(samples, n))]
        resampled.append(mean + np.sqrt(n / (n - 1)) * (drawn - mean))
    low, high = np.quantile(iqm(np.concatenate(resampled, axis=-1)), [0.5 - level / 2, 0.5 + level / 2], axis=-1)
    total = sum(runs)
    ordered = np.sort(np.concatenate(values, axis=-1), axis=-1)
    bounds = ordered[..., total // 4, None], ordered[..., total - total // 4 - 1, None]
    share = [n * np.clip(task, *bounds).var(axis=-1, ddof=1) for task, n in zip(values, runs, strict=True)]
    stretch = _t_quantile(level, _satterthwaite(share, runs, correction=2)) / _z_quantile(level)
    # A skewed resampling distribution may leave the value outside its percentiles; the interval holds it.
    low = np.minimum(value + stretch * (low - value), value)
    high = np.maximum(value + stretch * (high - value), value)
    reason = ALL_EQUAL if value.ndim == 0 and low == high else ""
    return Estimate(value, np.asarray(low), np.asarray(high), reason)


def _improvement_variance(theta: FloatArray, m: int, n: int) -> FloatArray:
    """Variance of the Mann-Whitney estimate of P(X > Y) = theta from m and n runs (Hanley & McNeil)."""
    pairs = (m + n) / 2 - 1
    shape = 1 + pairs * (1 - theta) / (2 - theta) + pairs * theta / (1 + theta)
    return np.asarray(theta * (1 - theta) * shape / (m * n))


def probability_of_improvement(x: Sequence[ArrayLike], y: Sequence[ArrayLike], level: float = 0.95) -> Estimate:
    """P(a run of x beats one of y) on a task, ties half, averaged over tasks; x and y hold (..., n_k) a task.

    The interval is Newcombe's score interval: the values theta whose own standard error puts them within z of
    the estimate. The variance is that of every task at the average theta; it is concave in theta but for a
    trace at 0 and 1, so tasks that differ make the interval wider than need be, not narrower. Unlike the
    bootstrap (zero width in 62 % of samples with three runs two standard deviations apart, covering 38 %), it
    never has zero width. With three runs a side and one task there are ten possible answers and no 95 %
    interval: it then covers 90 to 97 %.
    """
    _check_level(level)
    first, second = _tasks(x, "x"), _tasks(y, "y")
    if len(first) != len(second):
        raise ValueError(
            f"y: expected the {len(first)} tasks of x in the same order, got {len(second)}; compare on common tasks"
        )
    count = len(first)
    sizes = [(a.shape[-1], b.shape[-1]) for a, b in zip(first, second, strict=True)]
    per_task = []
    for a, b in zip(first, second, strict=True):
        left, right = a[..., :, None], b[..., None, :]
        per_task.append(((left > right) + 0.5 * (left == right)).mean(axis=(-1, -2)))
    value = np.asarray(sum(per_task) / count, dtype=np.float64)
    if min(min(size) for size in sizes) < 2:
        return Estimate(value, None, None, TOO_FEW if count == 1 else f"{TOO_FEW} in every task")
    z = _z_quantile(level)
    ends = []
    for end in (0.0, 1.0):
        inside, outside = value, np.full_like(value, end)
        for _ in range(60):
            middle = (inside + outside) / 2
            variance = sum(_improvement_variance(middle, m, n) for m, n in sizes) / count**2
            near = np.abs(middle - value) <= z * np.sqrt(variance)
            inside, outside = np.where(near, middle, inside), np.where(near, outside, middle)
        ends.append(np.asarray(inside))
    return Estimate(value, ends[0], ends[1])


def performance_profile(
    tasks: Sequence[ArrayLike],
    thresholds: ArrayLike,
    rng: np.random.Generator,
    level: float = 0.95,
    samples: int = 2000,
) -> Estimate:
    """Fraction of runs above each threshold, averaged over tasks; tasks (n_k,), thresholds (m,) -> (m,).

    The band is pointwise: runs are resampled within tasks, deviations stretched by sqrt(n / (n - 1)),
    percentiles taken and clipped to [0, 1]. Where all runs lie on one side of a threshold it has no width, as
    rliable's: read it as a picture, and a difference off the table.
    """
    _check_level(level)
    values = _tasks(tasks, "tasks")
    levels = np.asarray(thresholds, dtype=np.float64)
    if levels.ndim != 1 or levels.size == 0 or any(task.ndim != 1 for task in values):
        raise ValueError(
            f"thresholds: expected a vector, and a vector of runs per task, got shapes {levels.shape} and "
            f"{[task.shape for task in values]}; profiles take no batches"
        )
    above = [(task[:, None] > levels).astype(np.float64) for task in values]
    value = np.asarray(sum(task.mean(axis=0) for task in above) / len(above))
    runs = [task.shape[0] for task in above]
    if min(runs) < 2:
        return Estimate(value, None, None, TOO_FEW if len(runs) == 1 else f"{TOO_FEW} in every task")
    deviation = np.zeros((samples, levels.size))
    for task, n in zip(above, runs, strict=True):
        drawn = rng.multinomial(n, np.full(n, 1 / n), size=samples) / n @ task
        deviation += np.sqrt(n / (n - 1)) * (drawn - task.mean(axis=0)) / len(above)
    low, high = np.quantile(value + deviation, [0.5 - level / 2, 0.5 + level / 2], axis=0)
    return Estimate(value, np.clip(np.minimum(low, value), 0, 1), np.clip(np.maximum(high, value), 0, 1))
