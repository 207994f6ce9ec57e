"""The American put: exact values, features, the exactly linear option, the world and its facts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from envs.american_put import (
    EXERCISE,
    HOLD,
    AmericanPut,
    linear_put_model,
    put_features,
    put_model,
    put_prices,
)
from envs.robust_values import at_start, evaluate, optimal
from envs.uncertainty import Uncertainty


def value(start: float, steps: int, up: float = 0.5) -> float:
    model = put_model(start, steps, up)
    return float(at_start(model, optimal(model)[0]))


@pytest.mark.parametrize(
    ("start", "steps", "wanted"),
    [
        (95, 10, 5.637666), (100, 10, 2.459625), (105, 10, 0.755786),
        (95, 20, 6.451308), (100, 20, 3.519716), (105, 20, 1.641508),
    ],
)  # fmt: skip
def test_fair_coin(start: float, steps: int, wanted: float) -> None:
    assert value(float(start), steps) == pytest.approx(wanted, abs=6e-7)


@pytest.mark.parametrize(("up", "wanted"), [(0.15, 11.930157), (0.3, 7.281097), (0.7, 0.830496), (0.85, 0.353624)])
def test_other_coins(up: float, wanted: float) -> None:
    assert value(100.0, 10, up) == pytest.approx(wanted, abs=6e-7)


def adversarial_coin(start: float, steps: int, reach: float) -> float:
    """The best value when in each state nature picks the coin from [.5 - reach, .5 + reach]; plain loops."""
    ahead = [0.0] * (steps + 1)
    for h in range(steps - 1, -1, -1):
        now = []
        for j in range(h + 1):
            price = start * 1.02**j * 0.98 ** (h - j)
            coins = (0.5 - reach, 0.5 + reach)
            hold = min(p * ahead[j + 1] + (1 - p) * ahead[j] for p in coins) if h < steps - 1 else 0.0
            now.append(max(hold, 100 - price, 0.0))
        ahead = now
    return ahead[0]


@pytest.mark.parametrize(("reach", "wanted"), [(0.05, 1.817724), (0.1, 1.373098), (0.2, 0.830496), (0.3, 0.499168)])
def test_adversarial_coin(reach: float, wanted: float) -> None:
    """The coin itself is nature's, in each state anew."""
    assert adversarial_coin(100.0, 10, reach) == pytest.approx(wanted, abs=6e-7)
    # More rises are never worth more, so nature always takes the largest chance of one.
    assert value(100.0, 10, 0.5 + reach) == pytest.approx(wanted, abs=6e-7)


def test_the_loops_agree_without_an_adversary() -> None:
    assert adversarial_coin(97.0, 12, 0.0) == pytest.approx(value(97.0, 12), abs=1e-12)


def test_model_of_several_start_prices() -> None:
    prices = torch.tensor([95.0, 100.0, 105.0], dtype=torch.float64)
    model = put_model(prices, 10)
    assert model.reward.shape == (3, 10, 12, 2)
    assert model.fail == (11,)
    values, policy = optimal(model)
    assert at_start(model, values).tolist() == pytest.approx([5.637666, 2.459625, 0.755786], abs=6e-7)
    torch.testing.assert_close(evaluate(model, policy), values, rtol=0, atol=1e-12)
    kernel = model.kernel[0]
    assert kernel[3, HOLD].nonzero().flatten().tolist() == [3, 4]
    assert kernel[3, EXERCISE, 11] == 1
    lattice = put_prices(prices, 10)
    assert float(lattice[1, 4, 3]) == pytest.approx(100 * 1.02**3 * 0.98, abs=1e-12)
    assert float(model.reward[0, 5, 1, EXERCISE]) == pytest.approx(100 - 95 * 1.02 * 0.98**4, abs=1e-12)
    assert bool((model.reward[..., HOLD] == 0).all())


def test_features() -> None:
    prices = torch.tensor([60.0, 78.0, 80.0, 81.0, 84.0, 110.0, 150.0], dtype=torch.float64)
    phi = put_features(prices, 20, 80.0, 5.0)
    assert phi.shape == (7, 20)
    assert phi.sum(-1).tolist() == pytest.approx(
        [0, 0.6, 1, 1, 1, 1, 1], abs=1e-14
    )  # below the first anchor less than 1
    assert phi[3, :2].tolist() == pytest.approx([0.8, 0.2], abs=1e-14)
    for i, price in enumerate(prices.tolist()):
        wanted = [max(0.0, 1 - abs(price - (80 + 5 * k)) / 5) for k in range(20)]
        np.testing.assert_allclose(phi[i].numpy(), wanted, atol=1e-14)


LINEAR = [
    ("tv", "constrained", (0.05, 0.1, 0.3), (2.496724, 1.773287, 0.596080)),
    ("kl", "constrained", (0.01, 0.1, 0.3), (2.748654, 1.375612, 0.605583)),
    ("chi2", "constrained", (0.01, 0.1, 0.5), (2.995940, 1.884099, 0.657909)),
    ("tv", "regularised", (1, 5, 10), (0.836476, 2.575390, 3.478928)),
    ("kl", "regularised", (0.5, 2, 10), (1.109775, 2.269364, 3.289537)),
    ("chi2", "regularised", (0.5, 2, 10), (1.572403, 2.824968, 3.481548)),
]


