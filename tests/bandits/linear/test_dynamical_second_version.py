"""The learners of the dynamical linear bandit beside plain versions of themselves, round by round, on both systems.

Then the path of other devices, torch tensors in place of NumPy views, beside the CPU's.
"""

import functools
import math

import numpy as np
import pytest
import torch

import bandits.linear.ar2
import bandits.linear.count_ridge
import bandits.linear.dyn_lin_ucb
import bandits.linear.dynamical_exp3
import bandits.linear.dynamical_lin_ucb
import envs.dynamical_linear_bandit
from bandits.linear.ar2 import AR2
from bandits.linear.dyn_lin_ucb import DynLinUCB
from bandits.linear.dynamical_exp3 import BatchExp3, DynamicalExp3
from bandits.linear.dynamical_lin_ucb import DynamicalDLinUCB, DynamicalLinUCB, ExperimentFacts
from bandits.linear.dynamics import Dynamics
from envs.dynamical_linear_bandit import DynamicalLinearBandit
from orbs import Philox
from tests.bandits.linear import reference_dynamical as plain

ROUNDS, RUNS, HORIZON, SEED = 300, [0, 1, 4], 2000, 5
ARRAYS = (
    bandits.linear.ar2, bandits.linear.count_ridge, bandits.linear.dyn_lin_ucb, bandits.linear.dynamical_exp3,
    bandits.linear.dynamical_lin_ucb, envs.dynamical_linear_bandit,
)  # fmt: skip
SYSTEMS = pytest.mark.parametrize(("system", "sigma"), [("synthetic", 0.1), ("advertising", 0.01)])


def on_tensors(patch):
    """From here on `array` gives tensors on a CPU too: the path of every other device."""
    for module in ARRAYS:
        patch.setattr(module, "array", lambda given: given)


def known(s):
    return Dynamics(s.rho, s.phi, s.omega_norm, s.theta_norm, s.b_norm, s.u_norm, s.sigma)


def facts(s, horizon=HORIZON):
    return ExperimentFacts(known(s), horizon, plain.BUDGET)


def noise_of(run, sigma, rounds=ROUNDS):
    """(rounds, 3) of the state and (rounds,) of the reward, with the variance of three outputs."""
    z = np.random.default_rng(100 + run).normal(size=(rounds, 6)) * sigma
    return z[:, :3], z[:, 3:].sum(1)


def simulation(s, run):
    states, rewards = noise_of(run, s.sigma)
    return plain.Simulation(s, lambda t: (states[t], rewards[t]))


def numbers(learner, purpose, count=1):
    """{run: (round) -> its uniform numbers (count,)} of a stream of the learner's."""
    u = Philox(SEED, RUNS).uniform(purpose, 0, ROUNDS, count, torch.float64).numpy()
    return {run: u[i] for i, run in enumerate(RUNS)}


def first_arms(learner, purpose, arms=6):
    u = Philox(SEED, RUNS).uniform(purpose, 0, 1, 1, torch.float64)[:, 0, 0]
    return {run: math.floor(float(u[i]) * arms) for i, run in enumerate(RUNS)}


def together(learner, references, s, compare=None, rounds=ROUNDS):
    """Play all runs at once beside one plain version a run, each in its own simulation; (rounds, R) the arms."""
    worlds, played = [simulation(s, run) for run in RUNS], []
    for t in range(rounds):
        arm = learner.act().clone()
        assert arm.tolist() == [one.choose() for one in references], t
        rewards = [world.step(s.actions[a]) for world, a in zip(worlds, arm.tolist(), strict=True)]
        for one, a, y in zip(references, arm.tolist(), rewards, strict=True):
            one.update(a, y)
        learner.observe(arm, torch.tensor(rewards, dtype=torch.float64))
        if compare is not None and (t < 8 or t % 11 == 0):
            for i, one in enumerate(references):
                compare(i, one, t)
        played.append(arm)
    played = torch.stack(played)
    assert len(set(played.flatten().tolist())) > 2  # a sequence that says something
    return played


def close(found, wanted, tolerance=1e-9):
    found, wanted = np.asarray(found), np.asarray(wanted)
    assert (abs(found - wanted) <= tolerance * (1 + abs(wanted))).all(), (found, wanted)


def ridge_compare(learner, s, i, one, t):
    close(learner.estimate[i], one.ridge.estimate())
    if t % 33 == 0:
        close(learner.widths()[i], [one.ridge.width(u) for u in s.actions])


