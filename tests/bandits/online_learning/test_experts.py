"""Weighted majority and the perturbed leader: goldens, what they equal, what their noise is, bounds, bad input."""

import math

import pytest
import torch

from bandits import FPL, make
from bandits.online_learning import Ball, Simplex, weighted_majority
from orbs import Philox
from tests.bandits.online_learning.problems import SIMPLEX, built

K = 4


def test_weighted_majority_by_hand():
    """eps = 0.3: weights 0.7^c of losses 0, 1 and 2 in all."""
    learner = weighted_majority(Simplex(3), 0.3)
    for losses in ([0.0, 1.0, 1.0], [0.0, 0.0, 1.0]):
        learner.observe(learner.act(), torch.tensor([losses], dtype=torch.float64))
    total = 1 + 0.7 + 0.49
    assert learner.act()[0].tolist() == pytest.approx([1 / total, 0.7 / total, 0.49 / total], abs=1e-14)


def test_weighted_majority_of_the_facts():
    """eps = sqrt(ln K / (3 T)); the range of losses is 3 wide; its bound is that of a rate -ln(1 - eps)."""
    epsilon = math.sqrt(math.log(K) / 1200)
    learner, losses = built("weighted-majority"), torch.tensor([[2.0, -1.0, 0.5, 0.5]], dtype=torch.float64)
    learner.observe(learner.act(), losses)
    raw = [(1 - epsilon) ** ((float(c) + 1) / 3) for c in losses[0]]
    assert learner.act()[0].tolist() == pytest.approx([w / sum(raw) for w in raw], abs=1e-14)
    rate = -math.log(1 - epsilon)
    assert float(learner.regret_bound()) == pytest.approx(3 * (math.log(K) / rate + rate / 8))
    # After T rounds below the book's 2 sqrt(3) sqrt(T ln K), in units of the range.
    learner.rounds = 400
    assert float(learner.regret_bound()) < 3 * 2 * math.sqrt(3 * 400 * math.log(K))
    assert float(built("weighted-majority", horizon=1).regret_bound() or 0.0) == 0.0
    short = built("weighted-majority", horizon=1)
    short.observe(short.act(), losses)
    assert short.act()[0, 1] / short.act()[0, 0] == pytest.approx(2.0)  # eps = 1/2 at most


def noise(runs, round, seed=0):
    return 2 * Philox(seed, range(runs)).uniform("fpl/perturbation", round, 1, K, torch.float64)[:, 0] - 1


@pytest.mark.parametrize("draw", ["round", "once"])
def test_the_leader_is_that_of_losses_and_noise(draw):
    runs, learner = 50, FPL(Simplex(K), 0.2, draw, runs=50)
    total, changes, before = torch.zeros(runs, K, dtype=torch.float64), 0, None
    for t in range(40):
        point = learner.act()
        z = noise(runs, 0 if draw == "once" else t) / 0.2
        assert torch.equal(point, torch.nn.functional.one_hot((total + z).argmin(-1), K).double())
        changes += 0 if before is None else int((point != before).any(-1).sum())
        losses = torch.full((runs, K), 0.5, dtype=torch.float64)
        learner.observe(point, losses)
        total += losses
        before = point.clone()
    # Equal losses move nothing: only new noise does.
    assert changes == 0 if draw == "once" else changes > 1000


def test_noise_is_uniform_between_both_ends():
    """At the losses (0, 1): the first arm leads unless Z_1 - Z_2 > 1, by (2 - eps)^2 / 8 of cases."""
    runs, epsilon = 40_000, 0.5
    learner = FPL(Simplex(2), epsilon, runs=runs)
    learner.observe(learner.act(), torch.tensor([0.0, 1.0], dtype=torch.float64).expand(runs, 2))
    second = float(learner.act()[:, 1].mean())
    right = (2 - epsilon) ** 2 / 8
    assert abs(second - right) < 4 * math.sqrt(right * (1 - right) / runs)


def test_a_seed_is_a_stream_of_its_own():
    points = [make("fpl", SIMPLEX, runs=200, seed=seed).act() for seed in (0, 0, 1)]
    assert torch.equal(points[0], points[1])
    assert not torch.equal(points[0], points[2])


@pytest.mark.parametrize("draw", ["round", "once"])
def test_expected_regret_is_below_the_bound(draw):
    """2 w sqrt(K T) on sequences that know neither noise nor play, and on the follow-the-leader killer."""
    rounds, runs = 900, 100
    facts = {**SIMPLEX, "horizon": rounds, "loss_low": 0.0, "loss_high": 1.0}
    bound = 2 * math.sqrt(K * rounds)

    def sequence(kind, t):
        loss = torch.zeros(K, dtype=torch.float64)
        if kind == "killer":
            loss[t % 2], loss[2:] = (0.5 if t == 0 else 1.0), 1.0
        else:
            loss[:-1] = 1.0 if t >= rounds // 3 else 0.0
            loss[-1] = 0.0 if t >= rounds // 3 else 1.0
        return loss

    for kind in ("killer", "late"):
        learner, paid, total = make("fpl", facts, runs=runs, draw=draw), 0.0, torch.zeros(K, dtype=torch.float64)
        for t in range(rounds):
            x, loss = learner.act(), sequence(kind, t)
            paid += float((x @ loss).mean())
            total += loss
            learner.observe(x, loss.expand(runs, K))
        regret = paid - float(total.min())
        assert regret <= bound, (kind, regret)
    # What the leader without noise pays on the killer: every round but the first.
    leader, total, paid = 0, torch.zeros(K, dtype=torch.float64), 0.0
    for t in range(rounds):
        leader = int(total.argmin())
        paid += float(sequence("killer", t)[leader])
        total += sequence("killer", t)
    assert paid - float(total.min()) > 3 * bound


@pytest.mark.parametrize(
    ("make_it", "said"),
    [
        (lambda: FPL(Ball(3), 0.1), r"domain: expected a simplex, got Ball"),
        (lambda: FPL(Simplex(3), 0.0), r"epsilon: expected a finite number above 0, got 0.0"),
        (lambda: FPL(Simplex(3), 0.1, "twice"), r"draw: expected 'round' or 'once', got 'twice'"),
        (lambda: weighted_majority(Simplex(3), 1.0), r"epsilon: expected a number in \(0, 1\), got 1.0"),
        (lambda: make("fpl", {**SIMPLEX, "domain": ("ball", {"dimension": 4})}), r"fpl: domain: expected a simplex"),
        (
            lambda: make("weighted-majority", {**SIMPLEX, "domain": ("simplex", {"dimension": 4, "total": 2.0})}),
            r"weighted-majority: domain: expected a simplex of total 1",
        ),
        (lambda: make("fpl", {**SIMPLEX, "loss_low": None}), r"fpl: expected a problem with a range of losses"),
    ],
)
def test_bad_input_is_refused(make_it, said):
    with pytest.raises(ValueError, match=said):
        make_it()
