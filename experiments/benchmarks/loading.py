"""Time and memory of loading, filtering and normalising a large dataset, two million rows by default.

Run: ``OMP_NUM_THREADS=1 python -m experiments.benchmarks.loading --out FOLDER``. Writes FOLDER/loading.csv,
one line a stage: seconds by the wall clock and by this process's own clock (which a busy machine disturbs less), and
the highest resident memory so far beyond that of the imports, beside the size of the arrays of transitions (obs,
action, reward, next_obs, terminal, time-out) that come out. ``--stored`` chooses how the file holds its values.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
import threading
import time
from pathlib import Path

import h5py
import numpy as np
import torch

from envs.datasets import load
from offline_rl import BC
from orbs import ROW_FIELDS

OBS_DIM, ACTION_DIM, LENGTH = 17, 6, 1000  # HalfCheetah's


def write_file(path: Path, rows: int, stored: str) -> None:
    """Random values in D4RL layout; "float64" as some files have them, "gzip" as D4RL's own are compressed."""
    rng = np.random.default_rng(0)
    kind = np.float64 if stored == "float64" else np.float32
    how = {"compression": "gzip"} if stored == "gzip" else {}
    with h5py.File(path, "w") as file:
        file.create_dataset("observations", data=rng.standard_normal((rows, OBS_DIM), np.float32).astype(kind), **how)
        actions = rng.uniform(-1, 1, (rows, ACTION_DIM)).astype(np.float32)
        file.create_dataset("actions", data=actions.astype(kind), **how)
        file.create_dataset("rewards", data=rng.standard_normal(rows, np.float32).astype(kind), **how)
        file.create_dataset("terminals", data=np.zeros(rows, np.bool_), **how)
        file.create_dataset("timeouts", data=np.arange(rows) % LENGTH == LENGTH - 1, **how)


class _Peak:
    """The highest resident memory, sampled by a thread (the system's own mark cannot be set back)."""

    def __init__(self) -> None:
        self.start = self.most = _resident()
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while True:
            self.most = max(self.most, _resident())
            time.sleep(0.01)

    @property
    def beyond(self) -> float:
        """MiB."""
        return (max(self.most, _resident()) - self.start) / 2**20


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def measure(path: Path) -> list[dict[str, float | str]]:
    """Load the file, give it to a learner, which filters and normalises; one line a stage, then the sum."""
    torch.set_num_threads(1)
    learner = BC(OBS_DIM, ACTION_DIM, runs=1, seed=0)
    peak, lines, sums = _Peak(), [], np.zeros(2)
    dataset = None
    for stage in ("load and check", "filter and normalise"):
        wall, own = time.perf_counter(), time.process_time()
        if dataset is None:
            dataset = load(path)
        else:
            learner.attach(dataset)
        spent = np.array([time.perf_counter() - wall, time.process_time() - own])
        sums += spent
        lines.append({"stage": stage, "wall_s": spent[0], "cpu_s": spent[1], "peak_mib": peak.beyond})
    assert dataset is not None
    view = dataset.view()
    arrays = sum(view.part(field, 0, 1).nbytes for field in ROW_FIELDS) * len(view) / 2**20
    lines.append({"stage": "both", "wall_s": sums[0], "cpu_s": sums[1], "peak_mib": peak.beyond})
    return [{**line, "arrays_mib": arrays, "peak_over_arrays": float(line["peak_mib"]) / arrays} for line in lines]


def main() -> None:
    """The command line; see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--stored", choices=("float32", "float64", "gzip"), default="float32")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "large.hdf5"
        write_file(path, options.rows, options.stored)
        lines = [{"rows": options.rows, "stored": options.stored, **line} for line in measure(path)]
    options.out.mkdir(parents=True, exist_ok=True)
    with open(options.out / "loading.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(lines[0]))
        writer.writeheader()
        writer.writerows({key: f"{x:.3f}" if isinstance(x, float) else x for key, x in line.items()} for line in lines)
    print((options.out / "loading.csv").read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
