"""--critic and --beer of `orbs train`: hyperparameters of every algorithm that takes them."""

from __future__ import annotations

import json
import typing

import pytest

from experiments.cli import main
from experiments.options import Train
from experiments.train import plan
from offline_rl.critics import CRITICS
from tests.experiments.training import DATASET, options


def planned(out, **changes):
    return {unit.algorithm: unit.hyperparameters for unit in plan(options(out, **changes), DATASET)}


def test_every_algorithm_with_a_critic_to_exchange_takes_them(tmp_path):
    algos = ("bc", "td3bc", "prdc", "a2pr", "rebrac", "iql")
    plain, found = planned(tmp_path, algos=algos), planned(tmp_path, algos=algos, critic="stac", beer=1e-3)
    for name in algos:
        more = {"critic": "stac", "beer": 1e-3} if name in ("td3bc", "prdc", "a2pr") else {}
        assert found[name] == plain[name] | more


def test_set_goes_before_them(tmp_path):
    found = planned(
        tmp_path, algos=("td3bc", "prdc"), critic="stac", beer=0.1, set=("prdc.critic=twin", "td3bc.beer=0")
    )
    assert (found["td3bc"]["critic"], found["td3bc"]["beer"]) == ("stac", 0)
    assert (found["prdc"]["critic"], found["prdc"]["beer"]) == ("twin", 0.1)


@pytest.mark.parametrize(("field", "value"), [("critic", "stac"), ("critic", "twin"), ("beer", 1e-3), ("beer", 0.0)])
def test_no_algorithm_that_takes_one_is_an_error(tmp_path, field, value):
    with pytest.raises(ValueError, match=rf"--{field}: expected an algorithm whose critic .*got bc rebrac.* td3bc"):
        planned(tmp_path, algos=("bc", "rebrac"), **{field: value})


def test_a_weight_out_of_range_is_an_error_before_training(tmp_path):
    with pytest.raises(ValueError, match=r"td3bc\.beer: expected .* at least 0"):
        planned(tmp_path, beer=-1.0)


def test_the_command_line_offers_the_registered_critics():
    hint = typing.get_type_hints(Train)["critic"]
    assert set(typing.get_args(typing.get_args(hint)[0])) == set(CRITICS)


def test_trained_from_the_command_line_and_resumed(tmp_path, capsys):
    arguments = f"train --dataset {DATASET} --algos td3bc --runs 1 --eval-every 10 --eval-episodes 1 --log-every 10"
    arguments += f" --out {tmp_path} --critic stac --beer 1e-3 --set td3bc.hidden=8,8 td3bc.batch_size=16 --steps"
    assert main([*arguments.split(), "10"]) == 0
    (folder,) = (path.parent for path in tmp_path.rglob("config.json"))
    found = json.loads((folder / "config.json").read_text())["hyperparameters"]
    assert (found["critic"], found["beer"]) == ("stac", 1e-3)
    assert main([*arguments.split(), "20", "--resume"]) == 0
    assert main([*arguments.replace("1e-3", "1e-2").split(), "30", "--resume"]) == 2
    assert "beer: 0.001 there, 0.01 here" in capsys.readouterr().err
