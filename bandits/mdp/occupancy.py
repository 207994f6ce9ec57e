"""A model that can be simulated: exact occupancies of policies, values to come, and trajectories by inverse cdf.

Pairs are numbered s * A + a. Everything is vectorised over runs (and trajectories); only steps are a loop.
"""

from __future__ import annotations

import torch
from torch import Tensor

from orbs import array, reject

__all__ = ["Simulator"]


class Simulator:
    """The transition kernel that a learner with a simulator knows.

    Args:
        kernel: (H, S, A, S) or (1, S, A, S), the chances of the next state.
        start: (S,) the chances of the first state.
        steps: H.
        device: where it lies.

    Attributes:
        states, actions, steps, pairs: S, A, H, S A.

    Raises:
        ValueError: another shape, or no distributions.
    """

    def __init__(self, kernel: Tensor, start: Tensor, steps: int, device: torch.device | str = "cpu") -> None:
        law = torch.as_tensor(kernel, dtype=torch.float64, device=device)
        first = torch.as_tensor(start, dtype=torch.float64, device=device)
        if law.ndim != 4 or law.shape[0] not in (1, steps) or law.shape[1] != law.shape[3]:
            wanted = f"shape ({steps} or 1, S, A, S)"
            reject("kernel", wanted, f"shape {tuple(law.shape)}", "give a law of the next state to each (s, a)")
        self.states, self.actions, self.steps = int(law.shape[1]), int(law.shape[2]), steps
        if first.shape != (self.states,):
            reject("start", f"shape ({self.states},)", f"shape {tuple(first.shape)}", "give a chance a state")
        for name, rows in (("kernel", law), ("start", first)):
            if not bool(((rows >= -1e-12).all(-1) & ((rows.sum(-1) - 1.0).abs() < 1e-6)).all()):
                reject(name, "chances, at least 0 with sum 1", "others", "divide each row by its sum")
        self.pairs = self.states * self.actions
        self.start = first
        flat = law.flatten(1, 2)
        back = flat.mT.contiguous()
        # Sums over actions as products with 0 and 1: one call each, in NumPy on a CPU, where calls are what costs.
        spread = torch.eye(self.states, dtype=torch.float64, device=device).repeat_interleave(self.actions, 1)
        self._spread, self._gather = array(spread), array(spread.mT.contiguous())
        self._first = array(first.repeat_interleave(self.actions))
        self._laws = [array(flat[h if len(flat) > 1 else 0]) for h in range(steps)]
        self._back = [array(back[h if len(back) > 1 else 0]) for h in range(steps)]
        self._cdf = flat.cumsum(-1)
        self._start_cdf = first.cumsum(-1)

    def weights(self, policy: Tensor) -> Tensor:
        """(R, H, S A): the chance that a policy (R, H, S, A) is at step h in s and takes a."""
        given = policy.flatten(2)
        answer = torch.empty_like(given)
        chances, found = array(given), array(answer)
        found[:, 0] = chances[:, 0] * self._first
        for h in range(1, self.steps):
            found[:, h] = chances[:, h] * (found[:, h - 1] @ self._laws[h - 1] @ self._spread)
        return answer

    def occupancies(self, policy: Tensor) -> Tensor:
        """(R, H, S): the chance that a policy (R, H, S, A) is at step h in s."""
        return self.weights(policy).view(policy.shape).sum(-1)

    def dynamic(self, local: Tensor, policy: Tensor, factor: float = 1.0) -> Tensor:
        """(R, H, S A): X_h = local_h + factor E[X_{h+1}(s', a')], s' by the kernel, a' by the policy; X_H = 0.

        local (R, H, S A), kept as it is; policy (R, H, S, A). With factor 1 and losses it is the Q function.
        """
        answer = local.clone(memory_format=torch.contiguous_format)
        chances, found = array(policy.flatten(2)), array(answer)
        for h in range(self.steps - 2, -1, -1):
            later = (chances[:, h + 1] * found[:, h + 1]) @ self._gather
            found[:, h] += (factor * later) @ self._back[h]
        return answer

    def simulate(self, policy: Tensor, uniform: Tensor) -> Tensor:
        """(R, M, H) int64: the pairs on M trajectories of each run's policy.

        Args:
            policy: (R, H, S, A).
            uniform: (R, 2 M H) in (0, 1): for each trajectory the first state, then action and next state in turn.
        """
        u = uniform.view(policy.shape[0], -1, 2 * self.steps, 1)
        chances = policy.cumsum(-1)
        state = _below(self._start_cdf, u[:, :, 0])
        found = []
        for h in range(self.steps):
            rows = chances[:, h].gather(1, state.unsqueeze(-1).expand(-1, -1, self.actions))
            pair = state * self.actions + _below(rows, u[:, :, 2 * h + 1])
            found.append(pair)
            if h < self.steps - 1:
                state = _below(self._cdf[h if len(self._cdf) > 1 else 0][pair], u[:, :, 2 * h + 2])
        return torch.stack(found, -1)

    def frequencies(self, policy: Tensor, uniform: Tensor) -> Tensor:
        """(R, H, S A): as `weights`, of M simulated trajectories; arguments as in `simulate`."""
        pairs = self.simulate(policy, uniform).transpose(1, 2)
        found = torch.zeros(*pairs.shape[:2], self.pairs, dtype=torch.float64, device=policy.device)
        ones = torch.ones((), dtype=torch.float64, device=policy.device).expand(pairs.shape)
        return found.scatter_add_(2, pairs, ones).div_(pairs.shape[2])

    def successors(self, policy: Tensor, uniform: Tensor) -> Tensor:
        """(R, H - 1, S A) int64: for each step and pair one next pair, s' by the kernel and a' by the policy.

        Args:
            policy: (R, H, S, A).
            uniform: (R, 2 (H - 1) S A) in (0, 1): first those of the states, then those of the actions.
        """
        u = uniform.view(policy.shape[0], 2, self.steps - 1, self.pairs, 1)
        laws = self._cdf[:-1] if len(self._cdf) > 1 else self._cdf
        state = _below(laws, u[:, 0])
        chances = policy[:, 1:].cumsum(-1)
        rows = chances.gather(2, state.unsqueeze(-1).expand(-1, -1, -1, self.actions))
        return state * self.actions + _below(rows, u[:, 1])


def _below(cdf: Tensor, u: Tensor) -> Tensor:
    """(...) int64: a draw from each row of cumulated chances (..., n) by a number (..., 1) in (0, 1)."""
    return (cdf <= u).sum(-1).clamp_max(cdf.shape[-1] - 1)
