"""What every training shares, from a dataset or in an environment: log points, table, checkpoints, its folder's state.

Metrics are written before the checkpoint, so a resume only ever drops rows; checkpoints lie at log points, where no
running mean is open, so that a resumed run writes the bits that an uninterrupted one would have written. One thing
differs where a training came to its end off the log points and is then given more steps: evaluations and checkpoints
are the straight training's, but the first training metrics after that end are means since then, not since the log
point before it (nor is an environment's episode counted in them that ended between the two).
"""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from tqdm import tqdm

from experiments import pool, results
from experiments.options import Train
from experiments.run_folder import SESSION, check_same
from orbs import load_tensors, reject, write_atomically

if TYPE_CHECKING:
    from experiments.cpu import Kernels
    from experiments.evaluate import Evaluator
    from experiments.loggers import Logger
    from experiments.train import Unit

__all__ = ["Left", "Session", "inherit", "kernels", "left_there"]


def kernels(options: Train, saved: dict[str, Any], folder: Path) -> Kernels:
    """The kernels of matrix products: a resumed run keeps its own, unless others are asked for.

    Raises:
        ValueError: on a chip where these would round unasked; bfloat16 away from the CPU.
    """
    from experiments.cpu import choose_matmul

    matmul = choose_matmul(saved.get("matmul", "auto") if options.matmul == "auto" else options.matmul)
    if matmul == "bfloat16" and not options.device.startswith("cpu"):
        reject("--matmul", "bfloat16 on a CPU", f"--device {options.device}", "use --device cpu, or --matmul float32")
    for field, now in (("matmul", matmul), ("threads", options.threads)):
        if saved.get(field, now) != now:
            print(f"{folder}: {field} is {now} from here on, not {saved[field]}: not the same bits any more.")
    return matmul


def inherit(saved: dict[str, Any], config: dict[str, Any], folder: Path) -> None:
    """Check that a resume has the settings of before, and let its configuration remember the earlier sessions.

    Raises:
        ValueError: settings that differ, by name.
    """
    check_same(saved, config, folder)
    config["earlier"] = [*saved.get("earlier", []), {key: saved.get(key) for key in SESSION}]


@dataclasses.dataclass
class Left:
    """What an earlier session left: the learner's tensors, the checkpoint's header, the table's rows by then."""

    tensors: dict[str, Any]
    meta: dict[str, Any]
    rows: Any
    diverged: dict[int, int]


def left_there(folder: Path, position: str, options: Train) -> Left:
    """Read checkpoint and table, of which the rows that a straight training to `options.steps` has are left.

    Args:
        position: the name of the header's count of steps.

    Raises:
        ValueError: a damaged file, or fewer steps asked for than were made.
    """
    tensors, meta = load_tensors(folder / "checkpoint.safetensors")
    if meta[position] > options.steps:
        reject("--steps", f"at least {meta[position]}, where the checkpoint is", options.steps, "ask for more")
    rows = results.drop_after(results.read_table(folder / "metrics.parquet"), meta[position])
    rows = results.drop_off_grid(rows, options.steps, options.eval_every, options.log_every)
    return Left(tensors, meta, rows, {int(run): int(step) for run, step in meta["diverged"].items()})


