"""Robust values: against plain loops, over runs and temperatures at once, at the limits, and bad input."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from envs.finite_mdp import FiniteMDP, tabular_mdp
from envs.off_dynamics import off_dynamics_mdp, random_robust_mdp
from envs.robust_values import at_start, evaluate, optimal, worst_kernels
from envs.uncertainty import Uncertainty
from tests.envs import plain_worst

LEVELS = {
    ("tv", "constrained"): 0.2, ("kl", "constrained"): 0.2, ("chi2", "constrained"): 0.3,
    ("tv", "regularised"): 0.5, ("kl", "regularised"): 0.5, ("chi2", "regularised"): 0.4,
}  # fmt: skip
EACH = pytest.mark.parametrize(("how", "form"), list(LEVELS), ids=[f"{how}-{form}" for how, form in LEVELS])


def nature(how: str, form: str) -> Uncertainty:
    return Uncertainty(how, form, LEVELS[how, form])  # type: ignore[arg-type]


def tabular(seed: int = 0, runs: int | None = None, steps: int = 4) -> FiniteMDP:
    """5 states, 3 actions, laws and rewards of every step its own; rewards of every run its own, if asked."""
    rng = np.random.default_rng(seed)
    model = tabular_mdp(rng.dirichlet(np.full(5, 0.4), (steps, 5, 3)), rng.uniform(size=(steps, 5, 3)), steps, 1)
    return model if runs is None else model.replace(reward=torch.as_tensor(rng.uniform(size=(runs, steps, 5, 3))))


def a_policy(model: FiniteMDP, seed: int, *lead: int) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    x = torch.rand(*lead, model.steps, model.states, model.actions, dtype=torch.float64, generator=draw) ** 3
    return x / x.sum(-1, keepdim=True)


def plain(model: FiniteMDP, policy: np.ndarray, how: str, form: str, tau: float, base: np.ndarray) -> np.ndarray:
    """The dynamic programme once more, in loops, with the worst means by other means."""
    level = LEVELS[how, form]
    values = np.zeros((model.steps + 1, model.states))
    for h in range(model.steps - 1, -1, -1):
        ahead = np.zeros(model.factors)
        for i, law in enumerate(model.laws_at(h).numpy()):
            if how == "tv":
                ahead[i] = plain_worst.tv(values[h + 1], law, level, form)
            elif form == "constrained":
                ahead[i] = plain_worst.constrained(values[h + 1], law, level, how)
            else:
                ahead[i] = plain_worst.regularised(values[h + 1], law, level, how, 2)
        for s in range(model.states):
            for a in range(model.actions):
                if model.features is None:
                    mean = ahead[s * model.actions + a]
                else:
                    mean = float(model.features[s, a].numpy() @ ahead)
                p = policy[h, s, a]
                q = float(model.reward_at(h)[s, a]) + mean
                values[h, s] += p * q - (tau * p * math.log(p / base[s, a]) if p > 0 else 0.0)
    return values


@EACH
@pytest.mark.parametrize("kind", ["linear", "tabular"])
def test_plain_loops(how: str, form: str, kind: str) -> None:
    model = random_robust_mdp(1, steps=3, states=5, actions=3, dimension=3) if kind == "linear" else tabular(1, steps=2)
    policy = a_policy(model, 0)
    policy[0, 1] = torch.tensor([1.0, 0.0, 0.0])
    base = torch.rand(model.states, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) + 0.1
    base = base / base.sum(-1, keepdim=True)
    found = evaluate(model, policy, nature(how, form), 0.3, base)
    wanted = plain(model, policy.numpy(), how, form, 0.3, base.numpy())
    np.testing.assert_allclose(found.numpy(), wanted, rtol=0, atol=2e-8)


@EACH
def test_runs_and_temperatures_at_once_are_one_by_one(how: str, form: str) -> None:
    model, set_ = tabular(2, runs=3), nature(how, form)
    policy = a_policy(model, 2, 3)
    taus = torch.tensor([[0.0], [0.2], [1.0]], dtype=torch.float64)
    found = evaluate(model, policy.expand(3, -1, -1, -1, -1), set_, taus)
    best, rows = optimal(model, set_, taus.expand(3, 3))
    assert found.shape == best.shape == (3, 3, 5, 5)
    assert rows.shape == (3, 3, 4, 5, 3)
    for i, tau in enumerate((0.0, 0.2, 1.0)):
        for run in range(3):
            one = model.replace(reward=model.reward[run])
            alone = evaluate(one, policy[run], set_, tau)
            torch.testing.assert_close(found[i, run], alone, rtol=0, atol=1e-12)
            top, row = optimal(one, set_, tau)
            torch.testing.assert_close(best[i, run], top, rtol=0, atol=1e-12)
            torch.testing.assert_close(rows[i, run], row, rtol=0, atol=1e-10)
    kernels = worst_kernels(model, policy, set_)
    assert kernels.shape == (3, 4, 15, 5)
    shared = evaluate(tabular(2), policy, set_)  # one model, three policies
    torch.testing.assert_close(shared[1], evaluate(tabular(2), policy[1], set_), rtol=0, atol=1e-12)


@EACH
@pytest.mark.parametrize("tau", [0.0, 0.3])
def test_no_policy_is_better(how: str, form: str, tau: float) -> None:
    model, set_ = tabular(3), nature(how, form)
    best, policy = optimal(model, set_, tau)
    torch.testing.assert_close(evaluate(model, policy, set_, tau), best, rtol=0, atol=1e-12)
    others = a_policy(model, 3, 200)
    assert bool((evaluate(model, others, set_, tau) <= best + 1e-12).all())
    near = 0.99 * policy + 0.01 * others
    assert bool((evaluate(model, near, set_, tau) <= best + 1e-12).all())


def test_tv_finds_the_least_of_negative_values() -> None:
    """A policy far from its reference has values below 0: mass moves to the least, not to a fail state worth 0."""
    model = off_dynamics_mdp(0.2)
    policy = a_policy(model, 4)
    base = torch.full((5, 16), 1 / 16, dtype=torch.float64)
    levels = Uncertainty("tv", "constrained", 1.0)
    values = evaluate(model, policy, levels, 2.0, base)
    assert float(values[1].min()) < 0
    reward = (policy * model.reward).sum(-1) - 2.0 * torch.xlogy(policy, policy * 16).sum(-1)
    torch.testing.assert_close(values[:-1], reward + values[1:].amin(-1, keepdim=True), rtol=0, atol=1e-12)


@EACH
def test_temperature_limits(how: str, form: str) -> None:
    model, set_ = tabular(4), nature(how, form)
    greedy, policy = optimal(model, set_)
    cold, rows = optimal(model, set_, 1e-9)
    torch.testing.assert_close(cold, greedy, rtol=0, atol=1e-7)
    torch.testing.assert_close(rows, policy, rtol=0, atol=1e-6)
    base = a_policy(model, 5)
    hot, rows = optimal(model, set_, 1e12, base)
    torch.testing.assert_close(rows, base, rtol=0, atol=1e-11)
    torch.testing.assert_close(hot, evaluate(model, base, set_), rtol=0, atol=1e-10)
    warm = optimal(model, set_, 0.5, base)[0]
    assert bool((warm >= evaluate(model, base, set_) - 1e-12).all())
    assert bool((warm <= greedy + 1e-12).all())


def test_uniform_reference_means_log_mean_exp() -> None:
    """Also written out: in one step the value is tau log mean_a exp(r / tau), so equal rewards are worth themselves."""
    rng = np.random.default_rng(0)
    model = tabular_mdp(rng.dirichlet(np.ones(2), (2, 4)), rng.uniform(size=(2, 4)), 1)
    values, policy = optimal(model, None, 0.3)
    wanted = 0.3 * torch.log(torch.exp(model.reward[0] / 0.3).mean(-1))
    torch.testing.assert_close(values[0], wanted, rtol=0, atol=1e-14)
    torch.testing.assert_close(policy[0], torch.softmax(model.reward[0] / 0.3, -1), rtol=0, atol=1e-14)
    same = model.replace(reward=torch.full((1, 2, 4), 0.7, dtype=torch.float64))
    torch.testing.assert_close(optimal(same, None, 5.0)[0][0], torch.full((2,), 0.7, dtype=torch.float64))


@EACH
def test_reference_that_is_nearly_a_point_mass(how: str, form: str) -> None:
    model, set_ = tabular(6), nature(how, form)
    chosen = torch.randint(3, (4, 5), generator=torch.Generator().manual_seed(0))
    point = torch.nn.functional.one_hot(chosen, 3).double()
    base = (point + 1e-14) / (1 + 3e-14)
    values, policy = optimal(model, set_, 0.4, base)
    torch.testing.assert_close(values, evaluate(model, point, set_), rtol=0, atol=1e-12)
    torch.testing.assert_close(policy, point, rtol=0, atol=1e-11)


def test_ties_take_the_first_action_and_no_uncertainty_is_radius_zero() -> None:
    model = off_dynamics_mdp(0.2)
    policy = optimal(model)[1]
    assert bool((policy[2, 3:, 0] == 1).all())  # nothing is left to choose there
    assert optimal(model, None, torch.zeros(()))[1].equal(policy)
    for how in ("tv", "kl", "chi2"):
        still = Uncertainty(how, "constrained", 0.0)  # type: ignore[arg-type]
        torch.testing.assert_close(optimal(model, still)[0], optimal(model)[0], rtol=0, atol=1e-14)


@EACH
@pytest.mark.gpu
def test_on_cuda(how: str, form: str) -> None:
    model, set_ = tabular(8, runs=6), nature(how, form)
    policy, tau = a_policy(model, 1, 2, 6), torch.tensor([[0.0], [0.1]], dtype=torch.float64)
    found = evaluate(model.to("cuda"), policy.to("cuda"), set_, tau.to("cuda"))
    torch.testing.assert_close(found.cpu(), evaluate(model, policy, set_, tau), rtol=0, atol=1e-11)
    best, rows = optimal(model.to("cuda"), set_, 0.1)
    torch.testing.assert_close(best.cpu(), optimal(model, set_, 0.1)[0], rtol=0, atol=1e-11)
    torch.testing.assert_close(rows.cpu(), optimal(model, set_, 0.1)[1], rtol=0, atol=1e-9)
    kernels = worst_kernels(model.to("cuda"), policy.to("cuda"), set_)
    torch.testing.assert_close(kernels.cpu(), worst_kernels(model, policy, set_), rtol=0, atol=1e-6)


def test_start_is_a_mean() -> None:
    model = tabular(7).replace(start=torch.tensor([0.5, 0.5, 0, 0, 0]))
    values = optimal(model)[0]
    assert float(at_start(model, values)) == pytest.approx(float(values[0, :2].mean()), abs=1e-15)
    assert at_start(model, values.expand(7, 2, -1, -1)).shape == (7, 2)


def half(value: float) -> Tensor:
    row = torch.tensor([value, 0.5, 0.5 - value], dtype=torch.float64)
    return row.expand(5, 3).contiguous()


BAD = {
    "policy of other steps": (lambda m: evaluate(m, torch.ones(3, 5, 3)), "policy"),
    "policy of other actions": (lambda m: evaluate(m, torch.ones(4, 5, 2)), "policy"),
    "negative temperature": (lambda m: evaluate(m, a_policy(m, 0), None, -0.1), "temperature"),
    "temperature nan": (lambda m: optimal(m, None, math.nan), "temperature"),
    "reference with a zero": (lambda m: evaluate(m, a_policy(m, 0), None, 0.1, half(0.0)), "positive chances"),
    "negative reference": (lambda m: optimal(m, None, 0.1, half(-0.1)), "positive chances"),
    "reference that sums to 2": (lambda m: optimal(m, None, 0.1, 2 * half(0.2)), "distributions"),
    "reference of another shape": (lambda m: optimal(m, None, 0.1, torch.ones(3, 5)), "reference"),
    "levels of another model": (
        lambda m: evaluate(m, a_policy(m, 0), Uncertainty("tv", "constrained", torch.zeros(4))), "Uncertainty.level",
    ),
    "levels of other steps": (
        lambda m: optimal(m, Uncertainty("tv", "constrained", torch.zeros(3, 15))), "Uncertainty.level",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", list(BAD))
def test_bad_input(name: str) -> None:
    act, part = BAD[name]
    with pytest.raises(ValueError, match="expected") as caught:
        act(tabular())
    assert part in str(caught.value)
    assert "Fix: " in str(caught.value)