DYN = [
    {},
    {"ridge": 1.0},
    {"replicate_offset": True},
    {"spectral_radius": 0.45},
    {"spectral_radius": 0.0},
    {"ridge": 0.3, "spectral_radius": 0.8, "replicate_offset": True},
]


@SYSTEMS
@pytest.mark.parametrize("given", DYN, ids=str)
def test_dyn_lin_ucb(system, sigma, given):
    s = plain.plant(system, sigma)
    learner = DynLinUCB(s.actions, known(s), HORIZON, runs=RUNS, seed=SEED, **given)
    first = first_arms(learner, "dyn-lin-ucb/first")
    references = [
        plain.DynLin(
            s, HORIZON, given.get("ridge", math.log(HORIZON)), first[run], given.get("spectral_radius"),
            given.get("replicate_offset", False),
        )
        for run in RUNS
    ]  # fmt: skip

    def compare(i, one, t):
        close(learner.beta(t + 1), one.beta(t + 1), 1e-12)
        ridge_compare(learner, s, i, one, t)
        assert learner.hold() == (one.left or plain.held(one.m + 1, one.rho) + 1)

    together(learner, references, s, compare)


@SYSTEMS
@pytest.mark.parametrize("tuning", ["log", "one"])
def test_lin_ucb(system, sigma, tuning):
    s = plain.plant(system, sigma)
    learner = DynamicalLinUCB(s.actions, facts(s), tuning=tuning, runs=RUNS, seed=SEED)
    first = first_arms(learner, "dynamical-lin-ucb/first")
    references = [plain.LinUcb(s, HORIZON, tuning, first[run]) for run in RUNS]

    def compare(i, one, t):
        close(learner.beta(t + 1), one.beta(), 1e-12)
        ridge_compare(learner, s, i, one, t)

    together(learner, references, s, compare)


@SYSTEMS
def test_lin_ucb_with_the_radius_of_dyn_lin_ucb(system, sigma):
    s = plain.plant(system, sigma)
    learner = DynamicalLinUCB(s.actions, facts(s), tuning="dynamic", runs=RUNS, seed=SEED)
    first = first_arms(learner, "dynamical-lin-ucb/first")
    references = [plain.DynLin(s, HORIZON, math.log(HORIZON), first[run]) for run in RUNS]
    for one in references:
        one.choose = functools.partial(held_for_one_round, one)
    together(learner, references, s)


def held_for_one_round(one):
    one.m, one.left = one.m + 1, 1
    return one.first if one.m == 1 else plain.lowest_of_the_best(one.scores(one.t))


@SYSTEMS
def test_d_lin_ucb_log(system, sigma):
    s = plain.plant(system, sigma)
    learner = DynamicalDLinUCB(s.actions, facts(s), tuning="log", runs=RUNS, seed=SEED)
    first = first_arms(learner, "dynamical-d-lin-ucb/first")
    references = [plain.DLinUcbLog(s, HORIZON, first[run]) for run in RUNS]

    def compare(i, one, t):
        close(learner.beta(t + 1), one.beta(), 1e-9)  # 1 - g^2 of a double holds eleven digits
        ridge_compare(learner, s, i, one, t)

    together(learner, references, s, compare)


@SYSTEMS
@pytest.mark.parametrize("discount", [None, 0.99, 0.97])
def test_d_lin_ucb_one(system, sigma, discount):
    """A discount that is felt within 300 rounds tests the recursions, the published one does not."""
    s = plain.plant(system, sigma)
    learner = DynamicalDLinUCB(s.actions, facts(s), tuning="one", discount=discount, runs=RUNS, seed=SEED)
    first = first_arms(learner, "dynamical-d-lin-ucb/first")
    references = [plain.DLinUcbOne(s, HORIZON, first[run]) for run in RUNS]
    for one in references:
        one.g = discount or one.g
    u = s.actions

    def compare(i, one, t):
        once, twice = np.asarray(learner.once[i]), np.asarray(learner.twice[i])
        sides = np.vstack([u, np.eye(3)])
        close((sides * once[:, None]).T @ sides / one.V.max(), one.V / one.V.max())
        close((sides * twice[:, None]).T @ sides / one.W.max(), one.W / one.W.max())
        close(np.asarray(learner.sums[i]) @ u, one.b)
        close(learner.beta(t + 1), one.beta())

    together(learner, references, s, compare)


