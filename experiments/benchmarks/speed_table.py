"""How the speed benchmark measures, and its one table.

Every round measures all contestants of a group in turn, so a machine that drifts drifts for all; a ratio is the median
over rounds of the quotient of two contestants' speeds in the same round. Speeds are run-updates (bandits: run-rounds) a
processor second on a CPU, a wall second on CUDA.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from experiments.report import markdown_table, number
from orbs import __version__

__all__ = ["Contestant", "Measured", "Settings", "compare", "rate", "ratios", "summary", "timed"]


@dataclass(frozen=True)
class Settings:
    """How much is measured."""

    rows: int = 400_000
    rounds: int = 15
    warm_up: int = 2000
    length: float = 1.0  # of a round, 1: about a second a contestant
    device: str = "cpu"
    rivals: Path | None = None
    rival_rounds: int = 3
    rival_seconds: float = 10.0  # of each algorithm of theirs in a round


@dataclass(frozen=True)
class Contestant:
    """`update(n)` makes n updates of each of `runs` runs; a round measures `updates` of them (at length 1)."""

    name: str
    update: Callable[[int], None]
    updates: int
    runs: int = 1


@dataclass
class Measured:
    """What a group has measured: rows of speed.csv, lines of the table (contestant, whom it stands beside), notes."""

    rows: list[dict[str, Any]]
    pairs: list[tuple[str, str]]
    notes: list[str] = field(default_factory=list)

    @property
    def frame(self) -> pd.DataFrame:
        return pd.DataFrame(self.rows)


def rate(update: Callable[[int], None], n: int, runs: int, device: str) -> float:
    """Run-updates a second."""
    if device == "cpu":
        began = time.process_time()
        update(n)
        return n * runs / (time.process_time() - began)
    torch.cuda.synchronize()
    wall = time.perf_counter()
    update(n)
    torch.cuda.synchronize()
    return n * runs / (time.perf_counter() - wall)


def timed(
    data: str, index: int, name: str, speed: float, runs: int = 1, unit: str = "run-updates", version: str = ""
) -> dict[str, Any]:
    """A row of speed.csv; `version` is that of the contestant's own package, the suite's unless another is given."""
    row = {"data": data, "round": index, "contestant": name, "runs": runs, "per_second": speed, "unit": unit}
    return row | {"version": version or f"orbs {__version__}"}


def compare(contestants: Sequence[Contestant], data: str, settings: Settings) -> list[dict[str, Any]]:
    """Warm all up, then measure them turn by turn: a row a round and contestant."""
    counts = {one.name: max(1, round(one.updates * settings.length)) for one in contestants}
    for one in contestants:
        one.update(max(counts[one.name] // 4, 1))
    rows = []
    for index in range(settings.rounds):
        for one in contestants:
            speed = rate(one.update, counts[one.name], one.runs, settings.device)
            rows.append(timed(data, index, one.name, speed, one.runs))
    return rows


def ratios(frame: pd.DataFrame, numerator: str, denominator: str) -> tuple[float, float, float]:
    """Median, minimum and maximum over rounds of the quotient of two contestants' speeds."""
    wide = frame.pivot_table(index="round", columns="contestant", values="per_second")
    quotient = wide[numerator] / wide[denominator]
    return float(quotient.median()), float(quotient.min()), float(quotient.max())


def summary(measured: Mapping[tuple[str, str], Measured]) -> list[str]:
    """Lines of the table: {(group, data): what it measured}."""
    lines, notes = [], []
    for (group, data), found in measured.items():
        frame = found.frame
        medians = frame.groupby("contestant")["per_second"].median()
        units = frame.groupby("contestant")["unit"].first()
        for numerator, denominator in found.pairs:
            middle, low, high = ratios(frame, numerator, denominator)
            lines.append({
                "group": group, "data": data, "contestant": numerator, "a second": number(medians[numerator]),
                "beside": denominator, "its": number(medians[denominator]), "of": units[numerator],
                "ratio": number(middle), "min": number(low), "max": number(high),
            })  # fmt: skip
        notes += [f"- {data}, {note}" for note in found.notes]
    return [*markdown_table(lines), *(["", *notes] if notes else [])]
