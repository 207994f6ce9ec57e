"""What every regret world keeps: streams of runs, blocks, twins, saved states, refusals, single environments."""

from __future__ import annotations

import gc
import subprocess
import sys
import warnings
import weakref
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode

import envs.regret_world
from envs.experts import Experts
from envs.linear_losses import LinearLosses
from envs.online_regression import OnlineRegression
from envs.portfolio import Portfolio
from envs.regions import Arms, Ball, Box, Simplex
from envs.regret_world import RegretWorld, SingleWorld
from envs.sea import SEA, single

Maker = Callable[..., RegretWorld]
SEA_KINDS = ("dial", "iid", "adversarial", "corrupted", "drift", "random-order", "switching")
MAKERS: dict[str, Maker] = {
    **{f"sea-{kind}": lambda kind=kind, **a: SEA(kind=kind, dimension=3, **a) for kind in SEA_KINDS[:-1]},
    "sea-switching": lambda **a: SEA(kind="switching", dimension=3, stages=2, **a),
    "sea-two-passes": lambda **a: SEA(kind="random-order", passes=2, **a),
    "experts": lambda **a: Experts(4, **a),
    "experts-overtaken": lambda **a: Experts(4, kind="second-best-overtakes", **a),
    "experts-constrained": lambda **a: Experts(4, kind="stochastically-constrained", **a),
    "experts-bandit": lambda **a: Experts(4, feedback="bandit", **a),
    **{
        f"regression-{kind}": lambda kind=kind, **a: OnlineRegression(kind, 3, stages=2, **a)
        for kind in ("squared", "absolute", "huber", "logistic", "hinge")
    },
    "portfolio": lambda **a: Portfolio(4, **a),
    **{
        f"linear-{kind}": lambda kind=kind, **a: LinearLosses(kind, **a)
        for kind in ("rademacher", "gaussian", "rotating", "ftl-killer", "drifting-best")
    },
}
IDS = ("orbs/SEA-v0", "orbs/Experts-v0", "orbs/OnlineRegression-v0", "orbs/Portfolio-v0")
HORIZON = 40


def some_action(world: RegretWorld) -> torch.Tensor:
    """A point inside that depends on the run's id and the round."""
    ids = torch.tensor(world.run_ids, dtype=torch.float64)[:, None]
    if isinstance(world.region, Arms):
        return (ids[:, 0].long() + world.round) % world.region.dimension
    wave = torch.sin(ids + world.round + torch.arange(world.region.dimension))
    if isinstance(world.region, Simplex):
        return (wave + 1.1) / (wave + 1.1).sum(-1, keepdim=True)
    return wave / world.region.dimension


def play(world: RegretWorld, rounds: int) -> list[torch.Tensor]:
    """Everything that the rounds show, and the regrets after several."""
    seen: list[torch.Tensor] = []
    for _ in range(rounds):
        observation, reward, _, _, info = world.step(some_action(world))
        seen += [observation, reward, *info["feedback"].terms.values()]
    return seen if rounds == 1 else [*seen, world.loss, *world.regret().values()]


