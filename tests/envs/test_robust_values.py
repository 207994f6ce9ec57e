"""Exact robust values of the off-dynamics and random MDPs: tables, closed forms, bounds of the theory."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from envs.finite_mdp import FiniteMDP, tabular_mdp
from envs.off_dynamics import chances, off_dynamics_mdp, off_dynamics_target, random_robust_mdp
from envs.robust_values import against, at_start, evaluate, optimal, worst_kernels
from envs.uncertainty import Uncertainty

NORMS = (0.1, 0.2, 0.3)
SECOND = {0.1: 1.03976, 0.2: 1.24975, 0.3: 1.43976}  # V2: from x2 on, the largest c always


def only(how: str, level: float) -> Uncertainty:
    """The radius on the fourth law of the first step alone."""
    levels = torch.zeros(3, 4, dtype=torch.float64)
    levels[0, 3] = level
    return Uncertainty(how, "constrained", levels)  # type: ignore[arg-type]


def solved(model: FiniteMDP, norm: float, nature: Uncertainty | None, tau: float = 0.0) -> tuple[float, float]:
    """The best value at x1 and the mean c chosen there."""
    values, policy = optimal(model, nature, tau)
    return float(at_start(model, values)), float(policy[0, 0] @ torch.as_tensor(chances(norm, 0.3)))


RADIUS = only("tv", 0.5)
# n, model: (value, mean c) at tau = 0, .05, .2, 1
TABLE: dict[str, tuple[float, Uncertainty | None, list[tuple[float, float]]]] = {
    ".1 none": (0.1, None, [(1.423232, 0.4), (1.251688, 0.350463), (1.190294, 0.314508), (1.171180, 0.302965)]),
    ".1 tv": (0.1, RADIUS, [(1.030976, 0.2), (0.922606, 0.305544), (0.881963, 0.302111), (0.869464, 0.300466)]),
    ".2 none": (0.2, None, [(1.624250, 0.5), (1.420477, 0.446927), (1.256274, 0.353913), (1.185645, 0.311718)]),
    ".2 tv": (0.2, RADIUS, [(1.223650, 0.1), (1.043266, 0.287761), (0.926377, 0.305277), (0.878917, 0.301732)]),
    ".3 none": (0.3, None, [(1.775328, 0.6), (1.581590, 0.542730), (1.349500, 0.408413), (1.209058, 0.325838)]),
    ".3 tv": (0.3, RADIUS, [(1.438320, 0.0), (1.189060, 0.192340), (0.993527, 0.301041), (0.894424, 0.303402)]),
    ".2 tv-reg": (
        0.2, Uncertainty("tv", "regularised", 1.5),
        [(1.374250, 0.5), (1.211552, 0.382518), (1.085231, 0.330049), (1.031033, 0.306729)],
    ),
    ".2 kl-reg": (
        0.2, Uncertainty("kl", "regularised", 0.5),
        [(1.622008, 0.5), (1.418978, 0.447176), (1.255191, 0.353991), (1.184707, 0.311732)],
    ),
    ".2 chi2-reg": (
        0.2, Uncertainty("chi2", "regularised", 0.3),
        [(1.623548, 0.5), (1.419922, 0.447020), (1.255808, 0.353946), (1.185217, 0.311725)],
    ),
}  # fmt: skip


@pytest.mark.parametrize("row", list(TABLE))
def test_off_dynamics_table(row: str) -> None:
    norm, nature, cells = TABLE[row]
    model = off_dynamics_mdp(norm)
    for tau, (value, mean) in zip((0.0, 0.05, 0.2, 1.0), cells, strict=True):
        found = solved(model, norm, nature, tau)
        assert found == pytest.approx((value, mean), abs=6e-7)
        policy = optimal(model, nature, tau)[1]
        assert float(at_start(model, evaluate(model, policy, nature, tau))) == pytest.approx(value, abs=6e-7)


@pytest.mark.parametrize("norm", NORMS)
def test_off_dynamics_closed_forms(norm: float) -> None:
    model, second = off_dynamics_mdp(norm), SECOND[norm]
    assert float(optimal(model)[0][1, 1]) == pytest.approx(second, abs=1e-12)
    best = {0.1: 1.423232144, 0.2: 1.624250125, 0.3: 1.775328096}[norm]
    assert solved(model, norm, None)[0] == pytest.approx(best, abs=1e-9)
    flip = 1 - 0.999 * second / 2
    assert flip == pytest.approx({0.1: 0.48064, 0.2: 0.375750, 0.3: 0.280840}[norm], abs=6e-6)
    assert solved(model, norm, only("tv", flip - 1e-9))[1] == pytest.approx(0.3 + norm, abs=1e-12)
    assert solved(model, norm, only("tv", flip + 1e-9))[1] == pytest.approx(0.3 - norm, abs=1e-12)


@pytest.mark.parametrize("norm", NORMS)
def test_returns_in_the_targets(norm: float) -> None:
    """J_q = 2 c (1 - q) + (1 - c) V2; robust and non-robust policies cross at q = 1 - V2 / 2."""
    model, second = off_dynamics_mdp(norm), SECOND[norm]
    robust, plain = optimal(model, only("tv", 0.5))[1], optimal(model)[1]
    mixed = (robust + plain) / 2

    def value(q: float, policy: Tensor) -> float:
        # In the target the way on to x2 does not leak, the one from x2 to x3 still does.
        target = off_dynamics_target(model, q, norm)
        return float(at_start(target, evaluate(target, policy)))

    for q in (0.0, 0.35, 1.0):
        for policy in (robust, plain, mixed):
            c = float(policy[0, 0] @ torch.as_tensor(chances(norm, 0.3)))
            assert value(q, policy) == pytest.approx(2 * c * (1 - q) + (1 - c) * second, abs=1e-12)
    cross = 1 - second / 2
    assert cross == pytest.approx({0.1: 0.480, 0.2: 0.375, 0.3: 0.280}[norm], abs=5e-4)
    assert value(cross, robust) == pytest.approx(value(cross, plain), abs=1e-12)
    assert value(cross - 0.01, robust) < value(cross - 0.01, plain)
    assert value(cross + 0.01, robust) > value(cross + 0.01, plain)


@pytest.mark.parametrize("how", ["kl", "chi2"])
@pytest.mark.parametrize("radius", [0.01, 0.5, 5.0])
def test_kl_and_chi2_cannot_move_a_point_mass(how: str, radius: float) -> None:
    assert solved(off_dynamics_mdp(0.3), 0.3, only(how, radius)) == pytest.approx((1.775328096, 0.6), abs=1e-9)


SOFTENED = [
    (0.1, "kl", "constrained", 0.3, 1.108287, 0.4), (0.1, "kl", "constrained", 0.5, 1.032956, 0.2),
    (0.1, "chi2", "constrained", 1.0, 1.103232, 0.4), (0.1, "chi2", "constrained", 2.0, 1.021271, 0.2),
    (0.1, "tv", "constrained", 0.5, 0.990976, 0.2),
    (0.1, "kl", "regularised", 0.3, 0.961749, 0.2), (0.1, "kl", "regularised", 1.0, 1.225115, 0.4),
    (0.1, "chi2", "regularised", 0.1, 1.008626, 0.2), (0.1, "chi2", "regularised", 1.0, 1.307056, 0.4),
    (0.3, "kl", "constrained", 0.1, 1.467088, 0.6), (0.3, "kl", "constrained", 0.2, 1.438320, 0.0),
    (0.3, "chi2", "constrained", 0.3, 1.458148, 0.6), (0.3, "chi2", "constrained", 0.5, 1.438320, 0.0),
    (0.3, "tv", "constrained", 0.1, 1.535328, 0.6), (0.3, "tv", "constrained", 0.3, 1.438320, 0.0),
    (0.3, "kl", "regularised", 0.5, 1.431207, 0.0), (0.3, "kl", "regularised", 1.0, 1.478166, 0.6),
    (0.3, "chi2", "regularised", 0.1, 1.432786, 0.0), (0.3, "chi2", "regularised", 0.3, 1.474590, 0.6),
]  # fmt: skip


@pytest.mark.parametrize(
    ("norm", "how", "form", "level", "value", "c"),
    SOFTENED,
    ids=[f"{n}-{h}-{f}-{x:g}" for n, h, f, x, _, _ in SOFTENED],
)
def test_softened_table(norm: float, how: str, form: str, level: float, value: float, c: float) -> None:
    nature = only(how, level) if form == "constrained" else Uncertainty(how, form, level)  # type: ignore[arg-type]
    assert solved(off_dynamics_mdp(norm, softness=0.1), norm, nature) == pytest.approx((value, c), abs=6e-7)


@pytest.mark.parametrize(("norm", "value"), [(0.1, 1.343232), (0.3, 1.655328)])
def test_softened_without_an_adversary(norm: float, value: float) -> None:
    assert solved(off_dynamics_mdp(norm, softness=0.1), norm, None)[0] == pytest.approx(value, abs=6e-7)


RANDOM = {
    "none": (None, 1.727621),
    "tv-con": (Uncertainty("tv", "constrained", 0.2), 1.302069),
    "kl-con": (Uncertainty("kl", "constrained", 0.2), 1.415756),
    "chi2-con": (Uncertainty("chi2", "constrained", 0.2), 1.554275),
    "tv-reg": (Uncertainty("tv", "regularised", 1.0), 1.571125),
    "kl-reg": (Uncertainty("kl", "regularised", 1.0), 1.673932),
    "chi2-reg": (Uncertainty("chi2", "regularised", 1.0), 1.704358),
}
SETS = pytest.mark.parametrize("name", [name for name in RANDOM if name != "none"])


@pytest.mark.parametrize("name", list(RANDOM))
def test_random_mdp_table(name: str) -> None:
    nature, value = RANDOM[name]
    model = random_robust_mdp(5)
    assert float(at_start(model, optimal(model, nature, 0.1)[0])) == pytest.approx(value, abs=6e-7)


def a_policy(model: FiniteMDP, seed: int, *lead: int) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    x = torch.rand(*lead, model.steps, model.states, model.actions, dtype=torch.float64, generator=draw) ** 3
    return x / x.sum(-1, keepdim=True)


@SETS
@pytest.mark.parametrize("tau", [0.0, 0.3])
def test_worst_kernel_is_a_certificate(name: str, tau: float) -> None:
    """Rolled forward nominally under nature's explicit laws a policy has its worst value; other laws give no less."""
    nature = RANDOM[name][0]
    assert nature is not None
    for instance in range(6):
        model = random_robust_mdp(instance)
        policy = a_policy(model, instance)
        values = evaluate(model, policy, nature, tau)
        worst = worst_kernels(model, policy, nature, tau)
        there = against(model, worst, nature)
        torch.testing.assert_close(evaluate(there, policy, None, tau), values, rtol=0, atol=1e-12)
        assert float(evaluate(model, policy, None, tau)[0, 0]) > float(values[0, 0]) + 1e-3
        other = worst_kernels(model, a_policy(model, 99), nature)
        assert bool((evaluate(against(model, other, nature), policy, None, tau) >= values - 1e-12).all())


