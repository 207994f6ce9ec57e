"""Golden values: circling centres in the plane, the unit ball, losses 0.5 ||x - c_t||^2; and others, named."""

import math

import pytest
import torch

from bandits import make
from bandits.online_learning.domains import Ball, Unconstrained
from bandits.online_learning.learner import OptimisticOMD
from bandits.online_learning.optimism import LastLoss
from bandits.online_learning.proximal import FTRLProximal
from bandits.online_learning.regularisers import Euclidean
from bandits.online_learning.steps import Constant
from bandits.online_learning.two_layer import step_pool
from orbs import Feedback

FACTS = {
    "domain": Ball(2),
    "diameter": 2.0,
    "gradient_bound": 2.0,
    "smoothness": 1.0,
    "strong_convexity": 1.0,
    "horizon": 100,
}


def centre(t):
    return torch.tensor([[0.8 * math.cos(t), 0.8 * math.sin(t)]], dtype=torch.float64)


def circled(learner, rounds):
    """Points x_1 .. x_rounds, rates, and the sum of losses."""
    points, rates, total = [], [], 0.0
    for t in range(1, rounds + 1):
        x = learner.act().clone()
        rates.append(float(learner._eta) if hasattr(learner, "_eta") else math.nan)
        off = x - centre(t)
        total += 0.5 * float((off * off).sum())
        learner.observe(x, Feedback(gradient=off))
        points.append(x[0].tolist())
    return points, rates, total


def close(found, golden, tolerance=1e-9):
    assert torch.tensor(found, dtype=torch.float64).tolist() == pytest.approx(list(golden), abs=tolerance)


def test_convex():
    learner = make("optimistic-omd", FACTS)
    points, rates, _ = circled(learner, 6)
    golden = [
        (0.0, 0.0),
        (0.230388466468, 0.358808777348),
        (-0.182460167029, 0.374914193063),
        (-0.354530186799, 0.140166349636),
        (-0.282813097993, -0.181576276978),
        (0.027113589326, -0.292164020471),
    ]
    for found, right in zip(points, golden, strict=True):
        close(found, right)
    close(
        rates,
        (0.2672612419124, 0.2657470017264, 0.2632402507784, 0.2623332279217, 0.2613716171753, 0.2602947588877),
    )
    assert float(learner.step_memory["errors"]) == pytest.approx(3.519122308583, abs=1e-9)
    learner = make("optimistic-omd", FACTS)
    assert circled(learner, 1000)[2] == pytest.approx(301.120117872626, abs=1e-9)
    assert float(learner.step_memory["errors"]) == pytest.approx(553.937942804909, abs=1e-9)


def test_strongly_convex():
    points, _, total = circled(make("optimistic-omd-strong", FACTS), 1000)
    close(points[1], (0.540302305868, 0.841470984808))
    close(points[2], (-0.814659318446, 0.579939820041))
    close(points[3], (-0.306474594545, 0.182553492268))
    close(points[5], (0.116296995781, -0.325536189889))
    assert total == pytest.approx(319.158808954708, abs=1e-9)


def test_exp_concave():
    facts = {**FACTS, "gradient_bound": 1.5, "exp_concavity": 1 / 2.25}
    learner = make("optimistic-omd-exp", facts)
    points, total = [], 0.0
    for t in range(1, 2001):
        x = learner.act().clone()
        a = torch.tensor([[math.cos(t), math.sin(t)]], dtype=torch.float64)
        residual = float((a * x).sum()) - 0.5 * math.sin(2 * t)
        total += 0.5 * residual**2
        learner.observe(x, Feedback(gradient=residual * a))
        points.append(x[0].tolist())
    close(points[1], (0.4683359082, 0.729389961164))
    close(points[2], (0.636980763886, -0.770879696476))
    close(points[3], (-0.553306871604, -0.213655890213))
    close(points[4], (0.04307345977, -0.249788150058))
    close(points[5], (-0.250607585722, 0.67140697876))
    assert total == pytest.approx(178.8775469, abs=1e-7)


