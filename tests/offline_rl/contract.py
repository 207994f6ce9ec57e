"""What an algorithm brings to the contract suite of test_contract.py: one line in CASES."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

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

CASES = [
    Case("bc", "BC", actor_critic=False),
    Case("bc-best-blocks", "BC", {"top_fraction": 0.5, "filter_horizon": 10}, actor_critic=False),
    Case("td3bc", "TD3BC"),
    Case("prdc", "PRDC", {"beta": 2.0}),
    Case("prdc-paper", "PRDC", {"beta": 1.0, "penalty": "joint_norm", "q_normaliser": "data", "k": 3}),
]

__all__ = ["CASES", "DATA", "Case"]
