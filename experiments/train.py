"""Training with evaluation, checkpoints and resume: one run folder an algorithm, all its runs at once.

The unit of work is (algorithm, dataset, block of runs), restartable from its folder. Metrics are written before the
checkpoint, so a resume only ever drops rows; checkpoints lie at log points, where no running mean is open, so that a
resumed run writes the bits that an uninterrupted one would have written.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from experiments import pool, results
from experiments.options import Train, overrides
from experiments.presets import preset
from experiments.run_folder import SESSION, alone, check_same, describe
from offline_rl.config import CONFIGS
from orbs import Rows, checked_fields, load_tensors, reject, write_atomically

if TYPE_CHECKING:
    from envs.datasets import Dataset
    from experiments.evaluate import Evaluator
    from experiments.loggers import Logger
    from offline_rl import OfflineLearner

__all__ = ["Unit", "load_and_train", "load_dataset", "plan", "train", "train_unit"]


def train(options: Train) -> list[Path]:
    """Train every algorithm of `options`; returns the run folders.

    Raises:
        ValueError: bad options, before anything is written; a folder that is in use without --resume.
    """
    _check(options)
    dataset = load_dataset(options)
    print(dataset.summary())
    if dataset.env_id is None:
        print(f"Trains, but cannot be scored: {dataset.env_note}.")
    elif dataset.env_note is not None:
        print(f"Scored in {dataset.env_note}.")
    units = plan(options, dataset.name)
    for unit in units:
        print(f"{unit.algorithm}: {unit.note}")
    if options.jobs == 1 or len(units) == 1:
        transitions = dataset.view()
        for unit in units:
            train_unit(unit, dataset, transitions)
    else:
        pool.each(load_and_train, units, options.jobs)
    return [unit.folder for unit in units]


@dataclasses.dataclass(frozen=True)
class Unit:
    """(algorithm, dataset, block of runs), restartable from its folder; `note` says where its values come from."""

    options: Train
    algorithm: str
    hyperparameters: dict[str, Any]
    folder: Path
    note: str


def plan(options: Train, dataset: str) -> list[Unit]:
    """The units of `options` on the dataset of that name; writes nothing.

    Raises:
        ValueError: bad options or hyperparameters; a folder that is in use without --resume.
    """
    names = _check(options)
    values = overrides(options.set, names)
    units = []
    for name in names:
        found = preset(name, dataset)
        hyperparameters = {**found.values, **values[name]}
        CONFIGS[name](**checked_fields(CONFIGS[name], hyperparameters, name))
        note = f"preset '{found.pattern}' {found.values or '{}'} ({found.source}); set by you: {values[name]}"
        units.append(Unit(options, name, hyperparameters, _folder(options, dataset, name), note))
    for unit in units:
        _check_folder(unit)
    return units


def _check(options: Train) -> list[str]:
    """The algorithms' names; ValueError for options that make no sense."""
    from offline_rl import algorithm

    for field in ("runs", "steps", "eval_every", "eval_episodes", "log_every", "jobs", "threads"):
        if getattr(options, field) < 1:
            reject(f"--{field.replace('_', '-')}", "at least 1", getattr(options, field), "give a positive number")
    if options.first_run < 0:
        reject("--first-run", "at least 0", options.first_run, "give the number of the first run")
    names = [algorithm(name).name for name in options.algos]
    if not names or len(set(names)) < len(names):
        reject("--algos", "one or more different algorithms", " ".join(options.algos), "name each once")
    return names


def load_dataset(options: Train) -> Dataset:
    """The dataset, without its environment where that needs an extra that is missing, unless it was asked for."""
    from envs.datasets import load
    from envs.make import missing_extra

    dataset = load(
        options.dataset,
        env=options.env,
        clip_actions=options.clip_actions,
        terminate_on_end=options.terminate_on_end,
    )
    if dataset.env_id is None and dataset.env_note is None:
        return dataclasses.replace(dataset, env_note="no environment is known for it (name one with --env)")
    extra = None if options.env or dataset.env_id is None else missing_extra(dataset.env_id)
    if extra is None:
        return dataset
    note = f'{dataset.env_id}, which scores it, needs an extra: pip install "orbs[{extra}]"'
    return dataclasses.replace(dataset, env_id=None, env_note=note)


def _folder(options: Train, dataset: str, algorithm: str) -> Path:
    block = "" if options.first_run == 0 else f"-from-run-{options.first_run}"
    return options.out / dataset.removeprefix("local/").replace("/", "-") / f"{algorithm}{block}"


