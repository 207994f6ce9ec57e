"""How the results of an HTML report were made: versions, machines, exact commands, settings and where they differ."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from experiments import results
from experiments.html_elements import Cell, Page, facts, paragraph

__all__ = ["add", "read", "summary"]

# Not settings: what is said elsewhere, or what is a result.
SAID = (
    "versions", "machine", "git_commit", "command", "started", "status", "diverged", "earlier", "data", "env_note",
    "algorithm", "problem", "device_name", "dataset",
)  # fmt: skip

Found = dict[str, dict[str, Any]]


def read(folders: str | Path | Iterable[str | Path]) -> Found:
    """{run folder below what all have in common: its configuration}, sorted."""
    found = results.find_folders(folders)
    common = Path(os.path.commonpath(found)) if len(found) > 1 else found[0].parent
    return {folder.relative_to(common).as_posix() or folder.name: results.read_config(folder) for folder in found}


def _once(values: Iterable[Any]) -> list[str]:
    return list(dict.fromkeys(str(value) for value in values if value))


def _sessions(found: Found) -> list[dict[str, Any]]:
    """Everything that a process said of itself, the earlier ones of a resumed run too."""
    return [one for config in found.values() for one in (config, *(config.get("earlier") or []))]


def _versions(session: Mapping[str, Any]) -> str:
    given = session.get("versions")
    return ", ".join(f"{name} {version}" for name, version in given.items()) if isinstance(given, dict) else ""


def _device(session: Mapping[str, Any]) -> str:
    if "device" not in session:
        return ""
    threads = session.get("threads", 1)
    products = f", {session['matmul']} products" if "matmul" in session else ""
    return f"{session.get('device_name') or session['device']}, {threads} thread{'s' * (threads != 1)}{products}"


def summary(found: Found) -> dict[str, str]:
    """When, by what and where the runs were made."""
    sessions = _sessions(found)
    started = sorted(_once(one.get("started") for one in sessions))
    when = [time.replace("T", " ").replace("Z", " UTC") for time in started]
    configs = list(found.values())
    commits = _once(one.get("git_commit") for one in sessions)
    changed = " (+: with changes that were not committed)" if any(one.endswith("+") for one in commits) else ""
    return {
        "Started": " to ".join(dict.fromkeys([when[0], when[-1]])) if when else "",
        "Machine": "; ".join(_once(one.get("machine") for one in sessions)) or "not recorded",
        "Device": "; ".join(_once(map(_device, sessions))),
        "Versions": "; ".join(_once(map(_versions, sessions))) or "not recorded",
        "Commit": "; ".join(commits) + changed if commits else "not recorded",
        "Simulator": "; ".join(
            _once(f"{c['env']}, {c['simulator']}" for c in configs if "simulator" in c and "env" in c)
        ),
        "Seeds": ", ".join(dict.fromkeys(str(c["seed"]) for c in configs if "seed" in c)),
        "Run folders": str(len(found)),
    }


def _flat(config: Mapping[str, Any]) -> dict[str, str]:
    """{setting: its value as JSON}, hyperparameters and facts by name."""
    flat: dict[str, str] = {}
    for key, value in config.items():
        if key in SAID:
            continue
        if key in ("hyperparameters", "facts") and isinstance(value, dict):
            start = "" if key == "hyperparameters" else "facts."
            flat |= {f"{start}{name}": _said(one) for name, one in value.items()}
        else:
            flat[str(key)] = _said(value)
    return flat


def _said(value: Any) -> str:
    if isinstance(value, list) and len(value) > 2 and value == list(range(value[0], value[0] + len(value))):
        return f"{value[0]} to {value[-1]}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def add(page: Page, found: Found) -> None:
    """Add each distinct command, and the settings: those of all run folders, then where they differ."""
    commands = dict.fromkeys(
        shlex.join(map(str, one["command"])) for one in _sessions(found) if isinstance(one.get("command"), list)
    )
    page.heading(3, "Commands")
    if commands:
        page.add(paragraph("Each distinct command that wrote these run folders, as it was given."))
    else:
        page.add(paragraph("No command was recorded."))
    for command in commands:
        page.command(command)
    page.heading(3, "Settings")
    flat = {folder: _flat(config) for folder, config in found.items()}
    every = list(dict.fromkeys(key for one in flat.values() for key in one))
    shared = {k: v[0] for k in every if len(set(v := [one.get(k) for one in flat.values()])) == 1}
    if shared:
        page.add(f"<details><summary>The same in every run folder ({len(shared)} settings)</summary>")
        page.add(facts({key: str(value) for key, value in shared.items()}))
        page.add("</details>")
    rows = []
    for folder, one in flat.items():
        own = ", ".join(f"{key} = {value}" for key, value in one.items() if key not in shared)
        config = found[folder]
        rows.append(
            {
                "folder": Cell(folder), "algorithm": Cell(str(config.get("algorithm", "unknown")), kind="text"),
                "runs": Cell(str(len(config["runs"])) if isinstance(config.get("runs"), list) else "-"),
                "status": Cell(str(config.get("status", "unknown")), kind="text"),
                "differs in": Cell(own or "nothing", kind="long"),
            }
        )  # fmt: skip
    page.table("Run folders, and the settings in which they differ", rows)
