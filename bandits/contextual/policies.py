"""The policies that explore-first, epsilon-greedy and epoch-greedy search, and the oracle that finds a good one.

The class: linear argmax policies, x -> argmax_a <w_a, x>, ties to the lowest arm. To maximise the inverse-propensity
(IPS) estimate of a policy's reward over this class exactly is intractable, so the oracle is a regression: each arm's
reward, estimated without bias in the rounds that did not play it too, is fitted by ridge regression on the contexts,
and the policy is greedy for the fit. Where rewards are linear in the context it finds the best policy of all. Three
oracles, all of them updated in a step a round from sums over the past:

    weighted: least squares of each arm on the rounds that played it, a round weighted by 1/p (p, the chance that the
        arm had). IPS in the squared loss instead of the reward; of the least variance.
    ips: least squares of the IPS rewards y 1{a}/p of all rounds.
    dr: least squares of the doubly robust rewards m_a + 1{a} (y - m_a)/p (Dudik, Langford, Li, ICML 2011,
        arXiv 1103.4601), m_a fitted by unweighted ridge regression to the rounds before.
"""

from __future__ import annotations

import math

from torch import Tensor

from bandits.arm_learner import one_hot
from bandits.contextual.regression import ArmRidge, SharedRidge
from orbs import reject

__all__ = ["ORACLES", "LinearPolicies", "dr_rewards", "ips_rewards", "log_policies"]

ORACLES = ("weighted", "ips", "dr")


def ips_rewards(reward: Tensor, played: Tensor, chance: Tensor) -> Tensor:
    """(R, K) y 1{a}/p: of mean E[y_a] over the draw of the arm.

    Args:
        reward: (R,) of the arm that was played.
        played: (R, K), 1 at that arm, else 0.
        chance: (R,) the probability with which it was played, above 0.
    """
    return played * (reward / chance).unsqueeze(-1)


def dr_rewards(reward: Tensor, played: Tensor, chance: Tensor, model: Tensor) -> Tensor:
    """(R, K) m_a + 1{a} (y - m_a)/p, arguments as for `ips_rewards`; model: (R, K) any guess made beforehand."""
    return model + played * ((reward.unsqueeze(-1) - model) / chance.unsqueeze(-1))


def log_policies(policies: float | None, arms: int, dimension: int) -> float:
    """ln |Pi|, as formulas for a finite class need it; None: K^d policies, as many as K classes of d points."""
    return dimension * math.log(arms) if policies is None else math.log(policies)


class LinearPolicies:
    """The policy that the oracle finds, kept up to date.

    Args:
        oracle: "weighted", "ips" or "dr", as above.
        like, arms, dimension, ridge: as for `ArmRidge`.
    """

    def __init__(self, oracle: str, like: Tensor, arms: int, dimension: int, ridge: float) -> None:
        if oracle not in ORACLES:
            reject("oracle", " or ".join(ORACLES), repr(oracle), "e.g. oracle='weighted'")
        if not ridge > 0:
            reject("ridge", "above 0", ridge, "e.g. ridge=1.0")
        self.arms = arms
        self.model = ArmRidge(like, arms, dimension, ridge) if oracle != "ips" else None
        self.shared = SharedRidge(like, arms, dimension, ridge) if oracle != "weighted" else None

    def scores(self, x: Tensor) -> Tensor:
        """(R, K) <w_a, x> for contexts x (R, d)."""
        fitted = self.model if self.shared is None else self.shared
        assert fitted is not None
        return fitted.predict(x)

    def best(self, x: Tensor) -> Tensor:
        """(R,) int64 the policy's arm."""
        return self.scores(x).max(-1).indices

    def learn(self, x: Tensor, arm: Tensor, reward: Tensor, chance: Tensor) -> None:
        """A round: contexts (R, d), arms (R,), rewards (R,) and the arms' chances (R,), above 0."""
        if self.shared is None:
            assert self.model is not None
            self.model.add(arm, x, reward, 1.0 / chance)
            return
        played = one_hot(arm, self.arms)
        if self.model is None:
            self.shared.add(x, ips_rewards(reward, played, chance))
            return
        self.shared.add(x, dr_rewards(reward, played, chance, self.model.predict(x)))
        self.model.add(arm, x, reward)

    def rebuild(self) -> None:
        """All from the exact sums."""
        for part in (self.model, self.shared):
            if part is not None:
                part.rebuild()

    def tensors(self) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        for name, part in (("model", self.model), ("shared", self.shared)):
            if part is not None:
                found |= {f"{name}.{key}": tensor for key, tensor in part.tensors().items()}
        return found
