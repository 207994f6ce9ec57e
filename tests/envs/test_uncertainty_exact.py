"""Nature's worst means against independent solvers, hard laws and the limits of number formats."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from envs import worst_cases
from envs.uncertainty import Laws, Uncertainty, divergence_of
from tests.envs import plain_worst

SIX = [(how, form) for how in ("tv", "kl", "chi2") for form in ("constrained", "regularised")]
EACH = pytest.mark.parametrize(("how", "form"), SIX, ids=[f"{how}-{form}" for how, form in SIX])


def cases(count: int, seed: int, least: int = 2, most: int = 9) -> list[tuple[np.ndarray, np.ndarray]]:
    """(values, law) with zeros among the weights, ties among the values, and point masses."""
    rng, made = np.random.default_rng(seed), []
    for i in range(count):
        n = int(rng.integers(least, most))
        law = rng.dirichlet(np.full(n, (0.2, 1.0, 5.0)[i % 3]))
        if i % 4 == 0:
            law[rng.integers(n)] = 0.0
        law = np.where(law < 1e-9, 0.0, law)
        values = rng.uniform(-1, 3, n) if i % 5 else rng.integers(0, 3, n).astype(float)
        made.append((values, law / law.sum()))
    return made


def worst(how: str, form: str, level: float, values: np.ndarray, law: np.ndarray) -> float:
    nature = Uncertainty(how, form, level)  # type: ignore[arg-type]
    return float(nature.worst(torch.as_tensor(values), torch.as_tensor(law)[None])[0])


@pytest.mark.parametrize("form", ["constrained", "regularised"])
def test_tv_is_the_linear_programme(form: str) -> None:
    rng = np.random.default_rng(1)
    for values, law in cases(120, 0):
        level = float(rng.uniform(0.001, 1.2 if form == "constrained" else 4.0))
        assert worst("tv", form, level, values, law) == pytest.approx(
            plain_worst.tv(values, law, level, form), abs=1e-9
        )


@pytest.mark.parametrize("how", ["kl", "chi2"])
def test_constrained_is_the_root_of_the_tilt(how: str) -> None:
    rng = np.random.default_rng(2)
    for values, law in cases(300, 3):
        radius = float(10 ** rng.uniform(-4, 0.7))
        found, wanted = (
            worst(how, "constrained", radius, values, law),
            plain_worst.constrained(values, law, radius, how),
        )
        assert found == pytest.approx(wanted, abs=1e-9), (values, law, radius)


@pytest.mark.parametrize("how", ["kl", "chi2"])
def test_regularised_is_the_convex_solver(how: str) -> None:
    rng = np.random.default_rng(4)
    for values, law in cases(40, 5, most=6):
        weight = float(10 ** rng.uniform(-0.7, 1))
        found, wanted = (
            worst(how, "regularised", weight, values, law),
            plain_worst.regularised(values, law, weight, how),
        )
        assert found == pytest.approx(wanted, abs=1e-8), (values, law, weight)
        assert found <= wanted + 1e-12


def hard(seed: int, count: int, n: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Values (count, n) in [0, 1], laws and radii that make a search for the tilt slow: crowds, specks, the limit."""
    rng = np.random.default_rng(seed)
    law = rng.dirichlet(np.full(n, 0.5), count)
    kinds = rng.integers(0, 5, count)[:, None]
    u = rng.random((count, n))
    values = np.select(
        [kinds == 0, kinds == 1, kinds == 2, kinds == 3], [u, u**8, 1 - u**8, 10 ** (-9 * u)], 1 - 10 ** (-6 * u)
    )
    at = rng.integers(n, size=count)
    rows = np.arange(count)
    speck = rng.random(count) < 0.5
    law[rows[speck], at[speck]] = 10 ** rng.uniform(-12, -2, speck.sum())
    values[rows[speck], at[speck]] = 0.0
    law[law < 1e-14] = 0.0
    law /= law.sum(1, keepdims=True)
    least = np.where(law > 0, values, np.inf).min(1, keepdims=True)
    room = -np.log(np.where(values == least, law, 0.0).sum(1))
    radius = np.select(
        [kinds[:, 0] % 3 == 0, kinds[:, 0] % 3 == 1],
        [room * rng.random(count), 10 ** rng.uniform(-10, 0, count)],
        room * (1 - 10 ** rng.uniform(-10, -1, count)),
    )
    return torch.as_tensor(values), torch.as_tensor(law), torch.as_tensor(radius)


@pytest.mark.parametrize("n", [2, 3, 6, 20])
def test_kl_on_hard_laws_is_the_long_bisection(n: int) -> None:
    """To 1e-12 by a bisection of 200 halvings in log t; the dual at its end is exact to second order."""
    values, law, radius = hard(n, 2000, n)
    found = worst_cases.kl_constrained(values.mT, law.mT, radius)[0]
    least = torch.where(law > 0, values, torch.inf).amin(1)
    spread = torch.where(law > 0, values, -torch.inf).amax(1) - least
    above = ((values - least[:, None]) / spread[:, None]).clamp(0, 1)
    low, high = (8 * radius).sqrt() / 2, torch.full_like(radius, 1e15)
    for _ in range(200):
        t = (low * high).sqrt()
        raw = law * torch.exp(-t[:, None] * above)
        kl = -t * (raw * above).sum(1) / raw.sum(1) - raw.sum(1).log()
        low, high = torch.where(kl < radius, t, low), torch.where(kl < radius, high, t)
    x = -t[:, None] * above
    small, whole = (law * torch.expm1(x)).sum(1), (law * torch.exp(x)).sum(1)
    dual = (-torch.where(small > -0.5, small.log1p(), whole.log()) - radius) / t
    room = -torch.where(above <= 0, law, 0.0).sum(1).log()
    wanted = torch.where(radius >= room, least, least + spread * dual.clamp_min(0))
    seen = spread > 1e-12
    assert seen.sum() > 1500
    torch.testing.assert_close(found[seen], wanted[seen], rtol=0, atol=1e-12)


