"""Updates a second of TD3+BC, IQL and PRDC in d3rlpy, batch 256, two hidden layers of 256; needs nothing but it.

Run by the Python of an environment that has it: ``python deep_rivals.py DATA.npz [SECONDS]``; DATA holds obs, action,
reward (N, ..) of one-step rows in order and end (N,), 1 where an episode ends. Prints one JSON object. An update is
what its `fit` does in a step: draw a batch, learn from it; settings are its defaults. Processor seconds, one thread.
`experiments.benchmarks.speed --rivals` makes the environment and calls this.
"""

from __future__ import annotations

import importlib.metadata
import json
import logging
import sys
import time
from typing import Any

import numpy as np

ALGORITHMS = {"td3bc": "TD3PlusBCConfig", "iql": "IQLConfig", "prdc": "PRDCConfig"}


def main() -> None:
    import d3rlpy
    import torch

    torch.set_num_threads(1)
    logging.disable(logging.CRITICAL)
    path, seconds = sys.argv[1], float(sys.argv[2]) if len(sys.argv) > 2 else 10.0
    with np.load(path) as file:
        obs, action, reward, end = (file[name] for name in ("obs", "action", "reward", "end"))
    dataset = d3rlpy.dataset.MDPDataset(obs, action, reward, np.zeros_like(end), end)
    quiet = d3rlpy.logging.NoopAdapterFactory()
    found = {}
    for name, kind in ALGORITHMS.items():
        config = getattr(d3rlpy.algos, kind, None)
        if config is None:
            continue
        algorithm = config(batch_size=256).create(device="cpu:0")

        def spent(updates: int, learner: Any = algorithm) -> float:
            began = time.process_time()
            learner.fit(dataset, n_steps=updates, n_steps_per_epoch=updates, show_progress=False, logger_adapter=quiet)
            return time.process_time() - began

        # What a fit does before its first update (a neighbour table) is taken off.
        spent(4)
        start = spent(4)
        few = max(spent(24) - start, 1e-3) / 20
        count = max(20, round(seconds / few))
        found[name] = count / max(spent(4 + count) - start, 1e-9)
    version = importlib.metadata.version("d3rlpy")
    print(json.dumps({"version": version, "torch": torch.__version__, "updates/s": found}))


if __name__ == "__main__":
    main()
