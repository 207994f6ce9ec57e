"""Worlds whose rounds are episodes of a finite MDP: a learner gives a policy, sees an episode of it, is judged exactly.

Nothing of a judgement is sampled: the policy's value is computed by dynamic programming, under nature's worst laws
where the problem has an uncertainty set, and under each of the problem's perturbed targets.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from envs.finite_mdp import FiniteMDP
from envs.regions import Policies
from envs.regret_world import RegretWorld, between
from envs.robust_values import at_start, evaluate, optimal, reference_of
from envs.uncertainty import Uncertainty
from orbs import reject

__all__ = ["EpisodicWorld"]


class EpisodicWorld(RegretWorld):
    """`num_envs` runs of `horizon` episodes; an action is a policy (R, H, S, A), rows over actions.

    The feedback's terms hold the episode: "states" (R, H + 1) and "actions" (R, H), int64, "rewards" (R, H). The
    observation is the episode's states as numbers, the reward of a round the sum of the episode's.

    Regret: "regret/policy", the sum of (best value - value of the policy), values being worst ones over the uncertainty
    set where there is one; after `regularise` also "regret/regularised", where a policy's value, and the best one, are
    less the temperature times the divergence from the reference in each step.

    A subclass sets what it needs and then calls this constructor, with `_model` (`_targets`).

    Args:
        steps, states, actions: H, S, A.
        horizon: episodes, at least 1.
        runs, seed, device: as for `RegretWorld`.
        uncertainty: what nature may do, or None.
        facts: what a learner may know beforehand, besides the model's shape, features, rewards and kernel.

    Attributes:
        mdp: the nominal model; targets: {name: FiniteMDP} that a policy is also valued in.
        temperature, reference: see `regularise`.
    """

    def __init__(
        self,
        steps: int,
        states: int,
        actions: int,
        horizon: int,
        runs: int | Sequence[int],
        seed: int,
        device: torch.device | str,
        uncertainty: Uncertainty | None = None,
        facts: Mapping[str, Any] = {},
    ) -> None:
        self.steps, self.states, self.actions = steps, states, actions
        self.uncertainty = uncertainty
        self.temperature = 0.0
        self.reference: Tensor | None = None
        region = Policies(steps * states * actions, states, actions)
        observed = (0.0, float(states - 1), (steps + 1,))
        super().__init__(region, horizon, runs, seed, device, 2 * steps + 1, facts, observed)

    @abstractmethod
    def _model(self) -> FiniteMDP:
        """The nominal model; `self.philox` is ready, for what differs between runs."""

    def _targets(self) -> dict[str, FiniteMDP]:
        """Perturbed models, by name."""
        return {}

    def _prepare(self) -> None:
        self.mdp = self._model().to(self.device)
        if (self.mdp.steps, self.mdp.states, self.mdp.actions) != (self.steps, self.states, self.actions):
            wanted = f"{self.steps} steps, {self.states} states, {self.actions} actions"
            given = f"{self.mdp.steps}, {self.mdp.states}, {self.mdp.actions}"
            reject("model", wanted, given, "give the shape of the model")
        if self.uncertainty is not None:
            self.uncertainty = self.uncertainty.to(self.device)
        self.targets = {name: target.to(self.device) for name, target in self._targets().items()}
        self._next, self._first = self.mdp.kernel.cumsum(-1), self.mdp.start.cumsum(-1)
        self._rows = torch.arange(self.num_envs, device=self.device)
        self._best: dict[str, Tensor] = {}
        self.facts = {**self.facts, **self._model_facts()}

    def _model_facts(self) -> dict[str, Any]:
        mdp = self.mdp
        found: dict[str, Any] = {
            "states": mdp.states, "actions": mdp.actions, "episode_length": mdp.steps, "start": mdp.start,
            "features": mdp.features, "kernel": mdp.kernel, "rewards": mdp.reward, "fail": mdp.fail,
        }  # fmt: skip
        nature = self.uncertainty
        if nature is not None:
            found["uncertainty"] = {
                "divergence": nature.divergence, "form": nature.form, "level": nature.levels(mdp.steps, mdp.factors),
            }  # fmt: skip
        found["best_policy"] = optimal(mdp, nature)[1]
        return found

    def regularise(self, temperature: float, reference: Tensor | None = None) -> None:
        """Judge policies also by value less `temperature` times their divergence from `reference` (uniform if None).

        Args:
            reference: (S, A) or (H, S, A), positive.

        Raises:
            ValueError: a temperature below 0 or no number, a reference that is no such policy.
        """
        weight, near = between("temperature", temperature, 0.0, float("inf")), reference_of(self.mdp, reference)
        self.temperature, self.reference = weight, near
        self._both = torch.tensor([[0.0], [self.temperature]], dtype=torch.float64, device=self.device)
        self._best = {}

    def _draw(self, first: int, rounds: int) -> tuple[Tensor, ...]:
        """Uniform numbers of an episode: the start's, then each step's for the action and for the next state."""
        return (self.philox.uniform("episode/luck", first, rounds, 2 * self.steps + 1, torch.float64),)

    def _sums(self) -> dict[str, Tensor]:
        shape = self.region.shape
        last = torch.full((self.num_envs, *shape), 1.0 / self.actions, dtype=torch.float64, device=self.device)
        return {"policy": self.zeros(), "regularised": self.zeros(), "last": last}

    def _play(self, x: Tensor, row: tuple[Tensor, ...]) -> tuple[Tensor, Tensor, dict[str, Tensor] | None]:
        states, actions, rewards = self.episode(x, row[0], self.rewards_of(self.round))
        self._judge_policy(x)
        return self._told(states, actions, self.received(rewards, row))

    def rewards_of(self, episode: int) -> Tensor:
        """(H or 1, S, A), or (R, H or 1, S, A): what the pairs pay in an episode, counted from 0."""
        return self.mdp.reward

    def received(self, rewards: Tensor, row: tuple[Tensor, ...], first: int = 0) -> Tensor:
        """(R, n) what is paid in the steps from `first` on, of what pairs pay in the mean; row: the round's luck."""
        return rewards

    def _told(self, states: Tensor, actions: Tensor, rewards: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        terms = {"states": states, "actions": actions, "rewards": rewards}
        return -rewards.sum(-1), states.double(), terms

    def episode(self, policy: Tensor, luck: Tensor, reward: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """An episode a run: states (R, H + 1), actions (R, H), rewards (R, H).

        Args:
            policy: (R, H, S, A); luck: (R, 2 H + 1) uniform numbers; reward: (H or 1, S, A) or (R, H or 1, S, A).
        """
        rows, u = self._rows, luck.unbind(1)
        state = self.first_state(u[0])
        states, actions, rewards = [state], [], []
        for h in range(self.steps):
            action = self._drawn(policy[rows, h, state].cumsum(-1), u[1 + 2 * h])
            rewards.append(self.paid(reward, h, state, action))
            state = self.next_state(h, state, action, u[2 + 2 * h])
            states.append(state)
            actions.append(action)
        return torch.stack(states, 1), torch.stack(actions, 1), torch.stack(rewards, 1)

    def first_state(self, u: Tensor) -> Tensor:
        """(R,) int64, by one uniform number a run."""
        return self._drawn(self._first.expand(self.num_envs, -1), u)

    def next_state(self, step: int, state: Tensor, action: Tensor, u: Tensor) -> Tensor:
        """(R,) int64, by one uniform number a run."""
        return self._drawn(self._next[step if len(self._next) > 1 else 0][state, action], u)

    def paid(self, reward: Tensor, step: int, state: Tensor, action: Tensor) -> Tensor:
        """(R,) of a step, out of the rewards of `rewards_of`."""
        table = reward[..., step if reward.shape[-3] > 1 else 0, :, :]
        return table[self._rows, state, action] if table.ndim == 3 else table[state, action]

    @staticmethod
    def _drawn(summed: Tensor, u: Tensor) -> Tensor:
        """(R,) int64 from summed chances (R, n); the last takes what rounding leaves over."""
        return (summed <= u.unsqueeze(-1)).sum(-1).clamp_max(summed.shape[-1] - 1)

    def best(self) -> Tensor:
        """(2, R or 1) the best policy's value, without and with the regulariser."""
        if "both" not in self._best:
            plain = at_start(self.mdp, optimal(self.mdp, self.uncertainty)[0])
            soft = plain
            if self.temperature > 0:
                found = optimal(self.mdp, self.uncertainty, self.temperature, self.reference)[0]
                soft = at_start(self.mdp, found)
            self._best["both"] = torch.stack((plain.reshape(-1), soft.reshape(-1)))
        return self._best["both"]

    def value(self, policy: Tensor) -> Tensor:
        """(2, R) of policies (R, H, S, A): worst values over the uncertainty set, without and with the regulariser."""
        if self.temperature == 0:
            plain = at_start(self.mdp, evaluate(self.mdp, policy, self.uncertainty))
            return plain.expand(2, -1)
        both = evaluate(self.mdp, policy.expand(2, *policy.shape), self.uncertainty, self._both, self.reference)
        return at_start(self.mdp, both)

    def _judge_policy(self, x: Tensor) -> None:
        missed = self.best() - self.value(x)
        self.sums["policy"] += missed[0]
        self.sums["regularised"] += missed[1]
        self.sums["last"].copy_(x)

    def regret(self) -> dict[str, Tensor]:
        found = {"regret/policy": self.sums["policy"].clone()}
        if self.temperature > 0:
            found["regret/regularised"] = self.sums["regularised"].clone()
        return found

    def measures(self) -> dict[str, Tensor]:
        """{name: (R,)} of the last policy: its nominal and worst-case values, and its value in each target."""
        policy = self.sums["last"]
        found = {"value/nominal": at_start(self.mdp, evaluate(self.mdp, policy))}
        if self.uncertainty is not None:
            found["value/worst"] = at_start(self.mdp, evaluate(self.mdp, policy, self.uncertainty))
        for name, target in self.targets.items():
            found[f"value/target={name}"] = at_start(target, evaluate(target, policy))
        return found
