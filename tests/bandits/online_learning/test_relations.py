"""Where theory says that two methods are one, or that they are not; games; follow-the-leader and its killer."""

import math

import pytest
import torch

from bandits.online_learning.domains import Ball, Box, Simplex, Unconstrained
from bandits.online_learning.learner import FTRL, OMD, OptimisticFTRL, OptimisticOMD
from bandits.online_learning.optimism import Hints, NoOptimism
from bandits.online_learning.regularisers import Diagonal, Entropy, Euclidean, LogBarrier, Tsallis
from bandits.online_learning.steps import Constant, InverseSqrt, InverseTime, PredictionError
from bandits.online_learning.two_layer import TwoLayer
from tests.bandits.online_learning.problems import generator

ROUNDS, RUNS = 50, 4


def losses(rounds=ROUNDS, d=6, seed=0):
    return torch.rand(rounds, RUNS, d, generator=generator(seed), dtype=torch.float64)


def points(learner, seen):
    found = []
    for g in seen:
        found.append(learner.act().clone())
        learner.observe(found[-1], g)
    return torch.stack(found)


@pytest.mark.parametrize("regulariser", [Entropy(), LogBarrier(), Tsallis(0.5)], ids=lambda one: type(one).__name__)
@pytest.mark.parametrize(("one", "other"), [(FTRL, OMD), (OptimisticFTRL, OptimisticOMD)])
def test_leader_and_mirror_are_one_on_the_simplex(regulariser, one, other):
    """Constant rate, a regulariser whose gradient grows without bound at the boundary, the same start."""
    seen = losses()
    first = points(one(regulariser, Simplex(6), Constant(0.7), runs=RUNS), seen)
    second = points(other(regulariser, Simplex(6), Constant(0.7), runs=RUNS), seen)
    assert (first - second).abs().max() < 1e-12
    assert (first[-1] - first[0]).abs().max() > 0.1


def test_leader_and_mirror_differ_where_the_rate_falls():
    seen = losses()
    first = points(FTRL(Entropy(), Simplex(6), InverseSqrt(2.0), runs=RUNS), seen)
    second = points(OMD(Entropy(), Simplex(6), InverseSqrt(2.0), runs=RUNS), seen)
    assert (first - second).abs().max() > 0.01


def test_lazy_and_greedy_projection_differ():
    t = torch.arange(1, 52, dtype=torch.float64)
    seen = torch.stack([torch.cos(0.1 * t), torch.sin(0.1 * t)], -1).unsqueeze(1)
    lazy = points(FTRL(Euclidean(), Ball(2), Constant(0.3)), seen)
    greedy = points(OMD(Euclidean(), Ball(2), Constant(0.3)), seen)
    # The largest distance that is known after 50 rounds.
    assert float((lazy - greedy).norm(dim=-1).max()) == pytest.approx(1.74, abs=0.005)


def test_unconstrained_is_one_line():
    seen = losses() - 0.5
    right = -0.3 * torch.cat([torch.zeros_like(seen[:1]), seen.cumsum(0)[:-1]])
    for kind in (FTRL, OMD):
        found = points(kind(Euclidean(), Unconstrained(6), Constant(0.3), runs=RUNS), seen)
        torch.testing.assert_close(found, right, rtol=0, atol=1e-14)


def test_without_prediction_it_is_gradient_descent():
    seen = 3 * (losses() - 0.5)
    found = points(OptimisticOMD(Euclidean(), Ball(6), Constant(0.3), NoOptimism(), runs=RUNS), seen)
    x = torch.zeros(RUNS, 6, dtype=torch.float64)
    for row, g in zip(found, seen, strict=True):
        torch.testing.assert_close(row, x, rtol=0, atol=1e-15)
        x = x - 0.3 * g
        x = x / x.norm(dim=-1, keepdim=True).clamp_min(1.0)


