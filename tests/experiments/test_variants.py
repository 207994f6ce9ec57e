"""Variants in a benchmark: one algorithm with other hyperparameters, under a name of its own."""

import json

import pandas as pd
import pytest

from experiments import bench, results
from experiments.bench import chosen, units
from experiments.benchmark_file import find, read
from experiments.cli import main
from experiments.options import Bench
from experiments.presets import preset
from orbs import load_tensors
from tests.experiments.interacting import small
from tests.experiments.training import assert_same

DATASET = "local/pendulum-medium-replay-v0"
COMMON = """
runs = 2
steps = 40
eval_every = 20
eval_episodes = 1
log_every = 10
"""
OFFLINE = f"""
kind = "offline"
title = "Critics"
algorithms = ["td3bc-stac", "td3bc", "td3bc-beer"]
datasets = ["{DATASET}"]
{COMMON}
set = ["td3bc.hidden=8,8", "td3bc-stac.hidden=8,8", "td3bc-stac.critic=stac", "td3bc-beer.hidden=8,8",
       "td3bc-beer.beer=0.5", "td3bc.batch_size=16", "td3bc-stac.batch_size=16", "td3bc-beer.batch_size=16"]

[variants]
td3bc-stac = "td3bc"
td3bc-beer = "TD3+BC"
"""
ONLINE = f"""
kind = "online"
title = "Rates"
algorithms = ["td3", "td3-slow", "sb3-slow"]
envs = ["Pendulum-v1"]
{COMMON}
set = [{", ".join(f'"{one}"' for one in small("td3", "td3-slow", "sb3-slow"))}, "td3-slow.tau=0.5", "sb3-slow.tau=0.5"]

[variants]
td3-slow = "td3"
sb3-slow = "sb3-td3"
"""
NAMES = ("td3bc-stac", "td3bc", "td3bc-beer")


def run(tmp_path, text, out="out", **changes):
    file = tmp_path / "some.toml"
    file.write_text(text)
    return bench.bench(Bench(name=str(file), out=tmp_path / out, **changes))


def folder(tmp_path, name, out="out", problem="pendulum-medium-replay-v0"):
    return tmp_path / out / "some" / problem / name


def test_a_variant_is_its_algorithm_with_its_own_hyperparameters_folder_and_name(tmp_path, capsys):
    assert run(tmp_path, OFFLINE) == 0
    shown = capsys.readouterr()
    assert "td3bc-beer: update 40" in shown.err
    table = pd.read_csv(tmp_path / "out" / "some" / "report" / "table.csv")
    assert sorted(table["algorithm"]) == sorted(NAMES)
    text = (tmp_path / "out" / "some" / "report" / "benchmark.md").read_text()
    order = [text.index(f" | {name} | 40 |") for name in NAMES]
    assert order == sorted(order)  # as in the file
    alpha = preset("td3bc", DATASET).values["alpha"]
    for name, critic, beer in zip(NAMES, ("stac", "twin", "twin"), (0.0, 0.0, 0.5), strict=True):
        config = results.read_config(folder(tmp_path, name))
        found = config["hyperparameters"]
        assert (config["algorithm"], config["base"]) == (name, "td3bc")
        assert (found["critic"], found["beer"], found["alpha"]) == (critic, beer, alpha)
        assert set(results.read_table(folder(tmp_path, name) / "metrics.parquet")["algorithm"]) == {name}
        assert load_tensors(folder(tmp_path, name) / "checkpoint.safetensors")[1]["algorithm"] == "td3bc"
    assert main(["evaluate", str(folder(tmp_path, "td3bc-stac")), "--episodes", "1"]) == 0
    assert "td3bc-stac after 40 updates" in capsys.readouterr().out


def test_the_algorithm_itself_is_the_same_whichever_variants_stand_beside_it(tmp_path):
    run(tmp_path, OFFLINE, algos=("td3bc",))
    text = OFFLINE.split("[variants]")[0].replace('"td3bc-stac", "td3bc", "td3bc-beer"', '"td3bc"')
    run(tmp_path, text, out="plain", set=())
    assert_same(folder(tmp_path, "td3bc"), folder(tmp_path, "td3bc", "plain"))


@pytest.mark.parametrize("jobs", [1, pytest.param(2, marks=pytest.mark.proof)])
def test_a_variant_goes_on_where_it_was(tmp_path, jobs, capfd):
    run(tmp_path, OFFLINE, out="straight", algos=NAMES[:2])
    assert run(tmp_path, OFFLINE, algos=NAMES[:2], every=20, jobs=jobs) == 0
    for name in NAMES[:2]:
        assert_same(folder(tmp_path, name, "straight"), folder(tmp_path, name))
    capfd.readouterr()
    run(tmp_path, OFFLINE, algos=NAMES[:2])
    assert capfd.readouterr().out.count("is complete at 40 updates: nothing to do") == 2
    assert run(tmp_path, OFFLINE, algos=NAMES[:1], set=("td3bc-stac.critic_beta=0.5",)) == 1
    assert "hyperparameters.critic_beta: 0.25 there, 0.5 here" in capfd.readouterr().err


