"""A real tabular model (ICU-Sepsis): the values of its SOURCE.md, and robust values in their order."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from envs.finite_mdp import FiniteMDP, load_mdp
from envs.robust_values import at_start, evaluate, optimal
from envs.uncertainty import Uncertainty
from experiments.benchmarks.robust_values import expert_policy

pytestmark = pytest.mark.shared_data

FIRST_OUTCOME = 713  # death; then survival and the absorbing state


@pytest.fixture(scope="module")
def path(shared_data: Path) -> Path:
    return shared_data / "icu-sepsis-mdp" / "dynamics.npz"


@pytest.fixture(scope="module")
def model(path: Path) -> FiniteMDP:
    return load_mdp(path, 4)


def policies(model: FiniteMDP, path: Path) -> Tensor:
    """(3, H, S, A): uniform, expert, optimal."""
    expert = expert_policy(path, model)
    assert expert is not None
    uniform = torch.full_like(expert, 1 / model.actions)
    best = optimal(model)[1]
    return torch.stack((uniform.expand_as(best), expert.expand_as(best), best))


def test_values_of_the_source(model: FiniteMDP, path: Path) -> None:
    long = model.replace(steps=150)
    assert (long.states, long.actions) == (716, 25)
    three = policies(long, path)
    found = at_start(long, evaluate(long, three)).tolist()
    assert found == pytest.approx([0.7801, 0.7818, 0.8751], abs=6e-5)
    alive = torch.zeros_like(long.reward)
    alive[:, :FIRST_OUTCOME] = 1.0
    lengths = at_start(long, evaluate(long.replace(reward=alive), three)).tolist()
    assert lengths == pytest.approx([9.46, 9.24, 10.99], abs=0.02)


def test_robust_values_are_in_order(model: FiniteMDP, path: Path) -> None:
    """More uncertainty, less value; no policy beats the robust optimum; sets that contain another are worse."""
    three = policies(model, path)
    nominal = at_start(model, evaluate(model, three))
    tops: dict[tuple[str, float], Tensor] = {}
    for how, levels in (("tv", (0.05, 0.1)), ("kl", (0.005, 0.02)), ("chi2", (0.005, 0.02))):
        before, top_before = nominal, nominal[2]
        for level in levels:
            nature = Uncertainty(how, "constrained", level)  # type: ignore[arg-type]
            top, now = at_start(model, optimal(model, nature)[0]), at_start(model, evaluate(model, three, nature))
            assert bool((now < before - 1e-4).all())
            assert float(top) < float(top_before)
            assert bool((now <= top + 1e-12).all())
            before, top_before, tops[how, level] = now, top, top
    for level in (0.005, 0.02):
        assert float(tops["kl", level]) <= float(tops["chi2", level])  # KL <= log(1 + chi2) <= chi2
    assert float(tops["tv", 0.1]) < float(tops["kl", 0.02])  # TV <= sqrt(KL / 2) = 0.1


def test_prices_are_in_order(model: FiniteMDP, path: Path) -> None:
    three = policies(model, path)
    nominal = at_start(model, evaluate(model, three))
    for how in ("tv", "kl", "chi2"):
        before = nominal
        for level in (4.0, 0.5):
            nature = Uncertainty(how, "regularised", level)  # type: ignore[arg-type]
            now = at_start(model, evaluate(model, three, nature))
            assert bool((now <= before + 1e-12).all())
            assert bool((now <= at_start(model, optimal(model, nature)[0]) + 1e-12).all())
            before = now
        assert bool((before < nominal - 1e-4).all())
