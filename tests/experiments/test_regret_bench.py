"""Benchmarks of regret: files, units, jumps, the comparison with reference values, what a resume keeps."""

from __future__ import annotations

import dataclasses
import shutil

import numpy as np
import pandas as pd
import pytest

from experiments import benchmark_file, regret_bench, results
from experiments.bench import bench
from experiments.bench_report import Made
from experiments.options import Bench
from experiments.regret import regret
from experiments.regret_bench import _row, chosen, compared, units
from experiments.regret_benchmark import Reference, RegretBenchmark, split
from experiments.regret_options import Regret

FILE = """
kind = "regret"
title = "two learners"
problems = ["dynamical-synthetic,noise=0.1", "dynamical-advertising"]
learners = ["dyn-lin-ucb", "short", "expert"]
runs = 3
horizon = 60
jump = true
set = ["short.ridge=1", "dyn-lin-ucb.spectral_radius=0.1"]
[variants]
short = "dyn-lin-ucb"
[only]
expert = ["dynamical-advertising"]
[reference]
label = "reference"
note = "A note."
[reference.values]
"dynamical-advertising" = [["expert", 60, 10, 2.1570911, 0], ["expert", 60, 60, 99.0, 1.0], ["expert", 61, 10, 0.0, 0]]
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(FILE)
    return path


def values(folder, metric="regret/pseudo"):
    table = results.read_table(folder / "metrics.parquet")
    return table[table["metric"] == metric].pivot(index="step", columns="run", values="value")


def test_the_shipped_file():
    spec = benchmark_file.read(benchmark_file.find("dynamical-linear-bandit"))
    assert isinstance(spec, RegretBenchmark)
    assert (spec.runs, spec.horizon, spec.jump) == (50, 1_000_000, True)
    assert len(spec.units()) == 4 * 12 + 1
    assert len(spec.references) > 50
    by_name = {(r.problem, r.learner, r.horizon, r.round): r for r in spec.references}
    assert by_name["dynamical-synthetic", "dyn-lin-ucb", 1_000_000, 1_000_000].mean == 9803
    for unit in units(spec, Bench(name="dynamical-linear-bandit")):
        assert unit.options.resume
        assert unit.options.runs == 50


def unreported(patch):
    """The report is another test's."""
    patch.setattr(regret_bench, "write", lambda spec, folder, out: Made("", {}))


def test_a_benchmark_from_file_to_table(file, tmp_path, capsys):
    out = tmp_path / "out"
    assert bench(Bench(name=str(file), out=out)) == 0
    folder = out / "mine"
    text = (folder / "report" / "benchmark.md").read_text()
    assert "1 of 2 values of the reference are met." in text
    assert "A note." in text
    assert text.count("| dynamical-advertising | expert |") == 3
    written = {path.suffix for path in (folder / "report").iterdir()}
    assert written == {".md", ".csv", ".png", ".html"}, "figures as PDF are those of orbs report"
    beside = pd.read_csv(folder / "report" / "reference.csv")
    assert beside["met"].tolist() == [True, False]
    played = sorted(str(p.parent.relative_to(folder)) for p in folder.rglob("metrics.parquet"))
    assert played == [
        "dynamical-advertising/dyn-lin-ucb", "dynamical-advertising/expert", "dynamical-advertising/short",
        "dynamical-synthetic,noise=0.1/dyn-lin-ucb", "dynamical-synthetic,noise=0.1/short",
    ]  # fmt: skip
    config = results.read_config(folder / "dynamical-advertising" / "short")
    assert config["hyperparameters"]["ridge"] == 1
    assert config["jump"]
    plan = values(folder / "dynamical-advertising" / "expert")
    np.testing.assert_allclose(plan.to_numpy(), 0.2157091107 * plan.index.to_numpy()[:, None] * np.ones(3), rtol=1e-8)
    capsys.readouterr()
    before = (folder / "dynamical-advertising" / "short" / "metrics.parquet").read_bytes()
    with pytest.MonkeyPatch.context() as patch:
        unreported(patch)
        assert bench(Bench(name=str(file), out=out)) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert (folder / "dynamical-advertising" / "short" / "metrics.parquet").read_bytes() == before
    shutil.rmtree(folder / "report")
    assert bench(Bench(name=str(file), out=out, report_only=True)) == 0
    assert (folder / "report" / "benchmark.md").read_text().splitlines()[:20] == text.splitlines()[:20]


