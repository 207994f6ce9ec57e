"""Regularisers: golden values, optimality of both steps, mirror descent against FTRL, gradients, errors."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq
from torch import Tensor

from bandits.online_learning.domains import Ball, Box, CappedSimplex, Domain, L1Ball, Simplex, Unconstrained
from bandits.online_learning.regularisers import (
    Diagonal,
    Entropy,
    Euclidean,
    LogBarrier,
    MatrixAdaptive,
    Quadratic,
    Regulariser,
    Tsallis,
)
from orbs import runs_last
from tests.bandits.online_learning.certificates import assert_optimal, domains, normal

BARRIERS: list[Regulariser] = [Entropy(), LogBarrier(), Tsallis(), Tsallis(0.2), Tsallis(0.9)]
ADAPTIVE: list[Regulariser] = [
    Diagonal(),
    Diagonal(epsilon=0.1, offset=0.5),
    MatrixAdaptive(),
    MatrixAdaptive(epsilon=0.1),
    Quadratic(initial=0.5, growth=0.3),
]
PAIRS: list[tuple[Regulariser, Domain]] = [
    *((barrier, Simplex(5, total)) for barrier in BARRIERS for total in (1.0, 1.7)),
    (Entropy(), CappedSimplex(5, cap=0.4)),
    (Entropy(), CappedSimplex(5, cap=0.4, total=1.3, floor=0.05)),
    (Entropy(), Box(5, 0.2, 1.5)),
    *((some, domain) for some in (Euclidean(), Euclidean(scale=2.0), *ADAPTIVE) for domain in domains(5)),
    *((some, Unconstrained(5)) for some in (Euclidean(), *ADAPTIVE[1:2], *ADAPTIVE[3:])),
]
IDS = [f"{some}-{domain}" for some, domain in PAIRS]


def tensor(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def close(given: Tensor, expected: Tensor, atol: float = 1e-12) -> None:
    torch.testing.assert_close(given, expected, atol=atol, rtol=0, check_stride=False)


def shaped(regulariser: Regulariser, domain: Domain, runs: int, rounds: int = 9, seed: int = 5) -> dict[str, Tensor]:
    """A state that has seen some gradients, among them enough to span all directions."""
    state = regulariser.start(domain, runs)
    for gradient in normal(rounds, runs, domain.dimension, seed=seed):
        regulariser.update(state, runs_last(gradient))
    return state


def slope_of(regulariser: Regulariser, x: Tensor, state: dict[str, Tensor]) -> Tensor:
    x = x.detach().clone().requires_grad_(True)
    (slope,) = torch.autograd.grad(regulariser.value(x, state).sum(), x)
    return slope


@pytest.mark.parametrize(("regulariser", "domain"), PAIRS, ids=IDS)
@given(data=st.data())
@settings(max_examples=3, deadline=None, derandomize=True)
def test_both_steps_meet_first_order_optimality(regulariser: Regulariser, domain: Domain, data: st.DataObject) -> None:
    """The slope of the objective, by autograd of `value`, certifies the minimum over the set."""
    seed, scale = data.draw(st.integers(0, 9999)), 10.0 ** data.draw(st.integers(-1, 1))
    eta = (normal(6, seed=seed) / 2).exp()
    linear, state = runs_last(scale * normal(6, 5, seed=seed + 1)), shaped(regulariser, domain, 6)
    x = regulariser.minimise(linear, eta, domain, state)
    assert x.shape == (6, 5)
    assert_optimal(domain, x, eta[:, None] * linear + slope_of(regulariser, x, state), tolerance=1e-9)
    mirror = regulariser.mirror(x)
    gradient = scale * normal(6, 5, seed=seed + 2)
    y = regulariser.point(regulariser.move(mirror, gradient, eta, domain, state))
    slope = eta[:, None] * gradient + slope_of(regulariser, y, state) - slope_of(regulariser, x, state)
    assert_optimal(domain, y, slope, tolerance=1e-9)
    rate = float(eta[0])
    close(regulariser.minimise(linear, rate, domain, state)[0], x[0], 1e-12 * max(1.0, float(x.abs().max())))


@pytest.mark.parametrize(("regulariser", "domain"), PAIRS, ids=IDS)
def test_value_and_divergence_fit_together(regulariser: Regulariser, domain: Domain) -> None:
    state = shaped(regulariser, domain, 3)
    x, y = ((normal(3, 5, seed=seed) / 3).exp() for seed in (1, 2))
    assert torch.autograd.gradcheck(lambda point: regulariser.value(point, state), (x.clone().requires_grad_(True),))
    linear_part = (slope_of(regulariser, y, state) * (x - y)).sum(-1)
    expected = regulariser.value(x, state) - regulariser.value(y, state) - linear_part
    close(regulariser.divergence(x, y, state), expected)
    close(regulariser.divergence(x, x, state), torch.zeros(3, dtype=torch.float64))
    assert bool((regulariser.divergence(x, y, state) > 1e-3).all())


@pytest.mark.parametrize("regulariser", BARRIERS, ids=str)
@pytest.mark.parametrize("total", [1.0, 2.5])
def test_mirror_descent_is_ftrl_for_a_constant_rate(regulariser: Regulariser, total: float) -> None:
    domain, gradients = Simplex(6, total), normal(50, 4, 6)
    for eta in (0.3, 1.0):
        linear = torch.zeros(4, 6, dtype=torch.float64)
        mirror = regulariser.mirror(regulariser.minimise(linear, eta, domain, {}))
        for gradient in gradients:
            linear = linear + gradient
            mirror = regulariser.move(mirror, gradient, eta, domain, {})
            ahead = regulariser.point(regulariser.move(mirror, 0.5 * gradient, eta, domain, {}))
            close(regulariser.point(mirror), regulariser.minimise(linear, eta, domain, {}))
            close(ahead, regulariser.minimise(linear + 0.5 * gradient, eta, domain, {}))


def test_lazy_and_greedy_projection_differ_on_the_ball() -> None:
    ball, plain, largest = Ball(2), Euclidean(), 0.0
    linear, greedy = tensor(0, 0), tensor(0, 0)
    for t in range(1, 51):
        gradient = tensor(math.cos(0.1 * t), math.sin(0.1 * t))
        linear, greedy = linear + gradient, plain.move(greedy, gradient, 0.3, ball, {})
        apart = plain.minimise(linear, 0.3, ball, {}) - greedy
        largest = max(largest, float((apart * apart).sum().sqrt()))
    assert largest == pytest.approx(1.74, abs=0.01)


@pytest.mark.parametrize("regulariser", BARRIERS, ids=str)
def test_two_experts_against_a_root_search(regulariser: Regulariser) -> None:
    """At x = (s, 1 - s) the objective's derivative in s is 0; a fine grid has no lower value."""
    for losses, eta in (((0.0, 1.0), 1.0), ((0.3, -2.0), 0.4), ((5.0, 0.0), 0.7)):

        def derivative(first: float, losses: tuple[float, float] = losses, eta: float = eta) -> float:
            slope = eta * tensor(*losses) + slope_of(regulariser, tensor(first, 1.0 - first), {})
            return float(slope[0] - slope[1])

        x = regulariser.minimise(tensor(*losses), eta, Simplex(2), {})
        assert float(x[0]) == pytest.approx(brentq(derivative, 1e-9, 1 - 1e-9, xtol=1e-14), abs=1e-12)
        first = torch.linspace(1e-4, 1 - 1e-4, 10_001, dtype=torch.float64)
        grid = torch.stack((first, 1 - first), dim=-1)
        values = (grid * tensor(*losses)).sum(-1) + regulariser.value(grid, {}) / eta
        own = float((x * tensor(*losses)).sum() + regulariser.value(x, {}) / eta)
        assert own - 1e-14 <= float(values.min()) < own + 1e-6


