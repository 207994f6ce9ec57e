"""Worst-case means against the specification's numbers, fine grids, convex programmes, and what they must keep."""

import numpy as np
import pytest
import torch

from bandits.mdp.duals import plain, project, worst_case
from tests.bandits.mdp import plain_duals

SETS = [(one, form) for one in ("tv", "kl", "chi2") for form in ("constrained", "regularised")]
EACH = pytest.mark.parametrize(("divergence", "form"), SETS, ids=[f"{a}-{b}" for a, b in SETS])
KINDS = pytest.mark.parametrize("kind", ["signed", "projected"])

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


def t(*numbers):
    return torch.tensor(numbers, dtype=torch.float64)


def one(w, v, divergence, form, level, **options):
    """The worst case of one law."""
    values, weights = torch.as_tensor(np.asarray(v, float))[None], torch.as_tensor(np.asarray(w, float))[None, None]
    return float(worst_case(values, weights, divergence, form, t(level), **options))


@EACH
@KINDS
def test_golden_values_of_a_law(divergence, form, kind):
    for level, value in GOLDEN[divergence, form].items():
        found = one((0.1, 0.2, 0.3, 0.4), (0, 1, 2, 4), divergence, form, level, kind=kind, cap=4.0, horizon=100.0)
        assert found == pytest.approx(value, abs=1e-8), level


def test_no_weight_at_the_least_value():
    w, v = (0.0, 0.5, 0.5), (0.0, 1.0, 2.0)
    for divergence, value in (("tv", 1.1), ("kl", 1.194827160), ("chi2", 1.276393202)):
        assert one(w, v, divergence, "constrained", 0.2, kind="projected") == pytest.approx(value, abs=1e-8)
    assert one(w, v, "chi2", "constrained", 1.0, kind="projected") == pytest.approx(1.0, abs=1e-12)


def test_golden_values_of_signed_weights():
    w, v = (0.6, -0.2, 0.3, 0.25), (0, 1, 2, 4)
    assert one(w, v, "tv", "constrained", 0.1) == pytest.approx(1.0, abs=1e-12)
    assert one(w, v, "chi2", "regularised", 1.0) == pytest.approx(0.67, abs=1e-12)
    assert one(w, v, "chi2", "constrained", 0.1) == pytest.approx(0.848638050, abs=1e-8)
    assert one(w, v, "kl", "constrained", 0.1, cap=4.0) == pytest.approx(0.662481146, abs=1e-8)
    assert one(w, v, "kl", "constrained", 0.1, kind="projected") == pytest.approx(0.715227197, abs=1e-8)
    w, v = np.array([0.5, 0.51]), (1, 2)
    assert one(w, v, "kl", "constrained", 0.1, cap=3.0) == pytest.approx(2.98914, abs=1e-5)
    floor = t(0.05)[None]
    assert one(w, v, "kl", "constrained", 0.1, cap=3.0, floor=floor) == pytest.approx(1.31523, abs=1e-5)
    assert one(w / 1.01, v, "kl", "constrained", 0.1, kind="projected") == pytest.approx(1.28483, abs=1e-5)


def test_a_radius_of_zero_is_the_plain_mean_if_wanted():
    w, v = (0.6, 0.5, 0.3, -0.25), (0, 1, 2, 4)
    assert one(w, v, "tv", "constrained", 0.0) == pytest.approx(0.1)
    assert one(w, v, "tv", "constrained", 0.0, exact_zero_radius=False) == pytest.approx(0.6)
    law = np.array([0.6, 0.5, 0.3, 0.0]) / 1.4
    for divergence in ("tv", "kl", "chi2"):
        assert one(w, v, divergence, "constrained", 0.0, kind="projected") == pytest.approx(law @ v)


@pytest.mark.parametrize(("divergence", "form"), [s for s in SETS if s[0] != "kl"], ids=lambda value: str(value))
def test_signed_weights_attain_the_maximum_of_a_fine_grid(divergence, form):
    rng = np.random.default_rng(1)
    for trial in range(60):
        n = int(rng.integers(1, 8))
        v = rng.uniform(0, 3, n) if trial % 2 else rng.integers(0, 4, n).astype(float)
        w, level = rng.normal(0.2, 0.4, n), float(rng.uniform(0.02, 1.5))
        a = np.linspace(v.min() if divergence == "tv" else 0.0, 3.0, 30_001)
        low = np.minimum(v[:, None], a)
        z, z2 = w @ low, w @ low**2
        var = np.maximum(z2 - z * z, 0)
        if divergence == "tv":
            if form == "regularised":
                continue  # no search
            heights = z - level * (a - v.min())
        else:
            heights = z - (np.sqrt(level * var) if form == "constrained" else var / (4 * level))
        found = one(w, v, divergence, form, level)
        assert found >= heights.max() - 1e-7
        assert found <= heights.max() + 2e-2  # of the grid
        again = plain_duals.dual(w, v, divergence, form, level, "signed", least=v.min(), cap=3.0, horizon=3.0)
        assert found == pytest.approx(again, abs=1e-6)


