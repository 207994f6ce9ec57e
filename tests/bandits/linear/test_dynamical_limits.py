"""What learners of the dynamical linear bandit must show: limits, golden values, coverage, bad input, resumes; in the
long tier the reference's regrets, and jumps that have the law of steps."""

import dataclasses
import math

import numpy as np
import pytest
import torch

import bandits
from bandits.linear.ar2 import AR2
from bandits.linear.arrays import first_best
from bandits.linear.dyn_lin_ucb import DynLinUCB
from bandits.linear.dynamical_exp3 import DynamicalExp3, batch_length
from bandits.linear.dynamical_lin_ucb import DynamicalLinUCB, ExperimentFacts
from bandits.linear.dynamics import Epochs, epochs_within
from envs.dynamical_linear_bandit import DynamicalLinearBandit, epoch_law
from envs.linear_system import LinearSystem
from tests.bandits.linear import reference_dynamical as plain
from tests.bandits.linear.dynamical import SYSTEMS, dynamics_in, jumped, known, pseudo, stepped

# Golden values (spec, section 9, item 3): no noise in the world, 0.01 in the radius, the first action is 0.

GOLDEN = [
    ("synthetic", 1000, "0 5 1 2 3 1 5 4 3 0 4 3 1 2 5 3 0 4 3 1", 139.1666666667, 139.3611111111,
     (0.52306345, 0.50136776, 0.12314079)),
    ("synthetic", 10_000, "0 5 1 2 3 1 5 4 3 0 3 4 1 2 5 3 1 5 2 1", 704.6875, 706.8194444444,
     (0.55557769, 0.50189247, 0.11280237)),
    ("advertising", 1000, "0 5 1 4 2 3 0 5 1 4 3 2 4 1 5 2 1 5 2 3", 138.158179795, 138.078016218,
     (0.20612922, -0.01032749, 0.10200375)),
    ("advertising", 10_000, None, 1309.879467158, 1309.673299730, (0.24244044, -0.03128673, 0.10592748)),
]  # fmt: skip


@pytest.mark.parametrize(("system", "horizon", "arms", "regret", "late", "h"), GOLDEN)
def test_golden_paths_without_noise(system, horizon, arms, regret, late, h):
    s, played = plain.plant(system, 0.01), []
    for offset, wanted in ((False, regret), (True, late)):
        world = DynamicalLinearBandit(system, horizon, 1, noise=0.0)
        learner = DynLinUCB(s.actions, known(s), horizon, first_action=0, replicate_offset=offset)
        jumped(learner, world, seen=lambda arm, *_: played.append(int(arm[0])))
        assert float(pseudo(world)[0]) == pytest.approx(wanted, abs=2e-9)
        if not offset:
            np.testing.assert_allclose(learner.estimate[0].numpy(), h, atol=2e-8)
            assert arms is None or played[:20] == [int(arm) for arm in arms.split()]


def test_an_exact_tie_goes_to_the_lowest_arm_however_the_actions_are_turned():
    """After 0 and 5, actions 1 and 2 tie; each rotation of the space rounds their scores differently."""
    s, rng = plain.plant("synthetic", 0.01), np.random.default_rng(3)
    for _ in range(20):
        turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
        learner = DynLinUCB(s.actions @ turn, known(s), 1000, first_action=0)
        for arm, reward in ((0, 0.35), (5, 0.26)):
            assert learner.act().tolist() == [arm]
            learner.observe(learner.act(), torch.tensor([reward], dtype=torch.float64))
        assert learner.act().tolist() == [1]


@pytest.mark.parametrize("kind", [np.asarray, torch.as_tensor])
def test_the_lowest_of_the_best(kind):
    """Within 1e-10, relative to what is larger than 1."""
    columns = [[1.0, 1 + 1e-12, 1 - 1e-12], [-2e6, -1e6 - 2e-5, -1e6], [0, 0, 1e-9], [0.5, 3.0, 3.0], [0, 0, 5e-11]]
    scores = kind(np.array(columns).T)
    assert np.asarray(first_best(scores, 1e-10)).tolist() == [0, 1, 2, 1, 0]
    assert np.asarray(first_best(scores)).tolist() == [1, 2, 2, 1, 2]


