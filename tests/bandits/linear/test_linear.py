"""Linear bandits: golden values, rules against scalars, a second version of each, limits, bad input."""

import math

import numpy as np
import pytest
import torch

from bandits import GLMUCB, DLinUCB, LinTS, LinUCB, RestartLinUCB, SWLinUCB, make
from bandits.linear.config import LINEAR
from bandits.linear.forgetting import discount_of, window_of
from bandits.linear.glm_ucb import least_slope, logistic_fit
from bandits.linear.lin_ts import theory_scale
from bandits.linear.radius import discounted_radius, oful_radius, trace_radius, window_radius
from bandits.linear.root_ridge import RootRidge
from orbs import Philox
from tests.bandits.linear import plain

U = torch.tensor([[1, 0], [0.6, 0.8], [0, 1], [0.8, 0.6]], dtype=torch.float64)
Y = (0.5, 0.9, 0.3, 1.0)
PROBE = torch.tensor([[1.0, 1.0]], dtype=torch.float64) / math.sqrt(2)
CONSTANTS = dict(lam=plain.LAM, noise=plain.SIGMA, bound=plain.S, delta=plain.DELTA)
FEATURES = torch.tensor(
    [[0.7, 0.1, 0.0], [0.0, 0.6, 0.2], [-0.3, 0.0, 0.5], [0.1, -0.2, 0.6], [0.3, 0.3, 0.4]], dtype=torch.float64
)


def learned(kind, shown, **arguments):
    """After the four golden pairs, arm k with features u_k; as fixed features or as contexts."""
    features = torch.cat([U, PROBE])
    learner = kind(None, arms=5, dimension=2, **arguments) if shown else kind(features, **arguments)
    for k, y in enumerate(Y):
        learner.act(features.unsqueeze(0) if shown else None)
        learner.observe(torch.tensor([k]), torch.tensor([y], dtype=torch.float64))
    return learner, features.unsqueeze(-1)


SHOWN = pytest.mark.parametrize("shown", [False, True])


@SHOWN
def test_golden_lin_ucb(shown):
    learner, x = learned(LinUCB, shown, delta=0.01, noise=0.1)
    theta = learner.ridge.theta[:, 0] if shown else learner.ridge.theta()[0]
    assert theta.tolist() == pytest.approx([0.4907902555, 0.3829471182], abs=1e-10)
    means, squares = learner._statistics(x)
    assert float(squares[0, 4].sqrt()) == pytest.approx(0.502518907630, abs=1e-12)
    assert float(means[0, 4]) == pytest.approx((0.4907902555 + 0.3829471182) / math.sqrt(2), abs=1e-9)
    v = np.eye(2) + U.numpy().T @ U.numpy()
    beta = 1 + 0.1 * math.sqrt(2 * math.log(100) + math.log(np.linalg.det(v)))
    assert float(learner.confidence()) == pytest.approx(beta, rel=1e-12)


@SHOWN
def test_golden_window(shown):
    learner, x = learned(SWLinUCB, shown, delta=0.01, window=2)
    means, squares = learner._statistics(x)
    assert means[0, [0, 2]].tolist() == pytest.approx([0.4, 0.3], abs=1e-12)
    assert float(squares[0, 4].sqrt()) == pytest.approx(0.646206172659, abs=1e-12)


@SHOWN
def test_golden_discount(shown):
    learner, x = learned(DLinUCB, shown, delta=0.01, noise=0.1, discount=0.9, feature_bound=1.0)
    expected = [[2.6606, 0.8688], [0.8688, 2.7784]], [[2.407637, 0.794928], [0.794928, 2.589904]]
    for matrix, wanted in zip((learner.matrix, learner.squared), expected, strict=True):
        np.testing.assert_allclose(matrix[0].numpy(), wanted, atol=1e-12)
    assert learner.theta()[0].tolist() == pytest.approx([0.4803356665, 0.3728348593], abs=1e-10)
    means, squares = learner.statistics(x)
    assert float(squares[0, 4].sqrt()) == pytest.approx(0.505721349986, abs=1e-12)
    assert means[0, :4].tolist() == pytest.approx((U @ learner.theta()[0]).tolist(), abs=1e-14)
    assert learner.confidence() == pytest.approx(1.332294116617, abs=1e-12)


