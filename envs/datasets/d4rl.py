"""The datasets of D4RL by name: 155 of them, 147 with reference returns.

Names, addresses, reference returns and step limits stand in `d4rl.csv`, as in the tables and registrations of the
d4rl package 1.1 (https://github.com/Farama-Foundation/D4RL). A file is kept where that package keeps it: under the
last part of its address, in $D4RL_DATASET_DIR or ~/.d4rl/datasets. All 155 of these are different.
"""

from __future__ import annotations

import csv
import dataclasses
import difflib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

import numpy as np

from envs.datasets import download, records
from orbs import reject

__all__ = [
    "ENTRIES",
    "Entry",
    "Status",
    "entry",
    "fetch",
    "folder",
    "names",
    "normalized_score",
    "place",
    "status",
    "verify",
]


@dataclasses.dataclass(frozen=True)
class Entry:
    """One dataset.

    Attributes:
        name: D4RL's, for example hopper-medium-v2.
        minimum, maximum: returns that count as 0 and 100, or None (8 datasets have none).
        step_limit: the environment's, by which the d4rl package cuts files without time-outs.
        url: D4RL's address of the file.
    """

    name: str
    minimum: float | None
    maximum: float | None
    step_limit: int
    url: str

    @property
    def file_name(self) -> str:
        return self.url.rpartition("/")[2]


@dataclasses.dataclass(frozen=True)
class Status:
    """What lies on the disk of one dataset.

    Attributes:
        name, url: the dataset and its address.
        path: the place of the file, whether it is there or not.
        size: its bytes, or None if it is not there.
        sha256: as recorded, or None without a record.
        partial: bytes that a broken download left.
        note: where the SHA-256 comes from, after `verify`.
    """

    name: str
    url: str
    path: Path
    size: int | None
    sha256: str | None
    partial: int
    note: str = ""

    @property
    def present(self) -> bool:
        return self.size is not None

    def sentence(self) -> str:
        """One line for people."""
        if self.size is None:
            rest = f", {self.partial} bytes of a broken download lie there" if self.partial else ""
            return f"not at {self.path}{rest}"
        return ", ".join(filter(None, (f"{self.size} bytes", self.sha256 and f"SHA-256 {self.sha256}", self.note)))


def _read_table() -> dict[str, Entry]:
    with open(Path(__file__).with_name("d4rl.csv"), encoding="utf-8", newline="") as file:
        return {
            row["dataset"]: Entry(
                row["dataset"],
                float(row["ref_min"]) if row["ref_min"] else None,
                float(row["ref_max"]) if row["ref_max"] else None,
                int(row["step_limit"]),
                row["url"],
            )
            for row in csv.DictReader(file)
        }


ENTRIES: Mapping[str, Entry] = _read_table()


def names() -> list[str]:
    """All 155 names, sorted."""
    return sorted(ENTRIES)


def entry(name: str) -> Entry:
    """The entry of a name.

    Raises:
        ValueError: there is none; the error suggests the nearest.
    """
    if name not in ENTRIES:
        near = difflib.get_close_matches(name, ENTRIES, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(repr(other) for other in near)}?" if near else "see envs.datasets.d4rl.names"
        reject("dataset", f"one of D4RL's {len(ENTRIES)} names", f"'{name}'", hint)
    return ENTRIES[name]


def folder() -> Path:
    """Where the files are: $D4RL_DATASET_DIR or ~/.d4rl/datasets, as for the d4rl package."""
    return Path(os.environ.get("D4RL_DATASET_DIR") or os.path.expanduser("~/.d4rl/datasets"))


def place(name: str) -> Path:
    """The file of a dataset, whether it is there or not."""
    return folder() / entry(name).file_name


def fetch(name: str, progress: bool = True) -> Path:
    """The file of a dataset, downloaded if it is not there. A file that is there needs no network.

    Args:
        progress: show a bar on standard error.

    Raises:
        ValueError: an unknown name; a file that is damaged or differs from its record; or one that is absent and
            cannot be downloaded, with the address, the place, and the ways to provide it.
    """
    found, path = entry(name), place(name)
    if path.is_file() and records.recorded(path) is None and (wrong := _damage(path)):
        # The d4rl package's own download leaves the first part of a file under its name when it is cut.
        reject(f"dataset '{name}'", f"a whole HDF5 file at {path}", wrong, "delete it and call again to download it")
    try:
        return download.fetch(found.url, path, progress=progress, check=_damage)
    except download.DownloadError as error:
        _reject_absent(found, path, error)


def status(name: str) -> Status:
    """What is on the disk; reads no data."""
    found, path = entry(name), place(name)
    known = records.recorded(path)
    size = path.stat().st_size if path.is_file() else None
    sha256 = known.sha256 if known and size is not None else None
    return Status(name, found.url, path, size, sha256, download.partial_size(path))


def verify(name: str) -> Status:
    """Read the whole file and compare its SHA-256 with the recorded one; a file without a record gets one.

    Raises:
        ValueError: the file is absent, or differs from its record.
    """
    path = place(name)
    if not path.is_file():
        reject(f"dataset '{name}'", f"a file at {path}", "none", "download it, or put it there")
    if wrong := _damage(path):
        reject(f"dataset '{name}'", f"a whole HDF5 file at {path}", wrong, "delete it and call again to download it")
    before = records.recorded(path)
    known = records.verify(path)
    note = "recorded now, for the first time" if before is None else "as recorded"
    return dataclasses.replace(status(name), sha256=known.sha256, note=note)


def normalized_score(name: str, returns: np.ndarray | float) -> np.ndarray:
    """100 (return - minimum) / (maximum - minimum), of the shape of `returns`. (The d4rl package's is without the 100.)

    Raises:
        ValueError: an unknown name, or a dataset without reference returns.
    """
    found = entry(name)
    if found.minimum is None or found.maximum is None:
        reject("score", "a dataset with reference returns", f"'{name}', which has none", "report raw returns")
    return 100.0 * (np.asarray(returns, np.float64) - found.minimum) / (found.maximum - found.minimum)


def _damage(path: Path) -> str | None:
    """What is wrong with an HDF5 file as a whole: not of that kind, or cut. The values are not read."""
    import h5py

    with open(path, "rb") as file:
        head = file.read(48)
    if not h5py.is_hdf5(path):
        return f"something that is not HDF5 ({path.stat().st_size} bytes, which begin with {head[:40]!r})"
    try:
        h5py.File(path, "r").close()
    except OSError as error:
        return f"a damaged HDF5 file of {path.stat().st_size} bytes ({error})"
    return None


def _reject_absent(found: Entry, path: Path, error: download.DownloadError) -> NoReturn:
    fix = (
        f"call again where {found.url} can be reached; or put the file at {path} by hand; or set D4RL_DATASET_DIR to "
        f"a folder that has {found.file_name}. The path of an HDF5 file, or the dictionary of the d4rl package's "
        "env.get_dataset(), can be loaded in place of a name"
    )
    raise ValueError(
        f"dataset '{found.name}': expected a file at {path}, or to download it there, got: {error}. Fix: {fix}."
    ) from error
