"""Domains as values: what they reject, contain and measure."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from bandits.online_learning.domains import DOMAINS, Ball, Box, CappedSimplex, Domain, L1Ball, Simplex, Unconstrained
from tests.bandits.online_learning.certificates import domains, normal


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Ball(0), "ball.dimension"),
        (lambda: Ball(2.0), "ball.dimension"),
        (lambda: Ball(True), "ball.dimension"),
        (lambda: Ball(2, 0.0), "ball.radius"),
        (lambda: Ball(2, math.inf), "ball.radius"),
        (lambda: L1Ball(2, -1.0), "l1_ball.radius"),
        (lambda: L1Ball(2, math.nan), "l1_ball.radius"),
        (lambda: Box(2, 1.0, 1.0), "box.low"),
        (lambda: Box(2, 0.0, math.inf), "box.low"),
        (lambda: Simplex(2, 0.0), "simplex.total"),
        (lambda: CappedSimplex(4, cap=0.24), "capped_simplex.cap"),
        (lambda: CappedSimplex(4, cap=0.5, floor=0.26), "capped_simplex.floor"),
        (lambda: CappedSimplex(4, cap=0.25, floor=0.25), "capped_simplex.floor"),
        (lambda: CappedSimplex(4, cap=math.nan), "capped_simplex.cap"),
        (lambda: Unconstrained(-1), "unconstrained.dimension"),
    ],
)
def test_bad_parameters_are_named(make: object, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make()  # type: ignore[operator]


def test_caps_that_fit_but_for_rounding_are_taken() -> None:
    assert 49 * (1 / 49) < 1
    domain = CappedSimplex(49, cap=1 / 49)
    x = domain.project(normal(3, 49))
    torch.testing.assert_close(x, torch.full_like(x, 1 / 49), atol=1e-15, rtol=0)
    x = domain.project_matrix(normal(3, 49), torch.eye(49, dtype=torch.float64).expand(3, 49, 49))
    torch.testing.assert_close(x, torch.full_like(x, 1 / 49), atol=1e-15, rtol=0)


@pytest.mark.parametrize("domain", [*domains(1), *domains(4), Unconstrained(3)], ids=str)
def test_centre_and_membership(domain: Domain) -> None:
    centre = domain.centre()
    assert centre.shape == (domain.dimension,)
    assert centre.dtype == torch.float64
    assert bool(domain.contains(centre, 1e-15))
    if isinstance(domain, (Simplex, CappedSimplex)):
        assert float(centre.max() - centre.min()) == 0.0
    else:
        assert not centre.any()
    assert not bool(domain.contains(centre * math.nan))
    x = torch.stack((centre, centre + 100.0))
    assert domain.contains(x).tolist() == [True, isinstance(domain, Unconstrained)]
    if not isinstance(domain, Unconstrained):
        edge = domain.project(100 * normal(6, domain.dimension))
        assert bool(domain.contains(edge).all())
        beyond = edge + 1e-6 if isinstance(domain, (Simplex, CappedSimplex)) else edge * (1 + 1e-6)
        assert not bool(domain.contains(beyond).any())


@pytest.mark.parametrize("domain", domains(4), ids=str)
def test_diameters_are_the_largest_distances(domain: Domain) -> None:
    # Far points project onto faces and vertices: with all sign patterns the farthest pair is among them.
    far = torch.tensor(list(itertools.product((-1.0, 0.0, 1.0), repeat=4)), dtype=torch.float64)
    steps = torch.tensor(list(itertools.permutations((-3.0, -1.0, 1.0, 3.0))), dtype=torch.float64)
    x = domain.project(torch.cat((far, steps)) * 1e3)
    difference = x[:, None] - x
    assert float((difference * difference).sum(-1).sqrt().max()) == pytest.approx(domain.diameter, abs=1e-9)
    assert float(difference.abs().max()) == pytest.approx(domain.infinity_diameter, abs=1e-9)


def test_diameters_of_points_and_of_everything() -> None:
    assert Simplex(1).diameter == Simplex(1).infinity_diameter == 0.0
    assert CappedSimplex(3, cap=1 / 3).diameter == pytest.approx(0.0, abs=1e-15)
    assert Unconstrained(2).diameter == Unconstrained(2).infinity_diameter == math.inf
    # Caps 0.5: (0.5, 0.5, 0, 0) against (0, 0, 0.5, 0.5).
    assert CappedSimplex(4, cap=0.5).diameter == pytest.approx(1.0)


def test_domains_are_values_with_names() -> None:
    assert Ball(3) == Ball(3, 1.0)
    assert hash(Box(2)) == hash(Box(2, -1.0, 1.0))
    assert Simplex(3) != Simplex(4)
    assert {name: kind.name for name, kind in DOMAINS.items()} == {name: name for name in DOMAINS}
    assert set(DOMAINS) == {"ball", "box", "simplex", "l1_ball", "capped_simplex", "unconstrained"}
    assert DOMAINS["ball"](dimension=5, radius=2.0) == Ball(5, 2.0)


def test_no_constraint_changes_nothing() -> None:
    v, domain = normal(4, 3), Unconstrained(3)
    assert torch.equal(domain.project(v), v)
    assert torch.equal(domain.project_weighted(v, v.exp()), v)
    assert torch.equal(domain.project_matrix(v, torch.eye(3, dtype=torch.float64)), v)
