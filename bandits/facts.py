"""What a learner may know of its problem beforehand, asked for by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orbs import reject

__all__ = ["Facts"]


class Facts:
    """The facts of a problem, asked for by name; an error says who needs what.

    Attributes:
        trusted: whether everything that was asked for is a fact, or given on the safe side of it: bounds hold then.
    """

    def __init__(self, name: str, facts: Mapping[str, Any]) -> None:
        self.name, self.facts, self.trusted = name, facts, True

    def __call__(self, fact: str, given: float | None = None, above_zero: bool = False) -> float:
        """What the configuration gives, else the fact.

        Raises:
            ValueError: neither is there, or it is 0 where it must not be.
        """
        known = self.facts.get(fact)
        value = known if given is None else given
        if value is None:
            there = ", ".join(sorted(self.facts))
            reject(self.name, f"a problem with {fact}", f"one with {there}", "choose another learner or problem")
        if above_zero and not value > 0:
            reject(self.name, f"a problem with {fact} above 0", value, f"set {self.name}.{fact}, or choose another one")
        if given is not None:
            curvature = fact in ("strong_convexity", "exp_concavity")
            self.trusted &= (known is not None and given <= known) if curvature else (known is None or given >= known)
        return float(value)

    @property
    def range(self) -> float:
        """The length of the interval of losses."""
        if self.facts.get("loss_low") is None or self.facts.get("loss_high") is None:
            there = ", ".join(sorted(self.facts))
            expected = "a problem with a range of losses (loss_low, loss_high)"
            reject(self.name, expected, f"one with {there}", "choose another learner or problem")
        width = self("loss_high") - self("loss_low")
        if not width > 0:
            reject(self.name, "losses that can differ, loss_low below loss_high", width, "widen the range")
        return width
