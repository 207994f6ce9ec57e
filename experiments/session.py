"""What every training shares, from a dataset or in an environment: log points, table, checkpoints, its folder's state.

Metrics are written before the checkpoint, so a resume only ever drops rows; checkpoints lie at log points, where no
running mean is open, so that a resumed run writes the bits that an uninterrupted one would have written. One thing
differs where a training came to its end off the log points and is then given more steps: evaluations and checkpoints
are the straight training's, but the first training metrics after that end are means since then, not since the log
point before it (nor is an environment's episode counted in them that ended between the two).

Workers may play an evaluation while training goes on (see `experiments.evaluations`). Rows from its step on wait for
it, so that the table has them in the same order; the checkpoint of its step holds that step's rows, and a resume plays
the evaluation from the policy in that checkpoint. No later checkpoint is written before it is there.
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
    from experiments.evaluate import Played
    from experiments.evaluations import Evaluations
    from experiments.loggers import Logger
    from experiments.train import Unit

__all__ = ["Left", "Point", "Session", "inherit", "kernels", "left_there"]


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
class Point:
    """A log point whose rows are not in the table yet: [({metric: (n,)}, the ids of these n runs)].

    Of an evaluation point the evaluation's metrics join the first of `rows`: `measured` and those that are played for,
    where the runs in `skip` are not.
    """

    step: int
    rows: list[tuple[dict[str, np.ndarray], list[int]]]
    measured: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    skip: list[int] = dataclasses.field(default_factory=list)

    def header(self) -> dict[str, Any]:
        """As plain JSON values, from which `of_header` makes the same numbers."""
        rows = [[_plain(values), list(runs)] for values, runs in self.rows]
        return {"rows": rows, "measured": _plain(self.measured)}

    @classmethod
    def of_header(cls, step: int, found: dict[str, Any], skip: list[int]) -> Point:
        rows = [(_arrays(values), [int(run) for run in runs]) for values, runs in found["rows"]]
        return cls(step, rows, _arrays(found["measured"]), skip)


def _plain(values: dict[str, np.ndarray]) -> dict[str, list[float]]:
    return {name: np.asarray(value, np.float64).tolist() for name, value in values.items()}


def _arrays(values: dict[str, list[float]]) -> dict[str, np.ndarray]:
    return {name: np.array(value, np.float64) for name, value in values.items()}


@dataclasses.dataclass
class Left:
    """What an earlier session left: the learner's tensors, the checkpoint's header, the table's rows by then.

    Where it ended before the evaluation of the checkpoint's step was there, `pending` is that step, and its rows are
    not among `rows`.
    """

    tensors: dict[str, Any]
    meta: dict[str, Any]
    rows: Any
    diverged: dict[int, int]
    pending: Point | None = None


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
    diverged, pending = {int(run): int(step) for run, step in meta["diverged"].items()}, None
    if "pending" in meta:
        pending = Point.of_header(meta[position], meta["pending"], list(diverged))
    last = meta[position] - (pending is not None)
    rows = results.drop_after(results.read_table(folder / "metrics.parquet"), last)
    rows = results.drop_off_grid(rows, options.steps, options.eval_every, options.log_every)
    return Left(tensors, meta, rows, diverged, pending)


@dataclasses.dataclass
class Session(ABC):
    """One unit while it trains; a subclass says how its learner advances and what a checkpoint holds.

    Attributes:
        pending: of a resume, the point whose evaluation is to be played first. Later on, the one that is being played.
    """

    unit: Unit
    config: dict[str, Any]
    learner: Any
    table: results.Table
    diverged: dict[int, int]
    evaluations: Evaluations | None
    loggers: list[Logger]
    pending: Point | None = None
    status: str = "running"
    _waiting: list[Point] = dataclasses.field(default_factory=list, init=False)
    _began: float = dataclasses.field(default=0.0, init=False)

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
    def checkpoint(self, **header: Any) -> None:
        """Write what a resume goes on from, with these entries in the header."""

    @abstractmethod
    def score(self, returns: np.ndarray) -> np.ndarray | None:
        """Normalised scores of the returns; None where there are none."""

    def some(self) -> list[tuple[dict[str, np.ndarray], list[int]]]:
        """Metrics of some of the runs since the last log point: ({metric: (n,)}, the ids of these n runs)."""
        return []

    def measured(self) -> dict[str, np.ndarray]:
        """What else an evaluation point tells of the learner, {metric: (runs,)}."""
        return {}

    def train(self, place: int) -> None:
        """Train to the end, and let the folder say how that went."""
        self.write_config("running")
        self._began = time.perf_counter()
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
        if self.evaluations is not None:
            spent, waited = self.config["seconds"], self.config["evaluation_seconds"]
            share = f"waited {waited:.1f} s of {spent:.1f} s ({100 * waited / max(spent, 1e-3):.0f} %)"
            print(f"{self.unit.label}: evaluation: {share}", file=sys.stderr)

    def _run(self, place: int) -> None:
        options, learner = self.unit.options, self.learner
        if len(self.diverged) == learner.runs:  # killed after the checkpoint that says so, before the configuration
            self.status = "diverged"
            return
        saved_at = time.monotonic()
        if self.evaluations is not None:
            self.evaluations.start()
        bar = tqdm(
            total=options.steps,
            initial=self.position,
            desc=f"{self.unit.label} x{learner.runs}",
            unit=self.noun,
            position=place,
            disable=not sys.stderr.isatty(),
        )
        with bar:
            if self.pending is not None:
                self._begin(self.pending)
            for stop in self._stops():
                if pool.stopped():
                    raise KeyboardInterrupt
                before, began = self.position, time.perf_counter()
                self.advance(stop, bar)
                values = {f"train/{name}": value for name, value in learner.metrics().items()}
                rate = (self.position - before) / (time.perf_counter() - began)
                values[self.rate] = np.full(learner.runs, rate)
                self._find_diverged(values)
                point = Point(stop, [(values, learner.run_ids), *self.some()])
                over = len(self.diverged) == learner.runs
                evaluated = stop % options.eval_every == 0 or stop == options.steps
                late = time.monotonic() - saved_at > options.checkpoint_seconds
                due = evaluated or over or late
                # One evaluation is played at a time, and no checkpoint is later than one that is.
                came = self._collect(bar, wait=due)
                if evaluated and self.evaluations is not None:
                    point.skip, point.measured = list(self.diverged), self.measured()
                    self._begin(point)
                    self._collect(bar, wait=over or stop == options.steps)
                else:
                    if evaluated and bar.disable:
                        print(f"{self.unit.label}: {self.noun} {stop}, not evaluated", file=sys.stderr)
                    self._waiting.append(point)
                self._write_down()
                if due:
                    self._save()
                    saved_at = time.monotonic()
                elif came:  # whoever reads the table meanwhile finds it there
                    self._save_table()
                if over:
                    self.status = "diverged"
                    return
            if self._collect(bar, wait=True):  # a resume with no step to go
                self._save()
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

    def _begin(self, point: Point) -> None:
        """Let the point's evaluation be played; rows that come later wait for it."""
        assert self.evaluations is not None
        self.pending = point
        self._waiting.append(point)
        self.evaluations.begin(self.learner, point.step, point.skip)

    def _collect(self, bar: Any, wait: bool) -> bool:
        """Take in the pending evaluation, if it is there or is to be waited for; returns whether it came."""
        point, evaluations = self.pending, self.evaluations
        if point is None or evaluations is None or not (wait or evaluations.ready()):
            return False
        played = evaluations.collect()
        point.rows[0][0].update(self._evaluated(point, played, bar))
        point.rows[0][0]["time/evaluation_seconds"] = np.full(self.learner.runs, evaluations.cost)
        self.pending = None
        self._write_down()
        return True

    def _write_down(self) -> None:
        """Rows that wait for no evaluation go to table and loggers."""
        while self._waiting and self._waiting[0] is not self.pending:
            point = self._waiting.pop(0)
            for rows, runs in point.rows:
                self.table.record_runs(point.step, rows, runs)
                for logger in self.loggers:
                    logger.log(point.step, rows, runs)

    def _evaluated(self, point: Point, played: Played, bar: Any) -> dict[str, np.ndarray]:
        returns = played.returns.mean(1)
        lengths = np.where([run in point.skip for run in self.learner.run_ids], np.nan, played.lengths.mean(1))
        values = {"eval/return": returns, "eval/length": lengths, **point.measured}
        if played.value_error is not None:
            values["eval/value_error"] = played.value_error
        shown, name = returns, "return"
        scores = self.score(returns)
        if scores is not None:
            values["eval/score"] = shown = scores
            name = "score"
        finite = shown[np.isfinite(shown)]
        mean = f"{finite.mean():.1f}" if len(finite) else "none"
        bar.set_postfix_str(f"{name} {mean}")
        if bar.disable:
            print(f"{self.unit.label}: {self.noun} {point.step}, mean {name} {mean}", file=sys.stderr)
        return values

    def _save(self) -> None:
        """Metrics first, then the checkpoint: what the checkpoint does not know yet is dropped at a resume."""
        self._save_table()
        header: dict[str, Any] = {"diverged": {str(run): step for run, step in self.diverged.items()}}
        if self.pending is not None:
            header["pending"] = self.pending.header()
        self.checkpoint(**header)

    def _save_table(self) -> None:
        results.write_table(self.table.frame(), self.unit.folder / "metrics.parquet")

    def write_config(self, status: str) -> None:
        self.config["status"] = status
        self.config["diverged"] = {str(run): step for run, step in self.diverged.items()}
        if self._began and self.evaluations is not None:  # of this session; those of earlier ones are in "earlier"
            self.config["seconds"] = round(time.perf_counter() - self._began, 3)
            self.config["evaluation_seconds"] = round(self.evaluations.waited, 3)
        write_atomically(self.unit.folder / "config.json", json.dumps(self.config, indent=2) + "\n")