@pytest.mark.parametrize("regulariser", BARRIERS, ids=str)
def test_three_experts_against_exact_stationarity(regulariser: Regulariser) -> None:
    """On the simplex's inside, eta L + grad psi is one number in all coordinates."""
    linear = tensor(0.2, 1.4, -0.7)
    x = regulariser.minimise(linear, 1.3, Simplex(3), {})
    slope = 1.3 * linear + slope_of(regulariser, x, {})
    assert float(slope.max() - slope.min()) < 1e-12
    assert float(x.sum()) == pytest.approx(1.0, abs=1e-15)


def test_the_entropy_s_infinite_rate() -> None:
    losses, entropy = tensor(1.0, 0.0, 0.0, 2.0), Entropy()
    for eta in (math.inf, torch.tensor(math.inf, dtype=torch.float64)):
        assert entropy.minimise(losses, eta, Simplex(4, 3.0), {}).tolist() == [0, 1.5, 1.5, 0]
        close(entropy.minimise(losses, eta, CappedSimplex(4, cap=0.4), {}), tensor(0.2, 0.4, 0.4, 0), 1e-15)
        close(entropy.minimise(losses - 1, eta, Box(4, 0.1, 3.0), {}), tensor(1.0, 3.0, 3.0, 0.1), 1e-15)
    mixed = entropy.minimise(torch.stack((losses, losses)), tensor(math.inf, 1.0), CappedSimplex(4, cap=0.4), {})
    close(mixed[0], tensor(0.2, 0.4, 0.4, 0), 1e-15)
    close(mixed[1], entropy.minimise(losses, 1.0, CappedSimplex(4, cap=0.4), {}), 1e-15)


