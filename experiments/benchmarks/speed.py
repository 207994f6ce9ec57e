"""Updates a second on one core: TD3+BC, A2PR and O-DICE beside plain eager ones, PRDC beside TD3+BC.

    python -m experiments.benchmarks.speed --out OUT [--only odice ...] [--rows 400000] [--rounds 15] [--device cpu]
        [--rivals FOLDER] [--guard FILE]

Ratios are taken in one run. Every round measures all contestants in turn, so a machine that drifts drifts for all; the
table holds every round and the summary the medians of the rounds' ratios. Times are processor seconds on a CPU, wall
seconds on CUDA. With --rivals d3rlpy's TD3+BC, IQL and PRDC are timed in between, on the same rows, in an environment
that is made in that folder (needs the package index) and kept. With --guard the ratios are held against those of a JSON
file: one that has dropped by a third is an error.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import tempfile
import time
import venv
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
import torch

from experiments.benchmarks import deep_rivals
from experiments.benchmarks.nearest import roll_out
from experiments.benchmarks.plain_a2pr import PlainA2PR
from experiments.benchmarks.plain_odice import PlainODICE
from experiments.benchmarks.plain_td3_bc import PlainTD3BC
from experiments.cpu import choose_matmul, cpu_settings
from experiments.presets import preset
from experiments.results import write_text
from offline_rl import A2PR, IQL, ODICE, PRDC, TD3BC, OfflineLearner
from orbs import Transitions, reject

Measured: TypeAlias = tuple[list[dict[str, Any]], list[str]]  # rows of speed.csv, lines of speed.md
ALPHA = {"HalfCheetah": 40.0, "Hopper": 2.5}


def rate(update: Callable[[int], None], n: int, runs: int, device: str) -> float:
    """Run-updates a second."""
    if device == "cpu":
        began = time.process_time()
        update(n)
        return n * runs / (time.process_time() - began)
    torch.cuda.synchronize()
    wall = time.perf_counter()
    update(n)
    torch.cuda.synchronize()
    return n * runs / (time.perf_counter() - wall)


def transitions(kind: str, rows: int, one_controller: bool) -> Transitions:
    """MuJoCo roll-outs of random controllers, a new one each episode, or of one noisy controller."""
    states, actions, rewards = roll_out(kind, rows + 1, one_controller=one_controller)
    return Transitions(states[:-1], actions[:-1], rewards[:-1], states[1:], np.zeros(rows), name=f"{kind}-type")


def compare(
    contestants: Mapping[str, tuple[Callable[[int], None], int, int]], rounds: int, data: str, device: str
) -> list[dict[str, Any]]:
    """contestants: {name: (update, updates per round, runs)} -> one row a round and contestant."""
    rows = []
    for update, n, _ in contestants.values():
        update(max(n // 4, 4))
    for index in range(rounds):
        for name, (update, n, runs) in contestants.items():
            speed = rate(update, n, runs, device)
            rows.append({"data": data, "round": index, "contestant": name, "run_updates_per_s": speed})
    return rows


def ratios(frame: pd.DataFrame, numerator: str, denominator: str) -> tuple[float, float, float]:
    """Median, minimum and maximum over rounds of the quotient of two contestants' speeds."""
    wide = frame.pivot_table(index="round", columns="contestant", values="run_updates_per_s")
    quotient = wide[numerator] / wide[denominator]
    return float(quotient.median()), float(quotient.min()), float(quotient.max())


def measure_td3bc(data: Transitions, kind: str, given: argparse.Namespace) -> Measured:
    one, four = (TD3BC.for_dataset(data, runs=runs, alpha=ALPHA[kind], device=given.device) for runs in (1, 4))
    return _beside_plain("td3bc", PlainTD3BC(data).update, one, four, (60, 100, 30), kind, given)


def measure_a2pr(data: Transitions, kind: str, given: argparse.Namespace) -> Measured:
    values = preset("a2pr", f"{kind.lower()}-medium-v2").values
    one, four = (A2PR.for_dataset(data, runs=runs, device=given.device, **values) for runs in (1, 4))
    return _beside_plain("a2pr", PlainA2PR(data).update, one, four, (12, 24, 6), kind, given)


def measure_odice(data: Transitions, kind: str, given: argparse.Namespace) -> Measured:
    """After a warm-up: the cost goes with the share of rows that the policy learns from, which moves in training."""
    values = preset("odice", f"{kind.lower()}-medium-v2").values
    one, four = (ODICE.for_dataset(data, runs=runs, device=given.device, **values) for runs in (1, 4))
    for learner in (one, four):
        learner.update(given.warm_up)
        learner.metrics()
    rows, lines = _beside_plain("odice", PlainODICE(data).update, one, four, (20, 40, 10), kind, given)
    share = float(one.metrics()["weighted_share"][0])
    note = f"after {given.warm_up} updates {share:.3f} of the rows have a weight"
    return rows, [*lines, f"| {kind} | odice: {note} | | | | |"]