def _check_folder(unit: Unit) -> None:
    config, checkpoint = unit.folder / "config.json", unit.folder / "checkpoint.safetensors"
    if not unit.options.resume and (config.exists() or checkpoint.exists()):
        reject("--out", "a folder without this run", unit.folder, "go on with --resume, or name another --out")
    if checkpoint.exists() and not config.exists():
        given = f"none in {unit.folder}"
        reject("--resume", "config.json beside the checkpoint", given, "restore it, or name another --out")


def load_and_train(unit: Unit, place: int = 0) -> None:
    dataset = load_dataset(unit.options)
    train_unit(unit, dataset, dataset.view(), place)


def train_unit(unit: Unit, dataset: Dataset, transitions: Rows, place: int = 0) -> None:
    import torch

    from experiments.cpu import choose_matmul, cpu_settings
    from experiments.evaluate import Evaluator
    from experiments.loggers import make_loggers
    from offline_rl import algorithm

    options = unit.options
    checkpoint_path = unit.folder / "checkpoint.safetensors"
    run_ids = list(range(options.first_run, options.first_run + options.runs))
    saved = results.read_config(unit.folder) if options.resume else {}
    # A resumed run keeps its kernels, unless others are asked for; on a chip where they would round it is an error.
    matmul = choose_matmul(saved.get("matmul", "auto") if options.matmul == "auto" else options.matmul)
    for field, now in (("matmul", matmul), ("threads", options.threads)):
        if saved.get(field, now) != now:
            print(f"{unit.folder}: {field} is {now} from here on, not {saved[field]}: not the same bits any more.")
    with contextlib.ExitStack() as stack:
        stack.enter_context(cpu_settings(matmul, options.threads))
        learner = algorithm(unit.algorithm)(
            transitions.obs_dim,
            transitions.action_dim,
            transitions.action_low,
            transitions.action_high,
            runs=run_ids,
            seed=options.seed,
            device=options.device,
            **unit.hyperparameters,
        )
        config = describe(options, dataset, transitions, learner, matmul)
        kept = None
        diverged: dict[int, int] = {}
        if saved:
            check_same(saved, config, unit.folder)
            config["earlier"] = [*saved.get("earlier", []), {key: saved.get(key) for key in SESSION}]
        if saved and checkpoint_path.exists():
            tensors, meta = load_tensors(checkpoint_path)
            if meta["steps"] > options.steps:
                reject("--steps", f"at least {meta['steps']}, where the checkpoint is", options.steps, "ask for more")
            learner.load_state_dict(tensors, meta["steps"])
            kept = results.drop_after(results.read_table(unit.folder / "metrics.parquet"), learner.steps)
            diverged = {int(run): int(step) for run, step in meta["diverged"].items()}
            if learner.steps == options.steps and saved.get("status") == "complete":
                print(f"{unit.folder} is complete at {options.steps} updates: nothing to do.")
                return
            if len(diverged) == learner.runs and saved.get("status") == "diverged":
                print(f"{unit.folder}: every run has diverged by update {learner.steps}: nothing to go on with.")
                return
            print(f"{unit.folder}: resuming at update {learner.steps}.")
        evaluator = None
        if dataset.env_id is not None:
            evaluator = Evaluator(dataset.env_id, run_ids, options.eval_episodes, options.seed)
            stack.callback(evaluator.close)
            evaluator.check(learner)
        config["simulator"] = evaluator.simulator if evaluator is not None else None
        scored_by = {"env": dataset.env_id or "", "simulator": config["simulator"] or ""}
        table = results.Table(options.experiment, unit.algorithm, dataset.name, kept, **scored_by)
        loggers = make_loggers(unit.folder, config, options.tensorboard, options.wandb)
        for logger in loggers:
            stack.callback(logger.close)
        stack.enter_context(alone(unit.folder))
        # Last, because it may take minutes: no mistake of the user's is found after it.
        learner.attach(transitions)
        if torch.cuda.is_available() and learner.device.type == "cuda":
            config["device_name"] = torch.cuda.get_device_name(learner.device)
        session = _Session(unit, config, learner, table, diverged, evaluator, dataset, loggers)
        session.write_config("running")
        try:
            session.run(place)
        except KeyboardInterrupt:
            session.write_config("stopped")
            state = "the last checkpoint is kept" if checkpoint_path.exists() else "there is no checkpoint yet"
            print(f"\nStopped; {state}. Go on with --resume ({unit.folder}).", file=sys.stderr)
            raise
        except Exception:
            session.write_config("failed")
            raise
        session.write_config(session.status)


