"""`orbs bench`: every unit of a benchmark, trained in turn or side by side, then its table and plots.

A unit is (algorithm or variant, dataset or environment, block of runs) in a folder of its own, as `orbs train` makes
it. A unit that fails is reported and does not stop the others; whatever is stopped goes on with the same command.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from experiments import benchmark_file, eval_workers, launch, pool, results
from experiments.agents import SECOND_OPINIONS
from experiments.benchmark_file import Benchmark
from experiments.options import Bench, Train
from experiments.regret_benchmark import RegretBenchmark
from experiments.train import Unit, load_and_train, load_dataset, plan, train_unit
from orbs import reject

if TYPE_CHECKING:
    from experiments.bench_report import Made

__all__ = ["bench", "finish", "positive", "units"]


def bench(options: Bench) -> int:
    """Run the command; the exit status is 1 where a unit failed.

    Raises:
        ValueError: a bad file or bad options, before anything is written.
    """
    if options.list:
        print(_listed())
        return 0
    if options.name is None:
        reject("NAME", "a benchmark", "none", f"e.g. orbs bench {next(iter(benchmark_file.shipped()))}, or --list")
    found = benchmark_file.read(benchmark_file.find(options.name))
    if isinstance(found, RegretBenchmark):
        if options.eval_workers != "auto":
            reject("--eval-workers", "none in a benchmark of regret", options.eval_workers, "leave it out")
        from experiments.regret_bench import bench as play

        return play(found, options)
    spec = chosen(found, options)
    launch.check(options)
    folder = options.out / spec.name
    failed: dict[Path, str] = {}
    if not options.report_only:
        todo = units(spec, options)
        print(
            f"{spec.title}: {len(spec.algorithms)} algorithms, {len(spec.problems)} {spec.kind}, {spec.runs} runs of "
            f"{spec.steps} {spec.noun}, in {len(todo)} units. Writes to {folder}.",
            flush=True,
        )
        if options.every is not None and any(unit.algorithm in SECOND_OPINIONS for unit in todo):
            print("Units of Stable-Baselines3 cannot be resumed: they are trained in one piece, in the last turn.")
        with contextlib.ExitStack() as stack:
            each: Callable[..., list[Exception | None]] = functools.partial(pool.each, jobs=options.jobs)
            if options.launcher == "ray":
                each = stack.enter_context(launch.cluster(options, todo))
            for target in targets(spec.steps, options.every):
                # The last target takes every unit, so that a folder with other settings is found, complete or not.
                due = [unit for unit in todo if target == spec.steps or _due(unit, target)]
                alive = [_until(unit, target) for unit in due if unit.folder not in failed]
                if not alive:
                    continue
                if options.jobs == 1 and options.launcher == "local":
                    failed |= _in_turn(alive)
                else:
                    errors = each(_alone, alive, keep_going=True)
                    failed |= {unit.folder: str(e) for unit, e in zip(alive, errors, strict=True) if e is not None}
    from experiments.bench_report import write

    return finish(options, folder, functools.partial(write, spec), failed)


def finish(
    options: Bench, folder: Path, write: Callable[[Path, Path], Made], failed: Mapping[Path, str] | Mapping[str, str]
) -> int:
    """Write and print the report where there are results, and what failed; returns the exit status.

    Raises:
        ValueError: --report-only, and nothing to report on.
    """
    if any(folder.rglob("metrics.parquet")):
        made = write(folder, folder / "report")
        print(f"\n{made.text}\n")
        for name, path in made.paths.items():
            print(f"  {name:12s} {path}")
    elif options.report_only:
        reject("--out", f"a benchmark's folder {folder}", "none with results", "run it first, or name its --out")
    for where, why in failed.items():
        print(f"orbs: failed: {where}: {why}", file=sys.stderr)
    return 1 if failed else 0


def positive(options: Bench, *fields: str) -> None:
    """ValueError for an option below 1."""
    for field in fields:
        value = getattr(options, field)
        if value is not None and value < 1:
            reject(f"--{field.replace('_', '-')}", "at least 1", value, "give a positive number")


def chosen(spec: Benchmark, options: Bench) -> Benchmark:
    """The benchmark as the command line restricts and changes it.

    Raises:
        ValueError: an algorithm, dataset or environment that it does not have, or a number below 1.
    """
    if options.problems:
        reject("--problems", f"none in a benchmark of {spec.kind}", options.problems[0], f"use --{spec.kind}")
    positive(options, "runs", "steps", "eval_every", "eval_episodes", "every", "block", "jobs", "threads")
    eval_workers.check(options.eval_workers)
    eval_every = options.eval_every or spec.eval_every
    if options.every is not None and options.every % eval_every:
        # Every stop is an evaluation, so others would add rows that an uninterrupted run has not.
        reject("--every", f"a multiple of eval_every, {eval_every}", options.every, "round it")
    changes: dict[str, object] = {"set": spec.set + options.set}
    other = "envs" if spec.kind == "datasets" else "datasets"
    if getattr(options, other):
        reject(f"--{other}", f"none in a benchmark of {spec.kind}", getattr(options, other)[0], f"use --{spec.kind}")
    for field in ("algos", spec.kind):
        name = "algorithms" if field == "algos" else field
        known, wanted = getattr(spec, name), getattr(options, field)
        for one in wanted:
            if one not in known:
                reject(f"--{field}", f"some of {', '.join(known)}", f"'{one}'", "name those of the file")
        if wanted:
            changes[name] = tuple(one for one in known if one in wanted)
    for field in ("runs", "steps", "eval_every", "eval_episodes", "seed"):
        if getattr(options, field) is not None:
            changes[field] = getattr(options, field)
    return dataclasses.replace(spec, **changes)  # type: ignore[arg-type]


def units(spec: Benchmark, options: Bench) -> list[Unit]:
    """Every unit, problem by problem; nothing is loaded or written.

    Raises:
        ValueError: an unknown algorithm, dataset, environment or hyperparameter.
    """
    from envs.datasets.registry import canonical_name
    from experiments import train_online

    size = options.block or spec.runs
    found = []
    for problem in spec.problems:
        for first in range(0, spec.runs, size):
            given = Train(
                dataset=problem if spec.kind == "datasets" else None,
                env=problem if spec.kind == "envs" else None,
                algos=spec.algorithms,
                runs=min(size, spec.runs - first),
                first_run=first,
                steps=spec.steps,
                seed=spec.seed,
                device=options.device,
                out=options.out / spec.name,
                experiment=spec.name,
                eval_every=spec.eval_every,
                eval_episodes=spec.eval_episodes,
                eval_workers=0
                if options.launcher == "ray" and options.eval_workers == "auto"
                else options.eval_workers,
                log_every=spec.log_every,
                checkpoint_seconds=options.checkpoint_seconds,
                resume=True,
                set=_settings(spec),
                jobs=options.jobs,
                threads=options.threads,
                matmul=options.matmul,
            )
            if spec.kind == "datasets":
                found += plan(given, canonical_name(problem), spec.variants)
            else:
                found += train_online.plan(given, spec.variants)
    return found


def _settings(spec: Benchmark) -> tuple[str, ...]:
    """Those that speak of algorithms which are trained; others of the file's are left out with --algos."""
    return tuple(one for one in spec.set if one.partition(".")[0] in spec.algorithms)


