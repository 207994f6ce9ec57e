"""The optional live loggers: what they are given arrives; a missing package names its extra."""

import importlib
import types

import numpy as np
import pytest

from experiments import loggers


def test_wandb_gets_every_run(monkeypatch, tmp_path):
    """W&B itself needs an account; a stand-in with its two calls shows what would be sent."""
    sent = []
    run = types.SimpleNamespace(log=lambda values, step: sent.append((step, values)), finish=lambda: sent.append("end"))
    stand_in = types.SimpleNamespace(init=lambda **arguments: sent.append(arguments) or run)
    monkeypatch.setattr(loggers, "_module", lambda name, extra: stand_in)
    (logger,) = loggers.make_loggers(tmp_path, {"algorithm": "bc", "problem": "p"}, tensorboard=False, wandb="mine")
    logger.log(7, {"eval/return": np.array([1.0, 2.0])}, [3, 4])
    logger.close()
    assert sent[0]["project"] == "mine"
    assert sent[1] == (7, {"run3/eval/return": 1.0, "run4/eval/return": 2.0})
    assert sent[2] == "end"


@pytest.mark.parametrize(("arguments", "extra"), [({"tensorboard": True}, "tensorboard"), ({"wandb": "x"}, "wandb")])
def test_missing_package_names_the_extra(monkeypatch, tmp_path, arguments, extra):
    def missing(name):
        raise ImportError(f"No module named {name}")

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(ImportError, match=rf"orbs\[{extra}\]"):
        loggers.make_loggers(tmp_path, {}, **{"tensorboard": False, "wandb": None, **arguments})
