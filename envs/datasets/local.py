"""Datasets that anybody makes on their own machine, by D4RL's protocol, under `local/<env>-<quality>-v0`.

Qualities, as D4RL names them:

    random          uniformly random actions
    medium          sampled actions of a policy stopped at about a third of an expert's score
    medium-replay   everything that policy saw while it learned
    medium-expert   the rows of medium, then those of expert
    expert          sampled actions of the best policy that was trained, if it scores at least 85
    strong          the same where it scores less; there is then medium-strong, and no expert

The policies ship with the suite (`envs.behaviours`); `envs.datasets.generate` makes the rows from a fixed seed, the
first time that a set is loaded, and keeps them in $ORBS_DATASET_DIR or ~/.cache/orbs/datasets. `sets.json` states
what each set must look like: its checksum, the platform that gave it, its mean return and each column's moments.
Only local/pendulum-medium-replay-v0 is shipped whole (400 KB; `python -m envs.collect replay` makes it).
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from envs.datasets.references import Reference, reference_scores

__all__ = ["ENTRIES", "QUALITIES", "LocalSet", "cache_folder", "expected", "place"]

QUALITIES = ("random", "medium", "medium-replay", "medium-expert", "expert", "medium-strong", "strong")
_DATA = Path(__file__).parent / "data"
_TASKS = {"pendulum": "Pendulum-v1", "hopper": "Hopper-v4", "halfcheetah": "HalfCheetah-v4", "walker2d": "Walker2d-v4"}
_ROWS = {"pendulum": 100_000, "hopper": 1_000_000, "halfcheetah": 1_000_000, "walker2d": 1_000_000}
_SEEDS = {"random": 101, "medium": 102, "expert": 103, "strong": 103}
_BEST = {"pendulum": "expert", "hopper": "expert", "halfcheetah": "strong", "walker2d": "strong"}
_SHIPPED = {"local/pendulum-medium-replay-v0": _DATA / "pendulum-medium-replay-v0.hdf5"}


@dataclasses.dataclass(frozen=True)
class LocalSet:
    """One local dataset.

    Attributes:
        name: local/<task>-<quality>-v0.
        task, quality: the two parts of the name.
        env_id: Gymnasium id that made it and that scores it.
        rows: how many it has, or None where the training decides (medium-replay).
        seed: of its episodes.
        reference: returns that count as 0 and 100.
        shipped: the file, where it comes with the suite.
    """

    name: str
    task: str
    quality: str
    env_id: str
    rows: int | None
    seed: int
    reference: Reference
    shipped: Path | None = None

    @property
    def behaviours(self) -> tuple[str, ...]:
        """The shipped policies that it needs."""
        return tuple(f"{self.task}-{part}" for part in _PARTS.get(self.quality, ()))

    @property
    def halves(self) -> tuple[str, ...]:
        """The names of the two sets that it is made of, in order; empty for other sets."""
        if self.quality not in ("medium-expert", "medium-strong"):
            return ()
        return tuple(f"local/{self.task}-{part}-v0" for part in _PARTS[self.quality])


_PARTS = {
    "medium": ("medium",),
    "medium-replay": ("medium",),
    "expert": ("expert",),
    "strong": ("strong",),
    "medium-expert": ("medium", "expert"),
    "medium-strong": ("medium", "strong"),
}


def _entries() -> dict[str, LocalSet]:
    found = {}
    for task, env_id in _TASKS.items():
        reference = reference_scores(env_id)
        assert reference is not None
        best = _BEST[task]
        for quality in ("random", "medium", "medium-replay", f"medium-{best}", best):
            name = f"local/{task}-{quality}-v0"
            rows = {"medium-replay": None, f"medium-{best}": 2 * _ROWS[task]}.get(quality, _ROWS[task])
            seed = _SEEDS.get(quality, 0)
            found[name] = LocalSet(name, task, quality, env_id, rows, seed, reference, _SHIPPED.get(name))
    return found


ENTRIES: Mapping[str, LocalSet] = _entries()


def cache_folder() -> Path:
    """Where sets are kept: $ORBS_DATASET_DIR or ~/.cache/orbs/datasets."""
    return Path(os.environ.get("ORBS_DATASET_DIR") or Path.home() / ".cache/orbs/datasets")


def place(name: str) -> Path:
    """The file of a set, whether it exists or not."""
    entry = ENTRIES[name]
    return entry.shipped or cache_folder() / f"{name.removeprefix('local/')}.hdf5"


@functools.cache
def _table() -> dict[str, Any]:
    path = _DATA / "sets.json"
    table: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return table


def expected(name: str) -> dict[str, Any] | None:
    """What `sets.json` states of a set: checksum, platform, moments and bounds; None for a shipped file."""
    stated: dict[str, Any] | None = _table().get(name)
    return stated