@dataclasses.dataclass
class _Session:
    """One unit while it trains."""

    unit: Unit
    config: dict[str, Any]
    learner: OfflineLearner
    table: results.Table
    diverged: dict[int, int]
    evaluator: Evaluator | None
    dataset: Dataset
    loggers: list[Logger]
    status: str = "running"

    def run(self, place: int) -> None:
        options, learner = self.unit.options, self.learner
        if len(self.diverged) == learner.runs:  # killed after the checkpoint that says so, before the configuration
            self.status = "diverged"
            return
        saved_at = time.monotonic()
        bar = tqdm(
            total=options.steps,
            initial=learner.steps,
            desc=f"{self.unit.algorithm} x{learner.runs}",
            unit="update",
            position=place,
            disable=not sys.stderr.isatty(),
        )
        with bar:
            for stop in self._stops():
                if pool.stopped():
                    raise KeyboardInterrupt
                before, began = learner.steps, time.perf_counter()
                while learner.steps < stop:
                    block = min(256, stop - learner.steps)
                    learner.update(block)
                    bar.update(block)
                values = {f"train/{name}": value for name, value in learner.metrics().items()}
                rate = (learner.steps - before) / (time.perf_counter() - began)
                values["time/updates_per_second"] = np.full(learner.runs, rate)
                self._find_diverged(values)
                evaluated = stop % options.eval_every == 0 or stop == options.steps
                if evaluated and self.evaluator is not None:
                    values |= self._evaluate(bar)
                elif evaluated and bar.disable:
                    print(f"{self.unit.algorithm}: update {stop}, not evaluated", file=sys.stderr)
                self.table.record_runs(stop, values, learner.run_ids)
                for logger in self.loggers:
                    logger.log(stop, values, learner.run_ids)
                over = len(self.diverged) == learner.runs
                if evaluated or over or time.monotonic() - saved_at > options.checkpoint_seconds:
                    self.save()
                    saved_at = time.monotonic()
                if over:
                    self.status = "diverged"
                    return
        self.status = "complete"

    def _stops(self) -> Iterator[int]:
        """Log points and evaluation points after the learner's step, in order."""
        options = self.unit.options
        step = self.learner.steps
        while step < options.steps:
            step = min((step // every + 1) * every for every in (options.log_every, options.eval_every))
            step = min(step, options.steps)
            yield step

    def _find_diverged(self, values: dict[str, np.ndarray]) -> None:
        fine = self.learner.finite()
        for metric in values.values():
            fine = fine & np.isfinite(metric)
        for slot, run in enumerate(self.learner.run_ids):
            if not fine[slot] and run not in self.diverged:
                self.diverged[run] = self.learner.steps
                rest = "no run is left" if len(self.diverged) == self.learner.runs else "the other runs go on"
                tqdm.write(
                    f"{self.unit.algorithm}: run {run} diverged (not finite) by update {self.learner.steps}; {rest}.",
                    file=sys.stderr,
                )

    def _evaluate(self, bar: Any) -> dict[str, np.ndarray]:
        assert self.evaluator is not None
        played = self.evaluator.evaluate(self.learner, self.learner.steps, skip=list(self.diverged))
        returns = played.returns.mean(1)
        lengths = np.where([run in self.diverged for run in self.learner.run_ids], np.nan, played.lengths.mean(1))
        values = {"eval/return": returns, "eval/length": lengths}
        shown, name = returns, "return"
        if self.dataset.min_score is not None:
            values["eval/score"] = shown = self.dataset.normalized_score(returns)
            name = "score"
        finite = shown[np.isfinite(shown)]
        mean = f"{finite.mean():.1f}" if len(finite) else "none"
        bar.set_postfix_str(f"{name} {mean}")
        if bar.disable:
            print(f"{self.unit.algorithm}: update {self.learner.steps}, mean {name} {mean}", file=sys.stderr)
        return values

    def save(self) -> None:
        """Metrics first, then the checkpoint: what the checkpoint does not know yet is dropped at a resume."""
        results.write_table(self.table.frame(), self.unit.folder / "metrics.parquet")
        diverged = {str(run): step for run, step in self.diverged.items()}
        self.learner.save(self.unit.folder / "checkpoint.safetensors", diverged=diverged, env=self.dataset.env_id)

    def write_config(self, status: str) -> None:
        self.config["status"] = status
        self.config["diverged"] = {str(run): step for run, step in self.diverged.items()}
        write_atomically(self.unit.folder / "config.json", json.dumps(self.config, indent=2) + "\n")