def test_tiny_weights_recover() -> None:
    """The mirror form keeps logarithms: e^-2000 is 0 as a weight, but comes back."""
    entropy, two = Entropy(), Simplex(2)
    mirror = entropy.move(entropy.mirror(tensor(0.5, 0.5)), tensor(2000.0, 0.0), 1.0, two, {})
    assert entropy.point(mirror).tolist() == [0.0, 1.0]
    mirror = entropy.move(mirror, tensor(0.0, 2000.0), 1.0, two, {})
    close(entropy.point(mirror), tensor(0.5, 0.5), 1e-12)


def test_soft_threshold_by_hand() -> None:
    sparse, linear = Euclidean(l1=0.1), tensor(-3.0, 0.4, 0.6)
    close(sparse.minimise(linear, 0.5, Unconstrained(3), {}, rounds=5), tensor(1.25, 0.0, -0.05), 1e-15)
    close(sparse.minimise(linear, 0.5, Box(3, -0.02, 1.0), {}, rounds=5), tensor(1.0, 0.0, -0.02), 1e-15)
    x = tensor(1.25, 0.0, -0.05)
    close(sparse.minimise(linear, 0.5, Ball(3), {}, rounds=5), x / (x * x).sum().sqrt(), 1e-15)
    close(Euclidean(2.0, 0.1).minimise(linear, 1.0, Unconstrained(3), {}, rounds=5), x, 1e-15)
    with pytest.raises(ValueError, match="mirror descent"):
        sparse.move(x, linear, 0.5, Ball(3), {})


def test_diagonal_by_hand_and_without_gradients() -> None:
    adagrad, domain = Diagonal(), Unconstrained(3)
    state = adagrad.start(domain, 1)
    assert adagrad.minimise(torch.zeros(1, 3, dtype=torch.float64), 1.0, Ball(3), state).tolist() == [[0, 0, 0]]
    for gradient in ((3.0, 0.0, 1.0), (4.0, 0.0, -1.0)):
        adagrad.update(state, tensor(*gradient).view(1, 3))
    assert state["squares"].tolist() == [[25.0, 0.0, 2.0]]
    close(adagrad.minimise(tensor(7.0, 0.0, 0.0).view(1, 3), 0.5, domain, state), tensor(-0.7, 0, 0).view(1, 3), 1e-15)
    close(Diagonal(0.5, 11.0).weights(state), tensor(6.5, 0.5 + math.sqrt(11), 0.5 + math.sqrt(13)).view(1, 3), 1e-15)
    for bounded in domains(3):
        x = adagrad.minimise(tensor(70.0, 0.0, -20.0).view(1, 3), 0.5, bounded, state)
        assert bool(bounded.contains(x, 1e-12).all())


