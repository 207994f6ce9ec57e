"""What every learner's configuration is: a frozen dataclass that checks its own fields. Imports no torch."""

from __future__ import annotations

import dataclasses
import math
import typing
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

__all__ = ["LearnerConfig", "from_zero", "number"]


@dataclass(frozen=True)
class LearnerConfig:
    """Checks its fields by their types: a literal's words, bool, int (at least 1), float (above 0, finite).

    `number` and `from_zero` widen or narrow the range of one field.

    Attributes:
        name, about: as `orbs list` shows them.
        family: module with `build(config, facts, common)`, which imports torch.
    """

    name: ClassVar[str]
    about: ClassVar[str]
    family: ClassVar[str]

    def __post_init__(self) -> None:
        kinds = typing.get_type_hints(type(self))
        for one in dataclasses.fields(self):
            kind, value = kinds[one.name], getattr(self, one.name)
            options = typing.get_args(kind)
            if value is None and type(None) in options:
                continue
            if typing.get_origin(kind) is Literal:
                if value not in options:
                    self._reject(one.name, " or ".join(map(repr, options)))
            elif kind is bool:
                if not isinstance(value, bool):
                    self._reject(one.name, "True or False")
            else:
                self._check_number(one, value, whole=int in (kind, *options) and float not in (kind, *options))

    def _check_number(self, one: dataclasses.Field[Any], value: Any, whole: bool) -> None:
        least, most = one.metadata.get("least"), one.metadata.get("most", math.inf)
        below = one.metadata.get("below", math.inf)
        least = 1 if whole and least is None else least
        typed = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
        fits = typed and math.isfinite(value) and value <= most and (value < below or below == math.inf)
        if not (fits and (value > 0 if least is None else value >= least)):
            wanted = "a whole number" if whole else "a finite number"
            wanted += " above 0" if least is None else f" of at least {least:g}"
            wanted += f" and at most {most:g}" if most < math.inf else ""
            self._reject(one.name, wanted + (f" and below {below:g}" if below < math.inf else ""))

    def _reject(self, name: str, expected: str) -> typing.NoReturn:
        default = type(self).__dataclass_fields__[name].default
        given = getattr(self, name)
        raise ValueError(f"{self.name}.{name}: expected {expected}, got {given!r}. Fix: e.g. {name}={default!r}.")


def number(default: float | None, **limits: float) -> Any:
    """A field with limits: `least` and `most` are attained, `below` is not."""
    return field(default=default, metadata=limits)


def from_zero(default: float | None) -> Any:
    """A field of at least 0."""
    return number(default, least=0)
