"""Barrier and entropy weights: golden values, extreme rates and losses, limits, a second solver."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
import torch
from torch import Tensor

from bandits.online_learning import simplex_solvers as solvers
from orbs import runs_last
from tests.bandits.online_learning.certificates import normal

LOSSES = torch.tensor([0.0, 1.0, 2.0, 3.0], dtype=torch.float64)


def tensor(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def close(given: Tensor, expected: Tensor, atol: float = 1e-12) -> None:
    torch.testing.assert_close(given, expected, atol=atol, rtol=0, check_stride=False)


def test_golden_values() -> None:
    close(solvers.soft_weights(LOSSES, 1.0), tensor(0.643914259888, 0.236882818090, 0.087144318742, 0.032058603280))
    weights, z = solvers.log_barrier(LOSSES, 1.0)
    close(weights, tensor(0.356647835163, 0.262889031272, 0.208164791017, 0.172298342548))
    assert float(z) == pytest.approx(-2.803886359051, abs=1e-12)
    weights, z = solvers.tsallis(LOSSES, 1.0)
    close(weights, tensor(0.464075416244, 0.258214217853, 0.164185153194, 0.113525212709))
    assert float(z) == pytest.approx(-2.935862517047, abs=1e-12)
    weights, z = solvers.tsallis(LOSSES, 0.1)
    close(weights, tensor(0.269204600978, 0.255762262811, 0.243302186264, 0.231730949948))
    assert float(z) == pytest.approx(-38.546837818217, abs=1e-11)
    weights, _ = solvers.tsallis(tensor(0.0, 1e6, 1e6), 1.0)
    assert weights[1:].tolist() == pytest.approx([4.0e-12, 4.0e-12], rel=1e-5)


def test_limits_of_tsallis() -> None:
    near_one, near_zero = solvers.tsallis(LOSSES, 1.0, 0.999)[0], solvers.tsallis(LOSSES, 1.0, 0.001)[0]
    assert float((near_one - solvers.soft_weights(LOSSES, 1.0)).abs().max()) == pytest.approx(4.3e-4, rel=0.02)
    assert float((near_zero - solvers.log_barrier(LOSSES, 1.0)[0]).abs().max()) == pytest.approx(1.5e-4, rel=0.03)
    closer = solvers.tsallis(LOSSES, 1.0, 1 - 1e-7)[0]
    close(closer, solvers.soft_weights(LOSSES, 1.0), atol=1e-7)
    # The general formula and the special case of 1/2 agree.
    close(solvers.barrier_weights(LOSSES, 2.0)[0], solvers.barrier_weights(LOSSES, 2.0 * (1 + 1e-15))[0], 1e-14)


def off_by(weights: Tensor, losses: Tensor, eta: float, power: int) -> float:
    """The largest relative error of the weights, by exact fractions and bisection; power 1 or 2."""
    scores = [Fraction(eta) * (Fraction(value) - Fraction(min(losses.tolist()))) for value in losses.tolist()]
    terms = [float(score) / power for score in scores]
    low, high = 1.0, len(scores) ** (1.0 / power)  # of 1 + y/p, at the power p
    for _ in range(60):
        middle = (low + high) / 2
        if math.fsum((middle + term) ** -power for term in terms) > 1:
            low = middle
        else:
            high = middle
    exact = [(low + term) ** -power for term in terms]
    size = math.fsum(exact)
    return max(abs(own * size / value - 1) for own, value in zip(weights.tolist(), exact, strict=True))


@pytest.mark.parametrize("experts", [1, 2, 3, 10, 100, 1000])
@pytest.mark.parametrize("power", [1, 2])
def test_precise_for_every_rate_and_spread(experts: int, power: int) -> None:
    for eta in (1e-8, 1e-2, 1.0, 1e8) if experts < 1000 else (1e-8, 1e8):
        for spread in (0.0, 1.0, 1e3, 1e12):
            uniform = torch.rand(experts, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) * spread
            losses = uniform.round() if spread == 1.0 else uniform  # ties
            solve = solvers.log_barrier if power == 1 else solvers.tsallis
            assert off_by(solve(losses, eta)[0], losses, eta, power) < 1e-13, (eta, spread)


@pytest.mark.parametrize("power", [1.0, 1.2, 2.0, 3.5, 1000.0, 1e6])
@pytest.mark.parametrize("experts", [2, 10, 1000])
def test_the_fixed_number_of_steps_is_enough(power: float, experts: int) -> None:
    """One more step changes nothing, also for losses that spread geometrically, where Newton is slowest."""
    exponents = torch.linspace(-6, 12, experts, dtype=torch.float64)
    scores = torch.stack((torch.zeros(experts, dtype=torch.float64), 10**exponents, torch.linspace(0, 50, experts)))
    scores = scores - scores.amin(-1, keepdim=True)
    weights, y = solvers.barrier_weights(scores, power)
    again, slope, total = solvers._powers(scores, y, power)
    assert bool((y >= 0).all())
    assert float((total - 1).abs().max()) < 1e-12 * max(1.0, math.log2(experts))
    assert float((weights.sum(-1) - 1).abs().max()) < 1e-14
    assert float(((total - 1) / slope / (1 + y)).abs().max()) < 1e-12
    torch.testing.assert_close(weights, again / total, rtol=1e-13, atol=0)


def test_the_iteration_never_overshoots(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sums that Newton sees fall to 1 from above."""
    seen: list[Tensor] = []
    powers = solvers._powers

    def spied(scores: Tensor, y: Tensor, power: float) -> tuple[Tensor, Tensor, Tensor]:
        result = powers(scores, y, power)
        seen.append(result[2])
        return result

    monkeypatch.setattr(solvers, "_powers", spied)
    for power in (1.0, 2.0, 5.0):
        seen.clear()
        scores = 30 * normal(50, 20).abs()
        solvers.barrier_weights(scores - scores.amin(-1, keepdim=True), power)
        sums = torch.stack(seen)
        assert bool((sums >= 1 - 1e-14).all())
        assert bool((sums.diff(dim=0) <= 1e-14).all())
        assert len(seen) <= 9