def targets(steps: int, every: int | None) -> Iterator[int]:
    """Where all units stop in turn, the last at `steps`."""
    yield from range(every or steps, steps, every or steps)
    yield steps


def _reached(folder: Path) -> int:
    """Updates that the unit has surely done; -1 if none."""
    config = results.read_config(folder) if (folder / "config.json").exists() else {}
    steps = int(config.get("steps", 0))
    return steps if config.get("status") in ("complete", "diverged") else steps - 1


def _due(unit: Unit, target: int) -> bool:
    """Whether the unit is to be brought to a target that is not the last."""
    return unit.algorithm not in SECOND_OPINIONS and _reached(unit.folder) < target


def _until(unit: Unit, target: int) -> Unit:
    return dataclasses.replace(unit, options=dataclasses.replace(unit.options, steps=target))


def _alone(unit: Unit, place: int) -> None:
    """One unit, in a process of its own."""
    if unit.options.dataset is not None:
        load_and_train(unit, place)
    else:
        from experiments.train_online import train_unit as interact

        interact(unit, place)


def _in_turn(todo: list[Unit]) -> dict[Path, str]:
    """Train one after the other; neighbours share a loaded dataset. {folder: error} of those that failed."""
    failed = {}
    loaded, dataset, view = "", None, None
    for unit in todo:
        try:
            if unit.options.dataset is None:
                _alone(unit, 0)
                continue
            if unit.options.dataset != loaded or dataset is None or view is None:
                dataset = load_dataset(unit.options)
                loaded, view = unit.options.dataset, dataset.view()
            train_unit(unit, dataset, view)
        except Exception as error:
            failed[unit.folder] = f"{type(error).__name__}: {error}"
            print(f"orbs: failed: {unit.folder}: {error}", file=sys.stderr, flush=True)
    return failed


def _listed() -> str:
    lines = []
    for name, path in benchmark_file.shipped().items():
        spec = benchmark_file.read(path)
        if isinstance(spec, RegretBenchmark):
            size = f"{len(spec.learners)} learners x {len(spec.problems)} problems x {spec.runs} runs"
            lines += [f"{name}: {spec.title} ({size}, {spec.horizon} rounds)", f"    {path}"]
            continue
        size = f"{len(spec.algorithms)} algorithms x {len(spec.problems)} {spec.kind} x {spec.runs} runs"
        lines += [f"{name}: {spec.title} ({size}, {spec.steps} {spec.noun})", f"    {path}"]
    return "\n".join(lines)
