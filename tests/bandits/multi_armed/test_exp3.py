"""Exp3 and its kin: constants, every algorithm against plain loops, estimates in expectation, bounds, limits."""

import math

import pytest
import torch

from bandits import Exp3, Exp3Auer, Exp3IX, Exp3P, Exp3S, Rexp3, make
from bandits.multi_armed.exp3 import auer_exploration, exp3p_bound, exp3p_rates, loss_rate, rexp3_epoch
from bandits.multi_armed.weighted_arms import exponential_weights
from orbs import Philox
from tests.bandits.multi_armed import reference_adversarial as plain

K, HORIZON, ROUNDS, RUNS = 4, 300, 200, 3
LOW, HIGH = -1.0, 2.0
FACTS = {"domain": ("arms", {"dimension": K}), "arms": K, "reward_low": LOW, "reward_high": HIGH, "horizon": HORIZON}
CASES = [
    ("exp3", {}, plain.Exp3),
    ("exp3", {"tuning": "horizon"}, plain.Exp3),
    ("exp3", {"rate": 0.3}, plain.Exp3),
    ("exp3-auer", {}, plain.Exp3Auer),
    ("exp3-auer", {"exploration": 0.4}, plain.Exp3Auer),
    ("exp3-ix", {}, lambda k, horizon: plain.Exp3(k, horizon, None, "horizon", True)),
    ("exp3-ix", {"tuning": "anytime"}, lambda k, horizon, tuning: plain.Exp3(k, horizon, None, tuning, True)),
    ("exp3-ix", {"rate": 0.3}, lambda k, horizon, rate: plain.Exp3(k, horizon, rate, implicit=True)),
    ("exp3-p", {}, plain.Exp3P),
    ("exp3-p", {"delta": 0.5}, plain.Exp3P),
    ("exp3-s", {}, plain.Exp3S),
    ("exp3-s", {"segments": 3}, plain.Exp3S),
    ("rexp3", {}, plain.Rexp3),
    ("rexp3", {"variation": 12.0}, plain.Rexp3),
    ("tsallis-inf", {}, plain.TsallisINF),
    ("tsallis-inf", {"variant": "iw"}, plain.TsallisINF),
]