def test_golden_radii():
    assert trace_radius(100, 5, 1.0, 1.0, 0.1, 0.01, 1.0) == pytest.approx(1.494297001413, abs=1e-12)
    assert discounted_radius(4, 0.9, 2, 1.0, 1.0, 0.1, 0.01, 1.0) == pytest.approx(1.332294116617, abs=1e-12)


def test_radii_against_scalars():
    rng = np.random.default_rng(0)
    for _ in range(200):
        t, d, lam, s, sigma, delta, bound, g = (
            int(rng.integers(0, 500)), int(rng.integers(1, 20)), *rng.uniform(0.05, 3, 3), rng.uniform(1e-4, 1),
            rng.uniform(0.1, 3), rng.uniform(0.5, 0.9999),
        )  # fmt: skip
        rounds = sum(g ** (2 * i) for i in range(t))
        for found, count in (
            (trace_radius(t, d, lam, s, sigma, delta, bound), t),
            (discounted_radius(t, g, d, lam, s, sigma, delta, bound), rounds),
            (discounted_radius(t, 1.0, d, lam, s, sigma, delta, bound), t),
        ):
            inside = 2 * math.log(1 / delta) + d * math.log(1 + count * bound**2 / (lam * d))
            assert found == pytest.approx(math.sqrt(lam) * s + sigma * math.sqrt(inside), rel=1e-10)
        wanted = math.sqrt(lam) * s + sigma * math.sqrt(d * math.log((1 + t / lam) / delta))
        assert window_radius(t, d, lam, s, sigma, delta) == pytest.approx(wanted, rel=1e-12)
        volume = float(rng.uniform(0, 30))
        wanted = math.sqrt(lam) * s + sigma * math.sqrt(2 * math.log(1 / delta) + volume)
        found = oful_radius(torch.tensor([volume], dtype=torch.float64), lam, s, sigma, delta)
        assert float(found) == pytest.approx(wanted, rel=1e-12)
    near = discounted_radius(1000, 1 - 1e-12, 3, 1.0, 1.0, 1.0, 0.1, 1.0)
    assert near == pytest.approx(discounted_radius(1000, 1.0, 3, 1.0, 1.0, 1.0, 0.1, 1.0), rel=1e-9)
    assert theory_scale(0.5, 4, 7, 0.1) == pytest.approx(0.5 * math.sqrt(36 * math.log(70)))
    assert window_of(2, 500, 4.0) == math.ceil(250 ** (2 / 3))
    assert discount_of(2, 500, 4.0) == pytest.approx(1 - 250 ** (-2 / 3))
    assert (window_of(1, 1, 50.0), discount_of(1, 1, 50.0)) == (1, 0.0)
    for size in (0.0, 0.5, 3.0):
        middle = 1 / (1 + math.exp(-size))
        assert least_slope(size) == pytest.approx(middle * (1 - middle))


def rewards_of(arm, u, t, low=-1.0, high=2.0):
    """Of one run: better along (1, 1, 1), with a number of the round."""
    luck = math.sin(12.9898 * (t + 1)) * 43758.5453
    luck -= math.floor(luck)
    return low + (high - low) * min(1.0, max(0.0, 0.3 + 0.5 * float(u.sum()) * (0.2 + luck)))


def shown_at(t):
    z = np.random.default_rng(1000 + t).normal(size=(5, 3))
    return torch.as_tensor(0.75 * z / np.linalg.norm(z, axis=-1, keepdims=True))