def measure_prdc(data: Transitions, kind: str, given: argparse.Namespace) -> Measured:
    """PRDC beside TD3+BC, both after a warm-up."""
    began = time.perf_counter()
    prdc = PRDC.for_dataset(data, beta=2.0, alpha=ALPHA[kind], device=given.device)
    build = time.perf_counter() - began
    one = TD3BC.for_dataset(data, alpha=ALPHA[kind], device=given.device)
    one.update(given.warm_up)
    prdc.update(given.warm_up)
    prdc.metrics()
    contestants = {"td3bc": (one.update, 100, 1), "prdc": (prdc.update, 100, 1)}
    rows = compare(contestants, given.rounds, f"{kind}, after {given.warm_up} updates", given.device)
    frame = pd.DataFrame(rows)
    seen = {name: float(value[0]) for name, value in prdc.metrics().items()}
    table_seconds = f"{build:.0f} s from the data to a PRDC learner (the neighbour table, or its cached file)"
    found = f"certified {seen['certified_rate']:.3f}, own row {seen['own_row_rate']:.3f}"
    medians = frame.groupby("contestant")["run_updates_per_s"].median()
    extra = [
        f"{steps}: {(steps / medians['prdc'] + build) / (steps / medians['td3bc']):.2f}"
        for steps in (200_000, 1_000_000)
    ]
    line = f"| {kind} | {table_seconds}; {found} | | | | cost with it included, at {', '.join(extra)} |"
    return rows, [*_lines(frame, kind, [("td3bc", "prdc")]), line]


GUARD = 2 / 3  # of a kept ratio; less is an error


def measure_rivals(data: Transitions, kind: str, given: argparse.Namespace) -> Measured:
    """Ours beside d3rlpy's, turn by turn: each of its turns is a process of its own that times all three."""
    ours: dict[str, OfflineLearner] = {
        "td3bc": TD3BC.for_dataset(data, alpha=ALPHA[kind]), "iql": IQL.for_dataset(data),
        "prdc": PRDC.for_dataset(data, beta=2.0, alpha=ALPHA[kind]),
    }  # fmt: skip
    python = _environment(given.rivals)
    rows, version = [], ""
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "data.npz"
        end = np.zeros(len(data), np.float32)
        end[999::1000] = end[-1] = 1.0
        np.savez(path, obs=data.obs, action=data.action, reward=data.reward, end=end)
        for index in range(given.rival_rounds):
            command = [str(python), deep_rivals.__file__, str(path), str(given.rival_seconds)]
            plain = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": ""}
            done = subprocess.run(command, check=True, capture_output=True, text=True, env=plain)
            found = json.loads(done.stdout.splitlines()[-1])
            version = found["version"]
            for name, speed in found["updates/s"].items():
                rows.append(_timed(kind, index, f"d3rlpy {name}", speed))
            for name, learner in ours.items():
                learner.update(20)
                rows.append(_timed(kind, index, name, rate(learner.update, 60, 1, "cpu")))
    frame = pd.DataFrame(rows)
    pairs = [(name, f"d3rlpy {name}") for name in ours if (frame["contestant"] == f"d3rlpy {name}").any()]
    return rows, [*_lines(frame, kind, pairs), f"| {kind} | d3rlpy {version} | | | | one run each |"]


def _timed(kind: str, index: int, name: str, speed: float) -> dict[str, Any]:
    return {"data": kind, "round": index, "contestant": name, "run_updates_per_s": speed}


def _environment(folder: Path) -> Path:
    """The Python of an environment with d3rlpy, made if it is not there."""
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
        # The same torch first: d3rlpy's own range would bring another build.
        torch_here = f"torch=={torch.__version__.partition('+')[0]}"
        for packages in ([torch_here], ["d3rlpy"]):
            subprocess.run([python, "-m", "pip", "install", "--quiet", *packages], check=True)
    return python


def guarded(frame: pd.DataFrame, path: Path) -> list[str]:
    """What has dropped below two thirds of the ratios in a file {data: {"NUMERATOR / DENOMINATOR": ratio}}.

    Raises:
        ValueError: a ratio of the file that was not measured.
    """
    dropped = []
    for data, kept in json.loads(path.read_text()).items():
        here = frame[frame["data"] == data]
        for pair, ratio in kept.items():
            numerator, _, denominator = pair.partition(" / ")
            if not {numerator, denominator} <= set(here["contestant"]):
                reject("--guard", f"ratios that are measured, on {data}", pair, "measure it (--only, --kinds)")
            now = ratios(here, numerator, denominator)[0]
            if now < GUARD * ratio:
                dropped.append(f"{data}, {pair}: {now:.2f}, was {ratio:.2f}")
    return dropped


