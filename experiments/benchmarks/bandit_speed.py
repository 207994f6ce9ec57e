"""Speed of every learner of arms, 1000 runs at once on one core (or one GPU), beside MABWiser's and coba's LinUCB.

Run: ``OMP_NUM_THREADS=1 taskset -c 1 python -m experiments.benchmarks.bandit_speed --out FOLDER [--rivals FOLDER]``.
Writes FOLDER/bandit-speed.csv and .md; columns as in `regret_speed`: 10 arms, features and contexts of 10 dimensions.
Lines more: DynLin-UCB over a million rounds of 50 replications, epochs played at once, and with --rivals the rounds a
second of both packages, from an environment that is made in that folder (needs the package index) and kept.
`experiments.benchmarks.speed --rivals` times them turn by turn with ours.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bandits import make
from bandits.config import CONFIGS
from experiments.benchmarks import regret_speed, rivals
from experiments.benchmarks.rival_environment import ask, environment
from experiments.cpu import cpu_settings
from experiments.problems import PROBLEMS

__all__ = ["BESIDE", "HOMES", "dyn_lin_ucb", "home_of"]

_TEN = {"arms": 10, "dimension": 10}
HOMES: dict[str, tuple[str, Mapping[str, Any]]] = {
    "bandits.multi_armed.named": ("bandit-bernoulli", {}),
    "bandits.multi_armed.adversarial_named": ("bandit-bernoulli", {}),
    "bandits.linear.named": ("linear-bandit-fixed", _TEN),
    "bandits.linear.dynamical_named": ("dynamical-synthetic", {}),
    "bandits.contextual.named": ("contextual-linear", _TEN),
}
"""{family: (problem, settings)} that its learners are timed on."""

BESIDE = {
    "mabwiser": {
        "LinUCB": "disjoint-lin-ucb", "UCB1": "ucb1", "EpsilonGreedy": "epsilon-greedy",
        "ThompsonSampling": "thompson-beta",
    },
    "coba": {"LinUCB": "lin-ucb", "BanditUCB": "ucb1-tuned", "BanditEpsilon": "epsilon-greedy"},
}  # fmt: skip
"""{package: {its learner: ours of the same kind}}"""

# Needs advice, or a human planner, which no problem here has.
LEFT_OUT = ("exp4", "expert")


def home_of(name: str) -> tuple[str, Mapping[str, Any]]:
    """The problem that a learner is timed on, and its settings."""
    if name == "glm-ucb":
        return "linear-bandit-logistic", _TEN
    if name == "mesh-ucb":
        return "contextual-lipschitz", {"arms": 10}
    return HOMES[CONFIGS[name].family]


def learners() -> list[str]:
    """Every learner of arms that a problem is there for."""
    return [name for name, kind in CONFIGS.items() if kind.family in HOMES and name not in LEFT_OUT]


def dyn_lin_ucb(horizon: int, runs: int, system: str = "synthetic") -> float:
    """Seconds of DynLin-UCB over all rounds, epochs played at once."""
    world = PROBLEMS[f"dynamical-{system}"].make({}, horizon, runs)
    learner = make("dyn-lin-ucb", world.facts, runs)
    world.reset()
    began = time.perf_counter()
    while world.round < horizon:
        arm = learner.act()
        rounds = min(learner.hold(), horizon - world.round)
        feedback = world.advance(arm, rounds)  # type: ignore[attr-defined]
        learner.skip(rounds - 1)
        learner.observe(arm, feedback)
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--learners", nargs="+", default=learners(), choices=learners())
    parser.add_argument("--runs", type=int, nargs="+", help="default: 1000, with --device cuda also 100000")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seconds", type=float, default=1.0, help="of each measurement")
    parser.add_argument(
        "--horizon", type=int, default=1_000_000, help="rounds of DynLin-UCB with 50 replications; 0: none"
    )
    parser.add_argument("--rivals", type=Path, help="folder of an environment with mabwiser and coba, made if need be")
    given = parser.parse_args()
    sizes = given.runs or ([1000] if given.device == "cpu" else [1000, 100_000])
    more: list[str] = []
    with cpu_settings("float32", 1):
        lines = []
        for runs in sizes:
            for name in given.learners:
                problem, settings = home_of(name)
                lines.append(regret_speed.measure(name, runs, given.device, given.seconds, 64, problem, settings))
        if given.horizon:
            for system in ("synthetic", "advertising"):
                took = dyn_lin_ucb(given.horizon, 50, system)
                more.append(
                    f"- DynLin-UCB, {system}, {given.horizon} rounds of 50 replications, epochs played at once: "
                    f"{took:.1f} s, {50 * given.horizon / took:.3g} run-rounds/s."
                )
        if given.rivals is not None:
            ours = {line["learner"]: line["learner/s"] for line in lines if line["runs"] == sizes[0]}
            python = environment(given.rivals, tuple(BESIDE))
            for package, found in ask(python, rivals.__file__, 2000).items():
                for name, speed in found["rounds/s"].items():
                    beside = BESIDE[package][name]
                    ratio = f", {beside} here {ours[beside] / speed:.0f} times" if beside in ours else ""
                    more.append(f"- {package} {found['version']}, {name}, one run: {speed:.0f} rounds/s{ratio}.")
    regret_speed.write(given.out, "bandit-speed", lines, given.device, "ucb1", ["", *more] if more else [])


if __name__ == "__main__":
    main()
