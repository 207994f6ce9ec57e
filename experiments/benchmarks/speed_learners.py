"""The offline learners' part of the speed benchmark: each beside its plain eager version, or beside TD3+BC."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from experiments.benchmarks.nearest import roll_out
from experiments.benchmarks.plain_a2pr import PlainA2PR
from experiments.benchmarks.plain_odice import PlainODICE
from experiments.benchmarks.plain_td3_bc import PlainTD3BC
from experiments.benchmarks.speed_table import Contestant, Measured, Settings, compare
from experiments.presets import preset
from offline_rl import A2PR, IQL, ODICE, PRDC, TD3BC, OfflineLearner
from orbs import Transitions

__all__ = ["ALONE", "ALPHA", "ANY_DEVICE", "LEARNERS", "transitions"]

ALPHA = {"HalfCheetah": 40.0, "Hopper": 2.5}
"""{kind of data: alpha of TD3+BC and PRDC}"""
MANY = 32  # runs at once on a GPU


def transitions(kind: str, rows: int, one_controller: bool = False) -> Transitions:
    """MuJoCo roll-outs of random controllers, a new one each episode, or of one noisy controller."""
    states, actions, rewards = roll_out(kind, rows + 1, one_controller=one_controller)
    return Transitions(states[:-1], actions[:-1], rewards[:-1], states[1:], np.zeros(rows), name=f"{kind}-type")


def measure_td3bc(data: Transitions, kind: str, settings: Settings) -> Measured:
    one, four = (TD3BC.for_dataset(data, runs=runs, alpha=ALPHA[kind], device=settings.device) for runs in (1, 4))
    return _beside_plain("td3bc", PlainTD3BC(data).update, one, four, (60, 100, 30), kind, settings)


def measure_iql(data: Transitions, kind: str, settings: Settings) -> Measured:
    """IQL beside TD3+BC: no plain version is there."""
    base = TD3BC.for_dataset(data, alpha=ALPHA[kind], device=settings.device)
    one, four = (IQL.for_dataset(data, runs=runs, device=settings.device) for runs in (1, 4))
    contestants = [
        Contestant("td3bc", base.update, 100),
        Contestant("iql", one.update, 80),
        Contestant("iql x4", four.update, 24, 4),
    ]
    return Measured(compare(contestants, kind, settings), [("iql", "td3bc"), ("iql x4", "td3bc")])


def measure_a2pr(data: Transitions, kind: str, settings: Settings) -> Measured:
    values = preset("a2pr", f"{kind.lower()}-medium-v2").values
    one, four = (A2PR.for_dataset(data, runs=runs, device=settings.device, **values) for runs in (1, 4))
    return _beside_plain("a2pr", PlainA2PR(data).update, one, four, (12, 24, 6), kind, settings)


def measure_odice(data: Transitions, kind: str, settings: Settings) -> Measured:
    """After a warm-up: the cost goes with the share of rows that the policy learns from, which moves in training."""
    values = preset("odice", f"{kind.lower()}-medium-v2").values
    one, four = (ODICE.for_dataset(data, runs=runs, device=settings.device, **values) for runs in (1, 4))
    for learner in (one, four):
        learner.update(settings.warm_up)
        learner.metrics()
    found = _beside_plain("odice", PlainODICE(data).update, one, four, (20, 40, 10), kind, settings)
    share = float(one.metrics()["weighted_share"][0])
    found.notes.append(f"odice: after {settings.warm_up} updates {share:.3f} of the rows have a weight")
    return found


def measure_prdc(data: Transitions, kind: str, settings: Settings) -> Measured:
    """PRDC beside TD3+BC, both after a warm-up."""
    began = time.perf_counter()
    prdc = PRDC.for_dataset(data, beta=2.0, alpha=ALPHA[kind], device=settings.device)
    build = time.perf_counter() - began
    one = TD3BC.for_dataset(data, alpha=ALPHA[kind], device=settings.device)
    one.update(settings.warm_up)
    prdc.update(settings.warm_up)
    prdc.metrics()
    contestants = [Contestant("td3bc", one.update, 100), Contestant("prdc", prdc.update, 100)]
    found = Measured(compare(contestants, kind, settings), [("prdc", "td3bc")])
    seen = {name: float(value[0]) for name, value in prdc.metrics().items()}
    medians = found.frame.groupby("contestant")["per_second"].median()
    whole = [
        f"{(steps / medians['prdc'] + build) / (steps / medians['td3bc']):.2f} times at {steps}"
        for steps in (200_000, 1_000_000)
    ]
    found.notes.append(
        f"prdc: after {settings.warm_up} updates certified {seen['certified_rate']:.3f}, own row "
        f"{seen['own_row_rate']:.3f}; {build:.0f} s from the data to a learner (the neighbour table, or its cached "
        f"file); with them included it takes td3bc's time {', '.join(whole)} updates"
    )
    return found


def measure_graphs(data: Transitions, kind: str, settings: Settings) -> Measured:
    """Blocks of updates replayed as graphs beside the same learner's updates one by one: one run and 32."""
    given: dict[str, tuple[type[OfflineLearner], dict[str, Any]]] = {
        "td3bc": (TD3BC, {"alpha": ALPHA[kind]}),
        "prdc": (PRDC, {"alpha": ALPHA[kind], "beta": 2.0}),
        "iql": (IQL, {}),
        "a2pr": (A2PR, preset("a2pr", f"{kind.lower()}-medium-v2").values),
        "odice": (ODICE, preset("odice", f"{kind.lower()}-medium-v2").values),
    }
    rows, pairs = [], []
    for name, (algorithm, values) in given.items():
        contestants = []
        for runs in (1, MANY):
            label = name if runs == 1 else f"{name} x{runs}"
            for graphs in (True, False):
                learner = algorithm.for_dataset(data, runs=runs, device=settings.device, **values)
                if not graphs:
                    learner.record_with(None)
                learner.update(settings.warm_up)
                shown = label if graphs else f"{label}, one by one"
                contestants.append(Contestant(shown, learner.update, 1024, runs))
            pairs.append((label, f"{label}, one by one"))
        rows += compare(contestants, kind, settings)
    return Measured(rows, pairs)


def _beside_plain(
    name: str,
    plain: Callable[[int], None],
    one: OfflineLearner,
    four: OfflineLearner,
    updates: tuple[int, int, int],
    kind: str,
    settings: Settings,
) -> Measured:
    """One and four runs beside the plain version; `updates` a round of each of the three."""
    baseline, many = f"plain {name}", f"{name} x4"
    contestants = [
        Contestant(baseline, plain, updates[0]),
        Contestant(name, one.update, updates[1]),
        Contestant(many, four.update, updates[2], 4),
    ]
    return Measured(compare(contestants, kind, settings), [(name, baseline), (many, baseline)])


LEARNERS = {
    "td3bc": measure_td3bc,
    "iql": measure_iql,
    "prdc": measure_prdc,
    "a2pr": measure_a2pr,
    "odice": measure_odice,
    "graphs": measure_graphs,
}
ALONE = ("graphs",)  # not on a CPU
# The plain versions run on a CPU, graphs elsewhere.
ANY_DEVICE = ("iql", "prdc", "graphs")