def test_certificate_of_the_off_dynamics_mdp() -> None:
    model = off_dynamics_mdp(0.3, softness=0.1)
    for how in ("tv", "kl", "chi2"):
        nature = only(how, 0.4)
        policy = a_policy(model, 3)
        worst = worst_kernels(model, policy, nature, 0.1)
        assert worst.shape == (3, 4, 5)
        moved = (worst - model.laws).abs().sum(-1) > 1e-12
        assert moved.nonzero().tolist() == [[0, 3]]
        values = evaluate(against(model, worst, nature), policy, None, 0.1)
        torch.testing.assert_close(values, evaluate(model, policy, nature, 0.1), rtol=0, atol=1e-13)


@pytest.mark.parametrize("radius", [0.1, 0.4, 1.0])
@pytest.mark.parametrize("tau", [0.0, 0.2])
def test_tv_shrinks_the_range(radius: float, tau: float) -> None:
    """Under TV sets of one radius everywhere the best values spread by at most (1 - (1 - rho)^(H - h)) / rho."""
    for instance in range(8):
        model = random_robust_mdp(instance, steps=7)
        values = optimal(model, Uncertainty("tv", "constrained", radius), tau)[0]
        spread = values.amax(-1) - values.amin(-1)
        left = torch.arange(7, -1, -1)
        assert bool((spread <= (1 - (1 - radius) ** left) / radius + 1e-12).all())