def table(rounds=ROUNDS, arms=K, runs=RUNS, low=LOW, high=HIGH):
    """(R, rounds, K) rewards over the whole range; the last arm is best, in the second half the first."""
    u = Philox(5, range(runs)).uniform("tests/table", 0, rounds, arms, torch.float64).clone()
    u[:, : rounds // 2, -1] = u[:, : rounds // 2, -1].sqrt()
    u[:, rounds // 2 :, 0] = u[:, rounds // 2 :, 0].sqrt()
    u[:, 3:6] = torch.tensor([0.0, 1.0]).repeat_interleave(2)[:arms]  # the ends too
    return low + (high - low) * u


@pytest.mark.parametrize(
    ("name", "given", "reference"), CASES, ids=lambda value: getattr(value, "__name__", str(value))
)
def test_plain_loops_say_the_same(name, given, reference):
    rewards, learner = table(), make(name, FACTS, runs=RUNS, **given)
    arms, chances = [], []
    for t in range(ROUNDS):
        chances.append(learner.probabilities.clone())
        arm = learner.act()
        learner.observe(arm, rewards[:, t].gather(1, arm.unsqueeze(1))[:, 0])
        arms.append(arm)
    arms, chances = torch.stack(arms, 1), torch.stack(chances, 1)
    assert (chances.amax((1, 2)) > 0.28).all()  # something was learned
    for run in range(RUNS):
        own, p = plain.play(reference(K, HORIZON, **given), name, run, rewards[run].tolist(), LOW, HIGH)
        assert arms[run].tolist() == own
        torch.testing.assert_close(chances[run], torch.tensor(p, dtype=torch.float64), rtol=1e-7, atol=1e-11)


def test_goldens_of_exp3p():
    """K = 5, T = 10^4, delta = 0.05."""
    assert exp3p_rates(5, 10**4, 0.05) == pytest.approx((0.009597051824, 0.005389838061, 0.029785947177), abs=1e-12)
    assert exp3p_bound(5, 10**4, 0.05) == pytest.approx(2471.24, abs=5e-3)
    learner = Exp3P(5, horizon=10**4, delta=0.05)
    assert (learner.bonus, learner.rate, learner.exploration) == exp3p_rates(5, 10**4, 0.05)


def test_rates_by_hand():
    assert loss_rate(8, 8, 100, None) == pytest.approx(math.sqrt(math.log(8) / 800))
    assert loss_rate(8, 8, 100, 50) == pytest.approx(math.sqrt(2 * math.log(8) / 400))
    assert loss_rate(8, 3, 7, None) == pytest.approx(math.sqrt(math.log(3) / 56))
    assert auer_exploration(10, 1000) == pytest.approx(math.sqrt(10 * math.log(10) / (1000 * (math.e - 1))))
    assert auer_exploration(10, 5) == 1.0
    # (10 ln 10)^(1/3) (1000 / 4)^(2/3) = 2.8450 * 39.685 = 112.9
    assert rexp3_epoch(10, 1000, 4.0) == 113
    assert rexp3_epoch(1, 1000, 4.0) == 1
    assert rexp3_epoch(10, 30, 1e-3) == 30
    given = make("exp3-s", {**FACTS, "arms": 10, "horizon": 1000}, segments=4)
    assert given.exploration == pytest.approx(math.sqrt(10 * (4 * math.log(1e4) + math.e) / ((math.e - 1) * 1000)))
    assert given.share == 1e-3
    assert Exp3S(10, horizon=1000).exploration == pytest.approx(math.sqrt(10 * math.log(1e4) / 1000))


def test_exponential_weights_by_hand():
    scores = torch.tensor([[1e8, 1e8 - math.log(3) / 0.5, -1e300]], dtype=torch.float64)
    weights = exponential_weights(scores, 0.5)
    torch.testing.assert_close(weights, torch.tensor([[0.75, 0.25, 0.0]], dtype=torch.float64), rtol=1e-7, atol=0)
    assert scores.max() == 0.0


def moved(learner, state, x):
    """(K, K) what playing each arm once, from the same state, adds to `scores`, arm by arm; relative to the first."""
    learner.load_state_dict(state)
    before = learner.scores.clone()
    learner.observe(torch.arange(K), x)
    change = learner.scores - before
    return change - change[:, :1]


def uneven(learner):
    """Brings all runs into one state with uneven probabilities, and returns it."""
    for arm in (0, 0, 1, 2, 1, 3):
        learner.observe(torch.full((K,), arm), torch.full((K,), 0.4 + 0.1 * arm, dtype=torch.float64))
    p = learner.probabilities
    assert (p.std(-1) > 0.003).all()
    assert (p > 0.02).all()
    return learner.state_dict()


X = torch.tensor([0.9, 0.2, 0.5, 0.0], dtype=torch.float64)


@pytest.mark.parametrize("kind", [Exp3, Exp3Auer], ids=lambda kind: kind.__name__)
def test_estimates_are_unbiased(kind):
    """Exactly: sum over the arm that is played of its probability times the estimate."""
    learner = kind(K, K, **({"rate": 0.1} if kind is Exp3 else {"exploration": 0.5}))
    state = uneven(learner)
    p = learner.probabilities[0].clone()
    expected = (p.unsqueeze(1) * moved(learner, state, X)).sum(0)
    torch.testing.assert_close(expected, X - X[0], rtol=0, atol=1e-12)


def test_estimates_of_exp3p_are_too_high_by_exactly_b_over_p():
    learner = Exp3P(K, K, horizon=200)
    state = uneven(learner)
    p = learner.probabilities[0].clone()
    expected = (p.unsqueeze(1) * moved(learner, state, X)).sum(0)
    high = X + learner.bonus / p
    torch.testing.assert_close(expected, high - high[0], rtol=0, atol=1e-12)


def test_losses_of_exp3ix_are_too_low_by_the_implicit_exploration():
    learner = Exp3IX(K, K, rate=0.1)
    state = uneven(learner)
    p = learner.probabilities[0].clone()
    expected = (p.unsqueeze(1) * moved(learner, state, X)).sum(0)
    low = -(1 - X) * p / (p + 0.05)
    torch.testing.assert_close(expected, low - low[0], rtol=0, atol=1e-12)


def test_arms_are_drawn_with_their_probabilities():
    runs = 100_000
    learner = Exp3(3, runs, rate=0.5)
    for arm in (0, 0, 1):
        learner.observe(torch.full((runs,), arm), torch.full((runs,), 0.3, dtype=torch.float64))
    p = learner.probabilities[0]
    counts = torch.bincount(learner.act(), minlength=3) / runs
    assert ((counts - p).abs() < 4 * (p * (1 - p) / runs).sqrt()).all()
    arm = learner.act()
    estimate = (0.7 / p[arm]) * (arm == 1)
    assert abs(float(estimate.mean()) - 0.7) < 4 * float(estimate.std()) / math.sqrt(runs)


def adversaries(rounds, arms):
    """Names and functions (t from 0, probabilities (R, K)) -> rewards (R, K) of 0 and 1."""
    best = torch.eye(arms, dtype=torch.float64)

    def one_good(t, p):
        return best[-1].expand_as(p)

    def turns(t, p):
        return best[0 if t >= rounds // 2 else arms - 1].expand_as(p)

    def alternating(t, p):
        return best[[0, 0, 0, 1, 2][t % 5]].expand_as(p)

    def against_the_favourite(t, p):
        return 1.0 - best[p.max(-1).indices]

    return {f.__name__: f for f in (one_good, turns, alternating, against_the_favourite)}


@pytest.mark.parametrize("name", ["exp3", "exp3-auer", "exp3-ix", "exp3-p", "tsallis-inf", "tsallis-inf-iw"])
def test_regret_bounds(name):
    """Against the best arm in hindsight: of the mean, for exp3-p and exp3-ix of all runs but a share delta.

    Every adversary meets a block of the runs.
    """
    arms, rounds, each, delta = 5, 1000, 40, 0.05
    facts = {**FACTS, "arms": arms, "horizon": rounds, "reward_low": 0.0, "reward_high": 1.0}
    given = {"variant": "iw"} if name.endswith("-iw") else {"delta": delta} if name == "exp3-p" else {}
    against = adversaries(rounds, arms)
    runs = each * len(against)
    learner = make(name.removesuffix("-iw"), facts, runs=runs, **given)
    sums, got = torch.zeros(runs, arms, dtype=torch.float64), torch.zeros(runs, dtype=torch.float64)
    for t in range(rounds):
        parts = zip(against.values(), learner.probabilities.split(each), strict=True)
        x = torch.cat([adversary(t, p) for adversary, p in parts])
        arm = learner.act()
        own = x.gather(1, arm.unsqueeze(1))[:, 0]
        learner.observe(arm, own)
        sums += x
        got += own
    regret = (sums.amax(-1) - got).view(len(against), each)
    root, log = math.sqrt(arms * rounds), math.log(arms)
    bound = {
        "exp3": 2 * root * math.sqrt(log),
        "exp3-auer": 2 * math.sqrt(math.e - 1) * root * math.sqrt(log),
        "exp3-ix": 2 * root * math.sqrt(2 * log) + (root * math.sqrt(2 / log) + 1) * math.log(2 / delta),
        "exp3-p": exp3p_bound(arms, rounds, delta),
        "tsallis-inf": 2 * root + 10 * arms * math.log(rounds) + 16,
        "tsallis-inf-iw": 4 * root + 1,
    }[name]
    assert bound < 0.8 * rounds  # what uniform play loses against one good arm
    if name in ("exp3-p", "exp3-ix"):
        assert ((regret > bound).double().mean(-1) <= delta).all(), regret.amax(-1)
    else:
        assert (regret.mean(-1) <= bound).all(), regret.mean(-1)


def test_exp3s_and_rexp3_follow_a_best_arm_that_changes():
    """Four stretches of 500 rounds, the best arm 1, the others 0: in the last, Exp3 has not yet come round."""
    rounds, late = 2000, {}
    facts = {**FACTS, "horizon": rounds, "reward_low": 0.0, "reward_high": 1.0}
    for name, given in (("exp3-s", {"segments": 4}), ("rexp3", {"variation": 4.0}), ("exp3-auer", {})):
        learner, got = make(name, facts, runs=30, **given), 0.0
        for t in range(rounds):
            arm = learner.act()
            reward = (arm == [0, 1, 2, 3][t // 500]).double()
            learner.observe(arm, reward)
            got += float(reward.mean()) if t >= 1500 else 0.0
        late[name] = got / 500
    assert late["exp3-auer"] < 0.4
    assert late["exp3-s"] > 0.6
    assert late["rexp3"] > 0.5


@pytest.mark.parametrize("name", ["exp3", "exp3-auer", "exp3-ix", "exp3-p", "exp3-s", "rexp3", "tsallis-inf"])
def test_arms_that_somebody_else_chose_are_harmless(name):
    """An arm of no chance is played, its estimate is as large as any can be; probabilities stay distributions."""
    learner = make(name, {**FACTS, "horizon": 100_000, "reward_low": 0.0, "reward_high": 1.0}, runs=2)
    bad = torch.tensor([0, 1])
    for _ in range(400):
        learner.observe(bad, torch.tensor([0.0, 1.0], dtype=torch.float64))
    assert learner.finite().all()
    p = learner.probabilities
    torch.testing.assert_close(p.sum(-1), torch.ones(2, dtype=torch.float64), rtol=0, atol=1e-12)
    assert p[0, 0] <= 0.25 + 1e-12
    assert p[1, 1] >= 0.25 - 1e-12
    assert p[0, 0] < 0.24 or p[1, 1] > 0.26
    for _ in range(20):
        arm = learner.act()
        learner.observe(arm, (arm == 2).double())
    assert torch.isfinite(learner.probabilities).all()


@pytest.mark.parametrize(
    ("make_it", "said"),
    [
        (lambda: Exp3(3, rate=0.0), r"rate: expected a number in \(0, inf\), got 0.0"),
        (lambda: Exp3(3, horizon=0), r"horizon: expected a whole number of at least 1, got 0"),
        (lambda: Exp3(3, low=0.0, high=math.inf), r"reward range: expected finite, low below high, got \[0.0, inf\]"),
        (lambda: Exp3(3, low=1.0, high=1.0), r"reward range: expected finite, low below high"),
        (lambda: Exp3(0), r"arms: expected a whole number of at least 1, got 0"),
        (lambda: Exp3Auer(3), r"horizon: expected a whole number of at least 1, got None"),
        (lambda: Exp3Auer(3, exploration=1.5), r"exploration: expected a number in \[0, 1\], got 1.5"),
        (lambda: Exp3IX(3, rate=-1.0), r"rate: expected a number in \(0, inf\), got -1.0"),
        (lambda: Exp3P(3, horizon=10, delta=1.0), r"delta: expected a number in \(0, 1\), got 1.0"),
        (lambda: Exp3P(3, horizon=2.5), r"horizon: expected a whole number of at least 1, got 2.5"),
        (lambda: Exp3S(3, horizon=10, segments=0), r"segments: expected a number in \[1, inf\), got 0"),
        (lambda: Rexp3(3, horizon=10, variation=0.0), r"variation: expected a number in \(0, inf\), got 0.0"),
        (
            lambda: make("exp3", {"arms": 3, "noise": 1.0}),
            r"exp3: expected a problem whose rewards have a range .*got ",
        ),
        (lambda: make("exp3-p", {**FACTS, "horizon": None}), r"exp3-p: expected a problem with horizon, got one with"),
    ],
)
def test_bad_input_is_refused(make_it, said):
    with pytest.raises(ValueError, match=said):
        make_it()


@pytest.mark.proof
def test_regret_of_exp3_grows_as_the_root_of_the_horizon():
    """Catalogue section 11.2: the worst gap of each horizon, rates tuned to it; slope 1/2 in T."""
    from envs.multi_armed_bandit import MultiArmedBandit

    found = {}
    for horizon in (1000, 10_000):
        world = MultiArmedBandit(10, horizon, 400, gap=math.sqrt(10 * math.log(10) / horizon))
        learner = make("exp3", world.facts, runs=400, tuning="horizon")
        for _ in range(horizon):
            arm = learner.act()
            learner.observe(arm, world.step(arm)[4]["feedback"])
        found[horizon] = float(world.regret()["regret/pseudo"].mean())
    slope = math.log10(found[10_000] / found[1000])
    assert abs(slope - 0.5) < 0.05, found
    assert found[10_000] <= math.sqrt(2 * 10_000 * 10 * math.log(10))
