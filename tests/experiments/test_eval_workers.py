"""Evaluation in worker processes: the table that evaluation in the training process gives, whatever happens to them."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from experiments import eval_workers, results
from experiments.eval_workers import Setup, Task, Workers, copy_of, policy_of
from experiments.evaluate import Evaluator
from experiments.evaluations import Evaluations
from experiments.options import Train
from experiments.train import train
from offline_rl import algorithm
from orbs import load_tensors
from tests.experiments import interacting
from tests.experiments.training import DATASET, ROOT, SMALL, assert_same, options

interacting.register()


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """Two runs of two episodes, evaluated in the training process."""
    (folder,) = train(options(tmp_path_factory.mktemp("straight"), eval_episodes=2, eval_workers=0))
    return folder


@pytest.fixture
def started(monkeypatch):
    """Process ids of the workers that were started."""
    pids, make = [], Workers.__init__

    def made(self, setup, count):
        make(self, setup, count)
        pids.extend(self.pids)

    monkeypatch.setattr(Workers, "__init__", made)
    return pids


def alive(pid):
    status = Path(f"/proc/{pid}/status")
    return status.exists() and "State:\tZ" not in status.read_text()


# Copies of a policy.


@pytest.mark.parametrize(
    "name", ["bc", "td3bc", "prdc", "a2pr", "iql", "rebrac", "odice", "td3", "sac", "stac", "beer"]
)
def test_copy_of_a_policy_acts_the_same_bits(name):
    more = {"beta": 2.0} if name == "prdc" else {}
    learner, other = (algorithm(name)(3, 1, -2.0, 2.0, runs=[1, 4], seed=seed, **more) for seed in (5, 6))
    learner.obs_mean += 0.5
    learner.steps = 30
    if hasattr(learner, "interactions"):
        learner.interactions = 40
    obs = np.random.default_rng(0).normal(size=(2, 7, 3)).astype(np.float32)
    other.philox = learner.philox  # an earlier copy is of the same training, a moment before
    for earlier in (None, policy_of(copy_of(other))):
        copy = policy_of(copy_of(learner), earlier)
        np.testing.assert_array_equal(copy.act(obs), learner.act(obs))
        if hasattr(learner, "entropy_bonus"):
            np.testing.assert_array_equal(copy.act(obs, draw=3), learner.act(obs, draw=3))
            assert copy.entropy_bonus(obs, draw=3).equal(learner.entropy_bonus(obs, draw=3))
    assert copy.steps == 30


# How many.


@pytest.mark.parametrize(
    ("cores", "changes", "count"),
    [
        (1, {}, 0),
        (2, {}, 1),
        (2, {"jobs": 2}, 0),
        (8, {"jobs": 3, "threads": 2}, 0),
        (16, {"jobs": 3, "threads": 2}, 3),
        (64, {}, 8),
        (1, {"eval_workers": 3}, 3),
        (64, {"eval_workers": 0}, 0),
    ],
)
def test_auto_takes_the_cores_that_training_leaves(monkeypatch, cores, changes, count):
    monkeypatch.setattr(eval_workers, "cores", lambda: cores)
    assert eval_workers.wanted(Train(**changes)) == count


def test_cores_are_those_that_the_process_may_use(monkeypatch):
    monkeypatch.undo()
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3, 5, 6}, raising=False)
    assert eval_workers.cores() == 3


@pytest.mark.parametrize("given", [-1, "many", 1.5])
def test_other_numbers_of_workers_are_an_error(tmp_path, given):
    with pytest.raises(ValueError, match="--eval-workers: expected auto, or at least 0"):
        train(options(tmp_path / "out", eval_workers=given))
    assert not (tmp_path / "out").exists()


def test_no_more_workers_than_slots_and_none_for_what_cannot_be_copied():
    evaluator = Evaluator("Pendulum-v1", [0, 1], 2, 0)
    assert Evaluations(evaluator, "float32", workers=9).count == 4
    assert Evaluations(evaluator, "float32", valued=True, workers=9).count == 1
    assert Evaluations(evaluator, "float32", portable=False, workers=9).count == 0
    evaluator.close()


def test_learner_of_another_device_is_evaluated_on_the_cpu():
    """Asked itself, this one would look for a GPU."""
    import torch

    learner, evaluator = algorithm("bc")(3, 1, hidden=(8,)), Evaluator("Pendulum-v1", [0], 2, 0)
    found = []
    for device in ("cpu", "cuda"):
        learner.device = torch.device(device)
        evaluations = Evaluations(evaluator, "float32")
        evaluations.begin(learner, 3, [])
        assert evaluations.ready()
        found.append(evaluations.collect().returns)
    np.testing.assert_array_equal(*found)
    evaluator.close()


def test_benchmark_of_regret_evaluates_nothing(tmp_path):
    from experiments.bench import bench
    from experiments.options import Bench

    with pytest.raises(ValueError, match="--eval-workers: expected none in a benchmark of regret"):
        bench(Bench("dynamical-linear-bandit", out=tmp_path, eval_workers=1))


def test_second_opinions_are_evaluated_where_they_train(tmp_path, started):
    (folder,) = train(interacting.options(tmp_path, algos=("sb3-td3",), runs=1, steps=30, eval_workers=2))
    assert started == []
    assert results.read_config(folder)["eval_workers"] == 0
    assert list(interacting.values(folder, "eval/return")) == [(0, 30)]


def test_bench_hands_them_on_and_leaves_rays_cores_alone(tmp_path):
    from experiments import benchmark_file
    from experiments.bench import units
    from experiments.options import Bench

    spec = benchmark_file.read(benchmark_file.find("local-pendulum"))
    for given, expected in (
        ({"eval_workers": 2}, 2),
        ({}, "auto"),
        ({"launcher": "ray"}, 0),
        ({"launcher": "ray", "eval_workers": 2}, 2),
    ):
        assert {unit.options.eval_workers for unit in units(spec, Bench(out=tmp_path, **given))} == {expected}


# With processes.


def test_table_is_the_same_with_two_workers(tmp_path, straight, started, capsys):
    """Each plays a slot of either run; every process is gone afterwards."""
    (folder,) = train(options(tmp_path, eval_episodes=2, eval_workers=2))
    assert len(started) == 2
    assert not any(map(alive, started))
    assert_same(straight, folder)
    assert "pending" not in load_tensors(folder / "checkpoint.safetensors")[1]
    config = results.read_config(folder)
    assert config["eval_workers"] == 2
    assert 0 < config["evaluation_seconds"] <= config["seconds"]
    err = capsys.readouterr().err
    assert "worker failed" not in err
    assert f"td3bc: evaluation: waited {config['evaluation_seconds']:.1f} s of {config['seconds']:.1f} s (" in err
    frame = results.read_table(folder / "metrics.parquet")
    waited = frame[frame["metric"] == "time/evaluation_seconds"]
    assert waited[["run", "step"]].to_numpy().tolist() == [[0, 30], [1, 30], [0, 60], [1, 60]]
    total = waited[waited["run"] == 0]["value"].sum()
    assert total == pytest.approx(config["evaluation_seconds"], abs=0.01)


def test_agent_that_interacts_is_the_same_with_a_worker(tmp_path):
    """A soft one, whose value is judged along its episodes."""
    changes = dict(algos=("sac",), eval_episodes=2)
    (alone,) = train(interacting.options(tmp_path / "a", eval_workers=0, **changes))
    (folder,) = train(interacting.options(tmp_path / "b", eval_workers=3, **changes))
    assert_same(alone, folder)
    assert results.read_config(folder)["eval_workers"] == 1
    assert np.isfinite(list(interacting.values(folder, "eval/value_error").values())).all()
    assert "eval/representation_rank" in set(results.read_table(folder / "metrics.parquet")["metric"])


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL on Windows")
def test_killed_worker_is_said_and_its_evaluation_played_here(tmp_path, straight, monkeypatch, capsys):
    begin = Workers.begin

    def killed(self, task):
        begin(self, task)
        os.kill(self.pids[0], signal.SIGKILL)

    monkeypatch.setattr(Workers, "begin", killed)
    (folder,) = train(options(tmp_path, eval_episodes=2, eval_workers=1))
    assert_same(straight, folder)
    err = capsys.readouterr().err
    assert err.count("evaluation worker failed: process") == 1
    assert "ended (exit code -9). Evaluating in the training process from here on." in err


def test_worker_without_the_environment_is_said_and_its_evaluation_played_here(tmp_path, capsys):
    """An environment that only this process has registered."""
    changes = dict(env="orbs-test/FarLimit-v0", runs=1)
    (alone,) = train(interacting.options(tmp_path / "a", eval_workers=0, **changes))
    (folder,) = train(interacting.options(tmp_path / "b", eval_workers=1, **changes))
    assert_same(alone, folder)
    assert "evaluation worker failed: ValueError: env: expected" in capsys.readouterr().err


def test_no_process_can_be_started(tmp_path, straight, monkeypatch, capsys):
    import multiprocessing.context

    def fail(self):
        raise OSError("no room")

    monkeypatch.setattr(multiprocessing.context.SpawnProcess, "start", fail)
    (folder,) = train(options(tmp_path, eval_episodes=2, eval_workers=1))
    assert_same(straight, folder)
    assert "evaluation worker failed: a process cannot be started (no room)" in capsys.readouterr().err


# The long tier: real processes, from the outside.


def command(out, steps, *more):
    return [
        sys.executable, "-m", "experiments.cli", "train", "--dataset", DATASET, "--algos", "td3bc", "--runs", "2",
        "--steps", str(steps), "--eval-every", "100", "--eval-episodes", "2", "--log-every", "10", "--out", str(out),
        "--set", *(text for text in SMALL if text.startswith("td3bc")), *more,
    ]  # fmt: skip


def children(pid):
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return [int(child) for task in tasks for child in (task / "children").read_text().split()]


def begun(out, steps):
    """A real training with a worker, at a moment when a checkpoint is there; it and its children."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        command(out, steps, "--eval-workers", "1", "--resume"), cwd=out.parent, env=environment,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while not list(out.rglob("checkpoint.safetensors")) and time.monotonic() < deadline:
        time.sleep(0.01)
    return process, children(process.pid)


