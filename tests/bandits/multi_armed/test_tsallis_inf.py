"""Tsallis-INF: weights, estimates, and in the proof tier the reference table and the corruption test."""

import math

import pytest
import torch

from bandits import TsallisINF
from bandits.arm_learner import sample
from bandits.multi_armed.tsallis_inf import reduced_variance_base
from envs.experts import Experts
from experiments.benchmarks import best_of_both_worlds as both

K = 4
X = torch.tensor([0.9, 0.2, 0.5, 0.0], dtype=torch.float64)


def test_weights_of_the_spec():
    """L = (0, 1, 2, 3) at eta = 1 (IW: round 4) and eta = 0.1 (round 400)."""
    learner = TsallisINF(4, 1, variant="iw")
    learner.losses += torch.arange(4.0, dtype=torch.float64)
    for t, golden in (
        (4, (0.464075416244, 0.258214217853, 0.164185153194, 0.113525212709)),
        (400, (0.269204600978, 0.255762262811, 0.243302186264, 0.231730949948)),
    ):
        learner._weigh(t)
        assert learner.probabilities[0].tolist() == pytest.approx(golden, abs=1e-11)
    learner.losses[:] = torch.tensor([0.0, 1e6, 1e6, 1e6])
    learner._weigh(4)
    assert learner.probabilities[0, 1:].tolist() == pytest.approx([4.0e-12] * 3, rel=1e-5)


def test_rates():
    assert [TsallisINF(3, variant=variant).rate_at(25) for variant in ("iw", "rv")] == [0.4, 0.8]
    p = torch.tensor([[0.5625, 0.5624, 0.1]], dtype=torch.float64)
    assert reduced_variance_base(p, 0.75).tolist() == [[0.5, 0.0, 0.0]]  # 0.75^2 = 0.5625, exactly
    assert reduced_variance_base(p, 0.74).tolist() == [[0.5, 0.5, 0.0]]


@pytest.mark.parametrize("rounds", [9, 200])
@pytest.mark.parametrize("variant", ["iw", "rv"])
def test_estimates_are_unbiased(variant, rounds):
    """Exactly, before and after the first baselines (rv, from round 16 on)."""
    learner = TsallisINF(K, K, variant=variant)
    for u in torch.rand(rounds, 1, generator=torch.Generator().manual_seed(3)):
        arm = int(sample(learner.probabilities[:1], u))
        learner.observe(torch.full((K,), arm), torch.full((K,), (0.8, 0.9, 0.8, 0.7)[arm], dtype=torch.float64))
    p, before = learner.probabilities[0].clone(), learner.losses.clone()
    based = reduced_variance_base(p, learner.rate_at(rounds + 1)) > 0
    assert p.std() > 0.01
    assert (p > 1e-3).all()
    assert based.any() == (rounds == 200)
    learner.observe(torch.arange(K), X)
    change = learner.losses - before
    expected = (p.unsqueeze(1) * (change - change[:, :1])).sum(0)
    torch.testing.assert_close(expected, X[0] - X, rtol=0, atol=1e-11)


def test_reduced_variance_has_less():
    """The mean square of an estimate of a likely arm, loss 0.6: p (B + (l - B)/p)^2 + (1 - p) B^2 - l^2."""
    spreads = {}
    for variant in ("iw", "rv"):
        learner = TsallisINF(2, 2, variant=variant)
        for _ in range(30):
            learner.observe(torch.zeros(2, dtype=torch.int64), torch.full((2,), 0.4, dtype=torch.float64))
            learner.observe(torch.ones(2, dtype=torch.int64), torch.full((2,), 0.4, dtype=torch.float64))
        p, before = learner.probabilities[0].clone(), learner.losses.clone()
        learner.observe(torch.arange(2), torch.full((2,), 0.4, dtype=torch.float64))
        change = learner.losses - before
        gap = change[:, 0] - change[:, 1]
        spreads[variant] = float((p * gap * gap).sum())
    assert spreads["rv"] < 0.2 * spreads["iw"]


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match=r"variant: expected 'rv' or 'iw', got 'w'"):
        TsallisINF(3, variant="w")
    with pytest.raises(ValueError, match=r"reward range: expected finite"):
        TsallisINF(3, low=-math.inf)


@pytest.mark.proof
def test_reference_table():
    """ftrl.md section 6 within 10 %, UCB1 on the constrained adversary within 15 %; 200 runs."""
    points, regrets = both.play(200, 30_000)
    table = both.tabulate(points, regrets)
    shown = table[table["reference"].notna()]
    assert len(shown) == 24
    for line in shown.to_dict("records"):
        loose = line["learner"] == "UCB1" and line["environment"] == "constrained"
        assert abs(line["ratio"] - 1) < (0.15 if loose else 0.1), line
    last = table[table["round"] == 30_000].set_index(["environment", "learner"])["mean"]
    assert last["constrained", "UCB1"] > 4 * last["constrained", "Tsallis-INF (IW)"]


class Corrupted(Experts):
    """The best arm, the last, loses 1 in each of the first 2000 rounds; regret is of the means as they were."""

    def _draw(self, first, rounds):
        losses, mean = super()._draw(first, rounds)
        losses[:, : max(0, 2000 - first), -1] = 1.0
        return losses, mean


@pytest.mark.proof
@pytest.mark.parametrize("variant", ["iw", "rv"])
def test_corruption_costs_its_root(variant):
    """2000 corrupted rounds of 20 000, K = 8, gap 0.1: more regret by O(sqrt(C ln T sum 1/gap)) + O(C gap)."""
    horizon, corrupted, runs = 20_000, 2000, 100
    worlds = [kind(8, horizon, runs, kind="bernoulli", feedback="bandit", gap=0.1) for kind in (Experts, Corrupted)]
    learner = TsallisINF(8, 2 * runs, low=-1.0, high=0.0, variant=variant)
    curves = {type(world): [] for world in worlds}
    for t in range(horizon):
        arm = learner.act()
        parts = zip(worlds, arm.split(runs), strict=True)
        learner.observe(arm, torch.cat([world.step(part)[1] for world, part in parts]))
        if (t + 1) % 2000 == 0:
            for world in worlds:
                curves[type(world)].append(float(world.regret()["regret/static"].mean()))
    increase = curves[Corrupted][-1] - curves[Experts][-1]
    assert 0 < increase <= math.sqrt(corrupted * math.log(horizon) * 7 / 0.1) + corrupted * 0.1
    steps = [later - sooner for sooner, later in zip(curves[Corrupted], curves[Corrupted][1:], strict=False)]
    assert steps[-1] < 0.35 * steps[0], steps  # linear at first, then no longer