@pytest.mark.parametrize("discount", [None, 0.97])
def test_d_lin_ucb_one_tells_its_own_estimate(discount):
    s = plain.plant("advertising", 0.01)
    learner = DynamicalDLinUCB(s.actions, facts(s), tuning="one", discount=discount, runs=RUNS, seed=SEED)
    first = first_arms(learner, "dynamical-d-lin-ucb/first")
    references = [plain.DLinUcbOne(s, HORIZON, first[run]) for run in RUNS]
    for one in references:
        one.g = discount or one.g

    def compare(i, one, t):
        close(learner.estimate[i], one.estimate())
        close(learner.widths()[i], [math.sqrt(float(u @ np.linalg.solve(one.V, u))) for u in s.actions])

    together(learner, references, s, compare, 60)


@SYSTEMS
def test_exp3(system, sigma):
    s = plain.plant(system, sigma)
    # gamma near 1 would leave little to compare
    horizon = 10**5
    learner = DynamicalExp3(6, known(s), horizon, runs=RUNS, seed=SEED)
    u = numbers(learner, "dynamical-exp3/arm")
    references = [plain.Exp3(s, horizon, lambda t, run=run: u[run][t, 0]) for run in RUNS]

    def compare(i, one, t):
        close(learner.gains[i], one.G)
        close(learner.chance[i], one.p())

    together(learner, references, s, compare)


@SYSTEMS
@pytest.mark.parametrize("late", [False, True])
def test_batch_exp3(system, sigma, late):
    s = plain.plant(system, sigma)
    learner = BatchExp3(6, known(s), HORIZON, replicate_misalignment=late, runs=RUNS, seed=SEED)
    u = numbers(learner, "batch-exp3/arm")
    references = [plain.BatchExp3(s, HORIZON, lambda t, run=run: u[run][t, 0], late) for run in RUNS]
    assert learner.batch == references[0].tau > 2

    def compare(i, one, t):
        close(learner.gains[i], one.G)
        close(learner.chance[i], one.p())
        close(learner.total[i], one.total)

    together(learner, references, s, compare)


def least(u, t, arms):
    return min(arms, key=lambda arm: u[t, arm])


@SYSTEMS
@pytest.mark.parametrize("quirks", [False, True])
def test_ar2(system, sigma, quirks):
    s = plain.plant(system, sigma)
    learner = AR2(6, s.rho, sigma, replicate_quirks=quirks, runs=RUNS, seed=SEED)
    u = numbers(learner, "ar2/ties", 6)
    references = [plain.Ar2(s, functools.partial(least, u[run]), quirks) for run in RUNS]
    assert learner.epoch == references[0].length

    def compare(i, one, t):
        close(learner.estimates[i], one.r)
        assert learner.last[i].tolist() == one.tau

    together(learner, references, s, compare)


@pytest.mark.parametrize("quirks", [False, True])
def test_ar2_begins_anew_with_each_epoch(quirks):
    """Noise so strong that an epoch is 50 rounds, an even number, so that odd rounds stay odd."""
    s = plain.plant("advertising", 0.82483)
    s.rho = 0.6
    learner = AR2(6, s.rho, s.sigma, replicate_quirks=quirks, runs=RUNS, seed=SEED)
    assert learner.epoch == 50
    u = numbers(learner, "ar2/ties", 6)
    references = [plain.Ar2(s, functools.partial(least, u[run]), quirks) for run in RUNS]

    def compare(i, one, t):
        if one.t - one.begun >= 6:  # before, arms that are not yet played again have no estimate of the epoch
            close(learner.estimates[i], one.r)

    together(learner, references, s, compare)


def test_ar2_with_little_slack_plays_the_superior_arm():
    """The published slack triggers every arm at once; with a hundredth of it triggers wait for the decay."""
    s = plain.plant("advertising", 0.01)
    s.rho = 0.95  # a slow decay: arms wait
    learner = AR2(6, s.rho, s.sigma, runs=RUNS, seed=SEED)
    learner._slack /= 150
    u = numbers(learner, "ar2/ties", 6)
    references = [plain.Ar2(s, functools.partial(least, u[run])) for run in RUNS]
    for one in references:
        one.c1 /= 150
    played = together(learner, references, s, lambda i, one, t: close(learner.estimates[i], one.r))
    superior = (played[2:] == played[1:-1]) | (played[2:] == played[:-2])
    assert superior.double().mean() > 0.6


@pytest.mark.parametrize("reward", [0.0, -0.4])
def test_ar2_where_estimates_tie_or_fall(reward):
    """With rewards of 0 all estimates tie: the last arm played is the superior one. Negative ones fade upwards."""
    s = plain.plant("advertising", 0.01)
    learner = AR2(6, s.rho, s.sigma, runs=RUNS, seed=SEED)
    u = numbers(learner, "ar2/ties", 6)
    references = [plain.Ar2(s, functools.partial(least, u[run])) for run in RUNS]
    for t in range(60):
        arm = learner.act().clone()
        assert arm.tolist() == [one.choose() for one in references], t
        for one, a in zip(references, arm.tolist(), strict=True):
            one.update(a, reward)
        learner.observe(arm, torch.full((3,), reward, dtype=torch.float64))


