"""Speed of every named learner on its natural problem, many runs at once on one core (or one GPU).

Run: ``OMP_NUM_THREADS=1 taskset -c 1 python -m experiments.benchmarks.regret_speed --out FOLDER``. Writes
FOLDER/regret-speed.csv and .md. Columns, in run-rounds a second: ``learner``, act and observe with the feedback given;
``noise``, drawing the world's numbers alone; ``loop``, learner, world and noise together. ``share`` is loop / learner:
how much of the learner's own speed is left. Medians over blocks. The feedback of ``learner`` is that of rounds which it
has played before, from the state that it had then: it goes the same way again, and no time goes into the world.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from bandits import make
from bandits.online_config import ONLINE
from experiments import results
from experiments.cpu import cpu_settings
from experiments.problems import PROBLEMS
from experiments.report import markdown_table, number
from experiments.run_folder import machine
from orbs import Feedback

__all__ = ["NATURAL", "measure", "write"]

_EXPERTS = ("hedge", "optimistic-hedge", "adahedge", "log-barrier", "tsallis", "weighted-majority", "fpl")
NATURAL = {
    **dict.fromkeys((kind.name for kind in ONLINE), "sea-iid"),
    **dict.fromkeys(_EXPERTS, "experts-bernoulli"),
    "ons": "regression-squared",
    "optimistic-omd-exp": "regression-squared",
    "optimistic-omd-implicit": "regression-absolute",
    "ftrl-proximal": "linear-ftl-killer",
}
"""{learner: problem}; 10 experts, or the problem's own dimension, 5 but for the one coordinate of linear-ftl-killer."""


def _per_second(
    act: Callable[[], Any], run_rounds: int, seconds: float, device: torch.device, before: Callable[[], Any] = int
) -> float:
    """Median over calls, as many as fit into `seconds` and at least three, after one that warms up.

    `before` each call is nobody's time. A CPU's time is the processor's, which a busy machine disturbs less.
    """
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    times: list[float] = []
    before()
    act()
    ends = time.perf_counter() + seconds
    while len(times) < 3 or time.perf_counter() < ends:
        before()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        began = clock()
        act()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(clock() - began)
    return run_rounds / statistics.median(times)


def measure(
    name: str,
    runs: int,
    device: str,
    seconds: float,
    rounds: int = 64,
    problem: str | None = None,
    given: Mapping[str, Any] = {},
    hyperparameters: Mapping[str, Any] = {},
) -> dict[str, Any]:
    """One line of the table: run-rounds a second of the learner, of the noise and of the loop.

    `given`: settings of the problem, which is the learner's natural one if it is None.
    """
    place, problem = torch.device(device), problem or NATURAL[name]
    world = PROBLEMS[problem].make(given, 10**6, runs, 0, device)
    learner = make(name, world.facts, runs, 0, device, **hyperparameters)
    recorded: list[tuple[torch.Tensor | None, Feedback]] = []
    start: dict[str, torch.Tensor] = {}
    world.reset()

    def loop() -> None:
        for _ in range(rounds):
            x = learner.act(world.context())
            learner.observe(x, world.step(x)[4]["feedback"])

    def record() -> None:
        start.update(learner.state_dict())
        for _ in range(rounds):
            shown = world.context()
            x = learner.act(shown)
            recorded.append((shown, world.step(x)[4]["feedback"]))
            learner.observe(x, recorded[-1][1])

    def alone() -> None:
        for shown, feedback in recorded:
            learner.observe(learner.act(shown), feedback)

    tape, first = world.tape, 0

    def noise() -> None:
        nonlocal first
        tape.draw(first, tape.block)
        first += tape.block

    whole = _per_second(loop, runs * rounds, seconds, place)
    record()
    own = _per_second(alone, runs * rounds, seconds, place, lambda: learner.load_state_dict(start))
    drawn = _per_second(noise, runs * tape.block, seconds, place)
    return {
        "learner": name, "problem": problem, "runs": runs, "loop/s": whole, "learner/s": own, "noise/s": drawn,
        "share": whole / own,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--learners", nargs="+", default=list(NATURAL), choices=list(NATURAL))
    parser.add_argument("--runs", type=int, nargs="+", help="default: 1000, with --device cuda also 100000")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seconds", type=float, default=1.0, help="of each measurement")
    given = parser.parse_args()
    sizes = given.runs or ([1000] if given.device == "cpu" else [1000, 100_000])
    with cpu_settings("float32", 1):
        lines = [measure(name, runs, given.device, given.seconds) for runs in sizes for name in given.learners]
    write(given.out, "regret-speed", lines, given.device, "ogd")


def write(
    out: Path, stem: str, lines: list[dict[str, Any]], device: str, base: str | None = None, more: Sequence[str] = ()
) -> None:
    """The table as CSV and markdown, printed too; beside each learner its speed over that of `base`."""
    import pandas as pd

    where = torch.cuda.get_device_name() if device != "cpu" else f"one thread of {machine()}"
    frame = pd.DataFrame(lines).assign(device=where, torch=torch.__version__)
    bases = {line["runs"]: line["learner/s"] for line in lines if line["learner"] == base}
    shown = []
    for line in lines:
        row = {key: number(value) if isinstance(value, float) else str(value) for key, value in line.items()}
        if line["runs"] in bases:
            row[f"learner / {base}"] = f"{line['learner/s'] / bases[line['runs']]:.2f}"
        shown.append(row)
    text = [f"Run-rounds a second, {where}, torch {torch.__version__}.", "", *markdown_table(shown), *more]
    for path in (
        results.write_text(out / f"{stem}.csv", frame.to_csv(index=False)),
        results.write_text(out / f"{stem}.md", "\n".join(text) + "\n"),
    ):
        print(os.fspath(path))
    print("\n".join(text))


if __name__ == "__main__":
    main()
