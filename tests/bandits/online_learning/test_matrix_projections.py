"""Projections in a full-matrix norm: optimality certificates, a grid, a second solver, each path on its own."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from bandits.online_learning import quadratic_programs as programs
from bandits.online_learning.domains import Ball, Box, CappedSimplex, Domain, L1Ball, Simplex
from bandits.online_learning.matrix_projections import onto_ball_spectral
from orbs import runs_last
from tests.bandits.online_learning.certificates import assert_optimal, domains, normal, positive_definite

SIZES = [(dimension, index) for dimension in (1, 2, 3, 7, 20) for index in range(6)]


def times(matrix: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return (matrix @ x.unsqueeze(-1)).squeeze(-1)


def assert_projected(domain: Domain, v: torch.Tensor, matrix: torch.Tensor, x: torch.Tensor) -> None:
    """The optimality gap and the residual of a projected gradient step, both relative to ||H|| and the distance."""
    slope = times(matrix / torch.linalg.matrix_norm(matrix, 2)[..., None, None], x - v)
    assert_optimal(domain, x, slope, tolerance=1e-10)
    size = slope.abs().amax(-1).clamp(min=1.0)
    assert float(((x - domain.project(x - slope)).abs().amax(-1) / size).max()) <= 1e-10


@pytest.mark.parametrize(("dimension", "index"), SIZES)
@pytest.mark.parametrize("condition", [1.0, 1e2, 1e6])
def test_optimal_for_any_condition_number(dimension: int, index: int, condition: float) -> None:
    domain = domains(dimension)[index]
    matrix = 5.0 * positive_definite(40, dimension, condition, seed=dimension)
    scale = torch.tensor([0.3, 1.0, 30.0, 1e4], dtype=torch.float64).repeat(10)[:, None]
    v = normal(40, dimension, seed=index) * scale
    assert_projected(domain, v, matrix, domain.project_matrix(v, matrix))


@pytest.mark.parametrize(("dimension", "index"), [(d, i) for d in (3, 20) for i in range(1, 6)])
def test_the_interior_point_path_alone_is_optimal(dimension: int, index: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A guess that is never good enough, as on a device that is not asked: all rows go through the interior."""
    monkeypatch.setattr(programs, "ACCEPT", -1.0)
    rows: list[int] = []
    interior = programs.interior

    def counted(face: programs.Face, matrix: torch.Tensor, linear: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        rows.append(len(linear))
        x, level = interior(face, matrix, linear)
        assert float(programs.residual(face.project(x), matrix, linear, face.project).max()) < 1e-6
        return x, level

    monkeypatch.setattr(programs, "interior", counted)
    domain = domains(dimension)[index]
    matrix = positive_definite(30, dimension, 1e4)
    v = 5 * normal(30, dimension, seed=index)
    x = domain.project_matrix(v, matrix)
    assert rows == [30]
    assert_projected(domain, v, matrix, x)


@pytest.mark.parametrize("domain", domains(2), ids=str)
def test_against_a_grid_in_the_plane(domain: Domain) -> None:
    matrix = torch.tensor([[2.0, -1.3], [-1.3, 1.0]], dtype=torch.float64)
    v = torch.tensor([[1.9, 1.4], [-2.0, 0.3], [0.2, -3.0]], dtype=torch.float64)
    axis = torch.linspace(-2.0, 2.0, 801, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis)
    if isinstance(domain, (Simplex, CappedSimplex)):
        line = torch.linspace(-2, 3, 200_001, dtype=torch.float64)
        grid = torch.stack((line, domain.total - line), dim=-1)
    grid = grid[domain.contains(grid, 1e-12)]
    x = domain.project_matrix(v, matrix.expand(3, 2, 2))
    for row in range(3):
        away, found = grid - v[row], x[row] - v[row]
        best = (away * times(matrix, away)).sum(-1).min()
        own = found @ matrix @ found
        assert -1e-12 <= float(best - own) < 0.02 * float(best)
        assert float(own) <= float(best) + 1e-12


@pytest.mark.parametrize("dimension", [3, 8, 20])
@pytest.mark.parametrize("kind", ["ball", "box", "simplex", "capped"])
def test_against_a_second_solver(dimension: int, kind: str) -> None:
    domain: Domain = {
        "ball": Ball(dimension, 1.3),
        "box": Box(dimension, -0.5, 1.0),
        "simplex": Simplex(dimension),
        "capped": CappedSimplex(dimension, cap=2.0 / dimension),
    }[kind]
    matrix = positive_definite(1, dimension, 50.0, seed=3)
    v = 2 * normal(1, dimension, seed=4)
    h, target = matrix[0].numpy(), v[0].numpy()
    bounds, constraints = None, []
    if isinstance(domain, Ball):
        constraints = [{"type": "ineq", "fun": lambda x: 1.69 - x @ x, "jac": lambda x: -2 * x}]
    elif isinstance(domain, Box):
        bounds = [(domain.low, domain.high)] * dimension
    else:
        bounds = [(0.0, getattr(domain, "cap", None))] * dimension
        constraints = [{"type": "eq", "fun": lambda x: x.sum() - 1.0, "jac": np.ones_like}]
    solution = minimize(
        lambda x: (x - target) @ h @ (x - target),
        domain.centre().numpy(),
        jac=lambda x: 2 * h @ (x - target),
        bounds=bounds,
        constraints=constraints,
        method="SLSQP",
        options={"ftol": 1e-15, "maxiter": 2000},
    )
    torch.testing.assert_close(
        domain.project_matrix(v, matrix)[0], torch.from_numpy(solution.x), atol=3e-6, rtol=0, check_stride=False
    )


def test_hand_value_with_signs_that_change() -> None:
    """The diagonal guess has the second coordinate positive; the strong coupling makes it negative."""
    matrix = torch.tensor([[[1.0, 0.9], [0.9, 1.0]]], dtype=torch.float64)
    v = torch.tensor([[2.0, 0.3]], dtype=torch.float64)
    # x = (1, 0): slope H (x - v) = (-1.27, -1.2), and |second| <= |first|: optimal.
    expected = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    torch.testing.assert_close(L1Ball(2).project_matrix(v, matrix), expected, atol=1e-15, rtol=0)


@pytest.mark.parametrize("domain", domains(4), ids=str)
def test_points_inside_keep_their_bits_and_projecting_twice_changes_nothing(domain: Domain) -> None:
    matrix = positive_definite(12, 4, 100.0)
    v = torch.cat((0.05 * normal(6, 4), 5 * normal(6, 4)))
    x = domain.project_matrix(v, matrix)
    torch.testing.assert_close(domain.project_matrix(x, matrix), x, atol=1e-15, rtol=0)
    if domain.name in ("ball", "box", "l1_ball"):
        assert torch.equal(x[:6], v[:6])
        assert torch.equal(domain.project_matrix(v[:6], matrix[:6]), v[:6])


@pytest.mark.parametrize("domain", domains(5), ids=str)
def test_any_shape_layout_and_company_gives_the_same(domain: Domain) -> None:
    matrix = positive_definite(12, 5, 1e3).reshape(4, 3, 5, 5)
    v = 3 * normal(4, 3, 5)
    x = domain.project_matrix(v, matrix)
    for row, column in ((0, 0), (3, 2)):
        alone = domain.project_matrix(v[row, column], matrix[row, column])
        torch.testing.assert_close(alone, x[row, column], atol=1e-13, rtol=0)
    flat = domain.project_matrix(runs_last(v[:, 1]), runs_last(matrix[:, 1]))
    torch.testing.assert_close(flat, x[:, 1], atol=1e-13, rtol=0)
    assert flat.stride() == runs_last(v[:, 1]).stride()
    order = torch.tensor([3, 1, 4, 0, 2])
    permuted = domain.project_matrix(v[..., order], matrix[..., order, :][..., order])
    torch.testing.assert_close(permuted, x[..., order], atol=1e-11, rtol=0)
    scaled = domain.project_matrix(v, 1e6 * matrix)
    torch.testing.assert_close(scaled, x, atol=1e-11, rtol=0)


@pytest.mark.parametrize("domain", domains(5), ids=str)
def test_a_diagonal_matrix_is_a_weighted_projection(domain: Domain) -> None:
    v, h = 3 * normal(8, 5), normal(8, 5, seed=9).exp()
    x = domain.project_matrix(v, torch.diag_embed(h))
    torch.testing.assert_close(x, domain.project_weighted(v, h), atol=1e-13, rtol=0)


def test_a_known_spectrum_gives_the_same_ball_projection() -> None:
    matrix = positive_definite(6, 4, 100.0)
    values, vectors = torch.linalg.eigh(matrix)
    v = 3 * normal(6, 4)
    expected = Ball(4, 1.3).project_matrix(v, matrix)
    torch.testing.assert_close(onto_ball_spectral(v, vectors, values, 1.3), expected, atol=1e-13, rtol=0)
