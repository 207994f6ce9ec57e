"""Options of `orbs regret`. Imports no torch, so that help is quick."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

__all__ = ["Regret"]


@dataclass(frozen=True)
class Regret:
    """Play learners against a problem, hundreds of runs at once; regret curves with intervals and bounds.

    All learners meet the same losses in the same run. Each gets a folder OUT/PROBLEM/LEARNER with config.json,
    metrics.parquet and checkpoint.safetensors; the table and the figures lie in OUT/PROBLEM/report.
    Example: orbs regret --problem sea-iid --learners optimistic-omd ogd --runs 200 --horizon 100000
    """

    problem: str = "sea-iid"
    """A problem of `orbs list --problems`."""
    learners: tuple[str, ...] = ("optimistic-omd", "ogd")
    """Learners, by the names of `orbs list`."""
    problem_set: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME=VALUE ...")] = ()
    """Settings of the problem, e.g. --problem-set dimension=20 noise=0.1; they become part of its name."""
    set: Annotated[tuple[str, ...], tyro.conf.arg(metavar="LEARNER.FIELD=VALUE ...")] = ()
    """Hyperparameters, e.g. --set optimistic-omd.delta=0 ogd.scale=1 (fields: orbs list --fields)."""
    runs: int = 200
    """Independent runs, played at once."""
    first_run: int = 0
    """Number of the first run; run 7 is the same run whichever others ride along."""
    horizon: int = 10_000
    """Rounds."""
    seed: int = 0
    """Seed of the experiment, 0 to 2^32 - 1; runs differ within it."""
    device: str = "cpu"
    """cpu, cuda, cuda:1, ..."""
    out: Path = Path("runs")
    """Folder to write under."""
    experiment: str = "regret"
    """Name of the experiment in the table."""
    points_per_decade: int = 10
    """Regret is recorded at this many rounds a decade, evenly on the log scale, at round 1 and at the horizon."""
    hindsight_per_decade: int = 5
    """At about this many of them, where finding the best point in hindsight takes passes over all losses."""
    jump: bool = False
    """Play held actions at once, for learners that hold them in worlds that can: the same law, other numbers."""
    checkpoint_seconds: float = 60.0
    """A checkpoint is written once this many seconds have passed, and at the end."""
    resume: bool = False
    """Go on from the checkpoints where there are any; --horizon may be larger where nothing depends on it."""
    threads: int = 1
    """Threads of the process; more than one rarely pays on a CPU."""
    tensorboard: bool = False
    """Also write TensorBoard files (extra: tensorboard)."""
    wandb: str | None = None
    """Also log to this Weights & Biases project (extra: wandb); one learner a command."""
