"""Adversarial MDPs with linear features: fixed transitions, and losses that an adversary chose beforehand.

Setting of "Refined Regret for Adversarial MDPs with Linear Function Approximation" (Dai et al., arXiv 2301.12942);
the loss of (s, a) in step h of episode k is <features(s, a), theta_{k, h}> in [0, 1]. Papers have no experiments: the
instances and the adversaries are ours, drawn by NumPy's default generator from `instance`, the same for all runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from envs.episodic_world import EpisodicWorld
from envs.finite_mdp import FiniteMDP
from envs.mdp_env import SingleMDP
from envs.regret_world import known, whole
from orbs import reject

__all__ = ["ADVERSARIES", "MODELS", "AdversarialMDP", "adversary", "expected_losses", "least_losses", "single"]

ADVERSARIES = ("iid", "doubling", "phases", "drift")
MODELS = ("random", "tabular", "chain")
SPREAD = 0.3  # of the noise of i.i.d. losses around their mean


def adversary(kind: str, episodes: int, steps: int, dimension: int, instance: int) -> np.ndarray:
    """(K, H, d) loss weights in [0, 1].

    Kinds:
        iid: a mean plus uniform noise in [-0.3, 0.3], clipped.
        doubling: two profiles, one after the other, in phases of doubling length.
        phases: four profiles for a quarter of the episodes each.
        drift: from one profile to another, linearly.
    """
    rng = np.random.default_rng([200, instance])
    shape = (steps, dimension)
    if kind == "iid":
        mean = rng.uniform(size=shape)
        return np.asarray(np.clip(mean + rng.uniform(-SPREAD, SPREAD, (episodes, *shape)), 0.0, 1.0))
    k = np.arange(episodes)
    if kind == "doubling":
        # The exponent of a float is exact where a logarithm may round.
        return np.asarray(rng.uniform(size=(2, *shape))[(np.frexp(k + 1.0)[1] - 1) % 2])
    if kind == "phases":
        return np.asarray(rng.uniform(size=(4, *shape))[4 * k // episodes])
    first, last = rng.uniform(size=(2, *shape))
    part = (k / max(episodes - 1, 1))[:, None, None]
    return np.asarray((1 - part) * first + part * last)


def expected_losses(kernel: Tensor, losses: Tensor, policy: Tensor, start: Tensor) -> Tensor:
    """(R,) of policies (R, H, S, A) under losses (H, S, A), exactly.

    Args:
        kernel: (H or 1, S, A, S); start: (S,).
    """
    steps = policy.shape[1]
    value = policy.new_zeros(len(policy), kernel.shape[-1])
    for h in range(steps - 1, -1, -1):
        moves = kernel[h if len(kernel) > 1 else 0]
        later = (value @ moves.flatten(0, 1).mT).view(-1, *moves.shape[:2]) if h < steps - 1 else 0.0
        value = (policy[:, h] * (losses[h] + later)).sum(-1)
    return value @ start


def least_losses(kernel: Tensor, losses: Tensor, start: Tensor) -> tuple[Tensor, Tensor]:
    """The best policy's expected losses, (), and the policy, (H, S) actions, for losses (H, S, A)."""
    value, choices = kernel.new_zeros(kernel.shape[-1]), []
    for h in range(len(losses) - 1, -1, -1):
        value, choice = (losses[h] + kernel[h if len(kernel) > 1 else 0] @ value).min(-1)
        choices.append(choice)
    return value @ start, torch.stack(choices[::-1])


def _random(instance: int, steps: int, states: int, actions: int, dimension: int) -> tuple[np.ndarray, np.ndarray]:
    """Features and laws (H, d, S) of a random linear MDP."""
    # Instances of one step are numbered apart, as in the reference results.
    rng = np.random.default_rng([400 if steps == 1 else 100, instance])
    phi = rng.dirichlet(np.full(dimension, 0.3), (states, actions))
    law = np.full(states, 1.0 if steps == 1 else 0.5)
    return phi, rng.dirichlet(law, (steps, dimension))


