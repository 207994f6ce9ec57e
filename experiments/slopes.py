"""How fast regret grows: the power of the round, and the regret that an e-fold of rounds adds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from experiments import statistics
from experiments.statistics import Estimate, FloatArray

__all__ = ["Slopes", "slopes"]

POINTS = 3


@dataclass(frozen=True)
class Slopes:
    """Slopes of log regret on log round, and of regret on ln(round); `of`: "runs" or "mean" (see the module)."""

    power: Estimate | None
    efold: Estimate
    per_run: tuple[FloatArray | None, FloatArray]
    of: str
    first: int


def slopes(rounds: FloatArray, values: FloatArray, decades: float = 1.0) -> Slopes | None:
    """Slopes over the last decades of rounds; None where there are fewer than three points.

    Args:
        rounds: (n,) increasing; values: (n, runs) regret, finite.
    """
    for span in (decades, 2 * decades):
        late = rounds >= rounds[-1] / 10**span * (1 - 1e-9)
        if late.sum() >= POINTS:
            break
    else:
        return None
    x, y = np.log(rounds[late]), values[late]
    centred = (x - x.mean()) / ((x - x.mean()) ** 2).sum()
    per_efold = centred @ y
    first = int(rounds[late][0])
    efold = statistics.mean_interval(per_efold)
    if (y > 0).all():
        per_run = centred @ np.log(y)
        return Slopes(statistics.mean_interval(per_run), efold, (per_run, per_efold), "runs", first)
    mean = y.mean(axis=1)
    if (mean <= 0).any():
        return Slopes(None, efold, (None, per_efold), "", first)
    count = y.shape[1]
    value = centred @ np.log(mean)
    left_out = (y.sum(axis=1, keepdims=True) - y) / max(count - 1, 1)
    if count < 2 or (left_out <= 0).any():
        return Slopes(
            Estimate(np.asarray(value), None, None, statistics.TOO_FEW), efold, (None, per_efold), "mean", first
        )
    # Pseudo-values of the jackknife: their mean is the estimate less its bias, their spread its standard error.
    pseudo = count * value - (count - 1) * (centred @ np.log(left_out))
    return Slopes(statistics.mean_interval(pseudo), efold, (None, per_efold), "mean", first)