@dataclasses.dataclass
class Session(ABC):
    """One unit while it trains; a subclass says how its learner advances and what a checkpoint holds."""

    unit: Unit
    config: dict[str, Any]
    learner: Any
    table: results.Table
    diverged: dict[int, int]
    evaluator: Evaluator | None
    loggers: list[Logger]
    status: str = "running"

    noun: ClassVar[str] = "update"
    rate: ClassVar[str] = "time/updates_per_second"

    @property
    @abstractmethod
    def position(self) -> int:
        """Steps made so far."""

    @abstractmethod
    def advance(self, stop: int, bar: Any) -> None:
        """Go on to step `stop`."""

    @abstractmethod
    def checkpoint(self, diverged: dict[str, int]) -> None:
        """Write what a resume goes on from."""

    @abstractmethod
    def score(self, returns: np.ndarray) -> np.ndarray | None:
        """Normalised scores of the returns; None where there are none."""

    def some(self) -> list[tuple[dict[str, np.ndarray], list[int]]]:
        """Metrics of some of the runs since the last log point: ({metric: (n,)}, the ids of these n runs)."""
        return []

    def watched(self, skip: list[int]) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
        """Play the evaluation: returns and lengths (runs, episodes), further metrics."""
        assert self.evaluator is not None
        played = self.evaluator.evaluate(self.learner, self.position, skip=skip)
        return played.returns, played.lengths, {}

    def train(self, place: int) -> None:
        """Train to the end, and let the folder say how that went."""
        self.write_config("running")
        try:
            self._run(place)
        except KeyboardInterrupt:
            self.write_config("stopped")
            there = (self.unit.folder / "checkpoint.safetensors").exists()
            state = "the last checkpoint is kept" if there else "there is no checkpoint yet"
            print(f"\nStopped; {state}. Go on with --resume ({self.unit.folder}).", file=sys.stderr)
            raise
        except Exception:
            self.write_config("failed")
            raise
        self.write_config(self.status)

    def _run(self, place: int) -> None:
        options, learner = self.unit.options, self.learner
        if len(self.diverged) == learner.runs:  # killed after the checkpoint that says so, before the configuration
            self.status = "diverged"
            return
        saved_at = time.monotonic()
        bar = tqdm(
            total=options.steps,
            initial=self.position,
            desc=f"{self.unit.label} x{learner.runs}",
            unit=self.noun,
            position=place,
            disable=not sys.stderr.isatty(),
        )
        with bar:
            for stop in self._stops():
                if pool.stopped():
                    raise KeyboardInterrupt
                before, began = self.position, time.perf_counter()
                self.advance(stop, bar)
                values = {f"train/{name}": value for name, value in learner.metrics().items()}
                rate = (self.position - before) / (time.perf_counter() - began)
                values[self.rate] = np.full(learner.runs, rate)
                self._find_diverged(values)
                evaluated = stop % options.eval_every == 0 or stop == options.steps
                if evaluated and self.evaluator is not None:
                    values |= self._evaluate(bar)
                elif evaluated and bar.disable:
                    print(f"{self.unit.label}: {self.noun} {stop}, not evaluated", file=sys.stderr)
                for rows, runs in ((values, learner.run_ids), *self.some()):
                    self.table.record_runs(stop, rows, runs)
                    for logger in self.loggers:
                        logger.log(stop, rows, runs)
                over = len(self.diverged) == learner.runs
                if evaluated or over or time.monotonic() - saved_at > options.checkpoint_seconds:
                    self._save()
                    saved_at = time.monotonic()
                if over:
                    self.status = "diverged"
                    return
        self.status = "complete"

    def _stops(self) -> Iterator[int]:
        """Log points and evaluation points after the position, in order."""
        options = self.unit.options
        step = self.position
        while step < options.steps:
            step = min((step // every + 1) * every for every in (options.log_every, options.eval_every))
            step = min(step, options.steps)
            yield step

    def _find_diverged(self, values: dict[str, np.ndarray]) -> None:
        fine = self.learner.finite()
        for metric in values.values():
            fine = fine & np.isfinite(metric)
        for slot in np.flatnonzero(~fine):
            self.note_diverged(self.learner.run_ids[slot])

    def note_diverged(self, run: int) -> None:
        """Remember and say that a run's numbers are no longer finite, once."""
        if run in self.diverged:
            return
        self.diverged[run] = self.position
        rest = "no run is left" if len(self.diverged) == self.learner.runs else "the other runs go on"
        tqdm.write(
            f"{self.unit.label}: run {run} diverged (not finite) by {self.noun} {self.position}; {rest}.",
            file=sys.stderr,
        )

    def _evaluate(self, bar: Any) -> dict[str, np.ndarray]:
        played, steps, more = self.watched(list(self.diverged))
        returns = played.mean(1)
        lengths = np.where([run in self.diverged for run in self.learner.run_ids], np.nan, steps.mean(1))
        values = {"eval/return": returns, "eval/length": lengths, **more}
        shown, name = returns, "return"
        scores = self.score(returns)
        if scores is not None:
            values["eval/score"] = shown = scores
            name = "score"
        finite = shown[np.isfinite(shown)]
        mean = f"{finite.mean():.1f}" if len(finite) else "none"
        bar.set_postfix_str(f"{name} {mean}")
        if bar.disable:
            print(f"{self.unit.label}: {self.noun} {self.position}, mean {name} {mean}", file=sys.stderr)
        return values

    def _save(self) -> None:
        """Metrics first, then the checkpoint: what the checkpoint does not know yet is dropped at a resume."""
        results.write_table(self.table.frame(), self.unit.folder / "metrics.parquet")
        self.checkpoint({str(run): step for run, step in self.diverged.items()})

    def write_config(self, status: str) -> None:
        self.config["status"] = status
        self.config["diverged"] = {str(run): step for run, step in self.diverged.items()}
        write_atomically(self.unit.folder / "config.json", json.dumps(self.config, indent=2) + "\n")