def test_signed_kl_searches_as_the_specification_says():
    """The grid and the steps are part of the estimate's definition: with negative weights others find other hills."""
    from bandits.mdp import duals

    assert (duals.GRID, duals.GOLDEN_STEPS) == (64, 40)


def test_signed_kl_is_near_the_maximum_of_a_fine_grid():
    rng, missed = np.random.default_rng(2), 0
    for _ in range(150):
        n = int(rng.integers(1, 8))
        v, w, rho = rng.uniform(0, 3, n), rng.normal(0.2, 0.3, n), float(rng.uniform(0.02, 1.0))
        b = np.exp(np.linspace(np.log(3e-4), np.log(3.0 / np.sqrt(8 * rho)), 20_001))
        mean = 1 + (w[:, None] * np.expm1(-v[:, None] / b)).sum(0)
        best = max(0.0, (-b * (np.log(np.maximum(np.maximum(mean, 1e-12), np.exp(-3.0 / b))) + rho)).max())
        found = one(w, v, "kl", "constrained", rho, cap=3.0)
        assert found == pytest.approx(plain_duals.kl_signed(w, v, rho, 3.0, 1e-12), abs=1e-7)
        missed += found < best - 1e-3
        assert found <= best + 1e-3
    assert missed <= 2


REFERENCES = {
    ("tv", "constrained"): plain_duals.tv_lp,
    ("kl", "constrained"): plain_duals.kl_primal,
    ("kl", "regularised"): plain_duals.kl_priced,
    ("chi2", "constrained"): plain_duals.chi2_primal,
    ("chi2", "regularised"): plain_duals.chi2_priced,
}


@pytest.mark.parametrize(("divergence", "form"), list(REFERENCES), ids=lambda value: str(value))
def test_laws_have_the_value_of_the_convex_programme(divergence, form):
    rng = np.random.default_rng(3)
    for trial in range(60 if divergence == "tv" else 250):
        n = int(rng.integers(2, 8))
        w = rng.dirichlet(np.full(n, rng.choice([0.1, 0.5, 2.0])))
        w = np.where(w < 1e-10, 0.0, w)
        w = np.where(rng.random(n) < 0.2, 0.0, w)
        if w.sum() == 0:
            continue
        w /= w.sum()
        v = rng.integers(0, 4, n).astype(float) if trial % 3 == 0 else rng.uniform(0, 3, n)
        level = float(rng.choice([0.01, 0.1, 0.5, 1.0, 2.5]))
        wanted = REFERENCES[divergence, form](w, v, level)
        assert one(w, v, divergence, form, level, kind="projected") == pytest.approx(wanted, abs=1e-8)


@EACH
def test_projected_weights_are_a_law_with_the_rest_on_zero(divergence, form):
    rng = np.random.default_rng(4)
    for _ in range(40):
        w, v, level = rng.normal(0.1, 0.3, 5), np.r_[0.0, rng.uniform(0, 3, 4)], float(rng.uniform(0.05, 1))
        positive = np.maximum(w, 0)
        law = np.r_[max(0.0, 1 - positive.sum()), positive / max(1, positive.sum())]
        whole = one(law / law.sum(), np.r_[0.0, v], divergence, form, level, kind="projected")
        assert one(w, v, divergence, form, level, kind="projected") == pytest.approx(whole, abs=1e-9)
    kept, rest = project(torch.as_tensor(rng.normal(0.1, 0.3, (6, 2, 5))))
    assert (kept >= 0).all()
    assert (rest >= 0).all()
    assert (kept.sum(-1, keepdim=True) + rest <= 1 + 1e-12).all()