class AdversarialMDP(EpisodicWorld):
    """Losses of an oblivious adversary, seen along the episode: the rewards of the feedback are minus the losses.

    Regret: "regret/static", the policies' expected losses less those of the best fixed policy for all episodes so far,
    both exact.

    Models:
        random: features Dirichlet(0.3), laws Dirichlet(1/2), d = `dimension`.
        tabular: random laws Dirichlet(1/2), one a pair (s, a); no features.
        chain: a state on the chain and one off it; action 0 stays on (loss 0.6), another leaves for good (0.5 in every
            step from then on); the last step on the chain is free. The adversary adds nothing.

    Args:
        horizon, runs, seed, device: as for `EpisodicWorld`.
        adversary: iid, doubling, phases or drift (see the function).
        model: as above.
        instance: number of the instance.
        steps, states, actions, dimension: H, S, A, d; 3, 6, 4 and 4 if None. Of the chain S is 2, and of both other
            models d is S A: there they are not to be given.
        noise: off, or bernoulli: a loss is 0 or 1 with its mean.
        feedback: bandit, or full: the terms hold the episode's whole loss too, "loss_table" (1, H, S, A), and where the
            model has features "loss_weights" (1, H, d).

    Raises:
        ValueError: a value out of its range, an unknown word.
    """

    def __init__(
        self,
        horizon: int = 1000,
        runs: int | Sequence[int] = 20,
        seed: int = 0,
        device: torch.device | str = "cpu",
        *,
        adversary: str = "iid",
        model: str = "random",
        instance: int = 0,
        steps: int = 3,
        states: int | None = None,
        actions: int = 4,
        dimension: int | None = None,
        noise: str = "off",
        feedback: str = "bandit",
    ) -> None:
        self.adversary = known("AdversarialMDP.adversary", adversary, ADVERSARIES)
        self.model = known("AdversarialMDP.model", model, MODELS)
        self.noise = known("AdversarialMDP.noise", noise, ("off", "bernoulli"))
        self.feedback = known("AdversarialMDP.feedback", feedback, ("bandit", "full"))
        self.instance = whole("AdversarialMDP.instance", instance, 0)
        for name, given, fixed in (("states", states, model == "chain"), ("dimension", dimension, model != "random")):
            if given is not None and fixed:
                reject(f"AdversarialMDP.{name}", f"none for the {model} model", given, "leave it out")
        whole("AdversarialMDP.steps", steps, 1)
        whole("AdversarialMDP.actions", actions, 2 if model == "chain" else 1)
        states = 2 if model == "chain" else 6 if states is None else whole("AdversarialMDP.states", states, 1)
        size = 4 if dimension is None else whole("AdversarialMDP.dimension", dimension, 1)
        self.dimension = size if model == "random" else states * actions
        facts = {"loss_low": 0.0, "loss_high": 1.0, "feedback": feedback}
        super().__init__(steps, states, actions, horizon, runs, seed, device, None, facts)

    def _model(self) -> FiniteMDP:
        steps, states, actions = self.steps, self.states, self.actions
        none = torch.zeros(1, states, actions, dtype=torch.float64)
        if self.model == "random":
            phi, laws = _random(self.instance, steps, states, actions, self.dimension)
            return FiniteMDP(torch.as_tensor(laws), none, steps, torch.as_tensor(phi))
        if self.model == "tabular":
            rng = np.random.default_rng([100, self.instance])
            laws = rng.dirichlet(np.full(states, 0.5), (steps, states * actions))
            return FiniteMDP(torch.as_tensor(laws), none, steps)
        laws = np.zeros((1, states * actions, states))
        laws[..., 1] = 1.0
        laws[0, 0] = (1.0, 0.0)
        return FiniteMDP(torch.as_tensor(laws), none, steps)

    def _prepare(self) -> None:
        super()._prepare()
        theta = self._weights()
        self.weights = torch.as_tensor(theta, device=self.device)
        shape = (self.horizon, self.steps, self.states, self.actions)
        phi = self.mdp.features
        self.losses = torch.einsum("sad,khd->khsa", phi, self.weights) if phi is not None else self.weights.view(shape)
        self._comparators: dict[int, Tensor] = {}

    def _weights(self) -> np.ndarray:
        if self.model != "chain":
            return adversary(self.adversary, self.horizon, self.steps, self.dimension, self.instance)
        losses = np.full((self.horizon, self.steps, self.states, self.actions), 0.5)
        losses[:, :, 0, 0] = 0.6
        losses[:, -1, 0] = 0.0
        return losses.reshape(self.horizon, self.steps, -1)

    def _model_facts(self) -> dict[str, Any]:
        found = super()._model_facts()
        return {name: value for name, value in found.items() if name not in ("rewards", "best_policy", "fail")}

    def _draw(self, first: int, rounds: int) -> tuple[Tensor, ...]:
        luck = super()._draw(first, rounds)
        if self.noise == "off":
            return luck
        return *luck, self.philox.uniform("episode/losses", first, rounds, self.steps, torch.float64)

    def _sums(self) -> dict[str, Tensor]:
        return {"expected": self.zeros(), "last": super()._sums()["last"]}

    def _play(self, x: Tensor, row: tuple[Tensor, ...]) -> tuple[Tensor, Tensor, dict[str, Tensor] | None]:
        loss, seen, terms = super()._play(x, row)
        if self.feedback == "full" and terms is not None:
            terms["loss_table"] = self.losses[self.round].unsqueeze(0)
            if self.mdp.features is not None:
                terms["loss_weights"] = self.weights[self.round].unsqueeze(0)
        return loss, seen, terms

    def _judge_policy(self, x: Tensor) -> None:
        self.sums["expected"] += expected_losses(self.mdp.kernel, self.losses[self.round], x, self.mdp.start)
        self.sums["last"].copy_(x)

    def received(self, rewards: Tensor, row: tuple[Tensor, ...], first: int = 0) -> Tensor:
        if self.noise == "off":
            return rewards
        return -(row[1][:, first : first + rewards.shape[1]] < -rewards).double()

    def rewards_of(self, episode: int) -> Tensor:
        return -self.losses[episode % self.horizon]

    def comparator(self, episodes: int) -> Tensor:
        """() the expected losses of the best fixed policy for the first episodes."""
        if episodes not in self._comparators:
            total = self.losses[:episodes].sum(0)
            self._comparators = {episodes: least_losses(self.mdp.kernel, total, self.mdp.start)[0]}
        return self._comparators[episodes]

    def regret(self) -> dict[str, Tensor]:
        return {"regret/static": self.sums["expected"] - self.comparator(self.round)}

    def measures(self) -> dict[str, Tensor]:
        """The expected losses of the last policy in the last episode's losses."""
        if self.round == 0:
            return {}
        losses = self.losses[self.round - 1]
        return {"value/losses": expected_losses(self.mdp.kernel, losses, self.sums["last"], self.mdp.start)}


def single(**arguments: Any) -> SingleMDP:
    """One run, step by step, as a gymnasium environment."""
    return SingleMDP(AdversarialMDP, **arguments)
