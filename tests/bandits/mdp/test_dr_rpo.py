"""DR-RPO against a plain second version, in all its forms, and bad arguments."""

import itertools

import numpy as np
import pytest
import torch

from bandits.mdp.dr_rpo import DRLSVIUCB, DRRPO
from tests.bandits.mdp import plain_planner as p
from tests.bandits.mdp.plain_planner import FAIL, FEATURES, REWARDS, RUNS, STEPS, PlainPlanner, agree

_RNG = np.random.default_rng(10)
BY_STEP = _RNG.dirichlet(np.full(p.FACTORS, 0.7), (STEPS, p.STATES, p.ACTIONS))
BY_RUN = _RNG.dirichlet(np.full(p.FACTORS, 0.7), (RUNS, STEPS, p.STATES, p.ACTIONS))
REFERENCE = _RNG.dirichlet(np.full(p.ACTIONS, 2.0), (STEPS, p.STATES))
CAP = _RNG.uniform(0.5, 4.0, (STEPS, p.STATES, p.ACTIONS))
LEVELS = np.array([[0.0, 0.3, 0.1], [0.2, 0.0, 0.4], [0.3, 0.3, 0.3]])

CASES = {
    "tv": dict(divergence="tv", level=LEVELS),
    "tv projected": dict(divergence="tv", level=0.3, weights="projected"),
    "tv at zero": dict(divergence="tv", level=LEVELS, exact_zero_radius=False),
    "tv weight": dict(divergence="tv", form="regularised", level=0.6),
    "kl": dict(divergence="kl", level=LEVELS, weights="projected"),
    "kl signed": dict(divergence="kl", level=0.2, weights="signed", episodes=8),
    "kl floored": dict(divergence="kl", level=0.2, weights="signed", eps=0.1, episodes=8),
    "kl weight": dict(divergence="kl", form="regularised", level=0.5),
    "kl weight floored": dict(divergence="kl", form="regularised", level=0.5, eps=0.3),
    "kl weight raw": dict(divergence="kl", form="regularised", level=0.5, kl_center=False),
    "kl weight projected": dict(divergence="kl", form="regularised", level=0.5, weights="projected"),
    "chi2": dict(divergence="chi2", level=LEVELS, tolerance=1e-5),
    "chi2 projected": dict(divergence="chi2", level=LEVELS, weights="projected"),
    "chi2 weight": dict(divergence="chi2", form="regularised", level=0.4),
    "chi2 weight projected": dict(divergence="chi2", form="regularised", level=0.4, weights="projected"),
    "no set": dict(divergence=None),
    "no set projected": dict(divergence=None, weights="projected"),
    "regressed": dict(divergence="tv", level=LEVELS, rewards=None),
    "regressed script": dict(divergence="chi2", form="regularised", level=0.4, rewards=None, bonus="script"),
    "elliptical": dict(divergence="tv", level=LEVELS, bonus="elliptical", beta=0.3, ridge=0.7),
    "reference": dict(divergence="tv", level=0.2, reference=REFERENCE, temperature=0.3),
    "proximal": dict(divergence="tv", level=LEVELS, step_size=2.0, reference=REFERENCE, temperature=0.1),
    "proximal alone": dict(divergence="kl", level=0.2, weights="projected", step_size=3.0, temperature=1e-12),
    "greedy": dict(divergence="tv", level=LEVELS, kind=DRLSVIUCB, temperature=0.0),
    "caps": dict(divergence="kl", level=0.2, weights="signed", value_cap=CAP, fail=(), beta=0.2, episodes=8),
    "by step": dict(divergence="tv", level=LEVELS, features=BY_STEP, bonus="script"),
    "by run": dict(divergence="tv", level=LEVELS, features=BY_RUN),
    "by run elliptical": dict(divergence=None, features=BY_RUN, bonus="elliptical"),
}


def tensors(arguments):
    return {key: torch.as_tensor(x) if isinstance(x, np.ndarray) else x for key, x in arguments.items()}


