"""Published scores, each with its source: what papers and other code bases report on D4RL, to stand beside ours.

They were measured on D4RL's own data in D4RL's own simulator; ours, elsewhere, are not claimed to equal them. "Last"
and "best" scores of one source differ a lot and are never to be compared with each other; the source says which it is.
"""

from __future__ import annotations

import csv
import dataclasses
import difflib
import functools
from pathlib import Path

__all__ = ["Published", "find", "key", "scores", "table"]


@dataclasses.dataclass(frozen=True)
class Published:
    """One published number.

    Attributes:
        algorithm, dataset: as the source names them.
        mean, std: normalised score; std None where the source gives none.
        source: paper or repository, and the table.
    """

    algorithm: str
    dataset: str
    mean: float
    std: float | None
    source: str


@functools.cache
def scores() -> tuple[Published, ...]:
    """All of them, in the file's order."""
    with open(Path(__file__).parent / "data" / "published_scores.csv", encoding="utf-8", newline="") as file:
        return tuple(
            Published(
                row["algorithm"],
                row["dataset"],
                float(row["mean"]),
                float(row["std"]) if row["std"] else None,
                row["source"],
            )
            for row in csv.DictReader(file)
        )


def key(name: str) -> str:
    """A name as it is compared: "TD3+BC", "td3-bc" and "td3bc" are one."""
    return "".join(letter for letter in name.lower() if letter.isalnum() or letter == "%")


def find(algorithm: str | None = None, dataset: str | None = None) -> list[Published]:
    """The numbers of an algorithm on the datasets whose names begin like `dataset`; None for all.

    Raises:
        ValueError: nothing is published under that name here; the error suggests the nearest.
    """
    found = list(scores())
    if algorithm is not None:
        names = {key(one.algorithm): one.algorithm for one in found}
        found = [one for one in found if key(one.algorithm) == key(algorithm)]
        if not found:
            raise ValueError(_unknown("ALGORITHM", algorithm, sorted(names.values()), names))
    if dataset is not None:
        names = {one.dataset: one.dataset for one in found}
        found = [one for one in found if one.dataset.startswith(dataset)]
        if not found:
            whose = f" of {algorithm}" if algorithm else ""
            raise ValueError(_unknown(f"DATASET{whose}", dataset, sorted(names), names))
    return found


def _unknown(field: str, given: str, shown: list[str], names: dict[str, str]) -> str:
    near = difflib.get_close_matches(given if given in names else key(given), names, n=1, cutoff=0.4)
    near = near or difflib.get_close_matches(given, names, n=1, cutoff=0.4)
    hint = f"did you mean '{names[near[0]]}'? " if near else ""
    return f"{field}: expected one with published scores, got '{given}'. Fix: {hint}there are {', '.join(shown)}."


def table(found: list[Published]) -> str:
    """Lines for people: a number with its deviation, then its source."""
    width = max(len(one.dataset) for one in found)
    lines = []
    for one in found:
        spread = f" ± {one.std:g}" if one.std is not None else ""
        lines.append(f"{one.algorithm:8s}  {one.dataset:{width}s}  {f'{one.mean:g}{spread}':>14s}   {one.source}")
    return "\n".join(lines)
