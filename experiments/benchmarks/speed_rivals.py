"""Ours beside other packages', turn by turn: d3rlpy's TD3+BC, IQL and PRDC, MABWiser's and coba's bandits.

Theirs are used as their users use them: d3rlpy by its `fit` on its own dataset, with its default settings (batch 256,
two layers of 256, as ours), its progress bar and its log files switched off; the bandits by a call to choose and one to
learn. Each of their turns is a process of its own in an environment of its own, with one thread; making the dataset and
what a `fit` does before its first update (a KD-tree) are not counted. Both sides start untrained, where PRDC's search
costs most. Theirs train or play one run at a time, so ours are timed with one run as well as with many. Rewards are
given to our bandits as they are to theirs: no world is timed.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from experiments.benchmarks import deep_rivals, regret_speed, rivals
from experiments.benchmarks.bandit_speed import BESIDE, home_of
from experiments.benchmarks.rival_environment import ask, environment
from experiments.benchmarks.speed_table import Contestant, Measured, Settings, rate, timed
from offline_rl import IQL, PRDC, TD3BC
from orbs import Transitions

__all__ = ["MANY", "measure_bandits", "measure_d3rlpy"]

MANY = 1000  # runs of a bandit at once


def measure_d3rlpy(data: Transitions, kind: str, alpha: float, settings: Settings) -> Measured:
    """One and four runs of ours beside d3rlpy's one, on the same rows."""
    assert settings.rivals is not None
    python = environment(settings.rivals)
    ours = [
        Contestant("td3bc", TD3BC.for_dataset(data, alpha=alpha).update, 60),
        Contestant("td3bc x4", TD3BC.for_dataset(data, runs=4, alpha=alpha).update, 20, 4),
        Contestant("iql", IQL.for_dataset(data).update, 60),
        Contestant("iql x4", IQL.for_dataset(data, runs=4).update, 20, 4),
        Contestant("prdc", PRDC.for_dataset(data, beta=2.0, alpha=alpha).update, 60),
    ]
    rows, theirs, version = [], set(), ""
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "data.npz"
        end = np.zeros(len(data), np.float32)
        end[999::1000] = end[-1] = 1.0
        np.savez(path, obs=data.obs, action=data.action, reward=data.reward, end=end)
        for index in range(settings.rival_rounds):
            found = ask(python, deep_rivals.__file__, path, settings.rival_seconds)
            version = f"d3rlpy {found['version']}, torch {found['torch']}"
            theirs |= set(found["updates/s"])
            for name, speed in found["updates/s"].items():
                rows.append(timed(kind, index, f"d3rlpy {name}", speed, version=version))
            for one in ours:
                count = max(1, round(one.updates * settings.length))
                one.update(max(count // 4, 1))
                rows.append(timed(kind, index, one.name, rate(one.update, count, one.runs, "cpu"), one.runs))
    pairs = [(one.name, f"d3rlpy {base}") for one in ours if (base := one.name.removesuffix(" x4")) in theirs]
    return Measured(rows, pairs, [f"d3rlpy: {version}, {settings.rival_rounds} rounds"])


def measure_bandits(package: str, settings: Settings) -> Measured:
    """One run and a thousand of ours beside one of MABWiser's or coba's: 10 arms, 10 dimensions."""
    assert settings.rivals is not None
    python = environment(settings.rivals)
    rows, pairs, version = [], [], ""
    seconds = 0.3 * settings.length
    for index in range(settings.rival_rounds):
        found = ask(python, rivals.__file__, max(50, round(2000 * settings.length)), package)[package]
        version = f"{package} {found['version']}"
        for theirs, ours in BESIDE[package].items():
            rival = f"{package} {theirs}"
            speed = found["rounds/s"][theirs]
            rows.append(timed("10 arms", index, rival, speed, 1, "run-rounds", version))
            for runs in (1, MANY):
                name = ours if runs == 1 else f"{ours} x{runs}"
                problem, given = home_of(ours)
                one = regret_speed.measure(ours, runs, "cpu", seconds, 64, problem, given)
                rows.append(timed("10 arms", index, name, one["learner/s"], runs, "run-rounds"))
                if index == 0:
                    pairs.append((name, rival))
    return Measured(rows, pairs, [f"{package}: {version}, {settings.rival_rounds} rounds"])