def test_the_two_ways_to_play_give_the_same_without_noise():
    s = plain.plant("advertising", 0.01)
    worlds = [DynamicalLinearBandit("advertising", 700, 2, noise=0.0) for _ in range(2)]
    learners = [DynLinUCB(s.actions, known(s), 700, runs=2, seed=3) for _ in range(2)]
    stepped(learners[0], worlds[0])
    jumped(learners[1], worlds[1])
    for name, value in learners[0].state_dict().items():
        torch.testing.assert_close(value, learners[1].state_dict()[name], rtol=1e-12, atol=1e-12)
    for name, value in worlds[0].regret().items():
        torch.testing.assert_close(value, worlds[1].regret()[name], rtol=1e-11, atol=1e-11)


# Schedule and constants (sections 5.1, 5.2, 6, 7).


@pytest.mark.parametrize(
    ("rho", "ends"),
    [
        (0.2, [1, 2, 3, 4, *range(6, 46, 2), 47, 50, 53]),
        (0.6668913423, [1, 3, 6, 10, 14, 19, 24, 30, 36, 42, 48, 55, 62]),
        (0.0, list(range(1, 20))),
        (0.99e-4, list(range(1, 20))),
    ],
)
def test_epochs_end_where_they_should(rho, ends):
    epochs, found = Epochs(rho), []
    for _ in ends:
        found.append(epochs.end)
        epochs.advance()
    assert found == ends


@pytest.mark.parametrize("rho", [0.5, 0.2, 0.1, 1 / 3, 0.9, 1e-3])
def test_powers_of_the_radius_are_not_missed_by_rounding(rho):
    epochs = Epochs(rho)
    for m in range(1, 3000):
        assert epochs.end - epochs.start == 1 + plain.held(m, rho), m
        epochs.advance()


@pytest.mark.parametrize(
    ("rho", "counts"), [(0.2, {10**4: 2156, 10**5: 17075}), (0.6668913423, {10**4: 704, 10**5: 5221, 10**6: 41212})]
)
def test_so_many_epochs_cover_the_horizon(rho, counts):
    for horizon, count in counts.items():
        assert epochs_within(rho, horizon) == count
        assert epochs_within(rho, 1) == 1


@pytest.mark.parametrize("first", [0, 1])
def test_seeking_finds_the_epoch_of_every_round(first):
    stepping, seeking = Epochs(0.4, first), Epochs(0.4, first)
    for rounds in range(200):
        while stepping.end <= rounds:
            stepping.advance()
        seeking.seek(rounds)
        assert vars(seeking) == vars(stepping)


@pytest.mark.parametrize(
    ("system", "c_a", "c_b", "sb2", "size"),
    [
        ("synthetic", 1.07520746, 2.27692495, 2.05208333, 1.2021185),
        ("advertising", 2.4427235, 9.03783825, 6.441368, 1.2902751),
    ],
)
def test_constants_of_the_paper_s_systems(system, c_a, c_b, sb2, size):
    for dynamics in (known(plain.plant(system, 1.0)), dynamics_in(DynamicalLinearBandit(system, noise=1.0))):
        found = dynamics.gain, dynamics.transient_gain, dynamics.variance, dynamics.reward_size
        np.testing.assert_allclose(found, (c_a, c_b, sb2, size), rtol=2e-7)


@pytest.mark.parametrize(("rho", "at_1e4", "at_1e6"), [(0.2, 5, 8), (0.6668913423, 17, 27)])
def test_batch_lengths(rho, at_1e4, at_1e6):
    assert (batch_length(rho, 10**4), batch_length(rho, 10**6)) == (at_1e4, at_1e6)
    assert batch_length(0.0, 10**6) == batch_length(rho, 1) == 1


def test_the_constants_of_exp3_and_ar2():
    s = plain.plant("synthetic", 0.1)
    exp3 = DynamicalExp3(6, known(s), 10**6)
    np.testing.assert_allclose((exp3.gamma, exp3.eta), (0.00306347, 0.00051058), atol=5e-9)
    assert DynamicalExp3(6, known(s), 1).gamma == 1.0
    assert AR2(6, s.rho, 0.1).epoch in (750_000, 750_001)  # 6 / 0.02^3, as it is rounded
    real = plain.plant("advertising", 0.01)
    assert AR2(6, real.rho, 0.01).epoch == 20_229_541