@EACH
def test_a_weight_an_episode_is_a_weight_a_state(divergence, form):
    """The k-column form: one value and one weight for each past episode."""
    rng = np.random.default_rng(5)
    for _ in range(30):
        states, k = 4, 25
        v, reached = np.sort(rng.uniform(0, 2, states)), rng.integers(0, states, k)
        columns, level = rng.normal(0.04, 0.1, (2, k)), float(rng.uniform(0.05, 0.8))
        sums = np.zeros((2, states))
        for i, s in enumerate(reached):
            sums[:, s] += columns[:, i]
        options = dict(cap=2.0, horizon=4.0)
        by_state = worst_case(torch.as_tensor(v)[None], torch.as_tensor(sums)[None], divergence, form, t(level, 0.5),
                              **options)  # fmt: skip
        by_episode = worst_case(
            torch.as_tensor(v[reached])[None], torch.as_tensor(columns)[None], divergence, form, t(level, 0.5),
            least=t(v.min()), **options,
        )  # fmt: skip
        torch.testing.assert_close(by_state, by_episode, rtol=0, atol=2e-7)


@EACH
@KINDS
def test_runs_and_factors_are_independent(divergence, form, kind):
    rng = np.random.default_rng(6)
    v, w = torch.as_tensor(rng.uniform(0, 2, (4, 6))), torch.as_tensor(rng.normal(0.15, 0.2, (4, 3, 6)))
    level = torch.as_tensor(rng.uniform(0.05, 0.6, (4, 3)))
    options = dict(kind=kind, cap=2.0, horizon=3.0)
    whole = worst_case(v, w, divergence, form, level, **options)
    assert whole.shape == (4, 3)
    for r in range(4):
        for i in range(3):
            alone = worst_case(v[r : r + 1], w[r : r + 1, i : i + 1], divergence, form, level[r, i : i + 1], **options)
            torch.testing.assert_close(alone[0, 0], whole[r, i], rtol=0, atol=1e-12)


@EACH
@KINDS
def test_no_data_and_no_value_are_worth_nothing(divergence, form, kind):
    level, options = t(0.3, 0.7), dict(kind=kind, cap=2.0, horizon=3.0)
    none, some = torch.zeros(1, 2, 3, dtype=torch.float64), torch.full((1, 2, 3), 0.4, dtype=torch.float64)
    for values, weights in ((t(0.0, 1.0, 2.0)[None], none), (t(0.0, 0.0, 0.0)[None], some)):
        assert worst_case(values, weights, divergence, form, level, **options).abs().max() < 1e-12


def test_the_regularised_kl_clips_the_mean():
    w, v = (0.9, -0.4), (2.0, 0.5)
    mean = 1 + 0.9 * np.expm1(-4.0) - 0.4 * np.expm1(-1.0)
    assert one(w, v, "kl", "regularised", 0.5, horizon=9.0) == pytest.approx(-0.5 * np.log(mean))
    assert one((2.5, 0.0), v, "kl", "regularised", 0.5, horizon=3.0) == pytest.approx(3.0)
    assert one((-1.0, 0.0), v, "kl", "regularised", 0.5, horizon=3.0) == 0.0
    raw = 0.9 * np.exp(-4.0) + 0.4 * np.exp(-1.0)
    found = one((0.9, 0.4), v, "kl", "regularised", 0.5, horizon=9.0, kl_center=False)
    assert found == pytest.approx(-0.5 * np.log(raw))
    assert one((0.0, 0.0), v, "kl", "regularised", 0.5, horizon=3.0, kl_center=False) == pytest.approx(3.0)


def test_order_and_limits_of_laws():
    rng = np.random.default_rng(7)
    v = torch.as_tensor(rng.uniform(0, 2, (50, 6)))
    w = torch.as_tensor(rng.dirichlet(np.full(6, 0.7), (50, 2)))
    mean, rho = plain(v, w), t(0.1, 0.6)

    def worst(divergence, form, level):
        return worst_case(v, w, divergence, form, level, kind="projected")

    assert (worst("tv", "constrained", (rho / 2).sqrt()) <= worst("kl", "constrained", rho) + 1e-9).all()
    assert (worst("kl", "constrained", (1 + rho).log()) <= worst("chi2", "constrained", rho) + 1e-9).all()
    for divergence in ("tv", "kl", "chi2"):
        near, far = worst(divergence, "constrained", rho * 1e-9), worst(divergence, "constrained", rho * 1e6)
        torch.testing.assert_close(near, mean, rtol=0, atol=1e-3)
        torch.testing.assert_close(far, v.amin(-1, keepdim=True).expand(-1, 2), rtol=0, atol=1e-9)
        torch.testing.assert_close(worst(divergence, "regularised", t(1e9, 1e9)), mean, rtol=0, atol=1e-6)
        best = torch.stack(
            [worst(divergence, "regularised", x * t(1.0, 1.0)) - x * rho for x in np.geomspace(0.002, 100, 800)]
        )
        torch.testing.assert_close(best.amax(0), worst(divergence, "constrained", rho), rtol=0, atol=4e-3)
