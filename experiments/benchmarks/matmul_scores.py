"""What `--matmul bfloat16` does to scores: the same runs trained with float32 and with bfloat16 products.

    OMP_NUM_THREADS=1 taskset -c 1 python -m experiments.benchmarks.matmul_scores --out OUT [--runs 5] [--steps 10000]

Trains OUT/float32 and OUT/bfloat16 (what is there goes on) with the same seeds, data, batches and evaluation; writes
OUT/bfloat16.csv, the last evaluation of each run, and OUT/bfloat16.md, means over runs and of the runs' differences
with 95 % intervals. Runs that differ in one bit drift apart: a difference whose interval holds 0 is no effect seen.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import torch

from experiments import results, statistics
from experiments.cpu import Matmul, rounds_in_hardware
from experiments.options import Train
from experiments.report import markdown_table
from experiments.run_folder import machine

if TYPE_CHECKING:
    from experiments.statistics import FloatArray

__all__ = ["main", "table"]

KERNELS: tuple[Matmul, Matmul] = ("float32", "bfloat16")


def final_scores(folder: Path, matmul: str) -> pd.DataFrame:
    """A row a run: its last evaluation."""
    frame = results.read_table(folder / "metrics.parquet")
    frame = frame[frame["metric"] == "eval/score"]
    last = frame[frame["step"] == frame["step"].max()]
    found = pd.DataFrame(last[["problem", "algorithm", "run", "step", "value"]]).assign(matmul=matmul)
    return found.rename(columns={"step": "updates", "value": "score"})


def table(scores: pd.DataFrame) -> list[str]:
    """Lines: a problem and algorithm each, both means and the mean of the paired differences."""

    def interval(values: FloatArray) -> str:
        found = statistics.mean_interval(values)
        if found.low is None or found.high is None:
            return f"{float(found.value):.1f}"
        return f"{float(found.value):.1f} [{float(found.low):.1f}, {float(found.high):.1f}]"

    lines = []
    for (problem, algorithm), part in scores.groupby(["problem", "algorithm"], sort=False):
        wide = part.pivot_table(index="run", columns="matmul", values="score")
        float32, bfloat16 = (wide[kernels].to_numpy(float) for kernels in KERNELS)
        lines.append({
            "problem": str(problem), "algorithm": str(algorithm), "updates": str(part["updates"].max()),
            "runs": str(len(wide)), "float32": interval(float32), "bfloat16": interval(bfloat16),
            "bfloat16 - float32, the same runs": interval(bfloat16 - float32),
        })  # fmt: skip
    return markdown_table(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    from experiments.train import train

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--dataset", default="local/pendulum-medium-replay-v0")
    parser.add_argument("--algos", nargs="+", default=["td3bc", "iql"])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--eval-every", type=int, default=1000)
    parser.add_argument("--eval-episodes", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    given = vars(parser.parse_args(arguments))
    out = given.pop("out")
    found = []
    for matmul in KERNELS:
        options = Train(**{**given, "algos": tuple(given["algos"])}, out=out / matmul, matmul=matmul, resume=True)
        found += [final_scores(folder, matmul) for folder in train(options)]
    scores = pd.concat(found)
    hardware = "the chip" if rounds_in_hardware() else "software (the chip has no unit for it)"
    command = " ".join(f"--{name.replace('_', '-')} {_words(value)}" for name, value in given.items())
    lines = [
        f"Score of the last evaluation ({given['eval_episodes']} episodes), mean over runs, 95 % intervals (Student's "
        f"t). Products rounded by {hardware}. {machine()}, torch {torch.__version__}.",
        "",
        *table(scores),
        "",
        f"`python -m experiments.benchmarks.matmul_scores --out OUT {command}`, which trains as",
        "",
        *(f"- `orbs train {command} --matmul {matmul} --out OUT/{matmul}`" for matmul in KERNELS),
    ]
    results.write_text(out / "bfloat16.csv", scores.to_csv(index=False))
    results.write_text(out / "bfloat16.md", "\n".join(lines) + "\n")
    print("\n".join(lines))


def _words(value: object) -> str:
    return " ".join(value) if isinstance(value, list) else str(value)


if __name__ == "__main__":
    main()