# Item 2: nothing that lasts, nothing to wait for.


def memoryless(kind):
    s = plain.plant("synthetic", 0.1)
    parts = {key: np.array(rows, dtype=float) for key, rows in plain.MATRICES["synthetic"].items()}
    parts["C" if kind == "omega" else kind] = np.zeros((3, 3))
    return LinearSystem(**parts, actions=s.actions, noise=0.1)


@pytest.mark.parametrize("kind", ["A", "B", "omega"])
@pytest.mark.parametrize("tuning", ["dynamic", "log"])
def test_with_radius_zero_it_is_lin_ucb(kind, tuning):
    if tuning == "log" and kind != "omega":
        return  # their radii differ by the transient term
    worlds = [DynamicalLinearBandit(memoryless(kind), 400, 4, 2) for _ in range(2)]
    dynamics = dataclasses.replace(dynamics_in(worlds[0]), spectral_radius=0.0)
    actions = worlds[0].facts["features"]
    dyn = DynLinUCB(actions, dynamics, 400, first_action=2, runs=4)
    lin = DynamicalLinUCB(actions, ExperimentFacts(dynamics, 400, 1.5), tuning=tuning, first_action=2, runs=4)
    one, other = stepped(dyn, worlds[0]), stepped(lin, worlds[1])
    assert torch.equal(one, other)
    assert len(one.unique()) > 2
    assert dyn.hold() == 1
    assert [dyn.beta(t) for t in (0, 7)] == [lin.beta(t) for t in (0, 7)]


# Item 5: the confidence set holds the truth.


@SYSTEMS
@pytest.mark.parametrize("noise", [0.01, 0.3])
def test_the_confidence_interval_covers(system, noise):
    s = plain.plant(system, noise)
    world = DynamicalLinearBandit(system, 600, 20, 1, noise=noise)
    learner = DynLinUCB(s.actions, known(s), 600, runs=20, seed=1)
    missed = []
    while world.round < 600:
        jumped(learner, world, min(600, world.round + learner.hold()))
        error = (learner.estimate - torch.as_tensor(s.h)) @ torch.as_tensor(s.actions).mT
        missed.append(error.abs() > learner.beta(learner.rounds) * learner.widths())
    assert not torch.stack(missed).any()


# Item 6: what an epoch's last reward is without noise.


@SYSTEMS
def test_an_epoch_s_last_reward_in_closed_form(system):
    s = plain.plant(system, 0.01)
    world = DynamicalLinearBandit(system, 1500, 2, noise=0.0)
    learner = DynLinUCB(s.actions, known(s), 1500, runs=2, seed=4)
    biased = []

    def judge(arm, rounds, feedback, before):
        for run in range(2):
            u, held = s.actions[arm[run]], rounds - 1
            settled = np.linalg.solve(np.eye(3) - s.A, s.B @ u)
            off = before[run].numpy() - settled
            bias = float(s.omega @ np.linalg.matrix_power(s.A, held) @ off)
            assert float(feedback.reward[run]) == pytest.approx(float(s.h @ u) + bias, abs=1e-12)
            assert abs(bias) <= s.omega_norm * s.phi * s.rho**held * np.linalg.norm(off) + 1e-15
            biased.append(abs(bias))

    jumped(learner, world, seen=judge)
    assert max(biased) > 0.05


