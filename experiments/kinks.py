"""The best fixed point in hindsight for losses with kinks: a primal-dual interior point method on a ball.

Both losses are max over low <= s <= 1 of s r, r = c.x - e: |a.x - b| with c = a, e = b, low = -1, and the hinge
max(0, 1 - b a.x) with c = -b a, e = -1, low = 0. With r = u - v, u, v >= 0, and a multiplier l of ||x|| <= radius,
Newton's method goes along u (1 - s) = v (s - low) = l (radius^2 - ||x||^2) = mu to mu = 0; sum s c + 2 l x = 0 there.
Any s gives a certificate: no point has a value below sum s r(x) - max over the ball of <sum s c, x - .>.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from envs.hindsight import Hindsight

__all__ = ["minimise"]

STEPS = 100  # 12 to 30 are needed
INSIDE = 0.9


class _Rounds:
    """The rounds as rows (c, e), block by block, each with its s, u and v (R, rounds of the block)."""

    def __init__(self, losses: Hindsight, x: Tensor) -> None:
        self.losses, self.low = losses, -1.0 if losses.link.name == "absolute" else 0.0
        self.state: list[tuple[Tensor, Tensor, Tensor]] = []
        for c, e in self.rows():
            r = _residual(c, e, x)
            # Far enough from 0 on both sides.
            margin = r.abs().mean(1, keepdim=True) + 1e-3
            u = r.clamp_min(0.0) + margin
            self.state.append((torch.full_like(r, 0.5 * (1.0 + self.low)), u, u - r))

    def rows(self) -> Iterator[tuple[Tensor, Tensor]]:
        for features, target in self.losses._blocks():
            if self.low < 0:
                yield features, target
            else:
                yield -target.unsqueeze(-1) * features, torch.full_like(target, -1.0)

    def complementarity(self) -> Tensor:
        """(R,) the mean of u (1 - s) and v (s - low): 0 at the solution."""
        parts = [(u * (1 - s) + v * (s - self.low)).sum(1) for s, u, v in self.state]
        return torch.stack(parts).sum(0) / (2 * self.losses.rounds)


def _residual(c: Tensor, e: Tensor, x: Tensor) -> Tensor:
    return (c * x.unsqueeze(1)).sum(-1) - e


def minimise(losses: Hindsight, radius: float, start: Tensor, tolerance: float) -> tuple[Tensor, Tensor, Tensor]:
    """Point (R, d), value (R,) and certified gap (R,) of the sum of the losses on the ball of that radius.

    The gap is at most tolerance max(1, |value|), unless the method breaks down. A run that is there is frozen: what the
    others need changes none of its bits.
    """
    inside = INSIDE * radius / (start * start).sum(-1, keepdim=True).sqrt().clamp_min(1e-300)
    x = start * inside.clamp_max(1.0)
    rounds = _Rounds(losses, x)
    low = rounds.low
    eye = torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
    room = radius**2 - (x * x).sum(-1)
    mu = rounds.complementarity()
    level, sigma = mu / room, torch.full_like(mu, 0.1)
    value, gap = _certificate(rounds, radius, x)
    best = (x, value, gap)
    for _ in range(STEPS):
        open_ = ~(best[2] <= tolerance * best[1].abs().clamp_min(1.0))
        if not open_.any():
            break
        aim = sigma * mu
        # The Newton system in x; s, u, v and the level follow from its step.
        bent = (2 * level)[:, None, None] * eye + (4 * level / room)[:, None, None] * x.unsqueeze(1) * x.unsqueeze(2)
        right = -2 * level.unsqueeze(-1) * x - 2 * x * ((aim - level * room) / room).unsqueeze(-1)
        for (c, e), (s, u, v) in zip(rounds.rows(), rounds.state, strict=True):
            weight, off = _weights(c, e, x, s, u, v, low, aim)
            bent = bent + (c * weight.unsqueeze(-1)).transpose(1, 2) @ c
            right = right + (c * (weight * off - s).unsqueeze(-1)).sum(1)
        # Directions without data have almost no curvature: enough of it for the factorisation.
        bent = bent + 1e-14 * bent.diagonal(dim1=-2, dim2=-1).sum(-1)[:, None, None] * eye
        usable = bent.isfinite().flatten(1).all(1) & right.isfinite().all(1)
        factor, failed = torch.linalg.cholesky_ex(torch.where(usable[:, None, None], bent, eye))
        open_ &= usable & (failed == 0)
        step = torch.cholesky_solve(torch.where(open_[:, None], right, 0.0).unsqueeze(-1), factor).squeeze(-1)
        level_step = (aim - level * room + 2 * level * (x * step).sum(-1)) / room
        length = torch.minimum(_to_sphere(x, step, radius), _longest(level, level_step))
        moves = []
        for (c, e), (s, u, v) in zip(rounds.rows(), rounds.state, strict=True):
            weight, off = _weights(c, e, x, s, u, v, low, aim)
            ds = weight * ((c * step.unsqueeze(1)).sum(-1) - off)
            du = aim.unsqueeze(1) / (1 - s) - u + u / (1 - s) * ds
            dv = aim.unsqueeze(1) / (s - low) - v - v / (s - low) * ds
            for one, change in ((u, du), (v, dv), (1 - s, -ds), (s - low, ds)):
                length = torch.minimum(length, _longest(one, change).amin(1))
            moves.append((ds, du, dv))
        length = torch.where(open_, (0.99 * length).clamp_max(1.0), 0.0)
        x, level = x + length.unsqueeze(-1) * step, level + length * torch.where(open_, level_step, 0.0)
        far = length.unsqueeze(1)
        rounds.state = [
            tuple(torch.where(far > 0, one + far * change, one) for one, change in zip(state, move, strict=True))  # type: ignore[misc]
            for state, move in zip(rounds.state, moves, strict=True)
        ]
        room = radius**2 - (x * x).sum(-1)
        mu = rounds.complementarity()
        sigma = torch.where(length > 0.8, 0.05, torch.where(length > 0.3, 0.2, 0.6)).to(mu)
        value, gap = _certificate(rounds, radius, x)
        better = (gap < best[2]) & open_
        best = (
            torch.where(better[:, None], x, best[0]),
            torch.where(better, value, best[1]),
            torch.where(better, gap, best[2]),
        )
        if not bool((length > 0).any()):
            break
    return best


def _weights(
    c: Tensor, e: Tensor, x: Tensor, s: Tensor, u: Tensor, v: Tensor, low: float, aim: Tensor
) -> tuple[Tensor, Tensor]:
    """ds = weight (c.dx - off), each (R, rounds)."""
    over, under, aim = 1 - s, s - low, aim.unsqueeze(1)
    off = (u - v - _residual(c, e, x)) + aim / over - u - aim / under + v
    return 1 / (u / over + v / under), off


def _longest(value: Tensor, change: Tensor) -> Tensor:
    """The longest step that keeps the values positive, elementwise."""
    return torch.where(change < 0, -value / change, math.inf)


def _to_sphere(x: Tensor, step: Tensor, radius: float) -> Tensor:
    """(R,) how far along the step the sphere is."""
    a, b = (step * step).sum(-1), (x * step).sum(-1)
    room = radius**2 - (x * x).sum(-1)
    root = torch.sqrt((b * b + a * room).clamp_min(0.0))
    # The root's form without cancellation, for either sign of b.
    return torch.where(a > 0, torch.where(b > 0, room / (b + root), (root - b) / a.clamp_min(1e-300)), math.inf)


def _certificate(rounds: _Rounds, radius: float, x: Tensor) -> tuple[Tensor, Tensor]:
    value, slack, total = torch.zeros_like(x[:, 0]), torch.zeros_like(x[:, 0]), torch.zeros_like(x)
    for (c, e), (s, _, _) in zip(rounds.rows(), rounds.state, strict=True):
        r = _residual(c, e, x)
        loss = torch.maximum(r, rounds.low * r)
        value += loss.sum(1)
        slack += torch.where(r > 0, (1 - s) * r, (rounds.low - s) * r).sum(1)
        total += (c * s.unsqueeze(-1)).sum(1)
    return value, slack + (total * x).sum(-1) + radius * (total * total).sum(-1).sqrt()