@pytest.mark.parametrize("name", list(RANDOM))
def test_curvature_bound(name: str) -> None:
    """V*_0 - V^pi_0 <= 1 / (2 tau) sum_h E[max_a (Qhat - Q*)^2] along pi and its worst laws, pi the softmax of Qhat."""
    nature, tau, seen = RANDOM[name][0], 0.2, 0.0
    for instance in range(6):
        model = random_robust_mdp(instance)
        best, policy = optimal(model, nature, tau)
        q = tau * (policy.log() - math.log(1 / model.actions)) + best[:-1, :, None]
        off = 0.5 * torch.randn(q.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(instance))
        played = torch.softmax((q + off) / tau, -1)
        values = evaluate(model, played, nature, tau)
        there = model if nature is None else against(model, worst_kernels(model, played, nature, tau), nature)
        # The sum along the way is the value of a model that pays it.
        squares = off.square().amax(-1, keepdim=True).expand_as(off)
        bound = at_start(there, evaluate(there.replace(reward=squares, fail=()), played)) / (2 * tau)
        ratio = float(at_start(model, best - values) / bound)
        assert 0 <= ratio <= 1
        seen = max(seen, ratio)
    assert seen > 0.02  # the bound is not far off


def test_policies_and_temperatures_that_are_none() -> None:
    mdp = tabular_mdp(torch.full((2, 2, 2), 0.5), torch.ones(2, 2), 3)
    half = torch.full((3, 2, 2), 0.5, dtype=torch.float64)
    for wrong in (2 * half, half * torch.nan, half - 0.5):
        with pytest.raises(ValueError, match=r"policy: expected distributions over actions, got a sum that misses 1"):
            evaluate(mdp, wrong)
    with pytest.raises(ValueError, match=r"temperature: expected finite numbers of at least 0, got \[-1.0\]"):
        evaluate(mdp, half, temperature=torch.tensor([-1.0]))
    with pytest.raises(ValueError, match=r"temperature: expected a finite number of at least 0, got 'warm'"):
        optimal(mdp, temperature="warm")  # type: ignore[arg-type]