@SYSTEMS
@pytest.mark.parametrize("rounds", [1, 2, 6])
def test_the_law_of_held_rounds_is_that_of_the_rounds(system, rounds):
    """(sum of rewards, last reward, next state) as a linear map of state, action and every noise, number by number."""
    s, world = plain.plant(system, 0.3), DynamicalLinearBandit(system, noise=0.3)
    assert world.state_noise == 0.3
    assert world.output_noise == pytest.approx(0.3 * math.sqrt(3))  # three outputs, each with noise of its own
    assert DynamicalLinearBandit(system, noise=0.3, output_noise="single").output_noise == 0.3

    def played(x, u, states, rewards):
        one = plain.Simulation(s, lambda t: (0.3 * states[t], 0.3 * math.sqrt(3) * rewards[t]))
        one.x = x
        found = [one.step(u) for _ in range(rounds)]
        return np.array([sum(found), found[-1], *one.x])

    zero, quiet = np.zeros(3), (np.zeros((rounds, 3)), np.zeros(rounds))
    of_state = np.array([played(e, zero, *quiet) for e in np.eye(3)]).T
    of_action = np.array([played(zero, e, *quiet) for e in np.eye(3)]).T
    every = np.eye(4 * rounds)
    of_noise = np.array([played(zero, zero, e[: 3 * rounds].reshape(-1, 3), e[3 * rounds :]) for e in every]).T
    mean, added, factor = epoch_law(world.system, 0.3 * math.sqrt(3), 0.3, rounds)
    np.testing.assert_allclose(mean, of_state, atol=1e-13)
    np.testing.assert_allclose(added, of_action, atol=1e-13)
    np.testing.assert_allclose(factor @ factor.T, of_noise @ of_noise.T, atol=1e-13)


# Item 7: another upper bound on the spectral radius.

RADII = [(0.0, 228, 0.05), (0.1, 128.5, 0.02), (0.2, 140.0, 0.02), (0.3, 153.0, 0.02), (0.4, 166.5, 0.02)]


def regret_with_radius(radius, horizon, runs):
    s = plain.plant("synthetic", 0.01)
    world = DynamicalLinearBandit("synthetic", horizon, runs, 7)
    jumped(DynLinUCB(s.actions, known(s), horizon, spectral_radius=radius, runs=runs, seed=8), world)
    return float(pseudo(world).mean())


@pytest.mark.parametrize(("radius", "wanted", "tolerance"), RADII)
def test_another_radius_at_a_short_horizon(radius, wanted, tolerance):
    assert regret_with_radius(radius, 1000, 100) == pytest.approx(wanted, rel=tolerance)


@pytest.mark.proof
@pytest.mark.parametrize(
    ("radius", "wanted", "tolerance"),
    [(0.0, 1126, 0.05), (0.1, 555.5, 0.02), (0.2, 704.7, 0.02), (0.3, 879, 0.02), (0.4, 1076, 0.02)],
)
def test_another_radius(radius, wanted, tolerance):
    assert regret_with_radius(radius, 10_000, 100) == pytest.approx(wanted, rel=tolerance)


# Item 8: the human planner.


@pytest.mark.parametrize("jumping", [False, True])
def test_the_expert_s_regret(jumping):
    world = DynamicalLinearBandit("advertising", 1000, 2)
    learner = bandits.make("expert", world.facts, [0, 1])
    s = plain.plant("advertising", 0.01)
    share = np.array([1641952, 259591273, 716354611]) / (1641952 + 259591273 + 716354611)
    share[:2] *= (1 - 1 / 1.5) / share[:2].sum()
    plan = np.array([*(1.5 * share[:2]), 1.0])
    np.testing.assert_allclose(learner.act()[0].numpy(), plan, atol=1e-15)
    np.testing.assert_allclose(plan, (0.00314269, 0.49685731, 1.0), atol=5e-9)
    gap = float((s.actions @ s.h).max() - s.h @ plan)
    assert gap == pytest.approx(0.215709110670818, abs=1e-14)  # in exact rational arithmetic
    for t in (1, 10, 317, 1000):
        if jumping:
            jumped(learner, world, t)
        else:
            stepped(learner, world, t)
        np.testing.assert_allclose(pseudo(world).numpy(), gap * t, rtol=0, atol=1e-9)


# The long tier.

