"""`orbs bench` of agents that interact, and the agreement of ours with the second opinion."""

import contextlib
import io

import numpy as np
import pandas as pd
import pytest

from experiments import agreement, bench, results
from experiments.agreement import steps_per_second, welch
from experiments.benchmark_file import OnlineBenchmark, find, read
from experiments.options import Bench
from tests.experiments.interacting import register, small
from tests.experiments.training import assert_same

FILE = f"""
kind = "online"
title = "A small one"
algorithms = ["td3", "sb3-td3", "beer"]
envs = ["Pendulum-v1", "orbs-test/Far-v0"]
runs = 2
steps = 40
eval_every = 20
eval_episodes = 1
log_every = 10
set = [{", ".join(f'"{one}"' for one in small("td3", "sb3-td3", "beer"))}]
smoke_below = 100
"""


@pytest.fixture
def file(tmp_path):
    register()
    path = tmp_path / "small.toml"
    path.write_text(FILE)
    return path


def run(file, out, **changes):
    return bench.bench(Bench(name=str(file), out=out, **changes))


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """One environment's units, never stopped, and what was said; only to look at."""
    register()
    out = tmp_path_factory.mktemp("straight")
    (out / "small.toml").write_text(FILE)
    with contextlib.redirect_stdout(io.StringIO()) as said:
        assert run(out / "small.toml", out, envs=("Pendulum-v1",)) == 0
    return out, said.getvalue()


def test_units_table_and_agreement(straight):
    out, shown = straight
    assert "3 algorithms, 1 envs, 2 runs of 40 steps, in 3 units" in shown
    assert "Smoke comparison: 40 steps, fewer than the 100" in shown
    report = out / "small" / "report"
    text = (report / "benchmark.md").read_text()
    assert "| td3 - sb3-td3 |" in text
    assert "Steps a second of all runs together" in text
    assert "1 episodes a run every 20 steps" in text
    (pair,) = pd.read_csv(report / "agreement.csv").to_dict("records")
    frame = results.read_folders(out)
    last = frame[(frame["metric"] == "eval/return") & (frame["step"] == 40)]
    mean = last.groupby("algorithm")["value"].mean()
    assert pair["difference"] == pytest.approx(mean["td3"] - mean["sb3-td3"])
    assert pair["low"] < pair["difference"] < pair["high"]
    assert pair["zero_inside"] == (pair["low"] <= 0 <= pair["high"])
    assert pair["steps_per_second_ratio"] > 0
    assert set(pd.read_csv(report / "raw.csv")["metric"]) == {
        "eval/score", "eval/return", "eval/length", "eval/value_error", "time/steps_per_second",
    }  # fmt: skip


def test_in_turn_is_balanced_and_changes_no_bit(file, straight, tmp_path, capfd):
    given = dict(envs=("Pendulum-v1",))
    assert run(file, tmp_path / "turns", every=20, **given) == 0
    found = capfd.readouterr()
    assert "Units of Stable-Baselines3 cannot be resumed" in found.out
    order = [line.split(",")[0] for line in found.err.splitlines() if ": step " in line]
    assert order == [f"{name}: step {step}" for name, step in (
        ("td3", 20), ("beer", 20), ("td3", 40), ("sb3-td3", 20), ("sb3-td3", 40), ("beer", 40),
    )]  # fmt: skip
    for name in ("td3", "beer"):
        assert_same(*(place / "small" / "Pendulum-v1" / name for place in (straight[0], tmp_path / "turns")))
    run(file, tmp_path / "turns", **given)
    assert capfd.readouterr().out.count("complete at 40 steps: nothing to do") == 3


