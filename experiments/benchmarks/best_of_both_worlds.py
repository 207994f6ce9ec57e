"""Tsallis-INF beside Exp3 and UCB1 where losses are stochastic, and where gaps stay while the level jumps.

Run: ``OMP_NUM_THREADS=1 taskset -c 1 python -m experiments.benchmarks.best_of_both_worlds --out FOLDER``. Eight
arms, the last one better by 0.1. ``stochastic``: Bernoulli losses of means 0.45 and 0.55. ``constrained``: the
stochastically constrained adversary of `envs.experts`. All learners meet the same losses. Writes FOLDER/table.csv (mean
pseudo-regret and its 95 % interval over runs at rounds that grow geometrically), FOLDER/table.md (at 1000, 10 000 and
30 000 rounds beside reference values, means over 1000 runs of an independent implementation) and
FOLDER/best-of-both-worlds.png.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from bandits import make
from envs.experts import Experts
from experiments import plots, results, statistics
from experiments.cpu import cpu_settings
from experiments.report import markdown_table, number
from experiments.run_folder import machine
from orbs import reject

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["ENVIRONMENTS", "LEARNERS", "REFERENCE", "draw", "main", "play", "record_points", "tabulate"]

ARMS, GAP = 8, 0.1
ENVIRONMENTS = {"stochastic": "bernoulli", "constrained": "stochastically-constrained"}
"""Name -> kind of `envs.experts.Experts`."""
LEARNERS: dict[str, tuple[str, dict[str, Any]]] = {
    "Tsallis-INF (IW)": ("tsallis-inf", {"variant": "iw"}),
    "Tsallis-INF (RV)": ("tsallis-inf", {"variant": "rv"}),
    "Exp3": ("exp3", {}),
    "UCB1": ("ucb1", {}),
}
REFERENCE = {
    ("stochastic", "Tsallis-INF (IW)"): {1000: 71, 10_000: 305, 30_000: 438},
    ("stochastic", "Tsallis-INF (RV)"): {1000: 63, 10_000: 186, 30_000: 244},
    ("stochastic", "Exp3"): {1000: 76, 10_000: 400, 30_000: 592},
    ("stochastic", "UCB1"): {1000: 78, 10_000: 500, 30_000: 840},
    ("constrained", "Tsallis-INF (IW)"): {1000: 72, 10_000: 304, 30_000: 441},
    ("constrained", "Tsallis-INF (RV)"): {1000: 62, 10_000: 182, 30_000: 238},
    ("constrained", "Exp3"): {1000: 76, 10_000: 392, 30_000: 590},
    ("constrained", "UCB1"): {1000: 77, 10_000: 692, 30_000: 2002},
}
"""{(environment, learner): {round: pseudo-regret}}, means over 1000 runs."""
SHOWN = (1000, 10_000, 30_000)


def record_points(horizon: int) -> list[int]:
    """Rounds from 10 (or the horizon) on, 16 a factor of ten, those of the reference, and the horizon."""
    grid = np.round(10 ** np.arange(1, np.log10(horizon), 1 / 16)).astype(int).tolist() if horizon > 10 else []
    return sorted({*grid, *(t for t in SHOWN if t <= horizon), horizon})


def play(
    runs: int, horizon: int, seed: int = 0, device: str = "cpu", learners: Sequence[str] = tuple(LEARNERS)
) -> tuple[list[int], dict[tuple[str, str], np.ndarray]]:
    """Rounds and {(environment, learner): pseudo-regret (runs, rounds)}.

    A learner plays all environments at once, side by side in its runs; the learners take turns, a block of rounds each,
    and so the losses are drawn once for all.
    """
    points = record_points(horizon)
    worlds = [Experts(ARMS, horizon, runs, seed, device, kind=kind, feedback="bandit", gap=GAP) for kind in ENVIRONMENTS.values()]  # fmt: skip  # noqa: E501
    players = {}
    for name in learners:
        kind, given = LEARNERS[name]
        learner = make(kind, worlds[0].facts, len(worlds) * runs, seed, device, **given)
        players[name] = learner, [world.twin() for world in worlds]
    found: dict[tuple[str, str], list[np.ndarray]] = {(env, name): [] for env in ENVIRONMENTS for name in learners}
    block = worlds[0].tape.block
    stops = sorted({*points, *range(block, horizon, block)})
    for first, stop in zip([0, *stops], stops, strict=False):
        for name, (learner, twins) in players.items():
            for _ in range(first, stop):
                arm = learner.act()
                parts = zip(twins, torch.split(arm, runs), strict=True)
                learner.observe(arm, torch.cat([world.step(part)[1] for world, part in parts]))  # type: ignore[arg-type]
            if stop in points:
                for env, world in zip(ENVIRONMENTS, twins, strict=True):
                    found[env, name].append(world.regret()["regret/static"].cpu().numpy())
    return points, {key: np.stack(values, axis=-1) for key, values in found.items()}


def tabulate(points: Sequence[int], regrets: dict[tuple[str, str], np.ndarray]) -> pd.DataFrame:
    """A line an environment, learner and round: runs, mean, low, high, reference, ratio (NaN where there is none)."""
    import pandas as pd

    lines = []
    for (env, name), values in regrets.items():
        made = statistics.mean_interval(values.T)
        for i, t in enumerate(points):
            reference = float(REFERENCE[env, name].get(t, np.nan))
            mean = float(np.asarray(made.value)[i])
            low, high = (np.nan if end is None else float(np.asarray(end)[i]) for end in (made.low, made.high))
            line = {"environment": env, "learner": name, "runs": len(values), "round": t, "mean": mean}
            lines.append({**line, "low": low, "high": high, "reference": reference, "ratio": mean / reference})
    return pd.DataFrame(lines)


def draw(table: pd.DataFrame, path: Path) -> Path:
    """The picture: a panel an environment, regret against the logarithm of the round."""
    figure, axes = plots._figure(len(ENVIRONMENTS), 5.2, 4.2)
    for ax, env in zip(axes, ENVIRONMENTS, strict=True):
        for name, style in plots.styles(list(LEARNERS)).items():
            here = table[(table["environment"] == env) & (table["learner"] == name)].sort_values("round")
            ax.plot(here["round"], here["mean"], linewidth=1.6, label=name, **style)
            ax.fill_between(here["round"], here["low"], here["high"], color=style["color"], alpha=0.18, linewidth=0)
        ax.set(xscale="log", xlabel="round", ylabel="pseudo-regret", ylim=(0, None))
        ax.set_title(
            {"stochastic": "stochastic", "constrained": "stochastically constrained adversary"}[env], fontsize=10
        )
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False, fontsize=9)
    runs = int(table["runs"].max())
    bands = "bands: 95 % t intervals" if runs > 1 else "one run, no interval"
    figure.suptitle(f"{ARMS} arms, gap {GAP:g}, mean over {runs} runs; {bands}", fontsize=9, color="0.3")
    return results.write_atomically(path, lambda file: figure.savefig(file, format="png", dpi=120))


def _markdown(table: pd.DataFrame, given: argparse.Namespace) -> str:
    last = int(table["round"].max())
    rows = []
    for line in table[table["round"].isin([*SHOWN, last])].to_dict("records"):
        interval = "-" if np.isnan(line["low"]) else f"{number(line['low'])} to {number(line['high'])}"
        known = not np.isnan(line["reference"])
        rows.append({
            "environment": line["environment"], "learner": line["learner"], "round": str(line["round"]),
            "pseudo-regret": number(line["mean"]), "95 % interval": interval,
            "reference": f"{line['reference']:g}" if known else "-", "ratio": f"{line['ratio']:.2f}" if known else "-",
        })  # fmt: skip
    where = torch.cuda.get_device_name() if given.device != "cpu" else f"one thread of {machine()}"
    text = [
        "# Best of both worlds",
        "",
        f"Mean pseudo-regret over {given.runs} runs, {ARMS} arms, the last one better by {GAP:g}. References are",
        f"means over 1000 runs of an independent implementation with other random numbers. {where},",
        f"torch {torch.__version__}.",
        "",
        f"    python -m experiments.benchmarks.best_of_both_worlds --out OUT --runs {given.runs}"
        f" --horizon {given.horizon}" + (f" --seed {given.seed}" if given.seed else ""),
        "",
        *markdown_table(rows),
        "",
        "![best of both worlds](best-of-both-worlds.png)",
    ]
    return "\n".join(text) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line, play, write table and picture, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--out", type=Path, required=True, help="folder for table.csv, table.md, best-of-both-worlds.png"
    )
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--horizon", type=int, default=30_000, help="rounds")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args(arguments)
    for field in ("runs", "horizon"):
        if getattr(given, field) < 1:
            reject(f"--{field}", "at least 1", getattr(given, field), f"e.g. --{field} {parser.get_default(field)}")
    with cpu_settings("float32", 1):
        points, regrets = play(given.runs, given.horizon, given.seed, given.device)
    table = tabulate(points, regrets)
    text = _markdown(table, given)
    for path in (
        results.write_text(given.out / "table.csv", table.to_csv(index=False, float_format="%.6g")),
        results.write_text(given.out / "table.md", text),
        draw(table, given.out / "best-of-both-worlds.png"),
    ):
        print(os.fspath(path))
    print(text)


if __name__ == "__main__":
    main()
