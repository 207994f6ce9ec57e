"""What an algorithm brings to the contract suite of test_contract.py and test_contract_files.py: one line in CASES."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch

import offline_rl
from orbs import Transitions
from tests.offline_rl.reference import make_data


@dataclass(frozen=True)
class Case:
    """One algorithm under the contract.

    Attributes:
        name: the test's id.
        cls: name of the class in offline_rl.
        hyperparameters: beyond small networks and batches.
        actor_critic: whether the learner has `critic`, `_actor_step` and `policy_period`.
    """

    name: str
    cls: str
    hyperparameters: dict[str, Any] = field(default_factory=dict)
    actor_critic: bool = True

    def build(self, data: Transitions | None = None, **arguments: Any) -> Any:
        """A small learner, attached to `data` (by default DATA)."""
        small = {"hidden": (32, 32), "batch_size": 32}
        return self.kind.for_dataset(data or DATA, **{**small, **self.hyperparameters, **arguments})

    @property
    def kind(self) -> Any:
        return getattr(offline_rl, self.cls)


DATA = make_data(low=[-0.3, 1.0], high=[0.7, 4.0])  # an asymmetric box; 2 * 32-wide networks

ODICE_PLAIN = {"twin": False, "layer_norm": False, "tanh_mean": True}
ODICE_SMALL = {"actor_hidden": (32, 32), "normalise_obs": True}

A2PR_SMALL = {"critic_hidden": (32, 24), "vae_hidden": (24, 24)}

REBRAC_OTHER = {"normalise_obs": True, "actor_layer_norm": True, "critic_layer_norm": False}

CASES = [
    Case("bc", "BC", actor_critic=False),
    Case("bc-best-blocks", "BC", {"top_fraction": 0.5, "filter_horizon": 10}, actor_critic=False),
    Case("td3bc", "TD3BC"),
    # Not "actor_critic" to the suite: its actor moves in the first update, not in the second (test_rebrac.py).
    Case("rebrac", "ReBRAC", {"normalise_obs": True, "critic_beta": 0.1}, actor_critic=False),
    Case("rebrac-other", "ReBRAC", {**REBRAC_OTHER, "slow_actor_lag": False}, actor_critic=False),
    Case("prdc", "PRDC", {"beta": 2.0}),
    Case("prdc-paper", "PRDC", {"beta": 1.0, "penalty": "joint_norm", "q_normaliser": "data", "k": 3}),
    Case("odice", "ODICE", ODICE_SMALL, actor_critic=False),
    Case("odice-true-kl", "ODICE", {**ODICE_SMALL, "gradient": "true", "divergence": "kl"}, actor_critic=False),
    Case("odice-single", "ODICE", {**ODICE_SMALL, **ODICE_PLAIN}, actor_critic=False),
    Case("iql", "IQL", {"normalise_obs": True}, actor_critic=False),
    Case(
        "iql-deterministic-dropout",
        "IQL",
        {"normalise_obs": True, "policy": "deterministic", "dropout": 0.2, "update_order": "actor_last"},
        actor_critic=False,
    ),
    Case(
        "iql-shaped",
        "IQL",
        {"normalise_obs": True, "initialisation": "uniform", "cosine_steps": 50, "reward_normaliser": "blocks"},
        actor_critic=False,
    ),
    Case("a2pr", "A2PR", A2PR_SMALL),
    Case("a2pr-detached", "A2PR", {**A2PR_SMALL, "detach_vae_target": True, "fresh_value": True}),
    Case("a2pr-prior", "A2PR", {"critic_hidden": (16,), "vae_hidden": (16,), "vae_source": "prior"}),
    Case("td3bc-stac", "TD3BC", {"critic": "stac", "critic_dropout": 0.1}),
    Case("td3bc-beer", "TD3BC", {"beer": 0.1, "beer_bound": "author"}),
    Case("prdc-stac", "PRDC", {"beta": 2.0, "critic": "stac", "critic_combine": "min_mean", "beer": 0.1}),
    Case("a2pr-stac", "A2PR", {**A2PR_SMALL, "critic": "stac", "critic_dropout": 0.1}),
]

__all__ = ["CASES", "DATA", "Case", "assert_same"]


def assert_same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    """Two snapshots are equal to the last bit."""
    assert a.keys() == b.keys()
    assert [name for name in a if not torch.equal(a[name], b[name])] == []