@pytest.mark.parametrize("case", list(CASES))
def test_a_second_version_plans_the_same(case):
    given = {"temperature": 0.2, "beta": 0.4, "rewards": REWARDS, "fail": FAIL, "features": FEATURES}
    given |= {"weights": "signed", **CASES[case]}
    episodes, tolerance = given.pop("episodes", 15), given.pop("tolerance", 1e-7)
    kind = given.get("kind", DRRPO)
    given = {key: x for key, x in given.items() if key != "kind"}
    learner = kind(steps=STEPS, runs=[4, 7], seed=3, **tensors(given))
    features = given.pop("features")
    plain = []
    for r, run in enumerate((4, 7)):
        own = features[r] if features.ndim == 5 else features
        plain.append(PlainPlanner(own, STEPS, run=run, seed=3, **given))
    agree(learner, plain, episodes, tolerance)


def learned(episodes=20, kind=DRRPO, runs=RUNS, **arguments):
    """A learner that has seen random logs."""
    given = {"rewards": REWARDS, "fail": FAIL, "features": FEATURES, "divergence": "tv", "level": 0.3, **arguments}
    learner, log = kind(steps=STEPS, runs=runs, **tensors(given)), p.logs(runs, episodes)
    for k in range(episodes):
        learner.observe(learner.act(), p.told(log, k))
    return learner


def test_the_least_temperature_is_dr_lsvi_ucb():
    cold, greedy = learned(temperature=1e-7, beta=0.1), learned(kind=DRLSVIUCB, beta=0.1)
    assert greedy.temperature == 0
    assert (cold.act()[greedy.act() == 1] > 0.1).all()  # one of the best
    sure = cold.act().amax(-1) > 0.999
    assert sure[:, :, :-1].double().mean() > 0.8
    assert torch.equal(cold.act()[sure] > 0.5, greedy.act()[sure] > 0.5)
    torch.testing.assert_close(cold.estimate()[1], greedy.estimate()[1], rtol=0, atol=1e-6)


def test_the_greatest_temperature_is_the_reference():
    hot = learned(temperature=1e7, reference=REFERENCE)
    q, v = hot.estimate()
    torch.testing.assert_close(hot.act(), torch.as_tensor(REFERENCE).expand_as(hot.act()), rtol=0, atol=1e-6)
    torch.testing.assert_close(v[:, :-1], (torch.as_tensor(REFERENCE) * q).sum(-1), rtol=0, atol=1e-6)


def test_a_uniform_reference_is_a_log_mean_exp():
    learner = learned(temperature=0.3)
    q, v = learner.estimate()
    torch.testing.assert_close(v[:, :-1], 0.3 * ((q / 0.3).exp().mean(-1)).log())
    torch.testing.assert_close(learner.act(), (q / 0.3).softmax(-1))
    assert (q[:, :, -1] == 0).all()
    assert (v[:, :, -1].abs() < 1e-15).all()
    same = learned(temperature=0.3, reference=np.full((p.STATES, p.ACTIONS), 1 / p.ACTIONS))
    torch.testing.assert_close(same.act(), learner.act())


@pytest.mark.parametrize("divergence", ["tv", "kl", "chi2"])
def test_level_zero_is_not_robust(divergence):
    for weights in ("signed", "projected"):
        zero, none = (
            learned(divergence=one, level=0.0, weights=weights, beta=0.2, temperature=0.1) for one in (divergence, None)
        )
        torch.testing.assert_close(zero.act(), none.act(), rtol=0, atol=1e-12)
        mixed = learned(divergence=divergence, level=np.array([0.0, 0.0, 1e-200]), weights=weights, beta=0.2,
                        temperature=0.1)  # fmt: skip
        assert mixed.act().isfinite().all()


