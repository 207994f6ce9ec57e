"""What every regret learner is: `runs` independent copies on a device, rounds counted, a state that can be saved."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from orbs import reject, runs_last

__all__ = ["FOREVER", "LARGEST", "Learner"]

LARGEST = sys.float_info.max
FOREVER = sys.maxsize  # rounds for which a plan that never changes is held


class Learner(ABC):
    """`act`, then `observe`, round by round; see `orbs.RegretLearner`.

    Args:
        runs: how many independent copies, or their ids.
        device: where everything lies.

    Attributes:
        rounds: rounds observed.
        holds: whether actions stay for several rounds (see `hold`).
    """

    holds: bool = False

    def __init__(self, runs: int | Sequence[int] = 1, device: torch.device | str = "cpu") -> None:
        self.run_ids = list(range(runs)) if isinstance(runs, int) else list(runs)
        if not self.run_ids:
            reject("runs", "at least one run", runs, "give a number from 1, or ids")
        self.device = torch.device(device)
        self.rounds = 0

    @property
    def runs(self) -> int:
        return len(self.run_ids)

    def hold(self) -> int:
        """Rounds, the coming one included, for which the action stays, whatever their rewards: 1 if that is not known.

        A world with `advance` plays them at once: `skip` all but the last then, and `observe` that one, the feedback's
        terms holding the "total" of all their rewards.
        """
        return 1

    def skip(self, rounds: int) -> None:
        """So many rounds of the held action have passed, the last of them not the last for which it is held."""
        if not 0 <= rounds < self.hold():
            reject(
                "rounds", f"fewer than the {self.hold()} for which the action is held", rounds, "observe the last one"
            )
        self.rounds += rounds

    def finite(self) -> Tensor:
        """(R,) whether everything that the run has learned is finite."""
        fine = torch.ones(self.runs, dtype=torch.bool, device=self.device)
        for tensor in self._tensors().values():
            fine &= torch.isfinite(tensor).flatten(1).all(1) if tensor.ndim > 1 else torch.isfinite(tensor)
        return fine

    def check(self) -> None:
        """Raise what `observe` could not on a device that must not wait: ValueError."""
        return

    def regret_bound(self) -> Tensor | None:
        """(R,) a bound on the regret of these rounds with this feedback; None where no theorem gives one."""
        return None

    def state_dict(self) -> dict[str, Tensor]:
        """Everything that a resume needs, copied: "rounds" and the tensors, all with a leading axis of runs."""
        return {"rounds": torch.tensor(self.rounds), **{name: t.clone() for name, t in self._tensors().items()}}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Copy a saved state in; all or nothing.

        Raises:
            ValueError: a missing, unknown or differently shaped tensor.
        """
        own = self._tensors()
        if state.keys() - {"rounds"} != own.keys() or "rounds" not in state:
            expected = ", ".join(sorted((*own, "rounds")))
            reject("state", expected, ", ".join(sorted(state)), "load a state of the same learner")
        for name, tensor in own.items():
            if state[name].shape != tensor.shape:
                given = f"shape {tuple(state[name].shape)}"
                reject(f"state.{name}", f"shape {tuple(tensor.shape)}", given, "load a state of the same learner")
        if state["rounds"].ndim or int(state["rounds"]) < 0:
            reject("state.rounds", "a number of rounds", state["rounds"], "load a state of the same learner")
        for name, tensor in own.items():
            tensor.copy_(state[name])
        self.rounds = int(state["rounds"])
        self._loaded()

    @abstractmethod
    def _tensors(self) -> dict[str, Tensor]:
        """What is learned, by name, each with a leading axis of runs; filled in place when a state is loaded."""

    def _loaded(self) -> None:
        """After a state has been copied in: what follows from it."""
        return

    def zeros(self, *shape: int) -> Tensor:
        """(R, *shape) zeros, float64, the run axis last in memory."""
        return runs_last(torch.zeros(self.runs, *shape, dtype=torch.float64, device=self.device))
