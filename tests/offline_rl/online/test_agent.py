"""The contract that every interacting agent passes: exploring, remembering, updates, acting, bad input."""

from __future__ import annotations

import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import offline_rl
from offline_rl.online.agent import INTERACTION_BLOCK
from offline_rl.online.config import ONLINE_CONFIGS
from tests.offline_rl.online.contract import CASES, HIGH, LOW, assert_same, play, snapshot

# Determinism, runs


def test_same_seed_same_bits_and_another_seed_other_ones(agent_case):
    first, again, other = (agent_case.build(runs=2, seed=seed) for seed in (7, 7, 8))
    played = [play(agent, 90) for agent in (first, again, other)]
    np.testing.assert_array_equal(played[0], played[1])
    assert not np.array_equal(played[0], played[2])
    assert first.steps == 41  # interactions 50 to 90
    assert_same(snapshot(first), snapshot(again))
    assert not torch.equal(first.actor[0], other.actor[0])


@pytest.mark.parametrize(
    ("dtype", "updates", "tolerance"), [(torch.float64, 100, 1e-12), (torch.float32, 20, 1e-5)], ids=str
)
def test_one_run_of_five_equals_the_run_alone(agent_case, dtype, updates, tolerance):
    """The networks do not learn while the replays fill, so that all runs play what they would play alone."""
    together = agent_case.filled(runs=5, dtype=dtype)
    together.update(updates)
    played = play(together, 5)
    expected = per_run(together, 5)
    for run in (0, 3):
        alone = agent_case.filled(runs=[run], dtype=dtype)
        alone.update(updates)
        np.testing.assert_allclose([a[0] for a in play(alone, 5)], [a[run] for a in played], rtol=0, atol=tolerance)
        for name, tensor in per_run(alone, 1).items():
            assert (tensor[0] - expected[name][run]).abs().max() <= tolerance, (run, name)


def per_run(agent, runs):
    """Run-major views of a state's tensors, without what all runs share."""
    state = agent.state_dict()
    return {n: t.reshape(runs, -1) for n, t in state.items() if t.ndim and n not in ("obs_mean", "obs_std")}


def test_one_diverged_run_leaves_the_others_alone(agent_case):
    healthy, poisoned = (agent_case.filled(runs=3) for _ in range(2))
    with torch.no_grad():
        poisoned.actor[0][1] = float("nan")
    for agent in (healthy, poisoned):
        agent.update(10)
    assert healthy.finite().tolist() == [True, True, True]
    assert poisoned.finite().tolist() == [True, False, True]
    theirs = per_run(poisoned, 3)
    for name, tensor in per_run(healthy, 3).items():
        assert torch.equal(tensor[[0, 2]], theirs[name][[0, 2]]), name


def test_updates_in_one_call_or_in_many_are_the_same(agent_case):
    one, many = agent_case.filled(runs=2), agent_case.filled(runs=2)
    one.update(40)
    for _ in range(40):
        many.update()
    assert_same(snapshot(one), snapshot(many))


def test_metrics_are_finite_one_per_run(agent_case):
    agent = agent_case.filled(runs=3)
    agent.update(4)
    values = agent.metrics()
    assert {"critic_loss", "q_policy"} <= values.keys()
    for name, value in values.items():
        assert value.shape == (3,), name
        assert np.isfinite(value).all(), name
    assert agent.metrics() == {}


# Exploring


def test_explore_is_random_first_then_the_noisy_policy_and_repeats_itself(agent_case):
    agent = agent_case.build(runs=2, random_steps=INTERACTION_BLOCK + 3)
    obs, other = np.ones((2, 3)), np.zeros((2, 3))
    seen = []
    for step in range(2 * INTERACTION_BLOCK + 5):
        agent.interactions = step
        action = agent.explore(obs)
        assert action.shape == (2, 2)
        assert (action >= LOW).all()
        assert (action <= HIGH).all()
        np.testing.assert_array_equal(agent.explore(obs), action)
        random = step < INTERACTION_BLOCK + 3
        assert np.array_equal(agent.explore(other), action) == random, step
        seen.append(action)
    seen = np.array(seen)
    assert len(np.unique(seen[:, 0, 0])) == len(seen)
    assert not np.array_equal(seen[:, 0], seen[:, 1])
    early = seen[: INTERACTION_BLOCK + 3]
    scaled = (early - (LOW + HIGH) / 2) / ((HIGH - LOW) / 2)
    np.testing.assert_allclose(scaled.mean((0, 1)), 0, atol=0.1)
    # Uniform numbers have the deviation 0.577, tanh of normal ones 0.628.
    np.testing.assert_allclose(scaled.std((0, 1)), 0.628 if agent_case.cls == "STAC" else 0.577, atol=0.03)