@pytest.mark.proof
@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="children are read from /proc")
@pytest.mark.parametrize("how", ["SIGKILL", "SIGINT"])
def test_no_process_outlives_a_stopped_training_which_resumes_to_the_same_table(tmp_path, how):
    (expected,) = train(
        options(tmp_path / "a", steps=2000, eval_every=100, eval_episodes=2, log_every=10, eval_workers=0)
    )
    process, workers = begun(tmp_path / "b", 2000)
    assert workers
    os.killpg(process.pid, getattr(signal, how)) if how == "SIGINT" else process.kill()
    _, err = process.communicate(timeout=60)
    deadline = time.monotonic() + 20
    while any(map(alive, workers)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(alive, workers))
    assert "Traceback" not in err
    (folder,) = {path.parent for path in (tmp_path / "b").rglob("checkpoint.safetensors")}
    before = load_tensors(folder / "checkpoint.safetensors")[1]
    assert before["steps"] < 2000
    train(
        options(tmp_path / "b", steps=2000, eval_every=100, eval_episodes=2, log_every=10, eval_workers=1, resume=True)
    )
    assert_same(expected, folder)


@pytest.mark.proof
def test_script_without_a_guard_is_not_run_again_by_workers(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import pathlib\nfrom experiments.train import train\nfrom tests.experiments.training import options\n"
        f"print('once')\ntrain(options(pathlib.Path({str(tmp_path / 'out')!r}), eval_workers=1))\n"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, script], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.count("once") == 1
    assert "worker failed" not in done.stderr


@pytest.mark.proof
def test_workers_give_the_numbers_of_mujoco_too():
    """HalfCheetah, three runs of four episodes among three workers, twice."""
    learner = algorithm("td3bc")(17, 6, runs=3)
    evaluator = Evaluator("HalfCheetah-v4", learner.run_ids, 4, 0)
    workers = Workers(Setup("HalfCheetah-v4", learner.run_ids, 4, 0, "float32"), 3)
    for step in (5, 6):
        workers.begin(Task(copy_of(learner), step, [1], False))
        found, expected = workers.collect(), evaluator.evaluate(learner, step, skip=[1])
        np.testing.assert_array_equal(found.returns, expected.returns)
        np.testing.assert_array_equal(found.lengths, expected.lengths)
    workers.close()
    evaluator.close()
