"""Small tasks that each agent must solve in seconds, and that a wrong sign or a lost bootstrap fails."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import offline_rl.online

LOW, HIGH = np.float32([-1.0]), np.float32([3.0])
TOY = {"hidden": (64, 64), "batch_size": 64, "random_steps": 300, "capacity": 2000, "learning_rate": 3e-3, "tau": 0.05}
KINDS = {
    "TD3": {},
    "SAC": {"initial_alpha": 0.05, "alpha_learning_rate": 3e-3, "target_entropy": -2.0},
    "STAC": {"initial_alpha": 0.01, "beta": 0.1, "alpha_learning_rate": 0.0},
    "BEER": {"mask_terminal": True},
}


def two_steps(agent, steps):
    """A start x in [-1, 1]; the action becomes the next state; there any action earns -(state - 1 - x)^2, the end.

    The first step earns nothing, so only what is behind it can teach the action 1 + x.
    """
    rng = np.random.default_rng(0)
    runs = agent.runs
    start = rng.uniform(-1, 1, (runs, 1))
    obs, second = np.hstack([np.zeros((runs, 1)), start, np.zeros((runs, 1))]), False
    for _ in range(steps):
        action = agent.explore(obs)
        if second:
            reward, following = -((obs[:, 2] - 1 - obs[:, 1]) ** 2), obs
        else:
            reward, following = np.zeros(runs), np.hstack([np.ones((runs, 1)), obs[:, 1:2], action])
        agent.observe(obs, action, reward, following, np.full(runs, second))
        if second:
            start = rng.uniform(-1, 1, (runs, 1))
            following = np.hstack([np.zeros((runs, 1)), start, np.zeros((runs, 1))])
        obs, second = following, not second
        if agent.ready:
            agent.update()


@pytest.mark.parametrize("kind", KINDS)
def test_every_agent_learns_what_pays_one_step_later(kind):
    agent = getattr(offline_rl.online, kind)(3, 1, LOW, HIGH, runs=2, seed=1, **{**TOY, **KINDS[kind]})
    two_steps(agent, 1300)
    x = np.linspace(-0.9, 0.9, 10)
    action = agent.act(np.stack([np.zeros(10), x, np.zeros(10)], 1).astype(np.float32))[..., 0]
    error = np.abs(action - 1 - x)
    assert error.mean() < 0.15, error
    assert agent.finite().all()


@pytest.mark.proof
@pytest.mark.parametrize("kind", ["SAC", "STAC"])
def test_soft_agents_keep_the_entropy_that_they_are_told_to(kind):
    """One step, reward -a^2 of the scaled action: the soft optimum is a Gaussian of variance alpha / 2."""
    values = {"initial_alpha": 0.1, "alpha_learning_rate": 5e-3, "target_entropy": -0.5, "random_steps": 64}
    if kind == "STAC":
        values |= {"actor_dropout": 0.0, "critic_dropout": 0.0, "alpha_rule": "exp", "beta": 0.0}
    agent = getattr(offline_rl.online, kind)(1, 1, -2.0, 2.0, **{**TOY, **values})
    rng = np.random.default_rng(0)
    for _ in range(500):
        action = rng.uniform(-2, 2, (1, 1))
        agent.observe([[0.0]], action, -((action[:, 0] / 2) ** 2), [[0.0]], [1.0])
    agent.update(1200)
    agent.metrics()
    agent.update(100)
    found = agent.metrics()
    assert found["entropy"][0] == pytest.approx(-0.5, abs=0.15)
    # Entropy of a Gaussian: log(2 pi e variance) / 2 = -0.5 at variance 0.0215.
    assert found["alpha"][0] == pytest.approx(0.043, rel=0.35)


def test_a_time_limit_bootstraps_and_a_terminal_does_not():
    """One state, reward 1 for ever: the value is 1 / (1 - gamma) where the limit cuts, 1 where the world ends."""
    for terminal, expected in ((0.0, 5.0), (1.0, 1.0)):
        agent = offline_rl.online.TD3(1, 1, **{**TOY, "random_steps": 64, "discount": 0.8, "tau": 0.2})
        for _ in range(64):
            agent.observe([[0.5]], agent.explore([[0.5]]), [1.0], [[0.5]], [terminal])
        agent.update(300)
        value = agent.value(torch.tensor([[[0.5]]]), torch.tensor([[[0.0]]]))
        assert value.item() == pytest.approx(expected, rel=0.1)
