"""The harness: training, run folders, resume to the same bits, diverged runs, errors before anything is written."""

import dataclasses
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from experiments import results
from experiments.options import Train, overrides
from experiments.train import train
from orbs import load_tensors

DATASET = "local/pendulum-medium-replay-v0"
SMALL = ("bc.hidden=16,16", "td3bc.hidden=16,16", "prdc.hidden=16,16", "prdc.batch_size=32", "td3bc.batch_size=32")
ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _cache(tmp_path_factory, monkeypatch):
    """One neighbour cache for the whole test session, not the user's."""
    monkeypatch.setenv("ORBS_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


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


def test_run_folder_holds_what_the_design_says(tmp_path):
    (folder,) = train(options(tmp_path, algos=("bc",)))
    config = json.loads((folder / "config.json").read_text())
    assert config["status"] == "complete"
    assert config["env"] == "Pendulum-v1"
    assert config["hyperparameters"]["hidden"] == [16, 16]
    assert {"torch", "gymnasium", "numpy", "python", "orbs", "mujoco"} <= config["versions"].keys()
    assert config["seed"] == 0
    assert config["git_commit"] is None or len(config["git_commit"]) >= 40
    frame = results.read_table(folder / "metrics.parquet")
    scores = frame[frame["metric"] == "eval/score"]
    assert sorted(scores["step"].unique()) == [30, 60]
    assert sorted(scores["run"].unique()) == [0, 1]
    assert sorted(frame[frame["metric"] == "train/actor_loss"]["step"].unique()) == [10, 20, 30, 40, 50, 60]


def test_run_is_the_same_whichever_rides_along(tmp_path):
    """Runs 1 and 2 of three, trained as a block of their own: same evaluation starts, same numbers."""
    (three,) = train(options(tmp_path / "a", runs=3))
    (two,) = train(options(tmp_path / "b", runs=2, first_run=1))
    frame, frame2 = (results.read_table(folder / "metrics.parquet") for folder in (three, two))
    pick = (frame["metric"] == "eval/return") & (frame["run"] >= 1)
    pick2 = frame2["metric"] == "eval/return"
    assert frame[pick][["run", "step"]].values.tolist() == frame2[pick2][["run", "step"]].values.tolist()
    np.testing.assert_allclose(frame[pick]["value"], frame2[pick2]["value"], rtol=1e-3)


def test_resume_of_a_shorter_run_equals_the_straight_run(tmp_path):
    (straight,) = train(options(tmp_path / "a", algos=("prdc",)))
    train(options(tmp_path / "b", algos=("prdc",), steps=30))
    (resumed,) = train(options(tmp_path / "b", algos=("prdc",), resume=True))
    assert_same(straight, resumed)


def test_resume_of_a_complete_run_does_nothing(tmp_path, capsys):
    (folder,) = train(options(tmp_path))
    before = (folder / "checkpoint.safetensors").stat().st_mtime_ns
    train(options(tmp_path, resume=True))
    assert "nothing to do" in capsys.readouterr().out
    assert (folder / "checkpoint.safetensors").stat().st_mtime_ns == before


def test_resume_with_rows_past_the_checkpoint_drops_them(tmp_path):
    """What a kill between the two files leaves: metrics ahead of the checkpoint."""
    (straight,) = train(options(tmp_path / "a"))
    (folder,) = train(options(tmp_path / "b", steps=30))
    frame = results.read_table(folder / "metrics.parquet")
    late = frame.assign(step=frame["step"] + 1000, value=-1.0)
    import pandas as pd

    results.write_table(pd.concat([frame, late], ignore_index=True), folder / "metrics.parquet")
    train(options(tmp_path / "b", resume=True))
    assert_same(straight, folder)


def command(out, steps, *more):
    return [
        sys.executable, "-m", "experiments.cli", "train", "--dataset", DATASET, "--algos", "prdc", "--runs", "2",
        "--steps", str(steps), "--eval-every", "40", "--eval-episodes", "1", "--log-every", "10",
        "--checkpoint-seconds", "0", "--out", str(out), "--set", "prdc.hidden=16,16", "prdc.batch_size=32", *more,
    ]  # fmt: skip


def killed_then_resumed(tmp_path, kills, steps, seed):
    """Kill a real training process at `kills` random moments, resume each time; returns the two folders."""
    rng = random.Random(seed)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    where = dict(cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    subprocess.run(command(tmp_path / "a", steps), check=True, **where)
    folder = tmp_path / "b" / "pendulum-medium-replay-v0" / "prdc"
    seen = []
    for _ in range(kills):
        process = subprocess.Popen(command(tmp_path / "b", steps, "--resume"), **where)
        checkpoint = folder / "checkpoint.safetensors"
        before = checkpoint.stat().st_mtime_ns if checkpoint.exists() else 0
        while process.poll() is None and not (checkpoint.exists() and checkpoint.stat().st_mtime_ns > before):
            time.sleep(0.005)
        time.sleep(rng.uniform(0.0, 0.4))
        process.send_signal(signal.SIGKILL)
        process.wait()
        seen.append(load_tensors(checkpoint)[1]["steps"])
    assert seen[0] < steps, "the process was done before it was killed: give it more steps"
    subprocess.run(command(tmp_path / "b", steps, "--resume"), check=True, **where)
    return tmp_path / "a" / "pendulum-medium-replay-v0" / "prdc", folder, seen


def test_kill_and_resume_gives_the_same_bits(tmp_path):
    straight, resumed, _ = killed_then_resumed(tmp_path, kills=1, steps=400, seed=0)
    assert_same(straight, resumed)


@pytest.mark.proof
def test_many_kills_and_resumes_give_the_same_bits(tmp_path):
    straight, resumed, seen = killed_then_resumed(tmp_path, kills=6, steps=4000, seed=1)
    assert len(set(seen)) > 1
    assert_same(straight, resumed)


def test_jobs_side_by_side_give_the_same_numbers(tmp_path):
    alone = train(options(tmp_path / "a", algos=("bc", "td3bc")))
    together = train(options(tmp_path / "b", algos=("bc", "td3bc"), jobs=2))
    for one, other in zip(alone, together, strict=True):
        assert_same(one, other)


def test_diverged_run_is_named_and_the_others_go_on(tmp_path, monkeypatch, capsys):
    from offline_rl import TD3BC

    step = TD3BC._step

    def poisoned(self, batch, noise):
        step(self, batch, noise)
        if self.steps == 25:
            with torch.no_grad():
                self.actor[0][1] = float("nan")

    monkeypatch.setattr(TD3BC, "_step", poisoned)
    (folder,) = train(options(tmp_path, runs=3))
    config = json.loads((folder / "config.json").read_text())
    assert config["diverged"] == {"1": 30}
    assert config["status"] == "complete"
    assert "run 1 diverged" in capsys.readouterr().err
    frame = results.read_table(folder / "metrics.parquet")
    last = frame[(frame["metric"] == "eval/return") & (frame["step"] == 60)].set_index("run")["value"]
    assert np.isnan(last[1])
    assert np.isfinite(last[[0, 2]]).all()
    from experiments.report import report

    assert "1 of 3 diverged" in report([folder], tmp_path / "report").text


def test_all_runs_diverged_stops_with_that_status(tmp_path, monkeypatch):
    from offline_rl import BC

    monkeypatch.setattr(BC, "finite", lambda self: np.zeros(self.runs, bool))
    (folder,) = train(options(tmp_path, algos=("bc",)))
    config = json.loads((folder / "config.json").read_text())
    assert config["status"] == "diverged"
    assert results.read_table(folder / "metrics.parquet")["step"].max() == 10


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "--steps: expected at least 1, got 0"),
        ({"runs": 0}, "--runs: expected at least 1"),
        ({"dataset": "local/pendulum-medium-repaly-v0"}, "pendulum-medium-replay-v0"),
        ({"algos": ("prcd",)}, "did you mean 'prdc'"),
        ({"algos": ("bc", "bc")}, "each once"),
        ({"set": ("td3bc.alhpa=1",)}, "did you mean 'alpha'"),
        ({"set": ("td3bc.alpha=-1",)}, "td3bc.alpha: expected"),
        ({"set": ("td3bc.batch_size=2.5",)}, "td3bc.batch_size: expected an integer"),
        ({"set": ("bc.hidden=3,3",)}, "name one that is trained"),
        ({"set": ("alpha=1",)}, "ALGO.FIELD=VALUE"),
        ({"device": "gpu"}, "device: expected"),
        ({"seed": -1}, "seed: expected"),
        ({"eval_episodes": 0}, "--eval-episodes"),
    ],
)
def test_bad_options_are_one_clear_error_and_nothing_is_written(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        train(options(tmp_path / "out", **changes))
    assert not (tmp_path / "out").exists()


def test_folder_in_use_needs_resume_and_resume_needs_the_same_settings(tmp_path):
    first = options(tmp_path)
    train(first)
    with pytest.raises(ValueError, match="go on with --resume"):
        train(first)
    with pytest.raises(ValueError, match="seed: 0 there, 1 here"):
        train(dataclasses.replace(first, resume=True, seed=1))
    with pytest.raises(ValueError, match="at least 60"):
        train(dataclasses.replace(first, resume=True, steps=20))


def test_overrides_are_literals_or_words():
    assert overrides(["prdc.beta=7.5", "prdc.penalty=joint_norm", "bc.hidden=8,8"], ["prdc", "bc"]) == {
        "prdc": {"beta": 7.5, "penalty": "joint_norm"},
        "bc": {"hidden": (8, 8)},
    }


def test_tensorboard_files_are_written(tmp_path):
    pytest.importorskip("tensorboard", reason="the extra 'tensorboard' is not installed")
    (folder,) = train(options(tmp_path, algos=("bc",), tensorboard=True))
    assert list((folder / "tensorboard" / "run1").glob("events.*"))