# The torch path beside the NumPy path, in the package's own world, and by jumps.

LEARNERS = {
    "dyn-lin-ucb": lambda s: DynLinUCB(s.actions, known(s), HORIZON, runs=RUNS, seed=SEED),
    "dyn-lin-ucb-late": lambda s: DynLinUCB(
        s.actions, known(s), HORIZON, ridge=1.0, replicate_offset=True, runs=RUNS, seed=SEED
    ),
    "lin-ucb-log": lambda s: DynamicalLinUCB(s.actions, facts(s), runs=RUNS, seed=SEED),
    "lin-ucb-one": lambda s: DynamicalLinUCB(s.actions, facts(s), tuning="one", runs=RUNS, seed=SEED),
    "d-lin-ucb-log": lambda s: DynamicalDLinUCB(s.actions, facts(s), runs=RUNS, seed=SEED),
    "d-lin-ucb-one": lambda s: DynamicalDLinUCB(s.actions, facts(s), tuning="one", runs=RUNS, seed=SEED),
    "exp3": lambda s: DynamicalExp3(6, known(s), HORIZON, runs=RUNS, seed=SEED),
    "batch-exp3": lambda s: BatchExp3(6, known(s), HORIZON, runs=RUNS, seed=SEED),
    "batch-exp3-late": lambda s: BatchExp3(6, known(s), HORIZON, replicate_misalignment=True, runs=RUNS, seed=SEED),
    "ar2": lambda s: AR2(6, s.rho, s.sigma, runs=RUNS, seed=SEED),
    "ar2-quirks": lambda s: AR2(6, s.rho, s.sigma, replicate_quirks=True, runs=RUNS, seed=SEED),
}


def played_in_the_world(make, system, sigma, jumping):
    s = plain.plant(system, sigma)
    rounds_of_all = 70
    learner, world = make(s), DynamicalLinearBandit(system, rounds_of_all, RUNS, 3, noise=sigma)
    arms, seen = [], []
    while world.round < rounds_of_all:
        arm = learner.act()
        arms.append(arm.clone())
        rounds = min(learner.hold(), rounds_of_all - world.round) if jumping else 1
        if jumping:
            feedback = world.advance(arm, rounds)
            learner.skip(rounds - 1)
        else:
            feedback = world.step(arm)[4]["feedback"]
        learner.observe(arm, feedback)
        seen.append(feedback.reward.clone())
    state = {**learner.state_dict(), **{f"world.{k}": v for k, v in world.state_dict().items()}, **world.regret()}
    if hasattr(learner, "estimate"):
        state |= {"estimate": learner.estimate, "widths": learner.widths()}
    return torch.stack(arms), torch.stack(seen), {key: value.clone() for key, value in state.items()}


@SYSTEMS
@pytest.mark.parametrize("name", list(LEARNERS))
@pytest.mark.parametrize("jumping", [False, True])
def test_the_path_of_other_devices_gives_the_same(monkeypatch, system, sigma, name, jumping):
    numpy_arms, numpy_rewards, numpy_state = played_in_the_world(LEARNERS[name], system, sigma, jumping)
    on_tensors(monkeypatch)
    arms, rewards, state = played_in_the_world(LEARNERS[name], system, sigma, jumping)
    assert torch.equal(arms, numpy_arms)
    torch.testing.assert_close(rewards, numpy_rewards, rtol=1e-12, atol=1e-12)
    assert state.keys() == numpy_state.keys()
    for key, value in state.items():
        torch.testing.assert_close(value, numpy_state[key], rtol=1e-12, atol=1e-12, msg=key)


def test_the_systems_of_the_package_are_those_of_the_paper():
    for name, wanted in plain.MATRICES.items():
        found = plain.stored(name)
        for key, rows in wanted.items():
            np.testing.assert_array_equal(np.array(found[key], dtype=float), np.array(rows, dtype=float))
        s, world = plain.plant(name, 0.01), DynamicalLinearBandit(name)
        np.testing.assert_array_equal(world.facts["features"].numpy(), s.actions)
        close(world.steady, s.actions @ s.h, 1e-14)
        bounds = world.facts
        mine = known(s)
        for key in ("spectral_radius", "transient", "state_weight", "action_weight", "input_norm", "action_norm"):
            close(bounds[key], getattr(mine, key), 1e-12)
