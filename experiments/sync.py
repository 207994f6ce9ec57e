"""A unit's run folder in two places: on the node that works on it, and at a target of fsspec's that outlives the node.

A checkpoint goes on from a table that knows at least its steps. So files are read checkpoint first and put in place
checkpoint last: whatever a kill leaves at either end is a state that a resume goes on from to the same bits.
"""

from __future__ import annotations

import contextlib
import shutil
import uuid
from pathlib import Path
from typing import Any

from orbs import reject

__all__ = ["Target", "file_system"]

# In the order of reading. A writer replaces each as a whole, the table before the checkpoint.
FILES = ("checkpoint.safetensors", "config.json", "metrics.parquet")


def file_system(url: str) -> tuple[Any, str]:
    """The file system behind a URL and the path in it.

    Raises:
        ValueError: no such protocol, or its package is missing.
    """
    import fsspec

    try:
        fs, root = fsspec.core.url_to_fs(url)
    except (ValueError, ImportError) as error:
        reject(
            "--sync",
            "a URL that fsspec can open, e.g. s3://bucket/folder",
            f"'{url}' ({error})",
            "install what it needs",
        )
    return fs, str(root).rstrip("/")


class Target:
    """Where a run folder is kept: `name` below the URL."""

    def __init__(self, url: str, name: str) -> None:
        self.fs, root = file_system(url)
        self.path = f"{root}/{name}"

    def pull(self, folder: Path) -> bool:
        """Copy what is there into `folder`; whether there was anything."""
        self.fs.invalidate_cache()
        parts: dict[str, Path] = {}
        try:
            for name in FILES:
                if self.fs.exists(f"{self.path}/{name}"):
                    folder.mkdir(parents=True, exist_ok=True)
                    parts[name] = folder / f".{name}.{uuid.uuid4().hex}.tmp"
                    self.fs.get_file(f"{self.path}/{name}", str(parts[name]))
            for name in reversed(FILES):
                if name in parts:
                    parts[name].replace(folder / name)
        finally:
            for part in parts.values():
                part.unlink(missing_ok=True)
        return bool(parts)

    def push(self, folder: Path) -> None:
        """Copy what `folder` has, also while a unit writes there."""
        with contextlib.ExitStack() as stack:
            # An open file stays the one that it was, whatever is renamed over it.
            opened = {}
            for name in FILES:
                with contextlib.suppress(FileNotFoundError):
                    opened[name] = stack.enter_context(open(folder / name, "rb"))
            self.fs.makedirs(self.path, exist_ok=True)
            for name in reversed(FILES):
                if name in opened:
                    part = f"{self.path}/.{name}.{uuid.uuid4().hex}.tmp"
                    with self.fs.open(part, "wb") as file:
                        shutil.copyfileobj(opened[name], file, 1 << 22)
                    self.fs.mv(part, f"{self.path}/{name}")

    def claim(self, token: str) -> None:
        """The folder is this attempt's from now on; others that still run find out by `owned`."""
        self.fs.makedirs(self.path, exist_ok=True)
        self.fs.pipe_file(f"{self.path}/.attempt", token.encode())

    def owned(self, token: str) -> bool:
        """Whether no later attempt has claimed it."""
        self.fs.invalidate_cache()
        try:
            found = self.fs.cat_file(f"{self.path}/.attempt").decode()
        except FileNotFoundError:
            return True
        return found in ("", token)

    def release(self, token: str) -> None:
        """Take the claim away, if it is this attempt's."""
        with contextlib.suppress(FileNotFoundError):
            if self.owned(token):
                self.fs.rm_file(f"{self.path}/.attempt")
