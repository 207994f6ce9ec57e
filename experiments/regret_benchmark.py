"""Benchmark files of regret: learners x problems x runs, with values to stand beside ours. See `benchmark_file`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import Any

from bandits.config import CONFIGS
from experiments import problems
from orbs import checked_fields, reject

__all__ = ["Reference", "RegretBenchmark", "check_settings", "parse", "restricted", "split"]


@dataclass(frozen=True)
class Reference:
    """A value of the literature: of a learner on a problem at a round, in a run of `horizon` rounds.

    `error` is its standard error, 0 where that is not known; `metric` what it is of, "" for the problem's own regret;
    `within` how far ours may be from it, None for what the errors say.
    """

    problem: str
    learner: str
    horizon: int
    round: int
    mean: float
    error: float
    metric: str = ""
    within: float | None = None


@dataclass(frozen=True)
class RegretBenchmark:
    """Learners x problems x runs.

    Attributes:
        name: the file's stem; title: what is compared, in a line.
        learners: names of `orbs list`, and of variants.
        problems: names of `orbs list --problems`, settings behind commas: "sea-iid,noise=0.1".
        points_per_decade, jump: as the options of `orbs regret`.
        set: hyperparameters, LEARNER.FIELD=VALUE.
        variants: {name: learner}; only: {learner: the problems that it is played on, if not all}.
        references: values to stand beside ours; label, note: what they are.
    """

    name: str
    title: str
    learners: tuple[str, ...]
    problems: tuple[str, ...]
    _: KW_ONLY
    runs: int = 20
    horizon: int = 10_000
    seed: int = 0
    points_per_decade: int = 10
    jump: bool = False
    set: tuple[str, ...] = ()
    variants: dict[str, str] = field(default_factory=dict)
    only: dict[str, tuple[str, ...]] = field(default_factory=dict)
    references: tuple[Reference, ...] = ()
    label: str = "reference"
    note: str = ""

    def units(self) -> list[tuple[str, str]]:
        """(problem, learner) of everything that is played."""
        return [
            (problem, learner)
            for problem in self.problems
            for learner in self.learners
            if problem in self.only.get(learner, (problem,))
        ]


def split(problem: str) -> tuple[str, tuple[str, ...]]:
    """("sea-iid", ("noise=0.1",)) of "sea-iid,noise=0.1"."""
    name, *given = problem.split(",")
    return name, tuple(given)


def parse(path: Path, given: dict[str, Any]) -> RegretBenchmark:
    """What a file says, checked.

    Raises:
        ValueError: an unknown or missing field, a value of the wrong kind; names file and field.
    """
    given = dict(given)
    reference = given.pop("reference", {})
    values = checked_fields(RegretBenchmark, {"name": path.stem, **given}, str(path))
    for one in dataclasses.fields(RegretBenchmark):
        required = one.default is dataclasses.MISSING and one.default_factory is dataclasses.MISSING
        if required and one.name not in values:
            reject(f"{path}: {one.name}", "this field", "none", f"add {one.name} = ...")
    for name in ("learners", "problems", "set"):
        values[name] = _words(f"{path}: {name}", values.get(name, []))
    for name in ("learners", "problems"):
        if not values[name] or len(set(values[name])) < len(values[name]):
            reject(f"{path}: {name}", "one or more different names", list(values[name]), "name each once")
    for name in ("runs", "horizon", "points_per_decade", "seed"):
        least = 0 if name == "seed" else 1
        if name in values and (type(values[name]) is not int or values[name] < least):
            reject(f"{path}: {name}", f"a whole number from {least} on", repr(values[name]), "mend it")
    if not isinstance(values.get("jump", False), bool):
        reject(f"{path}: jump", "true or false", repr(values["jump"]), "mend it")
    for problem in values["problems"]:
        name, settings = split(problem)
        problems.settings(settings)
        if name not in problems.PROBLEMS:
            reject(f"{path}: problems", "problems of `orbs list --problems`", f"'{name}'", "check the name")
    variants = _table(f"{path}: variants", values.get("variants", {}))
    for name, base in variants.items():
        if name in CONFIGS:
            reject(f"{path}: variants.{name}", "a name that no learner has", f"'{name}'", "choose another")
        if base not in CONFIGS:
            reject(f"{path}: variants.{name}", "a learner of `orbs list`", repr(base), "check the name")
    for name in values["learners"]:
        if variants.get(name, name) not in CONFIGS:
            reject(f"{path}: learners", "learners of `orbs list`, or variants", f"'{name}'", "check the name")
    only = {
        key: _words(f"{path}: only.{key}", some)
        for key, some in _table(f"{path}: only", values.get("only", {})).items()
    }
    for name, some in only.items():
        strange = [one for one in some if one not in values["problems"]]
        if name not in values["learners"] or strange:
            wanted = "learners of this benchmark, and problems of it"
            reject(f"{path}: only.{name}", wanted, f"'{(strange or [name])[0]}'", "mend it")
    check_settings(f"{path}: set", values["set"], values["learners"])
    values |= {"variants": variants, "only": only}
    return RegretBenchmark(**values, **_reference(path, reference, values["problems"], values["learners"]))


def _words(where: str, given: Any) -> tuple[str, ...]:
    if not isinstance(given, list) or not all(isinstance(word, str) and word for word in given):
        reject(where, "a list of words", repr(given), 'write it as ["one", "two"]')
    return tuple(given)


def _table(where: str, given: Any) -> dict[str, Any]:
    if not isinstance(given, dict):
        reject(where, "a table", repr(given), f"write [{where.rpartition(' ')[2]}]")
    return given


def _reference(path: Path, given: Any, names: tuple[str, ...], learners: tuple[str, ...]) -> dict[str, Any]:
    where = f"{path}: reference"
    table = _table(where, given)
    strange = set(table) - {"label", "note", "values"}
    if strange:
        reject(f"{where}.{min(strange)}", "one of label, note, values", f"'{min(strange)}'", "mend it")
    found = []
    for problem, rows in _table(f"{where}.values", table.get("values", {})).items():
        if problem not in names:
            reject(f"{where}.values", f"problems of this benchmark: {', '.join(names)}", f"'{problem}'", "mend it")
        for row in rows:
            if not _is_reference(row) or row[0] not in learners:
                wanted = "lines of [learner, horizon, round, mean, standard error(, metric(, tolerance))]"
                reject(f"{where}.values.{problem}", wanted, repr(row), "mend it")
            found.append(Reference(problem, *row))
    texts: dict[str, Any] = {key: str(table[key]) for key in ("label", "note") if key in table}
    return {"references": tuple(found)} | texts


def _is_reference(row: Any) -> bool:
    if not isinstance(row, list) or not 5 <= len(row) <= 7:
        return False
    numbers = [*row[1:5], *row[6:]]
    return all(isinstance(x, (int, float)) for x in numbers) and all(isinstance(x, str) for x in (row[0], *row[5:6]))


def check_settings(where: str, settings: tuple[str, ...], learners: tuple[str, ...]) -> None:
    """ValueError for a setting of no learner: it would be dropped in silence."""
    for one in settings:
        if one.partition(".")[0] not in learners:
            reject(where, f"LEARNER.FIELD=VALUE of {', '.join(learners)}", f"'{one}'", "check the learner's name")


def restricted(spec: RegretBenchmark, changes: Mapping[str, Any]) -> RegretBenchmark:
    """The benchmark with fields changed; settings of learners that are left out are dropped."""
    made = dataclasses.replace(spec, **changes)
    kept = tuple(one for one in made.set if one.partition(".")[0] in made.learners)
    return dataclasses.replace(made, set=kept)
