"""Between i.i.d. and adversarial: expected-loss regret of three learners as the SEA dial turns from 0 to 1.

Run: ``OMP_NUM_THREADS=1 python -m experiments.benchmarks.interpolation --out FOLDER``. Plays `sea-dial` at 11 dials
(folders as of `orbs regret`, resumed where they are) and writes FOLDER/interpolation.csv (one line a dial and learner),
interpolation-runs.csv (one a run), interpolation.png and .pdf. The grey line is the rate of the theory, sqrt(variance)
+ sqrt(variation), times the one factor that fits it best to optimistic-omd.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import numpy as np

from experiments import regret_plots, regret_report, results
from experiments.problems import PROBLEMS, settings
from experiments.regret import regret
from experiments.regret_options import Regret

__all__ = ["interpolate"]

LEARNERS = ("optimistic-omd", "optimistic-ftrl", "ogd")


def interpolate(out: Path, dials: int, runs: int, horizon: int, device: str = "cpu", seed: int = 0) -> list[Path]:
    """Play what is missing under `out`, then write the tables and the figure; returns their paths."""
    import pandas as pd

    positions = np.linspace(0.0, 1.0, dials)
    lines, each, amounts = [], [], []
    for dial in positions:
        given = (f"dial={dial:g}",)
        folders = regret(
            Regret(
                problem="sea-dial", problem_set=given, learners=LEARNERS, runs=runs, horizon=horizon, seed=seed,
                device=device, out=out, experiment="interpolation", points_per_decade=4, resume=True,
            )
        )  # fmt: skip
        made = regret_report.report(folders, out / "reports" / given[0], metric="regret/static")
        lines.append(made.table.assign(dial=dial))
        each.append(pd.read_csv(made.paths["runs"]).assign(dial=dial))
        world = PROBLEMS["sea-dial"].make(settings(given), horizon, 1, seed)
        variance, variation = (float(amount(horizon)[0]) for amount in (world.variance, world.variation))  # type: ignore[attr-defined]
        amounts.append((variance, variation))
    table = pd.concat(lines, ignore_index=True)
    variance, variation = np.array(amounts).T
    rate = np.sqrt(variance) + np.sqrt(variation)
    for name, values in (("variance", variance), ("variation", variation)):
        table[name] = table["dial"].map(dict(zip(positions, values, strict=True)))
    ours = table[table["algorithm"] == LEARNERS[0]].sort_values("dial")["final"].to_numpy(np.float64)
    factor = float(ours @ rate / (rate @ rate))
    kept = ["dial", "algorithm", "runs", "used", "round", "final", "final_low", "final_high", "variance", "variation"]
    paths = [
        results.write_text(out / "interpolation.csv", table[kept].to_csv(index=False)),
        results.write_text(out / "interpolation-runs.csv", pd.concat(each, ignore_index=True).to_csv(index=False)),
    ]
    fine = np.linspace(0.0, 1.0, 201)
    theory = {f"{factor:.2g} (sqrt(variance) + sqrt(variation))": (fine, factor * np.interp(fine, positions, rate))}
    title = f"SEA dial after {horizon} rounds, {runs} runs, 95 % intervals"
    return paths + regret_plots.dial(table, theory, out / "interpolation", title)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--dials", type=int, default=11)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--horizon", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args()
    for path in interpolate(given.out, given.dials, given.runs, given.horizon, given.device, given.seed):
        print(os.fspath(path))


if __name__ == "__main__":
    main()