@pytest.mark.parametrize("shown", [False, True])
@pytest.mark.parametrize(
    ("kind", "arguments", "rule"),
    [
        (LinUCB, {}, plain.lin_ucb),
        (LinUCB, {"radius": "trace", "feature_bound": 0.75}, plain.lin_ucb_trace),
        (RestartLinUCB, {"window": 23}, plain.restart(23)),
        (SWLinUCB, {"window": 17}, plain.sliding(17)),
        (SWLinUCB, {"window": 100}, plain.sliding(100)),
        (DLinUCB, {"discount": 0.93, "feature_bound": 0.75}, plain.discounted(0.93)),
        (LinTS, {"rebuild": 1}, plain.thompson(lambda t, d: plain.SIGMA)),
        (
            LinTS,
            {"rebuild": 1, "scale": "theory"},
            plain.thompson(lambda t, d: plain.SIGMA * math.sqrt(9 * d * math.log(t / plain.DELTA))),
        ),
        (
            GLMUCB,
            {"low": -1.0, "high": 2.0, "noise": 0.5, "feature_bound": 0.75, "horizon": 150},
            plain.logistic(-1.0, 2.0),
        ),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_a_second_version_plays_the_same_arms(kind, arguments, rule, shown):
    given = {**CONSTANTS, **arguments, "seed": 5, "runs": [3]}
    rounds = 150
    learner = kind(None, arms=5, dimension=3, **given) if shown else kind(FEATURES, **given)
    numbers = Philox(5, [3]).normal("lin-ts/normal", 0, rounds, 3, torch.float64)[0].numpy()
    history, seen = [], set()
    for t in range(rounds):
        u = shown_at(t) if shown else FEATURES
        arm = learner.act(u.unsqueeze(0) if shown else None)
        assert int(arm) == rule(history, u.numpy(), t, numbers), t
        y = rewards_of(int(arm), u[int(arm)], t)
        history.append((u[int(arm)].numpy(), y))
        seen.add(int(arm))
        learner.observe(arm, torch.tensor([y], dtype=torch.float64))
    assert len(seen) > 1


def noisy(t, arm, features, moved=0.0):
    """(R,) of four runs."""
    theta = torch.tensor([0.5, -0.3, 0.6], dtype=torch.float64)
    luck = Philox(4, range(4)).normal("tests/linear", t, 1, 1, torch.float64)[:, 0, 0]
    return features[arm] @ theta + 0.3 * luck + moved


def arms_of(learner, rounds=150, shown=False):
    played = []
    for t in range(rounds):
        u = shown_at(t) if shown else FEATURES
        arm = learner.act(u.expand(4, -1, -1) if shown else None)
        learner.observe(arm, noisy(t, arm, u))
        played.append(arm)
    return torch.stack(played)


@SHOWN
def test_windows_and_discounts_without_end_are_lin_ucb(shown):
    """With the same radius: a window of all rounds, a discount of 1 or next to it, a restart that never comes."""
    given = dict(runs=4, beta=0.8, delta=0.1, lam=0.6, **({"arms": 5, "dimension": 3} if shown else {}))
    features = None if shown else FEATURES
    whole = arms_of(LinUCB(features, **given), shown=shown)
    assert len(whole.unique()) == 5
    for other in (
        SWLinUCB(features, window=150, **given),
        SWLinUCB(features, window=10**9, horizon=150, **given),
        DLinUCB(features, discount=1.0, **given),
        DLinUCB(features, discount=1.0 - 1e-13, **given),
        RestartLinUCB(features, window=150, **given),
    ):
        assert torch.equal(arms_of(other, shown=shown), whole)
    for other in (
        SWLinUCB(features, window=30, **given),
        DLinUCB(features, discount=0.9, **given),
        RestartLinUCB(features, window=30, **given),
    ):
        assert not torch.equal(arms_of(other, shown=shown), whole)


def test_features_shown_each_round_are_the_same_as_fixed_ones():
    for kind, given in (
        (LinUCB, {}), (LinTS, {}), (SWLinUCB, {"window": 40}), (DLinUCB, {"discount": 0.95}),
        (RestartLinUCB, {"window": 40}),
    ):  # fmt: skip
        fixed = arms_of(kind(FEATURES, runs=4, delta=0.1, **given))
        longest = float(FEATURES.norm(dim=-1).max())
        learner = kind(None, arms=5, dimension=3, runs=4, delta=0.1, feature_bound=longest, **given)
        for t in range(150):
            arm = learner.act(FEATURES.expand(4, -1, -1))
            assert torch.equal(arm, fixed[t])
            learner.observe(arm, noisy(t, arm, FEATURES))


def test_orthonormal_features_are_independent_means():
    """theta_k = s_k / (lam + n_k), width^2 = 1 / (lam + n_k), ln det V = sum ln(lam + n_k)."""
    learner = LinUCB(torch.eye(5, dtype=torch.float64), runs=4, lam=0.7, noise=0.3, bound=1.3, delta=0.05)
    plays, sums = torch.zeros(4, 5, dtype=torch.float64), torch.zeros(4, 5, dtype=torch.float64)
    for t in range(400):
        mean, width = sums / (0.7 + plays), (0.7 + plays).rsqrt()
        volume = ((0.7 + plays) / 0.7).log().sum(-1, keepdim=True)
        beta = math.sqrt(0.7) * 1.3 + 0.3 * (2 * math.log(20) + volume).sqrt()
        index = mean + beta * width
        arm = learner.act()
        torch.testing.assert_close(learner.fixed.means, mean, rtol=1e-11, atol=1e-12)
        torch.testing.assert_close(learner.fixed.widths2, width**2, rtol=1e-11, atol=0)
        assert (index.gather(1, arm.unsqueeze(1))[:, 0] >= index.amax(-1) - 1e-9).all()
        luck = Philox(4, range(4)).normal("tests/linear", t, 1, 1, torch.float64)[:, 0, 0]
        reward = 0.2 * arm + 0.3 * luck
        learner.observe(arm, reward)
        plays[torch.arange(4), arm] += 1
        sums[torch.arange(4), arm] += reward
    assert (plays > 0).all()


@pytest.mark.parametrize("rounds", [0, 3, 130, 230])
def test_a_square_root_is_one_and_samples_have_the_law(rounds):
    ridge = RootRidge(3, 0.6, 4)
    generator = torch.Generator().manual_seed(0)
    us = torch.randn(rounds, 3, 4, dtype=torch.float64, generator=generator)
    ys = torch.randn(rounds, 4, dtype=torch.float64, generator=generator)
    for u, y in zip(us, ys, strict=True):
        ridge.add(u, y)
    for run in range(4):
        x = us[:, :, run].numpy()
        v = 0.6 * np.eye(3) + x.T @ x
        root = ridge.root[:, :, run].numpy()
        np.testing.assert_allclose(root @ root.T, np.linalg.inv(v), rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(ridge.theta[:, run], np.linalg.solve(v, x.T @ ys[:, run].numpy()), atol=1e-11)
        volume = np.linalg.slogdet(v)[1] - 3 * math.log(0.6)
        assert float(ridge.log_volume[run]) == pytest.approx(volume, abs=1e-10)
    learner = LinTS(FEATURES, runs=20_000, delta=0.1, noise=0.4)
    for t in range(6):
        arm = torch.full((20_000,), t % 5)
        learner.observe(arm, torch.full((20_000,), 0.3 * t, dtype=torch.float64))
    drawn = learner.parameter()
    v = np.eye(3) + FEATURES[[0, 1, 2, 3, 4, 0]].numpy().T @ FEATURES[[0, 1, 2, 3, 4, 0]].numpy()
    np.testing.assert_allclose(np.cov(drawn.numpy()), 0.16 * np.linalg.inv(v), atol=0.006)
    np.testing.assert_allclose(drawn.mean(1), learner.ridge.theta[:, 0], atol=4.5 * 0.4 / math.sqrt(20_000))


@SHOWN
@pytest.mark.parametrize("lam", [1.0, 1e-8])
def test_a_long_window_does_not_drift(shown, lam):
    given = dict(runs=4, lam=lam, delta=0.1, window=37, noise=0.3)
    learner = SWLinUCB(None, arms=5, dimension=3, **given) if shown else SWLinUCB(FEATURES, **given)
    history = []
    for t in range(500):
        u = shown_at(t) if shown else FEATURES
        learner.act(u.expand(4, -1, -1))
        arm = torch.full((4,), 0 if t < 400 else t % 3)  # an arm alone, and then not
        reward = noisy(t, arm, u)
        learner.observe(arm, reward)
        history.append((u[arm[0]].numpy(), reward))
    v = lam * np.eye(3) + sum(np.outer(u, u) for u, _ in history[-37:])
    theta = np.linalg.solve(v, sum(u * float(y[2]) for u, y in history[-37:]))
    means, squares = learner._statistics(FEATURES.unsqueeze(-1))
    inverse = np.linalg.inv(v)
    wanted = np.einsum("kd,de,ke->k", FEATURES, inverse, FEATURES)
    np.testing.assert_allclose(squares[2].numpy(), wanted, rtol=1e-8)
    np.testing.assert_allclose(means[2].numpy(), FEATURES.numpy() @ theta, atol=1e-7 if lam < 1 else 1e-11)


def test_a_loaded_restart_knows_where_its_window_stands():
    straight, loaded = (RestartLinUCB(FEATURES, runs=4, delta=0.1, window=11, radius="trace") for _ in range(2))
    arms_of(straight, 37)
    loaded.load_state_dict(straight.state_dict())
    assert loaded.ridge.rounds == straight.ridge.rounds == 4
    assert loaded.confidence() == straight.confidence()


def test_theory_scales_a_draw_by_the_number_of_the_round():
    learner = LinTS(FEATURES, runs=4, delta=0.02, noise=0.3, scale="theory")
    for t in range(1, 4):
        z = Philox(0, range(4)).normal("lin-ts/normal", t - 1, 1, 3, torch.float64)[:, 0]
        wanted = math.sqrt(27 * math.log(t / 0.02)) * 0.3 * torch.einsum("ijr,rj->ir", learner.ridge.root, z)
        torch.testing.assert_close(learner.parameter() - learner.ridge.theta, wanted, rtol=1e-12, atol=1e-13)
        learner.observe(learner.act(), torch.ones(4, dtype=torch.float64))


def test_a_maximum_is_found_from_where_a_whole_newton_step_overshoots():
    one = torch.ones(1, 1, dtype=torch.float64)
    theta = logistic_fit(10.0 * one, one.unsqueeze(0), 100.0 * one, 400.0 * one, 1e-3)
    assert float(theta) == pytest.approx(-math.log(3), abs=1e-4)


def test_an_estimate_is_made_at_powers_of_two_alone():
    learner = GLMUCB(FEATURES, runs=2, delta=0.1, low=0.0, high=1.0)
    before = learner.estimate.clone()
    for t in range(1, 40):
        learner.observe(learner.act(), torch.tensor([1.0, 0.0], dtype=torch.float64))
        assert torch.equal(before, learner.estimate) == (t not in (1, 2, 4, 8, 16, 32))
        before = learner.estimate.clone()


def test_named_learners_take_the_facts():
    facts = {
        "domain": ("arms", {"dimension": 5}), "arms": 5, "horizon": 400, "noise": 0.3, "features": FEATURES,
        "parameter_bound": 1.5, "variation": 3.0,
    }  # fmt: skip
    learner = make("lin-ucb", facts)
    assert (learner.noise, learner.bound, learner.delta, learner.lam) == (0.3, 1.5, 1 / 400, 1.0)
    assert learner.feature_bound == pytest.approx(float(FEATURES.norm(dim=-1).max()))
    assert make("sw-lin-ucb", facts).window == window_of(3, 400, 3.0)
    assert make("restart-lin-ucb", facts, variation=2.0).window == window_of(3, 400, 2.0)
    assert make("d-lin-ucb", facts).discount == discount_of(3, 400, 3.0)
    ranged = {**facts, "reward_low": -1.0, "reward_high": 2.0}
    assert make("lin-ts", {key: value for key, value in ranged.items() if key != "noise"}).noise == 1.5
    assert make("glm-ucb", ranged).noise == 0.5
    assert make("glm-ucb", ranged).kappa == pytest.approx(least_slope(1.5 * float(FEATURES.norm(dim=-1).max())))
    with pytest.raises(ValueError, match=r"glm-ucb: expected a problem with a range of rewards"):
        make("glm-ucb", facts)
    for missing in ("features", "parameter_bound", "noise"):
        fewer = {key: value for key, value in facts.items() if key != missing}
        words = {"features": "feature_dimension"}.get(missing, missing)
        with pytest.raises(ValueError, match=rf"lin-ucb: expected a problem with {words}"):
            make("lin-ucb", fewer)
    assert [kind.name for kind in LINEAR] == [
        "lin-ucb", "lin-ts", "d-lin-ucb", "sw-lin-ucb", "restart-lin-ucb", "glm-ucb"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "arguments", "words"),
    [
        (LinUCB, dict(delta=None), "delta: expected a chance, or a horizon"),
        (LinUCB, dict(delta=1.5), "delta: expected a chance above 0"),
        (LinUCB, dict(lam=0.0), "lam: expected a finite number above 0"),
        (LinUCB, dict(noise=-1.0), "noise: expected at least 0"),
        (LinUCB, dict(bound=math.inf), "bound: expected at least 0"),
        (LinUCB, dict(radius="exact"), "radius: expected 'determinant' or 'trace'"),
        (LinUCB, dict(arms=4), "features: expected 4 arms"),
        (LinUCB, dict(dimension=2), "features: expected .* 2 numbers"),
        (LinTS, dict(scale="none"), "scale: expected 'noise' or 'theory'"),
        (SWLinUCB, dict(window=0), "window: expected at least 1"),
        (RestartLinUCB, dict(window=0), "window: expected at least 1"),
        (DLinUCB, dict(discount=1.1), "discount: expected a number from 0 to 1"),
        (GLMUCB, dict(), "reward range: expected rewards in a range"),
        (GLMUCB, dict(low=0.0, high=1.0, kappa=0.5), "kappa: expected a slope"),
        (GLMUCB, dict(low=0.0, high=1.0, bound=800.0, feature_bound=1.0), "kappa: expected a slope"),
    ],
)
def test_bad_arguments_are_named(kind, arguments, words):
    with pytest.raises(ValueError, match=words):
        kind(FEATURES, **{"delta": 0.1, **arguments})


def test_features_that_change_need_sizes_and_are_needed():
    with pytest.raises(ValueError, match="features: expected features of the arms, or arms and dimension"):
        LinUCB(arms=3, delta=0.1)
    with pytest.raises(ValueError, match="dimension: expected a whole number of at least 1"):
        LinUCB(arms=3, dimension=0, delta=0.1)
    with pytest.raises(ValueError, match="horizon: expected a number of rounds"):
        GLMUCB(arms=3, dimension=2, delta=0.1, low=0.0, high=1.0)
    learner = LinUCB(arms=3, dimension=2, delta=0.1)
    with pytest.raises(ValueError, match=r"contexts: expected act\(contexts\) before observe"):
        learner.observe(torch.tensor([0]), torch.tensor([0.5], dtype=torch.float64))


@pytest.mark.gpu
def test_on_a_device_bad_contexts_are_told_by_check():
    learner = LinUCB(arms=3, dimension=2, delta=0.1, device="cuda")
    learner.act(torch.full((1, 3, 2), torch.nan, device="cuda", dtype=torch.float64))
    with pytest.raises(ValueError, match="contexts: expected finite numbers"):
        learner.check()