def test_ties_are_broken_at_random():
    """At first all Q are at their cap."""
    learner = DRLSVIUCB(torch.as_tensor(FEATURES), STEPS, torch.as_tensor(REWARDS), beta=100.0, runs=3000)
    chosen = learner.act()
    assert torch.equal(chosen.sum(-1), torch.ones(chosen.shape[:-1], dtype=torch.float64))
    share = chosen.mean(0)
    assert ((share - 1 / p.ACTIONS).abs() < 5 * (2 / 9 / 3000) ** 0.5).all()
    assert not torch.equal(chosen[:, 0, 0], chosen[:, 0, 1])


def test_the_proximal_step_contracts_to_the_exact_one():
    """With an infinite step it is the exact one; with a fixed Q the logits approach it at rate 1 / (1 + alpha tau)."""
    exact, far = learned(temperature=0.2), learned(temperature=0.2, step_size=1e12)
    torch.testing.assert_close(far.act(), exact.act(), rtol=0, atol=1e-9)
    log, gaps = p.logs(RUNS, 6), []
    learner = learned(0, temperature=0.2, step_size=1.5, beta=1e3, value_cap=CAP, fail=())  # Q stays at the caps
    goal = torch.as_tensor(CAP) / 0.2
    for k in range(6):
        gap = learner.act().log() - goal
        gaps.append(gap - gap.mean(-1, keepdim=True))
        learner.observe(learner.act(), p.told(log, k))
    for first, second in itertools.pairwise(gaps):
        torch.testing.assert_close(second, first / 1.3, rtol=0, atol=1e-9)


def test_rare_switching_plans_seldom():
    """At most d H log2(1 + K / (ridge d)) + 1 policies, each that of the episode at which some determinant doubled."""
    episodes, ridge = 250, 0.1
    log = p.logs(RUNS, episodes)
    given = {"rewards": REWARDS, "fail": FAIL, "features": FEATURES, "divergence": "tv", "level": 0.3, "ridge": ridge}
    lazy = DRRPO(steps=STEPS, runs=RUNS, switching=True, **tensors(given))
    eager = DRRPO(steps=STEPS, runs=RUNS, **tensors(given))
    last, dets, switches = torch.zeros_like(lazy.act()), np.full((RUNS, STEPS), 1e-300), np.zeros(RUNS, int)
    for k in range(episodes):
        now = np.linalg.det(eager.model.gram.numpy())
        due = (now >= 2 * dets * (1 - 1e-9)).any(-1)
        dets[due] = now[due]
        switches += due
        policy = lazy.act().clone()
        for r in range(RUNS):
            wanted = eager.act()[r] if due[r] else last[r]
            torch.testing.assert_close(policy[r], wanted, rtol=0, atol=1e-12)
        last = policy
        lazy.observe(policy, p.told(log, k))
        eager.observe(eager.act(), p.told(log, k))
    assert (switches <= p.FACTORS * STEPS * np.log2(1 + episodes / (ridge * p.FACTORS)) + 1).all()
    assert (switches < 60).all()
    resumed = DRRPO(steps=STEPS, runs=RUNS, switching=True, **tensors(given))
    resumed.load_state_dict(lazy.state_dict())
    assert torch.equal(resumed.act(), lazy.act())


def test_another_policy_than_its_own_may_have_been_played():
    """What a planner keeps is its own policy; what it learns, the episode."""
    for more in ({"step_size": 2.0}, {"switching": True}, {}):
        learner, other, log = learned(0, **more), learned(0, **more), p.logs(RUNS, 12)
        for k in range(12):
            other.observe(other.uniform(), p.told(log, k))
            learner.observe(learner.act(), p.told(log, k))
        assert torch.equal(learner.act(), other.act())