def test_random_actions_that_are_handed_out_cannot_spoil_the_next(agent_case):
    agent = agent_case.build()
    first = agent.explore(np.zeros((1, 3)))
    kept = first.copy()
    first += 100
    np.testing.assert_array_equal(agent.explore(np.zeros((1, 3))), kept)


def test_exploration_noise_has_its_deviation():
    agent = CASES[0].build(runs=4, random_steps=0, exploration_noise=0.05)
    obs = np.zeros((4, 3), np.float32)
    half = (HIGH - LOW) / 2
    noise = []
    for step in range(400):
        agent.interactions = step
        noise.append((agent.explore(obs) - agent.act(obs[:, None])[:, 0]) / half)
    assert abs(np.std(noise) - 0.05) < 0.003
    assert abs(np.mean(noise)) < 0.004


def test_soft_agents_explore_by_their_own_distribution():
    agent = CASES[2].build(runs=1, random_steps=0)
    obs = np.zeros((1, 3), np.float32)
    mean, std = (x[0, 0] for x in agent._distribution(torch.zeros(1, 1, 3)))
    pre = []
    for step in range(3000):
        agent.interactions = step
        pre.append(np.arctanh((agent.explore(obs)[0] - (LOW + HIGH) / 2) / ((HIGH - LOW) / 2)))
    np.testing.assert_allclose(np.mean(pre, 0), mean.detach(), atol=0.08)
    np.testing.assert_allclose(np.std(pre, 0), std.detach(), rtol=0.06)


# Remembering


def test_ready_after_the_random_steps_and_a_batch(agent_case):
    for random_steps, batch_size, first in ((10, 32, 32), (40, 32, 40), (0, 1, 1)):
        agent = agent_case.build(random_steps=random_steps, batch_size=batch_size)
        for step in range(1, 45):
            with_error = not agent.ready
            if with_error:
                with pytest.raises(
                    ValueError, match=rf"^{agent.name}.update: expected {random_steps} random steps and "
                ):
                    agent.update()
            play(agent, 1, learn=False)
            assert agent.ready == (step >= first)
            assert agent.interactions == agent.replay.size == step


def test_rows_hold_scaled_actions_and_everything_else_as_it_is(agent_case):
    agent = agent_case.build(runs=2)
    obs, following = np.arange(6.0).reshape(2, 3), 10 + np.arange(6.0).reshape(2, 3)
    agent.observe(obs, [[-0.3, 4.0], [0.2, 2.5]], [1.5, -2.0], following, [False, True])
    rows = agent.state_dict()["replay"]
    assert rows.shape == (2, 1, 10)
    np.testing.assert_allclose(rows[0, 0], [0, 1, 2, -1, 1, 1.5, 0, 10, 11, 12], atol=1e-6)
    np.testing.assert_allclose(rows[1, 0], [3, 4, 5, 0, 0, -2.0, 1, 13, 14, 15], atol=1e-6)


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("obs", np.zeros(3), r"shape \(2, 3\), one row a run, got shape \(3,\)"),
        ("action", np.zeros((2, 1)), r"shape \(2, 2\)"),
        ("reward", np.zeros((2, 1)), r"shape \(2,\), one row a run, got shape \(2, 1\)"),
        ("terminal", 0.0, r"shape \(2,\)"),
        ("obs", [[0, 0, 0], [0, np.nan, 0]], r"finite numbers, got a NaN or inf in run\(s\) \[7\] at interaction 6"),
        ("next_obs", [[np.inf, 0, 0], [0, np.nan, 0]], r"a NaN or inf in run\(s\) \[4, 7\] at interaction 6"),
        ("reward", [0, -np.inf], r"a NaN or inf in run\(s\) \[7\] at interaction 6"),
        ("action", [[0, np.nan], [0, 2]], r"a NaN or inf in run\(s\) \[4\] at interaction 6"),
        ("action", [[0, 2], [0.8, 2]], r"actions in .*, got one outside in run\(s\) \[7\] at interaction 6"),
        ("terminal", [0.5, 0], r"0 or 1, got another value in run\(s\) \[4\] at interaction 6"),
        ("terminal", [np.nan, 0], r"0 or 1, got another value in run\(s\) \[4\]"),
    ],
)
def test_a_bad_transition_is_named_and_not_remembered(agent_case, field, value, said):
    agent = agent_case.build(runs=[4, 7])
    play(agent, 5)
    good = {
        "obs": np.zeros((2, 3)), "action": np.full((2, 2), [0, 2.0]), "reward": np.zeros(2),
        "next_obs": np.zeros((2, 3)), "terminal": np.zeros(2),
    }  # fmt: skip
    with pytest.raises(ValueError, match=rf"^{agent.name}.observe.{field}: expected .*{said}"):
        agent.observe(**{**good, field: value})
    assert agent.interactions == agent.replay.size == 5
    agent.observe(**good)
    with pytest.raises(ValueError, match=rf"^{agent.name}.explore.obs: expected shape \(2, 3\)"):
        agent.explore(np.zeros((1, 3)))


