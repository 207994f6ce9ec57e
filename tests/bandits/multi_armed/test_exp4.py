"""Exp4: against plain loops, with advice known beforehand or shown each round; relations, bound, bad advice."""

import math

import pytest
import torch

from bandits import Exp3, Exp4, make
from bandits.multi_armed.exp4 import mixed_advice
from orbs import Philox, runs_last
from tests.bandits.multi_armed import reference_adversarial as plain
from tests.bandits.multi_armed.test_exp3 import HIGH, LOW, ROUNDS, table

K, N, HORIZON, RUNS = 4, 3, 300, 3
FACTS = {"domain": ("arms", {"dimension": K}), "arms": K, "reward_low": LOW, "reward_high": HIGH, "horizon": HORIZON}


def some_advice(*shape, seed=0):
    """(*shape, K) random distributions."""
    u = Philox(21, [seed]).uniform("tests/advice", 0, 1, math.prod(shape) * K, torch.float64).view(*shape, K)
    return u**2 / (u**2).sum(-1, keepdim=True)


@pytest.mark.parametrize("given", [{}, {"tuning": "anytime"}, {"exploration": 0.3}], ids=str)
@pytest.mark.parametrize("how", ["common", "a row a run", "shown", "shown to all"])
def test_plain_loops_say_the_same(how, given):
    rewards = table()
    fixed = {"common": some_advice(N), "a row a run": some_advice(RUNS, N)}.get(how)
    shown = some_advice(ROUNDS, RUNS, N) if how == "shown" else some_advice(ROUNDS, N)
    facts = {**FACTS, "advice": fixed} if fixed is not None else {**FACTS, "experts": N}
    learner, arms, chances = make("exp4", facts, runs=RUNS, **given), [], []
    for t in range(ROUNDS):
        arm = learner.act(None if fixed is not None else shown[t])
        chances.append(learner.probabilities.clone())
        learner.observe(arm, rewards[:, t].gather(1, arm.unsqueeze(1))[:, 0])
        arms.append(arm)
    arms, chances = torch.stack(arms, 1), torch.stack(chances, 1)

    def said(run):
        if fixed is not None:
            rows = (fixed if fixed.ndim == 2 else fixed[run]).tolist()
            return lambda t: rows
        return lambda t: (shown[t - 1] if shown.ndim == 3 else shown[t - 1, run]).tolist()

    for run in range(RUNS):
        own, p = plain.play(plain.Exp4(K, HORIZON, said(run), **given), "exp4", run, rewards[run].tolist(), LOW, HIGH)
        assert arms[run].tolist() == own
        torch.testing.assert_close(chances[run], torch.tensor(p, dtype=torch.float64), rtol=1e-9, atol=1e-12)


def test_mixed_advice_by_hand():
    weights = torch.tensor([[0.25, 0.75]], dtype=torch.float64)
    advice = torch.tensor([[1.0, 0.0], [0.2, 0.8]], dtype=torch.float64)
    for given in (advice, advice.unsqueeze(0)):
        assert mixed_advice(weights, given)[0].tolist() == pytest.approx([0.4, 0.6])
        assert mixed_advice(weights, given, 0.5)[0].tolist() == pytest.approx([0.45, 0.55])


def test_an_expert_an_arm_is_exp3():
    four, three = Exp4(K, 5, advice=torch.eye(K, dtype=torch.float64), horizon=100), Exp3(K, 5, horizon=100)
    for t in range(40):
        torch.testing.assert_close(four.probabilities, three.probabilities, rtol=0, atol=1e-14)
        arm = (torch.arange(5) + t * t) % K
        reward = 0.2 * arm.double()
        four.observe(arm, reward)
        three.observe(arm, reward)


