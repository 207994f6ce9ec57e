"""Datasets that ship with the suite, under `local/`.

local/pendulum-medium-replay-v0: everything that a Soft Actor-Critic agent met on Pendulum-v1 while it learned from
scratch, stopped when its latest episodes were good. Made by `python -m envs.collect replay` (see `envs/collect.py`;
the file's attributes hold the command, the seed and the versions).
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from envs.datasets.references import PENDULUM, Reference

__all__ = ["ENTRIES", "LocalEntry"]

_DATA = Path(__file__).parent / "data"


@dataclasses.dataclass(frozen=True)
class LocalEntry:
    """A shipped file, the environment it is evaluated on, and its reference returns."""

    path: Path
    env_id: str
    reference: Reference


ENTRIES: dict[str, LocalEntry] = {
    "local/pendulum-medium-replay-v0": LocalEntry(
        path=_DATA / "pendulum-medium-replay-v0.hdf5", env_id="Pendulum-v1", reference=PENDULUM
    ),
}
