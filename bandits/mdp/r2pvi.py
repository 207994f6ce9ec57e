"""Pessimistic robust planning from logged episodes: R2PVI, DRPVI and PEVI (arXiv:2411.18612, 2403.09621, 2012.15085).

Worst-case means as in `bandits.mdp.dr_rpo`, the bonus taken off: R2PVI with a regularised set, DRPVI with a constrained
one, PEVI without. The logs are given (`fit`), or collected by a behaviour policy in the first episodes; then it plans
once and keeps that policy.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from bandits.mdp.dr_rpo import DRRPO
from orbs import Feedback, reject

__all__ = ["R2PVI"]


class R2PVI(DRRPO):
    """Explores for `explore` episodes, then plays the pessimistic robust policy for good.

    Args:
        features, steps, rewards: see `DRRPO`.
        explore: episodes of the behaviour policy, at least 0.
        behaviour: (S, A) or (H, S, A), a policy; None: uniform.
        arguments: of `DRRPO`, but step_size and switching; `temperature` is 0 unless given.
    """

    _sign = -1.0
    _greedy = True

    def __init__(
        self,
        features: Tensor,
        steps: int,
        rewards: Tensor | None = None,
        explore: int = 100,
        behaviour: Tensor | None = None,
        **arguments: Any,
    ) -> None:
        for name in ("step_size", "switching"):
            if arguments.get(name):
                reject(name, "none", arguments[name], "it plans once")
        if isinstance(explore, bool) or not isinstance(explore, int) or explore < 0:
            reject("explore", "a whole number of at least 0", repr(explore), "e.g. 100")
        super().__init__(features, steps, rewards, **{"temperature": 0.0, **arguments})
        self.explore = explore
        self._behaviour = self.uniform()
        if behaviour is not None:
            self._behaviour = self.checked("behaviour", behaviour)
        # 1 where the logs were given: then it explores no more.
        self.fitted = torch.zeros(self.runs, dtype=torch.float64, device=self.device)
        self._given = False
        self._final: Tensor | None = None

    @property
    def ready(self) -> bool:
        """Whether it has its policy."""
        return self._given or self.rounds >= self.explore

    def fit(self, states: Tensor, actions: Tensor, rewards: Tensor) -> None:
        """Learn from N logged episodes a run: states (R, N, H + 1), actions (R, N, H), int64, rewards (R, N, H).

        Raises:
            ValueError: another shape or type, no state or action, a reward that is not finite.
        """
        if states.ndim != 3 or not states.shape[1]:
            needed = f"shape ({self.runs}, episodes, {self.steps + 1}), at least one episode"
            reject("logs.states", needed, f"shape {tuple(states.shape)}", "give a row a run")
        count = states.shape[1]
        for name, log, length in (("states", states, self.steps + 1), ("actions", actions, self.steps),
                                  ("rewards", rewards, self.steps)):  # fmt: skip
            wanted = (self.runs, count, length)
            if log.shape != wanted or (name != "rewards" and log.dtype != torch.int64):
                given = f"{log.dtype} of shape {tuple(log.shape)}"
                reject(f"logs.{name}", f"shape {wanted}, int64 for states and actions", given, "give a row a run")
        for name, log, most in (("states", states, self.states), ("actions", actions, self.actions)):
            if bool((log < 0).any() | (log >= most).any()):
                found = f"{int(log.min())} to {int(log.max())}"
                reject(f"logs.{name}", f"0 to {most - 1}", found, "give numbers of the problem")
        if not bool(torch.isfinite(rewards).all()):
            reject("logs.rewards", "finite numbers", "a NaN or inf", "drop or mend that episode")
        self.model.learn_all(states, actions, rewards.to(torch.float64))
        self.fitted.fill_(1.0)
        self._given, self._final, self._policy = True, None, None

    def _plan(self) -> Tensor:
        if not self.ready:
            return self._behaviour.clone()
        if self._final is None:
            self._final = self._best(0)
        return self._final.clone()

    def _take(self, policy: Tensor, states: Tensor, actions: Tensor, rewards: Tensor, feedback: Feedback) -> None:
        if not self.ready:
            self.model.learn(states, actions, rewards, self.rounds)

    def _tensors(self) -> dict[str, Tensor]:
        return {**super()._tensors(), "fitted": self.fitted}

    def _loaded(self) -> None:
        super()._loaded()
        self._given, self._final = bool((self.fitted > 0).all()), None
