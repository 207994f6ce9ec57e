"""BEER: a bound of the Bellman equation on how alike consecutive features may be, as a penalty on any critic.

He, Zhou, Fang, Maghsudi, "Adaptive Regularization of Representation Rank as an Implicit Constraint of Bellman
Equation", ICLR 2024, arXiv 2404.12754. Where cos(phi(s, a), phi(s', a')) exceeds
U = (|phi|^2 + gamma^2 |phi'|^2 - r^2 / |w|^2) / (2 gamma |phi| |phi'|), the excess is added to the critic's loss. The
gradient passes through phi(s, a) in the cosine alone. Deliberate differences from the author's code (sweetice/BEER-
ICLR2024): it takes the online networks' phi' in U's numerator (`bound="author"`; here the slow ones' by default) and
does not mask terminals; U is +inf where a feature vector vanishes (the code's logged loss is then infinite or NaN).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from offline_rl.critics.interface import Batch, Critic, Evaluation, td_target
from orbs import reject

__all__ = ["BEERRegularizer", "Rank", "bound", "regulariser", "representation_rank"]

EPS = 1e-6


def bound(
    features: Tensor,
    next_features: Tensor,
    reward: Tensor,
    head_weight: Tensor,
    discount: float,
    *,
    next_features_online: Tensor | None = None,
    head_bias: Tensor | None = None,
) -> Tensor:
    """U, (R, E, B), without gradient; +inf where a norm is below 1e-6. Arguments as of `regulariser`."""
    norms = _norm(features), _norm(next_features), None if next_features_online is None else _norm(next_features_online)
    return _bound(*norms, reward, head_weight, discount, head_bias)


def regulariser(
    features: Tensor,
    next_features: Tensor,
    reward: Tensor,
    terminal: Tensor,
    head_weight: Tensor,
    discount: float,
    *,
    next_features_online: Tensor | None = None,
    head_bias: Tensor | None = None,
    mask_terminal: bool = True,
) -> Tensor:
    """max(cos(phi, phi') - U, 0), (R, E, B); everything but phi in the cosine is a constant.

    Args:
        features: (R, E, B, N), phi(s, a) of the online parameters.
        next_features: (R, E, B, N), phi(s', a') of the slow ones.
        reward, terminal: (R, B).
        head_weight: (R, E, N), w.
        discount: gamma, above 0.
        next_features_online: (R, E, B, N), phi(s', pi(s')) of the online parameters: given, it takes next_features'
            place in U's numerator ("author").
        head_bias: (R, E), b: given, U is made with r - (1 - gamma) b, which is exact where the value has a bias.
        mask_terminal: 0 at terminals, where the equation says nothing of the next pair.
    """
    ends = terminal if mask_terminal else None
    return _penalised(features, next_features, reward, ends, head_weight, discount, next_features_online, head_bias)[0]


def _penalised(
    features: Tensor,
    next_features: Tensor,
    reward: Tensor,
    terminal: Tensor | None,
    head_weight: Tensor,
    discount: float,
    next_features_online: Tensor | None,
    head_bias: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """The penalty, 0 at terminals where these are given, and U: (R, E, B) twice."""
    next_features = next_features.detach()
    norm, next_norm = _norm(features), _norm(next_features)
    longest = None if next_features_online is None else _norm(next_features_online)
    limit = _bound(norm, next_norm, longest, reward, head_weight, discount, head_bias)
    cosine = (features * next_features).sum(-1) / (norm.clamp(min=EPS) * next_norm.clamp(min=EPS))
    penalty = torch.relu(cosine - limit)
    return penalty if terminal is None else penalty * (1.0 - terminal.unsqueeze(1)), limit


@torch.no_grad()
def _bound(
    norm: Tensor,
    next_norm: Tensor,
    online_norm: Tensor | None,
    reward: Tensor,
    head_weight: Tensor,
    discount: float,
    head_bias: Tensor | None,
) -> Tensor:
    """U of the three features' norms, (R, E, B) each."""
    weight_norm = _norm(head_weight).unsqueeze(-1)
    rho = reward.unsqueeze(1)
    if head_bias is not None:
        rho = rho - (1.0 - discount) * head_bias.unsqueeze(-1)
    rho = rho / weight_norm
    longest = next_norm if online_norm is None else online_norm
    found = (norm.square() + discount**2 * longest.square() - rho.square()) / (2.0 * discount * norm * next_norm)
    degenerate = (norm < EPS) | (next_norm < EPS) | (weight_norm < EPS)
    return torch.where(degenerate, torch.inf, found)


def _norm(x: Tensor) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(x, dim=-1)
    return norm


class BEERRegularizer(Critic):
    """Any critic that exposes its features, with BEER's penalty in its loss; itself a critic.

    Loss: the inner one + weight * the penalty's mean over rows, summed over members, each with its own features and w.
    The pass of the slow parameters that makes y also gives phi'. With weight 0 it is the inner critic to the last bit.
    A critic whose backup is not its linear value (STAC's mu - beta sigma) is bounded as if it were. Metrics, besides
    the inner ones: beer_penalty, beer_active (share of rows above the bound), beer_bound (mean of U, clipped to +-1).

    Args:
        critic: the inner critic; its parameters, targets and optimiser are used as they are.
        weight: of the penalty; the author's is 1e-3.
        bound: "consistent", or "author", see `regulariser`.
        mask_terminal, bias_correct: see `regulariser`.
        policy: (R, B, obs_dim) -> (R, B, action_dim), the online actor without noise; for "author" alone.

    Raises:
        TypeError: a critic without features.
        ValueError: a weight below 0, an unknown bound, "author" without a policy, a discount of 0.
    """

    def __init__(
        self,
        critic: Critic,
        weight: float,
        bound: Literal["consistent", "author"] = "consistent",
        mask_terminal: bool = True,
        bias_correct: bool = False,
        policy: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        if not callable(getattr(critic, "head_weight", None)) or not callable(getattr(critic, "head_bias", None)):
            raise _no_features(critic)
        critic.head_weight()  # TypeError where there is none
        if not 0.0 <= weight < float("inf"):
            reject("beer", "a finite number of at least 0", weight, "e.g. beer=1e-3")
        if bound not in ("consistent", "author"):
            reject("beer_bound", "'consistent' or 'author'", repr(bound), "choose one of these")
        if bound == "author" and policy is None:
            reject("beer_bound", "a policy beside 'author'", "none", "pass policy=, or beer_bound='consistent'")
        if weight > 0.0 and not critic.discount > 0.0:
            reject("discount", "a number above 0 beside beer", critic.discount, "use beer=0")
        self.critic, self.weight = critic, weight
        self.parameters, self.target, self.optimiser = critic.parameters, critic.target, critic.optimiser
        self.discount, self.tau, self.members = critic.discount, critic.tau, critic.members
        self._mask_terminal, self._bias_correct = mask_terminal, bias_correct
        self._policy = policy if bound == "author" else None
        # What the last td_target was made of, and phi' from the same pass.
        self._shared: tuple[Tensor, Tensor, Tensor] | None = None

    @torch.no_grad()
    def td_target(self, batch: Batch, next_action: Tensor, bonus: Tensor | None = None) -> Tensor:
        if self.weight == 0.0:
            return self.critic.td_target(batch, next_action, bonus)
        evaluation = self.critic.evaluate(batch.next_obs, next_action, features=True, target=True)
        self._shared = (batch.next_obs, next_action, _features(self.critic, evaluation))
        backup = self.critic.combined(evaluation)
        return td_target(batch.reward, batch.terminal, backup if bonus is None else backup + bonus, self.discount)

    def loss(self, batch: Batch, target: Tensor, next_action: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        if self.weight == 0.0:
            return self.critic.loss(batch, target, next_action)
        evaluation = self.critic.evaluate(batch.obs, batch.action, features=True)
        features, next_features = _features(self.critic, evaluation), self._next_features(batch, next_action)
        loss, metrics = self.critic.evaluation_loss(evaluation, target)
        penalty, limit = _penalised(
            features,
            next_features,
            batch.reward,
            batch.terminal if self._mask_terminal else None,
            self.critic.head_weight(),
            self.discount,
            self._online_features(batch),
            self.critic.head_bias() if self._bias_correct else None,
        )
        found = penalty.detach()
        metrics |= {
            "beer_penalty": found.mean((1, 2)),
            "beer_active": (found > 0).to(found.dtype).mean((1, 2)),
            "beer_bound": limit.clamp(-1.0, 1.0).mean((1, 2)),
        }
        return loss + self.weight * penalty.mean(2).sum(1), metrics

    @torch.no_grad()
    def _next_features(self, batch: Batch, next_action: Tensor) -> Tensor:
        shared = self._shared
        if shared is not None and shared[0] is batch.next_obs and shared[1] is next_action:
            return shared[2]
        evaluation = self.critic.evaluate(batch.next_obs, next_action, features=True, target=True)
        return _features(self.critic, evaluation)

    @torch.no_grad()
    def _online_features(self, batch: Batch) -> Tensor | None:
        if self._policy is None:
            return None
        evaluation = self.critic.evaluate(batch.next_obs, self._policy(batch.next_obs), features=True)
        return _features(self.critic, evaluation)

    def begin(self, step: int) -> None:
        self._shared = None
        self.critic.begin(step)

    def sync_target(self) -> None:
        self._shared = None  # no longer what the slow parameters give
        self.critic.sync_target()

    # The rest is the inner critic's.

    def evaluate(self, obs: Tensor, action: Tensor, features: bool = False, target: bool = False) -> Evaluation:
        return self.critic.evaluate(obs, action, features, target)

    def combined(self, evaluation: Evaluation) -> Tensor:
        return self.critic.combined(evaluation)

    def evaluation_loss(self, evaluation: Evaluation, target: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The inner critic's: the penalty needs a pair of evaluations, see `loss`."""
        return self.critic.evaluation_loss(evaluation, target)

    def actor_value(self, obs: Tensor, action: Tensor) -> Tensor:
        return self.critic.actor_value(obs, action)

    def backup_value(self, next_obs: Tensor, next_action: Tensor) -> Tensor:
        return self.critic.backup_value(next_obs, next_action)

    def online_value(self, obs: Tensor, action: Tensor) -> Tensor:
        return self.critic.online_value(obs, action)

    def head_weight(self) -> Tensor:
        return self.critic.head_weight()

    def head_bias(self) -> Tensor:
        return self.critic.head_bias()

    def minimise(self, loss: Tensor) -> None:
        self.critic.minimise(loss)

    def train(self) -> None:
        self.critic.train()

    def eval(self) -> None:
        self.critic.eval()

    def state(self) -> dict[str, Tensor]:
        return self.critic.state()


def _no_features(critic: object) -> TypeError:
    expected = "a critic that exposes features, head_weight() and head_bias()"
    return TypeError(f"beer: expected {expected}, got {type(critic).__name__}. Fix: choose another critic, or beer=0.")


def _features(critic: Critic, evaluation: Evaluation) -> Tensor:
    if evaluation.features is None:
        raise _no_features(critic)
    return evaluation.features


class Rank(NamedTuple):
    """eps: singular values of X / sqrt(n) above eps; srank: leading ones that hold 1 - delta of their sum. float64."""

    eps: Tensor
    srank: Tensor


@torch.no_grad()
def representation_rank(features: Tensor, eps: float = 0.01, delta: float = 0.01) -> Rank:
    """Two ranks of features X (..., n, N), shaped (...): NaN where a feature is not finite, as of a diverged run.

    Compare at one n, of at least 2048 states.

    Raises:
        ValueError: no rows.
    """
    rows = features.shape[-2]
    if rows == 0:
        reject("representation_rank.features", "at least one row", f"shape {tuple(features.shape)}", "give states")
    finite = torch.isfinite(features).all(-1).all(-1)
    kept = torch.where(finite[..., None, None], features, torch.zeros_like(features))
    values = torch.linalg.svdvals(kept) / rows**0.5
    total = values.sum(-1, keepdim=True)
    srank = ((values.cumsum(-1) < (1.0 - delta) * total).sum(-1) + (total.squeeze(-1) > 0)).to(torch.float64)
    ranks = ((values > eps).sum(-1).to(torch.float64), srank)
    return Rank(*(torch.where(finite, rank, torch.nan) for rank in ranks))
