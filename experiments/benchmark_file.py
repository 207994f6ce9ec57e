"""Benchmark files: one TOML file says what a benchmark compares. Shipped ones lie in `experiments/benchmarks`."""

from __future__ import annotations

import dataclasses
import difflib
import re
import tomllib
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from experiments import regret_benchmark
from experiments.agents import key_of, known_names
from experiments.regret_benchmark import RegretBenchmark
from orbs import checked_fields, reject

__all__ = ["Benchmark", "OfflineBenchmark", "OnlineBenchmark", "Published", "find", "read", "shipped"]

FOLDER = Path(__file__).parent / "benchmarks"


@dataclass(frozen=True)
class Published:
    """Published scores to stand beside ours: {our dataset: the one that papers report}, and what to say of them."""

    datasets: dict[str, str] = field(default_factory=dict)
    label: str = "published"
    note: str = ""


@dataclass(frozen=True)
class _Benchmark:
    """Algorithms x problems x runs. Fields as the options of `orbs train` where they share a name.

    Attributes:
        name: the file's stem; title: what is compared, in a line.
        algorithms: names of `orbs list`, and of variants.
        set: hyperparameters over the presets, ALGO.FIELD=VALUE.
        smoke_below: updates (environment steps) below which the comparison calls itself a smoke comparison.
        variants: {name: algorithm} of the variants: that algorithm by its presets, and what `set` says of the name.
    """

    name: str
    title: str
    algorithms: tuple[str, ...]
    _: KW_ONLY
    runs: int = 3
    steps: int = 1_000_000
    eval_every: int = 5000
    eval_episodes: int = 10
    log_every: int = 1000
    seed: int = 0
    set: tuple[str, ...] = ()
    smoke_below: int = 200_000
    variants: dict[str, str] = field(default_factory=dict)

    noun: ClassVar[str]
    kind: ClassVar[str]

    @property
    def problems(self) -> tuple[str, ...]:
        return tuple(getattr(self, self.kind))


@dataclass(frozen=True)
class OfflineBenchmark(_Benchmark):
    """Offline algorithms x datasets x runs.

    Attributes:
        datasets: names of `orbs data list`, or paths.
        published: published scores, or None.
    """

    datasets: tuple[str, ...]
    published: Published | None = None

    noun: ClassVar[str] = "updates"
    kind: ClassVar[str] = "datasets"


@dataclass(frozen=True)
class OnlineBenchmark(_Benchmark):
    """Agents that interact x environments x runs, with environment steps for updates.

    Attributes:
        envs: Gymnasium ids.
    """

    envs: tuple[str, ...]
    runs: int = field(default=5, kw_only=True)

    published: ClassVar[Published | None] = None
    noun: ClassVar[str] = "steps"
    kind: ClassVar[str] = "envs"


Benchmark = OfflineBenchmark | OnlineBenchmark
_KINDS: dict[str, type[OfflineBenchmark] | type[OnlineBenchmark]] = {
    "offline": OfflineBenchmark,
    "online": OnlineBenchmark,
}


def shipped() -> dict[str, Path]:
    """{name: file} of the benchmarks that come with the suite."""
    return {path.stem: path for path in sorted(FOLDER.glob("*.toml"))}


def find(name: str) -> Path:
    """The file behind a name, or behind a path that ends in .toml.

    Raises:
        ValueError: there is none; the nearest name is suggested.
    """
    known = shipped()
    if name in known:
        return known[name]
    path = Path(name)
    if path.suffix == ".toml":
        if not path.is_file():
            reject("NAME", "a benchmark file", f"{path}, which is not there", "check the path")
        return path
    near = difflib.get_close_matches(name, known, n=1)
    fix = f"did you mean '{near[0]}'? " if near else ""
    return reject(
        "NAME", f"one of {', '.join(known)}, or a .toml file", f"'{name}'", f"{fix}orbs bench --list shows them all"
    )