@pytest.mark.parametrize(("how", "form", "levels", "wanted"), LINEAR, ids=[f"{row[0]}-{row[1]}" for row in LINEAR])
def test_linear_option(how: str, form: str, levels: tuple[float, ...], wanted: tuple[float, ...]) -> None:
    model = linear_put_model()
    found = [float(at_start(model, optimal(model, Uncertainty(how, form, x))[0])) for x in levels]  # type: ignore[arg-type]
    assert found == pytest.approx(wanted, abs=6e-7)


def test_linear_option_elsewhere() -> None:
    model = linear_put_model()
    assert (model.states, model.factors) == (44, 22)
    assert float(at_start(model, optimal(model)[0])) == pytest.approx(3.703916, abs=6e-7)
    off = linear_put_model(103.0)
    sets = (None, *(Uncertainty(how, "constrained", 0.1) for how in ("tv", "kl", "chi2")))  # type: ignore[arg-type]
    found = [float(at_start(off, optimal(off, nature)[0])) for nature in sets]
    assert found == pytest.approx([2.542763, 1.100448, 0.786537, 1.141785], abs=6e-7)


def test_world() -> None:
    world = AmericanPut(4, 50, 3)
    prices = world.start_prices
    assert bool(((prices > 95) & (prices < 105)).all())
    assert float(prices.std()) > 2
    torch.testing.assert_close(AmericanPut(4, [7], 3).start_prices[0], prices[7], rtol=0, atol=0)
    assert next(iter(world.targets)) == "0.15"
    assert list(world.targets)[-1] == "0.85"
    assert len(world.targets) == 29
    model = world.targets["0.3"]
    values = optimal(model)[0]
    assert float(values[7, 0, 0]) == pytest.approx(value(float(prices[7]), 10, 0.3), abs=1e-12)
    world.step(world.facts["best_policy"])
    assert float(world.regret()["regret/policy"].abs().max()) < 1e-12
    measured = world.measures()
    assert float(measured["value/target=0.5"][3]) == pytest.approx(value(float(prices[3]), 10), abs=1e-12)
    hold = torch.zeros(50, 10, 12, 2, dtype=torch.float64)
    hold[..., HOLD] = 1
    terms = world.step(hold)[4]["feedback"].terms
    assert bool((terms["rewards"] == 0).all())
    assert bool((terms["states"].diff(dim=1) >= 0).all())
    best = torch.tensor([value(float(p), 10) for p in prices], dtype=torch.float64)
    torch.testing.assert_close(world.regret()["regret/policy"], best, rtol=0, atol=1e-12)


def test_facts() -> None:
    world = AmericanPut(4, 5, 3, steps=6, dimension=25, divergence="kl", form="regularised", level=0.1)
    facts = world.facts
    features, prices = facts["features"], put_prices(world.start_prices, 6)
    assert features.shape == (5, 6, 8, 2, 25)
    assert bool((features[..., EXERCISE, :] == 0).all())
    assert bool((features[..., 7, :, :] == 0).all())
    torch.testing.assert_close(features[..., :7, HOLD, :], put_features(prices, 25, 80.0, 4.0))
    assert facts["rewards"].shape == (5, 6, 8, 2)
    assert facts["fail"] == (7,)
    told = facts["uncertainty"]
    assert (told["divergence"], told["form"]) == ("kl", "regularised")
    assert told["level"].tolist() == [[0.1] * 25] * 6
    caps = facts["value_cap"]
    assert caps.shape == (6, 8, 2)
    assert caps[:, 0, HOLD].tolist() == [6, 5, 4, 3, 2, 1]
    assert bool(torch.isinf(caps[..., EXERCISE]).all())
    assert "uncertainty" not in AmericanPut(4, 1, divergence="off").facts


def test_pay_off_cap_is_sound() -> None:
    """No coin makes holding worth more; the cap of the released scripts is below what can be had."""
    world = AmericanPut(1, 40, 5, cap="payoff")
    caps, steps = world.facts["value_cap"], world.steps
    assert bool((caps[-1, :, HOLD] == 0).all())
    assert bool((caps[:, -1, HOLD] == 0).all())
    released = AmericanPut(1, 40, 5).facts["value_cap"]
    beaten = False
    for up in (0.01, 0.15, 0.5):
        model = put_model(world.start_prices, steps, up)
        values = optimal(model)[0]
        hold = torch.stack([model.mix(h, values[:, h + 1] @ model.laws_at(h).mT)[..., HOLD] for h in range(steps)], 1)
        seen = torch.arange(steps + 2) <= torch.arange(steps)[:, None]  # rises so far
        assert bool((hold <= caps[..., HOLD] + 1e-12)[:, seen].all())
        beaten = beaten or bool((hold > released[..., HOLD])[:, seen].any())
    assert beaten


BAD: dict[str, dict[str, Any]] = {
    "steps": {"steps": 0},
    "dimension": {"dimension": 0},
    "cap": {"cap": "none"},
    "divergence": {"divergence": "hellinger"},
    "form": {"form": "free"},
    "level": {"level": -0.1},
}


@pytest.mark.parametrize("name", list(BAD))
def test_bad_input(name: str) -> None:
    with pytest.raises(ValueError, match=rf"{name}: expected .* got .* Fix: "):
        AmericanPut(4, 2, **BAD[name])


@pytest.mark.parametrize("build", [put_model, linear_put_model], ids=["lattice", "linear"])
def test_coin_out_of_range(build: Any) -> None:
    with pytest.raises(ValueError, match="up: expected"):
        build(100.0, 5, 1.5)
