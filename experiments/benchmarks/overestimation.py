"""What one critic, two critics and STAC's pessimism predict of noisy rewards, and which action they lead to.

Run: ``OMP_NUM_THREADS=1 taskset -c 1 python -m experiments.benchmarks.overestimation --out FOLDER``. Four learners, a
number of runs each, on ``orbs/RiskyDial-v0``, where every policy's value is known in closed form:

- ``td3-single``: TD3 whose target has one critic and so no minimum (an ablation, built here);
- ``td3``: TD3 as published, the minimum of two;
- ``stac-neutral``: STAC with beta 0, one Gaussian critic;
- ``stac``: the same with beta.

Writes FOLDER/overestimation.csv, one line for each run, step and learner, and FOLDER/overestimation.png. ``predicted``
is the critic's value (mean over its members) of the policy's own actions at states that the environment draws, and
``backed_up`` what the target takes of it (minimum, mean - beta std); ``true`` is the discounted value of that policy.
STAC's policy is sampled and its entropy bonuses are in all three. ``error`` is predicted - true, ``backed_up_error``
likewise; ``greedy_action`` is the deterministic policy's mean over the states.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from envs.risky import RiskyDial
from experiments import plots, results, statistics
from experiments.training_envs import TrainingEnvs
from offline_rl.critics import TwinCritic
from offline_rl.online import STAC, TD3
from offline_rl.online.agent import OnlineAgent
from orbs import reject

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["BETA", "LEARNERS", "SingleTD3", "draw", "final", "judge", "late_means", "main", "train"]

ENV = "orbs/RiskyDial-v0"
BETA = 0.5
STATES = 512  # at which the policies are judged
RECORDS = 24  # times in a training
RANDOM_STEPS = 300
# Small networks and many updates a step: what is fitted too closely is luck.
SHARED: dict[str, Any] = {
    "hidden": (64, 64),
    "batch_size": 64,
    "random_steps": RANDOM_STEPS,
    "learning_rate": 1e-3,
    "tau": 0.01,
    "discount": 0.9,
    "updates_per_step": 2,
}
# A small fixed temperature and no dropout, so that beta alone sets the two apart.
SOFT: dict[str, Any] = {
    "initial_alpha": 0.01,
    "alpha_learning_rate": 0.0,
    "actor_dropout": 0.0,
    "critic_dropout": 0.0,
}


class SingleTD3(TD3):
    """TD3 with one critic: no option of its configuration says so, because as published it has two."""

    name = "td3-single"

    def _build(self) -> None:
        super()._build()
        config = self.config
        self.critic = TwinCritic(
            self.philox,
            self.obs_dim,
            self.action_dim,
            config.hidden,
            config.discount,
            config.tau,
            config.learning_rate,
            dtype=self.dtype,
            members=1,
        )


LEARNERS: dict[str, tuple[type[OnlineAgent], dict[str, Any]]] = {
    "td3-single": (SingleTD3, {}),
    "td3": (TD3, {}),
    "stac-neutral": (STAC, {"beta": 0.0, **SOFT}),
    "stac": (STAC, {"beta": BETA, **SOFT}),
}
"""Name -> agent and what sets it apart."""


def train(
    name: str, steps: int, runs: int, seed: int = 0, device: str = "cpu", **values: Any
) -> tuple[OnlineAgent, list[dict[str, Any]]]:
    """Train the learner `name`; returns the agent and the table's lines.

    Args:
        steps: environment steps a run, above the RANDOM_STEPS.
        values: hyperparameters in place of the script's.

    Raises:
        ValueError: too few steps or runs.
    """
    if steps <= RANDOM_STEPS:
        reject("--steps", f"more than the {RANDOM_STEPS} random ones", steps, "e.g. --steps 2400")
    if runs < 1:
        reject("--runs", "at least 1", runs, "e.g. --runs 8")
    kind, own = LEARNERS[name]
    playing = TrainingEnvs(ENV, range(runs), seed)
    arguments = {**SHARED, "capacity": steps, **own, **values}
    agent = kind.for_env(playing.vector, runs=runs, seed=seed, device=device, **arguments)
    due = {round(steps * (record + 1) / RECORDS) for record in range(RECORDS)}
    lines: list[dict[str, Any]] = []
    for step in range(1, steps + 1):
        obs = playing.obs
        action = agent.explore(obs)
        following, reward, terminal = playing.step(action)
        agent.observe(obs, action, reward, following, terminal)
        if agent.ready:
            agent.update(agent.config.updates_per_step)
            if step in due:
                found = judge(agent)
                lines += [
                    {"learner": name, "run": run, "step": step, **{key: float(x[run]) for key, x in found.items()}}
                    for run in range(runs)
                ]
    playing.close()
    return agent, lines


@torch.no_grad()
def judge(agent: OnlineAgent) -> dict[str, np.ndarray]:
    """The table's numbers of an agent now, (runs,) each; the states and the policy's noise are always the same ones."""
    dial = RiskyDial()
    states = torch.rand(STATES, agent.obs_dim, generator=torch.Generator().manual_seed(0)) * 2 - 1
    x = states.to(agent.device).expand(agent.runs, -1, -1)
    action, bonus = agent.act(x, deterministic=False), agent.entropy_bonus(x, deterministic=False).mean(1)
    predicted = agent.value(x, action).mean(1) + bonus
    agent.critic.eval()
    scaled = (action - agent.action_centre) / agent.action_scale
    backed_up = agent.critic.online_value(x, scaled).mean(1) + bonus
    agent.critic.train()
    # The next state depends on nothing, so that every step is worth the same.
    true = (dial.mean_reward(action).mean((1, 2)) + bonus) / (1 - agent.config.discount)
    found = {
        "predicted": predicted,
        "backed_up": backed_up,
        "true": true,
        "error": predicted - true,
        "backed_up_error": backed_up - true,
        "greedy_action": agent.act(x).mean((1, 2)),
    }
    return {name: value.cpu().double().numpy() for name, value in found.items()}


def late_means(table: pd.DataFrame, column: str) -> pd.DataFrame:
    """Each run's mean of a column over the last quarter of the training: a row a run, a column a learner."""
    late = table[table["step"] > 0.75 * table["step"].max()]
    per_run: pd.DataFrame = late.pivot_table(column, index="run", columns="learner", aggfunc="mean")
    return per_run