def test_the_inverse_is_made_anew():
    """Rank-one updates leave dust, also with a tiny ridge; every 256 episodes it is gone."""
    learner, log = learned(0, ridge=1e-9), p.logs(RUNS, 300)
    dust = []
    for k in range(300):
        learner.observe(learner.act(), p.told(log, k))
        dust.append(float((learner.model.inverse - torch.linalg.inv(learner.model.gram)).abs().max()))
    assert dust[255] == 0
    assert dust[254] > 0
    assert dust[299] > 0


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (dict(features=torch.ones(3)), r"features: expected shape \(S, A, d\)"),
        (dict(features=torch.full((5, 3, 3), torch.nan)), "features: expected finite numbers"),
        (dict(features=torch.ones(2, 5, 3, 3)), r"features: expected the last axes of \(1 runs, 3 steps"),
        (dict(rewards=torch.ones(3, 4, 3)), "rewards: expected the last axes of"),
        (dict(divergence="l2"), "divergence: expected 'tv' or 'kl' or 'chi2' or None, got 'l2'"),
        (dict(form="penalised"), "form: expected 'constrained' or 'regularised'"),
        (dict(level=-0.1), "level: expected finite numbers of at least 0, got -0.1"),
        (dict(level=torch.ones(2, 3)), r"level: expected a number, or shape \(3, 3\), got shape \(2, 3\)"),
        (dict(form="regularised", level=0.0), "level: expected finite numbers above 0, got 0"),
        (
            dict(divergence="kl", form="regularised", level=0.09, weights="signed"),
            r"level: expected at least 0.1: e\^\(horizon/level\)",
        ),
        (dict(temperature=-0.1), "temperature: expected a finite number of at least 0, got -0.1"),
        (dict(temperature=1e-305), "temperature: expected at least 1e-300"),
        (dict(features=-torch.as_tensor(FEATURES)), r"features: expected rows of the simplex .*got an entry of -"),
        (dict(features=2 * torch.as_tensor(FEATURES)), r"features: expected rows of the simplex .*got a sum of 2"),
        (dict(level=float("inf")), "level: expected finite numbers of at least 0, got inf"),
        (dict(level="a"), "level: expected a number, or shape"),
        (dict(fail=(1.5,)), "fail: expected states 0 to 4, got 1.5"),
        (dict(value_cap=-torch.ones(3, 5, 3)), "value_cap: expected numbers of at least 0, .*got one of -1"),
        (
            dict(divergence="kl", weights="signed", value_cap=torch.full((3, 5, 3), torch.inf)),
            "value_cap: expected a finite cap in each step, the range of signed KL",
        ),
        (dict(temperature=0), "temperature: expected a finite number above 0, got 0. Fix: take DRLSVIUCB"),
        (dict(temperature=float("inf")), "temperature: expected a finite number"),
        (dict(beta=-1.0), "beta: expected a finite number of at least 0"),
        (dict(ridge=0.0), "ridge: expected a finite number above 0, got 0.0"),
        (dict(step_size=0.0), "step_size: expected a finite number above 0"),
        (dict(step_size=1.0, switching=True), "switching: expected False with a step_size"),
        (dict(eps=-1.0), "eps: expected a finite number of at least 0"),
        (dict(bonus="big"), "bonus: expected 'paper' or 'script' or 'elliptical', got 'big'"),
        (dict(weights="raw"), "weights: expected 'auto' or 'signed' or 'projected'"),
        (dict(reference=torch.eye(5, 3)), "reference: expected chances above 0 of sum 1"),
        (dict(reference=torch.full((5, 3), 0.3)), "reference: expected chances above 0 of sum 1"),
        (dict(reference=torch.full((3, 3), 1 / 3)), r"reference: expected shape \(5, 3\)"),
        (dict(fail=(5,)), "fail: expected states 0 to 4, got 5"),
        (dict(value_cap=torch.ones(5, 3)), r"value_cap: expected numbers of at least 0, shape \(3, 5, 3\)"),
        (dict(steps=0), "steps: expected a whole number of at least 1, got 0"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_bad_arguments_are_refused(wrong, said):
    good = {"features": torch.as_tensor(FEATURES), "steps": STEPS, "rewards": torch.as_tensor(REWARDS)}
    with pytest.raises(ValueError, match=said):
        DRRPO(**{**good, **wrong})
    DRRPO(**good)
