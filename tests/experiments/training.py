"""What the tests of training share: small options, and when two run folders are the same."""

from pathlib import Path

import torch

from experiments import results
from experiments.options import Train
from orbs import load_tensors

DATASET = "local/pendulum-medium-replay-v0"
SMALL = ("bc.hidden=16,16", "td3bc.hidden=16,16", "prdc.hidden=16,16", "prdc.batch_size=32", "td3bc.batch_size=32")
ROOT = Path(__file__).parents[2]


def options(out, **changes):
    chosen = list(changes.get("algos", ("td3bc",)))
    fields = dict(
        dataset=DATASET, algos=("td3bc",), runs=2, steps=60, eval_every=30, eval_episodes=1, log_every=10,
        out=out, set=tuple(text for text in SMALL if text.partition(".")[0] in chosen),
    )  # fmt: skip
    return Train(**{**fields, **changes})


def comparable(folder):
    """Everything in the folder that must not depend on interruptions: the metrics but for clocks, the checkpoint."""
    frame = results.read_table(folder / "metrics.parquet")
    frame = frame[~frame["metric"].str.startswith("time/")]
    return frame.reset_index(drop=True), load_tensors(folder / "checkpoint.safetensors")


def assert_same(one, other):
    (frame, (tensors, meta)), (frame2, (tensors2, meta2)) = comparable(one), comparable(other)
    assert frame.equals(frame2)
    assert meta == meta2
    assert tensors.keys() == tensors2.keys()
    assert all(torch.equal(tensors[name], tensors2[name]) for name in tensors)


def poison(monkeypatch, kind, update):
    """From this update on the second run of every learner of the class `kind` is no number."""
    step = kind._step

    def poisoned(self, batch, noise):
        step(self, batch, noise)
        if self.steps == update:
            with torch.no_grad():
                self.actor[0][1] = float("nan")

    monkeypatch.setattr(kind, "_step", poisoned)