def test_equal_losses_one_expert_shifts_and_permutations() -> None:
    losses, order = 5 * normal(20, 7), torch.tensor([6, 0, 3, 2, 5, 1, 4])

    def weights(losses: Tensor) -> list[Tensor]:
        alphas = [solvers.tsallis(losses, 0.7, alpha)[0] for alpha in (0.2, 0.5, 0.9)]
        return [*alphas, solvers.log_barrier(losses, 0.7)[0], solvers.soft_weights(losses, 0.7)]

    for one in weights(tensor(3.7)):
        assert one.tolist() == [1.0]
    for same in weights(torch.full((2, 7), -4.2, dtype=torch.float64)):
        close(same, torch.full_like(same, 1 / 7), 1e-15)
    for plain, shifted, permuted, last in zip(
        weights(losses), weights(losses + 37.0), weights(losses[:, order]), weights(runs_last(losses)), strict=True
    ):
        close(shifted, plain)
        close(permuted, plain[:, order], 1e-14)
        close(last, plain, 1e-14)
        assert last.stride() == runs_last(losses).stride()


def test_rates_a_run() -> None:
    losses, eta = normal(3, 5), tensor(0.1, 1.0, 40.0)
    for solve in (solvers.log_barrier, solvers.tsallis):
        weights, z = solve(losses, eta)
        for row in range(3):
            alone = solve(losses[row], float(eta[row]))
            close(weights[row], alone[0], 1e-15)
            close(z[row], alone[1], 1e-13)
    close(solvers.soft_weights(losses, eta)[2], solvers.soft_weights(losses[2], 40.0), 1e-15)


def test_an_infinite_rate_is_uniform_over_the_leaders() -> None:
    losses = tensor(2.0, 1.0, 1.0, 1.0 + 1e-12)
    expected = tensor(0.0, 0.5, 0.5, 0.0)
    assert torch.equal(solvers.soft_weights(losses, math.inf), expected)
    both = solvers.soft_weights(torch.stack((losses, losses)), tensor(math.inf, 1e-9))
    assert torch.equal(both[0], expected)
    close(both[1], torch.full((4,), 0.25, dtype=torch.float64), 1e-9)
    assert bool(solvers.soft_weights(tensor(math.nan, 1.0), math.inf).isnan().all()), "a NaN must not be hidden"


def test_ranks() -> None:
    assert solvers.ranks(tensor(3.0, 1.0, 3.0, 2.0, 1.0)).tolist() == [2, 0, 2, 1, 0]


@pytest.mark.parametrize(("cap", "floor"), [(0.4, 0.0), (0.3, 0.02), (0.125, 0.0), (2.0, 0.0), (0.5, 0.1)])
def test_capped_entropy_is_a_clipped_multiple(cap: float, floor: float) -> None:
    for scale in (0.1, 1.0, 10.0, 300.0):
        logs = scale * normal(40, 8)
        point = solvers.capped_entropy(logs, cap, 1.0, floor)
        x = point.exp()
        close(x.sum(-1), torch.ones(40, dtype=torch.float64), 1e-13)
        assert bool((x <= cap * (1 + 1e-14)).all())
        assert bool((x >= floor * (1 - 1e-14)).all())
        # ln x - logs is one number where no bound is met, no larger at the cap and no smaller at the floor.
        level, middle = point - logs, (x < cap * (1 - 1e-12)) & (x > floor * (1 + 1e-12))
        least = torch.where(middle, level, math.inf).amin(-1)
        most = torch.where(middle, level, -math.inf).amax(-1)
        assert bool((most - least <= 1e-12 * scale.__abs__() * 10 + 1e-13).all())
        at_cap, at_floor = x >= cap * (1 - 1e-12), (x <= floor * (1 + 1e-12)) & (floor > 0)
        assert bool((torch.where(at_cap, level, -math.inf).amax(-1) <= least + 1e-10).all())
        assert bool((torch.where(at_floor, level, math.inf).amin(-1) >= most - 1e-10).all())


def test_caps_by_hand() -> None:
    x = solvers.capped_entropy(tensor(0.8, 0.15, 0.05).log(), 0.5, 1.0).exp()
    close(x, tensor(0.5, 0.375, 0.125), 1e-15)
    x = solvers.capped_entropy(tensor(0.8, 0.15, 0.05).log(), 0.5, 1.0, 0.2).exp()
    close(x, tensor(0.5, 0.3, 0.2), 1e-15)