def test_matrix_adaptive_keeps_the_root_of_the_sum() -> None:
    full, domain = MatrixAdaptive(epsilon=0.25), Unconstrained(4)
    state, gradients = full.start(domain, 2), normal(6, 2, 4)
    for gradient in gradients:
        full.update(state, gradient)
    values, vectors = torch.linalg.eigh(torch.einsum("tri,trj->rij", gradients, gradients))
    root = vectors @ torch.diag_embed(values.sqrt()) @ vectors.mT + 0.25 * torch.eye(4, dtype=torch.float64)
    linear = normal(2, 4, seed=8)
    expected = -0.7 * torch.linalg.solve(root, linear.unsqueeze(-1)).squeeze(-1)
    close(full.minimise(linear, 0.7, domain, state), expected, 1e-11)
    close(full.value(linear, state), (linear * (root @ linear.unsqueeze(-1)).squeeze(-1)).sum(-1) / 2, 1e-11)
    # One direction alone, epsilon 0: the others stay where they are, in every set.
    plain, state = MatrixAdaptive(), MatrixAdaptive().start(domain, 2)
    plain.update(state, gradients[0])
    x = plain.minimise(gradients[0], 0.3, domain, state)
    length = (gradients[0] * gradients[0]).sum(-1, keepdim=True).sqrt()
    close(x, -0.3 * gradients[0] / length, 1e-12)
    for bounded in domains(4):
        assert bool(bounded.contains(plain.minimise(100 * gradients[0], 0.3, bounded, state), 1e-12).all())


def test_quadratic_keeps_a_matrix_and_its_inverse() -> None:
    newton, domain = Quadratic(initial=0.5, growth=0.25), Unconstrained(3)
    state, total = newton.start(domain, 2), 0.5 * torch.eye(3, dtype=torch.float64).repeat(2, 1, 1)
    drifts = []
    for step, gradient in enumerate(normal(1001, 2, 3), start=1):
        newton.update(state, gradient)
        total = total + 0.25 * gradient.unsqueeze(-1) * gradient.unsqueeze(-2)
        if step in (1, 999, 1000, 1001):
            drifts.append(float((state["inverse"] @ total - torch.eye(3, dtype=torch.float64)).abs().max()))
        if step == 500:
            state["inverse"].mul_(1.001)  # an error, which only the refresh of round 1000 mends
    assert int(state["updates"]) == 1001
    close(state["matrix"], total, 1e-9)
    assert drifts[0] < 1e-14
    assert drifts[1] > 1e-4
    assert max(drifts[2:]) < 1e-12


@pytest.mark.parametrize("regulariser", ADAPTIVE, ids=str)
def test_states_are_run_last_and_runs_stay_apart(regulariser: Regulariser) -> None:
    domain = Ball(3)
    state = shaped(regulariser, domain, 4)
    linear = normal(4, 3, seed=3)
    x = regulariser.minimise(runs_last(linear), 2.0, domain, state)
    alone = regulariser.start(domain, 1)
    for gradient in normal(9, 4, 3, seed=5):
        regulariser.update(alone, gradient[2:3])
    close(regulariser.minimise(linear[2:3], 2.0, domain, alone), x[2:3], 1e-13)
    for name, part in state.items():
        assert name == "updates" or part.stride(0) == 1, name


@pytest.mark.parametrize(
    ("regulariser", "domain", "words"),
    [
        (LogBarrier(), Ball(3), "log_barrier on ball.*simplex"),
        (Tsallis(), CappedSimplex(3, cap=0.5), "tsallis on capped_simplex.*simplex"),
        (Entropy(), L1Ball(3), "entropy on l1_ball.*simplex or capped_simplex or box"),
        (Entropy(), Box(3), "entropy on box.*no negative"),
        (Entropy(), CappedSimplex(3, cap=0.5, floor=-0.1), "entropy on capped_simplex.*no negative"),
        (Euclidean(l1=0.1), Simplex(3), "euclidean on simplex.*ball or box or unconstrained"),
    ],
)
def test_what_does_not_fit_is_named(regulariser: Regulariser, domain: Domain, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        regulariser.check(domain)


def test_what_fits_passes_and_bad_parameters_do_not() -> None:
    for regulariser, domain in PAIRS:
        regulariser.check(domain)
    for make in (
        lambda: Tsallis(0.0),
        lambda: Tsallis(1.0),
        lambda: Euclidean(scale=0.0),
        lambda: Euclidean(l1=-1.0),
        lambda: Diagonal(epsilon=-1.0),
        lambda: Diagonal(offset=math.inf),
        lambda: MatrixAdaptive(epsilon=math.nan),
        lambda: Quadratic(initial=0.0),
        lambda: Quadratic(growth=-0.1),
    ):
        with pytest.raises(ValueError, match="Fix:"):
            make()
    assert Tsallis(0.5) == Tsallis()
    assert [r.adaptive for r in (Euclidean(), Entropy(), Diagonal(), Quadratic())] == [False, False, True, True]