def same(one: list[torch.Tensor], other: list[torch.Tensor], row: int | slice = slice(None)) -> bool:
    return all(torch.equal(a[row], b[row]) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("name", MAKERS)
def test_a_run_is_the_same_alone_and_whatever_the_blocks(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    make = MAKERS[name]
    many = play(make(horizon=HORIZON, runs=9, seed=3), HORIZON)
    alone = play(make(horizon=HORIZON, runs=[7], seed=3), HORIZON)
    assert all(torch.allclose(a[7], b[0], rtol=1e-12, atol=1e-12) for a, b in zip(many, alone, strict=True))
    other = play(make(horizon=HORIZON, runs=9, seed=4), HORIZON)
    chance = name not in ("sea-adversarial", "linear-rotating", "linear-ftl-killer", "linear-drifting-best")
    assert same(many, other) != chance
    monkeypatch.setattr(envs.regret_world, "BLOCK_NUMBERS", 1)
    small = make(horizon=HORIZON, runs=9, seed=3)
    assert small.tape.block == 16
    assert same(play(small, HORIZON), many)


@pytest.mark.parametrize("name", MAKERS)
def test_a_saved_world_goes_on_to_the_same_bits(name: str) -> None:
    make = MAKERS[name]
    straight = make(horizon=HORIZON, runs=[2, 5], seed=1)
    whole = play(straight.twin(), HORIZON)
    for stop in (0, 17, HORIZON):
        play(straight, stop - straight.round)
        state = {key: value.clone() for key, value in straight.state_dict().items()}
        rest = straight.twin()
        rest.load_state_dict(state)
        fresh = make(horizon=HORIZON, runs=[2, 5], seed=1)
        fresh.load_state_dict(state)
        assert fresh.round == stop
        tail = play(fresh, HORIZON - stop)
        assert tail
        assert same(tail, whole[-len(tail) :])
        assert same(play(rest, HORIZON - stop), tail)
    with pytest.raises(ValueError, match=r"state\.seed"):
        make(horizon=HORIZON, runs=[2, 5], seed=2).load_state_dict(state)
    with pytest.raises(ValueError, match=r"state\.run_ids"):
        make(horizon=HORIZON, runs=[2, 6], seed=1).load_state_dict(state)
    with pytest.raises(ValueError, match="state: expected the entries"):
        straight.load_state_dict({"round": torch.tensor(3)})


@pytest.mark.parametrize("name", MAKERS)
def test_twins_meet_the_same_numbers_drawn_once(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(envs.regret_world, "BLOCK_NUMBERS", 1)
    world = MAKERS[name](horizon=HORIZON, runs=3)
    play(world, 5)
    twin, third = world.twin(), world.twin()
    world.reset()
    drawn, starts = world.tape.draw, []
    monkeypatch.setattr(world.tape, "draw", lambda first, rounds: starts.append(first) or drawn(first, rounds))
    world.tape._kept.clear()
    seen: list[list[torch.Tensor]] = [[], [], []]
    seen[0] += play(world, 1)  # one round ahead: it is the first to come to a new block
    for ahead in range(HORIZON):
        for place, each in enumerate((world, twin, third)):
            seen[place] += play(each, 1) if place or ahead < HORIZON - 1 else []
    assert starts == [0, 16, 32]
    assert same(seen[0], seen[1])
    assert same(seen[0], seen[2])


def test_a_new_seed_leaves_the_twins_numbers_alone() -> None:
    for name in ("sea-switching", "sea-corrupted", "regression-huber", "experts"):
        world = MAKERS[name](horizon=HORIZON, runs=2, seed=1)
        twin = world.twin()
        world.reset(seed=2)
        assert world.seed == 2
        assert same(play(twin, HORIZON), play(MAKERS[name](horizon=HORIZON, runs=2, seed=1), HORIZON))
        assert same(play(world, HORIZON), play(MAKERS[name](horizon=HORIZON, runs=2, seed=2), HORIZON))


def test_a_world_that_is_seeded_again_and_again_keeps_one_tape() -> None:
    env = single(horizon=3)
    env.reset(seed=1)
    env.step(np.zeros(5))
    first = weakref.ref(env.world.tape)
    env.reset(seed=2)
    gc.collect()
    assert first() is None


@pytest.mark.parametrize("name", MAKERS)
def test_interface_of_a_world(name: str) -> None:
    world = MAKERS[name](horizon=2, runs=[4, 8])
    assert isinstance(world, gym.vector.VectorEnv)
    assert world.metadata["autoreset_mode"] == AutoresetMode.DISABLED
    assert (world.num_envs, world.run_ids, world.facts["horizon"]) == (2, [4, 8], 2)
    assert world.facts["domain"] == world.region.plain
    first, info = world.reset()
    assert (first.shape, float(first.abs().sum()), info) == (world.observation_space.shape, 0.0, {})
    assert all(float(value.abs().max()) == 0.0 for value in world.regret().values())
    for last in (False, True):
        action = some_action(world)
        observation, reward, terminated, truncated, info = world.step(action)
        feedback = info["feedback"]
        assert (observation.dtype, observation.shape) == (torch.float64, world.observation_space.shape)
        assert (terminated.tolist(), truncated.tolist()) == ([False] * 2, [last] * 2)
        assert feedback.reward is reward
        assert (feedback.gradient is None) == (name == "experts-bandit")
        bound = world.facts.get("gradient_bound")
        if bound is not None:
            assert float((feedback.gradient**2).sum(-1).sqrt().max()) <= bound + 1e-12
        if "loss_low" in world.facts:
            assert world.facts["loss_low"] <= float(observation.min())
            assert float(observation.max()) <= world.facts["loss_high"]
    with pytest.raises(ValueError, match="at most 2 rounds"):
        world.step(action)
    assert world.reset()[0].shape == observation.shape
    world.step(action)


@pytest.mark.parametrize("name", [name for name in MAKERS if name not in ("experts-bandit", "linear-ftl-killer")])
def test_the_gradient_is_that_of_the_loss(name: str) -> None:
    """Central differences along the region; the loss is minus the reward of twins that play beside the point."""
    world = MAKERS[name](horizon=2, runs=2)
    x = some_action(world) * 0.5 + 0.5 / world.region.dimension * isinstance(world.region, Simplex)
    along = torch.zeros_like(x)
    along[:, 0], along[:, 1] = 1e-6, -1e-6
    gradient = world.twin().step(x)[0]
    up, down = (-world.twin().step(x + sign * along)[1] for sign in (1, -1))
    torch.testing.assert_close((gradient * along).sum(-1) / 1e-6, (up - down) / 2e-6, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(
    ("name", "bad", "words"),
    [
        ("sea-iid", torch.zeros(2, 4), r"shape \(2, 3\), got shape \(2, 4\)"),
        ("sea-iid", torch.full((2, 3), torch.nan), "a NaN or inf"),
        ("sea-iid", torch.tensor([[torch.inf, 0, 0], [0, 0, 0]]), "a NaN or inf"),
        ("sea-iid", torch.tensor([[0.0, 0, 0], [0, 1.00001, 0]]).double(), "ball.*outside by 1e-05"),
        ("experts", torch.tensor([[0.25] * 4, [0.25, 0.25, 0.25, 0.2501]]).double(), "simplex.*outside by 0.0001"),
        ("experts", torch.tensor([[0.25] * 4, [-0.25, 0.75, 0.25, 0.25]]).double(), "simplex.*outside by 0.25"),
        ("experts-bandit", torch.tensor([0, 4]), "arms.*outside by 1"),
        ("experts-bandit", torch.tensor([-1, 3]), "arms.*outside by 1"),
        ("experts-bandit", torch.tensor([0.0, 1.0]), "int64 arms"),
        ("linear-ftl-killer", torch.tensor([[0.0], [-1.5]]), "box.*outside by 0.5"),
    ],
)
def test_actions_that_are_none_are_refused_and_cost_no_round(name: str, bad: torch.Tensor, words: str) -> None:
    world = MAKERS[name](horizon=4, runs=2)
    with pytest.raises(ValueError, match=words):
        world.step(bad)
    assert world.round == 0
    assert float(world.sums["loss"].abs().sum()) == 0.0
    world = MAKERS[name](horizon=4, runs=2)
    if bad.dtype == torch.float64 and bad.isfinite().all():
        near = world.region.inside(np.zeros(world.region.shape)) + np.r_[1e-7, np.zeros(world.region.dimension - 1)]
        world.step(torch.as_tensor(near).expand(2, -1))


def test_other_devices_report_an_outsider_when_asked_for_regret() -> None:
    """The flag that is kept where no round may wait; shown on a CPU that calls itself something else."""

    class Elsewhere:
        type = "elsewhere"

    world = MAKERS["sea-iid"](horizon=4, runs=2)
    cpu, x = world.device, torch.zeros(2, 3, dtype=torch.float64)
    original = torch.as_tensor
    try:
        torch.as_tensor = lambda value, **_: original(value)
        world.device = Elsewhere()
        for action in (x, x + 2, x):
            world.step(action)
    finally:
        torch.as_tensor, world.device = original, cpu
    with pytest.raises(ValueError, match=r"outside by 2\.46"):
        world.regret()
    with pytest.raises(ValueError, match=r"outside by 2\.46"):
        world.state_dict()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: SEA(horizon=0), "horizon: expected an integer of at least 1, got 0"),
        (lambda: SEA(runs=0), "runs: expected an integer of at least 1"),
        (lambda: SEA(runs=[]), "runs: expected an integer of at least 1"),
        (lambda: Experts(runs=-1), "runs: expected an integer of at least 1"),
        (lambda: SEA(seed=-1), "seed"),
        (lambda: Portfolio(0), "dimension"),
        (lambda: Portfolio(True), "dimension"),
        (lambda: Portfolio(3).hindsight(1001), "rounds: expected 0 to 1000"),
    ],
)
def test_bad_arguments_are_named(make: Callable[[], Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make()


def test_regions_bring_inside_and_know_the_least_linear_value() -> None:
    rng = np.random.default_rng(0)
    rules = {Ball(2, 2.0): ([3.0, 4.0], [1.2, 1.6]), Box(2): ([3.0, -0.5], [1.0, -0.5])}
    rules |= {Simplex(2): ([3.0, -1.0], [1.0, 0.0])}  # type: ignore[dict-item]
    for region, (given, wanted) in rules.items():
        np.testing.assert_allclose(region.inside(np.array(given)), wanted)
        g = torch.as_tensor(rng.normal(size=(4, 2)))
        points = torch.as_tensor(np.array([region.inside(v) for v in rng.normal(size=(10_000, 2)) * 9]))
        sampled = (g @ points.T).amin(1)
        torch.testing.assert_close(region.lowest(g), sampled, rtol=1e-3, atol=1e-3)
        assert float((region.lowest(g) - sampled).max()) <= 1e-12
        low = region.space().low[0], region.space().high[0]  # type: ignore[attr-defined]
        assert low == {"ball": (-2, 2), "box": (-1, 1), "simplex": (0, 1)}[region.name]
        distances = (points[:200, None] - points[None, :200]).norm(dim=-1)
        assert 0.95 * region.diameter <= float(distances.max()) <= region.diameter + 1e-12
    np.testing.assert_array_equal(Simplex(4).inside(np.full(4, -1.0)), np.full(4, 0.25))
    assert Arms(3).inside(np.array(7)) == 2
    assert (Arms(3).diameter, Arms(1).diameter) == (pytest.approx(np.sqrt(2)), 0.0)
    assert Arms(3).lowest(torch.tensor([[2.0, -1.0, 0.5]])).tolist() == [-1.0]


@pytest.mark.parametrize("env_id", IDS)
def test_single_environments_pass_both_checkers(env_id: str) -> None:
    from stable_baselines3.common.env_checker import check_env as check

    env = gym.make(env_id, horizon=50).unwrapped
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a simplex's [0, 1] is no symmetric box, as both checkers remark
        check_env(env, skip_render_check=True)
        check(env)


def test_bandit_environment_passes_both_checkers() -> None:
    from stable_baselines3.common.env_checker import check_env as check

    env = gym.make("orbs/Experts-v0", feedback="bandit", arms=3, horizon=30).unwrapped
    check_env(env, skip_render_check=True)
    check(env)


@pytest.mark.parametrize("name", ["sea-iid", "experts", "experts-bandit", "regression-squared", "portfolio"])
def test_a_single_environment_is_one_run_of_the_world(name: str) -> None:
    env = SingleWorld(lambda runs, **a: MAKERS[name](runs=runs, **a), run=3, horizon=20)  # type: ignore[arg-type]
    world = MAKERS[name](horizon=20, runs=[3], seed=11)
    observation, _ = env.reset(seed=11)
    assert observation.dtype == np.float32
    for _ in range(20):
        action = some_action(world)
        wanted = world.step(action)
        observation, reward, terminated, truncated, info = env.step(action[0].numpy())
        np.testing.assert_array_equal(observation, wanted[0][0].numpy().astype(np.float32))
        assert reward == pytest.approx(float(wanted[1][0]), rel=1e-12)
        assert not terminated
    assert truncated
    assert info == pytest.approx({key: float(value[0]) for key, value in world.regret().items()}, rel=1e-9)
    with pytest.raises(ValueError, match="at most 20 rounds"):
        env.step(action[0].numpy())


def test_a_reset_without_a_seed_draws_the_next_one_from_the_environments_generator() -> None:
    def rewards(env: SingleWorld) -> list[float]:
        return [env.step(np.zeros(5))[1] for _ in range(3)]

    env, other = single(horizon=3), single(horizon=3)
    env.reset(seed=5)
    first = rewards(env)
    env.reset()
    second = rewards(env)
    assert first != second
    other.reset(seed=5)
    assert rewards(other) == first
    other.reset()
    assert rewards(other) == second
    with pytest.raises(ValueError, match=r"shape \(5,\)"):
        other.step(np.zeros(4))


def test_importing_envs_imports_no_torch_and_no_world() -> None:
    code = "import sys, envs; print([m for m in sys.modules if m == 'torch' or m.startswith('envs.')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr
