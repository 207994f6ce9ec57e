"""The environment that rivals are timed in: a folder with a Python of its own, made if need be and kept.

Making it needs the package index. The suite itself is not in it: what runs there (`deep_rivals`, `rivals`) imports the
rivals alone, prints one JSON object and is called with one thread.
"""

from __future__ import annotations

import json
import os
import subprocess
import venv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from orbs import reject

__all__ = ["PACKAGES", "ask", "environment"]

PACKAGES = ("d3rlpy", "mabwiser", "coba")

_VERSIONS = """
import importlib.metadata as m, json, sys
found = {}
for name in sys.argv[1:]:
    try: found[name] = m.version(name)
    except m.PackageNotFoundError: pass
print(json.dumps(found))
"""


def environment(folder: Path, packages: Sequence[str] = PACKAGES) -> Path:
    """The Python of an environment in `folder` that has the packages; what is missing there is installed.

    Raises:
        ValueError: it cannot be installed.
    """
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
    there = ask(python, "-c", _VERSIONS, "torch", *packages)
    missing = [name for name in packages if name not in there]
    if missing:
        # The same torch first: d3rlpy's own range would bring another version.
        if "d3rlpy" in missing and "torch" not in there:
            _install(python, folder, f"torch=={torch.__version__.partition('+')[0]}")
        _install(python, folder, *missing)
    return python


def _install(python: Path, folder: Path, *packages: str) -> None:
    done = subprocess.run([python, "-m", "pip", "install", "--quiet", *packages], capture_output=True, text=True)
    if done.returncode:
        why = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        fix = "see that the package index can be reached, or hand over an environment that has them"
        reject("--rivals", f"{' '.join(packages)} in {folder}", f"pip's error: {why}", fix)


def ask(python: Path, *arguments: object) -> dict[str, Any]:
    """What a script prints in its last line, a JSON object.

    Raises:
        ValueError: it failed.
    """
    plain = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": ""}
    done = subprocess.run([str(python), *map(str, arguments)], capture_output=True, text=True, env=plain)
    if done.returncode:
        why = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        reject("--rivals", "an environment in which the rivals run", f"{python}: {why}", "name another folder")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found
