"""What an agent brings to the contract suite of test_agent.py and test_files.py: one line in CASES."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

import offline_rl.online

LOW, HIGH = np.float32([-0.3, 1.0]), np.float32([0.7, 4.0])  # an asymmetric box
SMALL = {"hidden": (32, 32), "batch_size": 32, "random_steps": 50, "capacity": 400}


@dataclass(frozen=True)
class Case:
    """One agent under the contract: name, class, hyperparameters beyond small networks, batches and replays."""

    name: str
    cls: str
    hyperparameters: dict[str, Any] = field(default_factory=dict)
    stochastic: bool = False

    @property
    def kind(self) -> Any:
        return getattr(offline_rl.online, self.cls)

    def build(self, **arguments: Any) -> Any:
        return self.kind(3, 2, LOW, HIGH, **{**SMALL, **self.hyperparameters, **arguments})

    def filled(self, steps: int = 60, **arguments: Any) -> Any:
        agent = self.build(**arguments)
        play(agent, steps, learn=False)
        return agent


CASES = [
    Case("td3", "TD3"),
    Case("td3-stac-beer", "TD3", {"critic": "stac", "critic_dropout": 0.1, "beer": 0.1, "beer_bound": "author"}),
    Case("sac", "SAC", stochastic=True),
    Case("stac", "STAC", {"actor_dropout": 0.1, "critic_dropout": 0.1}, stochastic=True),
    Case(
        "estac-samples",
        "STAC",
        {"critics": 2, "alpha_rule": "adam", "evaluation_action": "samples", "distinct": False, "actor_dropout": 0.0},
        stochastic=True,
    ),
    Case("beer", "BEER", {"beta": 0.1}),
    Case("beer-consistent", "BEER", {"bound": "consistent", "mask_terminal": True, "bias_correct": True, "beta": 0.1}),
]


def world(run: int, step: int) -> tuple[np.ndarray, np.ndarray, float, float]:
    """obs, next_obs, reward, terminal of a run's interaction: a function of both numbers, whoever plays besides."""
    rng = np.random.default_rng((run, step))
    spread, offset = np.array([0.5, 1.0, 2.0]), np.array([-1.0, 0.0, 1.0])
    obs, following = (rng.normal(size=3) * spread + offset for _ in range(2))
    return obs, following, float(rng.normal()), float(rng.random() < 0.2)


def play(agent: Any, steps: int, learn: bool = True) -> list[np.ndarray]:
    """The loop of the module's docstring in `world`; the actions that were played."""
    actions = []
    for _ in range(steps):
        parts = [world(run, agent.interactions) for run in agent.run_ids]
        obs, following, reward, terminal = (np.stack([part[i] for part in parts]) for i in range(4))
        action = agent.explore(obs)
        agent.observe(obs, action, reward, following, terminal)
        actions.append(action)
        if learn and agent.ready:
            agent.update()
    return actions


def snapshot(agent: Any) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in agent.state_dict().items()}


def assert_same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    """Two snapshots are equal to the last bit."""
    assert a.keys() == b.keys()
    assert [name for name in a if not torch.equal(a[name], b[name])] == []
