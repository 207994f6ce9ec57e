"""The guard on speed: a few ratios against the plain eager baselines, kept in a file and measured again.

Ratios, never seconds: both sides of one run on the same core in the same second. Few rows and short rounds, half a
minute in all; a group in which a ratio has dropped is measured once more before it counts.
"""

from __future__ import annotations

import json
import platform
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from experiments.benchmarks.speed_learners import LEARNERS, transitions
from experiments.benchmarks.speed_table import Settings, ratios
from experiments.results import write_text
from experiments.run_folder import machine
from orbs import reject

__all__ = ["check", "keep", "measure"]

KIND, GROUPS = "HalfCheetah", ("td3bc", "odice")
SHORT = Settings(rows=20_000, rounds=11, warm_up=50, length=0.15)
SHARE = 2 / 3  # of a kept ratio; less is an error
REPEATS = 3


def measure(groups: Sequence[str] = GROUPS, settings: Settings = SHORT) -> dict[str, float]:
    """{"NUMERATOR / DENOMINATOR": median ratio of run-updates a second}"""
    data = transitions(KIND, settings.rows)
    found = {}
    for group in groups:
        measured = LEARNERS[group](data, KIND, settings)
        for pair in measured.pairs:
            found[" / ".join(pair)] = ratios(measured.frame, *pair)[0]
    return found


def keep(path: Path) -> dict[str, float]:
    """Measure several times, write the medians and what they were measured with."""
    several = [measure() for _ in range(REPEATS)]
    found = {pair: round(statistics.median(one[pair] for one in several), 3) for pair in several[0]}
    facts: dict[str, Any] = {
        "what": f"run-updates a second over the plain eager baseline's, {KIND}-type data, {SHORT.rows} rows",
        "command": "python -m experiments.benchmarks.speed --keep FILE",
        "machine": machine(),
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "ratios": found,
    }
    write_text(path, json.dumps(facts, indent=2) + "\n")
    return found


def check(path: Path) -> tuple[list[str], list[str]]:
    """Lines that say what was measured, and those of the ratios that have dropped by more than a third, twice.

    Raises:
        ValueError: a file without ratios, or one that holds a ratio that is not measured.
    """
    facts = json.loads(path.read_text())
    kept = facts.get("ratios") if isinstance(facts, dict) else None
    if not kept:
        reject("--guard", 'a file with "ratios"', path, "write one with --keep")
    now = measure()
    unknown = [pair for pair in kept if pair not in now]
    if unknown:
        reject("--guard", f"ratios that are measured ({', '.join(now)})", ", ".join(unknown), "write it with --keep")
    low = [pair for pair, ratio in kept.items() if now[pair] < SHARE * ratio]
    if low:
        again = measure([group for group in GROUPS if any(pair.endswith(f" / plain {group}") for pair in low)])
        now |= {pair: max(now[pair], ratio) for pair, ratio in again.items()}
    lines = [f"{pair}: {now[pair]:.2f}, was {ratio:.2f}" for pair, ratio in kept.items()]
    return lines, [line for line, (pair, ratio) in zip(lines, kept.items(), strict=True) if now[pair] < SHARE * ratio]