REFERENCE = {
    "dyn-lin-ucb": ((705.0, 0.1), (1308.85, 0.04), {}),
    "dyn-lin-ucb one": ((1353.4, 0.2), (1385.4, 0.1), {"ridge": 1.0}),
    "dynamical-lin-ucb log": ((1489, 60), (2203.7, 0.2), {"tuning": "log"}),
    "dynamical-lin-ucb one": ((1056, 32), (2206.3, 0.2), {"tuning": "one"}),
    "dynamical-d-lin-ucb log": ((1450, 59), (2203.4, 0.2), {"tuning": "log"}),
    "dynamical-d-lin-ucb one": ((978, 50), (2156.7, 0.1), {"tuning": "one"}),
    "dynamical-exp3": ((2040, 18), (1819, 10), {}),
    "batch-exp3": ((1788, 19), (1389, 12), {}),
    "ar2": ((2257, 0.2), (1748, 11), {}),
    "ar2 quirks": ((1792, 4), (1678, 10), {"replicate_quirks": True}),
    "expert": (None, (2157.09110671, 0.0), {}),
}


@pytest.mark.proof
@pytest.mark.parametrize("name", list(REFERENCE))
@pytest.mark.parametrize("place", [0, 1], ids=["synthetic", "advertising"])
def test_regret_is_the_reference_s(name, place):
    wanted, given = REFERENCE[name][place], REFERENCE[name][2]
    if wanted is None:
        return
    runs = 100
    world = DynamicalLinearBandit(("synthetic", "advertising")[place], 10_000, runs, 11)
    learner = bandits.make(name.split()[0], world.facts, list(range(runs)), 12, **given)
    if learner.holds:
        jumped(learner, world)
    else:
        stepped(learner, world)
    regret = pseudo(world)
    error = math.hypot(float(regret.std()) / math.sqrt(runs), wanted[1])
    assert float(regret.mean()) == pytest.approx(wanted[0], abs=4 * error + 0.05)


@pytest.mark.proof
def test_regret_at_a_longer_horizon():
    s = plain.plant("synthetic", 0.01)
    world = DynamicalLinearBandit("synthetic", 100_000, 20, 11)
    jumped(DynLinUCB(s.actions, known(s), 100_000, runs=20, seed=3), world)
    regret = pseudo(world)
    error = math.hypot(float(regret.std()) / math.sqrt(20), 0.1)
    assert float(regret.mean()) == pytest.approx(2421.4, abs=4 * error + 0.05)


@pytest.mark.proof
def test_the_slope_within_one_long_run():
    """The reference's values at 1e4, 1e5 and 1e6 rounds on the advertising system."""
    s = plain.plant("advertising", 0.01)
    world = DynamicalLinearBandit("advertising", 10**6, 4, 11)
    learner, found = DynLinUCB(s.actions, known(s), 10**6, runs=4, seed=3), []
    for stop in (10**4, 10**5, 10**6):
        jumped(learner, world, stop)
        found.append(float(pseudo(world).mean()))
    np.testing.assert_allclose(found, (1294, 11137, 75579), rtol=0.005)
    assert 0.80 < math.log10(found[2] / found[1]) < 0.86


@pytest.mark.proof
@SYSTEMS
@pytest.mark.parametrize("name", ["dyn-lin-ucb", "batch-exp3"])
def test_jumps_have_the_law_of_steps(system, name):
    runs, found = 500, []
    for seed, go in ((1, stepped), (2, jumped)):
        world = DynamicalLinearBandit(system, 2000, runs, seed, noise=0.1)
        learner = bandits.make(name, world.facts, list(range(runs)), seed)
        go(learner, world, 1999)
        arm = learner.act()
        last = world.step(arm)[4]["feedback"].reward if go is stepped else world.advance(arm, 1).reward
        regret = world.regret()
        columns = [regret["regret/pseudo"], regret["regret/realised"], last, *world.state_dict()["state"].mT]
        found.append(torch.stack(columns))
    one, other = found
    spread = (one.var(-1) + other.var(-1)).sqrt()
    assert (((one.mean(-1) - other.mean(-1)) / spread).abs() < 4.5 / math.sqrt(runs)).all()

    # A standard deviation's own error, by its fourth moment.
    def error(x):
        z = (x - x.mean(-1, keepdim=True)) / x.std(-1, keepdim=True)
        return (z**4).mean(-1) - 1

    both = ((error(one) + error(other)) / (4 * runs)).sqrt()
    assert ((one.std(-1) / other.std(-1)).log().abs() < 4.5 * both).all()
