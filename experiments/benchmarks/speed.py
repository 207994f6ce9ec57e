"""Speed on one core in one table: our learners, plain eager baselines, d3rlpy, MABWiser and coba.

    python -m experiments.benchmarks.speed --out OUT [--rivals FOLDER] [--quick] [--only td3bc d3rlpy ...]
    python -m experiments.benchmarks.speed --guard FILE
    python -m experiments.benchmarks.speed --keep FILE

TD3+BC, A2PR and O-DICE beside plain eager PyTorch versions of the same mathematics, PRDC and IQL beside TD3+BC (with
--device cuda these two, and blocks of updates as graphs beside updates one by one); with
--rivals also ours beside d3rlpy's TD3+BC, IQL and PRDC and beside MABWiser's and coba's bandits, in an environment that
is made in that folder (needs the package index) and kept (`speed_rivals` says how they are used). Writes OUT/speed.csv,
every round of every contestant with machine and versions, and OUT/speed.md, the medians of the rounds' ratios: all
contestants of a group are measured in turn, so a machine that drifts drifts for all. With --guard a few ratios against
the plain baselines are held against a file's (half a minute): one that has dropped by a third is an error. --keep
writes such a file.
"""

from __future__ import annotations

import argparse
import dataclasses
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from experiments.benchmarks import speed_guard, speed_learners, speed_rivals
from experiments.benchmarks.speed_learners import ALONE, ALPHA, ANY_DEVICE, LEARNERS
from experiments.benchmarks.speed_table import Measured, Settings, summary
from experiments.cpu import choose_matmul, cpu_settings
from experiments.results import write_text
from experiments.run_folder import machine

BANDITS = ("mabwiser", "coba")
RIVALS = ("d3rlpy", *BANDITS)
QUICK = Settings(rows=20_000, rounds=3, warm_up=200, length=0.25, rival_rounds=2, rival_seconds=2.0)


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = made.add_mutually_exclusive_group(required=True)
    what.add_argument("--out", type=Path, help="folder for speed.csv and speed.md")
    what.add_argument("--guard", type=Path, metavar="FILE", help="measure the few ratios of this file and compare")
    what.add_argument("--keep", type=Path, metavar="FILE", help="measure these ratios and write such a file")
    made.add_argument(
        "--rivals", type=Path, metavar="FOLDER", help="environment of the other packages, made if need be"
    )
    made.add_argument("--quick", action="store_true", help="few rows, short rounds, HalfCheetah alone: some 3 minutes")
    made.add_argument(
        "--only", nargs="+", choices=[*LEARNERS, *RIVALS], help="groups; default: all, RIVALS by --rivals"
    )
    made.add_argument("--kinds", nargs="+", choices=ALPHA, help="kinds of data; default: both")
    made.add_argument("--rows", type=int, help="of each dataset; default: 400000")
    made.add_argument("--rounds", type=int, help="default: 15")
    made.add_argument("--warm-up", type=int, help="updates before PRDC and O-DICE are timed; default: 2000")
    made.add_argument("--length", type=float, help="of a round; default: 1, about a second a contestant")
    made.add_argument("--rival-rounds", type=int, help="rounds beside other packages; default: 3")
    made.add_argument("--rival-seconds", type=float, help="of each of d3rlpy's algorithms in a round; default: 10")
    made.add_argument("--one-controller", action="store_true", help="data of a single noisy behaviour policy")
    made.add_argument("--device", help="default: cpu")
    return made


def main(arguments: Sequence[str] | None = None) -> None:
    given = parser().parse_args(arguments)
    matmul = choose_matmul("auto")
    with cpu_settings(matmul):
        if given.keep is not None:
            print("\n".join(f"{pair}: {ratio:.2f}" for pair, ratio in speed_guard.keep(given.keep).items()))
        elif given.guard is not None:
            _guard(given.guard)
        else:
            _table(given, matmul)


def _guard(path: Path) -> None:
    lines, dropped = speed_guard.check(path)
    print("\n".join(lines))
    if dropped:
        end = f"if that is meant, measure anew: python -m experiments.benchmarks.speed --keep {path}"
        raise SystemExit(f"speed: ratios dropped by more than a third: {'; '.join(dropped)}; {end}")


def _table(given: argparse.Namespace, matmul: str) -> None:
    fields = [one.name for one in dataclasses.fields(Settings)]
    asked = {name: getattr(given, name) for name in fields if getattr(given, name) is not None}
    settings = dataclasses.replace(QUICK if given.quick else Settings(), **asked)
    kinds = given.kinds or (list(ALPHA)[:1] if given.quick else list(ALPHA))
    groups = _groups(given, settings)
    measured: dict[tuple[str, str], Measured] = {}
    for kind in kinds if set(groups) - set(BANDITS) else ():
        data = speed_learners.transitions(kind, settings.rows, given.one_controller)
        for group in (name for name in groups if name not in BANDITS):
            if group == "d3rlpy":
                measured[group, kind] = speed_rivals.measure_d3rlpy(data, kind, ALPHA[kind], settings)
            else:
                measured[group, kind] = LEARNERS[group](data, kind, settings)
            print(f"{kind}: {group} measured", flush=True)
    for group in (name for name in groups if name in BANDITS):
        measured[group, "10 arms"] = speed_rivals.measure_bandits(group, settings)
        print(f"{group} measured", flush=True)
    where: dict[str, Any] = {
        "machine": machine(), "device": settings.device, "kernels": matmul, "dataset_rows": settings.rows,
        "python": platform.python_version(), "torch": torch.__version__,
    }  # fmt: skip
    frames = [found.frame.assign(group=group) for (group, _), found in measured.items()]
    frame = pd.concat(frames).assign(**where)
    frame.insert(0, "group", frame.pop("group"))
    source = "one noisy controller" if given.one_controller else "random controllers, a new one each episode"
    lines = [
        f"{where['machine']}, one thread, device {settings.device}, {matmul} kernels, python {where['python']}, torch "
        f"{where['torch']}. {settings.rows} rows of {source}, {settings.rounds} rounds. Run-updates or run-rounds a "
        "processor second, medians; ratio: median, least and largest of the rounds' quotients.",
        "",
        *summary(measured),
    ]
    write_text(given.out / "speed.csv", frame.to_csv(index=False))
    write_text(given.out / "speed.md", "\n".join(lines) + "\n")
    print("\n".join(lines))


def _groups(given: argparse.Namespace, settings: Settings) -> list[str]:
    """The groups to measure, in order; the command ends where one cannot be."""
    every = [*LEARNERS, *(RIVALS if settings.rivals is not None else ())]
    asked = given.only or every
    if settings.rivals is None and set(asked) & set(RIVALS):
        parser().error(f"--only {' '.join(asked)}: {', '.join(RIVALS)} need an environment: use --rivals FOLDER")
    every = [name for name in every if name not in ALONE] if settings.device == "cpu" else list(ANY_DEVICE)
    groups = [name for name in every if name in asked]
    if not groups:
        parser().error(f"--only {' '.join(asked)} has nothing to measure on {settings.device}: use {ANY_DEVICE[0]}")
    return groups


if __name__ == "__main__":
    main()
