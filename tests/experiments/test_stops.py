"""Kills, Ctrl-C and several processes: resume to the same bits, nobody writes where another does."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from experiments import pool, results
from experiments.train import train
from orbs import load_tensors
from tests.experiments.training import DATASET, ROOT, SMALL, assert_same, options


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


@pytest.mark.proof
def test_kill_and_resume_gives_the_same_bits(tmp_path):
    straight, resumed, _ = killed_then_resumed(tmp_path, kills=1, steps=400, seed=0)
    assert_same(straight, resumed)


@pytest.mark.proof
def test_many_kills_and_resumes_give_the_same_bits(tmp_path):
    straight, resumed, seen = killed_then_resumed(tmp_path, kills=6, steps=4000, seed=1)
    assert len(set(seen)) > 1
    assert_same(straight, resumed)


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="children are read from /proc")
def test_processes_side_by_side_end_with_a_killed_parent(tmp_path):
    """An orphan would go on writing into the folder that the resumed run writes to."""
    words = [sys.executable, "-m", "experiments.cli", "train", "--dataset", DATASET, "--algos", "bc", "td3bc",
             "--runs", "1", "--steps", "1000000", "--jobs", "2", "--log-every", "10", "--eval-episodes", "1",
             "--checkpoint-seconds", "0", "--out", str(tmp_path), "--set", *SMALL[:2]]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(words, cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 120
        while len(list(tmp_path.rglob("checkpoint.safetensors"))) < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        tasks = Path(f"/proc/{process.pid}/task").iterdir()
        children = [int(child) for task in tasks for child in (task / "children").read_text().split()]
    finally:
        process.kill()
        process.wait()
    assert len(children) >= 2

    def alive(child):
        status = Path(f"/proc/{child}/status")
        return status.exists() and "State:\tZ" not in status.read_text()

    deadline = time.monotonic() + 20
    while any(map(alive, children)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(alive, children))


def test_no_further_unit_starts_after_ctrl_c(tmp_path, monkeypatch):
    """The pool hands a process one unit more than it was told to cancel."""

    def interrupted(unit, place):
        started.append(unit)
        raise KeyboardInterrupt

    started = []
    monkeypatch.setattr(pool, "_stop", threading.Event())
    with pytest.raises(KeyboardInterrupt):
        pool._call(interrupted, "first", 0)
    pool._call(interrupted, "second", 0)
    assert started == ["first"]
    with pytest.raises(KeyboardInterrupt):  # one that trains already, where the parent alone was told
        train(options(tmp_path, algos=("bc",)))
    assert results.read_config(tmp_path / "pendulum-medium-replay-v0" / "bc")["status"] == "stopped"


def test_jobs_side_by_side_give_the_same_numbers(tmp_path):
    alone = train(options(tmp_path / "a", algos=("bc", "td3bc")))
    together = train(options(tmp_path / "b", algos=("bc", "td3bc"), jobs=2))
    for one, other in zip(alone, together, strict=True):
        assert_same(one, other)


def test_second_process_in_the_folder_is_refused(tmp_path):
    fcntl = pytest.importorskip("fcntl", reason="no folder locks on Windows")
    (folder,) = train(options(tmp_path, algos=("bc",), steps=30))
    handle = os.open(folder, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    with pytest.raises(ValueError, match="another process training in"):
        train(options(tmp_path, algos=("bc",), resume=True))
    os.close(handle)
    train(options(tmp_path, algos=("bc",), resume=True))
