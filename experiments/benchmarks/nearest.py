"""Speed of PRDC's exact nearest-row search beside the authors' joint KD-tree, on MuJoCo roll-outs made here.

Run: ``OMP_NUM_THREADS=1 taskset -c 1 python -m experiments.benchmarks.nearest --out FOLDER``. Writes
FOLDER/nearest.csv, one line for each problem and policy, and counts answers that differ from a float64 brute force.
Times are for a batch of 256 queries on one thread: ``ms`` by the wall clock, ``cpu_ms`` by this process's own clock,
which a busy machine disturbs less.
"""

from __future__ import annotations

import argparse
import csv
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from offline_rl.nearest import NearestRow, NeighbourTable

Array = npt.NDArray[Any]
NOISES = (0.1, 0.2, 0.3, 0.5, float("inf"))  # inf: actions uniform in the box, unrelated to the data


def roll_out(name: str, rows: int, seed: int = 0, one_controller: bool = False) -> tuple[Array, Array, Array]:
    """States (rows, state_dim), actions and rewards (rows,) of random tanh-linear policies plus noise, float32.

    Each episode draws its own weights, offset and noise level; with ``one_controller`` all share one policy with
    noise 0.2, as the data of a single behaviour policy do. Uses ``name``-v4, or -v5 where v4 is not registered.
    States are normalised to mean 0, standard deviation 1 (plus 1e-3), as PRDC does.
    """
    import gymnasium

    try:
        env = gymnasium.make(f"{name}-v4").unwrapped
    except gymnasium.error.Error:
        env = gymnasium.make(f"{name}-v5").unwrapped
    rng = np.random.default_rng(seed)
    assert env.observation_space.shape is not None
    assert env.action_space.shape is not None
    state_dim, action_dim = env.observation_space.shape[0], env.action_space.shape[0]
    states, actions = np.empty((rows, state_dim)), np.empty((rows, action_dim), np.float32)
    rewards = np.empty(rows, np.float32)
    step = rows
    for row in range(rows):
        if step >= 1000:
            state, step = env.reset(seed=int(rng.integers(2**31)))[0], 0
        if row == 0 or (step == 0 and not one_controller):
            weights = rng.normal(size=(action_dim, state_dim)) * rng.choice([0.2, 0.6, 2.0]) / np.sqrt(state_dim)
            offset, noise = rng.normal(size=action_dim) * 0.3, rng.choice([0.05, 0.2, 0.5])
            noise = 0.2 if one_controller else noise
        action = np.tanh(weights @ state + offset) + noise * rng.normal(size=action_dim)
        states[row], actions[row] = state, np.clip(action, -1, 1)
        state, rewards[row], terminal, _, _ = env.step(actions[row])
        step = 1000 if terminal else step + 1
    return ((states - states.mean(0)) / (states.std(0) + 1e-3)).astype(np.float32), actions, rewards


def measure(name: str, rows: int, k: int, beta: float, batches: int, cache: Path | None) -> list[dict[str, Any]]:
    """One line for each policy in NOISES; ``build_s`` is the table's build (or load, when cached) in seconds."""
    from scipy.spatial import cKDTree  # type: ignore[import-untyped,unused-ignore]

    states, actions, _ = roll_out(name, rows)
    clock, own_clock = time.perf_counter(), time.process_time()
    table = NeighbourTable.cached(states, k, cache, True) if cache else NeighbourTable.build(states, k, True)
    seconds, own_seconds = time.perf_counter() - clock, time.process_time() - own_clock
    search = NearestRow(torch.from_numpy(states), torch.from_numpy(actions), beta, table=table)
    keys = np.concatenate([np.float32(beta) * states, actions], 1)
    tree = cKDTree(keys.astype(np.float64))
    rng = np.random.default_rng(1)
    lines = []
    for noise in NOISES:
        ours, cpu, theirs, proved, own, wrong, checked = [], [], [], [], [], 0, 0
        for batch in range(batches + 1):
            index = rng.integers(0, rows, 256)
            near = np.clip(actions[index] + min(noise, 1e9) * rng.normal(size=(256, actions.shape[1])), -1, 1)
            policy = (near if np.isfinite(noise) else rng.uniform(-1, 1, near.shape)).astype(np.float32)
            one, two = torch.from_numpy(index)[None], torch.from_numpy(policy)[None]
            clock, own_clock = time.perf_counter(), time.process_time()
            found, certified = search.query(one, two)
            ours.append(1e3 * (time.perf_counter() - clock))
            cpu.append(1e3 * (time.process_time() - own_clock))
            query = np.concatenate([keys[index, : states.shape[1]], policy], 1).astype(np.float64)
            if batch < 5:
                own_clock = time.process_time()
                tree.query(query)
                theirs.append(1e3 * (time.process_time() - own_clock))
            if batch == 0:
                continue  # the first makes the fallback's tree
            proved.append(float(certified.float().mean()))
            own.append(float((found[..., 0] == one).float().mean()))
            for q, row in list(zip(query, found[0, :, 0], strict=True))[: 16 if batch < 5 else 0]:
                wrong += int(np.square(keys - q).sum(1).argmin() != int(row))
                checked += 1
        lines.append({
            "problem": name, "rows": rows, "k": k, "beta": beta, "noise": noise, "build_s": round(seconds, 1),
            "build_cpu_s": round(own_seconds, 1), "cpu_ms_median": round(float(np.median(cpu[1:])), 3),
            "ms_median": round(float(np.median(ours[1:])), 3), "ms_mean": round(float(np.mean(ours[1:])), 3),
            "ms_min": round(min(ours[1:]), 3), "certified": round(float(np.mean(proved)), 4),
            "own_row": round(float(np.mean(own)), 4), "kdtree_cpu_ms_median": round(float(np.median(theirs)), 2),
            "checked": checked, "wrong": wrong,
        })  # fmt: skip
        print(lines[-1], flush=True)
    return lines


def main() -> None:
    """Parse the command line, measure, write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for nearest.csv")
    parser.add_argument("--rows", type=int, default=400_000)
    parser.add_argument("--k", type=int, default=64)
    parser.add_argument("--beta", type=float, default=2.0)
    parser.add_argument("--batches", type=int, default=50)
    parser.add_argument("--problems", nargs="+", default=["HalfCheetah", "Hopper"])
    parser.add_argument("--cache", type=Path, help="reuse neighbour tables kept here (build_s is then a load)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    lines: list[dict[str, Any]] = []
    for name in options.problems:
        lines += measure(name, options.rows, options.k, options.beta, options.batches, options.cache)
        with open(options.out / "nearest.csv", "w", newline="") as file:
            writer = csv.DictWriter(file, lines[0].keys())
            writer.writeheader()
            writer.writerows(lines)


if __name__ == "__main__":
    main()