# The plain versions run on a CPU: without one there is nothing to compare with.
GROUPS = {"td3bc": measure_td3bc, "prdc": measure_prdc, "a2pr": measure_a2pr, "odice": measure_odice}
ANY_DEVICE = ("prdc",)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for speed.csv and speed.md")
    parser.add_argument("--only", nargs="+", choices=GROUPS, default=list(GROUPS), help="groups to measure")
    parser.add_argument("--kinds", nargs="+", choices=ALPHA, default=list(ALPHA), help="kinds of data")
    parser.add_argument("--rows", type=int, default=400_000, help="rows of each dataset")
    parser.add_argument("--rounds", type=int, default=15, help="rounds of measurement")
    parser.add_argument("--warm-up", type=int, default=2000, help="updates before PRDC and O-DICE are timed")
    parser.add_argument("--one-controller", action="store_true", help="data of a single noisy behaviour policy")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rivals", type=Path, help="folder of an environment with d3rlpy, made if need be")
    parser.add_argument("--rival-rounds", type=int, default=3, help="rounds of them")
    parser.add_argument("--rival-seconds", type=float, default=10.0, help="of each of its algorithms in a round")
    parser.add_argument("--guard", type=Path, help="JSON file of ratios; one that has dropped by a third is an error")
    given = parser.parse_args(arguments)
    groups = [name for name in GROUPS if name in given.only and (given.device == "cpu" or name in ANY_DEVICE)]
    if not groups:
        parser.error(f"--only {' '.join(given.only)} has nothing to measure on {given.device}: use {ANY_DEVICE[0]}")
    matmul = choose_matmul("auto")
    rows: list[dict[str, Any]] = []
    lines = [
        f"Processor {platform.processor() or platform.machine()}, torch {torch.__version__}, one thread, "
        f"matrix kernels {matmul}, device {given.device}, {given.rows} rows, {given.rounds} rounds, data of "
        f"{'one noisy controller' if given.one_controller else 'a new random controller each episode'}.",
        "",
        "| data | ratio of run-updates/s | median | min | max | speeds (medians) |",
        "|---|---|---|---|---|---|",
    ]
    with cpu_settings(matmul):
        for kind in given.kinds:
            data = transitions(kind, given.rows, given.one_controller)
            for name in groups:
                measured, told = GROUPS[name](data, kind, given)
                rows += measured
                lines += told
            if given.rivals is not None:
                measured, told = measure_rivals(data, kind, given)
                rows += measured
                lines += told
    given.out.mkdir(parents=True, exist_ok=True)
    write_text(given.out / "speed.csv", pd.DataFrame(rows).to_csv(index=False))
    write_text(given.out / "speed.md", "\n".join(lines) + "\n")
    print("\n".join(lines))
    dropped = guarded(pd.DataFrame(rows), given.guard) if given.guard is not None else []
    if dropped:
        raise SystemExit("speed: ratios dropped by more than a third: " + "; ".join(dropped))


def _beside_plain(
    name: str,
    plain: Callable[[int], None],
    one: OfflineLearner,
    four: OfflineLearner,
    updates: tuple[int, int, int],
    kind: str,
    given: argparse.Namespace,
) -> Measured:
    """One and four runs beside the plain version; `updates` a round of each of the three."""
    baseline, many = f"plain {name}", f"{name} x4"
    contestants = {
        baseline: (plain, updates[0], 1),
        name: (one.update, updates[1], 1),
        many: (four.update, updates[2], 4),
    }
    rows = compare(contestants, given.rounds, kind, given.device)
    return rows, _lines(pd.DataFrame(rows), kind, [(name, baseline), (many, baseline)])


def _lines(frame: pd.DataFrame, kind: str, pairs: list[tuple[str, str]]) -> list[str]:
    medians = frame.groupby("contestant")["run_updates_per_s"].median()
    lines = []
    for numerator, denominator in pairs:
        middle, low, high = ratios(frame, numerator, denominator)
        speeds = f"{numerator} {medians[numerator]:.0f}, {denominator} {medians[denominator]:.0f}"
        lines.append(f"| {kind} | {numerator} / {denominator} | {middle:.2f} | {low:.2f} | {high:.2f} | {speeds} |")
    return lines


if __name__ == "__main__":
    main()