def read(path: Path) -> Benchmark | RegretBenchmark:
    """Read and check a benchmark file.

    Raises:
        ValueError: not TOML, an unknown or missing field, a value of the wrong kind; names file and field.
    """
    try:
        given = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(
            f"{path}: expected a TOML file, got one with an error: {error}. Fix: mend that line."
        ) from None
    kind = given.pop("kind", None)
    if kind == "regret":
        return regret_benchmark.parse(path, given)
    if kind not in _KINDS:
        fix = 'write kind = "offline", "online" for agents that interact, or "regret" for bandits'
        reject(f"{path}: kind", '"offline", "online" or "regret"', repr(kind), fix)
    form = _KINDS[kind]
    published = given.pop("published", None) if form is OfflineBenchmark else None
    values = checked_fields(form, {"name": path.stem, **given}, str(path))
    for one in dataclasses.fields(form):
        required = one.default is dataclasses.MISSING and one.default_factory is dataclasses.MISSING
        if required and one.name not in values:
            reject(f"{path}: {one.name}", "this field", "none", f"add {one.name} = ...")
    for name in ("algorithms", form.kind, "set"):
        if name in values:
            values[name] = _words(f"{path}: {name}", values[name])
    for name in ("algorithms", form.kind):
        if not values[name] or len(set(values[name])) < len(values[name]):
            reject(f"{path}: {name}", "one or more different names", list(values[name]), "name each once")
    for name in ("runs", "steps", "eval_every", "eval_episodes", "log_every", "smoke_below", "seed"):
        least = 0 if name in ("smoke_below", "seed") else 1
        if name in values and (type(values[name]) is not int or values[name] < least):
            reject(f"{path}: {name}", f"a whole number from {least} on", repr(values[name]), "mend it")
    if "variants" in values:
        values["variants"] = _variants(path, values["variants"], values["algorithms"])
    if published is not None:
        values["published"] = _published(path, published, values["datasets"])
    return form(**values)


def _words(where: str, given: Any) -> tuple[str, ...]:
    if not isinstance(given, list) or not all(isinstance(word, str) and word for word in given):
        reject(where, "a list of words", repr(given), 'write it as ["one", "two"]')
    return tuple(given)


def _variants(path: Path, given: Any, algorithms: tuple[str, ...]) -> dict[str, str]:
    if not isinstance(given, dict) or not all(isinstance(base, str) for base in given.values()):
        reject(f"{path}: variants", 'lines like prdc-stac = "prdc"', repr(given), "mend it")
    known = known_names()
    for name, base in given.items():
        where = f"{path}: variants.{name}"
        # The name becomes a folder's, and stands before the dot of ALGO.FIELD=VALUE.
        if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9+_-]*", name) is None or key_of(name) in known:
            reject(where, "a name of letters, digits, +, - and _ that no algorithm has", f"'{name}'", "choose another")
        if name not in algorithms:
            reject(where, f"one of {', '.join(algorithms)}", f"'{name}'", "add it to `algorithms`, or leave it out")
        if key_of(base) not in known:
            reject(where, f"one of {', '.join(known.values())}", f"'{base}'", "name the algorithm that it is one of")
    return {name: known[key_of(base)] for name, base in given.items()}


def _published(path: Path, given: Any, datasets: tuple[str, ...]) -> Published:
    if not isinstance(given, dict):
        reject(f"{path}: published", "a table", repr(given), "write [published]")
    values = checked_fields(Published, given, f"{path}: published")
    for name in ("label", "note"):
        if not isinstance(values.get(name, ""), str):
            reject(f"{path}: published.{name}", "a text", repr(values[name]), "write it in quotes")
    pairs = values.get("datasets", {})
    if not isinstance(pairs, dict) or not all(isinstance(other, str) for other in pairs.values()):
        reject(f"{path}: published.datasets", 'lines like "our-set" = "published-set"', repr(pairs), "mend it")
    strange = [name for name in pairs if name not in datasets]
    if strange:
        reject(f"{path}: published.datasets", "datasets of this benchmark", strange[0], f"use {', '.join(datasets)}")
    return Published(**values)
