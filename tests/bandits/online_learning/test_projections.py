"""Euclidean and diagonal projections: hand values, optimality certificates, layouts, hard numbers."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bandits.online_learning import projections as onto
from bandits.online_learning.domains import Ball, Box, CappedSimplex, Domain, L1Ball, Simplex
from orbs import runs_last
from tests.bandits.online_learning.certificates import assert_optimal, domains, normal

V = torch.tensor([0.9, -0.3, 0.5, 0.4], dtype=torch.float64)
ALL = [domain for dimension in (1, 2, 4, 9) for domain in domains(dimension)]
MODEST = settings(max_examples=8, deadline=None, derandomize=True)


def tensor(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize(
    ("domain", "expected"),
    [
        (Simplex(4), (0.6333333333333333, 0, 0.23333333333333334, 0.13333333333333333)),
        (L1Ball(4), (0.625, -0.025, 0.225, 0.125)),
        (L1Ball(4, 0.5), (0.45, 0, 0.05, 0)),
        (Ball(4, 0.5), (0.393166825497, -0.131055608499, 0.218426014165, 0.174740811332)),
        (Box(4, 0.0, 0.45), (0.45, 0, 0.45, 0.4)),
        (CappedSimplex(4, cap=0.5), (0.5, 0, 0.3, 0.2)),
        (CappedSimplex(4, cap=0.5, floor=0.1), (0.5, 0.1, 0.25, 0.15)),
        (CappedSimplex(4, cap=0.25), (0.25, 0.25, 0.25, 0.25)),
        (CappedSimplex(4, cap=5.0), (0.6333333333333333, 0, 0.23333333333333334, 0.13333333333333333)),
    ],
)
def test_hand_values(domain: Domain, expected: tuple[float, ...]) -> None:
    torch.testing.assert_close(domain.project(V), tensor(*expected), atol=1e-12, rtol=0)


def test_hand_values_of_weighted_projections() -> None:
    # Simplex, h = (1, 2): x = (v1 - theta, v2 - theta/2), theta = (1.5 - 1)/1.5; L1 ball the same with signs.
    v, h = tensor(1.0, 0.5), tensor(1.0, 2.0)
    torch.testing.assert_close(Simplex(2).project_weighted(v, h), tensor(2 / 3, 1 / 3), atol=1e-15, rtol=0)
    signs = tensor(-1.0, 1.0)
    torch.testing.assert_close(L1Ball(2).project_weighted(signs * v, h), tensor(-2 / 3, 1 / 3), atol=1e-15, rtol=0)
    # Ball, h = (1, 3), mu = 1: x = (v1/2, 3 v2/4) = (0.6, 0.8).
    x = Ball(2).project_weighted(tensor(1.2, 0.8 * 4 / 3), tensor(1.0, 3.0))
    torch.testing.assert_close(x, tensor(0.6, 0.8), atol=1e-15, rtol=0)
    # Cap 0.6 binds on the first coordinate, the rest is left to the second.
    x = CappedSimplex(2, cap=0.6).project_weighted(tensor(3.0, 0.5), h)
    torch.testing.assert_close(x, tensor(0.6, 0.4), atol=1e-15, rtol=0)


@pytest.mark.parametrize("domain", ALL, ids=str)
@given(data=st.data())
@MODEST
def test_projection_is_optimal_idempotent_and_non_expansive(domain: Domain, data: st.DataObject) -> None:
    scale = 10.0 ** data.draw(st.integers(-3, 4))
    seed = data.draw(st.integers(0, 10_000))
    v = normal(6, domain.dimension, seed=seed) * scale
    if data.draw(st.booleans()):
        v = (v / scale).round() * scale  # ties
    x = domain.project(v)
    assert_optimal(domain, x, x - v)
    torch.testing.assert_close(domain.project(x), x, atol=1e-15, rtol=0)
    before, after = v[:3] - v[3:], x[:3] - x[3:]
    assert bool(((after * after).sum(-1) <= (before * before).sum(-1) * (1 + 1e-12) + 1e-28).all())
    order = torch.randperm(domain.dimension, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(domain.project(v[:, order]), x[:, order], atol=1e-14, rtol=0)


@pytest.mark.parametrize("domain", ALL, ids=str)
@given(data=st.data())
@MODEST
def test_weighted_projection_is_optimal(domain: Domain, data: st.DataObject) -> None:
    scale, spread = 10.0 ** data.draw(st.integers(-2, 3)), data.draw(st.sampled_from([0.0, 1.0, 3.0, 6.0]))
    seed = data.draw(st.integers(0, 10_000))
    v = normal(6, domain.dimension, seed=seed) * scale
    h = 10.0 ** (spread * (torch.rand(6, domain.dimension, dtype=torch.float64) - 0.5))
    x = domain.project_weighted(v, h)
    assert_optimal(domain, x, h * (x - v), tolerance=1e-11)
    torch.testing.assert_close(domain.project_weighted(x, h), x, atol=2e-15, rtol=0)
    order = torch.randperm(domain.dimension, generator=torch.Generator().manual_seed(seed))
    permuted = domain.project_weighted(v[:, order], h[:, order])
    torch.testing.assert_close(permuted, x[:, order], atol=1e-12 * max(scale, 1.0), rtol=0)
    same = domain.project_weighted(v, torch.full_like(v, 7.0))
    torch.testing.assert_close(same, domain.project(v), atol=1e-14 * max(scale, 1.0), rtol=0)


@pytest.mark.parametrize("domain", domains(5), ids=str)
def test_any_shape_and_layout_gives_the_same(domain: Domain) -> None:
    v, h = 3 * normal(7, 3, 5), normal(7, 3, 5, seed=1).exp()
    x, w = domain.project(v), domain.project_weighted(v, h)
    for shape in ((7, 3), (7,), ()):
        part = (0,) * (2 - len(shape))
        some, weights = v[(..., *part, slice(None))], h[(..., *part, slice(None))]
        for layout in (lambda y: y, lambda y: runs_last(y) if y.ndim > 1 else y):
            got, got_w = domain.project(layout(some)), domain.project_weighted(layout(some), layout(weights))
            assert got.shape == some.shape
            torch.testing.assert_close(got, x[(..., *part, slice(None))], atol=1e-15, rtol=0)
            torch.testing.assert_close(got_w, w[(..., *part, slice(None))], atol=1e-14, rtol=0)
    flat = runs_last(v[:, 0])
    copy = flat.clone()
    assert domain.project(flat).stride() == flat.stride(), "the run-last layout is lost"
    assert torch.equal(flat, copy), "the argument was changed"


@pytest.mark.parametrize("domain", domains(6), ids=str)
def test_points_inside_keep_their_bits_in_balls_and_boxes(domain: Domain) -> None:
    if domain.name not in ("ball", "box", "l1_ball"):
        pytest.skip("a simplex has no inside")
    v = torch.cat((0.05 * normal(20, 6), 4 * normal(20, 6)))
    h = normal(40, 6, seed=2).exp()
    assert torch.equal(domain.project(v)[:20], v[:20])
    assert torch.equal(domain.project_weighted(v, h)[:20], v[:20])
    assert not torch.equal(domain.project(v)[20:], v[20:])


def test_a_large_common_part_costs_no_digits() -> None:
    small = normal(50, 8)
    shifted = small + 2.0**40  # the shift is exact only up to 2^-12
    exact = shifted - 2.0**40
    for domain in (Simplex(8), CappedSimplex(8, cap=0.3)):
        torch.testing.assert_close(domain.project(shifted), domain.project(exact), atol=1e-3, rtol=0)
        assert bool(domain.contains(domain.project(shifted), 1e-14).all())
    torch.testing.assert_close(Simplex(8).project(shifted), Simplex(8).project(exact), atol=1e-15, rtol=0)


def test_numbers_far_out_and_zero() -> None:
    v = tensor(1e12, -1e12, 3.0, 3.0)
    torch.testing.assert_close(Simplex(4).project(v), tensor(1.0, 0, 0, 0), atol=0, rtol=0)
    torch.testing.assert_close(CappedSimplex(4, cap=0.4).project(v), tensor(0.4, 0, 0.3, 0.3), atol=1e-15, rtol=0)
    zero = torch.zeros(4, dtype=torch.float64)
    for domain in domains(4):
        assert torch.equal(domain.project_weighted(zero, torch.ones_like(zero)).isnan(), zero.bool())
    assert torch.equal(Ball(4).project(zero), zero)


@pytest.mark.parametrize("domain", domains(4), ids=str)
def test_rows_do_not_mix_and_nan_stays_in_its_row(domain: Domain) -> None:
    v, h = 2 * normal(5, 4), normal(5, 4, seed=3).exp()
    alone, alone_w = domain.project(v[2:3]), domain.project_weighted(v[2:3], h[2:3])
    bad = v.clone()
    bad[0, 1] = torch.nan
    together, together_w = domain.project(bad), domain.project_weighted(bad, h)
    assert torch.equal(together[2:3], alone)
    torch.testing.assert_close(together_w[2:3], alone_w, atol=1e-15, rtol=0)
    assert bool(together[0].isnan().any())
    assert bool(together_w[0].isnan().any())


def test_standing_still_is_asked_where_it_is_free() -> None:
    x = tensor(1.0, 2.0)
    assert onto.standing_still(x, x.clone())
    assert not onto.standing_still(x, x + 1e-15)
    assert not onto.standing_still(torch.empty(2, device="meta"), torch.empty(2, device="meta"))
