"""What robustness costs on a tabular MDP from a file: exact values under the six kinds of uncertainty sets.

Run: ``OMP_NUM_THREADS=1 python -m experiments.benchmarks.robust_values --model FILE.npz --steps 150 --out FOLDER``.
Writes FOLDER/robust-values.csv and .md: for each divergence, form and level the value at the start of the robust
optimum, of the nominal optimum, of the file's `expert_policy` (S, A), if it has one, and of the uniform policy, each
under nature's worst laws, one set a pair (s, a), and the seconds that the optimum and the evaluation of a policy took.
The first line is without an adversary. The model is read by `envs.finite_mdp.load_mdp`.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from envs.finite_mdp import FiniteMDP, load_mdp
from envs.robust_values import at_start, evaluate, optimal
from envs.uncertainty import DIVERGENCES, FORMS, Uncertainty
from experiments import results
from experiments.cpu import cpu_settings
from experiments.report import markdown_table, number
from experiments.run_folder import machine
from orbs import reject

__all__ = ["expert_policy", "measure", "robust_values"]

RADII = (0.01, 0.05, 0.1, 0.2)
WEIGHTS = (0.1, 0.5, 1.0, 5.0)


def expert_policy(path: Path, mdp: FiniteMDP) -> Tensor | None:
    """(S, A) the file's `expert_policy`, uniform in states whose row is all zero; None where the file has none.

    Raises:
        ValueError: another shape, or rows that are no distributions.
    """
    with np.load(path, allow_pickle=False) as file:
        if "expert_policy" not in file.files:
            return None
        given = torch.as_tensor(np.asarray(file["expert_policy"], np.float64))
    if given.shape != (mdp.states, mdp.actions):
        wanted, shape = f"shape {(mdp.states, mdp.actions)}", f"shape {tuple(given.shape)}"
        reject("expert_policy", wanted, shape, "align it with the kernel")
    row = torch.where((given == 0).all(-1, keepdim=True), 1.0 / mdp.actions, given)
    off = float((row.sum(-1) - 1).abs().max())
    if not (off < 1e-6 and float(row.min()) >= 0):
        found = f"a sum that misses 1 by {off:.3g}, a least chance of {float(row.min()):.3g}"
        reject("expert_policy", "distributions over actions", found, "divide by the sum")
    return row


def measure(mdp: FiniteMDP, policies: dict[str, Tensor], nature: Uncertainty | None, device: str) -> dict[str, Any]:
    """One line of the table; policies (H, S, A) by name."""

    def now() -> float:
        if device != "cpu":
            torch.cuda.synchronize()
        return time.perf_counter()

    evaluate(mdp, mdp_uniform(mdp), nature)  # makes the laws ready, once a model
    began = now()
    best = optimal(mdp, nature)[0]
    between = now()
    values = [evaluate(mdp, policy, nature) for policy in policies.values()]
    ended = now()
    line: dict[str, Any] = {"divergence": "none", "form": "", "level": float("nan")}
    if nature is not None:
        line = {"divergence": nature.divergence, "form": nature.form, "level": float(nature.level)}
    line["robust optimum"] = float(at_start(mdp, best))
    line |= {name: float(at_start(mdp, value)) for name, value in zip(policies, values, strict=True)}
    return line | {"seconds, optimum": between - began, "seconds, a policy": (ended - between) / len(policies)}


def mdp_uniform(mdp: FiniteMDP) -> Tensor:
    """(H, S, A) the uniform policy."""
    shape = mdp.steps, mdp.states, mdp.actions
    return torch.full(shape, 1.0 / mdp.actions, dtype=torch.float64, device=mdp.device)


def robust_values(
    model: Path,
    steps: int,
    out: Path,
    radii: Sequence[float] = RADII,
    weights: Sequence[float] = WEIGHTS,
    device: str = "cpu",
) -> list[Path]:
    """Measure, write the table under `out`, print it; returns the paths."""
    import pandas as pd

    mdp = load_mdp(model, steps).to(device)
    policies = {"nominal optimum": optimal(mdp)[1]}
    expert = expert_policy(model, mdp)
    if expert is not None:
        policies["expert"] = expert.to(device).expand(steps, -1, -1)
    policies["uniform"] = mdp_uniform(mdp)
    sets: list[Uncertainty | None] = [None]
    for divergence in DIVERGENCES:
        for form in FORMS:
            levels = radii if form == "constrained" else weights
            sets += [Uncertainty(divergence, form, level) for level in levels]  # type: ignore[arg-type]
    lines = [measure(mdp, policies, nature, device) for nature in sets]
    table = pd.DataFrame(lines)
    shown = []
    for line in lines:
        cells = {
            key: value if isinstance(value, str) else number(value) if "seconds" in key else f"{value:.4f}"
            for key, value in line.items()
        }
        shown.append(cells | {"level": "-" if line["divergence"] == "none" else f"{line['level']:g}"})
    where = torch.cuda.get_device_name() if device != "cpu" else f"one thread of {machine()}"
    title = (
        f"{model.name}: {mdp.states} states, {mdp.actions} actions, {steps} steps; {where}, torch {torch.__version__}."
    )
    text = "\n".join([title, "", *markdown_table(shown)])
    print(text)
    return [
        results.write_text(out / "robust-values.csv", table.to_csv(index=False)),
        results.write_text(out / "robust-values.md", text + "\n"),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", type=Path, required=True, help="an .npz file of a tabular MDP")
    parser.add_argument("--steps", type=int, required=True, help="of an episode")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--levels", type=float, nargs="+", default=list(RADII), help="radii of the constrained sets")
    parser.add_argument("--weights", type=float, nargs="+", default=list(WEIGHTS), help="of the regularised sets")
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args()
    with cpu_settings("float32", 1):
        for path in robust_values(given.model, given.steps, given.out, given.levels, given.weights, given.device):
            print(os.fspath(path))


if __name__ == "__main__":
    main()