@pytest.mark.parametrize("kind", [OptimisticOMD, OptimisticFTRL])
def test_clairvoyance_costs_at_most_the_start(kind):
    """M_t = g_t: regret <= D^2 / (2 eta) for every horizon (FTRL: max ||u||^2 / (2 eta))."""
    seen, eta = 3 * (losses(300) - 0.5), 0.2
    learner = kind(Euclidean(), Ball(6), Constant(eta), Hints(), runs=RUNS)
    paid, total = torch.zeros(RUNS, dtype=torch.float64), torch.zeros(RUNS, 6, dtype=torch.float64)
    for g in seen:
        learner.hint(g)
        paid += (learner.act() * g).sum(-1)
        total += g
        learner.observe(learner.act(), g)
        assert (paid + total.norm(dim=-1) <= 4 / (2 * eta)).all()
    with pytest.raises(ValueError, match=r"hint: expected a learner with optimism Hints\(\), got LastGradient"):
        OptimisticOMD(Euclidean(), Ball(6), Constant(eta)).hint(seen[0, :1])
    with pytest.raises(ValueError, match=r"hint: expected shape \(4, 6\), got shape \(1, 6\)"):
        learner.hint(seen[0, :1])


def test_a_constant_gradient_surprises_once():
    learner = OptimisticOMD(Euclidean(), Ball(3), PredictionError(2.0, 1.0), runs=2)
    g = torch.tensor([[0.6, 0.0, 0.0], [0.0, 0.3, 0.4]], dtype=torch.float64)
    rates = []
    for _ in range(5):
        rates.append(learner._eta.clone())
        learner.observe(learner.act(), g)
    torch.testing.assert_close(learner.step_memory["errors"], torch.tensor([0.36, 0.25], dtype=torch.float64))
    assert (rates[1] < rates[0]).all()
    for rate in rates[2:]:
        assert torch.equal(rate, rates[1])


def test_one_dimension_is_clipping_bit_for_bit():
    seen = 4 * (losses(200, 1)[:, :1] - 0.5)
    found = points(OptimisticOMD(Euclidean(), Box(1), PredictionError(2.0, 2.0)), seen)[:, 0, 0].tolist()
    hat, last, errors = 0.0, 0.0, 0.0
    for x, g in zip(found, seen[:, 0, 0].tolist(), strict=True):
        eta = 2.0 * float(torch.rsqrt(torch.tensor(errors + 16.0, dtype=torch.float64)))
        assert x == min(1.0, max(-1.0, hat - eta * last))
        hat = min(1.0, max(-1.0, hat - eta * g))
        errors += (g - last) ** 2
        last = g


def test_a_start_is_kept():
    start = torch.tensor([0.5, -0.5], dtype=torch.float64)
    for learner in (
        OMD(Euclidean(), Ball(2), Constant(0.1), start=start, runs=3),
        OptimisticFTRL(Euclidean(), Ball(2), InverseTime(1.0, offset=1), surrogate=1.0, start=start, runs=3),
    ):
        assert torch.equal(learner.act(), start.expand(3, 2))
    with pytest.raises(ValueError, match=r"start: expected a point of Ball.*, got \[3.0, 0.0\]. Fix: project it first"):
        OMD(Euclidean(), Ball(2), Constant(0.1), start=torch.tensor([3.0, 0.0]))
    with pytest.raises(ValueError, match=r"start: expected shape \(2,\) or \(1, 2\), got shape \(3,\)"):
        OMD(Euclidean(), Ball(2), Constant(0.1), start=torch.zeros(3))
    with pytest.raises(ValueError, match=r"start: expected a point of Simplex"):
        OMD(Entropy(), Simplex(2), Constant(0.1), start=torch.tensor([0.5, 0.6]))


def test_ftrl_proximal_without_penalties_is_adagrad_on_the_whole_space():
    from bandits.online_learning.proximal import FTRLProximal

    seen = losses() - 0.4
    first = points(FTRLProximal(Unconstrained(6), alpha=0.3, beta=0.0, runs=RUNS), seen)
    second = points(OMD(Diagonal(include_current=True), Unconstrained(6), Constant(0.3), runs=RUNS), seen)
    torch.testing.assert_close(first, second, rtol=0, atol=1e-12)


def test_l1_makes_dual_averaging_sparse():
    """x_t of RDA is the soft threshold of -eta L at eta l1 (t - 1)."""
    seen = losses() - 0.5
    found = points(FTRL(Euclidean(l1=0.1), Box(6), Constant(0.2), runs=RUNS), seen)
    total = torch.zeros(RUNS, 6, dtype=torch.float64)
    for t, (x, g) in enumerate(zip(found, seen, strict=True)):
        shrunk = torch.sign(total) * (total.abs() - 0.1 * t).clamp_min(0.0)
        torch.testing.assert_close(x, (-0.2 * shrunk).clamp(-1, 1), rtol=0, atol=1e-15)
        total += g
    assert (found[5:] == 0).any()