def test_every_problem_is_told_by_its_own_regret(tmp_path):
    """Not all have pseudo-regret: sea-iid's is static, linear-rotating's dynamic."""
    path = tmp_path / "online.toml"
    path.write_text(
        'kind = "regret"\ntitle = "t"\nproblems = ["sea-iid", "linear-rotating"]\nlearners = ["ogd"]\nruns = 2\n'
        'horizon = 20\n[reference.values]\n"sea-iid" = [["ogd", 20, 1, 0.125, 0]]\n'
    )
    assert bench(Bench(name=str(path), out=tmp_path / "out")) == 0
    text = (tmp_path / "out" / "online" / "report" / "benchmark.md").read_text()
    assert "| sea-iid | ogd | 20 | 2 |" in text
    assert "| linear-rotating | ogd | 20 | 2 |" in text
    assert "1 of 1 values" in text  # E ||x_1 - mu||^2 / 2 = 1/8 in round 1, whatever the noise
    assert (tmp_path / "out" / "online" / "report" / "panels.png").exists()
    assert "- Evaluation" not in text
    assert "- Machine: " in text


def test_a_unit_that_fails_does_not_stop_the_others(file, tmp_path, capsys, monkeypatch):
    unreported(monkeypatch)
    file.write_text(FILE.replace('expert = ["dynamical-advertising"]', ""))
    assert bench(Bench(name=str(file), out=tmp_path / "out")) == 1
    said = capsys.readouterr().err
    assert (
        "failed: expert on dynamical-synthetic,noise=0.1: ValueError: expert: expected a problem with a human" in said
    )
    assert len(list((tmp_path / "out").rglob("metrics.parquet"))) == 5


@pytest.mark.proof
def test_processes_side_by_side_give_the_same(file, tmp_path):
    given = dict(name=str(file), algos=("short", "expert"), problems=("dynamical-advertising",))
    for jobs in (1, 2):
        assert bench(Bench(**given, out=tmp_path / str(jobs), jobs=jobs)) == 0
    for learner in ("short", "expert"):
        one, two = (values(tmp_path / jobs / "mine" / "dynamical-advertising" / learner) for jobs in "12")
        pd.testing.assert_frame_equal(one, two)


def test_what_the_command_line_changes(file):
    spec = benchmark_file.read(file)
    made = chosen(spec, Bench(name="x", algos=("short",), runs=7, steps=9, seed=4, set=("short.ridge=2",)))
    assert (made.learners, made.runs, made.horizon, made.seed) == (("short",), 7, 9, 4)
    assert made.set == ("short.ridge=1", "short.ridge=2")
    for given, said in (
        ({"algos": ("ucb1",)}, r"--algos: expected some of dyn-lin-ucb, short, expert, got 'ucb1'"),
        ({"problems": ("sea-iid",)}, r"--problems: expected some of dynamical-synthetic,noise=0.1, "),
        ({"runs": 0}, r"--runs: expected at least 1, got 0"),
        ({"set": ("dynlin.ridge=3",)}, r"--set: expected LEARNER.FIELD=VALUE of dyn-lin-ucb, .*got 'dynlin.ridge=3'"),
        ({"datasets": ("x",)}, r"--datasets: expected none in a benchmark of regret"),
        ({"eval_every": 5}, r"--eval-every: expected none in a benchmark of regret"),
    ):
        with pytest.raises(ValueError, match=said):
            chosen(spec, Bench(name="x", **given))
    with pytest.raises(ValueError, match=r"--problems: expected none in a benchmark of datasets"):
        bench(Bench(name="local-pendulum", problems=("sea-iid",)))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("runs = 3", "runs = 0", r"runs: expected a whole number from 1 on, got 0"),
        ("runs = 3", "rums = 3", r"rums: expected a field of RegretBenchmark, got 'rums'.*did you mean 'runs'"),
        ('title = "two learners"', "", r"title: expected this field, got none"),
        ('"short", "expert"', '"short", "short"', r"learners: expected one or more different names"),
        ('short = "dyn-lin-ucb"', 'short = "dyn"', r"variants.short: expected a learner of `orbs list`, got 'dyn'"),
        ('short = "dyn-lin-ucb"', "", r"learners: expected learners of `orbs list`, or variants, got 'short'"),
        ("noise=0.1", "noise", r"--problem-set: expected NAME=VALUE, got 'noise'"),
        ('"dynamical-advertising"]\nlearners', '"dyn"]\nlearners', r"problems: expected problems of .*got 'dyn'"),
        ("short.ridge=1", "shirt.ridge=1", r"set: expected LEARNER.FIELD=VALUE of .*got 'shirt.ridge=1'"),
        ("jump = true", "jump = 1", r"jump: expected true or false, got 1"),
        ('expert = ["dynamical-advertising"]', 'expert = ["x"]', r"only.expert: expected learners .*got 'x'"),
        ('["expert", 60, 10, 2.1570911, 0]', '["expert", 60, 10]', r"reference.values.*expected lines of \[learner"),
        ('label = "reference"', 'labels = "x"', r"reference.labels: expected one of label, note, values"),
    ],
)  # fmt: skip
def test_bad_files(file, old, new, said):
    assert old in FILE
    file.write_text(FILE.replace(old, new, 1))
    with pytest.raises(ValueError, match=said):
        benchmark_file.read(file)