def test_a_folder_of_another_algorithms_variant_is_refused_and_one_older_than_variants_is_not(tmp_path, capfd):
    run(tmp_path, OFFLINE, steps=20, algos=("td3bc", "td3bc-beer"))
    for name, base in (("td3bc", None), ("td3bc-beer", "prdc")):
        config = {**results.read_config(folder(tmp_path, name)), "base": base}
        if base is None:
            del config["base"]
        (folder(tmp_path, name) / "config.json").write_text(json.dumps(config))
    assert run(tmp_path, OFFLINE, algos=("td3bc",)) == 0
    capfd.readouterr()
    assert run(tmp_path, OFFLINE, algos=("td3bc-beer",)) == 1
    assert "base: prdc there, td3bc here" in capfd.readouterr().err


def test_agents_that_interact_have_variants_too(tmp_path, capsys):
    assert run(tmp_path, ONLINE) == 0
    for name, base, tau in (("td3", "td3", 0.005), ("td3-slow", "td3", 0.5), ("sb3-slow", "sb3-td3", 0.5)):
        config = results.read_config(folder(tmp_path, name, problem="Pendulum-v1"))
        found = (config["algorithm"], config["base"], config["hyperparameters"]["tau"], config["status"])
        assert found == (name, base, tau, "complete")
    capsys.readouterr()
    run(tmp_path, ONLINE)
    assert capsys.readouterr().out.count("complete at 40 steps: nothing to do") == 3
    assert main(["evaluate", str(folder(tmp_path, "sb3-slow", problem="Pendulum-v1"))]) == 2
    assert "Stable-Baselines3's agents leave none" in capsys.readouterr().err


def test_blocks_of_a_variants_runs(tmp_path):
    (tmp_path / "some.toml").write_text(OFFLINE)
    found = units(chosen(read(tmp_path / "some.toml"), Bench(algos=("td3bc-beer",))), Bench(block=1))
    assert [(unit.label, unit.algorithm, unit.run_ids, unit.folder.name) for unit in found] == [
        ("td3bc-beer", "td3bc", [0], "td3bc-beer"),
        ("td3bc-beer", "td3bc", [1], "td3bc-beer-from-run-1"),
    ]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('td3bc-stac = "td3bc"', 'td3bc-stac = "td3cb"', r"variants.td3bc-stac: expected one of bc, .*got 'td3cb'"),
        ('td3bc-stac = "td3bc"', 'td3bc-stac = "td3bc-beer"', r"variants.td3bc-stac: expected one of bc, "),
        ('td3bc-stac = "td3bc"', "td3bc-stac = 3", r"variants: expected lines like"),
        ('td3bc-stac = "td3bc"', 'td3bc = "td3bc"', r"variants.td3bc: expected a name .* that no algorithm has"),
        ('td3bc-stac = "td3bc"', '"../x" = "td3bc"', r"variants.../x: expected a name of letters"),
        ('td3bc-stac = "td3bc"', 'other = "td3bc"', r"variants.other: expected one of td3bc-stac, .*add it to"),
        ('td3bc-stac = "td3bc"', "", r"did you mean 'td3bc'|expected one of bc"),
        ('"td3bc-stac.critic=stac"', '"td3bc-stac.critc=stac"', r"td3bc-stac.critc: .*did you mean 'critic'"),
        ("[variants]", "[variant]", r"did you mean 'variants'"),
    ],
)
def test_bad_variants_are_one_clear_error_and_nothing_is_written(tmp_path, old, new, message):
    assert old in OFFLINE
    with pytest.raises(ValueError, match=message):
        run(tmp_path, OFFLINE.replace(old, new))
    assert not (tmp_path / "out").exists()


def test_critic_ablation_is_prdc_with_three_critics():
    spec = read(find("critic-ablation"))
    assert (spec.runs, spec.steps, spec.eval_every, spec.smoke_below) == (3, 1_000_000, 5000, 200_000)
    assert spec.datasets == ("local/hopper-medium-replay-v0", "local/halfcheetah-medium-v0")
    found = {(unit.label, unit.options.dataset): unit for unit in units(spec, Bench())}
    assert len(found) == 6
    for (label, dataset), unit in found.items():
        changed = {"prdc": {}, "prdc-stac": {"critic": "stac"}, "prdc-beer": {"beer": 1e-3}}[label]
        assert unit.algorithm == "prdc"
        assert unit.hyperparameters == {**preset("prdc", dataset).values, **changed}
