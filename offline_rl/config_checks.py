"""Checks of one configuration's fields, in the suite's form of an error; imports neither torch nor NumPy."""

from __future__ import annotations

import math
from dataclasses import fields
from numbers import Integral, Real
from typing import Any, NoReturn

__all__ = ["Checker"]


class Checker:
    """Errors that name algorithm and field: `td3bc.alpha: expected ..., got .... Fix: ....`

    Building one checks every field against its annotation. NumPy's numbers become Python's, so that a configuration is
    plain JSON; None stays where the annotation allows it.
    """

    def __init__(self, config: Any) -> None:
        self.config = config
        self.name = type(config).__name__.removesuffix("Config").lower()
        for field in fields(config):
            kind, value = str(field.type).removesuffix(" | None"), getattr(config, field.name)
            example = f"e.g. {field.name}={field.default!r}"
            if value is None and str(field.type).endswith("| None"):
                continue
            if kind == "bool" and not isinstance(value, bool):
                self.reject(field.name, "True or False", example)
            if kind == "str" and not isinstance(value, str):
                self.reject(field.name, "a name", example)
            if kind in ("int", "float") and (isinstance(value, bool) or not isinstance(value, Real)):
                self.reject(field.name, f"a number ({kind})", example)
            if kind == "int":
                if not isinstance(value, Integral):
                    self.reject(field.name, "an integer", example)
                self._put(field.name, int(value))
            if kind == "float":
                if not math.isfinite(value):
                    self.reject(field.name, "a finite number", example)
                self._put(field.name, value if isinstance(value, (int, float)) else float(value))

    def _put(self, field: str, value: object) -> None:
        object.__setattr__(self.config, field, value)  # the dataclass is frozen

    def reject(self, field: str, expected: str, fix: str) -> NoReturn:
        given = getattr(self.config, field)
        raise ValueError(f"{self.name}.{field}: expected {expected}, got {given!r}. Fix: {fix}.")

    def widths(self, *names: str) -> None:
        """One or more positive integers; a list, as JSON gives it, becomes a tuple."""
        for name in names:
            given = getattr(self.config, name)
            found = given if isinstance(given, (tuple, list)) else ()
            if not found or any(isinstance(one, bool) or not isinstance(one, Integral) or one < 1 for one in found):
                self.reject(name, "one or more positive widths", f"e.g. {name}=(256, 256)")
            self._put(name, tuple(int(one) for one in found))

    def positive(self, *names: str) -> None:
        for name in names:
            if not 0 < getattr(self.config, name) < float("inf"):
                self.reject(name, "a positive finite number", "give one above 0")

    def not_negative(self, *names: str) -> None:
        for name in names:
            if not 0 <= getattr(self.config, name) < float("inf"):
                self.reject(name, "a finite number of at least 0", "give one of at least 0")

    def between(self, low: float, high: float, *names: str) -> None:
        for name in names:
            if not low <= getattr(self.config, name) <= high:
                self.reject(name, f"a number from {low:g} to {high:g}", "choose one in that range")

    def share(self, *names: str) -> None:
        for name in names:
            if not 0 <= getattr(self.config, name) <= 1:
                self.reject(name, "a number from 0 to 1", "e.g. 0.99")

    def one_of(self, name: str, *allowed: Any) -> None:
        if getattr(self.config, name) not in allowed:
            self.reject(name, " or ".join(repr(item) for item in allowed), "choose one of these")