class TestTwoLayers:
    def test_one_base_learner_is_optimistic_descent(self):
        seen = 3 * (losses() - 0.5)
        first = points(TwoLayer(Ball(6), [0.1], 2.0, 1.0, runs=RUNS), seen)
        second = points(OptimisticOMD(Euclidean(), Ball(6), Constant(0.1), runs=RUNS), seen)
        torch.testing.assert_close(first, second, rtol=0, atol=1e-15)

    def test_equal_rates_are_one(self):
        seen = 3 * (losses() - 0.5)
        first = points(TwoLayer(Ball(6), [0.1] * 4, 2.0, 1.0, runs=RUNS), seen)
        second = points(TwoLayer(Ball(6), [0.1], 2.0, 1.0, runs=RUNS), seen)
        torch.testing.assert_close(first, second, rtol=0, atol=1e-15)

    def test_a_constant_in_all_losses_changes_no_weight(self):
        learner = TwoLayer(Ball(6), [0.05, 0.1, 0.2], 2.0, 1.0, runs=RUNS)
        points(learner, 3 * (losses() - 0.5))
        before = learner.mixture.clone()
        learner.weights += 8.0
        learner.moves += 4.0
        learner._mix()
        assert (learner.mixture - before).abs().max() < 2e-15
        assert before.std(-1).max() > 1e-3

    def test_bad_input(self):
        with pytest.raises(ValueError, match=r"rates: expected one or more positive rates, got \[\]"):
            TwoLayer(Ball(2), [], 2.0, 1.0)
        with pytest.raises(ValueError, match=r"smoothness: expected a finite number above 0, got 0"):
            TwoLayer(Ball(2), [0.1], 2.0, 0)


class TestGames:
    """Both players of a zero-sum game learn from each other's mixtures."""

    def gap(self, kind, rounds):
        """Duality gap of average mixtures and the larger regret: matching pennies, once one unit more on row 1."""
        matrix = torch.tensor([[1.0, -1.0], [-1.0, 1.0]], dtype=torch.float64)
        row, column = (kind(Entropy(), Simplex(2), Constant(0.1)) for _ in range(2))
        nudge = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
        x_sum, y_sum, x_total, y_total = (torch.zeros(1, 2, dtype=torch.float64) for _ in range(4))
        x_paid = y_paid = 0.0
        for t in range(rounds):
            x, y = row.act().clone(), column.act().clone()
            for_row = y @ matrix.T + (nudge if t == 0 else 0.0)
            for_column = -(x @ matrix)
            x_paid, y_paid = x_paid + float((x * for_row).sum()), y_paid + float((y * for_column).sum())
            x_total, y_total, x_sum, y_sum = x_total + for_row, y_total + for_column, x_sum + x, y_sum + y
            row.observe(x, for_row)
            column.observe(y, for_column)
        x, y = x_sum / rounds, y_sum / rounds
        gap = float((x @ matrix).amax() - (y @ matrix.T).amin())
        return gap, max(x_paid - float(x_total.amin()), y_paid - float(y_total.amin()))

    @pytest.mark.proof
    def test_optimism_makes_regret_constant(self):
        for rounds, known in ((100, 9.3e-3), (1000, 5.0e-4), (10_000, 5.0e-5)):
            gap, regret = self.gap(OptimisticFTRL, rounds)
            assert gap == pytest.approx(known, rel=0.05)
            assert regret < 1
        gap, regret = self.gap(FTRL, 10_000)
        assert gap == pytest.approx(1.4e-2, rel=0.05)
        assert regret == pytest.approx(69, rel=0.02)


class TestTheKiller:
    """Losses 0.5, -1, +1, -1, ... on [-1, 1]."""

    def regret(self, learner, rounds):
        total = paid = 0.0
        for t in range(rounds):
            g = 0.5 if t == 0 else (-1.0) ** t
            paid += g * float(learner.act())
            total += g
            learner.observe(learner.act(), torch.full((1, 1), g, dtype=torch.float64))
        return paid + abs(total)

    def test_following_the_leader_loses_every_round(self):
        # A rate beyond all measure is no regulariser.
        assert self.regret(FTRL(Euclidean(), Box(1), Constant(1e12)), 1000) == 1000 - 0.5

    def test_regularisation_does_not(self):
        for rounds in (10, 100, 1000):
            rate = math.sqrt(1 / (2 * rounds))
            assert self.regret(FTRL(Euclidean(), Box(1), Constant(rate)), rounds) <= math.sqrt(2 * rounds) + 1