def test_huge_but_finite_observations_pass():
    agent = CASES[0].build()
    agent.observe(np.full((1, 3), 1e30), np.float32([[0, 2]]), [0.0], np.zeros((1, 3)), [0])
    assert agent.replay.size == 1


def test_a_terminal_stops_bootstrapping_and_a_time_limit_does_not(agent_case):
    """y = r at a terminal, whatever lies behind; else the successor counts."""
    seen = []
    for terminal in (1.0, 0.0):
        for behind in (0.0, 5.0):
            fresh = agent_case.build(dtype=torch.float64, batch_size=1, random_steps=0, discount=0.9, capacity=1)
            caught = {}
            original = fresh.critic.loss

            def spy(batch, target, next_action, caught=caught, original=original):
                caught["y"] = float(target[0, 0])
                return original(batch, target, next_action)

            fresh.critic.loss = spy
            fresh.observe(np.zeros((1, 3)), [[0, 2]], [1.5], np.full((1, 3), behind), [terminal])
            fresh.update()
            seen.append(caught["y"])
    assert seen[0] == seen[1] == 1.5
    assert seen[2] != seen[3]
    assert 1.5 not in seen[2:]


# Acting and judging


def test_act_is_deterministic_or_a_function_of_interactions_and_draw(agent_case):
    agent = agent_case.filled(runs=2)
    obs = np.random.default_rng(0).normal(size=(2, 7, 3))
    np.testing.assert_array_equal(agent.act(obs), agent.act(obs))
    sampled = agent.act(obs, deterministic=False)
    np.testing.assert_array_equal(agent.act(obs, deterministic=False), sampled)
    assert np.array_equal(agent.act(obs), sampled) != agent_case.stochastic
    assert np.array_equal(agent.act(obs, deterministic=False, draw=1), sampled) != agent_case.stochastic
    agent.interactions += 1
    assert np.array_equal(agent.act(obs, deterministic=False), sampled) != agent_case.stochastic
    assert (sampled >= LOW).all()
    assert (sampled <= HIGH).all()
    assert agent.act(obs[0, 0]).shape == (2, 2)
    with pytest.raises(ValueError, match=r"^act.draw: expected 0 .. 1048575, got -1"):
        agent.act(obs, deterministic=False, draw=-1)


def test_value_is_the_mean_over_members_at_scaled_actions(agent_case):
    agent = agent_case.filled(runs=2, dtype=torch.float64)
    rng = np.random.default_rng(1)
    obs, action = rng.normal(size=(2, 5, 3)), rng.uniform(LOW, HIGH, (2, 5, 2))
    value = agent.value(obs, action)
    assert value.shape == (2, 5)
    scaled = torch.tensor((action - (LOW + HIGH) / 2) / ((HIGH - LOW) / 2))
    agent.critic.eval()
    expected = agent.critic.evaluate(torch.tensor(obs), scaled).mean.mean(1)
    agent.critic.train()
    torch.testing.assert_close(value, expected.detach(), rtol=0, atol=1e-6)
    torch.testing.assert_close(agent.value(torch.tensor(obs), torch.tensor(action)), value, rtol=0, atol=0)
    with pytest.raises(ValueError, match=rf"^{agent.name}.value.action: expected shape \(2, n, 2\), got"):
        agent.value(obs, obs)