def test_met_is_within_four_standard_errors_of_both():
    values = ((10.0, 3.0), (10.0, 0), (0.0, 3.0))
    references = tuple(Reference("dynamical-synthetic", "l", 100, 10, mean, error) for mean, error in values)
    shipped = benchmark_file.read(benchmark_file.find("dynamical-linear-bandit"))
    spec = dataclasses.replace(shipped, horizon=100, references=references)
    # Five runs with mean 20 and standard error 1; a sixth diverged, and counts for nothing.
    five = 20.0 + 5**0.5 * np.array([-1.0, -1.0, 0.0, 1.0, 1.0])
    common = {"problem": "dynamical-synthetic", "algorithm": "l"}
    table = pd.DataFrame(
        [{**common, "metric": "regret/pseudo", "step": 10, "run": i, "value": v} for i, v in enumerate([*five, 1e9])]
    )
    status = pd.DataFrame([{**common, "run": i, "diverged_step": 7 if i == 5 else None} for i in range(6)])
    found = compared(spec, table, status)
    np.testing.assert_allclose(found["ours_error"], 1.0, rtol=1e-12)
    np.testing.assert_allclose(found["z"], [10 / 10**0.5, 10.0, 20 / 10**0.5], rtol=1e-12)
    assert found["met"].tolist() == [True, False, False]


@pytest.mark.parametrize(("mean", "met"), [(5e-5, False), (0.3, True), (19.6, True), (0.0, False)])
def test_a_reference_is_known_to_the_digits_it_has(mean, met):
    one = Reference("dynamical-synthetic", "l", 100, 10, mean, 1e-9 if mean else 0.0)
    row = _row(one, np.full(3, 0.31 if mean < 1 else 19.64))
    assert row["met"] == met


@pytest.mark.parametrize(("within", "met"), [(10.01, True), (9.99, False)])
def test_a_reference_may_be_of_another_metric_and_have_a_tolerance(within, met):
    one = Reference("dynamical-synthetic", "l", 100, 10, 1.0, 0.0, "value/worst", within)
    shipped = benchmark_file.read(benchmark_file.find("dynamical-linear-bandit"))
    spec = dataclasses.replace(shipped, horizon=100, references=(one,))
    common = {"problem": "dynamical-synthetic", "algorithm": "l", "step": 10, "run": 0}
    table = pd.DataFrame(
        [{**common, "metric": "value/worst", "value": 11.0}, {**common, "metric": "regret/pseudo", "value": 1.0}]
    )
    status = pd.DataFrame([{"problem": "dynamical-synthetic", "algorithm": "l", "run": 0, "diverged_step": None}])
    found = compared(spec, table, status)
    assert found["met"].tolist() == [met]
    assert found["metric"].tolist() == ["value/worst"]


def test_split():
    assert split("sea-iid,noise=0.1,dimension=3") == ("sea-iid", ("noise=0.1", "dimension=3"))


def options(out, **given):
    return Regret(problem="dynamical-synthetic", learners=("dyn-lin-ucb",), runs=4, horizon=300, out=out, **given)


def test_jumps_have_their_own_numbers_and_the_same_law(tmp_path):
    """Without noise they are the same numbers."""
    found = {}
    for noise in (0, 0.1):
        for jump in (False, True):
            given = dict(jump=jump, problem_set=(f"noise={noise}",), set=("dyn-lin-ucb.ridge=1",))
            (folder,) = regret(options(tmp_path / f"{noise}{jump}", **given))
            found[noise, jump] = values(folder).to_numpy()
    np.testing.assert_allclose(found[0, True], found[0, False], rtol=1e-12)
    assert not np.array_equal(found[0.1, True], found[0.1, False])


def test_jumps_resume_to_the_same_bits(tmp_path):
    (straight,) = regret(options(tmp_path / "a", jump=True))
    kept = []
    import experiments.regret_session as session

    class Stop(Exception):
        pass

    def stopping(shown, stop, last, bar):
        kept.append(stop)
        if stop >= 100:
            raise KeyboardInterrupt

    original = session._say
    session._say = stopping
    try:
        with pytest.raises(KeyboardInterrupt):
            regret(options(tmp_path / "b", jump=True, checkpoint_seconds=0.0))
    finally:
        session._say = original
    (resumed,) = regret(options(tmp_path / "b", jump=True, resume=True))
    pd.testing.assert_frame_equal(values(straight), values(resumed))
    with pytest.raises(ValueError, match=r"--resume: expected the settings .*jump: True there, False here"):
        regret(options(tmp_path / "b", jump=False, resume=True))
