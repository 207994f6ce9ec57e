"""How cost grows: run-updates a second and peak memory of TD3+BC over dataset rows, runs and batch size.

    OMP_NUM_THREADS=1 taskset -c 1 python -m experiments.benchmarks.growth --out OUT [--algo td3bc] [--device cpu]

Writes OUT/growth.csv and growth.md. Not the whole product: rows with few runs, runs with few rows, batch sizes with one
run; some minutes on one core. Every cell is a process of its own, whose peak is its own: `above` is the peak less what
the process held before the data and less the data's arrays, and below 4 GB it has to stay, which the last lines say of
the largest datasets. Rows are normal numbers, 17 observations, 6 actions.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.report import markdown_table
from experiments.results import write_text

__all__ = ["cell", "cells", "verdicts"]

OBS, ACTION = 17, 6
MB = 1e6
LIMIT_MB = 4000.0  # above the data's arrays, from LARGE rows on
LARGE = 2_000_000
FEW_RUNS = 4


def _peak() -> float:
    """MB that this process has held at most (kilobytes on Linux)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / MB


def rows_of(count: int) -> Any:
    """`count` transitions, drawn in blocks so that making them takes no more memory than they do."""
    from orbs import Transitions

    rng = np.random.default_rng(0)

    def normal(*shape: int) -> np.ndarray:
        found = np.empty(shape, np.float32)
        for first in range(0, len(found), 100_000):
            part = found[first : first + 100_000]
            part[...] = rng.standard_normal(part.shape, np.float32)
        return found

    action = normal(count, ACTION)
    np.clip(action, -1.0, 1.0, out=action)
    obs, following, reward = normal(count, OBS), normal(count, OBS), normal(count)
    return Transitions(obs, action, reward, following, np.zeros(count, np.float32), name=f"normal-{count}")


def cell(algo: str, rows: int, runs: int, batch: int, seconds: float, device: str) -> dict[str, Any]:
    """One line of the table, measured in this process."""
    import torch

    import offline_rl
    from experiments.cpu import choose_matmul, cpu_settings

    torch.zeros(1, device=device) @ torch.zeros(1, device=device)
    kind = {"td3bc": offline_rl.TD3BC, "iql": offline_rl.IQL, "prdc": offline_rl.PRDC}[algo]
    before = _peak()
    data = rows_of(rows)
    arrays = sum(getattr(data, name).nbytes for name in ("obs", "action", "reward", "next_obs", "terminal", "timeout"))
    with cpu_settings(choose_matmul("auto")):
        learner = kind.for_dataset(data, runs=runs, batch_size=batch, device=device)
        learner.update(3)
        count, began = 0, time.perf_counter()
        while time.perf_counter() - began < seconds or count < 2:
            learner.update(2)
            learner.metrics()  # waits for the device
            count += 2
        took = time.perf_counter() - began
    line: dict[str, Any] = {"algorithm": algo, "rows": rows, "runs": runs, "batch": batch}
    line |= {"updates_per_s": count / took, "run_updates_per_s": count * runs / took}
    line |= {"arrays_mb": arrays / MB, "peak_mb": _peak(), "above_mb": _peak() - before - arrays / MB}
    if device.startswith("cuda"):
        line["device_peak_mb"] = torch.cuda.max_memory_allocated() / MB
    return line


def cells(rows: Sequence[int], runs: Sequence[int], batches: Sequence[int]) -> list[tuple[int, int, int]]:
    """(rows, runs, batch): rows with up to four runs, runs with the first rows, batch sizes with the first of both.

    The batch size is the second one elsewhere.
    """
    usual = batches[min(1, len(batches) - 1)]
    found = [(n, r, usual) for n in rows for r in runs if r <= FEW_RUNS or n == rows[0]]
    return found + [(rows[0], runs[0], b) for b in batches if b != usual]


def verdicts(lines: Sequence[dict[str, Any]]) -> list[str]:
    """One line on each large dataset: its most memory above the arrays, and whether that is within the limit."""
    found = []
    for rows in sorted({line["rows"] for line in lines if line["rows"] >= LARGE}):
        worst = max((line for line in lines if line["rows"] == rows), key=lambda line: line["above_mb"])
        within = "within" if worst["above_mb"] <= LIMIT_MB else "MORE THAN"
        found.append(
            f"- {rows} rows, {worst['runs']} runs: {worst['above_mb']:.0f} MB above the data's arrays "
            f"({worst['arrays_mb']:.0f} MB), {within} {LIMIT_MB:.0f} MB."
        )
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    import pandas as pd

    from experiments.run_folder import machine

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--algo", choices=("td3bc", "iql", "prdc"), default="td3bc")
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 1_000_000, 2_000_000])
    parser.add_argument("--runs", type=int, nargs="+", default=[1, 4, 16, 64])
    parser.add_argument("--batches", type=int, nargs="+", default=[64, 256, 1024])
    parser.add_argument("--seconds", type=float, default=10.0, help="of each cell")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--cell", type=int, nargs=3, metavar=("ROWS", "RUNS", "BATCH"), help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.cell is not None:
        rows, runs, batch = given.cell
        print(json.dumps(cell(given.algo, rows, runs, batch, given.seconds, given.device)))
        return
    lines = []
    for n, r, b in cells(given.rows, given.runs, given.batches):
        command = [sys.executable, "-m", "experiments.benchmarks.growth", "--out", str(given.out), "--algo", given.algo]
        command += ["--seconds", str(given.seconds), "--device", given.device, "--cell", str(n), str(r), str(b)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"growth: {n} rows, {r} runs, batch {b} failed:\n{done.stderr}")
        lines.append(json.loads(done.stdout.splitlines()[-1]))
        print(lines[-1], flush=True)
    import torch

    where = torch.cuda.get_device_name() if given.device != "cpu" else f"one thread of {machine()}"
    python = platform.python_version()
    text = [
        f"{given.algo}, {where}, python {python}, torch {torch.__version__}; memory in MB, above: without the data's "
        "arrays and what the process held before them.",
        "",
    ]
    shown = [{k: f"{v:.4g}" if isinstance(v, float) else str(v) for k, v in line.items()} for line in lines]
    frame = pd.DataFrame(lines).assign(machine=where, python=python, torch=torch.__version__)
    write_text(given.out / "growth.csv", frame.to_csv(index=False))
    text += [*markdown_table(shown), "", *verdicts(lines)]
    write_text(given.out / "growth.md", "\n".join(text).rstrip() + "\n")
    print("\n".join(text))


if __name__ == "__main__":
    main()
