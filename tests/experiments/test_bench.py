"""`orbs bench`: restart, balance, failures, the file's errors, published numbers beside ours."""

import contextlib
import dataclasses
import io
import json
import shutil

import pandas as pd
import pytest

from bandits.config import CONFIGS as LEARNERS
from experiments import bench, bench_report, problems, regret_bench, results
from experiments.bench import chosen, targets, units
from experiments.benchmark_file import OfflineBenchmark, Published, find, read, shipped
from experiments.options import Bench, overrides
from experiments.presets import preset
from experiments.regret_benchmark import RegretBenchmark
from offline_rl import BC, TD3BC
from orbs import checked_fields
from tests.experiments.training import assert_same

DATASET = "local/pendulum-medium-replay-v0"
FILE = f"""
kind = "offline"
title = "A small one"
algorithms = ["bc", "td3bc"]
datasets = ["{DATASET}"]
runs = 2
steps = 40
eval_every = 20
eval_episodes = 1
log_every = 10
set = ["bc.hidden=16,16", "td3bc.hidden=16,16", "td3bc.batch_size=32"]
smoke_below = 100

[published]
label = "elsewhere"
note = "Other data."

[published.datasets]
"{DATASET}" = "hopper-medium-v2"
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "small.toml"
    path.write_text(FILE)
    return path


def run(file, out, **changes):
    return bench.bench(Bench(name=str(file), out=out, **changes))


def folders(out):
    return [out / "small" / "pendulum-medium-replay-v0" / name for name in ("bc", "td3bc")]


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """The whole benchmark, never stopped, and what it said; only to look at."""
    out = tmp_path_factory.mktemp("straight")
    (out / "small.toml").write_text(FILE)
    with contextlib.redirect_stdout(io.StringIO()) as said:
        assert run(out / "small.toml", out) == 0
    return out, said.getvalue()


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """Both units, to half of their updates; only to look at."""
    out = tmp_path_factory.mktemp("half")
    (out / "small.toml").write_text(FILE)
    assert run(out / "small.toml", out, steps=20) == 0
    return out


@pytest.fixture
def half(stopped, tmp_path):
    """A copy of `stopped`, to go on from."""
    return shutil.copytree(stopped, tmp_path / "out")


def test_table_figures_and_raw_table_are_written(straight):
    out, shown = straight
    report = out / "small" / "report"
    for name in ("benchmark.md", "report.md", "raw.csv", "runs.csv", "table.csv", "curves.png", "scores.png"):
        assert (report / name).stat().st_size > 100, name
    assert "2 algorithms, 1 datasets, 2 runs of 40 updates, in 2 units" in shown
    assert "Smoke comparison: 40 updates, fewer than the 100" in shown
    raw = pd.read_csv(report / "raw.csv")
    assert set(raw["metric"]) == {"eval/score", "eval/return", "eval/length", "time/updates_per_second"}
    scores = raw[raw["metric"] == "eval/score"]
    assert len(scores) == 2 * 2 * 2  # algorithms, runs, evaluations
    assert set(scores["step"]) == {20, 40}
    assert set(scores["simulator"]) == {scores["simulator"].iloc[0]} != {""}
    text = (report / "benchmark.md").read_text()
    assert "hopper-medium-v2: 60.37 ± 3.49 [" in text  # TD3+BC, CORL's last scores
    assert "70.44" not in text  # its best scores are no match for our last ones
    assert "Other data." in text
    assert "| elsewhere |" in text
    for said in ("Machine: ", "Versions: orbs ", "Command: `orbs", "1 episodes a run every 20 updates"):
        assert said in text


def test_restart_goes_on_and_equals_a_straight_run(file, straight, tmp_path, capsys):
    run(file, tmp_path / "resumed", steps=20, algos=("td3bc",))
    run(file, tmp_path / "resumed")
    for one, other in zip(folders(straight[0]), folders(tmp_path / "resumed"), strict=True):
        assert_same(one, other)
    capsys.readouterr()
    run(file, tmp_path / "resumed")
    assert capsys.readouterr().out.count("is complete at 40 updates: nothing to do") == 2


@pytest.mark.parametrize("jobs", [1, pytest.param(2, marks=pytest.mark.proof)])
def test_in_turn_is_balanced_and_changes_no_bit(file, straight, tmp_path, jobs, capfd):
    assert run(file, tmp_path / "turns", every=20, jobs=jobs) == 0
    order = [line.split(",")[0] for line in capfd.readouterr().err.splitlines() if ": update " in line]
    assert sorted(order[:2]) == ["bc: update 20", "td3bc: update 20"]
    assert sorted(order[2:]) == ["bc: update 40", "td3bc: update 40"]
    for one, other in zip(folders(straight[0]), folders(tmp_path / "turns"), strict=True):
        assert_same(one, other)


def test_in_turn_begins_beyond_the_targets_that_are_reached(file, straight, tmp_path, capfd):
    out = shutil.copytree(straight[0], tmp_path / "turns")
    assert run(file, out, every=20, steps=60) == 0
    assert [line.count("update 60") for line in capfd.readouterr().err.splitlines() if ": update " in line] == [1, 1]


def test_blocks_of_runs_are_folders_of_their_own_and_one_table(file, tmp_path):
    assert run(file, tmp_path / "out", runs=3, block=2, algos=("bc",)) == 0
    found = results.find_folders(tmp_path / "out")
    assert [folder.name for folder in found] == ["bc", "bc-from-run-2"]
    table = pd.read_csv(tmp_path / "out" / "small" / "report" / "table.csv")
    assert table["runs"].tolist() == [3]


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_failing_unit_is_reported_and_the_others_go_on(file, straight, half, jobs, capfd):
    out = half
    (folders(out)[0] / "checkpoint.safetensors").write_bytes(b"damaged")
    (out / "small" / "report" / "benchmark.md").unlink()
    assert run(file, out, jobs=jobs) == 1
    assert f"orbs: failed: {folders(out)[0]}: " in capfd.readouterr().err
    assert results.read_config(folders(out)[1])["status"] == "complete"
    assert_same(folders(straight[0])[1], folders(out)[1])
    assert (out / "small" / "report" / "benchmark.md").exists()


def test_other_settings_are_refused_even_where_all_is_complete(file, straight, tmp_path, capfd):
    out = shutil.copytree(straight[0], tmp_path / "out")
    assert run(file, out, set=("bc.learning_rate=0.01",)) == 1
    assert "hyperparameters.learning_rate: 0.001 there, 0.01 here" in capfd.readouterr().err


def test_report_only_trains_nothing(file, half, tmp_path):
    with pytest.raises(ValueError, match="run it first"):
        run(file, tmp_path / "nothing", report_only=True)
    before = results.read_config(folders(half)[0])
    (half / "small" / "report" / "benchmark.md").unlink()
    assert run(file, half, report_only=True) == 0
    assert results.read_config(folders(half)[0]) == before
    text = (half / "small" / "report" / "benchmark.md").read_text()
    assert "Smoke comparison: 20 updates of 40 planned" in text


def test_what_was_trained_for_longer_can_be_compared_at_fewer_steps(file, half, capsys):
    report = half / "small" / "report"
    before = [pd.read_csv(report / f"{name}.csv") for name in ("table", "runs", "raw")]
    run(file, half, algos=("bc",))
    capsys.readouterr()
    assert run(file, half, report_only=True, steps=20) == 0
    after = [pd.read_csv(report / f"{name}.csv") for name in ("table", "runs", "raw")]
    for one, other in zip(before, after, strict=True):
        pd.testing.assert_frame_equal(one, other)
    assert "not complete" not in capsys.readouterr().out


def test_hyperparameters_are_the_preset_then_the_file_then_the_command_line(file, tmp_path):
    spec = chosen(read(file), Bench(set=("td3bc.batch_size=64",)))
    bc, td3bc = units(spec, Bench(out=tmp_path))
    assert bc.hyperparameters["hidden"] == (16, 16)
    assert td3bc.hyperparameters["batch_size"] == 64
    assert td3bc.hyperparameters["alpha"] == preset("td3bc", DATASET).values["alpha"]
    assert units(chosen(read(file), Bench(algos=("bc",))), Bench())[0].algorithm == BC.name != TD3BC.name
    assert not list(tmp_path.glob("small"))


def test_targets_end_at_the_steps():
    assert list(targets(50, None)) == [50]
    assert list(targets(50, 20)) == [20, 40, 50]
    assert list(targets(40, 20)) == [20, 40]
    assert list(targets(10, 20)) == [10]


@pytest.mark.parametrize("name", shipped())
def test_shipped_benchmarks_are_whole(name, tmp_path):
    """Every name in them is known, every hyperparameter valid; nothing is made or loaded for that."""
    spec = read(find(name))
    assert spec.name == name
    if isinstance(spec, RegretBenchmark):
        played = regret_bench.units(spec, Bench(out=tmp_path))
        for unit in played:
            (learner,) = unit.options.learners
            kind = LEARNERS[spec.variants.get(learner, learner)]
            kind(**checked_fields(kind, overrides(unit.options.set, [learner])[learner], learner))
            problems.find(unit.options.problem)
        assert len(played) == len(spec.units())
        assert not list(tmp_path.iterdir())
        return
    found = units(spec, Bench(out=tmp_path))
    assert len(found) == len(spec.algorithms) * len(spec.problems)
    assert not list(tmp_path.iterdir())


def test_local_mujoco_is_the_comparison_that_was_promised():
    spec = read(find("local-mujoco"))
    assert set(spec.algorithms) == {"bc", "td3bc", "iql", "rebrac", "prdc", "a2pr", "odice"}
    tasks = [f"{task}-{kind}" for task in ("hopper", "halfcheetah", "walker2d") for kind in ("medium", "medium-replay")]
    assert set(spec.datasets) == {f"local/{task}-v0" for task in tasks}
    assert spec.runs >= 3
    assert spec.smoke_below == 200_000
    assert spec.published is not None
    for unit in units(spec, Bench()):  # a preset of its own for each, not the rule for whatever is left
        if unit.algorithm in ("a2pr", "rebrac"):
            name = unit.options.dataset.removeprefix("local/")
            assert preset(unit.algorithm, name).pattern == name.replace("-v0", "-v?")


def test_list_shows_names_and_files(capsys):
    assert bench.bench(Bench(list=True)) == 0
    shown = capsys.readouterr().out
    assert "local-mujoco: " in shown
    assert str(find("local-mujoco")) in shown


def test_heading_tells_a_smoke_comparison_from_another():
    spec = OfflineBenchmark("x", "X", ("bc",), ("d",), steps=300, smoke_below=200)
    for steps, expected in ((["199"], "Smoke"), (["200..300", "300"], "Comparison"), (["150..300"], "Smoke")):
        assert bench_report._heading(spec, pd.DataFrame({"steps": steps})).startswith(expected), steps


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('kind = "offline"', 'kind = "ofline"', r'kind: expected "offline"'),
        ("runs = 2", "run = 2", r"did you mean 'runs'"),
        ("runs = 2", "runs = 0", r"runs: expected a whole number from 1 on, got 0"),
        ("runs = 2", "runs = true", r"runs: expected a whole number"),
        ("steps = 40", 'steps = "many"', r"steps: expected a whole number from 1 on, got 'many'"),
        ('algorithms = ["bc", "td3bc"]', 'algorithms = "bc"', r"algorithms: expected a list of words"),
        ('algorithms = ["bc", "td3bc"]', 'algorithms = ["bc", "bc"]', r"algorithms: expected one or more different"),
        ('algorithms = ["bc", "td3bc"]', "", r"algorithms: expected this field"),
        ('label = "elsewhere"', "label = 3", r"published.label: expected a text"),
        ('label = "elsewhere"', 'lable = "x"', r"did you mean 'label'"),
        (f'"{DATASET}" = "hopper-medium-v2"', '"other" = "hopper-medium-v2"', r"datasets of this benchmark, got other"),
        ("kind =", "kind = = ", r"small.toml: expected a TOML file"),
    ],
)
def test_bad_files_are_one_clear_error(file, old, new, message):
    assert old in FILE
    file.write_text(FILE.replace(old, new))
    with pytest.raises(ValueError, match=message):
        read(file)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "local-mujocco"}, "did you mean 'local-mujoco'"),
        ({"name": "nowhere.toml"}, "not there"),
        ({"name": None}, "NAME: expected a benchmark, got none"),
        ({"algos": ("prdc",)}, "--algos: expected some of bc, td3bc, got 'prdc'"),
        ({"datasets": ("hopper",)}, "--datasets: expected some of"),
        ({"steps": 0}, "--steps: expected at least 1"),
        ({"block": 0}, "--block: expected at least 1"),
        ({"every": 30}, "--every: expected a multiple of eval_every, 20"),
        ({"set": ("bc.hiden=3",)}, "did you mean 'hidden'"),
    ],
)
def test_bad_options_are_one_clear_error_and_nothing_is_written(file, tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        bench.bench(Bench(**{"name": str(file), "out": tmp_path / "out", **changes}))
    assert not (tmp_path / "out").exists()


def test_unknown_names_in_the_file_are_found_before_anything_is_written(file, tmp_path):
    for old, new, message in (
        ('"bc", "td3bc"]', '"bc", "td3cb"]', "did you mean 'td3bc'"),
        (f'datasets = ["{DATASET}"]', 'datasets = ["local/pendulum-medum-v0"]', "dataset: expected the name of"),
    ):
        file.write_text(FILE.replace(old, new).split("[published]")[0].replace('"td3bc.hidden=16,16", ', ""))
        with pytest.raises(ValueError, match=message):
            run(file, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_every_cell_says_where_its_published_numbers_come_from():
    spec = OfflineBenchmark("x", "X", ("bc", "prdc"), (DATASET,), published=Published({DATASET: "hopper-medium-v2"}))
    rows = pd.DataFrame({"problem": [DATASET, DATASET], "algorithm": ["bc", "prdc"]})
    beside, sources = bench_report._published(spec, rows)
    assert {number for cell in beside.values() for _, _, number in cell.numbers} == set(sources.values())
    none, nothing = bench_report._published(dataclasses.replace(spec, published=None), rows)
    assert (none, nothing) == ({}, {})


def test_configuration_names_the_machine(stopped):
    config = json.loads((folders(stopped)[0] / "config.json").read_text())
    assert config["machine"].endswith(" cores")
