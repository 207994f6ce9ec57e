"""What is known of a downloaded file: its size and SHA-256, kept beside it as `<name>.json`.

The record is made at the first download, or at first sight for a file that was put there by hand. Every later call
of `compare` looks at the size and the time of change, and reads the file where the time moved (a second per
gigabyte, which is too much for every load); `verify` reads it always.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
from pathlib import Path
from typing import Any, NoReturn

from orbs import reject, write_atomically

__all__ = ["Record", "beside", "compare", "confirm", "digest", "read_json", "record", "recorded", "verify"]


@dataclasses.dataclass(frozen=True)
class Record:
    """What is known of a file.

    Attributes:
        url: where it came from; None for a file that was put there by hand.
        size: bytes.
        sha256: of the bytes.
        mtime_ns: the file's time of change when it was last compared with `sha256`.
    """

    url: str | None
    size: int
    sha256: str
    mtime_ns: int


def compare(path: Path) -> Path:
    """`path`, after a look whether the file is still the recorded one; makes the record if there is none.

    Raises:
        ValueError: the file differs from its record.
    """
    known, state = recorded(path), path.stat()
    if known is None:
        if os.access(path.parent, os.W_OK):  # else every call would read the whole file for nothing
            record(path, digest(path), None)
        return path
    if known.size != state.st_size:
        _reject_changed(path, known, f"{state.st_size} bytes")
    if known.mtime_ns != state.st_mtime_ns:
        verify(path)
    return path


def verify(path: Path) -> Record:
    """Compare the SHA-256 of all bytes with the record, now; a file without a record gets one.

    Raises:
        ValueError: the file is missing, or differs from its record.
    """
    if not path.is_file():
        reject("file", "an existing file", path, "download it, or put it there")
    known, found = recorded(path), digest(path)
    size = path.stat().st_size
    if known is not None and (known.size, known.sha256) != (size, found):
        _reject_changed(path, known, f"{size} bytes with SHA-256 {found}")
    return record(path, found, known.url if known else None)


def confirm(path: Path, sha256: str) -> None:
    """Compare a SHA-256 that somebody has just read with the record, if there is one.

    Raises:
        ValueError: they differ.
    """
    known = recorded(path)
    if known is not None and known.sha256 != sha256:
        _reject_changed(path, known, f"{path.stat().st_size} bytes with SHA-256 {sha256}")


def recorded(path: Path) -> Record | None:
    """The record of a file, or None if there is none that can be read. The file itself need not exist."""
    found = read_json(beside(path, ".json"))
    try:
        return Record(found.get("url"), int(found["size"]), str(found["sha256"]), int(found["mtime_ns"]))
    except (KeyError, TypeError, ValueError):
        return None


def record(path: Path, sha256: str, url: str | None) -> Record:
    """Write the record of a file that is there; in a folder that cannot be written to, only return it."""
    state = path.stat()
    made = Record(url, state.st_size, sha256, state.st_mtime_ns)
    if made != recorded(path):
        with contextlib.suppress(OSError):  # a shared folder may be read-only: its files still serve
            write_atomically(beside(path, ".json"), json.dumps(dataclasses.asdict(made), indent=1) + "\n")
    return made


def beside(path: Path, ending: str) -> Path:
    """`path` with `ending` after its whole name."""
    return path.with_name(path.name + ending)


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; empty if there is none that can be read."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def digest(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _reject_changed(path: Path, known: Record, given: str) -> NoReturn:
    fix = (
        "it is damaged, or another file: delete it and call again; if the change is meant, delete the record "
        f"{beside(path, '.json')}"
    )
    reject(f"file {path}", f"{known.size} bytes with SHA-256 {known.sha256}, as recorded", given, fix)
