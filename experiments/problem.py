"""A problem of regret: a world and what of it may be set. Imports no torch, so that lists are quick."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from envs.regret_world import RegretWorld

__all__ = ["Problem", "fail", "near"]


@dataclass(frozen=True)
class Problem:
    """A problem by name.

    Attributes:
        name, about: what it is called, and what it is in a line.
        world: "module:class" of the world.
        fixed: arguments of the world that make it this problem.
        known: {argument: meaning} of those that may be set.
        metric: the regret that a report shows first.
        targets: what the numbers of its perturbed targets are, "" where there are none.
        horizon: why another horizon is another problem from the first round on; "" where the first rounds are the same.
    """

    name: str
    about: str
    world: str
    fixed: Mapping[str, Any] = field(default_factory=dict)
    known: Mapping[str, str] = field(default_factory=dict)
    horizon: str = ""
    metric: str = "regret/static"
    targets: str = ""

    def make(
        self, given: Mapping[str, Any], horizon: int, runs: int | Sequence[int], seed: int = 0, device: str = "cpu"
    ) -> RegretWorld:
        """The world, `given` settings over its defaults.

        Raises:
            ValueError: a setting that it does not have or that is out of its range.
        """
        for key in given:
            if key not in self.known:
                what = ", ".join(self.known) or "none"
                fail(f"--problem-set {key}", f"a setting of {self.name}: {what}", f"'{key}'", near(key, self.known))
        module, _, name = self.world.partition(":")
        kind = getattr(importlib.import_module(module), name)
        world: RegretWorld = kind(
            **{**self.fixed, **given}, horizon=horizon, runs=list(runs) if isinstance(runs, Sequence) else runs,
            seed=seed, device=device,
        )  # fmt: skip
        return world


def near(name: str, known: Mapping[str, Any]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"did you mean '{close[0]}'? orbs list --problems shows all" if close else "orbs list --problems shows all"


def fail(field: str, expected: str, given: str, fix: str) -> NoReturn:
    """`orbs.reject`, without importing torch."""
    raise ValueError(f"{field}: expected {expected}, got {given}. Fix: {fix}.")