def test_tensors_and_arrays_agree() -> None:
    """The Newton iteration on NumPy's arrays (CPU) and on tensors (elsewhere), whose length is fixed."""
    values, law, radius = hard(0, 500, 5)
    found = worst_cases._kl_constrained(values.mT.numpy(), law.mT.numpy(), radius.numpy())
    other = worst_cases._kl_constrained(values.mT, law.mT, radius)
    torch.testing.assert_close(torch.as_tensor(found[0]), other[0], rtol=0, atol=1e-12)


@EACH
def test_the_worst_law_attains_the_worst_mean(how: str, form: str) -> None:
    """360 laws in all: in the set, a distribution, and its mean (and price) is the value."""
    rng = np.random.default_rng(6)
    for values, law in cases(60, 7):
        level = float(rng.uniform(0, 1.5)) if form == "constrained" else float(10 ** rng.uniform(-1.5, 1))
        nature = Uncertainty(how, form, level)  # type: ignore[arg-type]
        v, mu = torch.as_tensor(values), torch.as_tensor(law)[None]
        nu = nature.worst_laws(v, mu)
        assert float(nu.min()) >= -1e-15
        assert float(nu.sum()) == pytest.approx(1, abs=1e-13)
        if form == "constrained":
            assert float(divergence_of(how, nu, mu)) <= level + 1e-9  # type: ignore[arg-type]
        total = float(nu[0] @ v + nature.price(nu, mu)[0])
        assert total == pytest.approx(float(nature.worst(v, mu)[0]), abs=1e-10)
        assert float(divergence_of(how, nu, mu)) == pytest.approx(  # type: ignore[arg-type]
            plain_worst.divergence(nu[0].numpy()[law > 0], law[law > 0], how)
            + (float(nu[0][law == 0].sum()) / 2 if how == "tv" else 0),
            abs=1e-13,
        )


@EACH
def test_many_laws_of_small_support_are_compressed_exactly(how: str, form: str) -> None:
    """90 states, laws on 1 to 20 of them, levels a law, values of 3 runs: as with the laws whole, one by one."""
    rng = np.random.default_rng(8)
    laws = np.zeros((400, 90))
    for row in laws:
        where = rng.choice(90, int(rng.integers(1, 21)), replace=False)
        row[where] = rng.dirichlet(np.ones(len(where)))
    level = torch.as_tensor(rng.uniform(0.01, 1.0, 400))
    nature, values = Uncertainty(how, form, level), torch.as_tensor(rng.uniform(0, 2, (3, 90)))  # type: ignore[arg-type]
    ready = Laws(torch.as_tensor(laws))
    assert ready._parts[0].where is not None
    found = nature.worst(values, ready)
    assert found.shape == (3, 400)
    for i in range(0, 400, 9):
        for run in range(3):
            one = worst(how, form, float(level[i]), *squeezed(how, values[run].numpy(), laws[i]))
            assert float(found[run, i]) == pytest.approx(one, abs=1e-12)
    nu = nature.worst_laws(values, ready)
    total = (nu * values[:, None]).sum(-1) + nature.price(nu, ready.laws)
    torch.testing.assert_close(total, found, rtol=0, atol=1e-10)


@EACH
def test_laws_that_are_alike_are_solved_once(how: str, form: str) -> None:
    """Also with levels of their own, which no longer are alike."""
    rng = np.random.default_rng(11)
    some, which = rng.dirichlet(np.full(70, 0.05), 20), rng.integers(20, size=100)
    laws, values = torch.as_tensor(some[which]), torch.as_tensor(rng.uniform(0, 2, (2, 70)))
    ready = Laws(laws)
    assert ready.alike is not None
    assert ready.alike[0].factors == len(set(which))
    nature = Uncertainty(how, form, 0.3)  # type: ignore[arg-type]
    alone = torch.cat([nature.worst(values, law[None]) for law in laws], -1)
    torch.testing.assert_close(nature.worst(values, ready), alone, rtol=0, atol=1e-13)
    level = torch.as_tensor(rng.uniform(0.1, 1, 100))
    one = [Uncertainty(how, form, float(x)).worst(values, law[None]) for x, law in zip(level, laws, strict=True)]  # type: ignore[arg-type]
    found = Uncertainty(how, form, level).worst(values, ready)  # type: ignore[arg-type]
    torch.testing.assert_close(found, torch.cat(one, -1), rtol=0, atol=1e-13)


def squeezed(how: str, values: np.ndarray, law: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The support, with the least of all values for TV."""
    kept = law > 0
    if how == "tv":
        kept = kept | (np.arange(len(law)) == values.argmin())
    return values[kept], law[kept]


@EACH
def test_parts_are_one(how: str, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cutting the laws so that temporary arrays stay small changes nothing."""
    rng = np.random.default_rng(9)
    laws, values = torch.as_tensor(rng.dirichlet(np.ones(7), 30)), torch.as_tensor(rng.uniform(size=(5, 7)))
    nature = Uncertainty(how, form, torch.as_tensor(rng.uniform(0.1, 1, 30)))  # type: ignore[arg-type]
    whole = nature.worst(values, laws)
    monkeypatch.setattr("envs.uncertainty.MOST", 7 * 5 * 4)
    assert len(list(Laws(laws).parts(5))) == 8
    torch.testing.assert_close(nature.worst(values, laws), whole, rtol=0, atol=1e-14)
    one = torch.stack([nature.worst(row, laws) for row in values])
    torch.testing.assert_close(one, whole, rtol=0, atol=1e-13)
