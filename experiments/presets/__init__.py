"""Hyperparameters by algorithm and dataset (or environment), as data with their source.

One JSON file an algorithm: a list of rules, each a pattern of dataset names ("dataset"; "env": environment ids, for
agents that interact), the values that it sets and where they come from. The first pattern that fits wins; no fit
means the algorithm's defaults plus the rule named "*".
"""

from __future__ import annotations

import json
from fnmatch import fnmatchcase
from importlib import resources
from typing import Any, NamedTuple

__all__ = ["Preset", "preset", "rules"]


class Preset(NamedTuple):
    """values: hyperparameters to set; pattern: the rule that fitted; source: where the values come from."""

    values: dict[str, Any]
    pattern: str
    source: str


def rules(algorithm: str) -> list[Preset]:
    """All rules of an algorithm, in order; none is an empty list."""
    file = resources.files("experiments.presets") / f"{algorithm}.json"
    if not file.is_file():
        return []
    found = json.loads(file.read_text("utf-8"))
    return [Preset(rule["values"], rule.get("env") or rule["dataset"], rule["source"]) for rule in found]


def preset(algorithm: str, name: str) -> Preset:
    """The first rule whose pattern fits the dataset's name (without a leading "local/") or the environment's id."""
    for rule in rules(algorithm):
        if fnmatchcase(name.removeprefix("local/"), rule.pattern):
            return rule
    return Preset({}, "(none)", "the algorithm's defaults")
