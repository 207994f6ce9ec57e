"""Uncertainty sets: golden values, limits and properties of the worst mean, bad input."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from envs.uncertainty import Uncertainty, divergence_of

SIX = [(how, form) for how in ("tv", "kl", "chi2") for form in ("constrained", "regularised")]
EACH = pytest.mark.parametrize(("how", "form"), SIX, ids=[f"{how}-{form}" for how, form in SIX])
HOWS = pytest.mark.parametrize("how", ["tv", "kl", "chi2"])

LAW, VALUES = (0.1, 0.2, 0.3, 0.4), (0.0, 1.0, 2.0, 4.0)
GOLDEN = {
    ("tv", "constrained"): {0.05: 2.2, 0.1: 2.0, 0.3: 1.2, 0.9: 0.0},
    ("tv", "regularised"): {0.5: 0.45, 1.5: 1.25, 3.0: 2.0, 5.0: 2.4},
    ("kl", "constrained"): {0.01: 2.197733931, 0.1: 1.763448297, 0.5: 1.026893685, 2.0: 0.069070890, 2.4: 0.0},
    ("kl", "regularised"): {0.1: 0.230249429, 1.0: 1.507320370, 10.0: 2.297720615},
    ("chi2", "constrained"): {
        0.01: 2.257171431, 0.1: 1.948336408, 0.5: 1.390049506, 2.0: 0.666666667, 8.0: 0.052030370, 9.0: 0.0,
    },
    ("chi2", "regularised"): {0.1: 0.733333333, 0.5: 1.5, 1.0: 1.89, 10.0: 2.349},
}  # fmt: skip
ROWS = [(how, form, level, value) for (how, form), rows in GOLDEN.items() for level, value in rows.items()]


def tensor(x: object) -> Tensor:
    return torch.as_tensor(x, dtype=torch.float64)


def worst(how: str, form: str, level: object, values: object = VALUES, law: object = LAW) -> Tensor:
    nature = Uncertainty(how, form, level)  # type: ignore[arg-type]
    return nature.worst(tensor(values), tensor(law)[None])[..., 0]


def some(seed: int, count: int = 40, n: int = 6) -> tuple[Tensor, Tensor]:
    """Values (count, n) and laws (count, n)."""
    draw = torch.Generator().manual_seed(seed)
    laws = torch.rand(count, n, dtype=torch.float64, generator=draw) ** 3 + 1e-3
    return 3 * torch.rand(count, n, dtype=torch.float64, generator=draw), laws / laws.sum(-1, keepdim=True)


def each(how: str, form: str, level: float, values: Tensor, laws: Tensor) -> Tensor:
    """(count,) the worst mean of each row of values under the law of that row."""
    return Uncertainty(how, form, level).worst(values, laws).diagonal()  # type: ignore[arg-type]


@pytest.mark.parametrize(("how", "form", "level", "value"), ROWS, ids=[f"{h}-{f}-{x:g}" for h, f, x, _ in ROWS])
def test_golden(how: str, form: str, level: float, value: float) -> None:
    assert float(worst(how, form, level)) == pytest.approx(value, abs=6e-10)
    shuffled = [2, 0, 3, 1]
    again = worst(how, form, level, [VALUES[i] for i in shuffled], [LAW[i] for i in shuffled])
    assert float(again) == pytest.approx(value, abs=6e-10)


@pytest.mark.parametrize(("how", "value"), [("tv", 1.1), ("kl", 1.1948271628), ("chi2", 1.276393202)])
def test_only_tv_leaves_the_support(how: str, value: float) -> None:
    assert float(worst(how, "constrained", 0.2, (0, 1, 2), (0, 0.5, 0.5))) == pytest.approx(value, abs=6e-10)
    least = 0.0 if how == "tv" else 1.0
    assert float(worst(how, "constrained", 1.0, (0, 1, 2), (0, 0.5, 0.5))) == pytest.approx(least, abs=1e-15)
    assert float(worst(how, "regularised", 1e-9, (0, 1, 2), (0, 0.5, 0.5))) == pytest.approx(least, abs=1e-8)


@EACH
def test_limits(how: str, form: str) -> None:
    values, laws = some(0)
    mean = (values * laws).sum(-1)
    if form == "constrained":
        torch.testing.assert_close(each(how, form, 0.0, values, laws), mean, rtol=0, atol=1e-14)
        near = each(how, form, 1e-8, values, laws)
        sd = ((values - mean[:, None]).square() * laws).sum(-1).sqrt()
        order = {"tv": 1e-8 * values.amax(-1), "kl": sd * math.sqrt(2e-8), "chi2": sd * 1e-4}[how]
        assert bool((mean - near <= 1.01 * order).all())
        assert bool((near < mean).all())
        far = {"tv": 1.0, "kl": 8.0, "chi2": 3000.0}[how]
        torch.testing.assert_close(each(how, form, far, values, laws), values.amin(-1), rtol=0, atol=1e-13)
    else:
        torch.testing.assert_close(each(how, form, 1e10, values, laws), mean, rtol=0, atol=1e-9)
        torch.testing.assert_close(each(how, form, 1e-10, values, laws), values.amin(-1), rtol=0, atol=3e-7)


@pytest.mark.parametrize("speck", [1e-13, 1e-9, 0.3])
def test_prices_of_a_speck(speck: float) -> None:
    """KL regularised on two values is -weight log(p + (1 - p) exp(-1 / weight)), also where p is hardly there."""
    for weight in (0.01, 0.1, 1.0, 1e6):
        wanted = -weight * math.log1p((1 - speck) * math.expm1(-1 / weight))
        if weight < 1:
            wanted = -weight * math.log(speck + (1 - speck) * math.exp(-1 / weight))
        found = float(worst("kl", "regularised", weight, (0, 1), (speck, 1 - speck)))
        assert found == pytest.approx(wanted, abs=1e-13)


@pytest.mark.parametrize("radius", [1e-20, 1e-17, 1e-15, 1e-13, 1e-11, 1e-9])
def test_tiny_radii(radius: float) -> None:
    """KL of (.5 + x, .5 - x) from a fair coin is 2 x^2 to fourth order."""
    x = 0.5 - float(worst("kl", "constrained", radius, (0, 1), (0.5, 0.5)))
    assert x == pytest.approx(math.sqrt(radius / 2), abs=2e-13)


@pytest.mark.parametrize("how", ["kl", "chi2"])
def test_radius_that_just_reaches_the_least(how: str) -> None:
    reach = {"kl": -math.log(0.1), "chi2": 9.0}[how]
    assert float(worst(how, "constrained", reach)) == pytest.approx(0, abs=1e-15)
    assert 0 < float(worst(how, "constrained", reach * (1 - 1e-6))) < 1e-3


@EACH
def test_constants_shifts_scales_order(how: str, form: str) -> None:
    values, laws = some(1)
    level = 0.3
    now = each(how, form, level, values, laws)
    constant = torch.full_like(values, 1.7)
    torch.testing.assert_close(each(how, form, level, constant, laws), constant[:, 0], rtol=0, atol=1e-14)
    torch.testing.assert_close(each(how, form, level, values + 5, laws), now + 5, rtol=0, atol=1e-12)
    if form == "constrained":
        torch.testing.assert_close(each(how, form, level, 1e5 * values, laws), 1e5 * now, rtol=1e-12, atol=0)
        torch.testing.assert_close(each(how, form, level, 1e-6 * values, laws), 1e-6 * now, rtol=1e-12, atol=0)
    mean = (values * laws).sum(-1)
    assert bool((now <= mean + 1e-14).all())
    assert bool((now >= values.amin(-1) - 1e-14).all())
    harder = {"constrained": 0.5, "regularised": 0.2}[form]
    assert bool((each(how, form, harder, values, laws) <= now + 1e-14).all())


@EACH
def test_monotone_lipschitz_concave(how: str, form: str) -> None:
    (values, laws), (other, _) = some(2), some(3)
    f = lambda v: each(how, form, 0.4, v, laws)  # noqa: E731
    assert bool((f(values + other) >= f(values) - 1e-13).all())
    assert bool(((f(values) - f(other)).abs() <= (values - other).abs().amax(-1) + 1e-13).all())
    for share in (0.1, 0.5, 0.8):
        mixed = f(share * values + (1 - share) * other)
        assert bool((mixed >= share * f(values) + (1 - share) * f(other) - 1e-13).all())


@HOWS
@pytest.mark.parametrize("radius", [0.05, 0.3])
def test_a_constraint_is_its_best_price(how: str, radius: float) -> None:
    """C_rho(V) = sup over weights of R_weight(V) - weight * rho, concave in the weight: by a search in thirds."""
    values, laws = some(4)
    bound = each(how, "constrained", radius, values, laws)

    def dual(weights: Tensor) -> Tensor:
        found = Uncertainty(how, "regularised", weights).worst(values, laws).diagonal()  # type: ignore[arg-type]
        return found - weights * radius

    low, high = torch.full_like(bound, 1e-6), torch.full_like(bound, 50.0)
    for _ in range(100):
        one, two = low + (high - low) / 3, high - (high - low) / 3
        first, second = dual(one), dual(two)
        assert bool((torch.maximum(first, second) <= bound + 1e-12).all())
        low, high = torch.where(first < second, one, low), torch.where(first < second, high, two)
    torch.testing.assert_close(dual((low + high) / 2), bound, rtol=0, atol=1e-9)


@pytest.mark.parametrize("radius", [0.01, 0.1, 0.5])
def test_sets_are_nested(radius: float) -> None:
    """Pinsker: KL <= rho is in TV <= sqrt(rho / 2); chi2 <= rho is in KL <= log(1 + rho)."""
    values, laws = some(5)
    kl = each("kl", "constrained", radius, values, laws)
    assert bool((each("tv", "constrained", math.sqrt(radius / 2), values, laws) <= kl + 1e-13).all())
    chi2 = each("chi2", "constrained", radius, values, laws)
    assert bool((each("kl", "constrained", math.log1p(radius), values, laws) <= chi2 + 1e-13).all())


@EACH
def test_levels_of_steps_and_laws(how: str, form: str) -> None:
    """A number, (F,), (H, 1) and (H, F): each law by its own level of the step, and a level of 0 beside others."""
    values, laws = some(6, 3)
    table = tensor([[0.1, 0.2, 0.3], [0.4, 0.5, 0.6]])
    if form == "constrained":
        table[0, 1] = 0.0
    shapes = {"all": table, "laws": table[0], "steps": table[:, :1], "one": table[0, 0]}
    for level in shapes.values():
        nature = Uncertainty(how, form, level)  # type: ignore[arg-type]
        nature.check(2, 3)
        for h in range(2):
            found = nature.worst(values, laws, h)
            assert found.shape == (3, 3)
            for i in range(3):
                its = float(level.expand(2, 3)[h, i])
                one = Uncertainty(how, form, its).worst(values, laws[i : i + 1])[:, 0]  # type: ignore[arg-type]
                torch.testing.assert_close(found[:, i], one, rtol=0, atol=1e-13)
    torch.testing.assert_close(Uncertainty(how, form, table[:, :1]).levels(2, 3), table[:, :1].expand(2, 3))  # type: ignore[arg-type]


def test_divergences() -> None:
    nu, mu = tensor([0.5, 0.5, 0.0]), tensor([0.25, 0.25, 0.5])
    found = [float(divergence_of(how, nu, mu)) for how in ("tv", "kl", "chi2")]  # type: ignore[arg-type]
    assert found == pytest.approx([0.5, math.log(2), 0.5 * 1 + 0.5], abs=1e-15)
    back = [float(divergence_of(how, mu, nu)) for how in ("tv", "kl", "chi2")]  # type: ignore[arg-type]
    assert back == [0.5, math.inf, math.inf]


BAD = {
    "divergence": (("hellinger", "constrained", 0.1), "Uncertainty.divergence"),
    "form": (("tv", "free", 0.1), "Uncertainty.form"),
    "negative radius": (("tv", "constrained", -0.1), "at least 0"),
    "negative weight": (("kl", "regularised", -1.0), "above 0"),
    "weight 0": (("chi2", "regularised", 0.0), "above 0"),
    "one weight 0": (("chi2", "regularised", torch.tensor([1.0, 0.0])), "above 0"),
    "nan": (("tv", "constrained", math.nan), "at least 0"),
    "inf": (("tv", "regularised", math.inf), "above 0"),
    "text": (("tv", "constrained", "much"), "a number"),
    "axes": (("tv", "constrained", torch.zeros(2, 2, 2)), "(H, F)"),
    "none": (("tv", "constrained", torch.zeros(0)), "(H, F)"),
}


@pytest.mark.parametrize("name", list(BAD))
def test_bad_input(name: str) -> None:
    arguments, part = BAD[name]
    with pytest.raises(ValueError, match="expected") as caught:
        Uncertainty(*arguments)  # type: ignore[arg-type]
    assert part in str(caught.value)
    assert "Fix: " in str(caught.value)


@pytest.mark.parametrize("shape", [(4,), (3, 1), (2, 4), (1, 3)], ids=str)
def test_levels_that_fit_no_model(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"Uncertainty\.level"):
        Uncertainty("tv", "constrained", torch.zeros(shape)).check(2, 3)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e4, 1e7])
def test_no_radius_leaves_the_laws_whatever_the_values(scale: float) -> None:
    laws, values = torch.tensor([[0.2, 0.3, 0.5]]).double(), scale * torch.tensor([0.0, 2.0, 4.0]).double()
    for how in ("tv", "kl", "chi2"):
        for radius in (0.0, 1e-17):
            nature = Uncertainty(how, "constrained", radius)  # type: ignore[arg-type]
            torch.testing.assert_close(nature.worst_laws(values, laws / laws.sum()), laws / laws.sum())


def test_values_and_levels_of_other_sizes_are_refused() -> None:
    laws = torch.full((2, 4), 0.25, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"values: expected shape \(..., 4\), a value a state, got shape \(1,\)"):
        Uncertainty("tv", "constrained", 0.1).worst(torch.ones(1).double(), laws)
    with pytest.raises(ValueError, match=r"Uncertainty.level: expected a number, or 2, one a law, got 3"):
        Uncertainty("kl", "constrained", [0.1, 0.2, 0.3]).worst(torch.ones(4).double(), laws)
