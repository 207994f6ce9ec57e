"""`orbs demo`: the suite end to end on a built-in dataset.

The import example that the demo prints; it is run as a test:

>>> from envs.datasets import load
>>> from offline_rl import PRDC
>>> data = load("local/pendulum-medium-replay-v0")
>>> learner = PRDC.for_dataset(data, runs=2, beta=2.0, hidden=(32, 32))
>>> learner.update(10)
>>> learner.act(data.obs[:5]).shape
(2, 5, 1)
"""

from __future__ import annotations

import shlex
import time

from experiments.options import Demo, Train

__all__ = ["demo"]

DATASET = "local/pendulum-medium-replay-v0"
EXAMPLE = (__doc__ or "").partition("test:\n\n")[2].strip()


def demo(options: Demo) -> None:
    """Train, evaluate, tabulate, plot; then say what to try next."""
    from experiments import report
    from experiments.train import train

    began = time.monotonic()
    print(
        f"orbs demo: BC, TD3+BC and PRDC, {options.runs} runs of {options.steps} updates each, on {DATASET}\n"
        f"(the replay of an agent while it learned to swing a pendulum up), evaluated in Pendulum-v1.\n"
        f"About 2 minutes on two cores; stop it at any time, `orbs demo` goes on where it was.\n"
        f"Writes to {options.out}.\n"
    )
    folders = train(
        Train(
            dataset=DATASET,
            runs=options.runs,
            steps=options.steps,
            eval_every=max(1, options.steps // 5),
            eval_episodes=10,
            log_every=max(1, options.steps // 10),
            out=options.out,
            experiment="demo",
            resume=True,
            jobs=options.jobs,
        )
    )
    made = report.report(folders, options.out / "report")
    print(f"\n{made.text}\n\nFiles:")
    for name, path in made.paths.items():
        print(f"  {name:12s} {path}")
    folder = folders[-1]
    print(
        f"\nDone in {time.monotonic() - began:.0f} s. Try next:\n"
        f"  orbs evaluate {shlex.quote(str(folder))} --episodes 50\n"
        f"  orbs train --algos prdc --dataset {DATASET} --runs 5 --steps 20000 --set prdc.beta=7.5 --out runs/beta\n"
        f"  orbs list --fields\n\n"
        f"Or import an algorithm:\n\n{EXAMPLE}"
    )