def test_experts_losses_are_unbiased():
    """Exactly: the arm's probability times the estimate, summed over the arm that is played."""
    advice, x = some_advice(N), torch.tensor([0.9, 0.2, 0.5, 0.0], dtype=torch.float64)
    learner = Exp4(K, K, advice=advice, exploration=0.2)
    for arm in (0, 0, 1, 2, 0):
        learner.observe(torch.full((K,), arm), torch.full((K,), 0.1, dtype=torch.float64))
    p, before = learner.probabilities[0].clone(), learner.scores.clone()
    learner.observe(torch.arange(K), x)
    change = learner.scores - before
    expected = (p.unsqueeze(1) * (change - change[:, :1])).sum(0)
    right = -(advice * (1 - x)).sum(-1)
    torch.testing.assert_close(expected, right - right[0], rtol=0, atol=1e-12)


def test_regret_against_the_best_expert():
    """A good expert among many: mean regret below sqrt(2 T K ln N), its weight near 1; uniform play is above it."""
    rounds, runs, experts = 1500, 40, 20
    advice = some_advice(rounds, experts)
    good = torch.eye(K, dtype=torch.float64)[torch.arange(rounds) * 7 % K]
    advice[:, 5] = good
    learner = Exp4(K, runs, experts=experts, horizon=rounds)
    regret = 0.0
    for t in range(rounds):
        arm = learner.act(advice[t])
        reward = good[t][arm]
        learner.observe(arm, reward)
        regret += 1.0 - float(reward.mean())
    bound = math.sqrt(2 * rounds * K * math.log(experts))
    assert bound < 0.75 * rounds
    assert regret < bound
    assert (learner.weights[:, 5] > 0.9).all()


def test_shown_advice_is_neither_kept_nor_written():
    learner, other = (Exp4(K, 2, experts=N, horizon=50) for _ in range(2))
    for t in range(30):
        advice = runs_last(some_advice(2, N, seed=t))
        kept = advice.clone()
        arm = learner.act(advice)
        assert torch.equal(arm, learner.act(advice))
        assert torch.equal(advice, kept)
        advice.fill_(1 / K)
        reward = (arm == 1).double()
        learner.observe(arm, reward)
        assert torch.equal(arm, other.act(kept))
        other.observe(arm, reward)
    assert torch.equal(learner.scores, other.scores)


GOOD = some_advice(N)


@pytest.mark.parametrize(
    ("act", "said"),
    [
        (lambda: Exp4(K), r"experts: expected a whole number of at least 1, got None"),
        (
            lambda: Exp4(K, advice=GOOD[:, :-1]),
            r"context \(advice\): expected shape \(3, 4\) or \(1, 3, 4\), got shape",
        ),
        (lambda: Exp4(K, 2, advice=GOOD.expand(3, N, K)), r"context \(advice\): expected shape"),
        (
            lambda: Exp4(K, advice=2 * GOOD),
            r"context \(advice\): expected a distribution over arms of each expert, got",
        ),
        (lambda: Exp4(K, advice=GOOD - 0.3), r"context \(advice\): expected a distribution"),
        (lambda: Exp4(K, experts=N).act(), r"context \(advice\): expected \(3, 4\) a round, got none"),
        (lambda: Exp4(K, experts=N).act(GOOD[:-1]), r"context \(advice\): expected shape"),
        (lambda: Exp4(K, experts=N).act(GOOD * torch.nan), r"context \(advice\): expected a distribution"),
        (lambda: Exp4(K, experts=N, exploration=-0.1), r"exploration: expected a number in \[0, 1\], got -0.1"),
        (
            lambda: Exp4(K, experts=N).observe(torch.zeros(1, dtype=torch.int64), torch.zeros(1, dtype=torch.float64)),
            r"context \(advice\): expected advice for the round, got none. Fix: call act with it before observe",
        ),
        (lambda: make("exp4", FACTS), r"exp4: expected a problem with advice on arms .*, got one with"),
    ],
)
def test_bad_input_is_refused(act, said):
    with pytest.raises(ValueError, match=said):
        act()
