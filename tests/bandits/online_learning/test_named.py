"""What named learners ask of a problem, when their bounds are told, and what these bounds are."""

import math

import pytest
import torch

from bandits import make
from bandits.online_learning.domains import Ball, Box, CappedSimplex, Simplex
from bandits.online_learning.named import _radius, expected_bound
from tests.bandits.online_learning.problems import BALL, BOX, SIMPLEX, built, play, sequence

D, G, L, STRONG = BALL["diameter"], BALL["gradient_bound"], BALL["smoothness"], BALL["strong_convexity"]
RADIUS, RANGE, LOG = D / 2, 3.0, math.log(4)


@pytest.mark.parametrize(
    ("name", "given", "bound"),
    [
        ("hedge", {}, RANGE * math.sqrt(9 * LOG)),
        ("hedge", {"tuning": "horizon"}, RANGE * math.sqrt(LOG / 8) * (math.sqrt(400) + 9 / math.sqrt(400))),
        ("hedge", {"rate": 0.3}, LOG / 0.3 + 0.3 * RANGE**2 * 9 / 8),
        ("ogd", {}, 1.5 * D * G * 3),
        ("ogd-strong", {}, G**2 / (2 * STRONG) * (1 + math.log(9))),
        ("optimistic-omd-strong", {}, 8 * G**2 / STRONG * (1 + math.log(9))),
    ],
    ids=str,
)
def test_bounds_of_nine_rounds(name, given, bound):
    learner = built(name, given, 2)
    assert learner.regret_bound() is None
    play(learner, sequence("random", {**BALL, **(SIMPLEX if name == "hedge" else {})}, 9, 2), 9)
    assert learner.regret_bound().tolist() == pytest.approx([bound] * 2, rel=1e-12)


def test_bounds_that_depend_on_the_path():
    """One gradient g of norm 1 after another, twice: errors 1, squares 2."""
    g = torch.tensor([[0.6, 0.8, 0.0]], dtype=torch.float64)

    def after_two(name, facts=BALL, **given):
        learner = make(name, facts, **given)
        for _ in range(2):
            x = learner.act()
            terms = {"features": g, "target": (g * x).sum(-1) - 1.0}
            learner.observe(x, _feedback(g, terms))
        return float(learner.regret_bound()), learner

    found, _ = after_two("optimistic-omd")
    assert found == pytest.approx(2.5 * D * math.sqrt(10 * D**2 * L**2 + 4 * G**2 + 1))
    found, _ = after_two("optimistic-omd", delta=0.0)
    assert found == pytest.approx(2.5 * D * math.sqrt(4 * G**2 + 1))
    found, learner = after_two("optimistic-omd-implicit")
    assert found == pytest.approx(2.5 * D * math.sqrt(4 * G**2 + float(learner.step_memory["errors"])))
    found, _ = after_two("optimistic-ftrl")
    nu = L * RADIUS**2 + RADIUS * G
    assert found == pytest.approx(1.5 * math.sqrt(2) * RADIUS + nu + 6 * (RADIUS * G) ** 2 / nu)
    found, _ = after_two("ftrl")
    assert found == pytest.approx(RADIUS * math.sqrt(2 + G**2) / math.sqrt(2) + RADIUS * math.sqrt(2) / math.sqrt(2))
    found, _ = after_two("adagrad", BOX)
    assert found == pytest.approx(math.sqrt(2) * 2 * (0.6 + 0.8) * math.sqrt(2))
    found, _ = after_two("optimistic-omd-exp")
    beta = 0.5 * min(1 / (4 * G * D), 0.5)
    right = 0.5 * (1 + beta * G**2 / 2) * D**2 + 16 * 3 / beta * math.log(1 + beta * G**2 * 2 / 6)
    assert found == pytest.approx(right)


def _feedback(gradient, terms):
    from orbs import Feedback

    return Feedback(gradient=gradient, terms=terms)


def test_the_expected_bound():
    right = 5 * math.sqrt(10) * 4 * 3 + 2.5 * math.sqrt(5) * 2 * 7 + 5 * math.sqrt(2) * 2 * 5 + 5 * 2 * 6
    assert expected_bound(2.0, 7.0, 3.0, 25.0, 36.0) == pytest.approx(right)


@pytest.mark.parametrize(("calm", "tiny"), [(5000, 1e-4), (2000, 1e-6)])
def test_adahedge_sees_a_leader_fall(calm, tiny):
    """Losses (0, tiny) for long, then (1, 0), (0, 1), ...: the first weight of the second expert has underflowed."""
    learner = make("adahedge", {"domain": Simplex(2)})
    paid, total = 0.0, torch.zeros(2, dtype=torch.float64)
    for t in range(calm + 1000):
        pair = (0.0, tiny) if t < calm else (float(t % 2 == 0), float(t % 2))
        g = torch.tensor([pair], dtype=torch.float64)
        paid += float((learner.act() * g).sum())
        total += g[0]
        learner.observe(learner.act(), g)
    regret = paid - float(total.min())
    assert regret <= float(learner.regret_bound())
    assert regret < 20