def test_a_failing_unit_is_reported_and_the_others_go_on(file, tmp_path, capfd):
    out = tmp_path / "out"
    given = dict(envs=("Pendulum-v1",), algos=("td3", "beer"))
    run(file, out, steps=20, **given)
    (out / "small" / "Pendulum-v1" / "td3" / "checkpoint.safetensors").write_bytes(b"damaged")
    assert run(file, out, **given) == 1
    assert "orbs: failed: " in capfd.readouterr().err
    assert results.read_config(out / "small" / "Pendulum-v1" / "beer")["status"] == "complete"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"td3", "sb3-td3", "beer"', '"td3", "bc"', "algorithms of one kind"),
        ('"td3", "sb3-td3", "beer"', '"td3", "bear"', "did you mean 'beer'"),
        ('"Pendulum-v1", ', '"Pendulum-v7", ', "env: expected the id"),
        ("envs =", "datasets =", "did you mean|datasets"),
        ("runs = 2", "runs = 0", "runs: expected a whole number"),
        ("smoke_below = 100", "[published]", "published"),
    ],
)
def test_bad_files_are_one_clear_error_and_nothing_is_written(file, tmp_path, old, new, message):
    assert old in FILE
    text = FILE.replace(old, new)
    file.write_text(text if "beer" in new or "beer" not in old else text.split("set =")[0])
    with pytest.raises(ValueError, match=message):
        run(file, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_bad_options_are_one_clear_error(file, tmp_path):
    for changes, message in (
        ({"envs": ("Hopper-v4",)}, "--envs: expected some of Pendulum-v1"),
        ({"datasets": ("hopper",)}, "--datasets: expected none in a benchmark of envs"),
        ({"name": "local-pendulum", "envs": ("Hopper-v4",)}, "--envs: expected none in a benchmark of datasets"),
    ):
        with pytest.raises(ValueError, match=message):
            bench.bench(Bench(**{"name": str(file), "out": tmp_path / "out", **changes}))


def test_shipped_comparisons_are_what_was_promised():
    spec = read(find("online-agreement"))
    assert isinstance(spec, OnlineBenchmark)
    assert (set(spec.algorithms), set(spec.envs), spec.runs, spec.steps) == (
        {"td3", "sb3-td3", "sac", "sb3-sac"}, {"Pendulum-v1", "Hopper-v4"}, 5, 20_000,
    )  # fmt: skip
    units = {(unit.algorithm, unit.options.env): unit.hyperparameters for unit in bench.units(spec, Bench())}
    for (name, env), hyperparameters in units.items():
        assert hyperparameters == units[name.removeprefix("sb3-"), env]
    spec = read(find("online-agents"))
    assert (set(spec.algorithms), set(spec.envs), spec.runs, spec.steps) == (
        {"stac", "beer", "td3", "sac"}, {"Hopper-v4", "HalfCheetah-v4"}, 5, 1_000_000,
    )  # fmt: skip


def test_welch_is_scipys():
    from scipy.stats import ttest_ind

    rng = np.random.default_rng(0)
    first, second = rng.normal(1.0, 1.0, 5), rng.normal(0.0, 4.0, 8)
    found = welch(first, second)
    expected = ttest_ind(first, second, equal_var=False).confidence_interval(0.95)
    np.testing.assert_allclose((found.low, found.high), expected)
    assert float(found.value) == pytest.approx(first.mean() - second.mean())
    assert welch(first, second[:1]).low is None


def rows(algorithm, run, returns, rates):
    key = ("x", algorithm, "Pendulum-v1", run)
    found = [(*key, 10 * (i + 1), "eval/return", value, "e", "s") for i, value in enumerate(returns)]
    return found + [(*key, step, "time/steps_per_second", rate, "e", "s") for step, rate in rates.items()]


def found_in(table, folders):
    """The results of these rows; `folders` {(algorithm, run): folder}, by default one an algorithm."""
    frame = pd.DataFrame(table, columns=list(results.COLUMNS))
    status = frame[results.IDENTITY].drop_duplicates().assign(diverged_step=None)
    status["folder"] = [
        folders.get((one, run), one) for one, run in zip(status["algorithm"], status["run"], strict=True)
    ]
    return results.Results(frame, status, {})


def test_agreement_counts_last_returns_of_runs_that_did_not_diverge():
    table = [row for run in range(3) for row in rows("td3", run, [0.0, 10.0 + run], {10: 10.0, 20: 5.0})]
    table += [row for run in range(3) for row in rows("sb3-td3", run, [0.0, 11.0 + run], {10: 10.0, 20: 2.0})]
    table += rows("sb3-td3", 3, [0.0, np.nan], {10: 10.0, 20: 2.0}) + rows("sac", 0, [1.0], {10: 1.0})
    found = found_in(table, {("sb3-td3", 3): "another"})
    (pair,) = agreement.agreement(found)
    assert (pair.ours, pair.theirs, pair.runs, pair.means) == ("td3", "sb3-td3", (3, 3), (11.0, 12.0))
    assert pair.step == 20
    assert float(pair.difference.value) == -1.0
    assert pair.agree is True
    # 10 steps at 10 and 10 at 5 a second are 3 seconds; at 10 and 2, 6 seconds. Each is a step of 3 runs.
    assert steps_per_second(found)["Pendulum-v1", "td3"] == {3: pytest.approx(3 * 20 / 3)}
    assert "| yes |" in agreement.lines([pair])[-1]
    far = found.table.assign(
        value=found.table["value"]
        + 100.0 * (found.table["algorithm"] == "td3") * (found.table["metric"] == "eval/return")
    )
    assert agreement.agreement(found._replace(table=far))[0].agree is False


@pytest.mark.parametrize(("blocks", "theirs", "expected"), [
    ((0, 0, 0), (0, 0, 0), 2.0),
    ((0, 0, 1), (0, 0, 1), 2.0),  # blocks of two and one on either side
    ((0, 0, 0), (0, 1, 2), np.nan),  # three runs in one program against a program each
    ((0, 0, 1), (0, 0, 0), np.nan),
])  # fmt: skip
def test_speeds_are_compared_between_folders_of_as_many_runs_alone(blocks, theirs, expected):
    table = [row for run in range(3) for row in rows("td3", run, [0.0, 1.0], {10: 10.0, 20: 5.0})]
    table += [row for run in range(3) for row in rows("sb3-td3", run, [0.0, 1.0], {10: 10.0, 20: 2.0})]
    folders = {("td3", run): f"ours-{block}" for run, block in enumerate(blocks)}
    folders |= {("sb3-td3", run): f"theirs-{block}" for run, block in enumerate(theirs)}
    found = found_in(table, folders)
    (pair,) = agreement.agreement(found)
    assert pair.speed == pytest.approx(expected, nan_ok=True)
    # What counts is the environment steps of all runs: twice as many runs at half the rate are as fast.
    each = {blocks.count(block) for block in blocks}
    assert steps_per_second(found)["Pendulum-v1", "td3"] == {n: pytest.approx(n * 20 / 3) for n in each}


def test_a_folder_with_a_diverged_run_says_nothing_of_speed():
    table = [row for run in range(2) for row in rows("td3", run, [0.0, 1.0 + run], {20: 5.0})]
    table += [row for run in range(2) for row in rows("sb3-td3", run, [0.0, 1.0 + run], {20: 9.0})]
    found = found_in(table, {})
    found.status.loc[(found.status["algorithm"] == "sb3-td3") & (found.status["run"] == 1), "diverged_step"] = 20
    assert steps_per_second(found).keys() == {("Pendulum-v1", "td3")}
    assert np.isnan(agreement.agreement(found)[0].speed)


def test_a_pair_is_compared_at_the_last_step_that_every_run_of_both_reached():
    """Ours went on to 30; of theirs one block stopped at 20."""
    table = [row for run in range(2) for row in rows("td3", run, [0.0, 10.0 + run, 500.0], {30: 5.0})]
    table += rows("sb3-td3", 0, [0.0, 12.0, 400.0], {30: 5.0}) + rows("sb3-td3", 1, [0.0, 13.0], {20: 5.0})
    (pair,) = agreement.agreement(found_in(table, {}))
    assert (pair.step, pair.means, pair.runs) == (20, (10.5, 12.5), (2, 2))
    assert float(pair.difference.value) == -2.0
    heading, *_, line = [one for one in agreement.lines([pair]) if one.startswith("|")]
    cells = dict(zip(*([cell.strip() for cell in row.split("|")] for row in (heading, line)), strict=True))
    assert cells["last common evaluation at"] == "20"
    assert cells["mean return there"] == "10.5 and 12.5"


def test_a_pair_that_was_never_evaluated_at_the_same_step_says_so(tmp_path):
    table = [row for run in range(2) for row in rows("td3", run, [0.0, 1.0], {20: 5.0})]
    late = [(*row[:4], row[4] + 5, *row[5:]) for run in range(2) for row in rows("sb3-td3", run, [0.0, 1.0], {})]
    (pair,) = agreement.agreement(found_in(table + late, {}))
    assert (pair.step, pair.agree) == (None, None)
    assert "| never evaluated at the same step |" in agreement.lines([pair])[-1]
    (row,) = pd.read_csv(agreement.csv([pair], tmp_path / "a.csv")).to_dict("records")
    assert np.isnan(row["step"])
    assert np.isnan(row["difference"])
