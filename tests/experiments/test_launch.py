"""`orbs bench --launcher ray`: the same bits as here, errors of units, nodes that die, folders that are not shared."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from experiments import launch, results, run_folder
from experiments.bench import bench, units
from experiments.benchmark_file import read
from experiments.options import Bench
from experiments.regret_bench import chosen as chosen_regret
from experiments.regret_bench import units as regret_units
from experiments.sync import FILES, Target
from orbs import load_tensors
from tests.experiments.training import ROOT, assert_same

TRAINING = """
kind = "offline"
title = "A small one"
algorithms = ["bc", "td3bc"]
datasets = ["local/pendulum-medium-replay-v0"]
runs = 2
steps = 40
eval_every = 20
eval_episodes = 1
log_every = 10
set = ["bc.hidden=16,16", "td3bc.hidden=16,16", "td3bc.batch_size=32"]
"""
REGRET = """
kind = "regret"
title = "Two learners"
problems = ["dynamical-synthetic,noise=0.1"]
learners = ["dyn-lin-ucb", "short"]
runs = 3
horizon = 60
set = ["short.ridge=1"]
[variants]
short = "dyn-lin-ucb"
"""


@pytest.fixture(scope="module")
def ray():
    """The package, for a cluster that sees this checkout and stays silent."""
    found = pytest.importorskip("ray", reason="needs the extra ray")
    pytest.importorskip("ray.cluster_utils", reason="needs the extra ray")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_DEDUP_LOGS", "0")
        yield found


@pytest.fixture(scope="module")
def two_cores(ray, tmp_path_factory):
    """A cluster of this machine with two CPUs, for all tests that need no more."""
    os.environ["ORBS_CACHE"] = str(tmp_path_factory.getbasetemp() / "cache")
    ray.init(address="local", num_cpus=2, include_dashboard=False, object_store_memory=80 << 20, logging_level="ERROR")
    yield ray
    ray.shutdown()


def written(folder, text, name="small"):
    path = folder / f"{name}.toml"
    path.write_text(text)
    return str(path)


def on_ray(file, out, **changes):
    return bench(Bench(name=file, out=out, launcher="ray", **changes))


def assert_same_bench(one, other, count):
    """Metrics but for clocks and checkpoints of all units."""
    folders = results.find_folders(one)
    assert len(folders) == count
    for folder in folders:
        assert_same(folder, other / folder.relative_to(one.resolve()))
        assert sorted(path.name for path in (other / folder.relative_to(one.resolve())).iterdir()) == sorted(FILES)


# What needs no Ray.


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"address": "auto"}, r"--address: expected none without --launcher ray, got auto"),
        ({"retries": 1}, r"--retries: expected none without --launcher ray"),
        ({"sync": "file:///x"}, r"--sync: expected none without --launcher ray"),
        ({"checkpoint_seconds": -1.0}, r"--checkpoint-seconds: expected at least 0"),
        ({"launcher": "ray", "retries": -1}, r"--retries: expected at least 0"),
        ({"launcher": "ray", "sync_seconds": 0.0}, r"--sync-seconds: expected above 0"),
        ({"launcher": "ray", "address": "auto", "jobs": 2}, r"--jobs: expected none with --address"),
        ({"launcher": "ray", "device": "cuda:1"}, r"--device: expected cuda, with --launcher ray, got cuda:1"),
        ({"launcher": "ray", "sync": "nowhere://x"}, r"--sync: expected a URL that fsspec can open, .*nowhere"),
    ],
    ids=["address", "retries", "sync", "checkpoint", "no-retries", "no-seconds", "jobs", "cuda", "protocol"],
)
@pytest.mark.parametrize("text", [TRAINING, REGRET], ids=["training", "regret"])
def test_bad_options_are_one_clear_error_and_nothing_is_written(tmp_path, text, given, said):
    with pytest.raises(ValueError, match=said):
        bench(Bench(name=written(tmp_path, text), out=tmp_path / "out", **given))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("text", [TRAINING, REGRET], ids=["training", "regret"])
def test_without_ray_the_error_names_the_extra(tmp_path, text, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ImportError, match=r'--launcher ray: expected the package, .*pip install "orbs\[ray\]"'):
        on_ray(written(tmp_path, text), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_units_move_with_their_folders_and_keep_their_names(tmp_path):
    here = Bench(out=Path("here"), checkpoint_seconds=7.0)
    spec = read(Path(written(tmp_path, TRAINING)))
    played = chosen_regret(read(Path(written(tmp_path, REGRET))), here)
    names = []
    for unit in (*units(spec, here), *regret_units(played, here)):
        moved = launch._moved(unit, tmp_path / "there" / "small")
        assert moved.folder == tmp_path / "there" / unit.folder.relative_to("here")
        assert launch._name(moved) == launch._name(unit)
        assert dataclasses.replace(moved.options, out=unit.options.out) == unit.options
        assert unit.options.checkpoint_seconds == 7.0
        names.append(launch._name(unit))
    assert names == [
        "small/pendulum-medium-replay-v0/bc", "small/pendulum-medium-replay-v0/td3bc",
        "small/dynamical-synthetic,noise=0.1/dyn-lin-ucb", "small/dynamical-synthetic,noise=0.1/short",
    ]  # fmt: skip


def test_a_replaced_attempt_ends_its_process(tmp_path):
    """The node was thought dead and is not: it must not write beside its successor."""
    code = (
        "import sys, time, dataclasses\nfrom pathlib import Path\nfrom experiments import launch\n"
        "from experiments.sync import Target\n"
        "attempt = launch.Attempt(print, None, 0, 1, 'first', None, 1.0, (), '')\n"
        "target = Target(Path(sys.argv[1]).as_uri(), 'x')\ntarget.claim('first')\nprint('claimed', flush=True)\n"
        "with launch._Watch(target, Path(sys.argv[1]) / 'x', attempt, copies=False):\n    time.sleep(60)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout.readline() == b"claimed\n"
        Target(tmp_path.as_uri(), "x").claim("second")
        timer = threading.Timer(20.0, process.kill)
        timer.daemon = True
        timer.start()
        assert process.wait() == 1
        assert b"another attempt goes on here" in process.stderr.read()


def test_a_replaced_attempt_copies_nothing_at_its_end(tmp_path):
    """What its successor has written must stay."""
    target, folder = Target((tmp_path / "far").as_uri(), "x"), tmp_path / "near"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    attempt = launch.Attempt(print, None, 0, 1, "first", None, 60.0, (), "")
    for later in ("second", None):
        target.claim("first")
        with launch._Watch(target, folder, attempt, copies=True):
            if later is not None:
                target.claim(later)
        assert (tmp_path / "far" / "x" / "config.json").exists() == (later is None)


def test_a_retry_waits_for_the_process_before_it_to_be_gone(tmp_path, monkeypatch):
    pytest.importorskip("fcntl", reason="no folder locks on Windows")
    monkeypatch.setattr(launch, "GRACE", 0.0)
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom experiments.run_folder import alone\n"
        "with alone(Path(sys.argv[1])):\n    print('in', flush=True)\n    time.sleep(60)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], env=environment, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout.readline() == b"in\n"
        threading.Timer(0.5, other.kill).start()
        began = time.monotonic()
        assert not run_folder.free(tmp_path)
        launch._wait_for(tmp_path, 2)
        assert 0.4 < time.monotonic() - began < 20
        with run_folder.alone(tmp_path):
            pass


# On Ray.


@pytest.mark.proof
@pytest.mark.extra
def test_training_on_ray_is_training_here(two_cores, tmp_path, capsys):
    file = written(tmp_path, TRAINING)
    assert bench(Bench(name=file, out=tmp_path / "here")) == 0
    capsys.readouterr()
    assert on_ray(file, tmp_path / "ray", every=20) == 0
    said = capsys.readouterr().out
    assert "[0/2] started small/pendulum-medium-replay-v0/bc on " in said
    assert "[2/2] complete small/pendulum-medium-replay-v0/" in said
    assert said.count("complete small/") == 4  # two turns
    assert_same_bench(tmp_path / "here", tmp_path / "ray", 2)
    assert (tmp_path / "ray" / "small" / "report" / "benchmark.md").exists()
    config = results.read_config(tmp_path / "ray" / "small" / "pendulum-medium-replay-v0" / "bc")
    assert config["command"] == ["orbs", *sys.argv[1:]]


@pytest.mark.proof
@pytest.mark.extra
def test_regret_on_ray_without_a_shared_folder_is_regret_here(two_cores, tmp_path, capsys):
    file = written(tmp_path, REGRET)
    assert bench(Bench(name=file, out=tmp_path / "here")) == 0
    far = tmp_path / "far"
    given = dict(sync=far.as_uri(), sync_seconds=0.05, checkpoint_seconds=0.0)
    assert on_ray(file, tmp_path / "one", **given) == 0
    assert_same_bench(tmp_path / "here", tmp_path / "one", 2)
    assert sorted(path.name for path in far.rglob("*") if path.is_file()) == sorted([*FILES, *FILES])
    # Another machine goes on from the target alone.
    capsys.readouterr()
    assert on_ray(file, tmp_path / "two", **given) == 0
    assert_same_bench(tmp_path / "here", tmp_path / "two", 2)
    assert capsys.readouterr().out.count("complete small/") == 2
    config = results.read_config(tmp_path / "two" / "small" / "dynamical-synthetic,noise=0.1" / "short")
    assert config["status"] == "complete"
    assert not config.get("earlier")


@pytest.mark.proof
@pytest.mark.extra
def test_an_error_of_a_unit_is_reported_and_not_retried(two_cores, tmp_path, capsys):
    text = REGRET.replace("problems = [", 'problems = ["dynamical-advertising", ').replace('"short"]', '"expert"]')
    file = written(tmp_path, text.partition("set =")[0])
    assert on_ray(file, tmp_path / "out") == 1
    said = capsys.readouterr()
    assert "retried" not in said.out
    assert said.out.count("] failed small/") == 1
    assert "/4] failed small/dynamical-synthetic,noise=0.1/expert on " in said.out
    assert (
        "failed: expert on dynamical-synthetic,noise=0.1: ValueError: expert: expected a problem with a human"
        in said.err
    )
    played = sorted(str(path.parent.relative_to(tmp_path / "out")) for path in tmp_path.rglob("metrics.parquet"))
    assert played == [
        "small/dynamical-advertising/dyn-lin-ucb", "small/dynamical-advertising/expert",
        "small/dynamical-synthetic,noise=0.1/dyn-lin-ucb",
    ]  # fmt: skip


def dies(marker, place):
    """A unit whose process is killed, the first time or always."""
    count = len(list(marker.folder.glob("start*")))
    (marker.folder / f"start{count}").write_text("")
    if marker.options.always or not count:
        os.kill(os.getpid(), signal.SIGKILL)


@dataclasses.dataclass(frozen=True)
class Options:
    out: Path
    always: bool


@dataclasses.dataclass(frozen=True)
class Marker:
    options: Options
    folder: Path


@pytest.mark.extra
@pytest.mark.parametrize(
    "always", [pytest.param(False, id="once"), pytest.param(True, id="always", marks=pytest.mark.proof)]
)
def test_a_killed_worker_is_retried_and_no_more_than_told(two_cores, tmp_path, capsys, monkeypatch, always):
    folder = tmp_path / "out" / "p" / "a"
    folder.mkdir(parents=True)
    with launch.cluster(Bench(launcher="ray", retries=1), []) as each:
        errors = each(dies, [Marker(Options(tmp_path / "out", always), folder)], keep_going=True)
    said = capsys.readouterr().out
    assert "[0/1] retried out/p/a: WorkerCrashedError on " in said
    assert "retry 1 of 1; goes on from its checkpoint" in said
    assert len(list(folder.glob("start*"))) == 2
    if always:
        assert "WorkerCrashedError" in str(errors[0])
        assert "[1/1] failed out/p/a on " in said
    else:
        assert errors == [None]
        assert "[1/1] complete out/p/a on " in said


@pytest.mark.proof
@pytest.mark.extra
@pytest.mark.parametrize("shared", [True, False], ids=["shared-folder", "sync"])
def test_a_killed_node_costs_only_the_work_since_the_last_checkpoint(ray, tmp_path, capfd, shared):
    """Three units on two nodes of one CPU; one node goes in the middle. All end, with the bits of a training here."""
    from ray.cluster_utils import Cluster

    text = TRAINING.replace("steps = 40", "steps = 2000").replace("eval_every = 20", "eval_every = 1000")
    file = written(
        tmp_path,
        text.replace('algorithms = ["bc", "td3bc"]', 'algorithms = ["td3bc"]').replace('"bc.hidden=16,16", ', ""),
    )
    given = dict(block=1, runs=3, checkpoint_seconds=0.2)
    assert bench(Bench(name=file, out=tmp_path / "here", **given)) == 0
    capfd.readouterr()
    far = tmp_path / "far"
    if not shared:
        given |= dict(sync=far.as_uri(), sync_seconds=0.3)
    if ray.is_initialized():
        ray.shutdown()
    memory = dict(object_store_memory=80 << 20, include_dashboard=False)
    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **memory})
    try:
        workers = [nodes.add_node(num_cpus=1, **memory) for _ in range(2)]
        nodes.wait_for_nodes()
        ray.init(address=nodes.address, logging_level="ERROR")
        watched = (tmp_path / "ray" if shared else far) / "small" / "pendulum-medium-replay-v0"
        at_kill = {}

        def kill():
            deadline = time.monotonic() + 120
            while len(at_kill) < 2 and time.monotonic() < deadline:
                for path in watched.glob("td3bc*/checkpoint.safetensors"):
                    steps = load_tensors(path)[1]["steps"]
                    if 50 < steps < 1800:
                        at_kill[path.parent.name] = steps
                time.sleep(0.05)
            nodes.remove_node(workers[0], allow_graceful=False)

        killer = threading.Thread(target=kill)
        killer.start()
        try:
            status = on_ray(file, tmp_path / "ray", **given)
        finally:
            killer.join()
    finally:
        ray.shutdown()
        nodes.shutdown()
    said = capfd.readouterr()
    print(said.out)
    assert status == 0
    assert len(at_kill) == 2
    (retried,) = [line for line in said.out.splitlines() if "] retried small/" in line]
    name = retried.partition("] retried small/pendulum-medium-replay-v0/")[2].partition(":")[0]
    assert "retry 1 of 3" in retried
    assert said.out.count("] complete small/") == 3
    (resumed,) = [line for line in said.out.splitlines() if ": resuming at update " in line]
    assert int(resumed.rpartition(" ")[2].rstrip(".")) >= at_kill[name]
    for folder in (tmp_path / "ray" / "small" / "pendulum-medium-replay-v0").iterdir():
        assert len(results.read_config(folder).get("earlier", [])) == (folder.name == name)
    assert_same_bench(tmp_path / "here", tmp_path / "ray", 3)


@pytest.mark.proof
@pytest.mark.extra
def test_ctrl_c_stops_all_units_and_the_same_command_goes_on(ray, tmp_path):
    """The signal reaches every process of the terminal, Ray's too."""
    file = written(tmp_path, TRAINING.replace("steps = 40", "steps = 1000000"))
    words = [sys.executable, "-m", "experiments.cli", "bench", file, "--out", "out", "--launcher", "ray", "--jobs", "2"]
    command = subprocess.Popen(
        words, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        deadline = time.monotonic() + 120
        while len(list(tmp_path.rglob("checkpoint.safetensors"))) < 2 and time.monotonic() < deadline:
            time.sleep(0.1)
        os.killpg(command.pid, signal.SIGINT)
        said, errors = command.communicate(timeout=90)
    finally:
        command.kill()
    assert command.returncode == 130
    assert said.count("started small/") == 2
    assert "Stopped; 0 of 2 units are done; the others keep their last checkpoints. The same command goes on." in errors
    for folder in (tmp_path / "out" / "small" / "pendulum-medium-replay-v0").iterdir():
        assert results.read_config(folder)["status"] == "stopped"
        assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)
        assert run_folder.free(folder)