def final(table: pd.DataFrame) -> pd.DataFrame:
    """Means over the training's last quarter with half-widths of 95 % intervals over runs, a line a learner."""
    means = {column: late_means(table, column) for column in ("error", "backed_up_error", "true", "greedy_action")}
    lines = []
    for name in dict.fromkeys(table["learner"]):
        line: dict[str, Any] = {"learner": name, "runs": table["run"].nunique()}
        for column, per_run in means.items():
            line[column], line[f"{column}_95"] = _centre_and_half_width(per_run[name].to_numpy())
        lines.append(line)
    return pd.DataFrame(lines)


def _centre_and_half_width(x: np.ndarray) -> tuple[float, float]:
    """Mean of the runs and half its 95 % interval's width, NaN for one run."""
    found = statistics.mean_interval(x)
    return float(found.value), float("nan") if found.high is None else float(found.high - found.value)


def draw(table: pd.DataFrame, path: Path) -> Path:
    """The picture: errors of the prediction, and greedy actions beside the two optima."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure: Figure = Figure(figsize=(10, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    _panel(left, table, "error")
    left.axhline(0.0, color="0.35", linestyle="--", linewidth=1)
    left.set(xlabel="environment steps", ylabel="predicted - true value", title="overestimation")
    _panel(right, table, "greedy_action")
    dial = RiskyDial()
    for beta, text in ((0.0, "risk-neutral optimum"), (BETA, f"risk-averse optimum, beta {BETA:g}")):
        best = dial.best_action(beta)
        right.axhline(best, color="0.35", linestyle="--", linewidth=1)
        right.annotate(
            text, (1.0, best), (0, -3 if beta == 0.0 else 3), xycoords=("axes fraction", "data"),
            textcoords="offset points", ha="right", va="top" if beta == 0.0 else "bottom", fontsize=8, color="0.3",
        )  # fmt: skip
    right.set(xlabel="environment steps", ylabel="greedy action (-1 safe, 1 risky)", title="action", ylim=(-1.05, 1.05))
    handles, labels = left.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False, fontsize=9)
    runs = table["run"].nunique()
    bands = "bands: 95 % t intervals" if runs > 1 else "one run, no interval"
    figure.suptitle(f"{ENV}, mean over {runs} runs; {bands}", fontsize=9, color="0.3")
    return results.write_atomically(path, lambda file: figure.savefig(file, format="png", dpi=150))


def _panel(ax: Axes, table: pd.DataFrame, column: str) -> None:
    names = list(dict.fromkeys(table["learner"]))
    for name, style in plots.styles(names).items():
        wide = table[table["learner"] == name].pivot(index="step", columns="run", values=column).sort_index()
        found = statistics.mean_interval(wide.to_numpy())
        steps = wide.index.to_numpy()
        ax.plot(steps, found.value, linewidth=1.6, label=name, **style)
        if found.low is not None and found.high is not None:
            ax.fill_between(steps, found.low, found.high, color=style["color"], alpha=0.18, linewidth=0)
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(color="0.92", linewidth=0.8)
    ax.set_axisbelow(True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line, train, write table and picture, print the end of the training."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for overestimation.csv and overestimation.png")
    parser.add_argument("--steps", type=int, default=2400, help="environment steps a run")
    parser.add_argument("--runs", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    lines: list[dict[str, Any]] = []
    for name in LEARNERS:
        lines += train(name, given.steps, given.runs, given.seed, given.device)[1]
    table = pd.DataFrame(lines)
    given.out.mkdir(parents=True, exist_ok=True)
    text = table.to_csv(index=False)
    results.write_atomically(given.out / "overestimation.csv", lambda file: file.write(text.encode()))
    draw(table, given.out / "overestimation.png")
    with pd.option_context("display.width", 160, "display.max_columns", None):
        print(final(table).round(3).to_string(index=False))
    errors = late_means(table, "error")
    centre, half = _centre_and_half_width((errors["td3-single"] - errors["td3"]).to_numpy())
    print(f"error of td3-single minus td3's in the same run (same world, same first actor): {centre:.3f} +- {half:.3f}")


if __name__ == "__main__":
    main()
