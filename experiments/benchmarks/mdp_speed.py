"""Time of an episode of each learner of episodic MDPs, and what it is made of: plan, play, exact judgement, learn.

Run: ``OMP_NUM_THREADS=1 taskset -c 1 python -m experiments.benchmarks.mdp_speed --out FOLDER``.
Writes FOLDER/mdp-speed.csv and .md. Every episode of every run is judged exactly, as `orbs regret` does.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from bandits import make
from experiments import results
from experiments.cpu import cpu_settings
from experiments.problems import PROBLEMS
from experiments.report import markdown_table
from experiments.run_folder import machine

__all__ = ["CASES", "measure"]

_SOFT = {"norm": 0.3, "softness": 0.1}


def _set(divergence: str, form: str, level: float) -> Mapping[str, Any]:
    return {**_SOFT, "divergence": divergence, "form": form, "level": level}


Case = tuple[str, str, Mapping[str, Any], Mapping[str, Any]]
_FULL = ("adversarial-mdp-iid", {"feedback": "full"})

# What is timed, and on which problem; each with the regulariser or parameters that the reference results are for.
CASES: tuple[Case, ...] = (
    ("dr-lsvi-ucb", "off-dynamics", {}, {}),
    ("dr-rpo", "off-dynamics", {}, {"temperature": 0.05}),
    ("lsvi-ucb", "off-dynamics", {}, {}),
    ("dr-lsvi-ucb", "off-dynamics", _set("tv", "regularised", 1.0), {}),
    ("dr-lsvi-ucb", "off-dynamics", _set("kl", "regularised", 0.5), {}),
    ("dr-lsvi-ucb", "off-dynamics", _set("chi2", "regularised", 0.1), {}),
    ("dr-lsvi-ucb", "off-dynamics", _set("chi2", "constrained", 0.5), {}),
    ("dr-lsvi-ucb", "off-dynamics", _set("kl", "constrained", 0.2), {}),
    ("dr-rpo", "off-dynamics", _set("kl", "constrained", 0.2), {"temperature": 0.05}),
    ("dr-rpo", "american-put", {}, {"temperature": 0.05}),
    ("pol-opt", *_FULL, {}),
    ("log-barrier-ftrl", *_FULL, {}),
    ("magnitude-reduced-ftrl", *_FULL, {}),
    ("full-information-ftrl", *_FULL, {}),
    ("simulator-free-ftrl", *_FULL, {}),
    ("cfpo", *_FULL, {}),
)


def _timed(act: Callable[..., Any], spent: dict[str, float], name: str, wait: Callable[[], None]) -> Callable[..., Any]:
    def run(*given: Any) -> Any:
        began = time.perf_counter()
        answer = act(*given)
        wait()
        spent[name] += time.perf_counter() - began
        return answer

    return run


def measure(case: Case, runs: int, episodes: int, device: str = "cpu") -> dict[str, Any]:
    """A line of the table: seconds of all episodes, and milliseconds an episode of each part.

    On other devices than the CPU every part is waited for, so that its time is its own.
    """
    name, problem, settings, hyperparameters = case
    world: Any = PROBLEMS[problem].make(settings, episodes, runs, device=device)
    learner: Any = make(name, world.facts, runs, device=device, **hyperparameters)
    if getattr(learner, "temperature", 0.0) > 0 and hasattr(world, "regularise"):
        world.regularise(learner.temperature, learner.reference)
    spent = {"plan": 0.0, "play": 0.0, "judge": 0.0, "learn": 0.0}
    wait = torch.cuda.synchronize if device.startswith("cuda") else lambda: None
    world.episode = _timed(world.episode, spent, "play", wait)
    world._judge_policy = _timed(world._judge_policy, spent, "judge", wait)
    plan, learn = _timed(learner.act, spent, "plan", wait), _timed(learner.observe, spent, "learn", wait)
    world.best() if hasattr(world, "uncertainty") and "rewards" in world.facts else None
    began = time.perf_counter()
    for _ in range(episodes):
        policy = plan()
        learn(policy, world.step(policy)[4]["feedback"])
    took = time.perf_counter() - began
    what = ",".join([problem, *(f"{key}={settings[key]}" for key in sorted(settings))])
    line: dict[str, Any] = {
        "learner": name, "problem": what, "runs": runs, "episodes": episodes, "seconds": round(took, 3),
        "us/episode/run": round(1e6 * took / episodes / runs, 2),
    }  # fmt: skip
    for part, seconds in spent.items():
        line[f"{part} ms"] = round(1e3 * seconds / episodes, 4)
    line["rest ms"] = round(1e3 * (took - sum(spent.values())) / episodes, 4)
    return line


def main() -> None:
    import pandas as pd

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--runs", type=int, nargs="+", default=[100])
    parser.add_argument("--episodes", type=int, default=1000)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--learners", nargs="+", default=sorted({case[0] for case in CASES}))
    given = parser.parse_args()
    with cpu_settings("float32", 1):
        lines = []
        for runs in given.runs:
            for case in CASES:
                if case[0] in given.learners:
                    measure(case, runs, 20, given.device)  # warm
                    lines.append(measure(case, runs, given.episodes, given.device))
                    print(lines[-1], flush=True)
    results.write_text(given.out / "mdp-speed.csv", pd.DataFrame(lines).to_csv(index=False))
    where = torch.cuda.get_device_name() if given.device != "cpu" else f"one thread of {machine()}"
    text = [
        f"Seconds, each episode judged exactly, and milliseconds an episode; {where}, torch {torch.__version__}.", "",
        *markdown_table([{key: str(value) for key, value in line.items()} for line in lines]),
    ]  # fmt: skip
    results.write_text(given.out / "mdp-speed.md", "\n".join(text) + "\n")


if __name__ == "__main__":
    main()