def test_entropy_bonus_is_minus_alpha_log_pi_of_the_action(agent_case):
    agent = agent_case.filled(runs=2, dtype=torch.float64)
    obs = np.random.default_rng(2).normal(size=(2, 5, 3))
    for deterministic in (True, False):
        bonus = agent.entropy_bonus(obs, deterministic, draw=3)
        assert bonus.shape == (2, 5)
        if not agent_case.stochastic:
            assert (bonus == 0).all()
            continue
        if deterministic and agent_case.name == "estac-samples":
            continue
        action = agent.act(obs, deterministic, draw=3)
        scaled = torch.tensor((action - (LOW + HIGH) / 2) / ((HIGH - LOW) / 2)).double()
        arguments = () if agent_case.cls == "SAC" else (None,)
        mean, std = (x.detach() for x in agent._distribution(torch.tensor(obs), *arguments))
        density = torch.distributions.Normal(mean, std).log_prob(torch.atanh(scaled)) - torch.log(1 - scaled**2)
        expected = -agent.log_alpha.exp()[:, None] * density.sum(-1)
        torch.testing.assert_close(bonus, expected, rtol=1e-5, atol=1e-5)


# Building


def box(low, high, shape=None):
    low, high = np.asarray(low, np.float32), np.asarray(high, np.float32)
    return SimpleNamespace(low=low, high=high, shape=shape or low.shape, dtype=np.dtype(np.float32))


def test_for_env_takes_single_spaces_of_one_env_or_many(agent_case):
    vector = box([-np.inf] * 3, [np.inf] * 3)
    single = SimpleNamespace(observation_space=vector, action_space=box(LOW, HIGH))
    many = SimpleNamespace(
        observation_space=box(np.zeros((4, 3)), np.ones((4, 3))), action_space=box(np.zeros((4, 2)), np.ones((4, 2))),
        single_observation_space=vector, single_action_space=box(LOW, HIGH),
    )  # fmt: skip
    for env in (single, many):
        agent = agent_case.kind.for_env(env, runs=4, **agent_case.hyperparameters)
        assert (agent.obs_dim, agent.action_dim, agent.runs) == (3, 2, 4)
        np.testing.assert_array_equal(agent.action_low, LOW)
        np.testing.assert_array_equal(agent.action_high, HIGH)


@pytest.mark.parametrize(
    ("obs", "action", "said"),
    [
        (
            box([0.0], [1.0]),
            SimpleNamespace(n=4, shape=(), dtype=np.dtype(np.int64)),
            "action space: expected a Box of",
        ),
        (box([0.0], [1.0]), box([-np.inf], [1.0]), "action space: expected a bounded Box"),
        (box([0.0], [1.0]), box([[0.0]], [[1.0]]), "action space: expected a Box of one axis"),
        (box([[0.0]], [[1.0]]), box([0.0], [1.0]), "observation space: expected a Box of one axis"),
        (SimpleNamespace(spaces={}, shape=None), box([0.0], [1.0]), "observation space: expected a Box of one axis"),
        (SimpleNamespace(n=5, shape=()), box([0.0], [1.0]), "observation space: expected a Box of one axis"),
        (None, box([0.0], [1.0]), "observation space: expected a Box of one axis"),
    ],
)
def test_for_env_refuses_other_spaces(obs, action, said):
    env = SimpleNamespace(observation_space=obs, action_space=action)
    with pytest.raises(ValueError, match=rf"^td3.for_env: {re.escape(said)}"):
        offline_rl.TD3.for_env(env)


@pytest.mark.parametrize(
    ("name", "values", "said"),
    [
        ("td3", {"capacity": 10}, r"td3.capacity: expected at least batch_size \(256\), got 10"),
        ("td3", {"random_steps": -1}, "td3.random_steps"),
        ("td3", {"policy_perod": 1}, "did you mean 'policy_period'"),
        ("td3", {"critic": "tripel"}, "critic: expected one of twin, stac"),
        ("sac", {"initial_alpha": 0.0}, "sac.initial_alpha"),
        ("stac", {"alpha_rule": "sgd"}, "stac.alpha_rule"),
        ("stac", {"critics": 3}, "stac.critics: expected 1 or 2"),
        ("stac", {"actor_dropout": 1.0}, "stac.actor_dropout"),
        ("stac", {"alpha_cap": 0.1}, r"stac.initial_alpha: expected at most alpha_cap \(0.1\)"),
        ("beer", {"bound": "none"}, "beer.bound"),
        ("beer", {"tau": 2.0}, "beer.tau"),
    ],
)
def test_bad_hyperparameters_are_named(name, values, said):
    with pytest.raises(ValueError, match=said):
        offline_rl.algorithm(name)(3, 2, **values)


def test_names_lead_to_classes_and_configurations():
    for name, config in ONLINE_CONFIGS.items():
        kind = offline_rl.algorithm(name)
        assert kind.name == name
        assert kind.config_class is config
        assert getattr(offline_rl, kind.__name__) is kind
        assert kind.__name__ in offline_rl.__all__