def test_sachs_convex():
    points, rates, _ = circled(make("optimistic-ftrl", FACTS, nu=3.0, diameter=1.0), 4)
    close(rates, (1 / 3, 0.311203319502, 0.287958312478, 0.276769085130))
    close(points[1], (0.134515096897, 0.209494850990))
    close(points[2], (-0.072367276851, 0.246069444206))
    close(points[3], (-0.204040280937, 0.127974288969))
    total = circled(make("optimistic-ftrl", FACTS, nu=3.0, diameter=1.0), 1000)[2]
    assert total == pytest.approx(318.288991582, abs=1e-8)


def test_sachs_strongly_convex():
    points, _, total = circled(make("optimistic-ftrl-strong", FACTS), 1000)
    close(points[1], (0.540302305868, 0.841470984808))
    close(points[2], (-0.386947699825, 0.643290842980))
    close(points[3], (-0.365905306426, 0.327705299741))
    close(points[5], (-0.083715298916, -0.123988092167))
    assert total == pytest.approx(320.090877493, abs=1e-8)


def test_two_layer():
    close(step_pool("code", 2.0, 2.0, 1.0, 100), (0.1, 0.2), 1e-15)
    learner = make("two-layer", FACTS)
    mixtures, points, total = [], [], 0.0
    for t in range(1, 101):
        x = learner.act().clone()
        mixtures.append(learner.mixture[0].tolist())
        off = x - centre(t)
        total += 0.5 * float((off * off).sum())
        learner.observe(x, Feedback(gradient=off))
        points.append(x[0].tolist())
    close(points[1], (0.129655263735, 0.201926109284))
    close(points[2], (-0.073886043736, 0.258456916380))
    close(points[5], (-0.028743082947, -0.163637041380))
    close(mixtures[1], (0.500199999989, 0.499800000011))
    close(mixtures[99], (0.575770427661, 0.424229572339))
    assert total == pytest.approx(29.696332391687, abs=1e-9)


def test_step_pools():
    """The code's doubles while the one before is at most 1 / (8 L); the theory's stops at 1 / (8 L)."""
    close(step_pool("code", 2.0, 2.5, 1.0, 10_000), [0.008 * 2**i for i in range(5)], 1e-15)
    assert step_pool("code", 2.0, 2.0, 1.0, 63) == (2.0 / (2.0 * math.sqrt(63)),)
    theory = step_pool("theory", 2.0, 2.5, 1.0, 10_000)
    first = math.sqrt(4 / (8 * 6.25 * 10_000))
    assert len(theory) == math.ceil(0.5 * math.log2(6.25 * 10_000 / 32)) + 1 == 7
    close(theory, [min(0.125, first * 2**i) for i in range(7)], 1e-15)
    with pytest.raises(ValueError, match=r"pool: expected 'code' or 'theory', got 'best'"):
        step_pool("best", 2.0, 2.5, 1.0, 100)


def test_implicit_step_of_an_absolute_loss():
    """z = (0.5, 0.2), a = (0.6, 0.8), b = 0.1, eta = 0.3: the residual stays positive, so s = 1."""
    z = torch.tensor([[0.5, 0.2]], dtype=torch.float64)
    terms = {
        "features": torch.tensor([[0.6, 0.8]], dtype=torch.float64),
        "target": torch.tensor([0.1], dtype=torch.float64),
    }
    learner = OptimisticOMD(Euclidean(), Unconstrained(2), Constant(0.3), LastLoss("absolute"), start=z[0])
    learner.observe(learner.act(), Feedback(gradient=torch.zeros(1, 2, dtype=torch.float64), terms=terms))
    close(learner.act()[0].tolist(), (0.32, -0.04), 1e-15)
    close(learner._prediction[0].tolist(), (0.6, 0.8), 1e-15)


def test_ftrl_proximal():
    learner = FTRLProximal(Unconstrained(2), alpha=0.5, beta=1.0, l1=0.1, l2=0.2)
    golden = [
        (-0.214285714286, 0.125),
        (-0.101573284599, 0.109399315432),
        (-0.396446514173, 0.103160590518),
        (-0.440423899221, 0.328453793721),
    ]
    for gradient, right in zip([(1, -0.5), (-0.5, 0.05), (2, 0.02), (0.3, -1)], golden, strict=True):
        learner.observe(learner.act(), torch.tensor([gradient], dtype=torch.float64))
        close(learner.act()[0].tolist(), right, 1e-12)