def test_scaled_simplices():
    """Regret grows with the total, and so does the bound; AdaHedge speaks of probabilities alone."""
    facts = {**SIMPLEX, "domain": ("simplex", {"dimension": 4, "total": 100.0})}
    learner = make("hedge", facts, runs=3)
    points, seen = play(learner, sequence("adversarial", facts, 200, 3), 200)
    regret = (points * seen).sum((0, 2)) - 100 * seen.sum(0).amin(-1)
    assert (regret <= learner.regret_bound()).all()
    assert (regret > make("hedge", SIMPLEX).bound(learner)).all()
    for domain in (Simplex(4, 5.0), CappedSimplex(6, cap=1.0, total=3.0), Box(4, 0.0, 1.0)):
        with pytest.raises(
            ValueError, match=r"adahedge: domain: expected a simplex of total 1, got .*Fix: choose hedge"
        ):
            make("adahedge", {**SIMPLEX, "domain": domain})
    assert make("hedge", {**SIMPLEX, "domain": CappedSimplex(4, cap=0.5)}).bound is None


def test_problems_without_smoothness_or_choice():
    flat = {**BALL, "smoothness": 0.0}
    for name in ("two-layer", "optimistic-ogd"):
        with pytest.raises(ValueError, match=rf"{name}: expected a problem with smoothness above 0, got 0.0"):
            make(name, flat)
    make("two-layer", flat, smoothness=1.0)
    make("optimistic-ogd", flat, rate=0.1)
    lonely = {**SIMPLEX, "domain": ("simplex", {"dimension": 1})}
    for name in ("hedge", "optimistic-hedge", "adahedge", "log-barrier", "tsallis", "ogd", "adagrad", "ons"):
        with pytest.raises(ValueError, match=rf"{name}: domain: expected more than one point, got Simplex"):
            make(name, lonely)
    for name in ("hedge", "optimistic-hedge", "log-barrier", "tsallis"):
        with pytest.raises(ValueError, match=rf"{name}: expected losses that can differ, loss_low below loss_high"):
            make(name, {**SIMPLEX, "loss_high": -1.0})
        with pytest.raises(
            ValueError, match=rf"{name}: expected a problem with a range of losses \(loss_low, loss_high"
        ):
            make(name, {"domain": Simplex(3), "horizon": 10})


@pytest.mark.parametrize(
    ("name", "unsafe", "safe"),
    [
        ("optimistic-omd", {"diameter": D / 2}, {"diameter": 2 * D}),
        ("optimistic-omd", {"bound": G / 2}, {"bound": 2 * G}),
        ("optimistic-ftrl", {"diameter": RADIUS / 2}, {"diameter": 2 * RADIUS}),
        ("ogd-strong", {"strong_convexity": 2 * STRONG}, {"strong_convexity": STRONG / 2}),
        ("optimistic-omd-strong", {"strong_convexity": 2 * STRONG}, {"strong_convexity": STRONG / 2}),
        ("optimistic-omd-exp", {"exp_concavity": 0.9}, {"exp_concavity": 0.1}),
    ],
    ids=str,
)
def test_a_bound_is_told_only_where_its_facts_hold(name, unsafe, safe):
    assert make(name, BALL, **unsafe).bound is None
    assert make(name, BALL, **safe).bound is not None


def test_curvature_that_nobody_knows_gives_no_bound():
    facts = {key: value for key, value in BALL.items() if key != "strong_convexity"}
    assert make("ogd-strong", facts, strong_convexity=0.1).bound is None


def test_the_largest_norm_of_a_domain():
    assert _radius(Ball(3, 2.0)) == 2.0
    assert _radius(Box(3, -1.0, 2.0)) == pytest.approx(math.sqrt(12))
    assert _radius(Simplex(3, 2.0)) == 2.0
    assert _radius(CappedSimplex(4, cap=0.4)) == pytest.approx(math.sqrt(0.16 + 0.16 + 0.04))
    assert _radius(CappedSimplex(4, cap=5.0, floor=-5.0, total=1.0)) == pytest.approx(_brute())


def _brute():
    """Over the vertices: all but one coordinate at a bound, the last one what is left."""
    best = 0.0
    for code in range(2**3):
        x = [5.0 if code >> i & 1 else -5.0 for i in range(3)]
        rest = 1.0 - sum(x)
        if abs(rest) <= 5.0:
            best = max(best, math.sqrt(sum(v * v for v in x) + rest * rest))
    return best
