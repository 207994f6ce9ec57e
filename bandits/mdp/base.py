"""What every learner of episodic MDPs is: a policy for each episode, the episode it led to, its own random numbers.

A round is an episode of H steps over S states and A actions. A learner fills in `_plan`, `_take` and `_tensors`.
Tensors are float64 with a leading axis of runs.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from bandits.base import Learner
from orbs import Feedback, Philox, reject

__all__ = ["PolicyLearner"]


class PolicyLearner(Learner):
    """Plays a policy (R, H, S, A) an episode, sees the states, actions and rewards that it met.

    Args:
        states, actions, steps: S, A, H.
        runs: how many independent copies, or their ids.
        seed: of its own random numbers, 0 .. 2^32 - 1.
        device: where everything lies.

    Attributes:
        run_ids, rounds, device: see `Learner` (a round is an episode); states, actions, steps as above.
        philox: counter-based numbers of (seed, run), for `bandits.arm_learner.Draws`.
        temperature: weight of the divergence from `reference` in what the learner maximises; 0 without one.
        reference: (S, A) or (H, S, A), the policy that it stays near to; None for the uniform one.
    """

    temperature: float = 0.0
    reference: Tensor | None = None

    def __init__(
        self,
        states: int,
        actions: int,
        steps: int,
        runs: int | Sequence[int] = 1,
        seed: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__(runs, device)
        for name, value in (("states", states), ("actions", actions), ("steps", steps)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                reject(name, "a whole number of at least 1", repr(value), f"give the number of {name}")
        self.states, self.actions, self.steps, self.seed = states, actions, steps, seed
        self.philox = Philox(seed, self.run_ids, self.device)
        self._policy: Tensor | None = None
        self._strange = torch.zeros((), dtype=torch.bool, device=self.device)

    def act(self, observation: Tensor | None = None) -> Tensor:
        """(R, H, S, A) the policy of the coming episode. Asked twice, it answers the same. To be read alone."""
        if self._policy is None:
            self._policy = self._plan()
        return self._policy

    def observe(self, action: Tensor, feedback: Feedback) -> None:
        """Take in an episode.

        Args:
            action: (R, H, S, A) the policy that was played.
            feedback: its terms hold "states" (R, H + 1) and "actions" (R, H), int64, and "rewards" (R, H).

        Raises:
            ValueError: a term that is missing, misshapen, not finite, or no state or action. On CUDA, where looking
                would stop the device, numbers are judged by the next `check`.
        """
        terms = feedback.terms
        shape = self.runs, self.steps, self.states, self.actions
        if action.shape != shape or action.dtype != torch.float64:
            given = f"{action.dtype} of shape {tuple(action.shape)}"
            reject(
                "action", f"the policy that was played, float64 of shape {shape}", given, "hand over what `act` gave"
            )
        for name, length in (("states", self.steps + 1), ("actions", self.steps), ("rewards", self.steps)):
            if name not in terms:
                there = ", ".join(terms) or "none"
                reject(f"feedback.terms[{name!r}]", "an episode", there, "play a problem of episodes")
            if terms[name].shape != (self.runs, length):
                wanted, given = f"shape {(self.runs, length)}", f"shape {tuple(terms[name].shape)}"
                reject(f"feedback.terms[{name!r}]", wanted, given, "give a row a run")
        states, actions, rewards = terms["states"], terms["actions"], terms["rewards"].to(torch.float64)
        strange = ~torch.isfinite(rewards).all()
        for numbers, most in ((states, self.states), (actions, self.actions)):
            if numbers.dtype != torch.int64:
                reject("feedback.terms", "states and actions of int64", f"{numbers.dtype}", "give their numbers")
            strange = strange | (numbers < 0).any() | (numbers >= most).any()
        if self.device.type == "cpu":
            if bool(strange):
                self._refuse()
        else:
            self._strange |= strange
            states, actions = states.clamp(0, self.states - 1), actions.clamp(0, self.actions - 1)
        self._take(action, states, actions, rewards, feedback)
        self.rounds += 1
        self._policy = None

    def check(self) -> None:
        if bool(self._strange):
            self._refuse()

    def _refuse(self) -> None:
        wanted = f"states 0 to {self.states - 1}, actions 0 to {self.actions - 1} and finite rewards"
        reject("feedback.terms", wanted, f"others by episode {self.rounds + 1}", "mend the world")

    def _loaded(self) -> None:
        self._policy = None

    def uniform(self) -> Tensor:
        """(R, H, S, A) the uniform policy."""
        shape = self.runs, self.steps, self.states, self.actions
        return torch.full(shape, 1.0 / self.actions, dtype=torch.float64, device=self.device)

    def checked(self, name: str, given: Any) -> Tensor:
        """(R, H, S, A) a policy that is given as (S, A), (H, S, A) or that.

        Raises:
            ValueError: another shape, rows that are no distributions.
        """
        table = torch.as_tensor(given, dtype=torch.float64).to(self.device)
        shape = self.runs, self.steps, self.states, self.actions
        if tuple(table.shape) not in (shape[2:], shape[1:], shape):
            wanted = f"shape {shape[2:]}, {shape[1:]} or {shape}"
            reject(name, wanted, f"shape {tuple(table.shape)}", "give a policy")
        fine = torch.isfinite(table).all() & (table >= 0).all() & ((table.sum(-1) - 1).abs() < 1e-6).all()
        if not bool(fine):
            found = f"a least one of {float(table.min()):g}, sums from {float(table.sum(-1).min()):g}"
            reject(name, "rows of chances, at least 0 and of sum 1", found, "divide each row by its sum")
        return table.expand(shape).contiguous()

    # What a learner fills in.

    @abstractmethod
    def _plan(self) -> Tensor:
        """(R, H, S, A), a function of what is learned and of the round: a new tensor, and no state is changed."""

    @abstractmethod
    def _take(self, policy: Tensor, states: Tensor, actions: Tensor, rewards: Tensor, feedback: Feedback) -> None:
        """Learn from an episode. What is handed over is neither written to nor kept: the world may reuse it."""
