"""Optimism: what a learner predicts of the next gradient before it plays, values of their own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from orbs import Feedback, reject

__all__ = ["Ahead", "Hints", "LastGradient", "LastLoss", "NoOptimism", "Optimism"]

HALVINGS = 80


class Ahead(NamedTuple):
    """What is known before a round is played.

    Attributes:
        prox: the point (R, d) for a prediction, None for a prediction of 0.
        seen: the last round's feedback; None before the first round.
        eta: the rate that `prox` uses, a number or (R,).
        anchor: z (R, d) where prox(M) is the projection of z - eta M, else None.
        contains: whether points lie in the domain, (R, d) -> (R,).
    """

    prox: Callable[[Tensor | None], Tensor]
    seen: Feedback | None
    eta: float | Tensor
    anchor: Tensor | None
    contains: Callable[[Tensor], Tensor]


class Optimism(ABC):
    """How the prediction M_t comes about."""

    @abstractmethod
    def play(self, ahead: Ahead) -> tuple[Tensor, Tensor | None]:
        """The next point and the prediction that it rests on, (R, d) each; None for a prediction of 0."""


@dataclass(frozen=True)
class NoOptimism(Optimism):
    """M_t = 0."""

    def play(self, ahead: Ahead) -> tuple[Tensor, Tensor | None]:
        return ahead.prox(None), None


@dataclass(frozen=True)
class LastGradient(Optimism):
    """M_t = g_{t-1}, and 0 at first."""

    def play(self, ahead: Ahead) -> tuple[Tensor, Tensor | None]:
        last = None if ahead.seen is None else ahead.seen.gradient
        return ahead.prox(last), last


@dataclass(frozen=True)
class Hints(Optimism):
    """M_t is what the caller gives by `learner.hint(M)` before `act`; 0 where it gives none."""

    def play(self, ahead: Ahead) -> tuple[Tensor, Tensor | None]:
        return ahead.prox(None), None


@dataclass(frozen=True)
class LastLoss(Optimism):
    """The last round's loss as a whole: x_t minimises f_{t-1}(x) + D(x, hat x_t) / eta_t.

    Needs no smoothness. x_t is the point of a prediction v in the subdifferential of f_{t-1} at x_t, which becomes
    M_t. Losses with one dual number: "absolute" |a.x - b| has v = s a with s in [-1, 1], "hinge" max(0, 1 - b a.x)
    has v = -s b a with s in [0, 1]; s is where the residual of the point for v vanishes, or the end that is nearest.
    `Feedback.terms` gives a ("features") and b ("target", a sign for the hinge).
    """

    term: Literal["absolute", "hinge"] = "absolute"

    def __post_init__(self) -> None:
        if self.term not in ("absolute", "hinge"):
            reject("LastLoss.term", "'absolute' or 'hinge'", repr(self.term), "predict other losses by LastGradient")

    def play(self, ahead: Ahead) -> tuple[Tensor, Tensor | None]:
        prox, seen, eta, anchor = ahead.prox, ahead.seen, ahead.eta, ahead.anchor
        if seen is None:
            return prox(None), None
        if "features" not in seen.terms or "target" not in seen.terms:
            given = ", ".join(seen.terms) or "none"
            reject("feedback.terms", "'features' and 'target' of the loss", given, "use LastGradient in this world")
        target = seen.terms["target"].unsqueeze(-1)
        if self.term == "absolute":
            direction, level, least = seen.terms["features"], target, -1.0
        else:  # in the form |a.x - b| has: direction -b a, residual 1 - b a.x = direction.x + 1
            direction, level, least = -target * seen.terms["features"], -torch.ones_like(target), 0.0

        def residual(point: Tensor) -> Tensor:
            found: Tensor = (direction * point).sum(-1, keepdim=True) - level
            return found

        if anchor is not None:
            # Without the projection the residual is linear in s.
            rate = eta.unsqueeze(-1) if isinstance(eta, Tensor) else eta
            length = rate * (direction * direction).sum(-1, keepdim=True)
            share = torch.where(length > 0, residual(anchor) / length.clamp_min(1e-300), 0.0).clamp_(least, 1.0)
            point = anchor - rate * share * direction
            if point.device.type == "cpu" and bool(ahead.contains(point).all()):
                return point, share * direction
        # The residual does not increase in s.
        low = torch.full_like(target, least)
        high = torch.ones_like(target)
        low = torch.where(residual(prox(direction)) >= 0, high, low)
        high = torch.where(residual(prox(least * direction)) <= 0, torch.full_like(high, least), high)
        for _ in range(HALVINGS):
            middle = 0.5 * (low + high)
            above = residual(prox(middle * direction)) >= 0
            low, high = torch.where(above, middle, low), torch.where(above, high, middle)
        prediction = 0.5 * (low + high) * direction
        return prox(prediction), prediction
